"""`versions --json` of hosts, over ssh as their inventory says: what comes back is data of a stranger."""

import contextlib
import os
import shlex
import signal
import subprocess
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor, as_completed
from typing import Annotated, Any, NamedTuple

from pydantic import AfterValidator, BaseModel, Field, StringConstraints, TypeAdapter, ValidationError

from recipectl.bounded import Output, output_of
from recipectl.errors import UsageError
from recipectl.recipe.search import RECIPE_NAME
from recipectl.text import printable

_AT_ONCE = 64
_TIMEOUT_SEC = 120
_MAX_BYTES = 2 * 1024 * 1024  # a model has 10 KiB
_MAX_SENTENCE = 1000
_DONE = (0, 2, 3)  # of `versions`: it has answered
_NOT_FOUND = 127
_ANOTHER_RELEASE = "its answer is not that of this release; install the same recipectl there"
# Nobody is there to answer a question for a password. What the inventory says comes first, and wins (ssh(1)).
_OPTIONS = ("BatchMode=yes", "ConnectTimeout=10", "ServerAliveInterval=5", "ServerAliveCountMax=3")
_OLDER_NAMES = {
    "ansible_host": "ansible_ssh_host",
    "ansible_port": "ansible_ssh_port",
    "ansible_user": "ansible_ssh_user",
    "ansible_ssh_private_key_file": "ansible_private_key_file",
}


def _printable(text: str) -> str:
    """A text of one line; ValueError for what could pass for a line of ours."""
    if not text.isprintable():
        raise ValueError("it has control characters")
    return text


def _one_line(text: str) -> str:
    """A sentence of another host, on one line."""
    return " ".join(printable(text).split())[:_MAX_SENTENCE]


Word = Annotated[str, StringConstraints(max_length=200), AfterValidator(_printable)]
Sentence = Annotated[str, AfterValidator(_one_line)]


class Distribution(BaseModel, frozen=True):
    """An installed wheel; `record` is the SHA-256 of its RECORD."""

    version: Word
    record: Word


class RemoteLock(BaseModel, frozen=True):
    """What a runtime has, without its paths; machine.lockfile records it, within these limits."""

    interpreter_sha256: Word
    python_version: Word | None
    distributions: Annotated[dict[Word, Distribution], Field(max_length=300)]
    libraries: Annotated[dict[Word, Word], Field(max_length=100)] = {}
    at_start: Annotated[dict[Word, Word], Field(max_length=100)] = {}
    venv_lock: Word | None = None


class RemoteDifference(BaseModel, frozen=True):
    """How a host differs from its own recipe."""

    where: Word
    what: Sentence
    cause: Sentence
    remedy: Sentence

    def __str__(self) -> str:
        return f"{self.what} ({self.cause}); {self.remedy}"


class Model(BaseModel, frozen=True):
    """A model of a host, as its `versions --json` tells."""

    name: Annotated[str, StringConstraints(pattern="^" + RECIPE_NAME.pattern.replace(r"\Z", "$"))]
    engine: Word | None  # nothing is known of a recipe that is wrong
    version: Word | None = Field(alias="recipe")
    lock: RemoteLock | None
    driver: Word | None
    gpu_models: Annotated[tuple[Word, ...], Field(max_length=64)]
    differences: Annotated[tuple[RemoteDifference, ...], Field(max_length=100)]


class HostModels(NamedTuple):
    """The models of a host, or why it does not tell them."""

    host: str
    models: tuple[Model, ...] = ()
    fault: str | None = None


_MODELS = TypeAdapter(Annotated[tuple[Model, ...], Field(max_length=1000)])


def ask_all(hosts: Mapping[str, Mapping[str, Any]]) -> Iterator[HostModels]:
    """The answers of hosts, given by name and variables, as they come; UsageError for what ssh cannot use."""
    commands = {name: _command(name, variables) for name, variables in hosts.items()}
    questions = _Questions()
    pool = ThreadPoolExecutor(_AT_ONCE)
    try:
        for future in as_completed([pool.submit(_ask, *command, questions) for command in commands.items()]):
            yield future.result()
    finally:  # also when a person interrupts it
        pool.shutdown(wait=False, cancel_futures=True)
        questions.end()


