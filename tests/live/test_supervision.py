"""A real engine under a real systemd: what starts, what comes back, what is said when it does not."""

import json
import os
import pty
import re
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest

from live.common import (
    ENGINE,
    RECIPES,
    ROOT,
    journal,
    main_pid,
    recipe,
    recipectl,
    script,
    show,
    until,
    until_listening,
)
from live.test_user import ann, as_ann  # noqa: F401  (a fixture)

pytestmark = pytest.mark.systemd


@pytest.fixture
def served() -> str:
    recipe("small", served_model_name="small")
    assert recipectl("apply", "small").returncode == 0
    started = recipectl("start", "small")
    assert (started.returncode, started.stdout) == (0, ""), started.stderr
    return "small"


def test_start_returns_when_the_model_answers(served: str) -> None:
    with urllib.request.urlopen("http://127.0.0.1:18200/v1/models", timeout=5) as answer:
        assert json.load(answer)["data"][0]["id"] == "small"


def test_status_says_ready_and_what_runs(served: str) -> None:
    row = json.loads(recipectl("status", served, "--json").stdout)[0]
    assert (row["state"], row["engine_version"], row["pid"] > 1) == ("ready", "2026.10.11549", True)


def test_a_stopped_model_is_inactive_and_status_is_3(served: str) -> None:
    assert recipectl("stop", served).returncode == 0
    assert (show(served, "ActiveState"), recipectl("status", served).returncode) == ("inactive", 3)


def test_an_engine_killed_with_9_comes_back(served: str) -> None:
    subprocess.run(
        ["systemctl", "set-property", "--runtime", "model-small.service", "CPUWeight=100"], check=False
    )
    os.kill(main_pid(served), signal.SIGKILL)
    until(served, "NRestarts", "1")
    until(served, "ActiveState", "active")


def test_a_start_does_not_wait_for_the_pause_before_a_restart() -> None:
    recipe("pause", service={"RestartSec": "1h"})
    assert recipectl("apply", "pause").returncode == 0
    assert recipectl("start", "pause").returncode == 0
    os.kill(main_pid("pause"), signal.SIGKILL)
    until("pause", "SubState", "auto-restart")
    assert recipectl("list").stdout.split("pause", 1)[1].split()[0] == "restarting"
    started = recipectl("start", "pause")
    assert (started.returncode, show("pause", "ActiveState")) == (0, "active"), started.stderr


def test_apply_again_says_and_does_nothing(served: str) -> None:
    again = recipectl("apply", served)
    assert (again.returncode, again.stdout) == (0, "")


def test_list_tells_a_recipe_that_was_edited(served: str) -> None:
    recipe(served, served_model_name="other")
    assert json.loads(recipectl("list", "--json").stdout)[0]["differs"] == "recipe has changed"


def test_an_enabled_model_is_wanted_by_models_target(served: str) -> None:
    assert recipectl("enable", served).returncode == 0
    assert Path("/etc/systemd/system/models.target.wants/model-small.service").is_symlink()
    assert recipectl("disable", served).returncode == 0
    assert not Path("/etc/systemd/system/models.target.wants/model-small.service").exists()


def test_wait_returns_for_a_ready_model_and_fails_for_a_stopped_one(served: str) -> None:
    assert recipectl("wait", served).returncode == 0
    recipectl("stop", served)
    assert recipectl("wait", served).returncode == 1


def test_the_log_can_be_read(served: str) -> None:
    assert "listening on" in recipectl("logs", served, "--no-pager").stdout


def test_an_engine_that_exits_at_once_is_told_with_its_status_and_log(tmp_path: Path) -> None:
    code = "import sys; print(*range(30), sep='\\n', flush=True); sys.exit('no weights here')"
    recipe("broken", binary=script(Path("/opt/broken"), code))
    recipectl("apply", "broken")
    failed = recipectl("start", "broken")
    assert failed.returncode == 1
    assert "exited with status 1" in failed.stderr
    assert "no weights here" in failed.stderr
    assert "journalctl -u model-broken.service" in failed.stderr


