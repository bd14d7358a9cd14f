"""The values of the units beside a model's service: its proxy, its watch, its killer. Pure."""

from recipectl.compiler import identity, sandbox, secrets
from recipectl.compiler.helper_commands import HelperCommands
from recipectl.compiler.model import ResolvedRecipe, Values
from recipectl.compiler.relations import Relations
from recipectl.engines.registry import ENGINES
from recipectl.machine.installation import Installation
from recipectl.recipe.schema import OnDemand, Recipe, Watch
from recipectl.systemd import quoting
from recipectl.systemd.unitfile import UnitNames


def waits(recipe: Recipe, relations: Relations) -> bool:
    """True if a request must wait until other models are idle."""
    return bool(recipe.on_demand and recipe.on_demand.evict == "idle" and relations.stopped)


def proxy_user(recipe: Recipe, relations: Relations, installation: Installation) -> str | None:
    """The user of a proxy that asks the bus: dbus-daemon knows no dynamic users (systemd#22737)."""
    return identity.PROXY_USER if waits(recipe, relations) and not installation.user else None


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
    user = proxy_user(recipe, relations, installation)
    idle = waits(recipe, relations)
    wait = [helper.wait_until_idle(relations.stopped, on_demand.patience)] if idle else []
    # As root, with fixed words: nothing of an engine is in this unit. If the engine does not start, the proxy
    # still takes the requests that wait, and closes them: otherwise they would start it again and again.
    start = ("-" if installation.user else "-+") + helper.systemctl("start", names.keep)
    return {
        "pass_requests": helper.pass_requests(resolved.endpoint, on_demand.idle, names.service),
        "sandbox": [] if installation.user else sandbox.helper_lines(user or "", limited=False),
        "wait": [*wait, start],
        "timeout_start_sec": (on_demand.patience if idle else 0) + recipe.ready.timeout_sec + 60,
    }


def question(recipe: Recipe, watch: Watch, resolved: ResolvedRecipe) -> str:
    """What a watch asks: left out, whether the engine makes progress, where its metrics tell that."""
    if watch.ask or watch.path:
        return watch.ask or "health"
    flag = ENGINES[recipe.backend].metrics_flag
    switched_on = flag == "" or any(word.text == flag for word in resolved.words)
    return "progress" if switched_on else "health"


def watch_values(
    recipe: Recipe, watch: Watch, resolved: ResolvedRecipe, installation: Installation, helper: HelperCommands
) -> tuple[Values, Values]:
    """The values of the unit that asks, and of the unit that kills."""
    names = UnitNames(resolved.name)
    slices = [quoting.line(value) for value in recipe.service.get("Slice", ())] or ["models.slice"]
    ask, key = question(recipe, watch, resolved), secrets.api_key(recipe)
    command = helper.watch(resolved, watch, ask, key.name if key else None, names.service)
    manager = "--user " if installation.user else ""
    stop = f"/usr/bin/systemctl {manager}--quiet stop --no-block {names.service}"
    asks: Values = {
        "watch": command, "slices": slices, "secrets": [key.setting] if key else [],
        "sandbox": [] if installation.user else sandbox.helper_lines(),
    }  # fmt: skip
    kills: Values = {
        "mark": f"%t/{names.stem}-watch/hung",
        "manager": manager,
        "stop": [stop] if watch.action == "stop" else [],
        "sandbox": [] if installation.user else sandbox.KILLER,
    }
    return asks, kills
