"""What an upgrade has other verbs do, the unit that runs it, and how its end is waited for."""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from recipectl.cli import gateway
from recipectl.cli.converge import report_wait
from recipectl.cli.decision import carry_out, decide
from recipectl.cli.failures import start_failure
from recipectl.cli.jobs import Load, existing
from recipectl.cli.log import said_by
from recipectl.cli.sockets import SocketError, queue_job, socket_state
from recipectl.cli.terminal import moving_line, say
from recipectl.cli.venv import ensure_venv, venv_folder
from recipectl.converge import holds, records
from recipectl.errors import HostError, JobError, RecipectlError, UsageError
from recipectl.files import failures_named, remove, write_whole
from recipectl.systemd import quoting
from recipectl.systemd.dbus import Manager
from recipectl.systemd.store import Store
from recipectl.systemd.unitfile import Unit, UnitNames

if TYPE_CHECKING:
    from recipectl.compiler.model import ResolvedRecipe
    from recipectl.converge.records import Record
    from recipectl.place import Place
    from recipectl.venvs.request import Request

_TEMPLATE = "recipectl-upgrade@.service"
# What uv reads of a shell: indexes, proxies and certificates.
_OF_THE_SHELL = re.compile(r"UV_\w+|(https?|no|all)_proxy|SSL_CERT_(FILE|DIR)|NETRC", re.I)
_DOING = {
    "runtime": "making its runtime",
    "flags": "asking the parsers of both engines",
    "switch": "writing its recipe and units",
    "canaries": "asking its canaries",
}
_AFTER_FLAGS = ("switch", "start", "canaries", "done")
_POLL_SEC = 0.1
_FAILED = 3  # and the old runtime is back: the unit has RestartPreventExitStatus= for it
_NOT_BACK_YET = 4  # systemd runs the unit again
_ENDED_POLLS = 20  # so often in a row, a unit that ended has left a record that is not over


def _make_runtime(place: Place, to: str, resolved: ResolvedRecipe) -> Path:
    """The runtime at a path, or the venv of a requirement, made like that of the recipe."""
    return known_runtime(place, to, resolved) or ensure_venv(place, _request(to, resolved))


def _apply(place: Place, model: str, store: Store, manager: Manager) -> None:
    """Apply one recipe; HostError with what went wrong."""
    held = {name: why for name, why in holds.held(place).items() if name != model}
    decision = decide(place, (model,), manager, held=held, alone=True)
    failure = carry_out(decision, store, manager, as_json=False) if decision.status == 0 else None
    errors = [problem for problem in decision.problems if problem.is_error]
    if failure or decision.status:
        raise failure or HostError(errors)


def _start(place: Place, manager: Manager, verb: str, service: str) -> bytes:
    """Queue the job of a model. That its queue cannot listen is said, and it starts."""
    state = existing(manager, service, place)
    try:
        return queue_job(place, manager, verb, state, with_socket=False)
    except SocketError as error:
        is_on_demand = socket_state(manager, service).load_state == "loaded"
        if is_on_demand:  # systemd would stop it as unneeded
            raise
        say(str(error), err=True)
        return manager.queue(verb, service)


def _reason(place: Place, manager: Manager, service: str, result: str) -> str:
    return f"{service} did not start: {start_failure(place, manager.state(service), result)}"


def known_runtime(place: Place, to: str, resolved: ResolvedRecipe) -> Path | None:
    """The runtime at a path; or the venv of a requirement, where that is there already, whoever has made it.

    UsageError for what is no requirement, and for that of another engine.
    """
    from recipectl.machine.disk import Disk
    from recipectl.upgrades import target

    if "/" in to:
        return Path(to)
    request, backend = _request(to, resolved), resolved.recipe.backend
    target.refuse_another_engine(request.distribution, backend)
    version = request.pinned_version
    folder = venv_folder(place) / f"{request.distribution}-{version}"
    is_there = version is not None and target.is_runtime(folder, version, backend, Disk())
    return folder if is_there else None


def _request(requirement: str, resolved: ResolvedRecipe) -> Request:
    """What a requirement asks for, like the venv that a recipe has."""
    from recipectl.venvs.request import like_another

    venv = resolved.runtime.venv
    return like_another(requirement, Path(venv) if venv else None)


def unit_of(model: str) -> str:
    """The unit that runs the upgrade of a model."""
    return f"recipectl-upgrade@{model}.service"


def begin(place: Place, record: Record) -> None:
    """Write the record and the unit, and start it; UsageError while another upgrade of the model runs."""
    os.umask(0o022)  # whoever lists models reads the record
    store, unit = Store(place.unit_folder), unit_of(record.model)
    with store.lock(report_wait), Manager(place) as manager:
        current = records.read(place, record.model)
        if current and not current.is_over:
            raise UsageError(f"another upgrade of `{record.model}` has begun just now", kind="unit")
        if current:
            record = replace(record, history=current.history, held=current.held)
        # The unit of an earlier upgrade may still end: it would take this record for its own.
        manager.job("Stop", unit)
        records.write(place, record)
        try:
            _write_environment(_environment(place, record.model))
            text = _unit_text(place)
            installed = store.read(_TEMPLATE)
            if installed is None or installed.text != text:
                store.write(Unit(_TEMPLATE, text))
                manager.reload()
            manager.enable((unit,))
            manager.start_without_waiting("Start", unit)
        except RecipectlError as error:  # nothing was changed yet
            remove(_environment(place, record.model))
            records.write(place, replace(record, step="failed", failure=str(error)))
            raise


