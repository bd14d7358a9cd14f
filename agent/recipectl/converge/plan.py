"""What must change on the host, decided without touching anything. Pure."""

from collections.abc import Collection, Iterable

from recipectl.compiler.model import CompiledModel
from recipectl.converge.differences import reason_to_write
from recipectl.converge.situation import (
    Situation,
    is_busy,
    listens_otherwise,
    must_be_enabled,
    neighbours,
    passes_otherwise,
)
from recipectl.converge.values import RUNNING, Action, Plan, Survey, Verb
from recipectl.errors import Problem
from recipectl.systemd.unitfile import GATEWAY, Unit, UnitNames


def make_plan(
    models: Collection[CompiledModel],
    shared: Collection[Unit],
    survey: Survey,
    *,
    all_models: Collection[CompiledModel] = (),
    restart: bool = True,
) -> Plan:
    """
    The actions that make the host what its recipes say.

    `all_models` are those of the host, where `models` are only some. The survey is new for every plan,
    so the plan after an interrupted apply has what is left.
    """
    gone = removed_units(survey, restart=restart)
    kept = [model for model in models if restart or not must_skip(model, survey)]
    units = [*shared, *(unit for model in kept for unit in model.units)]
    changed = tuple(unit for unit in units if _text(unit.name, survey) != unit.text)
    actions = [
        *(Action("create group", name, "models share data by it") for name in sorted(survey.missing_groups)),
        *(Action("create user", name, "a unit runs as this user") for name in sorted(survey.missing_users)),
    ]
    if survey.missing_helper and (models or shared):
        actions.append(Action("write helper", survey.missing_helper, "units run it"))
    stopped = _stopped_with(gone, survey)
    for unit, why in gone.items():
        others = [other for other, service in stopped.items() if service == unit]
        ran = ", and it ran until now" if survey.is_up(unit) else ""
        with_it = f"; {', '.join(others)} {'stops' if len(others) == 1 else 'stop'} with it" if others else ""
        actions.append(Action("remove", unit, why + ran + with_it))
    actions += [
        Action("write", unit.name, reason_to_write(unit, survey.installed.get(unit.name))) for unit in changed
    ]
    if survey.reload_due:
        actions.append(Action("reload", "systemd", "an earlier apply was interrupted before the reload"))
    for model in kept:
        actions += _superfluous_units(model, survey, restart=restart)
        actions += _links(model, survey)
    around = neighbours(all_models or models)
    written = {unit.name for unit in changed}
    jobs: list[Action] = []
    for model in kept:
        situation = Situation(
            model=model,
            neighbours=around[model.name],
            survey=survey,
            written=written,
            restart=restart,
            stops_with=stopped.get(model.unit_names.service, ""),
        )
        jobs += _jobs(situation)
    actions += sorted(jobs, key=lambda action: action.verb != "stop")
    actions += _unused_helpers(survey, changed, gone)
    return Plan(tuple(actions), changed)


def _stopped_with(gone: Collection[str], survey: Survey) -> dict[str, str]:
    """Service that runs and stays -> the removed one that takes it along, because its unit requires that."""
    stopped: dict[str, str] = {}
    requires = {
        name: {*" ".join(unit.setting("Requires")).split()}
        for name, unit in survey.installed.items()
        if name == UnitNames(unit.recipe).service and name not in gone and survey.is_up(name)
    }
    for service in gone:
        going = [service] if survey.is_up(service) else []
        for other in going:  # it grows on its way
            more = [name for name, needed in requires.items() if other in needed and name not in stopped]
            stopped |= dict.fromkeys(more, service)
            going += more
    return stopped


def _unused_helpers(survey: Survey, changed: Collection[Unit], gone: Collection[str]) -> list[Action]:
    """Helpers that no unit runs any more, when this plan has been carried out."""
    texts = {name: unit.text for name, unit in survey.installed.items() if name not in gone}
    texts |= {unit.name: unit.text for unit in changed}
    unused = (path for path in sorted(survey.other_helpers) if not any(path in t for t in texts.values()))
    return [Action("remove helper", path, "no unit runs it any more") for path in unused]


