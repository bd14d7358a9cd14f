"""Units, and the templates they are rendered from. Pure but for reading the package's own templates."""

import difflib
import hashlib
import json
import re
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment as Templates
from jinja2 import FileSystemLoader, StrictUndefined, Template

from recipectl import engines, environment, quoting
from recipectl.errors import UnrepresentableError, UsageError
from recipectl.hostfile import Host
from recipectl.load import Places
from recipectl.recipe import Recipe
from recipectl.relations import Relations
from recipectl.runtime import DISTRIBUTIONS, Runtime
from recipectl.unitfile import Site, Unit, name

# What the unit's contract rests on: a recipe that could change it would not be supervised any more.
_REFUSED = {
    "ExecStart": "it is compiled from the recipe",
    "ExecStartPost": "it waits for readiness",
    "ExecStartPre": "it checks the port",
    "Environment": "use `env_vars:`",
    "LoadCredential": "use `secrets:`",
    "LoadCredentialEncrypted": "use `secrets:`",
    "SetCredential": "it would be in the unit; use `secrets:`",
    "Type": "readiness rests on Type=exec",
    "NotifyAccess": "readiness rests on NotifyAccess=exec",
    "KillMode": "a stop must free the GPUs",
    "SendSIGKILL": "a stop must free the GPUs",
    "Conflicts": "use `gpus:` and `gpu_sharing:`",
    "StopWhenUnneeded": "use `on_demand:`",
    "User": "use `user:`",
    "Description": "use `description:`",
    "SourcePath": "it names the recipe",
}
PROXYD = "/lib/systemd/systemd-socket-proxyd"


@dataclass(frozen=True)
class Steps:
    """Everything between a recipe and its unit, as `explain` shows it."""

    recipe: Recipe
    source: str
    runtime: Runtime
    environment: environment.Environment
    words: tuple[engines.Word, ...]
    endpoint: engines.Endpoint
    places: Places = field(default_factory=dict)
    lock: str | None = None  # the file, where there is one

    @property
    def argv(self) -> tuple[str, ...]:
        return tuple(word.text for word in self.words)

    def place(self, *key: str | int) -> str | None:
        """file:line of a key of the recipe, or of the nearest one around it."""
        for n in range(len(key), 0, -1):
            if found := self.places.get(key[:n]):
                return f"{found[0]}:{found[1]}"
        return None


@cache
def _templates() -> Templates:
    folder = Path(__file__).with_name("templates")
    return Templates(  # noqa: S701  (unit files, not HTML)
        loader=FileSystemLoader(folder), undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True,
        keep_trailing_newline=True, finalize=_carried,
    )  # fmt: skip


_RAW = re.compile("[\x00-\x09\x0b-\x1f\x7f]")


def _carried(value: object) -> object:
    # \r and NUL end a line for systemd just like \n: a raw one would start a directive of its own.
    if isinstance(value, str) and not value.isprintable() and _RAW.search(value):
        raise UnrepresentableError(f"a control character reached a unit in {value[:60]!r}; remove it")
    return value


def steps(recipe: Recipe, source: str, runtime: Runtime, host: Host, site: Site) -> Steps:
    """Merge and build: the pure steps from a recipe and its runtime to what the unit will run."""
    merged = environment.merge(*environment.layers(recipe, runtime, host, user=site.user))
    words = engines.command(recipe, runtime)
    end = engines.endpoint(recipe, tuple(word.text for word in words))
    return Steps(recipe, source, runtime, merged, words, end)


@cache
def _settings() -> dict[str, list[Any]]:
    """Setting -> [section, version that has it first] (from the manual pages)."""
    table = json.loads(Path(__file__).with_name("settings.json").read_text())
    return {name: [section, since] for section, names in table.items() for name, since in names.items()}


