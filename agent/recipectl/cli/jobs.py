"""start, stop, restart, switch, wait: verbs that give systemd a job, or wait for one."""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import TYPE_CHECKING

import click

from recipectl.cli.beside import missing_hosts
from recipectl.cli.failures import reason_not_ready, why_not_started
from recipectl.cli.log import log_lines
from recipectl.cli.names import complete_recipe, models_argument, not_applied, service_name
from recipectl.cli.sockets import after_stop, also_stopped, queue_job
from recipectl.cli.terminal import moving_line, say
from recipectl.converge import records
from recipectl.engines import phases
from recipectl.errors import BusError, HostError, JobError, Problem, UsageError, on_host
from recipectl.machine import loads
from recipectl.recipe.spans import LONGEST_SEC, span_sec
from recipectl.systemd.dbus import Manager
from recipectl.systemd.store import Store
from recipectl.systemd.unitfile import UnitNames, recipe_of

if TYPE_CHECKING:
    from recipectl.place import Place
    from recipectl.systemd.states import UnitState


_LONG_SEC = 10  # a load that takes longer is told at once


def existing(manager: Manager, service: str, place: Place) -> UnitState:
    """The state of a unit that systemd can load; UsageError or JobError when it cannot."""
    state = manager.state(service)
    if state.load_state == "not-found":
        raise not_applied(recipe_of(service), place)
    if state.load_state not in ("loaded", "masked"):
        fault = f"systemd cannot load {service} ({state.load_state})"
        raise JobError(f"{fault}; see `{place.systemctl('status')} {service}`")
    return state


def refuse_upgraded(place: Place, services: Iterable[str]) -> None:
    """UsageError for a model that is being upgraded: the way back would undo what a verb does."""
    for name in () if place.remote else (recipe_of(service) for service in services):
        record = records.read(place, name)
        if record and not record.is_over:
            stop = place.systemctl(f"stop recipectl-upgrade@{name}.service")
            remedy = f"end that with `{stop}`, which goes back"
            raise UsageError(f"`{name}` is being upgraded; {remedy}", kind="unit")


class Load:
    """What to say about a model while it loads."""

    def __init__(self, place: Place, service: str, since_sec: float | None = None) -> None:
        self.place = place
        self.since_sec = since_sec  # an older line is about an earlier run
        self.service = service
        self.name = recipe_of(service)
        # A model of another host has its folder there.
        load_sec = None if place.remote else loads.last_sec(self.name, place.runtime_folder, user=place.user)
        self.usually = f" (usually {load_sec:.0f} s)" if load_sec and load_sec >= 1 else ""
        self.is_long = (load_sec or 0) >= _LONG_SEC

    def text(self) -> str:
        """What the engine does now, in its own words, and how long that took the last time."""
        if ending := "" if self.place.remote else self._ending():
            return f"{self.name}: {ending}"
        if missing := missing_hosts(self.place, self.name):
            return f"{self.name} waits for {', '.join(missing)}"
        # Over ssh each question would be a connection of its own.
        lines = [] if self.place.remote else log_lines(self.place, self.service, 1, self.since_sec)
        doing = phases.of_line(lines[0]) if lines else ""
        return f"{self.name} is loading{self.usually}{': ' if doing else ''}{doing}"

    def _ending(self) -> str:
        """What a restart waits for before the model loads; empty when it loads."""
        try:  # a connection of its own: the caller's waits for a job
            with Manager(self.place) as manager:
                way = UnitNames.of_service(self.service).queue_open
                state, opening = manager.states((self.service, way), brief=True)
        except BusError:
            return ""
        if state.active_state == "active" and state.will_stop:
            drains = opening.active_state == "deactivating"
            return "waiting for the requests that run" if drains else "waiting for what stops before it"
        return "stopping" if state.active_state == "deactivating" else ""


