"""ExecStartPre= and ExecStartPost= of a model: is its port free, does the engine itself answer?

A program of its own (standard library only): HOST PORT PATH [--check-port]
"""

import contextlib
import os
import signal
import socket
import sys
import time
from pathlib import Path

INTERVAL_SEC = 0.05


def _listeners(port: int) -> set[str]:
    """The socket inodes that listen on a TCP port, from /proc/net/tcp{,6} (state 0A)."""
    found = set()
    for table in ("tcp", "tcp6"):
        with contextlib.suppress(FileNotFoundError):
            for line in Path("/proc/net", table).read_text().splitlines()[1:]:
                words = line.split()
                if words[3] == "0A" and int(words[1].rpartition(":")[2], 16) == port:
                    found.add(words[9])
    return found


def _owner(inodes: set[str]) -> int | None:
    """A process that holds one of the sockets, as far as this user may look."""
    wanted = {f"socket:[{inode}]" for inode in inodes}
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # gone meanwhile, or another user's
            if any(os.readlink(fd) in wanted for fd in (process / "fd").iterdir()):  # noqa: PTH115  (hot loop)
                return int(process.name)
    return None


def _cgroup(pid: int | str) -> str:
    """The unified cgroup of a process, `/` when it is unknown."""
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{pid}/cgroup").read_text().splitlines():
            if line.startswith("0::"):
                return line[3:]
    return "/"


def holder(port: int) -> str | None:
    """Who listens on a port, in words; None when nobody does."""
    inodes = _listeners(port)
    if not inodes:
        return None
    pid = _owner(inodes)
    if pid is None:
        return "a process of another user"
    command = Path(f"/proc/{pid}/comm").read_text().strip()
    unit = _cgroup(pid).rstrip("/").rpartition("/")[2]
    return f"process {pid} ({command})" + (f" of {unit}" if unit.endswith((".service", ".scope")) else "")


def _notify(text: str) -> None:
    address = os.environ.get("NOTIFY_SOCKET")
    if address:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock, contextlib.suppress(OSError):
            sock.connect("\0" + address[1:] if address.startswith("@") else address)
            sock.send(text.encode())


def ask(host: str, port: int, path: str) -> int | None:
    """The HTTP status of one GET, None when nobody answers."""
    try:
        with socket.create_connection((host, port), timeout=2) as sock:
            sock.sendall(f"GET {path} HTTP/1.0\r\nHost: {host}\r\n\r\n".encode())
            answer = sock.recv(64)
    except OSError:
        return None
    words = answer.split(None, 2)
    return int(words[1]) if len(words) > 1 and words[0].startswith(b"HTTP/") and words[1].isdigit() else None


def _alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def _end_the_load(pid: int) -> None:
    """systemd has sent SIGTERM to a loading engine: vLLM swallows the first one, and obeys a second."""
    for number, patience_sec in ((signal.SIGTERM, 1.0), (signal.SIGTERM, 2.0), (signal.SIGKILL, 0.5)):
        if patience_sec != 1.0:
            with contextlib.suppress(OSError):
                os.kill(pid, number)
        end = time.monotonic() + patience_sec
        while time.monotonic() < end and _alive(pid):
            time.sleep(0.02)
        if not _alive(pid):
            return


def main() -> int:
    """Run as one of the unit's own commands: status 0 means free, or ready."""
    host, port, path = sys.argv[1], int(sys.argv[2]), sys.argv[3]
    if "--check-port" in sys.argv[4:]:
        if who := holder(port):
            print(f"port {port} is taken by {who}; stop it or choose another `port:`", file=sys.stderr)
            return 1
        return 0
    engine = int(os.environ.get("MAINPID", "0"))

    def stop(*_: object) -> None:
        # Exit 0: a poller that dies by SIGTERM would leave the unit `failed` after a plain stop.
        _end_the_load(engine)
        os._exit(0)

    signal.signal(signal.SIGTERM, stop)
    begun, told = time.monotonic(), -1
    while True:
        status = ask(host, port, path)
        if not _alive(engine):
            print("the engine ended before it was ready", file=sys.stderr)
            return 1
        if status == 200:
            owner = _owner(_listeners(port))
            if owner is None or _cgroup(owner) == _cgroup("self"):
                _notify("STATUS=ready")
                return 0
            print(f"port {port} is answered by {holder(port)}, not by this engine", file=sys.stderr)
            return 1
        elapsed = int(time.monotonic() - begun)
        if elapsed != told:
            told = elapsed
            _notify(f"STATUS=loading {elapsed}s" + (f" (health answers {status})" if status else ""))
        time.sleep(INTERVAL_SEC)


if __name__ == "__main__":
    sys.exit(main())
