"""Stage 5: a real engine on a model of some gigabytes: loads, a switch, speed, restarts, an upgrade."""

import contextlib
import json
import os
import re
import shutil
import statistics
import subprocess
import time
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from live.common import recipectl, show

from gpu.host import (
    FOLDER,
    Options,
    Table,
    applied,
    end_process,
    get,
    gpu,
    monotonic,
    output,
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
MAX_LEN = 512
SENTENCE = "a recipe names an engine and its model"  # of tests/tiny_model


@dataclass(frozen=True)
class Engine:
    """llama-server and a GGUF file, or a venv's vllm and a folder: the recipe, and the same command without a unit."""

    options: Options
    server: Path
    model: Path

    @property
    def is_vllm(self) -> bool:
        return self.server.name == "vllm"

    @property
    def repeats(self) -> int:
        """How often a load is measured: vLLM's take long."""
        return 1 if self.is_vllm else 3

    @property
    def files(self) -> list[Path]:
        """The files of the model."""
        return (
            [path for path in self.model.iterdir() if path.is_file()] if self.model.is_dir() else [self.model]
        )

    @property
    def _flags(self) -> list[str]:
        if not self.is_vllm:
            return [] if self.options.stand_in else ["--n-gpu-layers", "999"]
        cpu = [
            "--dtype",
            "float32",
            "--enforce-eager",
            "--kv-cache-memory-bytes",
            "64M",
            "--max-num-seqs",
            "4",
        ]
        return cpu if self.options.stand_in else ["--gpu-memory-utilization", "0.3"]

    def fields(self) -> dict[str, object]:
        """The engine's part of a recipe."""
        venv = {"backend": "vllm", "venv_path": str(self.server.parents[1]), "host": "127.0.0.1"}
        binary = {"backend": "llamacpp", "binary": str(self.server)}
        common = {"model_path": str(self.model), "max_model_len": MAX_LEN, "args": self._flags}
        return (venv if self.is_vllm else binary) | common

    def command(self, port: int) -> list[str]:
        """The same engine by hand."""
        if self.is_vllm:
            words = [
                self.server,
                "serve",
                self.model,
                "--host",
                "127.0.0.1",
                "--port",
                port,
                "--max-model-len",
                MAX_LEN,
            ]
        else:
            words = [self.server, "--model", self.model, "--port", port, "--ctx-size", MAX_LEN]
        return [*map(str, words), *self._flags]

    def write(self, **fields: object) -> None:
        """Write and apply the recipes of both models."""
        for name, port in PORTS.items():
            service = dict(self.options.breaks)
            write_recipe(name, {**self.fields(), "port": port, "gpus": "0", "service": service, **fields})
        applied(A, B)


def _post(port: int, path: str, body: dict[str, object]) -> dict[str, object]:
    models = get(port, "/v1/models")["data"]
    text = json.dumps({"model": models[0]["id"], "temperature": 0} | body)  # type: ignore[index]
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}{path}", text.encode(), {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=120) as answer:
        return dict(json.load(answer))


def _tokens_per_sec(port: int, tokens: int) -> float:
    begin = time.monotonic()
    answer = _post(port, "/v1/completions", {"prompt": "a recipe", "max_tokens": tokens, "ignore_eos": True})
    return float(answer["usage"]["completion_tokens"]) / (time.monotonic() - begin)  # type: ignore[index]


def _text(port: int) -> str:
    body = {"messages": [{"role": "user", "content": "?"}], "max_tokens": 16}
    answer = _post(port, "/v1/chat/completions", body)
    return str(answer["choices"][0]["message"]["content"])  # type: ignore[index]


def _timed(action: Callable[[], object]) -> float:
    begin = time.monotonic()
    action()
    return time.monotonic() - begin


def _forget(engine: Engine) -> None:
    """The page cache drops the model's files."""
    for path in engine.files:
        descriptor = os.open(path, os.O_RDONLY)
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(descriptor)


class ByHand:
    """The engine as a child of this process."""

    def __init__(self, engine: Engine, port: int) -> None:
        log = subprocess.DEVNULL
        self.process = subprocess.Popen(engine.command(port), stdout=log, stderr=log, cwd="/")
        wait_for_answer(port, self.process)

    def stop(self) -> None:
        end_process(self.process)


def _loads(engine: Engine, table: Table, first_sec: float) -> None:
    """vLLM loads for half a minute and more: its first start counts, and `_restarts` has one without page cache."""
    by_hand, unit = [], [first_sec] if engine.is_vllm else []
    for _ in range(engine.repeats):
        begin = time.monotonic()
        running = ByHand(engine, OUTSIDE_PORT)
        by_hand.append(time.monotonic() - begin)
        running.stop()
        if not engine.is_vllm:
            unit.append(_timed(lambda: started(A)))
            recipectl("stop", A)
    table.add("load", "start to ready, weights in the page cache: unit, by hand",
              f"{statistics.median(unit):.2f} s, {statistics.median(by_hand):.2f} s")  # fmt: skip
    if not engine.is_vllm:
        _forget(engine)
        table.add("load-cold", "start to ready, weights on the disk", f"{_timed(lambda: started(A)):.2f} s")


