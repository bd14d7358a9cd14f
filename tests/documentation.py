"""The commands in the documentation of engines: blocks of Markdown, and scripts."""

import re
import tempfile
from collections import Counter
from pathlib import Path

import imported

from recipectl.errors import RecipectlError
from recipectl.importers import shell
from recipectl.importers.from_command import draft_from_command
from recipectl.importers.programs import program
from recipectl.importers.unwrapping import unwrapped

Pair = tuple[list[str], list[str]]

ENGINE = re.compile(r"\b(vllm serve|vllm\.entrypoints|sglang serve|sglang\.launch_server|llama-server)\b")
_FENCE = re.compile(r"^([ \t>]*)(`{3,}|~{3,})[ \t]*([\w+-]*)[^\n]*\n(.*?)^\1\2[ \t]*$", re.M | re.S)
_SHELL = ("", "bash", "sh", "shell", "console", "shell-session", "zsh", "text")


def blocks(text: str) -> list[str]:
    """The blocks of a Markdown file with an engine's command, without prompts."""
    found = []
    for indent, _, language, body in _FENCE.findall(text):
        if language.lower() not in _SHELL or not ENGINE.search(body):
            continue
        lines = [line.removeprefix(indent) for line in body.split("\n")]
        if any(re.match(r"\s*\$ ", line) for line in lines):  # a session: its commands alone
            lines = [re.sub(r"^\s*(\$|>) ", "", line) for line in lines]
        found.append("\n".join(lines))
    return found


def scripts(folders: list[Path]) -> list[str]:
    """The blocks and scripts of all files, each once."""
    texts: dict[str, None] = {}
    for folder in folders:
        for path in sorted(folder.rglob("*")):
            if path.suffix in (".md", ".mdx", ".rst") and path.is_file():
                texts |= dict.fromkeys(blocks(path.read_text(errors="replace")))
            elif (
                path.suffix == ".sh"
                and path.is_file()
                and ENGINE.search(text := path.read_text(errors="replace"))
            ):
                texts[text] = None
    return [*texts]


def pairs(texts: list[str]) -> tuple[Counter[str], dict[str, list[Pair]]]:
    """Outcomes of commands, and for each engine the arguments of a command with those after import and compile."""
    counts: Counter[str] = Counter()
    by_engine: dict[str, list[Pair]] = {}
    for command in (command for text in texts for command in shell.commands(text)):
        if command.refusal or not (engine := program(unwrapped(command).words)):
            continue
        try:
            draft = draft_from_command(command, "a")
            with tempfile.TemporaryDirectory() as folder:
                resolved = imported.compiled(draft, Path(folder))
        except RecipectlError as error:
            counts[f"refused: {str(error)[:90]}"] += 1
            continue
        if draft.not_carried_over or draft.variables or draft.secrets:
            counts["named"] += 1
            continue
        again = list(resolved.argv[len(resolved.runtime.command) :])
        if engine.backend == "vllm" and not engine.has_positional_model:
            again = ["--model", *again]  # the runtime of these tests is `vllm serve`
        if again != engine.arguments:  # equal words are equal, also where the parser adds a random id
            by_engine.setdefault(engine.backend, []).append((engine.arguments, again))
        counts["exact"] += again == engine.arguments
    return counts, by_engine
