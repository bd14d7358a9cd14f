"""What the recipes of one host are to each other: who evicts whom, who waits for whom, whose port it is."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import combinations

from recipectl import environment
from recipectl.engines import Endpoint
from recipectl.hostfile import Host
from recipectl.recipe import Recipe


@dataclass(frozen=True)
class Claim:
    """What one recipe wants of the host; `ports` as (address, port), the first one the clients'."""

    recipe: Recipe
    ports: tuple[tuple[str, int], ...]
    gpus: tuple[str, ...]
    file: str

    @property
    def name(self) -> str:
        return self.recipe.name or ""

    @property
    def at_boot(self) -> bool:
        """Whether the engine itself starts at boot, and not just a socket."""
        return self.recipe.autostart is True and self.recipe.on_demand is None


@dataclass(frozen=True)
class Relations:
    """Names of other recipes, sorted."""

    rivals: tuple[str, ...] = ()  # share a GPU: starting one stops the other (Conflicts= and After=)
    earlier: tuple[str, ...] = ()  # rivals that this one's unit names (one side is enough for systemd)
    turn: tuple[str, ...] = ()  # share a GPU in turn: one loads at a time
    after: tuple[str, ...] = ()
    requires: tuple[str, ...] = ()
    polite: tuple[str, ...] = ()  # on-demand rivals that wait until this one is idle


def claim(recipe: Recipe, file: str, behind: Endpoint, public: Endpoint, host: Host) -> Claim:
    """The GPUs (indices as UUIDs where the host file knows them) and the ports of one recipe."""
    known = dict(enumerate(host.gpus))
    named = environment.gpus(recipe) or ()
    gpus = tuple(known.get(int(gpu), gpu) if gpu.isdigit() else gpu for gpu in named)
    ends = [end for end in dict.fromkeys((public, behind)) if end.path is not None]
    return Claim(recipe, tuple((end.host, end.port) for end in ends), gpus, file)


def _shares(one: Claim, other: Claim) -> bool:
    if one.recipe.accelerator != other.recipe.accelerator or not one.gpus or not other.gpus:
        return False
    return "all" in (*one.gpus, *other.gpus) or bool({*one.gpus} & {*other.gpus})


def _pairs_on_a_gpu(claims: list[Claim]) -> Iterator[tuple[Claim, Claim]]:
    with_gpus = [one for one in claims if one.gpus]
    return ((one, other) for one, other in combinations(with_gpus, 2) if _shares(one, other))


def _sharing(one: Claim, other: Claim) -> str:
    """The stricter wish of two counts."""
    wishes = {one.recipe.gpu_sharing, other.recipe.gpu_sharing}
    return next(wish for wish in ("exclusive", "ordered", "free") if wish in wishes)


def _wildcard(address: str) -> bool:
    return address in ("0.0.0.0", "::", "")  # noqa: S104  (compared, not bound)


def _same_address(one: str, other: str) -> bool:
    alike = {"localhost": "127.0.0.1"}
    return _wildcard(one) or _wildcard(other) or alike.get(one, one) == alike.get(other, other)


