"""The units of a model as text. Pure."""

import json
from functools import partial
from ipaddress import ip_address

from recipectl.compiler import companions, gpus, identity, lifetimes, sandbox, secrets, service_settings
from recipectl.compiler.environment import assignment
from recipectl.compiler.helper_commands import HelperCommands
from recipectl.compiler.model import CompiledModel, ResolvedRecipe, Values
from recipectl.compiler.relations import Relations
from recipectl.compiler.unit_text import unit_of
from recipectl.engines import flags
from recipectl.engines.options import shipped_options
from recipectl.engines.served import served_names
from recipectl.errors import UsageError
from recipectl.machine.installation import Installation
from recipectl.recipe.hostfile import HostSettings
from recipectl.systemd import quoting
from recipectl.systemd.unitfile import DIGEST_FIELD, Unit, UnitNames, counted_per_start
from recipectl.text import digest_of

_NO_PLAIN_HTTP = ("--uds", "--ssl-certfile", "--ssl-cert-file")
_COMPARISON_TIMEOUT_SEC = 300  # two parsers, on a cold disk
_LONGEST_QUEUED_NAME = 60  # the path of HAProxy's control socket has at most 107 characters (unix(7))
_SORTED_JSON = json.JSONEncoder(sort_keys=True)


def listen_address(host: str) -> str | None:
    """What ListenStream= calls an address; None for a host name, which systemd does not resolve."""
    if host == "localhost":
        return "127.0.0.1"
    try:
        return f"[{host}]" if ip_address(host).version == 6 else host
    except ValueError:
        return None


def check_endpoint(resolved: ResolvedRecipe) -> None:
    """UsageError when the endpoint of an engine does not fit what the recipe asks for."""
    recipe = resolved.recipe
    words = [word for word in resolved.words if word.key]
    options, _ = flags.parse(recipe.backend, [word.text for word in words], shipped_options(recipe.backend))
    for option in options:
        if option.flag in _NO_PLAIN_HTTP:
            fault = f"recipectl needs plain HTTP over TCP, which `{option.flag}` turns off"
            origin = words[option.index].key
            raise UsageError(f"{fault}; remove it, and use a proxy for TLS", *origin, kind="argument")
    for endpoint in (resolved.endpoint, resolved.client_endpoint):
        if "/" in endpoint.host or endpoint.host.endswith(".sock"):
            fault = f"recipectl needs plain HTTP over TCP, and `host` is the socket {endpoint.host}"
            raise UsageError(f"{fault}; give an address", "host", kind="argument")
    if resolved.endpoint.path is None:
        rank = recipe.nodes.rank if recipe.nodes else 0
        for key in ("on_demand", "queue", "watch"):
            if getattr(recipe, key):
                fault = f"`{key}` needs an HTTP endpoint, and this node (rank {rank}) has none"
                raise UsageError(f"{fault}; remove `{key}:`", key)
    if recipe.queue and len(resolved.name) > _LONGEST_QUEUED_NAME:
        fault = f"the name `{resolved.name}` has {len(resolved.name)} characters"
        raise UsageError(f"{fault}, and with `queue` at most {_LONGEST_QUEUED_NAME} fit; shorten it", "queue")
    if recipe.front and listen_address(resolved.client_endpoint.host) is None:
        fault = f"`host` is {recipe.host}, and systemd listens on addresses only"
        raise UsageError(f"{fault}; give an address for `{recipe.front_key}`", "host")


