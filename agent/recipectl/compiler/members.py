"""The part of this host in a set: a model that several hosts serve together (`nodes: {hosts: …}`). Pure."""

import hashlib
import json
from collections.abc import Callable
from typing import NamedTuple

from recipectl.engines.parallel import parallel_of
from recipectl.engines.registry import ENGINES
from recipectl.errors import UsageError
from recipectl.recipe.parts import Nodes
from recipectl.recipe.schema import Recipe

# The tie of a set listens above the port of its engine: no two sets of a host share that one either.
_TIE_ABOVE = 1000

Answer = Callable[[str], str]  # machine/network.answer


class Member(NamedTuple):
    """One host of a set, with what it knows of all of them."""

    rank: int
    address: str  # its own
    hosts: tuple[tuple[str, tuple[str, ...]], ...]  # (name, addresses), the head first
    interface: str | None
    rendezvous_port: int  # of the engine, on the head
    tie_port: int
    digest: str  # of what all hosts must agree on

    @property
    def head(self) -> str:
        """The address where the head's tie listens."""
        return self.hosts[0][1][0]

    @property
    def addresses(self) -> tuple[str, ...]:
        """Those of all hosts."""
        return tuple(dict.fromkeys(address for _, addresses in self.hosts for address in addresses))


def place(recipe: Recipe, answer: Answer) -> tuple[Recipe, Member | None]:
    """The recipe with this host's rank and the head's address; UsageError where one is not known."""
    nodes = recipe.nodes
    if nodes is None or not nodes.hosts:
        return recipe, None
    rank = _rank(nodes.hosts, answer("names").split())
    own = _own_addresses(nodes, nodes.hosts[rank], answer)
    found = [
        own if index == rank else _addresses_of(nodes, host, answer) for index, host in enumerate(nodes.hosts)
    ]
    port = nodes.port or ENGINES[recipe.backend].rendezvous_port
    member = Member(
        rank=rank,
        address=own[0],
        hosts=tuple(zip(nodes.hosts, found, strict=True)),
        interface=nodes.interface,
        rendezvous_port=port,
        tie_port=nodes.tie_port or port + (_TIE_ABOVE if port + _TIE_ABOVE < 65536 else -_TIE_ABOVE),
        digest=_digest(recipe, nodes),
    )
    answers_everywhere = parallel_of(recipe).balancing != "internal" and nodes.headless is None
    update = {"count": len(nodes.hosts), "rank": rank, "address": member.head}
    headless = {"headless": False} if answers_everywhere else {}
    return recipe.model_copy(update={"nodes": nodes.model_copy(update=update | headless)}), member


def _digest(recipe: Recipe, nodes: Nodes) -> str:
    """A digest of what makes hosts one set: the model, its sizes, and the hosts in their order."""
    agreed = [
        recipe.name,
        recipe.backend,
        recipe.model_path,
        nodes.model_dump(exclude={"interface", "address"}),
    ]
    return hashlib.sha256(json.dumps([*agreed, parallel_of(recipe)]).encode()).hexdigest()[:12]


def _rank(hosts: tuple[str, ...], names: list[str]) -> int:
    """The place of this host among the hosts."""
    short = {name for name in names if "." not in name}
    full = {name for name in names if "." in name}
    ranks = [
        rank for rank, host in enumerate(hosts) if host.lower() in full | short or _is_short_of(host, full)
    ]
    called = " or ".join(f"`{name}`" for name in names) or "nothing"
    if not ranks:
        fault = f"`nodes.hosts` has {', '.join(hosts)}, and this host is called {called}"
        raise UsageError(f"{fault}; add it, or remove the recipe here", "nodes", "hosts", kind="network")
    if len(ranks) > 1:
        fault = f"`nodes.hosts` has this host twice: {', '.join(hosts[rank] for rank in ranks)}"
        raise UsageError(f"{fault}; name it once", "nodes", "hosts", kind="network")
    return ranks[0]


def _is_short_of(host: str, full: set[str]) -> bool:
    return any(name.partition(".")[0] == host.lower() for name in full)


def _own_addresses(nodes: Nodes, name: str, answer: Answer) -> tuple[str, ...]:
    """The addresses by which the other hosts reach this one."""
    if nodes.interface:
        addresses = tuple(answer(f"interface {nodes.interface}").split())
        if not addresses:
            fault = f"`nodes.interface` is {nodes.interface}, which has no address on this host"
            remedy = "correct it, or bring it up (`ip address` lists the interfaces)"
            raise UsageError(f"{fault}; {remedy}", "nodes", "interface", kind="network")
        return addresses
    return _looked_up(name, answer, "give `nodes.interface`, or its address in DNS or /etc/hosts")


def _addresses_of(nodes: Nodes, host: str, answer: Answer) -> tuple[str, ...]:
    """The addresses of another host; that of the head may be in the recipe."""
    if nodes.hosts and host == nodes.hosts[0] and nodes.address:
        return _looked_up(nodes.address, answer, "correct `nodes.address`", "address")
    return _looked_up(host, answer, "enter it in DNS or /etc/hosts")


def _looked_up(name: str, answer: Answer, remedy: str, key: str = "hosts") -> tuple[str, ...]:
    addresses = tuple(answer(f"address {name}").split())
    if not addresses:
        fault = f"`nodes.{key}`: the name service has no address of `{name}` that other hosts reach"
        raise UsageError(f"{fault}; {remedy}", "nodes", key, kind="network")
    return addresses
