"""lock, versions, check: is what runs what the recipe says?"""

from __future__ import annotations

import json
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from recipectl import sources, unitfile
from recipectl.cli.common import Place, chosen, made, warn
from recipectl.cli.query import table
from recipectl.errors import RecipectlError, UsageError

if TYPE_CHECKING:
    from recipectl import flags, installed, unit
    from recipectl.drift import Difference

_NAMES = click.argument("recipes", nargs=-1, required=True, metavar="RECIPE...")
_SOME = click.argument("recipes", nargs=-1, metavar="[RECIPE]...")
_JSON = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


@click.command("lock")
@_NAMES
@click.option("--update", is_flag=True, help="Accept the runtime as it is now, and show what changed.")
@click.option("--check", is_flag=True, help="Write nothing; exit status 3 when the runtime is not as locked.")
@click.pass_obj
def lock_(place: Place, recipes: tuple[str, ...], update: bool, check: bool) -> int:
    """Record the exact runtime of recipes beside them, in NAME.lock."""
    from recipectl import compiler, runtime
    from recipectl import installed as facts

    disk, status = runtime.Disk(), 0
    for name in recipes:
        file = sources.find(name, place.folders)
        stem = sources.stem(file)
        extra = (file,) if sources.is_file(name) else ()
        source = next(one for one in sources.sources(place.folders, extra) if one.name == stem)
        one = compiler.steps(replace(source, lock=None), place.host, place.site, disk)
        now = compiler.locked_now(one.recipe, one.runtime)
        path = sources.lock_of(file)
        said = facts.differences(_lock(path), now) if path.exists() else None
        if said == [] or (said is None and check):
            if said is None:
                click.echo(f"{path} is not there; write it with `recipectl lock {name}`", err=True)
                status = 3
            continue
        if said is not None:
            for clause in said:
                click.echo(f"{stem}: {clause}", err=not update)
            if not update:
                if not check:
                    click.echo(f"{path} is another; accept what is installed with --update", err=True)
                status = 3
                continue
        _write(path, now)
        click.echo(f"wrote {path}")
    return status


def _lock(path: Path) -> installed.Locked:
    try:
        found: installed.Locked = json.loads(path.read_text())
        if not {"interpreter", "distributions", "folder"} <= {*found}:
            raise ValueError("it lacks keys")
    except (OSError, ValueError) as error:
        raise UsageError(f"{path} cannot be read as a lock ({error}); remove it and lock again") from error
    return found


