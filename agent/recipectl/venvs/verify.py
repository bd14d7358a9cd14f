"""Every file of a venv against the records of its distributions. Reads files, and runs nothing."""

import base64
import csv
import hashlib
import io
import os
import re
import stat
from collections import defaultdict
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

from packaging.utils import canonicalize_name

from recipectl.errors import RecipectlError, UsageError
from recipectl.files import read_bounded
from recipectl.machine.distributions import UNFINISHED, lock_of, site_packages, versions

_MAX_RECORD_BYTES = 16 * 1024 * 1024
_HASHES = ("sha256", "sha384", "sha512")  # what the specification of RECORD allows
# What venv, virtualenv, uv and pip put into a venv themselves; systemd runs none of these.
_OWN_FILES = re.compile(
    r"pyvenv\.cfg|\.gitignore|\.lock|CACHEDIR\.TAG|lib64"
    r"|bin/(activate(\.[a-z]+|_this\.py)?|[Aa]ctivate\.ps1|deactivate(\.[a-z]+)?|pydoc\.bat)"
)
_PYTHON = re.compile(r"bin/(python|pypy)[0-9.]*")
_BYTECODE = re.compile(r"(.*/)?__pycache__/([^/]+)\.[a-z]+-[0-9]+(\.opt-[12])?\.pyc")
# What an interpreter runs at every start, whatever it is started for (site(3)).
_RUN_AT_START = re.compile(r"([^/]+\.pth|(site|user)customize(\.py|/__init__\.py))")
# virtualenv (here: 20.24 to 20.36) and uv up to 0.12 put them there to mend distutils; digests as in RECORD.
_VIRTUALENV = {
    "_virtualenv.pth": {"sha256=aaw9jyfmecgblKsws7VunNE4IZsbqUofo2BtWnahQz0"},
    "_virtualenv.py": {
        "sha256=bPMMVvrypVIokU270X-AiO03HrsI9ef6b9kx-RP8rx0",
        "sha256=z7PbhqqlO7YrX_dklwvsLXHJIoWQoOvsV_bskmzAvxo",
        "sha256=CuuGVGNFwdD62gl1NuNVJXFNXNvMLY6z-ZEqlVBE_P8",
        "sha256=DyA1HqfpADnEbT-r3vmR8oseP_M-sT7m8NXNIeoOixQ",
        "sha256=vsYVX_e_yI-OeeSB8n_X7go7QO7Km_60H0xLmXsvgQA",
    },
}


class Finding(NamedTuple):
    """A file that is not as its record says.

    Kinds: changed, missing, unowned, at-start (unowned, and run whenever the interpreter starts), unlocked
    (a distribution that the lock beside the venv does not have), unchecked.
    """

    kind: str
    path: str
    detail: str


class Status(NamedTuple):
    """What tells whether a file was touched: mode, size, times in ns, inode; only the mode for bytecode."""

    mode: int
    size: int = 0
    mtime_ns: int = 0
    ctime_ns: int = 0
    inode: int = 0


_BYTECODE_FILE = Status(stat.S_IFREG)


class _Record(NamedTuple):
    distribution: str
    digest: str  # as RECORD has it: sha256=…; empty for what has none


def statuses(venv: Path) -> dict[str, Status]:
    """Every file of a venv that is no folder, by its path below it; RecipectlError for a closed folder."""
    found: dict[str, Status] = {}
    folders = [""]
    while folders:
        prefix = folders.pop()
        try:
            with os.scandir(venv / prefix) as entries:
                has_bytecode = prefix.endswith("__pycache__/")
                for entry in entries:
                    name = prefix + entry.name
                    if entry.is_dir(follow_symlinks=False):
                        folders.append(f"{name}/")
                    elif has_bytecode and name.endswith(".pyc") and entry.is_file(follow_symlinks=False):
                        found[name] = _BYTECODE_FILE  # half of all files, and none is read
                    else:
                        found[name] = _status(entry)
        except OSError as error:
            fault = f"{error.filename or venv / prefix} cannot be read ({error.strerror})"
            raise RecipectlError(f"{fault}; run it as root (sudo)") from error
    return found


def _status(entry: os.DirEntry[str]) -> Status:
    status = entry.stat(follow_symlinks=False)
    times = status.st_mtime_ns, status.st_ctime_ns
    return Status(status.st_mode, status.st_size, *times, status.st_ino)


def verify(venv: Path, files: dict[str, Status]) -> list[Finding]:
    """What differs between a venv and the records of its distributions, in the order of its paths."""
    if UNFINISHED in files:
        raise UsageError(f"{venv} is not finished; run `recipectl venv create` again", kind="runtime")
    records, findings = _records(venv)
    with ThreadPoolExecutor() as pool:
        names = [name for name in records if name in files and not _BYTECODE.fullmatch(name)]
        findings += filter(
            None, pool.map(lambda name: _changed(venv, name, files[name], records[name]), names)
        )
    for name in records.keys() - files.keys():
        if not _BYTECODE.fullmatch(name):  # it may be made again at any time
            findings.append(Finding("missing", name, f"{records[name][0].distribution} has it"))
    findings += _unowned(venv, files, records)
    findings += _unlocked(venv)
    return sorted(findings, key=lambda finding: (finding.path, finding.kind))


