"""Who listens on a TCP port of this host, from /proc, and what a server answers over HTTP.

Standard library only: the helper of the units reads it too.
"""

import contextlib
import os
import re
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from recipectl.addresses import WILDCARDS
from recipectl.machine.processes import name_of, unit_of

ESTABLISHED, LISTEN = "01", "0A"  # proc_pid_net(5), tcp states


class PortHolder(NamedTuple):
    """The process that listens on a port; `pid` is None when it belongs to another user."""

    pid: int | None
    command: str = ""
    unit: str = ""  # empty when it belongs to none

    def __str__(self) -> str:
        if self.pid is None:
            return "a process of another user"
        return f"process {self.pid} ({self.command})" + (f" of {self.unit}" if self.unit else "")


class _Row(NamedTuple):
    """One TCP socket in /proc/net (proc_pid_net(5)); the address is hexadecimal."""

    address: str
    port: int
    state: str
    user: int
    inode: str


def _table(folder: Path) -> Iterator[_Row]:
    """The TCP sockets of a network: /proc/net is the caller's own."""
    for name in ("tcp", "tcp6"):
        with contextlib.suppress(FileNotFoundError):
            for line in (folder / name).read_text(errors="replace").splitlines()[1:]:
                fields = line.split()
                address, _, port = fields[1].rpartition(":")
                yield _Row(address, int(port, 16), state=fields[3], user=int(fields[7]), inode=fields[9])


def _rows(port: int, state: str, host: str) -> Iterator[_Row]:
    """The TCP sockets at a local port (of one address, when `host` is given)."""
    for row in _table(Path("/proc/net")):
        if row.state == state and row.port == port and _is_in_the_way(row.address, host):
            yield row


def _spelled(address: str) -> str:
    """An address of /proc/net as people write it."""
    words = [bytes.fromhex(address[start : start + 8])[::-1] for start in range(0, len(address), 8)]
    return socket.inet_ntop(socket.AF_INET if len(words) == 1 else socket.AF_INET6, b"".join(words))


def listening(pid: int) -> set[tuple[str, int]]:
    """Where a process listens, in its own network: addresses and ports; empty when it may not be read."""
    folder = Path(f"/proc/{pid}")
    addresses = set()
    with contextlib.suppress(OSError):
        links = {os.readlink(fd) for fd in (folder / "fd").iterdir()}  # noqa: PTH115  (hot loop)
        for row in _table(folder / "net"):
            if row.state == LISTEN and f"socket:[{row.inode}]" in links:
                addresses.add((_spelled(row.address), row.port))
    return addresses


def inodes(port: int, state: str, host: str = "") -> set[str]:
    """The inodes of the TCP sockets at a local port (of one address, when `host` is given)."""
    return {row.inode for row in _rows(port, state, host)}


def listening_users(port: int, host: str = "") -> set[int]:
    """The ids of the users whose processes listen at a port."""
    return {row.user for row in _rows(port, LISTEN, host)}


def reached_users(port: int, host: str) -> set[int]:
    """The users whose listeners get a connection to this address: those of its own family come first."""
    addresses = ("127.0.0.1", "::1") if host == "localhost" else (host,)
    users: set[int] = set()
    for address in addresses:
        rows = [*_rows(port, LISTEN, address)]
        is_ipv6 = ":" in address
        own = [row for row in rows if (len(row.address) > 8) == is_ipv6]
        users |= {row.user for row in own or rows}
    return users


def _is_in_the_way(address: str, host: str) -> bool:
    """True if a listener at an address (as /proc/net spells it) prevents another one at `host`."""
    listener = _spelled(address)
    if host in WILDCARDS:
        return True
    own_address = "127.0.0.1" if host == "localhost" else host
    family = socket.AF_INET6 if ":" in own_address else socket.AF_INET
    try:
        own_address = socket.inet_ntop(family, socket.inet_pton(family, own_address))
    except OSError:
        return True  # a name
    return listener in (*WILDCARDS, own_address, f"::ffff:{own_address}")


