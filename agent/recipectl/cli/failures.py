"""Why a model ended or did not start, in words, with the end of its log."""

from __future__ import annotations

import signal
import subprocess
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from recipectl.place import Place
    from recipectl.systemd.states import UnitState

_LOG_LINES = 8
# Exit statuses of systemd itself (systemd.exec(5)).
_SYSTEMD_STATUSES = {200: "CHDIR", 203: "EXEC", 217: "USER", 226: "NAMESPACE", 243: "CREDENTIALS"}
_EXITED, _KILLED, _DUMPED = 1, 2, 3  # ExecMainCode


def log_lines(place: Place, unit: str, lines: int, since_sec: float | None = None) -> list[str]:
    """The last lines of a unit's log (since a time of this host's clock), as many as there are."""
    # Before 254, `-n` with `--since` takes the first lines; in the order of `-r`, it takes the last.
    words = [*place.journalctl, unit, "-o", "cat", "-r", "-n", str(lines), "--no-pager", "-q"]
    words += [f"--since=@{since_sec:.3f}"] if since_sec and not place.remote else []
    try:
        output = subprocess.run(words, capture_output=True, text=True, errors="replace", check=False).stdout  # noqa: S603  (fixed words)
    except OSError:
        return []  # the log is an addition to an error, and not one itself
    return output.splitlines()[::-1]


def how_it_ended(state: UnitState) -> str:
    """How the main process ended, in words."""
    if state.result == "timeout":
        return "did not become ready within `ready.timeout_sec` (TimeoutStartSec=), or did not stop in time"
    if state.result == "oom-kill":
        return "was killed because memory ran out (OOM)"
    if state.exit_code in (_KILLED, _DUMPED):
        known = {number.value: number.name for number in signal.Signals}
        return f"was killed by {known.get(state.exit_status, f'signal {state.exit_status}')}"
    if state.exit_code == _EXITED:
        name = _SYSTEMD_STATUSES.get(state.exit_status)
        reason = f" ({name}: systemd could not run it)" if name else ""
        return f"exited with status {state.exit_status}{reason}"
    if state.exit_code == 0 and state.result == "exit-code":
        return "was not started, because a check before it failed"
    return f"ended with result {state.result}"


def why_not_started(place: Place, state: UnitState, result: str, since_sec: float) -> str:
    """Why a start has failed: a sentence, and the last lines of the log since then."""
    if result == "done" and not state.condition_result:
        reason = f"a condition of its unit is not met; see systemctl status {state.name}"
    elif result == "canceled":
        reason = "a stop, or the start of a conflicting model, cancelled the start"
    elif result == "assert" or not state.assert_result:
        reason = "its AssertPathExists= is not met: `model_path` does not exist"
    elif result == "done":
        reason = "systemd says done, and it does not run"
    elif result == "dependency" and state.result == "success":
        reason = "a unit that it requires failed"
    else:
        reason = f"the engine {how_it_ended(state)}"
    if state.waits_to_restart:
        reason += "; systemd tries again (`recipectl stop` ends that)"
    log = "".join(f"\n  {line}" for line in log_lines(place, state.name, _LOG_LINES, since_sec))
    return f"{state.name} did not start: {reason}; see {' '.join(place.journalctl)} {state.name}{log}"
