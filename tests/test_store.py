"""Unit files on disk, and carrying out a plan."""

from dataclasses import dataclass
from pathlib import Path

import pytest

from recipectl.compiler.model import Compiled
from recipectl.converge import apply as host
from recipectl.converge.plan import Host, Plan, decide
from recipectl.errors import RecipectlError
from recipectl.systemd.store import Store
from recipectl.systemd.unitfile import Unit

QWEN = Unit("model-qwen.service", "[Service]\n\n[X-Recipectl]\nRecipe=qwen\nDigest=0123456789ab\n")


class Asked:
    """Remembers what a manager was asked."""

    def __init__(self) -> None:
        self.verbs: list[str] = []

    def job(self, verb: str, unit: str) -> str:
        self.verbs.append(f"{verb} {unit}")
        return "done"

    def reload(self) -> None:
        self.verbs.append("reload")

    def disable(self, units: tuple[str, ...]) -> None:
        self.verbs.append(f"disable {' '.join(units)}")

    def enable(self, units: tuple[str, ...]) -> None:
        self.verbs.append(f"enable {' '.join(units)}")

    def start_without_waiting(self, verb: str, unit: str) -> None:
        self.verbs.append(f"{verb} {unit}")


@dataclass(frozen=True)
class State:
    active_state: str = "inactive"
    mark: str | None = None


def model(autostart: bool | None = None, text: str = QWEN.text) -> Compiled:
    units = (Unit(QWEN.name, text),)
    return Compiled("qwen", "/r/qwen.yaml", units, autostart, False, None, "none", (), ())


def planned(store: Store, wanted: Compiled, state: State = State(), **more: bool) -> Plan:
    return decide((wanted,), (), Host(store.installed(), {QWEN.name: state}, store.enabled()), {}, **more)


def test_an_unchanged_host_is_left_alone(tmp_path: Path) -> None:
    store, asked = Store(tmp_path), Asked()
    store.write(QWEN)
    host.apply(planned(store, model()), store, asked)
    assert asked.verbs == []


def test_a_written_unit_is_followed_by_one_reload(tmp_path: Path) -> None:
    store, asked = Store(tmp_path), Asked()
    host.apply(planned(store, model()), store, asked)
    assert (asked.verbs, store.installed()) == (["reload"], {QWEN.name: QWEN.text})


def test_a_removed_unit_is_stopped_before_its_file_goes(tmp_path: Path) -> None:
    store, asked = Store(tmp_path), Asked()
    store.write(QWEN)
    host.apply(decide((), (), Host(store.installed(), {}), {QWEN.name: "gone"}), store, asked)
    assert asked.verbs == ["Stop model-qwen.service", "disable model-qwen.service", "reload"]


def test_a_file_that_is_not_ours_is_never_touched(tmp_path: Path) -> None:
    (tmp_path / QWEN.name).write_text("[Service]\nExecStart=/bin/true\n")
    with pytest.raises(RecipectlError, match="was not written by recipectl"):
        Store(tmp_path).write(QWEN)


def test_no_temporary_file_is_left(tmp_path: Path) -> None:
    Store(tmp_path).write(QWEN)
    assert [path.name for path in tmp_path.iterdir()] == [QWEN.name]


def test_autostart_enables_and_starts_what_is_down(tmp_path: Path) -> None:
    store, asked = Store(tmp_path), Asked()
    host.apply(planned(store, model(autostart=True)), store, asked)
    assert asked.verbs == ["enable model-qwen.service models.target", "reload", "Start model-qwen.service"]


def test_without_autostart_what_an_operator_enabled_stays_so(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.write(QWEN)
    assert not decide((model(),), (), Host(store.installed(), {QWEN.name: State()}, {QWEN.name}), {})


def test_a_model_that_runs_something_older_is_restarted(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.write(QWEN)
    assert planned(store, model(), State("active", "ffffffffffff")).of("restart") == (QWEN.name,)


def test_no_restart_leaves_it_running(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.write(QWEN)
    assert not planned(store, model(), State("active", "ffffffffffff"), restart=False)


def test_a_change_that_the_engine_does_not_see_restarts_nothing(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.write(QWEN)
    todo = planned(
        store, model(text="[Unit]\nDescription=new\n\n" + QWEN.text), State("active", "0123456789ab")
    )
    assert [action.verb for action in todo.actions] == ["write"]


def test_a_model_that_others_need_is_restarted_even_when_it_is_applied_alone(tmp_path: Path) -> None:
    store = Store(tmp_path)
    own = (Unit("model-base.service", QWEN.text), Unit("model-base.socket", QWEN.text))
    base = Compiled("base", "/r/base", own, None, True, None, "none", (), ())
    needs = Unit("model-top.service", f"[Unit]\nRequires=model-base.service\n{QWEN.text}")
    top = Compiled("top", "/r/top", (needs,), None, False, None, "none", (), ())
    store.write(*base.units, *top.units)
    up = {
        "model-base.service": State("active", "ffffffffffff"),
        "model-base.socket": State("active"),
        "model-top.service": State("active", "0123456789ab"),
    }
    there = Host(store.installed(), up)
    alone = decide((base,), (), there, {}, every=(base, top))
    assert (alone.of("restart"), alone.of("stop")) == (("model-base.service",), ())


def test_the_drop_ins_of_a_kind_are_those_of_that_kind(tmp_path: Path) -> None:
    for name in ("model-.service.d", "model-.socket.d", "socket.d", "service.d"):
        (tmp_path / name).mkdir()
        (tmp_path / name / f"{name}.conf").write_text("")
    found = [Path(path).parent.name for path in Store(tmp_path).drop_ins("model-a.socket")]
    assert found == ["model-.socket.d", "socket.d"]
