"""How a recipe, its unit, what systemd has loaded and what runs differ: cause and remedy. Pure."""

import posixpath
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

from recipectl.compiler import secrets
from recipectl.engines.registry import ENGINES
from recipectl.machine.processes import Process
from recipectl.place import Place
from recipectl.systemd import quoting
from recipectl.systemd.unitfile import DIGEST_FIELD, InstalledUnit, parse_settings
from recipectl.text import display

Where = Literal["recipe", "unit", "drop-in", "loaded", "running", "runtime", "answers", "port"]


class ServiceCommand(NamedTuple):
    """What a service runs."""

    argv: tuple[str, ...]
    environment: Mapping[str, str]


@dataclass(frozen=True)
class Difference:
    """One thing that is not as it should be: where, what, why, and what to do."""

    where: Where
    what: str
    cause: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.what} ({self.cause}); {self.remedy}"


def public_version(version: str | None) -> str | None:
    """A version without its local part: `0.32.0+cpu` is 0.32.0."""
    return version.partition("+")[0].removeprefix("v") if version else None


def command_of(texts: Sequence[str], unit: str, runtime_folder: str = "/run") -> ServiceCommand:
    """The command of a unit file and its drop-ins, as systemd would load it.

    `runtime_folder` is the manager's: /run, or a user's.
    """
    argv: tuple[str, ...] = ()
    environment: dict[str, str] = {}
    for setting in (setting for text in texts for setting in parse_settings(text)):
        if setting.section != "Service" or setting.name not in ("ExecStart", "Environment"):
            continue
        words = tuple(_expanded(word, unit, runtime_folder) for word in quoting.split(setting.value))
        if setting.name == "ExecStart":
            argv = (re.sub(r"^[-@:+!|]+", "", words[0]), *words[1:]) if words else ()
        else:
            environment = environment | dict(word.partition("=")[::2] for word in words) if words else {}
    return ServiceCommand(argv, environment)


def _expanded(text: str, unit: str, runtime_folder: str) -> str:
    """A word with its specifiers expanded (systemd.unit(5))."""
    name = unit.removesuffix(".service")
    credentials = f"{runtime_folder}/credentials/{unit}"
    known = {"%": "%", "n": unit, "N": name, "p": name, "d": credentials, "t": runtime_folder}
    return re.sub(r"%(.)", lambda match: known.get(match[1], match[0]), text)


# Settings of a drop-in that decide what runs, as whom and with what, besides command and environment.
_DECIDING = frozenset(
    """
    EnvironmentFile PassEnvironment UnsetEnvironment User Group DynamicUser WorkingDirectory RootDirectory
    RootImage ExecSearchPath ExecStartPre ExecCondition LoadCredential SetCredential ImportCredential
    BindPaths BindReadOnlyPaths TimeoutStartSec TimeoutStopSec KillMode Restart
    """.split()  # noqa: SIM905  (a list that one can read)
)


def deciding_settings(text: str) -> list[str]:
    """The settings of a drop-in that decide what runs."""
    return sorted({setting.name for setting in parse_settings(text) if setting.name in _DECIDING})


def first_difference(before: ServiceCommand, after: ServiceCommand) -> str | None:
    """The first difference of two commands in words, without the values of variables (they may be secret)."""
    if before.argv != after.argv:
        removed = " ".join(_words_missing_in(after.argv, before.argv)) or "nothing"
        added = " ".join(_words_missing_in(before.argv, after.argv)) or "nothing"
        return f"argv ({removed} became {added})" if removed != added else "order of argv"
    names = {*before.environment, *after.environment}
    changed = sorted(name for name in names if before.environment.get(name) != after.environment.get(name))
    return f"environment ({', '.join(changed)})" if changed else None


def _words_missing_in(other: Sequence[str], words: Sequence[str]) -> list[str]:
    """The words that the other command lacks, each with the flag it belongs to; secrets are hidden."""
    pairs = {*zip(("", *other), other, strict=False)}
    result: list[str] = []
    for before, word, text in zip(("", *words), words, secrets.redacted(words), strict=False):
        flag = before if before.startswith("-") and not word.startswith("-") else ""
        if word not in other or (flag and (before, word) not in pairs):
            result += [flag, text] if flag and result[-1:] != [flag] else [text]
    return result


