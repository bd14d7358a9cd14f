"""A model that several hosts serve: which part this host has, and the words of its engine."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import corpus
import pytest

from recipectl.compiler import members, preflight, relations, units
from recipectl.compiler.claims import claim_of
from recipectl.compiler.model import ResolvedRecipe
from recipectl.compiler.pipeline import resolve_purely
from recipectl.compiler.relations import Relations
from recipectl.engines.flags import parse
from recipectl.engines.options import shipped_options
from recipectl.errors import MultipleUsageError, UsageError
from recipectl.machine import network
from recipectl.machine.disk import Disk
from recipectl.machine.installation import Installation
from recipectl.machine.runtime import Runtime
from recipectl.recipe.hostfile import HostSettings
from recipectl.recipe.schema import Recipe

VLLM = Runtime("r", ("/v/bin/vllm", "serve"), positional_model=True)
SGLANG = Runtime("r", ("/v/bin/python", "-m", "sglang.launch_server"))
ADDRESSES = {
    "interface eth1": "10.0.0.{rank1} fd00::{rank1}",
    "interface eth0": "192.168.0.{rank1}",
    "address gpu1": "10.0.0.1",
    "address gpu2": "10.0.0.2",
    "address gpu3": "10.0.0.3",
    "address gpu4": "10.0.0.4",
    "address 10.9.9.9": "10.9.9.9",
}


def network_of(rank: int, names: str = "") -> Callable[[str], str]:
    """The answers of the network on one of the hosts gpu1 to gpu4."""
    answers = {"names": names or f"gpu{rank + 1} gpu{rank + 1}.example.org", **ADDRESSES}
    return lambda question: answers.get(question, "").format(rank1=rank + 1)


def resolved(
    rank: int = 0, runtime: Runtime = VLLM, nodes: dict[str, Any] | None = None, **fields: Any
) -> ResolvedRecipe:
    own = {"hosts": ["gpu1", "gpu2"], "interface": "eth1"} | (nodes or {})
    recipe = Recipe.model_validate({"name": "a", "model_path": "org/m", "nodes": own} | fields)
    recipe, member = members.with_member(recipe, network_of(rank))
    installation = Installation(("/h",), user=True)
    return resolve_purely(recipe, "/a.yaml", runtime, HostSettings(), installation, member)


def said(found: ResolvedRecipe) -> list[str]:
    """The words that come from `nodes`."""
    return [word.text for word in found.words if word.key == ("nodes",)]


def test_the_head_has_rank_0_and_its_own_address() -> None:
    words = ["--nnodes", "2", "--node-rank", "0", "--master-addr", "10.0.0.1"]
    assert said(resolved(tensor_parallel_size=2)) == words


def test_a_follower_is_headless_and_looks_its_head_up() -> None:
    words = ["--nnodes", "2", "--node-rank", "1", "--master-addr", "10.0.0.1", "--headless"]
    assert said(resolved(1, tensor_parallel_size=2)) == words


def test_the_address_of_the_head_may_be_in_the_recipe() -> None:
    found = resolved(1, nodes={"address": "10.9.9.9", "port": 5000}, tensor_parallel_size=2)
    assert said(found)[4:8] == ["--master-addr", "10.9.9.9", "--master-port", "5000"]


def test_engines_are_told_by_which_address_and_interface_they_reach_each_other() -> None:
    environment = resolved(1, tensor_parallel_size=2).environment
    assert {name: item.value for name, item in environment.items() if item.layer == "nodes"} == {
        "VLLM_HOST_IP": "10.0.0.2",
        "NCCL_SOCKET_IFNAME": "eth1",
        "GLOO_SOCKET_IFNAME": "eth1",
    }


def test_a_variable_of_the_recipe_wins_over_that_of_the_set() -> None:
    found = resolved(tensor_parallel_size=2, env_vars={"NCCL_SOCKET_IFNAME": "ib0"})
    assert found.environment["NCCL_SOCKET_IFNAME"].value == "ib0"


def test_sglang_has_its_own_words() -> None:
    found = resolved(1, SGLANG, backend="sglang", tensor_parallel_size=4)
    assert said(found) == ["--nnodes", "2", "--node-rank", "1", "--dist-init-addr", "10.0.0.1:29501"]
    assert found.environment["SGLANG_HOST_IP"].value == "10.0.0.2"


COPIES = {
    "the head": (0, {}, ["--data-parallel-size-local", "4", "--data-parallel-address", "10.0.0.1"]),
    "a follower": (
        1,
        {},
        ["--data-parallel-size-local", "4", "--data-parallel-address", "10.0.0.1", "--data-parallel-start-rank", "4", "--headless"],
    ),
    "hybrid": (
        1,
        {"data-parallel-hybrid-lb": True},
        ["--data-parallel-size-local", "4", "--data-parallel-address", "10.0.0.1", "--data-parallel-start-rank", "4"],
    ),
}  # fmt: skip


@pytest.mark.parametrize(("rank", "extra", "words"), COPIES.values(), ids=COPIES.keys())
def test_copies_of_a_model_are_shared_out(rank: int, extra: dict[str, Any], words: list[str]) -> None:
    assert said(resolved(rank, extra_args={"data-parallel-size": 8} | extra)) == words


def test_with_external_balancing_each_host_has_one_copy_and_answers() -> None:
    extra = {"data-parallel-size": 2, "data-parallel-external-lb": True}
    found = resolved(1, extra_args=extra)
    assert said(found) == ["--data-parallel-address", "10.0.0.1", "--data-parallel-rank", "1"]
    assert found.endpoint.path == "/health"


def test_copies_that_span_hosts_are_left_to_the_engine() -> None:
    hosts = {"hosts": ["gpu1", "gpu2", "gpu3", "gpu4"]}
    found = resolved(3, nodes=hosts, tensor_parallel_size=16, extra_args={"data-parallel-size": 2})
    words = ["--nnodes", "4", "--node-rank", "3", "--master-addr", "10.0.0.1", "--headless"]
    assert said(found) == words


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "a size that hosts cannot share": (
        {"tensor_parallel_size": 3},
        "`nodes`: DP*TP*PP is 3, which 2 hosts cannot share evenly; change the sizes or the hosts",
    ),
    "a size in args": (
        {"args": ("-tp", "3")},
        "`nodes`: DP*TP*PP is 3, which 2 hosts cannot share evenly; change the sizes or the hosts",
    ),
    "sglang": (
        {"backend": "sglang", "tensor_parallel_size": 5},
        "`nodes`: TP*PP is 5, which 2 hosts cannot share evenly; change the sizes or the hosts",
    ),
    "ray": (
        {"tensor_parallel_size": 2, "extra_args": {"distributed-executor-backend": "ray"}},
        "`nodes`: several hosts need the executor `mp`, and the recipe says `ray`; correct `extra_args:`",
    ),
    "hybrid and external": (
        {"extra_args": {"data-parallel-size": 2, "data-parallel-hybrid-lb": True, "data-parallel-external-lb": True}},
        "`nodes`: hybrid and external load balancing exclude each other; correct `extra_args:`",
    ),
    "hybrid and headless": (
        {"nodes": {"hosts": ["gpu1", "gpu2"], "headless": True}, "extra_args": {"data-parallel-size": 2, "data-parallel-hybrid-lb": True}},
        "`nodes`: with hybrid load balancing each host answers requests, so none is headless; correct `extra_args:`",
    ),
    "hybrid without whole copies": (
        {"tensor_parallel_size": 2, "extra_args": {"data-parallel-hybrid-lb": True}},
        "`nodes`: hybrid load balancing needs whole copies of the model on each host; correct `extra_args:`",
    ),
    "on demand": (
        {"tensor_parallel_size": 2, "on_demand": {}},
        "`on_demand` cannot stop one host of a set, whose hosts start together; remove it",
    ),
    "a tie at the engine's port": (
        {"tensor_parallel_size": 2, "port": 9, "nodes": {"hosts": ["gpu1", "gpu2"], "tie_port": 9}},
        "`nodes.tie_port` and `port` are both 9; choose another",
    ),
    "a tie at the rendezvous": (
        {"tensor_parallel_size": 2, "nodes": {"hosts": ["gpu1", "gpu2"], "port": 9, "tie_port": 9}},
        "`nodes.tie_port` and `nodes.port` are both 9; choose another",
    ),
    "another engine": (
        {"backend": "llamacpp"},
        "`nodes` means nothing to llamacpp; remove it",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("fields", "sentence"), REFUSED.values(), ids=REFUSED.keys())
def test_what_an_engine_refuses_of_a_set_is_refused_with_its_reason(
    fields: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(UsageError) as raised:
        resolved(1, **fields)
    errors = raised.value.errors if isinstance(raised.value, MultipleUsageError) else [raised.value]
    assert sentence in [str(error) for error in errors]


def test_the_head_of_a_set_is_asked_at_an_address() -> None:
    with pytest.raises(UsageError, match="`host` is gpu1, a name, and the tie of the set reaches only"):
        resolved(0, host="gpu1", tensor_parallel_size=2)


NAMES = {
    "its short name": ("gpu2", ["gpu1", "gpu2"]),
    "its full name": ("gpu2 gpu2.example.org", ["gpu1.example.org", "gpu2.example.org"]),
    "another spelling": ("gpu2", ["GPU1", "GPU2"]),
    "a short name of a full one": ("gpu2.example.org", ["gpu1", "gpu2"]),
}


@pytest.mark.parametrize(("names", "hosts"), NAMES.values(), ids=NAMES.keys())
def test_a_host_finds_its_part_by_its_name(names: str, hosts: list[str]) -> None:
    recipe = Recipe.model_validate({"name": "a", "model_path": "m", "nodes": {"hosts": hosts}})
    _, member = members.with_member(recipe, lambda question: names if question == "names" else "10.0.0.9")
    assert member
    assert member.rank == 1


NOT_PLACED = {
    "another host": (
        "web1 web1.example.org",
        {},
        "`nodes.hosts` has gpu1, gpu2, and this host is called `web1` or `web1.example.org`; add it, or remove the recipe here",
    ),
    "another domain": (
        "gpu2 gpu2.example.org",
        {"hosts": ["gpu1.example.com", "gpu2.example.com"]},
        "`nodes.hosts` has gpu2.example.com, and this host knows only its other name gpu2 or gpu2.example.org; write that, or give the host its full name",
    ),
    "twice": (
        "gpu2 gpu2.example.org",
        {"hosts": ["gpu1", "gpu2", "gpu2.example.org"]},
        "`nodes.hosts` has this host twice: gpu2, gpu2.example.org; name it once",
    ),
    "no such interface": (
        "gpu2",
        {"interface": "eth9"},
        "`nodes.interface` is eth9, which has no address on this host; correct it, or bring it up (`ip address` lists the interfaces)",
    ),
    "only a short name": (
        "gpu2",
        {"hosts": ["gpu1.example.org", "gpu2.example.org"]},
        "`nodes.hosts` has gpu2.example.org, and this host knows only its other name gpu2; write that, or give the host its full name",
    ),
    "an interface of another network": (
        "gpu2",
        {"interface": "eth0"},
        "`nodes.interface` eth0 has 192.168.0.2, and the other hosts look gpu2 up as 10.0.0.2; correct DNS or /etc/hosts, or name another interface",
    ),
    "an unknown head": (
        "gpu2",
        {"hosts": ["gpu9", "gpu2"], "interface": "eth1"},
        "`nodes.hosts`: the name service has no address of `gpu9` that other hosts reach; enter it in DNS or /etc/hosts",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("names", "nodes", "sentence"), NOT_PLACED.values(), ids=NOT_PLACED.keys())
def test_a_host_without_a_part_is_told_why(names: str, nodes: dict[str, Any], sentence: str) -> None:
    own = {"hosts": ["gpu1", "gpu2"]} | nodes
    recipe = Recipe.model_validate({"name": "a", "model_path": "m", "nodes": own})
    with pytest.raises(UsageError) as raised:
        members.with_member(recipe, network_of(1, names))
    assert str(raised.value) == sentence


WRONG = {
    "one host": ({"hosts": ["gpu1"]}, "needs two hosts or more; for one, remove `nodes:`"),
    "an address": ({"hosts": ["10.0.0.1", "gpu2"]}, "which is no name of a host"),
    "a host twice": ({"hosts": ["gpu1", "GPU1"]}, "names a host twice; name each once"),
    "no name": ({"hosts": ["gpu1", "10.0.0.1/24"]}, "which is no name of a host"),
    "both forms": ({"hosts": ["gpu1", "gpu2"], "rank": 1}, "has `hosts` and `rank`, which follows from it"),
    "neither": ({"count": 2, "rank": 1}, "has no `address`; give `hosts`, or `count`, `rank` and `address`"),
    "an interface without hosts": (
        {"count": 2, "rank": 0, "address": "h", "interface": "eth1"},
        "has `interface`, which only counts with `hosts`; name all `hosts`",
    ),
}


@pytest.mark.parametrize(("nodes", "words"), WRONG.values(), ids=WRONG.keys())
def test_nodes_are_given_in_one_of_two_forms(nodes: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        Recipe.model_validate({"name": "a", "model_path": "m", "nodes": nodes})


def test_hosts_agree_on_a_set_only_with_the_same_recipe() -> None:
    digests = {
        resolved(rank, tensor_parallel_size=size).member.digest for rank, size in ((0, 2), (1, 2), (1, 4))
    }  # type: ignore[union-attr]
    assert len(digests) == 2


def test_the_same_recipe_lies_on_all_hosts_though_only_the_head_answers() -> None:
    both = [resolved(rank, tensor_parallel_size=2, watch={}, queue=True).recipe for rank in (0, 1)]
    assert [(recipe.watch is None, recipe.queue is None) for recipe in both] == [(False, False), (True, True)]


def test_the_address_of_the_recipe_is_where_the_head_itself_listens() -> None:
    recipe = Recipe.model_validate(
        {"name": "a", "model_path": "m", "nodes": {"hosts": ["gpu1", "gpu2"], "address": "10.9.9.9"}}
    )
    found = [members.with_member(recipe, network_of(rank))[1] for rank in (0, 1)]
    assert [member and member.head for member in found] == ["10.9.9.9", "10.9.9.9"]


def test_other_addresses_of_a_host_do_not_restart_its_set() -> None:
    recipe = Recipe.model_validate(
        {"name": "a", "model_path": "m", "nodes": {"hosts": ["gpu1", "gpu2"]}, "tensor_parallel_size": 2}
    )
    digests = set()
    for others in ("10.0.0.2", "10.0.0.2 fd00::2"):
        placed, member = members.with_member(
            recipe,
            lambda question, others=others: (
                "gpu1" if question == "names" else "10.0.0.1" if "gpu1" in question else others
            ),
        )  # type: ignore[misc]
        found = resolve_purely(placed, "/a.yaml", VLLM, HostSettings(), Installation(("/h",)), member)
        digests.add(units.render(found, Relations(), HostSettings(), Installation(("/h",))).digest)
    assert len(digests) == 1


def test_the_ports_of_two_sets_are_told_with_their_own_keys() -> None:
    claims = [
        claim_of(
            replace(
                resolved(tensor_parallel_size=2, port=port),
                recipe=resolved(tensor_parallel_size=2, port=port).recipe.model_copy(update={"name": name}),
            ),
            HostSettings(),
        )
        for name, port in (("a", 1), ("b", 2))
    ]
    errors = relations.relate(claims).errors["a"]
    assert [str(error) for error in errors] == [
        "`a` and `b` both use port 29501 and could run at once; change one `nodes.port:`",
        "`a` and `b` both use port 30501 and could run at once; change one `nodes.tie_port:`",
    ]


def test_a_loopback_address_of_the_name_service_does_not_count() -> None:
    assert network.answer("address localhost") == ""
    assert network.answer("address 10.1.2.3") == "10.1.2.3"
    assert network.answer("address no.such.host.invalid") == ""
    assert network.answer("interface nothing9") == ""
    assert network.answer("interface lo").startswith("127.0.0.1")


# What follows from `nodes:`, and so is left out of the recipe of an official command.
_DERIVED = {
    "--nnodes", "--node-rank", "--master-addr", "--master-port", "--headless", "--data-parallel-size-local",
    "--data-parallel-address", "--data-parallel-rpc-port", "--data-parallel-start-rank",
}  # fmt: skip


@corpus.NEEDED
def test_the_official_commands_for_several_hosts_come_out_exactly() -> None:
    rows = map(json.loads, Path(corpus.COMMANDS).read_text().splitlines())
    count, differ = 0, []
    for row in rows:
        options, stray = parse("vllm", row["argv"][3:], shipped_options("vllm"))
        given = {option.flag: option.values for option in options}
        # The others with data parallelism are heads that say their start rank, 0.
        if "--nnodes" not in given and not (row["role"] in ("head", "worker") and _DERIVED & given.keys()):
            continue
        count += 1
        found = from_hosts(
            row, given, [word for option in options if option.flag not in _DERIVED for word in option.raw]
        )
        words, stray_words = parse("vllm", [word.text for word in found.words[3:]], shipped_options("vllm"))
        (address,) = given.get("--master-addr") or given["--data-parallel-address"]
        head = {address: "10.0.0.1", "$IFACE_NAME": "eth1"}
        wanted = sorted((o.flag, tuple(head.get(v, v) for v in o.values)) for o in options)
        environment = {
            name: item.value for name, item in found.environment.items() if item.layer != "runtime"
        }
        env = {name: str(value).replace("$IFACE_NAME", "eth1") for name, value in row["env"].items()}
        same = sorted((o.flag, o.values) for o in words) == wanted
        if not same or env.items() - environment.items() or bool(stray) != bool(stray_words):
            differ.append((row["source"], row["role"]))
    assert (count, differ[:5], len(differ)) == (2146, [], 0)


def from_hosts(row: dict[str, Any], given: dict[str, tuple[str, ...]], rest: list[str]) -> ResolvedRecipe:
    """An official command as a recipe with `nodes: {hosts: …}`, compiled on its host."""
    data = "--data-parallel-address" in given
    size = int(given["--data-parallel-size"][0]) if data else 0
    count = size // int(given["--data-parallel-size-local"][0]) if data else int(given["--nnodes"][0])
    serves = data and row["role"] == "worker" and "--headless" not in given
    nodes: dict[str, Any] = {"hosts": [f"gpu{index + 1}" for index in range(count)], "interface": "eth1"}
    nodes |= {"headless": False} if serves and "--data-parallel-hybrid-lb" not in given else {}
    start = int(given.get("--data-parallel-start-rank", "0")[0])
    rank = start * count // size if data else int(given["--node-rank"][0])
    answers = {"names": f"gpu{rank + 1}", "interface eth1": f"10.0.0.{rank + 1}"}
    fields = {"name": "a", "model_path": row["argv"][2], "nodes": nodes, "args": tuple(rest)}
    fields["env_vars"] = {
        name: str(value)
        for name, value in row["env"].items()
        if name not in ("VLLM_HOST_IP", "NCCL_SOCKET_IFNAME", "GLOO_SOCKET_IFNAME")
    }
    recipe, member = members.with_member(
        Recipe.model_validate(fields),
        lambda question: answers.get(question) or f"10.0.0.{question[len('address gpu') :]}",
    )
    return resolve_purely(recipe, "/a.yaml", VLLM, HostSettings(), Installation(("/h",), user=True), member)


@pytest.mark.parametrize(
    ("config", "count"), [({"num_experts": 8}, 0), ({"hidden_size": 64}, 1)], ids=["experts", "dense"]
)
def test_external_balancing_of_a_dense_model_is_refused(
    config: dict[str, int], count: int, tmp_path: Path
) -> None:
    (tmp_path / "config.json").write_text(json.dumps(config))
    fields = {"name": "a", "model_path": str(tmp_path), "nodes": {"hosts": ["gpu1", "gpu2"]}}
    fields["extra_args"] = {"data-parallel-size": 2, "data-parallel-external-lb": True}
    recipe = Recipe.model_validate(fields)
    problems = preflight.check(recipe, None, HostSettings(), Installation(("/h",)), Disk())
    assert len(["experts" in str(problem) for problem in problems]) == count


def test_a_member_waits_for_its_tie_and_does_not_stay_down() -> None:
    unit = units.render(resolved(tensor_parallel_size=2), Relations(), HostSettings(), Installation(("/h",)))
    service, tie, lost = (
        next(text for name, text in unit.units if name == f"model-a{end}.service")
        for end in ("", "-tie", "-lost")
    )
    assert "Wants=model-a-tie.service" in service
    assert "Restart=always\nRestartSec=2" in service
    assert "StartLimitIntervalSec=0" in service
    assert "BindsTo=model-a.service\nBefore=model-a.service\nOnFailure=model-a-lost.service" in tie
    assert "IPAddressDeny=any\nIPAddressAllow=localhost 10.0.0.1 fd00::1 10.0.0.2 127.0.0.1\n" in tie
    assert "DynamicUser=yes" in tie
    assert "ExecStart=-/usr/bin/systemctl --quiet kill --signal=SIGKILL model-a.service" in lost
