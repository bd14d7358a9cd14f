"""How long a model's service may take to stop, and when systemd starts it again. Pure."""

from recipectl.compiler.model import ResolvedRecipe
from recipectl.engines.endpoint import drain_sec
from recipectl.machine.installation import Installation
from recipectl.recipe.hostfile import HostSettings

STARTS_BEFORE_LIMIT = 4
_RESTART_SEC = 10
_LONGEST_PAUSE_SEC = 60
_SET_RESTART_SEC = 2
_FOLLOWER_STOP_SEC = 10  # it has no requests of its own to finish, and SGLang's ignores SIGTERM


def start_limit_interval_sec(resolved: ResolvedRecipe) -> int:
    """StartLimitIntervalSec=: longer than all loads and pauses before the limit; slow failures reach it.

    0, for no limit, for a model on demand and for a set, which starts again as often as a host is lost.
    """
    if resolved.recipe.on_demand or resolved.member:
        return 0
    return (STARTS_BEFORE_LIMIT + 1) * (resolved.recipe.ready.timeout_sec + _LONGEST_PAUSE_SEC)


def timeout_stop_sec(resolved: ResolvedRecipe) -> int:
    """TimeoutStopSec=: a stop may last as long as the engine needs to finish its requests."""
    if resolved.endpoint.path is None and resolved.member:
        return _FOLLOWER_STOP_SEC
    return max(60, drain_sec(resolved.recipe, resolved.argv) + 15)


def restart_settings(
    resolved: ResolvedRecipe, settings: HostSettings, installation: Installation
) -> list[str]:
    """The lines that decide when systemd starts an engine again."""
    recipe = resolved.recipe
    newer = installation.systemd_version >= 254
    if recipe.on_demand:
        # Each request starts the model again: there is no loop to slow down, and no limit to the attempts.
        lines = ["Restart=no"]
    elif resolved.member:
        # The pause does not grow: how often a set has begun anew says nothing of this host.
        lines = ["Restart=always", f"RestartSec={_SET_RESTART_SEC}"]
    else:
        lines = ["Restart=always", f"RestartSec={_RESTART_SEC}"]
        # A pause that grows, where systemd can. A minute at most: systemd counts all restarts since the last
        # start by hand, however long the engine was well in between (systemd#43813).
        lines += ["RestartSteps=3", f"RestartMaxDelaySec={_LONGEST_PAUSE_SEC}"] if newer else []
    # 257 and newer run OnFailure= at every attempt, unless the restart is direct (systemd.service(5)).
    # A direct restart does not stop what is bound to the model: its queue, its tie, its way from the gateway.
    bound = recipe.queue or resolved.member or settings.gateway
    direct = settings.on_failure and newer and not bound
    return lines + (["RestartMode=direct"] if direct else [])
