"""How recipectl and systemd are installed here, as far as a unit depends on it."""

import contextlib
import os
import re
import sys
from pathlib import Path
from typing import NamedTuple

import recipectl
from recipectl.errors import RecipectlError
from recipectl.machine import helperfile
from recipectl.place import Place
from recipectl.recipe.trusted import Trust

# packaging/throwaway-systemd makes it, as root, in systems that end with the command: nothing there lasts.
_THROWAWAY = Path("/run/throwaway")
_SYSTEM_PYTHON = "/usr/bin/python3"
OLDEST_SYSTEMD = 252  # the oldest that is supported
PCI_VENDORS = {"cuda": "0x10de", "rocm": "0x1002"}  # as /sys/bus/pci/devices/*/vendor has them


class Installation(NamedTuple):
    """The command of the helper, whether a user's manager runs the units, and systemd's major version."""

    helper: tuple[str, ...]
    user: bool = False
    systemd_version: int = OLDEST_SYSTEMD
    gpu_vendors: tuple[str, ...] = ()  # the PCI ids of those whose cards are in this host

    @property
    def place(self) -> Place:
        """The system, or the user, that the units are for."""
        return Place(self.user)


def current_installation(place: Place) -> Installation:
    """The installation that runs now; RecipectlError on a host without a Python that units can rely on."""
    # The system's own Python: recipectl's venv may be upgraded or moved, and may belong to anybody.
    python = _SYSTEM_PYTHON
    if not os.access(python, os.X_OK):
        if not place.user:
            raise RecipectlError(f"units run their helper with {python}, which is missing; install python3")
        python = sys.executable
    helper = (python, "-I", "-S", str(helperfile.path(place)))
    return Installation(helper, place.user, systemd_version(), gpu_vendors())


def refuse_if_others_can_write() -> None:
    """RecipectlError when somebody besides root can change a file that this process has loaded.

    What an apply by root writes is decided by these files: who can write them becomes root with the next one.
    """
    if _THROWAWAY.is_dir():
        return
    trust = Trust(frozenset({0}))
    loaded = {str(getattr(module, "__file__", None) or "") for module in [*sys.modules.values()]}
    for file in sorted({*loaded, sys.executable, f"{sys.prefix}/pyvenv.cfg"}):
        if file.startswith("/") and (fault := trust.fault(Path(file))):
            remedy = "install it where only root can write, as the Debian package does, or chown it to root"
            raise RecipectlError(f"this recipectl is not safe to apply as root: {fault}; {remedy}")


def gpu_vendors() -> tuple[str, ...]:
    """The PCI ids of NVIDIA and AMD, as far as this host has their cards."""
    ids = set()
    for file in Path("/sys/bus/pci/devices").glob("*/vendor"):
        with contextlib.suppress(OSError):  # it was unplugged
            ids.add(file.read_text().strip())
    return tuple(sorted(ids & {*PCI_VENDORS.values()}))


def systemd_version() -> int:
    """The major version of the installed systemd, from the name of its library; else systemctl is asked."""
    for folder in (Path("/usr/lib/systemd"), *Path("/usr/lib").glob("*/systemd")):
        for path in folder.glob("libsystemd-shared-*.so"):
            if match := re.match(r"libsystemd-shared-(\d+)", path.name):
                return int(match[1])
    import subprocess

    words = ["systemctl", "--version"]
    try:
        answer = subprocess.run(words, capture_output=True, text=True, check=False).stdout  # noqa: S603  (fixed words)
    except FileNotFoundError:
        answer = ""
    match = re.match(r"systemd (\d+)", answer)
    return int(match[1]) if match else OLDEST_SYSTEMD


def release() -> str:
    """recipectl's version and the newest mtime of its files: a checkout changes without a new version."""
    package = Path(recipectl.__file__).parent
    # templates is a link in a checkout, which rglob does not follow.
    files = (*package.rglob("*.py"), *package.rglob("*.json"), *(package / "templates").glob("*.j2"))
    newest = max(path.stat().st_mtime_ns for path in files)
    return f"{recipectl.__version__} {newest}"
