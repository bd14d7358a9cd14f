"""doctor: all checks of a host in one go."""

from __future__ import annotations

import json
import stat
from collections.abc import Callable, Iterator
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import click

from recipectl.cli import fidelity
from recipectl.cli.options import Place, made, systemd_version
from recipectl.errors import BusError, RecipectlError
from recipectl.recipe import search as sources
from recipectl.systemd import unitfile
from recipectl.systemd.dbus import Manager

if TYPE_CHECKING:
    from recipectl.compiler import units as unit
    from recipectl.compiler.model import Compiled, Outcome

OLDEST_SYSTEMD = 252


class _Host:
    """What the checks look at, each asked for once."""

    def __init__(self, place: Place) -> None:
        self.place = place

    @cached_property
    def compiled(self) -> tuple[dict[str, unit.Steps], Outcome]:
        return made(self.place, ())

    @property
    def steps(self) -> dict[str, unit.Steps]:
        return self.compiled[0]

    @property
    def models(self) -> tuple[Compiled, ...]:
        return self.compiled[1].models

    @cached_property
    def rows(self) -> list[fidelity.Row]:
        return fidelity.rows(self.place, (), tell=False)[0]


def _recipes(host: _Host) -> Iterator[str]:
    for said in host.compiled[1].wrong.values():
        yield from said
    for model in host.models:
        yield from (text for text in model.warnings if "looks like a secret" not in text)
    for path, why in sources.unread(host.place.folders):
        yield f"{path} is never read: {why}; rename or remove it"


def _secrets(host: _Host) -> Iterator[str]:
    for model in host.models:
        yield from (text for text in model.warnings if "looks like a secret" in text)
    folder = Path("/etc/recipectl/secrets")
    # Those that a recipe names are looked at when it is compiled.
    for path in sorted(folder.iterdir() if folder.is_dir() else ()):
        if path.is_file() and path.stat().st_mode & (stat.S_IRWXO | stat.S_IWGRP):
            yield f"others may read or change {path}; chmod 0600 it"


def _systemd(host: _Host) -> Iterator[str]:
    with Manager(user=host.place.user) as manager:
        running = manager.version()
    if running < OLDEST_SYSTEMD:
        yield f"systemd {running} is older than {OLDEST_SYSTEMD}, the oldest that is tried; upgrade it"
    if running != (there := systemd_version()):
        yield f"systemd {running} runs and {there} is installed; run `systemctl daemon-reexec`, or reboot"


def _drift(host: _Host) -> Iterator[str]:
    for row in host.rows:
        for one in row.differences:
            if one.where not in ("recipe", "port"):
                yield f"{row.name}: {one.what} ({one.cause}); {one.remedy}"
        if row.running == "unknown":
            yield f"{row.name}: process {row.pid} cannot be read; run doctor as root"


def _ports(host: _Host) -> Iterator[str]:
    for row in host.rows:
        yield from (f"{row.name}: {one.what}; {one.remedy}" for one in row.differences if one.where == "port")


def _failed(host: _Host) -> Iterator[str]:
    recipes = {unitfile.facts(text).get("Recipe") for text in host.place.installed.values()}
    names = {unit for recipe in recipes if recipe for unit in unitfile.kinds(recipe)}
    with Manager(user=host.place.user) as manager:
        states = {state.name: state for state in manager.states(tuple(sorted(names)), brief=True)}
    for name, state in states.items():
        if state.active_state == "failed":
            yield f"{name} has failed; see {' '.join(host.place.journal)} {name}"
    for model in host.models:
        socket = states.get(model.enabled_unit)
        if model.on_demand and socket and socket.active_state == "inactive":
            yield f"{socket.name} does not listen, so no request starts {model.name}; recipectl apply"


def _gpus(host: _Host) -> Iterator[str]:
    from recipectl.compiler import environment

    there = {path.name[6:] for path in Path("/dev").glob("nvidia[0-9]*")}
    for name, one in sorted(host.steps.items()):
        wanted = {gpu for gpu in environment.gpus(one.recipe) or () if gpu.isdigit()}
        if one.recipe.accelerator == "cuda" and (missing := sorted(wanted - there)):
            has = ", ".join(sorted(there)) or "none"
            what = f"{name} wants GPU {', '.join(missing)}, this host has {has}"
            yield f"{what}; load the driver, or correct `gpus:`"


def _permissions(host: _Host) -> Iterator[str]:
    place = host.place
    files = [
        *place.host_files,
        *(path for one in sources.sources(place.folders) for path in (one.file, *one.drop_ins)),
    ]
    folders = {path.parent for path in files} | {place.store.folder}
    for path in sorted({*files, *folders}):
        if not path.exists():
            continue
        found = path.stat()
        if found.st_mode & stat.S_IWOTH and not found.st_mode & stat.S_ISVTX:
            yield f"anyone may write {path}, and so decide what runs; chmod o-w it"
        if not place.user and found.st_uid != 0:
            yield f"{path} belongs to user {found.st_uid}, who decides what runs here; chown it to root"


def _orphans(_: _Host) -> Iterator[str]:
    from recipectl.compiler import environment
    from recipectl.machine import processes as running

    for one in running.engines_outside():
        words = " ".join(environment.hidden(one.argv or ()))[:100]
        where = f"in {one.unit}" if one.unit else "in no unit"
        what = f"process {one.pid} {where} is an engine that nobody supervises ({words})"
        yield f"{what}; end it, or import its command"


CHECKS: dict[str, Callable[[_Host], Iterator[str]]] = {
    "recipes": _recipes,
    "secrets": _secrets,
    "permissions": _permissions,
    "gpus": _gpus,
    "systemd": _systemd,
    "units": _failed,
    "drift": _drift,
    "ports": _ports,
    "orphans": _orphans,
}


@click.command("doctor")
@click.option("--json", "as_json", is_flag=True, help="Print a JSON list.")
@click.pass_obj
def doctor_(place: Place, as_json: bool) -> int:
    """Run all checks of this host, and say what to do; exit status 3 when there is something."""
    place.here()
    rows, status, host = [], 0, _Host(place)
    for check, of in CHECKS.items():
        try:
            problems = sorted({*of(host)})
        except RecipectlError as error:  # a host file that is wrong, no systemd: the other checks go on
            problems = [str(error)]
            status = 1 if isinstance(error, BusError) else status
        rows.append({"check": check, "ok": not problems, "problems": problems})
        if not as_json:
            click.echo(f"{check:<12} {'ok' if not problems else f'{len(problems)} to do'}")
            for problem in problems:
                click.echo(f"  {problem}")
    if as_json:
        click.echo(json.dumps(rows, indent=2))
    return status or (0 if all(row["ok"] for row in rows) else 3)
