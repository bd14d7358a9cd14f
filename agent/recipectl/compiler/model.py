"""The values that pass between the steps of the compiler."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, NamedTuple

from recipectl import addresses
from recipectl.errors import Kind, Problem, Severity
from recipectl.recipe.gpu_selection import GpuSelection
from recipectl.recipe.positions import Positions, nearest_position
from recipectl.systemd.unitfile import Unit, UnitNames

if TYPE_CHECKING:  # they import pydantic, which a compile from the cache does not need
    from recipectl.compiler.members import Member
    from recipectl.engines.argv import Word
    from recipectl.engines.endpoint import Endpoint
    from recipectl.machine.runtime import Runtime
    from recipectl.recipe.schema import Recipe


class Variable(NamedTuple):
    """One variable: its value, the layer it came from, and what it overrode as (layer, value)."""

    value: str
    layer: str
    overrode: tuple[tuple[str, str], ...] = ()


Environment = dict[str, Variable]
Values = dict[str, str | int | list[str]]  # of a template


@dataclass(frozen=True)
class ResolvedRecipe:
    """A recipe with everything that its units need, before the other recipes of the host are considered."""

    recipe: Recipe
    file: str
    runtime: Runtime
    gpus: GpuSelection
    environment: Environment
    words: tuple[Word, ...]
    endpoint: Endpoint  # of the engine itself
    client_endpoint: Endpoint  # where clients ask: what is in front of the engine, else the engine
    member: Member | None = None  # of a set of hosts
    positions: Positions = field(default_factory=dict)
    lock: str | None = None  # the file, where there is one
    lock_differences: tuple[str, ...] = ()
    mps_pipes: str | None = None  # the folder of CUDA's MPS, where it is root's
    groups: tuple[str, ...] = ()  # of devices and older caches, besides the group of shared data
    warnings: tuple[Problem, ...] = ()

    @property
    def name(self) -> str:
        return self.recipe.name or ""

    @cached_property
    def argv(self) -> tuple[str, ...]:
        return tuple(word.text for word in self.words)

    def problem(self, kind: Kind, sentence: str, *key: str | int, severity: Severity = "error") -> Problem:
        """A problem of a key of the recipe, at its place."""
        position = nearest_position(self.positions, key) or (self.file, 0, 0)
        return Problem(*position, ".".join(map(str, key)), kind=kind, sentence=sentence, severity=severity)

    def location(self, *key: str | int) -> str | None:
        """file:line of a key of the recipe, or of the nearest key around it."""
        position = nearest_position(self.positions, key)
        return f"{position[0]}:{position[1]}" if position else None


class CompiledModel(NamedTuple):
    """One recipe as units, with what a plan and the verbs need. `requires` and `rivals` name recipes."""

    name: str
    file: str
    backend: str
    user: str | None  # of User=; None under a user's own manager
    user_in_front: str | None  # of the proxy or the queue, where that needs a user that is always there
    units: tuple[Unit, ...]  # the service first
    digest: str
    autostart: bool | None
    on_demand: bool
    queued: bool
    watched: bool
    gpus: GpuSelection
    url: str | None  # where clients ask; None when the engine answers no requests
    socket_address: tuple[str, int] | None  # where clients reach its socket, where it has one
    requires: tuple[str, ...]
    rivals: tuple[str, ...]
    warnings: tuple[Problem, ...]
    served: tuple[str, ...] = ()  # the names of the model that its engine answers to, its own first
    key_file: str | None = None  # of the engine's API, where it needs a key
    queue_digest: str = ""  # of what the queue's HAProxy keeps from its start

    @property
    def unit_names(self) -> UnitNames:
        return UnitNames(self.name)

    @property
    def socket(self) -> str:
        """The name of the socket where clients ask, or would ask."""
        return self.unit_names.queue_socket if self.queued else self.unit_names.socket

    @property
    def listener(self) -> str:
        """The unit that listens for clients."""
        return self.unit_names.listener(on_demand=self.on_demand, queued=self.queued)

    @property
    def enabled_unit(self) -> str:
        """The unit that [Install] belongs to: the socket of an on-demand model, else the service."""
        return self.unit_names.socket if self.on_demand else self.unit_names.service


class GatewaySettings(NamedTuple):
    """`gateway:` of the host file. Paths are absolute; None where a key is left out."""

    listen: str = "127.0.0.1:8000"
    certificate: str | None = None
    key: str | None = None
    keys: str | None = None
    names: dict[str, str] = {}  # noqa: RUF012  (never changed)
    include: str | None = None

    @property
    def address(self) -> tuple[str, int]:
        """(address, port); an address of IPv6 without its brackets."""
        host, port = addresses.split(self.listen)
        return host, int(port)


class CompileResult(NamedTuple):
    """All recipes of a host: those that compiled, and the problems of those that did not, by name.

    `resolved` has the steps before the units by name; it is empty when the result is from the cache.
    """

    models: tuple[CompiledModel, ...]
    failures: dict[str, tuple[Problem, ...]]
    resolved: dict[str, ResolvedRecipe]
    gateway: GatewaySettings | None = None
