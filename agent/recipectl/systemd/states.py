"""What systemd says about one unit, as values."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

_ACCOUNTING_OFF = 2**64 - 1  # systemd's value of MemoryCurrent= where nothing is counted


@dataclass(frozen=True)
class UnitState:
    """What systemd says about one unit; times in seconds since the epoch, memory in bytes."""

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
    def waits_to_restart(self) -> bool:
        """True while Restart= waits to start it again; 254 and newer also say auto-restart-queued."""
        return self.sub_state.startswith("auto-restart")

    @property
    def word(self) -> str:
        """One word for people: loading, ready, restarting, stopping, stopped, or systemd's own."""
        if self.active_state == "activating":
            return "restarting" if self.waits_to_restart else "loading"
        words = {"active": "ready", "deactivating": "stopping", "inactive": "stopped"}
        return words.get(self.active_state, self.active_state)

    @property
    def started_digest(self) -> str | None:
        """The digest of the unit that the engine was started with; the helper puts it into STATUS=."""
        match = re.search(r"\[([0-9a-f]{12})\]", self.status_text)
        return match[1] if match else None


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


class Property(NamedTuple):
    """A property on D-Bus, the field of UnitState that it becomes, and how its value is converted."""

    interface: bytes
    name: bytes
    type: bytes
    field: str
    convert: Callable[[Any], Any]


# The first two are enough for a list.
BRIEF = (
    Property(b"Service", b"StatusText", b"s", "status_text", bytes.decode),
    Property(b"Service", b"MainPID", b"u", "main_pid", int),
)
ALL = (
    *BRIEF,
    Property(b"Service", b"NRestarts", b"u", "restarts", int),
    Property(b"Service", b"Result", b"s", "result", bytes.decode),
    Property(b"Service", b"ExecMainCode", b"i", "exit_code", int),
    Property(b"Service", b"ExecMainStatus", b"i", "exit_status", int),
    Property(
        b"Service",
        b"MemoryCurrent",
        b"t",
        "memory_bytes",
        lambda size: None if size == _ACCOUNTING_OFF else size,
    ),
    Property(b"Unit", b"StateChangeTimestamp", b"t", "since_sec", lambda usec: usec / 1e6 or None),
    Property(
        b"Unit", b"DropInPaths", b"as", "drop_ins", lambda paths: tuple(path.decode() for path in paths)
    ),
    Property(b"Unit", b"AssertResult", b"b", "assert_result", bool),
    Property(b"Unit", b"ConditionResult", b"b", "condition_result", bool),
)
