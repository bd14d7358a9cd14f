"""The parts of a script that run under a condition: `if`, `case`, `&&`, `||`."""

from abc import ABC, abstractmethod
from collections.abc import Collection
from copy import deepcopy

from recipectl.importers.shell_branches import merge, name_not_run
from recipectl.importers.shell_commands import SimpleCommands
from recipectl.importers.shell_conditions import Conditions, is_negative, is_test
from recipectl.importers.shell_scope import Scope, Variable
from recipectl.importers.shell_syntax import Node, from_the_left


class ControlFlow(SimpleCommands, ABC):
    """Decides which parts run, as far as their conditions are known."""

    @abstractmethod
    def _statement(self, statement: Node) -> None:
        """Follow one statement."""

    def _apart(self, nodes: list[Node] | None, reason: str = "", condition: int | None = None) -> Scope:
        """Run statements with a copy of the variables; the copy as it is afterwards.

        A `reason` refuses all their commands. `condition` is the line of the test that decides about them.
        """
        first = len(self.commands)
        before = self.scope, self.condition
        self.scope, self.condition = deepcopy(self.scope), condition or self.condition
        self.scope.unset_names, self.scope.set_names = set(), set()
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
        tested: Collection[str] = (),
    ) -> None:
        """Parts that run under a condition, the first one presumably; the others add what is unknown else."""
        before, of_first = {*self.scope.variables}, set[str]()
        for number, nodes in enumerate(branches):
            first = len(self.commands)
            after = self._apart(nodes, condition=line)
            self._note_branch(first, line, number)
            is_first = nodes is branches[0]
            wins = is_presumed and is_first and after.ended is None
            new = after.variables.keys() - before
            of_first = new if is_first else of_first
            # What only another branch sets is not mixed into what the first one sets.
            unset = new - of_first if of_first and not is_first else set()
            self.lost += merge(self.scope, after, line, wins=wins, unset=unset, tested=tested)
            self.scope.set_names |= after.set_names | after.unset_names
            self.scope.lost += after.lost[len(self.scope.lost) :]

    def _run_known(self, branches: list[list[Node]], taken: int, remarks: list[str], line: int) -> bool:
        """Run the one of several parts that a shell runs; the programs of the others run under a condition.

        False, with nothing done, where the script needs a value that its caller may give: it would end, or
        choose none of several parts that set a variable.
        """
        first, lost, after = len(self.commands), [*self.lost], self.scope
        others: list[Scope] = []  # after the parts that do not run
        for number, nodes in enumerate(branches):
            first_of_branch = len(self.commands)
            if number == taken:
                self.lost += remarks
                after = self._apart(nodes)
            else:
                others.append(self._not_taken(nodes, line))
            self._note_branch(first_of_branch, line, number)
        new = {name for other in others for name in other.variables} - after.variables.keys()
        chooses_none = taken == len(branches) > 1 and bool(new)
        if remarks and (after.ended is not None or chooses_none):
            del self.commands[first:]
            self.lost = lost
            return False
        if taken == len(branches):
            self.lost += remarks
        after.set_names |= self.scope.set_names
        after.unset_names |= self.scope.unset_names
        self.scope = after
        for other in others if remarks else ():
            self.lost += name_not_run(after, other, line)
        for name in new - after.variables.keys():
            remark = f"line {line}: `{name}` is not set here: the script's caller may set it"
            after.variables[name] = Variable(remarks=(remark,))
        return True

    def _note_branch(self, first: int, line: int, number: int) -> None:
        """Note in which part of a statement commands are, of which only one part runs."""
        for command in self.commands[first:]:
            command.branches.setdefault(line, number)

    def _not_taken(self, nodes: list[Node], line: int) -> Scope:
        """Read a part that does not run, for its programs; the scope as it would be after it."""
        first = len(self.commands)
        before = self.lost, dict(self.functions), {*self._substituted}, [*self.waits]
        self.lost = []
        after = self._apart(nodes, condition=line)
        self.lost, self.functions, self._substituted, self.waits = before
        for command in self.commands[first:]:
            command.not_carried_over.append(f"line {line}: as it is, the script does not run it")
            command.is_skipped = True
        return after

    def _if(self, node: Node) -> None:
        branches: list[list[Node]] = []
        conditions = Conditions(self.scope)
        taken: int | None = None
        is_known = True
        tests: list[Node] = []
        known_false = 0  # branches before the first whose condition is not known
        clause: Node | None = node
        while clause is not None:
            for condition in clause.Cond or ():
                self._statement(condition)
            if is_known and taken is None:
                holds = conditions.holds(clause.Cond[-1]) if clause.Cond else True
                is_known = holds is not None
                known_false = len(branches)
                taken = len(branches) if holds else None
            branches.append(clause.Then)
            tests += (clause.Cond or [])[-1:]
            clause = clause.Else
        taken = len(branches) if taken is None else taken
        if is_known and self._run_known(branches, taken, conditions.remarks, node.line):
            return
        first = 0 if is_known else known_false
        for nodes in branches[:first]:
            self._not_taken(nodes, node.line)
        tested = {name for test in tests for name in test.parameters()}
        is_presumed = not is_negative(tests[first])
        self._branches(branches[first:], node.line, is_presumed=is_presumed, tested=tested)

    def _case(self, node: Node) -> None:
        branches = [item.Stmts or [] for item in node.Items or ()]
        conditions = Conditions(self.scope)
        taken = conditions.branch(node)
        if taken is None or not self._run_known(branches, taken, conditions.remarks, node.line):
            self._branches(branches, node.line)

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
        first = len(self.commands)
        self._statement(node.X)
        if node.Op == "||":
            self._note_branch(first, node.line, -1)
        if node.Op == "&&" and not is_test(node.X) and holds is not False:
            self._statement(node.Y)
        elif holds is not None and self._run_known(
            [[node.Y]], int(holds == (node.Op == "||")), conditions.remarks, node.line
        ):
            return
        else:
            is_presumed = node.Op == "&&" and not is_negative(node.X)
            tested = {*node.X.parameters()}
            self._branches([[node.Y]], node.line, is_presumed=is_presumed, tested=tested)
