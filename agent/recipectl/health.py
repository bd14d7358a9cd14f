"""The helper that units run: is the port free, does the engine answer, are other models idle?

A program of its own (standard library only). Units run it as `health.py VERB …`; `--help` lists the verbs.
What it prints is the unit's journal.
"""

import argparse
import contextlib
import os
import signal
import socket
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

if not __package__:  # run as a program with -I -S, where the package is not on sys.path
    sys.path.append(str(Path(__file__).parents[1]))

from recipectl.machine import processes, sockets

_POLL_SEC = 0.05
_SLOW_POLL_SEC = 0.2
_DEVICES_SEC = 60
_LOADING = ("start-pre", "start", "start-post")


def _error(text: str) -> int:
    print(text, file=sys.stderr)
    return 1


def _notify(text: str) -> None:
    """Tell systemd a state (sd_notify(3))."""
    address = os.environ.get("NOTIFY_SOCKET")
    if address:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock, contextlib.suppress(OSError):
            sock.connect("\0" + address[1:] if address.startswith("@") else address)
            sock.send(text.encode())


def _systemctl(options: argparse.Namespace, *words: str) -> str:
    import subprocess  # three verbs need it

    command = ["systemctl", *(["--user"] if options.user else []), *words]
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout  # noqa: S603  (fixed words)


def _properties(options: argparse.Namespace, units: list[str], *names: str) -> list[dict[str, str]]:
    """The properties of units, in the order of the units."""
    text = _systemctl(options, "show", "-p", ",".join(names), *units)
    return [
        dict(line.split("=", 1) for line in part.splitlines() if "=" in line) for part in text.split("\n\n")
    ]


def check_port(options: argparse.Namespace) -> int:
    """Fail when a process listens at the engine's address already."""
    if holder := sockets.holder(options.port, options.address):
        return _error(f"port {options.port} is taken by {holder}; stop it or choose another `port:`")
    return 0


def check_pins(options: argparse.Namespace) -> int:
    """Fail when Python or the engine is no longer what the recipe pins."""
    sys.path.append(options.libraries)  # -I -S leaves out the folder of `packaging`
    from recipectl.machine import distributions

    installed = distributions.versions(options.folder) if options.folder else {}
    version = next((installed[name] for name in options.names if name in installed), None)
    # The compiler has checked its own version: the common case costs no import of packaging.
    changed = options.engine and version != options.compiled_for
    if changed and not distributions.satisfies(version, options.engine):
        return _error(
            f"the recipe pins {options.names[0]} {options.engine}, and {options.folder} now has "
            f"{version or 'none'} (the unit was compiled for {options.compiled_for}); "
            "install the pinned version or correct `engine_version:`"
        )
    python = distributions.python_version(options.interpreter) if options.python else None
    if options.python and not distributions.satisfies(python, options.python):
        return _error(
            f"the recipe pins Python {options.python}, and {options.interpreter} is now "
            f"{python or 'of unknown version'}; create the venv again or correct `python_version:`"
        )
    return 0


def check_lock(options: argparse.Namespace) -> int:
    """Name every difference between the unit's runtime and its lock; fail when the policy is `refuse`."""
    from recipectl.machine import lockfile

    refuse = options.policy == "refuse"
    try:
        lock = lockfile.read_lock(Path(options.lock))
    except (OSError, ValueError) as error:
        _error(f"{options.lock} cannot be read as a lock ({error}); run `recipectl lock` and apply again")
        return int(refuse)
    clauses = lockfile.differences(lock, lockfile.record(options.interpreter, options.folder, options.names))
    for clause in clauses:
        _error(f"the runtime differs from {options.lock}: {clause}")
    return int(bool(clauses) and refuse)


def wait_for_devices(options: argparse.Namespace) -> int:
    """Wait a minute for device nodes on a host that has NVIDIA GPUs: their driver may load late at boot."""
    vendors = Path("/sys/bus/pci/devices").glob("*/vendor")
    if not any(path.read_text().strip() == "0x10de" for path in vendors):
        return 0
    end = time.monotonic() + _DEVICES_SEC
    while missing := [path for path in options.paths if not Path(path).exists()]:
        if time.monotonic() > end:
            return _error(f"{missing[0]} does not exist; load the driver, or correct the index in `gpus:`")
        time.sleep(_SLOW_POLL_SEC)
    return 0


