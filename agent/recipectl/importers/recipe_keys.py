"""One option of an engine as a key of a recipe; a key is used only if it gives the same words back."""

import contextlib
import json
import re
from collections.abc import Sequence
from typing import Any

import yaml
from pydantic import ValidationError

from recipectl.engines.argv import option_words
from recipectl.engines.flags import GivenOption
from recipectl.engines.options import shipped_options
from recipectl.engines.parallel import Parallel
from recipectl.engines.registry import ENGINES
from recipectl.errors import UsageError
from recipectl.importers.draft import VARIABLE_ALONE, UnquotedText
from recipectl.recipe.parts import Nodes
from recipectl.recipe.schema import INTERNAL, Recipe
from recipectl.recipe.yamlfile import Written

_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)("")


def typed(text: str) -> Any:
    """A number or a JSON object where a recipe gives it back as this text; else the text."""
    if re.fullmatch(r"0|-?[1-9][0-9]{0,99}", text):
        return int(text)
    is_float = _LOADER.resolve(yaml.ScalarNode, text, (True, False)).endswith(":float")
    try:
        if is_float and text[0] in "-.0123456789":
            return Written(float(text), text)
        if not text.startswith("{"):
            return text
        value = json.loads(text)
    except (ValueError, RecursionError):
        return text
    return value if json.dumps(value, ensure_ascii=False) == text and not _has_float(value) else text


def _has_float(value: Any) -> bool:
    """Whether a JSON value has a float, whose spelling could change in YAML."""
    if isinstance(value, dict):
        return any(_has_float(item) for item in value.values())
    return any(_has_float(item) for item in value) if isinstance(value, list) else isinstance(value, float)


def field_value(backend: str, field: str, flag: str, option: GivenOption) -> Any:
    """The value of a recipe's field for an option; None when no value gives the option's words back."""
    takes_number = Recipe.model_fields[field].annotation not in (str | None, str)
    candidates: list[Any] = [] if option.values else [True]
    if len(option.values) == 1:
        text = option.values[0]
        candidates = [typed(text), text]  # a number, where the field takes a number
    for value in candidates:
        if takes_number and isinstance(value, str) and VARIABLE_ALONE.fullmatch(value):
            return UnquotedText(value)
        try:
            parsed = getattr(Recipe.model_validate({"model_path": "m", field: value}), field)
        except ValidationError:
            continue
        if option_words(backend, flag, parsed) == (flag, *option.values):
            return value
    return None


def extra_arg(backend: str, option: GivenOption) -> tuple[str, Any] | None:
    """(key, value) of `extra_args` for an option; None when no pair gives the option's words back."""
    engine = shipped_options(backend)
    key = option.flag.removeprefix("--")
    candidates: list[tuple[str, Any]] = []
    if not option.values:
        if option.negated:
            candidates.append((key.removeprefix("no-"), False))
        candidates.append((key, True))
    elif len(option.values) == 1 and engine.kind(option.flag) not in ("words", "repeated"):
        candidates.append((key, typed(option.values[0])))
    else:
        candidates.append((key, [typed(value) for value in option.values]))
    # The last candidate also with the name as written: with an underscore, or a short flag.
    candidates.append((option.name, candidates[-1][1]))
    has_engine_name = option.negated or not {"_", "."} & {*option.name}
    words = (option.flag if has_engine_name else option.name, *option.values)
    for pair in candidates:
        if pair[0].lstrip("-").replace("-", "_") in INTERNAL:
            continue  # no engine gets it
        with contextlib.suppress(UsageError):  # `on` without quotes, for an option with choices
            if option_words(backend, *pair) == words:
                return pair
    return None


def nodes_value(
    backend: str, options: Sequence[GivenOption]
) -> tuple[dict[str, Any] | None, list[GivenOption]]:
    """The value of `nodes:` and the options that it stands for; (None, []) when the words would differ."""
    by_name = {option.name: option for option in options if "=" not in option.raw[0]}
    values = {name: option.values[0] for name, option in by_name.items() if len(option.values) == 1}
    try:
        nodes: dict[str, Any] = {"count": int(values["--nnodes"]), "rank": int(values["--node-rank"])}
        if backend == "sglang":
            nodes["address"], _, port = values["--dist-init-addr"].rpartition(":")
        else:
            nodes["address"] = values["--master-addr"]
            port = values.get("--master-port", "")
        if port:
            nodes["port"] = int(port)
        words = ENGINES[backend].nodes(Nodes.model_validate(nodes), Parallel())
    except (KeyError, ValueError, UsageError):
        return None, []
    node_options = [by_name[word] for word in words if word in by_name]
    same_words = [word for option in node_options for word in option.raw] == list(words)
    return (nodes, node_options) if same_words else (None, [])
