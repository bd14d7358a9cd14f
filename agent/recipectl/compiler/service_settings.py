"""The settings of `service:`: which this systemd knows, and which would break what a unit promises."""

import re
import signal
from collections.abc import Iterator

from recipectl.errors import UnrepresentableError, UsageError
from recipectl.machine.installation import Installation
from recipectl.recipe.schema import Recipe
from recipectl.systemd import quoting
from recipectl.systemd.directives import directives
from recipectl.text import did_you_mean

# These settings have recipe keys of their own, or they would break what a unit promises.
_REASONS = {
    "recipectl writes it; remove it": (
        "ExecStart", "ExecStartPre", "ExecStartPost", "SourcePath", "LogExtraFields",
    ),
    "a stop must free the GPUs; remove it": (
        "KillMode", "SendSIGKILL", "FinalKillSignal", "ExecStop", "ExecStopPost", "SurviveFinalKillSignal",
        "TimeoutAbortSec", "TimeoutStopFailureMode",
    ),
    "readiness depends on Type=exec; remove it": ("Type",),
    "it would run the helper as root; remove it": ("PermissionsStartOnly",),
    "a restart ends an engine as a stop does; use `KillSignal`": ("RestartKillSignal",),
    "what an engine tells systemd must count for nothing; remove it": ("NotifyAccess",),
    "readiness depends on the unit's own cgroup; remove it": ("Delegate",),
    "the helper watches the main process; remove it": ("GuessMainPID", "PIDFile", "ExitType"),
    "engines cannot reload; remove it": ("ExecReload", "ExecReloadPost"),
    "an engine that has ended must be started again; remove it": ("RemainAfterExit",),
    "a load that was stopped must not be a failure; remove it": ("SuccessExitStatus",),
    "no engine notifies it; use `watch:`": ("WatchdogSec",),
    "use `env_vars:`": ("Environment",),
    "use `env_vars:`, which `explain` shows": ("PassEnvironment",),
    "use `env_vars:` or `secrets:`, which `explain` shows": ("EnvironmentFile",),
    "leave the variable out of `env_vars:`": ("UnsetEnvironment",),
    "use `secrets:`": ("LoadCredential", "LoadCredentialEncrypted", "ImportCredential"),
    "it would be in the unit; use `secrets:`": ("SetCredential",),
    "use `gpus:` and `gpu_sharing:`": ("Conflicts",),
    "use `on_demand:`": ("StopWhenUnneeded",),
    "use `user:`": ("User", "DynamicUser"),
    "the group is that of `user:`; remove it": ("Group",),
    "use `description:`": ("Description",),
}  # fmt: skip
_REFUSED = {name: reason for reason, names in _REASONS.items() for name in names}
_NO_STOP_SIGNALS = ("SIGKILL", "SIGSTOP", "SIGCONT", "SIGCHLD", "SIGURG", "SIGWINCH")
_ENDLESS = re.compile(r"\s*(infinity|[0.]+\s*[a-z]*)?\s*")  # systemd.time(7); 0 is without a limit too
_PERCENTAGE = re.compile(r"[0-9]+(\.[0-9]+)?%")


def check(recipe: Recipe, installation: Installation) -> Iterator[UsageError]:
    """Yield what is wrong with each setting of `service:`."""
    yield from _wrong_stop(recipe)
    for name, values in recipe.service.items():
        if sentence := _wrong_name(name, installation.systemd_version):
            yield UsageError(sentence, "service", name, kind="setting")
        for value in values:
            try:
                quoting.line(value)
            except UnrepresentableError as error:
                yield UsageError(f"`service.{name}`: {error}", "service", name, kind="setting")


def kill_signal(recipe: Recipe) -> str | None:
    """KillSignal= of `service:` by its full name; None when it is not set."""
    values = [value.strip() for value in recipe.service.get("KillSignal", ())]
    if not values:
        return None
    text = values[-1].upper()
    if text.isdigit() and int(text) in {*signal.Signals}:
        return signal.Signals(int(text)).name
    return text if text.startswith("SIG") else f"SIG{text}"


def _wrong_stop(recipe: Recipe) -> Iterator[UsageError]:
    """Yield what would make a stop a failure, or endless."""
    signal_name = kill_signal(recipe)
    if signal_name and (signal_name not in signal.Signals.__members__ or signal_name in _NO_STOP_SIGNALS):
        fault = f"`service.KillSignal` cannot be {signal_name}: an engine cannot end well after it"
        yield UsageError(f"{fault}; give SIGTERM, SIGINT or SIGQUIT", "service", "KillSignal", kind="setting")
    for value in recipe.service.get("ExecCondition", ()):
        if re.search(r"(^|;)\s*[-@:]*[+!|]", value):
            fault = "`service.ExecCondition` cannot have privileges beside an engine's environment"
            sentence = f"{fault}; leave out its `+` or `!`, or write a unit of its own"
            yield UsageError(sentence, "service", "ExecCondition", kind="setting")
    for name in ("TimeoutStopSec", "TimeoutSec"):
        if any(_ENDLESS.fullmatch(value) for value in recipe.service.get(name, ())):
            sentence = f"`service.{name}` cannot be endless: a stop must free the GPUs; give a time"
            yield UsageError(sentence, "service", name, kind="setting")


def _wrong_name(name: str, systemd_version: int) -> str | None:
    known = directives()
    if name in _REFUSED:
        return f"`service.{name}` cannot be set: {_REFUSED[name]}"
    if name not in known:
        hint = did_you_mean(name, known, "see systemd.directives(7)")
        return f"`service.{name}` is not a setting of a service; {hint}"
    since = known[name].since
    if since > systemd_version:
        return f"`service.{name}` needs systemd {since}, and this host has {systemd_version}; remove it"
    return None


def is_allowed(name: str) -> bool:
    """True if `service:` takes a setting, on some version of systemd."""
    return name in directives() and name not in _REFUSED


def lines(recipe: Recipe, section: str) -> list[str]:
    """The lines of `service:` that belong to a section."""
    return [
        # Settings that take a percentage know no specifiers: CPUQuota=150%% would be ignored.
        f"{name}={value if _PERCENTAGE.fullmatch(value) else quoting.line(value)}"
        for name, values in recipe.service.items()
        if directives()[name].section == section
        for value in values
    ]
