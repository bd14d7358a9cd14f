"""A shell script as the syntax tree of `shfmt --to-json`, statement by statement; nothing is run."""

import contextlib
import json
import re
import subprocess
from collections.abc import Iterator
from functools import cache
from importlib.metadata import files
from typing import Any, NamedTuple

from recipectl.errors import UsageError

_TIMEOUT_SEC = 30
_COMPARISONS = ("==", "!=", "<=", ">=")
_MAX_FAULTS = 50  # lines of a script that cannot be read; a file with more is no script
_PLACEHOLDER = re.compile(r"<[A-Za-z][\w. -]*>")


# Those of mvdan.cc/sh/v3/syntax that the importers read; a node has some of them.
_FIELDS = frozenset(
    """
    All Append Args Array Assigns Background Body Cmd Col Cond Do Dollar Elems Else Excl Exp Glued Hdoc Index
    Items Left Length Line Loop N Naked Name Names Negated NestedParam Offset Op Orig Param Parts
    Patterns Pos Post Redirs Repl Right Slice Source Stmt Stmts Then Type Until Value Variant With Word X Y
    """.split()  # noqa: SIM905  (a list one can read)
)


class Node:
    """A node of the tree, with the names of mvdan.cc/sh/v3/syntax; a field that it lacks is None."""

    def __init__(self, fields: dict[str, Any]) -> None:
        self.__dict__.update(fields)

    def __getattr__(self, name: str) -> Any:
        if name not in _FIELDS:
            raise AttributeError(f"a node of a script has no field `{name}`")
        return None

    def without(self, field: str) -> "Node":
        """This node without one of its fields."""
        return Node({name: value for name, value in self.__dict__.items() if name != field})

    def moved_to(self, line: int) -> "Node":
        """This node, and those below it, at another line."""
        if self.Pos:
            self.Pos.__dict__["Line"] = line
        for child in self.children:
            child.moved_to(line)
        return self

    @property
    def line(self) -> int:
        return int(self.Pos.Line)

    @property
    def children(self) -> Iterator["Node"]:
        """The nodes right below this one."""
        for value in self.__dict__.values():
            yield from (
                item for item in (value if isinstance(value, list) else [value]) if isinstance(item, Node)
            )

    def texts(self, kind: str) -> Iterator[str]:
        """The values of all nodes of a kind within this node."""
        for child in self.children:
            if child.Type == kind:
                yield str(child.Value)
            yield from child.texts(kind)

    def parameters(self) -> Iterator[str]:
        """The names of the variables and arguments that this node reads, `$(( NAME ))` among them."""
        for kind in ("ParamExp", "ArithmExp", "ArithmCmd"):
            for part in self.outermost(kind):
                yield from [str(part.Param.Value)] if part.Param else part.texts("Lit")

    def assigned_names(self) -> Iterator[str]:
        """The names that arithmetic in this node sets, outside `$(…)`: `$((PORT++))`, `${A[i += 1]}`."""
        sets = self.Op in ("++", "--") or ((self.Op or "").endswith("=") and self.Op not in _COMPARISONS)
        if self.Type in ("UnaryArithm", "BinaryArithm") and self.X and sets:
            yield from self.X.texts("Lit")
        for child in self.children if self.Type not in ("CmdSubst", "ProcSubst") else ():
            yield from child.assigned_names()

    def outermost(self, kind: str) -> Iterator["Node"]:
        """The nodes of a kind within this node, without those within one another."""
        for child in self.children:
            yield from [child] if child.Type == kind else child.outermost(kind)


def word_of(parameter: str, node: Node) -> Node:
    """The word `$NAME` of a parameter, at the place of a node."""
    expansion = Node({"Type": "ParamExp", "Param": Node({"Value": parameter}), "Pos": node.Pos})
    return Node({"Type": "Word", "Parts": [expansion], "Pos": node.Pos})


def arguments_at(node: Node) -> Node:
    """The word `"$@"` at the place of a node, which a `for` without `in` goes through."""
    quoted = Node({"Type": "DblQuoted", "Parts": word_of("@", node).Parts, "Pos": node.Pos})
    return Node({"Parts": [quoted], "Pos": node.Pos})


def word_of_arithmetic(word: Node) -> Node:
    """A word of arithmetic, where a name alone stands for the variable: `NAME` is `$NAME`."""
    part, *others = word.Parts
    is_name = not others and part.Type == "Lit" and re.fullmatch("[A-Za-z_][A-Za-z0-9_]*", part.Value)
    return word_of(part.Value, part) if is_name else word


def is_parameter(word: Node, *names: str) -> bool:
    """Whether a word is one of some parameters alone, `$$` or `"$!"`."""
    parts = word.Parts or []
    parts = (parts[0].Parts or []) if len(parts) == 1 and parts[0].Type == "DblQuoted" else parts
    is_plain = len(parts) == 1 and parts[0].Type == "ParamExp" and not (parts[0].Exp or parts[0].Slice)
    return is_plain and parts[0].Param.Value in names


def all_elements(node: Node) -> str:
    """`@` or `*` of `${NAME[@]}`, `$@` and the like; "" of any other expansion."""
    if node.Type != "ParamExp":
        return ""
    index = node.Index.Parts[0].Value if node.Index and node.Index.Parts else None
    text = index if node.Index else node.Param.Value
    return text if text in ("@", "*") else ""


