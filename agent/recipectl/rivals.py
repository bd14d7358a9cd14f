"""What a start waits for in other units: loads on its GPU, and idle rivals. Verbs of the helper."""

import argparse
import time

from recipectl.journal import say
from recipectl.machine import processes, sockets

_POLL_SEC = 0.2
_FIRST_REQUESTS_SEC = 5  # the proxy passes the requests on that a model was loaded for
_LOADING = ("start-pre", "start", "start-post")


def unit_properties(options: argparse.Namespace, units: list[str], *names: str) -> list[dict[str, str]]:
    """The properties of units, in the order of the units; none where systemctl does not answer."""
    import subprocess  # not all verbs of the helper need it

    manager = ["--user"] if options.user else []
    command = ["/usr/bin/systemctl", *manager, "show", "-p", ",".join(names), *units]  # PATH= is the engine's
    text = subprocess.run(command, capture_output=True, text=True, check=False).stdout  # noqa: S603  (fixed words)
    parts = text.split("\n\n") if text else [""] * len(units)
    return [dict(line.split("=", 1) for line in part.splitlines() if "=" in line) for part in parts]


def wait_for_loads(options: argparse.Namespace) -> int:
    """Wait while a unit of the list loads; the limit is this unit's own TimeoutStartSec=."""
    units = [*options.units, processes.unit_of("self")]
    is_announced = False
    while True:
        *others, own = unit_properties(options, units, "ActiveState", "SubState")
        # A stop may have ended the command before this one: systemd then runs this one all the same.
        is_stopped = own.get("ActiveState") == "deactivating"
        if is_stopped or not any(other.get("SubState") in _LOADING for other in others):
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
        self.ready_sec: float | None = None  # when a load ended that this start has waited for

    def look(self, state: dict[str, str]) -> None:
        was_loading = self.is_loading
        self.is_loading = state.get("SubState") in _LOADING
        self.is_active = state.get("ActiveState") == "active"
        if was_loading and self.is_active:
            self.ready_sec = time.monotonic()

    def is_busy(self, *, at_once: bool) -> bool:
        """True while it loads, or answers; `at_once` spares only what it was loaded for meanwhile."""
        if self.is_loading or not self.is_active:
            return self.is_loading
        if self.ready_sec is None:
            return not at_once and bool(sockets.inodes(self.port, sockets.ESTABLISHED))
        is_new = time.monotonic() < self.ready_sec + _FIRST_REQUESTS_SEC
        return is_new or bool(sockets.inodes(self.port, sockets.ESTABLISHED))


def wait_until_idle(options: argparse.Namespace) -> int:
    """Wait until units that a start would stop are idle: not loading, and nobody is connected to their port.

    A load is always waited for: rivals that end each other's loads never answer anybody. Busy units are
    stopped --patience-sec after this began, or after a load ended meanwhile; with --at-once those that were
    ready before are not waited for.
    """
    words = [word.rpartition("=") for word in options.units]
    rivals = [_Rival(unit, int(port)) for unit, _, port in words]
    begin_sec = time.monotonic()
    is_announced = False
    while True:
        states = unit_properties(options, [rival.unit for rival in rivals], "ActiveState", "SubState")
        for rival, state in zip(rivals, states, strict=True):
            rival.look(state)
        busy = [rival for rival in rivals if rival.is_busy(at_once=options.at_once)]
        begin_sec = max([begin_sec, *(rival.ready_sec for rival in rivals if rival.ready_sec)])
        is_loading = any(rival.is_loading for rival in rivals)
        if not busy or (not is_loading and time.monotonic() > begin_sec + options.patience_sec):
            return 0
        if not is_announced:
            names = ", ".join(rival.unit for rival in busy)
            say(f"waiting for idle: {names}; at most {options.patience_sec} s, loads not counted")
            is_announced = True
        time.sleep(_POLL_SEC)
