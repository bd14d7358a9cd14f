"""What the redirections of a shell mean for the commands that they stand at."""

from recipectl.importers.command import SHELLS, Command
from recipectl.importers.draft import VARIABLE_START
from recipectl.importers.programs import program_name
from recipectl.importers.shell_conditions import literals
from recipectl.importers.shell_syntax import Node

_ENGINES = ("vllm", "sglang", "llama-server", "python", "python3", "docker", "podman")


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
            command.not_carried_over.append(f"line {redirection.line}: the file `{word}` of its output")
        return
    if is_output and not is_number and word not in ("/dev/null", "-"):
        for command in commands:
            text = f"line {redirection.line}: the file `{word}` of its output, which goes to the journal"
            command.not_carried_over.append(text)
    if word == "/dev/null" or (is_output and (not is_number or word in ("1", "2", "-"))):
        return
    remedy = f"fill in `<{word}>`" if operator == "<" else f"it has `{operator}{word}`; remove that"
    for command in commands if redirection.Hdoc else ():
        if program_name(command.words) in (*SHELLS, "ssh"):  # it runs the here-document
            command.words = [*command.words[:1], "<<", *redirection.Hdoc.texts("Lit")]
    for command in commands:
        command.refuse(f"line {redirection.line}", remedy)


def _name_readers(readers: list[Node], commands: list[Command]) -> None:
    """Name the programs of `> >(…)`."""
    for reader in readers:
        calls = [node.Cmd for node in reader.Stmts or () if node.Cmd and node.Cmd.Type == "CallExpr"]
        programs = "; ".join(" ".join(literals(call)) for call in calls)
        for command in commands:
            command.not_carried_over.append(f"line {reader.line}: `{programs}`, which reads its output")


def placeholder(words: list[tuple[str, str]]) -> str | None:
    """The placeholder of `NAME=<placeholder> vllm serve`, by (operator, word) of redirections; or None."""
    inputs = [word for operator, word in words if operator == "<"]
    has_engine = any(operator == ">" and program_name([word]) in _ENGINES for operator, word in words)
    return inputs[0] if inputs and has_engine else None
