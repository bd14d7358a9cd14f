"""status, list, logs: what is running."""

from __future__ import annotations

import os
import re
import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

from recipectl.cli.failures import how_it_ended
from recipectl.cli.options import (
    SOME_RECIPES,
    json_option,
    no_such_unit,
    print_json,
    select,
    service_name,
    table,
    warn,
)
from recipectl.errors import BusError, RecipectlError, UsageError
from recipectl.recipe import search
from recipectl.systemd.dbus import Manager
from recipectl.systemd.store import Store
from recipectl.systemd.unitfile import UnitNames

if TYPE_CHECKING:
    from collections.abc import Mapping

    from recipectl.cli.options import Selection
    from recipectl.compiler.model import CompiledModel
    from recipectl.place import Place
    from recipectl.systemd.states import UnitState
    from recipectl.systemd.unitfile import InstalledUnit

_COLUMNS = {
    "name": "NAME", "state": "STATE", "pid": "PID", "engine": "ENGINE", "engine_version": "VERSION",
    "endpoint": "ENDPOINT", "gpus": "GPUS",
}  # fmt: skip


def _row(
    state: UnitState, unit: InstalledUnit | None, store: Store | None, enabled: frozenset[str]
) -> dict[str, object]:
    """One model as systemd and its unit have it; over ssh there is no store."""
    names = UnitNames.of_service(state.name)
    return {
        "name": unit.recipe if unit else names.recipe,
        "unit": state.name,
        "state": state.word,
        "active_state": state.active_state,
        "sub_state": state.sub_state,
        "since_sec": state.since_sec,
        "pid": state.main_pid or None,
        "engine": unit.backend if unit else None,
        "engine_version": unit.engine_version if unit else None,
        "endpoint": unit.endpoint or "none" if unit else None,
        "model": unit.model if unit else None,
        "gpus": unit.gpus if unit else None,
        "restarts": state.restarts,
        "memory_bytes": state.memory_bytes,
        "enabled": state.name in enabled or names.socket in enabled,
        "status_text": state.status_text,
        "drop_ins": list(state.drop_ins),
        "unit_file": str(store.folder / state.name) if store else None,
        "ended": how_it_ended(state) if state.active_state == "failed" else None,
    }


@click.command("status")
@SOME_RECIPES
@json_option()
@click.option("--no-pager", is_flag=True, help="Accepted, as by systemctl; there is no pager.")
@click.pass_obj
def status_(place: Place, recipes: tuple[str, ...], as_json: bool, no_pager: bool) -> int:
    """Show models as systemd sees them; exit status 3 when a named model is not ready."""
    if place.remote and not recipes:
        raise UsageError("over -H name the recipes; their files are on the other host")
    services = tuple(map(service_name, recipes))
    store = None if place.remote else Store(place.unit_folder)
    unknown: list[str] = []
    if store:
        existing = store.services()
        unknown = [service for service in services if service not in existing]
        services = tuple(service for service in services if service in existing) if recipes else existing
    detailed = bool(recipes) or as_json
    with Manager(user=place.user, host=place.remote) as manager:
        states = manager.states(services, brief=not detailed)
        sockets = [UnitNames.of_service(service).socket for service in services] if detailed else []
        socket_states = manager.states(sockets, brief=True)
    enabled = store.enabled() if store else frozenset[str]()
    rows = [_row(state, store.read(state.name) if store else None, store, enabled) for state in states]
    for row, socket in zip(rows, socket_states, strict=False):
        exists = socket.load_state != "unloaded" or (store and (store.folder / socket.name).exists())
        row["socket"] = socket.active_state if exists else None
    if as_json:
        print_json(rows)
    elif recipes:
        for row in rows:
            _print_details(row)
    else:
        table([[str(row[key] or "") for key in _COLUMNS] for row in rows], [*_COLUMNS.values()])
    for service in unknown:
        click.echo(str(no_such_unit(service, place)), err=True)
    if unknown:
        return 2
    return 3 if recipes and any(state.word != "ready" for state in states) else 0


def _print_details(row: Mapping[str, object]) -> None:
    since_sec, memory_bytes, drop_ins = row["since_sec"], row["memory_bytes"], row["drop_ins"]
    since = ""
    if isinstance(since_sec, float):
        since = time.strftime(" since %Y-%m-%d %H:%M:%S", time.localtime(since_sec))
    status_text = re.sub(r" *\[[0-9a-f]{12}\]$", "", str(row["status_text"]))  # the digest is for apply
    engine_says = f": {status_text}" if status_text not in ("", row["state"]) and row["pid"] else ""
    lines = {
        "state": f"{row['state']}{since}{engine_says}",
        "ended": row["ended"],
        "pid": row["pid"],
        "engine": f"{row['engine']} {row['engine_version']}" if row["engine"] else None,
        "endpoint": row["endpoint"],
        "model": row["model"],
        "gpus": row["gpus"],
        "restarts": row["restarts"],
        "memory": f"{memory_bytes / 2**20:.0f} MiB" if isinstance(memory_bytes, int) else None,
        "on demand": _socket_in_words(row.get("socket")),
        "at boot": "yes" if row["enabled"] else "no",
        "unit": row["unit_file"],
        "drop-ins": " ".join(drop_ins) if isinstance(drop_ins, list) else None,
    }
    click.echo(row["name"])
    for label, value in lines.items():
        if value not in (None, ""):
            click.echo(f"  {label + ':':10} {value}")


