"""Scripts within a command: `bash -c SCRIPT`, also behind `sudo` and the like."""

import re
from collections.abc import Mapping
from dataclasses import replace

from recipectl.importers.command import READS_PROFILE, Command, program_shown, script_in
from recipectl.importers.lines import Remark, at
from recipectl.importers.programs import program_name, runs_engine
from recipectl.importers.shell import commands
from recipectl.importers.unwrapping import unwrapped

_LOGIN = re.compile("-[a-z]*[li][a-z]*|--login")


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
        is_zsh=any(program_name([word]) == "zsh" for word in words[: words.index(script)]),
    )
    options = [word for word in words[1 : words.index(script)] if _LOGIN.fullmatch(word)]
    if options and programs:
        remark = Remark(f"`{program_name(words)} {options[0]}`: {READS_PROFILE}")
        for command in programs:
            command.not_carried_over.insert(0, remark)
        programs[0].lost_before.insert(0, remark)
    if "\n" not in script:
        for command in programs:
            command.place = ""
            command.places = {}
            for remarks in (command.not_carried_over, command.lost_before):
                remarks[:] = [replace(remark, line=0) for remark in remarks]
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
    others: list[Remark] = []
    for other in programs:
        if other not in engines:
            others += [remark.moved_into(command.place) for remark in other.lost_before]
            shown = program_shown(unwrapped(other).words)
            others.append(Remark(f"`{shown}`, which runs no engine", within=other.place))
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


def engine_of(script: list[Command], where: str) -> Command | None:
    """The engine that a unit or a container runs, which names its other programs and what they lost.

    It is the last one that runs under no condition; else of those under the last condition the first.
    None where no engine runs.
    """
    engines = [command for command in script if runs_engine(unwrapped(command).words)]
    if not engines:
        return None
    condition = engines[-1].condition
    certain = [command for command in engines if not command.condition]
    engine = certain[-1] if certain else next(other for other in engines if other.condition == condition)
    lost: list[Remark] = []
    for command in script:
        if command is engine:
            continue
        is_engine = command in engines and not command.refusal
        shown = f"`{' '.join(command.words)}`, another engine" if is_engine else ""
        lost += command.not_carried_over if is_engine else command.lost_before
        sentence = command.refusal or shown or f"`{program_shown(command.words)}` {where}"
        lost.append(Remark(sentence, within=command.place))
    engine.not_carried_over += lost
    return engine


def opened_engine(command: Command) -> Command:
    """The engine in `bash -c SCRIPT`; any other command as it is."""
    programs = opened(command)
    return (engine_of(programs, "of its shell") if len(programs) > 1 else None) or programs[-1]
