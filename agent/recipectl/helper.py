"""The helper that units run: has the last run ended, does the engine answer, are other models idle?

A program of its own, in an archive that `apply` writes (machine/helperfile); standard library only, except
for pins. It runs as the unit's user in its sandbox, and prints into its journal. `--help` lists its verbs.
"""

import argparse
import contextlib
import os
import signal
import sys
import time
from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path
from typing import NoReturn

from recipectl.journal import say
from recipectl.machine import loads, processes, sockets
from recipectl.rivals import is_stopping, own_state

# The helper's signal to a load that ignores SIGTERM: it ends a process by default, and no engine handles it.
# The units say SuccessExitStatus= for it: a SIGKILL that nobody asked for stays a failure.
_END_LOAD = signal.SIGRTMIN + 11
_POLL_SEC = 0.05
_SLOW_POLL_SEC = 0.2
_LONGEST_SEC = 60  # for device nodes, and for the end of what ran before


def _error(text: str) -> int:
    say(text)
    return 1


def wait_until_free(options: argparse.Namespace) -> int:
    """Wait until what ran before, here or in a unit that this start stops, has ended; then check the port."""
    end = time.monotonic() + _LONGEST_SEC
    while ending := processes.ending([processes.unit_of("self"), *options.units]):
        if is_stopping(options):
            return 0
        if time.monotonic() > end:
            return _error(f"a process of {ending} does not end, and may hold its GPU; `dmesg` may say why")
        time.sleep(_POLL_SEC)
    holder = sockets.holder(options.port, options.address) if options.port else None
    if holder and not is_stopping(options):
        return _error(f"port {options.port} is taken by {holder}; stop it or choose another `port:`")
    return 0


def check_pins(options: argparse.Namespace) -> int:
    """Fail when Python or the engine is no longer what the recipe pins."""
    from recipectl.machine import distributions  # the other verbs start sooner without it

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
    from recipectl.machine import lockfile  # one verb needs it

    refuse = options.policy == "refuse"
    try:
        lock = lockfile.read_lock(Path(options.lock).read_bytes())
    except (OSError, ValueError) as error:
        verb = "recipectl --user" if options.user else "recipectl"
        remedy = f"remove it, and run `{verb} lock {Path(options.lock).stem}`"
        say(f"{options.lock} cannot be read as a lock ({error}); {remedy}")
        return int(refuse)
    clauses = lockfile.differences(lock, lockfile.record(options.interpreter, options.folder, options.names))
    for clause in clauses:
        say(f"the runtime differs from {options.lock}: {clause}")
    return int(bool(clauses) and refuse)


def wait_for_devices(options: argparse.Namespace) -> int:
    """Wait a minute for device nodes, if the host has cards of the vendor: their driver may load late."""
    vendors = Path("/sys/bus/pci/devices").glob("*/vendor")
    if not any(path.read_text().strip() == options.vendor for path in vendors):
        return 0
    end = time.monotonic() + _LONGEST_SEC
    while missing := [path for path in options.paths if not Path(path).exists()]:
        if is_stopping(options):
            return 0
        if time.monotonic() > end:
            return _error(f"{missing[0]} does not exist; load the driver, or correct `gpus:`")
        time.sleep(_SLOW_POLL_SEC)
    return 0


def wait_for_gateway(_: argparse.Namespace) -> int:
    """Return once nginx answers at its own socket; fail when it ends before."""
    nginx, path = int(os.environ.get("MAINPID", "0")), f"{os.environ['RUNTIME_DIRECTORY']}/loaded"
    while sockets.status_of(sockets.local_answer(path)) != 200:
        if not processes.is_alive(nginx):
            return _error("nginx ended before it answered")
        time.sleep(_POLL_SEC)
    return 0


def _is_stopped(options: argparse.Namespace) -> bool:
    """True if systemd stops this unit; also when nothing tells it, as at shutdown."""
    return own_state(options) in (None, "deactivating")


def _end_as_told(options: argparse.Namespace) -> NoReturn:
    """End after the stop signal: a helper that died by it would leave a stopped unit `failed`.

    Without a stop of the unit, somebody else sent it: the start must not go on as if all were well.
    """
    os._exit(0 if _is_stopped(options) else _error("the helper was killed, and its unit was not stopped"))


def _end_load(pid: int, number: int, last: int | None) -> None:
    """End a loading engine that got the stop signal: vLLM ignores the first SIGTERM, and obeys the second."""
    for again, wait_sec in ((None, 1.0), (number, 2.0), (last, 0.5)):
        if again:
            with contextlib.suppress(OSError):
                os.kill(pid, again)
        end = time.monotonic() + wait_sec
        while time.monotonic() < end and processes.is_alive(pid):
            time.sleep(0.02)
        if not processes.is_alive(pid):
            return