def is_listening(host: str, port: int) -> bool:
    """True if a process listens there."""
    return bool(inodes(port, LISTEN, host))


def owner(numbers: set[str]) -> int | None:
    """A process that holds one of the sockets; None when this user may not see any."""
    links = {f"socket:[{number}]" for number in numbers}
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # it is gone, or belongs to another user
            if any(os.readlink(fd) in links for fd in (process / "fd").iterdir()):  # noqa: PTH115  (hot loop)
                return int(process.name)
    return None


def holder(port: int, host: str = "") -> PortHolder | None:
    """The process that listens on a port; None when nobody does."""
    numbers = inodes(port, LISTEN, host)
    return _holder_of(numbers) if numbers else None


def holders(port: int, host: str = "") -> list[PortHolder]:
    """The processes that listen on a port, each of its sockets by itself."""
    return [_holder_of({number}) for number in inodes(port, LISTEN, host)]


def _holder_of(numbers: set[str]) -> PortHolder:
    pid = owner(numbers)
    if pid is None:
        return PortHolder(None)
    command = "it has ended"
    with contextlib.suppress(OSError):
        command = name_of(pid)
    return PortHolder(pid, command, unit_of(pid))


def http_answer(
    host: str, port: int, path: str, timeout_sec: float, max_bytes: int, *, key: str = "", body: str = ""
) -> bytes | None:
    """The answer to one GET, or to a POST of JSON, as it was received; None unless it is whole in time."""
    end = time.monotonic() + timeout_sec
    lines = [f"{'POST' if body else 'GET'} {path} HTTP/1.0", f"Host: {host}", "Connection: close"]
    lines += [f"Authorization: Bearer {key}"] if key else []
    lines += ["Content-Type: application/json", f"Content-Length: {len(body.encode())}"] if body else []
    answer = b""
    try:
        with socket.create_connection((host, port), timeout=timeout_sec) as sock:
            sock.sendall("\r\n".join((*lines, "", body)).encode())
            while len(answer) < max_bytes:
                if (left_sec := end - time.monotonic()) <= 0:
                    raise TimeoutError
                sock.settimeout(left_sec)
                part = sock.recv(min(65536, max_bytes - len(answer)))
                if not part:
                    break
                answer += part
                if _is_whole(answer):  # the server may keep its connection, whatever it was asked
                    break
    except OSError:
        return None
    return answer


def local_answer(path: str, timeout_sec: float = 2, max_bytes: int = 4096) -> bytes:
    """The answer to a GET at a socket of the file system, as far as it came; empty where nobody answers."""
    end = time.monotonic() + timeout_sec
    answer = b""
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(timeout_sec)
        connection.connect(path)
        connection.sendall(b"GET / HTTP/1.0\r\n\r\n")
        while len(answer) < max_bytes and time.monotonic() < end and (part := connection.recv(4096)):
            answer += part
    return answer


def _is_whole(answer: bytes) -> bool:
    """True if an answer has all that its Content-Length announces; without one, its end tells."""
    head, blank, content = answer.partition(b"\r\n\r\n")
    length = re.search(rb"\r\ncontent-length: *([0-9]{1,12}) *(?:\r\n|\Z)", head, re.I) if blank else None
    return length is not None and len(content) >= int(length[1])


def status_of(answer: bytes | None) -> int | None:
    """The HTTP status of an answer; None for what is no HTTP."""
    match = re.match(rb"HTTP/[0-9.]+ ([0-9]{3})", answer or b"")
    return int(match[1]) if match else None


def http_status(host: str, port: int, path: str, timeout_sec: float = 2) -> int | None:
    """The HTTP status of one GET, None when nobody answers."""
    return status_of(http_answer(host, port, path, timeout_sec, len("HTTP/1.1 200")))
