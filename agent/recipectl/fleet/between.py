"""What is wrong between hosts: sets whose members do not fit, and one name with two meanings. Pure."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import zip_longest

from recipectl.compiler.model import ResolvedRecipe
from recipectl.compiler.problems import ProblemCollector
from recipectl.engines.served import served_names
from recipectl.errors import Problem, UsageError

_ELSEWHERE = {"host", "port", "on_demand", "queue", "nodes"}  # keys whose words may differ from host to host

Resolved = dict[str, ResolvedRecipe]  # by the recipe's name
Fleet = Mapping[str, Resolved]  # by the host's name


@dataclass
class Findings:
    """A problem -> the hosts that have it."""

    hosts: dict[Problem, list[str]] = field(default_factory=dict)

    def add(self, host: str, problems: Iterable[Problem]) -> None:
        """Note problems of a host."""
        for problem in problems:
            names = self.hosts.setdefault(problem, [])
            if host not in names:
                names.append(host)


def check_sets(fleet: Fleet, by_name: Mapping[str, str], findings: Findings) -> None:
    """All hosts of a set are in the inventory, with the same recipe and the same pins.

    `by_name` has the names in the inventory by all that a host is called.
    """
    for host, recipes in fleet.items():
        for name, resolved in recipes.items():
            placed = ProblemCollector(resolved.file, resolved.positions).placed
            for text in _faults_of_set(host, name, resolved, fleet, by_name):
                findings.add(host, [placed(UsageError(text, "nodes", "hosts", kind="network"))])


def _faults_of_set(
    host: str,
    name: str,
    resolved: ResolvedRecipe,
    fleet: Fleet,
    by_name: Mapping[str, str],
) -> Iterator[str]:
    member = resolved.member
    if member is None:
        return
    for rank, (other, _) in enumerate(member.hosts):
        there = by_name.get(other.lower())
        if there is None:
            yield f"`nodes.hosts` names {other}, which is not in the inventory; add it, or correct the name"
            continue
        if there == host or (rank and member.rank):  # the head is compared with each
            continue
        counterpart = fleet[there].get(name)
        if counterpart is None:
            yield f"`{name}` needs {there}, which has no right recipe `{name}`; give it the same file"
        elif counterpart.member is None or counterpart.member.digest != member.digest:
            where = f"{counterpart.file} of {there}"
            yield f"`{name}` differs from {where}; all hosts of a set need the same recipe"
        elif (pins := _pins(resolved)) != (counterpart_pins := _pins(counterpart)):
            fault = f"`{name}` pins {pins}, and on {there} {counterpart_pins}"
            yield f"{fault}; a set needs one version of the engine"


def _pins(resolved: ResolvedRecipe) -> str:
    recipe = resolved.recipe
    words = [
        recipe.engine_version and f"{recipe.backend} {recipe.engine_version}",
        recipe.venv_path,
        recipe.python_path,
    ]
    return ", ".join(word for word in words if word) or "nothing"


def check_names(fleet: Fleet, findings: Findings) -> None:
    """One name of a model is served with the same words wherever it is served."""
    first: dict[str, tuple[tuple[str, ...], ResolvedRecipe, str]] = {}
    for host, recipes in fleet.items():
        for resolved in recipes.values():
            if resolved.endpoint.path is None:
                continue
            words, names = _served(resolved)
            for name in names:
                words_before, other, other_host = first.setdefault(name, (words, resolved, host))
                if words_before != words:
                    findings.add(
                        host, [_differing_name(name, resolved, other, other_host, words, words_before)]
                    )


def _served(resolved: ResolvedRecipe) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The words that decide what a model answers, and its names."""
    words = (
        resolved.recipe.backend,
        *(word.text for word in resolved.words if word.key and word.key[0] not in _ELSEWHERE),
    )
    return words, served_names(resolved.recipe, resolved.words)


def _differing_name(
    name: str,
    resolved: ResolvedRecipe,
    other: ResolvedRecipe,
    other_host: str,
    words: tuple[str, ...],
    words_before: tuple[str, ...],
) -> Problem:
    pairs = zip_longest(words, words_before, fillvalue="nothing")
    here, there = next(pair for pair in pairs if pair[0] != pair[1])
    where = other.location("model_path") or other.file
    fault = f"`{name}` is served by {where} on {other_host} too, with `{there}` where `{here}` is here"
    placed = ProblemCollector(resolved.file, resolved.positions).placed
    return placed(
        UsageError(f"{fault}; make them the same, or give another `served_model_name:`", "served_model_name")
    )
