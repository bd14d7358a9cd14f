"""Carrying out a plan."""

from typing import Protocol

from recipectl.plan import Plan
from recipectl.store import Store


class Manager(Protocol):
    """The part of systemd's manager that a plan needs."""

    def job(self, verb: str, unit: str) -> str:
        """Run a job to its end and return systemd's result."""

    def reload(self) -> None:
        """daemon-reload."""

    def disable(self, units: tuple[str, ...]) -> None:
        """Remove the links of [Install]."""


def apply(plan: Plan, store: Store, manager: Manager) -> None:
    """Stop what goes, write what differs, one daemon-reload; an empty plan touches nothing."""
    for name in plan.remove:
        manager.job("Stop", name)
        manager.disable((name,))
        store.remove(name)
    for unit in plan.write:
        store.write(unit)
    if plan:
        manager.reload()
