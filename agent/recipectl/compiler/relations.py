"""How the recipes of one host relate: which conflict, which wait for which, which want the same port."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from ipaddress import ip_address
from itertools import chain, combinations, product
from typing import NamedTuple

from recipectl.addresses import WILDCARDS
from recipectl.compiler.claims import SHARING, Claim
from recipectl.errors import Kind, UsageError


class Relations(NamedTuple):
    """Names of other recipes, sorted."""

    rivals: tuple[str, ...] = ()  # starting one stops the other (Conflicts= and After=)
    taking_turns: tuple[str, ...] = ()  # share a GPU, and load one after the other
    after: tuple[str, ...] = ()  # `after:`, `requires:`, and for rivals and turns one model of the two
    requires: tuple[str, ...] = ()
    stopped: tuple[tuple[str, int], ...] = ()  # (what a start would stop, the port of its clients)


class Decisions(NamedTuple):
    """Name of a recipe -> its relations, and name -> what is wrong with them."""

    relations: dict[str, Relations]
    errors: dict[str, list[UsageError]]


_Names = Mapping[str, set[str]]
_Refusals = Iterator[tuple[str, UsageError]]  # (the name of a recipe, what is wrong with it)


def closure(start: Iterable[str], edges: Mapping[str, Iterable[str]]) -> set[str]:
    """Everything that the edges lead to, directly or not; a start node only if a circle leads back to it."""
    reached: set[str] = set()
    todo = [*start]
    while todo:
        following = {*edges.get(todo.pop(), ())} - reached
        reached |= following
        todo += following
    return reached


def relate(
    claims: Iterable[Claim],
    broken: frozenset[str] = frozenset(),
    holders: frozenset[tuple[str, int]] = frozenset(),
    gateway: tuple[str, int] | None = None,
) -> Decisions:
    """The relations of all recipes of a host; `broken` recipes exist, and have no claims.

    `holders` are (name, port) of installed units: a new recipe with such a port is refused,
    its holder is not.
    `gateway` is where the gateway of the host listens.
    """
    by_name = {claim.name: claim for claim in sorted(claims, key=lambda claim: claim.name)}
    needs = _closures(by_name, "after", "requires")
    required = _closures(by_name, "requires")
    rivals, turns = _conflicts(by_name, required)
    errors: dict[str, list[UsageError]] = {}
    for name, error in chain(
        _check_names(by_name, broken),
        _check_circles(by_name, needs),
        _check_after(by_name, rivals),
        _check_starts(rivals, required),
        _check_boot(by_name, rivals, required),
        _check_ports(by_name, rivals, holders),
        _check_gateway(by_name, gateway, holders) if gateway else (),
    ):
        errors.setdefault(name, []).append(error)
    # One order of all recipes that respects what they need: no After= may contradict it.
    ranks = {name: (len(needs[name]), name) for name in by_name}
    decided = {}
    for name, claim in by_name.items():
        first = {other for other in rivals[name] | turns[name] if ranks[other] < ranks[name]}
        decided[name] = Relations(
            rivals=tuple(sorted(rivals[name])),
            taking_turns=tuple(sorted(turns[name])),
            after=tuple(sorted({*claim.after, *claim.requires, *first})),
            requires=tuple(sorted(claim.requires)),
            stopped=_stopped_by(name, by_name, rivals, required),
        )
    return Decisions(decided, errors)


def _closures(by_name: Mapping[str, Claim], *keys: str) -> _Names:
    """Name -> all recipes that some of its keys lead to, directly or not."""
    edges = {
        name: [other for key in keys for other in getattr(claim, key) if other in by_name]
        for name, claim in by_name.items()
    }
    return {name: closure([name], edges) for name in by_name}


def _conflicts(by_name: Mapping[str, Claim], required: _Names) -> tuple[_Names, _Names]:
    """Name -> the recipes that it stops, and name -> those that load before or after it."""
    rivals: dict[str, set[str]] = {name: set() for name in by_name}
    turns: dict[str, set[str]] = {name: set() for name in by_name}
    for first, second in _pairs_on_a_gpu(by_name):
        relation = {"exclusive": rivals, "ordered": turns}.get(_sharing(first, second, required))
        if relation is not None:
            relation[first.name].add(second.name)
            relation[second.name].add(first.name)
    for name, claim in by_name.items():
        for other in by_name.keys() & {*claim.conflicts}:
            rivals[name].add(other)
            rivals[other].add(name)
    return rivals, turns


def _pairs_on_a_gpu(by_name: Mapping[str, Claim]) -> Iterator[tuple[Claim, Claim]]:
    users: dict[tuple[str, str], list[Claim]] = {}
    for claim in by_name.values():
        for gpu in claim.gpus:
            users.setdefault((claim.accelerator, gpu), []).append(claim)
    for (accelerator, gpu), claims in users.items():
        yield from combinations(claims, 2)
        if gpu == "all":
            same_kind = (user for (kind, _), some in users.items() if kind == accelerator for user in some)
            yield from product(claims, (user for user in same_kind if user.gpus != ("all",)))


def _sharing(first: Claim, second: Claim, required: _Names) -> str:
    """The stricter wish of the two counts; but a recipe cannot stop what it requires."""
    wishes = {first.gpu_sharing, second.gpu_sharing}
    strictest = next(wish for wish in SHARING if wish in wishes)
    related = second.name in required[first.name] or first.name in required[second.name]
    return "ordered" if related and strictest == "exclusive" else strictest


def _refusal(name: str, sentence: str, *key: str, kind: Kind = "relation") -> tuple[str, UsageError]:
    return name, UsageError(sentence, *key, kind=kind)


def _check_names(by_name: Mapping[str, Claim], broken: frozenset[str]) -> _Refusals:
    for name, claim in by_name.items():
        for key in ("after", "requires", "conflicts"):
            for other in getattr(claim, key):
                if key == "conflicts" and other in broken:
                    continue  # it will not be started
                if other in broken:
                    yield _refusal(
                        name, f"`{key}` names `{other}`, which has errors; correct them first", key
                    )
                elif other not in by_name or other == name:
                    sentence = (
                        f"`{key}` names `{other}`, which is not another recipe of this host; correct it"
                    )
                    yield _refusal(name, sentence, key)


def _check_circles(by_name: Mapping[str, Claim], needs: _Names) -> _Refusals:
    for name, claim in by_name.items():
        if name in needs[name]:
            others = sorted(other for other in needs[name] - {name} if name in needs[other])
            way = f" (by {', '.join(f'`{other}`' for other in others)})" if others else ""
            sentence = f"`after` and `requires` lead back to `{name}` itself{way}; remove one of these keys"
            yield _refusal(name, sentence, "requires" if claim.requires else "after")


def _check_after(by_name: Mapping[str, Claim], rivals: _Names) -> _Refusals:
    for name, claim in by_name.items():
        for other in sorted(rivals[name] & {*claim.after}):
            sentence = (
                f"`after` names `{other}`, but a start of `{name}` stops it (GPU or `conflicts`); remove it"
            )
            yield _refusal(name, sentence, "after")


def _check_starts(rivals: _Names, required: _Names) -> _Refusals:
    """Refuse a recipe whose start needs two models that stop each other."""
    for name, others in required.items():
        for first, second in combinations(sorted({name, *others}), 2) if others else ():
            if second in rivals[first]:
                fault = f"its start needs `{first}` and `{second}`, which stop each other"
                remedy = "correct `requires`, `gpu_sharing` or `conflicts`"
                yield _refusal(name, f"`{name}` cannot start: {fault}; {remedy}", "requires")


def _check_boot(by_name: Mapping[str, Claim], rivals: _Names, required: _Names) -> _Refusals:
    """Refuse two models that start at boot and stop each other."""
    cause: dict[str, str] = {}  # what starts at boot -> the recipe that starts it
    for name, claim in by_name.items():
        for other in (name, *sorted(required[name])) if claim.at_boot else ():
            cause.setdefault(other, name)
    for first in sorted(cause):
        for second in sorted(rivals[first] & cause.keys()):
            if first < second:
                reason = _reason_to_conflict(by_name[first], by_name[second])
                yield _refuse_at_boot(first, second, reason, cause)
                yield _refuse_at_boot(second, first, reason, cause)


def _reason_to_conflict(first: Claim, second: Claim) -> str:
    if second.name in first.conflicts or first.name in second.conflicts:
        return "conflict"
    gpus = sorted({*first.gpus} & {*second.gpus})
    return f"share GPU {', '.join(gpus) or 'all'}"


def _refuse_at_boot(name: str, other: str, reason: str, cause: Mapping[str, str]) -> tuple[str, UsageError]:
    starter = cause[name]
    chain = f" (`{starter}` requires `{name}`)" if starter != name else ""
    fault = f"`{name}` and `{other}` both start at boot and {reason}{chain}"
    remedy = "take `autostart` from one, or give both `gpu_sharing: ordered`"
    return _refusal(starter, f"{fault}; {remedy}", "requires" if chain else "autostart")


def _check_ports(
    by_name: Mapping[str, Claim], rivals: _Names, holders: frozenset[tuple[str, int]]
) -> _Refusals:
    """Refuse one port for two that could run at once; a socket listens beside everything."""
    users: dict[int, list[tuple[Claim, str, bool]]] = {}
    for claim in by_name.values():
        for index, (address, port) in enumerate(claim.ports):
            users.setdefault(port, []).append((claim, address, claim.has_socket and index == 0))
    for port, claims in users.items():
        for (first, address, always), (second, other_address, other_always) in combinations(claims, 2):
            never_together = second.name in rivals[first.name] and not always and not other_always
            if first.name == second.name or never_together or not same_address(address, other_address):
                continue
            fault = f"both use port {port} and could run at once"
            holding = {claim.name for claim in (first, second) if (claim.name, port) in holders}
            for name, other in ((first.name, second.name), (second.name, first.name)):
                if holding == {name}:
                    continue
                of_set = by_name[name].set_ports
                key = ("nodes", ("port", "tie_port")[of_set.index(port)]) if port in of_set else ("port",)
                sentence = f"`{name}` and `{other}` {fault}; change one `{'.'.join(key)}:`"
                yield _refusal(name, sentence, *key, kind="port")


def _check_gateway(
    by_name: Mapping[str, Claim], gateway: tuple[str, int], holders: frozenset[tuple[str, int]]
) -> _Refusals:
    """Refuse the port of the gateway, which would ask itself; a model that has it already stays."""
    for name, claim in by_name.items():
        for address, port in claim.ports:
            taken = port == gateway[1] and same_address(address, gateway[0])
            if taken and (name, port) not in holders:
                fault = f"`{name}` would listen at port {port}, where the gateway of the host file listens"
                remedy = "change `port:`, or `listen:` of the gateway"
                yield _refusal(name, f"{fault}; {remedy}", "port", kind="port")


def same_address(address: str, other: str) -> bool:
    """True if two listeners at these addresses could want one port."""
    if address in WILDCARDS or other in WILDCARDS:
        return True
    return _ip_address(address) == _ip_address(other)


def _ip_address(address: str) -> object:
    """An address without its spelling; a name stays as it is."""
    try:
        return ip_address("127.0.0.1" if address == "localhost" else address)
    except ValueError:
        return address


def _stopped_by(
    name: str, by_name: Mapping[str, Claim], rivals: _Names, required: _Names
) -> tuple[tuple[str, int], ...]:
    """What a start of this recipe would stop: rivals of what starts with it, and whatever requires those."""
    started = {name, *required[name]}
    stopped = {rival for other in started for rival in rivals[other]} - started
    if not stopped:
        return ()
    with_dependents = (
        other for other in by_name if other not in started and {other, *required[other]} & stopped
    )
    return tuple(
        (other, by_name[other].ports[0][1]) for other in sorted(with_dependents) if by_name[other].ports
    )