# What systemd itself gives a process (systemd.exec(5)).
_SYSTEMD_VARIABLE = re.compile(
    r"(PATH|LANG|LC_.*|HOME|USER|LOGNAME|SHELL|TERM|INVOCATION_ID|JOURNAL_STREAM|SYSTEMD_.*|MANAGERPID(FDID)?"
    r"|NOTIFY_SOCKET|MAINPID|WATCHDOG_.*|LISTEN_.*|CREDENTIALS_DIRECTORY|(STATE|CACHE|RUNTIME|LOGS)_DIRECTORY"
    r"|MEMORY_PRESSURE_.*|FDSTORE|XDG_.*|DBUS_.*|DEBUGINFOD_URLS|container)\Z"
)
# A user's session gives its own variables to everything in it; engines read only these.
_ENGINE_VARIABLE = re.compile(
    r"(VLLM|SGLANG|SGL|LLAMA|GGML|HF|HUGGING|CUDA|NVIDIA|NCCL|HIP|ROCR|TORCH|TRITON|PYTORCH|PYTHON|LD)_"
)


def process_difference(process: Process, loaded: ServiceCommand) -> str | None:
    """How a process differs from the command that it should have been started with; None when it does not."""
    argv = process.argv or ()
    # A process that renamed itself has a single word: it tells nothing.
    if len(argv) > 1 and not _same_argv(argv, loaded.argv):
        own = argv[1:] if argv[1:2] == loaded.argv[:1] else argv  # without the interpreter of a script
        return first_difference(ServiceCommand(own, loaded.environment), loaded)
    current = process.environment
    if not current:
        return None
    expected = {name: value for name, value in loaded.environment.items() if name != DIGEST_FIELD}
    changed = sorted(name for name, value in expected.items() if name in current and current[name] != value)
    missing = sorted(name for name in expected if name not in current)
    if changed or (missing and len(missing) < len(expected)):
        return f"environment ({', '.join([*changed, *missing])})"
    return None


def _same_argv(argv: tuple[str, ...], loaded: tuple[str, ...]) -> bool:
    """True if a process runs a command. The process of a script has its interpreter first."""
    return argv == loaded or argv[1:] == loaded or argv[-len(loaded) + 1 :] == loaded[1:]


def foreign_variables(
    process: Process, loaded: ServiceCommand, secret: Sequence[str] = (), *, user: bool = False
) -> list[str]:
    """Variables of a process that no unit gives it.

    `secret` are variables that come from files; with `user` the session's own variables are ignored.
    """
    current = process.environment or {}
    if not current.keys() & loaded.environment.keys():
        return []  # the process has overwritten them with its title
    return sorted(
        name
        for name in current
        if name not in loaded.environment
        and name not in secret
        and not _SYSTEMD_VARIABLE.match(name)
        and (not user or _ENGINE_VARIABLE.match(name))
    )


def of_unit(
    place: Place,
    name: str,
    expected: Mapping[str, str],
    installed: Mapping[str, InstalledUnit],
    compiled_version: str | None,
    version: str,
) -> Iterator[Difference]:
    """How the units on disk differ from the recipe; the versions are the engine's, when compiled and now."""
    changed = sorted(
        unit for unit, text in expected.items() if unit not in installed or installed[unit].text != text
    )
    if not changed:
        return
    apply = place.verb(f"apply {name}")
    edited = [unit for unit in changed if unit in installed and installed[unit].edited_by_hand]
    if all(unit not in installed for unit in changed):
        cause = "it was not applied, or was removed"
        yield Difference("unit", "the recipe has no unit on disk", cause, apply)
    elif edited:
        remedy = f"move the change into a drop-in ({place.systemctl('edit')}), then {apply}"
        yield Difference("unit", f"{', '.join(edited)} was edited", "somebody edited it by hand", remedy)
    elif compiled_version and compiled_version != version:
        fault = f"the unit was compiled for {compiled_version}, and {version} is installed now"
        yield Difference("unit", fault, "the venv was changed after apply", apply)
    else:
        fault = f"{', '.join(changed)} differs from the recipe"
        yield Difference("unit", fault, "an edit was not applied", apply)


def of_loaded(
    place: Place, unit: InstalledUnit, drop_ins: Mapping[str, str], loaded: ServiceCommand
) -> Iterator[Difference]:
    """How what systemd has loaded differs from the disk, and what drop-ins (path -> text) change."""
    texts = [unit.text]
    before = command_of(texts, unit.name, place.runtime_folder)
    for path, text in drop_ins.items():
        texts.append(text)
        after = command_of(texts, unit.name, place.runtime_folder)
        change = first_difference(before, after)
        effects = [f"changes {change}"] if change else []
        if names := deciding_settings(text):
            effects.append(f"sets {', '.join(f'{name}=' for name in names)}")
        if effects:
            revert = place.systemctl(f"revert {unit.name}")
            remedy = f"it stays in force; `{revert}` takes the site's drop-ins away"
            yield Difference("drop-in", f"a drop-in {' and '.join(effects)}", path, remedy)
        before = after
    if change := first_difference(loaded, before):
        fault = f"systemd has loaded another {change}"
        yield Difference(
            "loaded", fault, "files were changed without a reload", place.systemctl("daemon-reload")
        )


