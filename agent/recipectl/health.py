"""What a unit asks: is its port free, does its engine answer, is it idle, whose turn is it?

A program of its own (standard library only), run by the units as `health.py VERB …`:
free HOST PORT; pinned LIBRARIES INTERPRETER PYTHON ENGINE SEEN FOLDER NAME…;
locked FILE POLICY INTERPRETER FOLDER NAME…; devices PATH…; turn [--user] UNIT…;
ready HOST PORT PATH; spare [--user] SECONDS UNIT=PORT…; poke HOST PORT;
probe [--user] HOST PORT PATH TIMEOUT_SECONDS FAILURES ACTION UNIT
"""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

INTERVAL_SEC = 0.05
_ESTABLISHED, _LISTEN = "01", "0A"


def _sockets(port: int, state: str, host: str = "") -> set[str]:
    """The inodes of the TCP sockets at a local port (of an address, when one is given), from /proc/net."""
    found = set()
    for table in ("tcp", "tcp6"):
        with contextlib.suppress(FileNotFoundError):
            for line in Path("/proc/net", table).read_text().splitlines()[1:]:
                words = line.split()
                address, _, its_port = words[1].rpartition(":")
                if words[3] == state and int(its_port, 16) == port and _meets(address, host):
                    found.add(words[9])
    return found


def _meets(address: str, host: str) -> bool:
    """Whether a listener at an address (as /proc/net spells it) is in the way of one at a host."""
    words = [bytes.fromhex(address[n : n + 8])[::-1] for n in range(0, len(address), 8)]
    family = socket.AF_INET if len(words) == 1 else socket.AF_INET6
    there = socket.inet_ntop(family, b"".join(words))
    here = {"localhost": "127.0.0.1", "0.0.0.0": "", "::": ""}.get(host, host)  # noqa: S104  (compared)
    family = socket.AF_INET6 if ":" in here else socket.AF_INET
    try:
        here = socket.inet_ntop(family, socket.inet_pton(family, here))
    except OSError:
        return True  # every address, or a name
    return there in ("0.0.0.0", "::", here, f"::ffff:{here}")  # noqa: S104  (compared)


def listening(host: str, port: int) -> bool:
    """Whether anybody listens there."""
    return bool(_sockets(port, _LISTEN, host))


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


def holder(port: int, host: str = "") -> str | None:
    """Who listens on a port, in words; None when nobody does."""
    inodes = _sockets(port, _LISTEN, host)
    if not inodes:
        return None
    pid = _owner(inodes)
    if pid is None:
        return "a process of another user"
    command = "gone by now"
    with contextlib.suppress(OSError):
        command = Path(f"/proc/{pid}/comm").read_text().strip()
    unit = _cgroup(pid).rstrip("/").rpartition("/")[2]
    return f"process {pid} ({command})" + (f" of {unit}" if unit.endswith((".service", ".scope")) else "")


def _notify(text: str) -> None:
    address = os.environ.get("NOTIFY_SOCKET")
    if address:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock, contextlib.suppress(OSError):
            sock.connect("\0" + address[1:] if address.startswith("@") else address)
            sock.send(text.encode())


def ask(host: str, port: int, path: str, timeout_sec: float = 2) -> int | None:
    """The HTTP status of one GET, None when nobody answers."""
    try:
        with socket.create_connection((host, port), timeout=timeout_sec) as sock:
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


def _units(user: list[str], units: list[str], fields: str) -> list[dict[str, str]]:
    """The fields of units, in the order asked for."""
    words = ["systemctl", *user, "show", "-p", fields, *units]
    text = subprocess.run(words, capture_output=True, text=True, check=False).stdout  # noqa: S603  (fixed words)
    return [
        dict(line.split("=", 1) for line in part.splitlines() if "=" in line) for part in text.split("\n\n")
    ]


def free(host: str, port: str) -> int:
    """Fail when somebody listens there already."""
    if who := holder(int(port), host):
        print(f"port {port} is taken by {who}; stop it or choose another `port:`", file=sys.stderr)
        return 1
    return 0


