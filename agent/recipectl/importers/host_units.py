"""The units of this host that are to be imported."""

import subprocess
from pathlib import Path

from recipectl.errors import UsageError
from recipectl.systemd.store import SEARCH_PATH

_UNIT_FOLDERS = tuple(folder for folder in SEARCH_PATH if folder.name == "system")


# systemctl(1), is-enabled: a linked file is known and no more.
_NOT_ENABLED = ("disabled", "linked", "linked-runtime", "masked", "masked-runtime", "indirect")


def is_enabled(unit: str) -> bool:
    """False for a unit that has [Install], and that nothing starts at boot."""
    words = ["systemctl", "is-enabled", unit]
    try:
        done = subprocess.run(words, capture_output=True, text=True, check=False)  # noqa: S603  (fixed words)
    except OSError:
        return True  # without systemd nobody has enabled it, and its [Install] says what is meant
    return done.stdout.strip() not in _NOT_ENABLED


def file_of(name: str) -> Path:
    """The file of a unit, or of its template, in systemd's folders; UsageError when there is none."""
    for file_name in (f"{name}.service", f"{name.partition('@')[0]}@.service"):
        for folder in _UNIT_FOLDERS:
            if (folder / file_name).exists():
                return folder / file_name
    folders = ", ".join(map(str, _UNIT_FOLDERS))
    raise UsageError(f"there is no {name}.service in {folders}; give the unit's file")
