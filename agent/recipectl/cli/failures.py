"""Why a model is not ready, or did not start: how it ended, the end of its log, and what to do."""

from __future__ import annotations

import shlex
import signal
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from recipectl.cli.beside import missing_hosts
from recipectl.cli.log import log_lines
from recipectl.machine import sockets
from recipectl.systemd.states import FailedCheck
from recipectl.systemd.store import Store
from recipectl.systemd.unitfile import UnitNames, counted_per_start, recipe_of

if TYPE_CHECKING:
    from recipectl.place import Place
    from recipectl.systemd.states import UnitState
    from recipectl.systemd.unitfile import InstalledUnit

_LOG_LINES = 8
# Exit statuses of systemd itself (systemd.exec(5)), and what each of them usually means for a model.
_SYSTEMD_STATUSES = {
    200: ("CHDIR", "its folder in /var/lib/models cannot be entered"),
    203: ("EXEC", "{program} cannot be run: permission, SELinux label, noexec, or a missing interpreter?"),
    209: ("STDOUT", "its output cannot be opened"),
    216: ("GROUP", "one of its groups does not exist; apply its recipe"),
    217: ("USER", "its user does not exist; apply its recipe"),
    218: ("CAPABILITIES", "systemd could not drop privileges"),
    226: ("NAMESPACE", "a folder that its sandbox names does not exist"),
    228: ("SECCOMP", "systemd could not filter its system calls"),
    233: ("RUNTIME_DIRECTORY", "its folder in /run cannot be made"),
    238: ("STATE_DIRECTORY", "its folder in /var/lib/models cannot be made"),
    239: ("CACHE_DIRECTORY", "its folder in /var/cache/models cannot be made"),
    242: ("NUMA", "a NUMA node that `service:` names does not exist"),
    243: ("CREDENTIALS", "a file that `secrets:` names is missing"),
}
_EXITED, _KILLED, _DUMPED = 1, 2, 3  # ExecMainCode
_WRONG_ARGUMENTS = 2
_NO_CREDENTIALS = 243
_MODEL_CHECK = "AssertPathExists"
_RUNTIME_CHECKS = {"check-pins", "check-lock"}  # commands of the helper that refuse another runtime


class Reason(NamedTuple):
    """Why a model is not ready, its last log lines, and the command to go on with."""

    sentence: str
    log: tuple[str, ...]
    next_command: str


def _timed_out(state: UnitState) -> str:
    """Which limit was over: that of a load, or that of a stop."""
    started_sec, ended_sec = state.started_sec or 0, state.ended_sec or 0
    was_ready = (state.ready_sec or 0) >= started_sec
    # A stop has a time limit of its own: a load that was stopped early did not reach its limit.
    early = state.start_limit_sec is not None and ended_sec - started_sec < state.start_limit_sec
    if state.started_sec and (was_ready or early):  # else a check before its start took too long
        return "did not stop within TimeoutStopSec=, and was killed"
    return "did not become ready within `ready.timeout_sec` (TimeoutStartSec=)"


def _systemds_words(status: int, unit: InstalledUnit | None, program: str = "") -> str:
    name, hint = _SYSTEMD_STATUSES[status]
    if name == "CREDENTIALS" and (missing := _missing_secrets(unit)):
        hint = f"{', '.join(missing)} is missing"
    return f"{name}: {hint.format(program=program or (unit.program if unit else 'the engine'))}"


def _missing_secrets(unit: InstalledUnit | None) -> list[str]:
    """The files of secrets that are not there, for a caller that may look."""
    files = (file.replace("%%", "%") for file in (unit.secret_files if unit else ()))
    return [file for file in files if _is_missing(file)]


