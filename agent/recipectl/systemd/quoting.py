"""systemd's quoting rules (systemd.syntax(7), systemd.service(5); tried on systemd 247, 252, 257 and 262)."""

import re
import sys
from collections.abc import Iterator
from functools import lru_cache

from recipectl.errors import UnrepresentableError

MAX_WORD_BYTES = 131_071 - 1  # the kernel's MAX_ARG_STRLEN, one word of argv or one NAME=value
MAX_LINE_BYTES = 1024 * 1024 - 64  # systemd's LONG_LINE_MAX, of a line with its continuations
_BARE = re.compile(r"[A-Za-z0-9_@+=:,./-]+\Z")
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")
_INEXPRESSIBLE_PATH = re.compile("[\x00-\x1f\x7f'\"\\\\*?\\[\\]]")
_ONE_LINE = re.compile("[^\x00-\x1f\x7f]*(?<!\\\\)\\Z")
_ESCAPES = {"\a": r"\a", "\b": r"\b", "\f": r"\f", "\n": r"\n", "\r": r"\r", "\t": r"\t", "\v": r"\v"}
_ESCAPES |= {"\\": r"\\", '"': r"\""}
# C1 controls, line separators, BOM and bidirectional controls are legal, but a reviewer does not see them.
_INVISIBLE = re.compile("[\x80-\x9f\u061c\u200e\u200f\u2028\u2029\u202a-\u202e\u2066-\u2069\ufeff]")


def _escape(char: str) -> str:
    code = ord(char)
    if char in _ESCAPES:
        return _ESCAPES[char]
    if 0xD800 <= code <= 0xDFFF:
        raise UnrepresentableError("a value is not valid UTF-8, which systemd cannot carry; correct it")
    if code == 0:
        raise UnrepresentableError("a value has a NUL byte, which no program can be given; remove it")
    if 0xFDD0 <= code <= 0xFDEF or code & 0xFFFE == 0xFFFE:
        raise UnrepresentableError(f"a value has U+{code:04X}, which systemd refuses; remove it")
    if code < 0x20 or code == 0x7F:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if _INVISIBLE.match(char) else char


def _escaped(text: str) -> str:
    # The short way for plain text: a thousand recipes have a hundred thousand characters.
    plain = text.isascii() and text.isprintable() and '"' not in text and "\\" not in text
    return text if plain else "".join(map(_escape, text))


@lru_cache(maxsize=8192)  # the recipes of a host share most of their words
def word(text: str) -> str:
    """One word of a command line that has the `:` prefix, or of an assignment list."""
    if len(text.encode(errors="surrogatepass")) > MAX_WORD_BYTES:
        raise UnrepresentableError(
            f"a value is longer than the kernel's {MAX_WORD_BYTES} bytes; put it in a file"
        )
    if _BARE.match(text):
        return text
    return '"' + _escaped(text).replace("%", "%%") + '"'


def executable(path: str) -> str:
    """The first word of a command line: absolute, without the characters that systemd refuses there."""
    if not path.startswith("/") or path.endswith("/") or _INEXPRESSIBLE_PATH.search(path):
        raise UnrepresentableError(
            f"systemd cannot execute {path!r}: it must be the absolute path of a file, without quotes, "
            "backslashes, `*?[]` and control characters; make a symbolic link to it"
        )
    return word(path)


@lru_cache(maxsize=8192)
def command_line(argv: tuple[str, ...]) -> str:
    """The value of ExecStart=, one word a line; `:` keeps `$` as it is."""
    text = " \\\n    ".join([":" + executable(argv[0]), *map(word, argv[1:])])
    if len(text.encode()) > MAX_LINE_BYTES:
        raise UnrepresentableError(
            "the command line is longer than the 1 MiB that systemd reads; put it in a file"
        )
    return text


def name(text: str) -> str:
    """A variable's name, as it is."""
    if not _NAME.match(text):
        raise UnrepresentableError(
            f"`{text}` cannot be a variable's name for systemd; use letters, digits and `_`, no digit first"
        )
    return text


@lru_cache(maxsize=8192)
def assignment(variable: str, value: str) -> str:
    """The value of one Environment= line."""
    return word(f"{name(variable)}={value}")


def line(value: str) -> str:
    """A value that is a whole line: specifiers are doubled; what systemd would change is refused."""
    _escaped(value)  # refuses what no unit can carry
    if not _ONE_LINE.match(value) or value != value.strip():
        raise UnrepresentableError(
            f"{value[:60]!a} cannot be a setting's value: systemd drops control characters, blanks "
            "around it and a backslash at its end; change it"
        )
    return value.replace("%", "%%")


