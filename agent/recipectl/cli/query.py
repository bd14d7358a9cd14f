"""status, list, logs: what is running."""

from __future__ import annotations

import json
import os
import re
import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

from recipectl.cli.options import Place, chosen, outcome, service
from recipectl.errors import BusError, UsageError
from recipectl.recipe import search as sources
from recipectl.systemd import unitfile
from recipectl.systemd.dbus import Manager, State

if TYPE_CHECKING:
    from recipectl.compiler.model import Compiled


def _row(place: Place, state: State, enabled: frozenset[str]) -> dict[str, object]:
    facts = {} if place.remote else unitfile.facts(place.store.read(state.name) or "")
    return {
        "name": facts.get("Recipe", unitfile.recipe_of(state.name)),
        "unit": state.name,
        "state": state.word,
        "active_state": state.active_state,
        "sub_state": state.sub_state,
        "since_sec": state.since_sec,
        "pid": state.main_pid or None,
        "engine": facts.get("Backend"),
        "engine_version": facts.get("EngineVersion"),
        "endpoint": facts.get("Endpoint"),
        "model": facts.get("Model"),
        "gpus": facts.get("Gpus"),
        "restarts": state.restarts,
        "memory_bytes": state.memory_bytes,
        "enabled": state.name in enabled or state.name.replace(".service", ".socket") in enabled,
        "status_text": state.status_text,
        "drop_ins": list(state.drop_ins),
        "unit_file": None if place.remote else str(place.store.folder / state.name),
        "ended": _ended(state) if state.active_state == "failed" else None,
    }


def _socket(service_: str) -> str:
    return unitfile.kinds(unitfile.recipe_of(service_))[1]


def _ended(state: State) -> str:
    from recipectl.cli.jobs import decoded

    return decoded(state)


@click.command("status")
@click.argument("recipes", nargs=-1, metavar="[RECIPE]...")
@click.option("--json", "as_json", is_flag=True, help="Print a JSON list.")
@click.option("--no-pager", is_flag=True, help="Accepted, as by systemctl; there is no pager.")
@click.pass_obj
def status_(place: Place, recipes: tuple[str, ...], as_json: bool, no_pager: bool) -> int:
    """Show models as systemd sees them; exit status 3 when one that was named is not ready."""
    if place.remote and not recipes:
        raise UsageError("over -H name the recipes; their files are on the other host")
    names, unknown = tuple(map(service, recipes)), list[str]()
    if not place.remote:
        ours = place.store.names()
        unknown = [name for name in names if name not in ours]
        names = tuple(name for name in names if name in ours) if names else ours
    with Manager(user=place.user, host=place.remote) as manager:
        states = manager.states(names, brief=not recipes and not as_json)
        sockets = manager.states(tuple(map(_socket, names)), brief=True) if recipes or as_json else ()
    enabled = frozenset[str]() if place.remote else place.store.enabled()
    rows = [_row(place, state, enabled) for state in states]
    for row, socket in zip(rows, sockets, strict=False):
        known = socket.load_state != "unknown" or (
            not place.remote and (place.store.folder / socket.name).exists()
        )
        row["socket"] = socket.active_state if known else None
    if as_json:
        click.echo(json.dumps(rows, indent=2))
    elif recipes:
        for row in rows:
            _details(row)
    else:
        keys = ("name", "state", "pid", "engine", "engine_version", "endpoint", "gpus")
        header = ["NAME", "STATE", "PID", "ENGINE", "VERSION", "ENDPOINT", "GPUS"]
        table([[str(row[key] or "") for key in keys] for row in rows], header)
    for name in unknown:
        click.echo(
            f"{name} is not a unit of recipectl in {place.store.folder}; see `recipectl list`", err=True
        )
    if unknown:
        return 2
    return 3 if recipes and any(state.word != "ready" for state in states) else 0


def _details(row: dict[str, object]) -> None:
    since, memory, drop_ins = row["since_sec"], row["memory_bytes"], row["drop_ins"]
    stamp = (
        time.strftime(" since %Y-%m-%d %H:%M:%S", time.localtime(since)) if isinstance(since, float) else ""
    )
    told = re.sub(r" *\[[0-9a-f]{12}\]$", "", str(row["status_text"]))  # the digest is for apply
    text = f": {told}" if told not in ("", row["state"]) and row["pid"] else ""
    shown = {
        "state": f"{row['state']}{stamp}{text}",
        "ended": row["ended"],
        "pid": row["pid"],
        "engine": f"{row['engine']} {row['engine_version']}" if row["engine"] else None,
        "endpoint": row["endpoint"],
        "model": row["model"],
        "gpus": row["gpus"],
        "restarts": row["restarts"],
        "memory": f"{memory / 2**20:.0f} MiB" if isinstance(memory, int) else None,
        "on demand": _listens(row.get("socket")),
        "at boot": "yes" if row["enabled"] else "no",
        "unit": row["unit_file"],
        "drop-ins": " ".join(drop_ins) if isinstance(drop_ins, list) else None,
    }
    click.echo(row["name"])
    for key, value in shown.items():
        if value not in (None, ""):
            click.echo(f"  {key + ':':10} {value}")


