"""Stage 3: when the GPU's memory is free after an end, beside systemd's states and the start of the successor."""

import os
import signal
import statistics
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

from live.common import recipectl, until

from gpu.host import (
    Options,
    Sampler,
    Table,
    applied,
    get,
    gpu,
    monotonic,
    remove,
    server_recipe,
    show,
    started,
    used_mib,
    wait_until_free,
)  # fmt: skip

A, B = "gpu-proof-a", "gpu-proof-b"
PORTS = {A: 18311, B: 18312}
HOLD_MIB = 8192
TIMES = int(os.environ.get("GPU_PROOF_TIMES", "10"))


_OWN_SEC = 0.04  # in which no successor takes memory of its own


@dataclass(frozen=True)
class Ended:
    """Seconds from the action; `held_at_start`: the successor's process began while memory was in use.

    None: no sample was near enough to its start, for the machine was too busy.
    """

    free: float
    inactive: float
    successor: float
    held_at_start: bool | None


def _main_pid(name: str) -> int:
    return int(show(name, "MainPID"))


def _worker(name: str) -> int:
    main = _main_pid(name)
    children = Path(f"/proc/{main}/task/{main}/children").read_text().split()
    return int(children[0])


def _stop() -> float:
    """systemd may forget a stopped unit with its times: the end of `systemctl stop` counts."""
    subprocess.run(["systemctl", "stop", f"model-{A}.service"], check=True)
    stopped = time.monotonic()
    subprocess.run(["systemctl", "start", f"model-{A}.service"], check=True)
    return stopped


def _evict() -> None:
    if recipectl("switch", B).returncode:
        raise SystemExit(f"gpu-proof: {B} did not start")


ACTIONS = {
    "stop": ("systemctl stop, then start", A, _stop),
    "kill": ("kill -9 of the main process", A, lambda: os.kill(_main_pid(A), signal.SIGKILL)),
    "worker": ("kill -9 of a worker", A, lambda: os.kill(_worker(A), signal.SIGKILL)),
    "evict": ("eviction by another model", B, _evict),
    "abort": ("abort of the main process", A, lambda: os.kill(_main_pid(A), signal.SIGABRT)),
}


def _once(action: str, handle: object, base: int, options: Options) -> Ended:
    """One end of A. Its memory counts as free when less than an eighth of it is in use."""
    _, successor, do = ACTIONS[action]
    subprocess.run(["systemctl", "reset-failed", f"model-{A}.service"], check=False)
    if show(A, "ActiveState") != "active":
        started(A)
    held = used_mib(handle) - base
    if held < 512:
        raise SystemExit(f"gpu-proof: {A} holds {held} MiB, which is too little to see")
    before = monotonic(successor, "ExecMainStartTimestamp")
    sampler = Sampler(handle, options)
    begin = time.monotonic()
    stopped = do()
    while monotonic(successor, "ExecMainStartTimestamp") == before:
        time.sleep(0.1)  # each look is a systemctl, which takes the processor from what is measured
    until(successor, "ActiveState", "active", 120)
    samples = sampler.stop()
    start = monotonic(successor, "ExecMainStartTimestamp")
    inactive = stopped or monotonic(A, "InactiveEnterTimestamp")
    limit = base + held // 8
    free = next((at for at, used in samples if at > begin and used < limit), samples[-1][0])
    freed_before = any(begin < at < start for at, used in samples if used < limit)
    near = [used >= limit for at, used in samples if start <= at < start + _OWN_SEC]
    held_at_start = False if freed_before else near[0] if near else None
    return Ended(free - begin, inactive - begin, start - begin, held_at_start)


def _span(values: list[float]) -> str:
    return f"{statistics.median(values) * 1000:.0f} ms (at most {max(values) * 1000:.0f})"


def run(options: Options, table: Table) -> None:
    handle = gpu()
    base = used_mib(handle)
    table.add("memory-base", "memory in use before", f"{base} MiB", base < 1024)
    if base >= 1024:
        return
    variables = {"GPU_PROOF_HOLD_MIB": str(HOLD_MIB), "GPU_PROOF_WORKER": "1"}
    service = {"RestartSec": "100ms"}
    try:
        for name, port in PORTS.items():
            server_recipe(options, name, port, gpus="0", env_vars=variables, service=dict(service))
        applied(A, B)
        started(A)
        table.add(
            "memory-held", "memory in use while a model and its worker run", f"{used_mib(handle) - base} MiB"
        )
        for action, (what, *_) in ACTIONS.items():
            ends = [_once(action, handle, base, options) for _ in range(TIMES)]
            get(PORTS[ACTIONS[action][1]], "/v1/models")
            table.add(f"{action}-free", f"{what}: memory is free after", _span([end.free for end in ends]))
            table.add(
                f"{action}-inactive",
                f"{what}: systemd says inactive after",
                _span([end.inactive for end in ends]),
            )
            table.add(
                f"{action}-successor",
                f"{what}: the successor starts after",
                _span([end.successor for end in ends]),
            )
            held = [end.held_at_start for end in ends]
            holds = False if True in held else None if {*held} == {None} else True
            table.add(
                f"{action}-held",
                f"{what}: successors that started with memory held",
                f"{held.count(True)} of {TIMES}",
                holds,
            )
    finally:
        remove(A, B)
    free = wait_until_free(handle, base)
    table.add("memory-after", "memory in use after all", f"{used_mib(handle)} MiB", free)