def without_a_model(models: Iterable[CompiledModel], survey: Survey) -> dict[str, Problem]:
    """Recipe -> why it is left alone: its model runs, and its changed recipe names a missing `model_path`."""
    left_alone = {}
    for model in models:
        warnings = (warning for warning in model.warnings if warning.key == "model_path")
        missing = next((warning for warning in warnings if warning.kind == "file"), None)
        service = model.unit_names.service
        changed = any(_text(unit.name, survey) != unit.text for unit in model.units)
        if missing and changed and survey.is_up(service):
            fault = f"{service} runs and stays as it is: the `model_path` of its new recipe does not exist"
            left_alone[model.name] = missing._replace(
                sentence=f"{fault}; correct it, or create it", severity="error"
            )
    return left_alone


def _text(unit: str, survey: Survey) -> str | None:
    installed = survey.installed.get(unit)
    return installed.text if installed else None


def _superfluous_units(model: CompiledModel, survey: Survey, *, restart: bool) -> list[Action]:
    own = {unit.name for unit in model.units}
    if not restart and survey.is_up(GATEWAY):  # it goes on to lead to the model
        own.add(model.unit_names.reachable)
    names = (name for name in model.unit_names.every if name in survey.installed and name not in own)
    return [Action("remove", name, "the recipe no longer needs it") for name in names]


def removed_units(survey: Survey, *, restart: bool) -> dict[str, str]:
    """The units that are removed, each with the reason; without `restart` none of a model that runs."""
    return {unit: why for unit, why in survey.gone.items() if restart or not _family_is_up(unit, survey)}


def _family_is_up(unit: str, survey: Survey) -> bool:
    """True if a unit of the same recipe runs (what listens for it, and what shows that, do not count)."""
    installed = survey.installed.get(unit)
    names = UnitNames(installed.recipe if installed else "")
    return any(survey.is_up(name) for name in names.every if name not in names.listening)


def must_skip(model: CompiledModel, survey: Survey) -> bool:
    """True if `--no-restart` must skip this model: it is busy, and its clients would find it otherwise."""
    names = model.unit_names
    changed = passes_otherwise(model, survey)
    changed |= any(listens_otherwise(model, name, survey) for name in (names.socket, names.queue_socket))
    changed |= _is_asked_otherwise(model, survey)
    return changed and is_busy(model, survey)


def _is_asked_otherwise(model: CompiledModel, survey: Survey) -> bool:
    """True if clients would find a model elsewhere, or the gateway by other names, than its unit says now."""
    unit = survey.installed.get(model.unit_names.service)
    if unit is None or unit.endpoint != model.url:
        return unit is not None
    has_gateway = model.unit_names.reachable in {each.name for each in model.units}
    # The unit of an earlier release does not say its names and its key.
    facts = (tuple(unit.served), unit.key_file) if unit.served else (model.served, model.key_file)
    return has_gateway and facts != (model.served, model.key_file)


def _links(model: CompiledModel, survey: Survey) -> list[Action]:
    """Which units models.target must start, or start no longer."""
    unit = model.enabled_unit
    service = model.unit_names.service
    actions = []
    if must_be_enabled(model, survey) and unit not in survey.enabled:
        actions.append(Action("enable", unit, "on_demand" if model.on_demand else "autostart: true"))
    elif model.autostart is False and unit in survey.enabled:
        actions.append(Action("disable", unit, "autostart: false"))
    if service != unit and service in survey.enabled:
        actions.append(Action("disable", service, "it starts on demand"))
    return actions


def _jobs(situation: Situation) -> list[Action]:
    """What of a model is stopped, restarted or started."""
    actions = _on_demand_jobs(situation) if situation.model.on_demand else _service_jobs(situation)
    if situation.busy and not situation.restart:
        return actions + _gateway_jobs(situation)
    # A queue ends while the engine still answers its requests.
    actions = (
        [*_queue_jobs(situation), *_socket_jobs(situation), *actions]
        if situation.model.queued
        else [*actions, *_socket_jobs(situation)]
    )
    return (actions or _watch_jobs(situation)) + _gateway_jobs(situation)


