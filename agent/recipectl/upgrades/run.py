"""One upgrade: each step is on disk before it begins, and whatever fails, the old runtime serves again."""

import time
from dataclasses import replace

from recipectl.compiler.cache import compile_place
from recipectl.compiler.companions import canaries
from recipectl.converge import holds
from recipectl.converge.records import Before, Record
from recipectl.converge.values import RUNNING
from recipectl.errors import JobError, RecipectlError, UsageError
from recipectl.recipe.positions import KeyPath
from recipectl.recipe.search import Source
from recipectl.systemd.unitfile import UnitNames
from recipectl.upgrades import edits, questions, steps
from recipectl.upgrades.back import go_back
from recipectl.upgrades.prepare import prepare
from recipectl.upgrades.progress import Progress
from recipectl.upgrades.steps import CompiledRecipe


def run_upgrade(upgrade: Progress) -> Record:
    """All steps in their order, or the way back; returns the record at its end."""
    try:
        compiled, source = prepare(upgrade)
        _switch(upgrade, compiled, source)
        _start(upgrade)
        _ask(upgrade, compiled)
    except RecipectlError as error:
        return go_back(upgrade, " ".join(str(error).split()))
    return _finish(upgrade, source, starts_by_itself=bool(compiled and compiled.resolved.recipe.autostart))


def _switch(upgrade: Progress, compiled: CompiledRecipe | None, source: Source) -> None:
    """Write the recipe, its lock and its units; the jobs are waited for later."""
    with upgrade.store.lock(upgrade.tell_of_wait):
        before = steps.snapshot(upgrade.place, upgrade.manager, source)
        _refuse_to_stop_others(upgrade, before)
        changes = upgrade.last.edits if upgrade.is_rollback else upgrade.record.edits
        upgrade.note("switch", before=before, edits=changes)
        if upgrade.is_rollback:
            _undo_last(upgrade)
        else:
            _write_edits(upgrade, source)
            if compiled and upgrade.record.kind == "runtime":
                steps.renew_lock(compiled.resolved, source)
            upgrade.verbs.apply(upgrade.place, upgrade.record.model, upgrade.store, upgrade.manager)


def _refuse_to_stop_others(upgrade: Progress, before: Before) -> None:
    """UsageError where the start of the new engine would stop another model."""
    service = upgrade.names.service
    models = (model for model in compile_place(upgrade.place).models if model.name == upgrade.record.model)
    rivals = {UnitNames(name).service for model in models for name in model.rivals}
    if service in before.units:
        rivals |= {*upgrade.manager.rivals(service)}
    states = upgrade.manager.states(sorted(rivals), brief=True)
    running = [state.name for state in states if state.active_state in RUNNING]
    if running:
        fault = f"the start of {service} would stop {running[0]}"
        raise UsageError(f"{fault}; stop that first", kind="relation")


def _write_edits(upgrade: Progress, source: Source) -> None:
    for edit in upgrade.record.edits:
        try:
            edits.perform(edit)
        except edits.ChangedError:
            raise
        except RecipectlError as error:
            if edit.old is None or edit != upgrade.record.edits[0]:
                raise
            _write_drop_in(upgrade, source, str(error))
            return
        upgrade.say(edits.in_words(edit))


def _write_drop_in(upgrade: Progress, source: Source, reason: str) -> None:
    """The same values in a drop-in: the file could not be written."""
    values: dict[KeyPath, str] = {edit.key: edits.value_of(edit.new or "") for edit in upgrade.record.edits}
    edit = edits.in_drop_in(upgrade.place, source, values, "could not be written")
    upgrade.note("switch", edits=(edit,))
    edits.perform(edit)
    upgrade.say(f"{edit.file} is written instead: {reason}")


