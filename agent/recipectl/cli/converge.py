"""diff, apply, remove: the host becomes what its recipes say."""

import json
import os
import pwd
import re
from collections.abc import Iterator

import click

from recipectl import health
from recipectl.cli.options import Place, chosen, outcome, service
from recipectl.compiler.model import Compiled
from recipectl.converge import apply as host
from recipectl.converge import plan
from recipectl.errors import RecipectlError, UsageError
from recipectl.recipe import search as sources
from recipectl.systemd import unitfile
from recipectl.systemd.dbus import Manager, State
from recipectl.systemd.unitfile import facts, kinds, recipe_of

_NAMES = click.argument("recipes", nargs=-1, required=True, metavar="RECIPE...")
_SOME = click.argument("recipes", nargs=-1, metavar="[RECIPE]...")
_DONE = {
    "create user": "created the user",
    "write": "wrote",
    "remove": "removed",
    "reload": "reloaded",
    "enable": "enabled",
    "disable": "disabled",
    "stop": "stopped",
    "restart": "restarting",
    "start": "starting",
}


def _gone(place: Place) -> dict[str, str]:
    """Unit -> why it has to go: its recipe is in no folder any more, and neither is the file it came from."""
    there = {one.name for one in sources.sources(place.folders)} | {*map(sources.stem, place.ad_hoc)}
    found = {}
    for name, text in place.installed.items():
        recipe, source = facts(text).get("Recipe"), unitfile.source(text)
        if recipe and recipe not in there:
            found[name] = f"its recipe {source} is gone"
    return found


def _missing_users(models: tuple[Compiled, ...], place: Place) -> set[str]:
    """The host file's user, when units want it and it is not there yet."""
    named = {match[1] for model in models if (match := re.search(r"^User=(.*)$", model.units[0].text, re.M))}
    return {user for user in named & {place.host.user} if not _is_user(user)}


def _is_user(name: str) -> bool:
    try:
        pwd.getpwnam(name)
    except KeyError:
        return False
    return True


def _deaf(models: tuple[Compiled, ...], states: dict[str, State]) -> set[str]:
    """Sockets that systemd has up, while nobody listens where the recipe says: it was moved meanwhile."""
    found = set()
    for model in models:
        socket = model.enabled_unit
        if model.on_demand and states[socket].active_state == "active" and model.endpoint != "none":
            host, _, port = model.endpoint.removeprefix("http://").rpartition(":")
            if not health.listening(host.strip("[]"), int(port)):
                found.add(socket)
    return found


def _with_needs(models: tuple[Compiled, ...], every: tuple[Compiled, ...]) -> tuple[Compiled, ...]:
    """Models with those that they require: a unit without them could not start."""
    by_unit = {model.units[0].name: model for model in every}
    found = {model.name: model for model in models}
    todo = [*models]
    while todo:
        for name in unitfile.required(todo.pop().units[0].text):
            if name in by_unit and by_unit[name].name not in found:
                found[by_unit[name].name] = by_unit[name]
                todo.append(by_unit[name])
    return tuple(found.values())


def _tossed(models: tuple[Compiled, ...], enabled: frozenset[str]) -> Iterator[str]:
    """Pairs that an operator has enabled although they stop each other: one would not be up at boot."""
    at_boot = {model.name for model in models if model.units[0].name in enabled and not model.on_demand}
    for model in models:
        for rival in model.rivals:
            if {model.name, rival} <= at_boot and model.name < rival:
                what = f"`{model.name}` and `{rival}` are both enabled and share a GPU"
                yield f"{model.file}: {what}: only one would be up after a boot; disable the other"


def _plan(
    place: Place, recipes: tuple[str, ...], manager: Manager, *, restart: bool
) -> tuple[plan.Plan, dict[str, str], int]:
    """The plan for the named recipes, or for the whole host; what is installed; and the status so far."""
    own = {sources.stem(path): path for path in sources.every(place.folders)}
    for path in (sources.find(name, ()) for name in recipes if sources.is_file(name)):
        other = own.get(sources.stem(path), path)
        if path.exists() and os.path.realpath(path) != os.path.realpath(other):
            told = f"{path} has the name of {other}, which the next apply would put back"
            raise UsageError(f"{told}; rename it")
    result = outcome(place, recipes)
    models, status = chosen(result, recipes, place)
    models = _with_needs(models, result.models)
    shared = unitfile.shared(place.site)
    for name in [one.name for one in shared] + [unit.name for model in models for unit in model.units]:
        if name not in place.installed and (reason := place.store.taken(name)):
            click.echo(reason, err=True)
            status = status or 1
            shared = tuple(one for one in shared if one.name != name)
            models = tuple(model for model in models if name not in {unit.name for unit in model.units})
    installed, enabled = place.installed, place.store.enabled()
    for text in _tossed(models, enabled):
        click.echo(text, err=True)
        status = 2
    gone = {} if recipes else _gone(place)
    leaving = {facts(installed[name]).get("Recipe", "") for name in gone}
    stems = {one for model in result.models for one in (model.name, *model.rivals)} | leaving
    names = {name for one in stems for name in kinds(one)}
    states = {state.name: state for state in manager.states(tuple(sorted(names)), brief=True)}
    there = plan.Host(installed, states, enabled, _deaf(models, states), place.store.reload_due)
    users = _missing_users(models, place)
    todo = plan.decide(models, shared, there, gone, users, every=result.models, restart=restart)
    return todo, installed, status


