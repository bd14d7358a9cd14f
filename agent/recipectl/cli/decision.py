"""What an apply does: the decision for some recipes or the whole host, and how it is carried out."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

from recipectl.cli import gateway
from recipectl.cli.options import Selection, choose, report_problems, select
from recipectl.cli.terminal import moving_line, say
from recipectl.compiler.cache import compile_place, is_elsewhere
from recipectl.converge import apply, copies, plan, records
from recipectl.converge.survey import enabled_rivals, survey, with_requirements
from recipectl.converge.values import RUNNING, Action, Plan, Survey
from recipectl.errors import HostError, Problem, RecipectlError, UsageError, on_host
from recipectl.files import remove
from recipectl.machine import sockets
from recipectl.place import lingering_fault
from recipectl.recipe import search
from recipectl.systemd.dbus import Manager
from recipectl.systemd.store import Store
from recipectl.systemd.unitfile import UnitNames, is_companion, shared_units

if TYPE_CHECKING:
    from recipectl.cli.gateway import Change
    from recipectl.compiler.model import CompiledModel
    from recipectl.place import Place

_DONE = {
    "create group": "created the group",
    "create user": "created the user",
    "write helper": "wrote",
    "write": "wrote",
    "remove": "removed",
    "reload": "reloaded",
    "enable": "enabled",
    "disable": "disabled",
    "stop": "stopped",
    "restart": "restarting",
    "start": "starting",
    "remove helper": "removed",
    "write file": "wrote",
    "remove file": "removed",
    "reload service": "reloaded",
}


_JOBS = ("stop", "restart", "start", "remove")


class Decision(NamedTuple):
    """A plan, the host that it is for, and what is wrong so far."""

    plan: Plan
    survey: Survey
    models: tuple[CompiledModel, ...]
    problems: tuple[Problem, ...]
    status: int
    gateway: Change
    place: Place
    left: tuple[Action, ...] = ()  # jobs that --no-restart leaves for later


def decide(
    place: Place,
    recipes: Sequence[str],
    manager: Manager,
    *,
    restart: bool = True,
    held: Mapping[str, Problem] | None = None,
    alone: bool = False,
) -> Decision:
    """The plan for the named recipes and those that they require, or for the whole host.

    `held` are left alone, each with the reason. With `alone`, so are the recipes that are required.
    """
    unread = () if recipes else search.unread_files(place.recipe_folders)
    _refuse_files_with_a_recipes_name(place, recipes)
    # Whatever keeps its unit, or its process, keeps its port and its GPUs.
    waiting: tuple[Action, ...] = ()
    if recipes or restart:
        applied = frozenset(map(search.name_of, recipes)) if recipes else None
        selection = select(place, recipes, applied=applied, held=held)
    else:
        selection, waiting = _select_beside_what_runs(place, manager, held)
    all_models = selection.result.models
    models = selection.models if alone else with_requirements(selection.models, all_models)
    current = survey(models, all_models, place, manager, prune=not recipes)
    elsewhere = [] if recipes else [*_recipes_elsewhere(place, current)]
    modelless = plan.without_a_model(models, current)
    models = tuple(model for model in models if model.name not in modelless)
    shared = shared_units(user=place.user)
    units = {unit.name: "" for unit in shared}
    units |= {unit.name: model.name for model in models for unit in model.units}
    foreign = _foreign_units(place, units, current)
    shared = tuple(unit for unit in shared if unit.name not in foreign)
    models = tuple(model for model in models if not foreign.keys() & {unit.name for unit in model.units})
    problems = [*elsewhere, *modelless.values(), *foreign.values()]
    status = selection.status or (2 if elsewhere or modelless else int(bool(problems)))
    at_boot = [*_faults_at_boot(place, models, current)]
    status = 2 if any(problem.is_error for problem in at_boot) else status
    problems += at_boot
    change = gateway.plan_change(place, selection.result, models, current, prune=not recipes, restart=restart)
    problems += (*unread, *change.problems)
    common = (*shared, *change.units) if models or change.units else ()
    decided = plan.make_plan(models, common, current, all_models=all_models, restart=restart)
    whole = decided if restart else plan.make_plan(models, common, current, all_models=all_models)
    left = [action for action in whole.actions if action not in decided.actions and action.verb in _JOBS]
    decided = Plan((*decided.actions, *change.actions), decided.units)
    report_problems(problems)
    all_problems = (*selection.problems, *problems)
    return Decision(
        plan=decided,
        survey=current,
        models=models,
        problems=all_problems,
        status=max(status, change.status),
        gateway=change,
        place=place,
        left=(*waiting, *left, *change.left),
    )


def _select_beside_what_runs(
    place: Place, manager: Manager, held: Mapping[str, Problem] | None
) -> tuple[Selection, tuple[Action, ...]]:
    """All recipes, for --no-restart, and the units that wait for a change of an installed model."""
    result = compile_place(place, applied=_gone_and_down(place, manager), held=held)
    waiting: list[Action] = []
    if result.failures:  # an apply that restarts does not have all of them
        remaining = compile_place(place, held=held).failures
        for name in sorted(result.failures.keys() - remaining.keys()):
            for_port = any(problem.kind == "port" for problem in result.failures[name])
            reason = "an installed model has its port" if for_port else "it does not fit an installed model"
            waiting.append(Action("write", UnitNames(name).service, reason))
        failures = {name: problems for name, problems in result.failures.items() if name in remaining}
        result = result._replace(failures=failures)
    selection = choose(result, (), place)
    report_problems(selection.problems)
    return selection, tuple(waiting)


def _foreign_units(place: Place, units: Mapping[str, str], current: Survey) -> dict[str, Problem]:
    """Unit -> why it must not be written; `units` are names of units, each with its recipe."""
    foreign = {}
    owners = {name: unit.recipe for name, unit in current.installed.items()}
    for name, owner in units.items():
        reason = None if name in owners else Store(place.unit_folder).reason_not_ours(name)
        if owner and (other := owners.get(name)) not in (None, "", owner):
            remove = place.verb(f"remove {other}")
            reason = f"{name} is the unit of the recipe `{other}`; run `{remove}` first"
        if reason:
            foreign[name] = on_host("unit", reason)
    return foreign


def _faults_at_boot(place: Place, models: Sequence[CompiledModel], current: Survey) -> Iterator[Problem]:
    """Models that would not be up after a boot."""
    for model, rival in enabled_rivals(models, current.enabled):
        fault = f"`{model.name}` and `{rival}` are enabled and stop each other"
        sentence = f"{fault}: only one would be up after a boot; disable the other"
        yield on_host("relation", sentence, file=model.file)
    if place.user and any(model.autostart for model in models) and (lingering := lingering_fault()):
        yield on_host("host", lingering, severity="warning")


def _recipes_elsewhere(place: Place, current: Survey) -> Iterator[Problem]:
    """Units whose recipe is outside the recipe folders. They are left alone: only what is inside counts."""
    inside = search.recipe_files(place.recipe_folders)
    for unit in current.installed.values():
        names = UnitNames(unit.recipe)
        if unit.name == names.service and unit.recipe not in inside and is_elsewhere(place, unit):
            fault = f"{unit.name} was written from {unit.source}, outside the recipe folders"
            copy, remove = place.verb(f"apply {unit.source}"), place.verb(f"remove {unit.recipe}")
            remedy = f"`{copy}` copies it, `{remove}` ends it"
            yield on_host("file", f"{fault}; {remedy}")


def _gone_and_down(place: Place, manager: Manager) -> frozenset[str]:
    """Models without a recipe of which nothing runs: --no-restart removes them, so they claim nothing."""
    installed = Store(place.unit_folder).installed().values()
    recipes = search.recipe_files(place.recipe_folders)
    gone = {unit.recipe for unit in installed if unit.recipe and not is_elsewhere(place, unit)}
    gone -= recipes.keys()
    waiting = {name for recipe in gone for name in UnitNames(recipe).listening}
    units = [unit.name for unit in installed if unit.recipe in gone and unit.name not in waiting]
    up = {state.name for state in manager.states(units, brief=True) if state.active_state in RUNNING}
    return frozenset(gone - {unit.recipe for unit in installed if unit.name in up})


def _refuse_files_with_a_recipes_name(place: Place, recipes: Sequence[str]) -> None:
    by_name = search.recipe_files(place.recipe_folders)
    for path in (search.file_of(name) for name in recipes if search.is_file(name)):
        other = by_name.get(search.stem(path), path)
        if copies.is_copy(place, other, path):
            continue
        if path.exists() and os.path.realpath(path) != os.path.realpath(other):
            fault = f"{path} and {other} are both the recipe `{search.stem(path)}`"
            raise UsageError(f"{fault}, and the next apply would take the second; rename one", kind="file")


def carry_out(decision: Decision, store: Store, manager: Manager, *, as_json: bool) -> RecipectlError | None:
    """Apply a plan, and say each action when it is done (with --json at the end); what went wrong."""
    count = 0

    def report(action: Action) -> None:
        nonlocal count
        count += 1
        if not as_json:
            say(f"{_DONE[action.verb]} {action.unit}: {action.reason}")

    decided = decision.plan
    if not decided:
        return None
    # nginx finds its files when its unit starts.
    steps = (
        partial(decision.gateway.write_files, report),
        partial(apply.apply, decided, store, manager, report),
        partial(decision.gateway.finish, manager, report),
        partial(apply.wait_for_sockets, decided, manager),
    )
    failures: list[RecipectlError] = []
    with moving_line(lambda: f"applying: {count} of {len(decided.actions)} done"):
        for step in steps:
            try:
                step()
            except RecipectlError as error:
                failures.append(error)
                if step is steps[0] or (step.func is apply.apply and not isinstance(error, HostError)):
                    decision.gateway.put_files_back()
                    break  # no unit was changed
                if step.func is apply.apply:  # not all units are as the gateway was told
                    gateway.refresh(decision.place, manager)
                    break
    for name in decided.of("remove"):  # a recipe that gets this name later is another model
        names = UnitNames.of_service(name)
        if name == names.service and not is_companion(name) and store.read(name) is None:
            remove(records.path(decision.place, names.recipe))
    problems = [problem for failure in failures for problem in failure.problems]
    return HostError(problems) if len(failures) > 1 else next(iter(failures), None)


def taken_ports(decision: Decision) -> Iterator[Problem]:
    """The processes that hold the ports of sockets that could not listen."""
    started = decision.plan.of("start", "restart")
    for model in decision.models:
        if not model.socket_address or model.socket not in started:
            continue
        address, port = model.socket_address
        holder = sockets.holder(port, address)
        if holder and holder.unit != "init.scope":  # that is systemd, which listens for a socket
            yield on_host("port", f"{model.socket}: port {port} is taken by {holder}")
