"""The units of a model as text: one function for each kind of unit. Pure."""

import hashlib
import json
import re
from dataclasses import dataclass
from functools import cache
from ipaddress import ip_address

from jinja2 import Environment as Templates
from jinja2 import PackageLoader, StrictUndefined

from recipectl.compiler import gpus, sandbox, secrets, service_settings
from recipectl.compiler.environment import assignment
from recipectl.compiler.helper_commands import HelperCommands
from recipectl.compiler.model import CompiledModel, ResolvedRecipe
from recipectl.compiler.relations import Relations
from recipectl.engines.endpoint import drain_sec
from recipectl.errors import UnrepresentableError, UsageError
from recipectl.machine.installation import Installation
from recipectl.recipe.hostfile import HostSettings
from recipectl.recipe.schema import OnDemand, Recipe
from recipectl.systemd import quoting
from recipectl.systemd.unitfile import DIGEST_VARIABLE, Unit, UnitNames, sealed

_PROXYD = "/lib/systemd/systemd-socket-proxyd"
_PROXY_SANDBOX = ["DynamicUser=yes", "PrivateDevices=yes", "PrivateTmp=yes"]
_STARTS_BEFORE_LIMIT = 4
_RESTART_SEC = 10
_LONGEST_PAUSE_SEC = 60
_CONTROL = re.compile("[\x00-\x1f\x7f]")
_SORTED_JSON = json.JSONEncoder(sort_keys=True)

Values = dict[str, str | int | list[str]]


@cache
def templates() -> Templates:
    """The package's templates."""
    return Templates(  # noqa: S701  (unit files, not HTML)
        loader=PackageLoader("recipectl"), undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True,
        keep_trailing_newline=True, auto_reload=False,
    )  # fmt: skip


def _rendered(template: str, **values: str | int | list[str]) -> str:
    """A template with its values. No value can begin a line of its own."""
    for name, value in values.items():
        for text in value if isinstance(value, list) else (str(value),):
            # systemd takes \r and NUL for the end of a line too: a raw one would begin a setting of its own.
            # Only a continued command line has line feeds.
            if not text.isprintable() and _CONTROL.search(text.replace(" \\\n", "")):
                raise UnrepresentableError(f"a control character reached the {name} of a unit; remove it")
    return templates().get_template(template).render(values)


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
    for word in resolved.words:
        if flag := re.fullmatch(r"--(uds|ssl[-_]certfile|ssl[-_]cert[-_]file)(=.*)?", word.text):
            fault = f"recipectl needs plain HTTP over TCP, which `--{flag[1]}` turns off"
            raise UsageError(f"{fault}; remove it, and use a proxy for TLS", *word.key, kind="argument")
    if resolved.endpoint.path is None:
        rank = recipe.nodes.rank if recipe.nodes else 0
        for key in ("on_demand", "watch"):
            if getattr(recipe, key):
                fault = f"`{key}` needs an HTTP endpoint, and this node (rank {rank}) has none"
                raise UsageError(f"{fault}; remove `{key}:`", key)
    if recipe.on_demand and listen_address(resolved.client_endpoint.host) is None:
        fault = f"`host` is {recipe.host}, and systemd listens on addresses only"
        raise UsageError(f"{fault}; give an address for `on_demand`", "host")


def render(
    resolved: ResolvedRecipe, relations: Relations, settings: HostSettings, installation: Installation
) -> CompiledModel:
    """The units of one recipe. The same input gives the same bytes."""
    recipe = resolved.recipe
    names = UnitNames(resolved.name)
    assignments = [assignment(name, variable) for name, variable in resolved.environment.items()]
    started = {"environment": assignments} | _started_with(resolved, settings, installation)
    # The engine carries the digest: after a reload the unit on disk may be newer than the process.
    digest = hashlib.sha256(_SORTED_JSON.encode(started).encode()).hexdigest()[:12]
    started["environment"] = sorted([*assignments, f"{DIGEST_VARIABLE}={digest}"])
    helper = HelperCommands(installation)
    values = started | _service_values(resolved, relations, settings, installation, helper)
    write = _Writer(names, quoting.line(resolved.file))
    units = [write.unit(names.service, "model.service.j2", **values, digest=digest)]
    if recipe.on_demand:
        proxy = _proxy_values(recipe, recipe.on_demand, resolved, relations, installation, helper)
        endpoint = resolved.client_endpoint
        listen = f"{listen_address(endpoint.host)}:{endpoint.port}"
        units.append(write.unit(names.socket, "model.socket.j2", listen=listen))
        units.append(write.unit(names.proxy, "model-proxy.service.j2", **proxy))
        units.append(write.unit(names.keep, "model-keep.service.j2"))
    if watch := recipe.watch:
        probe = helper.probe(resolved.endpoint, watch, names.service)
        timeout_sec = watch.timeout + 10
        units.append(write.unit(names.watch_timer, "model-watch.timer.j2", every_sec=watch.every))
        units.append(
            write.unit(names.watch_service, "model-watch.service.j2", probe=probe, timeout_sec=timeout_sec)
        )
    return _model(resolved, relations, settings, installation, tuple(units), digest)