def _drop_ins(place: Place, todo: plan.Plan) -> list[str]:
    """The site's own drop-ins to the units of a plan: they stay in force."""
    return sorted(
        {path for unit in {action.unit for action in todo.actions} for path in place.store.drop_ins(unit)}
    )


def _report(place: Place, todo: plan.Plan, installed: dict[str, str], status: int) -> str:
    actions = [{"verb": one.verb, "unit": one.unit, "reason": one.reason} for one in todo.actions]
    told = {"changed": bool(todo), "actions": actions, "diff": plan.diff(todo, installed)}
    return json.dumps(told | {"drop_ins": _drop_ins(place, todo), "ok": status == 0}, indent=2)


def _show(place: Place, todo: plan.Plan, installed: dict[str, str]) -> None:
    for text in plan.diff(todo, installed).values():
        click.echo(text, nl=False)
    for action in todo.actions:
        click.echo(f"would {action.verb} {action.unit}: {action.reason}")
    for path in _drop_ins(place, todo) if todo else ():
        click.echo(f"stays in force: {path}")


@click.command("diff")
@_SOME
@click.option("--json", "as_json", is_flag=True, help="Print a JSON object.")
@click.option("--no-restart", is_flag=True, help="As apply --no-restart would do.")
@click.pass_obj
def diff_(place: Place, recipes: tuple[str, ...], as_json: bool, no_restart: bool) -> int:
    """Show what apply would do, and why; exit status 3 when there is something."""
    with Manager(user=place.user) as manager:
        todo, installed, status = _plan(place, recipes, manager, restart=not no_restart)
    if as_json:
        click.echo(_report(place, todo, installed, status))
    else:
        _show(place, todo, installed)
    return status or (3 if todo else 0)


@click.command("apply")
@_SOME
@click.option("--check", is_flag=True, help="Change nothing; exit status 3 when something would.")
@click.option("--dry-run", is_flag=True, help="Change nothing, and show what would.")
@click.option("--json", "as_json", is_flag=True, help="Print a JSON object.")
@click.option("--no-restart", is_flag=True, help="Leave running models as they are.")
@click.pass_obj
def apply_(
    place: Place, recipes: tuple[str, ...], check: bool, dry_run: bool, as_json: bool, no_restart: bool
) -> int:
    """Make the host what its recipes say; with names, only these. Models load after it returns."""
    only_look = check or dry_run
    lock = None if only_look else place.store.lock()
    with Manager(user=place.user) as manager:
        if lock:
            place.store.sweep()
        todo, installed, status = _plan(place, recipes, manager, restart=not no_restart)
        wrong = None
        if todo and not only_look:
            try:
                host.apply(todo, place.store, manager, _quiet if as_json else _say)
            except RecipectlError as error:
                wrong = error
    if wrong:
        click.echo("\n".join([str(wrong), *_holders(todo, installed)]), err=True)
        status = status or wrong.status
    if as_json:
        click.echo(_report(place, todo, installed, status))
    elif dry_run:
        _show(place, todo, installed)
    return status or (3 if check and todo else 0)


def _holders(todo: plan.Plan, installed: dict[str, str]) -> Iterator[str]:
    """Whose the ports are on which sockets could not listen."""
    texts = installed | {unit.name: unit.text for unit in todo.units}
    for name in todo.of("start", "restart"):
        listen = re.search(r"^ListenStream=(.*):([0-9]+)$", texts[name], re.M) if name in texts else None
        who = health.holder(int(listen[2]), listen[1].strip("[]")) if listen else None
        if listen and who and " of init.scope" not in who:  # that is systemd, which listens for a socket
            yield f"{name}: port {listen[2]} is taken by {who}"


def _quiet(_: plan.Action) -> None:
    """--json says it all at the end."""


def _say(action: plan.Action) -> None:
    click.echo(f"{_DONE[action.verb]} {action.unit}: {action.reason}")


@click.command("remove")
@_NAMES
@click.pass_obj
def remove_(place: Place, recipes: tuple[str, ...]) -> int:
    """Stop models, disable them and remove their units; recipes stay."""
    lock = place.store.lock()
    installed = place.installed
    gone = dict[str, str]()
    for name in map(service, recipes):
        if name not in installed:
            raise UsageError(
                f"{name} is not a unit of recipectl in {place.store.folder}; see `recipectl list`"
            )
        gone |= {one: "removed" for one in kinds(recipe_of(name)) if one in installed}
    with lock, Manager(user=place.user) as manager:
        host.apply(plan.decide((), (), plan.Host(installed, {}), gone), place.store, manager)
    return 0
