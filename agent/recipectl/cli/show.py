"""compile, explain, show-command, runtime, schema: what would be done, without systemd."""

from __future__ import annotations

import shlex
import shutil
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING

import click

from recipectl.cli.names import RECIPES, SOME_RECIPES, complete_recipe
from recipectl.cli.options import (
    Folder,
    json_object_option,
    json_option,
    print_json,
    problems_as_json,
    report_problems,
    select,
    warn,
)
from recipectl.text import printable

if TYPE_CHECKING:
    from collections.abc import Sequence

    from recipectl.compiler.model import ResolvedRecipe
    from recipectl.place import Place


@click.command("compile")
@SOME_RECIPES
@click.option("-o", "--output", type=Folder(), metavar="DIR", help="Write the units here.")
@click.option("--gateway", "of_gateway", is_flag=True, help="Print the unit and the files of the gateway.")
@json_object_option(units=[])
@click.pass_obj
def compile_(
    place: Place, recipes: tuple[str, ...], output: Path | None, of_gateway: bool, as_json: bool
) -> int:
    """Print the units of recipes, or write them."""
    if of_gateway:
        return _print_gateway(place, alone=not (recipes or output or as_json))
    from recipectl.files import refuse_planted_links
    from recipectl.systemd.store import Store

    selection = select(place, recipes)
    units = [unit for model in selection.models for unit in model.units]
    if output:
        refuse_planted_links(output)
        Store(output).write(*units)
    if as_json:
        rows = [
            {"recipe": model.name, "name": unit.name, "text": unit.text}
            for model in selection.models
            for unit in model.units
        ]
        print_json({"units": rows, "problems": problems_as_json(selection.problems)})
    elif not output:
        for index, unit in enumerate(units):
            if len(units) > 1:
                click.echo(("\n" if index else "") + f"# ── {place.unit_folder / unit.name}")
            click.echo(unit.text, nl=False)
    return selection.status


def _print_gateway(place: Place, *, alone: bool) -> int:
    from recipectl.cli.gateway import exit_status, of_place
    from recipectl.gateway.configuration import FOLDER

    if not alone:
        raise click.UsageError("--gateway stands alone: it belongs to all recipes of the host")
    gateway, problems = of_place(place)
    report_problems(problems)
    if gateway is None:
        return exit_status(problems)
    files = {f"{FOLDER}/{name}": text for name, text in gateway.files.items()}
    for path, text in {str(place.unit_folder / gateway.unit.name): gateway.unit.text, **files}.items():
        click.echo(f"# ── {path}\n{text}")
    return exit_status(problems)


@click.command("explain")
@RECIPES
@json_option()
@click.pass_obj
def explain_(place: Place, recipes: tuple[str, ...], as_json: bool) -> int:
    """Print each step from a recipe to its unit, and why."""
    from recipectl.cli.explanation import explain, facts
    from recipectl.recipe.hostfile import settings_of

    selection = select(place, recipes, with_resolved=True)
    _, host_positions = settings_of(place.bases, place.owners)
    models = [(selection.result.resolved[model.name], model) for model in selection.models]
    if as_json:
        print_json([facts(resolved, model, host_positions) for resolved, model in models])
        return selection.status
    for resolved, model in models:
        _print_header(resolved)
        explain(resolved, model, host_positions)
    return selection.status


def _print_header(resolved: ResolvedRecipe) -> None:
    """The recipe, then its runtime."""
    click.echo(f"recipe       {resolved.name} ({resolved.file})")
    _print_runtime(resolved)


def _print_runtime(resolved: ResolvedRecipe) -> None:
    runtime = resolved.runtime
    click.echo(f"rule         {runtime.rule}")
    click.echo(f"interpreter  {runtime.interpreter or 'none'}")
    click.echo(f"entry point  {' '.join(runtime.command)}")
    click.echo(f"engine       {resolved.recipe.backend} {runtime.engine_version or 'of unknown version'}")
    click.echo(f"python       {runtime.python_version or 'unknown'}")
    for candidate in runtime.passed_over:
        click.echo(f"passed over  {candidate}")


def _steps(place: Place, recipes: Sequence[str]) -> tuple[list[ResolvedRecipe], int]:
    selection = select(place, recipes, with_resolved=True)
    return [selection.result.resolved[model.name] for model in selection.models], selection.status


@click.command("show-command")
@click.argument("recipe", metavar="RECIPE", shell_complete=complete_recipe)
@click.pass_obj
def show_command_(place: Place, recipe: str) -> int:
    """Print the command of a recipe, to paste into a shell."""
    models, status = _steps(place, (recipe,))
    for resolved in models:
        for name in resolved.recipe.secrets:
            warn(f"{name} is a secret, and is not printed")
        lines = [
            f"{name}={_shell_word(variable.value)}"
            for name, variable in resolved.environment.items()
            # Without the directories of the unit: another user could not write there.
            if variable.layer not in ("directories", "secrets")
        ]
        for _, words in groupby(resolved.words, lambda word: word.key):
            lines.append(" ".join(_shell_word(word.text) for word in words))
        click.echo(" \\\n    ".join(lines))
    return status


def _shell_word(text: str) -> str:
    """A word for a shell; control characters as escapes, which the shell reads again."""
    if printable(text) == text:
        return shlex.quote(text)
    escaped = text.replace("\\", "\\\\").replace("'", "\\'")
    return f"$'{printable(escaped)}'"


@click.command("runtime")
@RECIPES
@json_option()
@click.pass_obj
def runtime_(place: Place, recipes: tuple[str, ...], as_json: bool) -> int:
    """Print which interpreter and engine serve a recipe, and what was passed over."""
    models, status = _steps(place, recipes)
    if as_json:
        print_json(
            [
                {"recipe": resolved.name}
                | resolved.runtime.as_json()
                | {"shell_finds": _engine_of_shell(resolved)}
                for resolved in models
            ]
        )
        return status
    for resolved in models:
        if len(models) > 1:
            _print_header(resolved)
        else:
            _print_runtime(resolved)
        if other := _engine_of_shell(resolved):
            click.echo(f"your shell   finds another engine: {other}; the unit does not look there")
    return status


def _engine_of_shell(resolved: ResolvedRecipe) -> str | None:
    """The engine that the caller's own PATH has first, with its version, when the recipe runs another."""
    from recipectl.machine.disk import Disk
    from recipectl.machine.distributions import ENGINE_SCRIPTS

    backend = resolved.recipe.backend
    script = shutil.which(ENGINE_SCRIPTS[backend])
    if script is None or script == resolved.runtime.command[0]:
        return None
    return f"{script}, version {Disk().engine_version(Path(script), backend) or 'unknown'}"


@click.command("schema")
def schema_() -> int:
    """Print the JSON Schema of a recipe."""
    from recipectl.recipe.schema import Recipe

    print_json(Recipe.model_json_schema())
    return 0
