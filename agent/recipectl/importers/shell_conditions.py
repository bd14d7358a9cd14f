"""Whether the condition of a shell's `if`, `&&`, `||` or `case` holds, as far as its values are known."""

import operator
import re
from collections.abc import Callable, Mapping
from fnmatch import fnmatchcase

from recipectl.importers.shell_arithmetic import integer
from recipectl.importers.shell_scope import Scope, is_known
from recipectl.importers.shell_syntax import Node, word_of, word_of_arithmetic
from recipectl.importers.shell_words import Words

_NUMBERS: Mapping[str, Callable[[int, int], bool]] = {
    "-eq": operator.eq, "-ne": operator.ne, "-gt": operator.gt,
    "-ge": operator.ge, "-lt": operator.lt, "-le": operator.le,
}  # fmt: skip
_ORDERS = {"<": "-lt", ">": "-gt"}  # of texts, which are those of numbers for one digit
_ARITHMETIC = {"==": "-eq", "!=": "-ne", ">": "-gt", ">=": "-ge", "<": "-lt", "<=": "-le"}  # of `((…))`
# Programs that scripts run for their exit status.
TESTS = frozenset("[ test grep pgrep which type hash command diff cmp false mountpoint curl nc".split())  # noqa: SIM905
_COMPARISONS = {"<", ">", "=", "==", "!=", "-nt", "-ot", "-ef", *_NUMBERS}
_CONNECTIVES = {"!", "(", ")", "-a", "-o"}
_PROGRAM = re.compile(r"vllm|sglang|llama-server|python[0-9.]*")
_CONSTANTS = {"true": True, ":": True, "false": False}


class Conditions:
    """Decides conditions in a scope; `remarks` collects what must be said of the values that they test.

    An answer is None where a file, a program or the caller decides.
    """

    def __init__(self, scope: Scope) -> None:
        self.scope = scope
        self.words = words = Words(scope, is_test=True)
        self.remarks, self.empty, self.untold = words.remarks, words.empty, words.untold
        self.defaulted = words.defaulted

    def holds(self, statement: Node) -> bool | None:
        """The exit status of a statement: True for 0."""
        node: Node | None = statement.Cmd
        result: bool | None = None
        if self.scope.is_repeated:
            return None
        if any(Words(self.scope).value(item.Word) != "/dev/null" for item in statement.Redirs or ()):
            return None  # the shell may not open it
        if any(statement.texts("CmdSubst")):
            return None  # also where the words are known: the program may not be there
        if node and node.Type == "TestClause" and node.Left.Line == node.Right.Line:
            result = self._test(node.X)
        elif node and node.Type == "ArithmCmd" and node.X and node.X.Type == "BinaryArithm":
            option = _ARITHMETIC.get(str(node.X.Op), "")
            result = _compared(self._number(node.X.X), option, self._number(node.X.Y))
        elif node and node.Type == "ArithmCmd" and node.X and node.X.Type == "Word":
            result = _compared(self._number(node.X), "-ne", "0")
        elif node and node.Type == "BinaryCmd" and node.Op in ("&&", "||"):
            result = self._combined(node, self.holds)
        elif node and node.Type == "CallExpr":
            result = self._command(node)
        elif node and node.Type == "DeclClause" and node.Variant.Value == "export":
            result = True
        return _negated(result) if statement.Negated else result

    def has_words(self, items: list[Node]) -> bool | None:
        """Whether the words of a `for` are any; False for `"$@"` of a script without arguments."""
        if self.scope.is_repeated or any(text for item in items for text in item.texts("CmdSubst")):
            return None
        fields = self.words.fields(items)
        return bool(fields) if all(map(is_known, fields)) else None

    def parts_of(self, case: Node) -> list[int] | None:
        """The numbers of the parts of `case` that run, in their order; None where only a shell knows."""
        text = None if self.scope.is_repeated else self._value(case.Word)
        running: list[int] = []
        matches: bool | None = False
        for number, item in enumerate(case.Items or ()):
            for pattern in () if matches else item.Patterns:
                if running and any(pattern.parameters()):  # a part that ran may have set it
                    return None
                matches = None if text is None else self._matches(text, pattern)
                if matches is None:
                    return None
                if matches:
                    break
            if matches:
                running.append(number)
                if item.Op == ";;":
                    break
                matches = item.Op == ";&"  # it goes on with the next part; `;;&` goes on with its patterns
        return running

    def _combined(self, node: Node, ask: Callable[[Node], bool | None]) -> bool | None:
        """`X && Y` or `X || Y`."""
        deciding: bool = node.Op == "||"
        first = ask(node.X)
        if first is deciding:
            return first
        second = ask(node.Y)
        return second if second is deciding or first is not None else None

    def _command(self, node: Node) -> bool | None:
        """`[ … ]` and `test …`; an assignment alone holds."""
        if not node.Args:
            return True
        parts = node.Args[0].Parts
        name = str(parts[0].Value or "") if len(parts) == 1 else ""
        if name == "getopts":
            return False if self._value(word_of("#", node)) == "0" else None
        if name in self.scope.functions:
            return None
        if name not in ("[", "test"):
            text = self._value(node.Args[0]) if len(node.Args) == 1 else None
            is_nothing = Words(self.scope).fields(node.Args[:1]) == [""]
            # No program has an empty name.
            return False if is_nothing else _CONSTANTS.get(name or text or "")
        texts = self.words.fields(node.Args[1:])
        if name == "[" and texts[-1:] != ["]"]:
            return False
        return _of_words(texts[:-1] if name == "[" else texts)

    def _test(self, node: Node) -> bool | None:
        """An expression of `[[ … ]]`."""
        match node.Type, node.Op:
            case "ParenTest", _:
                return self._test(node.X)
            case "BinaryTest", "&&" | "||":
                return self._combined(node, self._test)
            case "UnaryTest", "!":
                return _negated(self._test(node.X))
            case "UnaryTest", "-n" | "-z" as option:
                answer = _is_set(self._value(node.X))
                return answer if option == "-n" else _negated(answer)
            case "BinaryTest", "=" | "==" | "!=" as option:
                text = self._value(node.X)
                matches = None if text is None else self._matches(text, node.Y)
                return _negated(matches) if option == "!=" else matches
            case "BinaryTest", option if option in _NUMBERS or option in _ORDERS:
                texts = self._value(node.X), self._value(node.Y)
                if option in _ORDERS and not all(text and re.fullmatch("[0-9]", text) for text in texts):
                    return None  # the locale decides
                return _compared(texts[0], _ORDERS.get(str(option), str(option)), texts[1])
            case "BinaryTest", "=~":
                is_quoted = any(part.Type in ("SglQuoted", "DblQuoted") for part in node.Y.Parts or ())
                return _is_found(self._value(node.X), self._value(node.Y), is_quoted=is_quoted)
            case "Word", _:
                return _is_set(self._value(node))
            case _:
                return None

    def _number(self, node: Node) -> str | None:
        """The text of one number or variable in `((…))`; None for anything else."""
        if node.Type != "Word":
            return None
        return self._value(word_of_arithmetic(node))

    def _value(self, word: Node) -> str | None:
        """The text of a word without splitting; None where it is not known."""
        text = self.words.value(word)
        return text if is_known(text) else None

    def _matches(self, text: str, pattern: Node) -> bool | None:
        """Whether a text matches a shell's pattern with `*` and `?`; None for one with more."""
        parts: list[str] = []
        if self.scope.has_other_patterns:
            return None
        for part in pattern.Parts or ():
            value = self._value(Node({"Parts": [part]}))
            is_quoted = part.Type in ("SglQuoted", "DblQuoted")
            if value is None or (not is_quoted and re.search(r"[\[(\\]", str(part.Value or value))):
                return None
            parts.append(re.sub(r"([*?[])", r"[\1]", value) if is_quoted else value)
        return fnmatchcase(text, "".join(parts))


