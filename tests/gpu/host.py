"""What the stages share: their table, NVML, and models of the proof on this host."""

import contextlib
import json
import os
import shutil
import subprocess
import sys
import threading
import time
import urllib.request
from dataclasses import asdict, dataclass, field
from pathlib import Path

import pynvml
from live.common import RECIPES, recipectl, script, show

HERE = Path(__file__).parent
FOLDER = Path("/opt/gpu-proof")  # models' users reach it, wherever the checkout lies
UNITS = Path("/etc/systemd/system")


@dataclass(frozen=True)
class Row:
    """One fact: `holds` is None where this machine cannot tell."""

    id: str
    what: str
    value: str
    holds: bool | None = True


@dataclass
class Table:
    """The rows of a stage, printed and written as they come: a stage that is killed leaves what it has."""

    stage: str
    results: Path
    rows: list[Row] = field(default_factory=list)

    def add(self, id_: str, what: str, value: object, holds: bool | None = True) -> None:
        row = Row(id_, what, " ".join(str(value).split()), holds)
        self.rows.append(row)
        self._print(row)
        self.write()

    def write(self) -> None:
        self.results.mkdir(parents=True, exist_ok=True)
        path = self.results / f"{self.stage}.json"
        temporary = path.with_suffix(".tmp")
        temporary.write_text(json.dumps([asdict(row) for row in self.rows], indent=1) + "\n")
        temporary.rename(path)

    def _print(self, row: Row) -> None:
        word = {True: "ok", False: "FAILED", None: "not proven"}[row.holds]
        print(f"{word:<11}{row.what:<62} {row.value}", flush=True)


@dataclass(frozen=True)
class Options:
    """`python` has PyTorch; `breaks` are settings that tests add to every unit, to see a stage fail."""

    results: Path
    python: str
    stand_in: bool
    breaks: dict[str, str]
    throwaway: bool
    server: Path | None
    model: Path | None

    @property
    def device(self) -> str:
        return "stand-in" if self.stand_in else "cuda"


def gpu(index: int = 0) -> object:
    pynvml.nvmlInit()
    return pynvml.nvmlDeviceGetHandleByIndex(index)


def used_mib(handle: object) -> int:
    return int(pynvml.nvmlDeviceGetMemoryInfo(handle).used) >> 20


class Sampler:
    """The used memory of the GPU, read again and again in a thread: `samples` are (monotonic seconds, MiB)."""

    def __init__(self, handle: object, options: Options) -> None:
        self.handle, self.samples, self._end = handle, [(time.monotonic(), used_mib(handle))], False
        # The stand-in of NVML reads what each process has open.
        self._pause_sec = 0.02 if options.stand_in else 0.002
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while not self._end:
            self.samples.append((time.monotonic(), used_mib(self.handle)))
            time.sleep(self._pause_sec)

    def stop(self) -> list[tuple[float, int]]:
        self._end = True
        self._thread.join()
        return self.samples


def torch_server(options: Options) -> str:
    """The server of the proof as an executable that every user can run."""
    FOLDER.mkdir(mode=0o755, parents=True, exist_ok=True)
    for name in ("torch_server", "cuda_operations", "stand_in_operations", "triton_kernel"):
        shutil.copy(HERE / f"{name}.py", FOLDER)
    (FOLDER / "model").touch()
    text = (FOLDER / "torch_server.py").read_text()
    path = script(FOLDER / "torch-server", text)
    Path(path).write_text(f"#!{options.python}\n{text}")
    return path


def server_recipe(options: Options, name: str, port: int, **fields: object) -> None:
    """A recipe of the PyTorch server."""
    variables = {"GPU_PROOF_DEVICE": options.device} | dict(fields.pop("env_vars", {}))  # type: ignore[call-overload]
    service = dict(fields.pop("service", {})) | options.breaks  # type: ignore[call-overload]
    write_recipe(name, {
        "backend": "llamacpp", "binary": torch_server(options), "model_path": str(FOLDER / "model"), "port": port,
        "env_vars": variables, "service": service, **fields,
    })  # fmt: skip


def write_recipe(name: str, fields: dict[str, object]) -> None:
    RECIPES.mkdir(parents=True, exist_ok=True)
    (RECIPES / f"{name}.json").write_text(json.dumps(fields))


def applied(*names: str) -> None:
    """Apply recipes of the proof alone; SystemExit with what recipectl said when that fails."""
    run = recipectl("apply", *names)
    if run.returncode:
        raise SystemExit(f"gpu-proof: recipectl apply failed: {run.stderr.strip()}")


def started(name: str, timeout_sec: float = 120) -> None:
    run = recipectl("start", name, timeout_sec=timeout_sec)
    if run.returncode:
        raise SystemExit(f"gpu-proof: {name} did not start: {run.stderr.strip()[-1500:]}")


def get(port: int, path: str, timeout_sec: float = 120) -> dict[str, object]:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=timeout_sec) as answer:
        return dict(json.load(answer))


def monotonic(name: str, field_: str) -> float:
    """A timestamp of a unit in seconds of the monotonic clock."""
    return int(show(name, f"{field_}Monotonic")) / 1e6


def remove(*names: str) -> None:
    """The models of the proof are gone: units, recipes, caches and users' folders."""
    for name in names:
        recipectl("remove", name)
        (RECIPES / f"{name}.json").unlink(missing_ok=True)
        for parent in ("/var/cache/models", "/var/lib/models"):
            shutil.rmtree(Path(parent, name), ignore_errors=True)


def wait_until_free(handle: object, base_mib: int, timeout_sec: float = 30) -> bool:
    end = time.monotonic() + timeout_sec
    while used_mib(handle) > base_mib + 64 and time.monotonic() < end:
        time.sleep(0.05)
    return used_mib(handle) <= base_mib + 64


def output(*words: str, timeout_sec: float = 60) -> str:
    """What a command printed, or why it could not run."""
    try:
        run = subprocess.run(words, capture_output=True, text=True, check=False, timeout=timeout_sec)
    except (OSError, subprocess.TimeoutExpired) as error:
        return str(error)
    return (run.stdout + run.stderr).strip()


@contextlib.contextmanager
def by_hand(options: Options, port: int, command: list[str], **variables: str):  # type: ignore[no-untyped-def]
    """The same server without a unit: a child of this process."""
    environment = (
        os.environ | {"GPU_PROOF_DEVICE": options.device, "PYTHONDONTWRITEBYTECODE": "1"} | variables
    )
    process = subprocess.Popen(command, env=environment, stdout=sys.stderr, stderr=sys.stderr, cwd="/")
    try:
        wait_for_answer(port, process)
        yield process
    finally:
        end_process(process)


def end_process(process: "subprocess.Popen[bytes]") -> None:
    """End a server as systemd does: llama.cpp can hang for ever in a stop that comes as it gets ready."""
    process.terminate()
    try:
        process.wait(timeout=20)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait(timeout=20)


def wait_for_answer(port: int, process: "subprocess.Popen[bytes]", timeout_sec: float = 300) -> None:
    end = time.monotonic() + timeout_sec
    while time.monotonic() < end:
        with contextlib.suppress(OSError):
            urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5).close()
            return
        if process.poll() is not None:
            raise SystemExit(f"gpu-proof: the server ended with {process.returncode}")
        time.sleep(0.01)
    raise SystemExit("gpu-proof: the server did not answer")
