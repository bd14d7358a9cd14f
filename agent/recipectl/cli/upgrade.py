"""upgrade, rollback, canary: another runtime for a model, and whether it answers as it must."""

from __future__ import annotations

import os
import shlex
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import click

from recipectl.cli.jobs import NO_BLOCK, existing
from recipectl.cli.log import said_by
from recipectl.cli.names import (
    complete_recipe,
    has_all_option,
    model_name_of,
    models_argument,
    no_such_recipe,
    not_applied,
    recipe_names,
    service_name,
)
from recipectl.cli.options import json_option, print_json, select
from recipectl.cli.preview import preview
from recipectl.cli.terminal import moving_line, say, table
from recipectl.cli.upgrade_unit import begin, follow, known_runtime, last_record, run_as_unit, unit_of
from recipectl.converge import records
from recipectl.errors import RecipectlError, UsageError
from recipectl.machine.installation import refuse_if_others_can_write
from recipectl.systemd.dbus import Manager
from recipectl.systemd.store import Store
from recipectl.systemd.unitfile import UnitNames
from recipectl.upgrades import questions, steps
from recipectl.upgrades.prepare import with_runtime
from recipectl.upgrades.target import in_words, require_named_runtime, require_one_host

if TYPE_CHECKING:
    from recipectl.converge.records import Record
    from recipectl.place import Place


@click.command("upgrade")
@click.argument("recipe", required=False, metavar="[RECIPE]", shell_complete=complete_recipe)
@click.option("--to", metavar="REQUIREMENT|PATH", help="vllm==0.33.0, a venv, or a program.")
@click.option("--dry-run", is_flag=True, help="Change nothing, and show the steps.")
@click.option("--status", is_flag=True, help="Show where upgrades are, and how the last ones ended.")
@NO_BLOCK
@json_option()
@click.option("--run", "is_unit", is_flag=True, hidden=True)
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
    is_unit: bool,
    back: bool,
) -> int:
    """Move a model to another runtime, and ask its canaries. If anything fails, the old one serves again.

    Without --to, the recipe as it is now becomes the new state, and the installed unit is the old one.
    """
    place.require_local()
    if status:
        if to is not None or dry_run or no_block:
            raise click.UsageError("--status stands alone, or with a RECIPE and --json")
        return _show_status(place, recipe, as_json=as_json)
    if recipe is None or as_json:
        raise click.UsageError(
            "a RECIPE is missing: name one, or give --status" if recipe is None else "--json needs --status"
        )
    model = model_name_of(recipe, place)
    if is_unit or back:
        return run_as_unit(place, model, back=back)
    if to == "":
        raise click.UsageError("--to is empty; name a requirement or a path, or leave it out")
    _require_recipe(model, place)
    # A dry run does not let an interrupted upgrade go back either.
    previous = records.read(place, model) if dry_run else last_record(place, model)
    # A path's links stay: a venv is named by them.
    target = os.path.abspath(to) if to and "/" in to else to or ""  # noqa: PTH100
    record = records.Record(model, "runtime" if to else "recipe", target, time.time())
    if previous:
        record = replace(record, history=previous.history, held=previous.held)
    if _is_there_already(place, record):
        return 0
    if dry_run:
        return preview(place, record)
    return _begin(place, record, no_block=no_block)


def _require_recipe(model: str, place: Place) -> None:
    if model not in recipe_names(place):
        raise no_such_recipe(model, place)


def _is_there_already(place: Place, record: Record) -> bool:
    """True if nothing is to be done; UsageError for a wrong recipe, or a runtime that it cannot have."""
    selection = select(place, (record.model,), with_resolved=True)
    if selection.status or not selection.models:
        raise UsageError(f"`{record.model}` is wrong, and is not upgraded; correct it first", kind="file")
    model, resolved = selection.models[0], selection.result.resolved[record.model]
    store = Store(place.unit_folder)
    installed = {unit.name: store.read(unit.name) for unit in model.units}
    has_unit = installed[model.unit_names.service] is not None
    is_applied = all((unit := installed[new.name]) and unit.text == new.text for new in model.units)
    if record.kind == "recipe":
        if is_applied:
            say(f"`{record.model}` is installed as its recipe says", err=True)
        else:
            require_one_host(resolved.recipe)
        return is_applied
    if not has_unit:
        raise not_applied(record.model, place)
    require_named_runtime(resolved.recipe)
    runtime = resolved.runtime
    new = known_runtime(place, record.to, resolved)
    source = steps.source_of(place, record.model)
    before = steps.compiled(place, source)
    same = new is not None and with_runtime(place, source, before, new).compiled.resolved.runtime == runtime
    if same and is_applied:
        say(f"`{record.model}` runs {in_words(resolved.recipe, runtime)} already", err=True)
        return True
    if not is_applied:
        say(f"`{record.model}` was edited since it was applied; the upgrade applies that too", err=True)
    return False


