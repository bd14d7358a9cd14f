"""The Debian package: install, upgrade under a model that serves, remove, purge."""

import shutil
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from guide import newer_package

from live.common import ask, recipe, show, systemctl, until

pytestmark = pytest.mark.systemd
ROOT = Path(__file__).parents[2]
PORT = 18850


def run(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(words, capture_output=True, text=True, check=False, timeout=300)


def dpkg(*words: str) -> str:
    done = run("dpkg", *words)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


@pytest.fixture(scope="module")
def package() -> Path:
    (file,) = (ROOT / ".build/deb").glob("recipectl_*.deb")
    return file


@pytest.fixture
def installed(package: Path) -> Iterator[str]:
    """The package on a system without any other recipectl; the path of its command."""
    systemctl("disable", "--now", "recipectl-apply.service")  # of a playbook's test
    Path("/etc/systemd/system/recipectl-apply.service").unlink(missing_ok=True)
    run("dpkg", "-P", "recipectl")
    dpkg("-i", str(package))
    yield "/usr/bin/recipectl"
    run("dpkg", "-P", "recipectl")


def test_an_installation_starts_nothing_and_has_its_pages_and_rules(installed: str) -> None:
    assert run(installed, "--version").stdout.startswith("recipectl 0.1.0 (deb ")
    assert systemctl("is-enabled", "recipectl-apply.service") == "disabled"
    assert systemctl("is-active", "recipectl-apply.service") == "inactive"
    for path in (
        "/usr/share/man/man1/recipectl.1.gz", "/usr/share/man/man5/recipe.5.gz", "/usr/share/polkit-1/rules.d/50-recipectl.rules",
        "/usr/share/bash-completion/completions/recipectl", "/usr/share/zsh/vendor-completions/_recipectl",
        "/usr/share/fish/vendor_completions.d/recipectl.fish", "/usr/share/doc/recipectl/examples/recipe.schema.json",
        "/etc/needrestart/conf.d/recipectl.conf",
    ):  # fmt: skip
        assert Path(path).exists(), path
    assert run("getent", "group", "models").returncode == 0
    assert "LGPL" in Path("/usr/share/doc/recipectl/copyright").read_text()
    completing = "source /usr/share/bash-completion/completions/recipectl; COMP_WORDS=(recipectl sta); COMP_CWORD=1; _recipectl_completion recipectl; echo ${COMPREPLY[@]}"
    assert run("bash", "-c", completing).stdout.split() == ["start", "status"]


def test_models_outlive_an_upgrade_and_the_package(installed: str, package: Path, tmp_path: Path) -> None:
    recipe("outlives", port=PORT, served_model_name="outlives", autostart=True)
    done = run(installed, "apply")
    assert done.returncode == 0, done.stderr
    assert run(installed, "wait", "outlives").returncode == 0
    unit = "model-outlives.service"
    before = show("outlives", "MainPID")
    failures: list[str] = []
    ending = threading.Event()

    def serve() -> None:
        while not ending.is_set():
            try:
                assert ask(PORT) == "outlives"
            except Exception as error:
                failures.append(repr(error))
            time.sleep(0.05)

    asking = threading.Thread(target=serve)
    asking.start()
    shutil.copy(package, tmp_path)
    dpkg("-i", str(newer_package(tmp_path)))
    assert run(installed, "apply").returncode == 0
    assert run(installed, "diff").returncode == 0
    dpkg("-r", "recipectl")
    ending.set()
    asking.join()
    assert failures == []
    assert show("outlives", "MainPID") == before
    assert not Path("/usr/bin/recipectl").exists()
    # A crash, and all models down and up as at a boot.
    systemctl("kill", "--signal=SIGKILL", unit)
    until("outlives", "NRestarts", "1")
    until("outlives", "ActiveState", "active")
    assert show("outlives", "MainPID") != before
    assert ask(PORT) == "outlives"
    systemctl("stop", "models.target")
    systemctl("start", "models.target")
    until("outlives", "ActiveState", "active")
    assert ask(PORT) == "outlives"
    output = dpkg("-P", "recipectl")
    assert "these are yours and stay: /etc/recipectl" in output
    assert Path("/etc/recipectl/recipes/outlives.json").exists()
    systemctl("disable", "--now", "models.target", unit)


BUILD = """
import sys
import setuptools.build_meta as backend
print(backend.build_sdist(".") if sys.argv[1] == "sdist" else backend.build_wheel("."))
"""
PLACES = (
    "/usr/local/share/man/man1/recipectl.1", "/usr/local/share/man/man5/recipe.5",
    "/usr/local/share/bash-completion/completions/recipectl", "/usr/local/share/zsh/site-functions/_recipectl",
    "/usr/local/share/fish/vendor_completions.d/recipectl.fish", "/etc/polkit-1/rules.d/50-recipectl.rules",
    "/etc/systemd/system/recipectl-apply.service",
)  # fmt: skip


@pytest.mark.parametrize("kind", ["wheel", "sdist"])
def test_a_wheel_and_an_sdist_are_installed_into_an_empty_venv(kind: str, tmp_path: Path) -> None:
    """As the guide has it, by root in /opt; and not in a throwaway system, where any installation may apply."""
    source, venv = tmp_path / "source", Path(f"/opt/recipectl-{kind}")
    ignored = shutil.ignore_patterns(".build", ".venv", ".git", "__pycache__", "*.egg-info", "build")
    shutil.copytree(ROOT, source, symlinks=True, ignore=ignored)
    subprocess.run(["packaging/man"], cwd=source, check=True)
    subprocess.run(["/usr/bin/python3", "-m", "venv", str(venv)], check=True)
    pip = [
        f"{venv}/bin/python",
        "-m",
        "pip",
        "install",
        "-q",
        "--no-index",
        f"--find-links={ROOT}/.build/wheels",
    ]
    subprocess.run([*pip, "setuptools>=71"], check=True)  # it makes wheels by itself
    building = [f"{venv}/bin/python", "-c", BUILD, kind]
    built = subprocess.run(building, cwd=source, check=True, capture_output=True, text=True).stdout.split()[
        -1
    ]
    subprocess.run([*pip, str(source / built)], check=True)
    program, marker = f"{venv}/bin/recipectl", Path("/run/throwaway")
    assert run(program, "--version").stdout.startswith("recipectl 0.1.0 (")
    assert run(program, "setup").returncode == 0
    assert [path for path in PLACES if not Path(path).exists()] == []
    assert f"ExecStart={program} " in Path("/etc/systemd/system/recipectl-apply.service").read_text()
    recipe("wheeled", port=PORT)
    marker.rename("/run/lasting")
    try:
        done = run(program, "apply")
    finally:
        Path("/run/lasting").rename(marker)
    assert (done.returncode, done.stderr) == (0, "")
    assert "wrote model-wheeled.service: new" in done.stdout
    assert run(program, "setup", "--remove").returncode == 0
    assert [path for path in PLACES if Path(path).exists()] == []
    shutil.rmtree(venv)