def run_jobs(
    place: Place,
    verb: str,
    recipes: tuple[str, ...],
    *,
    dry_run: bool = False,
    block: bool = True,
    with_socket: bool = False,
) -> int:
    """One job for each model, all queued before the first is waited for; HostError has all that failed."""
    since_sec = time.time()
    failures: list[Problem] = []
    services = tuple(dict.fromkeys(map(service_name, recipes)))
    with Manager(place) as manager:
        if verb != "Stop":
            _refuse_foreign_and_rivals(place, manager, services)
        states = [existing(manager, service, place) for service in services]
        for service, reason in also_stopped(manager, verb, services).items():
            (click.echo if dry_run else say)(f"{'would stop' if dry_run else 'stopping'} {service}: {reason}")
        if dry_run:
            click.echo("\n".join(f"would {verb.lower()} {service}" for service in services))
            return 0
        if verb != "Stop" and not place.remote:
            _tell_of_edits(place, services)
        jobs: dict[str, bytes] = {}
        for state in states:
            try:
                jobs[state.name] = queue_job(place, manager, verb, state, with_socket=with_socket)
            except BusError as error:
                failures.append(on_host("unit", str(error)))
        for service, job in jobs.items() if block else ():
            failures += _waited_for(place, manager, verb, service, job, since_sec)
        if verb == "Stop":
            failures += after_stop(place, manager, states, with_socket=with_socket, block=block)
    if failures:
        raise HostError(failures)
    return 0


def _waited_for(
    place: Place, manager: Manager, verb: str, service: str, job: bytes, since_sec: float
) -> list[Problem]:
    """What went wrong with a job, once it has ended."""
    load = Load(place, service, since_sec)
    stopping = verb == "Stop"
    describe = (lambda: f"{load.name}: stopping") if stopping else load.text
    with moving_line(describe, at_once=load.is_long and not stopping):
        result = manager.result(job)
    failure = _failure(place, manager, verb, service, result, since_sec)
    return [on_host("unit", failure)] if failure else []


def _tell_of_edits(place: Place, services: tuple[str, ...]) -> None:
    """Say that a model starts with an older recipe than that on disk."""
    from recipectl.audit import edits

    store = Store(place.unit_folder)
    for service in services:
        unit = store.read(service)
        if unit and unit.recipe and (change := edits.of_recipe(place, unit)):
            say(f"{unit.recipe} starts as it was applied last: {change}", err=True)


def _failure(
    place: Place, manager: Manager, verb: str, service: str, result: str, since_sec: float
) -> str | None:
    """A sentence about a job that did not end well; None when it did."""
    if verb == "Stop":
        state = manager.state(service)
        # Its process may have ended earlier, as the timeout of a load.
        if result == "done" and state.result == "timeout" and (state.ended_sec or 0) >= since_sec:
            click.echo(f"{service} did not stop within TimeoutStopSec=, and was killed", err=True)
        fault = f"{service} did not stop: its job was {result}"
        return None if result == "done" else f"{fault}; see `{place.systemctl('status')} {service}`"
    if result == "done" and manager.state(service, brief=True).active_state == "active":
        return None
    return why_not_started(place, manager.state(service), result, since_sec)


def _refuse_foreign_and_rivals(place: Place, manager: Manager, services: tuple[str, ...]) -> None:
    if not place.remote:
        store = Store(place.unit_folder)
        for service in services:
            if reason := store.reason_not_ours(service):
                raise UsageError(reason, kind="unit")
    for service in services:
        for rival in sorted({*manager.rivals(service)} & {*services}):
            raise UsageError(f"{service} and {rival} stop each other; start one of them", kind="relation")


NO_BLOCK = click.option("--no-block", is_flag=True, help="Do not wait until it is done.")
_DRY_RUN = click.option("--dry-run", is_flag=True, help="Change nothing, and show what would be stopped.")


