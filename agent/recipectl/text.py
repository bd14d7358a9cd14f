"""Texts: values as YAML spells them, the nearest known name, the order of names, digests."""

import hashlib
import re
from collections.abc import Iterable, Sequence

# How the tokens of well-known services begin.
TOKEN = re.compile(r"(hf_|sk-|ghp_|glpat-|xox[bp]-|AKIA|gsk_|nvapi-|r8_|AIza|xai-|eyJ)[A-Za-z0-9_-]{12,}")
# What a terminal obeys, or hides from its reader: controls (but tab and line feed), bidirectional marks,
# lone bytes.
_OBEYED = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff\ud800-\udfff]"
)


def digest_of(text: str) -> str:
    """Twelve hexadecimal digits that differ for texts that differ: the begin of the text's SHA-256."""
    return hashlib.sha256(text.encode(errors="surrogateescape")).hexdigest()[:12]


def printable(text: str) -> str:
    """A text with control characters as escapes: log lines, process titles and answers may hold any."""
    return text if text.isprintable() else _OBEYED.sub(_escape, text)


def one_line(text: str) -> str:
    """A text on one line: a name of a file or process may have line feeds, which must not begin a line."""
    return printable(text).replace("\n", "\\n").replace("\t", "\\t")


def _escape(match: re.Match[str]) -> str:
    code = ord(match[0])
    if 0xDC80 <= code <= 0xDCFF:
        return f"\\x{code - 0xDC00:02x}"  # a byte that is not UTF-8
    return f"\\x{code:02x}" if code < 0x80 else f"\\u{code:04x}"


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


def names_in_words(names: Sequence[str], most: int = 3) -> str:
    """`gpu1, gpu2, gpu3 and 997 more`."""
    shown = ", ".join(names[:most])
    more = len(names) - most
    return f"{shown} and {more} more" if more > 0 else shown


def natural(name: str) -> list[tuple[int, str]]:
    """The key that sorts gpu2 before gpu10."""
    return [(int(word), "") if word.isdecimal() else (-1, word) for word in re.split(r"([0-9]+)", name)]
