"""Why a model is not ready, in words, from what systemd says about its unit."""

import time
from pathlib import Path
from typing import Any

import pytest

from recipectl.cli.failures import how_it_ended, reason_not_ready
from recipectl.place import Place
from recipectl.systemd.states import FailedCheck, FailedCommand, UnitState
from recipectl.systemd.unitfile import InstalledUnit
from recipectl.text import printable

UNIT = InstalledUnit(
    "model-a.service",
    "[Unit]\nAssertPathExists=/nowhere/100%%\n[Service]\nExecStart=:/v/bin/vllm \\\n    serve\n\n[X-Recipectl]\nRecipe=a\n",
)


def state(**fields: Any) -> UnitState:
    words = {"load_state": "loaded", "active_state": "failed", "sub_state": "failed"}
    return UnitState("model-a.service", **(words | fields))


def failed(status: int, *words: str) -> FailedCommand:
    return FailedCommand(1, ("python3", "helper", *words), status, 100.0)


EXITS = {
    "a status": ({"exit_code": 1, "exit_status": 1}, "exited with status 1"),
    "arguments": ({"exit_code": 1, "exit_status": 2}, "exited with status 2: wrong arguments?"),
    "exec": ({"exit_code": 1, "exit_status": 203}, "(EXEC: /v/bin/vllm cannot be run: permission, SELinux label, noexec"),
    "user": ({"exit_code": 1, "exit_status": 217}, "(USER: its user does not exist"),
    "namespace": ({"exit_code": 1, "exit_status": 226}, "(NAMESPACE: a folder that its sandbox names"),
    "numa": ({"exit_code": 1, "exit_status": 242}, "(NUMA: a NUMA node"),
    "a credential": ({"exit_code": 0, "result": "exit-code", "failed_command": failed(243)}, "was not started: status 243 (CREDENTIALS"),
    "a check": ({"exit_code": 0, "result": "exit-code", "failed_command": failed(1)}, "was not started, because a check before it failed"),
    "a signal": ({"exit_code": 2, "exit_status": 9}, "was killed by SIGKILL"),
    "a real-time signal": ({"exit_code": 2, "exit_status": 45}, "was killed by signal 45"),
    "memory": ({"result": "oom-kill", "exit_code": 2, "exit_status": 9}, "was killed because memory ran out (OOM)"),
    "a file of variables": ({"result": "resources"}, "a file of EnvironmentFile= is missing, which its unit reads"),
    "a long load": (
        {"result": "timeout", "started_sec": 100.0, "ended_sec": 160.0, "start_limit_sec": 60.0, "ready_sec": 50.0},
        "did not become ready within `ready.timeout_sec`",
    ),
    "a long check before a load": ({"result": "timeout", "start_limit_sec": 60.0}, "did not become ready within `ready.timeout_sec`"),
    "a long stop": (
        {"result": "timeout", "started_sec": 100.0, "ended_sec": 900.0, "start_limit_sec": 60.0, "ready_sec": 130.0},
        "did not stop within TimeoutStopSec=",
    ),
    "a long stop of a load": (
        {"result": "timeout", "started_sec": 100.0, "ended_sec": 130.0, "start_limit_sec": 60.0},
        "did not stop within TimeoutStopSec=",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("fields", "words"), EXITS.values(), ids=EXITS.keys())
def test_the_end_of_an_engine_is_told_by_name(fields: dict[str, Any], words: str) -> None:
    assert words in how_it_ended(state(**fields), UNIT)


REASONS = {
    "ready": ({"active_state": "active"}, None),
    "never started": ({"active_state": "inactive"}, "it was stopped, or not started since the boot"),
    "stopped": ({"active_state": "inactive", "ended_sec": 5.0}, "it was stopped"),
    "masked": ({"load_state": "masked", "active_state": "inactive"}, "its unit is masked"),
    "unreadable": ({"load_state": "bad-setting"}, "systemd cannot load its unit (bad-setting)"),
    "loading": ({"active_state": "activating", "sub_state": "start-post"}, "it is loading"),
    "between crashes": (
        {"active_state": "activating", "sub_state": "auto-restart", "restarts": 2, "exit_code": 1, "exit_status": 1},
        "the engine exited with status 1; systemd starts it again (crash 3)",
    ),
    "loading after crashes": (
        {"active_state": "activating", "sub_state": "start-post", "restarts": 2, "exit_code": 2, "exit_status": 9},
        "it is loading after 2 crashes, the last time it was killed by SIGKILL",
    ),
    "loading after a crash": (
        {"active_state": "activating", "sub_state": "start-post", "restarts": 1}, "it is loading after 1 crash",
    ),
    "given up": (
        {"exit_code": 1, "exit_status": 1, "restarts": 4, "start_limit_burst": 4},
        "the engine exited with status 1; systemd has given up after 4 starts (start limit)",
    ),
    "a check": (
        {"active_state": "inactive", "failed_checks": (FailedCheck("AssertPathExists", "/x"),)}, "AssertPathExists=/x of its unit is not met",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("fields", "words"), REASONS.values(), ids=REASONS.keys())
def test_a_reason_begins_the_status(fields: dict[str, Any], words: str | None) -> None:
    reason = reason_not_ready(Place(), state(**fields), None)
    assert (reason.sentence if reason else None) == words


ENDED = {"exit_code": 1, "started_sec": 5.0}
VLLM = InstalledUnit("model-a.service", "[Service]\nExecStart=:/v\n\n[X-Recipectl]\nRecipe=a\nBackend=vllm\n")
LLAMACPP = InstalledUnit("model-a.service", VLLM.text.replace("vllm", "llamacpp"))


@pytest.mark.parametrize(("fields", "unit", "command"), [
    (ENDED | {"exit_status": 2}, VLLM, "check"),
    (ENDED | {"exit_status": 1}, VLLM, "logs"),
    (ENDED | {"exit_status": 1}, LLAMACPP, "check"),
    (ENDED | {"exit_status": 1, "ready_sec": 9.0}, VLLM, "start"),
    ({"result": "exit-code", "failed_command": failed(1, "check-lock", "--lock", "/a.lock")}, VLLM, "versions"),
    ({"result": "exit-code", "failed_command": failed(1, "check-pins")}, VLLM, "versions"),
    (ENDED | {"exit_status": 127}, LLAMACPP, "logs"),
    ({"result": "resources"}, VLLM, "check"),
    (ENDED | {"exit_status": 243}, VLLM, "check"),
    ({"result": "exit-code", "failed_command": failed(1, "wait-until-free")}, VLLM, "start"),
])  # fmt: skip
def test_the_next_command_fits_the_end(fields: dict[str, Any], unit: InstalledUnit, command: str) -> None:
    reason = reason_not_ready(Place(), state(**fields), unit)
    assert reason is not None
    assert reason.next_command == f"recipectl {command} a"


def test_a_masked_unit_is_unmasked_first() -> None:
    reason = reason_not_ready(Place(), state(load_state="masked", active_state="inactive"), None)
    assert reason is not None
    assert reason.next_command == "systemctl unmask model-a.service"


def test_what_was_mended_is_started(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    place = Place(user=True)
    place.unit_folder.mkdir(parents=True)
    (place.unit_folder / UNIT.name).write_text(LLAMACPP.text)
    for started_sec, command in ((100.0, "start"), (time.time() + 60, "check")):
        ended = state(exit_code=1, exit_status=1, started_sec=started_sec)
        reason = reason_not_ready(place, ended, LLAMACPP)
        assert reason is not None
        assert reason.next_command == f"recipectl --user {command} a"


def test_a_remedy_is_run_where_the_model_is() -> None:
    masked = state(load_state="masked", active_state="inactive")
    nexts = [reason_not_ready(place, masked, None) for place in (Place(user=True), Place(remote="gpu1"))]
    assert [each and each.next_command for each in nexts] == [
        "systemctl --user unmask model-a.service", "ssh -t gpu1 systemctl unmask model-a.service",
    ]  # fmt: skip


def test_a_secret_that_is_missing_is_named(tmp_path: Path) -> None:
    (tmp_path / "there").touch()
    lines = f"EnvironmentFile={tmp_path}/there\nEnvironmentFile={tmp_path}/gone\nLoadCredential=x:{tmp_path}/gone-2\n"
    unit = InstalledUnit("model-a.service", f"[Service]\n{lines}\n[X-Recipectl]\nRecipe=a\n")
    for fields in ({"result": "resources"}, {"exit_code": 1, "exit_status": 243}):
        words = how_it_ended(state(**fields), unit)
        assert (f"{tmp_path}/gone" in words, f"{tmp_path}/gone-2" in words, "there" in words) == (
            True,
            True,
            False,
        )


def test_a_kill_by_a_watch_is_told() -> None:
    watched = InstalledUnit(
        "model-a.service", VLLM.text.replace("[Service]", "[Unit]\nWants=model-a-watch.service\n[Service]")
    )
    killed = state(exit_code=2, exit_status=9)
    assert (
        how_it_ended(killed, watched)
        == "was killed by SIGKILL (by its watch? see the log of model-a-watch.service)"
    )
    assert how_it_ended(state(exit_code=2, exit_status=11), watched) == "was killed by SIGSEGV"
    assert how_it_ended(killed, VLLM) == "was killed by SIGKILL"


def test_what_a_unit_asserts_is_looked_at_again() -> None:
    reason = reason_not_ready(Place(), state(active_state="inactive"), UNIT)
    assert reason is not None
    assert reason.sentence == "AssertPathExists=/nowhere/100%% of its unit is not met"


@pytest.mark.parametrize(("raw", "shown"), [
    ("plain é 😀\n\tx", "plain é 😀\n\tx"), ("\x1b[2J", "\\x1b[2J"), ("\r", "\\x0d"), ("\x9b31m", "\\u009b31m"),
    ("\udc9b", "\\x9b"), ("\u202e", "\\u202e"), ("\x7f", "\\x7f"),
])  # fmt: skip
def test_nothing_that_is_printed_controls_a_terminal(raw: str, shown: str) -> None:
    assert printable(raw) == shown
