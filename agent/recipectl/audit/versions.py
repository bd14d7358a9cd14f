"""Each model compared from its recipe to the answer of its engine: the rows of `recipectl versions`."""

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from recipectl.audit import drift
from recipectl.audit.drift import Difference, ServiceCommand
from recipectl.compiler.model import CompiledModel, CompileResult, ResolvedRecipe
from recipectl.engines.ask import Served, ask
from recipectl.errors import Problem
from recipectl.machine import lockfile, processes, sockets
from recipectl.machine.distributions import ENGINE_DISTRIBUTIONS
from recipectl.machine.processes import Process
from recipectl.place import Place
from recipectl.systemd.dbus import Manager
from recipectl.systemd.started import started_digest
from recipectl.systemd.states import UnitState
from recipectl.systemd.store import Store
from recipectl.systemd.unitfile import InstalledUnit, UnitNames, is_model_unit

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
class _Evidence:
    """One model with everything that is known about it."""

    name: str
    model: CompiledModel | None  # None: its recipe is wrong, or gone
    resolved: ResolvedRecipe | None
    problems: tuple[Problem, ...]
    unit: InstalledUnit | None
    state: UnitState
    loaded: ServiceCommand | None
    process: Process | None

    @property
    def version(self) -> str | None:
        """The engine's version that is installed now."""
        return self.resolved.runtime.engine_version if self.resolved else None


def version_rows(place: Place, result: CompileResult, names: Sequence[str]) -> list[Row]:
    """The rows of some models by name; without names, of every recipe and every unit."""
    installed = Store(place.unit_folder).installed()
    if not names:
        recipes = {unit.recipe for unit in installed.values() if unit.recipe}
        names = sorted({*(model.name for model in result.models), *result.failures, *recipes})
    all_evidence = _gather(place, result, installed, names)
    with ThreadPoolExecutor(_QUESTIONS_AT_ONCE) as pool:
        answers = pool.map(_ask, all_evidence)
        pairs = zip(all_evidence, answers, strict=True)
        return [_row(evidence, answer, place, installed) for evidence, answer in pairs]


def _gather(
    place: Place, result: CompileResult, installed: Mapping[str, InstalledUnit], names: Sequence[str]
) -> list[_Evidence]:
    models = {model.name: model for model in result.models}
    with Manager(place) as manager:
        states = manager.states([UnitNames(name).service for name in names])
        loaded = {
            state.name: ServiceCommand(*manager.loaded_command(state.name))
            for state in states
            if state.load_state == "loaded"
        }
    return [
        _Evidence(
            name=name,
            model=models.get(name),
            resolved=result.resolved.get(name),
            problems=result.failures.get(name, ()),
            unit=installed.get(state.name),
            state=state,
            loaded=loaded.get(state.name),
            process=processes.read_process(state.main_pid) if state.main_pid else None,
        )
        for name, state in zip(names, states, strict=True)
    ]


def _ask(evidence: _Evidence) -> Served | None:
    """What the engine tells; None when it is not asked."""
    return ask(evidence.unit) if evidence.unit and evidence.state.active_state == "active" else None


def _row(
    evidence: _Evidence, answer: Served | None, place: Place, installed: Mapping[str, InstalledUnit]
) -> Row:
    """One model compared."""
    differences = _differences(evidence, answer, place, installed)
    where = {difference.where for difference in differences}
    unit, process = evidence.unit, evidence.process
    loaded = "no" if not evidence.loaded else "differs" if where & {"loaded", "drop-in"} else "same"
    return Row(
        name=evidence.name,
        recipe=evidence.version,
        unit=unit.engine_version if unit else None,
        loaded=loaded,
        running=_running_word(evidence, differs=bool(where & {"running", "runtime"})),
        answers=answer.version or None if answer else None,
        pid=process.pid if process else None,
        executable=process.executable if process else None,
        argv=process.argv if process else None,
        differences=tuple(differences),
    )


def _differences(
    evidence: _Evidence, answer: Served | None, place: Place, installed: Mapping[str, InstalledUnit]
) -> list[Difference]:
    differences = [
        *_of_recipe(evidence, place, installed),
        *_of_process(evidence, answer, place),
        *_of_loaded(evidence, place),
    ]
    explained = any(difference.where in ("unit", "running") for difference in differences)
    silent = answer is not None and not answer.answers
    if evidence.process and silent and not explained:
        differences.append(drift.of_silence(place, evidence.name))
    return [*differences, *_of_port(place, evidence)]