def _passed_through(recipe: Recipe, site: Site) -> dict[str, list[str]]:
    """Section -> lines of `service:`, each a setting that this systemd knows."""
    lines: dict[str, list[str]] = {"Unit": [], "Service": []}
    for key, values in recipe.service.items():
        if key in _REFUSED:
            raise UsageError(f"`service.{key}` cannot be set: {_REFUSED[key]}")
        if key not in _settings():
            near = difflib.get_close_matches(key, _settings(), 1)
            hint = f"did you mean `{near[0]}`?" if near else "see systemd.directives(7)"
            raise UsageError(f"`service.{key}` is no setting of a service; {hint}")
        section, since = _settings()[key]
        if since > site.systemd:
            raise UsageError(
                f"`service.{key}` needs systemd {since}, and this host has {site.systemd}; remove it"
            )
        lines[section] += [f"{key}={quoting.text(value)}" for value in values]
    return lines


_TEMPORARY = ("/tmp/", "/var/tmp/")  # noqa: S108  (asked, not used)
_HOMES = ("/home/", "/root/", "/run/user/")


def _below(folders: tuple[str, ...], paths: tuple[str, ...]) -> bool:
    return any(path.startswith(folders) for path in paths)


def _sandbox(made: Steps, site: Site, level: str) -> list[str]:
    """The lines that keep an engine to its own; what breaks CUDA, NCCL or a JIT compiler is left out."""
    recipe, environ = made.recipe, made.environment
    used = (*made.argv, *made.runtime.path, made.runtime.base or "")
    # A private /tmp would hide a venv or a model that is kept there.
    lines = [f"PrivateTmp={'no' if _below(_TEMPORARY, used) else 'yes'}", "UMask=0027"]
    if site.user or level == "off":
        return lines
    lines += _DEFAULT
    lines.append(f"ProtectHome={'read-only' if _below(_HOMES, used) else 'yes'}")
    folders = environment.directories(recipe)
    moved = [environ[name].value for name in folders if environ[name].value != folders[name]]
    # `-`: a folder that is missing would fail the start with 226/NAMESPACE.
    lines += [f"ReadWritePaths=-{quoting.text(path)}" for path in moved if path.startswith("/")]
    if level == "strict":
        lines += _STRICT
        lines += (
            ["ProtectClock=yes"] if site.systemd >= 253 else []
        )  # before, it hid every GPU (systemd#18142)
        lines += ["PrivateDevices=yes"] if not environment.gpus(recipe) else []
    return lines


_DEFAULT = [
    "NoNewPrivileges=yes",
    "CapabilityBoundingSet=",
    "ProtectSystem=strict",
    "ProtectControlGroups=yes",
    "ProtectHostname=yes",
    "ProtectKernelLogs=yes",
    "ProtectKernelModules=yes",
    "ProtectKernelTunables=yes",
    "ProtectProc=invisible",
    "KeyringMode=private",
    "LockPersonality=yes",
    "RemoveIPC=yes",
    "RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6 AF_NETLINK",  # NCCL and psutil ask netlink
    "RestrictNamespaces=yes",
    "RestrictRealtime=yes",
    "RestrictSUIDSGID=yes",
    "SystemCallArchitectures=native",
    # Not @debug (pidfd_getfd shares CUDA memory) nor @resources (mbind); a refusal is an error, not a kill.
    "SystemCallFilter=~@clock @cpu-emulation @module @mount @obsolete @raw-io @reboot @swap",
    "SystemCallErrorNumber=EPERM",
]
_STRICT = ["PrivateIPC=yes", "IPAddressDeny=any", "IPAddressAllow=localhost"]