def decide(
    claims: list[Claim], broken: frozenset[str] = frozenset()
) -> tuple[dict[str, Relations], dict[str, list[str]]]:
    """name -> its relations, and name -> what is wrong; `broken` recipes have no claims."""
    claims = sorted(claims, key=lambda one: one.name)
    by_name = {one.name: one for one in claims}
    rivals: dict[str, set[str]] = {one.name: set() for one in claims}
    turns: dict[str, set[str]] = {one.name: set() for one in claims}
    wrong: dict[str, list[str]] = {}
    for one, other in _pairs_on_a_gpu(claims):
        sharing = _sharing(one, other)
        if {one.name, other.name} & {*one.recipe.requires, *other.recipe.requires} and sharing == "exclusive":
            sharing = "ordered"  # one needs the other: they cannot evict each other
        into = {"exclusive": rivals, "ordered": turns}.get(sharing)
        if into is not None:
            into[one.name].add(other.name)
            into[other.name].add(one.name)
        if into is rivals and one.at_boot and other.at_boot:
            shared = ", ".join(sorted({*one.gpus} & {*other.gpus})) or "all"
            remedy = "take `autostart` from one, or give both `gpu_sharing: ordered`"
            _both(wrong, one, other, f"both start at boot and share GPU {shared}; {remedy}")
    _ports(claims, rivals, wrong)
    for one in claims:
        for key in ("after", "requires"):
            for needed in getattr(one.recipe, key):
                why = "wrong itself" if needed in broken else "no recipe of this host; correct it"
                if needed not in by_name or needed == one.name:
                    text = f"{one.file}: `{key}` names `{needed}`, which is {why}"
                    wrong.setdefault(one.name, []).append(text)
                elif needed in rivals[one.name] and key == "after":
                    text = (
                        f"{one.file}: `after` names `{needed}`, which it evicts (they share a GPU); remove it"
                    )
                    wrong.setdefault(one.name, []).append(text)
    _circles(by_name, wrong)
    return {one.name: _relations(one, rivals[one.name], turns[one.name], by_name) for one in claims}, wrong


def _relations(one: Claim, rivals: set[str], turns: set[str], by_name: Mapping[str, Claim]) -> Relations:
    needs = {*one.recipe.after, *one.recipe.requires}
    # Ordering must have no circles: by name, but never against what a recipe says itself.
    earlier_turns = {n for n in turns if n < one.name and one.name not in _needs(n, by_name)}
    polite = {n for n in rivals if (there := by_name[n].recipe.on_demand) and there.evict == "idle"}
    return Relations(
        rivals=tuple(sorted(rivals)),
        earlier=tuple(sorted(n for n in rivals if n < one.name)),
        turn=tuple(sorted(turns)),
        after=tuple(sorted(needs | earlier_turns)),
        requires=tuple(sorted(one.recipe.requires)),
        polite=tuple(sorted(polite)),
    )


def _needs(name: str, by_name: Mapping[str, Claim]) -> set[str]:
    """Everything a recipe comes after, directly or not."""
    found: set[str] = set()
    todo = [name]
    while todo:
        recipe = by_name[todo.pop()].recipe
        new = {n for n in (*recipe.after, *recipe.requires) if n in by_name} - found
        found |= new
        todo.extend(new)
    return found


def _circles(by_name: Mapping[str, Claim], wrong: dict[str, list[str]]) -> None:
    for name, one in by_name.items():
        if (one.recipe.after or one.recipe.requires) and name in _needs(name, by_name):
            text = f"{one.file}: `after` and `requires` lead back to `{name}` itself; break the circle"
            wrong.setdefault(name, []).append(text)


def _ports(claims: list[Claim], rivals: dict[str, set[str]], wrong: dict[str, list[str]]) -> None:
    """Two that could be up at once must not want one port; an on-demand socket is up beside everything."""
    by_port: dict[int, list[tuple[Claim, str, bool]]] = {}
    for one in claims:
        for index, (address, port) in enumerate(one.ports):
            listens_always = one.recipe.on_demand is not None and index == 0
            by_port.setdefault(port, []).append((one, address, listens_always))
    for port, users in by_port.items():
        for (one, here, up), (other, there, also_up) in combinations(users, 2):
            apart = other.name in rivals[one.name] and not up and not also_up
            if one.name != other.name and not apart and _same_address(here, there):
                _both(wrong, one, other, f"both use port {port} and could run at once; change one `port:`")


def _both(wrong: dict[str, list[str]], one: Claim, other: Claim, what: str) -> None:
    wrong.setdefault(one.name, []).append(f"{one.file}: `{one.name}` and `{other.name}` {what}")
    wrong.setdefault(other.name, []).append(f"{other.file}: `{other.name}` and `{one.name}` {what}")
