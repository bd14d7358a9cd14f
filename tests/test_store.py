"""Unit files on disk, and carrying out a plan."""

import time
from pathlib import Path
from threading import Thread

import pytest
from models import State, model

from recipectl.compiler.model import CompiledModel
from recipectl.converge.apply import apply
from recipectl.converge.plan import make_plan
from recipectl.converge.values import Action, Plan, Survey
from recipectl.errors import HostError, RecipectlError
from recipectl.place import Place
from recipectl.systemd.store import Store
from recipectl.systemd.unitfile import Unit, UnitNames, recipe_of_unit

QWEN = Unit("model-qwen.service", "[Service]\n\n[X-Recipectl]\nRecipe=qwen\nDigest=0123456789ab\n")


class RecordingManager:
    """Remembers the verbs it was given."""

    place = Place()

    def __init__(self) -> None:
        self.verbs: list[str] = []

    def job(self, verb: str, unit: str) -> str:
        self.verbs.append(f"{verb} {unit}")
        return "done"

    def queue(self, verb: str, unit: str) -> bytes:
        self.verbs.append(f"{verb} {unit}")
        return b""

    def result(self, _: bytes) -> str:
        return "done"

    def states(self, units: list[str], *, brief: bool) -> tuple[State, ...]:
        return tuple(State() for _ in units if brief)

    def reload(self) -> None:
        self.verbs.append("reload")

    def reset_failed(self, unit: str) -> None:
        """Nothing has failed."""

    def disable(self, units: tuple[str, ...]) -> None:
        self.verbs.append(f"disable {' '.join(units)}")

    def enable(self, units: tuple[str, ...]) -> None:
        self.verbs.append(f"enable {' '.join(units)}")

    def start_without_waiting(self, verb: str, unit: str) -> None:
        self.verbs.append(f"{verb} {unit}")


DOWN = State()


def planned(store: Store, model_: CompiledModel, state: State = DOWN, **options: bool) -> Plan:
    states, started = {QWEN.name: state}, {QWEN.name: state.started_digest}
    return make_plan(
        (model_,), (), Survey(store.installed(), states, store.enabled(), started=started), **options
    )


def test_an_unchanged_host_is_left_alone(tmp_path: Path) -> None:
    store, manager = Store(tmp_path), RecordingManager()
    store.write(QWEN)
    apply(planned(store, model()), store, manager)
    assert manager.verbs == []


def test_a_written_unit_is_followed_by_one_reload(tmp_path: Path) -> None:
    store, manager = Store(tmp_path), RecordingManager()
    apply(planned(store, model()), store, manager)
    texts = {name: unit.text for name, unit in store.installed().items()}
    assert (manager.verbs, texts) == (["reload"], {QWEN.name: QWEN.text})


def test_a_removed_unit_is_stopped_before_its_file_goes(tmp_path: Path) -> None:
    store, manager = Store(tmp_path), RecordingManager()
    store.write(QWEN)
    survey = Survey(store.installed(), {}, gone={QWEN.name: "gone"})
    apply(make_plan((), (), survey), store, manager)
    assert manager.verbs == ["Stop model-qwen.service", "disable model-qwen.service", "reload"]


def test_a_model_of_which_one_unit_stays_keeps_all_and_nothing_else_is_started(tmp_path: Path) -> None:
    class Refusing(RecordingManager):
        def result(self, _: bytes) -> str:
            return "done" if self.verbs[-1].endswith("b.service") else "canceled"

    store, manager = Store(tmp_path), Refusing()
    watch = Unit("model-qwen-watch.service", QWEN.text)
    store.write(QWEN, watch)
    survey = Survey(store.installed(), {}, gone={QWEN.name: "gone", watch.name: "gone"})
    started = Action("start", "model-other.service", "autostart: true")
    plan = make_plan((), (), survey)
    with pytest.raises(HostError, match="qwen may hold a port or GPUs yet, so nothing is started"):
        apply(Plan((*plan.actions, started), ()), store, manager)
    assert {*store.installed()} == {QWEN.name, watch.name}
    assert manager.verbs == [f"Stop {QWEN.name}", f"Stop {watch.name}", "reload"]


