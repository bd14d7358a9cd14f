"""systemd over D-Bus. The only module that imports pystemd; bytes and its exceptions stop here."""

import contextlib
import re
import select
import sys
from collections.abc import Callable
from dataclasses import dataclass
from importlib.machinery import PathFinder
from types import ModuleType
from typing import Any

from recipectl.errors import BusError

_SERVICE, _PATH = b"org.freedesktop.systemd1", b"/org/freedesktop/systemd1"
_MANAGER = b"org.freedesktop.systemd1.Manager"
_UNKNOWN = 2**64 - 1  # systemd's "accounting is off"


@dataclass(frozen=True)
class State:
    """What systemd knows of one unit; times in seconds since the epoch, memory in bytes."""

    name: str
    load_state: str
    active_state: str
    sub_state: str
    status_text: str = ""
    result: str = ""
    main_pid: int = 0
    since_sec: float | None = None
    restarts: int = 0
    memory_bytes: int | None = None
    exit_code: int = 0
    exit_status: int = 0
    drop_ins: tuple[str, ...] = ()
    assert_result: bool = True
    condition_result: bool = True

    @property
    def pausing(self) -> bool:
        """Ended, and about to be started again by Restart= (254 and newer also say auto-restart-queued)."""
        return self.sub_state.startswith("auto-restart")

    @property
    def word(self) -> str:
        """One word for people: loading, ready, or systemd's own."""
        if self.active_state == "activating":
            return "restarting" if self.pausing else "loading"
        return {"active": "ready", "deactivating": "stopping", "inactive": "stopped"}.get(
            self.active_state, self.active_state
        )

    @property
    def mark(self) -> str | None:
        """The digest of the unit that the engine was started with, as the poller told it in STATUS=."""
        found = re.search(r"\[([0-9a-f]{12})\]", self.status_text)
        return found[1] if found else None


# Property -> (interface, D-Bus type, field of State, from the bus's value).
_PROPERTIES: tuple[tuple[bytes, bytes, bytes, str, Callable[[Any], Any]], ...] = (
    (b"Service", b"StatusText", b"s", "status_text", bytes.decode),
    (b"Service", b"MainPID", b"u", "main_pid", int),
    (b"Service", b"NRestarts", b"u", "restarts", int),
    (b"Service", b"Result", b"s", "result", bytes.decode),
    (b"Service", b"ExecMainCode", b"i", "exit_code", int),
    (b"Service", b"ExecMainStatus", b"i", "exit_status", int),
    (b"Service", b"MemoryCurrent", b"t", "memory_bytes", lambda n: None if n == _UNKNOWN else n),
    (b"Unit", b"StateChangeTimestamp", b"t", "since_sec", lambda usec: usec / 1e6 or None),
    (b"Unit", b"DropInPaths", b"as", "drop_ins", lambda paths: tuple(path.decode() for path in paths)),
    (b"Unit", b"AssertResult", b"b", "assert_result", bool),
    (b"Unit", b"ConditionResult", b"b", "condition_result", bool),
)


