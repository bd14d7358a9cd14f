"""Units, and the templates they are rendered from. Pure but for reading the package's own templates."""

import hashlib
import json
import re
from dataclasses import dataclass, field
from functools import cache, cached_property
from ipaddress import ip_address
from pathlib import Path

from jinja2 import Environment as Templates
from jinja2 import FileSystemLoader, StrictUndefined

from recipectl import engines
from recipectl.compiler import environment, sandbox
from recipectl.compiler import service_settings as settings
from recipectl.compiler.relations import Relations
from recipectl.errors import SeveralError, UnrepresentableError, UsageError
from recipectl.machine.disk import DISTRIBUTIONS
from recipectl.machine.runtime import Runtime
from recipectl.recipe.hostfile import Host
from recipectl.recipe.schema import Recipe
from recipectl.recipe.yamlfile import Places
from recipectl.systemd import quoting
from recipectl.systemd.unitfile import MARK, Site, Unit, name, sealed

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
    locked: tuple[str, ...] = ()  # what is not as the lock has it

    @cached_property
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
    folder = Path(__file__).parents[1] / "templates"
    return Templates(  # noqa: S701  (unit files, not HTML)
        loader=FileSystemLoader(folder), undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True,
        keep_trailing_newline=True, auto_reload=False,
    )  # fmt: skip


_DIGESTED = json.JSONEncoder(sort_keys=True)
_CONTROL = re.compile("[\x00-\x1f\x7f]")


def _rendered(file: str, **values: str | int | list[str]) -> str:
    """A template with its values, none of which can begin a line of its own."""
    for name_, value in values.items():
        text = "|".join(value) if isinstance(value, list) else str(value)
        # \r and NUL end a line for systemd just like \n: a raw one would start a directive of its own. Only a
        # continued command line has line feeds.
        text = text.replace(" \\\n", "")
        if not text.isprintable() and _CONTROL.search(text):
            raise UnrepresentableError(f"a control character reached the {name_} of a unit; remove it")
    return _templates().get_template(file).render(values)


def steps(recipe: Recipe, source: str, runtime: Runtime, host: Host, site: Site) -> Steps:
    """Merge and build: the pure steps from a recipe and its runtime to what the unit will run."""
    errors: list[UsageError] = []
    merged, words = environment.Environment(), tuple[engines.Word, ...]()
    try:
        merged = environment.merge(*environment.layers(recipe, runtime, host, user=site.user))
        _check_environment(merged)
    except UsageError as error:
        errors.append(error)
    try:
        words = engines.command(recipe, runtime)
        _check_words(words)
        end = engines.endpoint(recipe, tuple(word.text for word in words))
        _check_endpoint(recipe, words, end)
    except UsageError as error:
        errors.append(error)
    if errors:
        raise SeveralError(errors)
    return Steps(recipe, source, runtime, merged, words, end)


def _check_environment(merged: environment.Environment) -> None:
    for variable, item in merged.items():
        try:
            _assignment(variable, item)
        except UnrepresentableError as error:
            raise UsageError(f"`{variable}`: {error}", *environment.key_of(item.layer, variable)) from error


def _check_words(words: tuple[engines.Word, ...]) -> None:
    try:
        quoting.command(tuple(word.text for word in words))
    except UnrepresentableError:
        for word in words:
            try:
                quoting.word(word.text)
            except UnrepresentableError as error:
                key = ".".join(map(str, word.key))
                raise UsageError(f"`{key}`: {error}", *word.key) from error
        raise


_NOT_HTTP = re.compile(r"--(uds|ssl[-_]certfile|ssl[-_]cert[-_]file)(=.*)?")


