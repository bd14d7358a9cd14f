"""The host becomes what its recipes say, and stays so: apply, diff, drop-ins, boot."""

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from live.common import (
    RECIPES,
    ask,
    journal,
    main_pid,
    recipe,
    recipectl,
    script,
    show,
    systemctl,
    until,
    written,
)

pytestmark = pytest.mark.systemd
UNITS = Path("/etc/systemd/system")


def pids(*names: str) -> list[str]:
    return [show(name, "MainPID") for name in names]


def test_apply_brings_up_what_starts_at_boot_and_a_second_one_says_nothing() -> None:
    recipe("a", port=18201, autostart=True)
    recipe("b", port=18202)
    first = recipectl("apply")
    assert first.returncode == 0, first.stderr
    assert "starting model-a.service: autostart: true" in first.stdout
    assert recipectl("wait", "a").returncode == 0
    assert (show("a", "ActiveState"), show("b", "ActiveState")) == ("active", "inactive")
    again = recipectl("apply")
    assert (again.returncode, again.stdout, again.stderr) == (0, "", "")


def test_only_what_changed_and_runs_is_restarted() -> None:
    recipe("a", port=18201, autostart=True)
    recipe("b", port=18202, autostart=True)
    recipectl("apply"), recipectl("wait", "a", "b")
    before = pids("a", "b")
    recipe("a", port=18201, autostart=True, served_model_name="renamed")
    recipe("b", port=18202, autostart=True, description="another title")
    assert (
        "restarting model-a.service: the recipe changed since the model started" in recipectl("apply").stdout
    )
    recipectl("wait", "a")
    after = pids("a", "b")
    assert (ask(18201), before[0] != after[0], before[1] == after[1]) == ("renamed", True, True)


def test_a_restart_that_was_put_off_is_still_due() -> None:
    recipe("a", port=18201, autostart=True)
    recipectl("apply"), recipectl("wait", "a")
    recipe("a", port=18201, autostart=True, served_model_name="renamed")
    assert "restarting" not in recipectl("apply", "--no-restart").stdout
    assert "restarting model-a.service" in recipectl("apply").stdout


def test_a_unit_whose_recipe_is_gone_is_stopped_and_removed() -> None:
    recipe("a", port=18201, autostart=True)
    recipectl("apply"), recipectl("wait", "a")
    (RECIPES / "a.json").unlink()
    gone = recipectl("apply")
    assert "removed model-a.service: its recipe /etc/recipectl/recipes/a.json is gone" in gone.stdout
    assert not (UNITS / "model-a.service").exists()
    assert not (UNITS / "models.target.wants/model-a.service").is_symlink()
    assert systemctl("is-active", "model-a.service") == "inactive"


def test_what_a_removed_model_takes_along_is_said_and_started_again() -> None:
    recipe("a", port=18201, autostart=True)
    recipe("b", port=18202, requires=["a"])
    recipe("c", port=18203, requires=["b"])
    recipectl("apply"), recipectl("start", "c")
    (RECIPES / "a.json").unlink()
    recipe("b", port=18202)
    with_it = "; model-b.service, model-c.service stop with it"
    restart = "model-a.service, which it required, is removed"
    would, applied = recipectl("diff").stdout, recipectl("apply")
    assert (with_it in would, f"would restart model-c.service: {restart}" in would) == (True, True), would
    assert (applied.returncode, f"restarting model-b.service: {restart}" in applied.stdout) == (0, True)
    assert recipectl("wait", "c").returncode == 0
    assert (recipectl("apply").stdout, show("b", "ActiveState")) == ("", "active")
    removed = recipectl("remove", "b").stdout
    assert "stopping model-c.service: it requires model-b.service\n" in removed


def test_doctor_names_a_unit_that_runs_without_a_file() -> None:
    recipe("a", port=18201, on_demand={})
    assert "starting model-a.socket" in recipectl("apply").stdout
    for path in (RECIPES / "a.json", *UNITS.glob("model-a*"), *UNITS.glob("models.target.wants/model-a*")):
        path.unlink()
    systemctl("daemon-reload")
    told = recipectl("doctor").stdout
    systemctl("stop", "model-a.socket")
    sentence = "model-a.socket runs, and its file is gone; run `systemctl stop model-a.socket`"
    assert (sentence in told, sentence in recipectl("doctor").stdout) == (True, False), told


