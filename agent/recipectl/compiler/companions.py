"""The values of the units beside a model's service: proxy, queue, watch, tie, canaries, killers. Pure."""

from recipectl.compiler import sandbox, secrets
from recipectl.compiler.helper_commands import HelperCommands
from recipectl.compiler.members import Member
from recipectl.compiler.model import ResolvedRecipe, Values
from recipectl.compiler.relations import Relations
from recipectl.engines.registry import ENGINES
from recipectl.engines.served import served_names
from recipectl.machine.installation import Installation
from recipectl.recipe.hostfile import HostSettings
from recipectl.recipe.parts import Canary, OnDemand, Queue, Watch
from recipectl.recipe.schema import Recipe
from recipectl.request_queue import configuration
from recipectl.systemd import quoting
from recipectl.systemd.unitfile import DIGEST_FIELD, PROXY_USER, QUEUE_USER, UnitNames
from recipectl.text import digest_of

_HAPROXY_END_SEC = 15
_ASKS_KERNEL = "RestrictAddressFamilies=AF_NETLINK"  # the kernel tells which clients wait (sock_diag(7))


def waits(recipe: Recipe, relations: Relations) -> bool:
    """True if a request may have to wait for other models."""
    return bool(recipe.on_demand and relations.stopped)


def user_in_front(recipe: Recipe, relations: Relations, installation: Installation) -> str | None:
    """The user of what listens for clients, where it must always be there.

    A proxy may ask the bus, and dbus-daemon knows no dynamic users (systemd#22737). The units of a queue
    share a folder.
    """
    if installation.user:
        return None
    if recipe.queue:
        return QUEUE_USER
    return PROXY_USER if waits(recipe, relations) else None


def proxy_values(
    recipe: Recipe,
    on_demand: OnDemand,
    resolved: ResolvedRecipe,
    relations: Relations,
    installation: Installation,
    helper: HelperCommands,
) -> Values:
    """The values of the proxy behind an on-demand model's socket."""
    names = UnitNames(resolved.name)
    user = user_in_front(recipe, relations, installation)
    rivals, at_once = relations.stopped, on_demand.evict == "always"
    wait = [helper.wait_until_idle(rivals, on_demand.patience, at_once=at_once)] if rivals else []
    # As root, with fixed words: nothing of an engine is in this unit. If the engine does not start, the proxy
    # still takes the requests that wait, and closes them: otherwise they would start it again and again.
    start = ("-" if installation.user else "-+") + helper.systemctl("start", names.keep)
    return {
        "pass_requests": helper.pass_requests(resolved.endpoint, on_demand.idle, names.service),
        "sandbox": [] if installation.user else sandbox.helper_lines(user or "", limited=False),
        "wait": wait,
        "start": start,
        # What others load and answer has limits of its own.
        "timeout_start": "infinity" if rivals else str(recipe.ready.timeout_sec + 60),
    }


def queue_digest(queue: Queue, names: UnitNames) -> str:
    """The digest of what a queue's HAProxy keeps from its start."""
    return digest_of(configuration(queue.wait, names.queue))


def queue_values(
    queue: Queue, resolved: ResolvedRecipe, installation: Installation, helper: HelperCommands
) -> tuple[Values, Values]:
    """The values of the queue, and of the unit that opens and closes it."""
    names = UnitNames(resolved.name)
    own = [] if installation.user else sandbox.helper_lines(QUEUE_USER, limited=False)
    digest = queue_digest(queue, names)
    common: Values = {"sandbox": own, "timeout_stop_sec": queue.drain + _HAPROXY_END_SEC}
    waiting: Values = common | {
        "run": helper.run_queue(queue, names.service, digest),
        "open": helper.open_queue(resolved.endpoint, kept=True),
        "end": helper.end_queue(queue),
        "digest": digest,
        # Only a change of HAProxy's configuration is worth its restart.
        "digest_fields": [] if installation.user else [f"{DIGEST_FIELD}={digest}"],
    }
    opening: Values = common | {
        "open": helper.open_queue(resolved.endpoint),
        "close": helper.close_queue(queue),
    }
    return waiting, opening


def canaries(recipe: Recipe, settings: HostSettings) -> tuple[Canary, ...]:
    """The canaries of a recipe: those of the host, then its own; an empty list in the recipe means none."""
    own = recipe.canaries
    return () if own == () or recipe.is_follower else (*(settings.canaries or ()), *(own or ()))


