"""upgrade --dry-run: the steps of an upgrade, with what can be told before any of them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from recipectl.cli.options import select
from recipectl.cli.venv import venv_folder
from recipectl.compiler.companions import canaries
from recipectl.engines import compare
from recipectl.engines.ask import options_of
from recipectl.machine.disk import Disk
from recipectl.systemd.store import Store
from recipectl.systemd.unitfile import UnitNames
from recipectl.upgrades import edits, prepare, steps, target
from recipectl.venvs.request import like_another

if TYPE_CHECKING:
    from recipectl.converge.records import Record
    from recipectl.machine.runtime import Runtime
    from recipectl.place import Place
    from recipectl.upgrades.steps import Compiled


def preview(place: Place, record: Record) -> int:
    """Print the steps; RecipectlError with what would fail already."""
    source = steps.source_of(place, record.model)
    before = steps.compiled(place, source)
    compiled, old = before, before.resolved.runtime
    if record.kind == "recipe":
        unit = Store(place.unit_folder).read(UnitNames(record.model).service)
        old = prepare.runtime_of(unit) if unit else old
        click.echo(f"would take {source.file} as it is now")
    else:
        target.require_named_runtime(before.resolved.recipe)
        new = _runtime(place, record, before)
        if new is None:
            return 0
        values = target.values(before.resolved.recipe, old, new, Disk())
        changes, why_drop_in = edits.planned(place, source, values)
        for edit in changes:
            what = f"`{'.'.join(edit.key)}` {edit.old} → {edit.new}" if edit.old else "a new drop-in"
            click.echo(f"would write {edit.file}: {what}")
        if why_drop_in:
            click.echo(f"a drop-in, because the file of `{record.model}` {why_drop_in}")
        made = [Path(edit.file) for edit in changes if edit.old is None]
        compiled = steps.compiled(place, source, edits.overlay(source, changes), made)
    status = _print_comparison(place, compiled, old)
    count = len(canaries(compiled.resolved.recipe, compiled.settings))
    click.echo(f"would restart {UnitNames(record.model).service}, and ask whether it serves its model")
    click.echo(f"would ask {count} canaries")
    return status


def _runtime(place: Place, record: Record, before: Compiled) -> Path | None:
    """The new runtime; None where it must be made first."""
    if "/" in record.to:
        return Path(record.to)
    old = before.resolved.runtime
    request = like_another(record.to, Path(old.venv) if old.venv else None)
    folder = venv_folder(place) / f"{request.distribution}-{request.pinned_version}"
    if request.pinned_version and target.existing(
        folder, request.pinned_version, before.resolved.recipe.backend, Disk()
    ):
        return folder
    click.echo(f"would make {folder if request.pinned_version else f'a venv of {record.to}'}")
    click.echo("the other steps can be shown once it is there")
    return None


def _print_comparison(place: Place, compiled: Compiled, old: Runtime) -> int:
    """What the parsers of both engines say, as `check` asks them; 2 when the new one refuses a word."""
    resolved = compiled.resolved
    selection = select(place, ())
    user = next((model.user for model in selection.models if model.name == resolved.name), None) or "root"
    cache = place.cache_folder / "options"
    backend = resolved.recipe.backend
    answers = [options_of(backend, runtime, user, cache) for runtime in (old, resolved.runtime)]
    lines, fits = compare.report(backend, resolved.words, resolved.recipe.extra_args, *answers)
    for line in lines:
        click.echo(f"  {line}")
    if fits is None:
        return 0
    verb = "takes" if fits else "does not take"
    click.echo(f"{target.in_words(resolved.recipe, resolved.runtime)} {verb} the flags of the recipe")
    return 0 if fits else 2