def test_bad_flags_are_not_tried_again() -> None:
    recipe("flags", binary=script(Path("/opt/flags"), "import sys; sys.exit(2)"))
    recipectl("apply", "flags")
    assert recipectl("start", "flags").returncode == 1
    assert (show("flags", "ActiveState"), show("flags", "NRestarts")) == ("failed", "0")


def test_a_taken_port_is_told_with_its_holder() -> None:
    words = ["systemd-run", "-q", "--unit=stranger", sys.executable, "-m", "http.server", "18200"]
    subprocess.run([*words, "--bind", "127.0.0.1"], check=True)
    until_listening(18200)
    recipe("second")
    recipectl("apply", "second")
    failed = recipectl("start", "second")
    subprocess.run(["systemctl", "stop", "stranger"], check=True)
    assert failed.returncode == 1
    assert "port 18200 is taken by process" in failed.stderr
    assert "of stranger.service" in failed.stderr


def test_two_recipes_with_one_port_are_refused_before_anything_starts(served: str) -> None:
    recipe("second")
    failed = recipectl("apply", "second")
    assert failed.returncode == 2
    assert "`second` and `small` both use port 18200 and could run at once" in failed.stderr


def test_a_model_that_does_not_exist_is_told() -> None:
    recipe("nowhere", model_path="/models/nowhere")
    recipectl("apply", "nowhere")
    failed = recipectl("start", "nowhere")
    assert failed.returncode == 1
    assert "`model_path` does not exist" in failed.stderr


def test_a_missing_interpreter_is_an_error_of_the_recipe() -> None:
    recipe("gone", binary="/opt/nothing")
    failed = recipectl("apply", "gone")
    assert failed.returncode == 2
    assert (
        "/opt/nothing is not an executable file on this host; create it or correct `binary:`" in failed.stderr
    )


def test_a_venv_without_the_engine_is_an_error_of_the_recipe() -> None:
    venv = ENGINE  # a real venv, without vLLM
    (RECIPES / "empty.json").write_text(
        json.dumps({"python_path": f"{venv}/bin/python", "model_path": "org/m"})
    )
    failed = recipectl("apply", "empty")
    assert failed.returncode == 2
    assert f"{venv} has no vllm; install it there or correct `python_path:`" in failed.stderr


def test_an_engine_that_was_upgraded_past_its_pin_does_not_start() -> None:
    packages = Path(f"/opt/pinned/lib/python3.{sys.version_info[1]}/site-packages")
    (packages / "xllamacpp-1.2.dist-info").mkdir(parents=True)
    Path("/opt/pinned/bin").mkdir()
    Path("/opt/pinned/bin/python").symlink_to(sys.executable)
    server = script(Path("/opt/pinned/bin/llama-server"), "import time; time.sleep(100)")
    Path(server).write_text(Path(server).read_text().replace(sys.executable, "/opt/pinned/bin/python"))
    recipe("pinned", binary=server, engine_version="==1.*")
    assert recipectl("apply", "pinned").returncode == 0
    (packages / "xllamacpp-1.2.dist-info").rename(packages / "xllamacpp-2.0.dist-info")
    failed = recipectl("start", "pinned")
    assert failed.returncode == 1
    assert "the recipe pins xllamacpp ==1.*" in failed.stderr
    assert "now has 2.0 (the unit was compiled for 1.2)" in failed.stderr


