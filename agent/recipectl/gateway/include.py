"""The site's own lines for the gateway: the file of `gateway.include`, and what that includes."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path

from recipectl.errors import UsageError
from recipectl.gateway.host import reading

# PrivateTmp= and ProtectHome= of its unit.
_HIDDEN = ("/home/", "/root/", "/run/user/", "/tmp/", "/var/tmp/")  # noqa: S108  (compared)
_INCLUDE = re.compile(rb"^[ \t]*(?:[^#\n]*[;{}])?[ \t]*include[ \t]+([^;#\n]+);", re.M)


def included(path: str | None, content: Callable[[Path], bytes]) -> bytes:
    """The content of the site's own file; UsageError when it cannot be read, or others can change it."""
    return b"".join(_with_what_it_includes(path, content, ())) if path else b""


def _with_what_it_includes(
    path: str, content: Callable[[Path], bytes], outer: tuple[str, ...]
) -> Iterator[bytes]:
    """The content of a file, and of those that it includes; `outer` are the files that include it."""
    hidden = (*_HIDDEN, *(f"{os.path.realpath(folder)}/" for folder in _HIDDEN))
    if path.startswith(hidden) or os.path.realpath(path).startswith(hidden):
        fault = f"{path} is in a folder that the gateway's sandbox does not have"
        raise UsageError(
            f"{fault}; move it, for example to /etc/recipectl", "gateway", "include", kind="file"
        )
    with reading(path, "include"):
        text = content(Path(path))
    yield text
    for match in _INCLUDE.finditer(text):
        pattern = match[1].decode(errors="replace").strip().strip("\"'")
        line = text.count(b"\n", 0, match.start(1)) + 1
        if not pattern.startswith("/"):
            fault = f"line {line} of {path} includes `{pattern}`, which is no absolute path"
            raise UsageError(f"{fault}; write its whole path", "gateway", "include", kind="file")
        for file in sorted(map(str, Path("/").glob(pattern.lstrip("/")))):
            if file not in (*outer, path):
                yield from _with_what_it_includes(file, content, (*outer, path))
