"""What this host is called, and the addresses of hosts: the interfaces, and the name service."""

import contextlib
import fcntl
import re
import socket
import struct
from functools import cache
from ipaddress import IPv6Address, ip_address

_SIOCGIFADDR = 0x8915  # netdevice(7)
_PASSING = 0x01 | 0x08 | 0x20 | 0x40  # temporary, not unique, deprecated, tentative (linux/if_addr.h)


def answer(question: str) -> str:
    """The words that answer a question, with a blank between them; empty when nothing does.

    `names`: what this host is called. `interface NAME`: its addresses. `address NAME`: those of a host as
    others reach it.
    """
    kind, _, name = question.partition(" ")
    if kind == "names":
        return " ".join(_own_names())
    addresses = _addresses_of_interface(name) if kind == "interface" else _addresses_of_host(name)
    # IPv4 first, on all hosts alike: the name service may give them in any order.
    return " ".join(sorted(addresses, key=lambda address: (":" in address, address)))


@cache
def _own_names() -> tuple[str, ...]:
    """The short and the full name of this host, in lower case."""
    name = socket.gethostname()
    return tuple(dict.fromkeys(text.lower() for text in (name, name.partition(".")[0], socket.getfqdn(name))))


def _addresses_of_interface(name: str) -> list[str]:
    """The IPv4 address of an interface, then its global IPv6 addresses."""
    addresses = []
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock, contextlib.suppress(OSError):
        reply = fcntl.ioctl(sock.fileno(), _SIOCGIFADDR, struct.pack("256s", name.encode()[:15]))
        addresses.append(socket.inet_ntoa(reply[20:24]))
    with contextlib.suppress(OSError), open("/proc/net/if_inet6") as file:  # noqa: PTH123  (a file of the kernel)
        rows = [line.split() for line in file]
        rows = [row for row in rows if row[5] == name and row[3] == "00"]  # global ones
        own = [row[0] for row in rows if not int(row[4], 16) & _PASSING]
        addresses += [str(IPv6Address(bytes.fromhex(digits))) for digits in own]
    return addresses


def _addresses_of_host(name: str) -> list[str]:
    """The addresses of a host by its name, without those that mean the host itself: 127.0.1.1 on Debian."""
    try:
        rows = socket.getaddrinfo(name, None, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        return []
    addresses = dict.fromkeys(re.sub("%.*", "", str(row[4][0])) for row in rows)
    return [text for text in addresses if not ip_address(text).is_loopback]