@pytest.mark.parametrize("unit", UnitNames("a-b.c").every)
def test_the_recipe_of_a_unit_is_in_its_name(unit: str) -> None:
    assert recipe_of_unit(unit) == "a-b.c"


def test_a_removed_unit_that_runs_after_the_reload_is_stopped(tmp_path: Path) -> None:
    class Restarting(RecordingManager):
        def states(self, units: list[str], *, brief: bool) -> tuple[State, ...]:
            return tuple(State("active", name=unit) for unit in units if brief)

    store, manager = Store(tmp_path), Restarting()
    store.write(QWEN)
    survey = Survey(store.installed(), {}, gone={QWEN.name: "gone"})
    apply(make_plan((), (), survey), store, manager)
    assert manager.verbs[-2:] == ["reload", "Stop model-qwen.service"]


def test_a_file_that_is_not_ours_is_never_touched(tmp_path: Path) -> None:
    (tmp_path / QWEN.name).write_text("[Service]\nExecStart=/bin/true\n")
    with pytest.raises(RecipectlError, match="was not written by recipectl"):
        Store(tmp_path).write(QWEN)


def test_no_temporary_file_is_left(tmp_path: Path) -> None:
    Store(tmp_path).write(QWEN)
    assert [path.name for path in tmp_path.iterdir()] == [QWEN.name]


def test_autostart_enables_and_starts_what_is_down(tmp_path: Path) -> None:
    store, manager = Store(tmp_path), RecordingManager()
    apply(planned(store, model(autostart=True)), store, manager)
    assert manager.verbs == ["enable model-qwen.service models.target", "reload", "Start model-qwen.service"]


def test_without_autostart_what_an_operator_enabled_stays_so(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.write(QWEN)
    assert not make_plan((model(),), (), Survey(store.installed(), {QWEN.name: State()}, {QWEN.name}))


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
    base, top = model("base", units=own, on_demand=True), model("top", requires=("base",))
    store.write(*base.units, *top.units)
    up = {
        "model-base.service": State("active", "ffffffffffff"),
        "model-base.socket": State("active"),
        "model-top.service": State("active", "0123456789ab"),
    }
    there = Survey(store.installed(), up, started={unit: state.started_digest for unit, state in up.items()})
    alone = make_plan((base,), (), there, all_models=(base, top))
    assert (alone.of("restart"), alone.of("stop")) == (("model-base.service",), ())


def test_the_drop_ins_of_a_kind_are_those_of_that_kind(tmp_path: Path) -> None:
    for name in ("model-.service.d", "model-.socket.d", "socket.d", "service.d"):
        (tmp_path / name).mkdir()
        (tmp_path / name / f"{name}.conf").write_text("")
    result = [Path(path).parent.name for path in Store(tmp_path).drop_ins("model-a.socket")]
    assert result == ["model-.socket.d", "socket.d"]


def test_a_wait_for_the_lock_is_said(tmp_path: Path) -> None:
    path = tmp_path / ".recipectl.lock"
    path.write_text("")
    path.chmod(0o644)
    waits: list[Path] = []
    waiting = Thread(target=lambda: Store(tmp_path).lock(waits.append).close())
    with Store(tmp_path).lock(waits.append):
        # Another account that can open the file could hold the lock.
        assert path.stat().st_mode & 0o777 == 0o600
        waiting.start()
        while not waits:
            time.sleep(0.05)
        assert waiting.is_alive()
    waiting.join()
    assert waits == [path]


def test_a_lock_is_no_link(tmp_path: Path) -> None:
    (tmp_path / ".recipectl.lock").symlink_to(tmp_path / "else")
    with pytest.raises(RecipectlError, match=r"/\.recipectl\.lock could not be written: Too many levels"):
        Store(tmp_path).lock(lambda _: None)
    assert not (tmp_path / "else").exists()


@pytest.mark.parametrize("name", ["model-x.service", "models.target", "models-gateway.service"])
def test_a_masked_unit_is_nobodys_and_stops_no_verb(name: str, tmp_path: Path) -> None:
    (tmp_path / name).symlink_to("/dev/null")
    store = Store(tmp_path)
    assert (store.read(name), [*store.installed()]) == (None, [])