def _socket_in_words(active_state: object) -> str | None:
    if active_state is None:
        return None
    return (
        "its socket listens"
        if active_state == "active"
        else f"its socket is {active_state}: no request starts it"
    )


def _difference(model: CompiledModel, installed: Mapping[str, InstalledUnit], state: UnitState | None) -> str:
    """How a recipe and its units on the host differ; empty when they do not."""
    units = [installed.get(unit.name) for unit in model.units]
    if units[0] is None:
        return "not applied"
    if [unit.text if unit else None for unit in units] != [unit.text for unit in model.units]:
        edited = any(unit.edited_by_hand for unit in units if unit)
        return "unit was edited" if edited else "recipe has changed"
    outdated = state and state.main_pid and state.started_digest not in (None, model.digest)
    return "restart is due" if outdated else ""


@click.command("list")
@json_option()
@click.option("--gpus", "by_gpu", is_flag=True, help="Print which recipe owns which GPU and port.")
@click.pass_obj
def list_(place: Place, as_json: bool, by_gpu: bool) -> int:
    """List all recipes, their state, and how host and recipe differ."""
    selection = select(place, ())
    installed = Store(place.unit_folder).installed()
    recipes = {unit.recipe for unit in installed.values() if unit.recipe}
    models = {model.name: model for model in selection.models}
    names = sorted({*models, *selection.result.failures, *recipes})
    status = selection.status
    states: dict[str, UnitState] = {}
    try:
        with Manager(user=place.user) as manager:
            services = [UnitNames(name).service for name in names]
            states = {state.name: state for state in manager.states(services, brief=True)}
    except BusError as error:
        warn(f"states are unknown: {error}")
        status = 1
    rows = [_list_row(name, models.get(name), selection, installed, states) for name in names]
    if as_json:
        print_json(rows)
    elif by_gpu:
        _print_gpus(selection.models, states)
    else:
        columns = [[row["name"], row["state"], row["differs"] or "as applied", row["file"]] for row in rows]
        table([[str(word) for word in row] for row in columns], ["NAME", "STATE", "HOST", "FILE"])
    return status


def _list_row(
    name: str,
    model: CompiledModel | None,
    selection: Selection,
    installed: Mapping[str, InstalledUnit],
    states: Mapping[str, UnitState],
) -> dict[str, object]:
    state = states.get(UnitNames(name).service)
    file = model.file if model else ""
    if model:
        differs = _difference(model, installed, state)
    elif name in selection.result.failures:
        differs = "recipe is wrong"
    else:
        file = next(unit.source for unit in installed.values() if unit.recipe == name)
        differs = "recipe is masked" if Path(file).exists() else "recipe is gone"
    return {
        "name": name,
        "state": state.word if state else "unknown",
        "differs": differs,
        "file": file,
        "gpus": list(model.gpus.words) if model and model.gpus.mode != "unset" else None,
        "endpoint": (model.url or "none") if model else None,
        "autostart": model.autostart if model else None,
        "on_demand": model.on_demand if model else None,
    }


def _print_gpus(models: tuple[CompiledModel, ...], states: Mapping[str, UnitState]) -> None:
    """One row for each GPU and recipe: who may have it (`*` has it now), where it answers, whom it evicts."""
    claims = [(gpu, model) for model in models for gpu in (model.gpus.words or ("-",))]
    claims.sort(key=lambda claim: (claim[0] == "-", not claim[0].isdigit(), claim[0].zfill(4), claim[1].name))
    rows = []
    for gpu, model in claims:
        state = states.get(model.unit_names.service)
        word = state.word if state else "unknown"
        owner = "*" if word in ("ready", "loading") else ""
        rows.append([gpu, model.name + owner, word, model.url or "none", " ".join(model.rivals)])
    table(rows, ["GPU", "RECIPE", "STATE", "ENDPOINT", "EVICTS"])


@click.command("logs")
@click.argument("recipe", metavar="RECIPE")
@click.option("-f", "--follow", is_flag=True, help="Keep printing new lines.")
@click.option("-n", "--lines", default=100, show_default=True, help="How many past lines.")
@click.option("--no-pager", is_flag=True, help="Do not pipe output into a pager.")
@click.pass_obj
def logs_(place: Place, recipe: str, follow: bool, lines: int, no_pager: bool) -> int:
    """Show a model's journal (this is journalctl -u)."""
    service = service_name(recipe)
    if not place.remote and service not in Store(place.unit_folder).services():
        # A recipe without units may have had some; UsageError for no recipe.
        search.find(UnitNames.of_service(service).recipe, place.recipe_folders)
    words = [*place.journalctl, service, "-n", str(lines)]
    words += ["-f"] if follow else []
    words += ["--no-pager"] if no_pager or follow else []
    try:
        os.execvp(words[0], words)  # noqa: S606  (journalctl takes over)
    except OSError as error:
        fault = f"{words[0]} cannot be run ({error.strerror})"
        raise RecipectlError(f"{fault}; install it, or correct PATH") from error
