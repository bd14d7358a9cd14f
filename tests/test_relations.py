"""What recipes of one host are to each other."""

from typing import Any

import pytest

from recipectl import engines, relations
from recipectl.engines import Endpoint
from recipectl.errors import UsageError
from recipectl.hostfile import Host
from recipectl.recipe import Recipe

NOTHING = Host()


def claim(name: str, host: Host = NOTHING, **fields: Any) -> relations.Claim:
    recipe = Recipe.model_validate({"name": name, "model_path": "/m", **fields})
    _, port = engines.behind(recipe) if recipe.on_demand else ("", recipe.port or 8000)
    behind = Endpoint("127.0.0.1", port, "/health")
    return relations.claim(recipe, f"/r/{name}.yaml", behind, engines.public(recipe, behind), host)


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
    assert wrong["a"] == [
        "/r/a.yaml: `a` and `b` both start at boot and share GPU 0; take `autostart` from one, "
        "or give both `gpu_sharing: ordered`"
    ]


def test_one_port_for_two_that_could_run_at_once_is_told() -> None:
    _, wrong = relations.decide([claim("a", port=8001), claim("b", port=8001)])
    assert wrong["b"] == [
        "/r/b.yaml: `b` and `a` both use port 8001 and could run at once; change one `port:`"
    ]


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
    assert wrong["a"] == [f"/r/a.yaml: `{key}` names `nobody`, which is no recipe of this host; correct it"]


def test_a_circle_is_told() -> None:
    _, wrong = relations.decide([claim("a", port=1, after=("b",)), claim("b", port=2, after=("a",))])
    assert "lead back to `a` itself" in wrong["a"][0]


def test_an_idle_rival_is_waited_for_unless_the_newcomer_says_always() -> None:
    found, _ = relations.decide(
        [on("a", "0", on_demand={}), on("b", "0", on_demand={"evict": "always"}), on("c", "0")]
    )
    assert found["c"].polite == ("a",)


def test_an_on_demand_engine_listens_behind_its_socket() -> None:
    recipe = Recipe.model_validate({"name": "a", "model_path": "/m", "port": 8001, "on_demand": {}})
    assert engines.behind(recipe) == ("127.0.0.1", 28001)


def test_an_engine_port_that_is_the_port_is_refused() -> None:
    recipe = Recipe.model_validate(
        {"name": "a", "model_path": "/m", "port": 1, "on_demand": {"engine_port": 1}}
    )
    with pytest.raises(UsageError, match="is `port` itself"):
        engines.behind(recipe)
