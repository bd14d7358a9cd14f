"""How recipectl and systemd are installed here, as far as a unit depends on it."""

import os
import re
import sys
from pathlib import Path
from typing import NamedTuple

import recipectl

_SYSTEM_PYTHON = "/usr/bin/python3"


class Installation(NamedTuple):
    """The command of the helper, whether a user's manager runs the units, and systemd's major version."""

    helper: tuple[str, ...]
    user: bool = False
    systemd_version: int = 252
    libraries: str = ""  # the folder of recipectl's own libraries, where the helper finds `packaging`


def current_installation(*, user: bool) -> Installation:
    """The installation that runs now."""
    import click

    helper = str(Path(recipectl.__file__).with_name("health.py"))
    # The system's own Python: recipectl's venv may be upgraded or moved.
    python = _SYSTEM_PYTHON if os.access(_SYSTEM_PYTHON, os.X_OK) else sys.executable
    return Installation(
        helper=(python, "-I", "-S", helper),
        user=user,
        systemd_version=systemd_version(),
        libraries=str(Path(click.__file__).parent.parent),
    )


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
    return int(match[1]) if match else 252


def release() -> str:
    """recipectl's version and the newest mtime of its files: a checkout changes without a new version."""
    package = Path(recipectl.__file__).parent
    # templates is a link in a checkout, which rglob does not follow.
    files = (*package.rglob("*.py"), *package.rglob("*.json"), *(package / "templates").glob("*.j2"))
    newest = max(path.stat().st_mtime_ns for path in files)
    return f"{recipectl.__version__} {newest}"
