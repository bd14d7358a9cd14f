"""Units, and the templates they are rendered from. Pure but for reading the package's own templates."""

import hashlib
import json
import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from jinja2 import Environment as Templates
from jinja2 import FileSystemLoader, StrictUndefined

from recipectl import engines, environment, quoting
from recipectl.errors import UnrepresentableError, UsageError
from recipectl.hostfile import Host
from recipectl.recipe import Recipe
from recipectl.runtime import Runtime
from recipectl.unitfile import Unit, name

# What the unit's contract rests on: a recipe that could change it would not be supervised any more.
_REFUSED = {
    "ExecStart": "it is compiled from the recipe",
    "ExecStartPost": "it waits for readiness",
    "ExecStartPre": "it checks the port",
    "Environment": "use `env_vars:`",
    "Type": "readiness rests on Type=exec",
    "NotifyAccess": "readiness rests on NotifyAccess=exec",
    "KillMode": "a stop must free the GPUs",
}
_SETTING = re.compile(r"[A-Z][A-Za-z0-9]*\Z")


@dataclass(frozen=True)
class Site:
    """What rendering must know about the place: the poller's command, and whose manager it is."""

    poller: tuple[str, ...]
    user: bool = False

    @property
    def wanted_by(self) -> str:
        return "default.target" if self.user else "multi-user.target"


@dataclass(frozen=True)
class Steps:
    """Everything between a recipe and its unit, as `explain` shows it."""

    recipe: Recipe
    source: str
    runtime: Runtime
    environment: environment.Environment
    argv: tuple[str, ...]
    endpoint: engines.Endpoint


@cache
def _templates() -> Templates:
    folder = Path(__file__).with_name("templates")
    return Templates(  # noqa: S701  (unit files, not HTML)
        loader=FileSystemLoader(folder), undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True,
        keep_trailing_newline=True, finalize=_carried,
    )  # fmt: skip


def _carried(value: object) -> object:
    # \r and NUL end a line for systemd just like \n: a raw one would start a directive of its own.
    if isinstance(value, str) and re.search("[\x00-\x09\x0b-\x1f\x7f]", value):
        raise UnrepresentableError(f"a control character reached a unit in {value[:60]!r}; remove it")
    return value


def steps(recipe: Recipe, source: str, runtime: Runtime, host: Host) -> Steps:
    """Merge and build: the pure steps from a recipe and its runtime to what the unit will run."""
    merged = environment.merge(*environment.layers(recipe, runtime, host))
    argv = engines.argv(recipe, runtime)
    return Steps(recipe, source, runtime, merged, argv, engines.endpoint(recipe, argv))


def _in_tmp(words: tuple[str, ...]) -> bool:
    return any(word.startswith(("/tmp/", "/var/tmp/")) for word in words)  # noqa: S108  (asked, not used)


def _service(recipe: Recipe) -> tuple[str, ...]:
    for key in recipe.service:
        if not _SETTING.match(key):
            raise UsageError(
                f"`service.{key}` is not the name of a setting; write it as in systemd.service(5)"
            )
        if key in _REFUSED:
            raise UsageError(f"`service.{key}` cannot be set: {_REFUSED[key]}")
    return tuple(f"{key}={quoting.text(value)}" for key, value in recipe.service.items())


def render(made: Steps, site: Site, host: Host) -> Unit:
    """The service of one recipe: the same steps, site and host file give the same bytes."""
    recipe, runtime, end = made.recipe, made.runtime, made.endpoint
    poller = (*site.poller, end.connect, str(end.port), end.path)
    timeout_sec = recipe.ready.timeout_sec
    facts = json.dumps([recipe.model_dump(mode="json"), list(made.argv)], sort_keys=True)
    model = recipe.model_path
    text = _templates().get_template("model.service.j2").render(
        source=quoting.text(made.source),
        name=name(recipe.name or ""),
        description=quoting.text(recipe.description or f"Model {recipe.name} ({recipe.backend})"),
        asserted_paths=[quoting.text(model)] if model.startswith("/") else [],
        # A slow failure must be able to reach the limit: the interval is longer than four loads and pauses.
        start_limit_interval_sec=5 * (timeout_sec + 60),
        users=[host.user] if host.user and not site.user else [],
        environment=[quoting.assignment(key, item.value) for key, item in made.environment.items()],
        check_port=quoting.command((*poller, "--check-port")),
        command=quoting.command(made.argv),
        wait_ready=quoting.command(poller),
        timeout_start_sec=timeout_sec,
        # A private /tmp would hide a venv, a model or the poller that is kept there.
        private_tmp="no" if _in_tmp((*made.argv, *poller, *runtime.path)) else "yes",
        service=_service(recipe),
        wanted_by="models.target",
        recipe=recipe.name,
        backend=recipe.backend,
        digest=hashlib.sha256(facts.encode()).hexdigest(),
        rule=quoting.text(runtime.rule),
        engine_version=quoting.text(runtime.engine_version or "unknown"),
        endpoint=quoting.text(end.url),
        model=quoting.text(recipe.served_model_name or model),
        gpus=quoting.text(environment.gpus(recipe) or ""),
    )  # fmt: skip
    return Unit(name(recipe.name or ""), text)


def shared(site: Site) -> tuple[Unit, ...]:
    """The target and the slice that all models belong to."""
    return tuple(
        Unit(unit, _templates().get_template(f"{unit}.j2").render(wanted_by=site.wanted_by))
        for unit in ("models.target", "models.slice")
    )
