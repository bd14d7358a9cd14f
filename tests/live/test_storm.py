"""A host of 30 mixed recipes in a storm of faults: it ends as its recipes say."""

import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from live.common import ENGINE, RECIPES, ask, recipe, recipectl, show, systemctl

pytestmark = pytest.mark.systemd
SEED = int(os.environ.get("STORM_SEED", "20261124"))
FAULTS = int(os.environ.get("STORM_FAULTS", "60"))
COMMON = {
    "ready": {"timeout_sec": 150},  # an engine that hangs while it loads is found when this is over
    "args": ["--threads", "1"],
    "service": {"RestartSec": "500ms"},
    "max_model_len": 256,
}


def write_recipes() -> list[str]:
    """12 that start at boot, 6 on demand, 6 that fight for two GPUs, 3 in a chain, 3 that nobody starts."""
    for index in range(12):
        watch = {"watch": {"every": "2s", "failures": 2, "timeout": "2s"}} if index % 4 == 0 else {}
        shared = {"gpus": ["5"], "gpu_sharing": "ordered"} if index % 4 == 1 else {}
        recipe(f"boot{index}", port=18801 + index, autostart=True, **COMMON, **watch, **shared)
    for index in range(6):
        demand = {"idle": "1min", "evict": "always" if index % 2 else "idle", "patience": "3s"}
        recipe(f"demand{index}", port=18821 + index, on_demand=demand, gpus=[str(index % 3)], **COMMON)
    for index in range(6):
        recipe(f"rival{index}", port=18841 + index, gpus=[str(3 + index % 2)], **COMMON)
    for index in range(3):
        needs = {"requires": [f"chain{index - 1}"]} if index else {}
        recipe(f"chain{index}", port=18861 + index, autostart=True, **needs, **COMMON)
    for index in range(3):
        recipe(f"idle{index}", port=18881 + index, autostart=False, **COMMON)
    return [f"boot{index}" for index in range(12)] + [f"chain{index}" for index in range(3)]


def engines() -> list[int]:
    report = subprocess.run(
        ["pgrep", "-f", str(ENGINE / "bin/llama-server")], capture_output=True, text=True, check=False
    )
    return [int(pid) for pid in report.stdout.split()]


def the_host() -> str:
    """What there is to see on a host that did not become whole."""
    commands = (
        "systemctl list-jobs --no-pager",
        "systemctl list-units --no-pager --no-legend --all 'model-*'",
        "systemctl show -p Id,ActiveState,SubState,Job,MainPID,ControlPID,NRestarts,StatusText,Result 'model-chain*'",
        "cat /proc/net/tcp",
        "ps axfo pid,ppid,stat,etimes,cgroup,args",
        "journalctl --no-pager -n 120 -u 'model-chain*'",
    )
    ran = (subprocess.run(line, shell=True, capture_output=True, text=True, check=False) for line in commands)
    return "".join(f"\n# {item.args}\n{item.stdout}{item.stderr}" for item in ran)