def _undo_last(upgrade: Progress) -> None:
    """Take the last upgrade back: its edits, or where it had none, the units themselves."""
    entry, service = upgrade.last, upgrade.names.service
    if not entry.edits:
        if steps.snapshot_units(upgrade.place, upgrade.record.model) != entry.after.units:
            fault = f"the units of `{upgrade.record.model}` are not those that its last upgrade has left"
            again = upgrade.place.verb(f"upgrade {upgrade.record.model}")
            raise UsageError(f"{fault}; edit the recipe instead, and run `{again}`", kind="unit")
        steps.restore_units(upgrade.place, upgrade.manager, upgrade.record.model, entry.before)
        upgrade.verbs.refresh_gateway(upgrade.place, upgrade.manager)
        if upgrade.record.before and service in upgrade.record.before.up:
            upgrade.manager.start_without_waiting("Restart", service)
        return
    for edit in reversed(entry.edits):
        if sentence := edits.undo(edit):
            raise UsageError(sentence, kind="file")
        upgrade.say(edits.in_words(edits.reversed_edit(edit)))
    for sentence in steps.restore_files(entry.before.files, unless=entry.after.files):
        upgrade.say(sentence)
    upgrade.verbs.apply(upgrade.place, upgrade.record.model, upgrade.store, upgrade.manager)


def _start(upgrade: Progress) -> None:
    """Wait for the start of the new engine."""
    service, since_sec = upgrade.names.service, time.time()
    upgrade.note("start", switched_sec=since_sec)
    job = upgrade.manager.jobs.pop(service, None)
    if job is None and upgrade.is_active() and not upgrade.manager.state(service, brief=True).job:
        return  # its unit means the same: nothing was stopped, or is about to be
    job = job or upgrade.verbs.start(upgrade.place, upgrade.manager, "Start", service)
    result = upgrade.manager.result(job)
    if result != "done" or not upgrade.is_active():
        raise JobError(upgrade.verbs.reason(upgrade.place, upgrade.manager, service, result))
    upgrade.say(f"{service} is ready after {time.time() - since_sec:.1f} s")


def _ask(upgrade: Progress, compiled: CompiledRecipe | None) -> None:
    """Ask whether it is the right model, and its canaries; of a rollback only whether it stays up."""
    upgrade.note("canaries")
    service, manager = upgrade.names.service, upgrade.manager
    pid = manager.state(service).main_pid
    if compiled and not upgrade.is_rollback:
        answer = questions.ask_canaries(upgrade.place, manager, compiled)
        _refuse_an_end(upgrade, pid)
        if not answer.well:
            raise JobError(f"{answer.fault}; see {upgrade.log_of(upgrade.names.canaries)}")
        count = len(canaries(compiled.resolved.recipe, compiled.settings))
        passes = f", and passes its canaries ({count})" if count else ""
        upgrade.say(f"the engine serves the model of the recipe{passes}")
    _refuse_an_end(upgrade, pid)


def _refuse_an_end(upgrade: Progress, pid: int) -> None:
    """JobError when the engine has ended since it was ready, or another process is in its place."""
    service = upgrade.names.service
    if upgrade.manager.state(service).main_pid != pid or not upgrade.is_active():
        raise JobError(f"{service} ended, or was stopped, while it was asked")


def _finish(upgrade: Progress, source: Source, *, starts_by_itself: bool) -> Record:
    service, before = upgrade.names.service, upgrade.record.before
    if before:
        model = upgrade.record.model
        if clause := steps.start_dependents(upgrade.manager, model, before, upgrade.say):
            upgrade.say(clause)
    if before and service not in before.up and not starts_by_itself:
        upgrade.manager.job("Stop", service)  # it did not run before, and no apply would start it
    record = upgrade.record
    if upgrade.is_rollback:
        # Where only units were put back, the recipe still says what was rolled back.
        held = None if upgrade.last.edits else holds.digest(upgrade.place, record.model)
        upgrade.record = replace(record, held=held, history=record.history[:-1])
    else:
        after = steps.snapshot(upgrade.place, upgrade.manager, source)
        upgrade.record = replace(record.passed(after), held=None)
    upgrade.note("done")
    return upgrade.record
