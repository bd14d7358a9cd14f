"""How output looks: tables, colours and the moving line on a terminal; whole and plain lines elsewhere."""

from __future__ import annotations

import contextlib
import os
import shutil
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import TextIO

import click

from recipectl.text import one_line, printable

_SHORTEST_COLUMN = 10
_PLAIN_LINE_SEC = 10  # between two lines about a load that goes on, where there is no terminal
_GREEN, _YELLOW, _RED = "32", "33", "1;31"
# As systemctl has them: what runs, what changes, what has failed.
_COLOURS = {
    "ready": _GREEN, "loading": _YELLOW, "restarting": _YELLOW, "stopping": _YELLOW, "failed": _RED,
    "socket": _RED,
}  # fmt: skip


_drawing = threading.Lock()  # a line of text does not come in between


class _MovingLine:
    """The one line that is redrawn."""

    drawn = False

    @classmethod
    def draw(cls, text: str) -> None:
        cls.drawn = True
        _write_control(sys.stderr, f"\r\033[K{text[: shutil.get_terminal_size().columns - 1]}")

    @classmethod
    def clear(cls) -> None:
        if cls.drawn:
            cls.drawn = False
            _write_control(sys.stderr, "\r\033[K")


def is_quiet() -> bool:
    """True with -q: what a verb says along the way is not printed; errors and warnings are."""
    context = click.get_current_context(silent=True)
    return bool(context and context.find_root().params.get("quiet"))


def say(text: str, *, err: bool = False) -> None:
    """A line about what was done; not with -q."""
    if not is_quiet():
        with _drawing:
            _MovingLine.clear()
            click.echo(text, err=err)


def has_colours(stream: TextIO) -> bool:
    """True for a terminal that shows colours, unless NO_COLOR= (no-color.org) forbids them."""
    return stream.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM", "dumb") != "dumb"


def _write_control(stream: TextIO, text: str) -> None:
    """Write control characters of our own; everything else that is printed is shown as text."""
    stream.flush()
    stream.buffer.write(text.encode(errors="replace"))
    stream.buffer.flush()


def shortened(word: str, width: int) -> str:
    """A word in at most `width` characters: `…` replaces its middle, because names differ at both ends."""
    if len(word) <= width:
        return word
    end = (width - 1) // 2
    return f"{word[: width - 1 - end]}…{word[len(word) - end :]}"


def fitting(widths: Sequence[int], minimums: Sequence[int], available: int) -> list[int]:
    """The widths of columns that fit into a line: the widest ones give way first."""
    fit = [*widths]
    while sum(fit) + 2 * (len(fit) - 1) > available:
        over = [index for index, width in enumerate(fit) if width > minimums[index]]
        if not over:
            break
        fit[max(over, key=lambda index: fit[index])] -= 1
    return fit


def table(rows: Sequence[Sequence[str]], header: Sequence[str]) -> None:
    """Columns under a header, nothing at all without rows; on a terminal they fit, with STATE in colours."""
    rows = [[one_line(word) for word in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]
    if sys.stdout.isatty():
        columns = shutil.get_terminal_size().columns
        minimums = [max(len(word), _SHORTEST_COLUMN) for word in header]
        widths = fitting(widths, minimums, columns)
    state = header.index("STATE") if "STATE" in header else None
    for row in (header, *rows) if rows else ():
        cells = [f"{shortened(word, width):{width}}" for word, width in zip(row, widths, strict=True)]
        cells[-1] = cells[-1].rstrip()
        if state is not None and row is not header:
            cells[state] = coloured(cells[state])
        _print_line("  ".join(cells).rstrip())


def coloured(state: str) -> str:
    """A state in its colour, where a terminal shows colours."""
    word = state.replace(",", " ").split()
    colour = next((_COLOURS[part] for part in reversed(word) if part in _COLOURS), None)
    return f"\033[{colour}m{state}\033[0m" if colour and has_colours(sys.stdout) else state


def _print_line(text: str) -> None:
    if "\033" in text:  # our own: the words of a row cannot have one
        _write_control(sys.stdout, f"{text}\n")
    else:
        click.echo(text)


def print_state(label: str, state: str, rest: str) -> None:
    """A line of details with a state in its colour."""
    _print_line(f"{label}{coloured(printable(state))}{printable(rest)}")


@contextlib.contextmanager
def moving_line(describe: Callable[[], str], *, at_once: bool = False) -> Iterator[None]:
    """Show what takes long: on a terminal one line, each second; elsewhere a plain line when it changes.

    There, the first one comes after ten seconds, or `at_once`, and not with -q.
    """
    end = threading.Event()
    show = _on_terminal if sys.stderr.isatty() else _in_plain_lines
    thread = threading.Thread(target=show, args=(describe, end, at_once), daemon=True)
    if not is_quiet():
        thread.start()
    try:
        yield
    finally:
        end.set()
        if thread.is_alive():
            thread.join()


def _on_terminal(describe: Callable[[], str], end: threading.Event, at_once: bool) -> None:
    begin = time.monotonic()
    wait_sec = 0 if at_once else 1
    while not end.wait(wait_sec):
        wait_sec = 1
        line = f"{time.monotonic() - begin:4.0f} s  {printable(describe())}"
        with _drawing:
            _MovingLine.draw(line)
    with _drawing:
        _MovingLine.clear()


def _in_plain_lines(describe: Callable[[], str], end: threading.Event, at_once: bool) -> None:
    begin = time.monotonic()
    last_text = ""
    if at_once:
        last_text = describe()
        click.echo(last_text, err=True)
    while not end.wait(_PLAIN_LINE_SEC):
        if (text := describe()) != last_text:
            last_text = text
            click.echo(f"{time.monotonic() - begin:.0f} s: {text}", err=True)
