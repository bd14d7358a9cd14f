"""What a plan does with one model in each situation, and why."""

from dataclasses import replace

import pytest
from models import State, model

from recipectl.compiler.model import CompiledModel
from recipectl.converge.plan import make_plan, must_skip, without_a_model
from recipectl.converge.values import Action, Plan, Survey
from recipectl.errors import Problem
from recipectl.systemd.unitfile import GATEWAY, InstalledUnit, Unit, UnitNames

A = UnitNames("a")
UP, DOWN, FAILED = State("active", "0123456789ab"), State(), State("failed")
OLD = State("active", "ffffffffffff")
CHANGED = "the recipe changed since the model started"


def on_demand(name: str = "a", **fields: object) -> CompiledModel:
    names = UnitNames(name)
    units = tuple(
        Unit(unit, f"[Unit]\n[Socket]\nListenStream=1\n[X-Recipectl]\nRecipe={name}\n")
        for unit in (names.service, names.socket, names.proxy, names.keep)
    )
    return model(name, units=units, on_demand=True, **fields)


def queued(**fields: object) -> CompiledModel:
    units = tuple(
        Unit(unit, "[Unit]\n[Socket]\nListenStream=1\n[X-Recipectl]\nRecipe=a\nDigest=0123456789ab\n")
        for unit in (A.service, A.queue_socket, A.queue, A.queue_open)
    )
    return model("a", units=units, queued=True, queue_digest="0123456789ab", **fields)


def watched() -> CompiledModel:
    return model(
        "a",
        units=tuple(Unit(unit, "x") for unit in (A.service, A.watch, A.hung)),
        watched=True,
    )


def survey(
    *models: CompiledModel, enabled: tuple[str, ...] = (), reload_due: bool = False, **states: State
) -> Survey:
    """A host with all units of the models as they are; `states` by the name of the unit's property, of model a."""
    every = {unit: DOWN for target in models for unit in target.unit_names.every}
    facts = {
        getattr(A, name) if hasattr(A, name) else f"model-{name}.service": state
        for name, state in states.items()
    }
    installed = {unit.name: InstalledUnit(*unit) for target in models for unit in target.units}
    started = {unit: state.started_digest for unit, state in facts.items()}
    return Survey(installed, every | facts, enabled, reload_due=reload_due, started=started)


def without(host: Survey, unit: str, text: str | None = None) -> Survey:
    """The host without a unit, or with another text of it."""
    other_units = {name: installed for name, installed in host.installed.items() if name != unit}
    return replace(
        host, installed=other_units | ({unit: InstalledUnit(unit, text)} if text is not None else {})
    )


def jobs(plan: Plan) -> list[tuple[str, str]]:
    return [(action.verb, action.unit) for action in plan.actions]


MISSING = Problem(
    "a.yaml", 1, 13, "model_path", "file", "`model_path` /m does not exist on this host", "warning"
)


@pytest.mark.parametrize(
    ("state", "text", "is_held"),
    [
        (UP, "another", True),
        (State("activating"), "another", True),
        (DOWN, "another", False),
        (UP, None, False),
    ],
)
def test_what_runs_is_not_ended_for_a_model_that_is_missing(
    state: State, text: str | None, is_held: bool
) -> None:
    target = model("a", warnings=(MISSING,))
    host = survey(target, service=state)
    held = without_a_model([target], host if text is None else without(host, A.service, text))
    assert {name: (told.severity, told.line) for name, told in held.items()} == (
        {"a": ("error", 1)} if is_held else {}
    )
    assert without_a_model([model("a")], without(host, A.service, "another")) == {}


def test_a_rival_that_runs_is_not_evicted_by_autostart() -> None:
    first, rival = model("a", autostart=True, rivals=("b",)), model("b", rivals=("a",))
    assert jobs(
        make_plan((first,), (), survey(first, rival, enabled=(A.service,)), all_models=(first, rival))
    ) == [("start", A.service)]
    busy = survey(first, rival, enabled=(A.service,), b=UP)
    assert jobs(make_plan((first,), (), busy, all_models=(first, rival))) == []
    # Its start waits until this one has stopped.
    waiting = survey(first, rival, enabled=(A.service,), service=State("deactivating"), b=State(job="start"))
    assert jobs(make_plan((first,), (), waiting, all_models=(first, rival))) == []