def render(
    resolved: ResolvedRecipe, relations: Relations, settings: HostSettings, installation: Installation
) -> CompiledModel:
    """The units of one recipe. The same input gives the same bytes."""
    recipe = resolved.recipe
    names = UnitNames(resolved.name)
    assignments = [assignment(name, variable) for name, variable in resolved.environment.items()]
    started = {"environment": assignments} | _started_with(resolved, settings, installation)
    digest = digest_of(_SORTED_JSON.encode(started))
    helper = HelperCommands(installation)
    values = started | _service_values(resolved, relations, settings, installation, helper)
    values["wait_ready"] = helper.wait_until_ready(resolved, digest)
    # After a reload the unit on disk may be newer than the process: systemd keeps this field from its start.
    values["digest_fields"] = [] if installation.user else [f"{DIGEST_FIELD}={digest}"]
    write = partial(unit_of, resolved.file, names)
    units = [write(names.service, "model.service.j2", **values, digest=digest)]
    reachable = [names.reachable] if _is_behind_gateway(resolved, settings, installation) else []
    if recipe.on_demand:
        proxy = companions.proxy_values(recipe, recipe.on_demand, resolved, relations, installation, helper)
        units.append(write(names.socket, "model.socket.j2", listen=_listen(resolved), wants=reachable))
        units.append(write(names.proxy, "model-proxy.service.j2", **proxy))
        own = [] if installation.user else sandbox.helper_lines()
        units.append(write(names.keep, "model-keep.service.j2", sandbox=own))
    if recipe.queue:
        waiting, opening = companions.queue_values(recipe.queue, resolved, installation, helper)
        units.append(
            write(names.queue_socket, "model-queue.socket.j2", listen=_listen(resolved), wants=reachable)
        )
        units.append(write(names.queue, "model-queue.service.j2", **waiting))
        units.append(write(names.queue_open, "model-queue-open.service.j2", **opening))
    if reachable:
        listener = names.listener(on_demand=bool(recipe.on_demand), queued=bool(recipe.queue))
        own = sandbox.MARKER
        template = "model-reachable.service.j2"
        address = quoting.word(f"RECIPECTL_ADDRESS={resolved.client_endpoint.url}/")
        units.append(write(names.reachable, template, listener=listener, sandbox=own, address=address))
    if recipe.watch:
        watching, killing = companions.watch_values(recipe, recipe.watch, resolved, installation, helper)
        units.append(write(names.watch, "model-watch.service.j2", **watching))
        units.append(write(names.hung, "model-hung.service.j2", **killing))
    if resolved.member:
        tying, killing = companions.tie_values(resolved.member, resolved, installation, helper)
        units.append(write(names.tie, "model-tie.service.j2", **tying))
        units.append(write(names.lost, "model-lost.service.j2", **killing))
    if asked := companions.canaries(recipe, settings):
        asking = companions.canary_values(asked, resolved, installation, helper)
        units.append(write(names.canaries, "model-canaries.service.j2", **asking))
    return _model(resolved, relations, settings, installation, tuple(units), digest)


def _is_behind_gateway(resolved: ResolvedRecipe, settings: HostSettings, installation: Installation) -> bool:
    return bool(settings.gateway and resolved.endpoint.path and not installation.user)


def _listen(resolved: ResolvedRecipe) -> str:
    """The address of the socket where clients ask."""
    endpoint = resolved.client_endpoint
    return f"{listen_address(endpoint.host)}:{endpoint.port}"


def _model(
    resolved: ResolvedRecipe,
    relations: Relations,
    settings: HostSettings,
    installation: Installation,
    units: tuple[Unit, ...],
    digest: str,
) -> CompiledModel:
    recipe, endpoint = resolved.recipe, resolved.client_endpoint
    return CompiledModel(
        name=resolved.name,
        file=resolved.file,
        backend=recipe.backend,
        user=None if installation.user else identity.user_of(recipe, settings),
        user_in_front=companions.user_in_front(recipe, relations, installation),
        units=units,
        digest=digest,
        autostart=recipe.autostart,
        on_demand=recipe.on_demand is not None,
        queued=recipe.queue is not None,
        queue_digest=companions.queue_digest(recipe.queue, UnitNames(resolved.name)) if recipe.queue else "",
        watched=recipe.watch is not None,
        gpus=resolved.gpus,
        url=endpoint.url if endpoint.path else None,
        served=served_names(recipe, resolved.words),
        key_file=key.source if (key := secrets.api_key(recipe)) else None,
        socket_address=(endpoint.host, endpoint.port) if recipe.front else None,
        requires=relations.requires,
        rivals=relations.rivals,
        warnings=resolved.warnings,
    )


def _started_with(resolved: ResolvedRecipe, settings: HostSettings, installation: Installation) -> Values:
    """What a process keeps from its start, besides its variables. No other change needs a restart of it."""
    recipe = resolved.recipe
    level = recipe.hardening or settings.hardening
    started: Values = {
        "identity": [] if installation.user else identity_lines(resolved, settings),
        "secrets": secrets.unit_lines(recipe),
        "command": quoting.command_line(resolved.argv),
        "directories": [] if installation.user else [f"models/{resolved.name}"],
        "sandbox": sandbox.unit_lines(
            resolved, installation, level, own_user=identity.has_own_user(recipe, settings)
        ),
        "devices": gpus.device_settings(recipe, resolved.gpus),
        "passed": service_settings.lines(recipe, "Service"),
    }
    return started | _tied_with(resolved)


def _tied_with(resolved: ResolvedRecipe) -> Values:
    """What ties a host to its set: a change of it starts the set again."""
    member = resolved.member
    return {"tied_with": [member.digest, str(member.tie_port), member.address, member.head]} if member else {}


def identity_lines(resolved: ResolvedRecipe, settings: HostSettings) -> list[str]:
    """User= and the groups of a model; its private group stays the first."""
    groups = " ".join((identity.DATA_GROUP, *resolved.groups))
    return [f"User={identity.user_of(resolved.recipe, settings)}", f"SupplementaryGroups={groups}"]


