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

from packaging.utils import canonicalize_name, canonicalize_version

from recipectl.errors import RecipectlError, UsageError
from recipectl.files import read_bounded
from recipectl.machine import distributions
from recipectl.machine.distributions import UNFINISHED, lock_of, site_packages
from recipectl.recipe.trusted import Trust
from recipectl.regular import open_regular

_MAX_RECORD_BYTES = 16 * 1024 * 1024
_MAX_FILE_BYTES = 8 * 1024**3  # the largest library of CUDA has 3 GiB; a file with holes may have any size
_HASHES = ("sha256", "sha384", "sha512")  # what the specification of RECORD allows
# What venv, virtualenv, uv and pip put into a venv themselves; systemd runs none of these.
_OWN_FILES = re.compile(
    r"pyvenv\.cfg|\.gitignore|\.lock|CACHEDIR\.TAG"
    r"|bin/(activate(\.[a-z]+|_this\.py)?|[Aa]ctivate\.ps1|deactivate(\.[a-z]+)?|pydoc\.bat)"
)
_PYTHON = re.compile(r"bin/(python|pypy|𝜋thon)[0-9.]*t?")
_BYTECODE = re.compile(r"(.*/)?__pycache__/([^/]+?)\.(cpython|pypy)[^/]*\.pyc")
# virtualenv records bytecode, and folders of it, that it has not made.
_MAY_BE_MISSING = re.compile(r".*\.pyc|(.*/)?__pycache__")
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
    by_path: dict[str, Status] = {}
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
                        by_path[name] = _BYTECODE_FILE  # half of all files, and none is read
                    else:
                        by_path[name] = _status(entry)
        except OSError as error:
            fault = f"{error.filename or venv / prefix} cannot be read ({error.strerror})"
            raise RecipectlError(f"{fault}; run it as root (sudo)") from error
    return by_path


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
        if not _MAY_BE_MISSING.fullmatch(name):  # it may be made again at any time
            findings.append(Finding("missing", name, f"{records[name][0].distribution} has it"))
    findings += _unowned(venv, files, records)
    findings += _of_the_interpreter(venv, files)
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
        is_record = name.endswith(f"{owner}.dist-info/RECORD")
        return None if is_record else Finding("unchecked", name, f"{owner} has it without a digest")
    if status.size > _MAX_FILE_BYTES:
        return Finding("unchecked", name, f"{owner} has it, and it is larger than 8 GiB")
    algorithms = {digest.partition("=")[0] for digest in digests}
    if not algorithms <= {*_HASHES}:
        return Finding("unchecked", name, f"{owner} has a digest of another kind than {', '.join(_HASHES)}")
    if any(_digest(venv / name, algorithm) in digests for algorithm in algorithms):
        return None
    return Finding("changed", name, f"{owner} has another content")


def recorded(digest: "hashlib._Hash") -> str:
    """A digest as RECORD spells it."""
    return f"{digest.name}={base64.urlsafe_b64encode(digest.digest()).rstrip(b'=').decode()}"


def _digest(path: Path, algorithm: str) -> str:
    """The digest of a file as RECORD spells it; RecipectlError for a file that is closed to us."""
    try:
        with open_regular(path, follow=False) as file:
            return recorded(hashlib.file_digest(file, algorithm))
    except OSError as error:
        raise RecipectlError(f"{path} cannot be read ({error.strerror}); run it as root (sudo)") from error


def _unowned(venv: Path, files: dict[str, Status], records: dict[str, list[_Record]]) -> Iterator[Finding]:
    sites = tuple(f"{site.relative_to(venv)}/" for site in site_packages(venv))
    for name in files.keys() - records.keys():
        below = next((name.removeprefix(site) for site in sites if name.startswith(site)), None)
        is_file = stat.S_ISREG(files[name].mode)
        if below in _VIRTUALENV and is_file and _digest(venv / name, "sha256") in _VIRTUALENV[below]:
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
        return None  # it is looked at with its pyvenv.cfg
    if name == "lib64" and stat.S_ISLNK(status.mode):
        return None if str((venv / name).readlink()) == "lib" else "it is a link to another folder than lib"
    bytecode = _BYTECODE.fullmatch(name)
    if bytecode and f"{bytecode[1] or ''}{bytecode[2]}.py" in files and stat.S_ISREG(status.mode):
        return None  # the source is looked at
    if _OWN_FILES.fullmatch(name) and stat.S_ISREG(status.mode):
        return None
    return "no distribution has it"


def _unlocked(venv: Path) -> Iterator[Finding]:
    """Distributions that are there twice, and how they differ from the lock that the venv was made from."""
    locked: dict[str, str | None] | None = None
    if os.path.lexists(lock_of(venv)):
        # pydantic is slow to import, and not needed where nothing was touched.
        from recipectl.venvs import request

        try:
            locked = request.pinned(lock_of(venv))
        except UsageError as error:
            yield Finding("unchecked", str(lock_of(venv)), str(error))
    for site in site_packages(venv):
        below = site.relative_to(venv)
        installed: dict[str, str] = {}
        for information in sorted(site.glob("*.dist-info")):
            written, _, version = information.name.removesuffix(".dist-info").partition("-")
            name, path = str(canonicalize_name(written)), f"{below}/{information.name}"
            if name in installed:
                yield Finding("unowned", path, f"{name} is there twice")
            elif locked is not None and (
                name not in locked or locked[name] not in (None, canonicalize_version(version))
            ):
                yield Finding("unlocked", path, f"{lock_of(venv)} does not have it")
            installed[name] = version
        for name in (locked or {}).keys() - installed.keys():
            yield Finding("missing", str(below), f"{lock_of(venv)} has {name}")


def _of_the_interpreter(venv: Path, files: dict[str, Status]) -> Iterator[Finding]:
    """The interpreter that pyvenv.cfg names, and the links to it or copies of it (venv --copies) in bin."""
    try:
        config = read_bounded(venv / "pyvenv.cfg", follow=False).decode()
        home = distributions.interpreter_folder(config)
        folder = Path(os.path.realpath(home)) if home else None
    except (OSError, ValueError):
        folder = None
    if folder is None or not folder.is_dir():
        yield Finding("changed", "pyvenv.cfg", "it names no folder of an interpreter")
        return
    if fault := Trust(frozenset({0, os.geteuid(), venv.stat().st_uid})).fault(folder / "python3"):
        yield Finding("changed", "pyvenv.cfg", f"it names an interpreter that is not safe: {fault}")
    if lock_of(venv).exists() and distributions.sees_system_packages(config):
        yield Finding("changed", "pyvenv.cfg", "it takes packages from outside the venv")
    for name in sorted(filter(_PYTHON.fullmatch, files)):
        if fault := _interpreter_fault(venv / name, folder, files[name]):
            yield Finding("unowned", name, fault)


def _interpreter_fault(python: Path, home: Path, status: Status) -> str | None:
    real = Path(os.path.realpath(python))
    bases = [path for path in home.glob("py*") if _PYTHON.fullmatch(f"bin/{path.name}")]
    if stat.S_ISLNK(status.mode) and any(real == Path(os.path.realpath(base)) for base in bases):
        return None
    if real.parent == python.parent and real.is_file():  # a copy, or a link to the copy
        digest = _digest(real, "sha256")
        if any(_digest(Path(os.path.realpath(base)), "sha256") == digest for base in bases if base.is_file()):
            return None
    return f"it is neither a link to an interpreter in {home} nor a copy of one"


def _kind(status: Status) -> str:
    return "a link" if stat.S_ISLNK(status.mode) else "neither a file nor a link"
