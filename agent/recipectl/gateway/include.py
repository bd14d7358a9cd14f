"""The site's own lines for the gateway: the file of `gateway.include`, and what that includes."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from recipectl.errors import UsageError
from recipectl.gateway.configuration import SiteLines
from recipectl.gateway.host import reading

# PrivateTmp= and ProtectHome= of its unit.
_HIDDEN = ("/home/", "/root/", "/run/user/", "/tmp/", "/var/tmp/")  # noqa: S108  (compared)
# A token of nginx's configuration (ngx_conf_read_token in its ngx_conf_file.c): a comment, a mark, a quoted
# word, or a plain one, in which `${` opens no block.
_TOKEN = re.compile(
    rb"\s+|#[^\n]*|(?P<mark>[;{}])"
    rb"|(?P<word>\"(?:\\.|[^\"\\])*\"|'(?:\\.|[^'\\])*'|(?:\\.|\$\{|[^\s;{\\])+|.)",
    re.S,
)


class _Statement(NamedTuple):
    line: int
    depth: int  # of blocks around it
    words: tuple[str, ...]


def site_lines(path: str | None, content: Callable[[Path], bytes]) -> SiteLines:
    """The site's own file; UsageError when it cannot be read, or others can change it."""
    files = [*_with_what_it_includes(path, content, ())] if path else []
    statements = [statement for _, each in files for statement in each]
    headers = {
        statement.words[1].lower()
        for statement in statements
        if statement.words[0] == "proxy_set_header" and not statement.depth and len(statement.words) > 1
    }
    return SiteLines(b"".join(text for text, _ in files), frozenset(headers))


def _with_what_it_includes(
    path: str, content: Callable[[Path], bytes], outer: tuple[str, ...], depth: int = 0
) -> Iterator[tuple[bytes, list[_Statement]]]:
    """The content of a file, and of those that it includes; `outer` are the files that include it."""
    hidden = (*_HIDDEN, *(f"{os.path.realpath(folder)}/" for folder in _HIDDEN))
    if path.startswith(hidden) or os.path.realpath(path).startswith(hidden):
        fault = f"{path} is in a folder that the gateway's sandbox does not have"
        raise UsageError(
            f"{fault}; move it, for example to /etc/recipectl", "gateway", "include", kind="file"
        )
    with reading(path, "include"):
        text = content(Path(path))
    statements = [*_statements(text, depth)]
    yield text, statements
    for statement in statements:
        if statement.words[0] != "include":
            continue
        pattern = "".join(statement.words[1:2])
        if not pattern.startswith("/"):
            fault = f"line {statement.line} of {path} includes `{pattern}`, which is no absolute path"
            raise UsageError(f"{fault}; write its whole path", "gateway", "include", kind="file")
        for file in sorted(map(str, Path("/").glob(pattern.lstrip("/")))):
            if file not in (*outer, path):
                yield from _with_what_it_includes(file, content, (*outer, path), statement.depth)


def _statements(text: bytes, depth: int) -> Iterator[_Statement]:
    """The statements of a file, those that open a block included."""
    words: list[str] = []
    line = 0
    for token in _TOKEN.finditer(text):
        if word := token["word"]:
            line = line if words else text.count(b"\n", 0, token.start()) + 1
            words.append(_unquoted(word.decode(errors="replace")))
        elif mark := token["mark"]:
            if words:
                yield _Statement(line, depth, tuple(words))
            words = []
            depth += {b"{": 1, b"}": -1}.get(mark, 0)


def _unquoted(word: str) -> str:
    quoted = word[1:-1] if len(word) > 1 and word[0] in "\"'" and word[-1] == word[0] else word
    return re.sub(r"\\([\"' \\])", r"\1", quoted)
