"""The way back of an upgrade: what was changed is put back, and the old engine serves. It can be repeated."""

import time
from collections.abc import Callable

from recipectl.converge import holds
from recipectl.converge.records import Before, Edit, Record
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
    edits_kept: list[Edit] = []

    def attempt(part: Callable[[], object]) -> None:
        try:
            part()
        except RecipectlError as error:
            faults.append(str(error))

    upgrade.tell(f"failed: {failure}")
    attempt(lambda: upgrade.note("back", failure=failure, failed_at=record.failed_at or record.step))
    attempt(lambda: questions.end(upgrade.place, upgrade.manager, record.model))
    if before := record.before:
        with upgrade.store.lock(upgrade.tell_of_wait):
            attempt(lambda: _undo_edits(upgrade, edits_kept))
            attempt(lambda: steps.restore_files(before.files))
            attempt(lambda: steps.restore_units(upgrade.place, upgrade.manager, record.model, before))
        upgrade.verbs.refresh_gateway(upgrade.place, upgrade.manager)
        clauses: list[str] = []
        attempt(lambda: clauses.append(_serve_again(upgrade, before)))
        failure += "".join(clauses)
    if faults:
        raise RecipectlError("; ".join(faults))
    if record.switched_sec:
        since = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(record.switched_sec))
        failure += f"; the log of the new engine: {upgrade.log_of(upgrade.names.service)} --since '{since}'"
    # What the recipe says now is not what serves: an apply must not take it for right.
    differs = record.kind == "recipe" or bool(edits_kept)
    held = holds.digest(upgrade.place, record.model) if differs else record.held
    upgrade.note("failed", failure=failure, held=held, said=(*record.said, *upgrade.kept))
    return upgrade.record


def _undo_edits(upgrade: Progress, kept: list[Edit]) -> None:
    """Take edits back; `kept` gets those that somebody has changed since."""
    for edit in reversed(upgrade.record.edits):
        change = edit if upgrade.is_rollback else edits.reversed_edit(edit)
        fault = edits.redo(change)
        upgrade.keep(fault or edits.in_words(change))
        if fault:
            kept.append(edit)


def _serve_again(upgrade: Progress, before: Before) -> str:
    """Let the old engine serve as it did before, and what requires it; a clause where it does not."""
    service, manager = upgrade.names.service, upgrade.manager
    if service not in before.up:
        manager.job("Stop", service)
        return ""
    if not _serves_already(upgrade):
        result = ""
        for _ in range(_ATTEMPTS):
            result = manager.result(upgrade.verbs.start(upgrade.place, manager, "Restart", service))
            if result == "done" and upgrade.is_active():
                break
        else:
            reason = upgrade.verbs.reason(upgrade.place, manager, service, result)
            return f"; and the old engine does not serve: {reason}"
        upgrade.keep(f"{service} serves again, with {upgrade.record.began_with}")
    clause = steps.start_dependents(manager, upgrade.record.model, before, upgrade.keep)
    return f"; and {clause}" if clause else ""


def _serves_already(upgrade: Progress) -> bool:
    """True if the old engine was never stopped."""
    service, place = upgrade.names.service, upgrade.place
    unit = upgrade.store.read(service)
    digest = started_digest(service, place.runtime_folder, user=place.user)
    return bool(
        unit
        and digest == unit.digest
        and upgrade.is_active()
        and not upgrade.manager.state(service, brief=True).job
    )