@click.command("start")
@models_argument
@NO_BLOCK
@_DRY_RUN
@click.pass_obj
def start_(place: Place, recipes: tuple[str, ...], no_block: bool, dry_run: bool) -> int:
    """Start models; returns when they are ready. Says which models that stops."""
    return run_jobs(place, "Start", recipes, dry_run=dry_run, block=not no_block)


@click.command("stop")
@models_argument
@NO_BLOCK
@_DRY_RUN
@click.option("--socket", "with_socket", is_flag=True, help="Stop the sockets of models, too.")
@click.pass_obj
def stop_(place: Place, recipes: tuple[str, ...], no_block: bool, dry_run: bool, with_socket: bool) -> int:
    """Stop models; returns when their processes are gone."""
    refuse_upgraded(place, map(service_name, recipes))
    return run_jobs(place, "Stop", recipes, dry_run=dry_run, block=not no_block, with_socket=with_socket)


@click.command("restart")
@models_argument
@NO_BLOCK
@_DRY_RUN
@click.pass_obj
def restart_(place: Place, recipes: tuple[str, ...], no_block: bool, dry_run: bool) -> int:
    """Stop models and start them again; returns when they are ready."""
    refuse_upgraded(place, map(service_name, recipes))
    return run_jobs(place, "Restart", recipes, dry_run=dry_run, block=not no_block)


@click.command("switch")
@click.argument("recipe", metavar="RECIPE", shell_complete=complete_recipe)
@click.pass_obj
def switch_(place: Place, recipe: str) -> int:
    """Start a model, and say which models were stopped for it."""
    service = service_name(recipe)
    begin = time.monotonic()
    run_jobs(place, "Start", (recipe,))
    say(f"{service} is ready after {time.monotonic() - begin:.1f} s")
    return 0


def _seconds(_: click.Context, __: click.Parameter, text: str) -> float:
    """A span such as `90`, `0.5` or `15min` in seconds."""
    seconds: object
    try:
        seconds = float(text)
    except ValueError:
        seconds = span_sec(text)
    if not isinstance(seconds, (int, float)) or not 0 <= seconds <= LONGEST_SEC:
        raise click.BadParameter(f"`{text}` is not a time; give seconds, or a span such as `15min`")
    return seconds


@click.command("wait")
@models_argument
@click.option(
    "--timeout",
    callback=_seconds,
    default="30min",
    show_default=True,
    metavar="SPAN",
    help="The longest wait.",
)
@click.pass_obj
def wait_(place: Place, recipes: tuple[str, ...], timeout: float) -> int:
    """Wait until models are ready, without starting them."""
    end = time.monotonic() + timeout
    with Manager(place) as manager:
        for service in map(service_name, recipes):
            if not _is_ready(place, manager, service):
                _wait_until_ready(place, manager, service, end, timeout)
    return 0


def _wait_until_ready(place: Place, manager: Manager, service: str, end: float, timeout: float) -> None:
    load = Load(place, service)
    with moving_line(load.text, at_once=load.is_long):
        while not _is_ready(place, manager, service):
            if time.monotonic() > end:
                word = existing(manager, service, place).word
                fault = f"{service} is still {word} after {timeout:g} s"
                raise JobError(f"{fault}; see `{place.verb('status')} {load.name}`")
            time.sleep(0.1)


def _is_ready(place: Place, manager: Manager, service: str) -> bool:
    """True if a model is ready; JobError when it cannot become ready any more."""
    state = existing(manager, service, place)
    if state.is_down and not state.job:
        unit = None if place.remote else Store(place.unit_folder).read(service)
        reason = reason_not_ready(place, state, unit)
        start = place.verb(f"start {recipe_of(service)}")
        why, command = (f": {reason.sentence}", reason.next_command) if reason else ("", start)
        raise JobError(f"{service} is {state.word}, and nothing starts it{why}; go on with `{command}`")
    # A job that waits or runs may be a restart: `active` is then about the old process.
    return state.word == "ready" and not state.job
