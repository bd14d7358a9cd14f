"""The line of the original that a sentence is about."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import yaml

from recipectl.errors import UsageError


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


def keys_of(node: Any, *keys: str) -> list[str]:
    """The keys of a mapping within a YAML document; none where there is no mapping."""
    for name in keys:
        pairs = node.value if isinstance(node, yaml.MappingNode) else ()
        node = next((value for key, value in pairs if key.value == name), None)
    return [str(key.value) for key, _ in node.value] if isinstance(node, yaml.MappingNode) else []


def place_of(node: Any, *keys: str) -> str:
    """The line of a key of a YAML document, or of the nearest key above it that is there.

    `node` is the document's root; empty without one.
    """
    line = 1 if node is not None else 0
    for name in keys:
        pairs = node.value if isinstance(node, yaml.MappingNode) else ()
        pair = next((pair for pair in pairs if pair[0].value == name), None)
        bases = [base for key, base in pairs if key.value == "<<"]
        while pair is None and bases:  # what comes by `<<: *anchor` stands at the anchor
            base = bases.pop(0)
            if isinstance(base, yaml.SequenceNode):
                bases = [*base.value, *bases]
            elif isinstance(base, yaml.MappingNode):
                pair = next((pair for pair in base.value if pair[0].value == name), None)
                bases += [further for key, further in base.value if key.value == "<<"]
        if pair is None:
            break
        line = pair[0].start_mark.line + 1
        node = pair[1]
    return f"line {line}" if line else ""
