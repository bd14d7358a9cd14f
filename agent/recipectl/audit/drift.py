"""What differs between a recipe, its unit, what systemd has loaded and what runs: cause and remedy."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from recipectl.compiler import environment
from recipectl.machine.processes import Process
from recipectl.systemd import quoting, unitfile
from recipectl.systemd.unitfile import MARK

Command = tuple[tuple[str, ...], dict[str, str]]  # argv, environment


@dataclass(frozen=True)
class Difference:
    """One thing that is not as it should be; where: recipe, unit, drop-in, loaded, running, answers, port."""

    where: str
    what: str
    cause: str
    remedy: str


def public(version: str | None) -> str | None:
    """A version without its local part: `0.32.0+cpu` is 0.32.0."""
    return version.partition("+")[0].removeprefix("v") if version else None


def _specifiers(text: str, unit: str, runtime: str) -> str:
    name = unit.removesuffix(".service")
    known = {"%": "%", "n": unit, "N": name, "p": name, "d": f"{runtime}/credentials/{unit}", "t": runtime}
    return re.sub(r"%(.)", lambda match: known.get(match[1], match[0]), text)


def command(texts: Sequence[str], unit: str, runtime: str = "/run") -> Command:
    """The argv and environment of a unit file and its drop-ins, as systemd would load them.

    `runtime` is the manager's folder: /run, or a user's.
    """
    argv: tuple[str, ...] = ()
    environ: dict[str, str] = {}
    for text in texts:
        for section, key, value in quoting.settings(text):
            if section != "Service" or key not in ("ExecStart", "Environment"):
                continue
            words = tuple(_specifiers(word, unit, runtime) for word in quoting.split(value))
            if key == "ExecStart":
                argv = (re.sub(r"^[-@:+!|]+", "", words[0]), *words[1:]) if words else ()
            elif key == "Environment":
                environ = environ | dict(word.partition("=")[::2] for word in words) if words else {}
    return argv, environ


# Settings of a drop-in that decide what runs, as whom and with what, besides command and environment.
_DECIDING = frozenset(
    """
    EnvironmentFile PassEnvironment UnsetEnvironment User Group DynamicUser WorkingDirectory RootDirectory
    RootImage ExecSearchPath ExecStartPre ExecCondition LoadCredential SetCredential ImportCredential
    BindPaths BindReadOnlyPaths TimeoutStartSec TimeoutStopSec KillMode Restart
    """.split()  # noqa: SIM905  (a list one can read)
)


def deciding(text: str) -> list[str]:
    """The settings of a drop-in that decide what runs."""
    return sorted({key for _, key, _ in quoting.settings(text) if key in _DECIDING})


def between(one: Command, other: Command) -> str | None:
    """The first difference of two commands in words; values of variables stay out, they may be long."""
    if one[0] != other[0]:
        was, now = (
            " ".join(_unlike(*pair)) or "nothing" for pair in (one[:1] + other[:1], other[:1] + one[:1])
        )
        return f"argv ({was} became {now})" if was != now else "order of argv"
    names = sorted(name for name in {*one[1], *other[1]} if one[1].get(name) != other[1].get(name))
    return f"environment ({', '.join(names)})" if names else None


def _unlike(words: Sequence[str], others: Sequence[str]) -> list[str]:
    """The words that the others lack, each with the flag it belongs to; secrets hidden."""
    pairs = {*zip(("", *others), others, strict=False)}
    found: list[str] = []
    for before, word, shown in zip(("", *words), words, environment.hidden(words), strict=False):
        flag = before if before.startswith("-") and not word.startswith("-") else ""
        if word not in others or (flag and (before, word) not in pairs):
            found += [flag, shown] if flag and found[-1:] != [flag] else [shown]
    return found


# What systemd itself gives a process (systemd.exec(5)).
_OF_SYSTEMD = re.compile(
    r"(PATH|LANG|LC_.*|HOME|USER|LOGNAME|SHELL|TERM|INVOCATION_ID|JOURNAL_STREAM|SYSTEMD_.*|MANAGERPID(FDID)?"
    r"|NOTIFY_SOCKET|MAINPID|WATCHDOG_.*|LISTEN_.*|CREDENTIALS_DIRECTORY|(STATE|CACHE|RUNTIME|LOGS)_DIRECTORY"
    r"|MEMORY_PRESSURE_.*|FDSTORE|XDG_.*|DBUS_.*|DEBUGINFOD_URLS|container)\Z"
)
# What a user's own session gives everything in it; engines read other names.
_ENGINES = re.compile(
    r"(VLLM|SGLANG|SGL|LLAMA|GGML|HF|HUGGING|CUDA|NVIDIA|NCCL|HIP|ROCR|TORCH|TRITON|PYTORCH|PYTHON|LD)_"
)


def shown_by(process: Process, loaded: Command) -> str | None:
    """How a process differs from the command that it should have been started with; None when it does not."""
    argv, environ = loaded
    if process.argv and len(process.argv) > 1:
        # A script's process shows its interpreter first; one that renamed itself shows a single word.
        alike = process.argv == argv or (len(process.argv) == len(argv) + 1 and process.argv[1:] == argv)
        alike = alike or process.argv[-len(argv) + 1 :] == argv[1:]
        if not alike:
            # An interpreter before its script is no difference.
            shown = process.argv[1:] if process.argv[1:2] == argv[:1] else process.argv
            return between((shown, environ), (argv, environ))
    seen = process.environment
    if seen:
        theirs = {name: value for name, value in environ.items() if name != MARK}  # the marks are compared
        names = sorted(name for name in theirs if name in seen and seen[name] != theirs[name])
        missing = sorted(name for name in theirs if name not in seen)
        if names or (missing and len(missing) < len(theirs)):
            return f"environment ({', '.join([*names, *missing])})"
    return None


def foreign(
    process: Process, loaded: Command, secret: Sequence[str] = (), *, user: bool = False
) -> list[str]:
    """Variables of a process that no unit of it gives.

    `secret` are variables that come from files; with `user` the session's own variables are let be.
    """
    seen = process.environment or {}
    if not seen.keys() & loaded[1].keys():
        return []  # it has overwritten them with its own title
    strange = [name for name in seen if name not in loaded[1] and name not in secret]
    return sorted(
        name for name in strange if not _OF_SYSTEMD.match(name) and (not user or _ENGINES.match(name))
    )


def of_unit(
    name: str,
    wanted: Mapping[str, str],
    installed: Mapping[str, str],
    versions: tuple[str | None, str | None],
) -> list[Difference]:
    """What units on disk lack of the recipe as it is now; `versions`: the engine when compiled, and now."""
    changed = sorted(unit for unit, text in wanted.items() if installed.get(unit) != text)
    if not changed:
        return []
    if all(unit not in installed for unit in changed):
        return [
            Difference(
                "unit", "the recipe has no unit on disk", "it was never applied", f"recipectl apply {name}"
            )
        ]
    if by_hand := [unit for unit in changed if unitfile.edited(installed.get(unit, ""))]:
        remedy = f"move the change into a drop-in (systemctl edit), then recipectl apply {name}"
        return [Difference("unit", f"{', '.join(by_hand)} was edited", "somebody edited it by hand", remedy)]
    if versions[0] != versions[1] and versions[0]:
        what = f"the unit was compiled for {versions[0]}, and {versions[1] or 'nothing'} is installed now"
        return [Difference("unit", what, "the venv was changed after apply", f"recipectl apply {name}")]
    what = f"{', '.join(changed)} is not what the recipe says now"
    return [Difference("unit", what, "an edit was not applied", f"recipectl apply {name}")]


def of_loaded(
    unit: str, file: str, drop_ins: Mapping[str, str], loaded: Command, runtime: str = "/run"
) -> list[Difference]:
    """What systemd has loaded against the disk, and what drop-ins (path -> text) make of it."""
    effective = command([file, *drop_ins.values()], unit, runtime)
    found, before = [], command([file], unit, runtime)
    for n, (path, text) in enumerate(drop_ins.items(), 1):
        after = command([file, *[*drop_ins.values()][:n]], unit, runtime)
        said = [f"changes {what}"] if (what := between(before, after)) else []
        said += [f"sets {', '.join(f'{key}=' for key in keys)}"] if (keys := deciding(text)) else []
        before = after
        if said:
            remedy = f"move it into the recipe and remove {path}"
            found.append(Difference("drop-in", f"a drop-in {' and '.join(said)}", path, remedy))
    if what := between(loaded, effective):
        told = f"systemd has loaded another {what}"
        found.append(
            Difference("loaded", told, "files were changed without a reload", "systemctl daemon-reload")
        )
    return found


def of_process(
    unit: str,
    process: Process,
    loaded: Command,
    replaced: str | None,
    marks: tuple[str | None, str | None],
    secret: Sequence[str] = (),
    *,
    user: bool = False,
) -> list[Difference]:
    """What runs against what is loaded.

    `replaced` is the interpreter when another file runs; `marks` are the digest it was started with, and
    the unit's now.
    """
    recipe = unitfile.recipe_of(unit)
    again, found = f"recipectl restart {recipe}", list[Difference]()
    if names := foreign(process, loaded, secret, user=user):
        what = f"process {process.pid} has variables that no unit of it gives ({', '.join(names)})"
        cause = "they come from EnvironmentFile=, DefaultEnvironment= or systemctl set-environment"
        found.append(Difference("running", what, cause, f"take them away there, then {again}"))
    if said := shown_by(process, loaded):
        what = f"process {process.pid} was started with another {said}"
        return [*found, Difference("running", what, "applied without a restart", again)]
    if marks[0] and marks[1] and marks[0] != marks[1]:
        what = f"process {process.pid} was started by an earlier unit"
        return [*found, Difference("running", what, "applied without a restart", again)]
    if replaced:
        what = f"process {process.pid} runs {process.executable}, and not {replaced}"
        return [*found, Difference("running", what, "its interpreter was replaced", again)]
    return found


def of_silence(unit: str, answered: str | None, *, ready: bool) -> list[Difference]:
    """An engine that was ready, and does not answer."""
    if not ready or answered is not None:
        return []
    recipe = unitfile.recipe_of(unit)
    return [
        Difference(
            "answers",
            "the engine does not answer, though its process is there",
            "it hangs, or is very busy",
            f"recipectl logs {recipe}; recipectl restart {recipe}",
        )
    ]


def of_lock(recipe: str, clauses: Sequence[str]) -> list[Difference]:
    """A runtime that is not as it was locked."""
    remedy = f"put it back, or accept it with `recipectl lock --update {recipe}`"
    return [
        Difference("runtime", clause, "the runtime was changed since it was locked", remedy)
        for clause in clauses
    ]


def of_version(unit: str, answered: str | None, now: str | None, changed_after: bool) -> list[Difference]:
    """What the engine says of itself against what is installed; `changed_after` the process started."""
    recipe = unitfile.recipe_of(unit)
    again = f"recipectl restart {recipe}"
    if answered and now and re.match(r"[0-9]+\.", public(answered) or "") and public(answered) != public(now):
        what = f"the engine answers {answered}, and {now} is installed"
        return [Difference("answers", what, "the venv was changed under a running engine", again)]
    if changed_after:
        what = f"{now or 'the engine'} was installed after the process had started"
        return [Difference("running", what, "the venv was changed under a running engine", again)]
    return []
