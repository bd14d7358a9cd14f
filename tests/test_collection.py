"""The Ansible collection as its own tools see it: ansible-lint, ansible-test and ansible-doc."""

import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "packaging/ansible"
MODULES = sorted(path.stem for path in (SOURCE / "plugins/modules").glob("*.py"))


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The collection in a folder of collections, as its tools want it."""
    folder = tmp_path_factory.mktemp("collections")
    shutil.copytree(SOURCE, folder / "ansible_collections/recipectl/models")
    return folder


def run(
    installed: Path, *words: str, core: str = "ansible", home: Path | None = None
) -> subprocess.CompletedProcess[str]:
    programs = ROOT / ".build" / core / "bin"
    environment = os.environ | {
        "PATH": f"{programs}:{os.environ['PATH']}",
        "ANSIBLE_COLLECTIONS_PATH": str(installed),
        "HOME": str(home or Path.home()),
        "NO_COLOR": "1",
        "LC_ALL": "C.UTF-8",
    }
    return subprocess.run(
        words,
        cwd=installed / "ansible_collections/recipectl/models",
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )


def test_ansible_lint_finds_nothing_in_its_production_profile(installed: Path) -> None:
    result = run(installed, "ansible-lint", "--offline", "--profile", "production", "--strict")
    assert result.returncode == 0, result.stdout + result.stderr


def test_ansible_test_finds_no_fault_in_the_modules(installed: Path, tmp_path: Path) -> None:
    words = [
        "ansible-test",
        "sanity",
        "--test",
        "validate-modules",
        "--python",
        f"3.{sys.version_info.minor}",
        "--color",
        "no",
    ]
    result = run(installed, *words, home=tmp_path)
    # It fetches a pip for its own venvs from a host that is no registry: Python has one too.
    if bootstrap := re.search(r"saved to: (\S+)", result.stdout + result.stderr):
        Path(bootstrap[1]).write_text("import ensurepip\nensurepip.bootstrap()\n")
        result = run(installed, *words, home=tmp_path)
    assert result.returncode == 0, result.stdout + result.stderr
    assert "validate-modules" in result.stdout + result.stderr


@pytest.mark.parametrize("core", ["ansible", "ansible-oldest"])
def test_each_module_is_documented(installed: Path, core: str) -> None:
    names = [f"recipectl.models.{name}" for name in MODULES]
    result = run(installed, "ansible-doc", *names, core=core)
    assert result.returncode == 0, result.stderr
    assert [name for name in names if name.upper() not in result.stdout.upper()] == []


def test_the_collection_has_the_version_of_recipectl() -> None:
    galaxy = yaml.safe_load((SOURCE / "galaxy.yml").read_text())
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert galaxy["version"] == project["version"]
    assert f"recipectl-models-{project['version']}.tar.gz" in (SOURCE / "README.md").read_text()
    added = re.findall(r"^version_added: (.*)$", (SOURCE / "plugins/modules/recipe.py").read_text(), re.M)
    assert added == ["0.1.0"]
