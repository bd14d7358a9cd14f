"""What a start waits for in other units: loads on its GPU, and idle rivals. Verbs of the helper."""

import argparse
import math
import time

from recipectl.journal import say
from recipectl.machine import processes, sockets

_POLL_SEC = 0.2
_FIRST_REQUESTS_SEC = 5  # the proxy needs it to pass on the requests that a model was loaded for
_LOADING = ("start-pre", "start", "start-post")


def unit_properties(options: argparse.Namespace, units: list[str], *names: str) -> list[dict[str, str]]:
    """The properties of units, in the order of the units; none where systemctl does not answer."""
    import subprocess  # not all verbs of the helper need it

    manager = ["--user"] if options.user else []
    command = ["/usr/bin/systemctl", *manager, "show", "-p", ",".join(names), *units]  # PATH= is the engine's
    text = subprocess.run(command, capture_output=True, text=True, check=False).stdout  # noqa: S603  (fixed words)
    parts = text.split("\n\n") if text else [""] * len(units)
    return [dict(line.split("=", 1) for line in part.splitlines() if "=" in line) for part in parts]


def own_state(options: argparse.Namespace) -> str | None:
    """The ActiveState of this unit; None when nothing tells it, as at shutdown."""
    return unit_properties(options, [processes.unit_of("self")], "ActiveState")[0].get("ActiveState")


def is_stopping(options: argparse.Namespace) -> bool:
    """True if systemd stops this unit: it runs the next command after one that the stop has ended."""
    return own_state(options) == "deactivating"


def wait_for_loads(options: argparse.Namespace) -> int:
    """Wait while a unit of the list loads; the limit is this unit's own TimeoutStartSec=."""
    is_announced = False
    while True:
        states = unit_properties(options, options.units, "SubState")
        if not any(state.get("SubState") in _LOADING for state in states) or is_stopping(options):
            return 0
        if not is_announced:
            say("waiting for another model on this GPU to finish loading")
            is_announced = True
        time.sleep(_POLL_SEC)


class _Rival:
    """A model that a start would stop, as it looked last."""

    def __init__(self, unit: str, port: int) -> None:
        self.unit, self.port = unit, port
        self.is_active = self.is_loading = False
        self.ready_sec = -math.inf  # when a load ended that this start has waited for

    def look(self, state: dict[str, str]) -> None:
        was_loading = self.is_loading
        self.is_loading = state.get("SubState") in _LOADING
        self.is_active = state.get("ActiveState") == "active"
        if was_loading and self.is_active:
            self.ready_sec = time.monotonic()

    @property
    def is_new(self) -> bool:
        """True while it gets the first requests that it was loaded for."""
        return self.is_active and time.monotonic() < self.ready_sec + _FIRST_REQUESTS_SEC

    def is_connected(self, *, at_once: bool) -> bool:
        """True while somebody is connected; with `at_once` only if it has loaded meanwhile."""
        counts = self.is_active and (not at_once or self.ready_sec > -math.inf)
        return counts and bool(sockets.inodes(self.port, sockets.ESTABLISHED))


def wait_until_idle(options: argparse.Namespace) -> int:
    """Wait until units that a start would stop are idle: not loading, and nobody is connected to their port.

    It waits for every load to end: if starts stopped each other's loads, no model would ever answer. It waits
    for connections to end, for --patience-sec in which nothing loads; with --at-once only for those to a
    rival that loaded meanwhile.
    """
    words = [word.rpartition("=") for word in options.units]
    rivals = [_Rival(unit, int(port)) for unit, _, port in words]
    waited_sec, last_sec = 0.0, time.monotonic()
    is_announced = False
    while True:
        states = unit_properties(options, [rival.unit for rival in rivals], "ActiveState", "SubState")
        for rival, state in zip(rivals, states, strict=True):
            rival.look(state)
        loading = [rival for rival in rivals if rival.is_loading or rival.is_new]
        connected = [rival for rival in rivals if rival.is_connected(at_once=options.at_once)]
        now_sec = time.monotonic()
        waited_sec += 0 if loading else now_sec - last_sec
        last_sec = now_sec
        if not loading and (not connected or waited_sec > options.patience_sec):
            return 0
        if not is_announced:
            names = ", ".join(rival.unit for rival in rivals if rival in (*loading, *connected))
            say(f"waiting for idle: {names}; at most {options.patience_sec} s, loads not counted")
            is_announced = True
        time.sleep(_POLL_SEC)
