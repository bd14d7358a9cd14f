"""A YAML or JSON file as values with their positions, and drop-ins merged over it."""

import math
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import yaml

from recipectl.errors import Kind, Problem, RecipeError
from recipectl.files import read_bounded
from recipectl.recipe.positions import KeyPath, Position, Positions
from recipectl.recipe.schema import ALIASES, INTERNAL_ALIASES
from recipectl.recipe.yamlsyntax import Loader, compose, read_text
from recipectl.text import display, nearest

LEGACY_GPUS = ("extra_args", "cuda_visible_devices")
_TOP_LEVEL_GPUS = ("cuda_visible_devices",)
# Mappings whose values stay as they are written: `1`, `0.50` and `yes` are text there.
_TEXT_MAPPINGS = {
    ("vars",), ("env_vars",), ("service",), ("extra_args", "env_vars"), ("environment",), ("secrets",),
}  # fmt: skip
_TEXT_LISTS = {("args",), ("gpus",), ("after",), ("requires",), ("conflicts",), LEGACY_GPUS, _TOP_LEVEL_GPUS}
# `hardening: off` is a word, and not false.
_TEXT_VALUES = {("gpus",), ("after",), ("requires",), ("hardening",), LEGACY_GPUS, _TOP_LEVEL_GPUS}
_CANARY_TEXTS = {"ask", "contains", "matches", "command"}
_SWITCHES = {("gateway",), ("on_demand",), ("queue",), ("watch",)}
_NESTED = {"ready", "on_demand", "queue", "watch", "nodes"}  # mappings whose keys belong to recipectl too

# Whole numbers that YAML 1.1 reads otherwise than a person: octal, and base 60.
_MISREAD = re.compile(r"[-+]?(0[0-9_]+|[0-9_]+(:[0-9]+)+(\.[0-9_]*)?)\Z")
# A number to JSON and YAML 1.2, text to YAML 1.1.
_EXPONENT = re.compile(r"-?(0|[1-9][0-9]*)(\.[0-9]+)?[eE][-+]?[0-9]+\Z")
_REFERENCE = re.compile(r"\$\$\{|\$\{(?:([A-Za-z_][A-Za-z0-9_]*)\})?")
_MAX_NUMBER = 10**300  # below what a float can hold
_MAX_DIGITS = 400
_MAX_LEVELS = 50
_MAX_VALUES = 20_000
_STRING_TAG = "tag:yaml.org,2002:str"
_KNOWN_TAG = re.compile(r"tag:yaml\.org,2002:(null|bool|int|float|str|map|seq|timestamp|merge|value)")


class Written(float):
    """A number that keeps its spelling (`0.90`), so that the engine gets just that."""

    text: str

    def __new__(cls, value: float, text: str) -> "Written":
        self = super().__new__(cls, value)
        self.text = text
        return self


def known_key(text: str, path: KeyPath) -> str:
    """The key as recipectl knows it: snake_case where it is ours, or a flag (before its first dot)."""
    if path == ("extra_args",) and not text.startswith("-"):
        head, dot, tail = text.partition(".")
        folded = head.replace("-", "_") + dot + tail
        return INTERNAL_ALIASES.get(folded, folded)
    if path and path[0] not in _NESTED:
        return text
    return ALIASES.get(text, text.replace("-", "_"))


def _is_text(path: KeyPath) -> bool:
    in_list = path[:-1] in _TEXT_LISTS or path[:-2] == ("service",)
    if path[:1] == ("canaries",) and len(path) >= 3 and path[2] in _CANARY_TEXTS:
        return True
    return in_list or path[:-1] in _TEXT_MAPPINGS or path in _TEXT_VALUES