def _of_recipe(
    evidence: _Evidence, place: Place, installed: Mapping[str, InstalledUnit]
) -> Iterator[Difference]:
    """The recipe as it is now against its units on disk."""
    for problem in evidence.problems:
        if not problem.is_error:  # only a recipe that is held is a warning here
            remedy = place.verb(f"upgrade --status {evidence.name}")
            yield Difference("unit", "the recipe is held", problem.sentence, remedy)
        elif problem.kind == "lock":
            remedy = f"{place.verb('lock')} --check {evidence.name} compares them again"
            cause = "the runtime was changed since it was locked"
            yield Difference("runtime", problem.sentence, cause, remedy)
        else:
            yield Difference("recipe", str(problem), "the recipe is wrong", "correct it")
    if evidence.problems:
        return
    if evidence.model is None or evidence.resolved is None:
        yield Difference("recipe", "the recipe is gone", "its file was removed", place.verb("apply"))
        return
    if reason := Store(place.unit_folder).reason_not_ours(evidence.state.name):
        remedy = f"then {place.verb('apply')} {evidence.name}"
        yield Difference("unit", "the recipe has no unit", reason, remedy)
        return
    yield from drift.of_unit(
        place,
        evidence.name,
        {unit.name: unit.text for unit in evidence.model.units},
        installed,
        evidence.unit.engine_version if evidence.unit else None,
        evidence.version or "unknown",
    )


def _of_process(evidence: _Evidence, answer: Served | None, place: Place) -> Iterator[Difference]:
    """The process against what systemd has loaded, and against what is installed now."""
    process, resolved, unit = evidence.process, evidence.resolved, evidence.unit
    if process is None or evidence.loaded is None:
        return
    if resolved:
        yield from drift.of_lock(place, evidence.name, resolved.lock_differences)
    if evidence.state.will_stop:  # only its lock matters to the next process
        return
    yield from drift.of_process(
        place,
        evidence.name,
        process,
        evidence.loaded,
        replaced_interpreter=_replaced_interpreter(process, resolved),
        started_digest=started_digest(evidence.state.name, place.runtime_folder, user=place.user),
        unit_digest=unit.digest if unit else None,
        secret=tuple(resolved.recipe.secrets) if resolved else None,
        rotated=processes.rotated_secrets(process.pid, unit.secret_files if unit else ()),
    )
    newest_sec = _newest_install_sec(resolved) if resolved else None
    late = bool(newest_sec and process.started_sec and newest_sec > process.started_sec + 1)
    yield from drift.of_version(
        place, evidence.name, answer and answer.version, evidence.version, installed_after_start=late
    )
    if unit and answer:
        yield from drift.of_model(place, unit, answer.models, answer.path)


def _of_loaded(evidence: _Evidence, place: Place) -> Iterator[Difference]:
    if evidence.loaded and evidence.unit:
        drop_ins = Store(place.unit_folder).drop_ins(evidence.unit.name)
        yield from drift.of_loaded(place, evidence.unit, drop_ins, evidence.loaded)


def _running_word(evidence: _Evidence, *, differs: bool) -> str:
    if evidence.process is None or evidence.state.will_stop:
        return evidence.state.word
    if differs:
        return "differs"
    return "unknown" if evidence.process.unreadable else "same"


def _replaced_interpreter(process: Process, resolved: ResolvedRecipe | None) -> str | None:
    """The interpreter that should run, if the process runs another file."""
    base = resolved.runtime.base if resolved and resolved.runtime.interpreter else None
    return base if base and processes.runs_file(process.pid, base) is False else None


def _of_port(place: Place, evidence: _Evidence) -> Iterator[Difference]:
    """Another process on the port of a model that does not run."""
    if evidence.process or not evidence.model or not evidence.resolved or not evidence.resolved.endpoint.path:
        return
    endpoint = evidence.resolved.endpoint
    holder = sockets.holder(endpoint.port, endpoint.host)
    # A rival may have the same port.
    if holder and not is_model_unit(holder.unit):
        fault = f"port {endpoint.port} is answered by {holder}, and the unit is {evidence.state.word}"
        remedy = f"end that process, then {place.verb('start')} {evidence.name}"
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
