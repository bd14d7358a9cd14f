"""The words of `command:` and `entrypoint:`, as Compose splits them."""

import re
import shlex
from typing import Any

from recipectl.errors import UsageError
from recipectl.importers.shapes import sequence


def scalar(value: Any) -> str:
    """A value as Compose passes it on."""
    if isinstance(value, float):
        return str(value).removesuffix(".0")
    return str(value).lower() if isinstance(value, bool) else str(value)


def _before_operator(text: str, key: str) -> str:
    """What Compose reads of a command in one text: up to an operator of the shell (mattn/go-shellwords)."""
    plain = re.compile(r"""(?:[^\\'"();&|<>]|\\.|'[^']*'|"(?:[^"\\]|\\.)*")*""", re.S)
    begin = plain.match(text)
    end = begin.end() if begin else 0
    operator = text[end : end + 1]
    if operator in ("(", ")"):
        raise UsageError(f"Compose refuses the `{operator}` of `{key}:`; write it in quotes", key)
    if operator in ("", "'", '"', "\\"):  # the end, or a quote that is open
        return text
    if placeholder := re.match(r"<\w[\w .-]*>", text[end:]):
        raise UsageError(f"fill in `{placeholder[0]}`", key)
    # The number of a descriptor goes with it, and in go-shellwords all that follows a digit.
    return re.sub(r"(?<!\S)[0-9]\S*\Z", "", text[:end]) if operator == ">" else text[:end]


def split(value: Any, key: str) -> list[str]:
    """The words of `command:` or `entrypoint:`, a list or one text; UsageError for an open quote."""
    if isinstance(value, str):
        value = _before_operator(value, key)
        if re.search(r"\\[ \n]", value) and any(word != word.lstrip() for word in _shell_words(value, key)):
            fault = f"`{key}:` has a `\\` at the end of a line, which Compose takes into the next word"
            raise UsageError(f"{fault}; remove it", key)
        return _shell_words(value, key)
    items = sequence(value, key)
    if None in items:
        raise UsageError(f"`{key}:` has an item without a value; remove it, or write it in quotes", key)
    if any(isinstance(item, list | dict) for item in items):
        raise UsageError(f"`{key}:` has an item that is no text; write it in quotes", key)
    return list(map(scalar, items))


def _shell_words(text: str, key: str) -> list[str]:
    try:
        return shlex.split(text)
    except ValueError as error:
        raise UsageError(f"its words cannot be split ({error}); correct its quotes", key) from error