def _check_endpoint(recipe: Recipe, words: tuple[engines.Word, ...], end: engines.Endpoint) -> None:
    for word in words:
        if flag := _NOT_HTTP.fullmatch(word.text):
            told = f"`--{flag[1]}` takes the engine off plain HTTP over TCP, where its readiness is asked"
            raise UsageError(f"{told}; put a proxy in front instead", *word.key)
    if recipe.on_demand and end.path is None:
        told = "`on_demand` has no requests to wait for: this host answers none; remove it"
        raise UsageError(told, "on_demand")
    if recipe.watch and end.path is None:
        raise UsageError("`watch` has nobody to ask: this host answers no requests; remove it", "watch")
    if recipe.on_demand and _address(engines.public(recipe, end).host) is None:
        told = f"`host` is {recipe.host}, and systemd listens on addresses only; give one for `on_demand`"
        raise UsageError(told, "host")


def _address(host: str) -> str | None:
    """What ListenStream= calls an address; None for any other name."""
    if host == "localhost":
        return "127.0.0.1"
    try:
        return f"[{host}]" if ip_address(host).version == 6 else host
    except ValueError:
        return None


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


def _helper(site: Site, verb: str, *words: object) -> str:
    # `+`: as root and outside the sandbox, to see whose a port is; a user's manager has no such thing.
    full = quoting.command((*site.helper, verb, *map(str, words)))
    return full if site.user else f"+{full}"


def _systemctl(site: Site, *words: str) -> str:
    full = quoting.command(("/usr/bin/systemctl", *_manager(site), "--quiet", *words))
    return full if site.user else f"+{full}"


def _before(made: Steps, site: Site, host: Host, related: Relations) -> list[str]:
    """The ExecStartPre= of a model: pins, lock, devices, whose turn it is, is the port free."""
    recipe, runtime, end, pre = made.recipe, made.runtime, made.endpoint, list[str]()
    names = DISTRIBUTIONS[recipe.backend]
    interpreter, folder = runtime.interpreter or runtime.command[0], runtime.installed_in or "-"
    if recipe.engine_version or recipe.python_version:
        # What the compiler has seen may be gone: somebody may upgrade the venv before the next boot.
        pins = (recipe.python_version or "-", recipe.engine_version or "-", runtime.engine_version or "-")
        pre.append(_helper(site, "pinned", site.libraries, interpreter, *pins, folder, *names))
    if made.lock:
        pre.append(_helper(site, "locked", made.lock, host.drift, interpreter, folder, *names))
    if wanted := _nodes_to_wait_for(recipe):
        pre.append(_helper(site, "devices", *wanted))
    # After= covers one direction: the other waits here while a neighbour on its GPU loads.
    turns = [name(other) for other in related.turn if other not in related.after]
    if turns:
        pre.append(_helper(site, "turn", *_manager(site), *turns))
    if end.path:
        pre.append(_helper(site, "free", end.host, end.port))
    return pre


def _manager(site: Site) -> tuple[str, ...]:
    return ("--user",) if site.user else ()


def _restart(recipe: Recipe, host: Host, site: Site) -> list[str]:
    # On demand each request is a try of its own: no loop that nobody asked for, and no limit to the tries.
    if recipe.on_demand:
        lines = ["Restart=no"]
    else:
        lines = ["Restart=always", "RestartSec=10"]
        # Where systemd can, a pause that grows. A minute at most: systemd counts all restarts since the last
        # start by hand, however long the engine was well in between (systemd#43813).
        lines += ["RestartSteps=3", "RestartMaxDelaySec=60"] if site.systemd >= 254 else []
    # 257 and newer run OnFailure= at every attempt, unless the restart is direct (systemd.service(5)).
    return lines + (["RestartMode=direct"] if host.on_failure and site.systemd >= 254 else [])


