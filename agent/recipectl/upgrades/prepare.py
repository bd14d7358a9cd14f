"""Before anything is changed: the new runtime is there, the recipe compiles with it, its flags fit."""

import os
from pathlib import Path
from typing import NamedTuple

from recipectl.converge.records import Edit
from recipectl.engines import compare
from recipectl.errors import UsageError
from recipectl.machine.disk import Disk
from recipectl.machine.distributions import lock_of
from recipectl.machine.lockfile import own_venv_lock
from recipectl.machine.runtime import Runtime
from recipectl.place import Place
from recipectl.recipe.search import Source
from recipectl.systemd.unitfile import InstalledUnit
from recipectl.upgrades import edits, questions, steps, target
from recipectl.upgrades.progress import Progress
from recipectl.upgrades.steps import CompiledRecipe


def prepare(upgrade: Progress) -> tuple[CompiledRecipe | None, Source]:
    """The recipe as it will be (None: only units are put back), and its files; the record has its edits.

    RecipectlError if it cannot be.
    """
    upgrade.note("runtime")
    source = steps.source_of(upgrade.place, upgrade.record.model)
    if upgrade.is_rollback:
        last = upgrade.last
        upgrade.note("flags", began_with=last.ended_with, ended_with=last.began_with)
        return _without_last(upgrade, source) if last.edits else None, source
    changes: tuple[Edit, ...] = ()
    old: Runtime | None
    if upgrade.record.kind == "recipe":
        unit = upgrade.store.read(upgrade.names.service)
        compiled, old = steps.compiled(upgrade.place, source), runtime_of(unit) if unit else None
        target.require_one_host(compiled.resolved.recipe)
    else:
        before = steps.compiled(upgrade.place, source)
        old = before.resolved.runtime
        compiled, changes = _with_new_runtime(upgrade, before, source)
    recipe, runtime = compiled.resolved.recipe, compiled.resolved.runtime
    began_with = "no unit" if old is None else target.in_words(recipe, old)
    upgrade.note("flags", edits=changes, began_with=began_with, ended_with=target.in_words(recipe, runtime))
    _compare(upgrade, compiled, runtime if old is None else old)
    return compiled, source


def _with_new_runtime(
    upgrade: Progress, before: CompiledRecipe, source: Source
) -> tuple[CompiledRecipe, tuple[Edit, ...]]:
    """The recipe with another runtime, and the edits for it."""
    recipe, runtime = before.resolved.recipe, before.resolved.runtime
    target.require_named_runtime(recipe)
    venv = Path(runtime.venv) if runtime.venv else None
    if venv and os.path.lexists(lock_of(venv)) and own_venv_lock(venv) is None:
        upgrade.say(f"{lock_of(venv)} is not used: `recipectl venv create` as root has not made it")
    new = upgrade.verbs.make_runtime(upgrade.place, upgrade.record.to, before.resolved)
    upgrade.say(f"{new} is there")
    candidate = with_runtime(upgrade.place, source, before, new)
    if candidate.why_drop_in:
        where = candidate.edits[0].file
        upgrade.say(f"the file of `{recipe.name}` {candidate.why_drop_in}: {where} is written instead")
    if candidate.compiled.resolved.runtime == runtime:
        raise UsageError(f"`{recipe.name}` would run {target.in_words(recipe, runtime)} as before")
    return candidate.compiled, candidate.edits


class WithRuntime(NamedTuple):
    """A recipe with another runtime, the edits that give it that, and why they are a drop-in, if they are."""

    compiled: CompiledRecipe
    edits: tuple[Edit, ...]
    why_drop_in: str


def with_runtime(place: Place, source: Source, before: CompiledRecipe, new: Path) -> WithRuntime:
    """A recipe as it would be with another runtime; RecipectlError where it cannot have it."""
    values = target.values(before.resolved.recipe, before.resolved.runtime, new, Disk())
    changes, why_drop_in = edits.planned(place, source, values)
    texts = edits.overlay(source, changes)
    return WithRuntime(steps.compiled(place, source, texts, edits.new_files(changes)), changes, why_drop_in)


def _without_last(upgrade: Progress, source: Source) -> CompiledRecipe:
    """The recipe without its last upgrade; the runtime of now may be gone."""
    done = upgrade.last.edits
    for edit in done:
        edits.require_unchanged(edit)
    new_files = edits.new_files(done)
    without = source._replace(drop_ins=tuple(path for path in source.drop_ins if path not in new_files))
    reversed_edits = [edits.reversed_edit(edit) for edit in done if edit.key]
    return steps.compiled(upgrade.place, without, edits.overlay(without, reversed_edits))


def _compare(upgrade: Progress, compiled: CompiledRecipe, old: Runtime) -> None:
    """Ask the parser of the new engine, without privilege."""
    unit = questions.compare_runtimes(compiled, old)
    answer = questions.run_for_now(upgrade.place, upgrade.manager, unit)
    if compare.fits(answer.status) is False:
        fault = f"{upgrade.record.ended_with} does not take the flags of the recipe"
        raise UsageError(f"{fault}; see {upgrade.log_of(unit.name)}")
    if not answer.well:  # a start tells more than a parser that cannot be asked
        upgrade.say(f"its flags could not be compared; see {upgrade.log_of(unit.name)}")
        return
    upgrade.say(f"{upgrade.record.ended_with} takes the flags of the recipe")


def runtime_of(unit: InstalledUnit) -> Runtime:
    """The runtime of an installed unit, as far as its program tells it."""
    program = Path(unit.program)
    if unit.backend == "llamacpp":
        version = unit.engine_version
        return Runtime("unit", (str(program),), engine_version=version, path=(str(program.parent),))
    python = program if program.name.startswith("python") else program.with_name("python")
    version, folder = Disk().engine_distribution(python, unit.backend or "vllm")
    return Runtime(
        "unit",
        (str(program),),
        interpreter=str(python),
        venv=str(python.parent.parent),
        engine_version=version,
        installed_in=str(folder) if folder else None,
        path=(str(python.parent), "/usr/bin", "/bin"),
    )
