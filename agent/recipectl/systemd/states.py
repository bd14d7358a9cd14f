"""What systemd says about one unit, as values."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

_UNLIMITED = 2**64 - 1  # of a time; of MemoryCurrent=, where nothing is counted


class FailedCommand(NamedTuple):
    """A command of a unit that ended with an error; its number counts from 1."""

    number: int
    words: tuple[str, ...]
    status: int  # the number of a signal, where one ended it
    started_sec: float | None


class FailedCheck(NamedTuple):
    """An Assert… or Condition… that was not met, for example `AssertPathExists=/x`."""

    setting: str
    value: str

    def __str__(self) -> str:
        return f"{self.setting}={self.value}"


@dataclass(frozen=True)
class UnitState:
    """What systemd says about one unit; times in seconds since the epoch, memory in bytes."""

    name: str
    load_state: str
    active_state: str
    sub_state: str
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
    started_sec: float | None = None  # of the main process
    ended_sec: float | None = None
    ready_sec: float | None = None  # when the unit became active last
    start_limit_sec: float | None = None  # TimeoutStartSec=
    start_limit_burst: int = 0
    failed_command: FailedCommand | None = None  # the ExecStartPre= that kept the main process from its start
    failed_checks: tuple[FailedCheck, ...] = ()
    job: str = ""  # that waits, or is run: start, restart, stop

    @property
    def waits_to_restart(self) -> bool:
        """True while Restart= waits to start it again; 254 and newer also say auto-restart-queued."""
        return self.sub_state.startswith("auto-restart")

    @property
    def is_down(self) -> bool:
        """True if no process of it runs, and systemd starts none by itself."""
        return self.active_state in ("inactive", "failed")

    @property
    def will_stop(self) -> bool:
        """True if a job is to stop it. While a queue drains, the job waits, and the model runs."""
        return self.job in ("stop", "restart")

    @property
    def word(self) -> str:
        """One word for people: loading, ready, restarting, stopping, stopped, or systemd's own.

        A stop waits while a queue drains: the model runs, and takes no new requests.
        """
        if self.active_state == "active" and self.will_stop:
            return "stopping" if self.job == "stop" else "restarting"
        if self.active_state == "activating":
            return "restarting" if self.waits_to_restart else "loading"
        words = {"active": "ready", "deactivating": "stopping", "inactive": "stopped"}
        return words.get(self.active_state, self.active_state)

    @property
    def crashes(self) -> int:
        """How often systemd has started it again so far, while it is not up."""
        return self.restarts if self.active_state == "activating" else 0

    @property
    def shown(self) -> str:
        """The word, with the count of a model between two crashes."""
        return f"{self.word} (crash {self.crashes})" if self.crashes else self.word


class UnitRow(NamedTuple):
    """One unit in the answer of ListUnits (org.freedesktop.systemd1(5))."""

    name: bytes
    description: bytes
    load_state: bytes
    active_state: bytes
    sub_state: bytes
    following: bytes
    path: bytes
    job_id: int
    job_type: bytes
    job_path: bytes

    @property
    def can_be_stopped(self) -> bool:
        """False for a unit that systemd cannot load and that does not run: there is nothing to stop."""
        broken = self.load_state in (b"not-found", b"error", b"bad-setting")
        return not broken or self.active_state != b"inactive"


def _span_sec(usec: int) -> float | None:
    return None if usec == _UNLIMITED else usec / 1e6


def _time_sec(usec: int) -> float | None:
    return usec / 1e6 or None


def failed_command(commands: Any) -> FailedCommand | None:
    """The first command that failed, of a property like ExecStart=; its code is 0 before its end."""
    for number, command in enumerate(commands, start=1):
        (_, argv, _, started_usec, *_, code, status) = command
        if code and (code, status) != (1, 0):
            words = tuple(word.decode(errors="replace") for word in argv)
            return FailedCommand(number, words, int(status), _time_sec(started_usec))
    return None


def _not_met(checks: Any) -> tuple[FailedCheck, ...]:
    """The checks that failed when they were made: (name, trigger, negated, parameter, result) each."""
    return tuple(
        FailedCheck(name.decode(), f"{'!' if negated else ''}{parameter.decode(errors='replace')}")
        for name, _, negated, parameter, result in checks
        if result < 0
    )


class Property(NamedTuple):
    """A property on D-Bus, the field of UnitState that it becomes, and how its value is converted."""

    interface: bytes
    name: bytes
    type: bytes
    field: str
    convert: Callable[[Any], Any]


_MAIN_PID = Property(b"Service", b"MainPID", b"u", "main_pid", int)
_RESTARTS = Property(b"Service", b"NRestarts", b"u", "restarts", int)
_BRIEF = (_MAIN_PID,)  # enough for a list
_BRIEF_LOADING = (_MAIN_PID, _RESTARTS)  # of a unit that is not up yet
_ALL = (
    *_BRIEF_LOADING,
    Property(b"Service", b"Result", b"s", "result", bytes.decode),
    Property(b"Service", b"ExecMainCode", b"i", "exit_code", int),
    Property(b"Service", b"ExecMainStatus", b"i", "exit_status", int),
    Property(
        b"Service", b"MemoryCurrent", b"t", "memory_bytes", lambda size: None if size == _UNLIMITED else size
    ),
    Property(b"Service", b"ExecStartPre", b"a(sasbttttuii)", "failed_command", failed_command),
    Property(b"Service", b"ExecMainStartTimestamp", b"t", "started_sec", _time_sec),
    Property(b"Service", b"ExecMainExitTimestamp", b"t", "ended_sec", _time_sec),
    Property(b"Service", b"TimeoutStartUSec", b"t", "start_limit_sec", _span_sec),
    Property(b"Unit", b"StartLimitBurst", b"u", "start_limit_burst", int),
    Property(b"Unit", b"ActiveEnterTimestamp", b"t", "ready_sec", _time_sec),
    Property(b"Unit", b"StateChangeTimestamp", b"t", "since_sec", _time_sec),
    Property(
        b"Unit", b"DropInPaths", b"as", "drop_ins", lambda paths: tuple(path.decode() for path in paths)
    ),
    Property(b"Unit", b"AssertResult", b"b", "assert_result", bool),
    Property(b"Unit", b"ConditionResult", b"b", "condition_result", bool),
    Property(b"Unit", b"Asserts", b"a(sbbsi)", "failed_checks", _not_met),
)
CONDITIONS = Property(b"Unit", b"Conditions", b"a(sbbsi)", "failed_checks", _not_met)


def properties(active_state: str, *, brief: bool) -> tuple[Property, ...]:
    """What to ask systemd about a unit: all, or what a list shows."""
    if not brief:
        return _ALL
    return _BRIEF_LOADING if active_state == "activating" else _BRIEF
