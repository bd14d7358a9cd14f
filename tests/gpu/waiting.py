"""Stage 4: device nodes that come late, no persistence daemon, and CUDA's MPS."""

import contextlib
import shutil
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pynvml
from live.common import journal, recipectl, show, systemctl

from gpu.host import Options, Table, applied, get, gpu, monotonic, output, remove, server_recipe, started

LATE, A, B = "gpu-proof-late", "gpu-proof-a", "gpu-proof-b"
NODES = ("nvidiactl", "nvidia-uvm", "nvidia0")
PIPES = Path("/tmp/nvidia-mps")


@contextlib.contextmanager
def _nodes_away() -> Iterator[None]:
    """The throwaway's own device nodes are gone, as before a driver is loaded."""
    away = Path("/dev/gpu-proof-away")
    away.mkdir()
    for name in NODES:
        Path("/dev", name).rename(away / name)
    try:
        yield
    finally:
        for path in away.iterdir():
            path.rename(Path("/dev", path.name))
        away.rmdir()


def _late(table: Table) -> None:
    systemctl("stop", f"model-{LATE}.service")
    with _nodes_away():
        begin = time.monotonic()
        subprocess.Popen(["systemctl", "start", "--no-block", f"model-{LATE}.service"]).wait()
        time.sleep(5)
        waiting = (show(LATE, "ActiveState"), show(LATE, "SubState")) == ("activating", "start-pre")
    back = time.monotonic()
    run = recipectl("start", LATE)
    after = monotonic(LATE, "ExecMainStartTimestamp") - back
    table.add("late", "device nodes that come 5 s late: the unit waits, then starts",
              f"waited {back - begin:.1f} s, the engine began {after * 1000:.0f} ms after they came",
              waiting and run.returncode == 0 and after > 0)  # fmt: skip
    works = get(18321, "/prove/allocate")
    table.add("late-works", "after that CUDA works", works["detail"], bool(works["ok"]))


def _never(table: Table) -> None:
    systemctl("stop", f"model-{LATE}.service")
    with _nodes_away():
        begin = time.monotonic()
        run = recipectl("start", LATE, timeout_sec=150)
        took = time.monotonic() - begin
    said = "does not exist; load the driver" in journal(f"model-{LATE}.service")
    table.add("never", "device nodes that never come: it fails after a minute, and says why",
              f"status {run.returncode} after {took:.0f} s", run.returncode == 1 and said and 55 < took < 90)  # fmt: skip
    systemctl("stop", f"model-{LATE}.service")


def _group(table: Table) -> None:
    """Device nodes that only a group may open, as some drivers are set up."""
    subprocess.run(["groupadd", "-f", "gpu-proof"], check=True)
    nodes = [Path("/dev", name) for name in NODES]
    for node in nodes:
        shutil.chown(node, group="gpu-proof")
        node.chmod(0o660)
    applied(LATE)
    started(LATE)
    works = get(18321, "/prove/allocate")
    table.add("group", "device nodes of a group: the unit is in it", works["detail"], bool(works["ok"]))
    for node in nodes:
        shutil.chown(node, group="root")
        node.chmod(0o666)
    applied(LATE)


def _persistence(table: Table, handle: object) -> None:
    running = bool(output("pgrep", "nvidia-persiste"))
    mode = "on" if pynvml.nvmlDeviceGetPersistenceMode(handle) else "off"
    started(LATE)
    works = get(18321, "/prove/allocate")
    word = f"daemon {'runs' if running else 'does not run'}, persistence mode {mode}: {works['detail']}"
    table.add(
        "persistence",
        "a model starts without nvidia-persistenced",
        word,
        bool(works["ok"]) if not running else None,
    )
    remove(LATE)


def _servers() -> str:
    return output("sh", "-c", "echo get_server_list | nvidia-cuda-mps-control", timeout_sec=20)


