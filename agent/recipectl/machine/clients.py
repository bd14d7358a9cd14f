"""Which connections of a server wait for its answer, from the kernel's own counts (sock_diag(7)).

Standard library only: it is part of the helper of the units.
"""

import os
import socket
import struct
from collections.abc import Iterator
from typing import NamedTuple

_SOCK_DIAG, _BY_FAMILY, _DONE, _ERROR = 4, 20, 3, 2  # linux/netlink.h, linux/sock_diag.h
_DUMP = 0x301  # NLM_F_REQUEST and NLM_F_DUMP
_INFO = 2  # INET_DIAG_INFO, a struct tcp_info
_ESTABLISHED = 1
_HEADER = struct.Struct("=IHHII")
_QUESTION = struct.Struct("=BBBxI2s46x")  # inet_diag_req_v2: family, protocol, extensions, states, local port
_ANSWER_BYTES, _INODE_AT = 72, 68  # of inet_diag_msg
_AGES = struct.Struct("=44xI4xI96xII")  # tcp_info: ages of the last data, out and in; segments, in and out


class Client(NamedTuple):
    """A connection, and how many segments of data have come: it is the same while no more come."""

    inode: int
    segments: int


def asking(port: int) -> dict[Client, bool]:
    """The connections at a local port whose client has sent data -> True if it spoke last, and waits.

    OSError where the kernel does not tell. Where a stream has begun, the engine spoke last.
    An answer within the same few milliseconds as its request looks like the end of one.
    """
    families = (socket.AF_INET, socket.AF_INET6)
    return {client: waits for family in families for client, waits in _asking(port, family)}


def _asking(port: int, family: int) -> Iterator[tuple[Client, bool]]:
    for message in _messages(port, family):
        (inode,) = struct.unpack_from("=I", message, _INODE_AT)
        info = _attribute(message[_ANSWER_BYTES:], _INFO)
        if len(info) < _AGES.size:
            continue
        sent_ms, received_ms, segments, answers = _AGES.unpack_from(info)
        if segments:
            yield Client(inode, segments), not answers or received_ms < sent_ms


def _messages(port: int, family: int) -> Iterator[bytes]:
    question = _QUESTION.pack(
        family, socket.IPPROTO_TCP, 1 << (_INFO - 1), 1 << _ESTABLISHED, port.to_bytes(2, "big")
    )
    with socket.socket(socket.AF_NETLINK, socket.SOCK_DGRAM, _SOCK_DIAG) as kernel:
        kernel.settimeout(5)
        kernel.send(_HEADER.pack(_HEADER.size + len(question), _BY_FAMILY, _DUMP, 0, 0) + question)
        while True:
            answer = kernel.recv(1 << 18)
            while answer:
                length, kind, *_ = _HEADER.unpack_from(answer)
                if kind in (_ERROR, _DONE):  # both have a status
                    status = struct.unpack_from("=i", answer, _HEADER.size)[0]
                    if status < 0:
                        raise OSError(-status, os.strerror(-status))
                    return
                yield answer[_HEADER.size : length]
                answer = answer[(length + 3) & ~3 :]


def _attribute(data: bytes, wanted: int) -> bytes:
    """The content of one netlink attribute; empty where it is missing."""
    while len(data) >= 4:
        length, kind = struct.unpack_from("=HH", data)
        if kind == wanted:
            return data[4:length]
        data = data[max(4, (length + 3) & ~3) :]
    return b""
