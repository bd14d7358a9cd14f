"""The options of an engine's command as keys of a recipe: fields, `extra_args`, `args`, `secrets`."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any

from recipectl.compiler.secrets import has_secret
from recipectl.engines.flags import GivenOption
from recipectl.engines.options import shipped_options
from recipectl.engines.registry import ENGINES
from recipectl.errors import UsageError
from recipectl.importers.draft import VARIABLE_ALONE, VARIABLE_START, Draft, redacted
from recipectl.importers.lines import Remark
from recipectl.importers.recipe_keys import extra_arg, field_value, nodes_value
from recipectl.importers.variables import set_secret
from recipectl.text import TOKEN

# Flags whose value is a secret, and the variable that the engine reads instead.
_SECRET_VARIABLES = {
    ("vllm", "--api-key"): "VLLM_API_KEY",
    ("vllm", "--hf-token"): "HF_TOKEN",
    ("llamacpp", "--api-key"): "LLAMA_API_KEY",
    ("llamacpp", "--hf-token"): "HF_TOKEN",
}
SECRET_FLAG = re.compile(r"(^|-)(api-keys?|(?<!first-)token|password|passwd|secret)$")


@dataclass
class _Arguments:
    """The keys of a recipe that give an engine its options."""

    backend: str
    has_binary: bool  # the program stays that of the command
    fields: dict[str, Any] = field(default_factory=dict)
    extra_args: dict[str, Any] = field(default_factory=dict)
    args: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def add(self, option: GivenOption) -> None:
        """Add an option to a field, else to `extra_args`, else as it is to `args`."""
        known = shipped_options(self.backend)
        is_bare = not option.values and "on" in (known.choices(option.flag) or ())
        if is_bare:
            self.notes.append(f"`{option.name}` alone, which means `on` in older releases")
        has_stray_word = option.values and known.kind(option.flag) in ("flag", "negatable")
        if _is_renamed(option) or has_stray_word or (is_bare and self.has_binary):
            self.args += option.raw
            return
        if is_bare:
            option = replace(option, values=("on",), raw=(*option.raw, "on"))
        aliases, flags = known.aliases, ENGINES[self.backend].flags
        key = next(
            (key for key, flag in flags.items() if flag and aliases.get(flag, flag) == option.flag), None
        )
        flag = flags[key] if key else None
        if key and flag and key not in self.fields:
            value = field_value(self.backend, key, flag, option)
            if value is not None:
                self.fields[key] = value
                return
        pair = None if "=" in option.raw[0] else extra_arg(self.backend, option)
        is_repeated = known.kind(option.flag) == "repeated"
        if pair and pair[0] not in self.extra_args and key not in self.fields:
            self.extra_args[pair[0]] = pair[1]
        elif pair and is_repeated and isinstance(self.extra_args.get(pair[0]), list):
            self.extra_args[pair[0]] += pair[1]
        else:
            self.args += option.raw


def _is_renamed(option: GivenOption) -> bool:
    """Whether an option is written by a name of before llama.cpp's `--spec-…`."""
    return option.flag.startswith("--spec-") and option.name != option.flag


def place_stray_words(
    backend: str, options: list[GivenOption], words: Mapping[int, str], lost: list[Remark], *, runs: bool
) -> tuple[list[GivenOption], list[str]]:
    """The options with words behind them that they do not take, and the words that only the host can tell.

    Older engines take `True` behind a flag, so it stays there. UsageError for another word that belongs to no
    option: the engine refuses it where it stands, and could take it elsewhere. One that `runs` has taken it.
    """
    by_end = {option.index + len(option.raw): index for index, option in enumerate(options)}
    options, unknown = [*options], []
    for position, word in words.items():
        index = by_end.get(position)
        if VARIABLE_START in word:
            unknown.append(word)
        elif index is not None and not options[index].values:
            option = options[index]
            options[index] = replace(option, values=(word,), raw=(*option.raw, word))
            lost.append(
                Remark(f"`{redacted(word)}` after `{option.name}`, which takes no value; it stays there")
            )
        elif runs:
            unknown.append(word)
            lost.append(
                Remark(f"`{redacted(word)}` belongs to no option of {backend}; it stands in `args:` now")
            )
        else:
            raise UsageError(f"`{redacted(word)}` belongs to no option of {backend}; correct it")
    return options, unknown


