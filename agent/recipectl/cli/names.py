"""Which recipes and models the words of a command line name: names, files, units and patterns."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable
from fnmatch import fnmatchcase
from glob import escape as glob_escape
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click
from click.shell_completion import CompletionItem

from recipectl.cli.terminal import say
from recipectl.errors import RecipectlError, RecipeError, UsageError
from recipectl.recipe import search
from recipectl.systemd.store import Store
from recipectl.systemd.unitfile import GATEWAY, UnitNames, is_companion, is_model_unit, recipe_of
from recipectl.text import did_you_mean, display

if TYPE_CHECKING:
    from recipectl.place import Place

_Verb = TypeVar("_Verb", bound=Callable[..., Any])
_PATTERN = re.compile(r"[*?\[]")
_ALL = "recipectl.all"  # in the context: --all was given


def recipe_names(place: Place) -> list[str]:
    """The names of all recipes of a place; none of another host, whose files are there."""
    return [] if place.remote else [*search.recipe_files(place.recipe_folders)]


def model_names(place: Place) -> list[str]:
    """The names of all models that have a unit."""
    if place.remote:
        from recipectl.systemd.dbus import Manager

        with Manager(place) as manager:
            services = manager.model_services()
    else:
        services = Store(place.unit_folder).services()
    return sorted(recipe_of(name) for name in services if not is_companion(name))


def no_such_recipe(word: str, place: Place) -> UsageError:
    """The error of every verb for a name that neither a recipe nor a model has, with the nearest one."""
    known = {*recipe_names(place), *model_names(place)}
    where = place.remote or ", ".join(map(str, place.recipe_folders))
    hint = did_you_mean(word, known, f"see `{place.verb('list')}`, or give a recipe's file")
    if word in ("models-gateway", "gateway"):
        hint = f"for the gateway, use `recipectl gateway`, and `systemctl` and `journalctl -u {GATEWAY}`"
    return UsageError(f"there is no recipe `{word}` in {where}; {hint}", kind="file")


def not_applied(name: str, place: Place) -> UsageError:
    """The error for a model without a unit: its recipe was not applied, is wrong, or is not there."""
    if name not in recipe_names(place):
        return no_such_recipe(name, place)
    from recipectl.compiler.cache import compile_place  # the other verbs need no compiler

    if problems := compile_place(place).failures.get(name):
        return RecipeError(problems)
    return UsageError(f"`{name}` has no unit yet; write it with `{place.verb('apply')} {name}`", kind="unit")


def recipe_file(word: str, place: Place) -> Path:
    """The file of a RECIPE argument; UsageError for a name that no recipe has."""
    word = _known_name(word, place)
    if search.is_file(word):
        return search.file_of(word)
    check_name(word)
    files = search.recipe_files(place.recipe_folders)
    if word not in files:
        raise no_such_recipe(word, place)
    return files[word]


def check_name(word: str) -> None:
    """UsageError for a word that cannot be a recipe's name."""
    if not search.RECIPE_NAME.match(word):
        fault = f"`{display(word)}` is not the name of a recipe"
        raise UsageError(f"{fault}; correct it: a name has {search.NAME_RULE}", kind="file")


def service_name(word: str) -> str:
    """The service of a RECIPE argument: a name, a file, or the unit itself; UsageError for another word."""
    if is_model_unit(word):
        name = recipe_of(word)
    else:
        name = Path(word).name.removesuffix(".service")
        name = search.stem(Path(name)) if name.endswith(search.SUFFIXES) else name
    if not search.RECIPE_NAME.match(name):
        check_name(word)
        check_name(name)
    return UnitNames(name).service


def model_name_of(word: str, place: Place) -> str:
    """The name of the recipe or model that a verb for a single one is about; UsageError for another word."""
    if _PATTERN.search(word) and not search.is_file(word):
        raise UsageError(f"`{word}` is a pattern, and this verb takes one model; name it", kind="file")
    word = _known_name(word, place)
    name = recipe_of(service_name(word))
    own = search.recipe_files(place.recipe_folders).get(name) if search.is_file(word) else None
    if search.is_file(word) and search.file_of(word).absolute() != own:
        fault = f"{word} is not in a recipe folder"
        raise UsageError(f"{fault}; apply it first, and name the recipe", kind="file")
    return name


def _matching(pattern: str, names: Iterable[str]) -> list[str]:
    return [name for name in names if fnmatchcase(name, pattern)]


def _check_is_of_model(file: str, place: Place) -> None:
    """UsageError for a file that is not the recipe of a model, whose name it has."""
    from recipectl.converge.copies import is_copy

    name = recipe_of(service_name(file))
    path = search.file_of(file)
    own = search.recipe_files(place.recipe_folders).get(name)
    if own and not is_copy(place, own, path) and os.path.realpath(path) != os.path.realpath(own):
        fault = f"{path} is not the recipe of `{name}`, which is {own}"
        raise UsageError(f"{fault}; name the model: `{name}`", kind="file")
    if not own and not os.path.exists(path):  # noqa: PTH110  (a closed folder is no error)
        raise UsageError(f"there is no file {path}; name the model, or correct the path", kind="file")
    if not own and name not in model_names(place):
        raise UsageError(f"{path} has no unit yet; write it with `{place.verb('apply')} {path}`", kind="unit")


