"""Jobs of models: what they stop besides, and those of models that may have a socket (on demand, queue)."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

from recipectl import addresses
from recipectl.cli.terminal import say
from recipectl.errors import BusError, Problem, on_host
from recipectl.machine import sockets
from recipectl.systemd.dbus import Manager
from recipectl.systemd.store import Store
from recipectl.systemd.unitfile import UnitNames

if TYPE_CHECKING:
    from recipectl.place import Place
    from recipectl.systemd.states import UnitState


_AT_ONCE_SEC = 0.5


class SocketError(BusError):
    """The socket of a model cannot listen."""


def also_stopped(manager: Manager, verb: str, services: tuple[str, ...]) -> dict[str, str]:
    """The running models that a verb stops besides those that are named, each with its reason."""
    others: dict[str, str] = {}
    for service in services:
        if verb == "Start" and manager.state(service, brief=True).active_state == "active":
            continue
        stopped = [service] if verb != "Start" else []
        started = [service] if verb != "Stop" else []
        for name in started:  # both lists grow on their way
            started += [other for other in manager.requirements(name) if other not in started]
            rivals = manager.rivals(name)
            others |= dict.fromkeys(rivals, f"it and {name} stop each other")
            stopped += rivals
        for name in stopped:
            dependents = [other for other in manager.dependents(name) if other not in stopped]
            others |= dict.fromkeys(dependents, f"it requires {name}")
            stopped += dependents
    others = {name: reason for name, reason in others.items() if name not in services}
    states = manager.states([*others], brief=True)
    return {state.name: others[state.name] for state in states if not state.is_down}


def socket_state(manager: Manager, service: str) -> UnitState:
    """The state of a model's socket; it is not loaded where the model is not on demand."""
    return manager.state(UnitNames.of_service(service).socket)


def queue_job(place: Place, manager: Manager, verb: str, state: UnitState, *, with_socket: bool) -> bytes:
    """The job of a verb; says what the caller may not expect. SocketError if its socket cannot."""
    service = state.name
    socket = socket_state(manager, service)
    on_demand = socket.load_state == "loaded"
    if verb == "Stop":
        if not on_demand:
            socket = manager.state(UnitNames.of_service(service).queue_socket)
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
        if verb == "Start" or state.active_state != "active":
            queue_socket = manager.state(UnitNames.of_service(service).queue_socket)
            _require_socket(place, manager, queue_socket, service)
        # Before 257 a start waits for the end of RestartSec=, and a restart does not.
        return manager.queue("Restart" if state.waits_to_restart else verb, service)
    if verb == "Restart" and (result := manager.job("Stop", service)) != "done":
        raise BusError(f"its stop was {result}; see `{place.systemctl('status')} {service}`")
    _require_socket(place, manager, socket, service)
    # Alone, the model would be stopped as unneeded. The keep unit starts the model and its proxy at once;
    # alone, that proxy would wait until conflicting models are idle. Without one, the proxy binds the model.
    names = UnitNames.of_service(service)
    has_keep = manager.state(names.keep).load_state == "loaded"
    return manager.queue("Start", names.keep if has_keep else names.proxy)


def _require_socket(place: Place, manager: Manager, socket: UnitState, service: str) -> None:
    """Start the socket of a model, if it has one; SocketError when it cannot listen."""
    if socket.load_state != "loaded" or socket.active_state == "active":
        return
    manager.reset_failed(socket.name)
    if manager.job("Start", socket.name) == "done":
        return
    holder = _holder(place, socket.name)
    if holder and holder.unit == service:
        return  # it was started before its recipe had a queue
    taken = f" (its port is taken by {holder})" if holder else ""
    fault = f"{socket.name} cannot listen{taken}, so no request would reach {service}"
    raise SocketError(f"{fault}; see `{place.systemctl('status')} {socket.name}`")


def _holder(place: Place, socket: str) -> sockets.PortHolder | None:
    """Who has the address of a socket; None where that cannot be told."""
    unit = None if place.remote else Store(place.unit_folder).read(socket)
    address, port = addresses.split("".join(unit.setting("ListenStream") if unit else ()))
    return sockets.holder(int(port), address) if port.isdecimal() else None


def after_stop(
    place: Place, manager: Manager, states: Sequence[UnitState], *, with_socket: bool, block: bool
) -> list[Problem]:
    """Stop the queues of stopped models, or say which models start again; `states` are those before."""
    if with_socket:
        return _stop_queues(manager, [state.name for state in states], block=block)
    # Requests can only wait for a model that is not up.
    down = [state.name for state in states if block and state.active_state != "active"]
    names = [UnitNames.of_service(service) for service in down]
    sockets_now = manager.states([each.socket for each in names], brief=True)
    for each, socket in zip(names, sockets_now, strict=True):
        if socket.active_state == "active" and _starts_again(manager, each):
            fault = f"requests that waited start {each.service} again"
            say(f"{fault}; `{place.verb('stop')} --socket {each.recipe}` closes them", err=True)
    return []


def _starts_again(manager: Manager, names: UnitNames) -> bool:
    """Whether systemd starts a model's proxy once more: it does so at once if a connection waits."""
    end = time.monotonic() + _AT_ONCE_SEC
    while time.monotonic() < end:
        if manager.state(names.proxy, brief=True).active_state == "activating":
            return True
        time.sleep(0.1)
    return False


def _stop_queues(manager: Manager, services: Sequence[str], *, block: bool) -> list[Problem]:
    """Stop the queues of stopped models: they have answered what ran, and what waits is closed."""
    failures = []
    for state in manager.states([UnitNames.of_service(service).queue_socket for service in services]):
        if state.active_state != "active":
            continue
        job = manager.queue("Stop", state.name)
        if block and (result := manager.result(job)) != "done":
            failures.append(on_host("unit", f"{state.name} did not stop: its job was {result}"))
    return failures
