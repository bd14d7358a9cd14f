"""Which files are a host's recipes and its host file: the search path, drop-ins and masks."""

import os
from collections.abc import Iterator
from itertools import combinations
from pathlib import Path
from typing import NamedTuple

from recipectl.errors import UsageError

SUFFIXES = (".yaml", ".yml", ".json")
BASES = tuple(Path(base, "recipectl") for base in ("/etc", "/run", "/usr/local/lib", "/usr/lib"))


class Source(NamedTuple):
    """One recipe: its file, and its drop-ins in their order."""

    name: str
    file: Path
    drop_ins: tuple[Path, ...] = ()
    lock: Path | None = None  # NAME.lock beside the file
    twin: Path | None = None  # another file of the name in the same folder


def lock_of(file: Path) -> Path:
    """Where the lock of a recipe belongs."""
    return file.with_name(f"{stem(file)}.lock")


def stem(path: Path) -> str:
    """The name of the recipe in a file."""
    return path.name.removesuffix(path.suffix)


def _read(folder: Path, suffixes: tuple[str, ...]) -> Iterator[tuple[Path, bool]]:
    """The files of a folder by name, and whether each is a mask: a link to /dev/null."""
    entries = os.scandir(folder) if folder.is_dir() else ()
    for entry in sorted(entries, key=lambda entry: entry.name):
        if entry.name.endswith(suffixes) and not entry.name.startswith("."):
            yield folder / entry.name, entry.is_symlink() and os.path.realpath(entry.path) == "/dev/null"


def drop_ins(name: str, folders: tuple[Path, ...]) -> tuple[Path, ...]:
    """`NAME.yaml.d/*.yaml` of all folders in the order of their names, as systemd.unit(5) has it."""
    found: dict[str, tuple[Path, bool]] = {}
    for folder in folders:
        for path, masked in _read(folder / f"{name}.yaml.d", (".yaml", ".yml")):
            found.setdefault(path.name, (path, masked))
    return tuple(path for _, (path, masked) in sorted(found.items()) if not masked)


def unread(folders: tuple[Path, ...]) -> tuple[tuple[Path, str], ...]:
    """What lies in the folders as a drop-in and is never read, and why."""
    names, found = {stem(path) for path in every(folders)}, []
    for folder in (path for one in folders for path in sorted(one.glob("*.d")) if path.is_dir()):
        name = folder.name.removesuffix(".d")
        if not name.endswith(".yaml"):
            found.append((folder, "a drop-in folder is NAME.yaml.d"))
        elif name.removesuffix(".yaml") not in names:
            found.append((folder, f"there is no recipe {name.removesuffix('.yaml')}"))
        else:
            others = (path for path in sorted(folder.iterdir()) if path.suffix not in (".yaml", ".yml"))
            found += [(path, "a drop-in ends in .yaml") for path in others if not path.name.startswith(".")]
    return tuple(found)


def every(folders: tuple[Path, ...]) -> tuple[Path, ...]:
    """All recipe files of the folders, by name; the first folder that has a name wins, /dev/null masks it."""
    return tuple(path for path, _ in _files(folders).values())


def _files(folders: tuple[Path, ...]) -> dict[str, tuple[Path, Path | None]]:
    """Name -> its file, and another file of that name in the same folder."""
    found: dict[str, tuple[Path, Path | None]] = {}
    masks = set[str]()
    for folder in folders:
        for path, masked in _read(folder, SUFFIXES):
            first, _ = found.setdefault(stem(path), (path, None))
            if first is path:
                masks |= {stem(path)} if masked else set()
            elif first.parent == folder:
                found[stem(path)] = first, path
    return {name: files for name, files in sorted(found.items()) if name not in masks}


def is_file(argument: str) -> bool:
    """Whether a RECIPE argument is a file, and no name."""
    return "/" in argument or argument.endswith(SUFFIXES)


def find(name: str, folders: tuple[Path, ...]) -> Path:
    """The file of a RECIPE argument: a path when it looks like one, else the first of that name."""
    if is_file(name):
        if not Path(name).name:
            raise UsageError(f"{name} is no recipe's file; give its name or its path")
        return Path(name)
    found = {stem(path): path for path in every(folders)}
    if name in found:
        return found[name]
    import difflib  # for this message alone

    near = difflib.get_close_matches(name, found, 1)
    where = ", ".join(str(folder) for folder in folders)
    hint = f"did you mean `{near[0]}`?" if near else "give a file's path, or put one there"
    raise UsageError(f"there is no recipe `{name}` in {where}; {hint}")


def sources(folders: tuple[Path, ...], extra: tuple[Path, ...] = ()) -> tuple[Source, ...]:
    """Every recipe of the folders; a file of `extra` stands in for the recipe of its name."""
    for one, other in combinations(extra, 2):
        if stem(one) == stem(other) and one != other:
            raise UsageError(f"{one} and {other} are both `{stem(one)}`; rename one of them")
    files = _files(folders) | {stem(path): (path, None) for path in extra}
    added = tuple(folder for folder in folders if any(folder.glob("*.yaml.d")))
    found = []
    for name, (path, twin) in sorted(files.items()):
        here = () if path.parent in folders else (path.parent,)
        lock = lock_of(path)
        added_to = drop_ins(name, (*here, *added)) if here or added else ()
        found.append(Source(name, path, added_to, lock if lock.exists() else None, twin))
    return tuple(found)


def host_files(bases: tuple[Path, ...]) -> tuple[Path, ...]:
    """The first host.yaml of the folders, then the drop-ins of all of them (`host.yaml.d/*.yaml`)."""
    first = [base / "host.yaml" for base in bases if (base / "host.yaml").exists()][:1]
    return (*first, *drop_ins("host", bases))
