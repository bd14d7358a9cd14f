"""The proxy behind an on-demand model's socket: systemd-socket-proxyd, once the engine runs.

Verbs of the helper, standard library only. It has the socket, and no privilege.
"""

import argparse
import contextlib
import os
import socket

from recipectl.addresses import in_url, to_ask
from recipectl.machine import processes

_LISTEN_FD = 3  # sd_listen_fds(3)
_PROXYD = "/lib/systemd/systemd-socket-proxyd"


def pass_requests(options: argparse.Namespace) -> int:
    """Become systemd-socket-proxyd. If the engine does not run, close the requests that wait, and end."""
    folder = processes.cgroup_folder(options.units[0])
    if not (folder and processes.has_processes(folder)):
        _close_waiting(_LISTEN_FD)
        return 0
    # proxyd counts idle time from the end of a connection. One that was started by hand has had none yet.
    with contextlib.suppress(OSError):
        socket.create_connection(_own_address(_LISTEN_FD), timeout=2).close()
    limits = ("--connections-max=4096", f"--exit-idle-time={options.idle_sec}s")
    # execv keeps the listening socket open.
    return os.execv(_PROXYD, (_PROXYD, *limits, f"{in_url(options.address)}:{options.port}"))  # noqa: S606


def _own_address(descriptor: int) -> tuple[str, int]:
    """Where a listening socket can be reached from this host."""
    with socket.socket(fileno=os.dup(descriptor)) as listening:
        address, port = listening.getsockname()[:2]
    return to_ask(address), port


def _close_waiting(descriptor: int) -> None:
    """Close the connections that wait in a socket: they would start the engine again and again."""
    with socket.socket(fileno=os.dup(descriptor)) as listening:
        listening.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            while True:
                listening.accept()[0].close()


def connect_once(options: argparse.Namespace) -> int:
    """Open a connection and close it: systemd-socket-proxyd counts idle time from the end of a connection."""
    with contextlib.suppress(OSError), socket.create_connection((options.address, options.port), timeout=2):
        pass
    return 0
