"""upgrade --dry-run: the steps of an upgrade, with what can be told before any of them."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import click

from recipectl.cli.log import said_by
from recipectl.cli.upgrade_unit import known_runtime
from recipectl.compiler.companions import canaries
from recipectl.engines import compare
from recipectl.engines.ask import options_of
from recipectl.systemd.dbus import Manager
from recipectl.systemd.store import Store
from recipectl.systemd.unitfile import UnitNames
from recipectl.upgrades import prepare, questions, steps, target

if TYPE_CHECKING:
    from recipectl.converge.records import Record
    from recipectl.machine.runtime import Runtime
    from recipectl.place import Place
    from recipectl.upgrades.steps import CompiledRecipe


def preview(place: Place, record: Record) -> int:
    """Print the steps of an upgrade that has something to do; 2 when the new engine refuses a flag."""
    source = steps.source_of(place, record.model)
    compiled = steps.compiled(place, source)
    old = compiled.resolved.runtime
    service = UnitNames(record.model).service
    if record.kind == "recipe":
        unit = Store(place.unit_folder).read(service)
        old = prepare.runtime_of(unit) if unit else old
        click.echo(f"would take {source.file} as it is now")
    else:
        new = known_runtime(place, record.to, compiled.resolved)
        if new is None:
            click.echo(f"would make a venv of {record.to}; the other steps can be told once it is there")
            return 0
        candidate = prepare.with_runtime(place, source, compiled, new)
        compiled = candidate.compiled
        for edit in candidate.edits:
            what = f"`{'.'.join(edit.key)}` {edit.old} → {edit.new}" if edit.old else candidate.why_drop_in
            click.echo(f"would write {edit.file}: {what}")
    if not _takes_flags(place, compiled, old):
        return 2
    count = len(canaries(compiled.resolved.recipe, compiled.settings))
    click.echo(f"would restart {service}, ask whether it serves its model, and its canaries ({count})")
    return 0


def _takes_flags(place: Place, compiled: CompiledRecipe, old: Runtime) -> bool:
    """Print what both parsers say, asked without privilege; False when the new one refuses a flag."""
    resolved = compiled.resolved
    if os.geteuid() == 0 or place.user:
        unit = questions.compare_runtimes(compiled, old)
        with Manager(place) as manager:
            answer = questions.run_for_now(place, manager, unit)
        lines, fits = said_by(place, unit.name, answer.since_sec), compare.fits(answer.status)
    else:
        cache, backend = place.cache_folder / "options", resolved.recipe.backend
        before, after = (options_of(backend, runtime, "", cache) for runtime in (old, resolved.runtime))
        lines, fits = compare.report(backend, resolved.words, resolved.recipe.extra_args, before, after)
    for line in lines:
        click.echo(f"  {line}")
    if fits is not None:
        verb = "takes" if fits else "does not take"
        click.echo(f"{target.in_words(resolved.recipe, resolved.runtime)} {verb} the flags of the recipe")
    return fits is not False