class Reader:
    """Turns the nodes of one document into values, and remembers where each stood."""

    def __init__(self, file: str, variables: Mapping[str, str] | None) -> None:
        self.file = file
        self.variables = variables
        self.problems: list[Problem] = []
        self.positions: Positions = {}
        self.key_positions: Positions = {}
        self._yaml = Loader("")
        self._count = 0

    def _position(self, node: Any) -> Position:
        return self.file, node.start_mark.line + 1, node.start_mark.column + 1

    def report(self, position: Position, path: KeyPath, kind: Kind, sentence: str) -> None:
        """Note a problem of the value at `path`."""
        key = ".".join(map(str, path))
        self.problems.append(Problem(*position, key=key, kind=kind, sentence=sentence))

    def value(self, node: Any, path: KeyPath) -> Any:
        """The value of a node; what is wrong is noted in `problems`."""
        self.positions[path] = self._position(node)
        self._check_size(node, path)
        if isinstance(node, yaml.ScalarNode) and "\0" in node.value:
            where = ".".join(map(str, path))
            sentence = f"`{where}`: a value has a NUL byte, which no program can be given; remove it"
            self.report(self._position(node), path, "value", sentence)
            return None
        if not _KNOWN_TAG.fullmatch(node.tag):
            tag = display(node.tag.replace("tag:yaml.org,2002:", "!!"))
            self.report(self._position(node), path, "value", f"the tag `{tag}` means nothing; remove it")
            if isinstance(node, yaml.ScalarNode):
                return node.value
        if self.variables is not None and isinstance(node, yaml.ScalarNode) and "${" in node.value:
            node = self._with_variables(node, path)
        if isinstance(node, yaml.MappingNode):
            return self._mapping(node, path)
        if isinstance(node, yaml.SequenceNode):
            return [self.value(item, (*path, index)) for index, item in enumerate(node.value)]
        if _is_text(path):
            return self._text(node, path)
        return self._scalar(node, path)

    def _check_size(self, node: Any, path: KeyPath) -> None:
        self._count += 1
        if len(path) > _MAX_LEVELS or self._count > _MAX_VALUES:
            # An alias may contain itself, and nested aliases multiply the values.
            fault = "nested too deeply" if len(path) > _MAX_LEVELS else "too large"
            name = f"`{path[0]}`" if path else "the file"
            self.report(self._position(node), path[:1], "value", f"{name} is {fault}; write less")
            raise RecipeError(self.problems[-1:])

    def _with_variables(self, node: Any, path: KeyPath) -> Any:
        """The scalar with the host's variables put in; a plain scalar may become a number by that."""
        known = self.variables or {}
        unknown: list[str] = []

        def replacement(match: re.Match[str]) -> str:
            if match[0] == "$${":
                return "${"
            if match[1] in known:
                return known[match[1]]
            unknown.append(match[0])
            self.report(self._position(node), path, "variable", _unknown_variable(match[0], match[1], known))
            return match[0]

        text: str = _REFERENCE.sub(replacement, node.value)
        if unknown:
            return node
        tag = self._yaml.resolve(yaml.ScalarNode, text, (not node.style, bool(node.style)))
        if not text:
            tag = _STRING_TAG  # an empty variable is an empty text, and not a missing value
        return yaml.ScalarNode(
            tag=tag, value=text, start_mark=node.start_mark, end_mark=node.end_mark, style=node.style
        )

    def _text(self, node: Any, path: KeyPath) -> str | None:
        if not node.tag.endswith(":null"):
            return str(node.value)
        if path in _TEXT_VALUES:
            return None
        where = ".".join(map(str, path))
        sentence = f'`{where}` has no value; give one, or `""` for an empty one'
        self.report(self._position(node), path, "value", sentence)
        return ""

    def _scalar(self, node: Any, path: KeyPath) -> Any:
        text = node.value
        if node.tag.endswith((":int", ":float")) and len(text) > _MAX_DIGITS:
            self.report(
                self._position(node),
                path,
                "value",
                f"`{display(text)}` is too large a number; put it in quotes",
            )
            return None
        try:
            value = text if node.tag == _STRING_TAG else self._yaml.construct_object(node)
            if isinstance(value, str) and not node.style and _EXPONENT.match(text):
                value = float(text)
        except (yaml.YAMLError, ValueError, LookupError, AttributeError, TypeError, ArithmeticError):
            sentence = f"`{display(text)}` cannot be read; put it in quotes"
            self.report(self._position(node), path, "value", sentence)
            return None
        if isinstance(value, bool | str) or value is None:
            return value
        if not isinstance(value, int | float):
            return text  # a date is its text
        if problem := _not_a_plain_number(value, text):
            self.report(self._position(node), path, "value", problem)
            return None
        return Written(value, text) if isinstance(value, float) else value

    def _check_switch(self, node: Any, path: KeyPath) -> None:
        """A key that switches something on needs a value: without one, nobody can tell what is meant."""
        is_switch = path in _SWITCHES or (path[0] == "gateway" and len(path) == 2)
        if is_switch and isinstance(node, yaml.ScalarNode) and node.tag.endswith(":null") and not node.value:
            remedy = "give `{}` for its defaults" if path in _SWITCHES else "give it a value"
            sentence = f"`{'.'.join(map(str, path))}` is empty; {remedy}, or `null` for none"
            self.report(self._position(node), path, "value", sentence)

    def _mapping(self, node: Any, path: KeyPath) -> dict[str, Any]:
        first_nodes: dict[str, Any] = {}
        result: dict[str, Any] = {}
        for key_node, value_node in node.value:
            position = self._position(key_node)
            if not isinstance(key_node, yaml.ScalarNode):
                self.report(
                    position, path, "key", "a key must be a word; put it in quotes if it is meant as text"
                )
                continue
            if key_node.tag.endswith(":merge"):
                sentence = "`<<` merges nothing in a recipe; write the keys out, or use a drop-in"
                self.report(position, path, "key", sentence)
                continue
            key = known_key(key_node.value, path)
            if key in first_nodes:
                self.report(position, (*path, key), "key", _given_twice(key_node, first_nodes[key]))
                continue
            first_nodes[key] = key_node
            self.key_positions[(*path, key)] = position
            self._check_switch(value_node, (*path, key))
            result[key] = self.value(value_node, (*path, key))
        return result