class Storm:
    """One fault at a time, each drawn from one seed; what was done is counted."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.counts: dict[str, int] = {}

    def strike(self) -> None:
        name = self.random.choices(list(FAULT), weights=[weight for weight, _ in FAULT.values()])[0]
        self.counts[name] = self.counts.get(name, 0) + 1
        FAULT[name][1](self)

    def kill_engine(self) -> None:
        if running_engines := engines():
            with contextlib.suppress(ProcessLookupError):  # it went by itself meanwhile
                os.kill(self.random.choice(running_engines), signal.SIGKILL)

    def hang_engine(self) -> None:
        """One that is watched: its timer must find it."""
        if (pid := int(show(f"boot{4 * self.random.randrange(3)}", "MainPID"))) > 0:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGSTOP)

    def killed(self, *words: str) -> None:
        process = subprocess.Popen(
            [sys.executable, "-m", "recipectl", *words], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        time.sleep(self.random.uniform(0, 0.8))
        process.kill()
        process.wait()

    def kill_apply(self) -> None:
        name = self.random.choice([f"boot{index}" for index in range(12)])
        data = json.loads((RECIPES / f"{name}.json").read_text())
        (RECIPES / f"{name}.json").write_text(
            json.dumps(data | {"served_model_name": f"m{self.random.randrange(999)}"})
        )
        self.killed("apply")

    def kill_agent(self) -> None:
        self.killed("start", f"rival{self.random.randrange(6)}")

    def steal_port(self) -> None:
        """End an engine and take its port before it comes back; its restarts fail until the thief has gone."""
        name = f"boot{self.random.randrange(12)}"
        thief = "import socket, sys, time; s = socket.socket(); s.setsockopt(1, 2, 1); s.bind(('127.0.0.1', int(sys.argv[1]))); s.listen(); print('mine', flush=True); time.sleep(2)"
        port = json.loads((RECIPES / f"{name}.json").read_text())["port"]
        for _ in range(20):
            if (pid := int(show(name, "MainPID"))) > 0:
                with contextlib.suppress(ProcessLookupError):  # it went by itself meanwhile
                    os.kill(pid, signal.SIGKILL)
            taken = subprocess.run(
                [sys.executable, "-c", thief, str(port)], capture_output=True, check=False, timeout=120
            )
            if taken.returncode == 0:
                self.counts["ports stolen"] = self.counts.get("ports stolen", 0) + 1
                return
            time.sleep(0.05)

    def fill_disk(self) -> None:
        full = "mount -t tmpfs -o size=400k tmpfs /mnt && cp -a /etc/systemd/system/model* /mnt; dd if=/dev/zero of=/mnt/fill 2>/dev/null; mount --bind /mnt /etc/systemd/system; exec timeout 5 "
        subprocess.run(
            ["unshare", "--mount", "sh", "-c", full + f"{sys.executable} -m recipectl apply --no-restart"],
            check=False,
            capture_output=True,
        )

    def request(self) -> None:
        try:
            ask(18821 + self.random.randrange(6), timeout_sec=10)
        except OSError:
            return  # a client in a storm: the end is what counts


FAULT = {
    "kill -9 an engine": (10, Storm.kill_engine), "kill -9 an apply": (4, Storm.kill_apply),
    "kill -9 a start": (3, Storm.kill_agent), "steal a port": (1, Storm.steal_port),
    "fill the disk": (2, Storm.fill_disk), "ask on demand": (4, Storm.request),
    "stop -19 an engine": (1, Storm.hang_engine),
}  # fmt: skip


def test_a_host_in_a_storm_ends_as_its_recipes_say(capsys: pytest.CaptureFixture[str]) -> None:
    up = write_recipes()
    applied = recipectl("apply")
    assert applied.returncode == 0, applied.stderr
    assert recipectl("wait", "--timeout", "600", *up).returncode == 0
    storm, start_time = Storm(SEED), time.monotonic()
    for _ in range(FAULTS):
        storm.strike()
    struck_sec = time.monotonic() - start_time
    report = ""
    for _ in range(5):
        last = recipectl("apply")
        waited = recipectl("wait", "--timeout", "60", *up)
        report += f"{time.monotonic() - start_time:.0f} s: {last.stdout}{last.stderr}{waited.stderr}"
        if waited.returncode == 0 and recipectl("apply", "--check").returncode == 0:
            break
    assert (last.returncode, waited.returncode) == (0, 0), report + the_host()
    healed_sec = time.monotonic() - start_time - struck_sec
    for name in up:
        data = json.loads((RECIPES / f"{name}.json").read_text())
        alias = data.get("served_model_name")
        assert alias is None or ask(data["port"]) == alias
    for index in range(6):
        assert systemctl("is-active", f"model-demand{index}.socket") == "active"
        assert ask(18821 + index)
    assert [show(f"idle{index}", "ActiveState") for index in range(3)] == ["inactive"] * 3
    for gpu in range(2):
        assert [show(f"rival{index}", "ActiveState") for index in range(6) if index % 2 == gpu].count(
            "active"
        ) <= 1
    running = {int(show(path.stem, "MainPID")) for path in RECIPES.glob("*.json")}
    assert {pid for pid in engines() if Path(f"/proc/{pid}").exists()} <= running
    with capsys.disabled():
        print(
            f"\nstorm: seed {SEED}, {FAULTS} faults in {struck_sec:.0f} s, whole again after {healed_sec:.0f} s: {storm.counts}"
        )
