"""What bash itself runs for a script: in a root of stubs that record their words and environment.

The root is a folder of its own, in namespaces of its own, and the stubs can only be read: what a script does
reaches neither the host nor the next script. `record` runs many scripts one after the other; each is ended
after half a second.
"""

import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

# What a shell itself sets.
OF_SHELL = {"PWD", "OLDPWD", "SHLVL", "_", "BASH_ENV"}
_STUBS = (
    "vllm", "sglang", "llama-server", "python", "python3", "docker", "podman", "sudo", "nohup", "numactl",
    "taskset", "nice", "systemd-run", "conda", "uv", "pip", "env", "curl", "date", "tee", "setsid", "time",
)  # fmt: skip
_PROGRAMS = (
    "bash", "env", "timeout", "mkdir", "cat", "cp", "rm", "ln", "dirname", "readlink", "realpath",
)  # fmt: skip
_SECONDS = 0.5
# A stub: its name and words, an empty field, and its environment; each record is a file of its own.
_STUB = """#!/bin/bash
exec 2>/dev/null
out=/records/$$-$RANDOM
{ printf '%s\\0' "$0" "$@"; printf '\\1\\0'; /bin/real-env -0; printf '\\2\\0'; } > $out
"""
# A folder that a script enters exists, and a file that it reads sets nothing.
_BASH_ENV = """
unset BASH_ENV
cd() { builtin cd "$@" 2>/dev/null || { [ $# -gt 0 ] && /bin/mkdir -p -- "${@: -1}" && builtin cd "$@"; } 2>/dev/null; }
source() { :; }
.() { :; }
mkdir() { :; }
sleep() { :; }
"""
_DRIVER = """
shopt -s extglob
for script in /scripts/*.sh; do
    /bin/cp "$script" /srv/a/start.sh
    . "${script%.sh}.prepare"
    cd /srv/a
    # The pipe ends with the last process that the script has started.
    BASH_ENV=/bash_env /bin/timeout -s KILL SECONDS /bin/bash /srv/a/start.sh </dev/null 9>&1 >/dev/null 2>&1 |
        /bin/timeout 5 /bin/cat >/dev/null
    kill -KILL -1
    builtin printf '\\3\\0%s\\0' "${script##*/}" >&7
    for file in /records/*; do [ -e "$file" ] && /bin/cat "$file" >&7; done
    /bin/rm -rf /!(bin|dev|lib|lib64|usr|proc|scripts|driver|bash_env)
    /bin/mkdir -p /records /srv/a
done
"""


class Run(NamedTuple):
    """One program that bash has run."""

    words: tuple[str, ...]
    environment: dict[str, str]


def _copy_program(path: str, root: Path) -> None:
    """A program of this host with its libraries, at the same paths within a root."""
    shutil.copy(os.path.realpath(path), root / "bin" / Path(path).name)
    listing = subprocess.run(["ldd", path], check=True, capture_output=True, text=True).stdout
    for library in re.findall(r"(/\S+) \(", listing):
        target = root / library.lstrip("/")
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(os.path.realpath(library), target)


def _unshare() -> list[str]:
    namespaces = ["unshare", "--mount", "--pid", "--fork", "--net", "--ipc", "--kill-child"]
    return namespaces if os.geteuid() == 0 else [*namespaces, "--user", "--map-root-user"]


def can_run() -> bool:
    """Whether this user may make namespaces: some hosts leave that to root."""
    return subprocess.run([*_unshare(), "true"], capture_output=True).returncode == 0


def record(scripts: Sequence[tuple[str, Sequence[str]]]) -> list[list[Run]]:
    """What bash runs for each (script, paths of programs that the script may name)."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder, "root")
        for name in ("bin", "scripts", "records", "srv/a", "dev"):
            (root / name).mkdir(parents=True)
        for program in _PROGRAMS:
            _copy_program(str(shutil.which(program)), root)
        # Without the locale, bash begins with a warning.
        if (locale := Path("/usr/lib/locale/C.utf8")).exists():
            shutil.copytree(locale, root / str(locale).lstrip("/"))
        (root / "bin/env").rename(root / "bin/real-env")
        (root / "bin/stub").write_text(_STUB)
        (root / "bin/stub").chmod(0o755)
        for name in _STUBS:
            (root / "bin" / name).symlink_to("stub")
        (root / "bash_env").write_text(_BASH_ENV)
        (root / "driver").write_text(_DRIVER.replace("SECONDS", str(_SECONDS)))
        for number, (text, programs) in enumerate(scripts):
            (root / f"scripts/{number:06}.sh").write_text(text)
            lines = [
                f"/bin/mkdir -p -- {_quoted(str(Path(path).parent))}; /bin/ln -s -- /bin/stub {_quoted(path)}"
                for path in programs
            ]
            (root / f"scripts/{number:06}.prepare").write_text("cd /srv/a\n" + "\n".join(lines))
        (root / "dev/null").touch()
        setup = f"""
            mount --make-rprivate / && mount -t tmpfs tmpfs {root}/srv && mkdir {root}/srv/a &&
            for folder in bin scripts lib lib64 usr; do
                ! test -d {root}/$folder || mount --bind {root}/$folder {root}/$folder
                ! test -d {root}/$folder || mount -o remount,ro,bind {root}/$folder
            done
            mount --bind /dev/null {root}/dev/null && mount -t proc proc /proc 2>/dev/null
            exec chroot {root} /bin/real-env -i PATH=/bin LC_ALL=C.UTF-8 /bin/bash /driver 7>&1"""
        done = subprocess.run([*_unshare(), "sh", "-c", setup], capture_output=True, check=True)
    return _parsed(done.stdout, len(scripts))


def _quoted(path: str) -> str:
    return "'" + path.replace("'", "'\\''") + "'"


def _parsed(output: bytes, count: int) -> list[list[Run]]:
    runs: list[list[Run]] = [[] for _ in range(count)]
    for part in output.decode(errors="replace").split("\3\0")[1:]:
        name, _, records = part.partition("\0")
        for item in records.split("\2\0")[:-1]:
            words, _, environment = item.partition("\1\0")
            pairs = [entry.partition("=") for entry in environment.split("\0") if entry]
            # Nor does an engine read a shell's functions, which `set -a` exports.
            kept = {
                key: value
                for key, _, value in pairs
                if key not in OF_SHELL and not key.startswith("BASH_FUNC_")
            }
            runs[int(name.partition(".")[0])].append(Run(tuple(words.split("\0")[:-1]), kept))
    return runs