def test_a_rival_of_what_a_model_requires_counts_too() -> None:
    first, base, rival = (
        model("a", autostart=True, requires=("base",)),
        model("base", rivals=("b",)),
        model("b"),
    )
    host = survey(first, base, rival, enabled=(A.service,), b=UP)
    assert jobs(make_plan((first,), (), host, all_models=(first, base, rival))) == []


@pytest.mark.parametrize("state", ["active", "activating", "reloading"])
def test_a_model_that_runs_or_loads_is_not_started_again(state: str) -> None:
    target = model("a", autostart=True)
    assert jobs(make_plan((target,), (), survey(target, enabled=(A.service,), service=State(state)))) == []


def test_a_failed_model_is_started_with_that_reason() -> None:
    target = model("a", autostart=True)
    plan = make_plan((target,), (), survey(target, enabled=(A.service,), service=FAILED))
    assert plan.actions == (Action("start", A.service, "autostart: true, and it has failed"),)


@pytest.mark.parametrize(("autostart", "enabled", "verbs"), [
    (True, False, ["enable", "start"]), (True, True, ["start"]), (False, True, ["disable"]), (False, False, []),
    (None, True, []), (None, False, []),
])  # fmt: skip
def test_a_link_is_as_autostart_says(autostart: bool | None, enabled: bool, verbs: list[str]) -> None:
    target = model("a", autostart=autostart)
    host = survey(target, enabled=(A.service,) if enabled else ())
    assert [action.verb for action in make_plan((target,), (), host).actions] == verbs


@pytest.mark.parametrize("restart", [True, False])
def test_a_changed_model_is_restarted_unless_it_must_not(restart: bool) -> None:
    target = model("a")
    plan = make_plan((target,), (), survey(target, service=OLD), restart=restart)
    assert plan.actions == ((Action("restart", A.service, CHANGED),) if restart else ())


@pytest.mark.parametrize("job", ["stop", "restart"])
def test_nothing_is_due_while_a_job_is_to_stop_the_model(job: str) -> None:
    """Its queue drains: a later start takes the newest unit."""
    target = model("a", queued=True, watched=True, queue_digest="new")
    queue = State("active", "old", job="restart")
    host = survey(target, service=replace(OLD, job=job), queue=queue, queue_socket=UP)
    assert jobs(make_plan((target,), (), host)) == []


@pytest.mark.parametrize("digest", [None, "0123456789ab"])
def test_a_model_of_this_unit_or_of_an_unknown_one_is_left_alone(digest: str | None) -> None:
    target = model("a")
    assert not make_plan((target,), (), survey(target, service=State("active", digest)))


def test_a_socket_that_an_operator_disabled_stays_so() -> None:
    target = on_demand()
    assert jobs(make_plan((target,), (), survey(target))) == []
    assert jobs(make_plan((target,), (), survey(target, enabled=(A.socket,)))) == [("start", A.socket)]


def test_after_an_interrupted_apply_the_socket_is_enabled() -> None:
    target = on_demand()
    assert jobs(make_plan((target,), (), survey(target, reload_due=True))) == [
        ("reload", "systemd"), ("enable", A.socket), ("start", A.socket)
    ]  # fmt: skip


def test_a_new_socket_is_written_enabled_and_started() -> None:
    target = on_demand()
    host = without(survey(target), A.socket)
    assert jobs(make_plan((target,), (), host)) == [
        ("write", A.socket),
        ("enable", A.socket),
        ("start", A.socket),
    ]


def test_a_failed_socket_is_started_with_that_reason() -> None:
    target = on_demand()
    plan = make_plan((target,), (), survey(target, enabled=(A.socket,), socket=FAILED))
    assert plan.actions == (Action("start", A.socket, "on_demand, and it has failed"),)


