"""The line of the original that a sentence is about."""

import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, Literal

import yaml

from recipectl.errors import UsageError

_MAX_MERGES = 10  # an anchor may merge itself


# "not here": the remark says itself that something does not happen here. "run alone": it matters only where
# the part runs. The last three say why a value is not known: a number, a substitution, or something else of a
# running shell.
About = Literal["", "not here", "run alone", "number", "substitution", "shell"]


@dataclass(frozen=True)
class Remark:
    """A sentence about the original, with its line; 0 where it has none.

    `within` is the place around that line, such as the line of the unit that holds a script.
    """

    sentence: str
    line: int = 0
    within: str = ""
    about: About = ""

    @property
    def place(self) -> str:
        """Where the sentence belongs, such as `line 3`; empty where nothing is known of it."""
        return ": ".join(filter(None, (self.within, f"line {self.line}" if self.line else "")))

    def moved_into(self, place: str) -> "Remark":
        """The same remark about a part of what stands at a place."""
        return replace(self, within=": ".join(filter(None, (place, self.within))))

    def without(self, secret: str) -> "Remark":
        """The same remark with `…` in place of a secret."""
        return replace(self, sentence=self.sentence.replace(secret, "…"))

    def __str__(self) -> str:
        return placed(self.sentence, self.place)


class Losing:
    """What is imported, with remarks on what is not carried over."""

    not_carried_over: list[Remark]
    places: dict[str, str]  # a key of the original -> its place

    def lose(self, sentence: str, key: str = "") -> None:
        """Name what the recipe lacks of one key of the original, at its place."""
        self.not_carried_over.append(Remark(sentence, within=self.places.get(key, "")))

    def lose_each(self, sentences: Iterable[str]) -> None:
        """Name several losses, which have no place of their own."""
        self.not_carried_over += map(Remark, sentences)


@contextmanager
def at(place: str, lost: list[Remark]) -> Iterator[None]:
    """Say of what is lost within where that stands, such as `line 3`, if nothing has said it yet."""
    count = len(lost)
    yield
    lost[count:] = [remark if remark.within else replace(remark, within=place) for remark in lost[count:]]


@contextmanager
def errors_at(place: str) -> Iterator[None]:
    """Put a place in front of the error that ends what is within."""
    try:
        yield
    except UsageError as error:
        raise UsageError(placed(str(error), place), kind=error.kind) from error


def placed(sentence: str, place: str) -> str:
    """A sentence with its place in front, where there is one."""
    return f"{place}: {sentence}" if place else sentence


def by_line(remarks: Iterable[Remark]) -> list[Remark]:
    """Remarks once each, in the order of their lines; those without a line are the last."""
    return sorted(dict.fromkeys(remarks), key=lambda remark: remark.line or sys.maxsize)


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