class Manager:
    """The system manager, or the caller's own; not safe for threads (pystemd holds the GIL in every call)."""

    def __init__(self, *, user: bool, host: str | None = None) -> None:
        _without_lxml()
        try:
            from pystemd.dbusexc import DBusBaseError
        except ImportError as error:
            raise BusError(
                f"pystemd cannot be loaded ({error}); install it with recipectl: pip install ."
            ) from error
        self.user = user
        self._bus = _connection(user, host)
        self._jobs: dict[bytes, str] = {}
        try:
            self._bus.open()
        except (DBusBaseError, OSError) as error:
            remedy = (
                "log in with a session that has one, or use the system manager" if user else "is it booted?"
            )
            raise BusError(f"no systemd to talk to over D-Bus ({_words(error)}); {remedy}") from error
        if host:
            try:
                self.version()  # ssh itself fails at the first question only
            except BusError as error:
                raise BusError(
                    f"no systemd on {host} ({error}); does `ssh {host} systemd-stdio-bridge` work?"
                ) from error

    def __enter__(self) -> "Manager":
        return self

    def __exit__(self, *_: object) -> None:
        self._bus.close()

    def _call(self, method: bytes, signature: bytes = b"", *arguments: Any, path: bytes = _PATH,
              interface: bytes = _MANAGER) -> Any:  # fmt: skip
        from pystemd.dbusexc import DBusBaseError
        from pystemd.dbuslib import apply_signature

        try:
            prepared = apply_signature(signature, list(arguments)) if signature else []
            return self._bus.call_method(_SERVICE, path, interface, method, prepared).body
        except DBusBaseError as error:
            text = _words(error)
            if "Access denied" in text or "authentication" in text or "not authorized" in text.lower():
                text += "; run it as root (sudo), or with --user for units of your own"
            raise BusError(text) from error

    def _watch_jobs(self) -> None:
        if hasattr(self, "_callback"):
            return

        def removed(message: Any, error: Any = None, userdata: Any = None) -> None:
            message.process_reply(False)
            _, path, _, result = message.body
            self._jobs[path] = result.decode()

        # pystemd keeps no reference to a callback, and one that was collected crashes the process.
        self._callback = removed
        from pystemd.dbusexc import DBusBaseError

        try:
            self._bus.match_signal(_SERVICE, _PATH, _MANAGER, b"JobRemoved", removed, None)
        except DBusBaseError as error:
            raise BusError(_words(error)) from error
        self._call(b"Subscribe")

    def queue(self, verb: str, unit: str) -> bytes:
        """Queue the Start, Stop or Restart of a unit; returns the job, for `result`."""
        self._watch_jobs()
        try:
            job: bytes = self._call(verb.encode() + b"Unit", b"ss", unit.encode(), b"replace")
        except BusError as error:
            if verb != "Stop" or "not loaded" not in str(error):
                raise
            job = b"not loaded"  # so there is nothing to stop
            self._jobs[job] = "done"
        return job

    def result(self, job: bytes, tick: Callable[[], None] | None = None) -> str:
        """Wait for the end of a job: systemd's result of it (`done` when it went well)."""
        from pystemd.dbusexc import DBusBaseError

        while job not in self._jobs:
            try:
                empty, descriptor = self._bus.process().is_empty(), self._bus.get_fd()
            except DBusBaseError as error:
                raise BusError(f"the connection to systemd was lost ({_words(error)}); ask again") from error
            if empty:
                if descriptor < 0:
                    raise BusError("the connection to systemd was lost; ask again")
                select.select([descriptor], [], [], 0.2)
                if tick:
                    tick()
        return self._jobs[job]

    def job(self, verb: str, unit: str) -> str:
        """Run one job to its end; returns systemd's result."""
        return self.result(self.queue(verb, unit))

    def reload(self) -> None:
        """daemon-reload; returns when it is done."""
        self._call(b"Reload")

    def reset_failed(self, unit: str) -> None:
        """Forget a failure and the start limit's count."""
        self._call(b"ResetFailedUnit", b"s", unit.encode())

    def enable(self, units: tuple[str, ...]) -> None:
        """Make the links of [Install]; systemd sees them after a reload."""
        self._call(b"EnableUnitFiles", b"asbb", [unit.encode() for unit in units], False, True)

    def disable(self, units: tuple[str, ...]) -> None:
        """Remove the links of [Install]; systemd sees it after a reload."""
        self._call(b"DisableUnitFiles", b"asb", [unit.encode() for unit in units], False)

    def start_without_waiting(self, verb: str, unit: str) -> None:
        """Queue a job and return; a unit that has failed is forgiven first."""
        if verb in ("Start", "Restart"):
            with contextlib.suppress(BusError):  # a unit that is not loaded has nothing to forgive
                self.reset_failed(unit)
        self._call(verb.encode() + b"Unit", b"ss", unit.encode(), b"replace")

    def states(self, units: tuple[str, ...], *, brief: bool = False) -> tuple[State, ...]:
        """The state of each unit, loaded or not; `brief` asks once, for what a list shows."""
        if not brief:
            rows = self._call(b"ListUnitsByNames", b"as", [unit.encode() for unit in units]) if units else []
            return tuple(self._state(row, brief=False) for row in rows)
        # Only what is loaded is listed: a unit that is not there is stopped, and need not be read for this.
        rows = self._call(b"ListUnitsByPatterns", b"asas", [], [b"model-*"]) if units else []
        there = {row[0].decode(): row for row in rows}
        return tuple(
            self._state(there[unit], brief=True)
            if unit in there
            else State(unit, "unknown", "inactive", "dead")
            for unit in units
        )

    def _state(self, row: Any, *, brief: bool) -> State:
        name, load, active, sub = (word.decode() for word in (row[0], *row[2:5]))
        if active == "inactive" and (brief or load == "not-found"):
            return State(name, load, active, sub)
        wanted = _PROPERTIES[:2] if brief else _PROPERTIES
        if not name.endswith(".service"):
            wanted = tuple(one for one in wanted if one[0] == b"Unit")
        values = {
            field: read(self._property(row[6], interface, name_, type_))
            for interface, name_, type_, field, read in wanted
        }
        return State(name, load, active, sub, **values)

    def _property(self, path: bytes, interface: bytes, name: bytes, type_: bytes) -> Any:
        from pystemd.dbusexc import DBusBaseError

        try:
            return self._bus.get_property(_SERVICE, path, _SERVICE + b"." + interface, name, type_)
        except DBusBaseError as error:
            raise BusError(_words(error)) from error

    def command(self, unit: str) -> tuple[tuple[str, ...], dict[str, str]]:
        """The argv and the environment that systemd has loaded for a service, specifiers expanded."""
        row = self._call(b"ListUnitsByNames", b"as", [unit.encode()])[0]
        commands = self._property(row[6], b"Service", b"ExecStart", b"a(sasbttttuii)")
        pairs = self._property(row[6], b"Service", b"Environment", b"as")
        argv = tuple(_text(word) for word in commands[0][1]) if commands else ()
        return argv, dict(_text(pair).split("=", 1) for pair in pairs)

    def rivals(self, unit: str) -> tuple[str, ...]:
        """The models that a unit conflicts with, in either direction."""
        row = self._call(b"ListUnitsByNames", b"as", [unit.encode()])[0]
        found = [
            name.decode()
            for key in (b"Conflicts", b"ConflictedBy")
            for name in self._property(row[6], b"Unit", key, b"as")
        ]
        return tuple(sorted({name for name in found if name.startswith("model-")}))

    def has_job(self, unit: str) -> bool:
        """Whether a job of the unit waits or runs."""
        return bool(self._call(b"ListUnitsByNames", b"as", [unit.encode()])[0][7])

    def version(self) -> int:
        """The manager's own major version."""
        text = self._property(_PATH, b"Manager", b"Version", b"s").decode()
        return int(re.split(r"[^0-9]", text)[0])