def test_a_changed_model_on_demand_stops_for_the_next_request() -> None:
    target = on_demand()
    host = survey(target, enabled=(A.socket,), socket=UP, proxy=UP, service=OLD)
    assert make_plan((target,), (), host).actions == (
        Action("stop", A.proxy, CHANGED), Action("stop", A.service, CHANGED)
    )  # fmt: skip
    assert not make_plan((target,), (), host, restart=False)


def test_a_changed_model_on_demand_that_others_require_is_restarted() -> None:
    target, top = on_demand(), model("top", requires=("a",))
    host = survey(target, top, enabled=(A.socket,), socket=UP, service=OLD, top=UP)
    assert jobs(make_plan((target,), (), host, all_models=(target, top))) == [("restart", A.service)]


def test_a_model_whose_proxy_goes_is_restarted() -> None:
    host = survey(on_demand(), enabled=(A.socket,), socket=UP, service=UP)
    plan = make_plan((queued(),), (), host)
    restarts = [action for action in plan.actions if action.verb == "restart"]
    assert restarts == [Action("restart", A.service, "its proxy, which keeps it up, is removed")]


def test_what_shows_the_gateway_an_earlier_address_is_restarted_or_stopped_before_it_moves() -> None:
    target = model("a", units=(Unit(A.service, "x"), Unit(A.reachable, "x")))
    host = replace(survey(target, service=UP, reachable=UP), misleading=(A.reachable,))
    assert jobs(make_plan((target,), (), host)) == [("restart", A.reachable)]
    moved = without(host, A.reachable, "older")
    assert jobs(make_plan((target,), (), moved)) == [("write", A.reachable), ("stop", A.reachable)]
    down = replace(survey(target, reachable=UP), misleading=(A.reachable,))
    assert not make_plan((target,), (), down)


def test_a_gateway_that_goes_on_still_leads_to_models() -> None:
    before = model("a", units=(Unit(A.service, "x"), Unit(A.reachable, "x")))
    after = model("a", units=(Unit(A.service, "x"),))
    host = survey(before, service=UP, reachable=UP)
    assert jobs(make_plan((after,), (), host, restart=False)) == [("remove", A.reachable)]
    going_on = replace(host, states={**host.states, GATEWAY: UP})
    assert not make_plan((after,), (), going_on, restart=False)
    assert jobs(make_plan((after,), (), going_on)) == [("remove", A.reachable)]


def test_a_socket_that_moved_is_restarted_after_its_proxy_stopped() -> None:
    target = on_demand()
    host = survey(target, enabled=(A.socket,), socket=UP, proxy=UP, service=UP)
    moved = without(host, A.socket, "older")
    assert jobs(make_plan((target,), (), moved)) == [
        ("write", A.socket), ("stop", A.proxy), ("stop", A.service), ("restart", A.socket)
    ]  # fmt: skip
    assert not make_plan((target,), (), moved, restart=False)
    silent = replace(host, silent_sockets=(A.socket,))
    plan = make_plan((target,), (), silent)
    assert [action.reason for action in plan.actions] == [
        "its socket must be started", "its socket must be started", "it does not listen at its address"
    ]  # fmt: skip


PROXY = "[Service]\nExecCondition={helper} wait-until-idle {rival}\nExecStart={helper} pass-requests --idle-sec {idle}\n"
PROXIES = {
    "another idle time": ({"idle": 60}, [("stop", A.proxy), ("stop", A.service)]),
    "another release of the helper": ({"helper": "/usr/lib/recipectl/helper-000000000000.pyz"}, []),
    "another rival": ({"rival": "c=2"}, []),
}


