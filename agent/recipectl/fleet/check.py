"""The recipes of all hosts together: what is wrong on one host, in a set, or between hosts."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from recipectl.compiler import members, relations
from recipectl.compiler.claims import claim_of, with_installed
from recipectl.compiler.model import GatewaySettings, ResolvedRecipe
from recipectl.compiler.pipeline import resolve_purely
from recipectl.compiler.problems import ProblemCollector
from recipectl.engines.registry import ENGINES
from recipectl.errors import Problem, RecipectlError, UsageError
from recipectl.fleet.between import Findings, Resolved, check_names, check_sets
from recipectl.fleet.inventory import FleetHost
from recipectl.machine.installation import Installation
from recipectl.machine.runtime import Runtime
from recipectl.recipe import search
from recipectl.recipe.hostfile import HostSettings, load_host_settings
from recipectl.recipe.load import load_with_positions
from recipectl.recipe.positions import Positions
from recipectl.recipe.schema import Recipe

_INSTALLATION = Installation(("/usr/bin/python3",))
# No engine is here: its words are those of the script, which takes everything.
_RUNTIMES = {name: Runtime("fleet", ("/engine",), positional_model=name == "vllm") for name in ENGINES}
T = TypeVar("T")


class _Read(NamedTuple):
    """A recipe as some hosts have it: their file, with the same variables of the host file."""

    recipe: Recipe
    positions: Positions
    file: str


def check(hosts: Sequence[FleetHost]) -> Findings:
    """Everything that is wrong with the recipes of some hosts."""
    findings = Findings()
    fleet: dict[str, Resolved] = {}
    by_name = {name: host.name for host in hosts for name in _names_of(host)}
    files = _Files()
    for host in hosts:
        try:
            settings = files.settings(host.host_file)
        except RecipectlError as error:
            findings.add(host.name, error.problems)
            settings = HostSettings()
        fleet[host.name] = _one_host(host, settings, files, findings)
    check_sets(fleet, by_name, findings)
    check_names(fleet, findings)
    return findings


def _names_of(host: FleetHost) -> set[str]:
    """What a host may be called in `nodes.hosts`, in lower case."""
    candidates = (host.name, host.address, str(host.facts.get("ansible_hostname", "")))
    full = {name.lower() for name in candidates if name}
    return full | {name.partition(".")[0] for name in full if not name.replace(".", "").isdigit()}


class _Files:
    """Reads each file once: a thousand hosts share most of them."""

    def __init__(self) -> None:
        self.settings = cache(self._settings)
        self.sources = cache(self._sources)
        self._known: dict[object, Any] = {}

    def _once(self, key: object, make: Callable[[], T]) -> T:
        """What `make` has returned for this key, or raised."""
        if key not in self._known:
            try:
                self._known[key] = make()
            except RecipectlError as error:
                self._known[key] = error
        outcome: T | RecipectlError = self._known[key]
        if isinstance(outcome, RecipectlError):
            raise outcome
        return outcome

    def _settings(self, path: Path | None) -> HostSettings:
        return load_host_settings((path,) if path else ())[0]

    def _sources(self, recipes: tuple[Path, ...]) -> tuple[search.Source, ...]:
        folders = tuple(path for path in recipes if path.is_dir())
        return search.sources(folders, tuple(path for path in recipes if not path.is_dir()))

    def recipe(self, source: search.Source, settings: HostSettings) -> _Read:
        """A recipe with the variables of a host file; RecipeError with all its problems."""
        paths = (source.file, *source.drop_ins)
        key = (paths, tuple(sorted(settings.vars.items())))
        return self._once(key, lambda: _Read(*load_with_positions(paths, settings.vars), str(source.file)))

    def resolved(
        self,
        source: search.Source,
        settings: HostSettings,
        host_file: Path | None,
        answer: members.AskNetwork,
    ) -> ResolvedRecipe:
        """The steps of a recipe that need no disk; RecipeError with all that is wrong."""
        read = self.recipe(source, settings)
        if read.recipe.nodes and read.recipe.nodes.hosts:
            return _resolve(read, settings, answer)
        return self._once((id(read), host_file), lambda: _resolve(read, settings, answer))

    def together(
        self, recipes: Resolved, broken: frozenset[str], settings: HostSettings, host_file: Path | None
    ) -> list[Problem]:
        """What is wrong with recipes together; the same recipes are compared once."""
        key = (broken, host_file, *(id(resolved) for resolved in recipes.values()))
        return self._once(key, lambda: _together(recipes, broken, settings))


def _resolve(read: _Read, settings: HostSettings, answer: members.AskNetwork) -> ResolvedRecipe:
    problems = ProblemCollector(read.file, read.positions)
    resolved: ResolvedRecipe | None = None
    with problems:
        recipe, member = members.with_member(read.recipe, answer)
        runtime = _RUNTIMES[recipe.backend]
        resolved = resolve_purely(recipe, read.file, runtime, settings, _INSTALLATION, member)
    if problems.problems or resolved is None:
        raise problems.error()
    return replace(resolved, positions=read.positions)


def _one_host(host: FleetHost, settings: HostSettings, files: _Files, findings: Findings) -> Resolved:
    """The recipes of one host, and what is wrong with each, and with them together."""
    recipes: Resolved = {}
    broken: set[str] = set()
    try:
        sources = files.sources(host.recipes)
    except RecipectlError as error:
        findings.add(host.name, error.problems)
        return {}
    for source in sources:
        try:
            if source.fault:
                raise UsageError(source.fault, kind="file")
            recipes[source.name] = files.resolved(source, settings, host.host_file, _answers(host))
        except RecipectlError as error:
            broken.add(source.name)
            findings.add(host.name, [_in_file(problem, source.file) for problem in error.problems])
    findings.add(host.name, files.together(recipes, frozenset(broken), settings, host.host_file))
    return recipes


def _in_file(problem: Problem, file: Path) -> Problem:
    return problem if problem.file else problem._replace(file=str(file))


def _answers(host: FleetHost) -> members.AskNetwork:
    """What the network of a host would answer, as far as the inventory tells; names stand for addresses."""
    names = _names_of(host)

    def answer(question: str) -> str:
        kind, _, name = question.partition(" ")
        if kind == "names":
            return " ".join(sorted(names))
        if kind == "interface":
            interfaces = host.facts.get("interfaces", host.facts.get("ansible_interfaces"))
            return host.address if interfaces is None or name in interfaces else ""
        return host.address if name.lower() in names else name

    return answer


def _together(
    resolved: Mapping[str, ResolvedRecipe], broken: frozenset[str], settings: HostSettings
) -> list[Problem]:
    """What is wrong with the recipes of a host together: ports, GPUs, names of other recipes."""
    gateway = settings.gateway
    address = GatewaySettings(listen=gateway.listen).address if gateway else None
    claims = with_installed([claim_of(each, settings) for each in resolved.values()], (), settings)
    decisions = relations.relate(claims, broken, gateway=address)
    problems = []
    for name, each in resolved.items():
        placed = ProblemCollector(each.file, each.positions).placed
        problems += [
            placed(error) for error in (*decisions.errors.get(name, ()), *_missing_gpus(each, settings))
        ]
    return problems


def _missing_gpus(resolved: ResolvedRecipe, settings: HostSettings) -> Iterator[UsageError]:
    """A GPU by an index that the host file does not list."""
    count = len(settings.gpus)
    for word in resolved.gpus.words:
        if count and word.isdigit() and int(word) >= count:
            sentence = (
                f"`gpus` has {word}, and the host file lists only 0 to {count - 1}; correct one of them"
            )
            yield UsageError(sentence, "gpus", kind="device")
