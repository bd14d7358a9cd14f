"""A script's own functions, each followed at its call, with the arguments of that call."""

from abc import ABC, abstractmethod
from typing import NamedTuple

from recipectl.errors import UsageError
from recipectl.importers.draft import AS_IT_RUNS, UNKNOWN_VALUE
from recipectl.importers.shell_control import ControlFlow
from recipectl.importers.shell_scope import Function, Scope, Variable
from recipectl.importers.shell_syntax import Node, all_elements, is_parameter
from recipectl.importers.shell_words import Words

_MAX_CALLS = 20_000  # of one script: functions that call each other twice would take forever


class _Before(NamedTuple):
    """What a variable was before a function had one of its own by that name."""

    variable: Variable | None
    is_exported: bool
    is_readonly: bool
    is_not_of_caller: bool


class Functions(ControlFlow, ABC):
    """Follows the calls of functions, which see the variables of their caller (bash(1), FUNCTIONS)."""

    def __init__(self, scope: Scope) -> None:
        super().__init__(scope)
        self._declared: list[Function] = []
        self._locals: list[dict[str, _Before]] = []  # of the functions that run, the innermost last
        self._running: list[Function] = []
        self._calls = 0

    @abstractmethod
    def _refuse_part(self, nodes: list[Node], reason: str, line: int) -> None:
        """Read a part whose commands are refused, and whose variables are unknown afterwards."""

    def _declare_function(self, node: Node) -> None:
        is_certain = self.condition is None and not self.scope.is_repeated
        function = self.functions[str(node.Name.Value)] = Function(node, is_certain)
        self._declared.append(function)

    def _call_function(self, node: Node, words: Words, fields: list[str], inner: Scope) -> None:
        function = self.functions[fields[0]]
        function.is_called = True
        self._calls += 1
        if self._calls > _MAX_CALLS:
            raise UsageError(f"the script calls its functions too often to be read; {AS_IT_RUNS[3:]}")
        if function in self._running:
            self.scope.has_unknown_variables = True
            self.lose_from_here(f"line {node.line}: the function `{fields[0]}`, which calls itself here")
            return
        outer = self.scope.arguments, self.scope.shifted, self.scope.arguments_remarks
        alternatives = self.scope.alternatives
        self._locals.append({})
        self._running.append(function)
        for name in {item.Name.Value for item in node.Assigns or ()} & inner.variables.keys():
            self._make_local(name)
            self.scope.variables[name] = inner.variables[name]
            self.scope.exported_names.add(name)
        self._set_arguments(node.Args, fields, words)
        if function.is_certain:
            self.run([function.node.Body])
        else:
            reason = "in a function that is declared under a condition"
            self._refuse_part([function.node.Body], reason, function.node.line)
        self._running.pop()
        self._restore(self._locals.pop())
        self.scope.arguments, self.scope.shifted, self.scope.arguments_remarks = outer
        if not self.scope.ends_script:
            self._return(alternatives)

    def _return(self, alternatives: dict[int, int]) -> None:
        """What follows a call runs whichever `return` ends the function."""
        self.scope.ended, self.scope.is_over = None, False
        self.scope.alternatives = {
            statement: part
            for statement, part in self.scope.alternatives.items()
            if statement in alternatives or statement not in self._returning
        }

    def _set_arguments(self, words: list[Node], fields: list[str], expanded: Words) -> None:
        """Set `$1`, `$2` and so on; those that follow what is not known are not known either."""
        passed = [index for index, word in enumerate(words) if index and _has_all_arguments(word)]
        if self.scope.arguments is not None or not passed:
            self.scope.arguments = tuple(fields[1:])
        elif len(words) > 2 or not is_parameter(words[1], "@"):
            before = Words(self.scope).fields(words[: passed[0]])
            self.scope.arguments = (*before[1:], UNKNOWN_VALUE)
        else:
            return  # those of the script, as they are
        self.scope.shifted, self.scope.arguments_remarks = 0, tuple(expanded.remarks)

    def _make_local(self, name: str) -> bool:
        """Keep a variable of a function's caller; False in no function, and where this one has its own."""
        if not self._locals or name in self._locals[-1]:
            return False
        scope = self.scope
        self._locals[-1][name] = _Before(
            variable=scope.variables.get(name),
            is_exported=name in scope.exported_names,
            is_readonly=name in scope.readonly_names,
            is_not_of_caller=name in scope.not_of_caller,
        )
        return True

    def _restore(self, variables: dict[str, _Before]) -> None:
        scope = self.scope
        for name, before in variables.items():
            scope.variables.pop(name, None)
            if before.variable is not None:
                scope.variables[name] = before.variable
            for names, is_member in (
                (scope.exported_names, before.is_exported),
                (scope.readonly_names, before.is_readonly),
                (scope.not_of_caller, before.is_not_of_caller),
            ):
                (names.add if is_member else names.discard)(name)

    def refuse_uncalled(self) -> None:
        """Read the functions that nothing calls, for the engines in them."""
        for function in self._declared:
            if function.is_called:
                continue
            lost = [*self.lost]
            self.scope.is_over, self.scope.is_repeated, self.scope.arguments = False, True, None
            line = function.node.line
            self._apart([function.node.Body], f"it is in a function (line {line}); write it out")
            self.lost = lost


def _has_all_arguments(word: Node) -> bool:
    return any(all_elements(part) and not part.Index for part in word.outermost("ParamExp"))