@pytest.mark.parametrize(("before", "stopped"), PROXIES.values(), ids=PROXIES.keys())
def test_a_proxy_is_stopped_while_it_runs_if_it_passes_requests_otherwise(
    before: dict[str, object], stopped: list[tuple[str, str]]
) -> None:
    now = {"helper": "/usr/lib/recipectl/helper-0123456789ab.pyz", "rival": "b=1", "idle": 300}
    units = (
        *(unit for unit in on_demand().units if unit.name != A.proxy),
        Unit(A.proxy, PROXY.format(**now)),
    )
    target = on_demand()._replace(units=units)
    older = PROXY.format(**(now | before))
    host = survey(target, enabled=(A.socket,), socket=UP, proxy=UP, service=UP)
    assert jobs(make_plan((target,), (), without(host, A.proxy, older))) == [("write", A.proxy), *stopped]
    assert bool(make_plan((target,), (), without(host, A.proxy, older), restart=False)) == (not stopped)
    idle = survey(target, enabled=(A.socket,), socket=UP)
    assert jobs(make_plan((target,), (), without(idle, A.proxy, older))) == [("write", A.proxy)]


def test_a_missing_socket_of_a_busy_model_waits_without_restarts() -> None:
    target = on_demand()
    host = survey(target, enabled=(A.socket,), service=UP)
    assert jobs(make_plan((target,), (), host)) == [("stop", A.service), ("start", A.socket)]
    assert not make_plan((target,), (), host, restart=False)


def test_a_model_that_becomes_on_demand_is_disabled_itself() -> None:
    target = on_demand()
    host = survey(target, enabled=(A.socket, A.service), socket=UP)
    assert make_plan((target,), (), host).actions == (Action("disable", A.service, "it starts on demand"),)


def test_units_that_a_recipe_needs_no_longer_are_removed() -> None:
    before, target = on_demand(), model("a")
    host = survey(before, socket=UP)
    removed = [unit for verb, unit in jobs(make_plan((target,), (), host)) if verb == "remove"]
    assert removed == [A.socket, A.proxy, A.keep]


@pytest.mark.parametrize(("watch", "text", "verbs"), [
    (DOWN, "x", ["start"]), (UP, "x", []), (UP, "older", ["write", "restart"]),
])  # fmt: skip
def test_a_watch_runs_while_the_model_runs(watch: State, text: str, verbs: list[str]) -> None:
    target = watched()
    host = without(survey(target, service=UP, watch=watch), A.watch, text)
    assert [action.verb for action in make_plan((target,), (), host).actions] == verbs
    stopped = without(survey(target, watch=watch), A.watch, "x")
    assert not make_plan((target,), (), stopped)


@pytest.mark.parametrize(
    ("state", "kept"), [({"service": UP}, True), ({"proxy": UP}, True), ({"socket": UP}, False)]
)
def test_what_runs_is_not_removed_without_restarts(state: dict[str, State], kept: bool) -> None:
    host = replace(survey(on_demand(), **state), gone={A.service: "gone", A.socket: "gone"})
    verbs = [action.verb for action in make_plan((), (), host, restart=False).actions]
    assert verbs == ([] if kept else ["remove", "remove"])
    assert [action.verb for action in make_plan((), (), host).actions] == ["remove", "remove"]


def test_reasons_say_what_changed_in_a_unit() -> None:
    text = "[Service]\nExecStart=/new\nEnvironment=A=1\nUser=u\n\n[X-Recipectl]\nRecipe=a\n"
    target = model("a", text=text)
    older = text.replace("/new", "/old").replace("A=1", "A=0")
    host = without(survey(target), A.service, older)
    assert make_plan((target,), (), host).actions[0].reason == "ExecStart=, Environment= changed"
    noted = without(survey(target), A.service, text.replace("Recipe=a", "Recipe=a\nRule=x"))
    assert "recipectl's own notes" in make_plan((target,), (), noted).actions[0].reason
    assert make_plan((target,), (), without(survey(target), A.service)).actions[0].reason == "new"
    edited = without(survey(target), A.service, f"{older}Text=000000000000\n")
    assert make_plan((target,), (), edited).actions[0].reason == "was edited by hand"