def _known_name(word: str, place: Place) -> str:
    """`a` for `a.yaml` without such a file, for `model-a` and its unit, if `a` is known; else the word."""
    is_file_name = word.endswith(search.SUFFIXES)
    name = search.stem(Path(word)) if is_file_name else recipe_of(word)
    if name == word or "/" in word or (is_file_name and os.path.exists(word)):  # noqa: PTH110  (it may be too long)
        return word
    known = {*recipe_names(place), *model_names(place)}
    return name if name in known and word not in known else word


def _expanded(words: Iterable[str], place: Place, *, models: bool) -> tuple[str, ...]:
    """Words with each pattern replaced by what it matches; UsageError for a pattern without a match."""
    names: dict[str, None] = {}
    for word in (_known_name(word, place) for word in words):
        if search.is_file(word) or not _PATTERN.search(word):
            if models and search.is_file(word) and not place.remote:
                _check_is_of_model(word, place)
            names[word] = None
            continue
        recipes = _matching(word, recipe_names(place))
        matches = _matching(word, model_names(place)) if models else recipes
        for name in recipes if models and matches else ():
            if name not in matches:
                remedy = f"`{place.verb('apply')} {name}` writes it"
                say(f"`{name}` has no unit yet, and is left out; {remedy}", err=True)
        if not matches and not recipes:
            fault = (
                "there is no recipe and no model" if word == "*" else f"no recipe or model matches `{word}`"
            )
            raise UsageError(f"{fault}; see `{place.verb('list')}`", kind="file")
        names |= dict.fromkeys(matches or recipes)
    return tuple(names)


def _expand(*, models: bool, required: bool) -> Callable[..., tuple[str, ...]]:
    def expand(ctx: click.Context, parameter: click.Parameter, words: tuple[str, ...]) -> tuple[str, ...]:
        if ctx.resilient_parsing:
            return words
        if ctx.meta.get(_ALL):
            if words:
                raise click.UsageError("--all and names cannot be given together; give one of them", ctx)
            words = ("*",)
        if required and not words:
            or_all = ", or give --all" if models else ""
            raise click.UsageError(f"a RECIPE is missing: name one{or_all}", ctx)
        return _expanded(words, ctx.obj, models=models)

    return expand


def complete_recipe(ctx: click.Context, _: click.Parameter, start: str) -> list[CompletionItem]:
    """The names of recipes and models for TAB; files, where a path begins."""
    from recipectl.place import Place

    if "/" in start or start.startswith("."):
        return [CompletionItem(start, type="file")]
    place = Place(user=bool(ctx.find_root().params.get("user")))
    try:
        names = {*recipe_names(place), *model_names(place)}
    except RecipectlError:  # a folder that the caller cannot read: TAB says nothing
        return []
    recipes_so_far = ctx.params.get("recipes") or ()
    return [CompletionItem(name) for name in sorted(names - {*recipes_so_far}) if name.startswith(start)]


def complete_word(*words: str) -> Callable[[click.Context, click.Parameter, str], list[CompletionItem]]:
    """TAB for an option that takes one of a few words."""

    def complete(_: click.Context, __: click.Parameter, start: str) -> list[CompletionItem]:
        return [CompletionItem(word) for word in words if word.startswith(start)]

    return complete


def complete_engine(ctx: click.Context, parameter: click.Parameter, start: str) -> list[CompletionItem]:
    """The programs of engines for TAB, where no file begins like that; else files."""
    words = complete_word("vllm", "sglang", "llama-server")(ctx, parameter, start)
    is_file = not start or any(Path().glob(f"{glob_escape(start)}*"))
    return words if words and not is_file else complete_file(ctx, parameter, start)


def complete_file(_: click.Context, __: click.Parameter, start: str) -> list[CompletionItem]:
    """Files for TAB."""
    return [CompletionItem(start, type="file")]


def has_all_option(ctx: click.Context) -> bool:
    """True if the caller gave --all."""
    return bool(ctx.meta.get(_ALL))


def _argument(*, models: bool, required: bool) -> Callable[[_Verb], _Verb]:
    return click.argument(
        "recipes", nargs=-1, metavar="RECIPE..." if required else "[RECIPE]...",
        callback=_expand(models=models, required=required), shell_complete=complete_recipe,
    )  # fmt: skip


def _remember_all(ctx: click.Context, _: click.Parameter, value: bool) -> None:
    ctx.meta[_ALL] = value


def models_argument(verb: _Verb) -> _Verb:
    """The argument RECIPE... of a verb for models that have units, and its option --all."""
    option = click.option(
        "-a", "--all", is_flag=True, is_eager=True, expose_value=False, callback=_remember_all,
        help="All models of this host.",
    )  # fmt: skip
    return option(_argument(models=True, required=True)(verb))


RECIPES = _argument(models=False, required=True)
SOME_RECIPES = _argument(models=False, required=False)
SOME_MODELS = _argument(models=True, required=False)
