"""Who may do what, and from where: polkit's rule for a group, and another host over ssh."""

import pwd
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from live.common import recipe, recipectl, show

pytestmark = pytest.mark.systemd
ROOT = Path(__file__).parents[2]


def run_as(user: str, *words: str) -> subprocess.CompletedProcess[str]:
    command = ["setpriv", f"--reuid={user}", f"--regid={pwd.getpwnam(user).pw_gid}", "--init-groups", *words]
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd="/", timeout=300)


@pytest.fixture
def operator() -> str:
    subprocess.run(["groupadd", "-f", "models"], check=True)
    subprocess.run(["useradd", "-m", "-G", "models", "olga"], check=False, capture_output=True)
    rules = Path("/etc/polkit-1/rules.d")
    rules.mkdir(parents=True, exist_ok=True)
    (rules / "50-recipectl.rules").write_text((ROOT / "agent/recipectl/share/50-recipectl.rules").read_text())
    subprocess.run(["systemctl", "reset-failed", "polkit"], check=False, capture_output=True)
    subprocess.run(["systemctl", "restart", "polkit"], check=True)
    return "olga"


def test_a_group_may_start_and_stop_models(operator: str) -> None:
    recipe("a", port=18201)
    recipectl("apply")
    started = run_as(operator, sys.executable, "-m", "recipectl", "start", "a")
    assert (started.returncode, show("a", "ActiveState")) == (0, "active"), started.stderr
    assert run_as(operator, sys.executable, "-m", "recipectl", "stop", "a").returncode == 0


def test_and_it_sees_what_root_sees(operator: str) -> None:
    recipe("a", port=18201)
    recipectl("apply")
    seen = run_as(operator, sys.executable, "-m", "recipectl", "diff")
    assert (seen.returncode, seen.stdout, seen.stderr) == (0, "", "")


def test_and_it_may_do_nothing_else(operator: str) -> None:
    Path("/run/systemd/system/other.service").write_text("[Service]\nExecStart=/bin/sleep 100\n")
    subprocess.run(["systemctl", "daemon-reload"], check=True)
    assert run_as(operator, "systemctl", "--no-ask-password", "start", "other.service").returncode != 0
    assert (
        run_as(operator, "systemctl", "--no-ask-password", "start", "model-a.service.d/x.service").returncode
        != 0
    )
    assert run_as(operator, "systemctl", "--no-ask-password", "daemon-reload").returncode != 0


# A transient unit, as systemd-run makes one, with a name that the rule allows to start.
ROOT_SHELL = ["--no-ask-password", "--quiet", "sh", "-c", "id -u >/run/became-root"]


@pytest.mark.parametrize("unit", ["model-a.service", "model-stranger.service", "model-a-proxy.service"])
def test_a_name_alone_gives_no_rights(operator: str, unit: str) -> None:
    recipe("a", port=18201)
    recipectl("apply")
    marker = Path("/run/became-root")
    marker.unlink(missing_ok=True)
    refused = run_as(operator, "systemd-run", f"--unit={unit}", *ROOT_SHELL)
    time.sleep(0.5)
    assert (refused.returncode != 0, marker.exists()) == (True, False)


def test_an_on_demand_model_may_be_started_and_stopped_too(operator: str) -> None:
    recipe("a", port=18201, on_demand={"idle": "1min"})
    recipectl("apply")
    started = run_as(operator, sys.executable, "-m", "recipectl", "start", "a")
    assert (started.returncode, show("a", "ActiveState")) == (0, "active"), started.stderr
    assert run_as(operator, sys.executable, "-m", "recipectl", "stop", "a").returncode == 0


def test_a_host_name_is_a_word_and_no_command() -> None:
    marker = Path("/run/far")
    recipectl("-H", "nobody@127.0.0.1:9", "logs", "x;touch /run/far;")
    refused = recipectl("-H", "-oProxyCommand=touch /run/far", "status", "a")
    assert (refused.returncode, marker.exists()) == (2, False)


@pytest.fixture
def there(tmp_path: Path) -> Iterator[str]:
    """This host as another one: a real ssh server on loopback, with a key of the test's own."""
    key, host_key = tmp_path / "key", tmp_path / "host"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(key)], check=True)
    subprocess.run(["dropbearkey", "-t", "ed25519", "-f", str(host_key)], check=True, capture_output=True)
    home = Path.home() / ".ssh"
    home.mkdir(mode=0o700, exist_ok=True)
    (home / "authorized_keys").write_text(key.with_suffix(".pub").read_text())
    (home / "config").write_text(
        f"Host there\n HostName 127.0.0.1\n Port 18022\n User root\n IdentityFile {key}\n"
        f" StrictHostKeyChecking no\n UserKnownHostsFile {tmp_path}/known\n LogLevel ERROR\n"
    )
    (home / "config").chmod(0o600), (home / "authorized_keys").chmod(0o600)
    server = subprocess.Popen(["dropbear", "-F", "-s", "-p", "127.0.0.1:18022", "-r", str(host_key)])
    end = time.monotonic() + 10
    while subprocess.run(["ssh", "there", "true"], check=False, capture_output=True).returncode:
        assert time.monotonic() < end, "the ssh server does not answer"
        time.sleep(0.1)
    yield "there"
    server.terminate()
    server.wait()
    for name in ("config", "authorized_keys"):
        (home / name).unlink()


def test_another_hosts_model_is_started_asked_and_stopped_over_ssh(there: str) -> None:
    recipe("a", port=18201)
    recipectl("apply")
    started = recipectl("-H", there, "start", "a")
    assert (started.returncode, show("a", "ActiveState")) == (0, "active"), started.stderr
    assert "ready since" in recipectl("-H", there, "status", "a").stdout
    assert recipectl("-H", there, "wait", "a").returncode == 0
    assert recipectl("-H", there, "stop", "a").returncode == 0


def test_what_needs_the_other_hosts_files_says_how(there: str) -> None:
    result = recipectl("-H", there, "apply")
    assert (result.returncode, f"ssh {there} recipectl" in result.stderr) == (2, True)


@pytest.mark.parametrize("verb", ["start", "status"])
def test_a_host_that_cannot_be_reached_is_told_once(verb: str) -> None:
    result = recipectl("-H", "nobody@no-such-host.invalid", verb, "a")
    lines = result.stderr.splitlines()
    assert (result.returncode, result.stdout, len(lines)) == (1, "", 2), result.stderr
    assert lines[0].startswith("ssh: ")
    assert "systemd-stdio-bridge" in lines[1]