def test_a_masked_recipe_goes_too() -> None:
    below = Path("/usr/lib/recipectl/recipes")
    below.mkdir(parents=True, exist_ok=True)
    recipe("a", port=18201)
    (RECIPES / "a.json").rename(below / "a.json")
    assert "wrote model-a.service" in recipectl("apply").stdout
    (RECIPES / "a.json").symlink_to("/dev/null")
    assert "removed model-a.service" in recipectl("apply").stdout
    (below / "a.json").unlink()


def test_a_broken_recipe_leaves_its_unit_and_the_others_alone() -> None:
    recipe("a", port=18201, autostart=True)
    recipectl("apply"), recipectl("wait", "a")
    before = pids("a")
    (RECIPES / "a.json").write_text("{")
    recipe("b", port=18202)
    result = recipectl("apply")
    assert (result.returncode, "a.json:2:1: " in result.stderr) == (2, True), result.stderr
    assert ((UNITS / "model-b.service").exists(), pids("a")) == (True, before)


def test_diff_shows_what_apply_would_do_and_touches_nothing() -> None:
    recipe("a", port=18201, autostart=True)
    display = recipectl("diff")
    assert display.returncode == 3
    assert "+++ model-a.service" in display.stdout
    assert "would start model-a.service: autostart: true" in display.stdout
    assert not (UNITS / "model-a.service").exists()


def test_check_is_3_then_0_and_json_says_changed() -> None:
    recipe("a", port=18201)
    assert recipectl("apply", "--check").returncode == 3
    report = json.loads(recipectl("apply", "--json").stdout)
    assert (report["changed"], report["actions"][0]["verb"]) == (True, "write")
    assert recipectl("apply", "--check").returncode == 0
    assert json.loads(recipectl("apply", "--json").stdout)["changed"] is False


def test_the_sites_own_drop_ins_stay_in_force_and_are_shown() -> None:
    recipe("a", port=18201)
    recipectl("apply")
    folder = UNITS / "model-a.service.d"
    folder.mkdir()
    (folder / "10-site.conf").write_text("[Service]\nNice=7\n")
    recipe("a", port=18201, description="new")
    assert f"stays in force: {folder}/10-site.conf" in recipectl("diff").stdout
    recipectl("apply")
    assert show("a", "Nice") == "7"
    (folder / "10-site.conf").unlink(), folder.rmdir()


def test_drop_ins_of_a_recipe_and_of_the_host_file_count() -> None:
    recipe("a", port=18201)
    (RECIPES / "a.yaml.d").mkdir()
    (RECIPES / "a.yaml.d/10-name.yaml").write_text("served_model_name: from-drop-in\n")
    Path("/etc/recipectl/host.yaml").write_text("environment: {SITE: here}\n")
    recipectl("apply")
    text = (UNITS / "model-a.service").read_text()
    assert "from-drop-in" in text
    assert "Environment=SITE=here" in text


def test_two_that_cannot_both_be_up_at_boot_are_refused() -> None:
    recipe("a", port=18201, autostart=True, gpus=["0"])
    recipe("b", port=18202, autostart=True, gpus=["0"])
    recipe("c", port=18203)
    result = recipectl("apply")
    assert result.returncode == 2
    assert "`a` and `b` both start at boot and share GPU 0" in result.stderr
    assert ((UNITS / "model-a.service").exists(), (UNITS / "model-c.service").exists()) == (False, True)


HOOKED = """
import os, sys
from recipectl.systemd import store
left = int(sys.argv.pop(1))
def counted(real):
    def call(*args, **kwargs):
        global left
        left -= 1
        if left < 0: os.kill(os.getpid(), 9)
        return real(*args, **kwargs)
    return call
from recipectl.systemd.dbus import Manager
os.fsync, os.fchmod = counted(os.fsync), counted(os.fchmod)
for name in ("replace", "unlink", "touch", "write_bytes"):
    setattr(store.Path, name, counted(getattr(store.Path, name)))
for name in ("reload", "enable", "disable", "job", "start_without_waiting"):
    setattr(Manager, name, counted(getattr(Manager, name)))
from recipectl.__main__ import main
main()
"""