def pinned(
    libraries: str, interpreter: str, python: str, engine: str, seen: str, folder: str, *names: str
) -> int:
    """Fail when Python or the engine is not what the recipe pins (any more); `-` where it pins nothing."""
    sys.path += [str(Path(__file__).parents[1]), libraries]  # -I -S has left out both
    from recipectl.machine import distributions as installed

    here = installed.versions(folder)
    found = next((here[name] for name in names if name in here), None)
    # `seen` was checked when the unit was compiled: the common case costs no import of packaging.
    if engine != "-" and found != seen and not installed.meets(found, engine):
        print(
            f"the recipe pins {names[0]} {engine}, it was {seen} when the unit was compiled, and {folder} "
            f"now has {found or 'none'}; install the pinned version or correct `engine_version:`",
            file=sys.stderr,
        )
        return 1
    if python != "-" and not installed.meets(version := installed.python_version(interpreter), python):
        print(
            f"the recipe pins Python {python}, and {interpreter} is now {version or 'of unknown version'}; "
            "make the venv anew or correct `python_version:`",
            file=sys.stderr,
        )
        return 1
    return 0


def locked(file: str, policy: str, interpreter: str, folder: str, *names: str) -> int:
    """Tell what of the unit's runtime is not as the lock has it, and fail when the policy is `refuse`."""
    sys.path.append(str(Path(__file__).parents[1]))
    from recipectl.machine import distributions as installed

    try:
        lock = installed.read_lock(Path(file))
    except (OSError, ValueError) as error:
        print(f"{file} cannot be read as a lock ({error}); lock again, then apply", file=sys.stderr)
        return 1 if policy == "refuse" else 0
    now = installed.facts(interpreter, None if folder == "-" else folder, names)
    said = installed.differences(lock, now)
    for clause in said:
        print(f"not as locked in {file}: {clause}", file=sys.stderr)
    return 1 if said and policy == "refuse" else 0


def devices(*paths: str) -> int:
    """Wait a minute for device nodes, on a host that has NVIDIA GPUs at all: drivers load late at boot."""
    vendors = Path("/sys/bus/pci/devices").glob("*/vendor")
    if not any(path.read_text().strip() == "0x10de" for path in vendors):
        return 0
    end = time.monotonic() + 60
    while missing := [path for path in paths if not Path(path).exists()]:
        if time.monotonic() > end:
            print(f"{missing[0]} is not there; is the driver loaded, and the index right?", file=sys.stderr)
            return 1
        time.sleep(0.2)
    return 0


_LOADING = ("start-pre", "start", "start-post")


def turn(*words: str) -> int:
    """Wait while one of the units is loading; their own TimeoutStartSec= bounds it."""
    user, units = [w for w in words if w == "--user"], [w for w in words if w != "--user"]
    while any(row.get("SubState") in _LOADING for row in _units(user, units, "SubState")):
        _notify("STATUS=waiting for a neighbour on its GPU to finish loading\nEXTEND_TIMEOUT_USEC=10000000")
        time.sleep(0.2)
    return 0


def _mark(pid: int) -> str:
    """The digest of the unit that a process was started with, for the status; empty if unreadable."""
    with contextlib.suppress(OSError):
        for pair in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0"):
            if pair.startswith(b"RECIPECTL_DIGEST="):
                return f" [{pair.partition(b'=')[2].decode()}]"
    return ""


def ready(host: str, port: str, path: str) -> int:
    """Return once the engine itself answers 200; `-` asks nothing."""
    engine = int(os.environ.get("MAINPID", "0"))
    mark = _mark(engine)  # now: some engines write their title over it

    def stop(*_: object) -> None:
        _end_the_load(engine)
        os._exit(0)

    signal.signal(signal.SIGTERM, stop)
    begun, told = time.monotonic(), -1
    while True:
        status = 200 if path == "-" else ask(host, int(port), path)
        if not _alive(engine):
            print("the engine ended before it was ready", file=sys.stderr)
            return 1
        if status == 200:
            owner = None if path == "-" else _owner(_sockets(int(port), _LISTEN, host))
            if owner is None or _cgroup(owner) == _cgroup("self"):
                _notify(f"STATUS=ready{mark}")
                return 0
            who = holder(int(port), host)
            print(f"port {port} is answered by {who}, not by this engine", file=sys.stderr)
            return 1
        elapsed = int(time.monotonic() - begun)
        if elapsed != told:
            told = elapsed
            _notify(f"STATUS=loading {elapsed}s" + (f" (health answers {status})" if status else "") + mark)
        time.sleep(INTERVAL_SEC)