def set_arguments(draft: Draft, backend: str, options: list[GivenOption], stray_words: list[str]) -> None:
    """Set the keys of a draft that give the engine its options; what they lose is named."""
    options = _last_of_each(backend, _with_all_names(options))
    nodes, node_options = nodes_value(backend, options)
    arguments = _Arguments(backend, has_binary="binary" in draft.fields)
    ordered = _kept_in_order(backend, options)
    for option in options:
        values = option.values or tuple(filter(None, (option.raw[0].partition("=")[2],)))
        if option in ordered:
            arguments.args += option.raw
        elif option not in node_options and not take_secret(draft, backend, option.flag, values):
            arguments.add(option)
    for key in ENGINES[backend].flags:
        if key in arguments.fields:
            draft.set(key, arguments.fields[key])
    if nodes:
        draft.set("nodes", nodes)
    if arguments.extra_args:
        draft.set("extra_args", arguments.extra_args)
    draft.lose_each((*arguments.notes, *_unknown_words(backend, options, stray_words)))
    if args := [*stray_words, *arguments.args]:
        draft.set("args", args, "As written: no key gives exactly these words.")


def _kept_in_order(backend: str, options: list[GivenOption]) -> list[GivenOption]:
    """Options that must stay in their order: keys of a recipe could not keep the order of their set."""
    result = []
    for family in ENGINES[backend].ordered_flags:
        members = [option for option in options if option.flag in family]
        is_long = any(len(option.values) > 1 for option in members)  # no key has it
        if len({option.flag for option in members}) < len(members) or (is_long and len(members) > 1):
            result += members
    return result


def _with_all_names(options: list[GivenOption]) -> list[GivenOption]:
    """The options; llama.cpp collects the values of each --alias (common/arg.cpp), so the last has all."""
    names: list[str] = []
    joined = []
    for option in options:
        if option.flag == "--alias":
            names += option.values
            option = replace(option, values=(",".join(names),), raw=(option.name, ",".join(names)))
        joined.append(option)
    return joined


def _last_of_each(backend: str, options: list[GivenOption]) -> list[GivenOption]:
    """The options without those that a later one replaces: engines take the last one."""
    known = shipped_options(backend)
    own = {known.aliases.get(flag, flag) for flag in ENGINES[backend].flags.values() if flag}
    last: dict[str, GivenOption] = {}
    for option in options:
        flag = known.negations.get(option.flag, option.flag)
        # llama.cpp collects some options; those that a recipe has a field for have one value.
        is_single = flag in own or (known.kind(flag) == "value" and backend != "llamacpp")
        if "." not in option.name and (is_single or known.kind(flag) == "negatable"):
            last[flag] = option
    flags = [known.negations.get(option.flag, option.flag) for option in options]
    return [option for flag, option in zip(flags, options, strict=True) if last.get(flag, option) is option]


def _unknown_words(backend: str, options: list[GivenOption], stray_words: list[str]) -> Iterator[str]:
    """What must be said of words whose meaning only the host knows."""
    for word in stray_words:
        if VARIABLE_ALONE.fullmatch(word):
            fault = f"`{redacted(word)}` stands alone, and may be several words or none"
            yield f"{fault}; write them in `args:` instead"
    for option in options:
        for value in option.values[1:]:
            if VARIABLE_ALONE.fullmatch(value):
                fault = (
                    f"`{redacted(value)}` after `{option.name}` may be several words, of other options too"
                )
                yield f"{fault}; write them in `args:` instead"
        if option.flag == ENGINES[backend].config_flag:
            fault = f"what {redacted(' '.join(option.values))} sets, which cannot be read here"
            yield f"{fault}; write the port and the names in the recipe"


def without_secrets(words: Sequence[str]) -> list[str]:
    """The words of a command but for values of secret flags, `--api-key=…` and `--api-key …`."""
    return [
        word
        for before, word in pairwise(("", *words))
        if not SECRET_FLAG.search(before) and not SECRET_FLAG.search(word.partition("=")[0])
    ]


def take_secret(draft: Draft, backend: str, flag: str, values: Sequence[str]) -> bool:
    """Whether an option holds a secret; if so, it becomes an entry of `secrets:` or is not carried over."""
    if variable := _SECRET_VARIABLES.get((backend, flag)):
        is_further = variable in draft.fields.get("secrets", {})
        if values:
            set_secret(draft, variable, ",".join(values))
            draft.hidden |= {*values}
        if len(values) > 1 or is_further:
            draft.lose(f"the keys of `{flag}` after the first: {variable} takes one")
        return True
    if not any(values):
        return False
    is_secret = bool(SECRET_FLAG.search(flag)) or any(
        TOKEN.search(value) or has_secret(value) for value in values
    )
    if is_secret:
        draft.hidden |= {*values}
        draft.lose(f"the secret of `{flag}`: {backend} reads it from its command line, which anyone may read")
    return is_secret
