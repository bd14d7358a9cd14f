"""The value of `$((…))`, as far as its numbers are known."""

import operator
import re
from collections.abc import Callable, Mapping

from recipectl.importers.shell_syntax import Node, word_of_arithmetic

_OPERATORS: Mapping[str, Callable[[int, int], int]] = {
    "+": operator.add,
    "-": operator.sub,
    "*": operator.mul,
    "/": lambda first, second: _divided(first, second),
    "%": lambda first, second: first - second * _divided(first, second),
}
_MAX = 2**63  # bash calculates with numbers of 64 bits


def result(node: Node, value_of: Callable[[Node], str]) -> int | None:
    """The number that an expression gives; None where recipectl does not know it.

    `value_of` gives the text of a word. It knows `+ - * / %` and parentheses.
    """
    match node.Type:
        case "ParenArithm":
            return result(node.X, value_of)
        case "UnaryArithm" if node.Op in ("-", "+") and not node.Post:
            number = result(node.X, value_of)
            return number if number is None or node.Op == "+" else -number
        case "BinaryArithm" if node.Op in _OPERATORS:
            first, second = result(node.X, value_of), result(node.Y, value_of)
            if first is None or second is None or (second == 0 and node.Op in "/%"):
                return None
            number = _OPERATORS[node.Op](first, second)
            return number if abs(number) < _MAX else None
        case "Word":
            return _of_word(node, value_of)
        case _:
            return None


def _of_word(word: Node, value_of: Callable[[Node], str]) -> int | None:
    """A number, a variable by its name or with `$`, or what a `${NAME:-8}` gives."""
    return integer(value_of(word_of_arithmetic(word)))


def integer(text: str) -> int | None:
    """A decimal number; None for another text, such as one that begins with 0, which is octal to bash."""
    return int(text) if re.fullmatch("-?(0|[1-9][0-9]{0,17})", text) else None


def _divided(first: int, second: int) -> int:
    """The quotient without its fraction, as C has it."""
    quotient = abs(first) // abs(second)
    return quotient if (first < 0) == (second < 0) else -quotient
