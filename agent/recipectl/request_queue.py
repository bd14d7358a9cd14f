"""The queue before a model: HAProxy, where requests wait while no engine takes them.

Verbs of the helper, standard library only. They run as the queue's user, in the runtime folder that the
queue's units share. No engine reaches that folder.
"""

import argparse
import contextlib
import csv
import fcntl
import json
import os
import re
import signal
import socket
import time
from collections.abc import Iterator
from http import HTTPStatus
from pathlib import Path

from recipectl.journal import say
from recipectl.machine import processes

HAPROXY = "/usr/sbin/haproxy"
_NOWHERE = 1  # tcpmux, where nothing listens: a connection is refused, and tried again
_LONGEST_START_SEC = 10
_POLL_SEC = 0.05
_OPEN, _CLOSING = "open", "closing"
_TRY_AGAIN_MS = 200
_ACCEPTED_SEC = 0.1  # HAProxy needs it to count a request that it has just sent on
_BUFFER_BYTES = 48 * 1024  # more than the 32 KiB that nginx lets the head of a request have
_MOST_HEADERS = 1000  # an engine or a client may send more than the usual 101
_REQUEST_SEC = 30  # a request must have come in within this time
# A session of HAProxy's `show sess` whose connection to the engine is established (state 8). A request that
# waits has no such connection.
_RUNS_AT_ENGINE = re.compile(r"^(0x[0-9a-f]+): .*\bbe=engine\b.*\b(?:scb|s1)=\[8,", re.M)
# What HAProxy answers itself, and would answer as HTML: the error's code and message. A request that it
# cannot read stays HTML, since HAProxy 2.6 answers that one before it looks for a file.
_ANSWERS = {
    408: ("request_timeout", f"the request did not come in within {_REQUEST_SEC} s"),
    502: (
        "engine_ended",
        "the engine of `{name}` has ended before its answer, or gave none that can be passed on; ask again",
    ),
    503: (
        "model_unreachable",
        "`{name}` was not ready within {wait_sec} s; see `recipectl status {name}` on its host",
    ),
    504: ("engine_silent", "the engine of `{name}` has sent nothing for a day"),
}


def configuration(wait_sec: int, folder: str) -> str:
    """HAProxy's configuration. It begins closed: `open-queue` says where the engine is."""
    # HAProxy tries again after `timeout connect`, where that is less than a second. Only a refused connection
    # is tried again, for an engine may have acted on anything that it took. Without `redispatch`, a request
    # keeps trying its first port.
    error_files = "\n".join(f"    errorfile {status} {folder}/{status}.http" for status in _ANSWERS)
    return f"""global
    maxconn 8192
    tune.bufsize {_BUFFER_BYTES}
    tune.http.maxhdr {_MOST_HEADERS}
    log stdout format raw daemon
    stats socket {folder}/control mode 600 level admin
defaults
    mode http
    timeout connect {_TRY_AGAIN_MS}ms
    timeout client 1d
    timeout server 1d
    timeout http-request {_REQUEST_SEC}s
    timeout http-keep-alive 75s
    option http-server-close
    option http-no-delay
    option abortonclose
{error_files}
frontend clients
    bind fd@3
    maxconn 4096
    default_backend engine
    log global
    option dontlog-normal
    log-format "status %ST after %Ta ms, ended as %ts"
backend engine
    option redispatch 1
    option http-buffer-request
    retry-on conn-failure
    retries {wait_sec * 1000 // _TRY_AGAIN_MS}
    server engine 127.0.0.1:{_NOWHERE}
"""


def run_queue(options: argparse.Namespace) -> int:
    """Become HAProxy, with the socket that systemd holds."""
    folder = Path(os.environ["RUNTIME_DIRECTORY"])
    name = options.units[0].removeprefix("model-").removesuffix(".service")
    for status, (code, message) in _ANSWERS.items():
        text = _answer(status, code, message.format(name=name, wait_sec=options.wait_sec))
        Path(folder, f"{status}.http").write_text(text)
    Path(folder, "pid").write_text(str(os.getpid()))
    if options.note:  # for apply: a user's manager does not keep which unit started a process
        processes.note_start(options.note)
    file = folder / "haproxy.cfg"
    file.write_text(configuration(options.wait_sec, str(folder)))
    try:
        return os.execv(HAPROXY, (HAPROXY, "-db", "-f", str(file)))  # noqa: S606  (execv keeps the listening socket open)
    except OSError as error:
        say(f"{HAPROXY} cannot be run ({error.strerror}); install HAProxy (`apt install haproxy`)")
        return 1


