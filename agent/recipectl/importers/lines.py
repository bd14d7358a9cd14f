"""The line of the original that a sentence is about."""

import re
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import yaml

from recipectl.errors import UsageError

_MAX_MERGES = 10  # an anchor may merge itself


class Placed(str):
    """A sentence that begins with its place."""


@contextmanager
def at(place: str, lost: list[str]) -> Iterator[None]:
    """Put a place, such as `line 3`, in front of what is lost within and has no place yet."""
    count = len(lost)
    yield
    lost[count:] = [text if isinstance(text, Placed) else placed(text, place) for text in lost[count:]]


@contextmanager
def errors_at(place: str) -> Iterator[None]:
    """Put a place in front of the error that ends what is within."""
    try:
        yield
    except UsageError as error:
        raise UsageError(placed(str(error), place), kind=error.kind) from error


def placed(sentence: str, place: str) -> str:
    """A sentence with its place in front, where there is one."""
    return Placed(f"{place}: {sentence}") if place else sentence


def by_line(sentences: Iterable[str]) -> list[str]:
    """Sentences once each, in the order of their lines; those without a line are the last."""
    lines = {text: re.match(r"line (\d+)", text) for text in sentences}
    return sorted(lines, key=lambda text: int(match[1]) if (match := lines[text]) else sys.maxsize)


def keys_of(node: Any, *keys: str) -> list[str]:
    """The keys of a mapping within a YAML document; none where there is no mapping."""
    node = node_of(node, *keys)
    return [str(key.value) for key, _ in node.value] if isinstance(node, yaml.MappingNode) else []


def node_of(node: Any, *keys: str) -> Any:
    """The node of a key's value within a YAML node; None where it is not there."""
    for name in keys:
        _, node = _pair(node, name) or (None, None)
    return node


def place_of(node: Any, *keys: str) -> str:
    """The line of a key within a YAML node, or of the nearest key above that is there; empty for no node."""
    if node is None:
        return ""
    place = node
    for name in keys:
        pair = _pair(node, name)
        if pair is None:
            break
        place, node = pair
    return f"line {place.start_mark.line + 1}"


def _pair(node: Any, name: str, depth: int = 0) -> tuple[Any, Any] | None:
    """The nodes of a key and its value in a mapping, or in those that it merges (`<<: *anchor`)."""
    pairs = node.value if isinstance(node, yaml.MappingNode) else ()
    for key, value in pairs:
        if key.value == name:
            return key, value
    merged = [value for key, value in pairs if key.value == "<<" and depth < _MAX_MERGES]
    bases = [
        base
        for value in merged
        for base in (value.value if isinstance(value, yaml.SequenceNode) else [value])
    ]
    return next(filter(None, (_pair(base, name, depth + 1) for base in bases)), None)
