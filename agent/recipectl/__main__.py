"""The command: `recipectl`, or `python -m recipectl`. The place where errors end."""

import contextlib
import errno
import gc
import io
import os
import sys

gc.disable()  # the process is short: this saves 4 % of a compile of 1,000 recipes (705 ms instead of 736)

import click  # noqa: E402

from recipectl.cli import recipectl  # noqa: E402
from recipectl.errors import RecipectlError  # noqa: E402
from recipectl.text import printable  # noqa: E402

_ABORTED = 130


class _OutputError(Exception):
    """Standard output cannot be written."""

    def __init__(self, error: OSError) -> None:
        super().__init__(f"standard output cannot be written: {error.strerror}; the output is incomplete")
        self.reader_left = error.errno == errno.EPIPE


class _Terminal(io.TextIOWrapper):
    """Standard output or error: nothing that is printed can control a terminal."""

    def write(self, text: str) -> int:
        return super().write(printable(text))


class _Errors(_Terminal):
    """Standard error. Where it cannot be written, nobody can be told, and standard output goes on."""

    def write(self, text: str) -> int:
        with contextlib.suppress(OSError):
            return super().write(text)
        return len(text)

    def flush(self) -> None:
        with contextlib.suppress(OSError):
            super().flush()


class _Output(_Terminal):
    """Standard output whose failures differ from all other OSErrors."""

    def write(self, text: str) -> int:
        try:
            return super().write(text)
        except OSError as error:
            raise _OutputError(error) from error

    def flush(self) -> None:
        try:
            super().flush()
        except OSError as error:
            raise _OutputError(error) from error


def _open_standard_files() -> None:
    """Open /dev/null for each closed standard file. Writes to a closed standard output still fail."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            # Without this, the next file that is opened gets the number, and messages are written into it.
            os.open(os.devnull, os.O_WRONLY if number == 2 else os.O_RDONLY)
    stdout = sys.stdout or open(1, "w")  # noqa: SIM115
    encoding = stdout.encoding
    sys.stdout = _Output(stdout.detach(), encoding, errors="surrogateescape")  # type: ignore[union-attr]
    stderr = sys.stderr or open(2, "w")  # noqa: SIM115
    sys.stderr = _Errors(stderr.detach(), encoding, errors="backslashreplace", line_buffering=True)  # type: ignore[union-attr]


def _has_current_folder() -> bool:
    """False in a folder that was removed: no relative path means anything there."""
    try:
        os.getcwd()  # noqa: PTH109
    except FileNotFoundError:
        return False
    return True


def main() -> None:
    """Run a verb: errors become a line each on standard error, and the exit status of the process."""
    # pydantic then loads no plugins of other packages: their code does not decide what a recipe means.
    os.environ["PYDANTIC_DISABLE_PLUGINS"] = "__all__"
    _open_standard_files()
    if not _has_current_folder():
        click.echo("the current folder was removed; change to another one (`cd`)", err=True)
        os._exit(1)
    os.umask(os.umask(0o022) | 0o022)  # whatever the caller's is, nobody else can write what a verb writes
    try:
        status = recipectl.main(standalone_mode=False) or 0
        sys.stdout.flush()
    except RecipectlError as error:
        click.echo(str(error), err=True, color=True)
        status = error.status
    except click.ClickException as error:
        error.show()
        status = 2
    except _OutputError as error:
        if not error.reader_left:  # `recipectl list | head` is no failure to report
            click.echo(str(error), err=True)
        status = 1
    except (click.Abort, KeyboardInterrupt):
        status = _ABORTED
    os._exit(status)  # nothing is open any more: this saves 12 ms (`--help`: 75 ms instead of 87)


if __name__ == "__main__":
    main()
