"""The builtins of a shell that change what follows them."""

import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from typing import ClassVar

from recipectl.errors import RecipectlError
from recipectl.importers.command import Command, refused
from recipectl.importers.draft import UNKNOWN_VALUE, VARIABLE_ALONE, VARIABLE_START, host_variable
from recipectl.importers.lines import Remark, at
from recipectl.importers.shell_assignments import Assignments
from recipectl.importers.shell_programs import holds_engine, limits
from recipectl.importers.shell_scope import Scope
from recipectl.importers.shell_syntax import Fault, Node, statements
from recipectl.importers.variables import read_variables

_NEED_A_SHELL = ("CmdSubst", "ArithmExp", "ProcSubst", "ExtGlob")


class Builtins(Assignments, ABC):
    """Follows builtins in a scope; `commands` are the programs that the script runs."""

    def __init__(self, scope: Scope) -> None:
        super().__init__(scope)
        self.commands: list[Command] = []
        self.in_eval = False
        self.is_assigned = False  # variables stand before this builtin

    @abstractmethod
    def run(self, script: Iterable[Node | Fault]) -> None:
        """Follow the statements of a script."""

    def _run_set(self, words: list[str], line: int) -> None:
        options = " ".join(words[1 : words.index("--") if "--" in words else None])
        for sign in re.findall(r"(?:^| )([+-])(?:[a-z]*a[a-z]*|[a-z]*o allexport)(?= |\Z)", options):
            self.scope.exports_all = sign == "-"
        if not re.fullmatch(r"([+-]([aeuxvoETbhm]+( pipefail| allexport)?|-)( |\Z))*", options):
            self._lose_option(words, line)
        if "--" in words:
            self.scope.arguments, self.scope.shifted = tuple(words[words.index("--") + 1 :]), 0

    def _lose_option(self, words: list[str], line: int) -> None:
        if all(word[:1] in ("-", "+") for word in words[1:]):
            self.lose_from_here(Remark(f"`{' '.join(words)}`, which changes what the shell does", line))
        else:
            self._lose(words, line)

    def _run_source(self, words: list[str], line: int) -> None:
        file = words[1] if len(words) > 1 else ""
        if UNKNOWN_VALUE in file:
            self.scope.conda_folder = None
            is_venv = "/bin/activate" in file
            fault = "give its `bin/python` as `python_path:`" if is_venv else "it may set variables"
            if not file.endswith("/etc/profile.d/conda.sh"):  # `conda activate` says it
                self.lose_from_here(Remark(f"`{' '.join(words)}`; {fault}", line))
                self.scope.has_unknown_variables |= not is_venv
        elif file.endswith("/etc/profile.d/conda.sh"):
            self.scope.conda_folder = self._from_folder(file.removesuffix("/etc/profile.d/conda.sh"))
        elif file == "activate" and len(words) > 2:  # of an earlier conda
            self._run_conda(["conda", *words[1:]], line)
        elif file.endswith("/bin/activate") and len(words) > 2:  # conda's own script, with an environment
            self.scope.conda_folder = self._from_folder(file.removesuffix("/bin/activate"))
            self._run_conda(["conda", "activate", words[2]], line)
        elif file.endswith("/bin/activate"):
            self.scope.venv = self._from_folder(file.removesuffix("/bin/activate"))
        else:
            self._source_variables(words, line)

    def _source_variables(self, words: list[str], line: int) -> None:
        """`source FILE` of a file that is read: its variables, if it does nothing else, such as `.env`."""
        try:
            with at(f"line {line}", self.lost):
                text = read_variables(self._from_folder("".join(words[1:2])), self.lost)
        except (OSError, RecipectlError):
            self._lose(words, line)
            return
        script = [*statements(text.replace("\r\n", "\n") + "\n")]
        other = next((node for node in script if isinstance(node, Fault) or not _sets_variables(node)), None)
        if other is None:
            self.run(node.moved_to(line) for node in script if isinstance(node, Node))
        elif holds_engine(text):
            remedy = f"run `recipectl import command {words[1]}`"
            self.commands.append(refused(line, f"`{' '.join(words)}` starts an engine; {remedy}"))
        else:
            self._lose(words, line, f"; its line {other.line} does more than set a variable")

    def _run_conda(self, words: list[str], line: int) -> None:
        """`conda activate NAME`: an environment in the folder that conda was loaded from, or at a path."""
        action, name = (*words[1:3], "", "")[:2]
        if action == "deactivate":
            self.scope.conda_environment = None
            return
        if action != "activate" or not name:
            self._lose(words, line)
            return
        self.scope.conda_environment = None
        self.scope.venv = None  # of both, the one that is activated last is in front
        if "/" in name:
            self.scope.conda_environment = self._from_folder(name)
        elif self.scope.conda_folder:
            folder = self.scope.conda_folder
            self.scope.conda_environment = folder if name == "base" else f"{folder}/envs/{name}"
        else:
            self.lose_from_here(Remark(f"`{' '.join(words)}`; give its `bin/python` as `python_path:`", line))

    def _run_eval(self, words: list[str], line: int) -> None:
        text = " ".join(words[1:])
        is_known = not re.search(f"[\n{UNKNOWN_VALUE}{VARIABLE_START}]", text)
        if is_known and not self.in_eval and not self.is_assigned:
            self.in_eval = True
            self.run(statements("\n" * (line - 1) + text + "\n"))
            self.in_eval = False
            return
        if VARIABLE_ALONE.fullmatch(text) or re.search("vllm|sglang|llama", text):
            self.commands.append(refused(line, "`eval` runs what only a shell knows; write the command"))
        else:
            self._lose(words, line)

    def _run_limit(self, words: list[str], line: int) -> None:
        """`ulimit` and `umask`: settings of the unit."""
        if not (settings := limits(words)):
            self.lose_from_here(Remark(f"`{' '.join(words)}`; see `service:` for a similar setting", line))
        self.scope.service |= settings

    def _run_shopt(self, words: list[str], line: int) -> None:
        self.scope.has_other_patterns |= bool({"nocasematch", "extglob"} & {*words})

    def _run_unset(self, words: list[str], line: int) -> None:
        for name, bracket, _ in (word.partition("[") for word in words[1:] if not word.startswith("-")):
            if bracket:
                self.scope.forget([name], "by `unset` of an element", line)
            elif "-f" in words or (name in self.scope.functions and name not in self.scope.variables):
                self.scope.functions.pop(name, None)
            else:
                self._unset_variable(name)

    def _unset_variable(self, name: str) -> None:
        """Remove a variable; that of a function's caller uncovers the one behind it (bash(1), unset)."""
        frames = self.scope.locals
        if frames and name not in frames[-1]:
            for frame in reversed(frames[:-1]):
                if name in frame:
                    self.scope.restore(name, frame.pop(name))
                    return
        self.scope.variables.pop(name, None)
        self.scope.exported_names.discard(name)
        self.scope.unset_names.add(name)
        self.scope.not_of_caller.add(name)

    def _run_cd(self, words: list[str], line: int) -> None:
        self.scope.places["cd"] = f"line {line}"
        words = [word for word in words if word not in ("--", "-P", "-L")]
        if len(words) != 2 or words[1] == "-" or UNKNOWN_VALUE in words[1]:
            self.lose_from_here(Remark(f"`{' '.join(words)}`, to a folder that only a shell knows", line))
            self.scope.folder = host_variable("FOLDER")
        else:
            self.scope.folder = self._from_folder(words[1])

    def _run_printf(self, words: list[str], line: int) -> None:
        if words[1:2] == ["-v"]:
            self.scope.forget(words[2:3], "by `printf`", line)

    def _run_read(self, words: list[str], line: int) -> None:
        own_names = ["OPTIND", "OPTARG"] if words[0] == "getopts" else []
        names = [word for word in words[1:] if word.isidentifier()]
        self.scope.forget([*own_names, *names], f"by `{words[0]}`", line)

    def _run_shift(self, words: list[str], line: int) -> None:
        count = "".join(words[1:2]) or "1"
        arguments = self.scope.arguments
        if not re.fullmatch("[0-9]{1,6}", count):
            self.scope.arguments, self.scope.shifted = (UNKNOWN_VALUE,), 0
            fault = "`shift` takes a number of arguments that only a shell knows"
            self.scope.arguments_remarks = (Remark(fault, line, about="shell"),)
        elif arguments is None or self.scope.shifted + int(count) <= len(arguments):
            self.scope.shifted += int(count)  # else it fails, and shifts none

    def _run_exit(self, words: list[str], line: int) -> None:
        self.scope.ended = line
        self.scope.ends_script |= words[0] == "exit"
        self.scope.exit_status = "".join(words[1:2])

    def _run_alias(self, words: list[str], line: int) -> None:
        self._lose(words, line)
        for name, equals, value in (word.partition("=") for word in words[1:]):
            if equals and name != value.split(" ")[0]:
                self.scope.aliases[name] = (line, value)

    def _from_folder(self, path: str) -> str:
        """A path relative to the script's current folder, as far as that folder is known."""
        folder = self.scope.folder or self.scope.script_folder or host_variable("FOLDER")
        if path.startswith(("/", VARIABLE_START)):
            return path
        return f"{folder.rstrip('/')}/{path.removeprefix('./')}"

    BUILTINS: ClassVar[Mapping[str, Callable[["Builtins", list[str], int], None]]] = {
        **dict.fromkeys(("source", "."), _run_source),
        **dict.fromkeys(("conda", "mamba", "micromamba"), _run_conda),
        **dict.fromkeys(("module", "ml", "spack"), Assignments._lose),
        **dict.fromkeys(("exit", "return"), _run_exit),
        **dict.fromkeys(("read", "mapfile", "readarray", "getopts"), _run_read),
        "alias": _run_alias,
        "deactivate": lambda shell, _words, _line: setattr(shell.scope, "venv", None),
        "eval": _run_eval,
        "set": _run_set,
        "printf": _run_printf,
        **dict.fromkeys(("ulimit", "umask"), _run_limit),
        "unset": _run_unset,
        "shopt": _run_shopt,
        "shift": _run_shift,
        **dict.fromkeys(("cd", "pushd", "popd"), _run_cd),
    }


def _sets_variables(node: Node) -> bool:
    """Whether a statement sets variables, and needs no running shell for them."""
    command = node.Cmd
    needs_shell = any(any(node.texts(kind)) for kind in _NEED_A_SHELL) or {"0", "BASH_SOURCE"} & {
        *node.parameters()
    }
    if not command or node.Redirs or node.Background or needs_shell:
        return False
    if command.Type == "DeclClause":
        return bool(command.Variant.Value == "export")
    return command.Type == "CallExpr" and bool(command.Assigns) and not command.Args
