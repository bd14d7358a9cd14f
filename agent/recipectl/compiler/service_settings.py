"""The settings of `service:`: which this systemd knows, and which would break what a unit promises."""

import difflib
import json
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from recipectl.errors import UnrepresentableError, UsageError
from recipectl.recipe.schema import Recipe
from recipectl.systemd import quoting
from recipectl.systemd.unitfile import Site

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
    "ExecStop": "a stop must free the GPUs",
    "ExecStopPost": "a stop must free the GPUs",
    "ExecReload": "engines have none",
    "RemainAfterExit": "an engine that has ended must come back",
    "GuessMainPID": "the poller watches the main process",
    "PIDFile": "the poller watches the main process",
    "DynamicUser": "use `user:`",
    "Group": "use `user:`, whose group it is",
    "Delegate": "readiness rests on the engine's processes being in the unit's own cgroup",
    "WatchdogSec": "no engine feeds it; use `watch:`",
    "EnvironmentFile": "use `env_vars:` or `secrets:`, which `explain` shows",
    "PassEnvironment": "use `env_vars:`, which `explain` shows",
    "UnsetEnvironment": "leave the variable out of `env_vars:`",
    "ImportCredential": "use `secrets:`",
    "SuccessExitStatus": "a load that was stopped must not be a failure",
}


_PERCENTAGE = re.compile(r"[0-9]+(\.[0-9]+)?%")


@cache
def _known() -> dict[str, tuple[str, int]]:
    """Setting -> (section, version that has it first), from the manual pages."""
    table = json.loads(Path(__file__).parents[1].joinpath("systemd/directives.json").read_text())
    return {name: (section, since) for section, names in table.items() for name, since in names.items()}


def refused(recipe: Recipe, site: Site) -> Iterator[UsageError]:
    """What is wrong with each setting of `service:`."""
    for name, values in recipe.service.items():
        key = ("service", name)
        if name in _REFUSED:
            yield UsageError(f"`service.{name}` cannot be set: {_REFUSED[name]}", *key)
        elif name not in _known():
            near = difflib.get_close_matches(name, _known(), 1)
            hint = f"did you mean `{near[0]}`?" if near else "see systemd.directives(7)"
            yield UsageError(f"`service.{name}` is no setting of a service; {hint}", *key)
        elif (since := _known()[name][1]) > site.systemd:
            told = f"`service.{name}` needs systemd {since}, and this host has {site.systemd}; remove it"
            yield UsageError(told, *key)
        for value in values:
            try:
                quoting.line(value)
            except UnrepresentableError as error:
                yield UsageError(f"`service.{name}`: {error}", *key)


def passes(name: str) -> bool:
    """Whether `service:` takes a setting, on some systemd."""
    return name in _known() and name not in _REFUSED


def lines(recipe: Recipe, section: str) -> list[str]:
    """The lines of `service:` that belong to a section."""
    return [
        # Settings that take a percentage know no specifiers: CPUQuota=150%% would be ignored.
        f"{name}={value if _PERCENTAGE.fullmatch(value) else quoting.line(value)}"
        for name, values in recipe.service.items()
        if _known()[name][0] == section
        for value in values
    ]
