"""What must change on the host, decided without touching anything."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Protocol

from recipectl.compiled import Compiled
from recipectl.unitfile import Unit, facts, kinds


class State(Protocol):
    """What a plan must know of a unit: `mark` is the digest that its engine was started with."""

    @property
    def active_state(self) -> str: ...
    @property
    def mark(self) -> str | None: ...


@dataclass(frozen=True)
class Action:
    """One thing to do and why; verbs: create user, write, remove, reload, enable, disable, restart, start."""

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


def decide(
    wanted: Collection[Compiled],
    shared: Collection[Unit],
    installed: Mapping[str, str],
    gone: Mapping[str, str],
    states: Mapping[str, State],
    enabled_units: Collection[str],
    users: Collection[str] = (),
    *,
    restart: bool = True,
    reload_due: bool = False,
) -> Plan:
    """
    The way from what is installed to what is wanted; `gone` is unit -> why it has to go, `users` are missing.

    Enabled and running are asked of the host each time, so a plan that was cut short goes on where it ended.
    """
    units = [*(shared if wanted else ()), *(unit for model in wanted for unit in model.units)]
    differ = [unit for unit in units if installed.get(unit.name) != unit.text]
    actions = [Action("create user", user, "units run as this user") for user in sorted(users)]
    actions += [Action("remove", name, why) for name, why in gone.items()]
    for unit in differ:
        actions.append(Action("write", unit.name, "differs" if unit.name in installed else "new"))
    if reload_due:
        actions.append(Action("reload", "systemd", "an apply was cut short before it"))
    starts: list[Action] = []
    for model in wanted:
        ours = {unit.name for unit in model.units}
        for name in kinds(model.name):
            if name in installed and name not in ours:
                actions.append(Action("remove", name, "the recipe does not ask for it any more"))
        switch, service = model.enabled_unit, model.units[0]
        enabled, state = switch in enabled_units, states[service.name]
        up = model.autostart is True or model.on_demand
        if up and not enabled:
            actions.append(Action("enable", switch, "on_demand" if model.on_demand else "autostart: true"))
        elif model.autostart is False and enabled and not model.on_demand:
            actions.append(Action("disable", switch, "autostart: false"))
        running = state.active_state in _UP
        new_mark = facts(service.text)["Digest"]
        if running and state.mark not in (None, new_mark) and restart:
            starts.append(Action("restart", service.name, "it runs with what the recipe said before"))
        elif up and states[switch].active_state not in _UP:
            why = "on_demand" if model.on_demand else "autostart: true"
            failed = states[switch].active_state == "failed"
            starts.append(Action("start", switch, f"{why}, and it has failed" if failed else why))
        socket_differs = switch != service.name and switch in installed and switch in {u.name for u in differ}
        if restart and socket_differs and states[switch].active_state in _UP:
            starts.append(Action("restart", switch, "it listens where the recipe said before"))
    return Plan((*actions, *starts), tuple(differ))


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