def test_on_a_terminal_the_wait_is_shown() -> None:
    slow = """
import http.server, os, time
print("reading the weights", flush=True)
while not os.path.exists("/opt/seen"): time.sleep(0.1)
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self): self.send_response(200); self.end_headers()
http.server.HTTPServer(("127.0.0.1", 18200), Handler).serve_forever()
"""
    recipe("slow", binary=script(Path("/opt/slowly"), slow))
    recipectl("apply")
    controller, terminal = pty.openpty()
    command = [sys.executable, "-m", "recipectl", "start", "slow"]
    process = subprocess.Popen(command, stdout=terminal, stderr=terminal)
    os.close(terminal)
    output = ""
    while "reading the weights" not in output:
        output += os.read(controller, 65536).decode()  # EIO once the verb has ended
    Path("/opt/seen").touch()
    assert process.wait(timeout=60) == 0
    os.close(controller)
    assert re.search(r"\r\x1b\[K +\d+ s  slow is loading: reading the weights", output)


def test_a_stop_while_loading_ends_an_engine_that_swallows_sigterm() -> None:
    ignores_sigterm = "import signal, time\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\ntime.sleep(1000)"
    recipe("deaf", binary=script(Path("/opt/deaf"), ignores_sigterm))
    recipectl("apply", "deaf")
    subprocess.run(["systemctl", "start", "--no-block", "model-deaf.service"], check=True)
    until("deaf", "SubState", "start-post")
    assert recipectl("stop", "deaf").returncode == 0
    assert "timed out. Killing" not in journal("model-deaf.service")
    assert show("deaf", "ActiveState") == "inactive"


def test_an_engine_that_never_becomes_ready_is_told() -> None:
    recipe(
        "mute", binary=script(Path("/opt/mute"), "import time; time.sleep(1000)"), ready={"timeout_sec": 10}
    )
    recipectl("apply", "mute")
    failed = recipectl("start", "mute")
    assert failed.returncode == 1
    assert "did not become ready within `ready.timeout_sec`" in failed.stderr


def test_one_bad_recipe_stops_no_other() -> None:
    recipe("good")
    recipe("bad", port=0)
    applied = recipectl("apply", "bad", "good")
    assert (applied.returncode, Path("/etc/systemd/system/model-good.service").exists()) == (2, True)


def test_words_and_variables_arrive_as_they_are() -> None:
    words = ["", "a b", "100%n", "$HOME", "#x", ";", "\n\r\t\\\"'", '{"a": 1}', "naïve 😀 \u2028", "\x01\x7f"]
    dump = "import json, os, sys\nopen('/var/lib/models/dump/dump', 'w').write(json.dumps([sys.argv, dict(os.environ)]))\nsys.exit(2)"
    variables = {f"V{index}": word for index, word in enumerate(words)}
    recipe("dump", binary=script(Path("/opt/dump"), dump), args=words, env_vars=variables)
    assert recipectl("apply", "dump").stderr == ""
    recipectl("start", "dump")
    argv, environ = json.loads(Path("/var/lib/models/dump/dump").read_text())
    assert (argv[-len(words) :], {name: environ[name] for name in variables}) == (words, variables)


def test_a_caller_without_permission_is_told_and_nothing_changes(served: str) -> None:
    nobody = ["setpriv", "--reuid=65534", "--clear-groups", sys.executable, "-m", "recipectl", "stop", served]
    failed = subprocess.run(nobody, capture_output=True, text=True, check=False)
    assert failed.returncode == 1
    assert failed.stderr.endswith(
        "run it as root (sudo), as a member of the group models, or with --user for your own units\n"
    )
    assert show(served, "ActiveState") == "active"