def from_the_left(node: Node) -> Node:
    """`A && B && C` as `A && { B && C; }`: what A decides about is one part."""
    while node.Op == "&&" and node.X.Cmd and (node.X.Cmd.Type, node.X.Cmd.Op) == ("BinaryCmd", "&&"):
        first = node.X.Cmd
        rest = Node({"Type": "BinaryCmd", "Op": "&&", "X": first.Y, "Y": node.Y, "Pos": first.Y.Pos})
        node = Node({"X": first.X, "Op": "&&", "Y": Node({"Cmd": rest, "Pos": rest.Pos}), "Pos": node.Pos})
    return node


class Fault(NamedTuple):
    """A line that bash itself could not read, and why."""

    line: int
    reason: str


@cache
def _shfmt() -> str:
    """The program of the installed distribution: what PATH has may be anybody's."""
    return next(str(file.locate()) for file in files("shfmt-py") or () if file.name == "shfmt")


def _tree(text: str) -> tuple[list[Node], Fault | None]:
    """The statements of a text, or its first fault; UsageError for what is no text of a script."""
    joined: list[int] = []  # where a comment ends with a backslash: shfmt joins the next line, bash does not
    try:
        data = text.encode()
        done = subprocess.run(  # noqa: S603  (the program of our own dependency)
            [_shfmt(), "-ln=bash", "--to-json"], input=data, capture_output=True, timeout=_TIMEOUT_SEC
        )
        if done.returncode == 0:
            tree = json.loads(done.stdout, object_hook=lambda fields: _node(fields, data, joined))
            return _tree(_without(data, joined)) if joined else (tree.Stmts or [], None)
    except (UnicodeError, RecursionError, subprocess.TimeoutExpired) as error:
        raise UsageError(f"the script cannot be read ({error}); correct it") from error
    message = done.stderr.decode(errors="replace").strip()
    match = re.match(r"(?:<standard input>:)?(\d+):\d+: (.+)", message)
    if match is None:
        raise UsageError(f"the script cannot be read ({message}); correct it")
    return [], Fault(int(match[1]), match[2])


def _without(data: bytes, places: list[int]) -> str:
    """A text with blanks at some places."""
    for place in places:
        data = data[:place] + b" " + data[place + 1 :]
    return data.decode()


def _node(fields: dict[str, Any], data: bytes, joined: list[int]) -> Node:
    comment, backslash, _ = str(fields.get("Text", "")).partition("\\\n")
    if "Hash" in fields and backslash:
        joined.append(fields["Hash"].Offset + 1 + len(comment.encode()))
    if "Lparen" in fields and "Elems" in fields:  # an array; text behind it makes it a text, in bash
        end = fields["End"].Offset
        fields["Glued"] = data[end : end + 1] not in (b"", *(bytes([byte]) for byte in b" \t\n;&|)"))
    if fields.get("Type") == "CmdSubst":
        fields["Source"] = data[fields["Pos"].Offset : fields["End"].Offset].decode()
    return Node(fields)


def _fault_of_bash(text: str) -> Fault | None:
    """What bash itself cannot read, where it is installed: it reads more strictly. `-n` runs nothing."""
    with contextlib.suppress(OSError, UnicodeError, subprocess.TimeoutExpired):
        done = subprocess.run(
            ["/bin/bash", "-n"],
            input=text.encode(),
            capture_output=True,
            timeout=_TIMEOUT_SEC,
            env={"LC_ALL": "C"},
        )
        match = re.search(r"line (\d+): (syntax error.*|unexpected.*)", done.stderr.decode(errors="replace"))
        if done.returncode and match:
            return Fault(int(match[1]), match[2])
    return None


def statements(text: str) -> Iterator[Node | Fault]:
    """The statements of a script in their order; a line that cannot be read is left out, the rest is read."""
    lines = text.split("\n")
    begin = 0
    for _ in range(_MAX_FAULTS):
        # Empty lines in front keep the numbers of the lines.
        text = "\n" * begin + "\n".join(lines[begin:])
        nodes, fault = _tree(text)
        fault = fault or _fault_of_bash(text)
        if fault is None:
            yield from nodes
            return
        first, end = _command_lines(lines, fault.line - 1)
        before, is_within = _tree("\n" * begin + "\n".join(lines[begin:first]))
        yield from before
        whole = "\n".join(lines[first:end])
        placeholder = _PLACEHOLDER.search(whole)
        if placeholder and not is_within:
            yield Fault(first + 1, f"fill in `{placeholder[0]}`")
        else:
            yield Fault(fault.line, f"bash cannot read it ({fault.reason})")
            # What an open quote or an open `if` holds is unknown.
            if is_within or "reached EOF" in fault.reason:
                return
        begin = end


def _command_lines(lines: list[str], number: int) -> tuple[int, int]:
    """The lines, first and end, of a command with its continued lines."""
    first = end = number
    while first > 0 and lines[first - 1].endswith("\\"):
        first -= 1
    while end < len(lines) and lines[end].endswith("\\"):
        end += 1
    return first, end + 1
