"""The output of a program within limits: what it says may be hostile, and so may be how much."""

import contextlib
import os
import selectors
import signal
import subprocess
import time
from typing import Any, NamedTuple


class Output(NamedTuple):
    """How a program has ended, and what it has said."""

    status: int
    stdout: bytes
    stderr: bytes


def output_of(process: subprocess.Popen[bytes], text: str, *, max_bytes: int, timeout_sec: float) -> Output:
    """The output of a program that gets a text; it has three pipes and a session of its own.

    SubprocessError for a program that says more than `max_bytes`, TimeoutExpired for one that takes longer.
    """
    end = time.monotonic() + timeout_sec
    outputs: dict[Any, bytearray] = {process.stdout: bytearray(), process.stderr: bytearray()}
    try:
        with contextlib.suppress(BrokenPipeError), process.stdin as stdin:  # type: ignore[union-attr]
            stdin.write(text.encode())
        with selectors.DefaultSelector() as selector:
            for pipe in outputs:
                selector.register(pipe, selectors.EVENT_READ)
            while selector.get_map():
                ready = selector.select(max(end - time.monotonic(), 0))
                if not ready:
                    raise subprocess.TimeoutExpired(process.args, timeout_sec)
                for key, _ in ready:
                    part = os.read(key.fd, 65536)
                    outputs[key.fileobj] += part
                    if not part:
                        selector.unregister(key.fileobj)
                    if len(outputs[key.fileobj]) > max_bytes:
                        raise subprocess.SubprocessError(f"it says more than {max_bytes} bytes")
        status = process.wait(max(end - time.monotonic(), 0))
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)  # also what it has left behind
        process.wait()
    return Output(status, *map(bytes, outputs.values()))