def test_users_and_shared_units_come_first() -> None:
    target, shared = model("a"), (Unit("models.target", "x"),)
    host = replace(survey(target), missing_users=("llm",))
    assert jobs(make_plan((target,), shared, host)) == [("create user", "llm"), ("write", "models.target")]


def test_without_restarts_what_the_engine_does_not_notice_is_still_written() -> None:
    target = on_demand()
    host = survey(target, enabled=(A.socket,), socket=UP, proxy=UP, service=UP)
    plan = make_plan((target,), (), without(host, A.service, "older"), restart=False)
    assert jobs(plan) == [("write", A.service)]


def test_a_process_of_an_earlier_release_is_restarted_and_an_unknown_one_is_not() -> None:
    for digest, verbs in (("", ["restart"]), (None, []), ("0123456789ab", []), ("ffffffffffff", ["restart"])):
        target = model("a")
        host = survey(target, service=State("active", digest))
        assert [action.verb for action in make_plan((target,), (), host).actions] == verbs


def test_a_helper_is_written_before_units_and_kept_while_a_unit_names_it() -> None:
    target = model("a", text="[Service]\nExecStartPre=/lib/new.pyz\n\n[X-Recipectl]\nRecipe=a\n")
    older = "[Service]\nExecStartPre=/lib/old.pyz\n\n[X-Recipectl]\nRecipe=a\n"
    host = without(survey(target), A.service, older)
    host = replace(host, missing_helper="/lib/new.pyz", other_helpers=("/lib/old.pyz",))
    assert jobs(make_plan((target,), (), host)) == [
        ("write helper", "/lib/new.pyz"), ("write", A.service), ("remove helper", "/lib/old.pyz"),
    ]  # fmt: skip
    kept = replace(
        host, installed=host.installed | {"model-b.service": InstalledUnit("model-b.service", older)}
    )
    assert "remove helper" not in [verb for verb, _ in jobs(make_plan((target,), (), kept))]


def test_accounts_come_first() -> None:
    target = model("a", user="model-a")
    host = replace(survey(target), missing_users=("model-a",), missing_groups=("model-data",))
    assert jobs(make_plan((target,), (), host)) == [
        ("create group", "model-data"),
        ("create user", "model-a"),
    ]


RUNNING_QUEUE = {"service": UP, "queue_socket": UP, "queue": UP, "queue_open": UP}


def test_a_model_with_a_queue_that_runs_needs_nothing() -> None:
    assert jobs(make_plan((queued(),), (), survey(queued(), **RUNNING_QUEUE))) == []
    assert jobs(make_plan((queued(),), (), survey(queued()))) == []


def test_a_new_queue_starts_with_the_restart_of_the_engine_that_holds_its_port() -> None:
    host = without(without(survey(queued(), service=OLD), A.queue_socket), A.queue)
    assert jobs(make_plan((queued(),), (), host))[-2:] == [("start", A.queue_socket), ("restart", A.service)]
    assert jobs(make_plan((queued(),), (), host, restart=False)) == []


def test_a_queue_whose_socket_was_stopped_listens_again() -> None:
    host = survey(queued(), service=UP, queue_open=UP)
    assert make_plan((queued(),), (), host).actions == (Action("start", A.queue_socket, "queue"),)
    starts = queued(autostart=True)
    assert jobs(make_plan((starts,), (), survey(starts, enabled=(A.service,)))) == [
        ("start", A.queue_socket), ("start", A.service)
    ]  # fmt: skip


def test_the_way_to_a_model_that_is_ready_is_opened() -> None:
    host = survey(queued(), service=UP, queue_socket=UP)
    assert jobs(make_plan((queued(),), (), host)) == [("start", A.queue_open)]
    for states in (
        {"service": replace(UP, job="stop"), "queue_open": State("deactivating")},  # it drains
        {"queue_open": State("activating")},
        {"queue_open": State(job="start")},
    ):
        assert jobs(make_plan((queued(),), (), survey(queued(), **RUNNING_QUEUE | states))) == []