def wait_for_loads(options: argparse.Namespace) -> int:
    """Wait while a unit of the list loads; the limit is that unit's TimeoutStartSec=."""
    while any(unit.get("SubState") in _LOADING for unit in _properties(options, options.units, "SubState")):
        status = "waiting for another model on this GPU to finish loading"
        _notify(f"STATUS={status}\nEXTEND_TIMEOUT_USEC=10000000")
        time.sleep(_SLOW_POLL_SEC)
    return 0


def _started_digest(pid: int) -> str:
    """The digest of the unit that a process was started with, for STATUS=; empty when it cannot be read."""
    with contextlib.suppress(OSError):
        for pair in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0"):
            if pair.startswith(b"RECIPECTL_DIGEST="):
                return f" [{pair.partition(b'=')[2].decode()}]"
    return ""


def _end_load(pid: int) -> None:
    """End a loading engine that got SIGTERM: vLLM ignores the first one, and obeys the second."""
    for number, wait_sec in ((None, 1.0), (signal.SIGTERM, 2.0), (signal.SIGKILL, 0.5)):
        if number:
            with contextlib.suppress(OSError):
                os.kill(pid, number)
        end = time.monotonic() + wait_sec
        while time.monotonic() < end and processes.is_alive(pid):
            time.sleep(0.02)
        if not processes.is_alive(pid):
            return


def wait_until_ready(options: argparse.Namespace) -> int:
    """Return once the engine itself answers 200; without --path, once it runs."""
    engine = int(os.environ.get("MAINPID", "0"))
    digest = _started_digest(engine)  # read first: some engines write their title over it

    def stop(*_: object) -> None:
        _end_load(engine)
        os._exit(0)

    signal.signal(signal.SIGTERM, stop)
    begin = time.monotonic()
    told_sec = -1
    while True:
        status = sockets.http_status(options.address, options.port, options.path) if options.path else 200
        if not processes.is_alive(engine):
            return _error("the engine ended before it was ready")
        if status == 200:
            if stranger := _stranger(options):
                return _error(f"port {options.port} is answered by {stranger}, not by this engine")
            _notify(f"STATUS=ready{digest}")
            return 0
        elapsed_sec = int(time.monotonic() - begin)
        if elapsed_sec != told_sec:
            told_sec = elapsed_sec
            answer = f" (health answers {status})" if status else ""
            _notify(f"STATUS=loading {elapsed_sec}s{answer}{digest}")
        time.sleep(_POLL_SEC)


def _stranger(options: argparse.Namespace) -> sockets.PortHolder | None:
    """The process outside this unit that listens at the engine's address; None when the engine does."""
    if not options.path:
        return None
    pid = sockets.owner(sockets.inodes(options.port, sockets.LISTEN, options.address))
    if pid is None or sockets.same_cgroup(pid):
        return None
    return sockets.holder(options.port, options.address)


def wait_until_idle(options: argparse.Namespace) -> int:
    """Wait until units that a start would stop are idle: not loading, and nobody is connected to their port.

    After --patience-sec the start stops busy units.
    """
    ports = {unit: int(port) for unit, _, port in (word.rpartition("=") for word in options.units)}
    end = time.monotonic() + options.patience_sec
    told = False
    while time.monotonic() < end:
        states = _properties(options, [*ports], "ActiveState", "SubState")
        busy = [unit for unit, state in zip(ports, states, strict=True) if _is_busy(state, ports[unit])]
        if not busy:
            return 0
        if not told:
            _error(f"waiting at most {options.patience_sec} s for idle: {', '.join(busy)}")
            told = True
        time.sleep(_SLOW_POLL_SEC)
    return 0


def _is_busy(state: dict[str, str], port: int) -> bool:
    if state.get("SubState") in _LOADING:
        return True
    return state.get("ActiveState") == "active" and bool(sockets.inodes(port, sockets.ESTABLISHED))


