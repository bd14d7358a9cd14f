"""`versions --json` of hosts, over ssh as their inventory says: what comes back is data of a stranger."""

import shlex
import subprocess
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor, as_completed
from typing import Any, NamedTuple

from pydantic import BaseModel, Field, TypeAdapter, ValidationError

from recipectl.bounded import Output, output_of
from recipectl.errors import UsageError

_AT_ONCE = 64
_TIMEOUT_SEC = 120
_MAX_BYTES = 16 * 1024 * 1024
_SSH_FAILED, _NOT_FOUND = 255, 127
# A question for a password has nobody who answers it. What the inventory says comes first, and wins (ssh(1)).
_OPTIONS = ("BatchMode=yes", "ConnectTimeout=10", "ServerAliveInterval=5", "ServerAliveCountMax=3")


class Distribution(BaseModel, frozen=True):
    """An installed wheel; `record` is the SHA-256 of its RECORD."""

    version: str
    record: str


class Lock(BaseModel, frozen=True):
    """What a runtime has, without the paths of it; recipectl.machine.lockfile records it."""

    interpreter_sha256: str
    python_version: str | None
    distributions: dict[str, Distribution]
    libraries: dict[str, str] = {}
    at_start: dict[str, str] = {}


class Difference(BaseModel, frozen=True):
    """How a host differs from its own recipe."""

    where: str
    what: str
    cause: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.what} ({self.cause}); {self.remedy}"


class Model(BaseModel, frozen=True):
    """A model of a host, as its `versions --json` tells."""

    name: str
    engine: str | None  # nothing is known of a recipe that is wrong
    version: str | None = Field(alias="recipe")
    lock: Lock | None
    driver: str | None
    gpu_models: tuple[str, ...]
    differences: tuple[Difference, ...]


class Answer(NamedTuple):
    """The models of a host, or why it does not tell them."""

    host: str
    models: tuple[Model, ...] = ()
    fault: str | None = None


_MODELS = TypeAdapter(tuple[Model, ...])


def ask_all(hosts: Mapping[str, Mapping[str, Any]]) -> Iterator[Answer]:
    """The answers of hosts as they come, each given with its variables; UsageError for one without sense."""
    commands = {name: _command(name, variables) for name, variables in hosts.items()}
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        for future in as_completed([pool.submit(_ask, *command) for command in commands.items()]):
            yield future.result()


def _command(host: str, variables: Mapping[str, Any]) -> list[str]:
    question = ["recipectl", "versions", "--json"]
    if _is_true(variables.get("ansible_become")):
        question = ["sudo", "-n", *question]
    if variables.get("ansible_connection", "ssh") == "local":
        return question
    words = ["ssh"]
    for variable in ("ansible_ssh_common_args", "ansible_ssh_extra_args"):
        words += _words(host, variable, variables)
    port, user = (variables.get(key) for key in ("ansible_port", "ansible_user"))
    file = variables.get("ansible_ssh_private_key_file")
    for option, value in (("-p", port), ("-l", user), ("-i", file)):
        words += [option, str(value)] if value else []
    words += [word for option in _OPTIONS for word in ("-o", option)]
    # `--`: a name that begins with `-` is no option.
    return [*words, "--", str(variables.get("ansible_host", host)), shlex.join(question)]


def _words(host: str, variable: str, variables: Mapping[str, Any]) -> list[str]:
    try:
        return shlex.split(str(variables.get(variable, "")))
    except ValueError as error:
        raise UsageError(
            f"`{variable}` of {host} cannot be split into words ({error}); correct it"
        ) from error


def _is_true(value: object) -> bool:
    """As Ansible reads a variable of an INI file."""
    return str(value).lower() in ("true", "yes", "on", "1")


def _ask(host: str, command: list[str]) -> Answer:
    pipe = subprocess.PIPE
    try:
        # In a session of its own, ssh asks no terminal either.
        with subprocess.Popen(  # noqa: S603  (the words of the caller's own inventory)
            command, stdin=pipe, stdout=pipe, stderr=pipe, start_new_session=True
        ) as process:
            output = output_of(process, "", max_bytes=_MAX_BYTES, timeout_sec=_TIMEOUT_SEC)
    except subprocess.TimeoutExpired:
        return Answer(host, fault=f"it did not answer within {_TIMEOUT_SEC} s")
    except (OSError, subprocess.SubprocessError) as error:
        return Answer(host, fault=str(error))
    return _answer(host, output)


def _answer(host: str, output: Output) -> Answer:
    try:
        return Answer(host, _MODELS.validate_json(output.stdout))
    except ValidationError:
        lines = output.stderr.decode(errors="replace").split("\n")
        reason = next((line.strip() for line in reversed(lines) if line.strip()), "")
        if output.status == _NOT_FOUND:
            return Answer(host, fault=f"recipectl is not installed there ({reason})")
        if output.status == _SSH_FAILED or reason:
            return Answer(host, fault=reason or "ssh has failed")
        return Answer(host, fault="its answer is not that of this release; install the same recipectl there")
