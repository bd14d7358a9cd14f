"""systemd over D-Bus. The only module that imports pystemd; its exceptions stop here."""

import contextlib
import re
import select
import shutil
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Self

from recipectl.errors import BusError
from recipectl.place import Place
from recipectl.systemd.refusal import Refusal
from recipectl.systemd.states import CONDITIONS, FailedCommand, UnitRow, UnitState, failed_command, properties
from recipectl.systemd.unitfile import is_companion
from recipectl.text import names_in_words

_SERVICE = b"org.freedesktop.systemd1"
_PATH = b"/org/freedesktop/systemd1"
_MANAGER = b"org.freedesktop.systemd1.Manager"
_POLL_SEC = 0.2
_text = partial(bytes.decode, errors="surrogateescape")
_NOT_LOADED = b""  # stands for the job that stops a unit that is not loaded: there is none


class Manager:
    """The system manager, the caller's own, or another host's over ssh.

    The first request opens the connection; a lost one is opened once more. Its methods may raise BusError.
    Not safe for threads: pystemd holds the GIL in every call.
    """

    def __init__(self, place: Place) -> None:
        self.place = place
        # pystemd keeps the address of these bytes and no reference: ssh got an empty name from freed ones.
        self._host_bytes = place.remote.encode() if place.remote else b""
        self._connection: Any = None
        self._results: dict[bytes, str] = {}
        self._callback: Callable[..., None] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._close()

    def _close(self) -> None:
        if self._connection is not None:
            self._connection.close()
        self._connection = self._callback = None

    def _open(self) -> Any:
        if self._connection is None:
            try:
                # Not the manager's own socket, which systemctl uses: it refuses pystemd's greeting of a bus.
                from pystemd.dbuslib import DBus, DBusRemote
            except ImportError as error:
                remedy = "install it with recipectl: pip install ."
                raise BusError(f"pystemd cannot be loaded ({error}); {remedy}") from error
            connection = DBusRemote(self._host_bytes) if self._host_bytes else DBus(user_mode=self.place.user)
            try:
                _attempt(connection.open)
            except Refusal as refusal:
                raise BusError(
                    f"there is no connection to {self._whose} ({refusal}); {self._remedy}"
                ) from refusal
            self._connection = connection
        return self._connection

    @property
    def _whose(self) -> str:
        own = "your own service manager" if self.place.user else "systemd"
        return f"systemd on {self.place.remote}" if self.place.remote else own

    @property
    def _remedy(self) -> str:
        if host := self.place.remote:
            return f"try `ssh {host} systemd-stdio-bridge`" if shutil.which("ssh") else "install ssh"
        own = "log in with a session that has one (loginctl enable-linger), or use the system manager"
        return own if self.place.user else "check that systemd is PID 1 and that D-Bus runs"

    def _request(self, purpose: str, request: Callable[[Any], Any], *, members_may: bool = False) -> Any:
        """Make one request, once more after a lost connection.

        `purpose` names it in an error. `members_may`: the polkit rule lets the group models do it.
        """
        # If the first ssh connection fails, a second one would fail for the same reason.
        may_reconnect = not self.place.remote or self._connection is not None
        try:
            return _attempt(request, self._open())
        except Refusal as refusal:
            if not (refusal.lost and may_reconnect):
                raise self._error(purpose, refusal, members_may=members_may) from refusal
        subscribed = self._callback is not None
        self._close()
        if subscribed:
            self._subscribe()
        try:
            return _attempt(request, self._open())
        except Refusal as refusal:
            raise self._error(purpose, refusal, members_may=members_may) from refusal

    def _error(self, purpose: str, refusal: Refusal, *, members_may: bool) -> BusError:
        remedy = self._remedy if refusal.lost else refusal.remedy(members_may=members_may)
        return BusError("; ".join(filter(None, (f"{self._whose} did not {purpose}: {refusal}", remedy))))

    def _call(
        self, purpose: str, method: bytes, signature: bytes = b"", *arguments: Any, members_may: bool = False
    ) -> Any:
        def call(bus: Any) -> Any:
            from pystemd.dbuslib import apply_signature

            prepared = apply_signature(signature, list(arguments)) if signature else []
            return bus.call_method(_SERVICE, _PATH, _MANAGER, method, prepared).body

        return self._request(purpose, call, members_may=members_may)

    def _property(self, path: bytes, interface: bytes, name: bytes, type_: bytes) -> Any:
        return self._request(
            f"give the property {name.decode()}",
            lambda bus: bus.get_property(_SERVICE, path, _SERVICE + b"." + interface, name, type_),
        )

    def _subscribe(self) -> None:
        """Receive the results of jobs from now on."""
        if self._callback is not None:
            return

        def removed(message: Any, error: Any = None, userdata: Any = None) -> None:
            message.process_reply(False)
            _, path, _, result = message.body
            self._results[path] = result.decode()

        self._request(
            "report jobs",
            lambda bus: bus.match_signal(_SERVICE, _PATH, _MANAGER, b"JobRemoved", removed, None),
        )
        # pystemd keeps no reference to a callback, and one that was collected crashes the process.
        self._callback = removed
        self._call("report jobs", b"Subscribe")

    def queue(self, verb: str, unit: str) -> bytes:
        """Queue the Start, Stop or Restart of a unit; returns the job, for `result`."""
        self._subscribe()
        if verb == "Stop" and not self._row(unit).can_be_stopped:
            return _NOT_LOADED
        return bytes(self._queue(verb, unit))

    def _queue(self, verb: str, unit: str) -> Any:
        method, purpose = f"{verb}Unit".encode(), f"{verb.lower()} {unit}"
        return self._call(purpose, method, b"ss", unit.encode(), b"replace", members_may=True)

    def result(self, job: bytes) -> str:
        """Wait for the end of a job; returns systemd's result, `done` when it went well."""
        while job != _NOT_LOADED and job not in self._results:
            try:
                nothing_to_read = _attempt(self._open().process).is_empty()
                descriptor = _attempt(self._open().get_fd)
            except Refusal as refusal:
                raise self._lost() from refusal
            if descriptor < 0:
                raise self._lost()
            if nothing_to_read:
                select.select([descriptor], [], [], _POLL_SEC)
        return self._results.get(job, "done")

    def _lost(self) -> BusError:
        fault = f"the connection to {self._whose} was lost before the job ended; the job goes on"
        return BusError(f"{fault}; see `{self.place.verb('status')}`")

    def job(self, verb: str, unit: str) -> str:
        """Run one job to its end; returns systemd's result."""
        return self.result(self.queue(verb, unit))

    def start_without_waiting(self, verb: str, unit: str) -> None:
        """Queue a job and return. The start limit of a unit that has failed is reset first."""
        self.reset_failed(unit)
        self._queue(verb, unit)

    def reload(self) -> None:
        """daemon-reload; returns when it is done."""
        self._call("reload its units", b"Reload")

    def reset_failed(self, unit: str) -> None:
        """Forget a failure and the start limit's count. Errors are left to the request that follows."""
        with contextlib.suppress(BusError):
            self._call(f"reset {unit}", b"ResetFailedUnit", b"s", unit.encode(), members_may=True)

    def enable(self, units: Sequence[str]) -> None:
        """Make the links of [Install]; systemd sees them after a reload."""
        names = [unit.encode() for unit in units]
        self._call(f"enable {' '.join(units)}", b"EnableUnitFiles", b"asbb", names, False, True)

    def disable(self, units: Sequence[str]) -> None:
        """Remove the links of [Install]; systemd sees it after a reload."""
        names = [unit.encode() for unit in units]
        self._call(f"disable {' '.join(units)}", b"DisableUnitFiles", b"asb", names, False)

    def states(self, units: Sequence[str], *, brief: bool = False) -> tuple[UnitState, ...]:
        """The state of each unit, loaded or not; `brief` asks once, for what a list shows."""
        if not units:
            return ()
        purpose = f"give the state of {names_in_words(units, 1)}"
        if brief:
            # Only loaded units are listed; a unit that is not loaded is stopped.
            rows = self._call(purpose, b"ListUnitsByPatterns", b"asas", [], [b"model-*", b"models-*"])
        else:
            rows = self._call(purpose, b"ListUnitsByNames", b"as", [unit.encode() for unit in units])
        by_name = {row[0].decode(): UnitRow(*row) for row in rows}
        missing = "unloaded" if brief else "not-found"
        return tuple(
            self._state(by_name[unit], brief=brief)
            if unit in by_name
            else UnitState(unit, missing, "inactive", "dead")
            for unit in units
        )

    def state(self, unit: str, *, brief: bool = False) -> UnitState:
        """As `states`, of one unit."""
        return self.states((unit,), brief=brief)[0]

    def _state(self, row: UnitRow, *, brief: bool) -> UnitState:
        words = (row.name, row.load_state, row.active_state, row.sub_state)
        name, load, active, sub = (word.decode() for word in words)
        if active == "inactive" and (brief or load == "not-found"):
            return UnitState(name, load, active, sub, job=row.job_type.decode())
        fields = {
            item.field: item.convert(self._property(row.path, item.interface, item.name, item.type))
            for item in properties(active, brief=brief)
            if name.endswith(".service") or item.interface == b"Unit"
        }
        if not fields.get("condition_result", True):
            fields["failed_checks"] = CONDITIONS.convert(
                self._property(row.path, CONDITIONS.interface, CONDITIONS.name, CONDITIONS.type)
            )
        return UnitState(name, load, active, sub, job=row.job_type.decode(), **fields)

    def _row(self, unit: str) -> UnitRow:
        rows = self._call(f"describe {unit}", b"ListUnitsByNames", b"as", [unit.encode()])
        if not rows:
            raise BusError(f"`{unit}` is not a unit's name; correct it")
        return UnitRow(*rows[0])

    def loaded_command(self, unit: str) -> tuple[tuple[str, ...], dict[str, str]]:
        """The argv and the environment that systemd has loaded for a service, specifiers expanded."""
        path = self._row(unit).path
        commands = self._property(path, b"Service", b"ExecStart", b"a(sasbttttuii)")
        pairs = self._property(path, b"Service", b"Environment", b"as")
        argv = tuple(_text(word) for word in commands[0][1]) if commands else ()
        return argv, dict(_text(pair).split("=", 1) for pair in pairs)

    def failed_command(self, unit: str) -> FailedCommand | None:
        """The ExecStart= of a oneshot unit that has failed; None where none tells."""
        path = self._row(unit).path
        return failed_command(self._property(path, b"Service", b"ExecStart", b"a(sasbttttuii)"))

    def rivals(self, unit: str) -> tuple[str, ...]:
        """The models that a unit conflicts with, in either direction."""
        return self._related(unit, b"Conflicts", b"ConflictedBy")

    def requirements(self, unit: str) -> tuple[str, ...]:
        """The models that a unit requires: they are started with it."""
        return self._related(unit, b"Requires")

    def dependents(self, unit: str) -> tuple[str, ...]:
        """The models that are stopped with a unit, because they require it."""
        names = self._related(unit, b"RequiredBy", b"BoundBy", b"ConsistsOf")
        return tuple(name for name in names if name.endswith(".service") and not is_companion(name))

    def _related(self, unit: str, *relations: bytes) -> tuple[str, ...]:
        """The units of models in some properties of a unit."""
        path = self._row(unit).path
        lists = (self._property(path, b"Unit", relation, b"as") for relation in relations)
        names = {name.decode() for some in lists for name in some}
        return tuple(sorted(name for name in names if name.startswith("model-")))

    def model_services(self) -> tuple[str, ...]:
        """The names of all services of models that have a file, loaded or not."""
        rows = self._call("list units", b"ListUnitFilesByPatterns", b"asas", [], [b"model-*.service"])
        return tuple(sorted({row[0].decode().rpartition("/")[2] for row in rows}))

    def without_a_file(self) -> tuple[str, ...]:
        """The units of models that run although their file is gone."""
        rows = self._call("list units", b"ListUnitsByPatterns", b"asas", [b"not-found"], [b"model-*"])
        return tuple(row[0].decode() for row in rows if row[3] not in (b"inactive", b"failed"))

    def version(self) -> int:
        """The manager's own major version."""
        return int(re.split(r"[^0-9]", self._property(_PATH, b"Manager", b"Version", b"s").decode())[0])


def _attempt(request: Callable[..., Any], *arguments: Any) -> Any:
    """Make a call into pystemd; Refusal when it fails."""
    from pystemd.dbusexc import DBusBaseError

    try:
        return request(*arguments)
    except (DBusBaseError, OSError) as error:
        raise Refusal(error) from error
