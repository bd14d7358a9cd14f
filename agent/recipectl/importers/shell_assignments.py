"""What a shell sets: assignments, and `export`, `declare`, `readonly` and `local`."""

from collections.abc import Iterable, Sequence
from dataclasses import replace

from recipectl.importers.command import ASSIGNMENT, program_shown
from recipectl.importers.draft import UNKNOWN_VALUE, host_variable
from recipectl.importers.lines import Remark
from recipectl.importers.secret_names import is_likely_secret
from recipectl.importers.shell_programs import holds_engine
from recipectl.importers.shell_scope import Scope, Variable, is_known
from recipectl.importers.shell_syntax import Node, is_parameter
from recipectl.importers.shell_words import MAX_VALUE, Words, too_long


def _source_of(remarks: Iterable[Remark]) -> str:
    """What gives a variable its value, by what was said of the parts of the value."""
    kinds = {remark.about for remark in remarks}
    if "number" in kinds:
        return "`$((…))` of numbers that are not known"
    if "substitution" in kinds:
        return "a substitution, which recipectl does not run"
    return "what only a running shell knows"


class Assignments:
    """Sets the variables of a scope; `lost` is what the next command must name."""

    def __init__(self, scope: Scope) -> None:
        self.scope = scope
        self.lost: list[Remark] = []
        self._substituted: set[str] = set()
        self._of_background: set[str] = set()  # those that had `$!`
        self._of_engines: set[str] = set()  # variables that had the command of an engine

    def declare(self, node: Node) -> None:
        """`export`, `declare`, `readonly`, `local`: variables with attributes."""
        words, options, has_names = Words(self.scope), "", False
        # A shell expands all words before it sets the first variable; it splits those that begin with none.
        expanded = [
            (argument, value)
            for argument in node.Args or ()
            for value in self._declared_words(argument, words)
        ]
        for argument, value in expanded:
            text = value if isinstance(value, str) else ""
            match = ASSIGNMENT.match(text)
            name = match[1] if match else argument.Name.Value if argument.Name else ""
            if text.startswith("-") and not has_names:
                options += text[1:]
            elif not name:
                self._lose([node.Variant.Value, text], node.line)
            else:
                given = Variable(match[2], remarks=tuple(words.remarks)) if match else value
                self._declare_one(node, options, name, argument, given)
                has_names = True

    def _declared_words(self, argument: Node, words: Words) -> Sequence[str | Variable]:
        if not argument.Naked:
            return [self._expanded(argument)]
        return words.fields([argument.Value]) if argument.Value else [""]

    def _declare_one(
        self, node: Node, options: str, name: str, argument: Node, value: str | Variable
    ) -> None:
        if name in self.scope.readonly_names:
            self.lose_from_here(Remark(f"`{name}` is read-only: it keeps its value", node.line))
            return
        if node.Variant.Value in ("local", "declare", "typeset"):
            self._hide_from_caller(node, options, name)
        if {"f", "F"} & {*options}:
            return  # functions
        if {*options} - {*"xrgap"}:
            self._declare_other(node, options, name)
        elif isinstance(value, Variable) and argument.Name and not argument.Naked:
            self._assign(argument, value)
        elif isinstance(value, Variable):
            self._set(name, value, node.line)
        elif "a" in options and name not in self.scope.variables:
            self._set(name, Variable(elements=()), node.line)
        if "n" not in options and (node.Variant.Value == "export" or "x" in options):
            self._export(name, node.line)
        if node.Variant.Value == "readonly" or "r" in options:
            self.scope.readonly_names.add(name)

    def _hide_from_caller(self, node: Node, options: str, name: str) -> None:
        """Begin a variable of a function's own; `-g` is for one of the script."""
        if "g" not in options:
            if self.scope.make_local(name):
                self.scope.variables.pop(name, None)
                self.scope.not_of_caller.add(name)
        elif any(name in frame for frame in self.scope.locals):
            fault = f"`{node.Variant.Value} -{options} {name}`, where a function has its own `{name}`"
            self.lose_from_here(Remark(f"{fault}", node.line))

    def _declare_other(self, node: Node, options: str, name: str) -> None:
        """`export -n`; and integers, references and maps, which have no value here."""
        if (node.Variant.Value, options) == ("export", "n"):
            self.scope.exported_names.discard(name)
            return
        self.lost.append(Remark(f"`{node.Variant.Value} -{options} {name}`", node.line))
        self.scope.forget([name], f"with -{options}", node.line)

    def _export(self, name: str, line: int) -> None:
        self.scope.exported_names.add(name)
        for frame in self.scope.locals:
            if name in frame and frame[name].is_prefixed:
                del frame[name]  # an exported one stays after the call
        if name not in self.scope.variables and is_likely_secret(name, "x" * 20):
            self.scope.places[name] = f"line {line}"
        elif name not in self.scope.variables and name not in self.scope.without_value:
            self.lose_from_here(Remark(f"the variable `{name}` of the caller; set it in `env_vars:`", line))

    def _expanded(self, node: Node) -> Variable:
        """What one assignment gives to its variable, or adds to it."""
        words = Words(self.scope)
        if not node.Array:
            return Variable(words.value(node.Value), remarks=tuple(words.remarks))
        added = tuple(words.fields([element.Value for element in node.Array.Elems or ()]))
        return Variable(elements=added, remarks=tuple(words.remarks))

    def _assign(self, node: Node, added: Variable) -> None:
        name = node.Name.Value
        if node.Value and is_parameter(node.Value, "!"):
            self._of_background.add(name)
        is_empty = self.scope.is_unset(name) or name in self.scope.without_value
        unknown = Variable(elements=()) if node.Array else Variable("" if is_empty else host_variable(name))
        before = self.scope.variables.get(name, unknown)
        elements = (node.Array.Elems or ()) if node.Array else ()
        if node.Index or (node.Array and node.Array.Glued) or any(element.Index for element in elements):
            self.scope.forget([name], "with an index", node.line)
            return
        if node.Append and (before.elements is None) == bool(node.Array):
            self.scope.forget([name], "with `+=`, which mixes a text and an array", node.line)
            return
        if node.Append and added.elements is not None:
            added = replace(added, elements=(before.elements or ()) + added.elements)
        elif node.Append:
            added = replace(added, value=before.value + added.value)
        elif before.elements is not None and not node.Array:  # a text becomes the first element
            added = replace(added, value="", elements=(added.value, *before.elements[1:]))
        remarks = (*(before.remarks if node.Append else ()), *added.remarks)
        self._set(name, replace(added, remarks=remarks), node.line)

    def _set(self, name: str, variable: Variable, line: int) -> None:
        """Set a variable; what a substitution gives is a variable of the host."""
        if name in self.scope.readonly_names:
            self.lose_from_here(Remark(f"`{name}` is read-only: it keeps its value", line))
            return
        if holds_engine(" ".join((variable.value, *(variable.elements or ())))):
            self._of_engines.add(name)
        if UNKNOWN_VALUE in variable.value:
            source = _source_of(variable.remarks)
            remark = Remark(f"`{name}` is set from {source}", line)
            variable = Variable(host_variable(name), remarks=(remark,))
            self._substituted.add(name)
        if variable.remarks and is_likely_secret(name, variable.text):
            hidden = tuple(remark.without(variable.text) for remark in variable.remarks)
            variable = replace(variable, remarks=hidden)
        self.scope.variables[name] = replace(variable, line=line)
        self.scope.set_names.add(name)
        if name == "PATH":
            self.scope.places[name] = f"line {line}"
        if name == "IFS" and not is_known(variable.text) and variable.value != host_variable("IFS"):
            self.lose_from_here(Remark("`IFS` is set, which changes how words are split", line))
        if sum(map(len, variable.elements or ())) > MAX_VALUE:
            raise too_long()
        if self.scope.exports_all:
            self.scope.exported_names.add(name)

    def _lose(self, words: list[str], line: int, cause: str = "") -> None:
        shown = program_shown(words) if words[0] in ("eval", "alias") else " ".join(words)
        effect = "replace programs" if words[0] == "alias" else "set variables"
        self.scope.has_unknown_variables |= words[0] != "alias"
        self.lose_from_here(Remark(f"`{shown}`, which may {effect}{cause}", line))

    def lose_from_here(self, remark: Remark) -> None:
        """Name what each program that follows may lack."""
        self.lost.append(remark)
        self.scope.lost.append(remark)
