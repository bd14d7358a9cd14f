"""The simple commands of a shell: assignments, builtins, and the programs that it runs."""

import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from copy import deepcopy
from typing import ClassVar

from recipectl.compiler.secrets import looks_secret
from recipectl.importers.arguments import without_secrets
from recipectl.importers.command import Command, program_shown, refused
from recipectl.importers.draft import UNKNOWN_VALUE, VARIABLE_ALONE, VARIABLE_START, host_variable
from recipectl.importers.lines import by_line
from recipectl.importers.programs import runs_engine
from recipectl.importers.shell_assignments import Assignments
from recipectl.importers.shell_functions import Function
from recipectl.importers.shell_programs import (
    changes_its_shell,
    files_of_tee,
    has_effect,
    holds_engine,
    is_of_kernel,
    limits,
    runs_its_input,
    sets_gpus_up,
)
from recipectl.importers.shell_scope import Scope, Variable
from recipectl.importers.shell_sources import text_of, variables_of
from recipectl.importers.shell_syntax import Fault, Node, statements
from recipectl.importers.shell_words import Words


def _is_own_process(word: Node) -> bool:
    """True for `$$`."""
    parts = word.Parts or []
    parts = (parts[0].Parts or []) if len(parts) == 1 and parts[0].Type == "DblQuoted" else parts
    is_variable = len(parts) == 1 and parts[0].Type == "ParamExp"
    return is_variable and parts[0].Param.Value in ("$", "BASHPID")


