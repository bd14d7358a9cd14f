"""What this host has on its disk, and what the network says of hosts. Never runs a program."""

import os
import re
import stat
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from recipectl.files import read_bounded
from recipectl.machine import distributions, network
from recipectl.machine.distributions import ENGINE_DISTRIBUTIONS
from recipectl.regular import open_regular


def fingerprint(path: str) -> str:
    """A path's mode, owner, group, size and mtime in ns, joined by `:`; empty when nothing is there."""
    try:
        status = os.stat(path)  # noqa: PTH116  (a thousand of them)
    except (OSError, ValueError):  # a NUL is in no path
        return ""
    return f"{status.st_mode:o}:{status.st_uid}:{status.st_gid}:{status.st_size}:{status.st_mtime_ns}"


class Node(NamedTuple):
    """Mode, owner and group of a path; all are 0 where nothing is there."""

    mode: int = 0
    owner: int = 0
    group: int = 0


class Disk:
    """Looks at each path of the disk once. `fingerprints` has them all, so that a cache can check again."""

    def __init__(self, content: Callable[[Path], bytes] = read_bounded) -> None:
        self.content = content
        self.fingerprints: dict[str, str] = {}
        self.answers: dict[str, str] = {}  # of the network
        self.runtimes: dict[object, Any] = {}  # of runtime.resolve: many recipes share a runtime
        self.closed_folders: dict[tuple[str, tuple[str, ...], str], str | None] = {}  # see access.py
        self.names = cache(self._names)
        self.real = cache(_real)
        self.python_version = cache(distributions.python_version)
        self.engine_distribution = cache(self._engine_distribution)

    def fingerprint(self, path: Path | str) -> str:
        """The fingerprint of a path; empty when nothing is there."""
        text = str(path)
        if text not in self.fingerprints:
            self.fingerprints[text] = fingerprint(text)
        return self.fingerprints[text]

    def node(self, path: Path | str) -> Node:
        """What a path is, and whose."""
        mode, *ids = self.fingerprint(path).split(":")
        return Node(int(mode, 8), *map(int, ids[:2])) if mode else Node()

    def answer(self, question: str) -> str:
        """What the network says of hosts (machine/network), asked once."""
        if question not in self.answers:
            self.answers[question] = network.answer(question)
        return self.answers[question]

    def is_executable(self, path: Path) -> bool:
        """True if systemd could execute this file."""
        mode = self.node(path).mode
        return stat.S_ISREG(mode) and bool(mode & 0o111)

    def is_folder(self, path: Path) -> bool:
        """True for a folder, and for a link to one."""
        return stat.S_ISDIR(self.node(path).mode)

    def _names(self, folder: Path) -> tuple[str, ...]:
        """The names in a folder, sorted; none when there is no such folder."""
        try:
            return tuple(sorted(os.listdir(folder))) if self.fingerprint(folder) else ()  # noqa: PTH208  (names)
        except OSError:  # a file, or a folder that is closed to us
            return ()

    def engine_version(self, program: Path | None, engine: str) -> str | None:
        """The engine's version from the name of its dist-info folder; nothing is imported."""
        return self.engine_distribution(program, engine)[0]

    def _engine_distribution(self, program: Path | None, engine: str) -> tuple[str | None, Path | None]:
        """(version, the folder it is installed in) for an interpreter or a script; else None, None."""
        for folder in self.site_packages(program) if program else ():
            for distribution in ENGINE_DISTRIBUTIONS[engine]:
                pattern = re.escape(distribution) + r"-([0-9][^-]*)\.dist-info\Z"
                for name in self.names(folder):
                    if match := re.match(pattern, name, re.I):
                        return match[1], folder
        return None, None

    def site_packages(self, program: Path) -> tuple[Path, ...]:
        """The folders that an interpreter, or the interpreter of a script, imports distributions from."""
        python = interpreter_of(program) or program
        venv = self.venv(python)
        if venv is None:
            # pip of a system Python installs packages and scripts in /usr/local or ~/.local.
            system = python.parent.parent
            debian = [Path("/usr/local")] if system == Path("/usr") else []
            return self._packages([program.parent.parent, *debian, system], python)
        folders = self._packages([venv], python)
        config = distributions.text_of(venv / "pyvenv.cfg")
        if distributions.sees_system_packages(config):
            home = distributions.interpreter_folder(config)
            base = Path(home, "python3") if home else None
            # A venv of a venv is none: its base is a Python of its own, and a circle would never end.
            folders += self.site_packages(base) if base and not self.venv(base) else ()
        return folders

    def _packages(self, prefixes: list[Path], python: Path) -> tuple[Path, ...]:
        version = self.python_version(python)
        # An upgrade may have left the folder of another Python behind.
        own = f"python{'.'.join(version.split('.')[:2])}" if version else None
        return tuple(
            prefix / lib / python3 / packages
            for prefix in dict.fromkeys(prefixes)
            for lib in ("lib", "lib64")
            for python3 in self.names(prefix / lib)
            if python3 in ("python3", own or python3) and python3.startswith("python3")
            for packages in ("site-packages", "dist-packages")
            if self.fingerprint(prefix / lib / python3 / packages)
        )

    def same_folder(self, folder: Path, other: Path) -> bool:
        """True if two paths are the same folder."""
        return folder == other or self.real(folder) == self.real(other)

    def venv(self, python: Path | None) -> Path | None:
        """The venv that an interpreter belongs to; None when it belongs to none."""
        # Never Path.resolve(): a venv's python is a link to the base interpreter, which is outside the venv.
        has_config = python and self.fingerprint(python.parent.parent / "pyvenv.cfg")
        return python.parent.parent if python and has_config else None

    def which(self, name: str, folders: tuple[str, ...]) -> tuple[Path, ...]:
        """Every executable of a name in the folders, in their order."""
        return tuple(Path(folder, name) for folder in folders if self.is_executable(Path(folder, name)))


def _real(path: Path) -> str:
    """The file behind every link."""
    return os.path.realpath(path)


def interpreter_of(program: Path) -> Path | None:
    """The python itself, or the python that the first lines of a script start; None when they start none."""
    if re.match(r"python[0-9.]*\Z", program.name):
        return program
    try:
        with open_regular(program) as file:
            first, second = (os.fsdecode(file.readline(4096)) for _ in range(2))
    except OSError:
        return None
    # A path with blanks, or a long path, does not fit into a first line: pip and uv then go through sh.
    through_sh = (
        re.match(r"'''exec'\s+(\"?)(/.+?)\1\s+\"\$0\"", second) if first.strip() == "#!/bin/sh" else None
    )
    direct = re.match(r"#!\s*(\S+)", first)
    python = Path((through_sh[2] if through_sh else direct[1] if direct else "").replace("\0", ""))
    return python if python.is_absolute() and python.name.startswith("python") else None
