"""Our unit files on disk. The only module that writes them."""

import contextlib
import os
import tempfile
from pathlib import Path

from recipectl.errors import RecipectlError
from recipectl.unitfile import SECTION, Unit

_SHARED = ("models.target", "models.slice")


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
        return text if name in _SHARED or SECTION in text else None

    def installed(self) -> dict[str, str]:
        """NAME -> text of every unit of ours."""
        names = [path.name for path in self.folder.glob("model-*.service") if path.is_file()]
        found = {name: self.read(name) for name in sorted([*names, *_SHARED])}
        return {name: text for name, text in found.items() if text is not None}

    def write(self, unit: Unit) -> None:
        """Put a unit in place whole or not at all; a file that is not ours is refused."""
        target = self.folder / unit.name
        if target.exists() and self.read(unit.name) is None:
            raise RecipectlError(f"{target} was not written by recipectl; move it away or rename the recipe")
        temporary = ""
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            descriptor, temporary = tempfile.mkstemp(dir=self.folder, prefix=f".{unit.name}.")
            with os.fdopen(descriptor, "wb") as file:
                file.write(unit.text.encode())
                file.flush()
                os.fchmod(file.fileno(), 0o644)
                os.fsync(file.fileno())
            Path(temporary).replace(target)
        except OSError as error:
            with contextlib.suppress(OSError):
                Path(temporary).unlink()
            raise RecipectlError(
                f"{target} could not be written: {error.strerror}; nothing was changed there"
            ) from error

    def remove(self, name: str) -> None:
        """Remove one of our units."""
        try:
            (self.folder / name).unlink()
        except OSError as error:
            raise RecipectlError(f"{self.folder / name} could not be removed: {error.strerror}") from error