def spare(*words: str) -> int:
    """Wait until units that a start would stop are idle: not loading, nobody connected to their port.

    After so many seconds they are stopped all the same.
    """
    user, (seconds, *given) = [w for w in words if w == "--user"], [w for w in words if w != "--user"]
    ports = {unit: int(port) for unit, _, port in (word.rpartition("=") for word in given)}
    end, told = time.monotonic() + int(seconds), False
    while time.monotonic() < end:
        rows = zip(ports, _units(user, [*ports], "ActiveState,SubState"), strict=True)
        busy = [unit for unit, row in rows if row.get("SubState") in _LOADING
                or (row.get("ActiveState") == "active" and _sockets(ports[unit], _ESTABLISHED))]  # fmt: skip
        if not busy:
            return 0
        if not told:
            print(f"waiting until {', '.join(busy)} is idle, at most {seconds} s", file=sys.stderr)
            told = True
        time.sleep(0.2)
    return 0


def poke(host: str, port: str) -> int:
    """Open a connection and close it: systemd-socket-proxyd begins to count idle time when one has ended."""
    with contextlib.suppress(OSError), socket.create_connection((host, int(port)), timeout=2):
        pass
    return 0


def probe(*words: str) -> int:
    """One question to a running engine; after `failures` in a row the unit is restarted (or stopped)."""
    user = [word for word in words if word == "--user"]
    host, port, path, timeout_sec, failures, action, unit = [word for word in words if word != "--user"]
    count = Path(os.environ.get("RUNTIME_DIRECTORY", "/run"), "failures")
    state = _units(user, [unit], "ActiveState")[0].get("ActiveState")
    if state in (
        "inactive",
        "failed",
    ):  # it has ended by itself: there is nobody to ask until it starts again
        timer = unit.removesuffix(".service") + "-watch.timer"
        return subprocess.run(["systemctl", *user, "stop", "--no-block", timer], check=False).returncode  # noqa: S603, S607
    if state != "active":
        return 0  # loading, stopping or restarting already
    if ask(host, int(port), path, float(timeout_sec)) == 200:
        count.unlink(missing_ok=True)
        return 0
    # Failures of this very run of the engine: a restart by somebody else begins anew.
    run = _units(user, [unit], "InvocationID")[0].get("InvocationID", "")
    before = count.read_text().split() if count.exists() else []
    failed = int(before[1]) + 1 if before[:1] == [run] and len(before) > 1 else 1
    print(f"{unit} does not answer {path} ({failed} of {failures})", file=sys.stderr)
    count.write_text(f"{run} {failed}")
    if failed >= int(failures):
        count.unlink()
        print(f"{action} of {unit}", file=sys.stderr)
        if action == "stop":
            subprocess.run(["systemctl", *user, "stop", "--no-block", unit], check=False)  # noqa: S603, S607
        # A hung engine would take all of TimeoutStopSec=. Where it was not stopped, Restart= brings it back.
        kill = ["systemctl", *user, "kill", "--signal=SIGKILL", unit]
        return subprocess.run(kill, check=False).returncode  # noqa: S603
    return 0


VERBS: dict[str, Callable[..., int]] = {
    "free": free, "pinned": pinned, "locked": locked, "devices": devices, "turn": turn,
    "ready": ready, "spare": spare, "poke": poke, "probe": probe,
}  # fmt: skip

if __name__ == "__main__":
    # A stop ends a helper that waits: one that died by SIGTERM would leave the unit `failed`.
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
    sys.exit(VERBS[sys.argv[1]](*sys.argv[2:]))
