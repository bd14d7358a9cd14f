"""The settings of `service:`: which this systemd knows, and which would break what a unit promises."""

import re
from collections.abc import Iterator

from recipectl.errors import UnrepresentableError, UsageError
from recipectl.machine.installation import Installation
from recipectl.recipe.schema import Recipe
from recipectl.systemd import quoting
from recipectl.systemd.directives import directives
from recipectl.text import did_you_mean

# These settings have recipe keys of their own, or they would break what a unit promises.
_REASONS = {
    "recipectl writes it; remove it": ("ExecStart", "ExecStartPre", "ExecStartPost", "SourcePath"),
    "a stop must free the GPUs; remove it": ("KillMode", "SendSIGKILL", "ExecStop", "ExecStopPost"),
    "readiness depends on Type=exec; remove it": ("Type",),
    "readiness depends on NotifyAccess=exec; remove it": ("NotifyAccess",),
    "readiness depends on the unit's own cgroup; remove it": ("Delegate",),
    "the helper watches the main process; remove it": ("GuessMainPID", "PIDFile"),
    "engines cannot reload; remove it": ("ExecReload",),
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
}
_REFUSED = {name: reason for reason, names in _REASONS.items() for name in names}
_PERCENTAGE = re.compile(r"[0-9]+(\.[0-9]+)?%")


def check(recipe: Recipe, installation: Installation) -> Iterator[UsageError]:
    """Yield what is wrong with each setting of `service:`."""
    for name, values in recipe.service.items():
        if sentence := _wrong_name(name, installation.systemd_version):
            yield UsageError(sentence, "service", name, kind="setting")
        for value in values:
            try:
                quoting.line(value)
            except UnrepresentableError as error:
                yield UsageError(f"`service.{name}`: {error}", "service", name, kind="setting")


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
