"""YAML as programs in Go read it (Compose, llama-swap): `on`, `yes` and `12:30` are text."""

import re
from typing import Any

import yaml

from recipectl.errors import RecipeError, UsageError
from recipectl.recipe.yamlsyntax import Loader, syntax_problem

_MAX_NODES = 200_000
_OTHER_TAGS = ("tag:yaml.org,2002:bool", "tag:yaml.org,2002:int", "tag:yaml.org,2002:float")


class GoLoader(Loader):
    """A safe loader whose texts are those of go-yaml v3 (its resolve.go)."""


GoLoader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag not in _OTHER_TAGS]
    for first, resolvers in Loader.yaml_implicit_resolvers.items()
}
GoLoader.add_implicit_resolver(
    _OTHER_TAGS[0], re.compile(r"(true|True|TRUE|false|False|FALSE)\Z"), list("tTfF")
)
GoLoader.add_implicit_resolver(
    _OTHER_TAGS[1],
    re.compile(r"[-+]?(0|[1-9][0-9_]*|0[0-7]+|0o[0-7]+|0x[0-9a-fA-F]+)\Z"),
    list("-+0123456789"),
)
GoLoader.add_implicit_resolver(
    _OTHER_TAGS[2],
    re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?\Z"),
    list("-+0123456789."),
)


def _tagged(loader: Any, tag: str, node: Any) -> Any:
    """The value of a node without its own tag; `!reset` of Compose removes a value."""
    if tag == "reset":
        return None
    construct = {"mapping": loader.construct_mapping, "sequence": loader.construct_sequence}.get(node.id)
    return construct(node, deep=True) if construct else loader.construct_scalar(node)


GoLoader.add_multi_constructor("!", _tagged)


def _size(node: Any, known: dict[int, int]) -> int:
    """How many values a node has when each alias is written out; one that contains itself is endless.

    yaml.MarkedYAMLError for a key that a mapping has twice, which go-yaml refuses.
    """
    if id(node) in known:
        return known[id(node)]
    known[id(node)] = _MAX_NODES
    if isinstance(node, yaml.MappingNode):
        _refuse_repeated_keys(node)
    children = node.value if isinstance(node, yaml.CollectionNode) else ()
    flat = (part for child in children for part in (child if isinstance(child, tuple) else (child,)))
    known[id(node)] = min(1 + sum(_size(child, known) for child in flat), _MAX_NODES + 1)
    return known[id(node)]


def document(text: str, source: str) -> tuple[Any, Any]:
    """The value and the root node of a YAML document; RecipeError for what is no YAML, or is too large."""
    try:
        value, root = yaml.load(text, GoLoader), yaml.compose(text, GoLoader)  # noqa: S506  (it is a safe loader)
        size = _size(root, {})
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        raise RecipeError((syntax_problem(error, text, source),)) from error
    if size > _MAX_NODES:
        raise UsageError(f"{source}: it is nested without end, or too large with all its aliases; write less")
    return value, root


def _refuse_repeated_keys(node: yaml.MappingNode) -> None:
    lines: dict[str, int] = {}
    for key, _ in node.value:
        if isinstance(key, yaml.ScalarNode) and key.value != "<<":
            if key.value in lines:
                fault = f"`{key.value}` is given twice, first on line {lines[key.value]}"
                raise yaml.MarkedYAMLError(problem=fault, problem_mark=key.start_mark)
            lines[key.value] = key.start_mark.line + 1