def test_an_apply_killed_at_any_step_is_completed_by_the_next() -> None:
    """A model that changes, one on demand that moves, a new one, and one that comes and goes, each time.

    Every eleventh step, and in `make storm` each of them.
    """
    killed = 0
    for left in range(0, 80, int(os.environ.get("APPLY_STEP", "11"))):
        recipe("a", port=18201, autostart=True, served_model_name=f"a{left}")
        recipe("d", port=18210 + left, served_model_name="d", on_demand={"idle": "1min"})
        for old in RECIPES.glob("e*.json"):
            old.unlink()
        recipe(f"e{left}", port=18203, on_demand={})
        if left % 2:
            (RECIPES / "goes.json").unlink()
        else:
            recipe("goes", port=18202, autostart=True)
        words = [sys.executable, "-c", HOOKED, str(left), "apply"]
        status = subprocess.run(words, capture_output=True, check=False).returncode
        assert status in (0, -signal.SIGKILL)
        if status == 0:
            break
        killed += 1
        assert recipectl("apply").returncode == 0
        assert recipectl("wait", "a").returncode == 0
        assert (ask(18201), ask(18210 + left)) == (f"a{left}", "d")
        assert systemctl("is-active", f"model-e{left}.socket") == "active"
        assert recipectl("apply", "--check").returncode == 0
        assert (UNITS / "model-goes.service").exists() == (left % 2 == 0)
        assert list(UNITS.glob(".model*.recipectl")) == []
    assert killed > 4


def test_applies_at_once_wait_for_each_other() -> None:
    for index in range(6):
        recipe(f"m{index}", port=18210 + index)
    words = [sys.executable, "-m", "recipectl", "apply"]
    running = [subprocess.Popen(words, stdout=subprocess.PIPE, text=True) for _ in range(4)]
    result = [process.communicate(timeout=60)[0] for process in running]
    assert [process.returncode for process in running] == [0, 0, 0, 0]
    assert "".join(result).count("wrote model-m3.service") == 1


def test_a_full_disk_loses_nothing() -> None:
    recipe("a", port=18201)
    recipectl("apply")
    old = (UNITS / "model-a.service").read_text()
    recipe("a", port=18201, env_vars={"BIG": "x" * 60000})
    full = "mount -t tmpfs -o size=64k tmpfs /mnt; cp -a /etc/systemd/system/model* /mnt; dd if=/dev/zero of=/mnt/fill 2>/dev/null; mount --bind /mnt /etc/systemd/system; "
    words = [
        "unshare",
        "--mount",
        "sh",
        "-c",
        full + '"$@"; status=$?; cat /etc/systemd/system/model-a.service; exit $status',
        "-",
    ]
    result = subprocess.run(
        [*words, sys.executable, "-m", "recipectl", "apply"], capture_output=True, text=True, check=False
    )
    assert (result.returncode, result.stdout) == (1, old)
    assert "could not be written: No space left on device; free some space" in result.stderr
    assert recipectl("apply").returncode == 0


def test_a_helper_that_cannot_be_written_leaves_units_and_what_runs_as_they_are() -> None:
    recipe("a", port=18201, autostart=True)
    recipectl("apply")
    until("a", "ActiveState", "active")
    before = (UNITS / "model-a.service").read_text(), show("a", "InvocationID")
    recipe("a", port=18201, autostart=True, env_vars={"NEW": "1"})
    full = "mount -t tmpfs -o size=4k tmpfs /var/lib/recipectl; dd if=/dev/zero of=/var/lib/recipectl/fill 2>/dev/null; "
    words = [
        "unshare",
        "--mount",
        "sh",
        "-c",
        full + 'exec "$@"',
        "-",
        sys.executable,
        "-m",
        "recipectl",
        "apply",
    ]
    result = subprocess.run(words, capture_output=True, text=True, check=False)
    assert (result.returncode, result.stdout) == (1, ""), result.stdout
    assert result.stderr.count("No space left on device; free some space") == 1
    assert ((UNITS / "model-a.service").read_text(), show("a", "InvocationID")) == before


