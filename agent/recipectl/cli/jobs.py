"""start, stop, restart, switch, wait: verbs that give systemd a job, or wait for one."""

from __future__ import annotations

import contextlib
import shutil
import sys
import time
from functools import partial
from typing import TYPE_CHECKING

import click

from recipectl.cli.failures import log_lines, reason_not_ready, why_not_started
from recipectl.cli.options import RECIPES, service_name
from recipectl.errors import BusError, HostError, JobError, Problem, UsageError, on_host
from recipectl.systemd.dbus import Manager
from recipectl.systemd.store import Store
from recipectl.systemd.unitfile import UnitNames
from recipectl.text import printable

if TYPE_CHECKING:
    from recipectl.place import Place
    from recipectl.systemd.states import UnitState


def existing(manager: Manager, service: str) -> UnitState:
    """The state of a unit that systemd can load; UsageError or JobError when it cannot."""
    state = manager.states((service,))[0]
    if state.load_state == "not-found":
        fault = f"{service} is not on this host"
        raise UsageError(f"{fault}; write it with `recipectl apply` and the recipe's name", kind="unit")
    if state.load_state not in ("loaded", "masked"):
        fault = f"systemd cannot load {service} ({state.load_state})"
        raise JobError(f"{fault}; see systemctl status {service}")
    return state


def socket_state(manager: Manager, service: str) -> UnitState:
    """The state of a model's socket; it is not loaded where the model is not on demand."""
    return manager.states((UnitNames.of_service(service).socket,))[0]


def _control(text: str) -> None:
    """Write control characters of our own to the terminal; everything else is printed as text."""
    sys.stderr.buffer.write(text.encode(errors="replace"))
    sys.stderr.buffer.flush()


class _Progress:
    """One line on a terminal while a model loads: how long it takes, and its last log line; once a second."""

    def __init__(self, place: Place) -> None:
        self.place = place
        self.begin = time.monotonic()
        self.printed_sec = -1
        # Over ssh each question would be a connection of its own.
        self.enabled = sys.stderr.isatty() and not place.remote

    def tick(self, unit: str) -> None:
        elapsed_sec = int(time.monotonic() - self.begin)
        if self.enabled and elapsed_sec > self.printed_sec:
            self.printed_sec = elapsed_sec
            line = (log_lines(self.place, unit, 1) or [""])[0]
            width = shutil.get_terminal_size().columns
            _control(f"\r\033[K{elapsed_sec:4d}s  {printable(line)[: width - 8]}")

    def end(self) -> None:
        if self.enabled:
            _control("\r\033[K")


def _run_jobs(place: Place, verb: str, recipes: tuple[str, ...]) -> int:
    """One job for each model, all queued before the first is waited for; HostError has all that failed."""
    since_sec = time.time()
    failures: list[Problem] = []
    services = tuple(dict.fromkeys(map(service_name, recipes)))
    with Manager(user=place.user, host=place.remote) as manager:
        if verb != "Stop":
            _refuse_foreign_and_rivals(place, manager, services)
        states = [existing(manager, service) for service in services]
        if verb != "Stop" and not place.remote:
            _tell_of_edits(place, services)
        jobs: dict[str, bytes] = {}
        for state in states:
            try:
                jobs[state.name] = _queue(manager, verb, state)
            except BusError as error:
                failures.append(on_host("unit", f"{state.name}: {error}"))
        progress = _Progress(place)
        for service, job in jobs.items():
            result = manager.result(job, partial(progress.tick, service) if verb != "Stop" else None)
            progress.end()
            if failure := _failure(place, manager, verb, service, result, since_sec):
                failures.append(on_host("unit", failure))
    if failures:
        raise HostError(failures)
    return 0


def _tell_of_edits(place: Place, services: tuple[str, ...]) -> None:
    """Say that a model starts with an older recipe than that on disk."""
    from recipectl.audit import edits

    store = Store(place.unit_folder)
    for service in services:
        unit = store.read(service)
        if unit and unit.recipe and (change := edits.of_recipe(place, unit)):
            click.echo(f"{unit.recipe}: {change}", err=True)


def _failure(
    place: Place, manager: Manager, verb: str, service: str, result: str, since_sec: float
) -> str | None:
    """A sentence about a job that did not end well; None when it did."""
    if verb == "Stop":
        if result == "done" and manager.states((service,))[0].result == "timeout":
            click.echo(f"{service} did not stop within TimeoutStopSec=, and was killed", err=True)
        fault = f"{service} did not stop: its job was {result}"
        return None if result == "done" else f"{fault}; see systemctl status {service}"
    if result == "done" and manager.states((service,), brief=True)[0].active_state == "active":
        return None
    return why_not_started(place, manager.states((service,))[0], result, since_sec)


