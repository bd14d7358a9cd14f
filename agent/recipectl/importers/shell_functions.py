"""A script's own functions, each followed at its call, with the arguments of that call."""

from abc import ABC, abstractmethod
from collections.abc import Sequence

from recipectl.errors import UsageError
from recipectl.importers.draft import RUN_IT, UNKNOWN_VALUE
from recipectl.importers.lines import Remark
from recipectl.importers.shell_branches import merge
from recipectl.importers.shell_control import ControlFlow
from recipectl.importers.shell_scope import Function, Scope
from recipectl.importers.shell_syntax import Node, all_elements, is_parameter
from recipectl.importers.shell_words import Words

_MAX_CALLS = 5000  # of one script: functions that call each other twice would take forever


class Functions(ControlFlow, ABC):
    """Follows the calls of functions, which see the variables of their caller (bash(1), FUNCTIONS)."""

    def __init__(self, scope: Scope) -> None:
        super().__init__(scope)
        self._declared: list[Function] = []
        self._running: list[Function] = []
        self._calls = 0

    @abstractmethod
    def _refuse_part(self, nodes: list[Node], reason: str, line: int) -> None:
        """Read a part whose commands are refused, and whose variables are unknown afterwards."""

    def _declare_function(self, node: Node) -> None:
        is_certain = self.condition is None and not self.scope.is_repeated
        function = self.scope.functions[str(node.Name.Value)] = Function(node, is_certain)
        self._declared.append(function)

    def _call_function(self, node: Node, words: Words, fields: list[str], inner: Scope) -> None:
        function = self.scope.functions[fields[0]]
        function.is_called = True
        self._calls += 1
        if self._calls > _MAX_CALLS:
            raise UsageError(f"the script calls its functions too often to be read; {RUN_IT}")
        if function in self._running:
            self.scope.has_unknown_variables = True
            self.lose_from_here(Remark(f"the function `{fields[0]}`, which calls itself here", node.line))
            return
        scope, condition = self.scope, self.condition
        alternatives, returned = scope.alternatives, scope.returned
        outer = scope.arguments, scope.shifted, scope.arguments_remarks
        self._enter(node, words, self._arguments(node.Args, fields), inner)
        self._running.append(function)
        if function.is_certain:
            self.run([function.node.Body])
        else:
            reason = "in a function that is declared under a condition"
            self._refuse_part([function.node.Body], reason, function.node.line)
        self._running.pop()
        self._return(alternatives)
        self.condition, self.scope.returned = condition, returned
        self.scope.arguments, self.scope.shifted, self.scope.arguments_remarks = outer

    def _enter(self, node: Node, words: Words, arguments: tuple[str, ...] | None, inner: Scope) -> None:
        """Begin a function, with the variables that stand before its call in `inner`."""
        scope = self.scope
        scope.returned = None
        scope.locals.append({})
        for name in {item.Name.Value for item in node.Assigns or ()} & inner.variables.keys():
            scope.make_local(name, is_prefixed=True)
            scope.variables[name] = inner.variables[name]
            scope.exported_names.add(name)
        if arguments is not None:
            scope.arguments, scope.shifted = arguments, 0
            scope.arguments_remarks = tuple(words.remarks)

    def _return(self, alternatives: dict[int, int]) -> None:
        """End a function: what follows its call runs whichever `return` has ended it."""
        if self.scope.returned:  # and what follows that `return` may not have run
            line, scope = self.scope.returned
            scope = scope.copied()
            self.lost += merge(scope, self.scope, line, wins=True)
            for name in ("lost", "functions", "locals", "ends_script", "ended", "is_over", "alternatives"):
                setattr(scope, name, getattr(self.scope, name))
            self.scope = scope
        for name, before in self.scope.locals.pop().items():
            self.scope.restore(name, before)
        if self.scope.ends_script:
            return
        self.scope.ended, self.scope.is_over = None, False
        self.scope.alternatives = {
            statement: part
            for statement, part in self.scope.alternatives.items()
            if statement in alternatives or statement not in self._returning
        }

    def _arguments(self, words: list[Node], fields: Sequence[str]) -> tuple[str, ...] | None:
        """The arguments of a call: what follows one that is not known is not known either.

        None for those of the caller as they are.
        """
        passed = [index for index, word in enumerate(words) if _has_all_arguments(word)]
        if self.scope.arguments is not None or not passed:
            return tuple(fields[1:])
        if len(fields) == 1 and len(words) == 2 and is_parameter(words[1], "@"):
            return None
        return (*Words(self.scope).fields(words[: passed[0]])[1:], UNKNOWN_VALUE)

    def refuse_uncalled(self) -> None:
        """Read the functions that nothing calls, or a `trap` alone, for the engines in them."""
        for function in self._declared:
            if function.is_called and str(function.node.Name.Value) not in self.trapped:
                continue
            lost = [*self.lost]
            self.scope.is_over, self.scope.is_repeated, self.scope.arguments = False, True, None
            line = function.node.line
            self._apart([function.node.Body], f"it is in a function (line {line}); write it out")
            self.lost = lost


def _has_all_arguments(word: Node) -> bool:
    return any(all_elements(part) and not part.Index for part in word.outermost("ParamExp"))