def _service_values(
    resolved: ResolvedRecipe,
    relations: Relations,
    settings: HostSettings,
    installation: Installation,
    helper: HelperCommands,
) -> Values:
    """What the service has besides the settings that its process keeps from its start."""
    recipe, runtime, names = resolved.recipe, resolved.runtime, UnitNames(resolved.name)
    timeout_sec = recipe.ready.timeout_sec
    endpoint = resolved.client_endpoint
    engine = resolved.endpoint
    behind_gateway = _is_behind_gateway(resolved, settings, installation)
    description = recipe.description or f"Model {recipe.name} ({recipe.backend})"
    wanted = [
        *([names.queue_socket, names.queue_open] if recipe.queue else []),
        *([names.reachable] if behind_gateway and not recipe.front else []),
        *([names.watch] if recipe.watch else []),
        *([names.tie] if resolved.member else []),
    ]
    return {
        "description": quoting.text(description),
        "mounts": " ".join(quoting.word(path) for path in _needed_paths(resolved)),
        "asserted_paths": [quoting.line(recipe.model_path)] if recipe.model_path.startswith("/") else [],
        "requires": [UnitNames(other).service for other in relations.requires],
        "after": [
            *(UnitNames(other).service for other in relations.after),
            *([names.queue_socket] if recipe.queue else []),
        ],
        # Conflicts= stands on both sides: the other unit may be older than this recipe.
        "conflicts": [UnitNames(other).service for other in relations.rivals],
        "start_limit_interval_sec": lifetimes.start_limit_interval_sec(resolved),
        "start_limit_burst": lifetimes.STARTS_BEFORE_LIMIT * counted_per_start(names, wanted),
        "on_failure": [settings.on_failure] if settings.on_failure else [],
        "lifetime": [
            *(["StopWhenUnneeded=yes"] if recipe.on_demand else []),
            *([f"Wants={' '.join(wanted)}"] if wanted else []),
        ],
        "unit_passed": service_settings.lines(recipe, "Unit"),
        "pre": helper.before_start(resolved, relations, settings),
        "timeout_start_sec": timeout_sec,
        "timeout_stop_sec": lifetimes.timeout_stop_sec(resolved),
        "restart": lifetimes.restart_settings(resolved, settings, installation),
        "wanted_by": [] if recipe.on_demand else ["models.target"],
        "backend": recipe.backend,
        "rule": quoting.text(runtime.rule),
        "engine_version": quoting.text(runtime.engine_version or "unknown"),
        "endpoint": quoting.text(endpoint.url if endpoint.path else "none"),
        "host": quoting.text(endpoint.host if endpoint.path else "none"),
        "engine_listens": quoting.text(f"{engine.host} {engine.port}" if engine.path else "none"),
        "model_path": quoting.text(recipe.model_path),
        "model": quoting.text(recipe.served_model_name or recipe.model_path),
        "served": " ".join(quoting.word(name) for name in served_names(recipe, resolved.words)),
        "api_key": quoting.line(key.source) if (key := secrets.api_key(recipe)) else "",
        "gpus": quoting.text(",".join(resolved.gpus.words)),
        "accelerator": recipe.accelerator,
        "gpu_sharing": recipe.gpu_sharing,
    }


def _needed_paths(resolved: ResolvedRecipe) -> list[str]:
    """The model and the folders of programs and caches: their file systems may be mounted late."""
    runtime = resolved.runtime
    programs = (runtime.command[0], runtime.interpreter or "", *runtime.link_targets)
    folders = (path.rpartition("/")[0] for path in programs)
    paths = (resolved.recipe.model_path, *folders, *sandbox.moved_directories(resolved))
    return sorted({path for path in paths if path.startswith("/")})


def questions(resolved: ResolvedRecipe, settings: HostSettings, installation: Installation) -> Unit:
    """The unit of a recipe's canaries. Without canaries it asks only for the model's name."""
    asked = companions.canaries(resolved.recipe, settings)
    values = companions.canary_values(asked, resolved, installation, HelperCommands(installation))
    names = UnitNames(resolved.name)
    return unit_of(resolved.file, names, names.canaries, "model-canaries.service.j2", **values)


def comparison(
    resolved: ResolvedRecipe, settings: HostSettings, installation: Installation, command: tuple[str, ...]
) -> Unit:
    """The unit that runs the parsers of engines, as the model's user in the model's sandbox."""
    level = resolved.recipe.hardening or settings.hardening
    own = identity.has_own_user(resolved.recipe, settings)
    names = UnitNames(resolved.name)
    return unit_of(
        resolved.file,
        names,
        names.check,
        "recipectl-check.service.j2",
        identity=[] if installation.user else identity_lines(resolved, settings),
        command=quoting.command_line(command),
        timeout_start_sec=_COMPARISON_TIMEOUT_SEC,
        sandbox=sandbox.unit_lines(resolved, installation, level, own_user=own),
    )
