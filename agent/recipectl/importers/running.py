"""The recipe of an engine that runs, from /proc: what its process was given, whatever started it."""

import contextlib
import os
import pwd
import re
import shutil
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

from recipectl.compiler.secrets import redacted as redacted_words
from recipectl.engines.registry import ENGINES
from recipectl.errors import UsageError
from recipectl.importers.command import Command
from recipectl.importers.draft import OTHER_GROUP, Draft, redacted
from recipectl.importers.from_command import draft_from_command
from recipectl.importers.lines import Remark
from recipectl.importers.mounts import names_in
from recipectl.importers.process_limits import set_limits, set_service
from recipectl.importers.programs import program
from recipectl.importers.variables import keep_cache
from recipectl.machine import processes, sockets
from recipectl.recipe.hostfile import DEFAULT_PATH
from recipectl.recipe.trusted import group_name, user_name

_CREDENTIALS = "/run/credentials/"  # of units (systemd.exec(5))
# What a shell, a login or systemd gives to every process, and the unit gives anew or has no use for.
_NOT_OF_ENGINE = re.compile(
    r"_|PWD|OLDPWD|SHLVL|SHELL|TERM|TERM_PROGRAM.*|COLORTERM|USER|USERNAME|LOGNAME|MAIL|HOME|HOSTNAME|LS_COLORS"
    r"|LESS.*|EDITOR|PAGER|DISPLAY|PS1|PROMPT_COMMAND|SUDO_.*|SSH_.*|DBUS_.*|TMUX.*|STY|WINDOW"
    r"|GPG_.*|XDG_(RUNTIME_DIR|SEAT|VTNR|SESSION_.*|CURRENT_DESKTOP)"
    r"|CONDA_.*|_CE_.*|VIRTUAL_ENV_PROMPT|INVOCATION_ID|JOURNAL_STREAM|SYSTEMD_.*|LISTEN_.*|NOTIFY_SOCKET|MAINPID"
    r"|CREDENTIALS_DIRECTORY|(CACHE|STATE|RUNTIME|LOGS|CONFIGURATION)_DIRECTORY|MEMORY_PRESSURE_.*|DEBUGINFOD_.*"
)


def pid_on_port(port: int) -> int:
    """The process that listens on a port; UsageError when none does, or when this user may not see it."""
    numbers = sockets.inodes(port, sockets.LISTEN)
    if not numbers:
        raise UsageError(f"nothing listens on port {port}; start the engine, or give its PID")
    pid = sockets.owner(numbers)
    if pid is None:
        raise UsageError(f"the process on port {port} belongs to another user; run this as root")
    return pid


def draft(pid: int, port: int | None = None) -> Draft:
    """The recipe of the engine that a process runs, or one of its parents, or the only one below it.

    `port` is the one that clients ask, where that is known. UsageError when there is no such process, it
    cannot be read, or none of these shows an engine's command.
    """
    try:
        return _draft(_engine(pid), port)
    except OSError as error:
        raise UsageError(
            f"process {pid} cannot be read ({error.strerror}); see whether it still runs"
        ) from error


def _draft(process: processes.Process, port: int | None) -> Draft:
    words, environment = list(process.argv or ()), dict(process.environment or {})
    folder, deleted, _ = _link(process.pid, "cwd").partition(" (deleted)")  # proc_pid_cwd(5)
    contained = not os.path.samefile(f"/proc/{process.pid}/root", "/")  # noqa: PTH121  (pathlib follows it elsewhere)
    # The process found its program in the PATH that it was given.
    path_of_program = shutil.which(words[0], path=environment.get("PATH", ":".join(DEFAULT_PATH)))
    words = [path_of_program or words[0], *_absolute_words(words, folder, process.pid)]
    foreign: list[str] = []
    lost: list[Remark] = []
    if not contained:
        words[0] = _own_program(words[0], process.pid, lost)
    if contained:
        words = [_of_host(word, process.pid, foreign) for word in words]
    changed = zip(words[1:], (process.argv or ())[1:], strict=True)
    given_words = {new.rpartition("=")[2]: given.rpartition("=")[2] for new, given in changed if new != given}
    kept = {
        name: _absolute(value, folder, process.pid) if "/" in value else value
        for name, value in environment.items()
        if not _NOT_OF_ENGINE.fullmatch(name)
    }
    credentials = [name for name, value in kept.items() if value.startswith(_CREDENTIALS)]
    for name in credentials:
        del kept[name]
    path = kept.pop("PATH", None)
    if contained:
        path = None
        kept.pop("VIRTUAL_ENV", None)
    reader = int(processes.status(process.pid)["Uid"].split()[1])
    command = Command(
        kept, words, venv=None if contained else environment.get("VIRTUAL_ENV"), path=path, reader=reader,
        script_folder=None if contained else folder, given_words=given_words,
    )  # fmt: skip
    unit = f" of {process.unit}" if process.unit else ""
    result = draft_from_command(command, origin=f"From process {process.pid}{unit}.")
    _set_identity(result, process, environment, contained=contained)
    set_limits(result, process)
    _set_address(result, process.pid, port)
    result.not_carried_over += lost
    result.lose_each(
        f"`{credential}`, a file of its unit's credentials; see `secrets:`" for credential in credentials
    )
    result.lose_each(_own_namespaces(process, contained=contained))
    if folder not in ("/", environment.get("HOME")):
        result.lose(
            f"the working directory {folder}{deleted}; relative paths are absolute now, except in lists"
        )
    for word in foreign:
        result.lose(f"`{word}`, a path of its container that this host does not have")
    for key in ("python_path", "venv_path", "binary"):
        if any(str(result.fields.get(key, "")).startswith(os.path.dirname(word)) for word in foreign):  # noqa: PTH120
            del result.fields[key]  # it is named above
    return result


