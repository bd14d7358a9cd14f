"""Recipes that are applied from elsewhere are copied to the host's recipes, which only root can change."""

import json
import os
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path

from recipectl.compiler.cache import compile_place
from recipectl.errors import Problem, RecipectlError, RecipeError, UsageError
from recipectl.files import failures_named, read_bounded, write_whole
from recipectl.place import Place
from recipectl.recipe import search


def in_recipe_folder(place: Place, argument: str, say: Callable[[str], None]) -> str:
    """The argument of apply; a file from elsewhere is copied to the recipe folder, and the copy returned.

    UsageError when a recipe of that name is there already, and was not copied from the same file.
    """
    if not search.is_file(argument):
        return argument
    path = search.file_of(argument).absolute()
    if path.parent in place.recipe_folders:
        return argument
    target = place.recipe_folders[0] / path.name
    notes = place.state_folder / "copies.json"
    other = search.recipe_files(place.recipe_folders).get(search.stem(path))
    if other and (other != target or not is_copy(place, target, path)):
        fault = f"{path} has the name of {other}, which is not a copy of it"
        raise UsageError(f"{fault}; rename it, or replace that file yourself", kind="file")
    if drop_ins := search.drop_ins(search.stem(path), (path.parent,)):
        fault = f"{drop_ins[0]} belongs to {path}"
        raise UsageError(f"{fault}; copy both to {target.parent} yourself", kind="file")
    if not search.RECIPE_NAME.match(search.stem(path)):
        raise UsageError(f"{path} cannot be a recipe's name; a name has {search.NAME_RULE}", kind="file")
    if not path.exists():
        raise UsageError(f"{path} cannot be read: there is no such file; correct its path", kind="file")
    if path.is_symlink():
        raise UsageError(f"{path} is a link; give the file behind it", kind="file")
    with failures_named("read", path):
        content = read_bounded(path, follow=False)
        mode = path.stat().st_mode & 0o644  # a copy is open to nobody who could not read the file
    if other is None or read_bounded(target) != content:
        _refuse_wrong(place, path, target, content)
        noted = _read_notes(notes) | {str(target): str(path)}
        write_whole({notes: json.dumps(noted)}, durable=True)
        write_whole({target: content}, mode=mode, durable=True)
        say(f"copied {path} to {target}")
    return str(target)


def _refuse_wrong(place: Place, path: Path, target: Path, content: bytes) -> None:
    """RecipeError when a file would be a wrong recipe in the recipe folder: nothing is copied then."""
    hidden = hidden_copy(target, content)
    try:
        problems = compile_place(place, [hidden]).failures.get(search.stem(target), ())
    finally:
        shutil.rmtree(hidden.parent)
    if problems:
        raise RecipeError(about(path, hidden, problems))


def hidden_copy(recipe: Path, content: bytes) -> Path:
    """A file of a recipe's name in a hidden folder beside it: as safe as the recipe, and read by nothing."""
    copy = recipe.parent / f".recipectl-{os.urandom(4).hex()}" / recipe.name
    with failures_named("written", copy.parent):
        copy.parent.mkdir(parents=True, mode=0o700)
    write_whole({copy: content}, mode=0o600)
    return copy


def about(recipe: Path, copy: Path, problems: Iterable[Problem]) -> list[Problem]:
    """The problems of a copy, with the name of the recipe's own file."""
    return [
        problem._replace(file=str(recipe)) if problem.file == str(copy) else problem for problem in problems
    ]


def is_copy(place: Place, copy: Path, path: Path) -> bool:
    """True if a recipe was copied from a file: that file may be applied again."""
    return _read_notes(place.state_folder / "copies.json").get(str(copy)) == str(path.absolute())


def _read_notes(notes: Path) -> dict[str, str]:
    """Copy -> the file that it was copied from."""
    try:
        noted = json.loads(read_bounded(notes))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise RecipectlError(f"{notes} cannot be read ({error}); correct it, or remove it") from error
    return noted if isinstance(noted, dict) else {}
