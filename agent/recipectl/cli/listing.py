"""list: all recipes, their state, and how host and recipe differ."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from recipectl.cli.names import recipe_names
from recipectl.cli.options import (
    Selection,
    json_option,
    print_json,
    report_no_recipes,
    report_problems,
    select,
    warn,
)
from recipectl.cli.terminal import table
from recipectl.converge import holds
from recipectl.errors import BusError, RecipeError
from recipectl.machine import processes
from recipectl.recipe import search
from recipectl.systemd.dbus import Manager
from recipectl.systemd.started import started_digest
from recipectl.systemd.store import Store
from recipectl.systemd.unitfile import UnitNames

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from recipectl.compiler.model import CompiledModel
    from recipectl.place import Place
    from recipectl.systemd.states import UnitState
    from recipectl.systemd.unitfile import InstalledUnit


def _difference(
    place: Place,
    model: CompiledModel,
    installed: Mapping[str, InstalledUnit],
    state: UnitState | None,
    enabled: Collection[str],
) -> str:
    """How a recipe and its units on the host differ; empty when they do not."""
    units = [installed.get(unit.name) for unit in model.units]
    if units[0] is None:
        return "not applied"
    if [unit.text if unit else None for unit in units] != [unit.text for unit in model.units]:
        edited = any(unit.edited_by_hand for unit in units if unit)
        return "unit was edited" if edited else "recipe has changed"
    if model.autostart is not None and model.autostart != (model.enabled_unit in enabled):
        return "not enabled" if model.autostart else "still enabled"
    if state is None or not state.main_pid:
        down = state and state.is_down
        return "start is due" if down and model.autostart and not model.on_demand else ""
    if state.will_stop:  # its state says that it stops, or is started again
        return ""
    digest = started_digest(state.name, place.runtime_folder, user=place.user)
    rotated = processes.rotated_secrets(state.main_pid, units[0].secret_files)
    return "restart is due" if rotated or digest not in (None, model.digest) else ""


@click.command("list")
@json_option()
@click.option("--gpus", "by_gpu", is_flag=True, help="Print which recipe owns which GPU and port.")
@click.pass_obj
def list_(place: Place, as_json: bool, by_gpu: bool) -> int:
    """List all recipes, their state, and how host and recipe differ."""
    selection = _selection(place)
    report_problems(search.unread_files(place.recipe_folders))
    store = Store(place.unit_folder)
    installed, enabled = store.installed(), store.enabled()
    recipes = {unit.recipe for unit in installed.values() if unit.recipe}
    models = {model.name: model for model in selection.models}
    names = sorted({*models, *selection.result.failures, *recipes})
    status = selection.status
    states: dict[str, UnitState] = {}
    try:
        with Manager(place) as manager:
            units = [unit for name in names for unit in (UnitNames(name).service, UnitNames(name).socket)]
            states = {state.name: state for state in manager.states(units, brief=True)}
    except BusError as error:
        warn(f"states are unknown: {error}")
        status = 1
    held = holds.held(place)
    report_problems(held.values())
    rows = [_list_row(place, name, models.get(name), selection, installed, states, enabled) for name in names]
    for row in rows:
        row["differs"] = "held" if row["name"] in held else row["differs"]
    if not names:
        report_no_recipes(place)
    if as_json:
        print_json(rows)
    elif by_gpu:
        _print_gpus(selection.models, states)
    else:
        columns = [
            [row["name"], row["state_shown"], row["differs"] or "as applied", row["file"]] for row in rows
        ]
        table([[str(word) for word in row] for row in columns], ["NAME", "STATE", "HOST", "FILE"])
    return status


def _selection(place: Place) -> Selection:
    """All recipes; with a wrong host file, none can be compiled, and what runs is listed all the same."""
    from recipectl.compiler.model import CompileResult

    try:
        return select(place, ())
    except RecipeError as error:
        report_problems(error.problems)
        failures = dict.fromkeys(recipe_names(place), error.problems)
        return Selection((), error.problems, error.status, CompileResult((), failures, {}))


def shown(state: UnitState, socket: UnitState) -> str:
    """The state in a table, with what it means for requests: a socket may wait for them, or have failed."""
    if socket.active_state == "failed":
        return f"{state.shown}, socket failed"
    return (
        f"{state.shown}, on demand"
        if socket.active_state == "active" and state.word == "stopped"
        else state.shown
    )


def _list_row(
    place: Place,
    name: str,
    model: CompiledModel | None,
    selection: Selection,
    installed: Mapping[str, InstalledUnit],
    states: Mapping[str, UnitState],
    enabled: Collection[str],
) -> dict[str, object]:
    state = states.get(UnitNames(name).service)
    file = model.file if model else ""
    if model:
        differs = _difference(place, model, installed, state, enabled)
    elif name in selection.result.failures:
        differs = "recipe is wrong"
        file = next((problem.file for problem in selection.result.failures[name] if problem.file), "")
    else:
        file = next(unit.source for unit in installed.values() if unit.recipe == name)
        inside = Path(file).parent in place.recipe_folders
        differs = "recipe is masked" if inside else "recipe is elsewhere"
        differs = differs if Path(file).exists() else "recipe is gone"
    return {
        "name": name,
        "state": state.word if state else "unknown",
        "state_shown": shown(state, states[UnitNames(name).socket]) if state else "unknown",
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
