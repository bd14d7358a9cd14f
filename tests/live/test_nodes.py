"""A model that two hosts serve together, each a throwaway systemd of its own: they live and die together."""

import json
import os
import shutil
import sys
import time
from collections.abc import Callable, Iterator

import pytest
from hosts import ROOT, Host, Network

pytestmark = pytest.mark.boots
LONG = pytest.mark.nodes  # in `make test-nodes`
UNIT, TIE = "model-big.service", "model-big-tie.service"
Fault = Callable[[Host, Host], object]
STAND_IN = ROOT / "tests/stand_in_member.py"


@pytest.fixture(scope="module")
def pair() -> Iterator[list[Host]]:
    """Two hosts with the same recipe of a stand-in engine, which both serve."""
    shared = ROOT / f".build/hosts.{os.getpid()}"
    (shared / "venv/bin").mkdir(parents=True)
    (shared / "venv/pyvenv.cfg").write_text("home = /usr/bin\n")
    (shared / "venv/bin/python").symlink_to(sys.executable)
    program = shared / "venv/bin/vllm"
    program.write_text(f"#!{sys.executable}\n{STAND_IN.read_text()}")
    program.chmod(0o755)
    with Network(2, shared) as hosts:
        for host in hosts:
            prepare(host)
        for host in hosts:
            host.recipectl("start", "--no-block", "big")
        until_it_serves(hosts)
        yield hosts
    shutil.rmtree(shared)


def prepare(host: Host) -> None:
    recipe = f"""
model_path: meta/big
venv_path: {host.shared}/venv
tensor_parallel_size: 2
port: 8101
nodes: {{hosts: [gpu1, gpu2], interface: eth1}}
gpus: none
"""
    host.shell(f"mkdir -p /etc/recipectl/recipes; cat >/etc/recipectl/recipes/big.yaml <<'END'{recipe}END")
    host.recipectl("apply")


def completes(head: Host) -> bool:
    """True if the head answers a completion, which needs all hosts."""
    request = "Request('http://10.77.0.1:8101/v1/completions', b'{}')"
    code = f"from urllib.request import *; print(urlopen({request}, timeout=5).status)"
    return head.run(sys.executable, "-c", code, check=False).strip() == "200"


def until(condition: Callable[[], bool], timeout_sec: float = 30) -> None:
    end = time.monotonic() + timeout_sec
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.2)


def until_it_serves(hosts: list[Host], timeout_sec: float = 60) -> None:
    end = time.monotonic() + timeout_sec
    while not all(host.show(UNIT, "ActiveState") == "active" for host in hosts):
        if time.monotonic() > end:
            raise AssertionError("\n".join(host.journal("model-big*") for host in hosts))
        time.sleep(0.1)
    assert completes(hosts[0])


def members(host: Host) -> list[str]:
    """The processes of the member: its own, and its worker."""
    group = host.show(UNIT, "ControlGroup")
    # The group may go while it is looked for.
    return host.run("cat", f"/sys/fs/cgroup{group}/cgroup.procs", check=False).split() if group else []


def test_a_set_is_ready_when_its_head_answers(pair: list[Host]) -> None:
    rows = json.loads(pair[1].recipectl("status", "--json", "big"))[0]["set"]
    assert [(row["host"], row["rank"], row["connected"], row["ready"]) for row in rows] == [
        ("gpu1", 0, True, True),
        ("gpu2", 1, True, True),
    ]


def of_run(hosts: list[Host]) -> set[str]:
    """The processes of all members, by host: a new run has none of them."""
    return {f"{host.name}:{pid}" for host in hosts for pid in members(host)}


def until_gone(hosts: list[Host], before: set[str], limit_sec: float = 15) -> None:
    end = time.monotonic() + limit_sec
    while left := before & of_run(hosts):
        assert time.monotonic() < end, f"{sorted(left)} of the run before are there after {limit_sec} s"
        time.sleep(0.1)


def kill(host: Host, index: int) -> None:
    """Kill the engine (0), or the first process that it has started (1): vLLM's engine core, or its worker."""
    pid = host.show(UNIT, "MainPID")
    assert pid != "0"
    # Python's own tracker of shared memory is no part of the engine: nothing happens without it.
    command = "tr '\\0' ' ' </proc/%s/cmdline"
    children = [other for other in members(host) if other != pid]
    own = [pid, *(child for child in children if "resource_tracker" not in host.shell(command % child))]
    host.run("kill", "-9", own[index])


FAULTS = {
    "the head's engine is killed": lambda head, follower: kill(head, 0),
    "the follower's engine is killed": lambda head, follower: kill(follower, 0),
    "the head's worker is killed": lambda head, follower: kill(head, 1),
    "the follower's worker is killed": lambda head, follower: kill(follower, 1),
    "the head's tie is killed": lambda head, follower: head.run("systemctl", "kill", "-s", "KILL", TIE),
    "the follower's tie is killed": lambda head, follower: follower.run(
        "systemctl", "kill", "-s", "KILL", TIE
    ),
    "a cable is pulled": lambda head, follower: follower.pull(),
    "the head's cable is pulled": lambda head, follower: head.pull(),
    "an interface is down": lambda head, follower: follower.run("ip", "link", "set", "eth1", "down"),
    "the follower is restarted by hand": lambda head, follower: follower.run(
        "systemctl", "restart", "--no-block", UNIT
    ),
    "the head is restarted by hand": lambda head, follower: head.run(
        "systemctl", "restart", "--no-block", UNIT
    ),
}


def mend(host: Host) -> None:
    host.put_back()
    host.run("ip", "link", "set", "eth1", "up")


