"""What the watch makes of an engine's answers: a server on loopback that answers as it is told."""

import argparse
import contextlib
import socket
import threading
from collections.abc import Iterator

import pytest

from recipectl.machine import sockets
from recipectl.watch import EngineClient, Watch


@contextlib.contextmanager
def server(answer: bytes) -> Iterator[int]:
    """Answer each connection with these bytes, and keep it open; yields the port."""
    kept = []
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def serve() -> None:
            with contextlib.suppress(OSError):
                while True:
                    connection, _ = listening.accept()
                    kept.append(connection)
                    connection.recv(65536)
                    connection.sendall(answer)

        threading.Thread(target=serve, daemon=True).start()
        yield listening.getsockname()[1]
        listening.shutdown(socket.SHUT_RDWR)
    for connection in kept:
        connection.close()


def health(status: str) -> tuple[str | None, set[str]]:
    """What is wrong with the health of an engine, and what the journal is told once."""
    with server(f"HTTP/1.1 {status}\r\nContent-Length: 2\r\n\r\nok".encode()) as port:
        options = argparse.Namespace(path="/health", body=None, model="m", timeout_sec=5.0)
        watch = Watch(EngineClient("127.0.0.1", port, 5.0, ""), options)
        return watch.health(), watch.said


@pytest.mark.parametrize(
    ("status", "wrong", "said"),
    [
        ("200 OK", None, set()),
        ("401 Unauthorized", None, {"/health answers 401: name the key's file in `secrets:`"}),
        ("429 Too Many Requests", None, {"/health answers 429"}),
        ("404 Not Found", "answers 404 to /health", set()),
        ("503 Service Unavailable", "answers 503 to /health", set()),
    ],
)
def test_a_refusal_is_no_hang_and_the_status_is_said(status: str, wrong: str | None, said: set[str]) -> None:
    assert health(status) == (wrong, said)


def test_a_silent_engine_is_waited_for_twice_by_a_completion() -> None:
    with server(b"") as port:
        options = argparse.Namespace(model="m", timeout_sec=0.2)
        watch = Watch(EngineClient("127.0.0.1", port, 0.2, ""), options)
        asked: list[str] = []
        ask = watch.engine.ask
        watch.engine.ask = lambda path, body="": asked.append(path) or ask(path, body)  # type: ignore[method-assign,func-returns-value]
        assert watch.completes() == "does not complete one token"
    assert asked == ["/metrics", "/v1/completions"]


def test_an_answer_is_whole_with_its_length_though_the_server_keeps_the_connection() -> None:
    with server(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok") as port:
        assert (sockets.http_answer("127.0.0.1", port, "/", 5.0, 1000) or b"").endswith(b"ok")
    with server(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nok") as port:
        assert sockets.http_answer("127.0.0.1", port, "/", 0.3, 1000) is None
