"""The options in an engine's command line, and which of them the engine does not take."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from recipectl.engines.argv import Word
from recipectl.engines.options import Option, Options, flag_of
from recipectl.engines.registry import ENGINES
from recipectl.errors import UsageError
from recipectl.text import nearest

_FLAG = re.compile(r"--?[A-Za-z]")
_NUMBER = re.compile(r"-[0-9.]+")
# Of llama.cpp: a range, and a file with its scale, which newer releases have in one word.
_TWO_VALUES = ("--control-vector-layer-range",)
_SCALED = ("--lora-scaled", "--control-vector-scaled")
_SCALE = re.compile(r"-?[0-9.]+")
_LIKELY = 0.75  # from this similarity on, a nearest flag is probably meant


@dataclass(frozen=True)
class GivenOption:
    """One option as it was written: its own words, and what they mean."""

    index: int  # of its first word
    raw: tuple[str, ...]
    name: str  # as written, without `=value`
    flag: str  # the engine's long flag, when it has such an option
    values: tuple[str, ...]
    negated: bool = False  # it says "no"


class DeprecatedError(UsageError):
    """An option that the engine still takes, and soon will not."""


def long_flag(engine: str, name: str, known: Options) -> str:
    """The engine's long flag for a flag as written: an alias, with underscores, or only its beginning."""
    if ENGINES[engine].takes_underscores and name.startswith("--") and not _is_known(name, known):
        dashed = flag_of(name[2:])
        name = dashed if _is_known(dashed, known) else name
    flag = known.aliases.get(name, name)
    if name in known.negations:
        return name if name.startswith("--") else known.negation(known.negations[name]) or name
    if known.kind(flag) is not None:
        return flag
    if ENGINES[engine].abbreviates_flags and name.startswith("--") and len(name) > 3 and "." not in name:
        # argparse takes the beginning of a flag when only one flag begins like it.
        candidates = (option for option in (*known.by_flag, *known.aliases) if option.startswith(name))
        flags = {known.aliases.get(option, option) for option in candidates}
        return flags.pop() if len(flags) == 1 else flag
    return flag


def _is_known(name: str, known: Options) -> bool:
    return name in known.by_flag or name in known.aliases or name in known.negations


def parse(engine: str, words: Sequence[str], known: Options) -> tuple[list[GivenOption], list[int]]:
    """The options of a command line, and the indices of the words that belong to none."""
    options: list[GivenOption] = []
    stray: list[int] = []
    index = 0
    while index < len(words):
        word = words[index]
        if not word.startswith("-") or word == "-" or _NUMBER.fullmatch(word):
            stray.append(index)
            index += 1
            continue
        name, equals, value = word.partition("=")
        if any(name != flag and name.startswith(flag) for flag in ENGINES[engine].joined_flags):
            options.append(GivenOption(index=index, raw=(word,), name=word, flag=word, values=()))
            index += 1
            continue
        flag = long_flag(engine, name, known)
        end = index + 1 if equals else _end_of_values(words, index + 1, flag, known)
        values = (value,) if equals else tuple(words[index + 1 : end])
        options.append(
            GivenOption(
                index=index,
                raw=tuple(words[index:end]),
                name=name,
                flag=flag,
                values=values,
                negated=flag in known.negations,
            )
        )
        index = end
    return options, stray


def _end_of_values(words: Sequence[str], start: int, flag: str, known: Options) -> int:
    """The index after the values of an option; they begin at `start`."""
    next_flag = next((n for n in range(start, len(words)) if _FLAG.match(words[n])), len(words))
    kind = known.kind(flag)
    if kind == "value" and next_flag == start and known.choices(flag):
        return start  # `-fa` of an older llama-server; a choice is no flag
    if flag in _TWO_VALUES or (flag in _SCALED and _SCALE.fullmatch(" ".join(words[start + 1 : start + 2]))):
        return min(start + 2, len(words))
    if kind in ("value", "repeated", "commas"):
        return min(start + 1, len(words))
    if kind == "optional":
        return min(start + 1, next_flag)
    if kind == "words" or (kind is None and flag not in known.negations):
        return next_flag
    return start


def check(engine: str, words: Sequence[Word], known: Options) -> list[UsageError]:
    """What an engine with these options would refuse, or soon will."""
    engine_words = _engine_in_words(engine, known)
    texts = [word.text for word in words]
    options, stray = parse(engine, texts, known)
    findings: list[UsageError] = []
    for option in options:
        key = words[option.index].key
        known_option = known.by_flag.get(option.flag)
        if sentence := _refusal(engine, engine_words, option, known):
            findings.append(UsageError(sentence, *key, kind="argument"))
        elif known_option and known_option.deprecated:
            sentence = f"`{option.name}` is deprecated in {engine_words}: {known_option.deprecated}"
            findings.append(DeprecatedError(sentence, *key, kind="argument"))
    for index in stray:
        sentence = f"`{texts[index]}` belongs to no option of {engine_words}; remove it"
        findings.append(UsageError(sentence, *words[index].key, kind="argument"))
    return findings


