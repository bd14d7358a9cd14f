"""The commands of a shell script, each with its environment; what needs a running shell is refused."""

import re
from collections.abc import Callable, Iterable, Mapping
from typing import ClassVar

from recipectl.errors import UsageError
from recipectl.importers import shell_redirections
from recipectl.importers.command import READS_PROFILE, Command, refused
from recipectl.importers.draft import AS_IT_RUNS, PRIVATE, RUN_IT, UNKNOWN_VALUE
from recipectl.importers.lines import Remark
from recipectl.importers.programs import runs_engine
from recipectl.importers.shell_commands import SimpleCommands
from recipectl.importers.shell_conditions import literals
from recipectl.importers.shell_functions import Functions
from recipectl.importers.shell_programs import (
    holds_engine,
    of_scheduler,
)
from recipectl.importers.shell_scope import Scope, Variable
from recipectl.importers.shell_syntax import Fault, Node, statements
from recipectl.importers.shell_words import Words
from recipectl.importers.unwrapping import unwrapped

_SUBSTITUTIONS = ("CmdSubst", "ProcSubst")
# A field of the scope -> what changes it.
_CHANGES = {
    "folder": "`cd`",
    "venv": "a venv",
    "conda_environment": "an environment of conda",
    "service": "a limit",
}
_OTHER_FILES = {
    "a Dockerfile": re.compile(
        r"\A(?:[ \t]*(?:#.*)?\n|ARG .*\n)*FROM(?: +--\S+)* +\S+(?: +(?i:AS) +\S+)? *(?:#.*)?\r?(?:\n|\Z)"
    ),
    "a file of cloud-init": re.compile(r"\A#cloud-config\b"),
    "a file of supervisor": re.compile(
        r"\A(?:[ \t]*(?:[;#].*)?\n|\[(?!program:)[^\]\n]+\][ \t]*\n|[\w-]+[ \t]*=.*\n)*\[program:[^\]\n]+\]"
    ),
    "a file of JavaScript or TypeScript": re.compile(
        r"\A(?:[ \t]*(?://.*)?\n|[ \t]*/\*(?:[^*]|\*(?!/))*\*/)*"
        r"(?:module\.exports *=|import .* from |(?:export )?(?:const|let|var) \w+.* =|export default )"
    ),
}
_YAML = re.compile(
    r"\A(?:[ \t]*(?:#.*)?\r?\n|---.*\n)*(?:[A-Za-z_][\w.-]*:(?=\s)|- (?:name|hosts|import_playbook):(?=\s))"
)
_KINDS_OF_YAML = {
    "a Compose file": re.compile(r"^services:", re.M),
    "a configuration of llama-swap": re.compile(r"^models:[ \t]*(?:#.*)?\r?$", re.M),
    "a manifest of Kubernetes": re.compile(r"^apiVersion:", re.M),
    "a file of Ansible": re.compile(r"^- (?:name|hosts|import_playbook):", re.M),
}
_OPAQUE = {
    "ForClause": "a loop",
    "WhileClause": "a loop",
    "ArithmCmd": "arithmetic",
    "LetClause": "arithmetic",
}


def commands(
    text: str,
    environment: Mapping[str, str] | None = None,
    folder: str | None = None,
    *,
    arguments: tuple[str, ...] | None = None,
    own_name: str | None = None,
    working_folder: str | None = None,
    has_specifiers: bool = False,
    is_zsh: bool = False,
) -> list[Command]:
    """The programs that a script runs, without a shell's own commands; UsageError for what is no script.

    `folder` is that of the script's file. Most scripts start there; a unit's start in a `working_folder`.
    With `has_specifiers` it is a unit's, and has variables of the host where the unit has specifiers.
    """
    if PRIVATE.search(text) and not has_specifiers:
        raise UsageError("the script has characters of Unicode's private area; remove them")
    _refuse_other_kinds(text)
    is_zsh = is_zsh or bool(re.match(r"#!.*\bzsh\b", text))
    variables = {name: Variable(value) for name, value in (environment or {}).items()}
    exported_names = {*variables}
    variables["OPTIND"] = Variable("1")  # until `getopts` counts
    if own_name:
        variables["0"] = Variable(own_name)
    scope = Scope(
        variables,
        exported_names,
        arguments=arguments,
        folder=working_folder,
        script_folder=folder,
        is_zsh=is_zsh,
    )
    shell = _Shell(scope)
    for remark in of_scheduler(text):
        shell.lose_from_here(remark)
    if login := re.match(r"#!.*\b(?:ba|da|z)?sh +(-[a-z]*[li][a-z]*|--login)\b", text):
        shell.lose_from_here(Remark(f"`{login[1]}`: {READS_PROFILE}", 1))
    if "\r\n" in text:
        line = text[: text.index("\r\n")].count("\n") + 1
        fault = "lines end with CR and LF; a shell takes the CR for a part of a word"
        shell.lose_from_here(Remark(f"{fault}, and the import leaves it out", line))
    try:
        # With the last newline, a backslash before the end continues a line.
        shell.run(statements(text.removeprefix("\ufeff").replace("\r\n", "\n") + "\n"))
    except RecursionError as error:
        raise UsageError(f"the script is nested too deeply; {RUN_IT}") from error
    shell.refuse_uncalled()
    programs = _once(shell.commands)
    if shell.lost and programs:  # after the last program
        programs[-1].not_carried_over += shell.lost
        programs[-1].lost_before += shell.lost
    return programs


