"""compile, explain, runtime, schema: what would be done, without systemd."""

from __future__ import annotations

import json
import shlex
import shutil
import textwrap
from dataclasses import asdict
from functools import partial
from itertools import groupby, zip_longest
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import click

from recipectl.cli.options import Place, chosen, made, outcome, warn
from recipectl.cli.reasons import COMES_BACK, KEYS, ON_DEMAND, ORDER, REASONS, SANDBOX, SERVICE
from recipectl.systemd import unitfile
from recipectl.systemd.store import Store

if TYPE_CHECKING:
    from collections.abc import Iterable

    from recipectl.compiler import units as unit
    from recipectl.compiler.model import Compiled


@click.command("compile")
@click.argument("recipes", nargs=-1, metavar="[RECIPE]...")
@click.option("-o", "--output", type=click.Path(path_type=Path), metavar="DIR", help="Write the units here.")
@click.pass_obj
def compile_(place: Place, recipes: tuple[str, ...], output: Path | None) -> int:
    """Print the units of recipes, or write them."""
    models, status = chosen(outcome(place, recipes), recipes, place)
    units = [one for model in models for one in model.units]
    if output:
        Store(output).write(*units)
        return status
    for index, one in enumerate(units):
        if len(units) > 1:
            click.echo(("\n" if index else "") + f"# ── {place.store.folder / one.name}")
        click.echo(one.text, nl=False)
    return status


def _steps(place: Place, recipes: tuple[str, ...]) -> tuple[list[unit.Steps], int]:
    steps, result = made(place, recipes)
    models, status = chosen(result, recipes, place)
    return [steps[model.name] for model in models], status


@click.command("explain")
@click.argument("recipes", nargs=-1, required=True, metavar="RECIPE...")
@click.option("--json", "as_json", is_flag=True, help="Print a JSON list.")
@click.pass_obj
def explain_(place: Place, recipes: tuple[str, ...], as_json: bool) -> int:
    """Print each step from a recipe to its unit, and why."""
    steps, result = made(place, recipes)
    models, status = chosen(result, recipes, place)
    if as_json:
        click.echo(json.dumps([_facts(place, steps[model.name], model) for model in models], indent=2))
        return status
    for model in models:
        _explain(place, steps[model.name], model)
    return status


def _explain(place: Place, one: unit.Steps, model: Compiled) -> None:
    """One screen: what will run, each part of it beside its reason and with the file:line that says it."""
    click.echo(f"recipe       {one.recipe.name} ({one.source})")
    _runtime(one)
    beside = partial(_beside, f"{Path(one.source).parent}/")
    layers: dict[str, list[str]] = {}
    for name, variable in one.environment.items():
        over = [f"over {layer}'s `{value}`" for layer, value in variable.overrode]
        text = f"{name}={variable.value}"
        layers.setdefault(variable.layer, []).append(
            beside(text, _source(place, one, name, variable.layer), *over)
        )
    for name, source in one.recipe.secrets.items():
        told = f"read from {source}, its value is in no unit"
        layers.setdefault("secrets", []).append(beside(name, one.place("secrets", name), told))
    _part("environment", layers.items())
    kinds = groupby(one.words, lambda word: _kind(one, word.key))
    groups = ((why, groupby(words, lambda word: word.key)) for why, words in kinds)
    _part("argv", [
        (why, [beside(shlex.join(word.text for word in words), *_said(one, key)) for key, words in group])
        for why, group in groups
    ])  # fmt: skip
    if one.endpoint.path:
        click.echo(f"ready        GET {one.endpoint.url}{one.endpoint.path} answers 200")
    helper = shlex.join(place.site.helper)
    reasons = groupby(_settings(one, model), lambda setting: setting.why)
    _part(f"unit         {model.units[0].name}", [
        (why, [beside(text.replace(helper, "…"), said) for text, _, said in settings])
        for why, settings in reasons
    ])  # fmt: skip


def _beside(folder: str, text: str, *said: str | None) -> str:
    """A thing and, in parentheses, what is said of it; places in the recipe's folder by their file's name."""
    told = ", ".join(one.removeprefix(folder) for one in said if one)
    return text.replace("\n", "\\n") + (f" ({told})" if told else "")


def _part(title: str, rows: Iterable[tuple[str, list[str]]]) -> None:
    """A title, then each reason beside what it is the reason of; nothing that fits is broken within."""
    click.echo(title)
    width = max(80, shutil.get_terminal_size((120, 0)).columns) - 28
    for why, things in rows:
        whole = "  ".join(thing if len(thing) > width else thing.replace(" ", "\0") for thing in things)
        lines = textwrap.wrap(whole, width, break_on_hyphens=False, break_long_words=False)
        left = textwrap.wrap(why, 24)
        for a, b in zip_longest(left, lines, fillvalue="") if lines else ():
            click.echo(f"  {a:<24}  {b}".replace("\0", " ").rstrip())


def _kind(one: unit.Steps, key: tuple[str | int, ...]) -> str:
    """Where words of argv come from."""
    if not key:
        return one.runtime.rule
    if key == ("on_demand",):
        return "behind its socket"
    return str(key[0]) if key[0] in ("extra_args", "args") else "fields"


def _said(one: unit.Steps, key: tuple[str | int, ...]) -> tuple[str | None, ...]:
    """file:line of what gave some words of argv, and what was decided there."""
    key = key or one.runtime.key
    auto = (
        key[:1] in (("tool_call_parser",), ("reasoning_parser",))
        and getattr(one.recipe, str(key[0])) == "auto"
    )
    return one.place(*key) if key else None, "`auto`: by the model's name" if auto else None


