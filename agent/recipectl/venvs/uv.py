"""uv, which resolves and installs: found beside recipectl, and run so that nobody else decides for it."""

import os
import re
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

from recipectl.errors import RecipectlError, UsageError
from recipectl.text import printable
from recipectl.venvs.request import Request, without_password

_LONGEST = 2000  # characters of uv's own words in an error
# What uv says when the request is wrong, and not the host.
_WRONG = ("No solution found", "Hash mismatch", "No interpreter found", "invalid value", "not a valid")
# uv could take an interpreter that lies in a home, which no model can open, or fetch one from anywhere.
_OWN_PYTHON = ("--no-managed-python", "--no-python-downloads")


class Uv:
    """Runs uv, with its cache in a folder of its own where root runs it.

    As root it takes nothing from the caller's home and folder: a uv.toml or a cached wheel there may be
    anybody's. It runs no code of a package: nothing is built, and its `--compile-bytecode` is not used,
    because that starts the new venv's interpreter with every .pth file in it.
    """

    def __init__(self, cache: Path) -> None:
        self._program = _program()
        self._environment = dict(os.environ) | {"UV_COMPILE_BYTECODE": "0"}
        if os.geteuid() == 0:
            import pwd

            kept = {name: value for name, value in self._environment.items() if not name.startswith("XDG_")}
            self._environment = kept | {"HOME": pwd.getpwuid(0).pw_dir, "UV_CACHE_DIR": str(cache / "uv")}
        # Links into the cache would be one file in all venvs.
        self._environment["UV_LINK_MODE"] = "copy"

    def lock(self, request: Request) -> str:
        """The exact versions and hashes that a request means now, as text."""
        with tempfile.TemporaryDirectory() as folder:
            words = ["pip", "compile", "-", "--python", request.python, *_OWN_PYTHON, "--generate-hashes"]
            words += ["--no-build", "--no-annotate", "--no-header", *_backend(request)]
            files = {"--overrides": request.overrides, "--excludes": request.excluded}
            for option, lines in files.items():
                if lines:
                    path = Path(folder, option.strip("-"))
                    path.write_text("".join(f"{line}\n" for line in lines))
                    words += [option, str(path)]
            requirements = "".join(f"{line}\n" for line in (request.requirement, *request.packages))
            return self._run(words, stdin=requirements, request=request)

    def make_venv(self, folder: Path, python: str, lock_fd: int) -> None:
        """An empty venv in a folder that is there; `lock_fd` is a descriptor that uv keeps open."""
        self._run(
            ["venv", "--allow-existing", *_OWN_PYTHON, "--python", python, str(folder)], lock_fd=lock_fd
        )

    def install(self, folder: Path, lock: Path, request: Request, lock_fd: int) -> None:
        """Install what a lock names, by its hashes; a venv has that and nothing else."""
        python = str(folder / "bin/python")
        words = ["pip", "sync", "--require-hashes", "--no-build", "-p", python, *_backend(request), str(lock)]
        self._run(words, lock_fd=lock_fd, request=request)

    def _run(
        self,
        words: Sequence[str],
        *,
        stdin: str = "",
        lock_fd: int | None = None,
        request: Request | None = None,
    ) -> str:
        environment = dict(self._environment)
        # Not as words, which everybody can read: an index may have a password.
        if request and request.indexes:
            environment["UV_INDEX"] = " ".join((*request.indexes, environment.get("UV_INDEX", ""))).strip()
        done = subprocess.run(  # noqa: S603  (uv of this installation)
            [self._program, "-q", *words], input=stdin, env=environment, cwd="/", text=True, errors="replace",
            capture_output=True, check=False, pass_fds=() if lock_fd is None else (lock_fd,), umask=0o022,
        )  # fmt: skip
        if done.returncode:
            raise _failure(" ".join(words[:2]), done.returncode, done.stderr)
        return done.stdout


def _backend(request: Request) -> list[str]:
    return ["--torch-backend", request.torch_backend] if request.torch_backend else []


def _program() -> str:
    try:
        from uv import find_uv_bin  # type: ignore[import-not-found,unused-ignore]

        return str(find_uv_bin())
    except (ImportError, FileNotFoundError) as error:
        fault = "`recipectl venv create` needs uv, which is not installed beside recipectl"
        raise RecipectlError(f"{fault}; install it there: pip install 'recipectl[venv]'") from error


def _failure(verb: str, status: int, words: str) -> RecipectlError:
    """uv's words as one sentence; they name an index without its password."""
    if status < 0:
        return RecipectlError(f"`uv {verb}` was ended by signal {-status}; run it again")
    lines = [re.sub(r"^(error|cause|hint): ", "", line.strip()) for line in words.splitlines()]
    text = printable(": ".join(line.rstrip(":.") for line in lines if line))[:_LONGEST]
    text = re.sub(r"(://[^\s?]*)\?[^\s`'\"]*", r"\1?…", text)  # a query of an index may be a token
    sentence = without_password(f"`uv {verb}` failed: {text}")
    wrong = any(fault in text for fault in _WRONG)
    return UsageError(sentence, kind="runtime") if wrong else RecipectlError(sentence)
