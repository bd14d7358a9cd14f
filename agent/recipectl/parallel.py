"""Many recipes compiled by several processes, to the same outcome."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING

from recipectl import compiler
from recipectl.compiled import Compiled, Outcome
from recipectl.compiler import Here, Part, Wrong, settle
from recipectl.disk import Disk
from recipectl.hostfile import Host
from recipectl.relations import Claim, Decided
from recipectl.sources import Source
from recipectl.unitfile import Site

if TYPE_CHECKING:
    from multiprocessing.connection import Connection

_FEWEST = 100  # recipes that are worth a process of their own


class _Elsewhere:
    """A part in a process of its own, which works until it is asked."""

    def __init__(self, found: Sequence[Source], host: Host, site: Site, disk: Disk) -> None:
        from multiprocessing import get_context  # few hosts need it

        fork = get_context("fork")  # it has all modules, and has read all recipes
        self._pipe, theirs = fork.Pipe()
        self._process = fork.Process(target=_serve, args=(theirs, self._pipe, found, host, site, disk))
        self._process.start()
        theirs.close()

    @cached_property
    def _first(self) -> tuple[list[Claim], Wrong, dict[str, str]]:
        told: tuple[list[Claim], Wrong, dict[str, str]] = self._pipe.recv()
        return told

    @property
    def claims(self) -> list[Claim]:
        return self._first[0]

    @property
    def wrong(self) -> Wrong:
        return self._first[1]

    @property
    def seen(self) -> dict[str, str]:
        """What it has looked at on the disk."""
        return self._first[2]

    def tell(self, decided: Decided, *, mixed: bool) -> None:
        self._pipe.send((decided, mixed))

    def models(self) -> tuple[list[Compiled], Wrong]:
        told: tuple[list[Compiled], Wrong] = self._pipe.recv()
        return told

    def close(self) -> None:
        """End the process."""
        self._pipe.close()
        self._process.join()


def _serve(
    pipe: Connection, other: Connection, found: Sequence[Source], host: Host, site: Site, disk: Disk
) -> None:
    other.close()  # else this process would not see the other one end
    with contextlib.suppress(EOFError, OSError, KeyboardInterrupt):  # the other one tells
        part = Here(found, host, site, disk)
        pipe.send((part.claims, part.wrong, disk.seen))
        while True:
            decided, mixed = pipe.recv()
            part.tell(decided, mixed=mixed)
            pipe.send(part.models())


def _together(found: tuple[Source, ...], host: Host, site: Site, disk: Disk, count: int) -> Outcome:
    with contextlib.ExitStack() as stack:
        others: list[_Elsewhere] = []
        for n in range(1, count):
            others.append(_Elsewhere(found[n::count], host, site, disk))
            stack.callback(others[-1].close)  # the last one first: it has the others' ends of the pipes, too
        parts: list[Part] = [Here(found[::count], host, site, disk), *others]
        outcome = settle(parts, host)
        for path, sight in (pair for other in others for pair in other.seen.items()):
            if disk.seen.setdefault(path, sight) != sight:
                disk.seen[path] = "changed meanwhile"  # so that no cache of this is used
        return outcome


def compile_all(
    found: tuple[Source, ...], host: Host, site: Site, disk: Disk, processors: int | None = None
) -> Outcome:
    """What becomes of all recipes, as `compiler.compile_all` has it; by all processors that we may use."""
    most = processors or len(os.sched_getaffinity(0))
    try:
        return _together(found, host, site, disk, max(1, min(most, len(found) // _FEWEST)))
    except (EOFError, OSError):  # no memory for processes, or a file that only some of them could not read
        return compiler.compile_all(found, host, site, disk)[1]