def _source(place: Place, one: unit.Steps, name: str, layer: str) -> str | None:
    """file:line of the value that a layer gave a variable, None where no file says it."""
    if layer == "host file":
        found = place.host_places.get(("environment", name))
        return f"{found[0]}:{found[1]}" if found else None
    if layer == "runtime":
        ours = one.place(*one.runtime.key) if one.runtime.key else None
        path = place.host_places.get(("path",)) if name == "PATH" else None
        return ", ".join(filter(None, (ours, f"{path[0]}:{path[1]}" if path else None))) or None
    if layer == "gpus" and one.recipe.gpus is None:
        return one.place("extra_args", "cuda_visible_devices")
    from recipectl.compiler import environment  # with pydantic: not for a compile from the cache

    key = environment.key_of(layer, name)
    return one.place(*key) if key else None


class Setting(NamedTuple):
    """A setting of the service, why it is there, and what of the recipe says so (file:line), if anything."""

    text: str
    why: str
    place: str | None


def _settings(one: unit.Steps, model: Compiled) -> list[Setting]:
    """The settings of the service by their reasons; command and environment have their own parts."""
    from recipectl.compiler import service_settings as settings

    given = {*settings.lines(one.recipe, "Unit"), *settings.lines(one.recipe, "Service")}
    found = []
    text = model.units[0].text.partition(f"\n{unitfile.SECTION}")[0].replace("\\\n    ", "")
    for line in text.splitlines():
        name, equals, _ = line.partition("=")
        if not equals or name.startswith("#") or name in ("ExecStart", "Environment", "Description"):
            continue
        passed = line in given
        keys = [("service", name)] if passed else [tuple(key.split(".")) for key in KEYS.get(name, ())]
        said = next(filter(None, (one.place(*key) for key in keys)), None)
        why = SERVICE if passed else REASONS.get(name, SANDBOX)
        found.append(Setting(line, ON_DEMAND if why == COMES_BACK and one.recipe.on_demand else why, said))
    return sorted(found, key=lambda setting: ORDER.index(setting.why))


def _facts(place: Place, one: unit.Steps, model: Compiled) -> dict[str, object]:
    variables = one.environment.items()
    return {
        "recipe": one.recipe.name,
        "source": one.source,
        "runtime": asdict(one.runtime),
        "environment": {
            name: variable._asdict() | {"place": _source(place, one, name, variable.layer)}
            for name, variable in variables
        },
        "argv": list(one.argv),
        "words": [
            {
                "text": word.text,
                "why": ".".join(map(str, word.key)) or one.runtime.rule,
                "place": _said(one, word.key)[0],
            }
            for word in one.words
        ],
        "endpoint": one.endpoint._asdict(),
        "settings": [
            {"setting": text, "why": why, "place": where} for text, why, where in _settings(one, model)
        ],
    }


@click.command("show-command")
@click.argument("recipe", metavar="RECIPE")
@click.pass_obj
def show_command_(place: Place, recipe: str) -> int:
    """Print the command of a recipe, to paste into a shell."""
    steps, status = _steps(place, (recipe,))
    for one in steps:
        # Without the directories of the unit, which another user could not write.
        shown = {n: v.value for n, v in one.environment.items() if v.layer not in ("directories", "secrets")}
        for name in one.recipe.secrets:
            warn(f"{name} is a secret, and is not printed")
        lines = [f"{name}={shlex.quote(value)}" for name, value in shown.items()]
        for _, words in groupby(one.words, lambda word: word.key):
            lines.append(shlex.join(word.text for word in words))
        click.echo(" \\\n    ".join(lines))
    return status


def _runtime(one: unit.Steps) -> None:
    found = one.runtime
    click.echo(f"rule         {found.rule}")
    click.echo(f"interpreter  {found.interpreter or 'none'}")
    click.echo(f"entry point  {' '.join(found.command)}")
    click.echo(f"engine       {one.recipe.backend} {found.engine_version or 'of unknown version'}")
    click.echo(f"python       {found.python_version or 'unknown'}")
    for candidate in found.passed_over:
        click.echo(f"passed over  {candidate}")


@click.command("runtime")
@click.argument("recipes", nargs=-1, required=True, metavar="RECIPE...")
@click.option("--json", "as_json", is_flag=True, help="Print a JSON list.")
@click.pass_obj
def runtime_(place: Place, recipes: tuple[str, ...], as_json: bool) -> int:
    """Print which interpreter and engine serve a recipe, and what was passed over."""
    steps, status = _steps(place, recipes)
    if as_json:
        rows = [
            {"recipe": one.recipe.name} | asdict(one.runtime) | {"shell_finds": _shell_finds(one)}
            for one in steps
        ]
        click.echo(json.dumps(rows, indent=2))
        return status
    for one in steps:
        if len(steps) > 1:
            click.echo(f"recipe       {one.recipe.name} ({one.source})")
        _runtime(one)
        if found := _shell_finds(one):
            click.echo(f"your shell   finds another: {found}; the unit does not look there")
    return status


def _shell_finds(one: unit.Steps) -> str | None:
    """The engine that the caller's own PATH has first, with its version, when the recipe runs another."""

    from recipectl.machine.disk import SCRIPTS, Disk

    script = shutil.which(SCRIPTS[one.recipe.backend])
    if script is None or script == one.runtime.command[0]:
        return None
    return f"{script}, version {Disk().version(Path(script), one.recipe.backend) or 'unknown'}"


@click.command("schema")
def schema_() -> int:
    """Print the JSON Schema of a recipe."""
    from recipectl.recipe.schema import Recipe

    click.echo(json.dumps(Recipe.model_json_schema(), indent=2))
    return 0