def text(value: str) -> str:
    """A line for people such as Description=: specifiers doubled, control characters shown as escapes."""
    plain = value.isascii() and value.isprintable()
    text = value if plain else "".join(char if char in '\\"' else _escape(char) for char in value)
    return text.replace("%", "%%") + (" ." if text.endswith("\\") else "")


_UNESCAPED = {"a": "\a", "b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "v": "\v", "s": " "}
# One piece of a value: an escape, a quoted run, blanks, or plain text.
_PIECE = re.compile(
    r"""\\(?:x(?P<hex>[0-9a-fA-F]{2})|u(?P<bmp>[0-9a-fA-F]{4})|U(?P<full>[0-9a-fA-F]{8})|(?P<octal>[0-7]{3})
    |(?P<char>.))|(?P<quote>["'])|(?P<blank>\s+)|(?P<plain>[^\\"'\s]+|\\)""",
    re.X | re.S,
)


def _unescaped(piece: re.Match[str]) -> str:
    if code := piece["hex"] or piece["bmp"] or piece["full"]:
        return chr(int(code, 16)) if int(code, 16) <= sys.maxunicode else piece[0]
    if piece["octal"]:
        return chr(int(piece["octal"], 8))
    # systemd keeps the backslash of an escape that it does not know (extract-word.c).
    known = piece["char"] in {*_UNESCAPED, *"\\\"'"}
    return _UNESCAPED.get(piece["char"], piece["char"]) if known else piece[0]


def split(value: str, *, unescape: bool = True) -> tuple[str, ...]:
    """The words of a setting's value, unquoted as systemd does it (systemd.syntax(7)); `%` stays as it is.

    Without `unescape`, a backslash only keeps the next character, as in `$NAME` of a command
    (EXTRACT_UNQUOTE without EXTRACT_CUNESCAPE in replace_env_argv()).
    """
    words: list[str] = []
    word: str | None = None
    quote = ""
    for piece in _PIECE.finditer(value):
        text = piece[0]
        if text[0] == "\\" and len(text) > 1:
            word = (word or "") + (_unescaped(piece) if unescape else text[1:])
        elif piece["quote"] and text == quote:
            quote = ""
        elif piece["quote"] and not quote:
            quote = text
            word = word or ""
        elif piece["blank"] and not quote:
            if word is not None:
                words.append(word)
            word = None
        else:
            word = (word or "") + text
    return (*words, *([] if word is None else [word]))


# Blanks, a comment, or a key with its value: parts in quotes first, then text in which quotes mean nothing.
_FILE_ENTRY = re.compile(
    r"""[ \t\n\r]+|[#;](?:\\.|[^\\\n\r])*|(?P<key>[^ \t\n\r#;][^\n\r=]*)(?:=
    (?P<quoted>(?:[ \t]*(?:'[^']*(?:'|\Z)|"(?:\\.|[^\\"]|\\\Z)*(?:"|\Z)))*)
    [ \t]*(?P<plain>(?:\\.|[^\\\n\r]|\\\Z)*))?""",
    re.DOTALL | re.VERBOSE,
)
_FILE_QUOTED = re.compile(r"""'([^']*)'?|"((?:\\.|[^\\"]|\\\Z)*)"?""", re.DOTALL)


def environment_file(content: str) -> Iterator[tuple[str, str]]:
    """The variables of a file for EnvironmentFile=, as systemd reads it (systemd.exec(5), env-file.c)."""
    for entry in _FILE_ENTRY.finditer(content):
        if _NAME.match(key := (entry["key"] or "").rstrip(" \t")) and entry["plain"] is not None:
            parts = _FILE_QUOTED.findall(entry["quoted"])
            quoted = (single or re.sub(r'\\(?:(["\\`$])|\n|\Z)', r"\1", double) for single, double in parts)
            yield key, "".join(quoted) + _unquoted(entry["plain"])


def _unquoted(text: str) -> str:
    parts = re.findall(r"\\.|\\\Z|[^\\]+", text, re.DOTALL)
    if parts and not parts[-1].startswith("\\"):
        parts[-1] = parts[-1].rstrip(" \t")
    return "".join(part.removeprefix("\\") for part in parts if part not in ("\\\n", "\\\r"))
