"""The parts of a script that run under a condition: `if`, `case`, `&&`, `||`."""

from abc import ABC, abstractmethod
from collections.abc import Collection
from itertools import count

from recipectl.importers.draft import host_variable
from recipectl.importers.lines import Remark
from recipectl.importers.programs import runs_engine
from recipectl.importers.shell_branches import NOT_RUN, merge, name_not_run, not_run
from recipectl.importers.shell_commands import SimpleCommands
from recipectl.importers.shell_conditions import TESTS, Conditions, is_negative, is_test
from recipectl.importers.shell_scope import Scope, Variable
from recipectl.importers.shell_syntax import Node, arguments_at, from_the_left
from recipectl.importers.shell_words import Words
from recipectl.importers.unwrapping import unwrapped

_MAY_END = "the script may end there, and run nothing that follows"
_ELSE = -1  # the number of what runs instead of any part


class ControlFlow(SimpleCommands, ABC):
    """Decides which parts run, as far as their conditions are known."""

    def __init__(self, scope: Scope) -> None:
        super().__init__(scope)
        self._numbers = count(1)  # a number for each statement of several parts
        self._returning: set[int] = set()  # those that may return from a function

    @abstractmethod
    def _statement(self, statement: Node) -> None:
        """Follow one statement."""

    def _apart(self, nodes: list[Node] | None, reason: str = "", condition: int | None = None) -> Scope:
        """Run statements with a copy of the variables; the copy as it is afterwards.

        A `reason` refuses all their commands. `condition` is the line of the test that decides about them.
        """
        first = len(self.commands)
        before = self.scope, self.condition
        self.scope, self.condition = self.scope.copied(), condition or self.condition
        self.scope.unset_names, self.scope.set_names, self.scope.dropped = set(), set(), {}
        self.scope.ended = None
        self.run(nodes or ())
        after = self.scope
        self.scope, self.condition = before
        for command in self.commands[first:] if reason else ():
            command.refuse(command.place, reason)
        return after

    def _branches(
        self,
        branches: list[list[Node]],
        line: int,
        *,
        is_presumed: bool = False,
        is_fallback: bool = False,
        tested: Collection[str] = (),
        statement: int | None = None,
    ) -> None:
        """Parts that run under a condition, presumably the first one. A fallback runs where something fails.

        Of the others, only variables that have no known value count.
        """
        statement = statement or next(self._numbers)
        before, of_first = {*self.scope.variables}, set[str]()
        endings: list[Remark] = []
        for number, nodes in enumerate(branches):
            first = len(self.commands)
            after = self._part(nodes, statement, number, condition=line)
            is_failure = after.exit_status != "0" and (is_fallback or after.exit_status != "")
            if after.ends_script and not is_failure and not self._run_engine(first):
                endings.append(Remark(_MAY_END, after.ended or 0, about="run alone"))
            is_first = nodes is branches[0]
            wins = is_presumed and is_first and after.ended is None
            new = after.variables.keys() - before
            of_first = new if is_first else of_first
            # What only another branch sets is not mixed into what the first one sets.
            unset = new - of_first if of_first and not is_first else set()
            self.lost += merge(self.scope, after, line, wins=wins, unset=unset, tested=tested)
            self.scope.set_names |= after.set_names | after.unset_names
            self.scope.lost += after.lost[len(self.scope.lost) :]
            self.scope.functions |= after.functions
            self.scope.note_return(after, line)
        for remark in endings:
            self.lose_from_here(remark)

    def _part(self, nodes: list[Node], statement: int, number: int, condition: int | None = None) -> Scope:
        """Run one of several parts of a statement, of which one runs; the scope as it is afterwards."""
        outer = self.scope.alternatives
        self.scope.alternatives = {**outer, statement: number}
        after = self._apart(nodes, condition=condition)
        # What follows a part that ends the script runs instead of it.
        if after.ended is not None and not after.ends_script:
            self._returning.add(statement)
        self.scope.alternatives = outer if after.ended is None else {**outer, statement: _ELSE}
        return after

    def _run_known(
        self,
        branches: list[list[Node]],
        taken: int,
        conditions: Conditions,
        line: int,
        statement: int | None = None,
    ) -> bool:
        """Run the one of several parts that a shell runs; the programs of the others run under a condition.

        False, with nothing done, where the script needs a value that its caller may give: it would end, or
        choose none of several parts that set a variable.
        """
        statement = statement or next(self._numbers)
        first, lost, after, runs = len(self.commands), [*self.lost], self.scope, False
        others: list[tuple[Scope, list[Remark]]] = []  # after the parts that do not run, and what they lose
        for number, nodes in enumerate(branches):
            if number == taken:
                self.lost += conditions.remarks
                first_of_part = len(self.commands)
                after = self._part(nodes, statement, number)
                runs = self._run_engine(first_of_part)
            else:
                others.append(self._not_taken(nodes, statement, number, line))
        new = {name for other, _ in others for name in other.set_names & other.variables.keys()}
        new -= after.variables.keys()
        chooses_none = taken == len(branches) > 1 and bool(new) and bool(conditions.untold)
        is_guess = bool(conditions.remarks or conditions.empty & self.scope.set_elsewhere)
        ends = after.ended is not None and taken < len(branches)
        returns = ends and not after.ends_script and bool(self.scope.locals)
        if is_guess and ((ends and not returns and not runs) or chooses_none):
            del self.commands[first:]
            self.lost = lost
            self._note_required(conditions, line, ends=ends)
            return False
        if is_guess and ends:
            after.ended, after.is_over = None, True
        if taken == len(branches):
            self.lost += conditions.remarks
        after.set_names |= self.scope.set_names
        after.unset_names |= self.scope.unset_names
        after.add_dropped(self.scope.dropped)
        after.alternatives = self.scope.alternatives
        self.scope = after
        self._name_not_run(others, conditions, line)
        for name in new - self.scope.variables.keys():
            remark = Remark(
                f"`{name}` is not set here: the script's caller may set it", line, about="not here"
            )
            self.scope.leave_unset(name, remark)
        return True

    def _run_engine(self, first: int) -> bool:
        """Whether commands from a number on run an engine."""
        return any(runs_engine(unwrapped(command).words or [""]) for command in self.commands[first:])

    def _note_required(self, conditions: Conditions, line: int, *, ends: bool) -> None:
        """Note what the script needs: what its tests ask for is there, whatever they decide."""
        self.scope.required |= conditions.untold
        for name in conditions.empty if ends else ():  # the script goes on with what its caller gives
            self.scope.variables[name] = Variable(host_variable(name))
        if ends:
            wanted = sorted(conditions.untold | conditions.empty | conditions.defaulted)
            self.scope.required |= {*wanted} if len(wanted) == 1 else set()
            names = ", ".join(f"`{name}`" if name.isidentifier() else f"`${name}`" for name in wanted)
            names = (f"one of {names}" if len(wanted) > 1 else names) or "a value"
            self.lose_from_here(Remark(f"without {names} the script ends there", line, about="run alone"))

    def _name_not_run(
        self, others: list[tuple[Scope, list[Remark]]], conditions: Conditions, line: int
    ) -> None:
        """Name what parts would do that do not run because nobody gives the script a value."""
        for other, lost in others if conditions.remarks else ():
            self.lost += name_not_run(self.scope, other, line)
            self.lost += [not_run(remark) for remark in lost if remark.about != "run alone"]

    def _not_taken(
        self, nodes: list[Node], statement: int, number: int, line: int
    ) -> tuple[Scope, list[Remark]]:
        """Read a part that does not run, for its programs; the scope after it, and what it would lose."""
        first = len(self.commands)
        before = self.lost, {*self._substituted}, [*self.waits]
        self.lost = []
        after = self._part(nodes, statement, number, condition=line)
        lost = self.lost
        self.lost, self._substituted, self.waits = before
        for command in self.commands[first:]:
            command.not_carried_over.append(Remark(NOT_RUN, line, about="not here"))
            command.lost_before = [*map(not_run, command.lost_before)]
            command.is_skipped = True
        return after, lost

    def _if(self, node: Node) -> None:
        branches: list[list[Node]] = []
        conditions = Conditions(self.scope)
        taken: int | None = None
        is_known = True
        tests: list[Node] = []
        known_false = 0  # branches before the first whose condition is not known
        clause: Node | None = node
        while clause is not None:
            self._test_of_branch(clause, node, is_reached=taken is None, is_certain=is_known)
            if is_known and taken is None:
                holds = conditions.holds(clause.Cond[-1]) if clause.Cond else True
                is_known = holds is not None
                known_false = len(branches)
                taken = len(branches) if holds else None
            branches.append(clause.Then)
            tests += (clause.Cond or [])[-1:]
            clause = clause.Else
        taken = len(branches) if taken is None else taken
        if is_known and self._run_known(branches, taken, conditions, node.line):
            return
        first = 0 if is_known else known_false
        statement = next(self._numbers)
        others = [
            self._not_taken(nodes, statement, -number, node.line)
            for number, nodes in enumerate(branches[:first], start=2)
        ]
        if others:
            self.lost += conditions.remarks
            self._name_not_run(others, conditions, node.line)
        tested = {name for test in tests for name in test.parameters()}
        is_presumed = not is_negative(tests[first])
        self._branches(
            branches[first:], node.line, is_presumed=is_presumed, tested=tested, statement=statement
        )

    def _test_of_branch(self, clause: Node, statement: Node, *, is_reached: bool, is_certain: bool) -> None:
        """Follow the test of `if` or `elif`: a shell runs it only where no test before it holds."""
        if clause is statement or (is_reached and is_certain):
            for condition in clause.Cond or ():
                self._statement(condition)
        elif is_reached and clause.Cond:
            self._branches([clause.Cond], statement.line)

    def _case(self, node: Node) -> None:
        branches = [item.Stmts or [] for item in node.Items or ()]
        conditions = Conditions(self.scope)
        running = conditions.parts_of(node)
        if running is not None:
            taken = running[0] if running else len(branches)
            run = [statement for number in running for statement in branches[number]]
            parts = [[] if number in running else part for number, part in enumerate(branches)]
            parts[taken : taken + 1] = [run] if running else []
            if self._run_known(parts, taken, conditions, node.line):
                return
        self._branches(branches, node.line, tested={*node.Word.parameters()})

    def _binary(self, node: Node) -> None:
        if node.Op in ("|", "|&"):
            first = len(self.commands)
            self._apart([node.X])
            writers = self.commands[first:]
            self._apart([node.Y])
            self._check_pipe(node.X, node.Y, writers)
            return
        node = from_the_left(node)
        conditions = Conditions(self.scope)
        holds = conditions.holds(node.X)
        statement = next(self._numbers)
        outer = self.scope.alternatives
        if node.Op == "||":
            self.scope.alternatives = {**outer, statement: _ELSE}
        self._statement(node.X)
        self.scope.alternatives = outer
        if node.Op == "&&" and not self._tests(node.X) and holds is not False:
            self._statement(node.Y)
        elif holds is not None and self._run_known(
            [[node.Y]], int(holds == (node.Op == "||")), conditions, node.line, statement
        ):
            return
        else:
            is_presumed = node.Op == "&&" and not is_negative(node.X)
            tested = {*node.X.parameters()}
            self._branches(
                [[node.Y]],
                node.line,
                is_presumed=is_presumed,
                is_fallback=node.Op == "||",
                tested=tested,
                statement=statement,
            )

    def _tests(self, node: Node) -> bool:
        """Whether a statement is run for its exit status: a test, or a function, which may be one."""
        call = node.Cmd if node.Cmd and node.Cmd.Type == "CallExpr" else None
        names = Words(self.scope).fields((call.Args or [])[:1])[:1] if call else []
        return is_test(node) or any(name in TESTS or name in self.scope.functions for name in names)

    def _does_not_loop(self, node: Node) -> bool:
        """Whether a loop does nothing, for its script gets no arguments; if so, that is named."""
        conditions = Conditions(self.scope)
        if node.Type == "WhileClause" and node.Cond:
            holds = conditions.holds(node.Cond[-1])
            holds = None if holds is None else holds != bool(node.Until)
        elif node.Type == "ForClause" and node.Loop and node.Loop.Type == "WordIter":
            holds = conditions.has_words(node.Loop.Items or [arguments_at(node)])
        else:
            return False
        return holds is False and self._run_known([node.Do], 1, conditions, node.line)
