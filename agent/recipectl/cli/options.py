"""What the verbs share: --json, the recipes that are named, and how problems are printed."""

from __future__ import annotations

import functools
import json
import os
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import click

from recipectl.cli.names import recipe_file, recipe_names
from recipectl.errors import Problem, RecipectlError, UsageError, on_host
from recipectl.recipe import search

if TYPE_CHECKING:  # pydantic and jinja2 are slow to import, and half of the verbs need neither
    from recipectl.compiler.model import CompiledModel, CompileResult
    from recipectl.place import Place

_Verb = TypeVar("_Verb", bound=Callable[..., Any])
# Of the Debian package, and of a checkout.
EXAMPLES = (Path("/usr/share/doc/recipectl/examples"), Path(__file__).parents[3] / "recipes")
_SGLANG_VARIABLE = "VLLM_STUDIO_SGLANG_PYTHON"


class Folder(click.Path):
    """The path of a folder; an empty one is refused, which would be the current folder."""

    def __init__(self) -> None:
        super().__init__(path_type=Path)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if not str(value):
            self.fail("it is empty; give a folder, or `.` for the current one", param, ctx)
        return super().convert(value, param, ctx)


def json_option() -> Callable[[_Verb], _Verb]:
    """The option --json of a verb that prints a JSON list."""
    return click.option("--json", "as_json", is_flag=True, help="Print a JSON list.")


def json_object_option(**empty: object) -> Callable[[Callable[..., int]], Callable[..., int]]:
    """The option --json of a verb that prints a JSON object.

    An error that ends the verb is printed as such an object as well: `empty`, and the `problems`.
    """

    def with_option(verb: Callable[..., int]) -> Callable[..., int]:
        @functools.wraps(verb)
        def answered(*values: object, as_json: bool, **named: object) -> int:
            try:
                return verb(*values, as_json=as_json, **named)
            except RecipectlError as error:
                if as_json:
                    print_json(empty | {"problems": problems_as_json(error.problems)})
                raise

        return click.option("--json", "as_json", is_flag=True, help="Print a JSON object.")(answered)

    return with_option


def print_json(value: object) -> None:
    """A value as JSON on standard output."""
    click.echo(json.dumps(value, indent=2))


def warn(text: str) -> None:
    """A line on standard error that stops nothing."""
    click.echo(f"warning: {text}", err=True)


def report_problems(problems: Iterable[Problem]) -> None:
    """Problems on standard error, a line each."""
    for problem in problems:
        prefix = "warning: " if problem.severity == "warning" else ""
        click.echo(f"{prefix}{problem}", err=True)


def problems_as_json(problems: Iterable[Problem]) -> list[dict[str, str | int | None]]:
    """Problems as a verb's --json has them."""
    return [problem.as_json() for problem in problems]


class Selection(NamedTuple):
    """The models that were named (all without names), the problems of these, and the exit status so far."""

    models: tuple[CompiledModel, ...]
    problems: tuple[Problem, ...]
    status: int
    result: CompileResult


def select(
    place: Place,
    names: Sequence[str],
    *,
    with_resolved: bool = False,
    applied: Collection[str] | None = None,
    held: Mapping[str, Problem] | None = None,
) -> Selection:
    """Compile the host, and choose the recipes that were named; their problems are reported.

    `held` are recipes that are left out, each with the reason.
    """
    from recipectl.compiler.cache import compile_place

    files = [search.file_of(name) for name in names if search.is_file(name)]
    result = compile_place(place, files, with_resolved=with_resolved, applied=applied, held=held)
    selection = choose(result, names, place)
    report_problems(selection.problems)
    return selection


def choose(result: CompileResult, names: Sequence[str], place: Place) -> Selection:
    """The recipes that were named, of those that were compiled. A wrong recipe or name is status 2."""
    problems: list[Problem] = []
    stems: set[str] = set()
    recipes = {*recipe_names(place)} if names else set()
    for name in names:
        try:
            stems.add(name if name in recipes else search.stem(recipe_file(name, place)))
        except UsageError as error:
            problems += error.problems
    for name, failures in result.failures.items():
        if not names or name in stems:
            problems += failures
    status = 2 if any(problem.is_error for problem in problems) else 0
    models = tuple(model for model in result.models if not names or model.name in stems)
    problems += [warning for model in models for warning in model.warnings]
    if unused := _unused_shell_variable(models, place):
        problems.append(on_host("environment", unused, severity="warning"))
    return Selection(models, tuple(problems), status, result)


def report_no_recipes(place: Place) -> None:
    """One line for a host without recipes: where they are looked for, and where to begin."""
    examples = next((path for path in EXAMPLES if path.is_dir()), None)
    begin = f"begin with an example in {examples}, or with `recipectl import --help`"
    if examples is None:
        begin = "begin with `recipectl import --help`"
    click.echo(f"no recipes in {', '.join(map(str, place.recipe_folders))}; {begin}", err=True)


def _unused_shell_variable(models: Iterable[CompiledModel], place: Place) -> str | None:
    if _SGLANG_VARIABLE not in os.environ or not any(model.backend == "sglang" for model in models):
        return None
    from recipectl.recipe.hostfile import settings_of

    settings, _ = settings_of(place.bases, place.owners)
    if settings.sglang_python or _SGLANG_VARIABLE in settings.environment:
        return None
    return f"{_SGLANG_VARIABLE} of your shell is not used; set `sglang_python:` in the host file"