def _refuse_other_kinds(text: str) -> None:
    """UsageError for a file that is no shell's."""
    if other := re.match(r"#!.*\b(fish|t?csh|python|perl|node)|#!(?!.*sh\b)\s*(?:.*/)?([\w.-]+)", text):
        raise UsageError(f"line 1: it is a script of {other[1] or other[2]}, which is not read; {RUN_IT}")
    if kind := next((kind for kind, start in _OTHER_FILES.items() if start.search(text)), ""):
        raise UsageError(f"it is {kind}; give the command in it, {AS_IT_RUNS}")
    if yaml := _YAML.match(text):
        kind = next((kind for kind, start in _KINDS_OF_YAML.items() if start.search(text)), "a YAML file")
        verb = {"a Compose file": "compose", "a configuration of llama-swap": "llama-swap"}.get(kind)
        remedy = f"run `recipectl import {verb}` with it" if verb else f"give the command in it, {AS_IT_RUNS}"
        raise UsageError(f"line {yaml[0].count(chr(10)) + 1}: it is {kind}; {remedy}")
    if section := re.match(r"(?:\s*(?:[#;].*)?\n)*\[(Unit|Service|Container)\][ \t]*\n", text):
        verb = "quadlet" if section[1] == "Container" else "unit"
        raise UsageError(f"it is a unit of systemd; run `recipectl import {verb}` with it")


def _substituting(node: Node) -> list[Node]:
    """The parts of a statement itself, not of those within it, whose substitutions it runs."""
    if node.Type in ("CallExpr", "DeclClause", "TestClause", "ArithmCmd", "LetClause"):
        return [node]
    return [part for part in (node.Loop, node.Word) if part]


def _once(programs: list[Command]) -> list[Command]:
    """Drop what one call of a function skips and another one runs, and refusals that repeat themselves."""
    run = {(program.place, program.column) for program in programs if not program.is_skipped}
    kept: dict[object, Command] = {}
    for program in programs:
        position = program.place, program.column
        if program.refusal:
            kept.setdefault((position, "" if program.column else program.refusal), program)
        elif not program.is_skipped:
            kept[id(program)] = program
        elif position not in run:
            kept.setdefault(position, program)
    return [*kept.values()]


