"""The exact runtime of a recipe as NAME.lock records it, and how two such records differ.

Standard library only: the helper of the units reads it too, just before an engine starts.
"""

import hashlib
import io
import json
import os
import re
import stat
from collections.abc import Collection, Mapping
from itertools import islice
from pathlib import Path
from typing import NotRequired, TypedDict

from recipectl.machine.distributions import lock_of, python_version, versions
from recipectl.regular import open_regular

# Besides the engine, its numbers and kernels come from these distributions: a lock records them all.
_NUMERICS = re.compile(
    r"(torch|triton|nvidia_|cuda_|cupy|flashinfer|flash_attn|flash_mla|xformers|sgl_|sglang_kernel|deep_gemm|deep_ep"
    r"|vllm_|xgrammar|tilelang|aiter|transformers\Z|tokenizers\Z|numpy\Z)",
    re.I,
)


NO_DIGEST = "none"
_MAX_BYTES = 512 * 1024 * 1024  # of an interpreter
_MAX_RECORD_BYTES = 16 * 1024 * 1024  # the longest is that of torch: 2 MiB
MAX_VENV_LOCK_BYTES = 16 * 1024 * 1024  # that of vLLM has 0.4 MiB
VENV_LOCK_HEADER = (
    "# Made by `recipectl venv create`; `recipectl venv create --lock FILE` makes the same again.\n"
)
_MAX_DISTRIBUTIONS = 300
_MAX_FILES = 100  # of one kind beside an engine


class Distribution(TypedDict):
    """One installed wheel; `record` is the SHA-256 of its RECORD, which names the digest of every file."""

    version: str
    record: str


class Lock(TypedDict):
    """A runtime: the content of a NAME.lock."""

    interpreter: str
    interpreter_file: str
    interpreter_sha256: str
    python_version: str | None
    folder: str | None
    distributions: dict[str, Distribution]
    # Earlier releases have recorded none of these. File name -> SHA-256, and that of the venv's lock.
    libraries: NotRequired[dict[str, str]]
    at_start: NotRequired[dict[str, str]]  # what every start of the interpreter runs
    venv_lock: NotRequired[str]  # of a venv that `recipectl venv create` has made


def is_recorded(name: str, engine: Collection[str]) -> bool:
    """True if a lock records a distribution of this name (lower case, `_`)."""
    return name in engine or bool(_NUMERICS.match(name))


def record(interpreter: str, folder: str | None, engine: Collection[str]) -> Lock:
    """The exact runtime now; `engine` are the distribution names that the engine may have."""
    real = Path(os.path.realpath(interpreter))
    distributions: dict[str, Distribution] = {}
    for name, version in versions(folder).items() if folder else ():
        if is_recorded(name, engine) and len(distributions) < _MAX_DISTRIBUTIONS:
            distributions[name] = {
                "version": version,
                "record": _record_digest(Path(folder or ""), name, version),
            }
    lock: Lock = {
        "interpreter": interpreter,
        "interpreter_file": str(real),
        "interpreter_sha256": digest(real),
        "python_version": python_version(interpreter),
        "folder": folder,
        "distributions": distributions,
        "libraries": {} if folder else {path.name: digest(path) for path in libraries(real)},
        "at_start": {path.name: digest(path) for path in at_start(folder)},
    }
    venv_lock = own_venv_lock(Path(interpreter).parent.parent) if folder else None
    if venv_lock is not None:
        lock["venv_lock"] = hashlib.sha256(venv_lock).hexdigest()
    return lock


def own_venv_lock(venv: Path) -> bytes | None:
    """The lock that `venv create` has left beside a venv; None where there is none of root's or the caller's.

    Another's folder may have anything there: a link to a file that only root reads, or words for root's uv.
    """
    file = _opened(lock_of(venv), MAX_VENV_LOCK_BYTES, follow=False)
    if file is None:
        return None
    with file:
        owner, content = os.fstat(file.fileno()).st_uid, file.read(MAX_VENV_LOCK_BYTES)
    is_own = owner in (0, os.geteuid()) and content.startswith(VENV_LOCK_HEADER.encode())
    return content if is_own else None


def libraries(program: Path) -> list[Path]:
    """The shared libraries beside a program: llama.cpp has its kernels there."""
    files = (path for path in sorted(program.parent.glob("lib*.so*")) if os.path.isfile(path))  # noqa: PTH113
    return [*islice(files, _MAX_FILES)]


def at_start(folder: str | None) -> list[Path]:
    """What every start of the interpreter runs in a folder of distributions (site(3))."""
    names = (".pth", "sitecustomize.py", "usercustomize.py")
    files = (path for path in sorted(Path(folder).glob("*")) if path.name.endswith(names)) if folder else ()
    return [*islice(files, _MAX_FILES)]


def venv_lock_beside(lock: Path) -> Path:
    """The copy of its venv's lock that stays with a NAME.lock, to make the venv again anywhere."""
    return lock.with_name(f"{lock.name}.txt")


def _record_digest(folder: Path, name: str, version: str) -> str:
    lower_name = f"{name}-{version}.dist-info".lower()
    dist_info = next((entry for entry in os.listdir(folder) if entry.lower() == lower_name), None)  # noqa: PTH208  (names)
    return digest(folder / dist_info / "RECORD", _MAX_RECORD_BYTES) if dist_info else NO_DIGEST