def _without_lxml() -> None:
    """Let `import pystemd.dbuslib` import that alone.

    The package itself imports its classes for interactive use, and they lxml: a seventh of a whole `status`.
    """
    spec = PathFinder.find_spec("pystemd")
    if spec and "pystemd" not in sys.modules:
        package = sys.modules["pystemd"] = ModuleType("pystemd")
        package.__path__ = spec.submodule_search_locations or []


def _text(word: bytes) -> str:
    return word.decode(errors="surrogateescape")


def _connection(user: bool, host: str | None) -> Any:
    # Not the manager's own socket, which systemctl takes: pystemd greets it as a bus, and is sent away.
    from pystemd.dbuslib import DBus, DBusRemote

    return DBusRemote(host.encode()) if host else DBus(user_mode=user)


def _words(error: BaseException) -> str:
    """What sd-bus said, without pystemd's own words around it (`b'System.Error.X'[err -2]: b'...'`)."""
    texts = [part.decode(errors="replace") if isinstance(part, bytes) else str(part) for part in error.args]
    said = next(
        (text for text in reversed(texts) if text and not text.lstrip("-").isdigit()), type(error).__name__
    )
    said = re.sub(r"^.*?\[err -?\d+\]: ", "", said.splitlines()[0])
    quoted = re.match(r"""b(['"])(.*?)\.?(\1|\Z)""", said)
    return quoted[2].replace("\\'", "'") if quoted else said
