"""What has changed since a unit was written, or since its engine ran last."""

import os
from collections.abc import Iterator
from pathlib import Path

from recipectl.compiler.cache import compile_place
from recipectl.converge import holds
from recipectl.converge.differences import changed_settings
from recipectl.errors import RecipectlError
from recipectl.machine import processes
from recipectl.place import Place
from recipectl.recipe import search
from recipectl.systemd.started import started_digest
from recipectl.systemd.states import UnitState
from recipectl.systemd.store import Store
from recipectl.systemd.unitfile import InstalledUnit


def of_recipe(place: Place, unit: InstalledUnit) -> str | None:
    """How the recipe differs from its units, in words; None when it does not, or cannot be read.

    It is compiled only if a file that it is made of was changed after its unit was written.
    """
    if held := holds.held(place).get(unit.recipe):
        return held.sentence
    store = Store(place.unit_folder)
    written_sec = _changed_sec(store.folder / unit.name)
    if all(_changed_sec(path) <= written_sec for path in _sources(place, unit)):
        return None
    try:
        result = compile_place(place)
    except RecipectlError:
        return None  # a wrong host file: the verbs that need it report it
    if unit.recipe in result.failures:
        return f"the recipe has errors; see `{place.verb('check')} {unit.recipe}`"
    model = next((model for model in result.models if model.name == unit.recipe), None)
    for compiled in model.units if model else ():
        installed = store.read(compiled.name)
        if installed is None or installed.text != compiled.text:
            change = changed_settings(installed.text if installed else "", compiled.text)
            return f"the recipe has changed ({change}); run `{place.verb('apply')}`"
    return None


def _sources(place: Place, unit: InstalledUnit) -> Iterator[Path]:
    """The files that a recipe is made of, and the folders whose names decide."""
    yield Path(unit.source)
    yield from place.recipe_folders
    yield from (folder / f"{unit.recipe}.yaml.d" for folder in place.recipe_folders)
    yield from search.drop_ins(unit.recipe, place.recipe_folders)
    yield from search.host_files(place.bases)


def _changed_sec(path: Path) -> float:
    """When a path was changed in any way, in seconds since the epoch; 0 where nothing is."""
    try:
        return os.stat(path).st_ctime  # noqa: PTH116
    except OSError:
        return 0.0


def of_running(place: Place, unit: InstalledUnit, state: UnitState) -> Iterator[str]:
    """How a model that runs differs from its unit and its recipe, in words."""
    restart = f"run `{place.verb('restart')} {unit.recipe}`"
    if change := of_recipe(place, unit):
        yield change
    elif unit.edited_by_hand:
        yield f"its unit was edited by hand; run `{place.verb('apply')}`"
    if started_digest(state.name, place.runtime_folder, user=place.user) not in (None, unit.digest):
        yield f"it was started with an older unit; {restart}"
    for secret in processes.rotated_secrets(state.main_pid, unit.secret_files):
        yield f"{secret} was changed since it was started; {restart}"


def since_last_run(place: Place, unit: InstalledUnit, state: UnitState) -> Iterator[str]:
    """What has changed since a model was started last, in words."""
    if change := of_recipe(place, unit):
        yield change
    yield from since_start(place, unit, state)


def since_start(place: Place, unit: InstalledUnit, state: UnitState) -> Iterator[str]:
    """What was changed on this host after a model was started last, in words."""
    started_sec = state.started_sec or 0
    if started_sec and _changed_sec(place.unit_folder / unit.name) > started_sec:
        yield "its unit was written after that start"
    program = Path(unit.program)
    packages = (path for path in program.parent.parent.glob("lib/python3*/site-packages/*.dist-info"))
    if started_sec and any(_changed_sec(path) > started_sec for path in packages):
        yield f"packages of {program.parent.parent} were installed after that start"
    for secret in unit.secret_files:
        if started_sec and _changed_sec(Path(secret)) > started_sec:
            yield f"{secret} was changed after that start"
