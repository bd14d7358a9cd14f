"""Timings of `recipectl venv`, beside uv and sha256sum; part of `make bench`."""

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).parents[1]
VENV = ROOT / ".build/vllm"
FOLDER = Path("/opt/bench-venvs")
RECIPECTL = str(ROOT / ".venv/bin/recipectl")
UV = str(ROOT / ".venv/bin/uv")
# What the setup has downloaded; there is no network here.
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", "recipectl")
ENVIRONMENT = os.environ | {"UV_OFFLINE": "1", "UV_CACHE_DIR": str(CACHE / "uv")}
# Where pip has its local wheels, if it has some: uv does not read pip's configuration.
_PIP = (sys.executable, "-m", "pip", "config", "get", "global.find-links")
ENVIRONMENT |= {
    "UV_FIND_LINKS": subprocess.run(_PIP, capture_output=True, text=True, check=False).stdout.strip()
}


def best_sec(action: Callable[[], object], before: Callable[[], object], rounds: int = 3) -> float:
    """The fastest of some rounds, each after `before`."""
    times = []
    for _ in range(rounds):
        before()
        begin = time.monotonic()
        action()
        times.append(time.monotonic() - begin)
    return min(times)


def run(*words: str, statuses: tuple[int, ...] = (0,)) -> None:
    done = subprocess.run(words, env=ENVIRONMENT, capture_output=True, text=True, check=False)
    assert done.returncode in statuses, done.stderr


def figure(what: str, own_sec: float, reference_sec: float, beside: str) -> None:
    print(f"{what:48} {own_sec:7.2f} s  {reference_sec:7.2f} s  {own_sec / reference_sec:5.2f} x  {beside}")


def clear() -> None:
    shutil.rmtree(FOLDER, ignore_errors=True)
    os.sync()


def with_uv() -> None:
    run(UV, "venv", "-q", "--python", "/usr/bin/python3", str(FOLDER / "a"))
    words = ("--require-hashes", "--compile-bytecode", "-p", str(FOLDER / "a/bin/python"))
    run(UV, "pip", "sync", "-q", *words, f"{VENV}.lock")


def creating() -> None:
    words = (RECIPECTL, "--user", "venv", "create", "--lock", f"{VENV}.lock", "--name", str(FOLDER / "a"))
    own = best_sec(lambda: run(*words), clear)
    figure(
        "venv create of vLLM, from a lock (at most 1.1 x)",
        own,
        best_sec(with_uv, clear),
        "uv venv, uv pip sync",
    )
    clear()


def verifying() -> None:
    known = CACHE / "venvs"
    words = (RECIPECTL, "--user", "venv", "verify", str(VENV))
    files = [str(path) for path in VENV.rglob("*") if path.is_file() and not path.is_symlink()]
    listed = "\0".join(files)

    def with_sha256sum() -> None:
        subprocess.run(["xargs", "-0", "sha256sum"], input=listed, text=True, capture_output=True, check=True)

    own = best_sec(lambda: run(*words, statuses=(0, 3)), lambda: shutil.rmtree(known, ignore_errors=True))
    figure(
        "venv verify of vLLM (at most 1.5 x)",
        own,
        best_sec(with_sha256sum, lambda: None),
        "sha256sum of all files",
    )
    again = best_sec(lambda: run(*words, statuses=(0, 3)), lambda: None)
    figure("  the same, nothing touched (at most 0.5 s)", again, own, "the first time")


def main() -> None:
    """All figures; nothing without vLLM, which `make test-vllm` installs."""
    if not Path(f"{VENV}.ok").exists():
        print("no real vLLM here (make test-vllm): `recipectl venv` is not measured")
        return
    creating()
    verifying()


if __name__ == "__main__":
    sys.exit(main())
