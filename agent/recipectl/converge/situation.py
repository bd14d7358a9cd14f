"""One model as the host has it now, beside what its recipe wants. Pure."""

from collections.abc import Collection, Iterable
from dataclasses import dataclass

from recipectl.compiler.model import CompiledModel
from recipectl.compiler.relations import closure
from recipectl.converge.values import Survey
from recipectl.machine import helperfile
from recipectl.systemd.unitfile import UnitNames, parse_settings

_ROTATED = "a file of its secrets was changed since the model started"
_RECIPE_CHANGED = "the recipe changed since the model started"


def is_busy(model: CompiledModel, survey: Survey) -> bool:
    """True if a model runs, or a request may wait for it."""
    names = model.unit_names
    return any(survey.is_up(unit) for unit in (names.service, names.proxy, names.queue))


def listens_otherwise(model: CompiledModel, socket: str, survey: Survey) -> bool:
    """True if the settings of a socket change, and not only what else its file says."""
    texts = _texts(model, socket, survey)
    before, after = ([each for each in parse_settings(text) if each.section == "Socket"] for text in texts)
    return before != after


def _texts(model: CompiledModel, unit: str, survey: Survey) -> tuple[str, str]:
    """The text of a unit as it is installed, and as the model has it; empty where there is none."""
    installed = survey.installed.get(unit)
    new_texts = (each.text for each in model.units if each.name == unit)
    return installed.text if installed else "", next(new_texts, "")


def passes_otherwise(model: CompiledModel, survey: Survey) -> bool:
    """True if the command of a proxy changes: the address, or the time until the model is idle.

    The path of the helper does not count, nor does ExecCondition=, which matters at the next start alone.
    """
    before, after = (
        [helperfile.PATH.sub("", each.value) for each in parse_settings(text) if each.name == "ExecStart"]
        for text in _texts(model, model.unit_names.proxy, survey)
    )
    return before != after


def must_be_enabled(model: CompiledModel, survey: Survey) -> bool:
    """True if a model must be enabled and up. A socket that an operator has disabled stays so.

    After an interrupted apply, a missing link may be apply's own unfinished work.
    """
    unit = model.enabled_unit
    if model.autostart is None and model.on_demand:
        return unit in survey.enabled or unit not in survey.installed or survey.reload_due
    return model.autostart is True


@dataclass(frozen=True)
class Neighbours:
    """Names of recipes: which models a start of this one would stop, and which require it."""

    stopped: frozenset[str]
    dependents: frozenset[str]


def neighbours(models: Iterable[CompiledModel]) -> dict[str, Neighbours]:
    """Which models a start of each would stop, and which require it."""
    by_name = {model.name: model for model in models}
    requires = {
        name: [other for other in model.requires if other in by_name] for name, model in by_name.items()
    }
    started = {name: closure([name], requires) | {name} for name in by_name}
    dependents: dict[str, set[str]] = {name: set() for name in by_name}
    for name, others in started.items():
        for other in others - {name}:
            dependents[other].add(name)
    rivals = {name: {rival for other in started[name] for rival in by_name[other].rivals} for name in by_name}
    return {
        name: Neighbours(frozenset(rivals[name] - started[name]), frozenset(dependents[name]))
        for name in by_name
    }


@dataclass(frozen=True)
class Situation:
    """One model as the host has it now; `written` are the units that this plan writes.

    `stops_with` is the service whose removal stops this one; empty where none does.
    """

    model: CompiledModel
    neighbours: Neighbours
    survey: Survey
    written: Collection[str]
    restart: bool
    stops_with: str = ""

    @property
    def names(self) -> UnitNames:
        return self.model.unit_names

    @property
    def running(self) -> bool:
        return self.survey.is_up(self.names.service)

    @property
    def busy(self) -> bool:
        return is_busy(self.model, self.survey)

    @property
    def changed(self) -> bool:
        """True if the engine was started with an older unit."""
        return self.running and self.reason != ""

    @property
    def reason(self) -> str:
        """Why its process is out of date; empty when it is not."""
        if self.survey.started.get(self.names.service) not in (None, self.model.digest):
            return _RECIPE_CHANGED
        if self.names.service in self.survey.rotated:
            return _ROTATED
        if self.names.proxy in self.survey.installed and not self.model.on_demand:
            return "its proxy, which keeps it up, is removed"
        return f"{self.stops_with}, which it required, is removed" if self.stops_with else ""

    @property
    def proxy_changed(self) -> bool:
        return self.survey.is_up(self.names.proxy) and passes_otherwise(self.model, self.survey)

    @property
    def queue_changed(self) -> bool:
        """True if HAProxy runs, and was started with another configuration."""
        known = (None, "", self.model.queue_digest)
        return self.survey.is_up(self.names.queue) and self.survey.started.get(self.names.queue) not in known

    @property
    def will_start(self) -> bool:
        """True if the model must be up and is not; it is not started where that would stop another."""
        rivals = (UnitNames(rival).service for rival in self.neighbours.stopped)
        stops_others = any(self.survey.is_coming_up(rival) for rival in rivals)  # a start may wait for a stop
        is_coming = self.survey.is_coming_up(self.names.service)
        return not is_coming and self.model.autostart is True and not stops_others

    @property
    def socket_missing(self) -> bool:
        if self.survey.is_up(self.model.socket):
            return False
        if self.model.queued:  # an engine that has listened at the port itself is restarted first
            return self.running or self.will_start
        return self.model.on_demand and must_be_enabled(self.model, self.survey)

    @property
    def socket_moved(self) -> bool:
        socket = self.model.socket
        stale = listens_otherwise(self.model, socket, self.survey) or socket in self.survey.silent_sockets
        return (self.model.on_demand or self.model.queued) and stale and self.survey.is_up(socket)

    def is_model_up(self, recipe: str) -> bool:
        return self.survey.is_up(UnitNames(recipe).service)
