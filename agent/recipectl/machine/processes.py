"""What runs: a unit's main process as /proc has it, what its engine answers, engines outside any unit."""

import contextlib
import http.client
import json
import os
import re
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path

# Where an engine tells its version, and the key in the answer.
VERSION = {
    "vllm": ("/version", "version"),
    "sglang": ("/server_info", "version"),
    "llamacpp": ("/props", "build_info"),
}


@dataclass(frozen=True)
class Process:
    """A process; argv and environment are None where we may not look or it has rewritten them."""

    pid: int
    executable: str | None
    argv: tuple[str, ...] | None
    environment: dict[str, str] | None
    started_sec: float | None  # since the epoch
    unit: str  # of its cgroup; empty when it belongs to none


def _boot_sec() -> float:
    for line in Path("/proc/stat").read_text().splitlines():
        if line.startswith("btime "):
            return float(line.split()[1])
    return 0.0


def unit_of(pid: int) -> str:
    """The unit whose cgroup holds a process."""
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{pid}/cgroup").read_text().splitlines():
            if line.startswith("0::"):
                names = [name for name in line[3:].split("/") if name.endswith((".service", ".scope"))]
                return names[-1] if names else ""
    return ""


def process(pid: int) -> Process | None:
    """One process, None when it is gone."""
    folder = Path(f"/proc/{pid}")
    try:
        fields = (folder / "stat").read_text().rpartition(")")[2].split()
        words = (folder / "cmdline").read_bytes()
    except OSError:
        return None
    executable = environ = None
    with contextlib.suppress(OSError):
        executable = os.readlink(folder / "exe")  # noqa: PTH115  (it may end in ` (deleted)`)
    with contextlib.suppress(OSError):
        pairs = (folder / "environ").read_bytes().split(b"\0")
        environ = dict(os.fsdecode(pair).split("=", 1) for pair in pairs if b"=" in pair)
    started = _boot_sec() + int(fields[19]) / os.sysconf("SC_CLK_TCK")
    argv = tuple(os.fsdecode(word) for word in words.removesuffix(b"\0").split(b"\0")) if words else None
    return Process(pid, executable, argv, environ, started, unit_of(pid))


def runs(pid: int, program: str) -> bool | None:
    """Whether a process runs this very file (its path may look different from outside); None: unknown."""
    try:
        return os.path.samefile(f"/proc/{pid}/exe", program)  # noqa: PTH121  (it may end in ` (deleted)`)
    except OSError:
        return None


# Never through a proxy: it is this host that is asked.
_ASK = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def answered_version(backend: str, url: str, timeout_sec: float = 2) -> str | None:
    """What an engine says of its own version; empty when nothing, None when it does not answer at all."""
    path, key = VERSION[backend]
    try:
        with _ASK.open(f"{url}{path}", timeout=timeout_sec) as answer:
            found = json.load(answer).get(key)
    except urllib.error.HTTPError:
        return ""
    except (OSError, http.client.HTTPException):
        return None
    except (ValueError, AttributeError):
        return ""
    return str(found) if found else ""


# How an engine's main process looks; their workers call themselves VLLM::… and sglang::….
_ENGINE = re.compile(
    r"(^|/)vllm\0serve|vllm\.entrypoints\.|sglang\.launch_server|(^|/)sglang\0serve|(^|/)llama-server(\0|$)|^VLLM::|^sglang::"
)


def engines_outside() -> list[Process]:
    """Engine processes that no service supervises: they belong to a session, a scope, or nothing."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            text = os.fsdecode((folder / "cmdline").read_bytes())
            if _ENGINE.search(text) and not unit_of(int(folder.name)).endswith(".service"):
                one = process(int(folder.name))
                found += [one] if one else []
    return sorted(found, key=lambda one: one.pid)
