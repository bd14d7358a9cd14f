"""The way back of an upgrade: what was changed is put back, and the old engine serves. It can be repeated."""

import time

from recipectl.converge import holds
from recipectl.converge.records import Before, Record
from recipectl.systemd.started import started_digest
from recipectl.upgrades import edits, steps
from recipectl.upgrades.progress import Progress

_ATTEMPTS = 3  # to start the old engine: somebody may cancel a job


def go_back(upgrade: Progress, failure: str) -> Record:
    """Put back what was changed; the record at its end says what failed.

    Raises RecipectlError where the host does not let it: the record then says that it is not over.
    """
    record = upgrade.record
    failure = record.failure or failure
    upgrade.note("back", failure=failure)
    upgrade.tell(f"failed: {failure}")
    if record.before:
        with upgrade.store.lock(upgrade.tell_of_wait):
            _undo_edits(upgrade, record.before)
            steps.restore_units(upgrade.store, upgrade.manager, record.model, record.before)
        upgrade.verbs.refresh_gateway(upgrade.manager)
        failure += _serve_again(upgrade, record.before)
        since = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(record.switched_sec))
        log = f"journalctl -u {upgrade.names.service} --since '{since}'"
        failure += f"; the log of the new engine: {log}"
    held = holds.digest(upgrade.place, record.model) if record.kind == "recipe" else record.held
    upgrade.note("failed", failure=failure, held=held)
    return upgrade.record


def _undo_edits(upgrade: Progress, before: Before) -> None:
    for edit in reversed(upgrade.record.edits):
        if upgrade.is_rollback:
            edits.perform(edit)
        elif sentence := edits.undo(edit):
            upgrade.say(sentence)
    steps.restore_files(before)


def _serve_again(upgrade: Progress, before: Before) -> str:
    """Let the old engine serve as it did before; a clause where it does not."""
    service, manager = upgrade.names.service, upgrade.manager
    if service not in before.up:
        manager.job("Stop", service)
        return ""
    if _serves_already(upgrade):
        return ""
    result = ""
    for _ in range(_ATTEMPTS):
        result = manager.result(upgrade.verbs.start(manager, "Restart", service))
        if result == "done" and upgrade.is_active():
            upgrade.say(f"{service} serves again, with {upgrade.record.began_with}")
            return ""
    return f"; and the old engine does not serve: {upgrade.verbs.reason(manager, service, result)}"


def _serves_already(upgrade: Progress) -> bool:
    """True if the old engine was never stopped."""
    service, place = upgrade.names.service, upgrade.place
    unit = upgrade.store.read(service)
    digest = started_digest(service, place.runtime_folder, user=place.user)
    return bool(
        unit and digest == unit.digest and upgrade.is_active() and not upgrade.manager.has_job(service)
    )
