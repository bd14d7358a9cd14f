"""Questions to an engine: its options (once for each installed version), and the version that runs."""

import contextlib
import hashlib
import http.client
import json
import os
import pwd
import re
import subprocess
import tempfile
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any, NamedTuple

from recipectl.engines.options import Options, parse_table, shipped_options
from recipectl.engines.registry import ENGINES
from recipectl.errors import RecipectlError
from recipectl.files import write_whole
from recipectl.machine import lockfile
from recipectl.machine.distributions import ENGINE_DISTRIBUTIONS
from recipectl.machine.runtime import Runtime

TIMEOUT_SEC = 120  # the parsers of vLLM and SGLang take 6 s here, and more on a cold disk


class Answer(NamedTuple):
    """The options of an engine, where they come from in words, and whether the engine itself was asked."""

    options: Options
    origin: str
    asked: bool


def options_of(backend: str, runtime: Runtime, user: str, cache: Path) -> Answer:
    """The options of the installed engine; the shipped table when it cannot be asked."""
    program = runtime.command[0]
    file = cache / f"{backend}-{_runtime_digest(backend, runtime)}.json"
    with contextlib.suppress(OSError, ValueError, KeyError):
        return Answer(parse_table(file.read_text()), f"the parser of {program} (asked before)", asked=True)
    try:
        ask = _ask_binary if ENGINES[backend].is_binary else _ask_python
        text = ask(backend, runtime, user)
        options = parse_table(text)
    except (OSError, ValueError, KeyError, subprocess.SubprocessError) as error:
        shipped = shipped_options(backend)
        table = " ".join(filter(None, (backend, shipped.version)))
        origin = f"recipectl's own table of {table}, because {_reason(runtime, error)}"
        return Answer(shipped, origin, asked=False)
    with contextlib.suppress(OSError, RecipectlError):  # without a cache, the engine is asked again
        cache.mkdir(mode=0o700, parents=True, exist_ok=True)
        write_whole({file: text})
    return Answer(options, f"the parser of {program}", asked=True)


def _reason(runtime: Runtime, error: Exception) -> str:
    program = runtime.interpreter or runtime.command[0]
    if isinstance(error, subprocess.TimeoutExpired):
        return f"{program} did not answer within {error.timeout:g} s"
    if isinstance(error, subprocess.CalledProcessError):
        lines = str(error.stderr or "").strip().splitlines()
        return f"{program} cannot tell ({lines[-1] if lines else f'status {error.returncode}'})"
    return f"{program} cannot tell ({error})"


def _runtime_digest(backend: str, runtime: Runtime) -> str:
    names = ENGINE_DISTRIBUTIONS[backend]
    lock = lockfile.record(runtime.interpreter or runtime.command[0], runtime.installed_in, names)
    engine = {name: item for name, item in lock["distributions"].items() if name in names}
    known = json.dumps(engine or lock["interpreter_sha256"], sort_keys=True)
    return hashlib.sha256(f"{runtime.command[0]} {known}".encode()).hexdigest()[:20]


def _run(words: list[str], runtime: Runtime, user: str, text: str = "") -> str:
    """A program's output. Root runs it as the unit's user: the venv may belong to anybody."""
    identity: dict[str, Any] = {}
    if os.geteuid() == 0 and user != "root":
        try:
            entry = pwd.getpwnam(user)
        except KeyError:  # apply has not created it yet
            entry = pwd.getpwnam("nobody")
        identity = {"user": entry.pw_uid, "group": entry.pw_gid, "extra_groups": []}
    with tempfile.TemporaryDirectory(prefix="recipectl-") as home:  # SGLang makes folders in its home
        if identity:
            os.chown(home, identity["user"], identity["group"])
        environment = {
            "PATH": ":".join(runtime.path),
            "HOME": home,
            "CUDA_VISIBLE_DEVICES": "",
            "LC_ALL": "C.UTF-8",
        }
        output: str = subprocess.run(  # noqa: S603  (the interpreter that the recipe itself names)
            words, input=text, capture_output=True, text=True, check=True, timeout=TIMEOUT_SEC,
            env=environment, cwd="/", **identity,
        ).stdout  # fmt: skip
    return output


def _ask_python(backend: str, runtime: Runtime, user: str) -> str:
    # By standard input: the unit's user may not be able to read the package's folder.
    program = Path(__file__).with_name("parser_probe.py").read_text()
    output = _run([runtime.interpreter or "", "-I", "-", backend], runtime, user, program)
    return output[output.index('{"version"') :]


def _ask_binary(_: str, runtime: Runtime, user: str) -> str:
    options = llama_options(_run([runtime.command[0], "--help"], runtime, user))
    return json.dumps({"version": runtime.engine_version, "options": options})


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
        option: dict[str, Any] = {"kind": "negatable" if negatives else "value" if takes else "flag"}
        if aliases := [name for name in names if name != first and name not in negatives]:
            option["aliases"] = aliases
        if choices := re.fullmatch(r"[\[{]([a-z0-9_]+(?:[,|][a-z0-9_]+)+)[\]}]", takes):
            option["choices"] = re.split(r"[,|]", choices[1])
        table[first] = option
    if not table:
        raise ValueError("its --help names no options")
    return table


_VERSION_TIMEOUT_SEC = 2
# Never through a proxy: the engine is on this host.
_OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def answered_version(backend: str, url: str) -> str | None:
    """The version that a running engine tells; empty when it tells none, None when it does not answer."""
    engine = ENGINES[backend]
    try:
        with _OPENER.open(f"{url}{engine.version_path}", timeout=_VERSION_TIMEOUT_SEC) as answer:
            version = json.load(answer).get(engine.version_key)
    except urllib.error.HTTPError:
        return ""
    except (OSError, http.client.HTTPException):
        return None
    except (ValueError, AttributeError):
        return ""
    return str(version) if version else ""
