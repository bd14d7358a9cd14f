"""The part of this host in a set: a model that several hosts serve together (`nodes: {hosts: …}`). Pure."""

import json
from collections.abc import Callable, Iterable
from ipaddress import ip_address
from typing import NamedTuple

from recipectl.engines.argv import Word
from recipectl.engines.parallel import parallel_of
from recipectl.engines.registry import ENGINES
from recipectl.errors import UsageError
from recipectl.recipe.parts import Nodes
from recipectl.recipe.schema import Recipe
from recipectl.text import digest_of

# The tie of a set listens above the port of its engine: no two sets of a host share that one either.
_TIE_ABOVE = 1000

AskNetwork = Callable[[str], str]  # machine/network.answer


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


def with_member(recipe: Recipe, answer: AskNetwork) -> tuple[Recipe, Member | None]:
    """The recipe with this host's rank and the head's address; UsageError where one is not known."""
    nodes = recipe.nodes
    if nodes is None or not nodes.hosts:
        return recipe, None
    if recipe.on_demand:
        fault = "`on_demand` cannot stop one host of a set, whose hosts start together"
        raise UsageError(f"{fault}; remove it", "on_demand", kind="value")
    rank = _rank(nodes.hosts, answer("names").split())
    own = _own_addresses(nodes, nodes.hosts[rank], answer)
    addresses = [
        own if index == rank else _addresses_of(nodes, host, answer) for index, host in enumerate(nodes.hosts)
    ]
    port = nodes.port or ENGINES[recipe.backend].rendezvous_port
    tie_port = nodes.tie_port or port + (_TIE_ABOVE if port + _TIE_ABOVE < 65536 else -_TIE_ABOVE)
    _check_ports(recipe, port, tie_port)
    if rank == 0:
        _check_host(recipe)
    member = Member(
        rank=rank,
        address=own[0],
        hosts=tuple(zip(nodes.hosts, addresses, strict=True)),
        interface=nodes.interface,
        rendezvous_port=port,
        tie_port=tie_port,
        digest="",
    )
    answers_everywhere = parallel_of(recipe).balancing != "internal" and nodes.headless is None
    update = {"count": len(nodes.hosts), "rank": rank, "address": member.head}
    headless = {"headless": False} if answers_everywhere else {}
    placed = nodes.model_copy(update=update | headless)
    # What asks an engine is only where one answers: the same recipe lies on all hosts.
    asks = {} if placed.serves else {"watch": None, "queue": None}
    return recipe.model_copy(update={"nodes": placed} | asks), member


def agreed(member: Member, recipe: Recipe, words: Iterable[Word]) -> Member:
    """The member with the digest that all hosts of the set share. Paths may differ between hosts."""
    own = {"nodes", "host", "port", "queue", *(["model_path"] if recipe.model_path.startswith("/") else [])}
    agreed_words = [word.text for word in words if word.key and word.key[0] not in own]
    names = [name for name, _ in member.hosts]
    values: list[object] = [recipe.name, recipe.backend, names, member.rendezvous_port, agreed_words]
    return member._replace(digest=digest_of(json.dumps(values)))


def _check_host(recipe: Recipe) -> None:
    """UsageError for a name in `host:`: the tie of the head may ask its engine at an address alone."""
    try:
        ip_address(recipe.host or "127.0.0.1")
    except ValueError as error:
        if recipe.host != "localhost":
            fault = f"`host` is {recipe.host}, a name, and the tie of the set reaches only addresses"
            raise UsageError(f"{fault}; write its address", "host", kind="network") from error


def _check_ports(recipe: Recipe, port: int, tie_port: int) -> None:
    """UsageError when two of the ports of one set are the same."""
    engine = recipe.port or ENGINES[recipe.backend].port
    taken = {engine: "`port`" if recipe.port else "the engine's port"}
    for key, number in (("port", port), ("tie_port", tie_port)):
        if number in taken:
            fault = f"`nodes.{key}` and {taken[number]} are both {number}"
            raise UsageError(f"{fault}; choose another", "nodes", key, kind="port")
        taken[number] = f"`nodes.{key}`"


def _rank(hosts: tuple[str, ...], names: list[str]) -> int:
    """The place of this host among the hosts."""
    short = {name for name in names if "." not in name}
    full = {name for name in names if "." in name}
    ranks = [
        rank for rank, host in enumerate(hosts) if host.lower() in full | short or _is_short_of(host, full)
    ]
    if not ranks and (short_of := [host for host in hosts if host.lower().partition(".")[0] in short]):
        fault = (
            f"`nodes.hosts` has {short_of[0]}, and this host knows only its other name {' or '.join(names)}"
        )
        raise UsageError(
            f"{fault}; write that, or give the host its full name", "nodes", "hosts", kind="network"
        )
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


def _own_addresses(nodes: Nodes, name: str, answer: AskNetwork) -> tuple[str, ...]:
    """The addresses by which the other hosts reach this one."""
    is_head = nodes.hosts is not None and name == nodes.hosts[0]
    head_addresses = (
        _looked_up(nodes.address, answer, "correct `nodes.address`", "address")
        if nodes.address and is_head
        else ()
    )
    if nodes.interface:
        addresses = tuple(answer(f"interface {nodes.interface}").split())
        if not addresses:
            fault = f"`nodes.interface` is {nodes.interface}, which has no address on this host"
            remedy = "correct it, or bring it up (`ip address` lists the interfaces)"
            raise UsageError(f"{fault}; {remedy}", "nodes", "interface", kind="network")
        known = head_addresses or tuple(answer(f"address {name}").split())
        if known and not {*known} & {*addresses}:
            fault = (
                f"`nodes.interface` {nodes.interface} has {addresses[0]}, and the other hosts look {name} up"
            )
            remedy = "correct DNS or /etc/hosts, or name another interface"
            raise UsageError(f"{fault} as {known[0]}; {remedy}", "nodes", "interface", kind="network")
        both = [address for address in addresses if address in known]
        return tuple(dict.fromkeys((*both, *addresses)))
    remedy = "give `nodes.interface`, or its address in DNS or /etc/hosts"
    return head_addresses or _looked_up(name, answer, remedy)


def _addresses_of(nodes: Nodes, host: str, answer: AskNetwork) -> tuple[str, ...]:
    """The addresses of another host; that of the head may be in the recipe."""
    if nodes.hosts and host == nodes.hosts[0] and nodes.address:
        return _looked_up(nodes.address, answer, "correct `nodes.address`", "address")
    return _looked_up(host, answer, "enter it in DNS or /etc/hosts")


def _looked_up(name: str, answer: AskNetwork, remedy: str, key: str = "hosts") -> tuple[str, ...]:
    addresses = tuple(answer(f"address {name}").split())
    if not addresses:
        fault = f"`nodes.{key}`: the name service has no address of `{name}` that other hosts reach"
        raise UsageError(f"{fault}; {remedy}", "nodes", key, kind="network")
    return addresses
