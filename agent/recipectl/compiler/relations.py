"""What the recipes of one host are to each other: who evicts whom, who waits for whom, whose port it is."""

from collections.abc import Iterator, Mapping
from itertools import combinations
from typing import NamedTuple

from recipectl.compiler import environment
from recipectl.engines import Endpoint
from recipectl.errors import UsageError
from recipectl.recipe.hostfile import Host
from recipectl.recipe.schema import Recipe

Wrong = dict[str, list[UsageError]]


class Claim(NamedTuple):
    """What one recipe wants of the host; `ports` as (address, port), the first one the clients'."""

    name: str
    ports: tuple[tuple[str, int], ...]
    gpus: tuple[str, ...]
    accelerator: str
    gpu_sharing: str
    on_demand: bool
    at_boot: bool  # the engine itself, and not just a socket
    after: tuple[str, ...]
    requires: tuple[str, ...]
    conflicts: tuple[str, ...]


class Relations(NamedTuple):
    """Names of other recipes, sorted."""

    rivals: tuple[str, ...] = ()  # share a GPU: starting one stops the other (Conflicts= and After=)
    earlier: tuple[str, ...] = ()  # rivals that this one's unit comes after (After= on one side is enough)
    turn: tuple[str, ...] = ()  # share a GPU in turn: one loads at a time
    after: tuple[str, ...] = ()
    requires: tuple[str, ...] = ()
    spared: tuple[tuple[str, int], ...] = ()  # (whom a start of this one would stop, the port of its clients)


def claim(recipe: Recipe, behind: Endpoint, public: Endpoint, host: Host) -> Claim:
    """The GPUs (indices as UUIDs where the host file knows them) and the ports of one recipe."""
    known = dict(enumerate(host.gpus))
    named = environment.gpus(recipe) or ()
    gpus = tuple(known.get(int(gpu), gpu) if gpu.isdigit() else gpu for gpu in named)
    ends = [end for end in dict.fromkeys((public, behind)) if end.path is not None]
    return Claim(
        recipe.name or "",
        tuple((end.host, end.port) for end in ends),
        gpus,
        recipe.accelerator,
        recipe.gpu_sharing,
        recipe.on_demand is not None,
        recipe.autostart is True and recipe.on_demand is None,
        recipe.after,
        recipe.requires,
        recipe.conflicts,
    )


def _shares(one: Claim, other: Claim) -> bool:
    if one.accelerator != other.accelerator or not one.gpus or not other.gpus:
        return False
    return "all" in (*one.gpus, *other.gpus) or bool({*one.gpus} & {*other.gpus})


def _sharing(one: Claim, other: Claim, starts: Mapping[str, set[str]]) -> str:
    """The stricter wish of two counts; but one that needs the other cannot evict it."""
    wishes = {one.gpu_sharing, other.gpu_sharing}
    wish = next(wish for wish in ("exclusive", "ordered", "free") if wish in wishes)
    related = other.name in starts[one.name] or one.name in starts[other.name]
    return "ordered" if related and wish == "exclusive" else wish


def _wildcard(address: str) -> bool:
    return address in ("0.0.0.0", "::", "")  # noqa: S104  (compared, not bound)


def same_address(one: str, other: str) -> bool:
    """Whether two listeners at these addresses could want one port."""
    alike = {"localhost": "127.0.0.1"}
    return _wildcard(one) or _wildcard(other) or alike.get(one, one) == alike.get(other, other)


class Decided(NamedTuple):
    """Name of a recipe -> its relations, and name -> what is wrong with these."""

    relations: dict[str, Relations]
    wrong: Wrong


def decide(claims: list[Claim], broken: frozenset[str] = frozenset()) -> Decided:
    """What the recipes of a host are to each other; `broken` ones have no claims."""
    by_name = {one.name: one for one in sorted(claims, key=lambda one: one.name)}
    wrong: Wrong = {}
    for name, one in by_name.items():
        for key in ("after", "requires", "conflicts"):
            for needed in getattr(one, key):
                if key == "conflicts" and needed in broken:
                    continue  # it will not be started
                if needed not in by_name or needed == name:
                    why = "wrong itself" if needed in broken else "no recipe of this host; correct it"
                    wrong.setdefault(name, []).append(
                        UsageError(f"`{key}` names `{needed}`, which is {why}", key)
                    )
    needs = {name: _reached(name, by_name, ("after", "requires")) for name in by_name}
    starts = {name: _reached(name, by_name, ("requires",)) for name in by_name}
    for name in by_name:
        if name in needs[name]:
            text = f"`after` and `requires` lead back to `{name}` itself; break the circle"
            wrong.setdefault(name, []).append(UsageError(text, *_first_key(by_name[name])))
    rivals: dict[str, set[str]] = {name: set() for name in by_name}
    turns: dict[str, set[str]] = {name: set() for name in by_name}
    for one, other in _pairs_on_a_gpu(by_name):
        into = {"exclusive": rivals, "ordered": turns}.get(_sharing(one, other, starts))
        if into is not None:
            into[one.name].add(other.name)
            into[other.name].add(one.name)
    for name, one in by_name.items():
        for other_name in by_name.keys() & {*one.conflicts}:
            rivals[name].add(other_name)
            rivals[other_name].add(name)
    for name, one in by_name.items():
        for other_name in sorted(rivals[name] & {*one.after}):
            text = f"`after` names `{other_name}`, which it evicts (a GPU, or `conflicts`); remove it"
            wrong.setdefault(name, []).append(UsageError(text, "after"))
    _check_boot(by_name, rivals, starts, wrong)
    _ports(list(by_name.values()), rivals, wrong)
    ranks = _ranks(by_name, needs)
    return Decided(
        {
            name: _relations(one, rivals[name], turns[name], by_name, starts, ranks, rivals)
            for name, one in by_name.items()
        },
        wrong,
    )


