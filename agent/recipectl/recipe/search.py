"""Which files are the recipes of a host and its host file: the search path, drop-ins and masks."""

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from recipectl.errors import Problem, UsageError, on_host
from recipectl.files import failures_named

RECIPE_NAME = re.compile(r"[a-z0-9A-Z][a-zA-Z0-9._-]{0,99}\Z")
# What people and package managers keep beside recipes, on purpose.
_NO_RECIPE = re.compile(
    r"\..*|(README|LICENSE|COPYING|NOTES|CHANGELOG|Makefile)\b.*"
    r"|.*(~|\.(bak|orig|old|save|swp|tmp|rej|md|rst|txt|recipectl|dpkg-\w+|ucf-\w+|rpm\w+))",
    re.IGNORECASE,
)
NAME_RULE = "letters, digits, `.`, `_` and `-` (at most 100, the first a letter or digit)"
SUFFIXES = (".yaml", ".yml", ".json")


class Source(NamedTuple):
    """One recipe: its file, and its drop-ins in their order."""

    name: str
    file: Path
    drop_ins: tuple[Path, ...] = ()
    lock: Path | None = None  # NAME.lock beside the file
    duplicate: Path | None = None  # another file of this name in the same folder

    @property
    def fault(self) -> str | None:
        """What is wrong with the name: a second file has it."""
        if not self.duplicate:
            return None
        return f"`{self.name}` is also {self.duplicate.name} in this folder; remove one of them"


def lock_of(file: Path) -> Path:
    """The path of the lock of a recipe, whether it exists or not."""
    return file.with_name(f"{stem(file)}.lock")


def stem(path: Path) -> str:
    """The name of the recipe in a file."""
    return path.name.removesuffix(path.suffix)


def _entries(folder: Path, suffixes: tuple[str, ...]) -> Iterator[tuple[Path, bool]]:
    """The files of a folder by name, and whether each is a mask: a link to /dev/null."""
    with failures_named("read", folder):
        # What is there and is no folder, as a link in a circle, is an error: its recipes are missing.
        is_empty = not _is_there(folder) or os.path.realpath(folder) == os.devnull  # a link there masks it
        entries = sorted(() if is_empty else os.scandir(folder), key=lambda entry: entry.name)
    for entry in entries:
        if entry.name.endswith(suffixes) and not entry.name.startswith("."):
            yield folder / entry.name, entry.is_symlink() and os.path.realpath(entry.path) == "/dev/null"


def _is_there(path: Path) -> bool:
    """Whether a path exists, be it a broken link; OSError where nobody can tell."""
    try:
        path.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    return True


def drop_ins(name: str, folders: tuple[Path, ...]) -> tuple[Path, ...]:
    """`NAME.yaml.d/*.yaml` of all folders in the order of their names, as systemd.unit(5) has it."""
    by_name: dict[str, tuple[Path, bool]] = {}
    for folder in folders:
        for path, masked in _entries(folder / f"{name}.yaml.d", (".yaml", ".yml")):
            by_name.setdefault(path.name, (path, masked))
    return tuple(path for _, (path, masked) in sorted(by_name.items()) if not masked)


def unread_files(folders: tuple[Path, ...]) -> tuple[Problem, ...]:
    """A warning for each file that looks like a recipe or a drop-in, and that nothing reads."""
    return tuple(
        on_host(
            "file",
            f"it is never read: {reason}; rename, move or remove it",
            file=str(path),
            severity="warning",
        )
        for path, reason in (*unread_recipes(folders), *unread_drop_ins(folders))
    )


def unread_drop_ins(folders: tuple[Path, ...]) -> tuple[tuple[Path, str], ...]:
    """Files and folders that look like drop-ins and are never read, each with the reason."""
    names = recipe_files(folders)
    unread: list[tuple[Path, str]] = []
    for folder in (path for base in folders for path, _ in _entries(base, (".d",)) if path.is_dir()):
        name = folder.name.removesuffix(".d")
        if not name.endswith(".yaml"):
            unread.append((folder, "a drop-in folder is NAME.yaml.d"))
        elif name.removesuffix(".yaml") not in names:
            unread.append((folder, f"there is no recipe {name.removesuffix('.yaml')}"))
        else:
            others = (path for path in sorted(folder.iterdir()) if path.suffix not in (".yaml", ".yml"))
            unread += [(path, "a drop-in ends in .yaml") for path in others if not path.name.startswith(".")]
    return tuple(unread)