def how_it_ended(state: UnitState, unit: InstalledUnit | None = None) -> str:
    """How the main process ended, in words."""
    if state.result == "timeout":
        return _timed_out(state)
    if state.result == "oom-kill":
        return "was killed because memory ran out (OOM)"
    if state.result == "resources":
        missing = ", ".join(_missing_secrets(unit)) or "a file of EnvironmentFile="
        return f"was not started: {missing} is missing, which its unit reads"
    if state.exit_code in (_KILLED, _DUMPED):
        known = {number.value: number.name for number in signal.Signals}
        watch = UnitNames.of_service(state.name).watch
        by_watch = state.exit_status == signal.SIGKILL and unit and watch in unit.wants
        asks = f" (by its watch? see the log of {watch})" if by_watch else ""
        return f"was killed by {known.get(state.exit_status, f'signal {state.exit_status}')}{asks}"
    if state.exit_code == _EXITED and state.exit_status in _SYSTEMD_STATUSES:
        words = _systemds_words(state.exit_status, unit)
        return f"exited with status {state.exit_status} ({words})"
    if state.exit_code == _EXITED:
        hint = ": wrong arguments?" if state.exit_status == _WRONG_ARGUMENTS else ""
        return f"exited with status {state.exit_status}{hint}"
    failed = state.failed_command
    if state.exit_code == 0 and failed and failed.status in _SYSTEMD_STATUSES:
        words = _systemds_words(failed.status, unit, "the helper of its unit")
        return f"was not started: status {failed.status} ({words})"
    if state.exit_code == 0 and state.result == "exit-code":
        return "was not started, because a check before it failed"
    return f"ended with result {state.result}"


def _gave_up(state: UnitState, unit: InstalledUnit | None) -> str:
    """A clause about the start limit: before 254, only the count tells it."""
    names = UnitNames.of_service(state.name)
    most = state.start_limit_burst // counted_per_start(names, unit.wants if unit else ())
    reached = 0 < most <= state.restarts
    if state.result == "start-limit-hit" or (state.active_state == "failed" and reached):
        return f"; systemd has given up after {most or state.restarts} starts (start limit)"
    return ""


def reason_not_ready(place: Place, state: UnitState, unit: InstalledUnit | None) -> Reason | None:
    """Why a model is not ready; None when it is."""
    sentence = _sentence(state, unit)
    if sentence is None:
        return None
    if state.word == "loading" and (missing := missing_hosts(place, recipe_of(state.name))):
        sentence = f"it waits for {', '.join(missing)}"
    taken = _port_holder(unit, state.name) if state.active_state != "inactive" else None
    if taken:
        sentence += f"; {taken}"
    checked = state.is_down and _failed_check(state, unit)
    # Where a check, or systemd itself, has started nothing, the log is about an earlier run.
    nothing_ran = checked or state.result == "resources"
    failed = state.failed_command
    since_sec = state.started_sec if state.exit_code else failed.started_sec if failed else None
    log = () if nothing_ran else tuple(log_lines(place, state.name, _LOG_LINES, since_sec))
    return Reason(sentence, log, _next_command(place, state, unit, by_recipe=bool(checked or taken)))


def _sentence(state: UnitState, unit: InstalledUnit | None) -> str | None:
    if state.load_state not in ("loaded", "masked", "unloaded"):
        return f"systemd cannot load its unit ({state.load_state})"
    if state.load_state == "masked":
        return "its unit is masked"
    if state.word == "ready":
        return None
    if state.active_state == "active" and state.word == "restarting":
        return "it is being restarted, once the requests that run have ended"
    if state.is_down and (check := _failed_check(state, unit)):
        return f"{check} of its unit is not met"
    before = f" after {state.crashes} crash{'es' if state.crashes > 1 else ''}" if state.crashes else ""
    # systemd forgets how the last process ended when the next one begins.
    if before and (state.exit_code or state.result not in ("", "success")):
        before += f", the last time it {how_it_ended(state, unit)}"
    ended = f"the engine {how_it_ended(state, unit)}"
    words = {
        "loading": f"it is loading{before}",
        "restarting": f"{ended}; systemd starts it again (crash {state.crashes + 1})",
        "stopping": "it is being stopped",
        "failed": f"{ended}{_gave_up(state, unit)}",
        "stopped": _stopped(state, unit),
    }
    return words.get(state.word, f"its unit is {state.active_state}")


def _stopped(state: UnitState, unit: InstalledUnit | None) -> str:
    """systemd forgets an on-demand model that nobody needs: nothing tells whether it has run."""
    if unit and unit.setting("StopWhenUnneeded"):
        return "it is on demand, and no request needs it now"
    # systemd forgets a unit that nothing refers to, and with it the time of its last stop.
    return "it was stopped" if state.ended_sec else "it was stopped, or not started since the boot"