def render(made: Steps, site: Site, host: Host, related: Relations) -> tuple[Unit, ...]:
    """The units of one recipe, its service first: the same input gives the same bytes."""
    recipe, runtime, end = made.recipe, made.runtime, made.endpoint
    own, rest = name(recipe.name or ""), f"model-{recipe.name}"
    public = engines.public(recipe, end)
    level = recipe.hardening or host.hardening
    demand, timeout_sec = recipe.on_demand, recipe.ready.timeout_sec
    # What a process keeps from its start: a change of anything else needs no restart of it.
    started: dict[str, str | list[str]] = {
        "users": [] if site.user else [recipe.user or host.user],
        "environment": [_assignment(key, item) for key, item in made.environment.items()],
        "secrets": _secrets(recipe),
        "command": quoting.command(made.argv),
        "directories": [] if site.user else [f"models/{recipe.name}"],
        "sandbox": sandbox.settings(recipe, runtime, made.argv, made.environment, site, level),
        "devices": sandbox.devices(recipe),
        "passed": settings.lines(recipe, "Service"),
    }
    mark = hashlib.sha256(_DIGESTED.encode(started).encode()).hexdigest()[:12]
    # The engine itself carries it: ExecStartPost= may be of a later unit already, after a reload.
    started["environment"] = sorted([*started["environment"], f"{MARK}={mark}"])
    facts = {"recipe": recipe.name or "", "source": quoting.line(made.source), "name": own, "stem": rest}
    text = _rendered(
        "model.service.j2",
        **facts,
        **started,
        description=quoting.text(recipe.description or f"Model {recipe.name} ({recipe.backend})"),
        asserted_paths=[quoting.line(recipe.model_path)] if recipe.model_path.startswith("/") else [],
        requires=[name(other) for other in related.requires],
        after=[name(other) for other in sorted({*related.after, *related.earlier})],
        conflicts=[name(other) for other in related.rivals],  # on both sides: the other may be an older unit
        # A slow failure must be able to reach the limit: the interval is longer than four loads and pauses.
        start_limit_interval_sec=0 if demand else 5 * (timeout_sec + 60),
        on_failure=[host.on_failure] if host.on_failure else [],
        on_demand=["yes"] if demand else [],
        watched=["yes"] if recipe.watch else [],
        unit_passed=settings.lines(recipe, "Unit"),
        pre=_before(made, site, host, related),
        wait_ready=_helper(site, "ready", end.connect, end.port, end.path or "-"),
        timeout_start_sec=timeout_sec,
        timeout_stop_sec=max(60, engines.drain_sec(recipe, made.argv) + 15),  # a drain is never cut short
        restart=_restart(recipe, host, site),
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
        listen = f"{_address(public.host)}:{public.port}"
        units.append(Unit(f"{rest}.socket", _rendered("model.socket.j2", **facts, listen=listen)))
        spared = [f"{name(other)}={port}" for other, port in related.spared]
        polite = demand.evict == "idle" and spared
        patience_sec = demand.patience if polite else 0
        text = _rendered(
            "model-proxy.service.j2",
            **facts,
            proxyd=PROXYD,
            idle_sec=demand.idle,
            engine=f"{end.connect}:{end.port}",
            spare=[_helper(site, "spare", *_manager(site), patience_sec, *spared)] if polite else [],
            start=_systemctl(site, "start", f"{rest}-keep.service"),
            poke=_helper(site, "poke", public.connect, public.port),
            timeout_start_sec=patience_sec + timeout_sec + 60,
            sandbox=[] if site.user else ["DynamicUser=yes", "PrivateDevices=yes", "PrivateTmp=yes"],
        )
        units.append(Unit(f"{rest}-proxy.service", text))
        units.append(Unit(f"{rest}-keep.service", _rendered("model-keep.service.j2", **facts)))
    if watch := recipe.watch:
        text = _rendered("model-watch.timer.j2", **facts, every_sec=watch.every)
        units.append(Unit(f"{rest}-watch.timer", text))
        limits = (watch.timeout, watch.failures, watch.action)
        probe = _helper(site, "probe", *_manager(site), end.connect, end.port, end.path, *limits, own)
        text = _rendered("model-watch.service.j2", **facts, probe=probe, timeout_sec=watch.timeout + 10)
        units.append(Unit(f"{rest}-watch.service", text))
    return tuple(map(sealed, units))


def _assignment(key: str, item: environment.Variable) -> str:
    # The one value of ours with a live specifier: `%d` is where systemd puts credentials.
    if item.layer == "secrets":
        return f"{quoting.name(key)}={item.value}"
    return quoting.assignment(key, item.value)
