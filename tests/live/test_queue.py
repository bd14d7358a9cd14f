"""Requests that wait: a real model behind HAProxy, while it restarts, crashes, changes and stops."""

import collections
import concurrent.futures
import contextlib
import http.client
import json
import os
import signal
import socket
import subprocess
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from live.common import (
    RECIPES,
    journal,
    recipe,
    recipectl,
    script,
    show,
    systemctl,
    until,
    until_listening,
    written,
)
from recipectl.machine.installation import systemd_version

pytestmark = [pytest.mark.systemd, pytest.mark.usefixtures("haproxy")]
PORT = 18210
# By hand: QUEUE_RESTARTS=20 QUEUE_KILLS=5 for the figures of the manual.
RESTARTS, KILLS = int(os.environ.get("QUEUE_RESTARTS", "2")), int(os.environ.get("QUEUE_KILLS", "1"))
PAUSE_SEC = float(os.environ.get("QUEUE_PAUSE", "0.5"))
_TOKENS = 6
# A stand-in for an engine: its streams end when the file is there. No engine here writes one for ever.
STREAM_ENDS = Path("/run/stream-ends")
STREAMS = """
import http.server, os, sys, time
class Handler(http.server.BaseHTTPRequestHandler):
    def log_message(self, *_): pass
    def do_GET(self):
        self.send_response(200); self.send_header("Content-Length", "2"); self.end_headers(); self.wfile.write(b"{}")
    def do_POST(self):
        self.send_response(200); self.end_headers()
        while not os.path.exists("/run/stream-ends"):
            self.wfile.write(b"data: {}\\n\\n"); self.wfile.flush(); time.sleep(0.1)
http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[sys.argv.index("--port") + 1])), Handler).serve_forever()
"""


@pytest.fixture(autouse=True)
def endless_streams() -> Iterator[None]:
    """Streams end when a test says so, or fails."""
    STREAM_ENDS.unlink(missing_ok=True)
    yield
    STREAM_ENDS.touch()


def queued(**fields: object) -> None:
    recipe("alpha", **{"port": PORT, "autostart": True, "queue": True} | fields)
    applied = recipectl("apply", timeout_sec=400)
    assert applied.returncode == 0, applied.stderr
    assert recipectl("wait", "alpha").returncode == 0
    status = recipectl("status", "alpha").stdout
    assert "beside:" not in status, status  # all that should run beside it does


class Clients:
    """Short requests on connections of their own, streams, and requests on connections that stay."""

    KINDS = ("short", "stream", "stream", "kept", "kept")

    def __init__(self) -> None:
        self.answered: collections.Counter[str] = collections.Counter()
        self.failures: list[tuple[str, float, str]] = []  # kind, begin, what
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._ask, args=(kind,)) for kind in self.KINDS]

    def __enter__(self) -> "Clients":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def wait_for_answers(self) -> None:
        """Wait until clients of each kind have got an answer once more."""
        before = self.answered.copy()
        end = time.monotonic() + 300
        while any(self.answered[kind] <= before[kind] for kind in self.KINDS):
            assert time.monotonic() < end, (before, self.answered, self.failures)
            time.sleep(0.05)

    def _ask(self, kind: str) -> None:
        connection = None
        while not self._stop.is_set():
            begin = time.time()
            try:
                connection = connection or http.client.HTTPConnection("127.0.0.1", PORT, timeout=300)
                self._one(connection, streamed=kind == "stream")
                self.answered[kind] += 1
            except (OSError, http.client.HTTPException, AssertionError) as error:
                self.failures.append((kind, begin, repr(error)[:300]))
                if connection:
                    connection.close()
                connection = None
            if kind != "kept" and connection:
                connection.close()
                connection = None
        if connection:
            connection.close()

    def _one(self, connection: http.client.HTTPConnection, *, streamed: bool) -> None:
        body = {"prompt": "Once", "max_tokens": _TOKENS if streamed else 1, "stream": streamed}
        connection.request("POST", "/v1/completions", json.dumps(body), {"Content-Type": "application/json"})
        answer = connection.getresponse()
        text = answer.read().decode()
        assert answer.status == 200, (answer.status, text)
        assert not streamed or text.rstrip().endswith("data: [DONE]"), text[-200:]


def main_pid(unit: str) -> str:
    return systemctl("show", "-P", "MainPID", unit)


