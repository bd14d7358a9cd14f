"""What recipes of one host are to each other."""

from typing import Any

import pytest

from recipectl import engines
from recipectl.compiler import relations
from recipectl.engines import Endpoint
from recipectl.errors import UsageError
from recipectl.recipe.hostfile import Host
from recipectl.recipe.schema import Recipe

NOTHING = Host()


def claim(name: str, host: Host = NOTHING, **fields: Any) -> relations.Claim:
    recipe = Recipe.model_validate({"name": name, "model_path": "/m", **fields})
    _, port = engines.behind(recipe) if recipe.on_demand else ("", recipe.port or 8000)
    behind = Endpoint("127.0.0.1", port, "/health")
    return relations.claim(recipe, behind, engines.public(recipe, behind), host)


def told(wrong: relations.Wrong, name: str) -> list[str]:
    return [str(error) for error in wrong[name]]


def on(name: str, *gpus: str, port: int = 0, **fields: Any) -> relations.Claim:
    return claim(name, gpus=gpus, port=port or 9000 + ord(name[0]), **fields)


def test_two_on_one_gpu_evict_each_other() -> None:
    found, wrong = relations.decide([on("a", "0", "1"), on("b", "1")])
    assert (found["a"].rivals, found["b"].rivals, found["b"].earlier, wrong) == (("b",), ("a",), ("a",), {})


def test_all_meets_every_gpu_and_none_meets_no_other() -> None:
    found, _ = relations.decide([on("a", "all"), on("b", "1"), on("c", "none")])
    assert (found["a"].rivals, found["c"].rivals) == (("b",), ())


def test_an_index_is_the_uuid_that_the_host_file_says() -> None:
    host = Host(gpus=("GPU-aa", "GPU-bb"))
    found, _ = relations.decide(
        [claim("a", host, gpus=("1",), port=1), claim("b", host, gpus=("GPU-bb",), port=2)]
    )
    assert found["a"].rivals == ("b",)


def test_ordered_ones_live_together_and_load_in_turn() -> None:
    found, _ = relations.decide([on("a", "0", gpu_sharing="ordered"), on("b", "0", gpu_sharing="free")])
    assert (found["a"].rivals, found["a"].turn, found["b"].after) == ((), ("b",), ("a",))


def test_two_that_both_start_at_boot_on_one_gpu_are_told() -> None:
    _, wrong = relations.decide([on("a", "0", autostart=True), on("b", "0", autostart=True)])
    assert told(wrong, "a") == [
        "`a` and `b` both start at boot and share GPU 0; take `autostart` from one, "
        "or give both `gpu_sharing: ordered`"
    ]


def test_one_port_for_two_that_could_run_at_once_is_told() -> None:
    _, wrong = relations.decide([claim("a", port=8001), claim("b", port=8001)])
    assert told(wrong, "b") == ["`b` and `a` both use port 8001 and could run at once; change one `port:`"]


def test_rivals_may_have_one_port() -> None:
    assert relations.decide([on("a", "0", port=1), on("b", "0", port=1)])[1] == {}


def test_sockets_listen_beside_each_other_so_they_may_not() -> None:
    demand = {"idle": "15min"}
    wrong = relations.decide(
        [on("a", "0", port=1, on_demand=demand), on("b", "0", port=1, on_demand=demand)]
    )[1]
    assert sorted(wrong) == ["a", "b"]


def test_a_recipe_comes_after_what_it_requires() -> None:
    found, _ = relations.decide([claim("a", port=1, requires=("z",)), claim("z", port=2)])
    assert (found["a"].requires, found["a"].after) == (("z",), ("z",))


@pytest.mark.parametrize("key", ["after", "requires"])
def test_a_name_that_is_no_recipe_is_told(key: str) -> None:
    _, wrong = relations.decide([claim("a", **{key: ("nobody",)})])
    assert told(wrong, "a") == [f"`{key}` names `nobody`, which is no recipe of this host; correct it"]


def test_a_circle_is_told() -> None:
    _, wrong = relations.decide([claim("a", port=1, after=("b",)), claim("b", port=2, after=("a",))])
    assert "lead back to `a` itself" in told(wrong, "a")[0]


def test_what_a_start_would_stop_is_spared_with_what_needs_it() -> None:
    found, _ = relations.decide(
        [on("a", "0"), on("b", "0", on_demand={}), on("c", requires=("a",)), on("d", "1")]
    )
    assert found["b"].spared == (("a", 9097), ("c", 9099))


def test_one_that_needs_another_on_its_gpu_does_not_evict_it() -> None:
    found, wrong = relations.decide([on("a", "0", requires=("b",)), on("b", requires=("c",)), on("c", "0")])
    assert (wrong, found["a"].rivals, found["a"].after) == ({}, (), ("b", "c"))


def test_the_order_of_loading_never_goes_against_what_a_recipe_needs() -> None:
    ordered = {"gpu_sharing": "ordered"}
    found, _ = relations.decide(
        [on("a", "0", requires=("c",), **ordered), on("b", "0", **ordered), on("c", "0", **ordered)]
    )
    assert {name: one.after for name, one in found.items()} == {"a": ("b", "c"), "b": (), "c": ("b",)}


def test_what_boots_with_another_counts_as_booting() -> None:
    recipes = [on("a", autostart=True, requires=("b",)), on("b", "0"), on("c", "0", autostart=True)]
    _, wrong = relations.decide(recipes)
    assert (sorted(wrong), "(`a` requires `b`)" in told(wrong, "a")[0]) == (["a", "c"], True)


def test_one_that_needs_two_rivals_can_never_start() -> None:
    _, wrong = relations.decide([on("a", requires=("b", "c")), on("b", "0"), on("c", "0")])
    assert "it starts with `b` and `c`, which share a GPU and stop each other" in told(wrong, "a")[0]


def test_coming_after_one_that_it_evicts_is_refused() -> None:
    _, wrong = relations.decide([on("a", "0", after=("b",)), on("b", "0")])
    assert "`after` names `b`, which it evicts" in told(wrong, "a")[0]


def test_an_on_demand_engine_listens_behind_its_socket() -> None:
    recipe = Recipe.model_validate({"name": "a", "model_path": "/m", "port": 8001, "on_demand": {}})
    assert engines.behind(recipe) == ("127.0.0.1", 28001)


@pytest.mark.parametrize("public", [1, 8000, 12767, 12768, 18201, 41000, 42768, 65535])
def test_an_engine_never_listens_where_the_kernel_puts_clients(public: int) -> None:
    recipe = Recipe.model_validate({"name": "a", "model_path": "/m", "port": public, "on_demand": {}})
    assert 1024 <= engines.behind(recipe)[1] < 32768
    assert engines.behind(recipe)[1] != public


def test_an_engine_port_that_is_the_port_is_refused() -> None:
    recipe = Recipe.model_validate(
        {"name": "a", "model_path": "/m", "port": 1, "on_demand": {"engine_port": 1}}
    )
    with pytest.raises(UsageError, match="is `port` itself"):
        engines.behind(recipe)


def test_what_a_required_one_would_stop_is_spared_too() -> None:
    found, _ = relations.decide([on("x", "0", on_demand={}, requires=("y",)), on("y", "1"), on("z", "1")])
    assert found["x"].spared == (("z", 9122),)


def test_a_typo_takes_no_other_out_that_conflicts_with_it() -> None:
    _, wrong = relations.decide([on("a", conflicts=("b",))], frozenset({"b"}))
    assert wrong == {}