def _devices(recipe: Recipe) -> list[str]:
    """DeviceAllow= lines for its GPUs alone; empty without `device_isolation:`."""
    if not recipe.device_isolation:
        return []
    gpus = environment.gpus(recipe)
    if gpus is None or any(not gpu.isdigit() for gpu in gpus):
        raise UsageError("`device_isolation` needs `gpus:` as indices, or `none`; give them so")
    if recipe.accelerator == "rocm":
        nodes = ["/dev/kfd", *(f"/dev/dri/renderD{128 + int(gpu)}" for gpu in gpus)]
    else:
        common = ["/dev/nvidiactl", "/dev/nvidia-uvm", "/dev/nvidia-uvm-tools", "/dev/nvidia-modeset"]
        nodes = [*common, *(f"/dev/nvidia{gpu}" for gpu in gpus)]
    return ["DevicePolicy=closed", *(f"DeviceAllow={node} rw" for node in nodes if gpus)]


def _nodes_to_wait_for(recipe: Recipe) -> tuple[str, ...]:
    """Device nodes that may not be there yet when the host boots."""
    gpus = environment.gpus(recipe) or ()
    return tuple(f"/dev/nvidia{gpu}" for gpu in gpus if gpu.isdigit()) if recipe.accelerator == "cuda" else ()


def _secrets(recipe: Recipe) -> list[str]:
    lines = []
    for credential, source in environment.credentials(recipe).values():
        kind = "LoadCredentialEncrypted" if source.endswith(".cred") else "LoadCredential"
        lines.append(f"{kind}={credential}:{source}")
    files = dict.fromkeys(environment.environment_files(recipe).values())
    return lines + [f"EnvironmentFile={source}" for source in files]


