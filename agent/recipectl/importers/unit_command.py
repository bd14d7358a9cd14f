"""The command of a unit's ExecStart=: an engine, or a shell or a script that runs one."""

import contextlib
import os
import re
from pathlib import Path

from recipectl.errors import RecipectlError, UsageError
from recipectl.importers.command import READS_PROFILE, SHELLS, Command, program_shown, script_in, template_in
from recipectl.importers.draft import (
    AS_IT_RUNS,
    VARIABLE_START,
    redacted,
)
from recipectl.importers.lines import Remark
from recipectl.importers.programs import program_name, runs_engine
from recipectl.importers.shell import commands
from recipectl.importers.shell_inline import engine_of, inline_commands, opened, opened_engine
from recipectl.importers.shell_programs import DEMO_SERVER, is_demo_server
from recipectl.importers.unit_text import (
    expanded_words,
    is_variable_alone,
    separated,
    words_without_specifiers,
)
from recipectl.importers.unwrapping import unwrapped
from recipectl.recipe.yamlsyntax import read_text

# They start a program that their command line does not have, or not as its own words.
_NO_SCRIPTS = (
    "docker", "podman", "nerdctl", "screen", "tmux", "su", "python", "python3", "node", "uv", "conda",
    "toolbox", "distrobox", "flatpak",
)  # fmt: skip


def command_of(line: str, environment: dict[str, str], name: str, lost: list[Remark], folder: str) -> Command:
    """The command of one ExecStart=; UsageError when its shell runs no engine."""
    words = _words_of(line, environment, name, lost)
    if script_in(words[:5]) is not None:
        return _engine_of(inline_commands(words, environment, folder), text=script_in(words[:5]) or "")
    path = environment.get("PATH")
    variables = {variable: value for variable, value in environment.items() if variable != "PATH"}
    command = Command(variables, words, path=path, script_folder=folder, is_of_unit=True)
    if (in_shell := opened_engine(command)) is not command:
        return in_shell
    inner = unwrapped(command).words
    if not inner or runs_engine(inner) or template_in(inner):
        return command
    return _engine_of_script(inner, environment, folder)


def _words_of(line: str, environment: dict[str, str], name: str, lost: list[Remark]) -> list[str]:
    """The words of one ExecStart= as systemd reads them; what its prefix changes is named."""
    command_line = line.lstrip("-@:+!|")
    prefix = line.removesuffix(command_line)
    first, separator, others = separated(command_line)
    words = words_without_specifiers(first, name, lost)
    if {"+", "!"} & {*prefix}:
        lost.append(Remark(f"the prefix `{prefix}` of ExecStart=, which ran it with privileges"))
    if "|" in prefix:
        lost.append(
            Remark(f"the prefix `|` of ExecStart=: it ran in the login shell of its user; {READS_PROFILE}")
        )
    if "-" in prefix:
        lost.append(Remark("the prefix `-` of ExecStart=: systemd did not count a crash as a failure"))
    if "@" in prefix:
        words = [*words[:1], *words[2:]]  # the second word is the name that the process shows
    if separator:
        shown = " ".join(words_without_specifiers(others, name, []))
        lost.append(Remark(redacted(f"`; {shown}`, a second command of ExecStart=")))
    words = [";" if word == "\\;" else word for word in words]
    if ":" not in prefix:  # systemd does not expand variables after this prefix
        lost += [
            Remark(f"`{redacted(word)}`, which systemd takes for a variable of that name, and drops")
            for word in words
            if is_variable_alone(word)
            and not expanded_words(word, environment)
            and word[1:] not in environment
        ]
        words = [part for word in words for part in expanded_words(word, environment)]
    return words


def _engine_of_script(words: list[str], environment: dict[str, str], folder: str) -> Command:
    """The engine in the script that a command runs in a folder."""
    position = _position_of_script(words)
    file, script = _own_script(words, position, folder)
    arguments = tuple(words[position + 1 :])
    programs = commands(
        script, environment, str(Path(file).parent), arguments=arguments, working_folder=folder
    )
    engine = _engine_of(programs, file)
    if engine.folder == folder:
        engine.folder, engine.script_folder = None, folder
    return engine


def _position_of_script(words: list[str]) -> int:
    """Where a command names a script: after a shell and its options, or as the program itself."""
    if program_name(words) not in SHELLS:
        return 0
    position = 1
    while position < len(words) and words[position][:1] in ("-", "+"):
        position += 2 if words[position][1:] in ("o", "O", "-rcfile", "-init-file") else 1
    return position


def _own_script(words: list[str], position: int, folder: str) -> tuple[str, str]:
    """The path and text of the script that a command is; UsageError when it is none, or cannot be read."""
    word = "".join(words[position : position + 1])
    is_path = word.startswith(("/", VARIABLE_START))
    file = word if is_path else f"{folder.rstrip('/')}/{word}" if position and word else ""
    text = ""
    with contextlib.suppress(OSError, RecipectlError):
        text = read_text(Path(file))
    if "compose" in " ".join(words[:2]):
        fault = f"`{redacted(program_shown(words))}` runs containers"
        raise UsageError(f"{fault}; run `recipectl import compose` with its file")
    if program_name(words).startswith("llama-swap"):
        fault = f"`{redacted(words[0])}` starts its models itself"
        raise UsageError(f"{fault}; run `recipectl import llama-swap` with its configuration")
    if is_demo_server(words):
        raise UsageError(DEMO_SERVER)
    if program_name(words) in _NO_SCRIPTS:
        fault = f"`{redacted(program_shown(words))}` does not show its engine"
        raise UsageError(f"{fault}; give the engine's command, {AS_IT_RUNS}")
    if program_name(words) in SHELLS or re.match(r"#!.*\b(ba|da|z)?sh\b", text):
        if text:
            return file, text
        fault = f"`{redacted(word)}` cannot be read here"
    else:
        fault = f"`{redacted(file or words[0])}` is no engine (vllm, sglang, llama-server)"
        if file and os.path.exists(file):  # noqa: PTH110  (a closed folder is no error)
            raise UsageError(f"{fault}, and no shell script; give the engine's command, {AS_IT_RUNS}")
    command = f"`recipectl import command {redacted(word if file else 'FILE')}`"
    raise UsageError(f"{fault}; if it is a script, run {command}, {AS_IT_RUNS}")


def _engine_of(script: list[Command], file: str = "", text: str = "") -> Command:
    """The engine in the `text` of a unit's shell, or in the `file` that it runs; UsageError without one."""
    script = [inner for command in script for inner in opened(command)]
    engine = engine_of(script, "of its shell")
    if engine is None:
        fault = "the shell of its ExecStart= does not run a known engine"
        programs = [unwrapped(command).words for command in script]
        sourced = re.search(r"(?:^|[\s;&])(?:source|\.)\s+(/\S+)", text)
        file = next((words[0] for words in programs if words and words[0].startswith("/")), "")
        file = file or (sourced[1] if sourced else "")
        remedy = f"run `recipectl import command {redacted(file)}` if it is a script" if file else ""
        raise UsageError(f"{fault}; {remedy or 'name the engine there'}, {AS_IT_RUNS}")
    if file:
        engine.stand_at(file)
    return engine
