"""From the host file and the models of a host to its gateway, and the problems of both."""

from __future__ import annotations

import os
import socket
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import suppress
from ipaddress import ip_address
from pathlib import Path
from typing import NamedTuple

from recipectl.addresses import in_url
from recipectl.compiler.model import CompiledModel, GatewaySettings
from recipectl.compiler.problems import ProblemCollector
from recipectl.compiler.relations import same_address
from recipectl.errors import Problem, RecipectlError, UsageError, on_host
from recipectl.gateway import certificate, engine_keys, host, include
from recipectl.gateway.configuration import FOLDER, Gateway, render
from recipectl.gateway.routes import Routes, Target, routes, target_of
from recipectl.machine import sockets
from recipectl.machine.installation import current_installation
from recipectl.place import Place
from recipectl.recipe import search
from recipectl.recipe.hostfile import load_host_settings
from recipectl.recipe.trusted import content_for
from recipectl.systemd.store import Store
from recipectl.systemd.unitfile import GATEWAY, InstalledUnit, UnitNames, is_model_unit

_API = "v1"  # the first part of the paths of OpenAI's API


class CompiledGateway(NamedTuple):
    """A gateway and its problems; None where it cannot be compiled."""

    gateway: Gateway | None
    problems: tuple[Problem, ...]


def targets(
    models: Iterable[CompiledModel],
    installed: Mapping[str, InstalledUnit],
    *,
    applied: Collection[str] = (),
    gone: Collection[str] = (),
) -> Iterator[Target]:
    """What clients can ask: models as an apply writes them, and the others as their units are installed.

    `applied` and `gone` name the recipes whose units an apply writes, and removes. A recipe that was changed,
    and is not applied, leads where its model runs.
    """
    services = {}
    for model in models:
        units = {unit.name: InstalledUnit(unit.name, unit.text) for unit in model.units}
        services[model.name] = service = units[model.unit_names.service]
        if model.name in applied and (target := _target(service, units)):
            yield target
    for unit in installed.values():
        names = UnitNames(unit.recipe)
        if not unit.recipe or unit.name != names.service or unit.recipe in {*applied, *gone}:
            continue
        new_service = services.get(unit.recipe)
        # The unit of an earlier release does not say its names and its key.
        lacks_names = new_service and not unit.served and new_service.endpoint == unit.endpoint
        if target := _target(new_service if new_service and lacks_names else unit, installed):
            yield target


def _target(unit: InstalledUnit, units: Collection[str]) -> Target | None:
    """The target of a model. vLLM listens at IPv4's `localhost`, as systemd's sockets of ours do.

    llama.cpp listens at the first address that getaddrinfo(3) gives (cpp-httplib's create_socket).
    """
    target = target_of(unit, units)
    listens_itself = unit.engine_address == unit.endpoint_address
    if target and listens_itself and unit.backend == "llamacpp" and unit.endpoint_address[0] == "localhost":
        with suppress(OSError):
            first = str(socket.getaddrinfo("localhost", None, type=socket.SOCK_STREAM)[0][4][0])
            return target._replace(localhost=in_url(first))
    return target


def compiled(
    place: Place, settings: GatewaySettings, targets: Iterable[Target], *, test: bool = False
) -> CompiledGateway:
    """The gateway of some targets; with `test` nginx reads it, which root alone can ask for."""
    if place.user and load_host_settings(search.host_files(place.own_bases))[0].gateway is None:
        return CompiledGateway(None, ())  # it is the system's
    files = search.host_files(place.bases)
    source = str(files[0]) if files else "the host file"
    content = content_for(place.owners)
    positions = load_host_settings(files, content)[1]
    problems = ProblemCollector(source, positions)
    if place.user:
        problems.add(UsageError("`gateway:` needs the system's service manager; remove it", "gateway"))
        return CompiledGateway(None, tuple(problems.problems))
    targets = [*targets]
    all_routes = routes(targets, settings.names)
    problems.add(*all_routes.errors)
    unintended = (*_warnings(settings, all_routes), *_hidden(settings, targets))
    warnings = [problems.placed(warning, "warning") for warning in unintended]
    gateway = None
    try:
        _require_own_port(settings, targets)
        nginx = host.find_nginx()
        site_lines = include.site_lines(settings.include, content)
        gateway = render(settings, all_routes, nginx, source, current_installation(place), site_lines)
        host.require_readable(Path(FOLDER))
        if test and os.geteuid() == 0:
            _require_free_port(place, settings)
            host.test(gateway, nginx, source, content)
            warnings += [problems.placed(warning, "warning") for warning in _of_certificate(settings)]
    except UsageError as error:
        problems.add(error)
        gateway = None
    except RecipectlError as error:
        return CompiledGateway(None, (*problems.problems, on_host("host", str(error)), *warnings))
    return CompiledGateway(gateway, (*problems.problems, *warnings))


