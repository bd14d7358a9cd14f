"""The last lines of a unit's log."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from recipectl.place import Place

_MAX_LOG_BYTES = 4 * 1024 * 1024
_MAX_LINE = 1000  # characters
_LAST_MESSAGES = ("-o", "json", "--output-fields=MESSAGE", "--all", "-r", "--no-pager", "-q")


def log_lines(place: Place, unit: str, lines: int, since_sec: float | None = None) -> list[str]:
    """The last lines of a unit's log (since a time of this host's clock), as many as there are."""
    # Before 254, `-n` with `--since` takes the first lines; in the order of `-r`, it takes the last.
    words = [*place.journalctl, unit, *_LAST_MESSAGES, "-n", str(lines)]
    words += [f"--since=@{since_sec:.3f}"] if since_sec and not place.remote else []
    return _last_lines(place.command(*words), lines)


def said_by(place: Place, unit: str, since_sec: float) -> list[str]:
    """The last lines that the processes of a unit have printed, without those of systemd itself."""
    field = "_SYSTEMD_USER_UNIT" if place.user else "_SYSTEMD_UNIT"
    words = ["journalctl", f"{field}={unit}", f"--since=@{since_sec:.3f}", *_LAST_MESSAGES, "-n20"]
    return _last_lines(words, 20)


def _last_lines(journalctl: Sequence[str], lines: int) -> list[str]:
    """The last lines of a log; a message may have many lines (that of a core dump), and megabytes."""
    try:
        with subprocess.Popen(journalctl, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:  # noqa: S603  (fixed words)
            text = process.stdout.read(_MAX_LOG_BYTES) if process.stdout else b""
            process.kill()
    except OSError:
        return []  # the log is an addition to an error, and not one itself
    last: list[str] = []
    for entry in text.splitlines():
        try:
            last = _message(json.loads(entry)["MESSAGE"]).splitlines() + last
        except (ValueError, TypeError, KeyError):  # cut off, several messages in one, or none
            last = ["(a message that is too long, or is no text)", *last]
    return [line if len(line) <= _MAX_LINE else f"{line[:_MAX_LINE]}…" for line in last[-lines:]]


def _message(value: str | list[int]) -> str:
    """A message of journalctl's JSON: a list of bytes where it is no UTF-8, or not printable."""
    return value if isinstance(value, str) else bytes(value).decode(errors="replace")
