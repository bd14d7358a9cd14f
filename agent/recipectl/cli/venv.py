"""venv: the runtimes of engines, from a lock to a folder that recipes name."""

from __future__ import annotations

import os
import re
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from recipectl.cli.names import complete_file, complete_word
from recipectl.cli.options import json_option, print_json, select, warn
from recipectl.cli.terminal import moving_line, say, table
from recipectl.errors import RecipectlError, UsageError
from recipectl.text import did_you_mean, display, names_in_words, one_line

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

    from recipectl.place import Place
    from recipectl.venvs.request import Request
    from recipectl.venvs.verify import Finding

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]*")


@click.group("venv")
def venv_() -> None:
    """Make, list, verify and remove runtimes: virtual environments, one for each version of an engine."""


_FILE: dict[str, Any] = {"type": click.Path(path_type=Path), "shell_complete": complete_file}


@venv_.command("create")
@click.argument(
    "requirement", required=False, shell_complete=complete_word("vllm==", "sglang==", "xllamacpp==")
)
@click.option("--python", metavar="VERSION|PATH", help="The interpreter.  [default: /usr/bin/python3]")
@click.option("--torch-backend", metavar="NAME", help="Passed on to uv: cpu, cu129.")
@click.option("--with", "packages", multiple=True, metavar="REQUIREMENT", help="One more package.")
@click.option("--without", "excluded", multiple=True, metavar="PACKAGE", help="Leave a dependency out.")
@click.option(
    "--override",
    "overrides",
    multiple=True,
    metavar="REQUIREMENT",
    help="This version, whatever others need.",
)
@click.option("--index", "indexes", multiple=True, metavar="URL", help="One more index, asked first.")
@click.option("--alias", "aliases", multiple=True, metavar="NAME[==VERSION]", help="One more name of it.")
@click.option("--name", metavar="NAME|PATH", help="The folder.  [default: the engine and its version]")
@click.option("--lock", metavar="FILE", help="Install exactly what this lock names.", **_FILE)
@click.option("--from", metavar="NAME.lock", help="Install again what a recipe was locked with.", **_FILE)
@click.pass_obj
def create_(place: Place, /, name: str | None, lock: Path | None, **words: object) -> int:
    """Make a virtual environment from a lock with hashes, which stays beside it; print its path.

    REQUIREMENT is an engine as pip takes it: vllm==0.32.0. The venv is there whole, or not at all.
    """
    from recipectl.venvs import request as requests

    place.require_local()
    os.umask(0o022)  # models read the venv
    if recipe_lock := words.pop("from"):
        if lock:
            raise UsageError("--lock and --from cannot be given together; give one of them")
        _refuse_others(place, Path(str(recipe_lock)))
        lock, venv = requests.lock_of_recipe(Path(str(recipe_lock)))
        name = name or str(venv)
    if lock:
        _refuse_others(place, lock)
    if "/" in str(words["python"] or ""):
        words["python"] = os.path.abspath(str(words["python"]))  # noqa: PTH100  (uv runs elsewhere)
    text, request = requests.request_for(lock, words) if lock else ("", requests.request_of(words))
    click.echo(ensure_venv(place, request, text, name))
    return 0


def ensure_venv(place: Place, request: Request, text: str = "", name: str | None = None) -> Path:
    """The venv of a request, with `text` as its lock; it is made where it is not there."""
    from recipectl.venvs import request as requests
    from recipectl.venvs.create import clear_interrupted, create
    from recipectl.venvs.uv import Uv

    folder = _folder(place, name, request, request.version_in(text) if text else request.pinned_version)
    if not folder or not requests.is_made(folder, request, text):
        uv = Uv(place.cache_folder)
        if not text:
            with _step(f"resolving {request.requirement}"):
                text = uv.lock(request)
            folder = _folder(place, name, request, request.version_in(text))
        if not folder:
            raise UsageError(f"nothing tells the version of {request.requirement}; give a --name")
        if folder.parent == venv_folder(place):
            for cleared in clear_interrupted(folder.parent):
                warn(f"cleared {cleared}, which an interrupted create or remove had left")
        if not requests.is_made(folder, request, text):
            create(folder, text, request, uv, _step)
    return folder


def _step(text: str) -> AbstractContextManager[None]:
    return moving_line(lambda: text, at_once=True)


def _folder(place: Place, name: str | None, request: Request, version: str | None) -> Path | None:
    """The folder of a venv, root's alone; None where neither a name nor a version gives one."""
    if name is None and version is None:
        return None
    if name and "/" in name:
        folder = Path(os.path.abspath(name))  # noqa: PTH100  (a venv's path keeps its links)
    else:
        name = name or f"{request.distribution}-{version}"
        if not _NAME.fullmatch(name):
            shown = display(name)
            raise UsageError(f"`{shown}` cannot be a venv's name; use letters, digits, `.`, `_`, `+` and `-`")
        folder = venv_folder(place) / name
    _refuse_others(place, folder)
    return folder


def venv_folder(place: Place) -> Path:
    """The folder of venvs: that of the host file, else the place's own."""
    from recipectl.recipe.hostfile import settings_of

    settings, _ = settings_of(place.bases, place.owners)
    return Path(settings.venvs) if settings.venvs else place.venv_folder


def _refuse_others(place: Place, path: Path, remedy: str = "choose another path") -> None:
    """UsageError where others than root could change what root installs or removes, or this recipectl."""
    if os.geteuid() or place.user:
        return
    from recipectl.machine.installation import refuse_if_others_can_write
    from recipectl.recipe.trusted import Trust

    refuse_if_others_can_write()
    if fault := Trust(frozenset({0})).fault(path):
        raise UsageError(f"{path} is not root's alone: {fault}; {remedy}", kind="access")


