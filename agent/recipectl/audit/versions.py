"""Each model compared from its recipe to the answer of its engine: the rows of `recipectl versions`."""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from recipectl.audit import drift
from recipectl.audit.drift import Command, Difference
from recipectl.compiler.model import CompiledModel, CompileResult, ResolvedRecipe
from recipectl.engines.ask import answered_version
from recipectl.errors import Problem
from recipectl.machine import lockfile, processes, sockets
from recipectl.machine.distributions import ENGINE_DISTRIBUTIONS
from recipectl.machine.processes import Process
from recipectl.place import Place
from recipectl.systemd.dbus import Manager
from recipectl.systemd.states import UnitState
from recipectl.systemd.store import Store
from recipectl.systemd.unitfile import InstalledUnit, UnitNames

_QUESTIONS_AT_ONCE = 16  # an engine that hangs delays no other


@dataclass(frozen=True)
class Row:
    """One model: versions, and whether each stage equals the stage before it."""

    name: str
    recipe: str | None  # the engine's version that the recipe resolves to now
    unit: str | None  # the version that the unit was compiled for
    loaded: str  # same, differs, or no
    running: str  # same, differs, unknown, or the state of a unit without a process
    answers: str | None
    pid: int | None
    executable: str | None
    argv: tuple[str, ...] | None
    differences: tuple[Difference, ...]


@dataclass(frozen=True)
class _Subject:
    """One model with everything that is known about it."""

    name: str
    model: CompiledModel | None  # None: its recipe is wrong, or gone
    resolved: ResolvedRecipe | None
    problems: tuple[Problem, ...]
    state: UnitState
    loaded: Command | None
    process: Process | None

    @property
    def service(self) -> str:
        return UnitNames(self.name).service

    @property
    def version(self) -> str | None:
        """The engine's version that is installed now."""
        return self.resolved.runtime.engine_version if self.resolved else None


def compare(place: Place, result: CompileResult, names: Sequence[str]) -> list[Row]:
    """The rows of some models by name; without names, of every recipe and every unit."""
    store = Store(place.unit_folder)
    installed = store.installed()
    if not names:
        recipes = {unit.recipe for unit in installed.values() if unit.recipe}
        names = sorted({*(model.name for model in result.models), *result.failures, *recipes})
    subjects = _subjects(place, result, names)
    comparison = _Comparison(place, store, installed)
    with ThreadPoolExecutor(_QUESTIONS_AT_ONCE) as pool:
        answers = pool.map(comparison.ask, subjects)
        return [comparison.row(subject, answer) for subject, answer in zip(subjects, answers, strict=True)]


def _subjects(place: Place, result: CompileResult, names: Sequence[str]) -> list[_Subject]:
    models = {model.name: model for model in result.models}
    with Manager(user=place.user) as manager:
        states = manager.states([UnitNames(name).service for name in names])
        loaded = {
            state.name: Command(*manager.command(state.name))
            for state in states
            if state.load_state == "loaded"
        }
    return [
        _Subject(
            name=name,
            model=models.get(name),
            resolved=result.resolved.get(name),
            problems=result.failures.get(name, ()),
            state=state,
            loaded=loaded.get(state.name),
            process=processes.read_process(state.main_pid) if state.main_pid else None,
        )
        for name, state in zip(names, states, strict=True)
    ]


