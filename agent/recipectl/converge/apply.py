"""Carrying out a plan."""

import contextlib
import subprocess
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

from recipectl.converge.values import Action, Plan
from recipectl.errors import HostError, RecipectlError, on_host
from recipectl.files import failures_named, remove, write_whole
from recipectl.machine import helperfile
from recipectl.systemd.dbus import Manager
from recipectl.systemd.states import UnitState
from recipectl.systemd.store import Store
from recipectl.systemd.unitfile import TARGET, is_queue, is_tie, recipe_of_unit


def apply(
    plan: Plan, store: Store, manager: Manager, report: Callable[[Action], None] = lambda _: None
) -> None:
    """
    Stop what goes, write what changed, enable, reload once, then stop, restart and start models.

    Every step can be repeated: after an interruption, the next plan has the steps that remain. Models load
    and sockets listen after this returns. A failure of one unit stops no other, but nothing is started while
    one that goes could not be stopped; HostError has all of them at the end.
    """
    work = _Work(plan, store, manager, report)
    create_accounts(plan.of("create group"), plan.of("create user"))
    work.report_done("create group", "create user")
    for path in plan.of("write helper"):  # all units rest on it: without it, none is changed
        write_helper(Path(path))
    work.report_done("write helper")
    changes_units = bool(plan.of("write", "remove", "enable", "disable", "reload"))
    if changes_units:
        store.note_reload_due()
    work.remove()
    if plan.units:
        store.write(*plan.units)
        work.report_done("write")
    work.each("enable", lambda unit: manager.enable((unit, TARGET)))
    work.each("disable", lambda unit: manager.disable((unit,)))
    if changes_units:
        with work.noting("the units could not be reloaded"):
            manager.reload()
            store.note_reloaded()
        work.report_done("reload")
        work.stop_removed_units()
    work.each("stop", work.stop)
    if work.staying:
        again = manager.place.verb("apply")
        fault = f"{', '.join(work.staying)} may hold a port or GPUs yet, so nothing is started or restarted"
        work.failures.append(f"{fault}; run `{again}` again")
    else:
        work.each("restart", work.restart)
        work.each("start", lambda unit: manager.start_without_waiting("Start", unit))
    if not work.failures:  # after one, a unit that stays may still need its helper
        work.each("remove helper", lambda path: remove(Path(path)))
    if work.failures:
        raise HostError([on_host("unit", failure) for failure in work.failures])


class _Work:
    """The actions of a plan, and what went wrong so far."""

    def __init__(self, plan: Plan, store: Store, manager: Manager, report: Callable[[Action], None]) -> None:
        # A socket or timer goes before the unit that it starts. Otherwise a request starts that unit again.
        # A queue restarts before its model, which answers its last requests; `stop_together` orders anew.
        self.actions = sorted(
            plan.actions,
            key=lambda action: (not action.unit.endswith((".socket", ".timer")), not is_queue(action.unit)),
        )
        self.store = store
        self.manager = manager
        self.report = report
        self.failures: list[str] = []
        self.removed: list[str] = []  # units
        self.staying: list[str] = []  # the recipes of units that should go

    def each(self, verb: str, do: Callable[[str], str | None]) -> None:
        """Carry out the actions of a verb; `do` returns what went wrong."""
        for action in self.actions:
            if action.verb != verb:
                continue
            before = len(self.failures)
            with self.noting(action.unit):
                if failure := do(action.unit):
                    self.failures.append(failure)
            if len(self.failures) == before:
                self.report(action)

    def report_done(self, *verbs: str) -> None:
        """Report the actions of some verbs, which were carried out together."""
        for action in self.actions:
            if action.verb in verbs:
                self.report(action)

    @contextlib.contextmanager
    def noting(self, subject: str) -> Iterator[None]:
        """Note an error of one step, and let the next step run."""
        try:
            yield
        except RecipectlError as error:
            self.failures.append(f"{subject}: {error}")

    def stop(self, unit: str) -> str | None:
        return _failure(self.manager, unit, self.manager.job("Stop", unit), "could not be stopped")

    def restart(self, unit: str) -> str | None:
        if is_queue(unit):  # before the restart of its model, which answers its last requests
            result = self.manager.job("Restart", unit)
            # Another socket may have its port yet: `wait_for_sockets` tells.
            if unit.endswith(".socket"):
                return None
            return _failure(self.manager, unit, result, "could not be restarted")
        self.manager.start_without_waiting("Restart", unit)
        return None

    def remove(self) -> None:
        """Stop and remove units. If one of a model cannot be stopped, all that go of this model stay."""
        by_recipe: dict[str, list[Action]] = {}
        for action in self.actions:
            if action.verb == "remove":
                by_recipe.setdefault(recipe_of_unit(action.unit), []).append(action)
        for recipe, actions in by_recipe.items():
            before = len(self.failures)
            with self.noting(recipe):
                units = [action.unit for action in actions]
                self.failures += stop_together(self.manager, units, "could not be stopped, and stays")
            if len(self.failures) > before:
                self.staying.append(recipe)
                continue
            for action in actions:
                with self.noting(action.unit):
                    self._remove_file(action.unit)
                    self.report(action)

    def _remove_file(self, unit: str) -> None:
        self.manager.reset_failed(unit)
        try:
            self.manager.disable((unit,))
        except RecipectlError:  # systemd cannot read its [Install]
            self.store.remove_link(unit)
        self.store.remove(unit)
        self.removed.append(unit)

    def stop_removed_units(self) -> None:
        """Stop removed units that still run: a tie whose model stays, what was started before the reload."""
        states: Sequence[UnitState] = ()
        with self.noting("what was removed"):
            states = self.manager.states(self.removed, brief=True)
        for state in states:
            with self.noting(state.name):
                if not state.is_down and (failure := self.stop(state.name)):
                    self.failures.append(failure)
                self.manager.reset_failed(state.name)  # a tie may have failed while it ended


