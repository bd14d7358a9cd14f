"""The values of a shell's variables and arguments: those of the script, and those of its caller."""

import re

from recipectl.importers.draft import UNKNOWN_VALUE, VARIABLE_ALONE, host_variable
from recipectl.importers.lines import About, Remark
from recipectl.importers.secret_names import is_likely_secret
from recipectl.importers.shell_scope import READ_BY_ENGINES, Scope, Variable, is_known, is_of_caller
from recipectl.importers.shell_syntax import Node, all_elements


class Parameters:
    """Finds parameters in a scope; `remarks` collects what must be said of them.

    In a test, a variable that only the caller could set counts as unset.
    """

    def __init__(self, scope: Scope, *, is_test: bool = False) -> None:
        self.scope = scope
        self.is_test = is_test
        self.empty: set[str] = set()  # variables that a test finds empty
        self.untold: set[str] = set()  # what a test takes for unset, and the caller could set
        self.defaulted: set[str] = set()  # what a test takes for empty, by its own default
        self.remarks: list[Remark] = []

    def _remark(self, node: Node, text: str, about: About = "") -> None:
        self.remarks.append(Remark(text, node.line, about=about))

    def _remark_unset(self, node: Node, name: str) -> None:
        self._remark(node, f"`{name}` is not set here: the script's caller may set it", "not here")

    def _known(self, node: Node, name: str) -> Variable | None:
        """The value of a parameter, as far as it is known."""
        variable = self.scope.variables.get(name) or self.argument(name) or self._untold(node, name)
        if variable and self.is_test:
            variable = self._tested(node, name, variable)
        if name == "PWD" and (folder := self.scope.folder or self.scope.script_folder):
            variable = Variable(folder)
        self.remarks += variable.remarks if variable else ()
        return variable

    def argument(self, name: str) -> Variable | None:
        """An argument that the script is known to be given, all of them, or their number."""
        every, remarks = self.scope.arguments, self.scope.arguments_remarks
        if every is None:
            return None
        arguments = every[self.scope.shifted :]
        is_open = UNKNOWN_VALUE in "".join(every)  # it may be any number of words
        if name == "#":
            return Variable(str(len(arguments)) if all(map(is_known, every)) else UNKNOWN_VALUE)
        if name in ("@", "*"):
            elements = (*arguments, UNKNOWN_VALUE) if is_open else arguments
            return Variable(elements=elements, remarks=remarks)
        number = int(name) if re.fullmatch("[1-9][0-9]{0,5}", name) else 0
        if number and UNKNOWN_VALUE in "".join(every[: self.scope.shifted + number]):
            return Variable(UNKNOWN_VALUE, remarks=remarks)
        return Variable(arguments[number - 1], remarks=remarks) if 0 < number <= len(arguments) else None

    def _untold(self, node: Node, name: str) -> Variable | None:
        """The value in a test of what the script's caller could give."""
        scope = self.scope
        if remark := scope.without_value.get(name):
            self.remarks.append(remark)
        if not self.is_test or node.Exp:
            return None
        if self._is_missing(name) or name in scope.not_of_caller:
            return Variable("")
        if self._is_needed(name):
            return None
        self.untold.add(name)
        shown = name if name.isidentifier() else f"${name}"
        value = "0" if name == "#" else ""
        what = "is 0" if value else "is not set"
        self._remark(node, f"`{shown}` {what} here: the script's caller may set it")
        return Variable(value)

    def _tested(self, node: Node, name: str, variable: Variable) -> Variable:
        """A variable in a test; a copy of what only the caller gives is empty."""
        copied = VARIABLE_ALONE.fullmatch(variable.text) and self.scope.of_caller.get(variable.text)
        if copied and not self._is_needed(copied):
            self.untold.add(copied)
            self._remark_unset(node, name)
            return Variable("")
        if not variable.text:
            self.empty.add(name)
        return variable

    def _is_needed(self, name: str) -> bool:
        """Whether nobody can tell what a parameter of the caller is, or the script cannot do without it."""
        required = self.scope.required
        is_needed = name in required or (name.isdigit() and "#" in required)
        return is_needed or self.scope.has_unknown_variables or not is_of_caller(name)

    def _count(self, node: Node, name: str) -> str:
        """The number of elements of an array, `${#NAME[@]}`; empty where it is not known."""
        variable = self.scope.variables.get(name)
        elements = variable.elements if variable and all_elements(node) else None
        return "" if elements is None else str(len(elements))

    def _is_missing(self, name: str) -> bool:
        """Whether the script is known to get fewer arguments, or not to set a variable."""
        is_argument = self.scope.arguments is not None and bool(re.fullmatch("[1-9][0-9]{0,5}", name))
        return is_argument or name in self.scope.without_value

    def _note_default(self, node: Node, name: str, default: str) -> None:
        """Say what a parameter is here that the caller could set."""
        shown = "…" if is_likely_secret(name, default) else default
        value = f"has its default value here, `{shown}`" if shown else "is empty here, by default"
        self._remark(node, f"`${{{name}}}` {value}")
        if self.is_test and not default:
            self.defaulted.add(name)

    def _note_secret(self, node: Node, name: str) -> None:
        """Each program from here on has a secret that the caller's environment gives to the script."""
        known_names = self.scope.exported_names | self.scope.not_of_caller
        if READ_BY_ENGINES.fullmatch(name) and name not in known_names:
            self.scope.exported_names.add(name)
            self.scope.places[name] = f"line {node.line}"

    def _from_caller(self, node: Node, name: str) -> str:
        """What the caller gives to the script: an argument, or a variable of its environment."""
        self._note_secret(node, name)
        is_argument = re.fullmatch("[0-9]{1,6}", name)
        if self.scope.is_unset(name) or self._is_missing(name):
            return ""
        text = host_variable(f"ARG{int(name) + self.scope.shifted}" if is_argument else name)
        self.scope.of_caller[text] = name
        return text
