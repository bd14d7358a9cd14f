"""The watch of a running engine: asks it again and again, and leaves a mark when it hangs.

A verb of the helper, standard library only. It runs without privilege and without the bus. What the engine
answers is read within limits, and decides nothing but whether it lives.
"""

import argparse
import json
import math
import os
import re
import time
from pathlib import Path
from typing import NamedTuple

from recipectl.gateway_keys import engine_key
from recipectl.journal import say
from recipectl.machine import clients, processes, sockets

_REFUSALS = (401, 403, 429)  # of a server that works: for want of a key, or under load
_HUNG_STATUS = 42  # the unit has RestartPreventExitStatus= for it
_MAX_ANSWER_BYTES = 4 * 1024 * 1024
_LOOK_AGAIN_SEC = 0.5
_COMPLETION_PAUSE_SEC = 300  # an idle engine is asked for a token this often
# Gauges of requests that the engine has: vLLM 0.33, SGLang 0.5.23, llama.cpp's server.
_REQUESTS = re.compile(
    rb"^(?:vllm:num_requests_(?:running|waiting)|sglang:num_(?:running|queue)_reqs"
    rb"|llamacpp:requests_(?:processing|deferred))(?:\{[^\n]*\})?[ \t]+(\S+)",
    re.M,
)
# Whatever tells of tokens, steps and the cache of tokens: it moves while the engine works, and only then.
# During a long prefill, vLLM 0.32 counts no token; its cache fills.
_PROGRESS = re.compile(
    rb"^(?:vllm|sglang|llamacpp):\w*(?:token|decode|step|kv_cache|gpu_cache|prefix_cache)[^\n]*", re.M
)
# llama.cpp prints six digits (std::ostream's default): a larger counter is the same text for many steps.
_ROUNDED = re.compile(rb"^llamacpp:[^\n]*[ \t][0-9.]+e\+[0-9]+$")
# Several engines may answer at one address: vLLM's and SGLang's data parallelism.
_ENGINE = re.compile(rb"[{,](?:engine|dp_rank)=\"([^\"\n]*)\"")


class Answer(NamedTuple):
    """The HTTP status of an answer (None: nobody answered in time) and its body."""

    status: int | None
    body: bytes = b""


class Metrics(NamedTuple):
    """By engine: how many requests it has, and every line that moves while it works."""

    requests: dict[bytes, float]
    progress: dict[bytes, list[bytes]]

    def stuck(self, before: "Metrics") -> set[bytes]:
        """The engines with requests that have not moved since `before`.

        Rounded counters do not tell. llama.cpp answers /metrics between two steps: one that hangs does not.
        """
        return {
            engine
            for engine, count in self.requests.items()
            if count
            and self.progress.get(engine) == before.progress.get(engine)
            and not any(map(_ROUNDED.match, self.progress.get(engine, ())))
        }


def metrics_of(body: bytes) -> Metrics:
    """What the metrics of engines say (Prometheus' text format)."""
    metrics = Metrics({}, {})
    for match in _REQUESTS.finditer(body):
        engine = _engine_of(match[0])
        metrics.requests[engine] = metrics.requests.get(engine, 0) + _number(match[1])
    for match in _PROGRESS.finditer(body):
        metrics.progress.setdefault(_engine_of(match[0]), []).append(match[0])
    return metrics


def _engine_of(series: bytes) -> bytes:
    label = _ENGINE.search(series)
    return label[1] if label else b""


def _number(text: bytes) -> float:
    """A number of requests; 0 for what is none, as NaN, or less than none."""
    try:
        number = float(text)
    except ValueError:
        return 0
    return max(number, 0) if math.isfinite(number) else 0


def _model_user() -> int | None:
    """The user of the model whose watch, canaries or tie this is; None under a user's manager.

    systemd gives the user its StateDirectory=, which everybody may see.
    """
    unit = re.fullmatch(r"model-(.+)-(?:watch|canaries|tie)\.service", processes.unit_of("self"))
    if unit is None or processes.cgroup("self").startswith("/user.slice/"):
        return None
    try:
        return Path("/var/lib/models", unit[1]).stat().st_uid
    except OSError:
        return -1  # the model has never run, so another process listens


