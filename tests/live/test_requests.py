"""No request is lost: at the end of idleness, when an engine cannot start, and when it comes back."""

import os
import socket
import threading
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from live.common import journal, recipe, recipectl, script, show, systemctl, until

pytestmark = pytest.mark.systemd
# An engine that is ready at once: what counts here are the units around it.
ROUNDS = int(os.environ.get("IDLE_ROUNDS", "20"))  # by hand: 200
SERVER = """
import http.server, os, sys
class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def log_message(self, *_): pass
    def do_GET(self):
        self.send_response(200); self.send_header("Content-Length", "2"); self.end_headers(); self.wfile.write(b"ok")
port = int(sys.argv[sys.argv.index("--port") + 1])
http.server.ThreadingHTTPServer.request_queue_size = 1024
http.server.ThreadingHTTPServer(("127.0.0.1", port), Handler).serve_forever()
"""


def ask(port: int, timeout_sec: float = 30) -> str:
    """`ok`, or the name of the error."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=timeout_sec) as answer:
            return str(answer.read().decode())
    except (OSError, urllib.error.URLError) as error:
        return type(getattr(error, "reason", error)).__name__


def ask_at_once(port: int, count: int, timeout_sec: float = 30) -> list[str]:
    outcomes: list[str] = []
    threads = [threading.Thread(target=lambda: outcomes.append(ask(port, timeout_sec))) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return outcomes


def answered(connection: socket.socket) -> str:
    """The status of the answer on a connection, or the name of the error; closes it."""
    with connection:
        try:
            return connection.recv(100)[9:12].decode() or "closed"
        except OSError as error:
            return type(error).__name__


def is_alive(pid: str) -> bool:
    """False once a process has ended, also before anybody has noticed it."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def test_no_request_at_the_end_of_idleness_is_lost() -> None:
    """Requests are aimed at the moment in which the proxy has ended and systemd does not listen again yet."""
    recipe("a", port=18201, binary=script(Path("/opt/instant"), SERVER), on_demand={"idle": "1s"})
    recipectl("apply")
    assert ask(18201) == "ok"
    outcomes: list[str] = []
    for _ in range(ROUNDS):
        proxy = systemctl("show", "-P", "MainPID", "model-a-proxy.service")
        while is_alive(proxy):
            pass
        connections = [socket.create_connection(("127.0.0.1", 18201), timeout=120) for _ in range(10)]
        for connection in connections:
            connection.sendall(b"GET / HTTP/1.0\r\n\r\n")
        outcomes += [answered(connection) for connection in connections]
    assert outcomes == ["200"] * ROUNDS * 10


def test_clients_of_an_engine_that_cannot_start_are_closed_and_nothing_loops() -> None:
    broken = script(Path("/opt/broken"), "import sys, time\ntime.sleep(0.3)\nsys.exit(1)\n")
    recipe("a", port=18201, binary=broken, on_demand={"idle": "1min"})
    recipectl("apply")
    outcomes = ask_at_once(18201, 40, timeout_sec=120)
    assert "ok" not in outcomes
    assert "TimeoutError" not in outcomes
    until("a", "ActiveState", "failed")
    time.sleep(3)
    starts = journal("model-a.service").count("sys.exit")
    invocation = show("a", "InvocationID")
    time.sleep(3)
    assert (show("a", "InvocationID"), starts) == (invocation, 0)
    assert systemctl("is-active", "model-a.socket") == "active"
    script(Path("/opt/broken"), SERVER)
    assert ask(18201) == "ok"


def test_a_crash_closes_its_own_clients_and_the_next_request_starts_it_again() -> None:
    recipe("a", port=18201, binary=script(Path("/opt/instant"), SERVER), on_demand={"idle": "1min"})
    recipectl("apply")
    assert ask(18201) == "ok"
    with socket.create_connection(("127.0.0.1", 18201), timeout=120) as held:
        held.sendall(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        assert held.recv(100).startswith(b"HTTP/1.1 200")
        systemctl("kill", "--signal=SIGKILL", "model-a.service")
        while held.recv(100):
            pass
    until("a", "ActiveState", "failed")
    assert ask(18201) == "ok"


def test_requests_that_wait_are_told_by_stop_and_by_status() -> None:
    slow = script(Path("/opt/slow"), f"import time\ntime.sleep(3)\n{SERVER}")
    recipe("a", port=18201, binary=slow, on_demand={"idle": "1min"})
    recipe(
        "b",
        port=18202,
        binary=script(Path("/opt/instant"), SERVER),
        on_demand={"idle": "1min"},
        conflicts=["a"],
    )
    recipectl("apply")
    with socket.create_connection(("127.0.0.1", 18201), timeout=120) as waiting:
        waiting.sendall(b"GET / HTTP/1.0\r\n\r\n")
        until("a", "ActiveState", "activating")
        stopped = recipectl("stop", "a")
        sentence = "requests that waited start model-a.service again; `recipectl stop --socket a` closes them"
        assert (stopped.returncode, sentence in stopped.stderr) == (0, True), stopped.stderr
        assert answered(waiting) in ("200", "closed")  # it came before the stop
    assert ask(18201) == "ok"
    with socket.create_connection(("127.0.0.1", 18201), timeout=120) as held:
        held.sendall(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        assert held.recv(100).startswith(b"HTTP/1.1 200")
        told = recipectl("status", "a")
        assert ("state:     ready" in told.stdout, "beside:" in told.stdout) == (True, False), told.stdout
        with socket.create_connection(("127.0.0.1", 18202), timeout=120) as waiting:
            waiting.sendall(b"GET / HTTP/1.0\r\n\r\n")
            while systemctl("is-active", "model-b-proxy.service") != "activating":
                pass
            told = recipectl("status", "b")
            assert "why:       a request waits until the models that conflict with it are idle" in told.stdout
            recipectl("stop", "--socket", "b")
            told = recipectl("status", "b")
            assert "why:       its socket was stopped, so no request starts it" in told.stdout


def test_stop_with_the_socket_is_a_stop_for_good() -> None:
    recipe("a", port=18201, binary=script(Path("/opt/instant"), SERVER), on_demand={"idle": "1min"})
    recipectl("apply")
    assert ask(18201) == "ok"
    stopped = recipectl("stop", "a")
    assert "model-a.service starts again at the next request: its socket still listens" in stopped.stderr
    assert ask(18201) == "ok"
    assert recipectl("stop", "--socket", "a").stderr == ""
    assert (ask(18201), systemctl("is-active", "model-a.socket")) == ("ConnectionRefusedError", "inactive")
    assert recipectl("start", "a").returncode == 0
    assert ask(18201) == "ok"
