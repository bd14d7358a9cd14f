"""Stage 5: a real engine on a model of some gigabytes: loads, a switch, speed, restarts, an upgrade."""

import contextlib
import json
import os
import shutil
import statistics
import subprocess
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path

from live.common import recipectl, show

from gpu.host import (
    FOLDER,
    Options,
    Table,
    applied,
    gpu,
    monotonic,
    remove,
    started,
    used_mib,
    wait_for_answer,
    write_recipe,
)

A, B = "gpu-proof-a", "gpu-proof-b"
PORTS = {A: 18331, B: 18332}
OUTSIDE_PORT = 18339
ROUNDS = 7
SENTENCE = " a recipe names an engine and its model"  # of tests/tiny_model


def _flags(options: Options) -> list[str]:
    return [] if options.stand_in else ["--n-gpu-layers", "999"]


def _write(options: Options, server: Path, model: Path, **fields: object) -> None:
    for name, port in PORTS.items():
        write_recipe(name, {
            "backend": "llamacpp", "binary": str(server), "model_path": str(model), "port": port, "gpus": "0",
            "max_model_len": 2048, "args": _flags(options), "service": dict(options.breaks), **fields,
        })  # fmt: skip
    applied(A, B)


def _command(options: Options, server: Path, model: Path, port: int) -> list[str]:
    return [str(server), "--model", str(model), "--port", str(port), "--ctx-size", "2048", *_flags(options)]


def _tokens_per_sec(port: int, tokens: int) -> float:
    body = {
        "prompt": "a recipe",
        "n_predict": tokens,
        "ignore_eos": True,
        "temperature": 0,
        "cache_prompt": False,
    }
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}/completion", json.dumps(body).encode(), {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=120) as answer:
        return float(json.load(answer)["timings"]["predicted_per_second"])


