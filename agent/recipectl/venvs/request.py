"""The request for a venv, from the command line or from the header of its lock."""

import hashlib
import re
from pathlib import Path
from typing import Annotated

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name, canonicalize_version
from pydantic import AfterValidator, BaseModel, ConfigDict, ValidationError

from recipectl.errors import UsageError
from recipectl.files import read_bounded
from recipectl.machine import lockfile
from recipectl.machine.distributions import is_finished, lock_of
from recipectl.text import display

_REQUEST = "# request: "
_MADE_FROM = {"packages": "with", "excluded": "without", "overrides": "override"}  # field -> option
_DEFAULT_PYTHON = "/usr/bin/python3"
# An interpreter that a lock may choose: a version, or one of the system's.
_PYTHON_OF_A_LOCK = re.compile(r"[0-9.]+|/usr/bin/python3[0-9.]*")


def without_password(text: str) -> str:
    """A text whose URLs have no user and no password."""
    return re.sub(r"(://)[^/@\s\"']*@", r"\1", text)


def _parsed(text: str) -> str:
    """A requirement as PEP 508 has it; ValueError names the word that is none."""
    try:
        requirement = Requirement(text)
    except InvalidRequirement as error:
        fault = f"`{display(without_password(text))}` is not a requirement"
        raise ValueError(f"{fault}; write it as in `vllm==0.32.0`") from error
    if requirement.url and without_password(requirement.url) != requirement.url:
        raise ValueError(
            f"the URL of `{requirement.name}` has a password, which a lock would tell; use netrc(5)"
        )
    return text


_Requirement = Annotated[str, AfterValidator(_parsed)]


class Request(BaseModel):
    """What is installed in a venv, and from where; `aliases` are further names of the engine."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    requirement: _Requirement
    python: str = _DEFAULT_PYTHON
    torch_backend: str | None = None
    packages: tuple[_Requirement, ...] = ()
    excluded: tuple[_Requirement, ...] = ()
    overrides: tuple[_Requirement, ...] = ()
    indexes: tuple[str, ...] = ()
    aliases: tuple[_Requirement, ...] = ()

    @property
    def public(self) -> "Request":
        """The request without what may be a secret: passwords, and the queries of indexes."""
        indexes = tuple(index.partition("?")[0] for index in self.indexes)
        text = self.model_copy(update={"indexes": indexes}).model_dump_json()
        return Request.model_validate_json(without_password(text))

    @property
    def distribution(self) -> str:
        """The name of the engine's distribution, as a lock spells it."""
        return canonicalize_name(Requirement(self.requirement).name)

    @property
    def pinned_version(self) -> str | None:
        """The one version that is asked for; None where a lock decides."""
        specifiers = [*Requirement(self.requirement).specifier]
        pinned = len(specifiers) == 1 and specifiers[0].operator == "==" and "*" not in specifiers[0].version
        return specifiers[0].version if pinned else None

    def version_in(self, lock: str) -> str | None:
        """The engine's version that a lock has; None when it has none."""
        match = re.search(rf"(?m)^{re.escape(self.distribution)}(?:\[[^\]]*\])?==([^\s;\\]+)", lock)
        return match[1] if match else None

    def aliases_in(self, lock: str) -> dict[str, str]:
        """Further name -> version: its own (`vllm==0.32.0+cpu`), or that of the engine."""
        parsed = map(Requirement, self.aliases)
        engine = self.version_in(lock) or "0"
        return {alias.name: next((pin.version for pin in alias.specifier), engine) for alias in parsed}

    def require_in(self, lock: str) -> None:
        """UsageError when a lock does not have the engine as it is asked for."""
        version, requirement = self.version_in(lock), Requirement(self.requirement)
        if version is None and requirement.url is None:
            fault = f"the lock has no {self.distribution}"
            raise UsageError(f"{fault}; give the lock of that engine", kind="lock")
        if version and not requirement.specifier.contains(version, prereleases=True):
            fault = f"the lock has {self.distribution} {version}, and {self.requirement} is asked for"
            raise UsageError(f"{fault}; give another lock, or leave the requirement out", kind="lock")


def request_of(words: dict[str, object]) -> Request:
    """A request of the words of a command line; UsageError with what is wrong with them."""
    fields = {name: value for name, value in words.items() if value}
    if "requirement" not in fields:
        raise UsageError("an engine is missing; name it as in `recipectl venv create vllm==0.32.0`")
    try:
        return Request.model_validate(fields)
    except ValidationError as error:
        raise UsageError(str(error.errors()[0]["ctx"]["error"])) from error


def like_another(requirement: str, venv: Path | None) -> Request:
    """A request that differs from that of another venv in its engine alone; UsageError for a wrong word."""
    content = lockfile.own_venv_lock(venv) if venv else None
    if venv is None or content is None:
        return request_of({"requirement": requirement})
    lock, other = _parse(content, lock_of(venv))
    if other is None:
        return request_of({"requirement": requirement})
    new = request_of(other.model_dump() | {"requirement": requirement})
    before, after = other.version_in(lock), new.pinned_version
    # An alias with a version of its own (`vllm==0.32.0+cpu`) follows that of the engine.
    aliases = (alias.replace(before, after, 1) if before and after else alias for alias in other.aliases)
    return new.model_copy(update={"aliases": tuple(aliases)})


