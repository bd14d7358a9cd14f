"""What options the installed engine has: its own parser is asked, once for each installed version."""

import contextlib
import hashlib
import json
import os
import pwd
import re
import subprocess
import tempfile
from pathlib import Path
from typing import Any

from recipectl import engines
from recipectl.machine import distributions as installed
from recipectl.machine.disk import DISTRIBUTIONS
from recipectl.machine.runtime import Runtime

TIMEOUT_SEC = 120  # vLLM's and SGLang's parsers take 6 s here, and more on a cold disk


def options_of(backend: str, found: Runtime, user: str, cache: Path) -> tuple[engines.Options, str]:
    """The options, and where they come from in words; the shipped table when the engine cannot be asked."""
    names = DISTRIBUTIONS[backend]
    file = cache / f"{backend}-{_digest(found, names)}.json"
    with contextlib.suppress(OSError, ValueError, KeyError):
        return engines.table(file.read_text()), f"the parser of {found.command[0]} (asked before)"
    try:
        text = _llama(found, user) if backend == "llamacpp" else _python(backend, found, user)
        options = engines.table(text)
    except (OSError, ValueError, KeyError, subprocess.SubprocessError) as error:
        shipped = engines.options(backend)
        table = " ".join(filter(None, (backend, shipped.version)))
        return shipped, f"recipectl's own table of {table}, for {_words(found, error)}"
    with contextlib.suppress(OSError):  # a host where it cannot be kept asks again
        cache.mkdir(mode=0o700, parents=True, exist_ok=True)
        temporary = file.with_suffix(f".{os.getpid()}")
        temporary.write_text(text)
        temporary.replace(file)
    return options, f"the parser of {found.command[0]}"


def _words(found: Runtime, error: Exception) -> str:
    program = found.interpreter or found.command[0]
    if isinstance(error, subprocess.TimeoutExpired):
        return f"{program} did not answer within {error.timeout:g} s"
    if isinstance(error, subprocess.CalledProcessError):
        said = str(error.stderr or "").strip().splitlines()
        return f"{program} cannot tell ({said[-1] if said else f'status {error.returncode}'})"
    return f"{program} cannot tell ({error})"


def _digest(found: Runtime, names: tuple[str, ...]) -> str:
    facts = installed.facts(found.interpreter or found.command[0], found.installed_in, names)
    engine = {name: one for name, one in facts["distributions"].items() if name in names}
    known = json.dumps(engine or facts["interpreter_sha256"], sort_keys=True)
    return hashlib.sha256(f"{found.command[0]} {known}".encode()).hexdigest()[:20]


def _run(words: list[str], found: Runtime, user: str, text: str = "") -> str:
    """A program's output, as the unit's user when we are root: the venv may be anybody's."""
    who: dict[str, Any] = {}
    if os.geteuid() == 0 and user != "root":
        try:
            entry = pwd.getpwnam(user)
        except KeyError:  # apply has not made it yet
            entry = pwd.getpwnam("nobody")
        who = {"user": entry.pw_uid, "group": entry.pw_gid, "extra_groups": []}
    with tempfile.TemporaryDirectory(prefix="recipectl-") as home:  # SGLang makes folders in its home
        if who:
            os.chown(home, who["user"], who["group"])
        environ = {
            "PATH": ":".join(found.path),
            "HOME": home,
            "CUDA_VISIBLE_DEVICES": "",
            "LC_ALL": "C.UTF-8",
        }
        output: str = subprocess.run(  # noqa: S603  (the interpreter that the recipe itself names)
            words, input=text, capture_output=True, text=True, check=True, timeout=TIMEOUT_SEC,
            env=environ, cwd="/", **who,
        ).stdout  # fmt: skip
    return output


def _python(backend: str, found: Runtime, user: str) -> str:
    # By standard input: the unit's user may not be able to read our own folder.
    program = Path(engines.__file__).with_name("probe.py").read_text()
    output = _run([found.interpreter or "", "-I", "-", backend], found, user, program)
    return output[output.index('{"version"') :]


def _llama(found: Runtime, user: str) -> str:
    return json.dumps(
        {
            "version": found.engine_version,
            "options": llama_options(_run([found.command[0], "--help"], found, user)),
        }
    )


def llama_options(text: str) -> dict[str, dict[str, Any]]:
    """The options in `llama-server --help`: names, then what they take, then two spaces and the rest."""
    table: dict[str, dict[str, Any]] = {}
    for line in text.splitlines():
        head = re.match(r"\s*(-{1,2}[A-Za-z].*?)(?:\s{2,}(?=[^-\s])|$)", line)
        names = re.findall(r"(?<![\w-])(--?[A-Za-z][\w-]*)", head[1]) if head else []
        long = [name for name in names if name.startswith("--")]
        if not head or not long:
            continue
        takes = re.sub(r"--?[A-Za-z][\w-]*", "", head[1]).strip(" ,")
        negatives = [name for name in long if name.startswith("--no-") and f"--{name[5:]}" in long]
        first = next(name for name in long if name not in negatives)
        one: dict[str, Any] = {"kind": "negatable" if negatives else "value" if takes else "flag"}
        if others := [name for name in names if name != first and name not in negatives]:
            one["aliases"] = others
        if choices := re.fullmatch(r"[\[{]([a-z0-9_]+(?:[,|][a-z0-9_]+)+)[\]}]", takes):
            one["choices"] = re.split(r"[,|]", choices[1])
        table[first] = one
    if not table:
        raise ValueError("its --help names no options")
    return table
