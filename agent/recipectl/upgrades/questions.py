"""What an upgrade asks of an engine, each in a unit without privilege: only exit statuses come back."""

import contextlib
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from recipectl.compiler import units
from recipectl.compiler.model import ResolvedRecipe
from recipectl.engines import compare
from recipectl.errors import RecipectlError
from recipectl.files import remove
from recipectl.machine.installation import Installation
from recipectl.machine.runtime import Runtime
from recipectl.place import Place
from recipectl.recipe.hostfile import HostSettings
from recipectl.systemd.dbus import Manager
from recipectl.systemd.store import Store
from recipectl.systemd.unitfile import Unit, UnitNames


class Answer(NamedTuple):
    """How a unit ended: which command failed (from 1; 0 for none) with which status, and when it began."""

    well: bool
    failed: int
    status: int
    since_sec: float


def compare_runtimes(
    resolved: ResolvedRecipe, old: Runtime, settings: HostSettings, installation: Installation
) -> Unit:
    """The unit that asks the parsers of two runtimes about a recipe's words."""
    recipe = resolved.recipe
    given = compare.as_json(recipe.backend, resolved.words, recipe.extra_args, old, resolved.runtime)
    command = (sys.executable, "-I", "-m", "recipectl.engines.compare", given)
    return units.comparison(resolved, settings, installation, command)


def run_for_now(place: Place, manager: Manager, unit: Unit) -> Answer:
    """Run a unit that is there only while it runs."""
    store = Store(Path(place.runtime_folder, "systemd/user" if place.user else "systemd/system"))
    with contextlib.suppress(RecipectlError):  # one that a killed upgrade has left, or none
        manager.job("Stop", unit.name)
        manager.reset_failed(unit.name)
    try:
        store.write(unit)
        return run(manager, unit.name)
    finally:
        remove(store.folder / unit.name)
        with contextlib.suppress(RecipectlError):
            manager.reset_failed(unit.name)


def run(manager: Manager, unit: str, tick: Callable[[], None] | None = None) -> Answer:
    """Run an installed oneshot unit to its end."""
    since_sec = time.time()
    result = manager.result(manager.queue("Start", unit), tick)
    if result == "done":
        return Answer(True, 0, 0, since_sec)
    return Answer(False, manager.failed_command(unit), manager.states((unit,))[0].exit_status, since_sec)


def ask_canaries(
    place: Place,
    manager: Manager,
    resolved: ResolvedRecipe,
    settings: HostSettings,
    installation: Installation,
) -> Answer:
    """Is it the right model, and does it pass its canaries? By the unit of its recipe, where it has one."""
    name = UnitNames(resolved.name).canaries
    if Store(place.unit_folder).read(name):
        return run(manager, name)
    return run_for_now(place, manager, units.questions(resolved, settings, installation))
