"""explain: every word, variable and setting of a unit, with its reason and the file:line that says it."""

from __future__ import annotations

import re
import shlex
import shutil
import textwrap
from collections.abc import Iterable
from functools import partial
from itertools import groupby, zip_longest
from pathlib import Path
from typing import NamedTuple

import click

from recipectl.compiler import service_settings
from recipectl.compiler.environment import key_of
from recipectl.compiler.lifetimes import STARTS_BEFORE_LIMIT
from recipectl.compiler.model import CompiledModel, ResolvedRecipe
from recipectl.engines.argv import INFERRED, Word
from recipectl.machine import helperfile
from recipectl.recipe.positions import KeyPath, Positions
from recipectl.recipe.yamlfile import LEGACY_GPUS
from recipectl.systemd.unitfile import SECTION

# Name of a setting -> the recipe keys that decide it; the first key that is set is named with file:line.
_KEYS = {
    "Requires": ("requires",), "After": ("after", "requires"),
    "Conflicts": ("conflicts", "gpus"), "AssertPathExists": ("model_path",),
    "StopWhenUnneeded": ("on_demand",), "Wants": ("watch", "queue"), "User": ("user",),
    "TimeoutStartSec": ("ready.timeout_sec",), "ProtectHome": ("hardening",),
    "LoadCredential": ("secrets",), "LoadCredentialEncrypted": ("secrets",),
    "EnvironmentFile": ("secrets",), "DevicePolicy": ("device_isolation",), "DeviceAllow": ("gpus",),
    "Restart": ("on_demand",), "NoNewPrivileges": ("hardening",), "WantedBy": ("autostart",),
}  # fmt: skip

_RESTARTS = f"restarts, {STARTS_BEFORE_LIMIT} attempts"
_SET = "restarts, with its set"
_ON_DEMAND = "a request starts it again"
_SERVICE = "`service:` of the recipe"
_SANDBOX = "sandbox of `hardening:`"  # for every setting that is in no group
# Reason -> settings, in the order in which they are printed; recipe(5) has them at length.
_GROUPS = {
    "names of this unit": ("Documentation", "LogExtraFields"),
    "runs as": ("User", "SupplementaryGroups"),
    "order and conflicts": ("Wants", "Requires", "After", "Conflicts", "RequiresMountsFor",
                            "AssertPathExists"),
    "all models together": ("PartOf", "WantedBy", "Slice"),
    "runs while it is needed": ("StopWhenUnneeded",),
    "checked before a start": ("ExecStartPre",),
    "started when it answers": ("Type", "NotifyAccess", "TimeoutStartSec", "ExecStartPost"),
    "a stop frees its GPUs": ("TimeoutStopSec", "KillMode", "SuccessExitStatus", "OOMPolicy"),
    # Engines exit 0 when they die, and 2 when an argument is wrong; a slow failure must reach the limit.
    _RESTARTS: (
        "Restart", "RestartSec", "RestartSteps", "RestartMaxDelaySec", "RestartPreventExitStatus",
        "StartLimitIntervalSec", "StartLimitBurst",
    ),
    "after the last attempt": ("OnFailure", "RestartMode"),
    "limits of an engine": ("LimitMEMLOCK", "LimitNOFILE", "TasksMax"),
    "its own files": (
        "CacheDirectory", "CacheDirectoryMode", "StateDirectory", "StateDirectoryMode", "WorkingDirectory",
        "ReadWritePaths", "PrivateTmp", "BindPaths", "UMask",
    ),
    "secrets, read at start": ("LoadCredential", "LoadCredentialEncrypted", "EnvironmentFile"),
    "`device_isolation:`": ("DevicePolicy", "DeviceAllow"),
}  # fmt: skip
_REASONS = {name: reason for reason, names in _GROUPS.items() for name in names}
_ORDER = (*_GROUPS, _ON_DEMAND, _SET, _SERVICE, _SANDBOX)


class ExplainedSetting(NamedTuple):
    """A setting of the service, its reason, and the file:line of the recipe that decides it, if any."""

    text: str
    reason: str
    place: str | None


def explain(resolved: ResolvedRecipe, model: CompiledModel, host_positions: Positions) -> None:
    """Print what will run on one screen, each part beside its reason."""
    in_folder = partial(_with_notes, f"{Path(resolved.file).parent}/")
    _print_environment(resolved, host_positions, in_folder)
    by_source = groupby(resolved.words, lambda word: _source_of_word(resolved, word))
    _print_part("argv", [
        (source, [in_folder(shlex.join(word.text for word in group), *_word_notes(resolved, key))
                  for key, group in groupby(words, lambda word: word.key)])
        for source, words in by_source
    ])  # fmt: skip
    if resolved.endpoint.path:
        click.echo(f"ready        GET {resolved.endpoint.url}{resolved.endpoint.path} answers 200")
    by_reason = groupby(_settings(resolved, model), lambda setting: setting.reason)
    _print_part(f"unit         {model.unit_names.service}", [
        (reason, [in_folder(_without_helper(setting.text), setting.place) for setting in settings])
        for reason, settings in by_reason
    ])  # fmt: skip


def _print_environment(resolved: ResolvedRecipe, host_positions: Positions, in_folder: partial[str]) -> None:
    layers: dict[str, list[str]] = {}
    for name, variable in resolved.environment.items():
        overrode = [f"over {layer}'s `{value}`" for layer, value in variable.overrode]
        place = _place_of_variable(resolved, host_positions, name, variable.layer)
        text = in_folder(f"{name}={variable.value}", place, *overrode)
        layers.setdefault(variable.layer, []).append(text)
    for name, source in resolved.recipe.secrets.items():
        note = f"read from {source}, its value is in no unit"
        layers.setdefault("secrets", []).append(in_folder(name, resolved.location("secrets", name), note))
    _print_part("environment", layers.items())


