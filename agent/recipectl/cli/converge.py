"""diff, apply: the host becomes what its recipes say."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click

from recipectl.cli.decision import Decision, carry_out, decide, taken_ports
from recipectl.cli.names import SOME_RECIPES, recipe_names
from recipectl.cli.options import (
    json_object_option,
    print_json,
    problems_as_json,
    report_no_recipes,
    report_problems,
)
from recipectl.cli.terminal import say
from recipectl.converge import copies, holds
from recipectl.converge.differences import unified_diff
from recipectl.converge.values import Plan
from recipectl.errors import Problem, RecipectlError
from recipectl.files import failures_named
from recipectl.machine.installation import refuse_if_others_can_write
from recipectl.recipe import search
from recipectl.systemd.dbus import Manager
from recipectl.systemd.store import Store

if TYPE_CHECKING:
    from recipectl.place import Place


def _refuse_a_host_without_recipes(place: Place) -> None:
    """RecipectlError when no recipe folder is there: it may be mounted late, and apply would remove all."""
    for folder in place.recipe_folders:
        with failures_named("read", folder):
            if folder.is_dir():
                return
    folders = ", ".join(map(str, place.recipe_folders))
    remedy = f"mount one, or begin with `mkdir -p {place.recipe_folders[0]}` and an example"
    raise RecipectlError(f"no recipes in {folders}: none of them exists, so nothing is applied; {remedy}")


def _drop_ins(place: Place, decided: Plan) -> list[str]:
    """The administrator's own drop-ins to the units of a plan: they stay in force."""
    store = Store(place.unit_folder)
    units = {action.unit for action in decided.actions}
    return sorted({path for unit in units for path in store.drop_ins(unit)})


def _diffs(decision: Decision) -> Iterator[tuple[str, str]]:
    """Unit -> unified diff of its file, for each unit that is written or removed."""
    texts = {unit.name: unit.text for unit in decision.plan.units}
    for name, text in (texts | dict.fromkeys(decision.plan.of("remove"), "")).items():
        installed = decision.survey.installed.get(name)
        yield name, unified_diff(name, installed.text if installed else "", text)


def _print_report(place: Place, decision: Decision, problems: Sequence[Problem], status: int) -> None:
    print_json(
        {
            "changed": bool(decision.plan),
            "actions": [asdict(action) for action in decision.plan.actions],
            "diff": dict(_diffs(decision)),
            "drop_ins": _drop_ins(place, decision.plan),
            "left": [asdict(action) for action in decision.left],
            "problems": problems_as_json(problems),
            "ok": status == 0,
        }
    )


def _show(place: Place, decision: Decision) -> None:
    for _, text in _diffs(decision):
        click.echo(text, nl=False)
    for action in decision.plan.actions:
        click.echo(f"would {action.verb} {action.unit}: {action.reason}")
    for path in _drop_ins(place, decision.plan):
        click.echo(f"stays in force: {path}")


def report_wait(lock: Path) -> None:
    """Say that another recipectl holds the lock."""
    say(f"waiting for another recipectl, which holds {lock}", err=True)


_PARTICIPLES = {
    "stop": "stopped",
    "restart": "restarted",
    "start": "started",
    "remove": "removed",
    "write": "written",
}
# What --json of `diff` and `apply` has beside the problems when an error ends them.
_NOTHING: dict[str, object] = {
    "changed": False,
    "actions": [],
    "diff": {},
    "drop_ins": [],
    "left": [],
    "ok": False,
}


@click.command("diff")
@SOME_RECIPES
@json_object_option(**_NOTHING)
@click.option("--no-restart", is_flag=True, help="As apply --no-restart would do.")
@click.pass_obj
def diff_(place: Place, recipes: tuple[str, ...], as_json: bool, no_restart: bool) -> int:
    """Show what apply would do, and why; exit status 3 when there is something."""
    _refuse_what_is_not_safe(place, recipes, changes=False)
    with Manager(place) as manager:
        decision = decide(place, recipes, manager, restart=not no_restart, held=holds.held(place))
    if as_json:
        _print_report(place, decision, decision.problems, decision.status)
    else:
        _show(place, decision)
        _tell_what_is_left(decision)
    return decision.status or (3 if decision.plan else 0)


@click.command("apply")
@SOME_RECIPES
@click.option("--check", is_flag=True, help="Change nothing; exit status 3 when something would.")
@click.option("--dry-run", is_flag=True, help="Change nothing, and show what would.")
@json_object_option(**_NOTHING)
@click.option("--no-restart", is_flag=True, help="Leave running models as they are.")
@click.option("--accept", is_flag=True, help="Apply recipes that are held, too.")
@click.pass_obj
def apply_(
    place: Place,
    recipes: tuple[str, ...],
    check: bool,
    dry_run: bool,
    as_json: bool,
    no_restart: bool,
    accept: bool,
) -> int:
    """Make the host what its recipes say; with names, only these. Models load after it returns."""
    store = Store(place.unit_folder)
    changes = not (check or dry_run)
    _refuse_what_is_not_safe(place, recipes, changes=changes)
    with store.lock(report_wait) if changes else nullcontext(), Manager(place) as manager:
        if changes:
            copied = partial(copies.in_recipe_folder, place, say=partial(say, err=as_json))
            recipes = tuple(map(copied, recipes))
            store.remove_temporary_files()
        held = _held(place, recipes, accept=accept, changes=changes)
        decision = decide(place, recipes, manager, restart=not no_restart, held=held)
        failure = carry_out(decision, store, manager, as_json=as_json) if changes else None
    problems, status = decision.problems, decision.status
    if failure:
        later = (*failure.problems, *taken_ports(decision))
        report_problems(later)
        problems = (*problems, *later)
        status = status or failure.status
    if as_json:
        _print_report(place, decision, problems, status)
    else:
        if dry_run:
            _show(place, decision)
        elif not recipes and not failure and not recipe_names(place):
            report_no_recipes(place)
        _tell_what_is_left(decision)
    return status or (3 if check and decision.plan else 0)


def _held(place: Place, recipes: Sequence[str], *, accept: bool, changes: bool) -> dict[str, Problem]:
    """The recipes that are left alone; with `accept`, only those that it is not about."""
    held = holds.held(place)
    named = {*map(search.name_of, recipes)}
    accepted = {name: why for name, why in held.items() if accept and (not recipes or name in named)}
    if changes:
        holds.accept(place, accepted)
    return {name: why for name, why in held.items() if name not in accepted}


def _refuse_what_is_not_safe(place: Place, recipes: Sequence[str], *, changes: bool) -> None:
    """RecipectlError for an installation that others can write, and where there is nothing to apply."""
    if changes and place.owners == frozenset({0}):
        refuse_if_others_can_write()
    if not recipes:
        _refuse_a_host_without_recipes(place)


def _tell_what_is_left(decision: Decision) -> None:
    """Say what `--no-restart` has left for later."""
    for action in decision.left:
        reason = "" if action.verb == "remove" else f": {action.reason}"
        say(f"left for later: {action.unit} must be {_PARTICIPLES[action.verb]}{reason}", err=True)