def _begin(place: Place, record: Record, *, no_block: bool) -> int:
    if not place.user and os.geteuid():
        raise RecipectlError(
            "an upgrade writes recipes and units; run it as root (sudo), or with --user for your own"
        )
    if place.owners == frozenset({0}):
        refuse_if_others_can_write()
    begin(place, record)
    status = place.verb(f"upgrade --status {record.model}")
    if no_block:
        say(f"started {unit_of(record.model)}; see `{status}`")
        return 0
    try:
        return follow(place, record.model)
    except KeyboardInterrupt:
        stop = place.systemctl(f"stop {unit_of(record.model)}")
        click.echo(f"the upgrade goes on; see `{status}`, or end it with `{stop}`, which goes back", err=True)
        return 130


@click.command("rollback")
@click.argument("recipe", metavar="RECIPE", shell_complete=complete_recipe)
@NO_BLOCK
@click.pass_obj
def rollback_(place: Place, recipe: str, no_block: bool) -> int:
    """Take the last upgrade of a model back; a second rollback takes back the upgrade before that."""
    place.require_local()
    model = model_name_of(recipe, place)
    _require_recipe(model, place)
    previous = last_record(place, model)
    if previous is None or not previous.history:
        raise UsageError(f"`{model}` has no upgrade to go back from", kind="unit")
    if Store(place.unit_folder).read(UnitNames(model).service) is None:
        raise not_applied(model, place)
    target = previous.history[-1].began_with
    record = records.Record(model, "rollback", target, time.time(), history=previous.history)
    return _begin(place, replace(record, held=previous.held), no_block=no_block)


def _show_status(place: Place, recipe: str | None, *, as_json: bool) -> int:
    """Where upgrades are; 3 when one failed, or is not over."""
    names = [name for name in records.names(place) if name in recipe_names(place)]
    if recipe is not None:
        model = model_name_of(recipe, place)
        _require_recipe(model, place)
        names = [name for name in names if name == model]
    selected = [record for name in names if (record := records.read(place, name))]
    if as_json:
        print_json([_status_row(record) for record in selected])
    else:
        _print_status(selected, detailed=recipe is not None)
    if not selected and not as_json:
        say("no upgrades" if recipe is None else f"`{recipe}` was never upgraded", err=True)
    return 3 if any(record.step != "done" for record in selected) else 0


def _status_row(record: Record) -> dict[str, object]:
    return {
        "model": record.model, "kind": record.kind, "step": record.step, "from": record.began_with or None,
        "to": record.ended_with or record.to, "began": round(record.began_sec),
        "failure": record.failure, "failed_at": record.failed_at,
        "held": record.held is not None, "can_go_back": len(record.history), "said": list(record.said),
    }  # fmt: skip


def _print_status(selected: Sequence[Record], *, detailed: bool) -> None:
    for record in selected if detailed else ():
        for sentence in record.said:
            click.echo(sentence)
    rows = [
        [
            record.model, record.step, time.strftime("%Y-%m-%d %H:%M", time.localtime(record.began_sec)),
            record.began_with or "-", record.ended_with or record.to or "-",
        ]
        for record in selected
    ]  # fmt: skip
    table(rows, ["MODEL", "STEP", "BEGAN", "FROM", "TO"])
    for record in selected:
        if record.failure:
            click.echo(f"{record.model}: {record.failure}")


@click.command("canary")
@models_argument
@click.pass_context
def canary_(ctx: click.Context, recipes: tuple[str, ...]) -> int:
    """Ask models their canaries, until one fails; exit status 3 when one does."""
    place: Place = ctx.obj
    place.require_local()
    statuses = [0]
    with Manager(place) as manager:
        for service in dict.fromkeys(map(service_name, recipes)):
            statuses.append(_ask(place, manager, service, alone=not has_all_option(ctx)))
    return max(statuses)


def _ask(place: Place, manager: Manager, service: str, *, alone: bool) -> int:
    """Ask one model its canaries, and say how that ended; the exit status for it."""
    names = UnitNames.of_service(service)
    state = existing(manager, service, place)
    if Store(place.unit_folder).read(names.canaries) is None:
        click.echo(f"{names.recipe} has no canaries; write `canaries:` in its recipe, and apply it", err=True)
        return 2 if alone else 0
    if state.active_state != "active":
        click.echo(f"{names.recipe} is {state.word}, and is not asked; start it first", err=True)
        return 1 if alone else 0
    with moving_line(lambda: f"{names.recipe}: asking its canaries"):
        answer = questions.run_unit(manager, names.canaries)
    if answer.well:
        say(f"{names.recipe} passes its canaries")
        return 0
    click.echo(
        f"{names.recipe}: {answer.fault}; see `{shlex.join((*place.journalctl, names.canaries))}`", err=True
    )
    for sentence in said_by(place, names.canaries, answer.since_sec):
        click.echo(f"  {sentence}", err=True)
    return 3