@dataclass(frozen=True)
class _Comparison:
    """What all rows are compared with."""

    place: Place
    store: Store
    installed: dict[str, InstalledUnit]

    def ask(self, subject: _Subject) -> str | None:
        """The engine's own version; empty when it is not asked or tells none, None without an answer."""
        unit = self.installed.get(subject.service)
        if subject.state.active_state != "active" or unit is None or unit.endpoint is None:
            return ""
        # An on-demand engine is asked directly: a question to its socket would start it.
        direct = subject.resolved and subject.resolved.recipe.on_demand
        url = subject.resolved.endpoint.url if subject.resolved and direct else unit.endpoint
        return answered_version(unit.backend or "", url)

    def row(self, subject: _Subject, answer: str | None) -> Row:
        """One model compared."""
        differences = self._differences(subject, answer)
        where = {difference.where for difference in differences}
        unit = self.installed.get(subject.service)
        process = subject.process
        loaded = "no" if not subject.loaded else "differs" if where & {"loaded", "drop-in"} else "same"
        return Row(
            name=subject.name,
            recipe=subject.version,
            unit=unit.engine_version if unit else None,
            loaded=loaded,
            running=_running_word(subject, differs=bool(where & {"running", "runtime"})),
            answers=answer or None,
            pid=process.pid if process else None,
            executable=process.executable if process else None,
            argv=process.argv if process else None,
            differences=tuple(differences),
        )

    def _differences(self, subject: _Subject, answer: str | None) -> list[Difference]:
        stages: tuple[Callable[[_Subject, str | None], Iterator[Difference]], ...] = (
            self._of_recipe,
            self._of_process,
            self._of_loaded,
        )
        differences = [difference for stage in stages for difference in stage(subject, answer)]
        explained = any(difference.where in ("unit", "running") for difference in differences)
        if subject.process and subject.state.active_state == "active" and answer is None and not explained:
            differences.append(drift.of_silence(subject.service))
        return [*differences, *_of_port(subject)]

    def _of_recipe(self, subject: _Subject, _: str | None) -> Iterator[Difference]:
        """The recipe as it is now against its units on disk."""
        for problem in subject.problems:
            if problem.kind == "lock":
                yield from drift.of_lock(subject.name, [problem.sentence])
            else:
                yield Difference("recipe", str(problem), "the recipe is wrong", "correct it")
        if subject.problems:
            return
        if subject.model is None or subject.resolved is None:
            yield Difference("recipe", "the recipe is gone", "its file was removed", "recipectl apply")
            return
        unit = self.installed.get(subject.service)
        yield from drift.of_unit(
            subject.name,
            {unit.name: unit.text for unit in subject.model.units},
            self.installed,
            unit.engine_version if unit else None,
            subject.version or "unknown",
        )

    def _of_process(self, subject: _Subject, answer: str | None) -> Iterator[Difference]:
        """The process against what systemd has loaded, and against what is installed now."""
        process, resolved, unit = subject.process, subject.resolved, self.installed.get(subject.service)
        if process is None or subject.loaded is None:
            return
        yield from drift.of_process(
            subject.service,
            process,
            subject.loaded,
            replaced_interpreter=_replaced_interpreter(process, resolved),
            started_digest=subject.state.started_digest,
            unit_digest=unit.digest if unit else None,
            secret=tuple(resolved.recipe.secrets) if resolved else (),
            user=self.place.user,
        )
        newest_sec = _newest_install_sec(resolved) if resolved else None
        late = bool(newest_sec and process.started_sec and newest_sec > process.started_sec + 1)
        yield from drift.of_version(subject.service, answer, subject.version, installed_after_start=late)
        if resolved:
            yield from drift.of_lock(subject.name, resolved.lock_differences)

    def _of_loaded(self, subject: _Subject, _: str | None) -> Iterator[Difference]:
        unit = self.installed.get(subject.service)
        if subject.loaded and unit:
            drop_ins = self.store.drop_ins(unit.name)
            yield from drift.of_loaded(unit, drop_ins, subject.loaded, self.place.runtime_folder)


def _running_word(subject: _Subject, *, differs: bool) -> str:
    if subject.process is None:
        return subject.state.word
    if differs:
        return "differs"
    return "unknown" if subject.process.unreadable else "same"


def _replaced_interpreter(process: Process, resolved: ResolvedRecipe | None) -> str | None:
    """The interpreter that should run, if the process runs another file."""
    base = resolved.runtime.base if resolved and resolved.runtime.interpreter else None
    return base if base and processes.runs_file(process.pid, base) is False else None


def _of_port(subject: _Subject) -> Iterator[Difference]:
    """Another process on the port of a model that does not run."""
    if subject.process or not subject.model or not subject.resolved or not subject.resolved.endpoint.path:
        return
    endpoint = subject.resolved.endpoint
    holder = sockets.holder(endpoint.port, endpoint.host)
    # A rival may have the same port.
    if holder and not (holder.unit.startswith("model-") and holder.unit.endswith(".service")):
        fault = f"port {endpoint.port} is answered by {holder}, and the unit is {subject.state.word}"
        remedy = f"end that process, then recipectl start {subject.name}"
        yield Difference("port", fault, "somebody started it by hand", remedy)


def _newest_install_sec(resolved: ResolvedRecipe) -> float | None:
    """When the newest distribution that a lock records was installed, in seconds since the epoch."""
    names = ENGINE_DISTRIBUTIONS[resolved.recipe.backend]
    folder = resolved.runtime.installed_in
    times = [
        path.stat().st_ctime
        for path in (Path(folder).glob("*.dist-info") if folder else ())
        if lockfile.is_recorded(path.name.partition("-")[0].lower(), names)
    ]
    return max(times, default=None)
