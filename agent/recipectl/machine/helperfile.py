"""The helper as units run it: one archive that `apply` writes, with everything that it imports.

It lies outside recipectl's own installation, which may be upgraded, moved or removed while models run. Its
name has a digest of its content: units of two releases each find their own.
"""

import hashlib
import os
import re
import stat
from functools import cache
from pathlib import Path

import recipectl
from recipectl.files import failures_named
from recipectl.place import Place

NAME = re.compile(r"helper-[0-9a-f]{12}\.pyz")
PATH = re.compile(rf"/\S*/{NAME.pattern}")  # in a unit
_MODULES = (
    "addresses", "canary", "gateway_keys", "helper", "journal", "proxy", "regular", "request_queue", "rivals",
    "text", "tie", "tie_state", "watch", "machine/clients", "machine/distributions", "machine/loads",
    "machine/lockfile", "machine/processes", "machine/sockets",
)  # fmt: skip
# A stop may come while Python still imports: a helper that died by it would leave its unit `failed`.
_MAIN = """import signal
import sys
stops = []
signal.signal(signal.SIGTERM, lambda *_: stops.append(1))
from recipectl.helper import main
sys.exit(main(sys.argv[1:], stops))
"""


@cache
def _sources() -> dict[str, bytes]:
    """Name in the archive -> source. `packaging` comes along, to compare the versions of pins."""
    import packaging

    package = Path(recipectl.__file__).parent
    sources = {
        "__main__.py": _MAIN.encode(),
        "recipectl/__init__.py": b"",
        "recipectl/machine/__init__.py": b"",
    }
    sources |= {f"recipectl/{name}.py": (package / f"{name}.py").read_bytes() for name in _MODULES}
    library = Path(packaging.__file__).parent
    return sources | {f"packaging/{path.name}": path.read_bytes() for path in sorted(library.glob("*.py"))}


@cache
def _file_name() -> str:
    digest = hashlib.sha256()
    for name, source in _sources().items():
        digest.update(f"{name}\0{len(source)}\0".encode() + source)
    return f"helper-{digest.hexdigest()[:12]}.pyz"


def path(place: Place) -> Path:
    """Where the helper of this release is, or will be after `apply`."""
    return place.state_folder / _file_name()


def is_in_place(place: Place) -> bool:
    """True if the helper exists, and nobody else can have changed it. It is written whole or not at all."""
    try:
        status, folder = path(place).lstat(), place.state_folder.stat()
    except PermissionError:
        return True  # the caller may not look, and could not write it either
    except OSError:
        return False
    if not place.user and not folder.st_mode & stat.S_IXOTH:
        return False  # the users of units cannot reach it
    others = stat.S_IWGRP | stat.S_IWOTH
    owner = os.geteuid() if place.user else 0
    return stat.S_ISREG(status.st_mode) and status.st_uid == owner and not status.st_mode & others


def archive() -> bytes:
    """The archive: sources, and beside them their bytecode, which another Python passes over."""
    import io
    import py_compile
    import tempfile
    import zipfile

    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file, tempfile.TemporaryDirectory() as folder:
        for name, source in _sources().items():
            file.writestr(zipfile.ZipInfo(name), source)  # its date is always 1980-01-01
            if not name.startswith("packaging/") and source:
                plain, compiled = Path(folder, "module.py"), Path(folder, "module.pyc")
                plain.write_bytes(source)
                unchecked = py_compile.PycInvalidationMode.UNCHECKED_HASH
                py_compile.compile(str(plain), str(compiled), name, doraise=True, invalidation_mode=unchecked)
                file.writestr(zipfile.ZipInfo(f"{name}c"), compiled.read_bytes())
    return buffer.getvalue()


def others(place: Place) -> list[Path]:
    """The helpers of other releases."""
    folder = place.state_folder
    with failures_named("read", folder):
        names = os.listdir(folder) if folder.is_dir() else []  # noqa: PTH208  (names)
    own = path(place).name
    return [folder / name for name in sorted(names) if NAME.fullmatch(name) and name != own]


def named_in(text: str) -> set[str]:
    """The paths of helpers in a unit's text."""
    return {*PATH.findall(text)}