def mixed(claims: list[Claim], host: Host) -> bool:
    """Whether GPUs are indices in some recipes and ids in others, which nobody here can compare."""
    return not host.gpus and len({gpu.isdigit() for one in claims for gpu in one.gpus if gpu != "all"}) > 1


def _first_key(one: Claim) -> tuple[str, ...]:
    return ("requires",) if one.requires else ("after",)


def _pairs_on_a_gpu(by_name: Mapping[str, Claim]) -> Iterator[tuple[Claim, Claim]]:
    with_gpus = [one for one in by_name.values() if one.gpus]
    return ((one, other) for one, other in combinations(with_gpus, 2) if _shares(one, other))


def _reached(name: str, by_name: Mapping[str, Claim], keys: tuple[str, ...]) -> set[str]:
    """Everything that a recipe's keys lead to, directly or not."""
    found: set[str] = set()
    todo = [name]
    while todo:
        one = by_name[todo.pop()]
        new = {other for key in keys for other in getattr(one, key) if other in by_name} - found
        found |= new
        todo.extend(new)
    return found


def _ranks(by_name: Mapping[str, Claim], needs: Mapping[str, set[str]]) -> dict[str, tuple[int, str]]:
    """One order of all recipes that respects what they need, else by name: no After= may go against it."""
    return {name: (len(needs[name]), name) for name in by_name}


def _check_boot(
    by_name: Mapping[str, Claim], rivals: Mapping[str, set[str]], starts: Mapping[str, set[str]], wrong: Wrong
) -> None:
    """No two that start together may evict each other: at boot, or as what one recipe needs."""
    at_boot: dict[str, str] = {}  # what starts at boot, and for whose sake
    for name, one in by_name.items():
        for other in [name, *sorted(starts[name])] if one.at_boot else ():
            at_boot.setdefault(other, name)
        for first, second in combinations(sorted({name, *starts[name]}), 2) if starts[name] else ():
            if second in rivals[first]:
                text = f"it starts with `{first}` and `{second}`, which share a GPU and stop each other"
                remedy = "give them `gpu_sharing: ordered`, or other GPUs"
                wrong.setdefault(name, []).append(
                    UsageError(f"`{name}` cannot start: {text}; {remedy}", "requires")
                )
    together = ((first, second) for first in sorted(at_boot) for second in sorted(rivals[first] & {*at_boot}))
    for first, second in together:
        if second < first:
            continue
        shared = sorted({*by_name[first].gpus} & {*by_name[second].gpus})
        conflict = second in by_name[first].conflicts or first in by_name[second].conflicts
        what = "both start at boot and " + (
            "conflict" if conflict else f"share GPU {', '.join(shared) or 'all'}"
        )
        remedy = "take `autostart` from one, or give both `gpu_sharing: ordered`"
        for mine, theirs in ((first, second), (second, first)):
            sake = at_boot[mine] if at_boot[mine] != mine else ""
            told = f"`{mine}` and `{theirs}` {what}" + (f" (`{sake}` requires `{mine}`)" if sake else "")
            wrong.setdefault(sake or mine, []).append(
                UsageError(f"{told}; {remedy}", "requires" if sake else "autostart")
            )


def _relations(
    one: Claim,
    rivals: set[str],
    turns: set[str],
    by_name: Mapping[str, Claim],
    starts: Mapping[str, set[str]],
    ranks: Mapping[str, tuple[int, str]],
    all_rivals: Mapping[str, set[str]],
) -> Relations:
    needs = {*one.after, *one.requires}
    # What it requires starts with it, and whoever needs a rival of either is stopped with that.
    mine = {one.name, *starts[one.name]}
    every = {rival for name in mine for rival in all_rivals[name]} - mine
    stopped = {n for n in by_name if n not in mine and {n, *starts[n]} & every} if every else ()
    return Relations(
        rivals=tuple(sorted(rivals)),
        earlier=tuple(sorted(n for n in rivals if ranks[n] < ranks[one.name])),
        turn=tuple(sorted(turns)),
        after=tuple(sorted(needs | {n for n in turns if ranks[n] < ranks[one.name]})),
        requires=tuple(sorted(one.requires)),
        spared=tuple((n, by_name[n].ports[0][1]) for n in sorted(stopped) if by_name[n].ports),
    )


def _ports(claims: list[Claim], rivals: dict[str, set[str]], wrong: Wrong) -> None:
    """Two that could be up at once must not want one port; an on-demand socket is up beside everything."""
    by_port: dict[int, list[tuple[Claim, str, bool]]] = {}
    for one in claims:
        for index, (address, port) in enumerate(one.ports):
            listens_always = one.on_demand and index == 0
            by_port.setdefault(port, []).append((one, address, listens_always))
    for port, users in by_port.items():
        for (one, here, up), (other, there, also_up) in combinations(users, 2):
            apart = other.name in rivals[one.name] and not up and not also_up
            if one.name != other.name and not apart and same_address(here, there):
                what = f"both use port {port} and could run at once; change one `port:`"
                for mine, theirs in ((one.name, other.name), (other.name, one.name)):
                    told = UsageError(f"`{mine}` and `{theirs}` {what}", "port")
                    wrong.setdefault(mine, []).append(told)
