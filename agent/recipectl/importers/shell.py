"""The commands of a shell script, each with its environment: enough of bash for what people paste."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import ClassVar

from recipectl.importers.draft import UNKNOWN_VALUE, VARIABLE_START, host_variable
from recipectl.importers.shell_text import Scope
from recipectl.importers.shell_words import ASSIGNMENT, WordReader

SHELLS = ("sh", "bash", "dash", "zsh")
# Commands that do not change what an engine is given.
_WITHOUT_EFFECT = frozenset(
    """
    [ test [[ exit return mkdir kill pkill tail shift echo printf sleep wait trap shopt true : pwd which date
    nvidia-smi ulimit rm cat break continue read tee
    """.split()  # noqa: SIM905  (a list one can read)
)
# Words that may stand before a command, and how they change the number of open conditions.
_KEYWORDS = {"if": 1, "while": 1, "until": 1, "fi": -1, "done": -1, "esac": -1}
_KEYWORDS |= dict.fromkeys(("then", "elif", "else", "do", "{", "}", "!"), 0)


@dataclass
class Command:
    """One command; `not_carried_over` is what cannot be kept of it and of the script before it."""

    environment: dict[str, str]
    words: list[str]
    venv: str | None = None
    folder: str | None = None
    path: str | None = None  # the value of PATH
    not_carried_over: list[str] = field(default_factory=list)
    line: int = 1  # counts from 1
    user: str | None = None
    autostart: bool = False
    conda_environment: str | None = None
    service: dict[str, str] = field(default_factory=dict)  # settings of its unit
    substituted: frozenset[str] = (
        frozenset()
    )  # variables of the host that stand for what a substitution gives


class _Script(WordReader):
    """Follows the assignments and builtins of a script, and collects the programs that it runs."""

    def __init__(self, text: str, environment: Mapping[str, str], folder: str | None) -> None:
        scope = Scope(variables={**environment}, exported_names={*environment}, script_folder=folder)
        super().__init__(text, scope)
        self.commands: list[Command] = []
        self.substituted: set[str] = set()
        self.exports_all = False  # `set -a`
        self.follows_test = False  # `[ … ] &&` precedes

    def run(self) -> list[Command]:
        while not self.at_end:
            line = self.line
            separator = self.separator
            words = self.command_words()
            if words:
                self.follows_test = self.follows_test and separator in ("&&", "||")
                self._run_command(words, line)
                self.follows_test = self.follows_test or words[0] in ("[", "[[", "test", "!")
            self.leave_subshells()
        return self.commands

    def _run_command(self, words: list[str], line: int) -> None:
        while words and words[0] in _KEYWORDS:
            self.condition_depth += _KEYWORDS[words[0]]
            self.case_depth -= words[0] == "esac"
            words = words[1:]
        if words[:1] in (["for"], ["case"]):
            self.condition_depth += 1
            self.case_depth += words[0] == "case"
            return
        if words[:1] == ["function"]:
            return
        assignments, words = self._split_assignments(words)
        if not words:
            self._assign(assignments)
        elif (
            words[0] in self._BUILTINS and words != ["cd"] and words[1:2] != ["run"]
        ):  # a bare `cd` is reported like a program
            self._BUILTINS[words[0]](self, words)
        elif words[0] not in _WITHOUT_EFFECT:
            self._add_command(assignments, words, line)

    def _split_assignments(self, words: list[str]) -> tuple[dict[str, str], list[str]]:
        """The assignments in front of some words, and the other words.

        Where only a running shell knows the value, it is a variable of the host.
        """
        assignments: dict[str, str] = {}
        while words and (match := ASSIGNMENT.match(words[0])):
            name, appends, value = match.groups()
            words = words[1:]
            if UNKNOWN_VALUE in value:
                self.report(f"`{name}` is set from a substitution, which recipectl does not run")
                self.substituted.add(name)
                value = host_variable(name)
            start = assignments.get(name, self.scope.variables.get(name, "")) if appends else ""
            assignments[name] = start + value
        return assignments, words

    def _assign(self, assignments: Mapping[str, str]) -> None:
        for name, value in assignments.items():
            if self.condition_depth > 0 or self.follows_test:
                self.report(f"`{name}` is set under a condition; its value here is `{value}`")
            self.scope.variables[name] = value
            if self.exports_all:
                self.scope.exported_names.add(name)

    def _add_command(self, assignments: Mapping[str, str], words: list[str], line: int) -> None:
        variables = self.scope.variables
        exported = {name: variables[name] for name in sorted(self.scope.exported_names) if name in variables}
        environment = {**exported, **assignments}
        path = environment.pop("PATH", None) or variables.get("PATH")
        self.commands.append(
            Command(
                environment=environment,
                words=words,
                venv=self.scope.venv,
                conda_environment=self.scope.conda_environment,
                folder=self.scope.folder,
                path=path,
                not_carried_over=self.not_carried_over,
                line=line,
                substituted=frozenset(self.substituted),
            )
        )
        self.not_carried_over = []

    def _run_declare(self, words: list[str]) -> None:
        declarations = [word for word in words[1:] if not word.startswith("-")]
        if words[0] != "local":
            self.scope.exported_names |= {ASSIGNMENT.sub(r"\1", word) for word in declarations}
        while declarations:
            assignments, declarations = self._split_assignments(declarations)
            self._assign(assignments)
            declarations = declarations[1:]  # a name without a value

    def _run_set(self, words: list[str]) -> None:
        self.exports_all = "-a" in words or (self.exports_all and "+a" not in words)

    def _run_source(self, words: list[str]) -> None:
        if words[1:] and words[1].endswith("/etc/profile.d/conda.sh"):
            self.scope.conda_folder = self._from_folder(words[1].removesuffix("/etc/profile.d/conda.sh"))
        elif words[1:] and words[1].endswith("/bin/activate"):
            self.scope.venv = self._from_folder(words[1].removesuffix("/bin/activate"))
        else:
            self.report(f"`{' '.join(words)}`, which may set variables")

    def _run_conda(self, words: list[str]) -> None:
        """`conda activate NAME`: an environment in the folder that conda was loaded from, or at a path."""
        name = words[2] if words[1:2] == ["activate"] and len(words) > 2 else ""
        if not name:
            self.report(f"`{' '.join(words)}`, which may set variables")
        elif "/" in name:
            self.scope.conda_environment = self._from_folder(name)
        elif self.scope.conda_folder:
            folder = self.scope.conda_folder
            self.scope.conda_environment = folder if name == "base" else f"{folder}/envs/{name}"
        else:
            self.report(f"`{' '.join(words)}`; give its `bin/python` as `python_path:`")

    def _run_unset(self, words: list[str]) -> None:
        for name in words[1:]:
            self.scope.variables.pop(name, None)
            self.scope.exported_names.discard(name)

    def _run_cd(self, words: list[str]) -> None:
        self.scope.folder = self._from_folder(words[1])

    def _from_folder(self, path: str) -> str:
        """A path relative to the script's current folder, as far as that folder is known."""
        folder = self.scope.folder
        if path.startswith(("/", VARIABLE_START)) or not folder:
            return path
        return f"{folder.rstrip('/')}/{path.removeprefix('./')}"

    _BUILTINS: ClassVar[Mapping[str, Callable[["_Script", list[str]], None]]] = {
        **dict.fromkeys(("export", "declare", "typeset", "readonly", "local"), _run_declare),
        **dict.fromkeys(("source", "."), _run_source),
        "set": _run_set,
        "unset": _run_unset,
        "cd": _run_cd,
        **dict.fromkeys(("conda", "mamba", "micromamba"), _run_conda),
    }


def commands(
    text: str, environment: Mapping[str, str] | None = None, folder: str | None = None
) -> list[Command]:
    """The programs that a script runs, without a shell's own commands; UsageError for an unclosed quote."""
    return _Script(text.replace("\r\n", "\n"), environment or {}, folder).run()


def assignment(word: str) -> tuple[str, str] | None:
    """(name, value) of `NAME=value`; None for any other word."""
    match = ASSIGNMENT.match(word)
    return (match[1], match[3]) if match and not match[2] else None


def script_in(words: list[str]) -> str | None:
    """The script of `bash -c SCRIPT`; None for any other command."""
    for index, word in enumerate(words[1:-1], start=1):
        if PurePosixPath(words[0]).name in SHELLS and re.fullmatch(r"-[a-z]*c", word):
            return words[index + 1]
    return None


def command_from_words(words: list[str]) -> Command:
    """A command that a shell has split already: `NAME=value` before the program is its environment."""
    environment: dict[str, str] = {}
    while words and (pair := assignment(words[0])):
        environment |= [pair]
        words = words[1:]
    path = environment.pop("PATH", None)
    return Command(environment, list(words), path=path)
