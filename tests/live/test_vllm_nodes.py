"""One model over two hosts with real vLLM (a tiny model, on the CPU), in the ways that vLLM has for it."""

import json
import re
import time
from collections.abc import Iterator

import pytest
from hosts import ROOT, Host, Network

from live.test_nodes import FAULTS, TIE, UNIT, Fault, members, mend, of_run, reboot, until, until_gone

pytestmark = pytest.mark.nodes
SENTENCE = " a recipe names an engine and its model"
EAGER = "enforce_eager: true"
# With PP and --enforce-eager vLLM 0.32 dies at the first request: KeyError in its engine core.
WAYS = {
    "TP": f"tensor_parallel_size: 2\nextra_args: {{kv_cache_memory_bytes: 64M, {EAGER}}}",
    "PP": "pipeline_parallel_size: 2\nextra_args: {kv_cache_memory_bytes: 64M}\nargs: [-cc.mode=2, -cc.backend=eager]",
    "DP": f"extra_args: {{kv_cache_memory_bytes: 64M, {EAGER}, data_parallel_size: 2}}",
}


@pytest.fixture(scope="module")
def hosts() -> Iterator[list[Host]]:
    shared = ROOT / ".build/hosts-vllm"
    shared.mkdir(exist_ok=True)
    with Network(2, shared) as found:
        yield found


def serve(hosts: list[Host], way: str) -> None:
    for host in hosts:
        recipe = f"""
python_path: {ROOT}/.build/vllm/bin/python
model_path: {ROOT}/.build/tiny
served_model_name: tiny
host: 0.0.0.0
port: 8101
dtype: float32
max_model_len: 128
max_num_seqs: 4
gpus: none
env_vars: {{HF_HUB_OFFLINE: 1, HOME: /var/tmp, VLLM_NO_USAGE_STATS: 1}}
nodes: {{hosts: [gpu1, gpu2], interface: eth1}}
{WAYS[way]}
"""
        host.shell(
            f"mkdir -p /etc/recipectl/recipes; cat >/etc/recipectl/recipes/big.yaml <<'END'{recipe}END"
        )
        host.recipectl("apply", "--no-restart")
    for host in hosts:
        host.run("systemctl", "restart", "--no-block", UNIT)
    until_it_serves(hosts)


def until_it_serves(hosts: list[Host]) -> None:
    end = time.monotonic() + 300
    while not all(host.show(UNIT, "ActiveState") == "active" for host in hosts):
        if time.monotonic() > end:
            raise AssertionError("\n".join(host.journal("model-big*")[-5000:] for host in hosts))
        time.sleep(0.5)
    body = json.dumps({"model": "tiny", "prompt": "hello", "max_tokens": 12})
    url = "http://10.77.0.1:8101/v1/completions"
    text = hosts[1].run("curl", "-s", "-m", "100", url, "-H", "Content-Type: application/json", "-d", body)
    assert json.loads(text)["choices"][0]["text"] == SENTENCE


@pytest.mark.parametrize("way", WAYS)
def test_a_model_answers_over_two_hosts(hosts: list[Host], way: str) -> None:
    serve(hosts, way)
    assert [len(members(host)) > 1 for host in hosts] == [True, True]


ENDS = {name: fault for name, fault in FAULTS.items() if re.search("killed|cable|interface", name)}


@pytest.mark.parametrize("again", range(3))
@pytest.mark.parametrize("fault", ENDS.values(), ids=[name.replace(" ", "-") for name in ENDS])
def test_a_set_of_vllm_dies_together_and_comes_back(hosts: list[Host], fault: Fault, again: int) -> None:
    if "pipeline" not in hosts[0].shell("cat /etc/recipectl/recipes/big.yaml 2>/dev/null || :"):
        serve(hosts, "PP")
    before = of_run(hosts)
    fault(*hosts)
    until_gone(hosts, before)
    for host in hosts:
        mend(host)
    until_it_serves(hosts)
    assert not before & of_run(hosts)


@pytest.mark.parametrize("again", range(3))
@pytest.mark.parametrize("index", [0, 1], ids=["head", "follower"])
def test_a_host_of_vllm_that_reboots_comes_back_by_itself(hosts: list[Host], index: int, again: int) -> None:
    if "pipeline" not in hosts[0].shell("cat /etc/recipectl/recipes/big.yaml 2>/dev/null || :"):
        serve(hosts, "PP")
    reboot(hosts, index)
    until_it_serves(hosts)


def test_a_stop_while_vllm_loads_leaves_nothing(hosts: list[Host]) -> None:
    head, follower = hosts
    head.run("systemctl", "restart", "--no-block", UNIT)
    until(lambda: head.show(UNIT, "SubState") == "start-post", 60)
    time.sleep(5)
    before = of_run(hosts)
    head.recipectl("stop", "big")
    until_gone(hosts, before)
    assert "lost" in follower.journal(TIE)
    head.recipectl("start", "--no-block", "big")
    until_it_serves(hosts)
