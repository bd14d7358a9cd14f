"""status, list, logs: what is running."""

import json
import os
import time

import click

from recipectl import unitfile
from recipectl.bus import Manager, State
from recipectl.cli.common import Place, service
from recipectl.cli.run import decoded
from recipectl.errors import BusError, RecipectlError, UsageError


def _row(place: Place, state: State) -> dict[str, object]:
    facts = unitfile.facts(place.store.read(state.name) or "")
    return {
        "name": facts.get("Recipe", state.name),
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
        "enabled": state.unit_file_state == "enabled",
        "status_text": state.status_text,
        "drop_ins": list(state.drop_ins),
        "unit_file": str(place.store.folder / state.name),
        "ended": decoded(state) if state.active_state == "failed" else None,
    }


@click.command("status")
@click.argument("recipes", nargs=-1, metavar="[RECIPE]...")
@click.option("--json", "as_json", is_flag=True, help="Print a JSON list.")
@click.pass_obj
def status_(user: bool, recipes: tuple[str, ...], as_json: bool) -> int:
    """Show models as systemd sees them; exit status 3 when one that was named is not ready."""
    place = Place(user)
    ours = tuple(name for name in place.store.installed() if name.endswith(".service"))
    names = tuple(map(service, recipes)) or ours
    for name in names:
        if name not in ours:
            raise UsageError(
                f"{name} is not a unit of recipectl in {place.store.folder}; see `recipectl list`"
            )
    with Manager(user=user) as manager:
        states = manager.states(names)
    rows = [_row(place, state) for state in states]
    if as_json:
        click.echo(json.dumps(rows, indent=2))
    for row in rows if not as_json else ():
        since = row["since_sec"]
        stamp = (
            time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(since)) if isinstance(since, float) else "never"
        )
        memory = row["memory_bytes"]
        shown = {
            "state": f"{row['state']} since {stamp}"
            + (f": {row['status_text']}" if row["status_text"] else ""),
            "ended": row["ended"],
            "pid": row["pid"],
            "engine": f"{row['engine']} {row['engine_version']}",
            "endpoint": row["endpoint"],
            "model": row["model"],
            "gpus": row["gpus"],
            "restarts": row["restarts"],
            "memory": f"{memory / 2**20:.0f} MiB" if isinstance(memory, int) else None,
            "at boot": "yes" if row["enabled"] else "no",
            "unit": row["unit_file"],
            "drop-ins": " ".join(state for state in row["drop_ins"])
            if isinstance(row["drop_ins"], list)
            else None,
        }
        click.echo(row["name"])
        for key, value in shown.items():
            if value not in (None, ""):
                click.echo(f"  {key + ':':10} {value}")
    return 3 if recipes and any(state.word != "ready" for state in states) else 0


@click.command("list")
@click.option("--json", "as_json", is_flag=True, help="Print a JSON list.")
@click.pass_obj
def list_(user: bool, as_json: bool) -> int:
    """List all recipes, their state, and how host and recipe differ."""
    from recipectl import load, unit
    from recipectl.cli.common import steps

    place, status = Place(user), 0
    host, installed = place.host, place.store.installed()
    try:
        with Manager(user=user) as manager:
            paths = {path.stem: path for path in load.every(place.folders)}
            names = {*map(unitfile.name, paths), *(name for name in installed if name.endswith(".service"))}
            states = {state.name: state.word for state in manager.states(tuple(sorted(names)))}
    except BusError as error:
        click.echo(f"warning: states are unknown: {error}", err=True)
        states, status = {}, 1
        paths = {path.stem: path for path in load.every(place.folders)}
    rows = []
    for stem, path in paths.items():
        try:
            rendered = unit.render(steps(path, place, host), place.site, host)
            old = installed.get(rendered.name)
            differs = "not applied" if old is None else "" if old == rendered.text else "recipe has changed"
        except RecipectlError as error:
            click.echo(str(error), err=True)
            differs, status = "recipe is wrong", error.status
        rows.append(
            {
                "name": stem,
                "state": states.get(unitfile.name(stem), "unknown"),
                "differs": differs,
                "file": str(path),
            }
        )
    for name, text in installed.items():
        stem = unitfile.facts(text).get("Recipe", "")
        if stem and stem not in paths:
            source = next((line[11:] for line in text.split("\n") if line.startswith("SourcePath=")), "")
            gone = "" if os.path.exists(source) else "recipe is gone"  # noqa: PTH110  (text of a unit)
            rows.append({"name": stem, "state": states.get(name, "unknown"), "differs": gone, "file": source})
    if as_json:
        click.echo(json.dumps(rows, indent=2))
        return status
    width = max((len(row["name"]) for row in rows), default=4)
    for row in rows:
        click.echo(
            f"{row['name']:{width}}  {row['state']:10}  {row['differs'] or 'as applied':18}  {row['file']}"
        )
    return status


@click.command("logs")
@click.argument("recipe", metavar="RECIPE")
@click.option("-f", "--follow", is_flag=True, help="Keep printing what comes.")
@click.option("-n", "--lines", default=100, show_default=True, help="How many lines of the past.")
@click.option("--no-pager", is_flag=True, help="Do not pipe output into a pager.")
@click.pass_obj
def logs_(user: bool, recipe: str, follow: bool, lines: int, no_pager: bool) -> int:
    """Show a model's journal (this is journalctl -u)."""
    words = [*Place(user).journal.split(), service(recipe), "-n", str(lines)]
    words += ["-f"] * follow + ["--no-pager"] * (no_pager or follow)
    os.execvp(words[0], words)  # noqa: S606  (journalctl takes over)