def check_recipe(
    engine: str, words: Sequence[Word], extra_args: Mapping[str, object], known: Options
) -> list[UsageError]:
    """What an engine with these options would refuse of a recipe's words and of its `extra_args`."""
    written = [word for word in words if word.key not in ((), ("model_path",))]
    with_words = {word.key[1] for word in written if word.key[0] == "extra_args"}
    false = [key for key, value in sorted(extra_args.items()) if value is False and key not in with_words]
    return [*check(engine, written, known), *check_false(engine, false, known)]


def check_false(engine: str, keys: Sequence[str], known: Options) -> list[UsageError]:
    """What is wrong with keys of `extra_args` that are `false` and became no word."""
    engine_words = _engine_in_words(engine, known)
    findings: list[UsageError] = []
    for key in keys:
        flag = known.canonical(flag_of(key))
        if known.kind(flag.partition(".")[0]) is None:
            findings.append(
                UsageError(_unknown(flag_of(key), engine_words, known), "extra_args", key, kind="argument")
            )
        elif known.kind(flag) == "negatable":
            fault = f"`{key}: false` is left out, and {engine_words} has `{known.negation(flag)}`"
            sentence = f"{fault}; write that in `args:`"
            findings.append(UsageError(sentence, "extra_args", key, kind="argument"))
    return findings


def _engine_in_words(engine: str, known: Options) -> str:
    return f"{engine} {known.version}" if known.version else engine


def _refusal(engine: str, engine_words: str, option: GivenOption, known: Options) -> str | None:
    """Why the engine refuses an option; None when it takes it."""
    known_option = known.by_flag.get(option.flag)
    if known_option:
        return _abbreviation(engine, option, known_option) or _wrong_value(engine_words, option, known_option)
    if option.negated:
        remedy = f"remove `{option.values[0]}`" if option.values else ""
        return f"`{option.name}` takes no value in {engine_words}; {remedy}" if remedy else None
    if option.name.startswith(ENGINES[engine].joined_flags or " "):
        return None
    base, _, dotted = option.flag.partition(".")
    if dotted and ENGINES[engine].dotted_options:
        base = known.aliases.get(base, flag_of(base[2:]) if base.startswith("--") else base)
        return None if base in known.by_flag else _unknown(base, engine_words, known)
    return _unknown(option.name, engine_words, known)


def _abbreviation(engine: str, option: GivenOption, known_option: Option) -> str | None:
    spellings = (option.flag, *known_option.aliases)
    if not option.name.startswith("--") or option.name.replace("_", "-") in spellings:
        return None
    if any(spelling.startswith(f"{option.name}-") for spelling in spellings):
        return None  # `--tp` of `--tp-size`: whole words are no slip, and the engine takes them
    if "_" in option.name and not ENGINES[engine].takes_underscores:
        return None
    return f"`{option.name}` abbreviates `{option.flag}`, and may become ambiguous; write the full name"


def _wrong_value(engine_words: str, option: GivenOption, known_option: Option) -> str | None:
    if known_option.kind in ("flag", "negatable") and option.values:
        remedy = f"give `true` or `false`, not `{option.values[0]}`"
        return f"`{option.name}` takes no value in {engine_words}; {remedy}"
    if known_option.kind in ("value", "repeated", "words", "commas") and not option.values:
        return f"`{option.name}` needs a value in {engine_words}; give one"
    choices = known_option.choices or ()
    wrong = next((value for value in option.values if choices and value not in choices), None)
    if wrong is None or ("None" in choices and wrong in ("None", "")):
        return None
    match = nearest(wrong, choices)
    takes = f"takes {', '.join(choices)}"
    hint = f"did you mean `{match}`? It {takes}" if match else f"it {takes}"
    return f"`{option.name}` cannot be `{wrong}` in {engine_words}; {hint}"


def _unknown(name: str, engine_words: str, known: Options) -> str:
    flags = (*known.by_flag, *known.aliases, *known.negations)
    word = name.replace("_", "-")
    likely = nearest(word, flags, cutoff=_LIKELY)
    closest = likely or nearest(word, flags, cutoff=0)
    hint = f"did you mean `{likely}`?" if likely else f"remove it (the nearest is `{closest}`)"
    return f"`{name}` is not an option of {engine_words}; {hint}"