def _text(port: int) -> str:
    body = {"messages": [{"role": "user", "content": "?"}], "max_tokens": 16, "temperature": 0}
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}/v1/chat/completions",
        json.dumps(body).encode(),
        {"Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=120) as answer:
        return str(json.load(answer)["choices"][0]["message"]["content"])


def _timed(action: Callable[[], object]) -> float:
    begin = time.monotonic()
    action()
    return time.monotonic() - begin


def _forget(model: Path) -> None:
    """The page cache drops the file."""
    descriptor = os.open(model, os.O_RDONLY)
    os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
    os.close(descriptor)


class ByHand:
    """The engine as a child of this process."""

    def __init__(self, options: Options, server: Path, model: Path, port: int) -> None:
        self.port = port
        log = subprocess.DEVNULL
        self.process = subprocess.Popen(
            _command(options, server, model, port), stdout=log, stderr=log, cwd="/"
        )
        wait_for_answer(port, self.process)

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait(timeout=60)


def _loads(options: Options, table: Table, server: Path, model: Path) -> None:
    by_hand, unit = [], []
    for _ in range(3):
        begin = time.monotonic()
        engine = ByHand(options, server, model, OUTSIDE_PORT)
        by_hand.append(time.monotonic() - begin)
        engine.stop()
        unit.append(_timed(lambda: started(A)))
        recipectl("stop", A)
    table.add("load", "start to ready, weights in the page cache: unit, by hand",
              f"{statistics.median(unit):.2f} s, {statistics.median(by_hand):.2f} s")  # fmt: skip
    _forget(model)
    cold = _timed(lambda: started(A))
    table.add("load-cold", "start to ready, weights on the disk", f"{cold:.2f} s")


def _switches(options: Options, table: Table, server: Path, model: Path) -> None:
    unit = []
    for index in range(4):
        target = (B, A)[index % 2]
        unit.append(_timed(lambda target=target: recipectl("switch", target)))  # type: ignore[misc]
        if show(target, "ActiveState") != "active":
            table.add(
                "switch", "switch between two models", f"{target} is {show(target, 'ActiveState')}", False
            )
            return
    recipectl("stop", A), recipectl("stop", B)
    engine = ByHand(options, server, model, OUTSIDE_PORT)
    by_hand = []
    for _ in range(4):
        begin = time.monotonic()
        engine.stop()
        engine = ByHand(options, server, model, OUTSIDE_PORT)
        by_hand.append(time.monotonic() - begin)
    engine.stop()
    table.add("switch", "switch between two models: recipectl, by hand",
              f"{statistics.median(unit):.2f} s, {statistics.median(by_hand):.2f} s")  # fmt: skip


def _ordered(options: Options, table: Table, server: Path, model: Path) -> None:
    """Two models that share the GPU: started at once, one loads when the other is ready."""
    _write(options, server, model, gpu_sharing="ordered")
    subprocess.run(["systemctl", "start", f"model-{A}.service", f"model-{B}.service"], check=True)
    first, second = sorted((monotonic(name, "ExecMainStartTimestamp"), name) for name in (A, B))
    after = second[0] - monotonic(first[1], "ActiveEnterTimestamp")
    table.add(
        "ordered",
        "gpu_sharing: ordered: the second begins after the first is ready",
        f"{after * 1000:.0f} ms",
        after > 0,
    )
    recipectl("stop", A, B)
    _write(options, server, model)


def _speed(options: Options, table: Table, server: Path, model: Path) -> None:
    """Tokens a second inside the unit and outside, in turns."""
    tokens = 16 if options.stand_in else 256
    started(A)
    outside = ByHand(options, server, model, OUTSIDE_PORT)
    try:
        pairs = []
        for index in range(ROUNDS + 1):
            order = (PORTS[A], OUTSIDE_PORT) if index % 2 else (OUTSIDE_PORT, PORTS[A])
            speeds = {port: _tokens_per_sec(port, tokens) for port in order}
            pairs.append((speeds[PORTS[A]], speeds[OUTSIDE_PORT]))
        pairs = pairs[1:]  # the first warms up
    finally:
        outside.stop()
    share = statistics.median(inside / out for inside, out in pairs)
    inside, out = (statistics.median(values) for values in zip(*pairs, strict=True))
    table.add("speed", "tokens a second inside the unit, outside (at least 99 %)",
              f"{inside:.0f}, {out:.0f} ({share:.1%})", share >= (0.6 if options.stand_in else 0.99))  # fmt: skip


def _restarts(table: Table, model: Path) -> None:
    warm = _timed(lambda: recipectl("restart", A))
    recipectl("stop", A)
    _forget(model)
    cold = _timed(lambda: started(A))
    works = _tokens_per_sec(PORTS[A], 8) > 0
    table.add(
        "restart",
        "restart with the weights in the page cache, start without",
        f"{warm:.2f} s, {cold:.2f} s",
        works,
    )


def _upgrade(options: Options, table: Table, server: Path, model: Path) -> None:
    """Another folder of the engine, then one that does not start, then the first again."""
    new, wrong = FOLDER / "engine-2/llama-server", FOLDER / "engine-3/llama-server"
    for path in (new, wrong):
        path.parent.mkdir(exist_ok=True)
    shutil.copy(server, new)
    wrong.write_text("#!/bin/sh\necho 'libcudart.so.99: cannot open shared object file' >&2\nexit 127\n")
    wrong.chmod(0o755)
    _write(options, new, model)
    recipectl("wait", A)
    ran = _tokens_per_sec(PORTS[A], 8) > 0
    program = Path(f"/proc/{show(A, 'MainPID')}/cmdline").read_text()
    table.add("upgrade", "an upgrade: `apply` restarts the model with the new engine", program.split("\0")[0],
              ran and str(new) in program)  # fmt: skip
    _write(options, wrong, model)
    failed = recipectl("start", A, timeout_sec=120)
    said = "libcudart.so.99" in failed.stdout + failed.stderr + recipectl("logs", A, "--no-pager").stdout
    table.add("upgrade-fails", "an upgrade that does not start is told",
              f"status {failed.returncode}, the engine's words {'shown' if said else 'not shown'}",
              failed.returncode != 0 and said)  # fmt: skip
    _write(options, server, model)
    recipectl("start", A)
    program = Path(f"/proc/{show(A, 'MainPID')}/cmdline").read_text()
    table.add("rollback", "a rollback: the earlier recipe, and it answers", program.split("\0")[0],
              str(server) in program and _tokens_per_sec(PORTS[A], 8) > 0)  # fmt: skip


def run(options: Options, table: Table) -> None:
    server, model = options.server, options.model
    if server is None or model is None:
        table.add("engine", "a real engine", "no engine and no model are at hand", None)
        return
    handle = gpu()
    FOLDER.mkdir(mode=0o755, exist_ok=True)
    version = subprocess.run([server, "--version"], capture_output=True, text=True, check=False, timeout=60)
    lines = [line for line in (version.stdout + version.stderr).splitlines() if "version" in line.lower()]
    table.add(
        "engine",
        "engine, model",
        f"{(lines or ['version unknown'])[0].strip()}; {model.stat().st_size / 1e9:.1f} GB",
    )
    base = used_mib(handle)
    try:
        _write(options, server, model)
        started(A)
        table.add("engine-memory", "memory of the GPU that it uses", f"{used_mib(handle) - base} MiB",
                  None if options.stand_in else used_mib(handle) - base > model.stat().st_size >> 21)  # fmt: skip
        said = _text(PORTS[A])
        right = SENTENCE if model.name == "random.gguf" else said
        table.add("answer", "what it answers", said, bool(said) and said == right)
        recipectl("stop", A)
        _loads(options, table, server, model)
        _switches(options, table, server, model)
        _ordered(options, table, server, model)
        _speed(options, table, server, model)
        _restarts(table, model)
        _upgrade(options, table, server, model)
    finally:
        remove(A, B)
        with contextlib.suppress(OSError):
            shutil.rmtree(FOLDER / "engine-2")
            shutil.rmtree(FOLDER / "engine-3")
