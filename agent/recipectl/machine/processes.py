"""The processes of this host as /proc shows them, and the units that they belong to.

Standard library only: the helper of the units reads it too.
"""

import contextlib
import os
import re
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

_CLOCK_STEPS_SEC = 0.02  # of a start (a tick) and of a file's time (a jiffy)


class Process(NamedTuple):
    """A process. argv and environment are None where they cannot be read, or were overwritten."""

    pid: int
    executable: str | None
    argv: tuple[str, ...] | None
    environment: dict[str, str] | None
    started_sec: float | None  # since the epoch
    unit: str  # of its cgroup; empty when it belongs to none

    @property
    def unreadable(self) -> bool:
        """True if the process belongs to another user, or is gone."""
        return self.executable is None or self.environment is None


def status(pid: int) -> dict[str, str]:
    """The fields of /proc/PID/status; OSError when the process is gone."""
    lines = Path(f"/proc/{pid}/status").read_text(errors="replace").splitlines()
    return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}


def cgroup(pid: int | str) -> str:
    """The unified cgroup of a process, `/` when it is unknown."""
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{pid}/cgroup").read_text(errors="replace").splitlines():
            if line.startswith("0::"):
                return line[3:]
    return "/"


# Where the hierarchy is that systemd has its units in: the only one, or that beside those of cgroup v1.
_HIERARCHIES = ("/sys/fs/cgroup/unified", "/sys/fs/cgroup/systemd", "/sys/fs/cgroup")
_UNITS = (".service", ".scope")


def _hierarchy() -> str:
    return next((root for root in _HIERARCHIES if os.path.isdir(root)), _HIERARCHIES[-1])  # noqa: PTH112


def _below_manager(path: str) -> tuple[str, list[str]]:
    """The cgroup of a manager, and the names below it in a cgroup of one of its units.

    It is the system's manager, or one of the caller's own, which runs in a unit of the system's. The units of
    any other manager have names that its user chooses.
    """
    first_process, self = (cgroup(pid).strip("/").split("/") for pid in (1, "self"))
    first_slice = next((number for number, name in enumerate(self) if name.endswith(".slice")), 0)
    # /proc/1 may be hidden (ProtectProc=).
    manager = first_process[:-1] if first_process[-1] == "init.scope" else self[:first_slice]
    names = path.strip("/").split("/")
    names = names[len(manager) :] if names[: len(manager)] == manager else names
    units = [number for number, name in enumerate(names) if name.endswith(_UNITS)]
    first, below = names[: units[0] + 1] if units else [], names[units[0] + 1 :] if units else []
    in_slices = all(name.endswith(".slice") for name in first[:-1])
    if len(units) > 1 and in_slices and _is_own([*manager, *first]):
        return "/".join((*manager, *first)), below
    return "/".join(manager), names


def _is_own(names: list[str]) -> bool:
    """True if the caller's own manager made the cgroups below this unit's cgroup."""
    if os.geteuid() == 0:  # all units of the system belong to root, whoever may write below them
        return names[-1] == "user@0.service"
    with contextlib.suppress(OSError):
        return os.stat("/".join((_hierarchy(), *names))).st_uid == os.geteuid()  # noqa: PTH116
    return False


def cgroup_folder(unit: str) -> Path | None:
    """The folder of a unit's control group; None when there is none: nothing of the unit runs.

    A manager has its units in slices. Others, such as users, make groups within units that are delegated.
    """
    manager, _ = _below_manager(cgroup("self"))
    for folder, names, _ in os.walk(f"{_hierarchy()}/{manager}"):
        if unit in names:
            return Path(folder, unit)
        names[:] = [name for name in names if name.endswith(".slice")]
    return None


def has_processes(folder: Path) -> bool:
    """True while a process is in a control group."""
    return bool(members(folder))


def members(folder: Path) -> list[int]:
    """The processes in a control group, of its own, without those of the groups below it."""
    with contextlib.suppress(OSError):  # it is gone
        return [int(pid) for pid in (folder / "cgroup.procs").read_text().split()]
    return []


def ending(units: Iterable[str]) -> str | None:
    """A unit that has processes besides this one; one whose first thread has ended counts, too.

    Once the first thread of a killed process has ended, cgroup.procs lacks the process while its last thread
    still frees memory, a GPU's too: systemd then takes the unit for stopped, and starts the next (Linux 6.18,
    systemd 255: 0.2 s with 8 GiB of an H200). cgroup.threads has that thread.
    """
    own = {thread.name for thread in Path("/proc/self/task").iterdir()}
    for unit in units:
        folder = cgroup_folder(unit)
        with contextlib.suppress(OSError):  # not a unified hierarchy, or gone
            if folder and {*(folder / "cgroup.threads").read_text().split()} - own:
                return unit
    return None


def note_start(digest: str) -> None:
    """Note which unit started the caller, under a user's manager (`systemd/started` reads it)."""
    path = Path(os.environ["XDG_RUNTIME_DIR"], "recipectl/started", unit_of("self"))
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(digest)


def unit_of(pid: int | str) -> str:
    """The unit of the system's manager, or of the caller's own, that holds a process; empty without one."""
    _, names = _below_manager(cgroup(pid))
    return next((name for name in names if name.endswith(_UNITS)), "")


def name_of(pid: int | str) -> str:
    """The name that a process has given itself (comm), on one line; OSError when it is gone."""
    name = Path(f"/proc/{pid}/comm").read_text(errors="replace").strip()
    return "".join(char if char.isprintable() else "?" for char in name)


