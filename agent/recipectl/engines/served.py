"""The names of the model that an engine answers to."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import TYPE_CHECKING

from recipectl.engines.flags import parse
from recipectl.engines.options import shipped_options
from recipectl.engines.registry import ENGINES

if TYPE_CHECKING:
    from recipectl.engines.argv import Word
    from recipectl.recipe.schema import Recipe


def served_names(recipe: Recipe, words: Iterable[Word]) -> tuple[str, ...]:
    """What clients may write as `model`, the engine's own name of it first: aliases, else the model's path.

    vLLM takes several words behind --served-model-name, llama.cpp a list with commas behind --alias. The
    names of LoRA adapters come last.
    """
    options = shipped_options(recipe.backend)
    parsed, _ = parse(recipe.backend, [word.text for word in words if word.key], options)

    def values_of(flag: str) -> list[str]:
        flag = options.canonical(flag)
        return [
            value for option in parsed if options.canonical(option.flag) == flag for value in option.values
        ]

    names = values_of(ENGINES[recipe.backend].flags["served_model_name"] or "")
    if ENGINES[recipe.backend].is_binary:
        names = [name for value in names for name in value.split(",") if name]
    names = names or [recipe.served_model_name or recipe.model_path]
    adapters = ENGINES[recipe.backend].adapters
    if adapters:
        own = [_adapter_name(value, adapters.name_key) for value in values_of(adapters.flag)]
        names += [f"{names[0]}:{name}" if adapters.with_base else name for name in own if name]
    return tuple(dict.fromkeys(names))


def _adapter_name(value: str, key: str) -> str:
    """The name in `NAME=PATH`, or under a key of JSON; empty where there is none."""
    if not value.lstrip().startswith("{"):
        name, equals, _ = value.partition("=")
        return name if equals else ""
    try:
        return str(json.loads(value).get(key) or "")
    except ValueError:  # the engine refuses it
        return ""
