"""Our unit files on disk. The only module that writes them."""

import contextlib
import errno
import fcntl
import os
from pathlib import Path
from typing import IO

from recipectl.errors import RecipectlError
from recipectl.systemd.unitfile import HELPERS, SECTION, SHARED, Unit

_DUE = ".recipectl.reload-due"
# Where else systemd looks for drop-ins, the nearest first.
BESIDE = tuple(
    Path(base, "systemd", kind)
    for kind in ("system", "user")
    for base in ("/etc", "/run", "/usr/local/lib", "/usr/lib")
)
_ENDINGS = (".service", ".socket", ".timer")


class Store:
    """The folder of unit files, and which of them are ours."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def read(self, name: str) -> str | None:
        """The text of one of our units; None when there is none of ours of that name."""
        try:
            text = (self.folder / name).read_bytes().decode(errors="surrogateescape")
        except FileNotFoundError:
            return None
        return text if SECTION in text else None

    def drop_ins(self, unit: str) -> dict[str, str]:
        """Path -> text of the drop-ins that systemd would read now, in its order (systemd.unit(5))."""
        stem, _, kind = unit.rpartition(".")
        parts = stem.split("-")
        prefixes = ("-".join(parts[:n]) for n in range(len(parts) - 1, 0, -1))
        template = [f"{stem.partition('@')[0]}@.{kind}.d"] if "@" in stem else []
        folders = (f"{unit}.d", *template, *(f"{prefix}-.{kind}.d" for prefix in prefixes), f"{kind}.d")
        found: dict[str, Path] = {}
        for folder in folders:
            for base in (self.folder, *(base for base in BESIDE if base.name == self.folder.name)):
                for path in sorted((base / folder).glob("*.conf")):
                    found.setdefault(path.name, path)
        there = (path for _, path in sorted(found.items()) if path.exists())
        return {str(path): path.read_text(errors="replace") for path in there}

    def names(self) -> tuple[str, ...]:
        """The services that are models, sorted; unlike `installed` it does not read them."""
        found = (path for path in self.folder.glob("model-*.service") if not path.stem.endswith(HELPERS))
        return tuple(sorted(path.name for path in found))

    def installed(self) -> dict[str, str]:
        """NAME -> text of every unit of ours."""
        names = [
            entry.name
            for entry in (os.scandir(self.folder) if self.folder.is_dir() else ())
            if entry.name.startswith("model-") and entry.name.endswith(_ENDINGS) and entry.is_file()
        ]
        found = {name: self.read(name) for name in sorted([*names, *SHARED])}
        return {name: text for name, text in found.items() if text is not None}

    def enabled(self) -> frozenset[str]:
        """The units that models.target wants, by their links."""
        wants = self.folder / "models.target.wants"
        return frozenset(path.name for path in wants.iterdir()) if wants.is_dir() else frozenset()

    def lock(self) -> IO[str]:
        """Wait for other applies to this folder to end; the lock goes with the file that is returned."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            file = (self.folder / ".recipectl.lock").open("w")
        except OSError as error:
            if error.errno == errno.EROFS:  # nobody else writes there either
                return Path(os.devnull).open("w")
            raise RecipectlError(
                f"{self.folder} cannot be written: {error.strerror}; are you root?"
            ) from error
        fcntl.flock(file, fcntl.LOCK_EX)
        return file

    @property
    def reload_due(self) -> bool:
        """Whether units were changed and systemd was not told: an apply was cut short in between."""
        return (self.folder / _DUE).exists()

    def owe_reload(self) -> None:
        """Remember, across a crash, that systemd has to be told."""
        (self.folder / _DUE).touch()
        _sync((self.folder,))

    def reloaded(self) -> None:
        """systemd was told."""
        (self.folder / _DUE).unlink(missing_ok=True)

    def sweep(self) -> None:
        """Remove temporary files that a killed apply has left; call it with the lock held."""
        for path in self.folder.glob(".model*.recipectl"):
            path.unlink(missing_ok=True)

    def write(self, *units: Unit) -> None:
        """Put units in place and make them last, each whole or not at all; what is there already stays.

        RecipectlError when one cannot be written, or is a file that is not ours; then none is changed.
        """
        present = {entry.name for entry in (os.scandir(self.folder) if self.folder.is_dir() else ())}
        there = {unit.name: self.read(unit.name) for unit in units if unit.name in present}
        for name, text in there.items():
            if text is None and (reason := self.taken(name)):
                raise RecipectlError(reason)
        units = tuple(unit for unit in units if there.get(unit.name) != unit.text)
        if not units:
            return
        # Not tempfile's, whose import costs more than a whole `status`.
        staged = {unit.name: self.folder / f".{unit.name}.{os.getpid()}.recipectl" for unit in units}
        name = self.folder.name
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            for unit in units:
                name = unit.name
                with staged[name].open("wb") as file:
                    os.fchmod(file.fileno(), 0o644)
                    file.write(unit.text.encode())
            _sync(tuple(staged.values()))
            for name, temporary in staged.items():
                temporary.replace(self.folder / name)
            _sync((self.folder,))  # a new name survives a power cut only when its folder was synced
        except OSError as error:
            for temporary in staged.values():
                with contextlib.suppress(OSError):
                    temporary.unlink()
            raise RecipectlError(
                f"{self.folder / name} could not be written: {error.strerror}; nothing was changed there"
            ) from error

    def taken(self, name: str) -> str | None:
        """Why a unit of this name cannot be ours, None when it can: somebody else's file is never touched."""
        path = self.folder / name
        if not os.path.lexists(path):
            return None
        if os.path.realpath(path) == "/dev/null":
            return f"{path} is masked; systemctl unmask {name}, or mask the recipe instead"
        if path.is_symlink() or (path.exists() and self.read(name) is None):
            return f"{path} was not written by recipectl; move it away or rename the recipe"
        return None

    def remove(self, name: str) -> None:
        """Remove one of our units."""
        try:
            (self.folder / name).unlink(missing_ok=True)
        except OSError as error:
            raise RecipectlError(f"{self.folder / name} could not be removed: {error.strerror}") from error


def _sync(paths: tuple[Path, ...]) -> None:
    """Make files or folders last. At once: the disk takes many together in the time of a few."""

    def each(some: tuple[Path, ...]) -> None:
        for path in some:
            descriptor = os.open(path, os.O_RDONLY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)

    if len(paths) < 10:
        each(paths)
        return
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(16) as pool:
        for _ in pool.map(each, (paths[n::16] for n in range(16))):
            pass
