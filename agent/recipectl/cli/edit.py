"""edit: a recipe in the editor, checked before it takes its place."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from recipectl.cli.names import check_name, complete_recipe, recipe_file, recipe_names
from recipectl.cli.options import choose, report_problems
from recipectl.cli.terminal import say
from recipectl.converge.copies import about, hidden_copy
from recipectl.converge.differences import unified_diff
from recipectl.errors import RecipectlError, UsageError
from recipectl.files import failures_named, refuse_planted_links, write_whole
from recipectl.recipe import search

if TYPE_CHECKING:
    from recipectl.place import Place

_EDITOR_VARIABLES = ("SYSTEMD_EDITOR", "EDITOR", "VISUAL")  # in systemctl's order
_BEGINNING = b"""# recipe(5) has all keys; examples are in /usr/share/doc/recipectl/examples.
# python_path: /opt/venvs/vllm-0.33.0/bin/python
# model_path: /models/Qwen3-8B
# port: 8001
"""
_EDITORS = ("editor", "nano", "vim", "vi")


@click.command("edit")
@click.argument("recipe", metavar="RECIPE", shell_complete=complete_recipe)
@click.option("--force", is_flag=True, help="Begin a recipe that does not exist yet.")
@click.pass_context
def edit_(ctx: click.Context, recipe: str, force: bool) -> int:
    """Edit a recipe in $EDITOR, check it, show what changes, and offer to apply it."""
    place: Place = ctx.obj
    new = force and not search.is_file(recipe) and recipe not in recipe_names(place)
    if new:
        check_name(recipe)
    file = place.recipe_folders[0] / f"{recipe}.yaml" if new else recipe_file(recipe, place)
    target = _target(file, place)
    refuse_planted_links(target.parent)
    with failures_named("read", file):
        before = _BEGINNING if new else file.read_bytes()
    copy = hidden_copy(target, before)
    try:
        after = _edited(place, copy, before, target)
    except click.Abort:  # Ctrl-C at the question
        say(f"{target} is as it was, and what you wrote is in {copy}", err=True)
        raise
    except RecipectlError as error:
        if copy.is_file() and copy.read_bytes() != before:
            kept = f"{error}; {target} is as it was, and what you wrote is in {copy}"
            raise (UsageError(kept) if error.status == UsageError.status else RecipectlError(kept)) from error
        shutil.rmtree(copy.parent)
        raise
    if after == before:
        shutil.rmtree(copy.parent)
        say(f"{file} is unchanged", err=True)
        return 0
    mode = file.stat().st_mode & 0o777 if file.exists() else 0o644
    write_whole({target: after}, mode=mode, durable=True)
    shutil.rmtree(copy.parent)
    say(f"wrote {target}")
    return _offer(ctx, search.stem(target))


def _target(file: Path, place: Place) -> Path:
    """Where the edited recipe is written: a package's recipe is overridden in the first folder."""
    first = place.recipe_folders[0]
    vendor = file.parent in place.recipe_folders and file.parent != first
    target = first / file.name if vendor else file
    with failures_named("read", target):
        if target.is_symlink():
            target = target.resolve()
    if vendor:
        say(f"{file} stays as it is; the edited recipe is {target}, which overrides it", err=True)
    return target


def _edited(place: Place, copy: Path, before: bytes, target: Path) -> bytes:
    """What the editor left, once it is a recipe that compiles; UsageError names the copy otherwise."""
    while True:
        _run_editor(copy)
        with failures_named("read", copy):
            after = copy.read_bytes()
        if after == before or not _faults(place, copy, target):
            sys.stdout.write(unified_diff(str(target), _text(before), _text(after)))
            return after
        if not sys.stdin.isatty() or not click.confirm("edit it again?", default=True, err=True):
            raise UsageError("the recipe is wrong", kind="file")


def _text(content: bytes) -> str:
    return content.decode(errors="replace")


def _run_editor(copy: Path) -> None:
    named = next((os.environ[name] for name in _EDITOR_VARIABLES if os.environ.get(name)), None)
    if named is None and not (sys.stdin and sys.stdin.isatty()):
        raise UsageError("there is no terminal for an editor; name a program in EDITOR=, or write the file")
    try:
        words = shlex.split(named) if named else [next(filter(shutil.which, _EDITORS), "")]
    except ValueError as error:
        raise UsageError(f"the editor `{named}` cannot be split into words; correct EDITOR=") from error
    if not words or not words[0]:
        raise RecipectlError(f"there is no editor ({', '.join(_EDITORS)}); install one, or set EDITOR=")
    try:
        status = subprocess.run([*words, str(copy)], check=False).returncode  # noqa: S603  (the caller's own)
    except OSError as error:
        raise RecipectlError(f"{words[0]} cannot be run ({error.strerror}); correct EDITOR=") from error
    if status:
        raise RecipectlError(f"{words[0]} ended with status {status}")


def _faults(place: Place, copy: Path, target: Path) -> bool:
    """True if the copy does not compile; its problems are printed, with the name of the recipe's own file."""
    from recipectl.compiler.cache import compile_place

    selection = choose(compile_place(place, [copy]), (str(copy),), place)
    report_problems(about(target, copy, selection.problems))
    return selection.status != 0


def _offer(ctx: click.Context, name: str) -> int:
    """Show what an apply would do, and do it when a person agrees."""
    from recipectl.cli.converge import apply_, diff_

    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        say(f"apply it with `{ctx.obj.verb('apply')} {name}`", err=True)
        return 0
    status: int = ctx.invoke(diff_, recipes=(name,))
    if status == 3 and click.confirm(f"apply {name} now?", err=True):
        return int(ctx.invoke(apply_, recipes=(name,)))
    return 0 if status == 3 else status
