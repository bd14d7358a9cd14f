"""lock, versions, check: is what runs what the recipe says?"""

from __future__ import annotations

import json
import os
import re
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

from recipectl import health
from recipectl.audit import drift
from recipectl.cli.options import Place, chosen, made, warn
from recipectl.cli.query import table
from recipectl.errors import RecipectlError, UsageError
from recipectl.recipe import search as sources
from recipectl.systemd import unitfile

if TYPE_CHECKING:
    from recipectl.compiler import units as unit
    from recipectl.compiler.model import Compiled
    from recipectl.engines import Endpoint, flags
    from recipectl.machine import distributions as installed
    from recipectl.machine.processes import Process
    from recipectl.systemd.dbus import State

Difference = drift.Difference
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
    if update and check:
        raise UsageError("--check writes nothing, and --update writes; give one of them")
    from recipectl.compiler import pipeline as compiler
    from recipectl.compiler import preflight as checks
    from recipectl.machine import distributions as facts
    from recipectl.machine.disk import Disk

    disk, status = Disk(), 0
    for name in recipes:
        file = sources.find(name, place.folders)
        stem = sources.stem(file)
        extra = (file,) if sources.is_file(name) else ()
        source = next(one for one in sources.sources(place.folders, extra) if one.name == stem)
        one = compiler.steps(source._replace(lock=None), place.host, place.site, disk)
        now = checks.locked_now(one.recipe, one.runtime)
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
    from recipectl.machine import distributions as installed

    try:
        return installed.read_lock(path)
    except (OSError, ValueError) as error:
        raise UsageError(f"{path} cannot be read as a lock ({error}); remove it and lock again") from error


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
    from recipectl.machine import processes as running
    from recipectl.systemd.dbus import Manager

    steps, result = made(place, recipes)
    models, status = chosen(result, recipes, place) if tell else (result.models, 0)
    files = place.store.installed()
    wanted = {model.name: model for model in models}
    units = {stem for text in files.values() if (stem := unitfile.facts(text).get("Recipe"))}
    stems = {sources.stem(Path(name)) if sources.is_file(name) else name for name in recipes}
    names = sorted({*wanted, *(result.wrong.keys() & stems if recipes else {*result.wrong, *units})})
    with Manager(user=place.user) as manager:
        states = manager.states(tuple(map(unitfile.name, names)))
        loaded = {one.name: manager.command(one.name) for one in states if one.load_state == "loaded"}

    def ask(state: State) -> str | None:
        facts = unitfile.facts(files.get(state.name, ""))
        if state.active_state != "active" or facts.get("Endpoint", "none") == "none":
            return ""
        url = facts["Endpoint"]
        if (one := steps.get(facts["Recipe"])) and one.recipe.on_demand:
            url = one.endpoint.url  # behind the socket, which would start it
        return running.answered_version(facts["Backend"], url)

    with ThreadPoolExecutor(16) as pool:  # one that hangs keeps nobody waiting
        answers = pool.map(ask, states)
    found = []
    for name, state, answered in zip(names, states, answers, strict=True):
        one, model = steps.get(name), wanted.get(name)
        differences = _of_recipe(name, one, model, result.wrong.get(name, ()), files)
        process = running.process(state.main_pid) if state.main_pid else None
        closed = process is not None and (process.executable is None or process.environment is None)
        if closed and tell:
            warn(f"{name}: process {state.main_pid} cannot be read; run it as root to compare it")
        if process and state.name in loaded:
            differences += _of_process(place, state, process, loaded[state.name], one, answered, files)
        if state.name in loaded and state.name in files:
            drop_ins = place.store.drop_ins(state.name)
            differences += drift.of_loaded(
                state.name, files[state.name], drop_ins, loaded[state.name], place.runtime
            )
        if process and not {difference.where for difference in differences} & {"unit", "running"}:
            differences += drift.of_silence(state.name, answered, ready=state.active_state == "active")
        if not process and model and one:
            differences += _of_port(name, state, one.endpoint)
        where = {difference.where for difference in differences}
        running_word = state.word if not process else "unknown" if closed else "same"
        loaded_word = "differs" if where & {"loaded", "drop-in"} else "same"
        found.append(
            Row(
                name=name,
                recipe=one.runtime.engine_version if one else None,
                unit=unitfile.facts(files.get(state.name, "")).get("EngineVersion"),
                loaded=loaded_word if state.name in loaded else "no",
                running="differs" if process and where & {"running", "runtime"} else running_word,
                answers=answered or None,
                pid=process.pid if process else None,
                executable=process.executable if process else None,
                argv=process.argv if process else None,
                differences=tuple(differences),
            )
        )
    return found, status


