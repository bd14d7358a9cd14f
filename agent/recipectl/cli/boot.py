"""enable, disable: which models start at boot."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from recipectl.cli.jobs import existing, run_jobs
from recipectl.cli.names import models_argument, service_name
from recipectl.cli.options import warn
from recipectl.cli.sockets import socket_state
from recipectl.errors import JobError, RecipectlError, UsageError
from recipectl.place import lingering_fault
from recipectl.systemd.dbus import Manager
from recipectl.systemd.store import Store
from recipectl.systemd.unitfile import TARGET, recipe_of

if TYPE_CHECKING:
    from recipectl.place import Place


def _enabled_units(place: Place, manager: Manager, recipes: tuple[str, ...]) -> tuple[str, ...]:
    """The units that [Install] belongs to: the socket of an on-demand model, else its service."""
    services = [existing(manager, service_name(recipe), place).name for recipe in recipes]
    sockets = [socket_state(manager, service) for service in services]
    return tuple(
        socket.name if socket.load_state == "loaded" else service
        for service, socket in zip(services, sockets, strict=True)
    )


def _warn_of_autostart(place: Place, recipes: tuple[str, ...], *, enabled: bool) -> None:
    """Warn about recipes whose `autostart:` makes the next apply undo this."""
    from recipectl.compiler.cache import compile_place

    try:
        models = {model.name: model for model in compile_place(place).models}
    except RecipectlError:  # a wrong host file: the verbs that need it report it
        return
    for recipe in recipes:
        model = models.get(recipe_of(service_name(recipe)))
        if model and model.autostart not in (None, enabled):
            verb = "disables" if enabled else "enables"
            fault = f"{model.file} says `autostart: {str(not enabled).lower()}`"
            warn(f"{fault}, so the next apply {verb} {model.name} again")


@click.command("enable")
@models_argument
@click.option("--now", is_flag=True, help="Start them as well.")
@click.pass_obj
def enable_(place: Place, recipes: tuple[str, ...], now: bool) -> int:
    """Start models at boot, with models.target."""
    enabled = Store(place.unit_folder).enabled()
    with Manager(place) as manager:
        units = _enabled_units(place, manager, recipes)
        for unit in units:
            rivals = {*manager.rivals(unit)} if unit.endswith(".service") else set()
            for rival in sorted(rivals & {*enabled, *units}):
                fault = f"{unit} and {rival} stop each other, so only one would run after a boot"
                remedy = f"disable {recipe_of(rival)} first"
                raise UsageError(f"{fault}; {remedy}", kind="relation")
        manager.enable((*units, TARGET))
        manager.reload()
    if place.user and (lingering := lingering_fault()):
        warn(lingering)
    _warn_of_autostart(place, recipes, enabled=True)
    return _start(place, recipes) if now else 0


def _job_error(place: Place, fault: str, unit: str, result: str) -> JobError:
    status = place.systemctl(f"status {unit}")
    return JobError(f"{fault}: its job was {result}; see `{status}`")


def _start(place: Place, recipes: tuple[str, ...]) -> int:
    """Start what was enabled: an on-demand model only listens, for its socket is what a boot starts."""
    with Manager(place) as manager:
        units = dict(zip(recipes, _enabled_units(place, manager, recipes), strict=True))
        for unit in units.values():
            if unit.endswith(".socket") and (result := manager.job("Start", unit)) != "done":
                raise _job_error(place, f"{unit} does not listen", unit, result)
    services = tuple(recipe for recipe, unit in units.items() if unit.endswith(".service"))
    return run_jobs(place, "Start", services) if services else 0


@click.command("disable")
@models_argument
@click.option("--now", is_flag=True, help="Stop them as well.")
@click.pass_obj
def disable_(place: Place, recipes: tuple[str, ...], now: bool) -> int:
    """Do not start models at boot any more."""
    place.require_local()
    with Manager(place) as manager:
        units = _enabled_units(place, manager, recipes)
        manager.disable(units)
        manager.reload()
        for unit in units if now else ():
            if unit.endswith(".socket") and (result := manager.job("Stop", unit)) != "done":
                raise _job_error(place, f"{unit} did not stop", unit, result)
    _warn_of_autostart(place, recipes, enabled=False)
    return run_jobs(place, "Stop", recipes) if now else 0
