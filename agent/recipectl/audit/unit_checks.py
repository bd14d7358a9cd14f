"""The checks of systemd and of units: each yields the problems of one kind."""

from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path

from recipectl.audit.subject import Subject
from recipectl.compiler.model import CompiledModel
from recipectl.converge.survey import misleading
from recipectl.errors import Problem, on_host
from recipectl.machine import helperfile
from recipectl.machine.installation import OLDEST_SYSTEMD, systemd_version
from recipectl.place import Place
from recipectl.systemd.dbus import Manager
from recipectl.systemd.states import UnitState
from recipectl.systemd.unitfile import InstalledUnit, UnitNames, recipe_of_unit

_STARTS = ("start", "restart")  # jobs


def check_systemd(subject: Subject) -> Iterator[Problem]:
    """A systemd that is too old, or that was upgraded and not started again."""
    place = subject.place
    with Manager(place) as manager:
        running = manager.version()
    installed = systemd_version()
    if running < OLDEST_SYSTEMD:
        yield on_host(
            "unit", f"systemd {running} is older than {OLDEST_SYSTEMD}, the oldest one supported; upgrade it"
        )
    if running != installed:
        fault = f"systemd {running} runs and {installed} is installed"
        yield on_host("unit", f"{fault}; run `{place.systemctl('daemon-reexec')}`, or reboot")


def check_units(subject: Subject) -> Iterator[Problem]:
    """Units that have failed, crash again and again, or are enabled and down; sockets that do not listen."""
    place, installed = subject.place, subject.store.installed()
    enabled = subject.store.enabled()
    recipes = {unit.recipe for unit in installed.values() if unit.recipe}
    names = sorted(unit for recipe in recipes for unit in UnitNames(recipe).every)
    with Manager(place) as manager:
        states = {state.name: state for state in manager.states(names, brief=True)}
        own = {unit.name for model in subject.result.models for unit in model.units}
        for name in manager.without_a_file():
            recipe = recipe_of_unit(name)
            if name not in UnitNames(recipe).every or recipe in subject.result.failures:
                continue  # not ours, or its recipe is wrong, which is told
            remedy = place.verb(f"apply {recipe}") if name in own else place.systemctl(f"stop {name}")
            yield on_host("unit", f"{name} runs, and its file is gone; run `{remedy}`")
    for name, state in states.items():
        status = f"see `{place.verb('status')} {installed[name].recipe}`" if name in installed else ""
        if state.active_state == "failed":
            yield on_host("unit", f"{name} has failed; {status}")
        elif state.crashes or state.waits_to_restart:
            times = "once" if state.crashes == 1 else f"{state.crashes} times"
            more = f": systemd has started it again {times}" if state.crashes else ", and is started again"
            yield on_host("unit", f"{name} does not stay up{more}; {status}")
        elif state.active_state == "inactive" and name in enabled and name.endswith(".service"):
            rivals = installed[name].setting("Conflicts") if name in installed else ()
            if not any(states[rival].active_state == "active" for rival in rivals if rival in states):
                yield on_host("unit", f"{name} is enabled and down; {status}")
    for model in subject.result.models:
        yield from _missing_beside(place, model, states)
        yield from _missing_at_boot(place, model, states, installed, enabled)
    texts = {
        unit.name: unit.text
        for unit in installed.values()
        if unit.recipe and unit.name == UnitNames(unit.recipe).reachable
    }
    for name in misleading(texts, states, place):
        fault = f"{name} shows the gateway an earlier address, so no request of the gateway reaches its model"
        yield on_host("unit", f"{fault}; run `{place.verb('apply')}`")
    yield from _missing_helpers(place, installed.values())


def _missing_beside(place: Place, model: CompiledModel, states: Mapping[str, UnitState]) -> Iterator[Problem]:
    """The units that should run beside a model, do not, and are not about to. The socket starts HAProxy."""
    names, no_request = model.unit_names, f"no request reaches {model.name}"
    up = {name for name, state in states.items() if state.active_state == "active"}
    started = {name for name, state in states.items() if not state.is_down or state.job in _STARTS}
    effects = {names.watch: f"nothing notices a hang of {model.name}"} if model.watched else {}
    effects |= dict.fromkeys((names.queue_socket, names.queue_open), no_request) if model.queued else {}
    state = states.get(names.service)
    effects = effects if state and state.word == "ready" else {}  # they stop before the model does
    if model.listener in up and names.reachable in {unit.name for unit in model.units}:
        effects[names.reachable] = f"no request of the gateway reaches {model.name}"
    for unit in sorted(effects.keys() - started):
        fault = f"{unit} does not run, and {effects[unit]}"
        remedy = f"run `{place.verb('apply')}`, and see `{place.systemctl('status')} {unit}`"
        yield on_host("unit", f"{fault}; {remedy}")


def _missing_at_boot(
    place: Place,
    model: CompiledModel,
    states: Mapping[str, UnitState],
    installed: Collection[str],
    enabled: Collection[str],
) -> Iterator[Problem]:
    """A unit that is not enabled and should be, and a socket that is enabled and does not listen."""
    unit, remedy = model.enabled_unit, f"run `{place.verb('apply')}`"
    if model.autostart and unit in installed and unit not in enabled:
        yield on_host("unit", f"{unit} is not enabled, and its recipe has `autostart: true`; {remedy}")
    socket = states.get(model.unit_names.socket)
    if model.on_demand and socket and socket.active_state == "inactive" and socket.name in enabled:
        yield on_host("unit", f"{socket.name} does not listen, and no request starts {model.name}; {remedy}")


def _missing_helpers(place: Place, units: Iterable[InstalledUnit]) -> Iterator[Problem]:
    for path in sorted({path for unit in units for path in helperfile.named_in(unit.text)}):
        if not Path(path).is_file():
            yield on_host("unit", f"{path} is missing, which units run; run `{place.verb('apply')}`")
