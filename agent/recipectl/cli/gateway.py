"""gateway: one address for the models of this host, and what an apply changes of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

import click

from recipectl.cli.options import (
    json_object_option,
    print_json,
    problems_as_json,
    report_problems,
    warn,
)
from recipectl.cli.terminal import table
from recipectl.converge.values import Action, Survey
from recipectl.errors import Problem, RecipectlError, UsageError, on_host
from recipectl.systemd.store import Store
from recipectl.systemd.unitfile import GATEWAY, Unit

if TYPE_CHECKING:  # jinja2 and pydantic: not for a host without a gateway
    from recipectl.compiler.model import CompiledModel, CompileResult
    from recipectl.gateway.configuration import Gateway
    from recipectl.place import Place
    from recipectl.systemd.dbus import Manager

    Report = Callable[[Action], None]


def exit_status(problems: Sequence[Problem]) -> int:
    """2 where the host file is wrong, 1 where the host is, 0 without errors."""
    errors = [problem for problem in problems if problem.is_error]
    return max((2 if problem.file else 1 for problem in errors), default=0)


def _nothing(*_: object) -> None:
    """A step of an apply that has nothing to do."""


class Change(NamedTuple):
    """What an apply does to the gateway, besides what it does to all units; its steps in their order."""

    actions: tuple[Action, ...] = ()
    problems: tuple[Problem, ...] = ()
    left: tuple[Action, ...] = ()  # what --no-restart leaves for later
    units: tuple[Unit, ...] = ()
    write_files: Callable[[Report], None] = _nothing  # before the unit starts
    put_files_back: Callable[[], None] = _nothing  # where no unit was changed
    finish: Callable[[Manager, Report], None] = _nothing  # reload nginx where that is due

    @property
    def status(self) -> int:
        return exit_status(self.problems)


def plan_change(
    place: Place,
    result: CompileResult,
    models: Sequence[CompiledModel],
    current: Survey,
    *,
    prune: bool,
    restart: bool,
) -> Change:
    """The gateway to all models that are installed when an apply of `models` ends."""
    is_left = result.gateway is None and GATEWAY in current.installed
    if is_left and not prune:
        from recipectl.gateway.configuration import LEFT_OVER

        return Change(problems=(on_host("unit", LEFT_OVER, severity="warning"),))
    if result.gateway is None and not is_left:
        return Change()
    from recipectl.converge.plan import must_skip, removed_units
    from recipectl.gateway import converge
    from recipectl.gateway.compile import compiled
    from recipectl.gateway.compile import targets as gateway_targets

    if GATEWAY not in current.installed and (
        reason := Store(place.unit_folder).reason_not_ours(GATEWAY, "move it away")
    ):
        return Change(problems=(on_host("unit", reason),))
    state = converge.present()
    if result.gateway is None:
        actions = converge.removal(current, state)
        if not restart and current.is_up(GATEWAY):
            return Change(left=tuple(action for action in actions if action.verb == "remove"))
        return Change(actions, finish=partial(converge.finish, actions, None, state))
    applied = [model for model in models if restart or not must_skip(model, current)]
    targets = gateway_targets(
        result.models,
        current.installed,
        applied={model.name for model in applied},
        gone={current.installed[unit].recipe for unit in removed_units(current, restart=restart)},
    )
    gateway, problems = compiled(place, result.gateway, targets, test=True)
    cut_off = (*_cut_off(applied, current),) if GATEWAY in current.installed else ()
    if gateway is None:
        return Change(problems=(*problems, *cut_off))
    due = converge.restart_that_is_due(gateway, current, state)
    left = (due,) if due and not restart else ()
    if left and converge.reason_to_restart(gateway, current, state):
        # nginx would ask for keys that it was never given, for example.
        return Change(problems=(*problems, *cut_off), left=left)
    actions = converge.gateway_actions(gateway, current, state, due=None if left else due)
    return Change(
        actions,
        problems,
        left,
        units=(gateway.unit,),
        write_files=partial(converge.write_files, actions, gateway),
        put_files_back=partial(converge.put_files_back, state),
        finish=partial(converge.finish, actions, gateway, state),
    )


def _cut_off(models: Sequence[CompiledModel], current: Survey) -> Iterator[Problem]:
    """Warnings for models that move where the gateway in force does not lead."""
    for model in models:
        unit = current.installed.get(model.unit_names.service)
        if unit and unit.endpoint and model.url != unit.endpoint:
            fault = f"`{model.name}` moves from {unit.endpoint}, and the gateway cannot be changed"
            sentence = f"{fault}: it refuses requests for `{model.name}` until an apply succeeds"
            yield on_host("relation", sentence, file=model.file, severity="warning")


def refresh(place: Place, manager: Manager) -> int:
    """Let the gateway lead to what is installed; what is wrong with it is said, and in the exit status."""
    from recipectl.compiler.cache import compile_place
    from recipectl.converge import holds
    from recipectl.converge.survey import survey

    try:
        result = compile_place(place, held=holds.held(place))
        if result.gateway is None:
            return 0
        current = survey((), result.models, place, manager, prune=False)
        change = plan_change(place, result, (), current, prune=False, restart=False)
        report_problems(change.problems)
        if change.left:
            others = sorted(
                model.name for model in result.models if model.unit_names.service in current.installed
            )
            remedy = (
                f"run `recipectl apply {others[0]}`"
                if others
                else "move its recipe away, and run `recipectl apply`"
            )
            click.echo(f"{GATEWAY} must be restarted; {remedy}", err=True)
        change.write_files(_nothing)
        change.finish(manager, _nothing)
        return 1 if change.status or change.left else 0
    except RecipectlError as error:
        remedy = "then run `recipectl apply`"
        click.echo(f"the gateway was not changed, and may lead to what is gone: {error}; {remedy}", err=True)
        return 1


def of_place(place: Place) -> tuple[Gateway | None, tuple[Problem, ...]]:
    """The gateway of all recipes of a place, applied or not; UsageError where the host file has none."""
    from recipectl.compiler.cache import compile_place
    from recipectl.gateway.compile import compiled
    from recipectl.gateway.compile import targets as gateway_targets
    from recipectl.gateway.configuration import LEFT_OVER

    if place.user:
        raise UsageError("the gateway needs the system's service manager; run it without `--user`")
    result = compile_place(place)
    if result.gateway is None:
        file = place.bases[0] / "host.yaml"
        if GATEWAY in Store(place.unit_folder).installed():
            raise UsageError(LEFT_OVER)
        raise UsageError(f"this host has no gateway; write `gateway: {{}}` in {file}, then `recipectl apply`")
    every = {model.name for model in result.models}
    targets = gateway_targets(result.models, Store(place.unit_folder).installed(), applied=every)
    return compiled(place, result.gateway, targets)


@click.command("gateway")
@json_object_option()
@click.pass_obj
def gateway_(place: Place, as_json: bool) -> int:
    """Show the one address of this host's models, and where each name leads."""
    from recipectl.gateway import host
    from recipectl.systemd.dbus import Manager

    gateway, problems = of_place(place)
    changed: list[Problem] = []
    if unit := Store(place.unit_folder).read(GATEWAY):
        with Manager(place) as manager:
            changed = [*host.changed_secrets(manager, unit), *host.missing_secrets(unit)]
    problems = (*problems, *(problem._replace(severity="warning") for problem in changed))
    report_problems(problems)
    if gateway is None:
        if as_json:
            print_json({"problems": problems_as_json(problems)})
        return exit_status(problems)
    settings = gateway.settings
    url = f"{'https' if settings.certificate else 'http'}://{settings.listen}/v1"
    rows = [
        {
            "name": route.name,
            "recipe": route.target.recipe,
            "url": route.target.url,
            "on_demand": route.target.on_demand,
        }
        for route in gateway.routes.by_name.values()
    ]
    loaded_digest = host.loaded()
    answers = loaded_digest is not None
    is_loaded = loaded_digest == gateway.digest
    as_applied = is_loaded and not changed
    status = exit_status(problems) or (0 if as_applied else 3)
    if answers and not is_loaded:
        warn("what nginx serves now is not what is shown; `recipectl diff` says why")
    if as_json:
        facts = {"url": url, "answers": answers, "as_applied": as_applied, "keys": settings.keys is not None}
        print_json(facts | {"names": rows, "problems": problems_as_json(problems)})
        return status
    click.echo(url + ("" if settings.keys else "  (no key is asked for)"))
    if not answers:
        warn(f"the gateway does not answer; see `systemctl status {GATEWAY}`")
    targets = ((route.name, route.target) for route in gateway.routes.by_name.values())
    cells = [(name, to.recipe, to.url + ("  on demand" if to.on_demand else "")) for name, to in targets]
    table(cells, ["NAME", "RECIPE", "URL"])
    return status