def test_haproxy_starts_anew_only_while_the_model_answers_what_is_in_it() -> None:
    changed = RUNNING_QUEUE | {"queue": OLD}
    assert jobs(make_plan((queued(),), (), survey(queued(), **changed))) == [("restart", A.queue)]
    loading = changed | {"service": State("activating", "0123456789ab")}
    assert jobs(make_plan((queued(),), (), survey(queued(), **loading))) == []
    stopped = changed | {"service": DOWN, "queue_open": DOWN}
    assert jobs(make_plan((queued(),), (), survey(queued(), **stopped))) == [("restart", A.queue)]
    both = changed | {"service": OLD}
    assert jobs(make_plan((queued(),), (), survey(queued(), **both))) == [
        ("restart", A.queue), ("restart", A.service)
    ]  # fmt: skip
    assert jobs(make_plan((queued(),), (), survey(queued(), **both), restart=False)) == []


def test_a_queue_that_moved_is_restarted_by_its_socket() -> None:
    comment = without(
        survey(queued(), **RUNNING_QUEUE), A.queue_socket, "# older\n[Socket]\nListenStream=1\n"
    )
    assert jobs(make_plan((queued(),), (), comment)) == [("write", A.queue_socket)]
    host = without(survey(queued(), **RUNNING_QUEUE), A.queue_socket, "older")
    assert jobs(make_plan((queued(),), (), host)) == [("write", A.queue_socket), ("restart", A.queue_socket)]
    assert jobs(make_plan((queued(),), (), host, restart=False)) == []


def test_a_queue_that_is_no_longer_wanted_goes_before_the_engine_takes_its_port() -> None:
    host = survey(queued(), **RUNNING_QUEUE | {"service": OLD})
    assert jobs(make_plan((model("a"),), (), host)) == [
        ("write", A.service), ("remove", A.queue_socket), ("remove", A.queue_open), ("remove", A.queue),
        ("restart", A.service),
    ]  # fmt: skip
    assert jobs(make_plan((model("a"),), (), host, restart=False)) == []


@pytest.mark.parametrize(("listens", "shown", "verbs"), [
    ("service", DOWN, ["start"]), ("service", UP, []), ("socket", DOWN, ["start"]), (None, DOWN, []),
    ("crashed", DOWN, []),
])  # fmt: skip
def test_the_gateway_is_shown_what_listens_already(
    listens: str | None, shown: State, verbs: list[str]
) -> None:
    state = State("activating", waits_to_restart=True) if listens == "crashed" else UP
    listens = "service" if listens == "crashed" else listens
    target = on_demand() if listens == "socket" else model("a", units=(Unit(A.service, "x"),))
    target = target._replace(units=(*target.units, Unit(A.reachable, "x")))
    host = survey(target, enabled=(A.socket,), reachable=shown, **({listens: state} if listens else {}))
    for restart in (True, False):
        assert jobs(make_plan([target], [], host, restart=restart)) == [(verb, A.reachable) for verb in verbs]


def test_a_socket_with_other_dependencies_alone_is_not_skipped() -> None:
    target = on_demand()
    installed = f"{target.units[1].text}".replace("[Unit]\n", "[Unit]\nWants=model-a-reachable.service\n")
    host = without(survey(target, service=UP, socket=UP, proxy=UP), A.socket, installed)
    assert {action.unit for action in make_plan([target], [], host, restart=False).actions} == {A.socket}


@pytest.mark.parametrize(("units", "is_skipped"), [((A.service,), False), ((A.service, A.reachable), True)])
def test_other_names_wait_for_a_restart_where_a_gateway_routes_by_them(
    units: tuple[str, ...], is_skipped: bool
) -> None:
    facts = "[Unit]\n[X-Recipectl]\nRecipe=a\nEndpoint=http://127.0.0.1:1\nServed="
    before, after = (
        model(
            "a",
            units=tuple(Unit(unit, facts + name) for unit in units),
            url="http://127.0.0.1:1",
            served=(name,),
        )
        for name in ("old", "new")
    )
    assert must_skip(after, survey(before, service=UP)) is is_skipped