class EngineClient:
    """An engine that is asked over plain HTTP, with the key of its API."""

    def __init__(self, address: str, port: int, timeout_sec: float, key: str) -> None:
        self.address, self.port, self.timeout_sec, self.key = address, port, timeout_sec, key
        self.user = _model_user() if key else None

    def ask(self, path: str, body: str = "") -> Answer:
        """The answer to a GET, or to a POST of JSON, whole within the time limit.

        Nobody but the model's user gets the key: another process may have taken the port.
        """
        if stranger := self.stranger():
            say(stranger)
            return Answer(None)
        where = (self.address, self.port, path, self.timeout_sec, _MAX_ANSWER_BYTES)
        answer = sockets.http_answer(*where, key=self.key, body=body)
        status = sockets.status_of(answer)
        return Answer(status, (answer or b"").partition(b"\r\n\r\n")[2] if status else b"")

    def stranger(self) -> str | None:
        """A sentence where another user listens at the engine's address; None where the key may be sent."""
        if self.user is None:
            return None
        others = sockets.reached_users(self.port, self.address) - {self.user}
        held = f"port {self.port} is held by user {min(others)}" if others else ""
        return f"{held}, not by the model: nothing is asked" if held else None


class Watch:
    """Asks one question after the other. A question returns what is wrong, or None."""

    def __init__(self, engine: EngineClient, options: argparse.Namespace) -> None:
        self.engine = engine
        self.options = options
        self.failures = 0  # in a row
        self.before: Metrics | None = None  # as they were when it looked last
        self.clients_before: frozenset[clients.Client] = frozenset()  # as they were when it looked last
        self.answered: frozenset[clients.Client] = frozenset()  # as they were when a completion was answered
        self.completion_due_sec = time.monotonic() + _COMPLETION_PAUSE_SEC
        self.said: set[str] = set()

    def say_once(self, text: str) -> None:
        """A line in the journal that says why less is known than was asked for."""
        if text not in self.said:
            self.said.add(text)
            say(text)

    def health(self) -> str | None:
        """The question of a site, or the engine's health: 200 is well. A refusal is no sign of a hang."""
        path = self.options.path
        status = self.engine.ask(path, self.options.body or "").status
        if status in _REFUSALS:
            needs_key = "" if status == 429 else ": name the key's file in `secrets:`"
            self.say_once(f"{path} answers {status}{needs_key}")
        if status == 200 or status in _REFUSALS:
            return None
        return f"answers {status} to {path}" if status else f"does not answer {path}"

    def metrics(self) -> Metrics | None:
        """The engine's metrics; None when nobody answers."""
        answer = self.engine.ask("/metrics")
        if answer.status is None:
            return None
        if answer.status != 200:
            self.say_once(f"/metrics answers {answer.status}: only completions tell whether it works")
        return metrics_of(answer.body)

    def completion(self, *, may_fail: bool) -> str | None:
        """One token. A refusal is an answer: a server of embeddings refuses with 500 (llama.cpp)."""
        self.completion_due_sec = time.monotonic() + _COMPLETION_PAUSE_SEC
        body = {"model": self.options.model, "prompt": "a", "max_tokens": 1}
        status = self.engine.ask("/v1/completions", json.dumps(body)).status
        if status in (401, 403):
            self.say_once(f"a completion answers {status}: name the key's file in `secrets:`")
        is_well = status is not None and (status < 500 or may_fail)
        return None if is_well else "does not complete one token"

    def completes(self, *, may_fail: bool = False) -> str | None:
        """`ask: completion`. An engine that is only slow has metrics that move."""
        before = self.metrics()
        wrong = self.completion(may_fail=may_fail)
        after = self.metrics() if wrong and before else None  # one that is silent would be waited for again
        return None if before and after and before.progress != after.progress else wrong

    def progresses(self) -> str | None:
        """`ask: progress`. Counters must move while there are requests; without any, a token is due."""
        clients_now = self.clients_now()
        asking = self.asking(clients_now)
        metrics = self.metrics()
        if metrics is None:
            return "does not answer /metrics"
        before, self.before = self.before, metrics
        moved = before is None or (metrics.progress != before.progress and not metrics.stuck(before))
        if moved and before is not None:
            self.failures = 0  # it does not hang, however slow it is
        if any(metrics.requests.values()):
            return self._stands_still(metrics)
        # A core that has stopped reports no requests: clients may wait for it.
        if asking and not metrics.progress:
            self.say_once("/metrics counts no tokens: a hang cannot be told from a long queue")
            return None
        due = self.failures or time.monotonic() >= self.completion_due_sec
        if not asking and (moved or not due):
            return None
        wrong = self.completes(may_fail=True)
        self.answered = frozenset() if wrong else frozenset(clients_now)
        return wrong

    def asking(self, clients_now: dict[clients.Client, bool]) -> bool:
        """Whether a client may wait: it spoke last, it is new, or it has been like this since the last look.

        A client that asks from time to time on the same connection, as Prometheus does, is none of these.
        """
        before, self.clients_before = self.clients_before, frozenset(clients_now)
        known = {client.inode for client in self.answered}
        return any(
            waits or client.inode not in known or client in before
            for client, waits in clients_now.items()
            if client not in self.answered
        )

    def clients_now(self) -> dict[clients.Client, bool]:
        """The connections of clients, and whether each spoke last."""
        try:
            return clients.asking(self.engine.port)
        except OSError as error:
            reason = error.strerror or error
            self.say_once(f"the kernel does not tell which clients wait ({reason}): completions alone do")
            return {}

    def _stands_still(self, first: Metrics) -> str | None:
        """What is wrong with engines that have requests: None as soon as the counters of each have moved."""
        stuck = first.stuck(first)
        end = time.monotonic() + self.options.timeout_sec
        while time.monotonic() < end:
            time.sleep(_LOOK_AGAIN_SEC)
            metrics = self.metrics()
            if metrics is None:
                continue
            self.before = metrics
            stuck &= metrics.stuck(first)
            if not stuck:
                return None
        count = sum(first.requests[engine] for engine in stuck)
        return f"has {count:.0f} requests and made no token for {self.options.timeout_sec:g} s"


