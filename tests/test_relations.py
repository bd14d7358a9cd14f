"""What recipes of one host are to each other."""

from typing import Any

import pytest

from recipectl.compiler import claims, relations
from recipectl.compiler.claims import Claim
from recipectl.compiler.model import ResolvedRecipe
from recipectl.compiler.relations import Decisions
from recipectl.engines.endpoint import Endpoint, client_endpoint, loopback_address
from recipectl.errors import UsageError
from recipectl.machine.runtime import Runtime
from recipectl.recipe.gpu_selection import UNSET, parse
from recipectl.recipe.hostfile import HostSettings
from recipectl.recipe.schema import Recipe
from recipectl.systemd.unitfile import InstalledUnit

SETTINGS = HostSettings()


def claim(name: str, settings: HostSettings = SETTINGS, **fields: Any) -> Claim:
    recipe = Recipe.model_validate({"name": name, "model_path": "/m", **fields})
    _, port = loopback_address(recipe) if recipe.on_demand else ("", recipe.port or 8000)
    steps = ResolvedRecipe(
        recipe=recipe,
        file=f"/r/{name}.yaml",
        runtime=Runtime("test", ("/v/bin/vllm", "serve")),
        gpus=UNSET if recipe.gpus is None else parse(recipe.gpus),
        environment={},
        words=(),
        endpoint=Endpoint("127.0.0.1", port, "/health"),
        client_endpoint=client_endpoint(recipe, Endpoint("127.0.0.1", port, "/health")),
    )
    return claims.claim_of(steps, settings)


def sentences(decisions: Decisions, name: str) -> list[str]:
    return [str(error) for error in decisions.errors[name]]


def on(name: str, *gpus: str, port: int = 0, **fields: Any) -> Claim:
    return claim(name, gpus=gpus, port=port or 9000 + ord(name[0]), **fields)


@pytest.mark.parametrize("address", ["127.0.0.1", "0.0.0.0", "::"])
def test_the_port_of_the_gateway_is_refused_to_all_but_its_holder(address: str) -> None:
    both = [on("a", "0", port=8000), on("b", "1")]
    errors = relations.relate(both, gateway=(address, 8000)).errors
    assert {name: [str(error) for error in told] for name, told in errors.items()} == {
        "a": ["`a` would listen at port 8000, where the gateway of the host file listens; change `port:`, or "
              "`listen:` of the gateway"]
    }  # fmt: skip
    assert relations.relate(both, holders=frozenset({("a", 8000)}), gateway=(address, 8000)).errors == {}
    assert relations.relate(both, gateway=("192.0.2.1", 8000)).errors == {}


def test_two_on_one_gpu_evict_each_other() -> None:
    decisions = relations.relate([on("a", "0", "1"), on("b", "1")])
    assert (
        decisions.relations["a"].rivals,
        decisions.relations["b"].rivals,
        decisions.relations["b"].after,
        decisions.errors,
    ) == (("b",), ("a",), ("a",), {})


def test_all_meets_every_gpu_and_none_meets_no_other() -> None:
    decisions = relations.relate([on("a", "all"), on("b", "1"), on("c", "none")])
    assert (decisions.relations["a"].rivals, decisions.relations["c"].rivals) == (("b",), ())


def test_an_index_is_the_uuid_that_the_host_file_says() -> None:
    settings = HostSettings(gpus=("GPU-aa", "GPU-bb"))
    decisions = relations.relate(
        [claim("a", settings, gpus=("1",), port=1), claim("b", settings, gpus=("GPU-bb",), port=2)]
    )
    assert decisions.relations["a"].rivals == ("b",)


def test_ordered_ones_live_together_and_load_in_turn() -> None:
    decisions = relations.relate([on("a", "0", gpu_sharing="ordered"), on("b", "0", gpu_sharing="free")])
    assert (
        decisions.relations["a"].rivals,
        decisions.relations["a"].taking_turns,
        decisions.relations["b"].after,
    ) == ((), ("b",), ("a",))


def test_two_that_both_start_at_boot_on_one_gpu_are_told() -> None:
    decisions = relations.relate([on("a", "0", autostart=True), on("b", "0", autostart=True)])
    assert sentences(decisions, "a") == [
        "`a` and `b` both start at boot and share GPU 0; take `autostart` from one, "
        "or give both `gpu_sharing: ordered`"
    ]


def test_one_port_for_two_that_could_run_at_once_is_told() -> None:
    decisions = relations.relate([claim("a", port=8001), claim("b", port=8001)])
    assert sentences(decisions, "b") == [
        "`b` and `a` both use port 8001 and could run at once; change one `port:`"
    ]


def test_an_installed_model_keeps_its_port_from_a_newcomer() -> None:
    claims = [claim("a", port=8001), claim("b", port=8001)]
    held = relations.relate(claims, holders=frozenset({("a", 8001)}))
    assert {*held.errors} == {"b"}
    assert {*relations.relate(claims, holders=frozenset({("a", 8001), ("b", 8001)})).errors} == {"a", "b"}


def test_rivals_may_have_one_port() -> None:
    assert relations.relate([on("a", "0", port=1), on("b", "0", port=1)]).errors == {}