class SimpleCommands(Assignments, ABC):
    """Follows assignments and builtins in a scope, and collects the programs that a script runs."""

    def __init__(self, scope: Scope) -> None:
        super().__init__(scope)
        self.commands: list[Command] = []
        self.condition: int | None = None  # the line of the test that decides about this command
        self.functions: dict[str, Function] = {}
        self.in_eval = False
        self.is_assigned = False  # variables stand before this builtin

    def call(self, node: Node) -> None:
        """One simple command: assignments, a function, a builtin, or a program."""
        words = Words(self.scope)
        fields = words.fields(node.Args or [])
        outer = self.scope
        self.scope = deepcopy(outer) if fields else outer
        lost = [*self.lost]
        for item in node.Assigns or ():
            self._assign(item, self._expanded(item))
        inner, self.scope = self.scope, outer
        self.lost = lost if fields else self.lost  # `IFS= read` changes nothing for others
        name = fields[0] if fields else ""
        if fields == ["exec"]:
            self.lose_from_here(f"line {node.line}: the file of its output, which goes to the journal")
        elif fields[:2] == ["exec", "exec"]:
            self._lose(fields, node.line)
        elif name in self.functions:
            self._call_function(fields, node.line)
        elif name in self._BUILTINS and fields[1:2] != ["run"]:  # `conda run`
            self.lost += words.remarks if name in ("set", "eval") else []
            self.is_assigned = bool(node.Assigns)
            self._BUILTINS[name](self, fields, node.line)
        elif name and sets_gpus_up(fields):
            shown = " ".join(fields)
            self.lost.append(f"line {node.line}: `{shown}`, which sets the GPUs up; do that at boot")
        elif name and changes_its_shell(fields) and _is_own_process(node.Args[-1]):
            shown = " ".join((*fields[:-1], "$$"))
            self.lose_from_here(f"line {node.line}: `{shown}`, for what follows; see `service:`")
        elif name and has_effect(fields):
            names = inner.exported_names | {item.Name.Value for item in node.Assigns or ()}
            self._add_command(fields, inner, names, words.remarks, words.reasons, node.line)

    def _call_function(self, words: list[str], line: int) -> None:
        """A function's variables are unknown afterwards; what else it changes, or runs, is named."""
        function = self.functions[words[0]]
        self.scope.forget(function.variables, f"in the function `{words[0]}`", line)
        self.scope.exported_names |= function.exported
        if function.effects:
            effects = ", ".join(function.effects)
            self.lose_from_here(f"line {line}: the function `{words[0]}`, which changes {effects}")
        if any(runs_engine(words[index:]) for index in range(1, len(words))):
            reason = f"the function `{words[0]}` runs its words"
            self.commands.append(refused(line, f"{reason}; write the command without it"))

    def _add_command(
        self, words: list[str], scope: Scope, names: set[str], remarks: list[str], why: list[str], line: int
    ) -> None:
        variables = {name: scope.variables[name] for name in sorted(names) if name in scope.variables}
        environment = {
            name: variable.value for name, variable in variables.items() if variable.elements is None
        }
        unknown = {name for name, value in environment.items() if UNKNOWN_VALUE in value}  # as of a loop
        environment |= {name: host_variable(name) for name in unknown}
        own_path = scope.variables.get("PATH", Variable()).value or None
        secrets = {
            name: "which the caller had" for name in names - variables.keys() if looks_secret(name, "x")
        }
        lost = [*remarks, *(remark for variable in variables.values() for remark in variable.remarks)]
        if self.condition is not None:
            lost.append(f"line {line}: it runs under a condition (line {self.condition})")
        self.commands.append(
            Command(
                environment,
                words,
                venv=scope.venv,
                conda_environment=scope.conda_environment,
                folder=scope.folder,
                script_folder=scope.script_folder,
                path=environment.pop("PATH", own_path),
                lost_before=list(self.lost),
                condition=self.condition,
                not_carried_over=by_line((*scope.lost, *self.lost, *lost)),
                place=f"line {line}",
                service=dict(scope.service),
                secrets=secrets,
                places=dict(scope.places),
                substituted=frozenset(self._substituted | unknown),
            )
        )
        # Whatever the value of a secret is, its recipe has a file for it.
        if any(UNKNOWN_VALUE in word for word in without_secrets(words)):
            self.commands[-1].refuse_unknown(why)
        self.lost = []
        self.scope.ended = line if words[0] == "exec" else self.scope.ended

    # ── pipes and files

    def _name_written(self, files: Iterable[str], line: int) -> None:
        """Name what the script writes: a setting of the kernel, or a file that an engine may read."""
        for file in files:
            if is_of_kernel(file):
                self.lost.append(f"line {line}: what is written to {file}; do that at boot")
            elif not re.search(r"^/dev/|\.(log|pid)\Z", file):
                self.lost.append(f"line {line}: the file `{file}`, which it writes")

    def _check_pipe(self, writer: Node, reader: Node, writers: list[Command]) -> None:
        """Name the files that a pipe's last program writes: `| tee -a FILE`, `| ts >>FILE`."""
        words = self._words_of(reader)
        text = " ".join(self._words_of(writer))
        is_text = re.match("(echo|printf) ", text)
        if is_text and runs_its_input(words) and holds_engine(text):
            reason = f"`{program_shown(words)}` runs the text that is piped to it; write it as a command"
            self.commands.append(refused(reader.line, reason))
        files = files_of_tee(words)
        outputs = [item for item in reader.Redirs or () if ">" in str(item.Op) and "&" not in str(item.Op)]
        files += [Words(self.scope).value(item.Word) for item in outputs]
        if not writers:
            self._name_written(files, reader.line)
        for command in writers:
            command.not_carried_over += [
                f"line {reader.line}: the file `{file}` of its output, which goes to the journal"
                for file in files if file != "/dev/null"
            ]  # fmt: skip

    def _words_of(self, statement: Node) -> list[str]:
        call = statement.Cmd
        return Words(self.scope).fields(call.Args or []) if call and call.Type == "CallExpr" else []

    # ── builtins

    def _run_set(self, words: list[str], line: int) -> None:
        options = " ".join(words[1 : words.index("--") if "--" in words else None])
        for sign in re.findall(r"(?:^| )([+-])(?:[a-z]*a[a-z]*|[a-z]*o allexport)(?= |\Z)", options):
            self.scope.exports_all = sign == "-"
        if not re.fullmatch(r"([+-]([aeuxvo]+( pipefail| allexport)?|-)( |\Z))*", options):
            self._lose(words, line)
        if "--" in words:
            self.scope.arguments, self.scope.shifted = tuple(words[words.index("--") + 1 :]), 0

    def _run_source(self, words: list[str], line: int) -> None:
        file = words[1] if len(words) > 1 else ""
        if UNKNOWN_VALUE in file:
            self.scope.conda_folder = None
            is_venv = "/bin/activate" in file
            fault = "give its `bin/python` as `python_path:`" if is_venv else "it may set variables"
            if not file.endswith("/etc/profile.d/conda.sh"):  # `conda activate` says it
                self.lose_from_here(f"line {line}: `{' '.join(words)}`; {fault}")
        elif file.endswith("/etc/profile.d/conda.sh"):
            self.scope.conda_folder = self._from_folder(file.removesuffix("/etc/profile.d/conda.sh"))
        elif file.endswith("/bin/activate") and len(words) > 2:  # conda's own script, with an environment
            self.scope.conda_environment = self._from_folder(
                f"{file.removesuffix('/bin/activate')}/envs/{words[2]}"
            )
        elif file.endswith("/bin/activate"):
            self.scope.venv = self._from_folder(file.removesuffix("/bin/activate"))
        else:
            variables = variables_of(self._from_folder(file), f"line {line}", self.lost)
            for name, (value, is_exported) in (variables or {}).items():
                self._set(name, Variable(value), line)
                self.scope.exported_names |= {name} if is_exported else set()
            if variables is None and holds_engine(text_of(self._from_folder(file))):
                remedy = f"run `recipectl import command {file}`"
                self.commands.append(refused(line, f"`{' '.join(words)}` starts an engine; {remedy}"))
            elif variables is None:
                self._lose(words, line)

    def _run_conda(self, words: list[str], line: int) -> None:
        """`conda activate NAME`: an environment in the folder that conda was loaded from, or at a path."""
        name = words[2] if words[1:2] == ["activate"] and len(words) > 2 else ""
        if not name:
            self._lose(words, line)
        elif "/" in name:
            self.scope.conda_environment = self._from_folder(name)
        elif self.scope.conda_folder:
            folder = self.scope.conda_folder
            self.scope.conda_environment = folder if name == "base" else f"{folder}/envs/{name}"
        else:
            self.lose_from_here(f"line {line}: `{' '.join(words)}`; give its `bin/python` as `python_path:`")

    @abstractmethod
    def run(self, script: Iterable[Node | Fault]) -> None:
        """Follow the statements of a script."""

    def _run_eval(self, words: list[str], line: int) -> None:
        text = " ".join(words[1:])
        is_known = not re.search(f"[\n{UNKNOWN_VALUE}{VARIABLE_START}]", text)
        if is_known and not self.in_eval and not self.is_assigned:
            self.in_eval = True
            self.run(statements("\n" * (line - 1) + text + "\n"))
            self.in_eval = False
            return
        self._lose(words, line)
        if re.search("vllm|sglang|llama", " ".join(words)) or VARIABLE_ALONE.fullmatch(text):
            self.commands.append(refused(line, "`eval` runs what only a shell knows; write the command"))

    def _run_limit(self, words: list[str], line: int) -> None:
        """`ulimit` and `umask`: settings of the unit."""
        if not (settings := limits(words)):
            self.lose_from_here(f"line {line}: `{' '.join(words)}`; see `service:` for a similar setting")
        self.scope.service |= settings

    def _run_shopt(self, words: list[str], line: int) -> None:
        self.scope.has_other_patterns |= bool({"nocasematch", "extglob"} & {*words})

    def _run_unset(self, words: list[str], line: int) -> None:
        for name, bracket, _ in (word.partition("[") for word in words[1:]):
            if bracket:
                self.scope.forget([name], "by `unset` of an element", line)
                continue
            self.scope.variables.pop(name, None)
            self.scope.exported_names.discard(name)
            self.scope.unset_names.add(name)

    def _run_cd(self, words: list[str], line: int) -> None:
        self.scope.places["cd"] = f"line {line}"
        words = [word for word in words if word not in ("--", "-P", "-L")]
        if len(words) != 2 or words[1] == "-" or UNKNOWN_VALUE in words[1]:
            self.lose_from_here(f"line {line}: `{' '.join(words)}`, to a folder that only a shell knows")
            self.scope.folder = host_variable("FOLDER")
        else:
            self.scope.folder = self._from_folder(words[1])

    def _run_printf(self, words: list[str], line: int) -> None:
        if words[1:2] == ["-v"]:
            self.scope.forget(words[2:3], "by `printf`", line)

    def _run_read(self, words: list[str], line: int) -> None:
        self.scope.forget([word for word in words[1:] if word.isidentifier()], f"by `{words[0]}`", line)

    def _run_shift(self, words: list[str], line: int) -> None:
        self.scope.shifted += int(words[1]) if words[1:] and re.fullmatch("[0-9]{1,6}", words[1]) else 1

    def _run_exit(self, words: list[str], line: int) -> None:
        self.scope.ended = line

    def _from_folder(self, path: str) -> str:
        """A path relative to the script's current folder, as far as that folder is known."""
        folder = self.scope.folder or self.scope.script_folder or host_variable("FOLDER")
        if path.startswith(("/", VARIABLE_START)):
            return path
        return f"{folder.rstrip('/')}/{path.removeprefix('./')}"

    _BUILTINS: ClassVar[Mapping[str, Callable[["SimpleCommands", list[str], int], None]]] = {
        **dict.fromkeys(("source", "."), _run_source),
        **dict.fromkeys(("conda", "mamba", "micromamba"), _run_conda),
        **dict.fromkeys(("module", "ml", "spack"), Assignments._lose),
        **dict.fromkeys(("exit", "return"), _run_exit),
        **dict.fromkeys(("read", "mapfile", "readarray", "getopts"), _run_read),
        "alias": Assignments._lose,
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