def _records(venv: Path) -> tuple[dict[str, list[_Record]], list[Finding]]:
    """Path -> what each distribution says about it, and the distributions that say nothing."""
    records: dict[str, list[_Record]] = defaultdict(list)
    findings = []
    for site in site_packages(venv):
        below = str(site.relative_to(venv))
        for information in sorted(site.glob("*.dist-info")):
            name = information.name.removesuffix(".dist-info")
            try:
                rows = [*_rows(information / "RECORD")]
            except (OSError, ValueError, csv.Error) as error:
                reason = error.strerror if isinstance(error, OSError) else "it is no table"
                path = f"{below}/{information.name}"
                findings.append(Finding("unchecked", path, f"its RECORD cannot be read: {reason}"))
                continue
            for path, digest in rows:
                joined = os.path.normpath(f"{below}/{path}")
                if joined.startswith(("../", "/")):
                    findings.append(Finding("unchecked", joined, f"{name} has it, outside the venv"))
                else:
                    records[joined].append(_Record(name, digest))
        for old in sorted((*site.glob("*.egg-info"), *site.glob("*.egg-link"))):
            findings.append(Finding("unchecked", f"{below}/{old.name}", "it has no RECORD"))
    return records, findings


def _rows(record: Path) -> Iterator[tuple[str, str]]:
    text = read_bounded(record, _MAX_RECORD_BYTES, follow=False).decode()
    for row in csv.reader(io.StringIO(text)):
        if row:
            yield row[0], row[1] if len(row) > 1 else ""


def _changed(venv: Path, name: str, status: Status, records: Iterable[_Record]) -> Finding | None:
    """None for a file that is as one of its distributions says: the last one installed has written it."""
    digests = {record.digest for record in records} - {""}
    owner = next(iter(records)).distribution
    if not stat.S_ISREG(status.mode):
        return Finding("changed", name, f"{owner} has a file there, and it is {_kind(status)}")
    if not digests:
        return None  # RECORD itself, and bytecode
    algorithms = {digest.partition("=")[0] for digest in digests}
    if not algorithms <= {*_HASHES}:
        return Finding("unchecked", name, f"{owner} has a digest of another kind than {', '.join(_HASHES)}")
    if any(_digest(venv / name, algorithm) in digests for algorithm in algorithms):
        return None
    return Finding("changed", name, f"{owner} has another content")


def _digest(path: Path, algorithm: str) -> str:
    """The digest of a file as RECORD spells it; RecipectlError for a file that is closed to us."""
    try:
        with os.fdopen(
            os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC), "rb"
        ) as file:
            digest = hashlib.file_digest(file, algorithm).digest()
    except OSError as error:
        raise RecipectlError(f"{path} cannot be read ({error.strerror}); run it as root (sudo)") from error
    return f"{algorithm}={base64.urlsafe_b64encode(digest).rstrip(b'=').decode()}"


def _unowned(venv: Path, files: dict[str, Status], records: dict[str, list[_Record]]) -> Iterator[Finding]:
    sites = tuple(f"{site.relative_to(venv)}/" for site in site_packages(venv))
    for name in files.keys() - records.keys():
        below = next((name.removeprefix(site) for site in sites if name.startswith(site)), None)
        if below in _VIRTUALENV and _digest(venv / name, "sha256") in _VIRTUALENV[below]:
            continue
        if below and _RUN_AT_START.fullmatch(below):
            yield Finding(
                "at-start", name, "no distribution has it, and every start of the interpreter runs it"
            )
        elif fault := _fault(venv, name, files[name], files):
            yield Finding("unowned", name, fault)


def _fault(venv: Path, name: str, status: Status, files: dict[str, Status]) -> str | None:
    """Why a file that no distribution has does not belong in a venv."""
    if _PYTHON.fullmatch(name):
        return _interpreter_fault(venv / name, status)
    bytecode = _BYTECODE.fullmatch(name)
    if bytecode and f"{bytecode[1] or ''}{bytecode[2]}.py" in files:
        return None  # the source is looked at
    if _OWN_FILES.fullmatch(name) and (stat.S_ISREG(status.mode) or name == "lib64"):
        return None
    return "no distribution has it"


def _unlocked(venv: Path) -> Iterator[Finding]:
    """How the distributions of a venv differ from the lock that it was made from; nothing without a lock."""
    if not lock_of(venv).is_file():
        return
    from recipectl.venvs import (
        request,  # pydantic is slow to import, and not needed where nothing was touched
    )

    locked = request.pinned(lock_of(venv))
    for site in site_packages(venv):
        below = site.relative_to(venv)
        installed = {(str(canonicalize_name(name)), version) for name, version in versions(str(site)).items()}
        for name, version in installed - locked:
            path = f"{below}/{name.replace('-', '_')}-{version}.dist-info"
            yield Finding("unlocked", path, f"{lock_of(venv)} does not have it")
        for name, version in locked - installed:
            yield Finding("missing", str(below), f"{lock_of(venv)} has {name} {version}")


def _interpreter_fault(python: Path, status: Status) -> str | None:
    """A link to an interpreter, or a copy of one (venv --copies), is a venv's own."""
    if stat.S_ISLNK(status.mode):
        return None if python.exists() else "it is a link to nothing"
    home = re.search(
        r"(?m)^home *= *(/\S+)", read_bounded(python.parents[1] / "pyvenv.cfg").decode(errors="replace")
    )
    base = Path(home[1] if home else "/usr/bin", "python3")
    same = _digest(python, "sha256") == _digest(Path(os.path.realpath(base)), "sha256")
    return None if same else f"it is no copy of {base}"


def _kind(status: Status) -> str:
    return "a link" if stat.S_ISLNK(status.mode) else "neither a file nor a link"
