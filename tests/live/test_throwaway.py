"""The throwaway systemd changes nothing on the machine it runs on."""

import os
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TOOL = str(ROOT / "packaging/throwaway-systemd")
CAN = os.geteuid() == 0 and subprocess.run(["unshare", "--mount", "true"], check=False).returncode == 0
pytestmark = pytest.mark.skipif(not CAN, reason="namespaces need root: make live tests it with sudo")


def machine() -> tuple[object, ...]:
    """What must stay as it was: mounts, systemd processes, our cgroups, unit files, the checkout."""
    mounts = Path("/proc/self/mountinfo").read_text()
    cgroups = sorted(str(path) for path in Path("/sys/fs/cgroup").rglob("throwaway-systemd.*"))
    units = sorted(str(path) for path in Path("/etc/systemd/system").rglob("*"))
    names = [path.read_text() for path in Path("/proc").glob("[0-9]*/comm")]
    status = subprocess.run(
        ["git", "-C", str(ROOT), "status", "--porcelain"], capture_output=True, check=False
    )
    return mounts, cgroups, units, names.count("systemd\n"), status.stdout


def test_a_boot_that_writes_and_cleans_leaves_the_machine_as_it_was(tmp_path: Path) -> None:
    kept = tmp_path / "kept"
    kept.write_text("mine")
    before = machine()
    doing = (
        "touch /etc/throwaway-was-here /tmp/throwaway-was-here " + str(ROOT) + "/throwaway-was-here; "
        "systemd-run --wait -q true; systemd-tmpfiles --remove --clean; rm -rf /tmp/* /var/tmp/*; "
        "echo '[Service]\nExecStart=/bin/sleep 1000' >/etc/systemd/system/stray.service; systemctl start stray"
    )
    subprocess.run([TOOL, "sh", "-c", doing], check=True, timeout=60)
    assert kept.read_text() == "mine"
    assert not Path("/etc/throwaway-was-here").exists()
    assert machine() == before


def test_the_status_is_the_commands_own() -> None:
    assert subprocess.run([TOOL, "sh", "-c", "exit 7"], check=False, timeout=60).returncode == 7
