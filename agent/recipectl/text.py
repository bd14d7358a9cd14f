"""Words for messages: values as YAML spells them, and the nearest known name."""

from collections.abc import Iterable


def display(value: object) -> str:
    """A value for a message: as YAML spells it, on one line, at most 60 characters."""
    text = str(value).lower() if isinstance(value, bool) else "" if value is None else str(value)
    text = text if text.isprintable() else ascii(text)[1:-1]
    return text if len(text) <= 60 else f"{text[:57]}…"


def nearest(word: str, known: Iterable[str], *, cutoff: float = 0.6) -> str | None:
    """The known word that is most like this one; None when none is alike."""
    import difflib  # only messages need it

    matches = difflib.get_close_matches(word, [*known], 1, cutoff)
    return matches[0] if matches else None


def did_you_mean(word: str, known: Iterable[str], otherwise: str) -> str:
    """The hint that names the nearest known word, else another hint."""
    match = nearest(word, known)
    return f"did you mean `{match}`?" if match else otherwise
