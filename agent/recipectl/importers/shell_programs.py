"""What the programs of a script mean for an engine that it starts."""

import re

# Programs that change nothing of what an engine is given.
_WITHOUT_EFFECT = frozenset(
    """
    [ test mkdir kill pkill tail echo sleep wait trap shopt true false : pwd which date nvidia-smi rm
    cat break continue tee pgrep grep type hash diff cmp
    """.split()  # noqa: SIM905  (a list one can read)
)
# What only asks, or tidies containers up: a unit has none.
_WITHOUT_EFFECT_HERE = re.compile(
    r"(command -[vV]|(docker|podman) (rm|logs|pull|ps|inspect)|disown)( |\Z)"
    r"|curl( -[sSfLI]+| -o /dev/null| -m [0-9]+| --(silent|fail|max-time[ =][0-9]+))* "
    r"https?://(localhost|127\.0\.0\.1)\S*\Z"
)
_SMI_QUERY = re.compile(
    r"-(q|L|i|l|lms|x|d|f|h|-query.*|-list.*|-format.*|-id.*|-loop.*|-help|-version)(=|\Z)"
)
# Letters of `ulimit` (bash(1)): the setting of a unit, and the unit of measure.
_LIMITS = {
    "-n": ("LimitNOFILE", ""), "-u": ("LimitNPROC", ""), "-s": ("LimitSTACK", "K"), "-c": ("LimitCORE", "K"),
    "-v": ("LimitAS", "K"), "-l": ("LimitMEMLOCK", "K"),
}  # fmt: skip


def has_effect(words: list[str]) -> bool:
    """False for a program that changes nothing of what an engine is given."""
    return words[0] not in _WITHOUT_EFFECT and not _WITHOUT_EFFECT_HERE.match(" ".join(words))


def sets_gpus_up(words: list[str]) -> bool:
    """True for `nvidia-smi` with an option that changes a setting of the GPUs."""
    options = [word for word in words[1:] if word.startswith("-")]
    return words[0] == "nvidia-smi" and not all(_SMI_QUERY.match(option) for option in options)


def limits(words: list[str]) -> dict[str, str]:
    """The settings of a unit for `ulimit -n N` and the like, and for `umask N` (bash(1)); none for others."""
    if words[0] == "umask":
        return {"UMask": words[1]} if len(words) == 2 and re.fullmatch("[0-7]{1,4}", words[1]) else {}
    letter = (words[1] if len(words) == 3 else "").replace("S", "").replace("H", "")
    name, unit = _LIMITS.get(letter, ("", ""))
    if not name or not re.fullmatch("[0-9]+|unlimited", words[2]):
        return {}
    return {name: "infinity" if words[2] == "unlimited" else words[2] + unit}