def _listens(socket: object) -> str | None:
    if socket in (None, "active"):
        return "its socket listens" if socket else None
    return f"its socket is {socket}: no request starts it"


def table(rows: list[list[str]], header: list[str]) -> None:
    """Columns under a header, nothing at all without rows."""
    widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]
    for row in [header, *rows] if rows else ():
        click.echo("  ".join(f"{word:{width}}" for word, width in zip(row, widths, strict=True)).rstrip())


def _difference(model: Compiled, installed: dict[str, str], state: State | None) -> str:
    old = [installed.get(unit.name) for unit in model.units]
    if old[0] is None:
        return "not applied"
    if old != [unit.text for unit in model.units]:
        return "unit was edited" if any(map(unitfile.edited, filter(None, old))) else "recipe has changed"
    older = (
        state and state.main_pid and state.mark not in (None, unitfile.facts(model.units[0].text)["Digest"])
    )
    return "restart is due" if older else ""


@click.command("list")
@click.option("--json", "as_json", is_flag=True, help="Print a JSON list.")
@click.option("--gpus", "by_gpu", is_flag=True, help="Print which recipe owns which GPU and port.")
@click.pass_obj
def list_(place: Place, as_json: bool, by_gpu: bool) -> int:
    """List all recipes, their state, and how host and recipe differ."""
    result = outcome(place)
    models, status = chosen(result, (), place)
    installed = place.store.installed()
    files = {model.name: model.file for model in models}
    stems = {*files, *result.wrong, *(unitfile.facts(text).get("Recipe", "") for text in installed.values())}
    names = tuple(unitfile.name(stem) for stem in sorted(stems - {""}))
    known: dict[str, State] = {}
    try:
        with Manager(user=place.user) as manager:
            known = {state.name: state for state in manager.states(names, brief=True)}
    except BusError as error:
        click.echo(f"warning: states are unknown: {error}", err=True)
        status = 1
    states = {name: state.word for name, state in known.items()}
    differs = {model.name: _difference(model, installed, known.get(model.units[0].name)) for model in models}
    differs |= dict.fromkeys(result.wrong, "recipe is wrong")
    for text in installed.values():
        stem = unitfile.facts(text).get("Recipe", "")
        if stem and stem not in differs:
            files[stem] = unitfile.source(text)
            differs[stem] = "recipe is masked" if Path(files[stem]).exists() else "recipe is gone"
    by_name = {model.name: model for model in models}
    rows = [
        {
            "name": stem,
            "state": states.get(unitfile.name(stem), "unknown"),
            "differs": differs[stem],
            "file": files.get(stem, ""),
            "gpus": list(gpus) if (model := by_name.get(stem)) and (gpus := model.gpus) is not None else None,
            "endpoint": model.endpoint if (model := by_name.get(stem)) else None,
            "autostart": model.autostart if (model := by_name.get(stem)) else None,
            "on_demand": model.on_demand if (model := by_name.get(stem)) else None,
        }
        for stem in sorted(differs)
    ]
    if as_json:
        click.echo(json.dumps(rows, indent=2))
    elif by_gpu:
        _gpus(models, states)
    else:
        shown = [[r["name"], r["state"], r["differs"] or "as applied", r["file"]] for r in rows]
        table([[str(word) for word in row] for row in shown], ["NAME", "STATE", "HOST", "FILE"])
    return status


def _gpus(models: tuple[Compiled, ...], states: dict[str, str]) -> None:
    """One row a GPU and recipe: who may have it (`*` has it now), where it answers, whom it evicts."""
    claims = [(gpu, model) for model in models for gpu in (model.gpus or ("-",))]
    claims.sort(key=lambda claim: (claim[0] == "-", not claim[0].isdigit(), claim[0].zfill(4), claim[1].name))
    rows = []
    for gpu, model in claims:
        state = states.get(model.units[0].name, "unknown")
        mark = "*" if state in ("ready", "loading") else ""
        rows.append([gpu, model.name + mark, state, model.endpoint, " ".join(model.rivals)])
    table(rows, ["GPU", "RECIPE", "STATE", "ENDPOINT", "EVICTS"])


@click.command("logs")
@click.argument("recipe", metavar="RECIPE")
@click.option("-f", "--follow", is_flag=True, help="Keep printing what comes.")
@click.option("-n", "--lines", default=100, show_default=True, help="How many lines of the past.")
@click.option("--no-pager", is_flag=True, help="Do not pipe output into a pager.")
@click.pass_obj
def logs_(place: Place, recipe: str, follow: bool, lines: int, no_pager: bool) -> int:
    """Show a model's journal (this is journalctl -u)."""
    name = unitfile.recipe_of(service(recipe))
    if not place.remote and service(recipe) not in place.store.names():
        sources.find(
            name, place.folders
        )  # a recipe without units may have had some; UsageError for no recipe
    words = [*place.journal, service(recipe), "-n", str(lines)]
    words += ["-f"] * follow + ["--no-pager"] * (no_pager or follow)
    os.execvp(words[0], words)  # noqa: S606  (journalctl takes over)