def _complete(ctx: click.Context, _: click.Parameter, start: str) -> list[CompletionItem]:
    from recipectl.place import Place
    from recipectl.venvs.inventory import in_folder

    place = Place(user=bool(ctx.find_root().params.get("user")))
    names = [path.name for path in in_folder(venv_folder(place))]
    return complete_word(*names)(ctx, _, start) if "/" not in start else complete_file(ctx, _, start)


def _find(place: Place, word: str) -> Path:
    """The venv of a name or a path; UsageError where there is none."""
    from recipectl.venvs.inventory import in_folder, is_venv

    place.require_local()
    path = Path(os.path.abspath(word)) if "/" in word else venv_folder(place) / word  # noqa: PTH100  (its links stay)
    if not is_venv(path):
        known = [venv.name for venv in in_folder(venv_folder(place))]
        hint = did_you_mean(word, known, f"see `{place.verb('venv list')}`, or give its path")
        raise UsageError(f"{path} is no virtual environment; {hint}", kind="file")
    return path


def _used(place: Place) -> list[tuple[str, Path]]:
    """(recipe, venv) of all recipes that have one; a wrong recipe is reported."""
    resolved = select(place, (), with_resolved=True).result.resolved
    pairs = ((name, recipe.runtime.venv) for name, recipe in resolved.items())
    return [(name, Path(venv)) for name, venv in sorted(pairs) if venv]


@venv_.command("list")
@json_option()
@click.pass_obj
def list_(place: Place, as_json: bool) -> int:
    """Show the venvs of this host: what is in them, and which recipes use them."""
    from recipectl.venvs.inventory import in_folder, look_at, same

    used = _used(place)
    folder = venv_folder(place)
    paths = [*in_folder(folder)]
    paths += [
        path for path in dict.fromkeys(path for _, path in used) if not any(same(path, p) for p in paths)
    ]
    venvs = [(look_at(path), [name for name, venv in used if same(venv, path)]) for path in paths]
    if as_json:
        print_json([venv._asdict() | {"path": str(venv.path), "recipes": names} for venv, names in venvs])
        return 0
    if not venvs:
        create = place.verb("venv create vllm==VERSION")
        say(f"no venvs in {folder}; make one with `{create}`", err=True)
    rows = [
        [
            venv.path.name if venv.path.parent == folder else str(venv.path),
            venv.engine or "-", venv.version or "-", venv.python or "-", venv.torch or "-", venv.cuda or "-",
            f"{venv.size / 1e9:.1f} GB", ", ".join(names) or "-" if venv.finished else "(not finished)",
        ]
        for venv, names in venvs
    ]  # fmt: skip
    table(rows, ["VENV", "ENGINE", "VERSION", "PYTHON", "TORCH", "CUDA", "SIZE", "RECIPES"])
    return 0


@venv_.command("verify")
@click.argument("venvs", nargs=-1, metavar="[VENV]...", shell_complete=_complete)
@json_option()
@click.pass_obj
def verify_(place: Place, venvs: tuple[str, ...], as_json: bool) -> int:
    """Compare each file of venvs with the records of what is installed; of all venvs in use without a name.

    Nothing of a venv is run. Exit status 3 when a file differs.
    """
    from recipectl.venvs.verified import findings

    paths = [_find(place, word) for word in dict.fromkeys(venvs)]
    paths = paths or [*dict.fromkeys(path for _, path in _used(place))]
    if not paths:
        say("no recipe uses a venv; name one", err=True)
    results: list[tuple[Path, list[Finding]]] = []
    status = 0
    for path in paths:
        try:
            with _step(f"verifying {path}"):
                results.append((path, findings(path, place.cache_folder)))
        except RecipectlError as error:  # the other venvs are verified all the same
            click.echo(str(error), err=True)
            status = max(status, error.status)
    if as_json:
        tables = [{"venv": str(path), "findings": [row._asdict() for row in rows]} for path, rows in results]
        print_json(tables)
    else:
        for path, rows in results:
            for row in rows:
                click.echo(one_line(f"{row.kind:9}  {path / row.path}: {row.detail}"))
    return status or (3 if any(rows for _, rows in results) else 0)


def _require_removable(place: Place, path: Path) -> None:
    """UsageError for what `venv create` has not made, outside the folder of venvs, and for a link."""
    from recipectl.machine.lockfile import own_venv_lock

    if path.is_symlink():
        raise UsageError(f"{path} is a link to {path.readlink()}; name that, and remove the link yourself")
    _refuse_others(place, path, "remove it yourself")
    if path.parent != venv_folder(place) and own_venv_lock(path) is None:
        raise UsageError(f"`recipectl venv create` has not made {path}; remove it yourself", kind="file")


@venv_.command("remove")
@click.argument("venvs", nargs=-1, required=True, metavar="VENV...", shell_complete=_complete)
@click.pass_obj
def remove_(place: Place, venvs: tuple[str, ...]) -> int:
    """Remove venvs and their locks; one that a recipe, a lock, a unit or a process uses stays."""
    from recipectl.venvs.create import remove
    from recipectl.venvs.inventory import users

    paths = [*dict.fromkeys(_find(place, word) for word in venvs)]
    used = _used(place)
    for path in paths:
        _require_removable(place, path)
        if clauses := users(path, place, used):
            fault = f"{path} is used by {names_in_words(clauses)}"
            raise UsageError(f"{fault}; let them use another venv first", kind="runtime")
    for path in paths:
        remove(path)
        say(f"removed {path}")
    return 0