def _clients() -> set[int]:
    servers = [word for word in _servers().split() if word.isdigit()]
    lists = (
        output("sh", "-c", f"echo get_client_list {server} | nvidia-cuda-mps-control") for server in servers
    )
    return {int(word) for text in lists for word in text.split() if word.isdigit()}


def _pids(name: str) -> set[int]:
    path = Path("/sys/fs/cgroup") / show(name, "ControlGroup").lstrip("/") / "cgroup.procs"
    return {int(word) for word in path.read_text().split()}


@contextlib.contextmanager
def _mps(*words: str) -> Iterator[None]:
    subprocess.run(["nvidia-cuda-mps-control", "-d", *words], check=True, timeout=30)
    try:
        yield
    finally:
        output("sh", "-c", "echo quit -t 5 | nvidia-cuda-mps-control", timeout_sec=30)
        time.sleep(1)
        subprocess.run(["pkill", "-x", "nvidia-cuda-mps"], check=False)
        shutil.rmtree(PIPES, ignore_errors=True)


def _use(name: str, port: int, answers: dict[str, str]) -> None:
    try:
        answer = get(port, "/prove/allocate", 25)
        answers[name] = str(answer["detail"]) if answer["ok"] else f"failed: {answer['detail']}"
    except OSError as error:
        answers[name] = f"no answer within 25 s ({error})"


def _both(table: Table, id_: str, what: str, *, share: str) -> None:
    """Two models use the GPU at once, as clients of one MPS."""
    started(A), started(B)
    answers: dict[str, str] = {}
    threads = [
        threading.Thread(target=_use, args=(name, port, answers)) for name, port in ((A, 18322), (B, 18323))
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    clients = _clients()
    through = [name.removeprefix("gpu-proof-") for name in (A, B) if clients & _pids(name)]
    works = all("answer" not in text and "failed" not in text for text in answers.values())
    table.add(id_, what, f"{answers[A]} / {answers[B]}; clients of MPS: {' '.join(through) or 'none'}",
              {"none": works and not through, "one": not works and len(through) == 1, "both": works and len(through) == 2}[share])  # fmt: skip
    systemctl("stop", f"model-{A}.service", f"model-{B}.service")


def _mps_rows(options: Options, table: Table) -> None:
    models: dict[str, dict[str, object]] = {A: {"port": 18322}, B: {"port": 18323}}

    def write(**fields: object) -> None:
        for name, own in models.items():
            server_recipe(options, name, int(str(own["port"])), gpus="0", gpu_sharing="free", **fields)
        applied(A, B)

    shutil.rmtree(PIPES, ignore_errors=True)
    write()
    with _mps():
        _both(table, "mps-after", "MPS that began after `apply`: its pipes are not in the unit", share="none")
        write()
        _both(table, "mps-before", "MPS before `apply`: two models, a user each: one waits", share="one")
    with _mps("-multiuser-server"):
        write()
        _both(table, "mps-multiuser", "MPS -multiuser-server: two models, a user each", share="both")
    with _mps():
        subprocess.run(["useradd", "--system", "gpu-proof-user"], check=False)
        write(user="gpu-proof-user")
        _both(table, "mps-one-user", "MPS before `apply`: two models of one user", share="both")
    remove(A, B)


def run(options: Options, table: Table) -> None:
    handle = gpu()
    try:
        server_recipe(options, LATE, 18321, gpus="0", service={"Restart": "no"})
        applied(LATE)
        if options.throwaway:
            _late(table)
            _never(table)
            _group(table)
        else:
            word = "the device nodes of a running host are left alone; use --throwaway"
            table.add("late", "device nodes that come late", word, None)
        _persistence(table, handle)
        if shutil.which("nvidia-cuda-mps-control") is None:
            table.add("mps-before", "MPS", "nvidia-cuda-mps-control is not installed", None)
        elif PIPES.exists() or not options.throwaway:
            table.add("mps-before", "MPS", "MPS of this host is left alone; use --throwaway", None)
        else:
            _mps_rows(options, table)
    finally:
        remove(LATE, A, B)
