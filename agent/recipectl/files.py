"""Files that are written whole or not at all, and errors that name the path that failed."""

import contextlib
import errno
import os
import stat
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO

from recipectl.errors import RecipectlError, UsageError
from recipectl.regular import open_regular

SUFFIX = ".recipectl"  # of temporary files
_REMEDIES = {
    errno.EACCES: "correct its owner or its mode",
    errno.EPERM: "correct its owner or its attributes",
    errno.EROFS: "remount it read-write",
    errno.ENOSPC: "free some space",
    errno.EDQUOT: "free some space",
    errno.EISDIR: "a folder is in its place; move it away",
    errno.ENOENT: "create its folder",
}
_REMEDIES_TO_READ = {
    errno.EACCES: "correct its owner or its mode",
    errno.EPERM: "correct its owner or its mode",
    errno.ENOENT: "correct its path",
    errno.EISDIR: "give a file",
}
_MAX_OWN_BYTES = 64 * 1024 * 1024
_FEW = 10  # fewer files than this are synced one after the other


@contextlib.contextmanager
def failures_named(action: str, path: Path) -> Iterator[None]:
    """Turn an OSError into a RecipectlError that names the path; `action` is for example `written`."""
    try:
        yield
    except OSError as error:
        failed = Path(error.filename or path)
        if failed.name.endswith(SUFFIX) or failed.name.startswith(f"{SUFFIX}-"):
            failed = Path(path)  # the user does not know the name of the temporary file
        remedies = _REMEDIES_TO_READ if action == "read" else _REMEDIES
        if os.geteuid():
            is_own = failed.absolute().is_relative_to(os.environ.get("HOME") or "/nonexistent")
            remedies = remedies | ({} if is_own else {errno.EACCES: "run it as root (sudo)"})
        reason = f"{error.strerror}; {remedies.get(error.errno or 0, 'see the path and its file system')}"
        if error.errno in (errno.ENOTDIR, errno.EEXIST):
            # The system names the whole path; one of its parents is what is in the way.
            parents = (
                path for path in (*reversed(failed.parents), failed) if path.exists() and not path.is_dir()
            )
            reason = f"{next(parents, failed)} is not a folder; move it away, or choose another path"
        raise RecipectlError(f"{failed} could not be {action}: {reason}") from error


MAX_BYTES = 1024 * 1024  # of a file that recipectl reads whole


def is_open(mode: int) -> bool:
    """True for the mode of a secret's file that others may read, or its group may write."""
    return bool(mode & (stat.S_IRWXO | stat.S_IWGRP))


def read_bounded(path: Path | str, limit: int = MAX_BYTES, *, follow: bool = True) -> bytes:
    """The content of a regular file; OSError for anything else, such as a pipe, and for a larger file."""
    with open_regular(path, follow=follow) as file:
        return _content(file, path, limit)


def read_own(path: Path) -> bytes:
    """The content of a file that only the caller, or root, can have written; OSError for any other."""
    with open_regular(path, follow=False) as file:
        status = os.fstat(file.fileno())
        if status.st_uid not in (0, os.geteuid()) or status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
            raise OSError(errno.EPERM, "others can write it", str(path))
        return _content(file, path, _MAX_OWN_BYTES)


def _content(file: IO[bytes], path: Path | str, limit: int) -> bytes:
    content = file.read(limit + 1)
    if len(content) > limit:
        raise OSError(errno.EFBIG, f"it is larger than {limit} bytes", str(path))
    return content


def refuse_planted_links(path: Path) -> None:
    """UsageError when a path leads through a link that somebody else could have put there."""
    for place in (path.absolute(), *path.absolute().parents):
        try:
            status, above = place.lstat(), place.parent.lstat()
        except OSError:
            continue  # it does not exist yet
        others = above.st_uid not in (0, os.geteuid())
        open_to_others = others or above.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
        if stat.S_ISLNK(status.st_mode) and open_to_others and status.st_uid != os.geteuid():
            fault = f"{place} is a link in a folder that others can write"
            raise UsageError(f"{fault}; give another folder", kind="file")


def remove(path: Path) -> None:
    """Remove a file that may be gone already; RecipectlError names the path."""
    with failures_named("removed", path):
        path.unlink(missing_ok=True)


def write_whole(contents: Mapping[Path, str | bytes], *, mode: int = 0o644, durable: bool = False) -> None:
    """Write files, each whole or not at all; RecipectlError names the path that failed.

    With `durable` the files survive a power cut.
    """
    # A name that nobody can foresee. Not tempfile's: its import costs more than a whole `status`.
    unique = os.urandom(6).hex()
    temporary = {path: path.with_name(f".{path.name}.{unique}{SUFFIX}") for path in contents}
    try:
        for folder in {path.parent for path in contents}:
            with failures_named("written", folder):
                folder.mkdir(parents=True, exist_ok=True)
        for path, content in contents.items():
            with failures_named("written", path), _new_file(temporary[path]) as file:
                os.fchmod(file.fileno(), mode)
                file.write(
                    content if isinstance(content, bytes) else content.encode(errors="surrogateescape")
                )
        if durable:
            sync([*temporary.values()])
        for path, staged in temporary.items():
            with failures_named("written", path):
                staged.replace(path)
    except RecipectlError:
        for staged in temporary.values():
            with contextlib.suppress(OSError):
                staged.unlink()
        raise
    if durable:
        # A new name survives a power cut only when its folder was synced.
        sync([*{path.parent for path in contents}])


def _new_file(path: Path) -> IO[bytes]:
    """A file that did not exist before, also not as a link that somebody has made."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    return os.fdopen(os.open(path, flags, 0o600), "wb")


def sync(paths: Sequence[Path]) -> None:
    """fsync files or folders; in parallel when there are many."""

    def each(some: Sequence[Path]) -> None:
        for path in some:
            with failures_named("written", path):
                descriptor = os.open(path, os.O_RDONLY)
                try:
                    os.fsync(descriptor)
                finally:
                    os.close(descriptor)

    if len(paths) < _FEW:
        each(paths)
        return
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(16) as pool:
        for _ in pool.map(each, (paths[first::16] for first in range(16))):
            pass