ALWAYS = ("the head's engine is killed", "a cable is pulled")
ROUNDS = int(os.environ.get("NODES_ROUNDS", "1"))
CASES = [
    pytest.param(
        fault,
        again,
        id=f"{name.replace(' ', '-')}-{again}",
        marks=[] if name in ALWAYS and again == 0 else pytest.mark.nodes,
    )
    for again in range(ROUNDS)
    for name, fault in FAULTS.items()
]


@pytest.fixture(autouse=True)
def mended(pair: list[Host]) -> Iterator[None]:
    """Whatever a test has left, the next one finds a set that serves."""
    yield
    for host in pair:
        mend(host)
        if host.show(UNIT, "ActiveState") in ("inactive", "failed"):
            host.recipectl("start", "--no-block", "big")
    until_it_serves(pair)


@pytest.mark.parametrize(("fault", "again"), CASES)
def test_a_set_dies_together_and_comes_back_together(pair: list[Host], fault: Fault, again: int) -> None:
    before = of_run(pair)
    assert len(before) == 4
    fault(*pair)
    until_gone(pair, before)
    for host in pair:
        mend(host)
    until_it_serves(pair)
    assert len(of_run(pair)) == 4


@LONG
def test_a_link_that_is_down_for_two_seconds_ends_nothing(pair: list[Host]) -> None:
    before = of_run(pair)
    pair[1].pull()
    time.sleep(2)
    pair[1].put_back()
    time.sleep(5)
    assert of_run(pair) == before
    assert completes(pair[0])


@LONG
def test_a_host_that_loses_its_power_comes_back_into_the_set(pair: list[Host]) -> None:
    head, follower = pair
    before = of_run([head])
    follower.die()
    until_gone([head], before)
    follower.boot()
    prepare(follower)
    follower.recipectl("start", "--no-block", "big")
    until_it_serves(pair)


def reboot(hosts: list[Host], index: int) -> None:
    """The power of one host goes, and comes back; nobody starts anything there."""
    for each in hosts:
        each.shell(
            "grep -q autostart /etc/recipectl/recipes/big.yaml || echo 'autostart: true' >>/etc/recipectl/recipes/big.yaml"
        )
        each.recipectl("apply", "--no-restart")
    host, others = hosts[index], [each for each in hosts if each is not hosts[index]]
    host.keep_disk()
    before = of_run(others)
    host.die()
    until_gone(others, before)
    host.boot(with_disk=True)


@LONG
@pytest.mark.parametrize("again", range(ROUNDS))
@pytest.mark.parametrize("index", [0, 1], ids=["head", "follower"])
def test_a_host_that_reboots_comes_back_into_the_set_by_itself(
    pair: list[Host], index: int, again: int
) -> None:
    reboot(pair, index)
    until_it_serves(pair)


@LONG
def test_a_member_that_waits_names_who_is_missing(pair: list[Host]) -> None:
    head, follower = pair
    before = of_run([head])
    follower.recipectl("stop", "big")
    until_gone([head], before)
    until(lambda: "waits for gpu2" in head.recipectl("status", "big", check=False))
    said = head.shell(f"timeout -s INT 12 env HOME=/root {sys.executable} -m recipectl start big 2>&1 || :")
    assert "big waits for gpu2" in said
    assert follower.show(UNIT, "ActiveState") == "inactive"
    follower.recipectl("start", "big")
    until_it_serves(pair)


@LONG
def test_a_stop_of_a_member_that_loads_is_quick_and_no_failure(pair: list[Host]) -> None:
    head, follower = pair
    head.recipectl("stop", "big")
    until(lambda: not members(follower) or follower.show(UNIT, "SubState") == "start-pre")
    begin = time.monotonic()
    follower.recipectl("stop", "big")
    assert time.monotonic() - begin < 15
    assert follower.show(UNIT, "ActiveState") == "inactive"
    for host in pair:
        host.recipectl("start", "--no-block", "big")
    until_it_serves(pair)


def test_a_tie_is_not_stopped_without_its_member(pair: list[Host]) -> None:
    before = of_run(pair)
    for verb in ("stop", "restart"):
        assert "may be requested by dependency only" in pair[1].shell(f"systemctl {verb} {TIE} 2>&1 || :")
    time.sleep(1)
    assert of_run(pair) == before


def test_a_member_is_removed_with_its_tie(pair: list[Host]) -> None:
    follower = pair[1]
    assert f"removed {UNIT}" in follower.recipectl("remove", "big")
    assert follower.shell("ls /etc/systemd/system | grep big || :") == ""
    assert follower.shell("systemctl list-units --plain --no-legend 'model-big*'") == ""
    follower.recipectl("apply")
    for host in pair:
        host.recipectl("start", "--no-block", "big")
    until_it_serves(pair)


@LONG
def test_a_host_with_another_recipe_is_refused_by_name(pair: list[Host]) -> None:
    head, follower = pair
    follower.shell("sed -i s,meta/big,meta/other, /etc/recipectl/recipes/big.yaml")
    follower.recipectl("apply", "--no-restart")
    follower.run("systemctl", "restart", "--no-block", UNIT)
    until(lambda: "differ from the head's" in follower.journal(TIE))
    assert "gpu2 (10.77.0.2) is refused" in head.journal(TIE)
    assert len(follower.journal(TIE).split("refuses this host")) == 2  # it is said once
    follower.shell("sed -i s,meta/other,meta/big, /etc/recipectl/recipes/big.yaml")
    follower.recipectl("apply", "--no-restart")
    follower.run("systemctl", "restart", "--no-block", UNIT)
    until_it_serves(pair)