def _unit_text(place: Place) -> str:
    """The text of the unit that runs upgrades."""
    from recipectl.compiler.unit_text import rendered

    user = ("--user",) if place.user else ()
    program = " ".join(map(quoting.word, (sys.executable, "-I", "-m", "recipectl", *user, "upgrade")))
    return rendered(
        f"{_TEMPLATE}.j2",
        program=program,
        state=quoting.word(str(records.folder(place))),
        runtime=place.runtime_folder,
        wanted_by="default.target" if place.user else "multi-user.target",
    )


def _write_environment(file: Path) -> None:
    """What uv reads of the caller's shell, for EnvironmentFile= (systemd.exec(5)): it has no specifiers."""
    with failures_named("written", file.parent):
        file.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    values = {name: value for name, value in os.environ.items() if _OF_THE_SHELL.fullmatch(name)}
    escaped = {name: re.sub(r'(["\\`$])', r"\\\1", value) for name, value in values.items()}
    lines = (f'{name}="{value}"\n' for name, value in escaped.items() if "\n" not in value)
    write_whole({file: "".join(lines)}, mode=0o600)


def _environment(place: Place, model: str) -> Path:
    return Path(place.runtime_folder, f"recipectl/upgrade-{model}.env")


def run_as_unit(place: Place, model: str, *, back: bool) -> int:
    """The program of the unit: all steps, or the way back of what was interrupted."""
    from recipectl.upgrades.back import go_back
    from recipectl.upgrades.progress import Progress
    from recipectl.upgrades.run import run_upgrade
    from recipectl.upgrades.steps import JobKeeper, Verbs

    record = records.read(place, model)
    if record is None:
        return 0
    os.umask(0o022)
    verbs = Verbs(
        make_runtime=_make_runtime,
        apply=_apply,
        refresh_gateway=gateway.refresh,
        start=_start,
        reason=_reason,
    )
    with JobKeeper(place) as manager:
        upgrade = Progress(place=place, record=record, manager=manager, verbs=verbs, tell=click.echo)
        # A reboot has taken the file: what was asked for before it is not begun after it.
        is_first = manager.state(unit_of(model)).restarts == 0
        is_new = record.step == "requested" and is_first and _environment(place, model).exists()
        try:
            if record.is_over:  # a kill came just before the end
                pass
            elif back or not is_new:
                record = go_back(upgrade, f"it was interrupted at the step `{record.step}`")
            else:
                record = run_upgrade(upgrade)
        except RecipectlError as error:
            click.echo(str(error), err=True)
            return _NOT_BACK_YET
        manager.disable((unit_of(model),))
    remove(_environment(place, model))
    return 0 if record.step == "done" else _FAILED


def follow(place: Place, model: str) -> int:
    """Print the lines of an upgrade until its end; JobError says what failed."""
    shown, ended, compared = 0, 0, False
    record = records.read(place, model)
    with Manager(place) as manager, moving_line(lambda: _doing(place, model)):
        while record and not record.is_over and ended < _ENDED_POLLS:
            time.sleep(_POLL_SEC)
            record = records.read(place, model)
            for sentence in record.said[shown:] if record else ():
                say(sentence)
            shown = len(record.said) if record else 0
            if record and not compared and record.step in _AFTER_FLAGS:
                compared = True
                _print_log(place, record, UnitNames(model).check)
            gone = manager.state(unit_of(model)).is_down
            ended = ended + 1 if gone else 0
    if record and not record.is_over:  # somebody cancelled the start of its unit, or has masked it
        run_as_unit(place, model, back=True)
        record = records.read(place, model)
    if record is None or not record.is_over:
        fault = f"the upgrade of `{model}` has ended, and has not gone back"
        log = shlex.join((*place.journalctl, unit_of(model)))
        raise JobError(f"{fault}; see `{log}`, and start that unit again")
    verb = "rolled back" if record.kind == "rollback" else "upgraded"
    if record.step == "done":
        say(f"{model} is {verb}: {record.ended_with}")
        return 0
    asked = {"flags": UnitNames(model).check, "canaries": UnitNames(model).canaries}
    if record.failed_at in asked:
        _print_log(place, record, asked[record.failed_at])
    raise JobError(f"{model} was not {verb}: {record.failure}")


def _print_log(place: Place, record: Record, unit: str) -> None:
    """What a unit that asks an engine has printed."""
    for sentence in said_by(place, unit, record.began_sec):
        click.echo(f"  {sentence}", err=True)


def _doing(place: Place, model: str) -> str:
    """What an upgrade does now, for the moving line."""
    with contextlib.suppress(RecipectlError):
        record = records.read(place, model)
        if record and record.step in ("start", "back"):
            back = "going back: " if record.step == "back" else ""
            return back + Load(place, UnitNames(model).service, record.switched_sec or None).text()
        return f"{model}: {_DOING.get(record.step, record.step)}" if record else model
    return model


def last_record(place: Place, model: str) -> Record | None:
    """The record of the last upgrade of a model; one that was interrupted goes back first.

    UsageError while an upgrade is under way.
    """
    record = records.read(place, model)
    if record is None or record.is_over:
        return record
    with Manager(place) as manager:
        is_running = not manager.state(unit_of(model)).is_down
    if is_running:
        fault = f"an upgrade of `{model}` is under way, at the step `{record.step}`"
        stop = place.systemctl(f"stop {unit_of(model)}")
        remedy = f"wait for its end, or end it with `{stop}`, which goes back"
        raise UsageError(f"{fault}; {remedy}", kind="unit")
    say(f"an earlier upgrade of `{model}` was interrupted, and goes back first", err=True)
    if run_as_unit(place, model, back=True) == _NOT_BACK_YET:
        raise JobError(
            f"the earlier upgrade of `{model}` could not go back; correct what it says, and try again"
        )
    return records.read(place, model)