def _own_namespaces(process: processes.Process, *, contained: bool) -> Iterator[str]:
    """What a process sees that others of this host do not."""
    if _link(process.pid, "ns/net") != _link("self", "ns/net"):
        yield "a network of its own; the engine will use the network of this host"
    is_of_unit = process.unit.endswith(".service")  # whose sandbox has mounts of its own
    if not (contained or is_of_unit) and _link(process.pid, "ns/mnt") != _link("self", "ns/mnt"):
        yield "mounts of its own; files at its paths may be others on this host"


def _own_program(path: str, pid: int, lost: list[Remark]) -> str:
    """The path of the program that a process runs: its first word may name any other (execve(2))."""
    program_file, deleted, _ = _link(pid, "exe").partition(" (deleted)")
    if deleted:
        lost.append(Remark(f"its program {program_file} was deleted or replaced since it started"))
        return path
    if program_file == "/" or os.path.realpath(path) == program_file:
        return path
    if re.match("python[0-9.]*\\Z", os.path.basename(program_file)):  # noqa: PTH119
        lost.append(
            Remark(
                f"its interpreter is {program_file}, which its first word does not name; see `python_path:`"
            )
        )
        return path
    return program_file


def _engine(pid: int) -> processes.Process:
    """The process itself, or the nearest parent, whose words run an engine."""
    first = processes.read_process(pid)
    if first is None:
        raise UsageError(f"there is no process {pid}; give the PID of an engine that runs")
    current: processes.Process | None = first
    while current and current.pid > 1:
        if processes.status(current.pid)["State"].startswith("Z"):
            raise UsageError(f"process {current.pid} has ended; give the PID of an engine that runs")
        if current.pid == pid and current.executable is None and os.geteuid() == 0:
            raise UsageError(f"process {pid} is one of the kernel's; give the PID of an engine")
        if current.unreadable:
            raise UsageError(f"process {current.pid} belongs to another user; run this as root")
        if current.argv and program(list(current.argv)):
            return current
        current = processes.read_process(int(processes.status(current.pid)["PPid"]))
    below = [*_engines_below(pid)]
    if len(below) == 1:
        return below[0]
    shown = redacted(" ".join(redacted_words(first.argv or ())[:3])) or first.executable or "?"
    fault = f"process {pid} (`{shown}`) and its parents do not show an engine's command"
    others = " or ".join(str(process.pid) for process in below)
    remedy = others or ("of the process that started it" if pid > 1 else "of an engine")
    raise UsageError(f"{fault} (vllm, sglang, llama-server); give the PID {remedy}")


def _engines_below(pid: int) -> Iterator[processes.Process]:
    """The engines that a process, such as a shell, has started."""
    with contextlib.suppress(OSError):
        for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
            process = processes.read_process(int(child))
            if process and process.argv and program(list(process.argv)):
                yield process
            else:
                yield from _engines_below(int(child))


def _link(pid: int | str, name: str) -> str:
    with contextlib.suppress(OSError):
        return os.readlink(f"/proc/{pid}/{name}")  # noqa: PTH115  (it may end in ` (deleted)`)
    return "/"


_MODEL_WORDS = ("serve", "-m", "--model", "--model-path")


def _absolute_words(words: list[str], folder: str, pid: int) -> Iterator[str]:
    """The words after the first, with absolute paths."""
    for (before, word), is_name in zip(pairwise(words), names_in(words[1:]), strict=True):
        yield word if is_name else _absolute(word, folder, pid, before)


