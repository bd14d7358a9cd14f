"""diff, apply: the host becomes what its recipes say."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import click

from recipectl.cli import gateway
from recipectl.cli.names import SOME_RECIPES, recipe_names
from recipectl.cli.options import (
    json_option,
    print_json,
    problems_as_json,
    report_no_recipes,
    report_problems,
    select,
)
from recipectl.cli.terminal import moving_line, say
from recipectl.compiler.cache import is_elsewhere
from recipectl.converge import apply, copies, plan
from recipectl.converge.differences import unified_diff
from recipectl.converge.survey import enabled_rivals, survey, with_requirements
from recipectl.converge.values import Action, Plan, Survey
from recipectl.errors import HostError, Problem, RecipectlError, UsageError, on_host
from recipectl.machine import sockets
from recipectl.machine.installation import refuse_if_others_can_write
from recipectl.place import lingering_fault
from recipectl.recipe import search
from recipectl.systemd.dbus import Manager
from recipectl.systemd.store import Store
from recipectl.systemd.unitfile import UnitNames, shared_units

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


class _Decision(NamedTuple):
    """A plan, the host that it is for, and what is wrong so far."""

    plan: Plan
    survey: Survey
    models: tuple[CompiledModel, ...]
    problems: tuple[Problem, ...]
    status: int
    gateway: Change


def _decide(place: Place, recipes: Sequence[str], manager: Manager, *, restart: bool) -> _Decision:
    """The plan for the named recipes, or for the whole host."""
    unread = () if recipes else search.unread_files(place.recipe_folders)
    _refuse_files_with_a_recipes_name(place, recipes)
    names = (search.stem(search.find(name, ())) if search.is_file(name) else name for name in recipes)
    # Whatever keeps its unit, or its process, keeps its GPUs.
    applied = frozenset(names) if recipes or not restart else None
    selection = select(place, recipes, applied=applied)
    all_models = selection.result.models
    models = with_requirements(selection.models, all_models)
    current = survey(models, all_models, place, manager, prune=not recipes)
    elsewhere = [] if recipes else [*_recipes_elsewhere(place, current)]
    held = plan.without_a_model(models, current)
    models = tuple(model for model in models if model.name not in held)
    problems = [*elsewhere, *held.values()]
    shared = shared_units(user=place.user)
    units = [unit.name for unit in (*shared, *(unit for model in models for unit in model.units))]
    for name in units:
        if name not in current.installed and (reason := Store(place.unit_folder).reason_not_ours(name)):
            problems.append(on_host("unit", reason))
            shared = tuple(unit for unit in shared if unit.name != name)
            models = tuple(model for model in models if name not in {unit.name for unit in model.units})
    status = selection.status or (2 if elsewhere or held else int(bool(problems)))
    for model, rival in enabled_rivals(models, current.enabled):
        fault = f"`{model.name}` and `{rival}` are enabled and stop each other"
        sentence = f"{fault}: only one would be up after a boot; disable the other"
        problems.append(on_host("relation", sentence, file=model.file))
        status = 2
    if place.user and any(model.autostart for model in models) and (lingering := lingering_fault()):
        problems.append(on_host("host", lingering, severity="warning"))
    change = gateway.decide(place, selection.result, models, current, prune=not recipes, restart=restart)
    problems += (*unread, *change.problems)
    decided = plan.decide(models, (*shared, *change.units), current, all_models=all_models, restart=restart)
    decided = Plan((*decided.actions, *change.actions), decided.units)
    report_problems(problems)
    found = (*selection.problems, *problems)
    return _Decision(decided, current, models, found, max(status, change.status), change)


def _recipes_elsewhere(place: Place, current: Survey) -> Iterator[Problem]:
    """Units whose recipe is outside the recipe folders. They are left alone: only what is inside counts."""
    inside = {search.stem(path) for path in search.recipe_files(place.recipe_folders)}
    for unit in current.installed.values():
        names = UnitNames(unit.recipe)
        if unit.name == names.service and unit.recipe not in inside and is_elsewhere(place, unit):
            fault = f"{unit.name} was written from {unit.source}, outside the recipe folders"
            remedy = f"`recipectl apply {unit.source}` copies it, `recipectl remove {unit.recipe}` ends it"
            yield on_host("file", f"{fault}; {remedy}")


def _refuse_a_host_without_recipes(place: Place) -> None:
    """RecipectlError when no recipe folder is there: it may be mounted late, and apply would remove all."""
    if any(folder.is_dir() for folder in place.recipe_folders):
        return
    folders = ", ".join(map(str, place.recipe_folders))
    remedy = f"mount one, or begin with `mkdir -p {place.recipe_folders[0]}` and an example"
    raise RecipectlError(f"no recipes in {folders}: none of them exists, so nothing is applied; {remedy}")


def _refuse_files_with_a_recipes_name(place: Place, recipes: Sequence[str]) -> None:
    by_name = {search.stem(path): path for path in search.recipe_files(place.recipe_folders)}
    for path in (search.find(name, ()) for name in recipes if search.is_file(name)):
        other = by_name.get(search.stem(path), path)
        if copies.is_copy(place, other, path):
            continue
        if path.exists() and os.path.realpath(path) != os.path.realpath(other):
            fault = f"{path} has the name of {other}, so the next apply would undo it"
            raise UsageError(f"{fault}; rename it", kind="file")


def _drop_ins(place: Place, decided: Plan) -> list[str]:
    """The administrator's own drop-ins to the units of a plan: they stay in force."""
    store = Store(place.unit_folder)
    units = {action.unit for action in decided.actions}
    return sorted({path for unit in units for path in store.drop_ins(unit)})


