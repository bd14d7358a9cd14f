"""What must change on the host, decided without touching anything."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Protocol

from recipectl.compiler.model import Compiled
from recipectl.systemd.unitfile import Unit, edited, facts, kinds, required


class State(Protocol):
    """What a plan must know of a unit: `mark` is the digest that its engine was started with."""

    @property
    def active_state(self) -> str: ...
    @property
    def mark(self) -> str | None: ...


@dataclass(frozen=True)
class Action:
    """One thing to do and why.

    Verbs: create user, write, remove, reload, enable, disable, stop, restart, start.
    """

    verb: str
    unit: str
    reason: str


@dataclass(frozen=True)
class Plan:
    """Actions in the order in which they are done, and the units that are written."""

    actions: tuple[Action, ...] = ()
    units: tuple[Unit, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.actions)

    def of(self, *verbs: str) -> tuple[str, ...]:
        """The units of some verbs."""
        return tuple(action.unit for action in self.actions if action.verb in verbs)


_UP = ("active", "activating", "reloading")


@dataclass(frozen=True)
class Host:
    """What is there: unit -> text, unit -> state, enabled units, sockets that do not hear where they must."""

    installed: Mapping[str, str]
    states: Mapping[str, State]
    enabled: Collection[str] = ()
    deaf: Collection[str] = ()
    reload_due: bool = False

    def up(self, unit: str) -> bool:
        """Whether a unit runs, or is on its way."""
        return unit in self.states and self.states[unit].active_state in _UP


def decide(
    wanted: Collection[Compiled],
    shared: Collection[Unit],
    host: Host,
    gone: Mapping[str, str],
    users: Collection[str] = (),
    *,
    every: Collection[Compiled] = (),
    restart: bool = True,
) -> Plan:
    """
    The way from what is there to what is wanted; `gone` is unit -> why it has to go, `users` are missing.
    `every` are all models of the host, where not all of them are wanted.

    Enabled and running are asked of the host each time, so a plan that was cut short goes on where it ended.
    """
    if not restart:
        gone = {name: why for name, why in gone.items() if not _family_up(name, host)}
    kept = [model for model in wanted if restart or not _would_stop(model, host)]
    units = [*(shared if wanted else ()), *(unit for model in kept for unit in model.units)]
    differ = [unit for unit in units if host.installed.get(unit.name) != unit.text]
    actions = [Action("create user", user, "units run as this user") for user in sorted(users)]
    actions += [Action("remove", name, why) for name, why in gone.items()]
    for unit in differ:
        old = host.installed.get(unit.name)
        why = "new" if old is None else "was edited by hand" if edited(old) else "differs"
        actions.append(Action("write", unit.name, why))
    if host.reload_due:
        actions.append(Action("reload", "systemd", "an apply was cut short before it"))
    for model in kept:
        ours = {unit.name for unit in model.units}
        for name in kinds(model.name):
            if name in host.installed and name not in ours:
                actions.append(Action("remove", name, "the recipe does not ask for it any more"))
        actions += _links(model, host)
    written = {unit.name for unit in differ}
    around = _around(every or wanted)
    runs = [
        action
        for model in kept
        for action in _runs(model, around[model.name], host, written, restart=restart)
    ]
    return Plan((*actions, *sorted(runs, key=lambda action: action.verb != "stop")), tuple(differ))


@dataclass(frozen=True)
class _Around:
    """Names of recipes: whom a start of this one would stop, and who requires it."""

    stopped: frozenset[str]
    dependents: frozenset[str]


def _around(wanted: Collection[Compiled]) -> dict[str, _Around]:
    """What each recipe's units say of the others: Requires= is followed all the way."""
    by_name = {model.name: model for model in wanted}
    by_unit = {model.units[0].name: model.name for model in wanted}
    direct = {
        model.name: {by_unit[unit] for unit in required(model.units[0].text) if unit in by_unit}
        for model in wanted
    }
    dependents: dict[str, set[str]] = {name: set() for name in by_name}
    rivals: dict[str, set[str]] = {}
    for name in by_name:
        started, todo = {name}, [name]
        while todo:
            new = direct[todo.pop()] - started
            started |= new
            todo.extend(new)
        for other in started - {name}:
            dependents[other].add(name)
        rivals[name] = {rival for one in started for rival in by_name[one].rivals} - started
    return {name: _Around(frozenset(rivals[name]), frozenset(dependents[name])) for name in by_name}