def test_a_host_without_systemd_is_told() -> None:
    hidden = ["unshare", "--mount", "sh", "-c", 'mount -t tmpfs none /run; exec "$@"', "-"]
    failed = subprocess.run(
        [*hidden, sys.executable, "-m", "recipectl", "start", "x"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (failed.returncode, failed.stderr[:34]) == (1, "there is no connection to systemd ")


def test_a_start_limit_that_was_reached_is_reset_and_said() -> None:
    recipe("limit", binary=script(Path("/opt/limit"), "import sys; sys.exit(2)"))
    recipectl("apply", "limit")
    recipectl("start", "limit")
    assert (
        "model-limit.service had failed (exit-code); its start limit was reset"
        in recipectl("start", "limit").stderr
    )


def test_an_engine_that_always_fails_is_given_up_after_its_start_limit() -> None:
    failing = script(Path("/opt/always"), "import sys; sys.exit(1)")
    recipe("limit", binary=failing, service={"RestartSec": "100ms"})
    recipectl("apply")
    recipectl("start", "limit")
    until("limit", "SubState", "failed", timeout_sec=120)  # 254 and newer: the pauses grow
    assert show("limit", "NRestarts") == "4"
    assert "its start limit was reset" in recipectl("start", "limit").stderr


def test_a_ready_engines_drain_is_not_cut_short() -> None:
    draining = """
import http.server, signal, sys, threading, time
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self): self.send_response(200); self.end_headers()
    def log_message(self, *a): pass
server = http.server.ThreadingHTTPServer(("127.0.0.1", 18200), Handler)
def drain(*a):
    time.sleep(6)
    open("/var/lib/models/drains/done", "w").close()
    sys.exit(0)
signal.signal(signal.SIGTERM, drain)
threading.Thread(target=server.serve_forever, daemon=True).start()
while True: signal.pause()
"""
    recipe("drains", binary=script(Path("/opt/drains"), draining))
    recipectl("apply")
    assert recipectl("start", "drains").returncode == 0
    assert recipectl("stop", "drains").returncode == 0
    assert Path("/var/lib/models/drains/done").exists()
    assert show("drains", "ActiveState") == "inactive"


def test_an_engine_that_exits_0_by_itself_comes_back(served: str) -> None:
    os.kill(main_pid(served), signal.SIGTERM)  # llama-server ends with 0
    until(served, "NRestarts", "1")
    until(served, "ActiveState", "active")


@pytest.mark.parametrize("user", [False, True], ids=["root", "user"])
def test_the_demo_runs_where_pid_1_is_systemd(user: bool, request: pytest.FixtureRequest) -> None:
    demo = [str(ROOT / "packaging/demo")]
    if user:
        result = as_ann(request.getfixturevalue("ann"), *demo)
    else:
        result = subprocess.run(demo, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert "Blue" in result.stdout
    assert "state:     ready since" in result.stdout
    assert ("recipectl --user start" in result.stdout) == user


def test_several_load_at_once_and_one_that_fails_stops_no_other() -> None:
    answers = """
import http.server, os, sys, time
while not os.path.exists("/opt/go"): time.sleep(0.1)
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self): self.send_response(200); self.end_headers()
http.server.HTTPServer(("127.0.0.1", int(sys.argv[sys.argv.index("--port") + 1])), Handler).serve_forever()
"""
    slow = script(Path("/opt/slowly"), answers)
    recipe("a", binary=slow, port=18201)
    recipe("b", binary=script(Path("/opt/broken"), "import sys; sys.exit(2)"), port=18202)
    recipe("c", binary=slow, port=18203)
    recipectl("apply")
    command = [sys.executable, "-m", "recipectl", "start", "b", "a", "c"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as start:
        try:
            for name in "ac":
                until(name, "SubState", "start-post")  # both load now
        finally:
            Path("/opt/go").touch()
        errors = start.communicate()[1]
    assert (start.returncode, show("a", "ActiveState"), show("c", "ActiveState")) == (1, "active", "active")
    assert "model-b.service did not start: the engine exited with status 2" in errors
    start_time = [int(show(name, "ExecMainStartTimestampMonotonic")) for name in "ac"]
    ready = [int(show(name, "ActiveEnterTimestampMonotonic")) for name in "ac"]
    assert max(start_time) < min(ready)
    assert recipectl("stop", "a", "c", "a").returncode == 0


def test_an_unknown_name_is_told_before_anything_starts(served: str) -> None:
    recipectl("stop", served)
    failed = recipectl("start", served, "nobody")
    assert (failed.returncode, show(served, "ActiveState")) == (2, "inactive")
    assert failed.stderr.startswith("there is no recipe `nobody` in ")
