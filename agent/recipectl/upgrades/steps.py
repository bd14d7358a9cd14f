"""What an upgrade changes on the host, and how all of it is put back: files, units, and what runs."""

import contextlib
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

from recipectl.compiler import pipeline
from recipectl.compiler.model import ResolvedRecipe
from recipectl.compiler.preflight import current_lock, lock_contents
from recipectl.converge.apply import stop_together
from recipectl.converge.records import Before
from recipectl.converge.values import RUNNING
from recipectl.errors import RecipectlError, UsageError
from recipectl.files import read_bounded, remove, write_whole
from recipectl.machine import helperfile, lockfile
from recipectl.machine.disk import Disk
from recipectl.machine.installation import Installation, current_installation
from recipectl.place import Place
from recipectl.recipe import search
from recipectl.recipe.hostfile import HostSettings, load_host_settings
from recipectl.recipe.search import Source
from recipectl.recipe.trusted import content_for
from recipectl.systemd.dbus import Manager
from recipectl.systemd.store import Store
from recipectl.systemd.unitfile import Setting, Unit, UnitNames, parse_settings


class Verbs(NamedTuple):
    """What an upgrade has other verbs do: functions of cli, which is above this room."""

    make_runtime: Callable[[Place, str, ResolvedRecipe], Path]
    apply: Callable[[Place, str, Store, Manager], None]  # one recipe, with the lock of the store held
    refresh_gateway: Callable[[Place, Manager], object]
    start: Callable[[Place, Manager, str, str], bytes]  # queues the Start or Restart of a service
    reason: Callable[[Place, Manager, str, str], str]  # why a service did not start, by its job's result


class JobKeeper(Manager):
    """A manager that keeps the jobs which an apply does not wait for."""

    def __init__(self, place: Place) -> None:
        super().__init__(place)
        self.jobs: dict[str, bytes] = {}

    def start_without_waiting(self, verb: str, unit: str) -> None:
        """Queue a job, to be waited for later."""
        self.reset_failed(unit)
        self.jobs[unit] = self.queue(verb, unit)


class CompiledRecipe(NamedTuple):
    """One recipe as it would be compiled, and the host that it is compiled for."""

    resolved: ResolvedRecipe
    settings: HostSettings
    installation: Installation


def source_of(place: Place, model: str) -> Source:
    """The files of a recipe; UsageError where there is none."""
    source = search.source_of(model, place.recipe_folders)
    if source is None:
        raise UsageError(
            f"the recipe `{model}` is gone; put it back, or run `{place.verb('apply')}`", kind="file"
        )
    return source


def compiled(
    place: Place, source: Source, texts: Mapping[Path, bytes] | None = None, new: Iterable[Path] = ()
) -> CompiledRecipe:
    """A recipe with other texts of its files and with `new` drop-ins, without its lock."""
    content = content_for(place.owners)
    changed = texts or {}

    def overlaid(path: Path) -> bytes:
        return changed[path] if path in changed else content(path)

    drop_ins = sorted((*source.drop_ins, *new), key=lambda path: path.name)
    settings, _ = load_host_settings(search.host_files(place.bases), content)
    installation = current_installation(place)
    changed_source = source._replace(lock=None, drop_ins=tuple(drop_ins))
    return CompiledRecipe(
        pipeline.resolve(changed_source, settings, installation, Disk(overlaid)), settings, installation
    )


def snapshot(place: Place, manager: Manager, source: Source) -> Before:
    """A model as it is now."""
    store = Store(place.unit_folder)
    names = UnitNames(source.name)
    units = snapshot_units(place, source.name)
    every = (*names.every, *(_dependents(manager, names.service) if names.service in units else ()))
    up = (state.name for state in manager.states(every, brief=True) if state.active_state in RUNNING)
    lock = search.lock_of(source.file)
    files = {str(path): _text(path) for path in (lock, lockfile.venv_lock_beside(lock))}
    return Before(units, tuple(sorted(store.enabled() & {*names.every})), tuple(up), files)


def _dependents(manager: Manager, service: str) -> list[str]:
    """The models that are stopped with a model: those that require it, and those that require these."""
    dependents: list[str] = []
    todo = [service]
    while todo:
        new = [unit for unit in manager.dependents(todo.pop()) if unit not in dependents]
        dependents += new
        todo += new
    return dependents


