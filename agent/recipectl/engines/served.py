"""The names of the model that an engine answers to."""

from __future__ import annotations

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

    vLLM takes several words behind --served-model-name, llama.cpp a list with commas behind --alias.
    """
    options = shipped_options(recipe.backend)
    flag = options.canonical(ENGINES[recipe.backend].flags["served_model_name"] or "")
    parsed, _ = parse(recipe.backend, [word.text for word in words if word.key], options)
    values = [value for option in parsed if options.canonical(option.flag) == flag for value in option.values]
    if ENGINES[recipe.backend].is_binary:
        values = [name for value in values for name in value.split(",") if name]
    return tuple(dict.fromkeys(values)) or (recipe.served_model_name or recipe.model_path,)
