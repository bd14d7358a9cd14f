"""Carrying out a plan."""

import subprocess
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Protocol

from recipectl.converge.plan import Action, Plan
from recipectl.errors import BusError, RecipectlError
from recipectl.systemd.store import Store


class Manager(Protocol):
    """The part of systemd's manager that a plan needs."""

    def job(self, verb: str, unit: str) -> str:
        """Run a job to its end and return systemd's result."""

    def start_without_waiting(self, verb: str, unit: str) -> None:
        """Queue a job and return."""

    def reload(self) -> None:
        """daemon-reload."""

    def enable(self, units: tuple[str, ...]) -> None:
        """Make the links of [Install]."""

    def disable(self, units: tuple[str, ...]) -> None:
        """Remove the links of [Install]."""


def apply(
    plan: Plan, store: Store, manager: Manager, said: Callable[[Action], None] = lambda _: None
) -> None:
    """
    Stop what goes, write what differs, enable, one daemon-reload, then stop, restart and start models.

    Every step can be repeated: whatever is interrupted, the next plan has what is left. Models load after
    this returns (`wait` waits for them). What one unit refuses stops no other; it is told at the end, as
    RecipectlError.
    """
    wrong: list[str] = []

    def each(verb: str, do: Callable[[str], str | None]) -> None:
        """Carry out the actions of a verb; `do` returns what went wrong."""
        for action in plan.actions:
            if action.verb == verb:
                try:
                    failed = do(action.unit)
                except BusError as error:
                    failed = f"{action.unit}: {error}"
                if failed:
                    wrong.append(failed)
                else:
                    said(action)

    if names := plan.of("create user"):
        make_users(names)
        each("create user", lambda _: None)
    changes = plan.of("write", "remove", "enable", "disable", "reload")
    if changes:
        store.owe_reload()

    def remove(unit: str) -> str | None:
        if failed := _ended(unit, manager.job("Stop", unit), "could not be stopped, and stays"):
            return failed
        manager.disable((unit,))
        store.remove(unit)
        return None

    # A socket goes before what it starts, or a request brings that back.
    ordered = sorted(plan.actions, key=lambda action: not action.unit.endswith((".socket", ".timer")))
    plan = replace(plan, actions=tuple(ordered))
    each("remove", remove)
    if plan.units:
        store.write(*plan.units)
        each("write", lambda _: None)
    each("enable", lambda unit: manager.enable((unit, "models.target")))
    each("disable", lambda unit: manager.disable((unit,)))
    if changes:
        manager.reload()
        store.reloaded()
        each("reload", lambda _: None)
    each("stop", lambda unit: _ended(unit, manager.job("Stop", unit), "could not be stopped"))
    each("restart", lambda unit: manager.start_without_waiting("Restart", unit))
    each("start", lambda unit: manager.start_without_waiting("Start", unit))
    # A socket is there at once or not at all: a client must find it when this returns.
    for unit in plan.of("restart", "start"):
        if unit.endswith(".socket") and (failed := _ended(unit, manager.job("Start", unit), "cannot listen")):
            wrong.append(f"{failed}; is its port taken?")
    if wrong:
        raise RecipectlError("\n".join(wrong))


def _ended(unit: str, result: str, what: str) -> str | None:
    """What to say of a job that did not end well."""
    return None if result == "done" else f"{unit} {what} (its job was {result}); see systemctl status {unit}"


def make_users(names: Sequence[str]) -> None:
    """Make system users with systemd-sysusers(8), which leaves those alone that are there."""
    lines = "".join(f'u {name} - "LLM inference" /var/lib/models\n' for name in names)
    words = ["systemd-sysusers", "-"]
    made = subprocess.run(words, input=lines, capture_output=True, text=True, check=False)  # noqa: S603
    if made.returncode:
        raise RecipectlError(f"the user {', '.join(names)} could not be made: {made.stderr.strip()}")