def unread_recipes(folders: tuple[Path, ...]) -> tuple[tuple[Path, str], ...]:
    """Files that look like recipes and are never read, each with the reason."""
    names = recipe_files(folders)
    unread: list[tuple[Path, str]] = []
    for folder in folders:
        for path in _visible(folder):
            if path.is_dir():
                unread += _in_subfolder(path)
            elif path.suffix == ".lock":
                reason = f"there is no recipe {stem(path)}"
                unread += [(path, reason)] if stem(path) not in names else []
            elif path.suffix not in SUFFIXES:
                ending = path.suffix.lower() if path.suffix.lower() in SUFFIXES else ".yaml"
                unread.append((path, f"a recipe ends in .yaml, .yml or .json, as {path.stem}{ending} does"))
        for path in _visible(folder.parent):
            if path.suffix.lower() in SUFFIXES and path.name != "host.yaml" and path.is_file():
                host = path.stem.lower() == "host"
                reason = "the host file is host.yaml" if host else f"recipes are in {folder}"
                unread.append((path, reason))
    return tuple(unread)


def _visible(folder: Path) -> list[Path]:
    """What is in a folder, without what is hidden or kept beside recipes on purpose."""
    with failures_named("read", folder):
        names = sorted(os.listdir(folder)) if folder.is_dir() else []  # noqa: PTH208  (names)
    return [folder / name for name in names if not _NO_RECIPE.fullmatch(name)]


def _in_subfolder(folder: Path) -> list[tuple[Path, str]]:
    """The first recipe below a folder in a recipe folder; `unread_drop_ins` reports drop-in folders."""
    if folder.suffix == ".d":
        return []
    for where, _, names in os.walk(folder):
        for name in sorted(names):
            if name.endswith(SUFFIXES) and not name.startswith("."):
                return [(Path(where, name), f"recipes are in {folder.parent} itself, not in subfolders")]
    return []


def recipe_files(folders: tuple[Path, ...]) -> dict[str, Path]:
    """Name -> file. The first folder that has a name wins; a link to /dev/null masks the name."""
    return {name: path for name, (path, _) in _files_by_name(folders).items()}


def _files_by_name(folders: tuple[Path, ...]) -> dict[str, tuple[Path, Path | None]]:
    """Name -> its file, and another file of that name in the same folder."""
    files: dict[str, tuple[Path, Path | None]] = {}
    masked_names: set[str] = set()
    for folder in folders:
        for path, masked in _entries(folder, SUFFIXES):
            name = stem(path)
            first, _ = files.setdefault(name, (path, None))
            if first is path and masked:
                masked_names.add(name)
            elif first is not path and first.parent == folder:
                files[name] = first, path
    return {name: pair for name, pair in sorted(files.items()) if name not in masked_names}


def is_file(argument: str) -> bool:
    """True if a RECIPE argument is a file, and not a name."""
    return "/" in argument or argument.endswith(SUFFIXES)


def file_of(argument: str) -> Path:
    """The path of a RECIPE argument that is a file; UsageError for a folder."""
    if not Path(argument).name:
        raise UsageError(f"{argument} is not a file; give a recipe's name or its path", kind="file")
    return Path(argument)


def name_of(argument: str) -> str:
    """The name of the recipe that a RECIPE argument is about."""
    return stem(file_of(argument)) if is_file(argument) else argument


def sources(folders: tuple[Path, ...], extra: tuple[Path, ...] = ()) -> tuple[Source, ...]:
    """Every recipe of the folders; a file of `extra` replaces the recipe of its name."""
    extra_by_name: dict[str, Path] = {}
    for path in extra:
        if (other := extra_by_name.setdefault(stem(path), path)) != path:
            raise UsageError(
                f"{other} and {path} are both named `{stem(path)}`; rename one of them", kind="file"
            )
    files = _files_by_name(folders) | {name: (path, None) for name, path in extra_by_name.items()}
    with_drop_ins = tuple(folder for folder in folders if any(_entries(folder, (".yaml.d",))))
    existing_locks = _locks({path.parent for path, _ in files.values()})
    result = []
    for name, (path, duplicate) in sorted(files.items()):
        own_folder = () if path.parent in folders else (path.parent,)
        added = drop_ins(name, (*own_folder, *with_drop_ins)) if own_folder or with_drop_ins else ()
        lock = lock_of(path)
        source = Source(
            name=name,
            file=path,
            drop_ins=added,
            lock=lock if lock in existing_locks else None,
            duplicate=duplicate,
        )
        result.append(source)
    return tuple(result)


def source_of(name: str, folders: tuple[Path, ...]) -> Source | None:
    """The recipe of a name in some folders; None where there is none."""
    return next((source for source in sources(folders) if source.name == name), None)


def _locks(folders: set[Path]) -> frozenset[Path]:
    """Every NAME.lock of some folders: one look at a folder is cheaper than one at each name."""
    return frozenset(path for folder in folders for path, _ in _entries(folder, (".lock",)))


def host_files(bases: tuple[Path, ...]) -> tuple[Path, ...]:
    """The first host.yaml of the folders, then the drop-ins of all of them (`host.yaml.d/*.yaml`)."""
    for file in (base / "host.yaml" for base in bases):
        with failures_named("read", file):
            if _is_there(file):
                return (file, *drop_ins("host", bases))
    return drop_ins("host", bases)
