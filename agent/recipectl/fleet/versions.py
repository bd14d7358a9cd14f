"""The same recipe on many hosts: with which engine, lock, driver and GPUs, and who differs. Pure."""

import hashlib
import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from recipectl.fleet.remote import HostModels, Model, RemoteDifference, RemoteLock
from recipectl.text import names_in_words

_NONE = "none"


class Variant(NamedTuple):
    """A recipe as some hosts run it."""

    recipe: str
    engine: str
    lock: str  # the first digits of a digest: equal for equal runtimes
    driver: str
    gpus: str


class Deviation(NamedTuple):
    """A part of a recipe's runtime that is not the same on all hosts."""

    recipe: str
    part: str
    hosts: dict[str, list[str]]  # the value -> the hosts that have it; the most common one first

    def __str__(self) -> str:
        (usual, _), *others = self.hosts.items()
        clauses = (f"{_shortened(value)} on {names_in_words(names)}" for value, names in others)
        rest = _the_rest(self.hosts[usual])
        return f"{self.recipe}: {self.part} is {' and '.join(clauses)}; {_shortened(usual)} on {rest}"


def _shortened(value: str) -> str:
    """A value with the first eight digits of each digest."""
    return re.sub(r"\b([0-9a-f]{8})[0-9a-f]{56}\b", r"\1", value)


class OwnDifference(NamedTuple):
    """How a host differs from its own recipe."""

    host: str
    recipe: str
    difference: RemoteDifference


@dataclass
class Comparison:
    """All hosts beside each other; hosts by their names."""

    variants: dict[Variant, list[str]] = field(default_factory=dict)
    between: list[Deviation] = field(default_factory=list)
    own: list[OwnDifference] = field(default_factory=list)
    no_recipes: list[str] = field(default_factory=list)
    no_answer: dict[str, str] = field(default_factory=dict)  # host -> why

    @property
    def has_drift(self) -> bool:
        """As `versions` has it, a site's drop-in is told, and is no drift."""
        return bool(self.between) or any(own.difference.where != "drop-in" for own in self.own)


def compare(answers: Iterable[HostModels]) -> Comparison:
    """The variants of each recipe with their hosts, and everything that differs."""
    by_recipe: dict[str, dict[str, Model]] = {}
    comparison = Comparison()
    for answer in answers:
        for model in answer.models:
            by_recipe.setdefault(model.name, {})[answer.host] = model
            comparison.own += [OwnDifference(answer.host, model.name, each) for each in model.differences]
        if answer.fault:
            comparison.no_answer[answer.host] = answer.fault
        elif not answer.models:
            comparison.no_recipes.append(answer.host)
    for recipe, models in sorted(by_recipe.items()):
        for host, model in models.items():
            comparison.variants.setdefault(_variant(model), []).append(host)
        # What is wrong with a recipe is told by its own host.
        right = {host: model for host, model in models.items() if model.engine}
        comparison.between += _deviations(recipe, right)
    return comparison


def _variant(model: Model) -> Variant:
    return Variant(
        recipe=model.name,
        engine=_engine(model),
        lock=_digest(model.lock),
        driver=model.driver or _NONE,
        gpus=_gpus(model),
    )


def _engine(model: Model) -> str:
    return f"{model.engine} {model.version or 'of no known version'}" if model.engine else "unknown"


def _digest(lock: RemoteLock | None) -> str:
    if lock is None:
        return "unknown"
    return hashlib.sha256(json.dumps(lock.model_dump(), sort_keys=True).encode()).hexdigest()[:8]


def _gpus(model: Model) -> str:
    """`2 x NVIDIA H100 80GB HBM3`."""
    counts = Counter(model.gpu_models)
    return ", ".join(f"{count} x {name}" for name, count in sorted(counts.items())) or _NONE


def _deviations(recipe: str, models: Mapping[str, Model]) -> Iterator[Deviation]:
    values: dict[str, dict[str, list[str]]] = {}
    parts = {host: dict(_parts(model)) for host, model in models.items()}
    # A host without a wheel or a file that others have differs too.
    for part in dict.fromkeys(part for own_parts in parts.values() for part in own_parts):
        for host, own_parts in parts.items():
            values.setdefault(part, {}).setdefault(own_parts.get(part, _NONE), []).append(host)
    for part, hosts in values.items():
        if len(hosts) > 1:
            yield Deviation(recipe, part, dict(sorted(hosts.items(), key=lambda item: -len(item[1]))))


def _parts(model: Model) -> Iterator[tuple[str, str]]:
    """What a model runs with, part by part."""
    yield "the engine", _engine(model)
    yield "the driver", model.driver or _NONE
    yield "the GPU", _gpus(model)
    lock = model.lock
    if lock is None:
        return
    yield "Python", lock.python_version or _NONE
    yield "the interpreter's file", lock.interpreter_sha256
    yield "the lock beside the venv", lock.venv_lock or _NONE
    for name, distribution in lock.distributions.items():
        if name == model.engine:  # its version is told
            yield f"the RECORD of {name}", distribution.record
        else:
            yield f"the wheel {name}", f"{distribution.version} ({distribution.record})"
    for name, digest in (lock.libraries | lock.at_start).items():
        yield f"the file {name}", digest


def _the_rest(names: list[str]) -> str:
    return f"{len(names)} others" if len(names) > 1 else names[0]
