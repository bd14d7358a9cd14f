"""The options of an engine: which flags it has, and what each takes."""

import json
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import NamedTuple


class Option(NamedTuple):
    """One option. Kinds: flag, negatable (has `negations`), value, optional, words, repeated, commas."""

    kind: str
    aliases: tuple[str, ...] = ()
    negations: tuple[str, ...] = ()  # spellings that mean "no", `--no-x` first
    choices: tuple[str, ...] | None = None
    deprecated: str | None = None  # what its help says about that
    default: str | None = None  # where the engine itself was asked


@dataclass(frozen=True)
class Options:
    """An engine's options by their long flags, from its own parser (`version` says which)."""

    version: str | None
    by_flag: dict[str, Option]

    @cached_property
    def aliases(self) -> dict[str, str]:
        """Another spelling -> the long flag."""
        return {alias: name for name, option in self.by_flag.items() for alias in option.aliases}

    @cached_property
    def negations(self) -> dict[str, str]:
        """A spelling that means "no" -> the long flag."""
        return {spelling: name for name, option in self.by_flag.items() for spelling in option.negations}

    def negation(self, name: str) -> str | None:
        """The flag that means "no" of a long flag."""
        option = self.by_flag.get(name)
        return option.negations[0] if option and option.negations else None

    def kind(self, name: str) -> str | None:
        """What a long flag takes, None for an unknown flag."""
        option = self.by_flag.get(name)
        return option.kind if option else None

    def choices(self, name: str) -> tuple[str, ...] | None:
        """The words that an option takes, None where it takes any."""
        option = self.by_flag.get(name)
        return option.choices if option else None

    def canonical(self, name: str) -> str:
        """The long flag of an alias or of a negation; an unknown name unchanged."""
        name = flag_of(name[2:]) if name.startswith("--") else name
        return self.aliases.get(name) or self.negations.get(name, name)


def parse_table(text: str) -> Options:
    """The options in the JSON that parser_probe.py prints."""
    data = json.loads(text)
    by_flag = {
        name: Option(
            kind=option["kind"],
            aliases=tuple(option.get("aliases", ())),
            negations=tuple(option.get("negations", ())),
            choices=tuple(option["choices"]) if "choices" in option else None,
            deprecated=option.get("deprecated"),
            default=option.get("default"),
        )
        for name, option in data["options"].items()
    }
    return Options(data["version"], by_flag)


@cache
def shipped_options(engine: str) -> Options:
    """The table that recipectl ships for an engine."""
    return parse_table(Path(__file__).with_name(f"{engine}.json").read_text())


def flag_of(key: str) -> str:
    """`max_model_len` -> `--max-model-len`; only the part before the first dot is normalised."""
    if key.startswith("-"):
        return key
    head, dot, tail = key.partition(".")
    return f"--{head.replace('_', '-')}{dot}{tail}"
