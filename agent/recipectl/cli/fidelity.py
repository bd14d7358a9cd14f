"""lock, versions, check: does the host match the recipe?"""

from __future__ import annotations

from dataclasses import asdict
from functools import partial
from typing import TYPE_CHECKING

import click

from recipectl.cli.names import RECIPES, SOME_RECIPES, recipe_file
from recipectl.cli.options import (
    json_object_option,
    json_option,
    print_json,
    problems_as_json,
    report_no_recipes,
    report_problems,
    select,
    warn,
)
from recipectl.cli.terminal import moving_line, table
from recipectl.errors import UsageError
from recipectl.recipe import search

if TYPE_CHECKING:
    from recipectl.machine import lockfile
    from recipectl.place import Place


@click.command("lock")
@RECIPES
@click.option("--update", is_flag=True, help="Accept the runtime as it is now, and show what changed.")
@click.option("--check", is_flag=True, help="Write nothing; exit status 3 when the runtime differs.")
@click.pass_obj
def lock_(place: Place, recipes: tuple[str, ...], update: bool, check: bool) -> int:
    """Record the exact runtime of recipes beside them, in NAME.lock."""
    if update and check:
        raise UsageError("--check writes nothing, and --update writes; give one of them")
    return max(_lock_recipe(place, name, update=update, check=check) for name in recipes)


def _lock_recipe(place: Place, name: str, *, update: bool, check: bool) -> int:
    from recipectl.compiler.preflight import lock_contents, read_lock
    from recipectl.files import refuse_planted_links, write_whole
    from recipectl.machine import lockfile
    from recipectl.recipe.trusted import content_for

    file = recipe_file(name, place)
    recipe, path = search.stem(file), search.lock_of(file)
    current = _current_lock(place, name, recipe)
    if not path.exists():
        if check:
            click.echo(f"{path} does not exist; write it with `{place.verb('lock')} {name}`", err=True)
            return 3
        clauses = []
    else:
        clauses = lockfile.differences(read_lock(place, path, content_for(place.owners)), current)
        if not clauses and ("venv_lock" not in current or lockfile.venv_lock_beside(path).exists()):
            return 0
    for clause in clauses:
        click.echo(f"{recipe}: {clause}", err=not update)
    if clauses and not update:
        if not check:
            remedy = f"accept it with `{place.verb('lock')} --update {name}`"
            click.echo(f"the installed runtime differs from {path}; {remedy}", err=True)
        return 3
    refuse_planted_links(path.parent)
    contents = lock_contents(path, current)
    write_whole(contents)
    for written in contents:
        click.echo(f"wrote {written}")
    if hidden := lockfile.without_digest(current):
        warn(
            f"{recipe}: the lock has no digest of {', '.join(hidden)}, so a change there is not noticed; "
            "let others read it (chmod o+r)"
        )
    return 0


def _current_lock(place: Place, name: str, recipe: str) -> lockfile.Lock:
    from recipectl.compiler.preflight import current_lock
    from recipectl.upgrades.steps import compiled

    extra = (search.file_of(name),) if search.is_file(name) else ()
    sources = search.sources(place.recipe_folders, extra)
    source = next(source for source in sources if source.name == recipe)
    resolved = compiled(place, source).resolved  # without its lock: that may be out of date
    return current_lock(resolved.recipe, resolved.runtime)


@click.command("versions")
@SOME_RECIPES
@json_option()
@click.pass_obj
def versions_(place: Place, recipes: tuple[str, ...], as_json: bool) -> int:
    """Compare recipe, unit, what systemd has loaded, the process and the engine's own answer."""
    from recipectl.audit.versions import version_rows
    from recipectl.converge import holds

    selection = select(place, recipes, with_resolved=True, held=holds.held(place))
    wrong = selection.result.failures.keys() & {*map(search.name_of, recipes)}
    names = {model.name for model in selection.models} | wrong
    rows = version_rows(place, selection.result, sorted(names) if recipes else ())
    for row in rows:
        if row.pid and (row.running == "unknown" or row.executable is None):
            warn(f"{row.name}: process {row.pid} cannot be read; run it as root to compare it")
    if not rows and not recipes and not selection.result.failures:
        report_no_recipes(place)
    if as_json:
        from recipectl.audit.equipment import NOTHING, equipment

        known = equipment(selection.result.resolved)
        print_json([asdict(row) | known.get(row.name, NOTHING) for row in rows])
    else:
        columns = ("name", "recipe", "unit", "loaded", "running", "answers")
        table([[getattr(row, column) or "-" for column in columns] for row in rows],
              [column.upper() for column in columns])  # fmt: skip
        for row in rows:
            for difference in row.differences:
                click.echo(f"{row.name}: {difference}")
    # A site's drop-in is told, and no drift: the header of each unit recommends it.
    drift = any(difference.where != "drop-in" for row in rows for difference in row.differences)
    return selection.status or (3 if drift else 0)


@click.command("check")
@SOME_RECIPES
@json_object_option(models=[])
@click.pass_obj
def check_(place: Place, recipes: tuple[str, ...], as_json: bool) -> int:
    """Check flags and values against the parser of the installed engine, before anything starts."""
    from recipectl.compiler.problems import ProblemCollector
    from recipectl.engines.ask import options_of
    from recipectl.engines.flags import DeprecatedError, check_recipe

    selection = select(place, recipes, with_resolved=True)
    problems = list(selection.problems)
    checked = []
    for model in selection.models:
        resolved = selection.result.resolved[model.name]
        user = model.user or resolved.recipe.user or "root"
        with moving_line(partial("{}: asking its engine for its options".format, model.name)):
            answer = options_of(model.backend, resolved.runtime, user, place.cache_folder / "options")
        collector = ProblemCollector(resolved.file, resolved.positions)
        findings = [
            collector.placed(finding, "warning" if isinstance(finding, DeprecatedError) else "error")
            for finding in check_recipe(
                model.backend, resolved.words, resolved.recipe.extra_args, answer.options
            )
        ]
        report_problems(findings)
        if findings or not answer.asked:
            click.echo(f"{model.name}: checked with {answer.origin}", err=True)
        checked.append({"recipe": model.name, "options": answer.origin})
        problems += findings
    if as_json:
        print_json({"models": checked, "problems": problems_as_json(problems)})
    return 2 if any(problem.is_error for problem in problems) else selection.status
