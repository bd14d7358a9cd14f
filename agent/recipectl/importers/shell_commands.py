"""The simple commands of a shell: assignments, builtins, and the programs that it runs."""

import re
from abc import ABC, abstractmethod
from collections.abc import Iterable

from recipectl.compiler.secrets import looks_secret
from recipectl.importers.arguments import without_secrets
from recipectl.importers.command import OF_CALLER, Command, program_shown, refused
from recipectl.importers.draft import UNKNOWN_VALUE, VARIABLE_START, host_variable
from recipectl.importers.lines import Remark, by_line
from recipectl.importers.programs import program_name, runs_engine
from recipectl.importers.shell_builtins import Builtins
from recipectl.importers.shell_programs import (
    changes_a_process,
    files_of_tee,
    has_effect,
    holds_engine,
    is_of_kernel,
    runs_its_input,
    sets_gpus_up,
)
from recipectl.importers.shell_scope import Scope, Variable
from recipectl.importers.shell_syntax import Node, all_elements, is_parameter
from recipectl.importers.shell_words import Words
from recipectl.importers.unwrapping import unwrapped

# A pause after them waits for the end of what ran before, as a unit does.
_KILLERS = ("kill", "pkill", "killall", "fuser")
# The text of a `trap` that begins so runs no engine, whatever it names.
_ENDS = re.compile(r"(-- )?(pkill|pgrep|kill|killall|echo|printf|grep)\b")


