"""A value of a file replaced at its place, with every other character of the file as it was. Pure."""

import re
from typing import Any

import yaml

from recipectl.recipe.positions import KeyPath
from recipectl.recipe.yamlfile import known_key

# A value that begins with one of these is no plain and no quoted word.
_NO_WORD = re.compile(r"[&*!|>\[{]")


class NotReplaceableError(ValueError):
    """A value does not stand in the file as one word: an anchor, an alias, a text of several lines."""


def raw_value(text: str, key: KeyPath) -> str | None:
    """A value as the file has it, quotes included; None where the file has no such key.

    NotReplaceableError for what is not one plain or quoted word on one line.
    """
    span = _span(text, key)
    return None if span is None else text[span[0] : span[1]]


def with_value(text: str, key: KeyPath, raw: str) -> str:
    """The text with another word at the place of a value; NotReplaceableError where that changes more."""
    span = _span(text, key)
    if span is None:
        raise NotReplaceableError(f"the file has no `{'.'.join(map(str, key))}`")
    replaced = text[: span[0]] + raw + text[span[1] :]
    if _without(_value(text), key) != _without(_value(replaced), key):
        raise NotReplaceableError("another value of the file would change with it")
    return replaced


def in_quotes_of(raw: str, value: str) -> str:
    """A value as a word of YAML, in the kind of quotes that a word had before."""
    if raw.startswith('"'):
        return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'
    is_plain = re.fullmatch(r"[A-Za-z0-9_./=~][A-Za-z0-9_./=~+*-]*", value) and not raw.startswith("'")
    return value if is_plain and yaml.safe_load(value) == value else "'" + value.replace("'", "''") + "'"


def _span(text: str, key: KeyPath) -> tuple[int, int] | None:
    """Where a value begins and ends, as indices of the text."""
    node: Any = _composed(text)
    for depth, name in enumerate(key):
        if not isinstance(node, yaml.MappingNode):
            return None
        values = [value for word, value in node.value if known_key(str(word.value), key[:depth]) == name]
        if not values:
            return None
        node = values[0]
    start, end = node.start_mark.index, node.end_mark.index
    raw = text[start:end]
    if not isinstance(node, yaml.ScalarNode) or "\n" in raw or not raw or _NO_WORD.match(raw):
        raise NotReplaceableError(f"`{'.'.join(map(str, key))}` is not one word on one line")
    try:  # an alias has the marks of its anchor
        alone = yaml.compose(raw, Loader=yaml.SafeLoader)
    except yaml.YAMLError:
        alone = None
    if alone is None or alone.value != node.value:
        raise NotReplaceableError(f"`{'.'.join(map(str, key))}` is not one word on one line")
    return start, end


def _composed(text: str) -> Any:
    """The nodes of a text, by the parser in Python: its marks count characters of the text."""
    try:
        return yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.YAMLError as error:
        raise NotReplaceableError("the file is not plain YAML") from error


def _value(text: str) -> Any:
    try:
        return yaml.safe_load(text)
    except (yaml.YAMLError, ValueError) as error:
        raise NotReplaceableError("the file would not be YAML any more") from error


def _without(value: Any, key: KeyPath, depth: int = 0) -> Any:
    """The same value, with None at a key."""
    if depth == len(key):
        return None
    if not isinstance(value, dict):
        return value
    names = {word: known_key(str(word), key[:depth]) for word in value}
    return {
        word: _without(part, key, depth + 1) if names[word] == key[depth] else part
        for word, part in value.items()
    }