def test_no_request_is_lost_when_a_model_restarts_crashes_or_changes() -> None:
    queued()
    with Clients() as clients:
        for _ in range(RESTARTS):
            assert recipectl("restart", "alpha", timeout_sec=300).returncode == 0
            clients.wait_for_answers()
            time.sleep(PAUSE_SEC)
        queued(max_model_len=512)
        assert clients.failures == []
        haproxy = main_pid("model-alpha-queue.service")
        queued(max_model_len=512, queue={"wait": "20min"})
        assert main_pid("model-alpha-queue.service") != haproxy
        # A new HAProxy closes connections that stay, between two requests.
        assert {kind for kind, *_ in clients.failures} <= {"kept"}, clients.failures
        clients.wait_for_answers()
        clients.failures.clear()
        killed: list[float] = []
        for _ in range(KILLS):
            pid = main_pid("model-alpha.service")
            systemctl("kill", "-s", "KILL", "model-alpha.service")
            while Path(f"/proc/{pid}").exists():
                time.sleep(0.01)
            killed.append(time.time())
            systemctl("reset-failed", "model-alpha.service")  # the start limit is not what is tried here
            until("alpha", "ActiveState", "activating")
            assert recipectl("wait", "alpha").returncode == 0
            clients.wait_for_answers()
            time.sleep(PAUSE_SEC)
    lost = [failure for failure in clients.failures if not any(failure[1] < time_ for time_ in killed)]
    assert lost == []
    # An engine that is being killed may still take one more connection of a client that it has just cut.
    assert len(clients.failures) <= 2 * KILLS * len(Clients.KINDS), clients.failures
    print(dict(clients.answered), "answered,", len(clients.failures), "cut by a kill")  # noqa: T201  (pytest -s)
    assert min(clients.answered[kind] for kind in Clients.KINDS) > 5


def completion(timeout_sec: float) -> tuple[int, dict[str, dict[str, object]]]:
    request = urllib.request.Request(
        f"http://127.0.0.1:{PORT}/v1/completions", json.dumps({"prompt": "a", "max_tokens": 1}).encode()
    )
    try:
        with urllib.request.urlopen(request, timeout=timeout_sec) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)


def test_a_request_waits_for_a_stopped_model_as_long_as_it_is_told() -> None:
    queued(queue={"wait": 3})
    stopped = recipectl("stop", "alpha")
    assert "its requests wait" in stopped.stderr
    begin = time.monotonic()
    status, answer = completion(60)
    assert (status, answer["error"]["code"]) == (503, "model_unreachable")
    assert time.monotonic() - begin >= 2.5
    assert "recipectl status alpha" in str(answer["error"]["message"])
    assert recipectl("start", "alpha").returncode == 0
    queued(queue={"wait": 600})
    recipectl("stop", "alpha")
    answers: list[int] = []
    waiting = threading.Thread(target=lambda: answers.append(completion(200)[0]))
    waiting.start()
    time.sleep(4)  # longer than the wait was before
    assert recipectl("start", "alpha").returncode == 0
    waiting.join()
    assert answers == [200]
    assert recipectl("stop", "--socket", "alpha").returncode == 0
    with pytest.raises(OSError, match=r"refused|reset"):
        completion(60)


