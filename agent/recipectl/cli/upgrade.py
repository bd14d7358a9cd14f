"""upgrade, rollback, canary: another runtime for a model, and whether it answers as it must."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from recipectl.cli.failures import said_by
from recipectl.cli.jobs import existing
from recipectl.cli.names import complete_recipe, models_argument, no_such_recipe, recipe_names, service_name
from recipectl.cli.options import json_option, print_json, select
from recipectl.cli.terminal import moving_line, say, table
from recipectl.cli.upgrading import begin, follow, refuse_unfinished, run, unit_of
from recipectl.converge import records
from recipectl.errors import UsageError
from recipectl.machine.installation import refuse_if_others_can_write
from recipectl.systemd.dbus import Manager
from recipectl.systemd.store import Store
from recipectl.systemd.unitfile import UnitNames

if TYPE_CHECKING:
    from recipectl.converge.records import Record
    from recipectl.place import Place

_NO_BLOCK = click.option("--no-block", is_flag=True, help="Do not wait until it is done.")


@click.command("upgrade")
@click.argument("recipe", required=False, metavar="[RECIPE]", shell_complete=complete_recipe)
@click.option("--to", metavar="REQUIREMENT|PATH", help="vllm==0.33.0, a venv, or a program.")
@click.option("--dry-run", is_flag=True, help="Change nothing, and show the steps.")
@click.option("--status", is_flag=True, help="Show where upgrades are, and how the last ones ended.")
@_NO_BLOCK
@json_option()
@click.option("--run", "runs", is_flag=True, hidden=True)
@click.option("--back", is_flag=True, hidden=True)
@click.pass_obj
def upgrade_(
    place: Place,
    recipe: str | None,
    to: str | None,
    dry_run: bool,
    status: bool,
    no_block: bool,
    as_json: bool,
    runs: bool,
    back: bool,
) -> int:
    """Move a model to another runtime: check it, switch, start, ask its canaries; back when anything fails.

    Without --to, the recipe as it is now becomes the new state, and the installed unit is the old one.
    """
    place.require_local()
    if status or (as_json and not recipe):
        return _show_status(place, recipe, as_json=as_json)
    if as_json:
        raise UsageError("--json shows a status; give --status with it")
    if recipe is None:
        raise click.UsageError("a RECIPE is missing: name one, or give --status")
    model = UnitNames.of_service(service_name(recipe)).recipe
    if runs or back:
        return run(place, model, back=back)
    if model not in recipe_names(place):
        raise no_such_recipe(model, place)
    previous = refuse_unfinished(place, model)
    record = records.Record(model, "runtime" if to else "recipe", _target(to), time.time())
    if previous:
        record = replace(record, history=previous.history, held=previous.held)
    if dry_run:
        from recipectl.cli.preview import preview

        return preview(place, record)
    if _is_there_already(place, record):
        return 0
    return _begin(place, record, no_block=no_block)


def _target(to: str | None) -> str:
    """The word of --to, an absolute path where it is one."""
    if to is None:
        return ""
    return str(Path.cwd() / to) if "/" in to else to


def _is_there_already(place: Place, record: Record) -> bool:
    """True if nothing is to be done; UsageError for a recipe that is wrong."""
    selection = select(place, (record.model,), with_resolved=True)
    if selection.status or not selection.models:
        raise UsageError(f"`{record.model}` is wrong, and is not upgraded; correct it first", kind="file")
    model, resolved = selection.models[0], selection.result.resolved[record.model]
    store = Store(place.unit_folder)
    installed = {unit.name: store.read(unit.name) for unit in model.units}
    is_applied = all(unit and unit.text == new.text for new in model.units for unit in [installed[new.name]])
    if record.kind == "recipe":
        if is_applied:
            say(f"`{record.model}` is installed as its recipe says", err=True)
        return is_applied
    from recipectl.machine.disk import Disk
    from recipectl.upgrades import target

    target.require_named_runtime(resolved.recipe)
    if "/" not in record.to:
        from recipectl.venvs.request import like_another

        like_another(record.to, None)  # UsageError for what is no requirement
        return False
    values = target.values(resolved.recipe, resolved.runtime, Path(record.to), Disk())
    told = {key: value for key, value in values.items() if _value(resolved.recipe, key) != value}
    if not told and is_applied:
        say(f"`{record.model}` runs {target.in_words(resolved.recipe, resolved.runtime)} already", err=True)
        return True
    return False


def _value(recipe: object, key: tuple[str | int, ...]) -> object:
    if key[0] == "extra_args":
        return getattr(recipe, "extra_args", {}).get(key[1])
    return getattr(recipe, str(key[0]))


def _begin(place: Place, record: Record, *, no_block: bool) -> int:
    if place.owners == frozenset({0}):
        refuse_if_others_can_write()
    begin(place, record)
    if no_block:
        return 0
    try:
        return follow(place, record.model)
    except KeyboardInterrupt:
        click.echo(
            f"the upgrade goes on; see `recipectl upgrade --status {record.model}`, or end it with "
            f"`systemctl stop {unit_of(record.model)}`, which goes back",
            err=True,
        )
        return 130


@click.command("rollback")
@click.argument("recipe", metavar="RECIPE", shell_complete=complete_recipe)
@_NO_BLOCK
@click.pass_obj
def rollback_(place: Place, recipe: str, no_block: bool) -> int:
    """Take the last upgrade of a model back; once more takes back the one before."""
    place.require_local()
    model = UnitNames.of_service(service_name(recipe)).recipe
    previous = refuse_unfinished(place, model)
    if model not in recipe_names(place):
        raise no_such_recipe(model, place)
    if previous is None or not previous.history:
        raise UsageError(f"`{model}` has no upgrade to go back from; see `recipectl upgrade --status`")
    record = records.Record(
        model, "rollback", previous.history[-1].began_with, time.time(), history=previous.history
    )
    return _begin(place, replace(record, held=previous.held), no_block=no_block)


def _show_status(place: Place, recipe: str | None, *, as_json: bool) -> int:
    """Where upgrades are; 3 when one failed, or is not over."""
    found = [*records.every(place)]
    if recipe is not None:
        model = UnitNames.of_service(service_name(recipe)).recipe
        found = [record for record in found if record.model == model]
    rows = [
        {
            "model": record.model, "kind": record.kind, "step": record.step, "from": record.began_with,
            "to": record.ended_with or record.to, "began": round(record.began_sec), "failure": record.failure,
            "held": record.held is not None, "can_go_back": len(record.history), "said": list(record.said),
        }
        for record in found
    ]  # fmt: skip
    if as_json:
        print_json(rows)
    else:
        for record in found if recipe else ():
            for sentence in record.said:
                click.echo(sentence)
        table([[str(row[key] or "-") for key in ("model", "step", "from", "to")] for row in rows],
              ["MODEL", "STEP", "FROM", "TO"])  # fmt: skip
        for record in found:
            if record.failure:
                click.echo(f"{record.model}: {record.failure}")
    if not found and not as_json:
        say("no upgrades" if recipe is None else f"`{recipe}` was never upgraded", err=True)
    return 3 if any(record.step != "done" for record in found) else 0


@click.command("canary")
@models_argument
@click.pass_obj
def canary_(place: Place, recipes: tuple[str, ...]) -> int:
    """Ask models their canaries; exit status 3 when one answers otherwise."""
    from recipectl.upgrades import questions

    place.require_local()
    status = 0
    with Manager(user=place.user) as manager:
        for service in dict.fromkeys(map(service_name, recipes)):
            names = UnitNames.of_service(service)
            state = existing(manager, service, place)
            if Store(place.unit_folder).read(names.canaries) is None:
                fault = f"`{names.recipe}` has no canaries"
                raise UsageError(f"{fault}; write `canaries:` in its recipe, and apply it", kind="unit")
            if state.active_state != "active":
                click.echo(f"{names.recipe} is {state.word}; start it first", err=True)
                status = max(status, 1)
                continue
            with moving_line(f"{names.recipe}: asking its canaries".format):
                answer = questions.run(manager, names.canaries)
            if answer.well:
                say(f"{names.recipe} passes its canaries")
                continue
            status = max(status, 3)
            for sentence in said_by(place, names.canaries, answer.since_sec):
                click.echo(f"{names.recipe}: {sentence}", err=True)
    return status