def _with_notes(folder: str, text: str, *notes: str | None) -> str:
    """A text with notes in parentheses; files in the recipe's folder by their name alone."""
    joined = ", ".join(note.removeprefix(folder) for note in notes if note)
    return text.replace("\n", "\\n") + (f" ({joined})" if joined else "")


def _without_helper(setting: str) -> str:
    """The setting with `…` for the command of recipectl's own helper."""
    return re.sub(rf"=.*/{helperfile.NAME.pattern}\"? ", "=… ", setting)


def _print_part(title: str, rows: Iterable[tuple[str, list[str]]]) -> None:
    """A title, then each reason beside its items; an item that fits on a line is not broken."""
    click.echo(title)
    width = max(80, shutil.get_terminal_size((120, 0)).columns) - 28
    for reason, items in rows:
        text = "  ".join(item if len(item) > width else item.replace(" ", "\0") for item in items)
        lines = textwrap.wrap(text, width, break_on_hyphens=False, break_long_words=False)
        for left, right in zip_longest(textwrap.wrap(reason, 24), lines, fillvalue="") if lines else ():
            click.echo(f"  {left:<24}  {right}".replace("\0", " ").rstrip())


def _source_of_word(resolved: ResolvedRecipe, word: Word) -> str:
    if not word.key:
        return resolved.runtime.rule
    if word.key in (("on_demand",), ("queue",)):
        return "behind its socket"
    return str(word.key[0]) if word.key[0] in ("extra_args", "args") else "fields"


def _word_notes(resolved: ResolvedRecipe, key: KeyPath) -> tuple[str | None, ...]:
    """The file:line of the key that gives some words, and whether recipectl chose the value."""
    key = key or resolved.runtime.key
    field = str(key[0]) if key else ""
    inferred = field in INFERRED and getattr(resolved.recipe, field) == "auto"
    return resolved.location(*key) if key else None, "`auto`: by the model's name" if inferred else None


def _place_of_variable(
    resolved: ResolvedRecipe, host_positions: Positions, name: str, layer: str
) -> str | None:
    """The file:line of the value that a layer gives a variable; None where no file says it."""
    if layer == "host file":
        return _place_in_host_file(host_positions, "environment", name)
    if layer == "runtime":
        own = resolved.location(*resolved.runtime.key) if resolved.runtime.key else None
        path = _place_in_host_file(host_positions, "path") if name == "PATH" else None
        return ", ".join(filter(None, (own, path))) or None
    if layer == "gpus" and resolved.recipe.gpus is None:
        return resolved.location(*LEGACY_GPUS)
    key = key_of(layer, name)
    return resolved.location(*key) if key else None


def _place_in_host_file(host_positions: Positions, *key: str) -> str | None:
    place = host_positions.get(key)
    return f"{place[0]}:{place[1]}" if place else None


def _settings(resolved: ResolvedRecipe, model: CompiledModel) -> list[ExplainedSetting]:
    """The settings of the service by their reasons; command and environment have parts of their own."""
    recipe = resolved.recipe
    passed = {*service_settings.lines(recipe, "Unit"), *service_settings.lines(recipe, "Service")}
    own_section = model.units[0].text.partition(f"\n{SECTION}")[0].replace("\\\n    ", "")
    settings = []
    for line in own_section.splitlines():
        name, equals, _ = line.partition("=")
        if not equals or name.startswith("#") or name in ("ExecStart", "Environment", "Description"):
            continue
        is_passed = line in passed
        keys = [("service", name)] if is_passed else [tuple(key.split(".")) for key in _KEYS.get(name, ())]
        place = next(filter(None, (resolved.location(*key) for key in keys)), None)
        reason = _SERVICE if is_passed else _REASONS.get(name, _SANDBOX)
        if reason == _RESTARTS and (recipe.on_demand or (recipe.nodes and recipe.nodes.hosts)):
            reason = _ON_DEMAND if recipe.on_demand else _SET
        settings.append(ExplainedSetting(line, reason, place))
    return sorted(settings, key=_position)


def _position(setting: ExplainedSetting) -> tuple[int, int]:
    """Where a setting is printed: by its reason, then by its place in the group of that reason."""
    group = _GROUPS.get(setting.reason, ())
    name = setting.text.partition("=")[0]
    return _ORDER.index(setting.reason), group.index(name) if name in group else 0


def facts(resolved: ResolvedRecipe, model: CompiledModel, host_positions: Positions) -> dict[str, object]:
    """What `explain` prints, as values for JSON."""
    return {
        "recipe": resolved.name,
        "source": resolved.file,
        "runtime": resolved.runtime.as_json(),
        "environment": {
            name: variable._asdict()
            | {"place": _place_of_variable(resolved, host_positions, name, variable.layer)}
            for name, variable in resolved.environment.items()
        },
        "argv": list(resolved.argv),
        "words": [
            {
                "text": word.text,
                "why": ".".join(map(str, word.key)) or resolved.runtime.rule,
                "place": _word_notes(resolved, word.key)[0],
            }
            for word in resolved.words
        ],
        "endpoint": resolved.endpoint._asdict(),
        "settings": [
            {"setting": setting.text, "why": setting.reason, "place": setting.place}
            for setting in _settings(resolved, model)
        ],
    }