def test_a_rival_starts_once_the_stream_that_runs_is_complete_and_a_taken_port_is_told() -> None:
    queued(gpus=[0])
    recipe("beta", port=PORT + 5, gpus=[0])
    assert recipectl("apply").returncode == 0
    body = {"prompt": "Once", "max_tokens": 400, "stream": True}
    request = urllib.request.Request(f"http://127.0.0.1:{PORT}/v1/completions", json.dumps(body).encode())
    with urllib.request.urlopen(request, timeout=300) as stream:
        first = stream.readline()
        assert recipectl("start", "beta", timeout_sec=400).returncode == 0
        rest = stream.read().decode()
    assert first.startswith(b"data: ")
    assert rest.rstrip().endswith("data: [DONE]")
    assert (show("alpha", "ActiveState"), show("beta", "ActiveState")) == ("inactive", "active")
    assert recipectl("stop", "beta").returncode == 0
    assert recipectl("stop", "--socket", "alpha").returncode == 0
    words = ["systemd-run", "-q", "--unit=stranger", "/usr/bin/python3", "-m", "http.server", str(PORT)]
    subprocess.run([*words, "--bind", "127.0.0.1"], check=True)
    until_listening(PORT)
    told = recipectl("apply")
    starts = [recipectl("start", "alpha") for _ in range(6)]  # more often than a start limit would let
    table = recipectl("status").stdout
    subprocess.run(["systemctl", "stop", "stranger"], check=True)
    assert (told.returncode, f"port {PORT} is taken by" in told.stderr) == (1, True), told
    sentence = "model-alpha-queue.socket cannot listen (its port is taken by process "
    assert [(start.returncode, sentence in start.stderr) for start in starts] == [(1, True)] * 6, starts[-1]
    assert "socket failed" in table, table
    assert recipectl("start", "alpha").returncode == 0
    headers = {f"X-{name}": "a" * 7900 for name in "ABC"}
    request = urllib.request.Request(f"http://127.0.0.1:{PORT}/health", headers=headers)
    with urllib.request.urlopen(request, timeout=100) as answer:
        assert answer.status == 200
    # HAProxy is gone: what runs beside the model is told, and why.
    away = Path("/usr/sbin/haproxy").rename("/usr/sbin/haproxy.away")
    systemctl("kill", "--signal=KILL", "model-alpha-queue.service")
    end = time.monotonic() + 60
    while "/usr/sbin/haproxy cannot be run (No such file" not in journal("model-alpha-queue.service"):
        assert time.monotonic() < end, journal("model-alpha-queue.service")
        time.sleep(0.1)
    status = recipectl("status", "alpha").stdout
    away.rename("/usr/sbin/haproxy")
    assert "beside:    model-alpha-queue.service is restarting" in status, status