def digest(path: Path, limit: int = _MAX_BYTES) -> str:
    """The SHA-256 of a regular file in somebody's venv; `none` for a pipe, and for what is absurdly large.

    `none` too for a private file: a link in a venv may lead to one, and a digest tells what is in it.
    """
    file = _opened(path, limit)
    if file is None:
        return NO_DIGEST
    with file:
        try:
            return hashlib.file_digest(file, "sha256").hexdigest() if _is_public(path, file) else NO_DIGEST
        except OSError:
            return NO_DIGEST


def _opened(path: Path, limit: int, *, follow: bool = True) -> io.BufferedReader | None:
    """A regular file of at most `limit` bytes; None for anything else, and for what cannot be opened."""
    try:
        file = open_regular(path, follow=follow)
    except OSError:
        return None
    if os.fstat(file.fileno()).st_size <= limit:
        return file
    file.close()
    return None


def _is_public(path: Path, file: io.BufferedReader) -> bool:
    """True if everybody, or the owner of the folder (unless that is root), can read a file."""
    status, folder = os.fstat(file.fileno()), path.parent.stat()
    is_as_folder = (status.st_uid, status.st_gid) == (folder.st_uid, folder.st_gid)
    is_for_group = status.st_gid != 0 and bool(status.st_mode & stat.S_IRGRP)
    return bool(status.st_mode & stat.S_IROTH) or (is_as_folder and (status.st_uid != 0 or is_for_group))


def read_lock(content: bytes) -> Lock:
    """The content of a NAME.lock; ValueError when it is not one."""
    try:
        data = json.loads(content)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error
    missing = Lock.__required_keys__ - {*(data if isinstance(data, dict) else ())}
    if missing:
        raise ValueError(f"it lacks {', '.join(sorted(missing))}")
    distributions = data["distributions"]
    entries = distributions.values() if isinstance(distributions, dict) else [None]
    if not all(isinstance(entry, dict) and {*Distribution.__annotations__} <= {*entry} for entry in entries):
        raise ValueError("its distributions are not names with a version and a record")
    texts = [data[key] for key in ("interpreter", "interpreter_file", "interpreter_sha256")]
    texts += [value for entry in distributions.values() for value in entry.values()]
    for key in ("libraries", "at_start"):
        digests = data.get(key, {})
        if not isinstance(digests, dict):
            raise ValueError(f"its {key} are not names with a digest")
        texts += digests.values()
    texts.append(data.get("venv_lock", ""))
    texts += [data[key] or "" for key in ("python_version", "folder")]
    if not all(isinstance(value, str) for value in texts):
        raise ValueError("it has values that are no text")
    lock: Lock = data
    return lock


def differences(locked: Lock, current: Lock) -> list[str]:
    """One clause for each difference between the lock and the runtime now."""
    clauses = _interpreter_differences(locked, current)
    before, after = locked["distributions"], current["distributions"]
    for name in sorted({*before, *after}):
        if clause := _distribution_difference(name, before.get(name), after.get(name)):
            clauses.append(clause)
    if "libraries" in locked:
        clauses += _file_differences(locked["libraries"], current.get("libraries", {}))
    if "at_start" in locked:
        clauses += _file_differences(locked["at_start"], current.get("at_start", {}))
    if "venv_lock" in locked and locked["venv_lock"] != current.get("venv_lock"):
        clauses.append("the lock beside the venv is another, or is gone")
    return _printable(clauses)


def without_digest(lock: Lock) -> list[str]:
    """The parts of a runtime whose content is not in its lock: others cannot read it, or it is no file."""
    names = [lock["interpreter_file"]] if lock["interpreter_sha256"] == NO_DIGEST else []
    names += [name for name, entry in lock["distributions"].items() if entry["record"] == NO_DIGEST]
    beside = lock.get("libraries", {}) | lock.get("at_start", {})
    names += [name for name, digest in beside.items() if digest == NO_DIGEST]
    return _printable(names)


def _printable(texts: list[str]) -> list[str]:
    """A file in somebody's venv may have any name: a line feed in it must not begin a line of the output."""
    return ["".join(char if char.isprintable() else "?" for char in text) for text in texts]


def _file_differences(before: Mapping[str, str], after: Mapping[str, str]) -> list[str]:
    clauses = [f"{name} is gone" for name in sorted(before.keys() - after.keys())]
    clauses += [f"{name} is new" for name in sorted(after.keys() - before.keys())]
    common = sorted(before.keys() & after.keys())
    return clauses + [f"{name} has another content" for name in common if before[name] != after[name]]


def _interpreter_differences(locked: Lock, current: Lock) -> list[str]:
    pairs = (
        ("the interpreter", locked["interpreter"], current["interpreter"]),
        ("the interpreter's real file", locked["interpreter_file"], current["interpreter_file"]),
        ("Python", locked["python_version"], current["python_version"]),
        ("the folder of the engine", locked["folder"], current["folder"]),
    )
    clauses = [f"{part} was {before} and is {after}" for part, before, after in pairs if before != after]
    if not clauses and locked["interpreter_sha256"] != current["interpreter_sha256"]:
        clauses.append(f"{current['interpreter_file']} is another build of the same program")
    return clauses


def _distribution_difference(
    name: str, before: Distribution | None, after: Distribution | None
) -> str | None:
    if before and not after:
        return f"{name} {before['version']} is gone"
    if after and not before:
        return f"{name} {after['version']} is new"
    if before and after and before["version"] != after["version"]:
        return f"{name} was {before['version']} and is {after['version']}"
    if before and after and before["record"] != after["record"]:
        return f"{name} {after['version']} was installed again with other files"
    return None