def _on_demand_jobs(situation: Situation) -> list[Action]:
    """Stop what is out of date. The next request starts it; a socket cannot listen while its proxy runs."""
    stale = situation.changed or situation.proxy_changed or situation.socket_moved or situation.socket_missing
    if not (stale and situation.busy and situation.restart):
        return []
    reason = "its proxy's unit changed" if situation.proxy_changed else "its socket must be started"
    if situation.changed:
        reason = situation.reason
    actions = []
    if situation.survey.is_up(situation.names.proxy):
        actions.append(Action("stop", situation.names.proxy, reason))
    if situation.running and any(situation.is_model_up(name) for name in situation.neighbours.dependents):
        actions.append(Action("restart", situation.names.service, f"{reason}, and other models require it"))
    elif situation.running:
        actions.append(Action("stop", situation.names.service, reason))
    return actions


def _service_jobs(situation: Situation) -> list[Action]:
    service = situation.names.service
    if situation.changed and situation.survey.states[service].will_stop:
        return []  # a job stops it once its requests have ended, and the next start takes the newest unit
    if situation.changed and situation.restart:
        return [Action("restart", service, situation.reason)]
    if not situation.will_start:
        return []
    failed = ", and it has failed" if situation.survey.failed(service) else ""
    return [Action("start", service, f"autostart: true{failed}")]


def _socket_jobs(situation: Situation) -> list[Action]:
    socket = situation.model.socket
    if situation.socket_missing:
        failed = ", and it has failed" if situation.survey.failed(socket) else ""
        return [Action("start", socket, f"{'queue' if situation.model.queued else 'on_demand'}{failed}")]
    if situation.socket_moved:
        silent = socket in situation.survey.silent_sockets
        return [
            Action("restart", socket, "it does not listen at its address" if silent else "its unit changed")
        ]
    return []


def _queue_jobs(situation: Situation) -> list[Action]:
    """HAProxy with another configuration, and the way to a model that is ready.

    A restart of HAProxy is put off while the model loads: the requests that wait would be lost.
    """
    names, state = situation.names, situation.survey.states[situation.names.service]
    queue = situation.survey.states.get(names.queue)
    is_due = situation.queue_changed and not situation.socket_moved and not (queue and queue.will_stop)
    if is_due and state.active_state != "activating":
        return [Action("restart", names.queue, "its configuration changed")]
    # While the queue drains, somebody stops the model, or starts a rival of it: a start would cancel that.
    is_open = situation.survey.is_coming_up(names.queue_open)
    is_ready = state.active_state == "active" and not state.will_stop
    if is_ready and not situation.changed and not is_open:
        return [Action("start", names.queue_open, "the model is ready, and no request reaches it")]
    return []


def _gateway_jobs(situation: Situation) -> list[Action]:
    """What shows the gateway that a model is there, where it is new."""
    own, listener = situation.names.reachable, situation.survey.states.get(situation.model.listener)
    # Between two crashes, the start of a unit that is bound to it is a start of the model: it would count
    # against the start limit. The next start of the model starts this unit as well.
    listens = listener and listener.active_state in RUNNING and not listener.waits_to_restart
    if own in situation.survey.misleading and (listens or own in situation.written):
        # With another address, what listens is started anew, and starts it.
        verb: Verb = "stop" if own in situation.written else "restart"
        return [Action(verb, own, "it shows the gateway an earlier address")]
    if (
        not listens
        or situation.survey.is_coming_up(own)
        or own not in {unit.name for unit in situation.model.units}
    ):
        return []
    return [Action("start", own, "the host file has `gateway:`")]


def _watch_jobs(situation: Situation) -> list[Action]:
    watch, state = situation.names.watch, situation.survey.states[situation.names.service]
    if not (situation.model.watched and situation.running) or state.will_stop:
        return []
    if not situation.survey.is_coming_up(watch):
        return [Action("start", watch, "the model runs, and its recipe has `watch:`")]
    if watch in situation.written:
        return [Action("restart", watch, "its unit changed")]
    return []