def _write(path: Path, now: installed.Locked) -> None:
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        temporary.write_text(json.dumps(now, indent=2) + "\n")
        temporary.replace(path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise RecipectlError(f"{path} cannot be written: {error.strerror}; are you root?") from error


@dataclass(frozen=True)
class Row:
    """One model: versions, and whether each stage is as the one before it."""

    name: str
    recipe: str | None  # the engine's version that the recipe resolves to now
    unit: str | None  # the one that the unit was compiled for
    loaded: str
    running: str
    answers: str | None
    pid: int | None
    executable: str | None
    argv: tuple[str, ...] | None
    differences: tuple[Difference, ...]


def rows(place: Place, recipes: tuple[str, ...], *, tell: bool = True) -> tuple[list[Row], int]:
    """Every model that a recipe or a unit is for, compared; and the status of the recipes."""
    from recipectl import drift, health, running
    from recipectl.bus import Manager

    steps, result = made(place, recipes)
    models, status = chosen(result, recipes, place) if tell else (result.models, 0)
    files = place.store.installed()
    wanted = {model.name: model for model in models}
    names = {
        *wanted,
        *(() if recipes else (n for text in files.values() if (n := unitfile.facts(text).get("Recipe")))),
    }
    names |= {name for name in result.wrong if not recipes or name in recipes}
    units = tuple(unitfile.name(name) for name in sorted(names))
    with Manager(user=place.user) as manager:
        states = dict(zip(sorted(names), manager.states(units), strict=True))
        loaded = {
            name: manager.command(state.name)
            for name, state in states.items()
            if state.load_state == "loaded"
        }
    up = {name: state for name, state in states.items() if state.active_state == "active"}

    def ask(name: str) -> str | None:
        facts = unitfile.facts(files.get(unitfile.name(name), ""))
        if name not in up or facts.get("Endpoint", "none") == "none":
            return None
        return running.answered_version(facts["Backend"], facts["Endpoint"])

    with ThreadPoolExecutor(16) as pool:
        answers = dict(zip(names, pool.map(ask, names), strict=True))
    found = []
    for name, state in sorted(states.items()):
        text = files.get(state.name, "")
        facts = unitfile.facts(text)
        one = steps.get(name)
        version = one.runtime.engine_version if one else None
        changed_sec = _installed_sec(one) if one else None
        differences = [
            drift.Difference("recipe", said, "the recipe is wrong", "correct it")
            for said in result.wrong.get(name, ())
        ]
        if name in wanted:
            compiled_for = facts.get("EngineVersion")
            units_now = {one.name: one.text for one in wanted[name].units}
            differences += drift.of_unit(name, units_now, files, (compiled_for, version or "unknown"))
        elif name not in result.wrong:
            differences.append(
                drift.Difference("recipe", "the recipe is gone", "its file was removed", "recipectl apply")
            )
        process = running.process(state.main_pid) if state.main_pid else None
        if name in loaded and text:
            drop_ins = place.store.drop_ins(state.name)
            differences += drift.of_loaded(state.name, text, drop_ins, loaded[name])
        if process and name in loaded:
            differences += drift.of_process(
                state.name,
                process,
                loaded[name],
                one.runtime.base if one else None,
                state.mark,
                facts.get("Digest"),
            )
            late = bool(changed_sec and process.started_sec and changed_sec > process.started_sec + 1)
            differences += drift.of_version(state.name, answers[name], version, late)
        port = facts.get("Endpoint", "").rpartition(":")[2]
        if (
            not process
            and port.isdigit()
            and name in wanted
            and not wanted[name].on_demand
            and (who := health.holder(int(port)))
        ):
            what = f"port {port} is answered by {who}, and the unit is {state.word}"
            differences.append(
                drift.Difference(
                    "port", what, "somebody runs it by hand", f"end that, then recipectl start {name}"
                )
            )
        where = {difference.where for difference in differences}
        found.append(
            Row(
                name, version, facts.get("EngineVersion"),
                "no" if name not in loaded else "differs" if where & {"loaded", "drop-in"} else "same",
                state.word if not process else "differs" if where & {"running"} else "same",
                answers[name], process.pid if process else None, process.executable if process else None,
                process.argv if process else None, tuple(differences),
            )
        )  # fmt: skip
    return found, status


def _installed_sec(one: unit.Steps) -> float | None:
    """When the engine of a recipe was installed, in seconds since the epoch."""
    folder, version = one.runtime.installed_in, one.runtime.engine_version
    found = Path(folder).glob(f"*-{version}.dist-info") if folder else ()
    from recipectl.runtime import DISTRIBUTIONS

    stems = {name.replace("-", "_") for name in DISTRIBUTIONS[one.recipe.backend]}
    times = [path.stat().st_ctime for path in found if path.name.partition("-")[0].lower() in stems]
    return max(times, default=None)


@click.command("versions")
@_SOME
@_JSON
@click.pass_obj
def versions_(place: Place, recipes: tuple[str, ...], as_json: bool) -> int:
    """Compare recipe, unit, what systemd has loaded, the process and the engine's own answer."""
    found, status = rows(place, recipes)
    if as_json:
        click.echo(json.dumps([asdict(row) for row in found], indent=2))
    else:
        shown = [
            [row.name, row.recipe or "-", row.unit or "-", row.loaded, row.running, row.answers or "-"]
            for row in found
        ]
        table(shown, ["NAME", "RECIPE", "UNIT", "LOADED", "RUNNING", "ANSWERS"])
        for row in found:
            for one in row.differences:
                click.echo(f"{row.name}: {one.what} ({one.cause}); {one.remedy}")
    return status or (3 if any(row.differences for row in found) else 0)


@click.command("check")
@_SOME
@_JSON
@click.pass_obj
def check_(place: Place, recipes: tuple[str, ...], as_json: bool) -> int:
    """Check flags and values against the parser of the installed engine, before anything starts."""
    from recipectl import flags, probes

    steps, result = made(place, recipes)
    models, status = chosen(result, recipes, place)
    told = list[dict[str, object]]()
    for model in models:
        one = steps[model.name]
        user = one.recipe.user or place.host.user
        options, origin = probes.options_of(
            one.recipe.backend, one.runtime, user, place.cache.parent / "options"
        )
        words = [word for word in one.words if word.key not in ((), ("model_path",))]
        findings = flags.findings(one.recipe.backend, words, options)
        shown = [
            asdict(finding) | {"place": one.place(*finding.key), "key": ".".join(map(str, finding.key))}
            for finding in findings
        ]
        told.append({"recipe": model.name, "options": origin, "findings": shown})
        if not as_json:
            _told(one, origin, findings)
        if any(not finding.deprecated for finding in findings):
            status = 2
    if as_json:
        click.echo(json.dumps(told, indent=2))
    return status


def _told(one: unit.Steps, origin: str, findings: list[flags.Finding]) -> None:
    for finding in findings:
        line = f"{one.place(*finding.key)}: {finding.sentence}"
        if finding.deprecated:
            warn(line)
        else:
            click.echo(line, err=True)
    if findings or origin.startswith("recipectl"):
        click.echo(f"{one.recipe.name}: checked with {origin}", err=True)
