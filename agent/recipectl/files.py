"""Files that are written whole or not at all, and errors that name the path that failed."""

import contextlib
import errno
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from recipectl.errors import RecipectlError

SUFFIX = ".recipectl"  # of temporary files
_REMEDIES = {
    errno.EACCES: "run it as root (sudo), or correct its owner",
    errno.EPERM: "run it as root (sudo), or correct its owner",
    errno.EROFS: "remount it read-write",
    errno.ENOSPC: "free some space",
    errno.EDQUOT: "free some space",
    errno.EISDIR: "a folder is in its place; move it away",
    errno.ENOENT: "create its folder",
}
_FEW = 10  # fewer files than this are synced one after the other


@contextlib.contextmanager
def failures_named(action: str, path: Path) -> Iterator[None]:
    """Turn an OSError into a RecipectlError that names the path; `action` is for example `written`."""
    try:
        yield
    except OSError as error:
        failed = Path(error.filename or path)
        reason = f"{error.strerror}; {_REMEDIES.get(error.errno or 0, 'see the path and its file system')}"
        if error.errno == errno.ENOTDIR:
            # The system names the whole path; one of its parents is what is in the way.
            parents = (
                parent for parent in reversed(failed.parents) if parent.exists() and not parent.is_dir()
            )
            reason = f"{next(parents, failed)} is not a folder; move it away, or choose another path"
        raise RecipectlError(f"{failed} could not be {action}: {reason}") from error


def write_whole(contents: Mapping[Path, str], *, mode: int = 0o644, durable: bool = False) -> None:
    """Write files, each whole or not at all; RecipectlError names the path that failed.

    With `durable` the files survive a power cut.
    """
    # Not tempfile's names: the import of tempfile costs more than a whole `status`.
    temporary = {path: path.with_name(f".{path.name}.{os.getpid()}{SUFFIX}") for path in contents}
    try:
        for folder in {path.parent for path in contents}:
            with failures_named("written", folder):
                folder.mkdir(parents=True, exist_ok=True)
        for path, text in contents.items():
            with failures_named("written", path), temporary[path].open("wb") as file:
                os.fchmod(file.fileno(), mode)
                file.write(text.encode(errors="surrogateescape"))
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
