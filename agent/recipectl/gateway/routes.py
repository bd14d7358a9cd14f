"""Which name of a model leads where. Pure."""

from collections.abc import Collection, Iterable, Mapping
from ipaddress import ip_address
from typing import NamedTuple
from urllib.parse import SplitResult, urlsplit

from recipectl.errors import UsageError
from recipectl.systemd.unitfile import InstalledUnit, UnitNames
from recipectl.text import did_you_mean


class Target(NamedTuple):
    """A model that the gateway can reach, by its address for clients."""

    recipe: str
    url: str  # as its unit has it
    names: tuple[str, ...]  # what the engine itself answers to, its own name first
    on_demand: bool
    key_file: str | None = None  # of the engine's own API
    host: str = ""  # where it listens; empty for every address
    engine: tuple[str, int] | None = None  # where the engine itself listens, behind a socket
    localhost: str = "127.0.0.1"  # what `localhost` means to what listens there
    shown_by: str = ""  # the unit that is up while requests may go there; empty if they always may

    @property
    def location(self) -> SplitResult:
        """The parts of its URL."""
        return urlsplit(self.url)


class Route(NamedTuple):
    """Where the requests for one name go."""

    name: str
    target: Target
    written_as: str | None  # what the engine calls it, where it does not know the name

    @property
    def address(self) -> str:
        """address:port, with brackets around IPv6."""
        location = self.target.location
        if location.hostname == "localhost":
            return f"{self.target.localhost}:{location.port}"
        return location.netloc


class Routes(NamedTuple):
    """The routes by name in the order of names, names that several models have, and what is wrong."""

    by_name: Mapping[str, Route]
    ambiguous: Mapping[str, tuple[str, ...]]
    errors: tuple[UsageError, ...]


def target_of(unit: InstalledUnit, units: Collection[str]) -> Target | None:
    """The target of a model by its service, None for one that answers no requests; `units` are beside it."""
    if unit.endpoint is None:
        return None
    names, served = UnitNames(unit.recipe), unit.served or (unit.model or unit.recipe,)
    on_demand, queued = names.socket in units, names.queue_socket in units
    return Target(
        recipe=unit.recipe,
        url=unit.endpoint,
        names=served,
        on_demand=on_demand,
        key_file=unit.key_file,
        host=unit.host or "",
        engine=unit.engine_address,
        shown_by=_shown_by(names, units, is_held=on_demand or queued),
    )


def _shown_by(names: UnitNames, units: Collection[str], *, is_held: bool) -> str:
    """The unit that shows whether a model may get requests; its service if `gateway:` came later."""
    if names.reachable in units:
        return names.reachable
    return "" if is_held else names.service


def routes(targets: Iterable[Target], names: Mapping[str, str]) -> Routes:
    """The routes of a host; `names` are the host file's own, name -> recipe or served name.

    The host file's names win over those of recipes, and these over those that engines serve. A name that two
    engines serve leads nowhere.
    """
    by_recipe = {target.recipe: target for target in sorted(targets)}
    errors = [*_unreachable(by_recipe.values())]
    reachable = {name: target for name, target in by_recipe.items() if _is_address(target)}
    serving: dict[str, list[Target]] = {}
    for target in reachable.values():
        for name in target.names:
            serving.setdefault(name, []).append(target)
    target_by_name = {name: some[0] for name, some in serving.items() if len(some) == 1} | reachable
    ambiguous = {
        name: tuple(target.recipe for target in some)
        for name, some in sorted(serving.items())
        if len(some) > 1 and name not in reachable and name not in names
    }
    for name, recipe_or_name in names.items():
        if recipe_or_name in target_by_name:
            continue
        hint = did_you_mean(
            recipe_or_name, target_by_name, "name a recipe of this host that answers requests"
        )
        fault = f"`{recipe_or_name}` is no model of this gateway"
        errors.append(UsageError(f"{fault}; {hint}", "gateway", "names", name))
    others = {name: other for name, other in names.items() if other in target_by_name}
    target_by_name |= {name: target_by_name[other] for name, other in others.items()}
    by_name = {
        name: Route(name, target, _written_as(name, others.get(name, name), target.names))
        for name, target in sorted(target_by_name.items())
    }
    return Routes(by_name, ambiguous, tuple(errors))


def _written_as(name: str, other: str, served: tuple[str, ...]) -> str | None:
    """What an engine gets for a name that stands for `other`: None for the name itself."""
    if name in served:
        return None
    return other if other in served else served[0]


def _is_address(target: Target) -> bool:
    try:
        ip_address(target.location.hostname or "")
    except ValueError:
        return target.location.hostname == "localhost"
    return True


def _unreachable(targets: Iterable[Target]) -> Iterable[UsageError]:
    for target in targets:
        if not _is_address(target):
            fault = f"the gateway cannot reach `{target.recipe}`, whose `host` is a name"
            yield UsageError(f"{fault}; give an address there", "gateway", kind="relation")
