"""Carrying out a plan."""

import subprocess
from collections.abc import Callable, Sequence
from typing import Protocol

from recipectl.errors import RecipectlError
from recipectl.plan import Action, Plan
from recipectl.store import Store


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
    Stop what goes, write what differs, enable, one daemon-reload, then queue restarts and starts.

    Every step can be repeated: whatever is interrupted, the next plan has what is left. Models load after
    this returns (`wait` waits for them); RecipectlError when a socket cannot listen.
    """
    if names := plan.of("create user"):
        make_users(names)
    changes = plan.of("write", "remove", "enable", "disable", "reload")
    if changes:
        store.owe_reload()
    # A socket goes before what it starts, or a request brings that back.
    for name in sorted(plan.of("remove"), key=lambda name: not name.endswith((".socket", ".timer"))):
        manager.job("Stop", name)
        manager.disable((name,))
        store.remove(name)
    if plan.units:
        store.write(*plan.units)
    if names := plan.of("enable"):
        manager.enable((*names, "models.target"))
    if names := plan.of("disable"):
        manager.disable(names)
    if changes:
        manager.reload()
        store.reloaded()
    for verb in ("restart", "start"):
        for name in plan.of(verb):
            manager.start_without_waiting(verb.capitalize(), name)
    for action in plan.actions:
        said(action)
    # A socket is there at once or not at all: a client must find it when this returns.
    sockets = [name for name in plan.of("restart", "start") if name.endswith(".socket")]
    deaf = [name for name in sockets if manager.job("Start", name) != "done"]
    if deaf:
        raise RecipectlError(
            f"{', '.join(deaf)} could not listen; is the port taken? See systemctl status {deaf[0]}"
        )


def make_users(names: Sequence[str]) -> None:
    """Make system users with systemd-sysusers(8), which leaves those alone that are there."""
    lines = "".join(f'u {name} - "LLM inference" /var/lib/models\n' for name in names)
    words = ["systemd-sysusers", "-"]
    made = subprocess.run(words, input=lines, capture_output=True, text=True, check=False)  # noqa: S603
    if made.returncode:
        raise RecipectlError(f"the user {', '.join(names)} could not be made: {made.stderr.strip()}")