def error_json(status: int, code: str, message: str) -> str:
    """An error in OpenAI's form."""
    kind = "invalid_request_error" if status < 500 else "server_error"
    return json.dumps({"error": {"message": message, "type": kind, "param": None, "code": code}})


def _answer(status: int, code: str, message: str) -> str:
    """An HTTP answer with an error in OpenAI's form."""
    body = error_json(status, code, message) + "\n"
    head = (
        f"HTTP/1.1 {status} {HTTPStatus(status).phrase}", "Content-Type: application/json",
        f"Content-Length: {len(body.encode())}", "Cache-Control: no-cache", "Connection: close",
    )  # fmt: skip
    return "\r\n".join((*head, "", body))


def open_queue(options: argparse.Namespace) -> int:
    """Let requests through to the engine; with `--kept` as it was before HAProxy started again."""
    folder = Path(os.environ["RUNTIME_DIRECTORY"])
    with _locked(folder):
        address, port = options.address, options.port
        if options.kept:
            # The unit may be newer than the engine that runs.
            kept = _mark(folder).read_text().split() if _mark(folder).exists() else []
            if kept[:1] != [_OPEN]:
                return 0
            address, port = kept[1], int(kept[2])
        _mark(folder).write_text(f"{_OPEN} {address} {port}\n")
        end = time.monotonic() + _LONGEST_START_SEC
        while True:
            try:
                _set_server(folder, address, port)
            except OSError as error:
                if time.monotonic() > end:
                    say(f"HAProxy does not answer: {error}")
                    return 1
                time.sleep(_POLL_SEC)
            else:
                return 0


def close_queue(options: argparse.Namespace) -> int:
    """Let new requests wait, then wait until those that run have ended, for --drain-sec at most."""
    folder = Path(os.environ["RUNTIME_DIRECTORY"])
    end = time.monotonic() + options.drain_sec
    with _locked(folder):
        _mark(folder).write_text(f"{_CLOSING}\n")
        with contextlib.suppress(OSError):  # a HAProxy that is ending takes no new requests, and no commands
            _set_server(folder, "127.0.0.1", _NOWHERE)
    time.sleep(_ACCEPTED_SEC)
    is_announced = False
    while (running := _requests(folder)) and time.monotonic() < end:
        if not is_announced:
            say(f"waiting at most {options.drain_sec} s for the requests that run")
            is_announced = True
        time.sleep(_POLL_SEC)
    if running:
        say(f"requests still run after {options.drain_sec} s, and are cut")
        # An engine that ends waits for its clients. llama.cpp's server waits until systemd kills it.
        with contextlib.suppress(OSError):
            for session in _RUNS_AT_ENGINE.findall(_command(folder, "show sess")):
                _command(folder, f"shutdown session {session}")
    _mark(folder).unlink(missing_ok=True)
    return 0


def end_queue(options: argparse.Namespace) -> int:
    """Let HAProxy end once its requests have, while an engine answers them; new ones wait in the socket."""
    pid = int(os.environ.get("MAINPID") or 0)
    if not pid:
        return 0
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGUSR1)
        end = time.monotonic() + options.drain_sec
        while _mark(Path(os.environ["RUNTIME_DIRECTORY"])).exists() and time.monotonic() < end:
            os.kill(pid, 0)
            time.sleep(_POLL_SEC)
    return 0


def _mark(folder: Path) -> Path:
    """The file that exists while the queue is open or closing. It has that word, and the engine's address."""
    return folder / "way"


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """The units of a queue tell HAProxy one after the other."""
    with Path(folder, "lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _set_server(folder: Path, address: str, port: int) -> None:
    reply = _command(folder, f"set server engine/engine addr {address} port {port}")
    if "changed" not in reply and "no need to change" not in reply:
        raise OSError(reply.strip()[:200])


def _requests(folder: Path) -> int:
    """How many connections to the engine are in use: HAProxy opens one for each request.

    One that ends answers no questions. It counts as one request until it has ended.
    """
    try:
        text = _command(folder, "show servers conn engine").removeprefix("# ")
    except OSError:
        return int(_runs(folder))
    rows = csv.DictReader(text.splitlines(), delimiter=" ")
    return sum(int(row["used_cur"]) for row in rows)


def _runs(folder: Path) -> bool:
    """True while HAProxy has a process."""
    try:
        os.kill(int((folder / "pid").read_text()), 0)
    except (OSError, ValueError):
        return False
    return True


def _command(folder: Path, words: str) -> str:
    """The answer of the running HAProxy to a command; OSError when none answers."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(5)
        connection.connect(str(folder / "control"))
        connection.sendall(f"{words}\n".encode())
        parts = []
        while part := connection.recv(65536):
            parts.append(part)
    return b"".join(parts).decode(errors="replace")