def test_a_recipe_that_was_renamed_claims_nothing_under_no_restart() -> None:
    recipe("d", port=18201)
    recipectl("apply")
    (RECIPES / "d.json").unlink()
    recipe("a", port=18201)
    result = recipectl("apply", "--no-restart")
    assert result.returncode == 0, result.stderr
    assert ((UNITS / "model-a.service").exists(), (UNITS / "model-d.service").exists()) == (True, False)


def test_a_recipe_that_was_renamed_waits_for_its_port_under_no_restart() -> None:
    recipe("d", port=18203, autostart=True)
    recipe("other", port=18204)
    recipectl("apply")
    until("d", "ActiveState", "active")
    (RECIPES / "d.json").unlink()
    recipe("a", port=18203, autostart=True)
    recipe("needs-it", port=18205, requires=["a"])
    recipe("other", port=18206)
    left = recipectl("apply", "--no-restart")
    assert left.returncode == 0, left.stderr
    assert "left for later: model-a.service must be written: an installed model has its port" in left.stderr
    assert "left for later: model-needs-it.service must be written: it does not fit" in left.stderr
    assert "left for later: model-d.service must be removed" in left.stderr
    assert "wrote model-other.service" in left.stdout
    assert (show("d", "ActiveState"), (UNITS / "model-a.service").exists()) == ("active", False)
    assert recipectl("apply").returncode == 0
    until("a", "ActiveState", "active")
    assert not (UNITS / "model-d.service").exists()


def test_the_boot_service_brings_models_up_in_their_order_and_names_the_broken_one() -> None:
    for index in range(8):
        recipe(f"m{index}", port=18210 + index, autostart=True)
    recipe("rag", port=18220, autostart=True, requires=["m3"], gpus=["0"])
    recipe("broken", port=0)
    service = (Path(__file__).parents[2] / "agent/recipectl/share/recipectl-apply.service").read_text()
    (UNITS / "recipectl-apply.service").write_text(
        service.replace("ExecStart=recipectl", f"ExecStart={sys.executable} -m recipectl")
    )
    systemctl("daemon-reload")
    systemctl("start", "--no-block", "recipectl-apply.service")
    for name in (*(f"m{index}" for index in range(8)), "rag"):
        until(name, "ActiveState", "active", timeout_sec=300)
    ready = [int(show(name, "ActiveEnterTimestampMonotonic")) for name in ("m3", "rag")]
    assert ready[0] < int(show("rag", "ExecMainStartTimestampMonotonic")) < ready[1]
    assert "broken.json:1:" in journal("recipectl-apply.service")
    systemctl("stop", "models.target")
    for index in range(8):
        until(f"m{index}", "ActiveState", "inactive")
    systemctl("start", "models.target")
    until("rag", "ActiveState", "active")
    (UNITS / "recipectl-apply.service").unlink()


def test_a_hung_engine_is_restarted_by_its_watch() -> None:
    recipe("a", port=18201, watch={"every": "1s", "failures": 2, "timeout": "1s"})
    recipectl("apply"), recipectl("start", "a")
    pid = int(show("a", "MainPID"))
    os.kill(pid, signal.SIGSTOP)
    until("a", "NRestarts", "1")
    until("a", "ActiveState", "active")
    assert show("a", "MainPID") != str(pid)
    assert "does not answer /health (2 of 2)" in journal("model-a-watch.service")


def test_a_failed_model_calls_the_hosts_hook() -> None:
    Path("/run/alerts").unlink(missing_ok=True)
    Path("/etc/recipectl/host.yaml").write_text("on_failure: alert@%n.service\n")
    Path("/run/systemd/system/alert@.service").write_text(
        "[Service]\nType=oneshot\nExecStart=/bin/sh -c 'echo %i >>/run/alerts'\n"
    )
    recipe("a", port=18201, binary=script(Path("/opt/failing"), "import sys; sys.exit(2)"))
    recipectl("apply"), recipectl("start", "a")
    assert written(Path("/run/alerts")) == "model-a.service\n"