def canary_values(
    asked: tuple[Canary, ...], resolved: ResolvedRecipe, installation: Installation, helper: HelperCommands
) -> Values:
    """The values of the unit that asks a model its canaries, each a command."""
    recipe, key = resolved.recipe, secrets.api_key(resolved.recipe)
    model, key_file = served_names(recipe, resolved.words)[0], key.name if key else None
    commands = [helper.ask_model(resolved, model, key_file)]
    commands += [
        helper.ask_canary(canary, number, resolved, model, key_file)
        for number, canary in enumerate(asked, start=1)
    ]
    # The site's own command may be any program: one with a JIT compiler maps memory to write and run.
    own = [
        line for line in sandbox.helper_lines(limited=False) if not line.startswith("MemoryDenyWriteExecute")
    ]
    longest_sec = max((canary.timeout for canary in asked), default=0)
    return {
        "secrets": [key.setting] if key else [],
        "commands": commands,
        # systemd counts it for each command; a text may be asked as a chat, and then as a prompt.
        "timeout_start_sec": 2 * longest_sec + 30,
        "sandbox": [] if installation.user else own,
    }


def question(watch: Watch, resolved: ResolvedRecipe) -> str:
    """The question of a watch. The default is `progress` if the engine has metrics, else `health`."""
    if watch.ask or watch.path:
        return watch.ask or "health"
    return "progress" if has_metrics(resolved) else "health"


def has_metrics(resolved: ResolvedRecipe) -> bool:
    """Whether the engine has metrics that tell of progress, as far as its command says."""
    engine = ENGINES[resolved.recipe.backend]
    words = {word.text for word in resolved.words}
    variable = resolved.environment.get(engine.metrics_variable)
    switched_on = engine.metrics_flag in ("", *words) or (variable and variable.value in ("1", "true", "on"))
    return bool(switched_on) and engine.no_metrics_flag not in words


def tie_values(
    member: Member, resolved: ResolvedRecipe, installation: Installation, helper: HelperCommands
) -> tuple[Values, Values]:
    """The values of the unit that ties this host to the others, and of the unit that kills."""
    names = UnitNames(resolved.name)
    recipe, key = resolved.recipe, secrets.api_key(resolved.recipe) if member.rank == 0 else None
    model = served_names(recipe, resolved.words)[0]
    asked = resolved.endpoint.connect
    own = (asked,) if member.rank == 0 else ()
    tying: Values = {
        "tie": helper.tie(resolved, member, model, key.name if key else None),
        "wait_until_free": helper.wait_until_free(names.service),
        "slices": _slices(recipe),
        "secrets": [key.setting] if key else [],
        "sandbox": [] if installation.user else sandbox.helper_lines(),
        "addresses": " ".join(dict.fromkeys(("localhost", *member.addresses, *own))),
    }
    killing: Values = {
        "manager": "--user " if installation.user else "",
        "sandbox": [] if installation.user else sandbox.KILLER,
    }
    return tying, killing


def _slices(recipe: Recipe) -> list[str]:
    """The slice of the model itself."""
    return [quoting.line(value) for value in recipe.service.get("Slice", ())] or ["models.slice"]


def watch_values(
    recipe: Recipe, watch: Watch, resolved: ResolvedRecipe, installation: Installation, helper: HelperCommands
) -> tuple[Values, Values]:
    """The values of the unit that asks, and of the unit that kills."""
    names = UnitNames(resolved.name)
    ask, key = question(watch, resolved), secrets.api_key(recipe)
    command = helper.watch(resolved, watch, ask, key.name if key else None, names.service)
    manager = "--user " if installation.user else ""
    # A request would start it again through its socket.
    stopped = " ".join([*([names.socket] if recipe.on_demand else []), names.service])
    stop = f"/usr/bin/systemctl {manager}--quiet stop --no-block {stopped}"
    own = [*sandbox.helper_lines(), *([_ASKS_KERNEL] if ask == "progress" else [])]
    watching: Values = {
        # While the queue lets the last requests end, the engine may hang.
        "before": [names.queue_open] if recipe.queue else [],
        "watch": command, "slices": _slices(recipe), "secrets": [key.setting] if key else [],
        "sandbox": [] if installation.user else own,
    }  # fmt: skip
    killing: Values = {
        "mark": f"%t/{names.stem}-watch/hung",
        "manager": manager,
        "stop": [stop] if watch.action == "stop" else [],
        "sandbox": [] if installation.user else sandbox.KILLER,
    }
    return watching, killing
