"""What differs between a recipe, its unit, what systemd has loaded and what runs: cause and remedy."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from recipectl import quoting
from recipectl.running import Process

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


def _specifiers(text: str, unit: str) -> str:
    name = unit.removesuffix(".service")
    known = {"%": "%", "n": unit, "N": name, "p": name, "d": f"/run/credentials/{unit}"}
    return re.sub(r"%(.)", lambda match: known.get(match[1], match[0]), text)


def command(texts: Sequence[str], unit: str) -> Command:
    """The argv and environment of a unit file and its drop-ins, as systemd would load them."""
    argv: tuple[str, ...] = ()
    environ: dict[str, str] = {}
    for text in texts:
        for section, key, value in quoting.settings(text):
            if section != "Service" or key not in ("ExecStart", "Environment", "UnsetEnvironment"):
                continue
            words = tuple(_specifiers(word, unit) for word in quoting.split(value))
            if key == "ExecStart":
                argv = (re.sub(r"^[-@:+!|]+", "", words[0]), *words[1:]) if words else ()
            elif key == "Environment":
                environ = environ | dict(word.partition("=")[::2] for word in words) if words else {}
    return argv, environ


def between(one: Command, other: Command) -> str | None:
    """The first difference of two commands in words; values of variables stay out, they may be long."""
    if one[0] != other[0]:
        old, new = (
            [w for w in words if w not in others]
            for words, others in ((one[0], other[0]), (other[0], one[0]))
        )
        if old or new:
            return f"argv ({' '.join(old) or 'nothing'} became {' '.join(new) or 'nothing'})"
        return "the order of argv"
    names = sorted(name for name in {*one[1], *other[1]} if one[1].get(name) != other[1].get(name))
    return f"the environment ({', '.join(names)})" if names else None


def shown_by(process: Process, loaded: Command) -> str | None:
    """How a process differs from the command that it should have been started with; None when it does not."""
    argv, environ = loaded
    if process.argv and len(process.argv) > 1:
        # A script's process shows its interpreter first; one that renamed itself shows a single word.
        alike = process.argv == argv or (len(process.argv) == len(argv) + 1 and process.argv[1:] == argv)
        alike = alike or process.argv[-len(argv) + 1 :] == argv[1:]
        if not alike:
            return between((process.argv, environ), (argv, environ))
    seen = process.environment
    if seen:
        names = sorted(name for name in environ if name in seen and seen[name] != environ[name])
        missing = sorted(name for name in environ if name not in seen)
        if names or (missing and len(missing) < len(environ)):
            return f"the environment ({', '.join([*names, *missing])})"
    return None


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
    if versions[0] != versions[1] and versions[0]:
        what = f"the unit was compiled for {versions[0]}, and {versions[1] or 'nothing'} is installed now"
        return [Difference("unit", what, "the venv was changed after apply", f"recipectl apply {name}")]
    what = f"{', '.join(changed)} is not what the recipe says now"
    return [Difference("unit", what, "an edit was not applied", f"recipectl apply {name}")]


def of_loaded(unit: str, file: str, drop_ins: Mapping[str, str], loaded: Command) -> list[Difference]:
    """What systemd has loaded against the disk, and what drop-ins (path -> text) make of it."""
    plain = command([file], unit)
    effective = command([file, *drop_ins.values()], unit)
    found = []
    if said := between(plain, effective):
        paths = " ".join(drop_ins)
        found.append(
            Difference(
                "drop-in",
                f"a drop-in changes {said}",
                paths,
                f"move it into the recipe, or systemctl revert {unit}",
            )
        )
    if said := between(loaded, effective):
        what = f"systemd has loaded another {said}"
        found.append(
            Difference("loaded", what, "files were changed without a reload", "systemctl daemon-reload")
        )
    return found


def of_process(
    unit: str, process: Process, loaded: Command, base: str | None, mark: str | None, digest: str | None
) -> list[Difference]:
    """What runs against what is loaded; `mark` is the digest it was started with, `digest` the unit's now."""
    recipe = unit.removeprefix("model-").removesuffix(".service")
    again = f"recipectl restart {recipe}"
    if said := shown_by(process, loaded):
        what = f"process {process.pid} was started with another {said}"
        return [Difference("running", what, "applied without a restart", again)]
    if mark and digest and mark != digest:
        what = f"process {process.pid} was started by an earlier unit"
        return [Difference("running", what, "applied without a restart", again)]
    real = (process.executable or "").removesuffix(" (deleted)")
    if process.executable and (
        process.executable.endswith(" (deleted)") or (base and real != base and not process.argv)
    ):
        what = f"process {process.pid} runs {process.executable}"
        return [Difference("running", what, "its interpreter was replaced", again)]
    return []


def of_version(unit: str, answered: str | None, now: str | None, changed_after: bool) -> list[Difference]:
    """What the engine says of itself against what is installed; `changed_after` the process started."""
    recipe = unit.removeprefix("model-").removesuffix(".service")
    again = f"recipectl restart {recipe}"
    if answered and now and re.match(r"[0-9]+\.", public(answered) or "") and public(answered) != public(now):
        what = f"the engine answers {answered}, and {now} is installed"
        return [Difference("answers", what, "the venv was changed under a running engine", again)]
    if changed_after:
        what = f"{now or 'the engine'} was installed after the process had started"
        return [Difference("running", what, "the venv was changed under a running engine", again)]
    return []
