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
    r"(command -[vV]|(docker|podman) (rm|stop|kill|logs|pull|ps|inspect|wait)|ts|watch)( |\Z)"
    r"|curl .*(localhost|127\.0\.0\.1)"
)
_SMI_QUERY = re.compile(
    r"-(q|L|i|l|lms|x|d|f|h|-query.*|-list.*|-format.*|-id.*|-loop.*|-help|-version)(=|\Z)"
)


def has_effect(words: list[str]) -> bool:
    """False for a program that changes nothing of what an engine is given."""
    return words[0] not in _WITHOUT_EFFECT and not _WITHOUT_EFFECT_HERE.match(" ".join(words))


def sets_gpus_up(words: list[str]) -> bool:
    """True for `nvidia-smi` with an option that changes a setting of the GPUs."""
    options = [word for word in words[1:] if word.startswith("-")]
    return words[0] == "nvidia-smi" and not all(_SMI_QUERY.match(option) for option in options)