def _unknown_variable(reference: str, name: str | None, known: Mapping[str, str]) -> str:
    plain = "write `$${` for a plain `${`"
    if not name:
        return f"no name follows `${{`; {plain}"
    if match := nearest(name, known):
        return f"`{reference}` is not a variable of this host; did you mean `${{{match}}}`? Or {plain}"
    return f"`{reference}` is not a variable of this host; add it to `vars:` of the host file, or {plain}"


def _given_twice(key_node: Any, first_node: Any) -> str:
    names = f"`{key_node.value}`"
    if first_node.value != key_node.value:
        names = f"`{first_node.value}` and {names} are the same key, which"
    return f"{names} is given twice (first on line {first_node.start_mark.line + 1}); keep one of them"


def _not_a_plain_number(value: float, text: str) -> str | None:
    if _MISREAD.match(text):
        return f"YAML reads `{display(text)}` as {display(value)}; write that, or put it in quotes"
    if isinstance(value, int) and abs(value) >= _MAX_NUMBER:
        return f"`{display(text)}` is too large a number; put it in quotes"
    if not math.isfinite(value):
        return f"an engine cannot take `{display(text)}` as a number; correct it"
    return None


def _with_drop_in(below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    """A drop-in over the values that it changes: mappings merge, any other value replaces."""
    merged = dict(below)
    for key, value in above.items():
        previous = merged.get(key)
        if isinstance(previous, dict) and isinstance(value, dict):
            merged[key] = _with_drop_in(previous, value)
        else:
            merged[key] = value
    return merged


def read_document(
    paths: tuple[Path, ...],
    variables: Mapping[str, str] | None = None,
    content: Callable[[Path], bytes] = read_bounded,
) -> tuple[dict[str, Any], Reader]:
    """The mapping in a file with its drop-ins merged over it, and the positions of its parts.

    `variables` are the host's, for `${name}`; None leaves such text as it is.
    """
    data: dict[str, Any] = {}
    reader = Reader(str(paths[0]), variables)
    for path in paths:
        reader.file = str(path)
        if (node := compose(path, read_text(path, content))) is not None:
            data = _with_drop_in(data, reader.value(node, ()))
    reader.file = str(paths[0])
    return data, reader
