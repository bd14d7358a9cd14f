"""The example playbook under real ansible-core: converge, change nothing, tell what would change."""

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from live.common import RECIPES, ask, recipe

pytestmark = pytest.mark.systemd
ROOT = Path(__file__).parents[2]
PLAY = ROOT / "packaging/ansible/site.yml"


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """What an admin has beside the playbook: an inventory, a host file and a recipe that starts at boot."""
    recipe("ansible", port=18700, served_model_name="ansible", autostart=True)
    (tmp_path / "recipes").mkdir()
    shutil.move(RECIPES / "ansible.json", tmp_path / "recipes/ansible.json")
    (tmp_path / "host.yaml").write_text("environment: {SITE: ansible}\n")
    (tmp_path / "inventory").write_text(
        "localhost ansible_connection=local ansible_python_interpreter=/usr/bin/python3\n"
    )
    shutil.copy(PLAY, tmp_path)
    return tmp_path


WHEEL, DEB = ".build/wheels/recipectl-*.whl", ".build/deb/recipectl_*.deb"


def play(site: Path, *words: str, package: str = WHEEL) -> subprocess.CompletedProcess[str]:
    (file,) = ROOT.glob(package)
    variables = {"recipectl_wait_for": ["ansible"], "recipectl_install_packages": False}
    variables |= {"recipectl_at_boot": True, "recipectl_package": str(file)}
    playbook = str(ROOT / ".build/ansible/bin/ansible-playbook")
    command = [playbook, "-i", "inventory", "site.yml", "-e", json.dumps(variables), *words]
    environ = os.environ | {
        "PIP_NO_INDEX": "1",
        "PIP_FIND_LINKS": str(ROOT / ".build/wheels"),
        "LC_ALL": "C.UTF-8",
    }
    return subprocess.run(
        command, cwd=site, env=environ, capture_output=True, text=True, check=False, timeout=300
    )


@pytest.mark.parametrize("package", [WHEEL, DEB], ids=["wheel", "deb"])
def test_the_playbook_installs_converges_and_a_second_run_changes_nothing(site: Path, package: str) -> None:
    first = play(site, package=package)
    assert first.returncode == 0, first.stdout[-3000:]
    assert ask(18700) == "ansible"
    second = play(site, package=package)
    assert "changed=0" in second.stdout, second.stdout[-3000:]
    booting = ["systemctl", "start", "recipectl-apply.service"]  # as at boot, by the name in its ExecStart=
    assert subprocess.run(booting, check=False).returncode == 0


def test_a_recipe_that_is_wrong_fails_the_play_with_its_sentence(site: Path) -> None:
    (site / "recipes/wrong.yaml").write_text("model_path: m\nport: 0\n")
    result = play(site)
    assert result.returncode != 0
    assert "wrong.yaml:2:7: `port` is `0`; give at least 1" in result.stdout


def test_check_mode_shows_the_change_and_makes_none(site: Path) -> None:
    play(site)
    (site / "host.yaml").write_text("environment: {SITE: elsewhere}\n")
    checked = play(site, "--check", "--diff")
    assert checked.returncode == 0, checked.stdout[-3000:]
    assert "+environment: {SITE: elsewhere}" in checked.stdout
    assert "changed=0" not in checked.stdout
    assert "Environment=SITE=ansible" in Path("/etc/systemd/system/model-ansible.service").read_text()
    assert subprocess.run(["/opt/recipectl/bin/recipectl", "apply", "--check"], check=False).returncode == 0
