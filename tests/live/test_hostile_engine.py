"""What an engine cannot do to the gateway, its clients and its other models; what an operator sees of it."""

import http.client
import time
from pathlib import Path

import pytest

from live.common import journal, recipe, recipectl, script, systemctl
from live.test_gateway import KEYS, ask, host_file, nginx, private  # noqa: F401  (a fixture)

pytestmark = pytest.mark.systemd
ENGINE = r"""
import socket, sys, threading, time
def answer(text, head=b""):
    return b"HTTP/1.1 200 OK\r\n%sContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s" % (head, len(text), text)
def serve(connection):
    head = b""
    while b"\r\n\r\n" not in head:
        head += connection.recv(65536)
    path = head.split()[1]
    if path == b"/v1/early":
        connection.sendall(b"HTTP/1.1 100 Continue\r\n\r\n" + answer(b'"first"'))
        time.sleep(0.5)
        connection.sendall(answer(b'"forged"'))
    elif path == b"/v1/upgraded":
        connection.sendall(b"HTTP/1.1 101 Switching Protocols\r\n\r\n" + answer(b'"forged"'))
    elif path == b"/v1/garbage":
        connection.sendall(b"garbage")
    else:
        connection.sendall(answer(sys.argv[0].encode(), b"Set-Cookie: a=b\r\nX-Request-ID: mine\r\n"))
    connection.close()
listener = socket.create_server(("127.0.0.1", int(sys.argv[sys.argv.index("--port") + 1])))
while True:
    threading.Thread(target=serve, args=(listener.accept()[0],), daemon=True).start()
"""


def test_an_engine_answers_for_no_other() -> None:
    host_file()
    for name, port in (("evil", 18201), ("good", 18203)):
        binary = script(Path(f"/opt/{name}"), ENGINE)
        recipe(name, port=port, binary=binary, autostart=True, served_model_name=name)
    assert recipectl("apply").returncode == 0
    assert recipectl("wait", "evil", "good").returncode == 0
    client = http.client.HTTPConnection("127.0.0.1", 8000, timeout=20)
    for path in ("/v1/early", "/v1/upgraded", "/v1/garbage"):
        client.request("POST", path, '{"model": "evil"}')
        with pytest.raises((http.client.RemoteDisconnected, ConnectionResetError)):
            client.getresponse()
        client.close()
        client.request("POST", "/v1/completions", '{"model": "good"}')
        answer = client.getresponse()
        assert answer.read() == b"/opt/good"
    assert (answer.getheader("Set-Cookie"), len(answer.headers.get_all("X-Request-ID"))) == (None, 1)  # type: ignore[arg-type]
    client.close()


def test_a_link_that_leads_to_an_older_file_of_keys_takes_its_keys_away() -> None:
    older, first = KEYS.with_name("keys.2"), KEYS.with_name("keys.1")
    private(older, "ann sk-ann\n")
    private(first, "ann sk-ann\nbob sk-bob\n")
    KEYS.unlink(missing_ok=True)
    KEYS.symlink_to(first)
    host_file(keys=str(KEYS))
    recipe("one", port=18201, autostart=True)
    try:
        assert recipectl("apply").returncode == 0
        assert ask("none", headers={"X-Api-Key": "sk-bob"})[0] == 404
        time.sleep(1.5)  # longer than a clock may be wrong (_CLOCK_STEPS_SEC)
        link = KEYS.with_name("link")
        link.symlink_to(older)
        link.rename(KEYS)
        assert recipectl("apply").returncode == 0
        assert ask("none", headers={"X-Api-Key": "sk-bob"})[0] == 401
        assert '"refused":"127.0.0.1"' in journal("models-gateway.service")
    finally:
        KEYS.unlink()


@pytest.mark.usefixtures("haproxy")
def test_what_keeps_requests_from_a_queued_model_is_shown() -> None:
    host_file()
    recipe("q", port=18201, autostart=True, queue={"wait": "2s"})
    assert recipectl("apply").returncode == 0
    assert recipectl("wait", "q").returncode == 0
    systemctl("stop", "model-q-reachable.service")
    assert ask("q")[0] == 503
    assert "model-q-reachable.service is inactive" in recipectl("status", "q").stdout
    assert recipectl("stop", "q").returncode == 0
    client = http.client.HTTPConnection("127.0.0.1", 18201, timeout=60)
    client.request("POST", "/v1/completions", "{}")
    assert client.getresponse().status == 503
    client.close()
    assert "status 503 after" in journal("model-q-queue.service")