def is_alive(pid: int) -> bool:
    """True while a process runs; a zombie does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def user_of(pid: int) -> int | None:
    """The id of the user that a process runs as."""
    with contextlib.suppress(OSError, KeyError):  # it is gone
        return int(status(pid)["Uid"].split()[0])
    return None


def started_sec(pid: int) -> float | None:
    """When a process was started, in seconds since the epoch; None when it is gone."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()
    except OSError:
        return None
    return _boot_sec() + int(fields[19]) / os.sysconf("SC_CLK_TCK")


def rotated_secrets(pid: int, files: Iterable[str]) -> list[str]:
    """The files of secrets that were changed after a process had read them at its start.

    A link on the way to a file that was made later counts: it may lead to another file.
    """
    start_sec = started_sec(pid)
    changed = []
    for file in files if start_sec else ():
        with contextlib.suppress(OSError):
            times = (os.stat(file).st_ctime, *(os.lstat(link).st_ctime for link in _links_to(file)))  # noqa: PTH116  (hot loop)
            if max(times) > (start_sec or 0) + _CLOCK_STEPS_SEC:
                changed.append(file)
    return changed


def _links_to(path: str) -> Iterator[str]:
    """The symbolic links on the way to a file that is there."""
    if os.path.realpath(path) == os.path.abspath(path):  # noqa: PTH100  (hot loop)
        return
    for part in (Path(path), *Path(path).parents):
        if part.is_symlink():
            yield str(part)
            yield from _links_to(str(part.parent / part.readlink()))


def read_process(pid: int) -> Process | None:
    """One process, None when it is gone."""
    folder = Path(f"/proc/{pid}")
    try:
        words = (folder / "cmdline").read_bytes()
    except OSError:
        return None
    executable = environment = None
    with contextlib.suppress(OSError):
        executable = os.readlink(folder / "exe")  # noqa: PTH115  (it may end in ` (deleted)`)
    with contextlib.suppress(OSError):
        pairs = (folder / "environ").read_bytes().split(b"\0")
        environment = dict(os.fsdecode(pair).split("=", 1) for pair in pairs if b"=" in pair)
    argv = tuple(os.fsdecode(word) for word in words.removesuffix(b"\0").split(b"\0")) if words else None
    return Process(
        pid=pid,
        executable=executable,
        argv=argv,
        environment=environment,
        started_sec=started_sec(pid),
        unit=unit_of(pid),
    )


def _boot_sec() -> float:
    """When the host was started; `btime` of /proc/stat is a whole second."""
    return time.time() - time.clock_gettime(time.CLOCK_BOOTTIME)


def runs_file(pid: int, program: str) -> bool | None:
    """True if a process runs this very file (its path may differ from outside); None: unknown."""
    try:
        return os.path.samefile(f"/proc/{pid}/exe", program)  # noqa: PTH121  (it may end in ` (deleted)`)
    except OSError:
        return None


def using(folder: Path) -> list[tuple[int, str]]:
    """(PID, name) of the processes that run a file below a folder, have one mapped, or have it activated.

    Not the ancestors of this process: their command line may name the folder.
    """
    folders = {str(folder), os.path.realpath(folder)}
    below = tuple(f"{path}/".encode() for path in folders)
    activated = tuple(f"\0VIRTUAL_ENV={path}\0".encode() for path in folders)
    users = []
    for process in Path("/proc").glob("[0-9]*"):
        words = _content(process / "cmdline") + _content(process / "maps")
        variables = b"\0" + _content(process / "environ")
        used = any(path in words for path in below) or any(line in variables for line in activated)
        with contextlib.suppress(OSError):  # it has ended, or is another user's
            used = used or os.fsencode(f"{os.readlink(process / 'cwd')}/").startswith(below)  # noqa: PTH115
        if used:
            with contextlib.suppress(OSError):
                users.append((int(process.name), name_of(process.name)))
    ancestors = _ancestors(os.getpid())
    return [(pid, name) for pid, name in sorted(users) if pid not in ancestors]


def _content(path: Path) -> bytes:
    """A file of /proc; empty for a process that has ended, or is another user's."""
    try:
        return path.read_bytes()
    except OSError:
        return b""


def _ancestors(pid: int) -> set[int]:
    """A process and all that have started it."""
    ancestors = set()
    while pid and pid not in ancestors:
        ancestors.add(pid)
        try:
            pid = int(Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()[1])
        except (OSError, ValueError):
            break
    return ancestors


# Engines and their workers, which call themselves VLLM::… and sglang::….
_ENGINE = re.compile(
    r"(^|/)vllm\0serve|vllm\.entrypoints\.|sglang\.launch_server|(^|/)sglang\0serve|(^|/)llama-server(\0|$)"
    r"|(^|/)llama\0server?\0"
    r"|^VLLM::|^sglang::"
)


def unsupervised_engines() -> list[Process]:
    """Engine processes that belong to no service, by PID: to a session, a scope, or nothing."""
    processes = []
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            words = os.fsdecode((folder / "cmdline").read_bytes())
            units = [name for name in cgroup(folder.name).split("/") if name.endswith(_UNITS)]
            if _ENGINE.search(words) and not "".join(units[-1:]).endswith(".service"):
                processes.append(read_process(int(folder.name)))
    return sorted((process for process in processes if process), key=lambda process: process.pid)
