"""`fleet versions` over ssh: hosts with a systemd each, of which some differ in what only that host knows."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hosts import ROOT, Host, Network, with_ssh

pytestmark = pytest.mark.boots
COUNT = int(os.environ.get("FLEET_HOSTS", "5"))
VENV = "/opt/venvs/a"
WHEEL = f"{VENV}/lib/python3.11/site-packages"
RECIPE = f"model_path: org/m\nvenv_path: {VENV}\nport: 8000\ngpus: [0, 1]\n"
GPU = "/proc/driver/nvidia/gpus/0000:0%d:00.0/information"
WHEELS = {"vllm": "0.32.0", "torch": "2.9.0", "triton": "3.5.0", "numpy": "2.2.6"}
# What is planted -> the script that plants it, and what is told of it.
FAULTS = {
    "silent": ("kill $(cat /run/dropbear.pid)", r"^HOST: no answer: .*(refused|closed|reset)"),
    "engine": (f"mv {WHEEL}/vllm-0.32.0.dist-info {WHEEL}/vllm-0.31.0.dist-info; sed -i s/0.32.0/0.31.0/ "
               f"{WHEEL}/vllm-0.31.0.dist-info/METADATA; recipectl apply -q", r"^a: the engine is .*vllm 0\.31\.0 on .*HOST"),
    "driver": ("echo 570.86.15 >/sys/module/nvidia/version", r"^a: the driver is .*570\.86\.15 on .*HOST"),
    "torch": (f"mv {WHEEL}/torch-2.9.0.dist-info {WHEEL}/torch-2.9.1.dist-info; sed -i s/2.9.0/2.9.1/ "
              f"{WHEEL}/torch-2.9.1.dist-info/METADATA", r"^a: the wheel torch is .*2\.9\.1 \(.*HOST"),
    "files": (f"echo more >>{WHEEL}/torch-2.9.0.dist-info/RECORD", r"^a: the wheel torch is .*2\.9\.0 \(.*HOST"),
    "gone": (f"rm -r {WHEEL}/triton-3.5.0.dist-info", r"^a: the wheel triton is none on HOST"),
    "new": (f"cp -r {WHEEL}/triton-3.5.0.dist-info {WHEEL}/xformers-0.0.33.dist-info; sed -i "
            f"'s/triton/xformers/;s/3.5.0/0.0.33/' {WHEEL}/xformers-0.0.33.dist-info/METADATA",
            r"^a: the wheel xformers is 0\.0\.33 \(.* on HOST; none on"),
    "numpy": (f"echo more >>{WHEEL}/numpy-2.2.6.dist-info/RECORD", r"^a: the wheel numpy is .* on HOST"),
    "start": (f"echo import os >{WHEEL}/planted.pth", r"^a: the file planted\.pth is .* on HOST; none on"),
    "interpreter": (f"cp --remove-destination $(readlink -f {VENV}/bin/python) {VENV}/bin/python.new; echo >>{VENV}/bin/python.new; "
                    f"mv {VENV}/bin/python.new {VENV}/bin/python; recipectl apply -q", r"^a: the interpreter's file is .* on HOST"),
    "another model of GPU": (f"sed -i s/H100/H200/ {GPU % 1} {GPU % 2}", r"^a: the GPU is .*2 x NVIDIA H200.* on .*HOST"),
    "one GPU is another": (f"sed -i s/H100/A100/ {GPU % 2}", r"^a: the GPU is .*1 x NVIDIA A100, 1 x NVIDIA H100 on HOST"),
    "one GPU is gone": (f"rm {GPU % 2}", r"^a: the GPU is .*1 x NVIDIA H100 on HOST"),
    "no driver": ("rm /sys/module/nvidia/version", r"^a: the driver is .*none on HOST"),
    "not applied": ("sed -i 's/8000/8001/' /etc/recipectl/recipes/a.yaml", r"^HOST: a: "),
    "edited unit": ("sed -i s/8000/8002/ /etc/systemd/system/model-a.service; systemctl daemon-reload", r"^HOST: a: "),
    "wrong": ("echo 'prot: 1' >>/etc/recipectl/recipes/a.yaml", r"^HOST: a: .*a\.yaml:5:1: .*prot"),
    "no recipectl": ("rm /usr/bin/recipectl", r"^HOST: no answer: recipectl is not installed there"),
    "hostile": (r"""rm /usr/bin/recipectl; printf '#!/bin/sh\nprintf "\\033]0;owned\\007{" >&2; echo "[[[["\n' >/usr/bin/recipectl; """
                "chmod +x /usr/bin/recipectl", r"^HOST: no answer: .*owned"),
    "endless": (r"rm /usr/bin/recipectl; printf '#!/bin/sh\nyes\n' >/usr/bin/recipectl; chmod +x /usr/bin/recipectl",
                r"^HOST: no answer: it says more than"),
}  # fmt: skip


@pytest.fixture(scope="module")
def many_systemds() -> Iterator[None]:
    """Room for more than 30 systemds: each watches files with four instances of inotify(7)."""
    limit = Path("/proc/sys/fs/inotify/max_user_instances")
    before = limit.read_text()
    limit.write_text(str(max(int(before), COUNT * 8)))
    yield
    limit.write_text(before)


@pytest.fixture(scope="module")
def fleet(many_systemds: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[list[Host], Path]]:
    """Hosts with the same recipe, an ssh server each, and an inventory of them."""
    folder = tmp_path_factory.mktemp("fleet")
    shared = ROOT / f".build/fleet.{os.getpid()}"
    shared.mkdir()
    with Network(COUNT, shared) as hosts:
        (folder / "inventory").write_text(with_ssh(hosts, folder))
        for host in hosts:
            prepare(host)
        yield hosts, folder
    shutil.rmtree(shared)


def prepare(host: Host) -> None:
    wheels = "".join(
        f"mkdir -p {WHEEL}/{name}-{version}.dist-info; "
        f"printf 'Metadata-Version: 2.1\\nName: {name}\\nVersion: {version}\\n' >{WHEEL}/{name}-{version}.dist-info/METADATA; "
        f"echo {name}.py,sha256=x,1 >{WHEEL}/{name}-{version}.dist-info/RECORD\n"
        for name, version in WHEELS.items()
    )
    cards = "".join(
        f"mkdir -p {Path(GPU % number).parent}; "
        f"printf 'Model: \\t\\t NVIDIA H100\\nGPU UUID: \\t GPU-{host.name}-{number}\\nDevice Minor: \\t {number - 1}\\n' >{GPU % number}\n"
        for number in (1, 2)
    )
    host.shell(f"""
