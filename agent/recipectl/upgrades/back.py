"""The way back of an upgrade: what was changed is put back, and the old engine serves. It can be repeated."""

import time
from collections.abc import Callable

from recipectl.converge import holds
from recipectl.converge.records import Before, Record
from recipectl.errors import RecipectlError
from recipectl.systemd.started import started_digest
from recipectl.upgrades import edits, questions, steps
from recipectl.upgrades.progress import Progress

_ATTEMPTS = 3  # to start the old engine: somebody may cancel a job


def go_back(upgrade: Progress, failure: str) -> Record:
    """Put back what was changed; the record at its end says what failed.

    One part that fails stops no other. RecipectlError with all of them: the record is not over then.
    """
    record = upgrade.record
    failure = record.failure or failure
    faults: list[str] = []

    def attempt(part: Callable[[], None]) -> None:
        try:
            part()
        except RecipectlError as error:
            faults.append(str(error))

    upgrade.tell(f"failed: {failure}")
    attempt(lambda: upgrade.note("back", failure=failure, failed_at=record.failed_at or record.step))
    attempt(lambda: questions.end(upgrade.place, upgrade.manager, record.model))
    if before := record.before:
        with upgrade.store.lock(upgrade.tell_of_wait):
            attempt(lambda: _undo_edits(upgrade))
            attempt(lambda: _restore_files(before))
            attempt(lambda: steps.restore_units(upgrade.place, upgrade.manager, record.model, before))
        upgrade.verbs.refresh_gateway(upgrade.manager)
        failure += _serve_again(upgrade, before)
    if faults:
        raise RecipectlError("; ".join(faults))
    if record.switched_sec:
        since = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(record.switched_sec))
        failure += f"; the log of the new engine: {upgrade.log_of(upgrade.names.service)} --since '{since}'"
    held = holds.digest(upgrade.place, record.model) if record.kind == "recipe" else record.held
    upgrade.note("failed", failure=failure, held=held, said=(*record.said, *upgrade.kept))
    return upgrade.record


def _undo_edits(upgrade: Progress) -> None:
    for edit in reversed(upgrade.record.edits):
        if upgrade.is_rollback:
            upgrade.keep(edits.redo(edit) or edits.in_words(edit))
        else:
            upgrade.keep(edits.undo(edit) or edits.undone_in_words(edit))


def _restore_files(before: Before) -> None:
    steps.restore_files(before.files)


def _serve_again(upgrade: Progress, before: Before) -> str:
    """Let the old engine serve as it did before, and what requires it; a clause where it does not."""
    service, manager = upgrade.names.service, upgrade.manager
    if service not in before.up:
        manager.job("Stop", service)
        return ""
    if not _serves_already(upgrade):
        result = ""
        for _ in range(_ATTEMPTS):
            result = manager.result(upgrade.verbs.start(manager, "Restart", service))
            if result == "done" and upgrade.is_active():
                break
        else:
            return f"; and the old engine does not serve: {upgrade.verbs.reason(manager, service, result)}"
        upgrade.keep(f"{service} serves again, with {upgrade.record.began_with}")
    return _start_dependents(upgrade, before)


def _start_dependents(upgrade: Progress, before: Before) -> str:
    """Start the models that require this one, and were stopped with it; a clause where one does not start."""
    own = {*upgrade.names.every}
    states = upgrade.manager.states([unit for unit in before.up if unit not in own], brief=True)
    for state in states:
        if state.active_state in steps.RUNNING:
            continue
        if upgrade.manager.job("Start", state.name) != "done":
            return f"; and {state.name}, which requires it, does not start again"
        upgrade.keep(f"{state.name}, which requires it, is started again")
    return ""


def _serves_already(upgrade: Progress) -> bool:
    """True if the old engine was never stopped."""
    service, place = upgrade.names.service, upgrade.place
    unit = upgrade.store.read(service)
    digest = started_digest(service, place.runtime_folder, user=place.user)
    return bool(
        unit and digest == unit.digest and upgrade.is_active() and not upgrade.manager.has_job(service)
    )