def of_process(
    place: Place,
    name: str,
    process: Process,
    loaded: ServiceCommand,
    *,
    replaced_interpreter: str | None,
    started_digest: str | None,
    unit_digest: str | None,
    rotated: Sequence[str],
    secret: Sequence[str] | None = (),
) -> Iterator[Difference]:
    """How a process differs from what is loaded; `replaced_interpreter` is the file that should run.

    `rotated` are files of secrets that were changed under it: it still has the old ones. Without `secret`,
    nobody knows which of its variables come from files.
    """
    pid = process.pid
    restart = place.verb(f"restart {name}")
    if secret is not None and (names := foreign_variables(process, loaded, secret, user=place.user)):
        fault = f"process {pid} has variables that no unit gives it ({', '.join(names)})"
        cause = (
            "from EnvironmentFile=, DefaultEnvironment=, systemctl set-environment, or the engine's script"
        )
        yield Difference("running", fault, cause, f"remove them there, then {restart}")
    if change := process_difference(process, loaded):
        fault = f"process {pid} was started with another {change}"
        yield Difference("running", fault, "applied without a restart", restart)
    elif started_digest is not None and unit_digest and started_digest != unit_digest:
        fault = f"process {pid} was started by an earlier unit"
        yield Difference("running", fault, "applied without a restart", restart)
    elif replaced_interpreter:
        fault = f"process {pid} runs {process.executable} instead of {replaced_interpreter}"
        yield Difference("running", fault, "its interpreter was replaced", restart)
    for file in rotated:
        fault = f"{file} was changed after the process had started"
        yield Difference("running", fault, "a secret was rotated", restart)


def of_silence(place: Place, name: str) -> Difference:
    """An engine that was ready, and does not answer."""
    fault = "the engine does not answer, though its process exists"
    remedy = f"{place.verb('logs')} {name}; {place.verb('restart')} {name}"
    return Difference("answers", fault, "it hangs, or is very busy", remedy)


def of_lock(place: Place, recipe: str, clauses: Sequence[str]) -> Iterator[Difference]:
    """A runtime that differs from its lock."""
    remedy = f"put it back, or accept it with `{place.verb('lock')} --update {recipe}`"
    for clause in clauses:
        yield Difference("runtime", clause, "the runtime was changed since it was locked", remedy)


def of_version(
    place: Place, name: str, answered: str | None, installed: str | None, *, installed_after_start: bool
) -> Iterator[Difference]:
    """How the version that the engine answers differs from the installed one."""
    restart = place.verb(f"restart {name}")
    cause = "the venv was changed under a running engine"
    version = public_version(answered)
    if version and installed and re.match(r"[0-9]+\.", version) and version != public_version(installed):
        yield Difference(
            "answers", f"the engine answers {answered}, and {installed} is installed", cause, restart
        )
    elif installed_after_start:
        fault = f"{installed or 'the engine'} was installed after the process had started"
        yield Difference("running", fault, cause, restart)


def of_model(place: Place, unit: InstalledUnit, models: Sequence[str], path: str) -> Iterator[Difference]:
    """How the model that an engine answers for differs from that of its unit."""
    restart = place.verb(f"restart {unit.recipe}")
    cause = "another process answers at its address, or it was started with other arguments"
    engine = ENGINES.get(unit.backend or "")
    if engine and unit.model_path and engine.model_flag_of(unit.model_path) == engine.hub_flag:
        path = ""  # it tells the file in its cache
        models = () if unit.model == unit.model_path else models
    if models and unit.model and unit.model not in models:
        fault = f"the engine serves `{display(models[0])}`, and the unit says `{display(unit.model)}`"
        yield Difference("answers", fault, cause, restart)
    elif path and unit.model_path and posixpath.normpath(path) != posixpath.normpath(unit.model_path):
        fault = f"the engine has loaded {display(path)}, and the unit says {display(unit.model_path)}"
        yield Difference("answers", fault, cause, restart)