def test_a_stream_without_an_end_is_cut_after_the_drain_and_half_a_request_is_a_408() -> None:
    queued(binary=script(Path("/opt/streams"), STREAMS), queue={"drain": 3}, ready={"path": "/"})
    slow = socket.create_connection(("127.0.0.1", PORT), timeout=100)
    slow.sendall(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nhalf")
    request = urllib.request.Request(f"http://127.0.0.1:{PORT}/v1/completions", b"{}")
    with urllib.request.urlopen(request, timeout=300) as stream:
        assert stream.readline() == b"data: {}\n"
        assert recipectl("restart", "alpha").returncode == 0
        with contextlib.suppress(http.client.IncompleteRead, ConnectionError):
            assert stream.read().startswith(b"\ndata: {}")
    with urllib.request.urlopen(f"http://127.0.0.1:{PORT}/", timeout=60) as answer:
        assert answer.status == 200
    assert "requests still run after 3 s, and are cut" in journal("model-alpha-queue-open.service")
    # An apply does not end the stop of a model whose queue drains.
    with urllib.request.urlopen(request, timeout=300) as stream:
        assert stream.readline() == b"data: {}\n"
        assert recipectl("stop", "--no-block", "alpha").returncode == 0
        until("alpha-queue-open", "ActiveState", "deactivating")
        state, applied = json.loads(recipectl("status", "--json", "alpha").stdout), recipectl("apply")
    until("alpha", "ActiveState", "inactive")
    assert [row["state"] for row in state] == ["stopping"]
    assert (applied.returncode, applied.stdout) == (0, "")
    assert recipectl("start", "alpha").returncode == 0
    with slow:
        head, body = slow.makefile("rb").read().split(b"\r\n\r\n")
    assert (head.split()[1], json.loads(body)["error"]["code"]) == (b"408", "request_timeout")


def test_while_a_queue_drains_nothing_is_missing_and_nothing_is_due_twice() -> None:
    fields = {"binary": script(Path("/opt/streams"), STREAMS), "ready": {"path": "/"}, "watch": {}}
    queued(**fields)
    recipe("alpha", port=PORT, autostart=True, queue=True, env_vars={"A": "1"}, **fields)
    request = urllib.request.Request(f"http://127.0.0.1:{PORT}/v1/completions", b"{}")
    with urllib.request.urlopen(request, timeout=300) as stream:
        stream.readline()
        applied = recipectl("apply")
        until("alpha-queue-open", "ActiveState", "deactivating")
        again, changes = recipectl("apply"), recipectl("diff")
        problems = json.loads(recipectl("doctor", "--json").stdout)
        listed, compared = recipectl("list").stdout, recipectl("versions", "--json").stdout
        STREAM_ENDS.touch()
        stream.read()
    assert "restarting model-alpha.service: the recipe changed" in applied.stdout, applied
    assert (again.returncode, again.stdout, changes.returncode, changes.stdout) == (0, "", 0, "")
    assert [row for row in problems if row["check"] in ("units", "drift") and row["problems"]] == []
    assert ("restarting" in listed, "restart is due" in listed) == (True, False), listed
    assert [(row["running"], row["differences"]) for row in json.loads(compared)] == [("restarting", [])]
    assert recipectl("wait", "alpha").returncode == 0
    assert (recipectl("apply").stdout, recipectl("diff").returncode) == ("", 0)


def test_an_engine_that_hangs_while_the_queue_drains_is_killed_by_its_watch() -> None:
    fields = {"binary": script(Path("/opt/streams"), STREAMS), "ready": {"path": "/"}}
    queued(
        watch={"ask": "health", "every": "1s", "timeout": "1s", "failures": 2},
        queue={"drain": "10min"},
        **fields,
    )
    request = urllib.request.Request(f"http://127.0.0.1:{PORT}/v1/completions", b"{}")
    with urllib.request.urlopen(request, timeout=300) as stream:
        stream.readline()
        engine = main_pid("model-alpha.service")
        systemctl("stop", "--no-block", "model-alpha.service")
        until("alpha-queue-open", "ActiveState", "deactivating")
        os.kill(int(engine), signal.SIGSTOP)
        until("alpha", "ActiveState", "failed")  # long before the drain is over
    assert "was killed by SIGKILL (by its watch?" in recipectl("status", "alpha").stdout


def test_a_queued_model_that_crashes_again_and_again_is_removed_with_its_socket() -> None:
    fails = script(Path("/opt/fails"), "import time\ntime.sleep(0.1)\nraise SystemExit(1)")
    for _ in range(6):
        service = {"RestartSec": "50ms", "StartLimitIntervalSec": 0}
        recipe("alpha", port=PORT, autostart=True, queue=True, binary=fails, service=service)
        assert recipectl("apply").returncode == 0
        until("alpha-queue", "ActiveState", "active")
        (RECIPES / "alpha.json").unlink()
        removed = recipectl("apply")
        assert (removed.returncode, "model-alpha" in removed.stderr) == (0, False), removed
        assert systemctl("list-units", "--plain", "--no-legend", "model-alpha*") == ""


def test_a_model_that_somebody_starts_while_it_is_removed_stays_whole() -> None:
    fields = {"binary": script(Path("/opt/streams"), STREAMS), "ready": {"path": "/"}, "gpus": [0]}
    queued(**fields)
    units = sorted(Path("/etc/systemd/system").glob("model-alpha*"))
    (RECIPES / "alpha.json").unlink()
    recipe("beta", port=PORT + 5, autostart=True, **fields)
    request = urllib.request.Request(f"http://127.0.0.1:{PORT}/v1/completions", b"{}")
    pool = concurrent.futures.ThreadPoolExecutor()
    with pool, urllib.request.urlopen(request, timeout=300) as stream:
        stream.readline()
        applying = pool.submit(recipectl, "apply")
        until("alpha-queue-open", "ActiveState", "deactivating")
        systemctl("start", "--no-block", "model-alpha.service")
        applied = applying.result()
        STREAM_ENDS.touch()
        stream.read()
    assert (applied.returncode, show("beta", "ActiveState")) == (1, "inactive")  # they share a GPU
    assert "alpha may hold a port or GPUs yet, so nothing is started or restarted" in applied.stderr
    assert "model-alpha.service could not be stopped, and stays (its job was canceled)" in applied.stderr
    assert sorted(Path("/etc/systemd/system").glob("model-alpha*")) == units
    until("alpha-queue-open", "ActiveState", "active")
    with urllib.request.urlopen(f"http://127.0.0.1:{PORT}/", timeout=60) as answer:
        assert answer.status == 200
    removed = recipectl("apply")
    assert (removed.returncode, "model-alpha" in removed.stderr) == (0, False), removed
    assert systemctl("list-units", "--plain", "--no-legend", "model-alpha*") == ""
    until("beta", "ActiveState", "active")


def test_a_model_that_is_stopped_in_the_moment_it_is_ready_has_not_failed() -> None:
    queued()
    assert recipectl("stop", "alpha").returncode == 0
    for _ in range(4):
        systemctl("start", "model-alpha.service")
        systemctl("stop", "model-alpha.service")
        assert show("alpha-queue-open", "ActiveState") == "inactive"


def test_an_upgrade_while_the_queue_drains_asks_the_new_engine() -> None:
    queued(queue={"drain": 8})
    engine = main_pid("model-alpha.service")
    body = json.dumps({"prompt": "Once", "max_tokens": 4000, "stream": True, "ignore_eos": True}).encode()
    request = urllib.request.Request(f"http://127.0.0.1:{PORT}/v1/completions", body)
    with urllib.request.urlopen(request, timeout=300) as stream:
        stream.readline()
        systemctl("restart", "--no-block", "model-alpha.service")
        until("alpha-queue-open", "ActiveState", "deactivating")
        recipe("alpha", port=PORT, autostart=True, queue={"drain": 8}, max_model_len=512)
        upgraded = recipectl("upgrade", "alpha", timeout_sec=300)
    assert (upgraded.returncode, "is ready after" in upgraded.stdout + upgraded.stderr) == (0, True), upgraded
    assert main_pid("model-alpha.service") != engine


def test_an_upgrade_to_a_queue_that_fails_leaves_nothing_of_it() -> None:
    fails = script(Path("/opt/fails"), "import time\ntime.sleep(0.1)\nraise SystemExit(1)")
    recipe("alpha", port=PORT, autostart=True)
    assert recipectl("apply").returncode == 0
    assert recipectl("wait", "alpha").returncode == 0
    before = systemctl("list-units", "--plain", "--no-legend", "model-alpha*")
    recipe("alpha", port=PORT, autostart=True, queue=True, binary=fails, service={"RestartSec": "50ms"})
    upgraded = recipectl("upgrade", "alpha")
    assert (upgraded.returncode, "model-alpha-queue" in upgraded.stderr) == (1, False), upgraded
    assert recipectl("wait", "alpha").returncode == 0
    assert systemctl("list-units", "--plain", "--no-legend", "model-alpha*") == before
    assert completion(60)[0] == 200


def test_an_engine_whose_clients_wait_ends_with_the_drain() -> None:
    """llama.cpp's server answers one request at a time, and waits for its clients when it ends."""
    queued(queue={"drain": 2})
    loads = journal("model-alpha.service").count("launch_slot_")
    body = json.dumps({"prompt": "Once", "max_tokens": 4000, "stream": True, "ignore_eos": True})
    head = f"POST /v1/completions HTTP/1.1\r\nHost: a\r\nContent-Length: {len(body)}\r\n\r\n"
    with contextlib.ExitStack() as clients:
        for _ in range(2):
            client = clients.enter_context(socket.create_connection(("127.0.0.1", PORT), timeout=300))
            client.sendall((head + body).encode())
        end = time.monotonic() + 60
        while journal("model-alpha.service").count("launch_slot_") == loads:
            assert time.monotonic() < end
            time.sleep(0.1)
        systemctl("stop", "--no-block", "model-alpha.service")
        while "waiting at most 2 s for the requests" not in journal("model-alpha-queue-open.service"):
            assert time.monotonic() < end
            time.sleep(0.05)
        with concurrent.futures.ThreadPoolExecutor(20) as pool:
            waiting = [pool.submit(completion, 300) for _ in range(20)]  # they wait for the next start
            until("alpha", "ActiveState", "inactive", timeout_sec=120)
            result, started = show("alpha", "Result"), recipectl("start", "alpha").returncode
            statuses = [each.result()[0] for each in waiting]
    assert (result, started, statuses) == ("success", 0, [200] * 20), journal(
        "model-alpha-queue-open.service"
    )


def test_a_queued_model_that_has_failed_calls_the_hosts_hook() -> None:
    alert = "[Service]\nType=oneshot\nExecStart=/bin/sh -c 'echo %i >>/run/alerts-of-queue'\n"
    Path("/run/systemd/system/alert-of-queue@.service").write_text(alert)
    Path("/etc/recipectl/host.yaml").write_text("on_failure: alert-of-queue@%n.service\n")
    recipe("alpha", port=PORT, queue=True, binary=script(Path("/opt/failing"), "import sys; sys.exit(2)"))
    assert recipectl("apply").returncode == 0
    assert recipectl("start", "alpha").returncode == 1
    until("alpha", "ActiveState", "failed")
    calls = written(Path("/run/alerts-of-queue")).splitlines()
    Path("/etc/recipectl/host.yaml").unlink()
    assert {*calls} == {"model-alpha.service"}
    assert len(calls) == 1 or systemd_version() >= 257


def test_a_queued_model_is_given_up_after_as_many_starts_as_any_other() -> None:
    fails = script(Path("/opt/fails"), "print('one more load', flush=True)\nraise SystemExit(1)")
    recipe("alpha", port=PORT, queue=True, binary=fails, service={"RestartSec": "100ms"})
    assert recipectl("apply").returncode == 0
    assert recipectl("start", "alpha").returncode == 1
    until("alpha", "SubState", "failed")
    time.sleep(1)  # it would have started again
    assert journal("model-alpha.service").count("one more load") == 4
    assert "systemd has given up after 4 starts (start limit)" in recipectl("status", "alpha").stdout


def test_a_model_that_runs_gets_a_queue_and_loses_it_again() -> None:
    recipe("alpha", port=PORT, autostart=True)
    assert recipectl("apply").returncode == 0
    assert recipectl("wait", "alpha").returncode == 0
    engine = main_pid("model-alpha.service")
    recipe("alpha", port=PORT, autostart=True, queue=True)
    assert "left for later" in recipectl("apply", "--no-restart").stderr
    assert main_pid("model-alpha.service") == engine
    queued()
    assert completion(60)[0] == 200
    assert recipectl("apply").stdout == ""
    engine = main_pid("model-alpha.service")
    queued(port=PORT + 1, queue={"engine_port": 8210})  # HAProxy alone moves
    assert main_pid("model-alpha.service") == engine
    queued()
    recipe("alpha", port=PORT, autostart=True)
    removed = recipectl("apply")
    assert (removed.returncode, "removed model-alpha-queue.socket" in removed.stdout) == (0, True), removed
    assert recipectl("wait", "alpha").returncode == 0
    assert completion(60)[0] == 200


def test_a_model_on_demand_that_gets_a_queue_is_restarted_and_that_is_said() -> None:
    recipe("alpha", port=PORT, on_demand={"idle": "10min"})
    assert recipectl("apply").returncode == 0
    assert recipectl("start", "alpha").returncode == 0
    engine = main_pid("model-alpha.service")
    recipe("alpha", port=PORT, queue=True)
    applied = recipectl("apply")
    reason = "restarting model-alpha.service: its proxy, which keeps it up, is removed"
    assert (applied.returncode, reason in applied.stdout) == (0, True), applied
    assert recipectl("wait", "alpha").returncode == 0
    assert main_pid("model-alpha.service") != engine
    assert completion(60)[0] == 200
    assert recipectl("apply").stdout == ""


def test_no_engine_reaches_the_queue_of_another_model_or_its_own() -> None:
    queued()
    user = show("alpha", "User")
    folder = Path("/run/model-alpha-queue")
    assert (folder.stat().st_mode & 0o777, folder.owner()) == (0o700, "recipectl-queue")
    as_engine = ["setpriv", f"--reuid={user}", f"--regid={user}", "--clear-groups"]
    assert subprocess.run([*as_engine, "ls", "/run"], capture_output=True).returncode == 0
    for words in (
        ["ls", str(folder)],
        ["cat", f"{folder}/haproxy.cfg"],
        ["kill", "-9", main_pid("model-alpha-queue.service")],
    ):
        tried = subprocess.run([*as_engine, *words], capture_output=True)
        assert tried.returncode != 0, words
    for unit in ("model-alpha-queue.service", "model-alpha-queue-open.service"):
        assert "=+" not in systemctl("cat", unit)
        words = ["systemd-analyze", "security", "--no-pager", unit]
        exposure = subprocess.run(words, capture_output=True, text=True).stdout
        assert float(exposure.split("Overall exposure level for ")[1].split(":")[1].split()[0]) <= 2.5, (
            exposure
        )
    problems = json.loads(recipectl("doctor", "--json").stdout)
    assert not [problem for row in problems for problem in row["problems"] if row["check"] == "units"]
    systemctl("stop", "model-alpha-queue.socket")
    assert "no request reaches alpha" in recipectl("doctor").stdout
    assert recipectl("apply").stdout.splitlines()[0].startswith("starting model-alpha-queue.socket")
    systemctl("kill", "-s", "KILL", "model-alpha-queue.service")
    assert completion(60)[0] == 200