def _of_words(texts: list[str]) -> bool | None:
    """What `test` says of its words."""
    if not all(map(is_known, texts)):
        return None
    match texts:
        case []:
            return False
        case [text]:
            return _is_set(text)
        case [first, "=" | "==" | "!=" as option, second]:
            return (first == second) == (option != "!=")
        case [first, option, second] if option in _NUMBERS:
            return False if _has_no_numbers(texts) else _compared(first, option, second)
        case ["-n" | "-z" as option, text]:
            return _is_set(text) if option == "-n" else _negated(_is_set(text))
        case ["!", *rest] if len(rest) < 4:
            is_error = len(rest) > 1 and (_is_malformed(rest) or _has_no_numbers(rest))
            return False if is_error else _negated(_of_words(rest))
        case _ if _is_malformed(texts):
            return False  # test cannot read them: its exit status is 2
        case _:
            return None


def _has_no_numbers(texts: list[str]) -> bool:
    """Whether `test` compares an empty text as a number, which is an error."""
    return len(texts) == 3 and texts[1] in _NUMBERS and "" in (texts[0], texts[2])


def _is_malformed(texts: list[str]) -> bool:
    """Whether `test` cannot read its words."""
    is_unary = len(texts) == 2 and re.fullmatch("-[a-zA-Z]", texts[0])
    is_binary = len(texts) == 3 and texts[1] in _COMPARISONS
    return not (is_unary or is_binary or _CONNECTIVES & {*texts})


def _is_set(text: str | None) -> bool | None:
    """Whether a text is not empty; None for a program's name, as of `$(command -v NAME)`."""
    return None if text is None or _PROGRAM.fullmatch(text) else bool(text)


def _is_found(text: str | None, pattern: str | None, *, is_quoted: bool) -> bool | None:
    """Whether `=~` finds an expression of plain characters, `.`, `.*`, `^` and `$`; None for another."""
    is_plain = r"[\w/:, -]*" if is_quoted else r"\^?([\w/:, -]|\.\*?)*\$?"
    if text is None or pattern is None or not re.fullmatch(is_plain, pattern):
        return None
    return bool(re.search(re.sub(r"\$\Z", r"\\Z", pattern), text))


def _compared(first: str | None, option: str, second: str | None) -> bool | None:
    """Whether a comparison of numbers holds, where an empty text is 0, as in `[[ … ]]` and `((…))`."""
    read = (integer(text or "0") for text in (first, second) if text is not None)
    numbers = [number for number in read if number is not None]
    return _NUMBERS[option](*numbers) if option in _NUMBERS and len(numbers) == 2 else None


def _negated(result: bool | None) -> bool | None:
    return None if result is None else not result


def literals(command: Node) -> list[str]:
    """The first part of each word of a command."""
    return [str(word.Parts[0].Value) for word in command.Args or () if word.Parts]


def is_test(statement: Node) -> bool:
    """Whether a statement is run for its exit status."""
    command = statement.Cmd
    if command and command.Type == "BinaryCmd" and command.Op == "&&":
        return is_test(command.X) or is_test(command.Y)
    is_simple = command and command.Type in ("CallExpr", "DeclClause")
    return not is_simple or statement.Negated or bool(TESTS & {*literals(command)[:1]})


def is_negative(statement: Node) -> bool:
    """Whether a test asks for what is missing: what depends on it is a fallback."""
    command = statement.Cmd or statement
    if statement.Negated or (command.Type == "TestClause" and command.X.Op in ("!", "-z")):
        return True
    return {"!", "-z"} & {*literals(command)[1:2]} != set()
