"""What the redirections of a shell mean for the commands that they stand at."""

import re
from collections.abc import Iterable, Sequence

from recipectl.importers.command import Command, program_shown
from recipectl.importers.draft import UNKNOWN_VALUE, VARIABLE_START
from recipectl.importers.lines import Remark
from recipectl.importers.programs import program_name
from recipectl.importers.shell_conditions import literals
from recipectl.importers.shell_programs import files_of_tee, holds_engine, is_of_kernel, runs_its_input
from recipectl.importers.shell_syntax import Node
from recipectl.importers.unwrapping import unwrapped

_ENGINES = ("vllm", "sglang", "llama-server", "python", "python3", "docker", "podman")
# An engine in a file, and the verb that imports that file.
_ENGINE_IN = {
    "unit": re.compile(r"^\s*ExecStart=[^#]{0,400}?(vllm|sglang|llama[-_]server)", re.M),
    "quadlet": re.compile(r"^\s*Image=.*(vllm|sglang|(?<!o)llama)", re.M),
    "compose": re.compile(r"^\s*image:.*(vllm|sglang|(?<!o)llama)", re.M),
}


def check(redirection: Node, word: str, commands: list[Command]) -> None:
    """Refuse commands that read from a file, which is mostly a placeholder; name an unknown output."""
    operator = str(redirection.Op)
    if readers := [*redirection.Word.outermost("ProcSubst")]:
        _name_readers(readers, commands)
        return
    is_output = ">" in operator and operator != "<>"
    is_number = "&" in operator and (redirection.N or word.isdigit())
    if is_output and VARIABLE_START in word:
        for command in commands:
            command.not_carried_over.append(Remark(f"the file `{word}` of its output", redirection.line))
        return
    if is_output and not is_number and word not in ("/dev/null", "-"):
        for command in commands:
            fault = f"the file `{word}` of its output, which goes to the journal"
            command.not_carried_over.append(Remark(fault, redirection.line))
    if word == "/dev/null" or (is_output and (not is_number or word in ("1", "2", "-"))):
        return
    shown = "<<<…" if operator == "<<<" else f"{operator}{word}"
    is_placeholder = operator == "<" and re.match(r"\w", word)
    has = "reads" if operator.startswith("<") else "has"
    remedy = f"fill in `<{word}>`" if is_placeholder else f"it {has} `{shown}`; remove that"
    for command in commands:
        if operator.startswith("<<") and runs_its_input(command.words):
            inputs = redirection.Hdoc.texts("Lit") if redirection.Hdoc else [word]
            command.words = [*unwrapped(command).words[:1], "<<", *inputs]
        if not command.refusal:
            command.refuse(f"line {redirection.line}", remedy)


def output_of_all(redirection: Node, target: str) -> Remark | None:
    """What `exec >FILE` means for the commands that follow; None for another descriptor, as of a lock."""
    is_file = ">" in str(redirection.Op) and not str(redirection.Op).endswith(">&")
    number = str(redirection.N.Value) if redirection.N else "1"
    if not is_file or number not in ("1", "2") or target == "/dev/null":
        return None
    shown = f"the file `{target}`" if target and UNKNOWN_VALUE not in target else "the file"
    return Remark(f"{shown} of its output, which goes to the journal", redirection.line)


def written_files(operator: str, words: list[str], target: str) -> list[str]:
    """The files that a redirection of a program lets it write, which an engine may read."""
    if ">" in operator and "&" not in operator:
        return [target] if words[:1] in (["cat"], ["echo"], ["printf"]) or is_of_kernel(target) else []
    return files_of_tee(words) if "<<" in operator else []


def written_engine(redirections: Iterable[Node], files: Sequence[str]) -> str | None:
    """Why the engine in a file that a here-document writes is not imported; None without an engine."""
    text = "".join(part for item in redirections if item.Hdoc for part in item.Hdoc.texts("Lit"))
    verbs = [verb for verb, pattern in _ENGINE_IN.items() if pattern.search(text)]
    verbs += ["command"] if holds_engine(text) else []
    if not files or not verbs:
        return None
    fault = f"the script writes `{files[0]}`, which starts an engine"
    return f"{fault}; run `recipectl import {verbs[0]}` with it"


def _name_readers(readers: list[Node], commands: list[Command]) -> None:
    """Name the programs of `> >(…)`."""
    for reader in readers:
        calls = [node.Cmd for node in reader.Stmts or () if node.Cmd and node.Cmd.Type == "CallExpr"]
        programs = "; ".join(program_shown(literals(call)) for call in calls)
        shown = f"`{programs}`" if programs else "a part of the script"
        for command in commands:
            command.not_carried_over.append(Remark(f"{shown}, which reads its output", reader.line))


def placeholder(words: list[tuple[str, str]]) -> str | None:
    """The placeholder of `NAME=<placeholder> vllm serve`, by (operator, word) of redirections; or None."""
    inputs = [word for operator, word in words if operator == "<"]
    has_engine = any(operator == ">" and program_name([word]) in _ENGINES for operator, word in words)
    return inputs[0] if inputs and has_engine else None
