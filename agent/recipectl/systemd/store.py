"""The unit files of recipectl on disk. The only module that writes units of models."""

import contextlib
import errno
import fcntl
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import IO

from recipectl.errors import RecipectlError
from recipectl.files import SUFFIX, failures_named, read_bounded, remove, sync, write_whole
from recipectl.place import Place
from recipectl.systemd.unitfile import (
    GATEWAY,
    SECTION,
    SLICE,
    TARGET,
    InstalledUnit,
    Unit,
    is_companion,
    is_model_unit,
)

_RELOAD_DUE = ".recipectl.reload-due"
# Where else systemd looks for drop-ins, the nearest first (systemd.unit(5)).
SEARCH_PATH = tuple(
    Path(base, "systemd", kind)
    for kind in ("system", "user")
    for base in ("/etc", "/run", "/usr/local/lib", "/usr/lib")
)
# What `systemctl set-property` writes wins over all of these.
_CONTROL = (Path("/etc/systemd/system.control"), Path("/run/systemd/system.control"))
_SILENT_WAIT_SEC = 2
_MAX_BYTES = 64 * 1024 * 1024  # a unit that is too long for systemd can be removed
_ENDINGS = (".service", ".socket", ".timer")


class Store:
    """The folder of unit files, and which of them recipectl wrote."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def read(self, name: str) -> InstalledUnit | None:
        """A unit that recipectl wrote; None when there is no such file, or when somebody else wrote it."""
        text = self._text(name)
        return None if text is None else InstalledUnit(name, text)

    def _text(self, name: str) -> str | None:
        path = self.folder / name
        try:
            with failures_named("read", path):
                text = read_bounded(path, _MAX_BYTES).decode(errors="surrogateescape")
        except RecipectlError:
            if not path.exists() or os.path.realpath(path) == os.devnull:  # a masked unit is nobody's
                return None
            raise
        return text if SECTION in text else None

    def installed(self) -> dict[str, InstalledUnit]:
        """Every unit that recipectl wrote, by name."""
        names = sorted(
            entry.name for entry in self._entries()
            if entry.name.startswith("model-") and entry.name.endswith(_ENDINGS) and entry.is_file()
        )  # fmt: skip
        units = (self.read(name) for name in (*names, SLICE, TARGET, GATEWAY))
        return {unit.name: unit for unit in units if unit}

    def _entries(self) -> tuple[os.DirEntry[str], ...]:
        with failures_named("read", self.folder):
            if not self.folder.is_dir():
                return ()
            with os.scandir(self.folder) as entries:
                return tuple(entries)

    def services(self) -> tuple[str, ...]:
        """All model services by name, whoever wrote them. Unlike `installed` it reads no file."""
        names = (entry.name for entry in self._entries())
        services = (name for name in names if is_model_unit(name))
        return tuple(sorted(name for name in services if not is_companion(name)))

    def enabled(self) -> frozenset[str]:
        """The units that models.target wants, by the links in its folder."""
        wants = self.folder / f"{TARGET}.wants"
        with failures_named("read", wants):
            return frozenset(path.name for path in wants.iterdir()) if wants.is_dir() else frozenset()

    def drop_ins(self, unit: str) -> dict[str, str]:
        """Path -> text of the drop-ins that systemd would read now, in its order (systemd.unit(5))."""
        stem, _, kind = unit.rpartition(".")
        parts = stem.split("-")
        prefixes = ("-".join(parts[:count]) for count in range(len(parts) - 1, 0, -1))
        template = [f"{stem.partition('@')[0]}@.{kind}.d"] if "@" in stem else []
        folders = (f"{unit}.d", *template, *(f"{prefix}-.{kind}.d" for prefix in prefixes), f"{kind}.d")
        kind_folders = [base for base in SEARCH_PATH if base.name == self.folder.name]
        control = _CONTROL if self.folder in kind_folders and self.folder.name == "system" else ()
        bases = (*control, self.folder, *kind_folders)
        by_name: dict[str, Path] = {}
        for folder in folders:
            for base in bases:
                for path in sorted((base / folder).glob("*.conf")):
                    by_name.setdefault(path.name, path)
        # A link to nothing, or to /dev/null, masks the drop-ins of its name.
        paths = (path for _, path in sorted(by_name.items()) if path.exists())
        with failures_named("read", self.folder):
            return {str(path): path.read_text(errors="replace") for path in paths}

    def reason_not_ours(self, name: str, remedy: str = "move it away or rename the recipe") -> str | None:
        """Why recipectl must not write a unit of this name; None when it may."""
        path = self.folder / name
        if not os.path.lexists(path):
            return None
        if os.path.realpath(path) == "/dev/null":
            unmask = Place(self.folder.name == "user").systemctl(f"unmask {name}")
            return f"{path} is masked; run `{unmask}`"
        if path.is_symlink() or (path.exists() and self.read(name) is None):
            return f"{path} was not written by recipectl; {remedy}"
        return None

    def lock(self, report_wait: Callable[[Path], None]) -> IO[str]:
        """Wait for other applies to this folder to end. Closing the returned file ends the lock.

        `report_wait` is called with the lock's path when that takes more than a moment.
        """
        path = self.folder / ".recipectl.lock"
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
            file = os.fdopen(os.open(path, flags, 0o600), "w")
        except OSError as error:
            if error.errno == errno.EROFS:  # nobody else can write there either
                return Path(os.devnull).open("w")
            with failures_named("written", self.folder):
                raise
        os.fchmod(file.fileno(), 0o600)  # who may open it may hold the lock; older versions let everybody
        _wait_for_lock(file, lambda: report_wait(path))
        return file

    @property
    def reload_due(self) -> bool:
        """True if units were changed and systemd was not told: an apply was killed in between."""
        return (self.folder / _RELOAD_DUE).exists()

    def note_reload_due(self) -> None:
        """Remember, across a crash, that systemd must be reloaded."""
        path = self.folder / _RELOAD_DUE
        with failures_named("written", path):
            self.folder.mkdir(parents=True, exist_ok=True)
            path.touch()
        sync((self.folder,))

    def note_reloaded(self) -> None:
        """Remember that systemd was reloaded."""
        remove(self.folder / _RELOAD_DUE)

    def remove_temporary_files(self) -> None:
        """Remove what a killed apply left behind. Call it with the lock held."""
        for path in self.folder.glob(f".model*{SUFFIX}"):
            remove(path)

    def write(self, *units: Unit) -> None:
        """Put units in place so that they last, each whole or not at all; an equal file stays untouched.

        RecipectlError when a unit cannot be written, or when somebody else wrote the file of its name; then
        none is changed.
        """
        present = {entry.name for entry in self._entries()}
        texts = {unit.name: self._text(unit.name) for unit in units if unit.name in present}
        for name, text in texts.items():
            if text is None and (reason := self.reason_not_ours(name)):
                raise RecipectlError(reason)
        changed = (unit for unit in units if texts.get(unit.name) != unit.text)
        write_whole({self.folder / unit.name: unit.text for unit in changed}, durable=True)

    def remove_link(self, name: str) -> None:
        """Disable a unit that systemd cannot read."""
        remove(self.folder / f"{TARGET}.wants" / name)

    def remove(self, name: str) -> None:
        """Remove a unit that recipectl wrote."""
        remove(self.folder / name)


def _wait_for_lock(file: IO[str], report_wait: Callable[[], None]) -> None:
    deadline = time.monotonic() + _SILENT_WAIT_SEC
    while time.monotonic() < deadline:
        with contextlib.suppress(BlockingIOError):
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        time.sleep(0.05)
    report_wait()
    fcntl.flock(file, fcntl.LOCK_EX)
