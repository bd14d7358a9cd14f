"""What is known of a set of hosts that serve one model: written by its tie, read by units and verbs.

Standard library only: verbs of the helper import it.
"""

import argparse
import json
import os
import time
from pathlib import Path
from typing import Any, NamedTuple

from recipectl.journal import say
from recipectl.regular import open_regular
from recipectl.rivals import is_stopping

_MAX_HOSTS = 4096
_MAX_BYTES = 1 << 20  # of the file with the state


def shown(text: object) -> str:
    """What a peer says, as a journal and a terminal can show it."""
    return "".join(char for char in str(text)[:120] if char.isascii() and char.isprintable())


class Hosts(NamedTuple):
    """The hosts of a set: (name, addresses), the head first."""

    rows: tuple[tuple[str, tuple[str, ...]], ...]

    @classmethod
    def of_words(cls, words: list[str]) -> "Hosts":
        """From `NAME=ADDRESS,ADDRESS`, a word for each host."""
        pairs = (word.partition("=") for word in words)
        return cls(tuple((name, tuple(addresses.split(","))) for name, _, addresses in pairs))

    def name(self, rank: int) -> str:
        """The name of a host, with its address."""
        return f"{self.rows[rank][0]} ({self.rows[rank][1][0]})"


class State:
    """What a tie knows of its set. Anybody may read it in $RUNTIME_DIRECTORY/state."""

    def __init__(self, hosts: Hosts, rank: int, version: str) -> None:
        self.hosts = hosts
        self.file = Path(os.environ["RUNTIME_DIRECTORY"], "state")
        self.values: dict[str, Any] = {
            "hosts": [name for name, _ in hosts.rows],
            "rank": rank,
            "connected": [rank],
            "versions": {str(rank): version},
            "complete": False,
            "ready": False,
        }
        self.write()

    def write(self) -> None:
        """Replace the file as a whole."""
        new = self.file.with_suffix(".new")
        new.write_text(json.dumps(self.values))
        new.chmod(0o644)
        new.replace(self.file)

    def update(self, **values: Any) -> None:
        """Change what is known, and say what is new."""
        before = dict(self.values)
        self.values |= values
        if self.values == before:
            return
        self.write()
        missing = [rank for rank in range(len(self.hosts.rows)) if rank not in self.values["connected"]]
        if self.values["ready"] and not before["ready"]:
            say("the set is ready")
        elif missing:
            say(f"waiting for {', '.join(self.hosts.name(rank) for rank in missing)}")
        elif not before["complete"]:
            say("all hosts are connected: the members start")
            self._compare_versions()

    def _compare_versions(self) -> None:
        if len({*self.values["versions"].values()}) > 1:
            rows = [
                f"{name} has {self.values['versions'].get(str(rank))}"
                for rank, name in enumerate(self.values["hosts"])
            ]
            say(f"the engines differ: {', '.join(rows)}")


def state_of(tie_name: str, *, user: bool) -> dict[str, Any] | None:
    """What the tie of a member knows; None where none runs."""
    own = os.environ.get("XDG_RUNTIME_DIR") or f"/run/user/{os.getuid()}"
    folder = Path(own if user else "/run")
    try:
        # The tie has no privilege: whoever reads its file trusts neither its kind nor its size nor its text.
        with open_regular(folder / tie_name / "state", follow=False) as file:
            values = json.loads(file.read(_MAX_BYTES))
    except (OSError, ValueError, RecursionError):
        return None
    hosts, rank = (values.get("hosts"), values.get("rank")) if isinstance(values, dict) else (None, None)
    if not isinstance(hosts, list) or type(rank) is not int:
        return None
    hosts = hosts[:_MAX_HOSTS]
    return {"hosts": [shown(name) for name in hosts], "rank": rank, **checked(values, len(hosts))}


def checked(values: dict[str, Any], count: int) -> dict[str, Any]:
    """What a tie tells of a set of `count` hosts, as far as a tie would tell it."""
    connected, versions = values.get("connected"), values.get("versions")
    ranks = {rank for rank in connected if type(rank) is int} if isinstance(connected, list) else set()
    texts = versions if isinstance(versions, dict) else {}
    return {
        "connected": [rank for rank in range(count) if rank in ranks],
        "versions": {str(rank): shown(texts[str(rank)]) for rank in range(count) if str(rank) in texts},
        "complete": values.get("complete") is True,
        "ready": values.get("ready") is True,
    }


def is_ready(options: argparse.Namespace) -> bool:
    """True once the head of the set has answered a completion."""
    state = state_of(options.tie, user=options.user)
    return bool(state and state["ready"])


def wait_for_set(options: argparse.Namespace) -> int:
    """Wait until all hosts of a set are there; the limit is the unit's own TimeoutStartSec=."""
    end = time.monotonic() + 30
    last_missing: list[str] = []
    while True:
        state = state_of(options.tie, user=options.user)
        if (state and state["complete"]) or is_stopping(options):
            return 0
        if state is None and time.monotonic() > end:
            say(f"{options.tie}.service does not run; its log says why")
            return 1
        connected = state["connected"] if state else []
        missing = [name for rank, name in enumerate(state["hosts"] if state else ()) if rank not in connected]
        if missing and missing != last_missing:
            say(f"waiting for {', '.join(missing)}")
            last_missing = missing
        time.sleep(0.2)