def _absolute(word: str, folder: str, pid: int, before: str = "") -> str:
    """A word that names a file in the process's folder, as a path that is the same from everywhere."""
    named = re.match(r"(-[^=]*|[\w.-]+)=", word)  # --flag=path, and name=path of --lora-modules
    flag, separator, value = word.partition("=") if named else ("", "", word)
    is_path = before in _MODEL_WORDS or re.search(r"[^./][./]|[./][^./]", value)  # `auto` is no path
    if value.startswith(("/", "-")) or not value or not is_path:
        return word
    with contextlib.suppress(OSError, ValueError):
        if Path(f"/proc/{pid}/root{folder}", value).exists():
            return f"{flag}{separator}{os.path.normpath(f'{folder}/{value}')}"
    return word


def _set_identity(
    draft: Draft, process: processes.Process, environment: dict[str, str], *, contained: bool
) -> None:
    """Set `user:` and its groups, and the Hugging Face cache that was in use."""
    status = processes.status(process.pid)
    uid, groups = int(status["Uid"].split()[1]), [int(gid) for gid in status.get("Groups", "").split()]
    name = user_name(uid)
    if uid == 0:
        draft.lose("it ran as root; it will run as a user of its own, see `user:`")
    elif contained or name == str(uid):
        draft.lose(f"it ran as user {name}, which is no user of this host; see `user:`")
    else:
        draft.set("user", name)
        own = {*os.getgrouplist(name, pwd.getpwuid(uid).pw_gid)}
        group = int(status["Gid"].split()[1])
        all_groups = dict.fromkeys((group, *groups))
        if group != pwd.getpwuid(uid).pw_gid:
            draft.lose(f"its group {group_name(group)}: {OTHER_GROUP}")
        if more := [group_name(gid) for gid in all_groups if gid not in own]:
            set_service(draft, "SupplementaryGroups", " ".join(more))
    home = environment.get("HOME")
    if not contained and uid != 0:
        keep_cache(draft, name, home)
    elif home and Path(f"/proc/{process.pid}/root{home}/.cache/huggingface").is_dir():
        draft.lose(f"the Hugging Face cache in {home}/.cache; see HF_HOME in recipe(5)")


def _set_address(draft: Draft, pid: int, asked: int | None) -> None:
    """Set `host:` and `port:` where the engine listens, if its command leaves that to a default.

    It may listen elsewhere too: the port that was asked for counts, else its command's, else its default.
    """
    if listening := sorted(sockets.listening(pid)):
        likely = (asked, draft.fields.get("port"), ENGINES[draft.fields["backend"]].port)
        expected = [place for number in likely for place in listening if place[1] == number]
        host, port = (expected or listening)[0]
        if "port" not in draft.fields:
            draft.set("port", port)
            others = sorted({other for _, other in listening} - {port})
            if others and port not in likely:
                ports = ", ".join(map(str, others))
                draft.lose(f"it listens at {ports} too; see whether `port:` is the right one")
        if "host" not in draft.fields:
            draft.set("host", host)
        if draft.fields["port"] not in {other for _, other in listening}:
            places = ", ".join(f"{address}:{number}" for address, number in listening)
            draft.lose(f"it listens at {places}, and its command says {draft.fields['port']}")


def _of_host(word: str, pid: int, foreign: list[str]) -> str:
    """A word of a container's process with the host's path instead of the container's, where there is one."""
    flag, separator, value = word.partition("=") if word.startswith("-") else ("", "", word)
    inside = f"/proc/{pid}/root{value}"
    if not value.startswith("/") or not os.path.exists(inside):  # noqa: PTH110  (a long word is no error)
        return word
    mounts = sorted(_mounts(pid), key=lambda mount: len(mount[2]))
    device, root, point = [mount for mount in mounts if f"{value}/".startswith(f"{mount[2].rstrip('/')}/")][
        -1
    ]
    source = root.rstrip("/") + value.removeprefix(point.rstrip("/"))
    for host_device, host_root, host_point in _mounts("self"):
        if host_device == device and f"{source}/".startswith(f"{host_root.rstrip('/')}/"):
            path = host_point.rstrip("/") + source.removeprefix(host_root.rstrip("/"))
            with contextlib.suppress(OSError):
                if os.path.samefile(path, inside):  # noqa: PTH121  (hot loop)
                    return f"{flag}{separator}{path}"
    foreign.append(value)
    return word


def _mounts(pid: int | str) -> list[tuple[str, str, str]]:
    """The mounts that a process sees: device, folder of the file system, place (proc_pid_mountinfo(5))."""
    lines = Path(f"/proc/{pid}/mountinfo").read_text(errors="replace").splitlines()
    rows = [re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), line).split(" ") for line in lines]
    return [(row[2], row[3], row[4]) for row in rows]
