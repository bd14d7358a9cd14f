"""The words of ExecStart=: runtime, model, fields, `extra_args` in their order, then `args`."""

import json
import re
from typing import Any, NamedTuple

from recipectl.engines.endpoint import loopback_address
from recipectl.engines.options import flag_of, shipped_options
from recipectl.engines.parallel import parallel_of
from recipectl.engines.registry import ENGINES
from recipectl.errors import MultipleUsageError, UnrepresentableError, UsageError
from recipectl.machine.runtime import Runtime
from recipectl.recipe.schema import INTERNAL, Recipe
from recipectl.systemd import quoting

# Numbers that argparse does not take for flags (its _negative_number_matcher).
_NEGATIVE_NUMBER = re.compile(r"-\d+\Z|-\d*\.\d+\Z")
_FALSE_WORDS = {"off", "no", "false", "none"}
INFERRED = ("tool_call_parser", "reasoning_parser")  # fields that may be `auto`


class Word(NamedTuple):
    """One word of argv, and the key of the recipe that it comes from; () is the runtime."""

    text: str
    key: tuple[str | int, ...]


def _scalar(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return str(getattr(value, "text", value))


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def option_words(engine: str, key: str, value: Any) -> tuple[str, ...]:
    """The words that one option becomes; none for null, and for false where the engine has no `--no-`.

    UsageError for `on` or `off` without quotes, where the engine expects such a word.
    """
    flag = flag_of(key)
    if value is None:
        return ()
    if isinstance(value, bool):
        return _boolean_words(engine, key, flag, value=value)
    if isinstance(value, dict):
        return flag, _json(value)
    if isinstance(value, list):
        return _list_words(engine, flag, value)
    text = _scalar(value)
    # argparse takes a word that begins with `-` for a flag, unless it is a number.
    if text.startswith("-") and not _NEGATIVE_NUMBER.match(text) and flag.startswith("--"):
        return (f"{flag}={text}",)
    return flag, text


def _boolean_words(engine: str, key: str, flag: str, *, value: bool) -> tuple[str, ...]:
    options = shipped_options(engine)
    canonical = options.canonical(flag)
    kind = options.kind(canonical)
    choices = options.choices(canonical)
    if choices and kind != "optional" and (value or _FALSE_WORDS & {*choices}):
        fault = f"must be one of {', '.join(choices)}; YAML reads `{'on' if value else 'off'}` as a boolean"
        raise UsageError(f"`extra_args.{key}` {fault}; put it in quotes", "extra_args", key, kind="argument")
    if value:
        return (flag,)
    same_spelling = f"--no-{flag[2:]}"  # an older engine may have no other
    negation = same_spelling if same_spelling in options.negations else options.negation(canonical)
    return (negation,) if negation and flag not in options.negations else ()


def _list_words(engine: str, flag: str, values: list[Any]) -> tuple[str, ...]:
    options = shipped_options(engine)
    kind = options.kind(options.canonical(flag))
    if kind == "words":
        return (flag, *map(_scalar, values)) if values else ()
    if kind == "commas":
        return flag, ",".join(map(_scalar, values))
    if kind == "repeated" or ENGINES[engine].list_repeats_flag:
        return tuple(word for value in values for word in (flag, _scalar(value)))
    return flag, _json(values)


def words(recipe: Recipe, runtime: Runtime) -> tuple[Word, ...]:
    """The words of ExecStart= with their keys; UsageError for what the engine or systemd cannot take."""
    if recipe.front:
        host, port = loopback_address(recipe)
        recipe = recipe.model_copy(update={"host": host, "port": port})
    errors: list[UsageError] = []
    fields = _field_words(recipe, errors)
    nodes = _node_words(recipe, runtime, errors)
    extra = _extra_words(recipe, fields, nodes, errors)
    if errors:
        raise MultipleUsageError(errors)
    model_flag = ENGINES[recipe.backend].model_flag_of(recipe.model_path)
    model = (recipe.model_path,) if runtime.positional_model else (model_flag, recipe.model_path)
    moved = ("host", "port") if recipe.front else ()
    all_words = (
        *(Word(text, ()) for text in runtime.command),
        *(Word(text, ("model_path",)) for text in model),
        *(
            Word(text, (recipe.front_key,) if field in moved else (field,))
            for field, field_words in fields.values()
            for text in field_words
        ),
        *(Word(text, ("nodes",)) for text in nodes),
        *extra,
        *(Word(text, ("args", index)) for index, text in enumerate(recipe.args)),
    )
    _check_representable(all_words)
    return all_words


def _check_representable(words: tuple[Word, ...]) -> None:
    """UsageError at the key of a word that no unit can carry."""
    try:
        quoting.command_line(tuple(word.text for word in words))
    except UnrepresentableError:
        for word in words:
            try:
                quoting.word(word.text)
            except UnrepresentableError as error:
                key = ".".join(map(str, word.key))
                raise UsageError(f"`{key}`: {error}", *word.key, kind="argument") from error
        raise


_FieldWords = dict[str, tuple[str, tuple[str, ...]]]  # flag -> (field, words)


def _field_words(recipe: Recipe, errors: list[UsageError]) -> _FieldWords:
    """The words of the fields that the recipe sets, in the engine's customary order."""
    fields: _FieldWords = {}
    for field, flag in ENGINES[recipe.backend].flags.items():
        value = getattr(recipe, field)
        if value is None:
            continue
        try:
            if flag is None:
                fault = f"`{field}` means nothing to {recipe.backend}"
                raise UsageError(f"{fault}; remove it or use `extra_args:`", field, kind="argument")
            if field == "max_model_len" and not (ENGINES[recipe.backend].short_lengths or value.isdigit()):
                fault = f"`{field}` is `{value}`, and {recipe.backend} takes a whole number of tokens"
                raise UsageError(f"{fault}; write for example `32768`", field)
            if field in INFERRED and value == "auto":
                value = _inferred_parser(recipe, field, flag)
            fields[flag] = (field, option_words(recipe.backend, flag, value))
        except UsageError as error:
            errors.append(error)
    if recipe.binary and not ENGINES[recipe.backend].is_binary:
        fault = f"`binary` means nothing to {recipe.backend}"
        errors.append(UsageError(f"{fault}; remove it or use `python_path:`", "binary", kind="argument"))
    return fields


def _inferred_parser(recipe: Recipe, field: str, flag: str) -> str:
    if "auto" in (shipped_options(recipe.backend).choices(flag) or ()):
        return "auto"  # SGLang infers the parser itself
    parser = ENGINES[recipe.backend].infer_parser(field, recipe.model_path)
    if parser is None:
        fault = f"`{field}: auto` knows no parser of {recipe.backend} for `{recipe.model_path}`"
        raise UsageError(f"{fault}; name one", field, kind="argument")
    return parser


def _node_words(recipe: Recipe, runtime: Runtime, errors: list[UsageError]) -> tuple[str, ...]:
    engine = ENGINES[recipe.backend]
    if (
        recipe.nodes
        and recipe.is_follower
        and engine.module_ignores_headless
        and not runtime.positional_model
    ):
        fault = f"rank {recipe.nodes.rank} needs `{engine.name} serve`: the module never reads --headless"
        remedy = f"use a venv that has bin/{engine.name}"
        errors.append(UsageError(f"`nodes`: {fault}; {remedy}", "nodes", "rank", kind="argument"))
    try:
        return engine.nodes(recipe.nodes, parallel_of(recipe)) if recipe.nodes else ()
    except UsageError as error:
        errors.append(error)
        return ()


def _extra_words(
    recipe: Recipe, fields: _FieldWords, nodes: tuple[str, ...], errors: list[UsageError]
) -> list[Word]:
    """The words of `extra_args`. A flag that a field sets too must have the same words."""
    options = shipped_options(recipe.backend)
    # The engine's own name of a flag -> (what sets it, words).
    taken = {options.canonical(flag): setter for flag, setter in fields.items()}
    taken |= {options.canonical(word): ("nodes", ()) for word in nodes if word.startswith("--")}
    taken[options.canonical(ENGINES[recipe.backend].model_flag)] = ("model_path", ())
    if options.kind("--model"):
        taken[options.canonical("--model")] = ("model_path", ())
    result: list[Word] = []
    for key, value in recipe.extra_args.items():
        if key in INTERNAL or value is None:
            continue
        try:
            words = _extra_option(recipe.backend, key, value, taken)
        except UsageError as error:
            errors.append(error)
            continue
        result += [Word(text, ("extra_args", key)) for text in words]
    return result


def _extra_option(engine: str, key: str, value: Any, taken: _FieldWords) -> tuple[str, ...]:
    """The words of one key of `extra_args`; none when the flag is set already with the same words."""
    if not key.strip("-"):
        raise UsageError("`extra_args` has an empty key; name a flag", "extra_args", key, kind="argument")
    words = option_words(engine, key, value)
    flag = shipped_options(engine).canonical(flag_of(key))
    if flag not in taken:
        taken[flag] = (f"extra_args.{key}", words)
        return words
    setter, same_words = taken[flag]
    if same_words != words:
        fault = f"`{setter}` and `extra_args.{key}` disagree on {flag}"
        raise UsageError(f"{fault}; keep one of them", "extra_args", key, kind="argument")
    return ()
