"""A stand-in for vLLM on one of several hosts (executor mp), as `vllm serve` is called.

What it does is what vLLM 0.32 did in two namespaces: the worker of the head holds the master port; a follower
waits for the head and ignores SIGTERM meanwhile; nobody notices that another host is gone; the health of the
head stays 200, and a completion hangs; a follower never joins a second head.
"""

import json
import os
import signal
import socket
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


def option(name: str, default: str = "") -> str:
    return sys.argv[sys.argv.index(name) + 1] if name in sys.argv else default


RANK, COUNT = int(option("--node-rank")), int(option("--nnodes"))
MASTER = (option("--master-addr"), int(option("--master-port", "29501")))
LOAD_SEC = float(os.environ.get("LOAD_SEC", "0"))


def head_worker(control: socket.socket) -> None:
    listener = socket.create_server(MASTER)
    followers = []
    while len(followers) < COUNT - 1:
        followers.append(listener.accept()[0])
    time.sleep(LOAD_SEC)
    control.sendall(b"r")
    while control.recv(1):  # a request: every host takes part in it
        for follower in followers:
            follower.sendall(b"?")
            if follower.recv(1) != b"!":
                time.sleep(10**6)
        control.sendall(b"!")


def follower_worker(control: socket.socket) -> None:
    while True:
        try:
            head = socket.create_connection(MASTER, source_address=(os.environ["VLLM_HOST_IP"], 0))
            break
        except OSError:
            time.sleep(0.1)
    control.sendall(b"r")
    while head.recv(1):
        head.sendall(b"!")
    time.sleep(10**6)


class Server(BaseHTTPRequestHandler):
    """/health is 200 whatever happens; a completion needs all hosts."""

    control: socket.socket

    def answer(self, body: object) -> None:
        text = json.dumps(body).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def do_GET(self) -> None:
        self.answer({"data": [{"id": sys.argv[2]}], "version": "0.32.0"})

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.control.sendall(b"?")
        self.control.recv(1)
        self.answer({"choices": [{"text": "a"}]})

    def log_message(self, *words: object) -> None:
        """Nothing."""


def main() -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    control, other = socket.socketpair()
    worker = os.fork()
    if worker == 0:
        control.close()
        (head_worker if RANK == 0 else follower_worker)(other)
        os._exit(0)
    other.close()
    if not control.recv(1):
        sys.exit(0)  # its worker is gone: vLLM ends with 0
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
    if RANK == 0:
        Server.control = control
        server = ThreadingHTTPServer((option("--host", "0.0.0.0"), int(option("--port"))), Server)
        signal.signal(signal.SIGCHLD, lambda *_: os._exit(0))
        server.serve_forever()
    os.waitpid(worker, 0)


main()
