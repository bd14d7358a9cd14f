"""Flags in `extra_args` and `args` that say what a field says: they must agree, or count as the field."""

from collections.abc import Iterable, Iterator
from typing import NamedTuple

from recipectl.engines.argv import Word
from recipectl.engines.flags import parse
from recipectl.engines.options import Options, shipped_options
from recipectl.engines.registry import ENGINES
from recipectl.errors import MultipleUsageError, UsageError
from recipectl.recipe.schema import Recipe
from recipectl.text import display

# Fields whose value decides more than a word of the command, and how a word becomes one.
_ADOPTED = {
    "host": str, "port": int, "served_model_name": str,
    "tensor_parallel_size": int, "pipeline_parallel_size": int,
}  # fmt: skip


class _Flag(NamedTuple):
    """What one flag says, and the key of the recipe that says it."""

    flag: str  # the engine's own name of it
    values: tuple[str, ...]
    negated: bool
    key: tuple[str | int, ...]

    @property
    def by_field(self) -> bool:
        return self.key[0] not in ("extra_args", "args")

    def same_as(self, other: "_Flag") -> bool:
        return (self.values, self.negated) == (other.values, other.negated)

    def __str__(self) -> str:
        name = f"--no-{self.flag[2:]}" if self.negated else self.flag
        return " ".join((name, *(display(value) for value in self.values)))


def settled(recipe: Recipe, words: Iterable[Word]) -> Recipe:
    """The recipe with the fields that flags alone set; MultipleUsageError for flags that contradict one."""
    engine = ENGINES[recipe.backend]
    options = shipped_options(recipe.backend)
    fields = {options.canonical(flag): field for field, flag in engine.flags.items() if flag}
    flags = [*_flags(recipe.backend, [word for word in words if word.key], options)]
    by_flag = {item.flag: item for item in flags if item.by_field}
    by_flag[options.canonical(engine.model_flag)] = _Flag(
        engine.model_flag, (recipe.model_path,), False, ("model_path",)
    )
    errors: list[UsageError] = []
    adopted: dict[str, object] = {}
    for item in flags:
        field = fields.get(item.flag)
        if item.by_field:
            continue
        if item.flag in engine.model_sources:
            sentence = f"`{item}` serves another model than `model_path`; write it in `model_path:`"
            errors.append(UsageError(sentence, *item.key, kind="argument"))
            continue
        before = by_flag.get(item.flag)
        refused = field and before is None and getattr(recipe, field) is False and not item.negated
        if refused or (before and not before.same_as(item)):
            source = ".".join(map(str, before.key)) if before else str(field)
            sentence = f"`{item}` contradicts `{source}`; keep one of them"
            errors.append(UsageError(sentence, *item.key, kind="argument"))
        elif field in _ADOPTED and before is None and item.values:
            by_flag[item.flag] = item
            adopted[field] = _converted(field, item, errors)
    if errors:
        raise MultipleUsageError(errors)
    return recipe.model_copy(update=adopted) if adopted else recipe


def _converted(field: str, item: _Flag, errors: list[UsageError]) -> object:
    text = item.values[0].partition(",")[0] if field == "served_model_name" else item.values[0]
    if _ADOPTED[field] is str:
        return text
    if not text.isascii() or not text.isdigit() or len(text) > 9:
        errors.append(UsageError(f"`{item}` needs a whole number; give one", *item.key, kind="argument"))
        return None
    return int(text)


def _flags(engine: str, words: list[Word], options: Options) -> Iterator[_Flag]:
    parsed, _ = parse(engine, [word.text for word in words], options)
    for option in parsed:
        flag = options.canonical(option.flag)
        if options.kind(flag) is not None:
            yield _Flag(flag, option.values, option.negated, words[option.index].key)