class _Shell(Functions):
    """Follows the statements of a script."""

    def run(self, script: Iterable[Node | Fault]) -> None:
        for statement in script:
            if isinstance(statement, Fault):
                remedy = "write it as bash reads it" if self.scope.is_zsh else "correct it"
                self.commands.append(refused(statement.line, f"{statement.reason}; {remedy}"))
            elif self.scope.is_over:
                self._skip(statement)
            elif self.scope.ended is not None:
                ended = "function" if self._running and not self.scope.ends_script else "script"
                self._apart([statement], f"line {self.scope.ended} ends the {ended} before it; move it")
            else:
                if self.scope.returned and self.condition is None:
                    self.condition = self.scope.returned[0]  # the function may have returned
                self._statement(statement)

    def _skip(self, statement: Node) -> None:
        """Read a statement that an engine before it keeps from running."""
        self.scope.is_over = False
        self._not_taken([statement], next(self._numbers), 0, statement.line)
        self.scope.is_over = True

    def _statement(self, statement: Node) -> None:
        node = statement.Cmd
        first = len(self.commands)
        if node and statement.Background:
            self._apart([Node({"Cmd": node, "Pos": statement.Pos})])
            self.in_background = self.commands[-1] if self.commands[first:] else None
        elif node:
            self._STATEMENTS.get(node.Type, _Shell._opaque)(self, node)
        if node:
            self._refuse_substituted(node)
            self.refuse_of_zsh(node, self.commands[first:])
        targets = [Words(self.scope).value(redirection.Word) for redirection in statement.Redirs or ()]
        written: list[str] = []
        for redirection, target in zip(statement.Redirs or (), targets, strict=True):
            shell_redirections.check(redirection, target, self.commands[first:])
            words = literals(node) if node and node.Type == "CallExpr" else []
            written += shell_redirections.written_files(str(redirection.Op), words, target)
            if words[:1] == ["read"] and redirection.Hdoc:
                self._refuse_text("".join(redirection.Hdoc.texts("Lit")), redirection.line)
            if node is None:
                self.lost.append(Remark("a redirection, which a shell may refuse", redirection.line))
            if words == ["exec"] and (remark := shell_redirections.output_of_all(redirection, target)):
                self.lose_from_here(remark)
        if node and (reason := shell_redirections.written_engine(statement.Redirs or (), written)):
            self.commands.append(refused(statement.line, reason))
        else:
            self._name_written(written, statement.line)
        operators = [str(redirection.Op) for redirection in statement.Redirs or ()]
        if node and (name := shell_redirections.placeholder([*zip(operators, targets, strict=True)])):
            self.commands[first:] = [refused(statement.line, f"fill in `<{name}>`")]

    def _refuse_text(self, text: str, line: int) -> None:
        if holds_engine(text):
            reason = "the text of a here-document runs an engine; write it as a command"
            self.commands.append(refused(line, reason))

    def _refuse_substituted(self, node: Node) -> None:
        """Refuse the engines that `$(…)` starts; what else it runs changes nothing for an engine."""
        parts = _substituting(node)
        for substitution in (
            each for kind in _SUBSTITUTIONS for part in parts for each in part.outermost(kind)
        ):
            first, lost = len(self.commands), [*self.lost]
            self._apart(substitution.Stmts, "it is in a substitution; write it out")
            self.lost = lost
            self.commands[first:] = [
                command for command in self.commands[first:] if runs_engine(unwrapped(command).words or [""])
            ]
            if "<<" in (substitution.Source or ""):
                self._refuse_text(substitution.Source, substitution.line)

    def _opaque(self, node: Node) -> None:
        """A loop or another part that only a shell can run; its variables are unknown then."""
        if self._does_not_loop(node):
            return
        reason = f"in {_OPAQUE.get(node.Type, 'a part that only a shell can run')}"
        if node.Loop and node.Loop.Name:
            self.scope.forget([node.Loop.Name.Value], reason, node.line)
        if node.Type in ("ArithmCmd", "LetClause"):
            names = node.assigned_names() if node.Type == "ArithmCmd" else node.texts("Lit")
            self.scope.forget({*names}, reason, node.line)
        nodes = [*(node.Cond or ()), *(node.Do or ()), *filter(None, (node.Stmt, node.Body))]
        waits = [*self.waits]
        self._refuse_part(nodes, reason, node.line)
        if self.waits != waits:
            self.waits = [*waits, Remark("a loop that waits, after which it started", node.line)]

    def _refuse_part(self, nodes: list[Node], reason: str, line: int) -> None:
        is_within, self.scope.is_repeated = self.scope.is_repeated, True
        after = self._apart(nodes, f"it is {reason} (line {line}); write it out")
        self.scope.is_repeated = is_within
        if (after.arguments, after.shifted) != (self.scope.arguments, self.scope.shifted):
            # Only the shell knows; those of the script's caller are asked for.
            self.scope.arguments = (UNKNOWN_VALUE,) if self.scope.locals else None
        self.scope.note_return(after, line)
        self.scope.lost += after.lost[len(self.scope.lost) :]
        self.scope.functions |= after.functions
        self.scope.exported_names |= after.exported_names
        if self.scope.locals:
            self.scope.locals[-1] = after.locals[-1] | self.scope.locals[-1]
        for name, change in _CHANGES.items():
            if getattr(after, name) != getattr(self.scope, name):
                self.lose_from_here(Remark(f"{change} {reason}, which may count for what follows", line))
        self.scope.has_unknown_variables |= after.has_unknown_variables
        changed = {name for name, value in after.variables.items() if self.scope.variables.get(name) != value}
        self.scope.forget(changed | after.unset_names, reason, line)

    _STATEMENTS: ClassVar[Mapping[str, Callable[["_Shell", Node], object]]] = {
        "CallExpr": SimpleCommands.call,
        "TestClause": lambda shell, node: shell.scope.forget(
            node.assigned_names(), "by arithmetic", node.line
        ),
        "DeclClause": SimpleCommands.declare,
        "FuncDecl": Functions._declare_function,
        "BinaryCmd": Functions._binary,
        "IfClause": Functions._if,
        "CaseClause": Functions._case,
        "TimeClause": lambda shell, node: shell.run([node.Stmt] if node.Stmt else ()),
        "Block": lambda shell, node: shell.run(node.Stmts),
        "Subshell": lambda shell, node: shell._apart(node.Stmts),
    }
