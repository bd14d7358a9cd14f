"""start, stop, restart, switch, wait, enable, disable: verbs that give systemd a job."""

from __future__ import annotations

import contextlib
import shutil
import sys
import time
from functools import partial
from typing import TYPE_CHECKING

import click

from recipectl.cli.failures import log_lines, reason_not_ready, why_not_started
from recipectl.cli.options import RECIPES, service_name, warn
from recipectl.errors import BusError, HostError, JobError, Problem, RecipectlError, UsageError, on_host
from recipectl.place import lingering_fault
from recipectl.systemd.dbus import Manager
from recipectl.systemd.store import Store
from recipectl.systemd.unitfile import TARGET, UnitNames
from recipectl.text import printable

if TYPE_CHECKING:
    from recipectl.place import Place
    from recipectl.systemd.states import UnitState


def _existing(manager: Manager, service: str) -> UnitState:
    """The state of a unit that systemd can load; UsageError or JobError when it cannot."""
    state = manager.states((service,))[0]
    if state.load_state == "not-found":
        fault = f"{service} is not on this host"
        raise UsageError(f"{fault}; write it with `recipectl apply` and the recipe's name", kind="unit")
    if state.load_state not in ("loaded", "masked"):
        fault = f"systemd cannot load {service} ({state.load_state})"
        raise JobError(f"{fault}; see systemctl status {service}")
    return state


def _socket_state(manager: Manager, service: str) -> UnitState:
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
        states = [_existing(manager, service) for service in services]
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
    socket = _socket_state(manager, service)
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
        _existing(manager, service)
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
                    word = _existing(manager, service).word
                    raise JobError(
                        f"{service} is still {word} after {timeout:g} s; see systemctl status {service}"
                    )
                time.sleep(0.1)
    return 0


def _is_ready(place: Place, manager: Manager, service: str) -> bool:
    """True if a model is ready; JobError when it cannot become ready any more."""
    # A job that waits or runs may be a restart: `active` is then about the old process.
    has_job = manager.has_job(service)
    state = _existing(manager, service)
    if state.active_state in ("failed", "inactive") and not has_job:
        unit = None if place.remote else Store(place.unit_folder).read(service)
        reason = reason_not_ready(place, state, unit)
        why = f": {reason.sentence}" if reason else ""
        raise JobError(f"{service} is {state.word}, and nothing starts it{why}; use `recipectl start`")
    return state.word == "ready" and not has_job


def _enabled_units(manager: Manager, recipes: tuple[str, ...]) -> tuple[str, ...]:
    """The units that [Install] belongs to: the socket of an on-demand model, else its service."""
    services = [_existing(manager, service_name(recipe)).name for recipe in recipes]
    sockets = [_socket_state(manager, service) for service in services]
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
        model = models.get(UnitNames.of_service(service_name(recipe)).recipe)
        if model and model.autostart not in (None, enabled):
            verb = "disables" if enabled else "enables"
            fault = f"{model.file} says `autostart: {str(not enabled).lower()}`"
            warn(f"{fault}, so the next apply {verb} {model.name} again")


@click.command("enable")
@RECIPES
@click.pass_obj
def enable_(place: Place, recipes: tuple[str, ...]) -> int:
    """Start models at boot, with models.target."""
    enabled = Store(place.unit_folder).enabled()
    with Manager(user=place.user) as manager:
        units = _enabled_units(manager, recipes)
        for unit in units:
            rivals = {*manager.rivals(unit)} if unit.endswith(".service") else set()
            for rival in sorted(rivals & {*enabled, *units}):
                fault = f"{unit} and {rival} stop each other, so only one would run after a boot"
                remedy = f"disable {UnitNames.of_service(rival).recipe} first"
                raise UsageError(f"{fault}; {remedy}", kind="relation")
        manager.enable((*units, TARGET))
        manager.reload()
    if place.user and (lingering := lingering_fault()):
        warn(lingering)
    _warn_of_autostart(place, recipes, enabled=True)
    return 0


@click.command("disable")
@RECIPES
@click.pass_obj
def disable_(place: Place, recipes: tuple[str, ...]) -> int:
    """Do not start models at boot any more."""
    place.require_local()
    with Manager(user=place.user) as manager:
        manager.disable(_enabled_units(manager, recipes))
        manager.reload()
    _warn_of_autostart(place, recipes, enabled=False)
    return 0