def render(made: Steps, site: Site, host: Host, related: Relations) -> tuple[Unit, ...]:
    """The units of one recipe, its service first: the same input gives the same bytes."""
    recipe, runtime, end = made.recipe, made.runtime, made.endpoint
    own, rest = name(recipe.name or ""), f"model-{recipe.name}"
    public = engines.public(recipe, end)
    level = recipe.hardening or host.hardening
    passed = _passed_through(recipe, site)
    demand, timeout_sec = recipe.on_demand, recipe.ready.timeout_sec
    systemctl = ("--user",) if site.user else ()
    patience_sec = max((demand.patience if demand else 0, 300)) if related.polite else 0

    def helper(verb: str, *words: object) -> str:
        # `+`: as root and outside the sandbox, to see whose a port is; a user's manager has no such thing.
        full = quoting.command((*site.helper, verb, *map(str, words)))
        return full if site.user else f"+{full}"

    polite = [name(other) for other in related.polite]
    # After= covers one direction: the other waits here while a neighbour on its GPU loads.
    turns = [name(other) for other in related.turn if other not in related.after]
    pre = []
    names = [distribution.replace("-", "_") for distribution in DISTRIBUTIONS[recipe.backend]]
    if recipe.engine_version or recipe.python_version:
        # What the compiler has seen may be gone: somebody may upgrade the venv before the next boot.
        pins = (recipe.python_version or "-", recipe.engine_version or "-", runtime.engine_version or "-")
        where = (site.libraries, runtime.interpreter or runtime.command[0])
        pre.append(helper("pinned", *where, *pins, runtime.installed_in or "-", *names))
    if made.lock:
        pre.append(helper("locked", made.lock, host.drift, *names))
    if wanted := _nodes_to_wait_for(recipe):
        pre.append(helper("devices", *wanted))
    if turns:
        pre.append(helper("turn", *systemctl, *turns))
    if end.path:
        pre.append(helper("free", end.port))
    stop = [helper("drain", *systemctl, end.port, patience_sec, *polite)] if polite and not demand else []
    user = recipe.user or host.user
    # On demand each request is a try of its own: no loop that nobody asked for, and no limit to the tries.
    restart = ["Restart=no"] if demand else ["Restart=always", "RestartSec=10"]
    # Where systemd can, a pause that grows: 10 s to 5 minutes.
    restart += ["RestartSteps=5", "RestartMaxDelaySec=300"] if site.systemd >= 254 and not demand else []
    # 257 and newer run OnFailure= at every attempt, unless the restart is direct (systemd.service(5)).
    restart += ["RestartMode=direct"] if host.on_failure and site.systemd >= 254 else []
    service = {
        "users": [] if site.user else [user],
        "environment": [_assignment(key, item) for key, item in made.environment.items()],
        "secrets": _secrets(recipe),
        "pre": pre,
        "command": quoting.command(made.argv),
        "stop": stop,
        "timeout_start_sec": timeout_sec,
        "timeout_stop_sec": 60 + (patience_sec if stop else 0),
        "restart": restart,
        "directories": [] if site.user else [f"models/{recipe.name}"],
        "sandbox": _sandbox(made, site, level),
        "devices": _devices(recipe),
        "passed": passed["Service"],
    }
    mark = hashlib.sha256(json.dumps(service, sort_keys=True).encode()).hexdigest()[:12]
    facts = {
        "recipe": recipe.name,
        "source": quoting.text(made.source),
        "name": own,
        "stem": rest,
    }
    text = _template("model.service.j2").render(
        **facts,
        **service,
        description=quoting.text(recipe.description or f"Model {recipe.name} ({recipe.backend})"),
        asserted_paths=[quoting.text(recipe.model_path)] if recipe.model_path.startswith("/") else [],
        requires=[name(other) for other in related.requires],
        after=[name(other) for other in sorted({*related.after, *related.earlier})],
        conflicts=[name(other) for other in related.earlier],
        # A slow failure must be able to reach the limit: the interval is longer than four loads and pauses.
        start_limit_interval_sec=0 if demand else 5 * (timeout_sec + (300 if site.systemd >= 254 else 60)),
        on_failure=[host.on_failure] if host.on_failure else [],
        on_demand=[True] if demand else [],
        watched=[True] if recipe.watch else [],
        unit_passed=passed["Unit"],
        wait_ready=helper("ready", end.connect, end.port, end.path or "-", mark),
        wanted_by=[] if demand else ["models.target"],
        backend=recipe.backend,
        digest=mark,
        rule=quoting.text(runtime.rule),
        engine_version=quoting.text(runtime.engine_version or "unknown"),
        endpoint=quoting.text(public.url if public.path else "none"),
        model=quoting.text(recipe.served_model_name or recipe.model_path),
        gpus=quoting.text(",".join(environment.gpus(recipe) or ())),
    )  # fmt: skip
    units = [Unit(own, text)]
    if demand:
        address = (
            f"[{public.host}]"
            if ":" in public.host
            else {"localhost": "127.0.0.1"}.get(public.host, public.host)
        )
        units.append(
            Unit(
                f"{rest}.socket",
                _template("model.socket.j2").render(**facts, listen=quoting.text(f"{address}:{public.port}")),
            )
        )
        units.append(Unit(f"{rest}-proxy.service", _template("model-proxy.service.j2").render(
            **facts,
            proxyd=PROXYD,
            idle_sec=demand.idle,
            engine=quoting.text(f"{end.connect}:{end.port}"),
            drain=[helper("drain", *systemctl, public.port, patience_sec, *polite)] if polite else [],
            timeout_stop_sec=30 + patience_sec,
            timeout_start_sec=timeout_sec)))  # fmt: skip
    if recipe.watch:
        watch = recipe.watch
        units.append(
            Unit(
                f"{rest}-watch.timer",
                _template("model-watch.timer.j2").render(**facts, every_sec=watch.every),
            )
        )
        probe = helper("probe", *systemctl, end.connect, end.port, end.path or "-", watch.timeout,
                       watch.failures, watch.action, own)  # fmt: skip
        units.append(
            Unit(
                f"{rest}-watch.service",
                _template("model-watch.service.j2").render(
                    **facts, probe=probe, timeout_sec=watch.timeout + 10
                ),
            )
        )
    return tuple(units)


def _assignment(key: str, item: environment.Variable) -> str:
    # The one value of ours with a live specifier: `%d` is where systemd puts credentials.
    return f"{key}={item.value}" if item.layer == "secrets" else quoting.assignment(key, item.value)


def _template(file: str) -> Template:
    return _templates().get_template(file)
