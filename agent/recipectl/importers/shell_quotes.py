"""A shell's `$'…'`, with its escapes."""

import re
import sys

_ANSI_ESCAPE = re.compile(r"\\(x[0-9a-fA-F]{1,2}|u[0-9a-fA-F]{1,4}|U[0-9a-fA-F]{1,8}|[0-7]{1,3}|c.|.)", re.S)
_ANSI = {
    "a": "\a", "b": "\b", "e": "\x1b", "E": "\x1b", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "v": "\v",
    "\\": "\\", "'": "'", '"': '"', "?": "?",
}  # fmt: skip


def ansi_text(text: str) -> str:
    """The text of `$'…'` (bash(1), QUOTING); its escapes give bytes, and one that is no text a surrogate."""

    def character(match: re.Match[str]) -> str:
        code = match[1]
        if code[0] in "01234567":
            return chr(int(code, 8) & 255)
        if code[0] in "xuU" and len(code) > 1:
            number = int(code[1:], 16)
            is_character = number <= sys.maxunicode and not 0xD800 <= number <= 0xDFFF  # no surrogates
            if code[0] == "x" or not is_character:
                return chr(number & 255) if code[0] == "x" else "\xff"  # a byte that is no text
            return chr(number).encode().decode("latin-1")
        if code[0] == "c" and len(code) > 1:
            return chr(ord(code[1]) & 31)
        return _ANSI.get(code, match[0])

    text = _ANSI_ESCAPE.sub(character, text.encode().decode("latin-1"))
    return text.partition("\0")[0].encode("latin-1").decode(errors="surrogateescape")