def wait_until_ready(options: argparse.Namespace) -> int:
    """Return once the engine itself answers 200; without --path, once it runs."""
    engine = int(os.environ.get("MAINPID", "0"))
    number = signal.Signals[options.stop_signal]
    last = signal.Signals[options.last_signal] if options.last_signal else _END_LOAD
    stops: list[int] = []
    signal.signal(number, lambda *_: stops.append(1))
    if options.note:  # for apply: a user's manager does not keep which unit started a process
        processes.note_start(options.note)
    last_status, begin = None, time.monotonic()
    while True:
        if options.tie and not import_module("recipectl.tie_state").is_ready(options):
            status = None  # the tie of the head asks the engine meanwhile
        else:
            status = sockets.http_status(options.address, options.port, options.path) if options.path else 200
        if stops and _is_stopped(options):
            # With a TimeoutStopSec= of the recipe, systemd ends it.
            _end_load(engine, number, None if options.patient else last)
            return 0
        stops.clear()  # a signal that systemd did not send is neither a stop nor a sign of readiness
        if not processes.is_alive(engine):
            return 0 if _is_stopped(options) else _error("the engine ended before it was ready")
        if status == 200:
            if stranger := _stranger(options, engine):
                return _error(f"port {options.port} is answered by {stranger}, not by this engine")
            loads.write(time.monotonic() - begin, processes.unit_of("self"), user=bool(options.note))
            return 0
        if status not in (None, last_status):
            last_status = status
            say(f"{options.path} answers {status} so far")
        time.sleep(_POLL_SEC)


def _stranger(options: argparse.Namespace, engine: int) -> str | None:
    """Who listens at the engine's address instead of the engine; None when the engine does."""
    if not options.path:
        return None
    if strangers := sockets.listening_users(options.port, options.address) - {processes.user_of(engine)}:
        return f"a process of user {strangers.pop()}"
    pid = sockets.owner(sockets.inodes(options.port, sockets.LISTEN, options.address))
    if pid is None or processes.cgroup(pid) == processes.cgroup("self"):
        return None
    return str(sockets.holder(options.port, options.address))


# Verb -> (module of its function, its arguments). Each run imports one: a start of a model runs several.
_VERBS = {
    "wait-until-free": ("helper", "--address --port units*"),
    "check-pins": ("helper", "--engine --compiled-for --python --interpreter --folder names"),
    "check-lock": ("helper", "--lock --policy --interpreter --folder names"),
    "wait-for-devices": ("helper", "--vendor paths"),
    "wait-for-loads": ("rivals", "units"),
    "wait-until-idle": ("rivals", "--patience-sec --at-once units"),
    "wait-until-ready": ("helper", "--address --port --path --last-signal --patient --note --tie"),
    "connect-once": ("proxy", "--address --port"),
    "pass-requests": ("proxy", "--address --port --idle-sec units"),
    "run-queue": ("request_queue", "--wait-sec --note units"),
    "open-queue": ("request_queue", "--address --port --kept"),
    "close-queue": ("request_queue", "--drain-sec"),
    "end-queue": ("request_queue", "--drain-sec"),
    "prepare-gateway": ("gateway_keys", ""),
    "wait-for-gateway": ("helper", ""),
    "ask-model": ("canary", "--address --port --path --model --model-path --key-file --timeout-sec"),
    "ask-canary": (
        "canary",
        "--address --port --number --ask --path --body --contains --matches --model --key-file --timeout-sec",
    ),
    "tie": (
        "tie",
        "--address --port --rank --set --version --ask-address --ask-port --path --model --key-file hosts",
    ),
    "wait-for-set": ("tie_state", "--tie"),
    "watch": (
        "watch",
        "--address --port --ask --path --body --model --key-file --every-sec --timeout-sec --failures units",
    ),
}
# Ask the caller's own manager; leave the end of a load to systemd; open a queue only if it was open before;
# wait for no model that was ready before.
_SWITCHES = ("--user", "--patient", "--kept", "--at-once")
_TYPES: dict[str, Callable[[str], object]] = {
    "--port": int, "--ask-port": int, "--rank": int, "--patience-sec": int, "--idle-sec": int,
    "--failures": int, "--wait-sec": int, "--drain-sec": int,
    "--timeout-sec": float, "--every-sec": float,
}  # fmt: skip


def _function(verb: str) -> Callable[[argparse.Namespace], int]:
    """The function of a verb, which has its name."""
    function: Callable[[argparse.Namespace], int] = getattr(
        import_module(f"recipectl.{_VERBS[verb][0]}"), verb.replace("-", "_")
    )
    return function


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        sys.exit(_error(f"{message}; another version of recipectl wrote this unit: apply it again"))


def main(words: list[str], stops: Sequence[int] = ()) -> int:
    """Run one verb; the exit status of the helper. `stops` is not empty when a stop came before this."""
    if words[:1] in ([], ["-h"], ["--help"]):
        lines = (f"{verb} {arguments}: {_function(verb).__doc__}" for verb, (_, arguments) in _VERBS.items())
        print(__doc__, *lines, sep="\n")
        return 0
    parser = _Parser(prog="helper", allow_abbrev=False)
    if words[0] not in _VERBS:
        parser.error(f"`{words[0]}` is not a verb of this helper")
    verb, (_, arguments) = words[0], _VERBS[words[0]]
    parser.add_argument("--stop-signal", default="SIGTERM")
    for name in ("--user", *arguments.split()):
        if name in _SWITCHES:
            parser.add_argument(name, action="store_true")
        elif name.startswith("--"):
            parser.add_argument(name, type=_TYPES.get(name, str))
        else:
            parser.add_argument(name.rstrip("*"), nargs="*" if name.endswith("*") else "+")
    options = parser.parse_args(words[1:])
    if verb in ("watch", "pass-requests", "tie"):  # SIGTERM may end them: no unit counts that as a failure
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        if stops:
            signal.raise_signal(signal.SIGTERM)
    else:  # KillSignal= of the unit: systemd sends it to the helper too
        signal.signal(signal.Signals[options.stop_signal], lambda *_: _end_as_told(options))
        if stops:
            _end_as_told(options)
    return _function(verb)(options)
