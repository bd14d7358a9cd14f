"""What is installed beside an interpreter, read from the disk alone, and how two such states differ.

Standard library only: the units' helper reads it too, just before an engine starts.
"""

import hashlib
import json
import re
from collections.abc import Collection
from pathlib import Path
from typing import TypedDict

# What an engine's numbers and kernels come from besides itself: a lock records them all.
_BELOW = re.compile(
    r"(torch|triton|nvidia_|cuda_|cupy|flashinfer|flash_attn|flash_mla|xformers|sgl_|sglang_kernel|deep_gemm|deep_ep"
    r"|vllm_|xgrammar|tilelang|aiter|transformers\Z|tokenizers\Z|numpy\Z)",
    re.I,
)


class Distribution(TypedDict):
    """One installed wheel; `record` is the SHA-256 of its RECORD, so it names every file's digest."""

    version: str
    record: str


class Locked(TypedDict):
    """A runtime as it was found: the content of a NAME.lock."""

    interpreter: str
    interpreter_file: str
    interpreter_sha256: str
    python_version: str | None
    folder: str | None
    distributions: dict[str, Distribution]


def python_version(python: str) -> str | None:
    """The version of a venv's interpreter, without running it.

    pyvenv.cfg is written once: after an upgrade of the distribution the file behind the link is the truth.
    """
    real, cfg = Path(python).resolve(), Path(python).parent.parent / "pyvenv.cfg"
    named = re.match(r"python(3\.[0-9]+)", real.name)
    found = None
    if cfg.is_file():
        found = re.search(r"^version(?:_info)? *= *([0-9]+\.[0-9]+[0-9.]*)", cfg.read_text(), re.M)
    if found and (not named or re.match(rf"{re.escape(named[1])}(\.|\Z)", found[1])):
        return found[1].rstrip(".")
    return named[1] if named else None


def meets(version: str | None, specifier: str) -> bool:
    """Whether an installed version is one of a PEP 440 specifier; one that is no PEP 440 version is not."""
    from packaging.specifiers import SpecifierSet
    from packaging.version import InvalidVersion, Version

    try:
        # The public part alone, on both sides: a build says 0.32.0+cpu where a recipe says ==0.32.0.
        public = Version(version or "").public
    except InvalidVersion:
        return False
    return SpecifierSet(re.sub(r"\+[A-Za-z0-9.]+", "", specifier)).contains(public, prereleases=True)


def versions(folder: str) -> dict[str, str]:
    """Distribution (lower case, `_`) -> version, from the names of the dist-info folders."""
    found = {}
    for path in sorted(Path(folder).glob("*.dist-info")):
        name, _, version = path.name.removesuffix(".dist-info").partition("-")
        found[name.lower()] = version
    return found


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def counts(name: str, engine: Collection[str]) -> bool:
    """Whether a distribution's name (lower case, `_`) is one that a lock records."""
    return name in engine or bool(_BELOW.match(name))


def facts(interpreter: str, folder: str | None, engine: tuple[str, ...]) -> Locked:
    """The exact runtime; `engine` are the distribution names that an engine may have."""
    real = Path(interpreter).resolve()
    found: dict[str, Distribution] = {}
    for name, version in versions(folder).items() if folder else ():
        if counts(name, engine):
            records = [path for path in Path(folder or "").glob(f"*-{version}.dist-info/RECORD")
                       if path.parent.name.lower() == f"{name}-{version}.dist-info".lower()]  # fmt: skip
            found[name] = {"version": version, "record": _digest(records[0]) if records else "none"}
    return {
        "interpreter": interpreter,
        "interpreter_file": str(real),
        "interpreter_sha256": _digest(real) if real.is_file() else "none",
        "python_version": python_version(interpreter),
        "folder": folder,
        "distributions": found,
    }


def read_lock(path: Path) -> Locked:
    """The content of a NAME.lock; ValueError when it is none."""
    found = json.loads(path.read_text())
    lacks = {*Locked.__annotations__} - {*(found if isinstance(found, dict) else ())}
    if lacks or not isinstance(found["distributions"], dict):
        raise ValueError(f"it lacks {', '.join(sorted(lacks)) or 'distributions'}")
    lock: Locked = found
    return lock


def differences(locked: Locked, now: Locked) -> list[str]:
    """One clause for each thing that is not as it was locked."""
    said = []
    names = (("interpreter", "the interpreter"), ("interpreter_file", "the interpreter's real file"))
    for key, words in (*names, ("python_version", "Python"), ("folder", "the folder of the engine")):
        if locked.get(key) != now.get(key):
            said.append(f"{words} was {locked.get(key)} and is {now.get(key)}")
    if not said and locked["interpreter_sha256"] != now["interpreter_sha256"]:
        said.append(f"{now['interpreter_file']} is another build of the same program")
    old, new = locked["distributions"], now["distributions"]
    for name in sorted({*old, *new}):
        if name not in new:
            said.append(f"{name} {old[name]['version']} is gone")
        elif name not in old:
            said.append(f"{name} {new[name]['version']} is new")
        elif old[name]["version"] != new[name]["version"]:
            said.append(f"{name} was {old[name]['version']} and is {new[name]['version']}")
        elif old[name]["record"] != new[name]["record"]:
            said.append(f"{name} {new[name]['version']} was installed again with other files")
    return said