def start_dependents(manager: Manager, model: str, before: Before, say: Callable[[str], None]) -> str | None:
    """Start the models that ran with a model, and were stopped with it; a clause where one does not start."""
    others = [unit for unit in before.up if unit not in UnitNames(model).every]
    for state in manager.states(others, brief=True):
        if state.active_state in RUNNING:
            continue
        if manager.job("Start", state.name) != "done":
            return f"{state.name}, which requires it, does not start again"
        say(f"{state.name}, which requires it, is started again")
    return None


def snapshot_units(place: Place, model: str) -> dict[str, str]:
    """The texts of a model's units by name."""
    installed = Store(place.unit_folder).installed().values()
    return {unit.name: unit.text for unit in installed if unit.recipe == model}


def _text(path: Path) -> str | None:
    try:
        return read_bounded(path, lockfile.MAX_VENV_LOCK_BYTES).decode()
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError) as error:
        raise RecipectlError(f"{path} cannot be read ({error}); correct it, or remove it") from error


def renew_lock(resolved: ResolvedRecipe, source: Source) -> None:
    """Write a recipe's lock anew, where it has one."""
    path = search.lock_of(source.file)
    if not path.exists():
        return
    contents = lock_contents(path, current_lock(resolved.recipe, resolved.runtime))
    beside = lockfile.venv_lock_beside(path)
    if beside not in contents and beside.exists():
        remove(beside)
    write_whole(contents, mode=path.stat().st_mode & 0o777, durable=True)


def restore_files(
    files: Mapping[str, str | None], unless: Mapping[str, str | None] | None = None
) -> list[str]:
    """Put the locks of a recipe back; with `unless`, only those that still are as that says.

    Returns a sentence for each that somebody has changed since.
    """
    changed = [name for name in files if unless is not None and _text(Path(name)) != unless.get(name)]
    for name, text in files.items():
        path = Path(name)
        if name in changed or _text(path) == text:
            continue
        if text is None:
            remove(path)
        else:
            mode = path.stat().st_mode & 0o777 if path.exists() else 0o644
            write_whole({path: text}, mode=mode, durable=True)
    return [f"{name} was changed since, and stays as it is" for name in changed]


def restore_units(place: Place, manager: Manager, model: str, before: Before) -> None:
    """Put the units of a model back as they were, with their links; what was new is stopped and goes."""
    installed = snapshot_units(place, model)
    store, names = Store(place.unit_folder), UnitNames(model)
    around = {*installed, *before.units} - {names.service, names.canaries}
    if any(_settings(installed.get(name)) != _settings(before.units.get(name)) for name in around):
        # What stands in front of the engine changes: nothing of the model may run meanwhile.
        _stop(manager, (names.socket, names.queue_socket, *installed))
    links = store.enabled() & {*names.every}
    if installed != before.units or links != {*before.enabled} or store.reload_due:
        _write_units(store, manager, names, installed, before)
    for name in (names.socket, names.queue_socket, names.queue):
        if name in before.up:
            manager.start_without_waiting("Start", name)


def _settings(text: str | None) -> list[Setting]:
    """What a unit has systemd do: without what it says of its recipe, and of which release its helper is."""
    settings = parse_settings(helperfile.PATH.sub("", text or ""))
    return [setting for setting in settings if setting.section != "X-Recipectl"]


def _stop(manager: Manager, units: Iterable[str]) -> None:
    """Stop units of a model; RecipectlError where one stays, and with it their files."""
    if failures := stop_together(manager, dict.fromkeys(units)):
        raise RecipectlError(", and ".join(failures))


def _write_units(
    store: Store, manager: Manager, names: UnitNames, installed: Mapping[str, str], before: Before
) -> None:
    store.note_reload_due()
    gone = sorted(installed.keys() - before.units.keys())
    _stop(manager, gone)
    for name in gone:
        with contextlib.suppress(RecipectlError):  # a unit without [Install]
            manager.disable((name,))
        store.remove(name)
    store.write(*(Unit(name, text) for name, text in before.units.items()))
    for name in store.enabled() & {*names.every} - {*before.enabled}:
        manager.disable((name,))
    if missing := sorted({*before.enabled} - store.enabled()):
        manager.enable(missing)
    manager.reload()
    store.note_reloaded()