def _failed_check(state: UnitState, unit: InstalledUnit | None) -> FailedCheck | None:
    """The check that kept a unit from its start. systemd forgets it with a unit that nobody uses."""
    if state.failed_checks:
        return state.failed_checks[0]
    paths = unit.setting(_MODEL_CHECK) if unit else ()
    missing = (path for path in paths if _is_missing(path.replace("%%", "%")))
    return next((FailedCheck(_MODEL_CHECK, path) for path in missing), None)


def _is_missing(path: str) -> bool:
    """False also for a path in a folder that the caller may not enter."""
    try:
        return not Path(path).exists()
    except OSError:
        return False


def _next_command(place: Place, state: UnitState, unit: InstalledUnit | None, *, by_recipe: bool) -> str:
    """The command to go on with; `by_recipe` is True for what its recipe can mend."""
    name = recipe_of(state.name)
    if state.load_state == "masked":
        return place.systemctl(f"unmask {state.name}")
    if by_recipe:
        return place.verb(f"edit {name}")
    if state.failed_command and not _RUNTIME_CHECKS.isdisjoint(state.failed_command.words):
        return place.verb(f"versions {name}")
    if state.active_state in ("failed", "inactive") and unit and _was_mended(place, state, unit):
        return place.verb(f"start {name}")
    statuses = (state.exit_status, state.failed_command.status if state.failed_command else 0)
    if state.result == "resources" or _NO_CREDENTIALS in statuses:
        return place.verb(f"check {name}")  # it names the file, and what to do
    never_ready = (state.ready_sec or 0) < (state.started_sec or 0)
    if state.exit_code == _EXITED and never_ready and state.exit_status not in _SYSTEMD_STATUSES:
        # vLLM and SGLang end with 2 where their parsers dislike a word, llama.cpp with 1.
        is_llamacpp = unit and unit.backend == "llamacpp" and state.exit_status == 1
        is_parser = is_llamacpp or state.exit_status == _WRONG_ARGUMENTS
        return place.verb(f"{'check' if is_parser else 'logs'} {name}")
    if state.active_state in ("failed", "inactive"):
        return place.verb(f"start {name}")
    return place.verb(f"logs -f {name}")


def _was_mended(place: Place, state: UnitState, unit: InstalledUnit) -> bool:
    """True if its unit, its runtime or its secrets were changed after it was started."""
    from recipectl.audit import edits

    return not place.remote and any(edits.since_start(place, unit, state))


def start_failure(place: Place, state: UnitState, result: str) -> str:
    """Why a start has failed, as a clause."""
    unit = None if place.remote else Store(place.unit_folder).read(state.name)
    check = _failed_check(state, unit)
    if result == "done" and not state.condition_result:
        status = place.systemctl(f"status {state.name}")
        reason = f"{check or 'a condition'} of its unit is not met; see `{status}`"
    elif result == "canceled":
        reason = "a stop, or the start of a conflicting model, cancelled the start"
    elif result == "assert" or not state.assert_result:
        is_path = check is not None and check.setting == _MODEL_CHECK
        missing = "`model_path` does not exist" if is_path else "see its unit"
        reason = f"its {check or f'{_MODEL_CHECK}='} is not met: {missing}"
    elif result == "done":
        reason = "it was started, and has ended since"
    elif result == "dependency" and state.result == "success":
        reason = "a unit that it requires failed"
    else:
        reason = f"the engine {how_it_ended(state, unit)}{_gave_up(state, unit)}"
    taken = _port_holder(unit, state.name)
    return f"{reason}; {taken}" if taken else reason


def why_not_started(place: Place, state: UnitState, result: str, since_sec: float) -> str:
    """Why a start has failed: a sentence, and the last lines of the log since then."""
    reason = start_failure(place, state, result)
    if state.waits_to_restart:
        reason += f"; systemd tries again (`{place.verb('stop')} {recipe_of(state.name)}` ends that)"
    log = "".join(f"\n  {line}" for line in log_lines(place, state.name, _LOG_LINES, since_sec))
    return f"{state.name} did not start: {reason}; see {shlex.join((*place.journalctl, state.name))}{log}"


def _port_holder(unit: InstalledUnit | None, service: str) -> str | None:
    """Who holds the port of an engine, for a caller that may see it; None when nobody else does."""
    if unit is None or unit.engine_address is None:
        return None
    address, port = unit.engine_address
    holder = sockets.holder(port, address)
    if holder is None or holder.unit == service:
        return None
    return f"port {port} is taken by {holder}; stop it or choose another `port:`"