def request_for(path: Path, words: dict[str, object]) -> tuple[str, Request]:
    """The text of a lock, and its request with what a command line adds to it."""
    text, request = read(path)
    if wrong := [f"--{option}" for name, option in _MADE_FROM.items() if words.get(name)]:
        raise UsageError(f"{wrong[0]} cannot be given with a lock, which is made already; leave one out")
    known = request.model_dump(exclude_defaults=True) if request else {}
    python = str(known.get("python", _DEFAULT_PYTHON))
    if not words.get("python") and not _PYTHON_OF_A_LOCK.fullmatch(python):
        fault = f"{path} wants the interpreter {display(python)}, which is none of the system's"
        raise UsageError(f"{fault}; give it yourself with --python", kind="lock")
    request = request_of(known | {name: value for name, value in words.items() if value})
    request.require_in(text)
    return text, request


def with_header(lock: str, request: Request) -> str:
    """The text of a lock that tells what it was made from; passwords of indexes stay out."""
    pins = "".join(f"{line}\n" for line in _pins(lock))
    made_from = f"{_REQUEST}{request.public.model_dump_json(exclude_defaults=True)}\n"
    return without_password(f"{lockfile.VENV_LOCK_HEADER}{made_from}{pins}")


def read(path: Path) -> tuple[str, Request | None]:
    """The text of a lock and the request in it, None for another tool's; UsageError for what is no lock."""
    try:
        content = read_bounded(path, lockfile.MAX_VENV_LOCK_BYTES)
    except OSError as error:
        sentence = f"{path} cannot be read as a lock ({error.strerror}); give another"
        raise UsageError(sentence, kind="lock") from error
    return _parse(content, path)


def _parse(content: bytes, path: Path) -> tuple[str, Request | None]:
    try:
        text = content.decode()
        line = next((line for line in text.splitlines()[:5] if line.startswith(_REQUEST)), None)
        request = Request.model_validate_json(line.removeprefix(_REQUEST)) if line else None
    except ValueError as error:
        is_request = isinstance(error, ValidationError)
        reason = "its request is not one of this release" if is_request else "it is no text"
        sentence = f"{path} cannot be read as a lock ({reason}); give another"
        raise UsageError(sentence, kind="lock") from error
    if "--hash=sha256:" not in text:
        fault = f"{path} has no hashes, and is not installed without"
        raise UsageError(f"{fault}; make it with `uv pip compile --generate-hashes`", kind="lock")
    return text, request


def is_made(folder: Path, request: Request, lock: str) -> bool:
    """True for a finished venv that was made from this lock, or without one from the same request."""
    content = lockfile.own_venv_lock(folder) if is_finished(folder) else None
    if content is None:
        return False
    known_lock, known_request = _parse(content, lock_of(folder))
    if lock:
        return _pins(known_lock) == _pins(without_password(lock))
    return known_request == request.public


def _pins(lock: str) -> list[str]:
    return [line for line in lock.splitlines() if not line.startswith("#")]


def pinned(path: Path) -> dict[str, str | None]:
    """Distribution -> version (None: any) of what a lock installs here, with the aliases of the engine."""
    text, request = read(path)
    pins: dict[str, str | None] = {}
    for line in re.sub(r"\\\r?\n", " ", text).splitlines():
        words = re.split(r"\s--hash=", line)[0].strip()
        if not words or words.startswith(("#", "-")):
            continue
        try:
            requirement = Requirement(words)
        except InvalidRequirement as error:
            sentence = f"{path} has a line that is no pin ({display(words)}); make it again"
            raise UsageError(sentence, kind="lock") from error
        if requirement.marker is None or requirement.marker.evaluate():
            version = next((str(pin.version) for pin in requirement.specifier), None)
            pins[canonicalize_name(requirement.name)] = version
    if request:
        pins |= {canonicalize_name(name): own for name, own in request.aliases_in(text).items()}
    return {name: version and canonicalize_version(version) for name, version in pins.items()}


def count_of(lock: str) -> str:
    """How many packages a lock has, in words."""
    count = len(re.findall(r"(?m)^[A-Za-z0-9][^\s=]*(==| @ )", lock))
    return "1 package" if count == 1 else f"{count} packages"


def lock_of_recipe(path: Path) -> tuple[Path, Path]:
    """(the lock of its venv, the venv) that a NAME.lock records; UsageError where it has none."""
    try:
        locked = lockfile.read_lock(read_bounded(path))
    except (OSError, ValueError) as error:
        sentence = f"{path} cannot be read as a recipe's lock ({error}); give another"
        raise UsageError(sentence, kind="lock") from error
    copy = lockfile.venv_lock_beside(path)
    if "venv_lock" not in locked:
        fault = f"{path} has no venv to make again: `recipectl venv create` had not made it"
        raise UsageError(f"{fault}; give `--lock`", kind="lock")
    try:
        content = read_bounded(copy, lockfile.MAX_VENV_LOCK_BYTES)
    except OSError:
        content = b""
    if hashlib.sha256(content).hexdigest() != locked["venv_lock"]:
        fault = f"{copy} is missing, or is not what {path} was written with"
        raise UsageError(f"{fault}; put it back from where the recipe came from", kind="lock")
    return copy, Path(locked["interpreter"]).parent.parent
