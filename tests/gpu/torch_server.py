"""A small OpenAI-shaped server on a GPU, which does on request what inference engines do there.

`GET /prove/OPERATION` answers `{"ok": …, "detail": …}`. Environment:
    GPU_PROOF_HOLD_MIB   memory that the server, and its worker, hold from the start (0)
    GPU_PROOF_WORKER     "1": a worker process, which ignores SIGTERM; the server ends when it does, as vLLM's does
    GPU_PROOF_DEVICE     "cuda" (PyTorch), or "stand-in" for a machine without a GPU
"""

import argparse
import errno
import http.server
import importlib
import json
import os
import pwd
import signal
import sys
import tempfile
import threading
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))
DEVICE = importlib.import_module(f"{os.environ.get('GPU_PROOF_DEVICE', 'cuda').replace('-', '_')}_operations")


def identity() -> str:
    status = Path("/proc/self/status").read_text().splitlines()
    capabilities = next(line.split()[1] for line in status if line.startswith("CapEff:"))
    return f"user {pwd.getpwuid(os.getuid()).pw_name}, effective capabilities {int(capabilities, 16)}"


def nodes() -> str:
    """The device nodes of GPUs that this process can open."""
    return " ".join(name for name, error in _opened().items() if error is None) or "none"


def refused() -> str:
    """The device nodes that the system keeps from this process; one without a GPU fails otherwise."""
    return (
        " ".join(name for name, error in _opened().items() if error in (errno.EPERM, errno.EACCES)) or "none"
    )


def _opened() -> dict[str, int | None]:
    """Device node -> why it cannot be opened; None when it can."""
    errors: dict[str, int | None] = {}
    for path in sorted(Path("/dev").glob("nvidia*")):
        if path.is_char_device():
            try:
                os.close(os.open(path, os.O_RDWR))
                errors[path.name] = None
            except OSError as error:
                errors[path.name] = error.errno
    return errors


def shared() -> str:
    """Shared memory, as NCCL and multiprocessing use it."""
    with tempfile.NamedTemporaryFile(dir="/dev/shm") as file:
        file.write(b"x" * (1 << 20))
    return "1 MiB in /dev/shm"


OPERATIONS = {"identity": identity, "nodes": nodes, "refused": refused, "shared": shared} | DEVICE.OPERATIONS


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        name = self.path.removeprefix("/prove/")
        if self.path == "/v1/models":
            self.answer({"data": [{"id": ARGUMENTS.alias}]})
        elif self.path == "/health":
            self.answer({})
        elif name in OPERATIONS:
            try:
                self.answer({"ok": True, "detail": str(OPERATIONS[name]())})
            except Exception as error:
                self.answer({"ok": False, "detail": f"{type(error).__name__}: {str(error).strip()[:600]}"})
        else:
            self.answer({"error": {"message": f"no such path: {self.path}"}}, 404)

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        text = str(OPERATIONS["matmul"]())
        self.answer({"choices": [{"text": text, "message": {"role": "assistant", "content": text}}]})

    def answer(self, body: object, status: int = 200) -> None:
        text = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, *_: object) -> None:
        pass


def work(hold_mib: int, ready: int) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    kept = DEVICE.hold(hold_mib)
    os.write(ready, b"1")
    while os.getppid() != 1:
        time.sleep(3600)
    del kept


def start_worker(hold_mib: int) -> None:
    """Fork before CUDA begins: it survives no fork. The server ends when its worker does."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        work(hold_mib, writer)
        os._exit(0)
    os.close(writer)
    if os.read(reader, 1) != b"1":
        raise SystemExit("the worker could not start")
    threading.Thread(target=lambda: (os.waitpid(pid, 0), os._exit(0)), daemon=True).start()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="torch-server", allow_abbrev=False)
    parser.add_argument("--model", required=True)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8080)
    parser.add_argument("--alias", default="torch")
    ARGUMENTS = parser.parse_args()
    hold_mib = int(os.environ.get("GPU_PROOF_HOLD_MIB", "0"))
    if os.environ.get("GPU_PROOF_WORKER") == "1":
        start_worker(hold_mib)
    kept = DEVICE.hold(hold_mib)
    http.server.ThreadingHTTPServer((ARGUMENTS.host, ARGUMENTS.port), Handler).serve_forever()
