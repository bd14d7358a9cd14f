"""What recipes and installed units want of a host: ports and GPUs. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, NamedTuple

from recipectl.systemd.unitfile import InstalledUnit, recipe_of

if TYPE_CHECKING:  # with pydantic, which a plan does not need
    from recipectl.compiler.model import ResolvedRecipe
    from recipectl.recipe.hostfile import HostSettings

SHARING = ("exclusive", "ordered", "free")  # the strictest first


class Claim(NamedTuple):
    """What one recipe wants of the host; `ports` as (address, port), that of the clients first."""

    name: str
    ports: tuple[tuple[str, int], ...]
    gpus: tuple[str, ...]
    accelerator: str
    gpu_sharing: str
    has_socket: bool  # something listens for clients in the engine's place, even while it is down
    at_boot: bool  # the engine itself, and not only a socket
    after: tuple[str, ...]
    requires: tuple[str, ...]
    conflicts: tuple[str, ...]
    set_ports: tuple[int, ...] = ()  # those that `nodes.port` and `nodes.tie_port` decide


def claim_of(resolved: ResolvedRecipe, settings: HostSettings) -> Claim:
    """The claim of one recipe."""
    recipe = resolved.recipe
    endpoints = dict.fromkeys((resolved.client_endpoint, resolved.endpoint))
    set_ports: tuple[int, ...] = ()
    ports = [(endpoint.host, endpoint.port) for endpoint in endpoints if endpoint.path is not None]
    if (member := resolved.member) and member.rank == 0:
        set_ports = (member.rendezvous_port, member.tie_port)
        ports += [(member.head, port) for port in set_ports]
    return Claim(
        name=resolved.name,
        ports=tuple(ports),
        gpus=_as_ids(resolved.gpus.words, settings),
        accelerator=recipe.accelerator,
        gpu_sharing=recipe.gpu_sharing,
        has_socket=recipe.front is not None,
        set_ports=set_ports,
        at_boot=recipe.autostart is True and recipe.on_demand is None,
        after=recipe.after,
        requires=recipe.requires,
        conflicts=recipe.conflicts,
    )


def claim_of_unit(unit: InstalledUnit, *, has_socket: bool) -> Claim:
    """The claim of a unit as it is installed, whatever its recipe says by now."""
    listens = [unit.engine_address] if unit.engine_address else []
    if unit.endpoint:
        listens = [unit.endpoint_address, *listens]
    conflicts = (recipe_of(name) for name in unit.setting("Conflicts"))
    return Claim(
        name=unit.recipe,
        ports=tuple(dict.fromkeys(listens)),
        gpus=tuple(word for word in (unit.gpus or "").split(",") if word),
        accelerator=unit.accelerator,
        gpu_sharing=unit.gpu_sharing,
        has_socket=has_socket,
        at_boot=False,
        after=(),
        requires=(),
        conflicts=tuple(sorted(conflicts)),
    )


def with_installed(
    claims: Sequence[Claim], installed: Iterable[Claim], settings: HostSettings
) -> list[Claim]:
    """The claims of recipes, and of installed units: an installed unit keeps its claims until it is removed.

    Two claims of one name count together, the stricter wish first.
    """
    by_name = {claim.name: claim for claim in claims}
    for claim in installed:
        claim = claim._replace(gpus=_as_ids(claim.gpus, settings))
        own = by_name.get(claim.name)
        if own is None:
            by_name[claim.name] = claim
        elif own.accelerator == claim.accelerator:
            by_name[claim.name] = own._replace(
                gpus=tuple(dict.fromkeys((*own.gpus, *claim.gpus))),
                ports=tuple(dict.fromkeys((*own.ports, *claim.ports))),
                gpu_sharing=min(own.gpu_sharing, claim.gpu_sharing, key=SHARING.index),
            )
    return [*by_name.values()]


def _as_ids(gpus: Iterable[str], settings: HostSettings) -> tuple[str, ...]:
    """GPU indices become UUIDs where the host file knows them."""
    uuids = dict(enumerate(settings.gpus))
    return tuple(uuids.get(int(gpu), gpu) if gpu.isdigit() else gpu for gpu in gpus)


def gpus_cannot_be_compared(claims: Iterable[Claim], settings: HostSettings) -> bool:
    """True if GPUs are indices in some recipes and ids in others, and the host file has no `gpus:`."""
    spellings = {gpu.isdigit() for claim in claims for gpu in claim.gpus if gpu != "all"}
    return not settings.gpus and len(spellings) > 1