def test_a_read_only_file_system_loses_nothing() -> None:
    recipe("a", port=18201)
    recipectl("apply")
    old = (UNITS / "model-a.service").read_text()
    closed = [
        "unshare",
        "--mount",
        "sh",
        "-c",
        'mount --bind /etc/systemd/system /mnt; mount -o remount,bind,ro /mnt; mount --bind /mnt /etc/systemd/system; exec "$@"',
        "-",
    ]
    words = [*closed, sys.executable, "-m", "recipectl", "apply"]
    idle = subprocess.run(words, capture_output=True, text=True, check=False)
    assert (idle.returncode, idle.stdout) == (0, "")
    recipe("a", port=18201, served_model_name="new")
    result = subprocess.run(words, capture_output=True, text=True, check=False)
    assert (result.returncode, (UNITS / "model-a.service").read_text()) == (1, old)
    assert "Read-only file system" in result.stderr
    assert recipectl("apply").returncode == 0


@pytest.mark.parametrize("masked", [False, True], ids=["foreign", "masked"])
def test_a_unit_that_is_not_ours_is_told_and_stops_no_other(masked: bool) -> None:
    foreign = UNITS / "model-x.service"
    if masked:
        foreign.symlink_to("/dev/null")
    else:
        foreign.write_text("[Service]\nExecStart=/bin/sleep 1000\n")
    for index, name in enumerate("axz"):
        recipe(name, port=18201 + index, autostart=True)
    report = recipectl("diff")
    assert "model-x.service" in report.stderr
    assert "would write model-x.service" not in report.stdout
    result = recipectl("apply")
    assert (result.returncode, recipectl("wait", "a", "z").returncode) == (1, 0)
    assert (
        "is masked; run `systemctl unmask" if masked else "was not written by recipectl; move it away"
    ) in result.stderr
    assert foreign.is_symlink() if masked else "sleep 1000" in foreign.read_text()
    foreign.unlink()
    systemctl("daemon-reload")


def test_a_target_of_the_admins_own_is_left_alone() -> None:
    recipe("a", port=18201)
    (UNITS / "models.target").unlink(missing_ok=True)
    (UNITS / "models.target").write_text("[Unit]\nDescription=Mine\n")
    result = recipectl("apply")
    assert (result.returncode, (UNITS / "models.target").read_text()) == (1, "[Unit]\nDescription=Mine\n")
    assert (UNITS / "model-a.service").exists()
    (UNITS / "models.target").unlink()


def test_a_new_neighbour_restarts_no_running_model() -> None:
    recipe("a", port=18201, gpus=["0"], autostart=True)
    recipectl("apply"), recipectl("wait", "a")
    before = pids("a")
    recipe("b", port=18202, gpus=["0"], on_demand={"idle": "1min"})
    recipe("c", port=18203, gpus=["1"], gpu_sharing="ordered")
    recipectl("lock", "a")
    assert "restarting" not in recipectl("apply").stdout
    assert pids("a") == before


def test_a_watch_that_is_added_to_a_running_model_works_at_once() -> None:
    recipe("a", port=18201, autostart=True)
    recipectl("apply"), recipectl("wait", "a")
    recipe("a", port=18201, autostart=True, watch={"every": "1s", "failures": 2, "timeout": "1s"})
    assert "starting model-a-watch.service" in recipectl("apply").stdout
    os.kill(main_pid("a"), signal.SIGSTOP)
    until("a", "NRestarts", "1")


# SIGSTOP makes it hang, and the SIGCONT of systemd's stop wakes it: like one that hangs, it does not obey SIGTERM.
HANGS = """
import http.server, signal, sys
signal.signal(signal.SIGTERM, signal.SIG_IGN)
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200); self.end_headers()
    def log_message(self, *a): pass
port = int(sys.argv[sys.argv.index("--port") + 1])
http.server.ThreadingHTTPServer(("127.0.0.1", port), Handler).serve_forever()
"""