mount -t tmpfs driver /proc/driver; mount -t tmpfs modules /sys/module; mkdir /sys/module/nvidia
echo 580.82.07 >/sys/module/nvidia/version
{cards}
mkdir -p {VENV}/bin {WHEEL}
echo 'home = /usr/bin' >{VENV}/pyvenv.cfg
ln -s {Path(sys.executable).resolve()} {VENV}/bin/python
printf '#!{VENV}/bin/python\\n' >{VENV}/bin/vllm; chmod +x {VENV}/bin/vllm
{wheels}
ln -sf {Path(sys.executable).with_name("recipectl")} /usr/bin/recipectl
mkdir -p /etc/recipectl/recipes; cat >/etc/recipectl/recipes/a.yaml <<'END'
{RECIPE}END
recipectl apply -q
""")


def versions(fleet: tuple[list[Host], Path], *words: str) -> subprocess.CompletedProcess[str]:
    """`fleet versions` as an admin of the same network has it."""
    hosts, folder = fleet
    inside = ["nsenter", "-t", str(hosts[0].switch.process.pid), "-n"]
    command = [*inside, sys.executable, "-m", "recipectl", "fleet", "versions", "-i", "inventory", *words]
    environment = os.environ | {"PATH": f"{ROOT}/.build/ansible/bin:{os.environ['PATH']}"}
    return subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, check=False, timeout=300
    )


def test_the_same_on_all_hosts_is_one_row(fleet: tuple[list[Host], Path]) -> None:
    result = versions(fleet)
    progress = r"[0-9]+ s: .* have answered"
    assert all(re.fullmatch(progress, line) for line in result.stderr.splitlines())
    assert result.returncode == 0
    header, row = result.stdout.splitlines()
    assert header.split() == ["RECIPE", "ENGINE", "LOCK", "DRIVER", "GPUS", "HOSTS"]
    assert re.fullmatch(r"a +vllm 0\.32\.0 +[0-9a-f]{8} +580\.82\.07 +2 x NVIDIA H100 +gpu1, .*", row)


def test_each_planted_difference_is_told_and_nothing_else(fleet: tuple[list[Host], Path]) -> None:
    hosts, _ = fleet
    planted = dict(zip(FAULTS, hosts[1::2], strict=False))
    for fault, host in planted.items():
        host.shell(FAULTS[fault][0])
    result = versions(fleet)
    lines = [
        line
        for line in (result.stdout + result.stderr).splitlines()
        if not re.match(r"RECIPE|a  |-  |[0-9]+ s:", line)
    ]
    for fault, host in planted.items():
        pattern = FAULTS[fault][1].replace("HOST", rf"{host.name}\b")
        assert any(re.search(pattern, line) for line in lines), (fault, lines)
    assert result.returncode == 3
    assert "\033" not in result.stdout + result.stderr
    told = {word for line in lines for word in re.findall(r"gpu\d+", line.partition(";")[0])}
    assert told == {host.name for host in planted.values()}
    answer = json.loads(versions(fleet, "--json").stdout)
    assert {each["host"] for each in answer["no_answer"]} <= {host.name for host in planted.values()}
    assert sum(len(model["hosts"]) for model in answer["models"]) + len(answer["no_answer"]) == COUNT