def _refuse_foreign_and_rivals(place: Place, manager: Manager, services: tuple[str, ...]) -> None:
    if not place.remote:
        store = Store(place.unit_folder)
        for service in services:
            if reason := store.reason_not_ours(service):
                raise UsageError(reason, kind="unit")
    for service in services:
        for rival in sorted({*manager.rivals(service)} & {*services}):
            raise UsageError(f"{service} and {rival} stop each other; start one of them", kind="relation")


def _queue(manager: Manager, verb: str, state: UnitState) -> bytes:
    """The job of a verb; a message says what the caller may not expect."""
    service = state.name
    socket = socket_state(manager, service)
    on_demand = socket.load_state == "loaded"
    if verb == "Stop":
        if socket.active_state == "active":
            click.echo(f"{service} starts again at the next request: its socket still listens", err=True)
        return manager.queue(verb, service)
    if state.active_state == "failed":
        click.echo(f"{service} had failed ({state.result}); its start limit was reset", err=True)
    # Starts by people do not count against the start limit.
    with contextlib.suppress(BusError):  # a unit that is not loaded has no count
        manager.reset_failed(service)
    if not on_demand:
        # Before 257 a start waits for the end of RestartSec=, and a restart does not.
        return manager.queue("Restart" if state.waits_to_restart else verb, service)
    if verb == "Restart" and (result := manager.job("Stop", service)) != "done":
        raise BusError(f"its stop was {result}; see systemctl status {service}")
    if socket.active_state != "active" and manager.job("Start", socket.name) != "done":
        fault = f"{socket.name} does not listen, so no request reaches {service}"
        click.echo(f"{fault}; see systemctl status {socket.name}", err=True)
    # Alone, the model would be stopped as unneeded. The keep unit starts the model and its proxy at once;
    # alone, that proxy would wait until conflicting models are idle. Without one, the proxy binds the model.
    names = UnitNames.of_service(service)
    has_keep = manager.states((names.keep,))[0].load_state == "loaded"
    return manager.queue("Start", names.keep if has_keep else names.proxy)


@click.command("start")
@RECIPES
@click.pass_obj
def start_(place: Place, recipes: tuple[str, ...]) -> int:
    """Start models; returns when they are ready."""
    return _run_jobs(place, "Start", recipes)


@click.command("stop")
@RECIPES
@click.pass_obj
def stop_(place: Place, recipes: tuple[str, ...]) -> int:
    """Stop models; returns when their processes are gone."""
    return _run_jobs(place, "Stop", recipes)


@click.command("restart")
@RECIPES
@click.pass_obj
def restart_(place: Place, recipes: tuple[str, ...]) -> int:
    """Stop models and start them again; returns when they are ready."""
    return _run_jobs(place, "Restart", recipes)


@click.command("switch")
@click.argument("recipe", metavar="RECIPE")
@click.pass_obj
def switch_(place: Place, recipe: str) -> int:
    """Start a model, and say which models were stopped for it."""
    down = ("inactive", "failed")
    service = service_name(recipe)
    with Manager(user=place.user, host=place.remote) as manager:
        existing(manager, service)
        states = manager.states(manager.rivals(service), brief=True)
        running = [state.name for state in states if state.active_state not in down]
    begin = time.monotonic()
    _run_jobs(place, "Start", (recipe,))
    with Manager(user=place.user, host=place.remote) as manager:
        for state in manager.states(running, brief=True):
            if state.active_state in down:
                click.echo(f"stopped {state.name}")
    click.echo(f"{service} is ready after {time.monotonic() - begin:.1f} s")
    return 0


@click.command("wait")
@RECIPES
@click.option("--timeout", type=float, default=1800, show_default=True, metavar="SECONDS")
@click.pass_obj
def wait_(place: Place, recipes: tuple[str, ...], timeout: float) -> int:
    """Wait until models are ready, without starting them."""
    end = time.monotonic() + timeout
    with Manager(user=place.user, host=place.remote) as manager:
        for service in map(service_name, recipes):
            while not _is_ready(place, manager, service):
                if time.monotonic() > end:
                    word = existing(manager, service).word
                    raise JobError(
                        f"{service} is still {word} after {timeout:g} s; see systemctl status {service}"
                    )
                time.sleep(0.1)
    return 0


def _is_ready(place: Place, manager: Manager, service: str) -> bool:
    """True if a model is ready; JobError when it cannot become ready any more."""
    # A job that waits or runs may be a restart: `active` is then about the old process.
    has_job = manager.has_job(service)
    state = existing(manager, service)
    if state.active_state in ("failed", "inactive") and not has_job:
        unit = None if place.remote else Store(place.unit_folder).read(service)
        reason = reason_not_ready(place, state, unit)
        why = f": {reason.sentence}" if reason else ""
        raise JobError(f"{service} is {state.word}, and nothing starts it{why}; use `recipectl start`")
    return state.word == "ready" and not has_job
