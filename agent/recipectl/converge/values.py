"""The values that survey, plan and apply pass to each other."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Literal

from recipectl.systemd.states import UnitState
from recipectl.systemd.unitfile import InstalledUnit, Unit

RUNNING = ("active", "activating", "reloading")


@dataclass(frozen=True)
class Survey:
    """What is on the host. `states` has all units of all models; `gone` is unit -> why it must go."""

    installed: Mapping[str, InstalledUnit]
    states: Mapping[str, UnitState]
    enabled: Collection[str] = ()
    silent_sockets: Collection[str] = ()  # active, while nobody listens at the recipe's address
    misleading: Collection[str] = ()  # units that show the gateway another address than the recipe's
    missing_users: Collection[str] = ()
    missing_groups: Collection[str] = ()
    started: Mapping[str, str | None] = field(default_factory=dict)  # service -> digest of its process's unit
    rotated: Collection[str] = ()  # services whose process has read a secret that was changed since
    missing_helper: str | None = None  # where the units' helper must be written
    other_helpers: Collection[str] = ()  # the files of other releases
    gone: Mapping[str, str] = field(default_factory=dict)
    reload_due: bool = False

    def is_up(self, unit: str) -> bool:
        """True if a unit runs, or is about to."""
        return unit in self.states and self.states[unit].active_state in RUNNING

    def is_coming_up(self, unit: str) -> bool:
        """True if a unit runs, or its start waits, as that of a helper does while its model loads."""
        return self.is_up(unit) or (unit in self.states and self.states[unit].job in ("start", "restart"))

    def failed(self, unit: str) -> bool:
        """True if a unit has failed."""
        return unit in self.states and self.states[unit].active_state == "failed"


# Those with `file`, and `reload service`, are the gateway's alone.
Verb = Literal[
    "create group", "create user", "write helper", "write", "remove", "reload", "enable", "disable", "stop",
    "restart", "start", "remove helper", "write file", "remove file", "reload service",
]  # fmt: skip


@dataclass(frozen=True)
class Action:
    """One thing to do and why."""

    verb: Verb
    unit: str
    reason: str


@dataclass(frozen=True)
class Plan:
    """Actions in the order in which they are done, and the units that are written."""

    actions: tuple[Action, ...] = ()
    units: tuple[Unit, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.actions)

    def of(self, *verbs: str) -> tuple[str, ...]:
        """What some verbs act on: units, users, groups or paths."""
        return tuple(action.unit for action in self.actions if action.verb in verbs)