def connect_once(options: argparse.Namespace) -> int:
    """Open a connection and close it: systemd-socket-proxyd counts idle time from the end of a connection."""
    with contextlib.suppress(OSError), socket.create_connection((options.address, options.port), timeout=2):
        pass
    return 0


def probe(options: argparse.Namespace) -> int:
    """Ask a running engine once; after --failures failures in a row its unit is restarted or stopped."""
    unit = options.units[0]
    counter = Path(os.environ.get("RUNTIME_DIRECTORY", "/run"), "failures")
    state = _properties(options, [unit], "ActiveState")[0].get("ActiveState")
    if state in ("inactive", "failed"):  # it has ended: there is nothing to ask until it starts again
        _systemctl(options, "stop", "--no-block", unit.removesuffix(".service") + "-watch.timer")
        return 0
    if state != "active":
        return 0  # it is loading, stopping or restarting already
    if sockets.http_status(options.address, options.port, options.path, options.timeout_sec) == 200:
        counter.unlink(missing_ok=True)
        return 0
    # Count the failures of one run of the engine: a restart begins a new count.
    run = _properties(options, [unit], "InvocationID")[0].get("InvocationID", "")
    before = counter.read_text().split() if counter.exists() else []
    failures = int(before[1]) + 1 if before[:1] == [run] and len(before) > 1 else 1
    _error(f"{unit} does not answer {options.path} ({failures} of {options.failures})")
    counter.write_text(f"{run} {failures}")
    if failures >= options.failures:
        counter.unlink()
        _error(
            f"{unit} is killed" + (" and stays down" if options.action == "stop" else ", and starts again")
        )
        if options.action == "stop":
            _systemctl(options, "stop", "--no-block", unit)
        # A normal stop of a hung engine takes all of TimeoutStopSec=. Restart= or a request starts it again.
        _systemctl(options, "kill", "--signal=SIGKILL", unit)
    return 0


_OTHER_VERSION = "another version of recipectl wrote this unit: run `recipectl apply`"
# Verb -> (function, its arguments).
_VERBS: dict[str, tuple[Callable[[argparse.Namespace], int], str]] = {
    "check-port": (check_port, "--address --port"),
    "check-pins": (check_pins, "--engine --compiled-for --python --interpreter --folder --libraries names"),
    "check-lock": (check_lock, "--lock --policy --interpreter --folder names"),
    "wait-for-devices": (wait_for_devices, "paths"),
    "wait-for-loads": (wait_for_loads, "--user units"),
    "wait-until-idle": (wait_until_idle, "--user --patience-sec units"),
    "wait-until-ready": (wait_until_ready, "--address --port --path"),
    "connect-once": (connect_once, "--address --port"),
    "probe": (probe, "--user --address --port --path --timeout-sec --failures --action units"),
}
_TYPES: dict[str, Callable[[str], object]] = {
    "--port": int, "--patience-sec": int, "--failures": int, "--timeout-sec": float,
}  # fmt: skip


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        sys.exit(_error(f"{message}; {_OTHER_VERSION}"))


def main(words: list[str]) -> int:
    """Run one verb; the exit status of the helper."""
    if words[:1] in ([], ["-h"], ["--help"]):
        lines = (f"{verb} {arguments}: {function.__doc__}" for verb, (function, arguments) in _VERBS.items())
        print(__doc__, *lines, sep="\n")
        return 0
    if words[0] not in _VERBS:
        return _error(f"`{words[0]}` is not a verb of this helper; {_OTHER_VERSION}")
    function, arguments = _VERBS[words[0]]
    parser = _Parser(prog=f"health.py {words[0]}", description=function.__doc__, allow_abbrev=False)
    for name in arguments.split():
        if name == "--user":
            parser.add_argument(name, action="store_true", help="ask the caller's own manager")
        elif name.startswith("--"):
            parser.add_argument(name, type=_TYPES.get(name, str))
        else:
            parser.add_argument(name, nargs="+")
    return function(parser.parse_args(words[1:]))


if __name__ == "__main__":
    # A stop ends a helper that waits: one that died by SIGTERM would leave the unit `failed`.
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
    sys.exit(main(sys.argv[1:]))
