"""recipectl in a fork of the tests' process, which has its modules already: a verb takes 20 ms, not 300."""

import gc
import os
import subprocess
import sys
import tempfile

import recipectl.cli.imports


def recipectl(*words: str) -> subprocess.CompletedProcess[str]:
    """The result of `recipectl WORDS`, run as its program runs it, in the same environment and folder."""
    from recipectl.__main__ import main  # switches the collector of garbage off

    gc.enable()
    with tempfile.TemporaryFile() as stdout, tempfile.TemporaryFile() as stderr:
        pid = os.fork()
        if not pid:
            _run(main, words, stdout.fileno(), stderr.fileno())
        _, status = os.waitpid(pid, 0)
        texts = []
        for file in (stdout, stderr):
            file.seek(0)
            texts.append(file.read().decode())
    return subprocess.CompletedProcess(words, os.waitstatus_to_exitcode(status), *texts)


def _run(main: object, words: tuple[str, ...], stdout: int, stderr: int) -> None:
    """Be the program; never returns."""
    try:
        os.dup2(stdout, 1)
        os.dup2(stderr, 2)
        sys.stdout, sys.stderr = (open(number, "w", closefd=False) for number in (1, 2))  # noqa: SIM115
        sys.argv = ["recipectl", *words]
        gc.disable()
        main()  # type: ignore[operator]
    except BaseException:
        sys.excepthook(*sys.exc_info())
    finally:
        sys.stderr.flush()
        os._exit(1)