@dataclass(frozen=True)
class _Writer:
    """Writes the units of one recipe; `source` is its file as SourcePath= has it."""

    names: UnitNames
    source: str

    def unit(self, name: str, template: str, **values: str | int | list[str]) -> Unit:
        """A unit from its template."""
        names = self.names
        common = {
            "recipe": names.recipe, "source": self.source, "service": names.service, "stem": names.stem,
        }  # fmt: skip
        return sealed(Unit(name, _rendered(template, **common, **values)))


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
        user=None if installation.user else recipe.user or settings.user,
        units=units,
        digest=digest,
        autostart=recipe.autostart,
        on_demand=recipe.on_demand is not None,
        watched=recipe.watch is not None,
        gpus=resolved.gpus,
        url=endpoint.url if endpoint.path else None,
        listen=(endpoint.host, endpoint.port) if recipe.on_demand else None,
        requires=relations.requires,
        rivals=relations.rivals,
        warnings=resolved.warnings,
    )


def _started_with(resolved: ResolvedRecipe, settings: HostSettings, installation: Installation) -> Values:
    """What a process keeps from its start, besides its variables. No other change needs a restart of it."""
    recipe = resolved.recipe
    level = recipe.hardening or settings.hardening
    return {
        "users": [] if installation.user else [recipe.user or settings.user],
        "secrets": secrets.unit_lines(recipe),
        "command": quoting.command_line(resolved.argv),
        "directories": [] if installation.user else [f"models/{resolved.name}"],
        "sandbox": sandbox.unit_lines(resolved, installation, level),
        "devices": gpus.device_settings(recipe, resolved.gpus),
        "passed": service_settings.lines(recipe, "Service"),
    }


def _service_values(
    resolved: ResolvedRecipe,
    relations: Relations,
    settings: HostSettings,
    installation: Installation,
    helper: HelperCommands,
) -> Values:
    """What the service has besides the settings that its process keeps from its start."""
    recipe, runtime = resolved.recipe, resolved.runtime
    timeout_sec = recipe.ready.timeout_sec
    endpoint = resolved.client_endpoint
    description = recipe.description or f"Model {recipe.name} ({recipe.backend})"
    return {
        "description": quoting.text(description),
        "asserted_paths": [quoting.line(recipe.model_path)] if recipe.model_path.startswith("/") else [],
        "requires": [UnitNames(other).service for other in relations.requires],
        "after": [UnitNames(other).service for other in relations.after],
        # Conflicts= stands on both sides: the other unit may be older than this recipe.
        "conflicts": [UnitNames(other).service for other in relations.rivals],
        # A slow failure must reach the limit: the interval is longer than all the loads and pauses before it.
        "start_limit_interval_sec": (
            0 if recipe.on_demand else (_STARTS_BEFORE_LIMIT + 1) * (timeout_sec + _LONGEST_PAUSE_SEC)
        ),
        "start_limit_burst": _STARTS_BEFORE_LIMIT,
        "on_failure": [settings.on_failure] if settings.on_failure else [],
        "lifetime": [
            *(["StopWhenUnneeded=yes"] if recipe.on_demand else []),
            *([f"Wants={UnitNames(resolved.name).watch_timer}"] if recipe.watch else []),
        ],
        "unit_passed": service_settings.lines(recipe, "Unit"),
        "pre": helper.before_start(resolved, relations, settings),
        "wait_ready": helper.wait_until_ready(resolved.endpoint),
        "timeout_start_sec": timeout_sec,
        # A stop may last as long as the engine needs to finish its requests.
        "timeout_stop_sec": max(60, drain_sec(recipe, resolved.argv) + 15),
        "restart": _restart_settings(recipe, settings, installation),
        "wanted_by": [] if recipe.on_demand else ["models.target"],
        "backend": recipe.backend,
        "rule": quoting.text(runtime.rule),
        "engine_version": quoting.text(runtime.engine_version or "unknown"),
        "endpoint": quoting.text(endpoint.url if endpoint.path else "none"),
        "model": quoting.text(recipe.served_model_name or recipe.model_path),
        "gpus": quoting.text(",".join(resolved.gpus.words)),
    }


def _restart_settings(recipe: Recipe, settings: HostSettings, installation: Installation) -> list[str]:
    newer = installation.systemd_version >= 254
    if recipe.on_demand:
        # Each request starts the model again: there is no loop to slow down, and no limit to the attempts.
        lines = ["Restart=no"]
    else:
        lines = ["Restart=always", f"RestartSec={_RESTART_SEC}"]
        # A pause that grows, where systemd can. A minute at most: systemd counts all restarts since the last
        # start by hand, however long the engine was well in between (systemd#43813).
        lines += ["RestartSteps=3", f"RestartMaxDelaySec={_LONGEST_PAUSE_SEC}"] if newer else []
    # 257 and newer run OnFailure= at every attempt, unless the restart is direct (systemd.service(5)).
    return lines + (["RestartMode=direct"] if settings.on_failure and newer else [])


def _proxy_values(
    recipe: Recipe,
    on_demand: OnDemand,
    resolved: ResolvedRecipe,
    relations: Relations,
    installation: Installation,
    helper: HelperCommands,
) -> Values:
    engine = resolved.endpoint
    waits = on_demand.evict == "idle" and bool(relations.stopped)
    patience_sec = on_demand.patience if waits else 0
    return {
        "proxyd": _PROXYD,
        "idle_sec": on_demand.idle,
        "engine": f"{engine.connect}:{engine.port}",
        "wait": [helper.wait_until_idle(relations.stopped, patience_sec)] if waits else [],
        "start": helper.systemctl("start", UnitNames(resolved.name).keep),
        "connect": helper.connect_once(resolved.client_endpoint),
        "timeout_start_sec": patience_sec + recipe.ready.timeout_sec + 60,
        "sandbox": [] if installation.user else _PROXY_SANDBOX,
    }
