"""Which venvs a host has, what is in them, and who uses them."""

import contextlib
import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from recipectl.errors import RecipectlError
from recipectl.files import read_bounded
from recipectl.machine.disk import Disk
from recipectl.machine.distributions import ENGINE_DISTRIBUTIONS, UNFINISHED, site_packages, text_of, versions
from recipectl.machine.processes import using
from recipectl.place import Place


class Venv(NamedTuple):
    """What is in a venv, as far as its files tell; `size` is what it takes on its disk, in bytes."""

    path: Path
    engine: str | None
    version: str | None
    python: str | None
    torch: str | None
    cuda: str | None
    size: int
    finished: bool


def in_folder(folder: Path) -> list[Path]:
    """The venvs of a folder, those that are not finished too."""
    try:
        return [path for path in sorted(folder.iterdir()) if is_venv(path)]
    except OSError:
        return []


def is_venv(path: Path) -> bool:
    """True for a virtual environment, and for one that is not finished."""
    try:
        return (path / "pyvenv.cfg").is_file() or (path / UNFINISHED).exists()
    except OSError:  # it is closed to us
        return False


def look_at(path: Path) -> Venv:
    """What is in a venv; nothing of it runs."""
    installed = {
        name: version for site in site_packages(path) for name, version in versions(str(site)).items()
    }
    engines = {name: engine for engine, names in ENGINE_DISTRIBUTIONS.items() for name in names}
    distribution = next((name for name in engines if name in installed), None)
    torch = next((text_of(site / "torch/version.py") for site in site_packages(path)), "")
    return Venv(
        path=path,
        engine=engines[distribution] if distribution else None,
        version=installed.get(distribution or ""),
        python=Disk().python_version(path / "bin/python"),
        torch=_assigned("__version__", torch) or installed.get("torch"),
        cuda=_assigned("cuda", torch),
        size=_size(path),
        finished=not (path / UNFINISHED).exists(),
    )


def _assigned(name: str, text: str) -> str | None:
    match = re.search(rf"(?m)^{name}(?:: [^=]+)? = '([0-9][0-9A-Za-z.+]*)'", text)
    return match[1] if match else None


def _size(path: Path) -> int:
    blocks: dict[int, int] = {}
    for folder, folders, files in os.walk(path):
        for name in (*folders, *files):
            with contextlib.suppress(OSError):  # it is being removed
                status = os.lstat(os.path.join(folder, name))  # noqa: PTH118  (thirty thousand)
                blocks[status.st_ino] = status.st_blocks
    return 512 * sum(blocks.values())


def users(venv: Path, place: Place, used: Iterable[tuple[str, Path]]) -> list[str]:
    """What uses a venv, a clause each: recipes (name and venv), their files, locks, units and processes."""
    clauses = {f"recipe `{name}`" for name, path in used if same(path, venv)}
    spellings = "|".join(re.escape(path) for path in {str(venv), os.path.realpath(venv)})
    named = re.compile(rf"({spellings})(?![\w.+-])")
    written = (".yaml", ".yml", ".json", ".conf", ".lock", ".service")
    for folder in (*place.recipe_folders, *place.bases, place.unit_folder):
        for file in folder.rglob("*") if folder.is_dir() else ():
            if file.suffix in written and named.search(_text(file)):
                clauses.add(file.name if folder == place.unit_folder else str(file))
    clauses |= {f"process {pid} ({name})" for pid, name in using(venv)}
    return sorted(clauses)


def _text(file: Path) -> str:
    """The text of a file that may name a venv; RecipectlError where that cannot be told."""
    try:
        return read_bounded(file).decode(errors="replace")
    except FileNotFoundError:
        return ""
    except OSError as error:
        raise RecipectlError(f"{file} cannot be read ({error.strerror}); correct it") from error


def same(path: Path, other: Path) -> bool:
    """True if two paths are the same folder, through links."""
    return os.path.realpath(path) == os.path.realpath(other)