def key_of(file: str | None) -> str:
    """The key of the engine's API, from a credential; empty without one."""
    if not file:
        return ""
    return engine_key(Path(os.environ["CREDENTIALS_DIRECTORY"], file).read_bytes())


def watch(options: argparse.Namespace) -> int:
    """Ask a running engine again and again; after --failures failures in a row, leave a mark and end with 42.

    The unit that kills the engine looks only for the mark.
    """
    unit = options.units[0]
    mark = Path(os.environ["RUNTIME_DIRECTORY"], "hung")
    mark.unlink(missing_ok=True)
    engine = EngineClient(options.address, options.port, options.timeout_sec, key_of(options.key_file))
    asking = Watch(engine, options)
    questions = {"progress": asking.progresses, "completion": asking.completes}
    question = questions.get(options.ask, asking.health)
    folder = processes.cgroup_folder(unit)
    while folder and processes.has_processes(folder):
        time.sleep(options.every_sec)
        if stranger := engine.stranger():  # no reason to kill the model
            asking.say_once(stranger)
            continue
        wrong = question()
        if not processes.has_processes(folder):
            break
        asking.failures = asking.failures + 1 if wrong else 0
        if wrong:
            say(f"{unit} {wrong} ({asking.failures} of {options.failures})")
        if asking.failures >= options.failures:
            mark.touch()
            return _HUNG_STATUS
    return 0  # it has ended: it starts its watch again
