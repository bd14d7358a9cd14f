"""The options in an engine's command line, and which of them the engine does not take."""

import difflib
import re
from collections.abc import Sequence
from dataclasses import dataclass

from recipectl.engines import Option, Options, Word, flag

_FLAG = re.compile(r"--?[A-Za-z]")


@dataclass(frozen=True)
class Given:
    """One option as it was written: its own words, and what they mean."""

    at: int  # where it begins
    raw: tuple[str, ...]
    name: str  # as written, without `=value`
    flag: str  # the engine's long flag, when it has such an option
    values: tuple[str, ...]


def _spelled(engine: str, name: str, known: Options) -> str:
    """The engine's long flag for a flag as written: an alias, underscores for vLLM, an only beginning."""
    found = known.aliases.get(name, name)
    if known.kind(found) is not None or _negated(found, known):
        return found
    if engine == "vllm" and found.startswith("--") and known.kind(dashed := flag(found[2:])) is not None:
        return dashed
    if engine != "llamacpp" and name.startswith("--") and len(name) > 3 and "." not in name:
        # argparse takes the beginning of a flag, when only one begins so.
        whole = {known.aliases.get(o, o) for o in (*known.by_flag, *known.aliases) if o.startswith(name)}
        return whole.pop() if len(whole) == 1 else found
    return found


def _negated(name: str, known: Options) -> bool:
    return name.startswith("--no-") and known.kind(f"--{name[5:]}") == "negatable"


def given(engine: str, words: Sequence[str], known: Options) -> tuple[list[Given], list[int]]:
    """The options of a command line, and the places of the words that belong to none."""
    found: list[Given] = []
    stray: list[int] = []
    at = 0
    while at < len(words):
        word = words[at]
        if not word.startswith("-") or word == "-" or re.fullmatch(r"-[0-9.]+", word):
            stray.append(at)
            at += 1
            continue
        name, equals, value = word.partition("=")
        long = _spelled(engine, name, known)
        if equals:
            found.append(Given(at, (word,), name, long, (value,)))
            at += 1
            continue
        end = at + 1
        dash = next((n for n in range(end, len(words)) if _FLAG.match(words[n])), len(words))
        kind = known.kind(long)
        if kind in ("value", "repeated", "commas"):
            end = min(end + 1, len(words))
        elif kind == "optional":
            end = min(end + 1, dash)
        elif kind == "words" or (kind is None and not _negated(long, known)):
            end = dash
        found.append(Given(at, tuple(words[at:end]), name, long, tuple(words[at + 1 : end])))
        at = end
    return found, stray


@dataclass(frozen=True)
class Finding:
    """What is wrong with one option, and the key of the recipe that gives it."""

    key: tuple[str | int, ...]
    sentence: str
    deprecated: bool = False  # it works, for now


def findings(engine: str, words: Sequence[Word], known: Options) -> list[Finding]:
    """What an engine with these options would refuse, or soon will, in a recipe's own words."""
    what = f"{engine} {known.version}" if known.version else engine
    texts = [word.text for word in words]
    options, stray = given(engine, texts, known)
    said = []
    for one in options:
        key = words[one.at].key
        if sentence := _wrong(engine, what, one, known):
            said.append(Finding(key, sentence))
        elif (told := known.by_flag.get(one.flag)) and told.deprecated:
            said.append(
                Finding(key, f"`{one.name}` is deprecated in {what}: {told.deprecated}", deprecated=True)
            )
    for at in stray:
        said.append(Finding(words[at].key, f"`{texts[at]}` belongs to no option of {what}; remove it"))
    return said


def left_out(engine: str, keys: Sequence[str], known: Options) -> list[Finding]:
    """What is wrong with keys of `extra_args` that are `false` and have become no word at all."""
    what = f"{engine} {known.version}" if known.version else engine
    said = []
    for key in keys:
        name = known.canonical(flag(key))
        if known.kind(name.partition(".")[0]) is None:
            said.append(Finding(("extra_args", key), _unknown(flag(key), what, known)))
        elif known.kind(name) == "negatable":
            told = f"`{key}: false` is left out, and {what} has `--no-{name[2:]}`; write that in `args:`"
            said.append(Finding(("extra_args", key), told))
    return said


def _wrong(engine: str, what: str, one: Given, known: Options) -> str | None:
    base, _, dotted = one.flag.partition(".")
    option = known.by_flag.get(one.flag)
    if option is None and _negated(one.flag, known):
        return f"`{one.name}` takes no value in {what}; remove `{one.values[0]}`" if one.values else None
    if option is None and dotted and engine == "vllm":
        base = known.aliases.get(base, flag(base[2:]) if base.startswith("--") else base)
        option = known.by_flag.get(base)
        return None if option else _unknown(base, what, known)
    if option is None:
        return _unknown(one.name, what, known)
    shortened = one.name.startswith("--") and one.name.replace("_", "-") not in (one.flag, *option.aliases)
    if shortened and not (engine == "sglang" and "_" in one.name):
        return f"`{one.name}` is only the beginning of `{one.flag}`, and may mean another option; write that"
    return _values(what, one, option)


def _values(what: str, one: Given, option: Option) -> str | None:
    if option.kind in ("flag", "negatable") and one.values:
        return f"`{one.name}` takes no value in {what}; give `true` or `false`, not `{one.values[0]}`"
    if option.kind in ("value", "repeated", "words", "commas") and not one.values:
        return f"`{one.name}` wants a value in {what}; give one"
    bad = next((value for value in one.values if option.choices and value not in option.choices), None)
    if bad is None or ("None" in (option.choices or ()) and bad in ("None", "")):
        return None
    near = difflib.get_close_matches(bad, option.choices or (), 1)
    choices = ", ".join(option.choices or ())
    hint = f"did you mean `{near[0]}`? It takes {choices}" if near else f"it takes {choices}"
    return f"`{one.name}` cannot be `{bad}` in {what}; {hint}"


def _unknown(name: str, what: str, known: Options) -> str:
    names = [
        *known.by_flag,
        *known.aliases,
        *(f"--no-{n[2:]}" for n in known.by_flag if known.kind(n) == "negatable"),
    ]
    near = difflib.get_close_matches(name.replace("_", "-"), names, 1, cutoff=0)[0]
    likely = difflib.SequenceMatcher(None, name.replace("_", "-"), near).ratio() >= 0.75
    hint = f"did you mean `{near}`?" if likely else f"remove it (the nearest is `{near}`)"
    return f"`{name}` is no option of {what}; {hint}"