class _Questions:
    """The processes that ask hosts. After `end` none is left, and none starts."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._running: set[subprocess.Popen[bytes]] = set()
        self._has_ended = False

    def start(self, command: list[str]) -> subprocess.Popen[bytes]:
        """A process with three pipes; SubprocessError after the end."""
        pipe = subprocess.PIPE
        with self._lock:  # one that runs is known to `end`
            if self._has_ended:
                raise subprocess.SubprocessError("the questions were cancelled")
            # In a session of its own, ssh asks no terminal either.
            process = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, start_new_session=True)  # noqa: S603  (the words of the caller's own inventory)
            self._running.add(process)
        return process

    def forget(self, process: subprocess.Popen[bytes]) -> None:
        """A process that has ended: its number may be another's soon."""
        with self._lock:
            self._running.discard(process)

    def end(self) -> None:
        """Kill what runs."""
        with self._lock:
            self._has_ended = True
            for process in self._running:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)


def _command(host: str, variables: Mapping[str, Any]) -> list[str]:
    def value(variable: str, default: str = "") -> str:
        return _text(host, variable, variables) or default

    question = ["recipectl", "versions", "--json"]
    if value("ansible_become").lower() in ("true", "yes", "on", "1", "y", "t"):
        _require(host, "ansible_become_user", value("ansible_become_user", "root"), ("root",))
        _require(host, "ansible_become_method", value("ansible_become_method", "sudo"), ("sudo",))
        question = ["sudo", "-n", *question]
    connection = value("ansible_connection", "ssh").removeprefix("ansible.builtin.")
    _require(host, "ansible_connection", connection, ("ssh", "smart", "local"))
    if connection == "local":
        return question
    # `--`: a name that begins with `-` is no option.
    return ["ssh", *_ssh_words(host, value), "--", value("ansible_host", host), shlex.join(question)]


def _ssh_words(host: str, value: Callable[[str], str]) -> Iterator[str]:
    """The options of ssh that an inventory gives, and ours."""
    for variable in ("ansible_ssh_common_args", "ansible_ssh_extra_args"):
        try:
            yield from shlex.split(value(variable))
        except ValueError as error:
            fault = f"`{variable}` of {host} cannot be split into words"
            raise UsageError(f"{fault} ({error}); correct it") from error
    keys = {"-p": "ansible_port", "-l": "ansible_user", "-i": "ansible_ssh_private_key_file"}
    for option, variable in keys.items():
        yield from (option, value(variable)) if value(variable) else ()
    for option in _OPTIONS:
        yield from ("-o", option)


def _text(host: str, variable: str, variables: Mapping[str, Any]) -> str:
    """A variable of ssh as text, empty when it is not given; UsageError for what only Ansible can fill in."""
    value = variables.get(variable)
    if value is None:
        value = variables.get(_OLDER_NAMES.get(variable, ""), "")
    text = str(value)
    if not isinstance(value, (str, int, bool)) or "{{" in text or not text.isprintable():
        fault = f"`{variable}` of {host} is a template, a vault or no word"
        raise UsageError(f"{fault}; give the value itself")
    return text


def _require(host: str, variable: str, value: str, known: tuple[str, ...]) -> None:
    if value not in known:
        raise UsageError(f"`{variable}` of {host} is {value}; only {', '.join(known)} can be asked")


def _ask(host: str, command: list[str], questions: _Questions) -> HostModels:
    try:
        with questions.start(command) as process:
            try:
                output = output_of(process, "", max_bytes=_MAX_BYTES, timeout_sec=_TIMEOUT_SEC)
            finally:
                questions.forget(process)
    except subprocess.TimeoutExpired:
        return HostModels(host, fault=f"it did not answer within {_TIMEOUT_SEC} s")
    except (OSError, subprocess.SubprocessError) as error:
        return HostModels(host, fault=str(error))
    return _answer(host, output)


def _answer(host: str, output: Output) -> HostModels:
    lines = output.stderr.decode(errors="replace").split("\n")
    reason = next((_one_line(line) for line in reversed(lines) if line.strip()), "")
    if output.status == _NOT_FOUND:
        return HostModels(host, fault=f"recipectl is not installed there ({reason})")
    if output.status not in _DONE:
        return HostModels(host, fault=reason or f"status {output.status}")
    try:
        models = _MODELS.validate_json(output.stdout)
        if len({model.name for model in models}) == len(models):
            return HostModels(host, models)
    except ValidationError:
        pass  # said below, as for a name that comes twice
    return HostModels(host, fault=_ANOTHER_RELEASE)