class SimpleCommands(Builtins, ABC):
    """Follows assignments and builtins in a scope, and collects the programs that a script runs."""

    def __init__(self, scope: Scope) -> None:
        super().__init__(scope)
        self.condition: int | None = None  # the line of the test that decides about this command
        self.trapped: set[str] = set()  # names of functions that a `trap` runs
        self.waits: list[Remark] = []  # what the next engine has waited for
        self.follows_kill = False
        self.in_background: Command | None = None  # the last program that was started with `&`

    def call(self, node: Node) -> None:
        """One simple command: assignments, a function, a builtin, or a program."""
        words = Words(self.scope)
        fields = words.fields(node.Args or [])
        outer = self.scope
        self.scope = outer.copied() if fields else outer
        lost = [*self.lost]
        for item in node.Assigns or ():
            added = self._expanded(item)
            if fields and not item.Append and item.Name.Value not in self.scope.readonly_names:
                self.scope.variables.pop(item.Name.Value, None)  # the program gets one of its own
            self._assign(item, added)
        inner, self.scope = self.scope, outer
        name = fields[0] if fields else ""
        is_function = name in self.scope.functions
        if name in ("command", "builtin") and "".join(fields[1:2]) in self.BUILTINS:
            name, fields = fields[1], fields[1:]
        if fields and not is_function:
            self.lost = lost  # `IFS= read` changes nothing for others
        if name == "sleep" and not self.follows_kill:
            self.waits.append(Remark(f"`{' '.join(fields)}`, after which it started", node.line))
        self.follows_kill = name in _KILLERS
        line, text = self.scope.aliases.get(name, (0, ""))
        if text and holds_engine(" ".join((text, *fields[1:]))):
            reason = f"`{name}` is an alias (line {line}); write the command out"
            self.commands.append(refused(node.line, reason))
        elif is_function:
            self._call_function(node, words, fields, inner)
        elif name in self.BUILTINS and fields[1:2] != ["run"]:  # `conda run`
            self.lost += words.remarks if name in ("set", "eval") else []
            self.is_assigned = bool(node.Assigns)
            self.BUILTINS[name](self, fields, node.line)
        elif name and not self._changes_another(node, fields) and has_effect(fields):
            names = inner.exported_names | {item.Name.Value for item in node.Assigns or ()}
            self._add_command(fields, inner, names, words.remarks, words.reasons, node)

    def _changes_another(self, node: Node, words: list[str]) -> bool:
        """True for a command that is not a program of its own; what it changes is named."""
        if words == ["exec"]:
            return True  # its redirections count
        if words[:2] == ["exec", "exec"]:
            self._lose(words, node.line)
        elif is_parameter(node.Args[0], "0") and "0" not in self.scope.variables:
            self.lost.append(Remark("`$0`, which starts this script again", node.line))
        elif (
            words[0] == "trap" and words[1:2] and (names := {*words[1].split()} & self.scope.functions.keys())
        ):
            self.trapped |= names
        elif words[0] == "trap" and holds_engine(text := " ".join(words[1:])) and not _ENDS.match(text):
            self.commands.append(refused(node.line, "the text of `trap` runs an engine; write it out"))
        elif sets_gpus_up(words):
            self.lost.append(
                Remark(f"`{' '.join(words)}`, which sets the GPUs up; do that at boot", node.line)
            )
        elif changes_a_process(words) and is_parameter(node.Args[-1], "$", "BASHPID"):
            shown = " ".join((*words[:-1], "$$"))
            self.lose_from_here(Remark(f"`{shown}`, for what follows; see `service:`", node.line))
        elif changes_a_process(words) and any(
            is_parameter(word, "!", *self._of_background) for word in node.Args
        ):
            shown = " ".join("$!" if UNKNOWN_VALUE in word else word for word in words)
            lost = self.in_background.not_carried_over if self.in_background else self.lost
            lost.append(Remark(f"`{shown}`; see `service:`", node.line))
        else:
            return False
        return True

    @abstractmethod
    def _call_function(self, node: Node, words: Words, fields: list[str], inner: Scope) -> None:
        """Follow a function of the script; `inner` is the scope with the assignments before it."""

    def refuse_of_zsh(self, node: Node, commands: list[Command]) -> None:
        """Refuse what zsh expands in another way: it does not split `$NAME`, and `$ARRAY` is all of it."""
        texts = ["".join(word.texts("Lit")) for word in node.Args or ()]
        if self.scope.is_zsh and (splits := re.search(r"\$[=~^][A-Za-z_]\w*", " ".join(texts))):
            for command in commands:
                command.refuse(f"line {node.line}", f"`{splits[0]}` is of zsh; write its words out")
        parts = [part for word in node.Args or () for part in word.Parts or () if part.Type == "ParamExp"]
        for part in parts if self.scope.is_zsh and node.Type in ("CallExpr", "DeclClause") else ():
            name = str(part.Param.Value)
            variable = self.scope.variables.get(name) or Words(self.scope).argument(name)
            is_array = variable and (variable.elements or len(variable.value.split()) != 1)
            if is_array and not (part.Index and all_elements(part)):
                for command in commands:
                    reason = f"zsh does not expand `${name}` as bash does; write its words out"
                    command.refuse(f"line {node.line}", reason)

    def _add_command(
        self,
        words: list[str],
        scope: Scope,
        names: set[str],
        remarks: list[Remark],
        why: list[Remark],
        node: Node,
    ) -> None:
        line = node.line
        variables = scope.of_environment(names)
        environment = {
            name: variable.value for name, variable in variables.items() if variable.elements is None
        }
        unknown = {name for name, value in environment.items() if UNKNOWN_VALUE in value}  # as of a loop
        environment |= {name: host_variable(name) for name in unknown}
        own_path = scope.variables.get("PATH", Variable()).value or None
        secrets = {name: OF_CALLER for name in names - variables.keys() if looks_secret(name, "x")}
        lost = [*remarks, *(remark for variable in variables.values() for remark in variable.remarks)]
        if self.waits and runs_engine(unwrapped(Command({}, list(words))).words):
            lost += self.waits
            self.waits = []
        if self.condition is not None:
            lost.append(Remark(f"it runs under a condition (line {self.condition})", line))
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
                branches=dict(self.scope.alternatives),
                not_carried_over=by_line((*scope.lost, *self.lost, *lost)),
                place=f"line {line}",
                column=int(node.Pos.Col),
                service=dict(scope.service),
                secrets=secrets,
                places=dict(scope.places),
                written_files=scope.written_files,
                substituted=frozenset(self._substituted | unknown),
            )
        )
        # Whatever the value of a secret is, its recipe has a file for it.
        if any(UNKNOWN_VALUE in word for word in without_secrets(words)):
            self.commands[-1].refuse_unknown(why)
        if {VARIABLE_START, UNKNOWN_VALUE} & {*words[0]}:
            self._refuse_variable(node, self.commands[-1])
        self.lost = []
        if words[0] == "exec":
            self.scope.ended, self.scope.ends_script = line, True

    def _refuse_variable(self, node: Node, command: Command) -> None:
        """Refuse a program in a variable that had the command of an engine, in parts that are not known."""
        names = {*(node.Args[0].parameters() if node.Args else ())}
        if of_engine := sorted(names & self._of_engines):
            reason = f"`${of_engine[0]}` runs an engine with words that only a shell knows; write its command"
            command.refuse(command.place, reason)
            command.hides_engine = True

    # ── pipes and files

    def _name_written(self, files: Iterable[str], line: int) -> None:
        """Name what the script writes: a setting of the kernel, or a file that an engine may read."""
        for file in files:
            if is_of_kernel(file):
                self.lost.append(Remark(f"what is written to {file}; do that at boot", line))
            elif not re.search(r"^/dev/|\.(log|pid)\Z", file):
                self.lost.append(Remark(f"the file `{file}`, which it writes", line))
                self.scope.written_files |= {file}

    def _check_pipe(self, writer: Node, reader: Node, writers: list[Command]) -> None:
        """Name what reads an engine's output, or the files that it writes: `| tee -a FILE`, `| ts >>FILE`."""
        words = self._words_of(reader)
        text = " ".join((*writer.texts("Lit"), *writer.texts("SglQuoted")))
        if runs_its_input(words) and holds_engine(text):
            reason = f"`{program_shown(words)}` runs the text that is piped to it; write it as a command"
            self.commands.append(refused(reader.line, reason))
        files = files_of_tee(words)
        outputs = [item for item in reader.Redirs or () if ">" in str(item.Op) and "&" not in str(item.Op)]
        files += [Words(self.scope).value(item.Word) for item in outputs]
        if not writers:
            self._name_written(files, reader.line)
        is_named = bool(words) and not files and program_name(words) not in ("cat", "tee")
        for command in writers:
            if is_named:
                shown = f"`{program_shown(words)}`, which reads its output; the journal has all of it"
                command.not_carried_over.append(Remark(shown, reader.line))
            command.not_carried_over += [
                Remark(f"the file `{file}` of its output, which goes to the journal", reader.line)
                for file in files if file != "/dev/null"
            ]  # fmt: skip

    def _words_of(self, statement: Node) -> list[str]:
        call = statement.Cmd
        return Words(self.scope).fields(call.Args or []) if call and call.Type == "CallExpr" else []
