"""systemd over D-Bus. The only module that imports pystemd; bytes and its exceptions stop here."""

import re
import select
from collections.abc import Callable
from dataclasses import dataclass
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
    result: str = ""
    main_pid: int = 0
    since_sec: float | None = None
    restarts: int = 0
    memory_bytes: int | None = None
    status_text: str = ""
    exit_code: int = 0
    exit_status: int = 0
    unit_file_state: str = ""
    drop_ins: tuple[str, ...] = ()
    assert_result: bool = True

    @property
    def word(self) -> str:
        """One word for people: loading, ready, or systemd's own."""
        if self.active_state == "activating":
            return "restarting" if self.sub_state == "auto-restart" else "loading"
        return {"active": "ready", "deactivating": "stopping", "inactive": "stopped"}.get(
            self.active_state, self.active_state
        )


class Manager:
    """The system manager, or the caller's own; not safe for threads (pystemd holds the GIL in every call)."""

    def __init__(self, *, user: bool) -> None:
        try:
            from pystemd.dbusexc import DBusBaseError
            from pystemd.dbuslib import DBus
        except ImportError as error:
            raise BusError(
                f"pystemd cannot be loaded ({error}); install it with recipectl: pip install ."
            ) from error
        self.user = user
        self._bus = DBus(user_mode=user)
        self._jobs: dict[bytes, str] = {}
        try:
            self._bus.open()
        except (DBusBaseError, OSError) as error:
            remedy = (
                "log in with a session that has one, or use the system manager" if user else "is it booted?"
            )
            raise BusError(f"no systemd to talk to over D-Bus ({_words(error)}); {remedy}") from error

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
        self._bus.match_signal(_SERVICE, _PATH, _MANAGER, b"JobRemoved", removed, None)
        self._call(b"Subscribe")

    def job(self, verb: str, unit: str, tick: Callable[[], None] | None = None) -> str:
        """Start, Stop or Restart a unit and wait: systemd's result of the job (`done` when it went well)."""
        self._watch_jobs()
        path = self._call(verb.encode() + b"Unit", b"ss", unit.encode(), b"replace")
        while path not in self._jobs:
            if self._bus.process().is_empty():
                select.select([self._bus.get_fd()], [], [], 0.2)
                if tick:
                    tick()
        return self._jobs.pop(path)

    def reload(self) -> None:
        """daemon-reload; returns when it is done."""
        self._call(b"Reload")

    def reset_failed(self, unit: str) -> None:
        """Forget a failure and the start limit's count."""
        self._call(b"ResetFailedUnit", b"s", unit.encode())

    def enable(self, units: tuple[str, ...]) -> None:
        """Make the links of [Install]."""
        self._call(b"EnableUnitFiles", b"asbb", [unit.encode() for unit in units], False, True)
        self.reload()

    def disable(self, units: tuple[str, ...]) -> None:
        """Remove the links of [Install]."""
        self._call(b"DisableUnitFiles", b"asb", [unit.encode() for unit in units], False)
        self.reload()

    def states(self, units: tuple[str, ...]) -> tuple[State, ...]:
        """The state of each unit, loaded or not."""
        rows = self._call(b"ListUnitsByNames", b"as", [unit.encode() for unit in units]) if units else []
        return tuple(self._state(row) for row in rows)

    def _state(self, row: Any) -> State:
        name, load, active, sub = (word.decode() for word in (row[0], *row[2:5]))
        if load == "not-found" and active == "inactive":
            return State(name, load, active, sub)
        got = {
            key.decode(): value
            for interface in (b"Unit", b"Service")
            for key, value in self._call(
                b"GetAll", b"s", _SERVICE + b"." + interface, path=row[6],
                interface=b"org.freedesktop.DBus.Properties",
            ).items()
        }  # fmt: skip
        memory = got.get("MemoryCurrent", _UNKNOWN)
        return State(
            name, load, active, sub,
            result=got["Result"].decode(), main_pid=got["MainPID"],
            since_sec=got["StateChangeTimestamp"] / 1e6 or None, restarts=got["NRestarts"],
            memory_bytes=None if memory == _UNKNOWN else memory, status_text=got["StatusText"].decode(),
            exit_code=got["ExecMainCode"], exit_status=got["ExecMainStatus"],
            unit_file_state=got["UnitFileState"].decode(),
            drop_ins=tuple(path.decode() for path in got["DropInPaths"]),
            assert_result=bool(got["AssertResult"]),
        )  # fmt: skip


def _words(error: BaseException) -> str:
    """What sd-bus said, without pystemd's own words around it (`[err -2]: ...`)."""
    texts = [part.decode(errors="replace") if isinstance(part, bytes) else str(part) for part in error.args]
    said = next(
        (text for text in reversed(texts) if text and not text.lstrip("-").isdigit()), type(error).__name__
    )
    said = re.sub(r"^\[err -?\d+\]: ", "", said).splitlines()[0]
    return re.sub(r"^b'(.*?)\.?'$", r"\1", said)
