"""What an upgrade asks of an engine, each in a unit without privilege: only exit statuses come back."""

import contextlib
import sys
import time
from pathlib import Path
from typing import NamedTuple

from recipectl.compiler import units
from recipectl.engines import compare
from recipectl.errors import JobError, RecipectlError
from recipectl.files import remove
from recipectl.machine.runtime import Runtime
from recipectl.place import Place
from recipectl.systemd.dbus import Manager
from recipectl.systemd.store import Store
from recipectl.systemd.unitfile import Unit, UnitNames
from recipectl.upgrades.steps import CompiledRecipe


class Outcome(NamedTuple):
    """How a unit ended: which command failed (from 1; 0 for none) with which status, and when it began."""

    well: bool
    failed: int
    status: int
    since_sec: float

    @property
    def fault(self) -> str:
        """What is wrong with a model by its canaries: the first command asks whether it is the right one."""
        if self.failed == 1 and self.status == 1:
            return "the engine does not serve the model of the recipe"
        if self.failed > 1:
            return f"canary {self.failed - 1} has failed (status {self.status})"
        return f"its canaries could not be asked (status {self.status})"


def compare_runtimes(compiled: CompiledRecipe, old: Runtime) -> Unit:
    """The unit that asks the parsers of two runtimes about a recipe's words."""
    resolved, settings, installation = compiled
    recipe = resolved.recipe
    message = compare.as_json(recipe.backend, resolved.words, recipe.extra_args, old, resolved.runtime)
    command = (sys.executable, "-I", "-m", "recipectl.engines.compare", message)
    return units.comparison(resolved, settings, installation, command)


def run_for_now(place: Place, manager: Manager, unit: Unit) -> Outcome:
    """Run a unit that is there only while it runs."""
    store = _store(place)
    _end(store, manager, unit.name)  # one that a killed upgrade has left
    try:
        store.write(unit)
        return run_unit(manager, unit.name)
    finally:
        _end(store, manager, unit.name)


def _store(place: Place) -> Store:
    """The folder of units that are gone after a reboot."""
    return Store(Path(place.runtime_folder, "systemd/user" if place.user else "systemd/system"))


def _end(store: Store, manager: Manager, unit: str) -> None:
    with contextlib.suppress(RecipectlError):  # it is not loaded
        manager.job("Stop", unit)
        manager.reset_failed(unit)
    remove(store.folder / unit)


def end(place: Place, manager: Manager, model: str) -> None:
    """End the questions of an upgrade that was killed."""
    names = UnitNames(model)
    _end(_store(place), manager, names.check)
    _end(_store(place), manager, names.canaries)


def run_unit(manager: Manager, unit: str) -> Outcome:
    """Run an installed oneshot unit to its end; JobError when somebody cancels that."""
    since_sec = time.time()
    result = manager.result(manager.queue("Start", unit))
    if result == "canceled":
        raise JobError(f"somebody cancelled the start of {unit}")
    if result == "done":
        return Outcome(True, 0, 0, since_sec)
    failed = manager.failed_command(unit)
    return Outcome(False, failed.number if failed else 0, manager.state(unit).exit_status, since_sec)


def ask_canaries(place: Place, manager: Manager, compiled: CompiledRecipe) -> Outcome:
    """Is it the right model, and does it pass its canaries? By the unit of its recipe, where it has one."""
    name = UnitNames(compiled.resolved.name).canaries
    manager.job("Stop", name)  # its last answer may be the old engine's
    if Store(place.unit_folder).read(name):
        return run_unit(manager, name)
    return run_for_now(place, manager, units.questions(*compiled))