def _of_recipe(
    name: str,
    one: unit.Steps | None,
    model: Compiled | None,
    wrong: tuple[str, ...],
    files: dict[str, str],
) -> list[Difference]:
    """The recipe as it is now against its units on disk."""
    if wrong:
        locked = [said for said in wrong if "not as locked in" in said]
        others = [said for said in wrong if said not in locked]
        broken = [drift.Difference("recipe", said, "the recipe is wrong", "correct it") for said in others]
        return [*broken, *drift.of_lock(name, locked)]
    if model is None or one is None:
        return [drift.Difference("recipe", "the recipe is gone", "its file was removed", "recipectl apply")]
    now = {unit.name: unit.text for unit in model.units}
    compiled_for = unitfile.facts(files.get(model.units[0].name, "")).get("EngineVersion")
    return drift.of_unit(name, now, files, (compiled_for, one.runtime.engine_version or "unknown"))


def _of_process(
    place: Place,
    state: State,
    process: Process,
    loaded: drift.Command,
    one: unit.Steps | None,
    answered: str | None,
    files: dict[str, str],
) -> list[Difference]:
    """The process against what systemd has loaded, and against what is installed by now."""
    from recipectl.machine import processes as running

    digest = unitfile.facts(files.get(state.name, "")).get("Digest")
    base = one.runtime.base if one and one.runtime.interpreter else None
    replaced = base if base and running.runs(process.pid, base) is False else None
    changed_sec = _installed_sec(one) if one else None
    late = bool(changed_sec and process.started_sec and changed_sec > process.started_sec + 1)
    version = one.runtime.engine_version if one else None
    secret = tuple(one.recipe.secrets) if one else ()
    return [
        *drift.of_process(
            state.name, process, loaded, replaced, (state.mark, digest), secret, user=place.user
        ),
        *drift.of_version(state.name, answered, version, late),
        *(drift.of_lock(one.recipe.name or "", one.locked) if one else ()),
    ]


def _of_port(name: str, state: State, end: Endpoint) -> list[Difference]:
    """Somebody else on the port of a model that does not run."""
    who = health.holder(end.port, end.host) if end.path else None
    if who is None or re.search(r" of model-[^ ]+\.service$", who):  # a rival may have the same port
        return []
    what = f"port {end.port} is answered by {who}, and the unit is {state.word}"
    remedy = f"end that, then recipectl start {name}"
    return [drift.Difference("port", what, "somebody runs it by hand", remedy)]


def _installed_sec(one: unit.Steps) -> float | None:
    """When the newest of what an engine's numbers come from was installed, in seconds since the epoch."""
    from recipectl.machine import distributions as installed
    from recipectl.machine.disk import DISTRIBUTIONS

    names = {*DISTRIBUTIONS[one.recipe.backend]}
    folder = one.runtime.installed_in
    times = [
        path.stat().st_ctime
        for path in (Path(folder).glob("*.dist-info") if folder else ())
        if installed.counts(path.name.partition("-")[0].lower(), names)
    ]
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
    from recipectl.engines import ask as probes
    from recipectl.engines import flags

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
        silent = {*one.recipe.extra_args} - {word.key[1] for word in words if word.key[0] == "extra_args"}
        false = [key for key in sorted(silent) if one.recipe.extra_args[key] is False]
        findings = flags.findings(one.recipe.backend, words, options)
        findings += flags.left_out(one.recipe.backend, false, options)
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
