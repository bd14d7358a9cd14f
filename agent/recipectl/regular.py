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
    place = os.open(path, os.O_PATH | os.O_CLOEXEC | (0 if follow else os.O_NOFOLLOW))
    try:
        mode = os.fstat(place).st_mode
        if not stat.S_ISREG(mode):
            fault = os.strerror(errno.EISDIR) if stat.S_ISDIR(mode) else "it is not a regular file"
            raise OSError(errno.EINVAL, fault, str(path))
        return os.fdopen(os.open(f"/proc/self/fd/{place}", os.O_RDONLY | os.O_CLOEXEC), "rb")
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from None
    finally:
        os.close(place)