def stop_together(
    manager: Manager, units: Iterable[str], fault: str = "could not be stopped"
) -> tuple[str, ...]:
    """Stop units of one model; returns a sentence for each that stays.

    All jobs are queued before the first is waited for, the model's before that of its queue: a model that
    started again by itself in between would bring its queue back. systemd stops them in its own order: the
    engine answers what runs. A tie stops with its model alone.
    """
    ordered = sorted((unit for unit in units if not is_tie(unit)), key=is_queue)
    jobs = {unit: manager.queue("Stop", unit) for unit in ordered}
    results = {unit: manager.result(job) for unit, job in jobs.items()}
    failures = (_failure(manager, unit, result, fault) for unit, result in results.items())
    return tuple(failure for failure in failures if failure)


def wait_for_sockets(plan: Plan, manager: Manager) -> None:
    """Wait until clients can connect to what a plan has started; HostError with what cannot listen.

    A port may be free only when the others, and the gateway, have moved to theirs.
    """
    waiting = [unit for unit in plan.of("restart", "start") if unit.endswith(".socket")]
    waiting = [unit for unit in waiting if manager.job("Start", unit) != "done"]
    results = ((unit, manager.job("Start", unit)) for unit in waiting)
    failures = filter(None, (_failure(manager, unit, result, "cannot listen") for unit, result in results))
    if problems := [on_host("unit", f"{failure}; another process may hold its port") for failure in failures]:
        raise HostError(problems)


def _failure(manager: Manager, unit: str, result: str, fault: str) -> str | None:
    """A sentence about a job that did not end well; a job that had nothing to do was skipped."""
    if result in ("done", "skipped"):
        return None
    status = manager.place.systemctl(f"status {unit}")
    return f"{unit} {fault} (its job was {result}); see `{status}`"


def create_accounts(groups: Sequence[str], users: Sequence[str]) -> None:
    """Create system groups and users with systemd-sysusers(8), which leaves existing ones unchanged."""
    lines = [f"g {name} -" for name in groups]
    lines += [f'u {name} - "LLM inference" /var/lib/models' for name in users]
    if not lines:
        return
    words = ["systemd-sysusers", "-"]
    try:
        done = subprocess.run(words, input="\n".join(lines), capture_output=True, text=True, check=False)  # noqa: S603
        status = f"systemd-sysusers ended with status {done.returncode}"
        reason = (done.stderr.strip() or status) if done.returncode else ""
    except OSError as error:
        reason = f"systemd-sysusers cannot be run ({error.strerror})"
    if reason:
        names = ", ".join((*groups, *users))
        raise RecipectlError(f"the accounts {names} could not be created: {reason}; create them yourself")


def write_helper(path: Path) -> None:
    """Write the helper of this release, whole or not at all, so that it lasts."""
    with failures_named("written", path):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.parent.chmod(0o755)  # the users of units run it, whatever root's umask is
    write_whole({path: helperfile.archive()}, durable=True)