def _family_up(unit: str, host: Host) -> bool:
    """Whether anything runs of the recipe that a unit was written for."""
    recipe = facts(host.installed.get(unit, "")).get("Recipe", "")
    return any(host.up(name) for name in kinds(recipe) if not name.endswith(".socket"))


def _busy(model: Compiled, host: Host) -> bool:
    """Whether a model runs, or somebody waits for it."""
    service, _, proxy = kinds(model.name)[:3]
    return host.up(service) or host.up(proxy)


def _would_stop(model: Compiled, host: Host) -> bool:
    """Whether writing a model's units would end what runs, or hide that it is due: socket or proxy differ."""
    new = {unit.name: unit.text for unit in model.units}
    return _busy(model, host) and any(
        new.get(name) != host.installed.get(name) for name in kinds(model.name)[1:3]
    )


def _wanted_up(model: Compiled, host: Host) -> bool:
    """Whether a model has to be enabled and up; a socket that an operator has disabled stays so.

    After an apply that was cut short nobody can tell: it may have been about to enable it.
    """
    switch = model.enabled_unit
    if model.autostart is None and model.on_demand:
        return switch in host.enabled or switch not in host.installed or host.reload_due
    return model.autostart is True


def _links(model: Compiled, host: Host) -> list[Action]:
    """What starts with models.target."""
    switch, service, found = model.enabled_unit, model.units[0].name, []
    if _wanted_up(model, host) and switch not in host.enabled:
        found.append(Action("enable", switch, "on_demand" if model.on_demand else "autostart: true"))
    elif model.autostart is False and switch in host.enabled:
        found.append(Action("disable", switch, "autostart: false"))
    if service != switch and service in host.enabled:
        found.append(Action("disable", service, "it starts on demand"))
    return found


def _runs(
    model: Compiled, around: _Around, host: Host, written: Collection[str], *, restart: bool
) -> list[Action]:
    """What of a model is stopped, restarted or started."""
    service, switch = model.units[0], model.enabled_unit
    proxy, timer = kinds(model.name)[2], kinds(model.name)[4]
    state, running = host.states[service.name], host.up(service.name)
    changed = running and state.mark not in (None, facts(service.text)["Digest"])
    busy = _busy(model, host)
    moved = model.on_demand and host.up(switch) and (switch in written or switch in host.deaf)
    comes = model.on_demand and _wanted_up(model, host) and not host.up(switch)
    idles = model.on_demand and host.up(proxy) and proxy in written
    found: list[Action] = []
    if model.on_demand and busy and restart and (changed or moved or comes or idles):
        # The next request starts it; a socket cannot begin to listen while its proxy runs.
        old = changed or idles
        why = "it runs with what the recipe said before" if old else "its socket has to be started"
        found += [Action("stop", proxy, why)] if host.up(proxy) else []
        if running and any(host.up(kinds(name)[0]) for name in around.dependents):
            found.append(Action("restart", service.name, f"{why}, and others need it"))
        elif running:
            found.append(Action("stop", service.name, why))
    elif changed and restart and not model.on_demand:
        found.append(Action("restart", service.name, "it runs with what the recipe said before"))
    elif not model.on_demand and model.autostart is True and not running:
        rivals = [name for name in around.stopped if host.up(kinds(name)[0])]
        why = "autostart: true" + (", and it has failed" if state.active_state == "failed" else "")
        # One that was evicted is not put back over the head of the one that has its GPU.
        found += [] if rivals else [Action("start", service.name, why)]
    if busy and not restart:
        return found
    if comes:
        failed = ", and it has failed" if host.states[switch].active_state == "failed" else ""
        found.append(Action("start", switch, f"on_demand{failed}"))
    elif moved:
        found.append(Action("restart", switch, "it listens where the recipe said before"))
    if timer in {unit.name for unit in model.units} and running and not found:
        if not host.up(timer):
            found.append(Action("start", timer, "the model runs, and is to be watched"))
        elif timer in written:
            found.append(Action("restart", timer, "it asks as often as the recipe said before"))
    return found


def diff(plan: Plan, installed: Mapping[str, str]) -> dict[str, str]:
    """Unit -> unified diff of its file, for each that is written or removed."""
    import difflib

    new = {unit.name: unit.text for unit in plan.units} | dict.fromkeys(plan.of("remove"), "")
    return {
        name: "".join(
            difflib.unified_diff(
                installed.get(name, "").splitlines(keepends=True), text.splitlines(keepends=True),
                name if name in installed else "/dev/null", name if text else "/dev/null",
            )
        )
        for name, text in new.items()
    }  # fmt: skip
