"""Files that somebody else may have put there: only a regular one is opened, for opening a device acts.

Standard library only: the helper of the units reads venvs too.
"""

import errno
import io
import os
import stat
from pathlib import Path


def open_regular(path: Path | str, *, follow: bool = True) -> io.BufferedReader:
    """A regular file to read; OSError, with its path, for anything else, such as a pipe or a watchdog."""
    flags = os.O_CLOEXEC | (0 if follow else os.O_NOFOLLOW)
    if "\0" in str(path):
        raise OSError(errno.ENOENT, os.strerror(errno.ENOENT), str(path))
    descriptor = os.open(path, os.O_PATH | flags)
    try:
        mode = os.fstat(descriptor).st_mode
        if not stat.S_ISREG(mode):
            fault = os.strerror(errno.EISDIR) if stat.S_ISDIR(mode) else "it is not a regular file"
            raise OSError(errno.EINVAL, fault)
        # Its owner may hold a lease (fcntl(2)): O_NONBLOCK does not wait for that.
        read = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC
        return os.fdopen(os.open(f"/proc/self/fd/{descriptor}", read), "rb")
    except FileNotFoundError as error:
        raise OSError(error.errno, "it needs /proc, which is not mounted", str(path)) from error
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from error
    finally:
        os.close(descriptor)
