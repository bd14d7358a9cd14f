"""Scripts within a command: `bash -c SCRIPT`, also behind `sudo` and the like."""

from collections.abc import Mapping
from dataclasses import replace

from recipectl.importers.command import Command, program_shown, script_in
from recipectl.importers.lines import at, placed
from recipectl.importers.programs import runs_engine, unwrapped
from recipectl.importers.shell import commands


def inline_commands(
    words: list[str], environment: Mapping[str, str], folder: str | None = None
) -> list[Command]:
    """As `commands`, of the script in `bash -c SCRIPT NAME ARGUMENT...`; one line has no number then."""
    script = script_in(words)
    if not script:
        return []
    after = words[words.index(script) + 1 :]
    programs = commands(
        script,
        environment,
        folder,
        arguments=tuple(after[1:]),
        own_name=after[0] if after else None,
        has_specifiers=True,
    )
    if "\n" not in script:
        for command in programs:
            command.place = ""
            command.places = {}
            command.not_carried_over = [text.removeprefix("line 1: ") for text in command.not_carried_over]
    return programs


def opened(command: Command) -> list[Command]:
    """The engines in `bash -c SCRIPT`, also behind `sudo` and the like; any other command as it is."""
    outer = unwrapped(replace(command, not_carried_over=[]))
    folder = outer.folder or outer.script_folder
    programs = [] if command.refusal else inline_commands(outer.words, outer.environment, folder)
    engines = [inner for inner in programs if inner.refusal or runs_engine(unwrapped(inner).words)]
    lost = list(command.not_carried_over)
    with at(command.place, lost):
        lost += outer.not_carried_over
    for inner in programs:
        inner.stand_at(command.place)
    others = [
        placed(f"`{program_shown(unwrapped(other).words)}`, which runs no engine", other.place)
        for other in programs
        if other not in engines
    ]
    for inner in engines:
        inner.not_carried_over = [*lost, *others, *inner.not_carried_over]
        inner.places = command.places | inner.places
        others = []
        inner.user = inner.user or outer.user
        inner.venv = inner.venv or outer.venv
        inner.conda_environment = inner.conda_environment or outer.conda_environment
        inner.path = inner.path or outer.path
        inner.folder = inner.folder or outer.folder
        inner.service = outer.service | inner.service
        inner.secrets = outer.secrets | inner.secrets
        inner.substituted |= outer.substituted
    return engines or [command]


def last_opened(command: Command) -> Command:
    """The last engine in `bash -c SCRIPT`, which names what the others lost; any other command as it is."""
    *others, engine = opened(command)
    for other in others:
        engine.not_carried_over += [
            *other.not_carried_over,
            f"`{' '.join(other.words)}`, another engine",
        ]
    return engine
