"""remove: units go, recipes stay."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from recipectl.cli import gateway
from recipectl.cli.converge import report_wait
from recipectl.cli.jobs import refuse_upgraded
from recipectl.cli.names import models_argument, not_applied, recipe_names, service_name
from recipectl.cli.sockets import also_stopped
from recipectl.cli.terminal import say
from recipectl.converge import apply, plan, records
from recipectl.converge.values import Survey
from recipectl.files import remove
from recipectl.systemd.dbus import Manager
from recipectl.systemd.store import Store
from recipectl.systemd.unitfile import GATEWAY, UnitNames, recipe_of

if TYPE_CHECKING:
    from recipectl.place import Place


@click.command("remove")
@models_argument
@click.pass_obj
def remove_(place: Place, recipes: tuple[str, ...]) -> int:
    """Stop models, disable them and remove their units; recipes stay."""
    services = tuple(map(service_name, recipes))
    store = Store(place.unit_folder)
    with store.lock(report_wait), Manager(place) as manager:
        refuse_upgraded(place, services)
        installed = store.installed()
        gone: dict[str, str] = {}
        for service in services:
            name = recipe_of(service)
            if service not in installed and name not in recipe_names(place):
                raise not_applied(name, place)
            if service not in installed:
                say(f"`{name}` has no units: there is nothing to remove", err=True)
            gone |= {unit: "removed" for unit in UnitNames.of_service(service).every if unit in installed}
        for service, reason in also_stopped(manager, "Stop", services).items():
            say(f"stopping {service}: {reason}")
        states = {state.name: state for state in manager.states([*gone], brief=True)}
        current = Survey(installed=installed, states=states, gone=gone)
        status = 0
        try:
            apply.apply(plan.make_plan((), (), current), store, manager)
        finally:  # also where the unit of another model stays
            for service in services:
                if store.read(service) is None:
                    remove(records.path(place, recipe_of(service)))
            if GATEWAY in installed:
                status = gateway.refresh(place, manager)
    for unit in (unit for unit in services if unit in gone):
        say(f"{'stopped and removed' if current.is_up(unit) else 'removed'} {unit}")
    return status