def _require_own_port(settings: GatewaySettings, targets: Iterable[Target]) -> None:
    """UsageError where a model, or its engine behind a socket, has the port of the gateway already."""
    address, port = settings.address
    for target in targets:
        listeners = {f"`{target.recipe}`": (target.host, target.location.port)}
        if target.engine:
            listeners[f"the engine of `{target.recipe}`"] = target.engine
        for shown, (own_host, own_port) in listeners.items():
            if own_port == port and same_address(own_host, address):
                fault = f"`gateway.listen` is {settings.listen}, and {shown} listens at that port"
                raise UsageError(f"{fault}; choose another", "gateway", "listen", kind="port")


def _require_free_port(place: Place, settings: GatewaySettings) -> None:
    """RecipectlError if another program has the port while the present gateway still answers.

    nginx tests no port, and would not start again. A model that has it may be about to give it up.
    """
    address, port = settings.address
    holders = sockets.holders(port, address)
    own = (holder for holder in holders if holder.unit == GATEWAY and holder.pid)
    if any((address, port) in sockets.listening(holder.pid or 0) for holder in own):
        return  # it has what it needs
    for holder in holders:
        is_model = is_model_unit(holder.unit)
        is_socket = holder.unit == "init.scope" and _is_of_model(place, port)
        if holder.unit != GATEWAY and not is_model and not is_socket and host.loaded() is not None:
            fault = f"{settings.listen} of `gateway.listen` is taken by {holder}"
            remedy = "end that, or choose another address"
            raise RecipectlError(f"{fault}; {remedy}; the gateway in force stays")


def _is_of_model(place: Place, port: int) -> bool:
    """True if systemd listens at a port for a model; `_require_own_port` reports that."""
    units = Store(place.unit_folder).installed().values()
    return any(stream.endswith(f":{port}") for unit in units for stream in unit.setting("ListenStream"))


def _of_certificate(settings: GatewaySettings) -> Iterator[UsageError]:
    if settings.certificate and settings.key:
        sentence = certificate.fault(Path(settings.certificate), Path(settings.key))
        if sentence:
            yield UsageError(sentence, "gateway", "tls", "certificate", kind="file")


def _warnings(settings: GatewaySettings, all_routes: Routes) -> Iterator[UsageError]:
    if settings.keys is None and not ip_address(settings.address[0]).is_loopback:
        fault = f"everybody who reaches {settings.listen} can use all models"
        yield UsageError(f"{fault}; name a file of `keys:`", "gateway", "listen", kind="secret")
    if any(route.target.recipe == _API for route in all_routes.by_name.values()):
        fault = f"the recipe `{_API}` has no path of its own: /{_API}/… is the API of all models"
        yield UsageError(f"{fault}; give it another name, or ask with `model`", "gateway", kind="relation")
    # A file's path is no name for clients: an engine uses it where its recipe gives no name.
    names = {name: some for name, some in all_routes.ambiguous.items() if not name.startswith("/")}
    for name, recipes in names.items():
        fault = f"`{name}` is served by {' and '.join(recipes)}, and leads to none of them"
        yield UsageError(f"{fault}; ask for a recipe, or decide in `names:`", "gateway", kind="relation")


def _hidden(settings: GatewaySettings, targets: Iterable[Target]) -> Iterator[UsageError]:
    """Yield warnings: names of the host file that hide a recipe of the same name."""
    recipes = {target.recipe for target in targets}
    for name, other in settings.names.items():
        if name in recipes and other != name:
            fault = f"`{name}` is a recipe too, and requests for it go to `{other}`"
            yield UsageError(f"{fault}; choose another name", "gateway", "names", name, kind="relation")


def differences(
    gateway: Gateway, folder: Path, installed: Mapping[str, InstalledUnit], enabled: Collection[str]
) -> Iterator[str]:
    """How what the gateway serves differs from what the recipes say."""
    unit = installed.get(gateway.unit.name)
    if unit is None:
        yield "models-gateway.service is not installed; run `recipectl apply`"
        return
    if unit.text != gateway.unit.text or host.installed(folder) != dict(gateway.files):
        yield "the files of the gateway are not what the recipes say; run `recipectl apply`"
    loaded_digest = host.loaded()
    if unit.name not in enabled:
        remedy = "run `systemctl enable --now models-gateway`, or remove `gateway:`"
        yield f"models-gateway.service is disabled, and does not start at boot; {remedy}"
    elif loaded_digest is None:
        yield "models-gateway.service does not answer; see `systemctl status models-gateway`"
    elif engine_keys.expected(gateway.engine_credentials) not in (None, engine_keys.present()):
        yield "the gateway has other keys of engines' own APIs than their files; run `recipectl apply`"
    if loaded_digest not in (None, gateway.digest):
        yield f"nginx has loaded configuration {loaded_digest}, not {gateway.digest}; run `recipectl apply`"
