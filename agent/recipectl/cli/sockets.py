"""Jobs of models that may have a socket: on demand, or with a queue."""

from collections.abc import Sequence

import click

from recipectl.cli.terminal import say
from recipectl.errors import BusError, Problem, on_host
from recipectl.systemd.dbus import Manager
from recipectl.systemd.states import UnitState
from recipectl.systemd.unitfile import UnitNames


def socket_state(manager: Manager, service: str) -> UnitState:
    """The state of a model's socket; it is not loaded where the model is not on demand."""
    return manager.states((UnitNames.of_service(service).socket,))[0]


def queue_job(manager: Manager, verb: str, state: UnitState, *, with_socket: bool) -> bytes:
    """The job of a verb; a message says what the caller may not expect."""
    service = state.name
    socket = socket_state(manager, service)
    on_demand = socket.load_state == "loaded"
    if verb == "Stop":
        if not on_demand:
            socket = manager.states((UnitNames.of_service(service).queue_socket,))[0]
        if socket.active_state == "active" and not with_socket:
            what = "starts again at the next request" if on_demand else "stops, and its requests wait"
            say(f"{service} {what}: its socket still listens (`--socket` stops it too)", err=True)
        elif on_demand and with_socket and (result := manager.job("Stop", socket.name)) != "done":
            raise BusError(f"{socket.name} did not stop: its job was {result}")
        return manager.queue(verb, service)
    if state.active_state == "failed":
        say(f"{service} had failed ({state.result}); its start limit was reset", err=True)
    manager.reset_failed(service)  # starts by people do not count against the start limit
    if not on_demand:
        if state.active_state != "active":
            _require_socket(
                manager, manager.states((UnitNames.of_service(service).queue_socket,))[0], service
            )
        # Before 257 a start waits for the end of RestartSec=, and a restart does not.
        return manager.queue("Restart" if state.waits_to_restart else verb, service)
    if verb == "Restart" and (result := manager.job("Stop", service)) != "done":
        raise BusError(f"its stop was {result}; see `systemctl status {service}`")
    _require_socket(manager, socket, service)
    # Alone, the model would be stopped as unneeded. The keep unit starts the model and its proxy at once;
    # alone, that proxy would wait until conflicting models are idle. Without one, the proxy binds the model.
    names = UnitNames.of_service(service)
    has_keep = manager.states((names.keep,))[0].load_state == "loaded"
    return manager.queue("Start", names.keep if has_keep else names.proxy)


def _require_socket(manager: Manager, socket: UnitState, service: str) -> None:
    """Start the socket of a model, if it has one; say when it cannot listen."""
    is_down = socket.load_state == "loaded" and socket.active_state != "active"
    if is_down and manager.job("Start", socket.name) != "done":
        fault = f"{socket.name} does not listen, so no request reaches {service}"
        click.echo(f"{fault}; see `systemctl status {socket.name}`", err=True)


def stop_queues(manager: Manager, services: Sequence[str], *, block: bool) -> list[Problem]:
    """Stop the queues of stopped models: they have answered what ran, and what waits is closed."""
    failures = []
    for state in manager.states([UnitNames.of_service(service).queue_socket for service in services]):
        if state.active_state != "active":
            continue
        job = manager.queue("Stop", state.name)
        if block and (result := manager.result(job)) != "done":
            failures.append(on_host("unit", f"{state.name} did not stop: its job was {result}"))
    return failures