def _diffs(decision: _Decision) -> Iterator[tuple[str, str]]:
    """Unit -> unified diff of its file, for each unit that is written or removed."""
    texts = {unit.name: unit.text for unit in decision.plan.units}
    for name, text in (texts | dict.fromkeys(decision.plan.of("remove"), "")).items():
        installed = decision.survey.installed.get(name)
        yield name, unified_diff(name, installed.text if installed else "", text)


def _print_report(place: Place, decision: _Decision, problems: Sequence[Problem], status: int) -> None:
    print_json(
        {
            "changed": bool(decision.plan),
            "actions": [asdict(action) for action in decision.plan.actions],
            "diff": dict(_diffs(decision)),
            "drop_ins": _drop_ins(place, decision.plan),
            "problems": problems_as_json(problems),
            "ok": status == 0,
        }
    )


def _show(place: Place, decision: _Decision) -> None:
    for _, text in _diffs(decision):
        click.echo(text, nl=False)
    for action in decision.plan.actions:
        click.echo(f"would {action.verb} {action.unit}: {action.reason}")
    for path in _drop_ins(place, decision.plan):
        click.echo(f"stays in force: {path}")


def report_wait(lock: Path) -> None:
    """Say that another recipectl holds the lock."""
    say(f"waiting for another recipectl, which holds {lock}", err=True)


@click.command("diff")
@SOME_RECIPES
@json_option("object")
@click.option("--no-restart", is_flag=True, help="As apply --no-restart would do.")
@click.pass_obj
def diff_(place: Place, recipes: tuple[str, ...], as_json: bool, no_restart: bool) -> int:
    """Show what apply would do, and why; exit status 3 when there is something."""
    with Manager(user=place.user) as manager:
        decision = _decide(place, recipes, manager, restart=not no_restart)
    if as_json:
        _print_report(place, decision, decision.problems, decision.status)
    else:
        _show(place, decision)
    return decision.status or (3 if decision.plan else 0)


@click.command("apply")
@SOME_RECIPES
@click.option("--check", is_flag=True, help="Change nothing; exit status 3 when something would.")
@click.option("--dry-run", is_flag=True, help="Change nothing, and show what would.")
@json_option("object")
@click.option("--no-restart", is_flag=True, help="Leave running models as they are.")
@click.pass_obj
def apply_(
    place: Place, recipes: tuple[str, ...], check: bool, dry_run: bool, as_json: bool, no_restart: bool
) -> int:
    """Make the host what its recipes say; with names, only these. Models load after it returns."""
    store = Store(place.unit_folder)
    changes = not (check or dry_run)
    _refuse_what_is_not_safe(place, recipes, changes=changes)
    with store.lock(report_wait) if changes else nullcontext(), Manager(user=place.user) as manager:
        if changes:
            copied = partial(copies.in_recipe_folder, place, say=partial(say, err=as_json))
            recipes = tuple(map(copied, recipes))
            store.remove_temporary_files()
        decision = _decide(place, recipes, manager, restart=not no_restart)
        failure = _carry_out(decision, store, manager, as_json=as_json) if changes else None
    problems, status = decision.problems, decision.status
    if failure:
        later = (*failure.problems, *_taken_ports(decision))
        report_problems(later)
        problems = (*problems, *later)
        status = status or failure.status
    if as_json:
        _print_report(place, decision, problems, status)
    elif dry_run:
        _show(place, decision)
    elif not recipes and not recipe_names(place):
        report_no_recipes(place)
    elif no_restart and changes:
        _tell_of_restarts_due(decision)
    return status or (3 if check and decision.plan else 0)


def _refuse_what_is_not_safe(place: Place, recipes: Sequence[str], *, changes: bool) -> None:
    """RecipectlError for an installation that others can write, and where there is nothing to apply."""
    if changes and place.owners == frozenset({0}):
        refuse_if_others_can_write()
    if not recipes:
        _refuse_a_host_without_recipes(place)


def _tell_of_restarts_due(decision: _Decision) -> None:
    """Say what `--no-restart` has left for later."""
    survey = decision.survey
    for model in decision.models:
        service = model.unit_names.service
        changed = survey.started.get(service) not in (None, model.digest) or service in survey.rotated
        if survey.is_up(service) and changed:
            say(f"left for later: {service} must be restarted", err=True)


def _carry_out(
    decision: _Decision, store: Store, manager: Manager, *, as_json: bool
) -> RecipectlError | None:
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
    )
    failures: list[RecipectlError] = []
    with moving_line(lambda: f"applying: {count} of {len(decided.actions)} done"):
        for step in steps:
            try:
                step()
            except RecipectlError as error:
                failures.append(error)
    problems = [problem for failure in failures for problem in failure.problems]
    return HostError(problems) if len(failures) > 1 else next(iter(failures), None)


def _taken_ports(decision: _Decision) -> Iterator[Problem]:
    """The processes that hold the ports of sockets that could not listen."""
    started = decision.plan.of("start", "restart")
    for model in decision.models:
        if not model.listen or model.socket not in started:
            continue
        address, port = model.listen
        holder = sockets.holder(port, address)
        if holder and holder.unit != "init.scope":  # that is systemd, which listens for a socket
            yield on_host("port", f"{model.socket}: port {port} is taken by {holder}")