def test_sockets_listen_beside_each_other_so_they_may_not() -> None:
    demand = {"idle": "15min"}
    decisions = relations.relate(
        [on("a", "0", port=1, on_demand=demand), on("b", "0", port=1, on_demand=demand)]
    )
    assert sorted(decisions.errors) == ["a", "b"]


def test_a_recipe_comes_after_what_it_requires() -> None:
    decisions = relations.relate([claim("a", port=1, requires=("z",)), claim("z", port=2)])
    assert (decisions.relations["a"].requires, decisions.relations["a"].after) == (("z",), ("z",))


@pytest.mark.parametrize("key", ["after", "requires"])
def test_a_name_that_is_no_recipe_is_told(key: str) -> None:
    decisions = relations.relate([claim("a", **{key: ("nobody",)})])
    assert sentences(decisions, "a") == [
        f"`{key}` names `nobody`, which is not another recipe of this host; correct it"
    ]


def test_a_circle_is_told() -> None:
    decisions = relations.relate([claim("a", port=1, after=("b",)), claim("b", port=2, after=("a",))])
    assert "lead back to `a` itself (by `b`)" in sentences(decisions, "a")[0]


def test_what_a_start_would_stop_is_spared_with_what_needs_it() -> None:
    decisions = relations.relate(
        [on("a", "0"), on("b", "0", on_demand={}), on("c", requires=("a",)), on("d", "1")]
    )
    assert decisions.relations["b"].stopped == (("a", 9097), ("c", 9099))


def test_one_that_needs_another_on_its_gpu_does_not_evict_it() -> None:
    decisions = relations.relate([on("a", "0", requires=("b",)), on("b", requires=("c",)), on("c", "0")])
    assert (decisions.errors, decisions.relations["a"].rivals, decisions.relations["a"].after) == (
        {},
        (),
        ("b", "c"),
    )


def test_the_order_of_loading_never_goes_against_what_a_recipe_needs() -> None:
    ordered = {"gpu_sharing": "ordered"}
    decisions = relations.relate(
        [on("a", "0", requires=("c",), **ordered), on("b", "0", **ordered), on("c", "0", **ordered)]
    )
    assert {name: relation.after for name, relation in decisions.relations.items()} == {
        "a": ("b", "c"),
        "b": (),
        "c": ("b",),
    }


def test_what_boots_with_another_counts_as_booting() -> None:
    recipes = [on("a", autostart=True, requires=("b",)), on("b", "0"), on("c", "0", autostart=True)]
    decisions = relations.relate(recipes)
    assert (sorted(decisions.errors), "(`a` requires `b`)" in sentences(decisions, "a")[0]) == (
        ["a", "c"],
        True,
    )


def test_one_that_needs_two_rivals_can_never_start() -> None:
    decisions = relations.relate([on("a", requires=("b", "c")), on("b", "0"), on("c", "0")])
    assert "its start needs `b` and `c`, which stop each other" in sentences(decisions, "a")[0]


def test_coming_after_one_that_it_evicts_is_refused() -> None:
    decisions = relations.relate([on("a", "0", after=("b",)), on("b", "0")])
    assert "`after` names `b`, but a start of `a` stops it" in sentences(decisions, "a")[0]


def test_an_on_demand_engine_listens_behind_its_socket() -> None:
    recipe = Recipe.model_validate({"name": "a", "model_path": "/m", "port": 8001, "on_demand": {}})
    assert loopback_address(recipe) == ("127.0.0.1", 28001)
    other = Recipe.model_validate({"name": "a", "model_path": "/m", "port": 13000, "on_demand": {}})
    assert loopback_address(other) == ("127.0.0.1", 3000)


@pytest.mark.parametrize("public", [1, 8000, 12767, 12768, 18201, 41000, 42768, 65535])
def test_an_engine_never_listens_where_the_kernel_puts_clients(public: int) -> None:
    recipe = Recipe.model_validate({"name": "a", "model_path": "/m", "port": public, "on_demand": {}})
    assert 1024 <= loopback_address(recipe)[1] < 32768
    assert loopback_address(recipe)[1] != public


def test_an_engine_port_that_is_the_port_is_refused() -> None:
    recipe = Recipe.model_validate(
        {"name": "a", "model_path": "/m", "port": 1, "on_demand": {"engine_port": 1}}
    )
    with pytest.raises(UsageError, match="is the same as `port`"):
        loopback_address(recipe)


def test_what_a_required_one_would_stop_is_spared_too() -> None:
    decisions = relations.relate([on("x", "0", on_demand={}, requires=("y",)), on("y", "1"), on("z", "1")])
    assert decisions.relations["x"].stopped == (("z", 9122),)


def test_a_typo_takes_no_other_out_that_conflicts_with_it() -> None:
    decisions = relations.relate([on("a", conflicts=("b",))], frozenset({"b"}))
    assert decisions.errors == {}


