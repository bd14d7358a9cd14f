"""The tie of a set: hosts that serve one model together start together, and end together.

Verbs of the helper, standard library only. A tie runs without privilege beside each member. That of the head
listens, the others connect. When all are there, the members start; after that, whoever loses a connection
ends with 1, and systemd kills its member. What a peer says is read within limits, and names hosts only.
"""

import argparse
import contextlib
import json
import selectors
import socket
import threading
import time
from typing import Any

from recipectl.journal import say
from recipectl.tie_state import Hosts, State, checked, shown
from recipectl.watch import EngineClient, key_of

# A peer that is gone without a word is noticed after 4 s (tcp(7)); 2 s without a link are survived.
_KEEPALIVE = (
    (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
    (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 1),
    (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 1),
    (socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 3),
    (socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 4000),
)
_HELLO_SEC = 5
_MAX_LINE_BYTES = 65536
_MAX_STRANGERS = 16  # connections that have not said hello
_AGAIN_SEC = 1
_REFUSED_AGAIN_SEC = 10
_COMPLETION_SEC = 300  # the first request of a large model may take minutes


class TieLostError(Exception):
    """A member is gone; the text names it."""


class Peer:
    """A connection to another tie, which sends a line of JSON for each thing that it says."""

    def __init__(self, sock: socket.socket, address: str) -> None:
        self.sock, self.address = sock, address
        self.rank: int | None = None  # until it has said hello
        self.since_sec = time.monotonic()
        self.text = b""
        for level, name, value in _KEEPALIVE:
            sock.setsockopt(level, name, value)

    def send(self, values: dict[str, Any]) -> None:
        """Say something; OSError when the connection is gone."""
        self.sock.sendall(json.dumps(values).encode() + b"\n")

    def read(self) -> list[dict[str, Any]]:
        """What it has said since the last time; OSError when it is gone, or says what no tie says."""
        part = self.sock.recv(65536)
        self.text += part
        *lines, self.text = self.text.split(b"\n")
        if not part or len(self.text) > _MAX_LINE_BYTES:
            raise OSError("it is gone")
        try:
            values = [json.loads(line) for line in lines]
        except (ValueError, RecursionError) as error:
            raise OSError("it is no tie") from error
        if not all(isinstance(value, dict) for value in values):
            raise OSError("it is no tie")
        return values


class Head:
    """The tie of the head: takes the others, and tells them what it knows."""

    def __init__(self, options: argparse.Namespace, state: State) -> None:
        self.options, self.state, self.hosts = options, state, state.hosts
        self.selector = selectors.DefaultSelector()
        self.peers: list[Peer] = []
        self.refused: set[int] = set()  # ranks whose refusal was reported
        self.turned_away: set[str] = set()  # addresses whose refusal was reported
        self.is_ready = threading.Event()

    def run(self) -> None:
        """Take connections until one of a complete set is lost: TieLostError."""
        listener = self._listener()
        self.selector.register(listener, selectors.EVENT_READ)
        self._tell()
        while True:
            for key, _ in self.selector.select(_AGAIN_SEC):
                if key.fileobj is listener:
                    self._accept(listener)
                else:
                    self._hear(key.data)
            for peer in [peer for peer in self.peers if peer.rank is None]:
                if time.monotonic() - peer.since_sec > _HELLO_SEC:
                    self._drop(peer)
            if self.is_ready.is_set() and not self.state.values["ready"]:
                self._tell()

    def _listener(self) -> socket.socket:
        """The listening socket; at boot its address may come later."""
        address = (self.options.address, self.options.port)
        family = socket.AF_INET6 if ":" in self.options.address else socket.AF_INET
        is_announced = False
        while True:
            try:
                listener = socket.create_server(address, family=family, backlog=64)
            except OSError as error:
                if not is_announced:
                    say(f"cannot listen at {address[0]} port {address[1]} yet: {error.strerror}")
                    is_announced = True
                time.sleep(_AGAIN_SEC)
            else:
                listener.setblocking(False)
                return listener

    def _accept(self, listener: socket.socket) -> None:
        try:
            sock, address = listener.accept()
        except OSError:
            return
        known = {own for _, addresses in self.hosts.rows[1:] for own in addresses}
        strangers = sum(peer.rank is None for peer in self.peers)
        if address[0] not in known and address[0] not in self.turned_away and len(self.turned_away) < 16:
            self.turned_away.add(address[0])
            say(f"turned {address[0]} away: the other hosts have {', '.join(sorted(known))}")
        if address[0] not in known or strangers >= _MAX_STRANGERS:
            sock.close()
            return
        sock.settimeout(_HELLO_SEC)  # for what is sent
        peer = Peer(sock, address[0])
        self.peers.append(peer)
        self.selector.register(sock, selectors.EVENT_READ, peer)

    def _hear(self, peer: Peer) -> None:
        try:
            for values in peer.read():
                if peer.rank is None:
                    self._welcome(peer, values)
        except OSError as error:
            self._lose(peer, error)

    def _welcome(self, peer: Peer, values: dict[str, Any]) -> None:
        """Take a host that says hello, if it is one of the set and has the same recipe."""
        rank = values.get("rank")
        rows = self.hosts.rows
        if type(rank) is not int or not 0 < rank < len(rows) or peer.address not in rows[rank][1]:
            self._drop(peer)
            return
        if values.get("set") != self.options.set:
            refusal = "its model, flags or hosts differ from the head's: the same recipe must lie on all"
            if rank not in self.refused:
                self.refused.add(rank)
                say(f"{self.hosts.name(rank)} is refused: {refusal}")
            peer.send({"refused": refusal})
            self._drop(peer)
            return
        # The host has connected again, so its earlier connection is dead.
        for dead in [other for other in self.peers if other.rank == rank]:
            if self.state.values["complete"]:
                raise TieLostError(f"{self.hosts.name(rank)} has started again")
            dead.rank = None  # its end is no loss
            self._drop(dead)
        peer.rank = rank
        self.state.values["versions"][str(rank)] = shown(values.get("version"))
        self._tell()

    def _lose(self, peer: Peer, error: OSError) -> None:
        rank = peer.rank
        self._drop(peer)
        if rank is None:
            return
        if self.state.values["complete"]:
            raise TieLostError(f"{self.hosts.name(rank)} is lost ({error.strerror or error})")
        self._tell()  # it is waited for once more

    def _drop(self, peer: Peer) -> None:
        with contextlib.suppress(KeyError, ValueError):  # it may be dropped twice in one round
            self.selector.unregister(peer.sock)
        peer.sock.close()
        if peer in self.peers:
            self.peers.remove(peer)

    def _tell(self) -> None:
        """Note what is known, and tell it to all."""
        connected = sorted({0, *(peer.rank for peer in self.peers if peer.rank is not None)})
        was_complete = self.state.values["complete"]
        complete = was_complete or len(connected) == len(self.hosts.rows)
        self.state.update(connected=connected, complete=complete, ready=self.is_ready.is_set())
        if complete and not was_complete:
            threading.Thread(target=self._ask, daemon=True).start()
        for peer in [peer for peer in self.peers if peer.rank is not None]:
            try:
                peer.send(self.state.values)
            except OSError as error:
                self._lose(peer, error)

    def _ask(self) -> None:
        """Until the head's engine answers a completion: its health does not tell whether the set works."""
        options = self.options
        engine = EngineClient(
            options.ask_address, options.ask_port, _COMPLETION_SEC, key_of(options.key_file)
        )
        while engine.ask(options.path).status != 200:
            time.sleep(_AGAIN_SEC)
        body = json.dumps({"model": options.model, "prompt": "a", "max_tokens": 1})
        last_status = None
        while True:
            # A model for chats or embeddings alone refuses this request, and is ready all the same.
            status = engine.ask("/v1/completions", body).status
            if status in (401, 403):
                say(f"a completion answers {status}: name the key's file in `secrets:`")
            if status is not None and status < 500:
                self.is_ready.set()
                return
            if status != last_status:
                say(f"the head answers its health, and a completion {status or 'not at all'}")
                last_status = status
            time.sleep(_AGAIN_SEC)


class Follower:
    """The tie of another host: connects to the head's, and hears from it."""

    def __init__(self, options: argparse.Namespace, state: State) -> None:
        self.options, self.state = options, state
        self.version = options.version or "unknown"
        self.last_text: str | None = None
        self.is_refused = False

    def run(self) -> None:
        """Try until the head is there; then until it is lost: TieLostError."""
        head = self.state.hosts.name(0)
        self.state.update(connected=[self.options.rank])
        while True:
            try:
                self._hear(self._connected())
            except OSError as error:
                if self.state.values["complete"]:
                    raise TieLostError(f"the head {head} is lost ({error.strerror or error})") from error
                self.state.update(connected=[self.options.rank])
                if not self.is_refused:
                    self._say_once(f"waiting for the head {head}: {error.strerror or error}")
                time.sleep(_REFUSED_AGAIN_SEC if self.is_refused else _AGAIN_SEC)

    def _connected(self) -> Peer:
        address = (self.options.address, self.options.port)
        own = (self.state.hosts.rows[self.options.rank][1][0], 0)
        same = (":" in own[0]) == (":" in address[0])
        sock = socket.create_connection(address, timeout=2, source_address=own if same else None)
        peer = Peer(sock, address[0])
        peer.send({"set": self.options.set, "rank": self.options.rank, "version": self.version})
        sock.settimeout(None)
        return peer

    def _hear(self, peer: Peer) -> None:
        with peer.sock:
            while True:
                for values in peer.read():
                    if "refused" in values:
                        self.is_refused = True
                        self._say_once(f"the head refuses this host: {shown(values['refused'])}")
                        continue
                    self.last_text, self.is_refused = None, False
                    self.state.update(**checked(values, len(self.state.hosts.rows)))

    def _say_once(self, text: str) -> None:
        if text != self.last_text:
            self.last_text = text
            say(text)


def tie(options: argparse.Namespace) -> int:
    """Hold the connections of a set; end with 1 when one of them is lost, after all were there."""
    hosts = Hosts.of_words(options.hosts)
    state = State(hosts, options.rank, options.version or "unknown")
    try:
        (Head if options.rank == 0 else Follower)(options, state).run()
    except TieLostError as error:
        say(f"{error}: this member ends, and the set starts again together")
        return 1
    return 0