def test_a_watch_may_stop_a_hung_model() -> None:
    watch = {"every": "1s", "failures": 2, "timeout": "1s", "action": "stop"}
    recipe("a", port=18201, binary=script(Path("/opt/hangs"), HANGS), watch=watch)
    recipectl("apply"), recipectl("start", "a")
    os.kill(main_pid("a"), signal.SIGSTOP)
    until("a", "ActiveState", "failed")
    assert (show("a", "NRestarts"), show("a", "Result")) == ("0", "signal")


def test_people_may_restart_a_model_as_often_as_they_like() -> None:
    recipe("a", port=18201)
    recipectl("apply")
    for _ in range(7):
        assert recipectl("restart", "a").returncode == 0


def test_a_start_that_a_condition_prevents_is_told() -> None:
    recipe("a", port=18201, service={"ConditionPathExists": "/nowhere"})
    recipectl("apply")
    failed = recipectl("start", "a")
    assert (failed.returncode, "a condition of its unit is not met" in failed.stderr) == (1, True)


def test_the_first_folder_that_has_a_recipe_wins() -> None:
    folders = [Path(base, "recipectl/recipes") for base in ("/etc", "/run", "/usr/local/lib", "/usr/lib")]
    recipe("a", port=18201)
    text = json.loads((RECIPES / "a.json").read_text())
    (RECIPES / "a.json").unlink()
    for folder in reversed(folders):
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "a.json").write_text(json.dumps(text | {"served_model_name": str(folder)}))
        (folder / "a.yaml.d").mkdir(exist_ok=True)
        (folder / f"a.yaml.d/{len(str(folder))}.yaml").write_text("env_vars: {SEEN: " + str(folder) + "}\n")
        recipectl("apply", "a")
        assert str(folder) in (UNITS / "model-a.service").read_text()
    for folder in folders[1:]:
        shutil.rmtree(folder)


def test_dry_run_shows_what_apply_does_and_does_nothing() -> None:
    recipe("a", port=18201, autostart=True)
    display = recipectl("apply", "--dry-run").stdout
    assert not (UNITS / "model-a.service").exists()
    would = [line.split()[1:3] for line in display.splitlines() if line.startswith("would ")]
    done = json.loads(recipectl("apply", "--json").stdout)
    assert would == [[item["verb"], f"{item['unit']}:"] for item in done["actions"]]


def test_a_folder_in_the_place_of_a_recipe_stops_nothing() -> None:
    recipe("a", port=18201)
    recipectl("apply"), recipectl("start", "a")
    (RECIPES / "a.json").unlink()
    (RECIPES / "a.json").mkdir()
    applied = recipectl("apply")
    (RECIPES / "a.json").rmdir()
    assert (applied.returncode, applied.stderr) == (
        2,
        f"{RECIPES}/a.json: cannot be read: Is a directory; correct its path or its mode\n",
    )
    assert show("a", "ActiveState") == "active"


def test_a_unit_that_is_not_ours_is_not_started() -> None:
    recipe("foo", port=18201)
    (UNITS / "model-foo.service").write_text("[Service]\nExecStart=/bin/sleep 9\n")
    systemctl("daemon-reload")
    started = recipectl("start", "foo")
    (UNITS / "model-foo.service").unlink()
    assert (started.returncode, "was not written by recipectl" in started.stderr) == (2, True)


def test_a_file_with_the_name_of_a_recipe_is_not_applied(tmp_path: Path) -> None:
    recipe("a", port=18201)
    (tmp_path / "a.json").write_text((RECIPES / "a.json").read_text())
    refused = recipectl("apply", str(tmp_path / "a.json"))
    assert refused.returncode == 2
    assert f"has the name of {RECIPES}/a.json" in refused.stderr


def test_list_tells_a_restart_that_is_due() -> None:
    recipe("a", port=18201)
    recipectl("apply"), recipectl("start", "a")
    recipe("a", port=18201, served_model_name="other")
    recipectl("apply", "--no-restart")
    assert "restart is due" in recipectl("list").stdout
    assert recipectl("logs", "nosuch").returncode == 2
