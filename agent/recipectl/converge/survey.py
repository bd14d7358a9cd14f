"""What is on the host: installed units, their states, links, sockets, users."""

import grp
import pwd
from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path

from recipectl.compiler.cache import is_elsewhere
from recipectl.compiler.identity import DATA_GROUP
from recipectl.compiler.model import CompiledModel
from recipectl.compiler.relations import closure
from recipectl.converge import records
from recipectl.converge.holds import is_being_upgraded
from recipectl.converge.values import Survey
from recipectl.files import failures_named
from recipectl.machine import helperfile, processes, sockets
from recipectl.place import Place
from recipectl.recipe import search
from recipectl.systemd.dbus import Manager
from recipectl.systemd.started import shows_other_fields, started_digest
from recipectl.systemd.states import UnitState
from recipectl.systemd.store import Store
from recipectl.systemd.unitfile import GATEWAY, InstalledUnit, UnitNames


def survey(
    models: Collection[CompiledModel],
    all_models: Iterable[CompiledModel],
    place: Place,
    manager: Manager,
    *,
    prune: bool,
) -> Survey:
    """The host as `plan.make_plan` needs it; with `prune` also the units whose recipe is gone."""
    store = Store(place.unit_folder)
    installed = store.installed()
    gone = _gone(place, installed.values()) if prune else {}
    recipes = {name for model in all_models for name in (model.name, *model.rivals)}
    recipes |= {unit.recipe for unit in installed.values() if unit.recipe}
    names = sorted(unit for recipe in recipes for unit in UnitNames(recipe).every)
    names += [GATEWAY] if GATEWAY in installed else []
    states = {state.name: state for state in manager.states(names, brief=True)}
    own = ((model.unit_names.reachable, unit) for model in models for unit in model.units)
    shown = {name: unit.text for name, unit in own if unit.name == name}
    helper = None if helperfile.is_in_place(place) else str(helperfile.path(place))
    return Survey(
        installed=installed,
        states=states,
        enabled=store.enabled(),
        silent_sockets=set(_silent_sockets(models, states)),
        misleading=set(misleading(shown, states, place)),
        missing_users=set(_missing_users(models)),
        missing_groups=set() if place.user or not models else set(_missing_groups()),
        started={
            state.name: started_digest(state.name, place.runtime_folder, user=place.user)
            for state in states.values()
            if state.main_pid
        },
        rotated={
            state.name
            for state in states.values()
            if state.main_pid
            and state.name in installed
            and processes.rotated_secrets(state.main_pid, installed[state.name].secret_files)
        },
        missing_helper=helper,
        other_helpers=_unrecorded_helpers(place),
        gone=gone,
        reload_due=store.reload_due,
    )


def _unrecorded_helpers(place: Place) -> list[str]:
    """The helpers of other releases that no upgrade can need again."""
    others = helperfile.others(place)
    recorded = records.helpers(place) if others else set()
    return [str(path) for path in others if path.name not in recorded]


def _gone(place: Place, units: Iterable[InstalledUnit]) -> dict[str, str]:
    """Unit -> why it must go: its recipe is in no folder any more, and the file it came from is gone."""
    names = search.recipe_files(place.recipe_folders)
    return {
        unit.name: f"its recipe {unit.source} is gone"
        for unit in units
        if unit.recipe
        and unit.recipe not in names
        and not is_elsewhere(place, unit)
        and not is_being_upgraded(place, unit.recipe)
    }


def _missing_users(models: Iterable[CompiledModel]) -> Iterator[str]:
    """Missing users of units. Preflight refuses a recipe whose own `user:` is missing."""
    local = _names_in("/etc/passwd")
    for user in {user for model in models for user in (model.user, model.user_in_front) if user} - local:
        try:
            pwd.getpwnam(user)
        except KeyError:
            yield user


def _names_in(file: str) -> set[str]:
    """The names in /etc/passwd or /etc/group: one look is cheaper than a thousand questions."""
    with failures_named("read", Path(file)):
        return {line.partition(":")[0] for line in Path(file).read_text(errors="replace").splitlines()}


def _missing_groups() -> Iterator[str]:
    if DATA_GROUP not in _names_in("/etc/group"):
        try:
            grp.getgrnam(DATA_GROUP)
        except KeyError:
            yield DATA_GROUP


def _silent_sockets(models: Iterable[CompiledModel], states: dict[str, UnitState]) -> Iterator[str]:
    """Active sockets of recipes whose address changed after the socket was started: nobody listens there."""
    for model in models:
        active = model.socket_address and states[model.socket].active_state == "active"
        if active and model.socket_address and not sockets.is_listening(*model.socket_address):
            yield model.socket


def misleading(texts: Mapping[str, str], states: Mapping[str, UnitState], place: Place) -> Iterator[str]:
    """The units that are up and show the gateway another address than their text; `texts` are by name.

    A reload may change what such a unit is bound to, and then it outlives the restart of its model.
    """
    for name, text in texts.items():
        is_up = name in states and states[name].active_state == "active"
        if is_up and shows_other_fields(name, text, place.runtime_folder):
            yield name


def with_requirements(
    models: Iterable[CompiledModel], all_models: Iterable[CompiledModel]
) -> tuple[CompiledModel, ...]:
    """Models with those that they require: a unit could not start without them."""
    chosen = {model.name: model for model in models}
    by_name = {model.name: model for model in all_models}
    requires = {name: model.requires for name, model in by_name.items()}
    names = closure(chosen, requires) - chosen.keys()
    return (*chosen.values(), *(by_name[name] for name in sorted(names) if name in by_name))


def enabled_rivals(
    models: Iterable[CompiledModel], enabled: Collection[str]
) -> Iterator[tuple[CompiledModel, str]]:
    """Pairs that an operator has enabled although they stop each other: one would not be up after a boot."""
    at_boot = {
        model.name: model for model in models if model.unit_names.service in enabled and not model.on_demand
    }
    for name, model in at_boot.items():
        for rival in model.rivals:
            if rival in at_boot and name < rival:
                yield model, rival