SPELLINGS = {
    "indices and ids": (("0",), ("GPU-a",), (), True),
    "indices alone": (("0",), ("1",), (), False),
    "ids alone": (("GPU-a",), ("GPU-b",), (), False),
    "all and ids": (("all",), ("GPU-a",), (), False),
    "a host file that knows both": (("0",), ("GPU-a",), ("GPU-a",), False),
}


@pytest.mark.parametrize(("first", "second", "known", "mixed"), SPELLINGS.values(), ids=SPELLINGS.keys())
def test_two_spellings_of_gpus_cannot_be_compared(
    first: tuple[str, ...], second: tuple[str, ...], known: tuple[str, ...], mixed: bool
) -> None:
    settings = HostSettings(gpus=known)
    both = [claim("a", settings, gpus=first), claim("b", settings, gpus=second)]
    assert claims.gpus_cannot_be_compared(both, settings) == mixed


def test_gpus_of_two_makers_are_not_shared() -> None:
    decisions = relations.relate([on("a", "0"), on("b", "0", accelerator="rocm")])
    assert decisions.relations["a"].rivals == ()


def test_all_gpus_are_shared_with_those_of_one_maker() -> None:
    decisions = relations.relate([on("a", "all"), on("b", "0", accelerator="rocm"), on("c", "all")])
    assert (decisions.relations["a"].rivals, decisions.relations["b"].rivals) == (("c",), ())


ADDRESSES = [("127.0.0.1", "127.0.0.1", True), ("127.0.0.1", "127.0.0.2", False), ("0.0.0.0", "127.0.0.2", True),
             ("localhost", "127.0.0.1", True), ("::", "10.0.0.1", True), ("::1", "0:0:0:0:0:0:0:1", True)]  # fmt: skip


@pytest.mark.parametrize(("first", "second", "clash"), ADDRESSES)
def test_a_port_is_one_for_each_address(first: str, second: str, clash: bool) -> None:
    claims = [claim("a")._replace(ports=((first, 1),)), claim("b")._replace(ports=((second, 1),))]
    decisions = relations.relate(claims)
    assert sorted(decisions.errors) == (["a", "b"] if clash else [])
    if clash:
        assert {error.kind for error in decisions.errors["a"]} == {"port"}


def test_conflicts_are_meant_both_ways_and_a_broken_one_is_no_mistake() -> None:
    decisions = relations.relate([on("a", conflicts=("b", "c")), on("b")], frozenset({"c"}))
    assert (decisions.relations["b"].rivals, decisions.errors) == (("a",), {})
    needed = relations.relate([on("a", requires=("c",))], frozenset({"c"}))
    assert sentences(needed, "a") == ["`requires` names `c`, which has errors; correct them first"]


def test_a_recipe_cannot_need_itself() -> None:
    decisions = relations.relate([on("a", requires=("a",))])
    assert "`requires` names `a`, which is not another recipe of this host; correct it" in sentences(
        decisions, "a"
    )


INSTALLED = """[Unit]
Conflicts=model-b.service
Conflicts=model-c.service

[X-Recipectl]
Recipe=a
Endpoint=http://[::1]:8001
Listen=127.0.0.1 28001
Gpus=0,GPU-x
Accelerator=cuda
GpuSharing=ordered
"""


def test_an_installed_unit_claims_what_it_says() -> None:
    unit = InstalledUnit("model-a.service", INSTALLED)
    installed = claims.claim_of_unit(unit, has_socket=True)
    assert installed._asdict() | {"at_boot": False} == {
        "name": "a", "ports": (("::1", 8001), ("127.0.0.1", 28001)), "gpus": ("0", "GPU-x"), "accelerator": "cuda",
        "gpu_sharing": "ordered", "has_socket": True, "at_boot": False, "after": (), "requires": (),
        "conflicts": ("b", "c"), "set_ports": (),
    }  # fmt: skip
    earlier = InstalledUnit("model-a.service", "[Unit]\n\n[X-Recipectl]\nRecipe=a\nEndpoint=none\nGpus=\n")
    claimed = claims.claim_of_unit(earlier, has_socket=False)
    assert (claimed.ports, claimed.gpus, claimed.gpu_sharing) == ((), (), "exclusive")


def test_what_is_installed_counts_beside_a_recipe_and_instead_of_a_wrong_one() -> None:
    settings = HostSettings(gpus=("GPU-zero",))
    wrong = on("a", "0")
    together = claims.with_installed([on("b", "0")], [wrong], settings)
    assert [(item.name, item.gpus) for item in together] == [("b", ("0",)), ("a", ("GPU-zero",))]
    decided = relations.relate(claims.with_installed([on("b", "0")], [wrong], SETTINGS), frozenset("a"))
    assert decided.relations["b"].rivals == ("a",)
    moved = claims.with_installed(
        [on("a", "1", port=1, gpu_sharing="free")], [on("a", "0", port=2)], SETTINGS
    )
    assert [(item.gpus, item.ports, item.gpu_sharing) for item in moved] == [
        (("1", "0"), (("127.0.0.1", 1), ("127.0.0.1", 2)), "exclusive")
    ]
    other = claims.with_installed([on("a", "1", accelerator="rocm")], [on("a", "0")], SETTINGS)
    assert [item.gpus for item in other] == [("1",)]