def _switches(engine: Engine, table: Table) -> None:
    unit, by_hand = [], []
    for target in (B, A) * engine.repeats:
        unit.append(_timed(lambda target=target: recipectl("switch", target)))  # type: ignore[misc]
        if (state := show(target, "ActiveState")) != "active":
            table.add("switch", "switch between two models", f"{target} is {state}", False)
            return
    recipectl("stop", A), recipectl("stop", B)
    running = ByHand(engine, OUTSIDE_PORT)
    for _ in range(engine.repeats):
        begin = time.monotonic()
        running.stop()
        running = ByHand(engine, OUTSIDE_PORT)
        by_hand.append(time.monotonic() - begin)
    running.stop()
    table.add("switch", "switch between two models: recipectl, by hand",
              f"{statistics.median(unit):.2f} s, {statistics.median(by_hand):.2f} s")  # fmt: skip


def _ordered(engine: Engine, table: Table) -> None:
    """Two models that share the GPU: started at once, one loads when the other is ready."""
    engine.write(gpu_sharing="ordered")
    subprocess.run(["systemctl", "start", f"model-{A}.service", f"model-{B}.service"], check=True)
    first, second = sorted((monotonic(name, "ExecMainStartTimestamp"), name) for name in (A, B))
    after = second[0] - monotonic(first[1], "ActiveEnterTimestamp")
    table.add("ordered", "gpu_sharing: ordered: the second begins after the first is ready",
              f"{after * 1000:.0f} ms", after > 0)  # fmt: skip
    recipectl("stop", A, B)
    engine.write()


def _speed(engine: Engine, table: Table) -> None:
    """Tokens a second inside the unit and outside, in turns."""
    tokens = 16 if engine.options.stand_in else 256
    started(A)
    outside = ByHand(engine, OUTSIDE_PORT)
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
    least = 0.6 if engine.options.stand_in else 0.99  # a few tokens on a busy machine measure little
    table.add("speed", "tokens a second inside the unit, outside (at least 99 %)",
              f"{inside:.0f}, {out:.0f} ({share:.1%})", share >= least)  # fmt: skip


def _restarts(engine: Engine, table: Table) -> None:
    warm = _timed(lambda: recipectl("restart", A))
    recipectl("stop", A)
    _forget(engine)
    cold = _timed(lambda: started(A))
    table.add("restart", "restart with the weights in the page cache, start without", f"{warm:.2f} s, {cold:.2f} s",
              _tokens_per_sec(PORTS[A], 8) > 0)  # fmt: skip


def _runs(engine: Engine) -> bool:
    """True if the model answers, and runs this engine's program."""
    command = Path(f"/proc/{show(A, 'MainPID')}/cmdline").read_bytes().decode(errors="replace")
    return _tokens_per_sec(PORTS[A], 8) > 0 and str(engine.server) in command


def _upgrade(engine: Engine, table: Table) -> None:
    """Another folder of the engine, then one that does not start, then the first again."""
    folder = FOLDER / "engine-2"
    if engine.is_vllm:
        folder.symlink_to(engine.server.parents[1])
        new = replace(engine, server=folder / "bin/vllm")
    else:
        folder.mkdir()
        new = replace(engine, server=Path(shutil.copy(engine.server, folder)))
    new.write()
    recipectl("wait", A)
    table.add("upgrade", "an upgrade: `apply` restarts the model with the new engine", new.server, _runs(new))
    wrong = FOLDER / "engine-3/bin" / engine.server.name
    wrong.parent.mkdir(parents=True)
    for program in (wrong, wrong.with_name("python")):
        program.write_text(
            "#!/bin/sh\necho 'libcudart.so.99: cannot open shared object file' >&2\nexit 127\n"
        )
        program.chmod(0o755)
    replace(engine, server=wrong).write()
    failed = recipectl("start", A, timeout_sec=120)
    said = "libcudart.so.99" in failed.stdout + failed.stderr + recipectl("logs", A, "--no-pager").stdout
    table.add("upgrade-fails", "an upgrade that does not start is told",
              f"status {failed.returncode}, the engine's words {'shown' if said else 'not shown'}",
              failed.returncode != 0 and said)  # fmt: skip
    engine.write()
    recipectl("start", A)
    table.add("rollback", "a rollback: the earlier recipe, and it answers", engine.server, _runs(engine))


def run(options: Options, table: Table) -> None:
    if options.server is None or options.model is None:
        table.add("engine", "a real engine", "no engine and no model are at hand", None)
        return
    engine = Engine(options, options.server, options.model)
    handle = gpu()
    FOLDER.mkdir(mode=0o755, exist_ok=True)
    version = output(str(engine.server), "--version", timeout_sec=120).splitlines()
    size = sum(path.stat().st_size for path in engine.files)
    lines = [line for line in version if re.search(r"version|^\d+\.", line.lower())]
    table.add(
        "engine",
        "engine, model",
        f"{engine.server.name} {(lines or ['of unknown version'])[0]}; {size / 1e9:.1f} GB",
    )
    base = used_mib(handle)
    try:
        engine.write()
        first_sec = _timed(lambda: started(A))
        used = used_mib(handle) - base
        table.add(
            "engine-memory",
            "memory of the GPU that it uses",
            f"{used} MiB",
            None if options.stand_in else used > size >> 21,
        )
        said = _text(PORTS[A])
        ours = engine.model.name.startswith(("random", "tiny"))
        table.add("answer", "what it answers", said, SENTENCE in said if ours else bool(said))
        recipectl("stop", A)
        _loads(engine, table, first_sec)
        _switches(engine, table)
        if not engine.is_vllm:
            _ordered(engine, table)
        _speed(engine, table)
        _restarts(engine, table)
        _upgrade(engine, table)
    finally:
        remove(A, B)
        with contextlib.suppress(OSError):
            shutil.rmtree(FOLDER)
