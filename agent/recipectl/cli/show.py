"""compile, explain, runtime, schema: what would be done, without systemd."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from recipectl import unitfile
from recipectl.cli.common import Place, chosen, made, outcome
from recipectl.store import Store

if TYPE_CHECKING:
    from recipectl import unit


@click.command("compile")
@click.argument("recipes", nargs=-1, metavar="[RECIPE]...")
@click.option("-o", "--output", type=click.Path(path_type=Path), metavar="DIR", help="Write the units here.")
@click.pass_obj
def compile_(place: Place, recipes: tuple[str, ...], output: Path | None) -> int:
    """Print the units of recipes, or write them."""
    models, status = chosen(outcome(place, recipes), recipes, place)
    units = [one for model in models for one in model.units]
    for index, one in enumerate(units):
        if output:
            Store(output).write(one)
            continue
        if len(units) > 1:
            click.echo(("\n" if index else "") + f"# ── {place.store.folder / one.name}")
        click.echo(one.text, nl=False)
    if output and units:
        Store(output).sync()
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
    steps, status = _steps(place, recipes)
    if as_json:
        click.echo(json.dumps([_facts(one) for one in steps], indent=2))
        return status
    for one in steps:
        click.echo(f"recipe       {one.recipe.name} ({one.source})")
        _runtime(one)
        click.echo("environment")
        for name, variable in one.environment.items():
            click.echo(f"  {name}={variable.value}    from {variable.layer}")
            for layer, value in variable.overrode:
                click.echo(f"    overrides {value} from {layer}")
        for name, source in one.recipe.secrets.items():
            click.echo(f"  {name} from secrets ({source}), its value is in no unit")
        click.echo("argv")
        for word in one.argv:
            click.echo(f"  {word}")
        for field in ("tool_call_parser", "reasoning_parser"):
            if getattr(one.recipe, field) == "auto":
                click.echo(f"  ({field}: inferred from the model's name, as `auto` asks)")
        if one.endpoint.path:
            click.echo(f"ready        GET {one.endpoint.url}{one.endpoint.path} answers 200")
        click.echo(f"unit         {unitfile.name(one.recipe.name or '')}")
    return status


def _facts(one: unit.Steps) -> dict[str, object]:
    return {
        "recipe": one.recipe.name,
        "source": one.source,
        "runtime": asdict(one.runtime),
        "environment": {name: asdict(variable) for name, variable in one.environment.items()},
        "argv": list(one.argv),
        "endpoint": asdict(one.endpoint),
    }


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
        click.echo(json.dumps([{"recipe": one.recipe.name} | asdict(one.runtime) for one in steps], indent=2))
        return status
    for one in steps:
        _runtime(one)
    return status


@click.command("schema")
def schema_() -> int:
    """Print the JSON Schema of a recipe."""
    from recipectl.recipe import Recipe

    click.echo(json.dumps(Recipe.model_json_schema(), indent=2))
    return 0
