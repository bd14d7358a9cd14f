"""Questions to an engine: its options (once for each installed version), and the version that runs."""

import contextlib
import hashlib
import json
import os
import pwd
import re
import subprocess
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

from recipectl.bounded import output_of
from recipectl.engines.endpoint import Endpoint
from recipectl.engines.options import Options, parse_table, shipped_options
from recipectl.engines.registry import ENGINES
from recipectl.errors import RecipectlError
from recipectl.files import read_own, write_whole
from recipectl.machine import lockfile, sockets
from recipectl.machine.distributions import ENGINE_DISTRIBUTIONS
from recipectl.machine.runtime import Runtime
from recipectl.systemd.unitfile import InstalledUnit

_MAX_OUTPUT_BYTES = 4 * 1024 * 1024
_MAX_HELP_LINE = 1000
_TABLE_FORMAT = 3  # of the cached answers
# What a hostile venv's answer may raise when it is read as a table.
_NO_TABLE = (ValueError, LookupError, TypeError, AttributeError, RecursionError)
PARSER_TIMEOUT_SEC = 120  # the parsers of vLLM and SGLang take 6 s here, and more on a cold disk
_ANSWER_TIMEOUT_SEC = 2  # of a whole answer
_MAX_ANSWER_BYTES = 65536


class EngineOptions(NamedTuple):
    """The options of an engine, where they come from in words, and whether the engine itself was asked."""

    options: Options
    origin: str
    asked: bool


def options_of(backend: str, runtime: Runtime, user: str, cache: Path | None) -> EngineOptions:
    """The options of the installed engine; the shipped table when it cannot be asked."""
    program = runtime.command[0]
    file = cache / f"{backend}-{_runtime_digest(backend, runtime)}.json" if cache else None
    origin = f"the parser of {program}"
    with contextlib.suppress(OSError, *_NO_TABLE):
        if file:
            return EngineOptions(parse_table(read_own(file).decode()), f"{origin} (asked before)", asked=True)
    try:
        ask = _ask_binary if ENGINES[backend].is_binary else _ask_python
        text = ask(backend, runtime, user)
        options = parse_table(text)
    except (OSError, subprocess.SubprocessError, *_NO_TABLE) as error:
        shipped = shipped_options(backend)
        table = " ".join(filter(None, (backend, shipped.version)))
        why = _reason(backend, runtime, error)
        return EngineOptions(shipped, f"recipectl's own table of {table}, because {why}", asked=False)
    with contextlib.suppress(OSError, RecipectlError):  # without a cache, the engine is asked again
        if file:
            file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            write_whole({file: text})
    return EngineOptions(options, origin, asked=True)


def _reason(backend: str, runtime: Runtime, error: Exception) -> str:
    asks_program = ENGINES[backend].is_binary or runtime.interpreter is None
    program = runtime.command[0] if asks_program else runtime.interpreter
    if isinstance(error, subprocess.TimeoutExpired):
        return f"{program} did not answer within {error.timeout:g} s"
    if isinstance(error, subprocess.CalledProcessError):
        lines = str(error.stderr or "").strip().splitlines()
        return f"{program} cannot tell ({lines[-1] if lines else f'status {error.returncode}'})"
    return f"{program} cannot tell ({error})"


def _runtime_digest(backend: str, runtime: Runtime) -> str:
    names = ENGINE_DISTRIBUTIONS[backend]
    lock = lockfile.record(runtime.recorded, runtime.installed_in, names)
    engine = {name: item for name, item in lock["distributions"].items() if name in names}
    known = json.dumps(engine or lock["interpreter_sha256"], sort_keys=True)
    return hashlib.sha256(f"{_TABLE_FORMAT} {runtime.command[0]} {known}".encode()).hexdigest()[:20]


def _run(words: list[str], runtime: Runtime, user: str, text: str = "") -> str:
    """A program's output. Root runs it as the unit's user: the venv may belong to anybody."""
    # SGLang makes folders in its home.
    with tempfile.TemporaryDirectory(prefix="recipectl-", ignore_cleanup_errors=True) as home:
        if os.geteuid() == 0 and user != "root":
            try:
                entry = pwd.getpwnam(user)
            except KeyError:  # apply has not created it yet
                entry = pwd.getpwnam("nobody")
            os.chown(home, entry.pw_uid, entry.pw_gid)
            words = _contained(words, entry)
        environment = {
            "PATH": ":".join(runtime.path),
            "HOME": home,
            "CUDA_VISIBLE_DEVICES": "",
            "LC_ALL": "C.UTF-8",
        }
        # In a session of its own: a program with the caller's terminal could type into the caller's shell.
        process = subprocess.Popen(  # noqa: S603  (the interpreter that the recipe itself names)
            words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            env=environment, cwd="/", start_new_session=True,
        )  # fmt: skip
        with process:
            return _checked_output(process, text)


def _contained(words: list[str], entry: pwd.struct_passwd) -> list[str]:
    """A command as a user without privileges; what it leaves behind ends with it, in another session too.

    The first process of its namespace is a shell of root's, which it cannot reach (pid_namespaces(7)).
    """
    groups = ",".join(map(str, os.getgrouplist(entry.pw_name, entry.pw_gid)))
    identity = [f"--reuid={entry.pw_uid}", f"--regid={entry.pw_gid}", f"--groups={groups}"]
    namespace = ("/usr/bin/unshare", "--pid", "--fork", "--kill-child", "--mount-proc")
    can_contain = subprocess.run((*namespace, "/bin/true"), capture_output=True, check=False).returncode == 0  # noqa: S603  (fixed words)
    return [
        # Root of a container may make no namespace: then the end of the session must do.
        *((*namespace, "/bin/sh", "-c", '"$@"; exit $?', "sh") if can_contain else ()),
        *("/usr/bin/setpriv", *identity, "--no-new-privs", "--bounding-set=-all", "--inh-caps=-all", "--"),
        *words,
    ]


def _checked_output(process: subprocess.Popen[bytes], text: str) -> str:
    """The output of a program that gets a text; SubprocessError for a failure, and beyond its limits."""
    output = output_of(process, text, max_bytes=_MAX_OUTPUT_BYTES, timeout_sec=PARSER_TIMEOUT_SEC)
    stdout, stderr = (data.decode(errors="replace") for data in (output.stdout, output.stderr))
    if output.status:
        raise subprocess.CalledProcessError(output.status, process.args, stdout, stderr)
    return stdout


def _ask_python(backend: str, runtime: Runtime, user: str) -> str:
    # By standard input: the unit's user may not be able to read the package's folder.
    program = Path(__file__).with_name("parser_probe.py").read_text()
    output = _run([runtime.interpreter or "", "-I", "-", backend], runtime, user, program)
    _, start, answer = output.partition('{"version"')
    if not start:
        raise ValueError("it printed no table of options")
    return start + answer


def _ask_binary(_: str, runtime: Runtime, user: str) -> str:
    options = llama_options(_run([runtime.command[0], "--help"], runtime, user))
    return json.dumps({"version": runtime.engine_version, "options": options})


def llama_options(text: str) -> dict[str, dict[str, Any]]:
    """The options in `llama-server --help`: names, then what they take, then two spaces and the rest.

    Names that mean "no" follow the others (`common_arg::to_string` of llama.cpp).
    """
    table: dict[str, dict[str, Any]] = {}
    option: dict[str, Any] = {}
    for line in (line for line in text.splitlines() if len(line) <= _MAX_HELP_LINE):
        if option.get("kind") == "value" and line.startswith(" ") and "comma-separated" in line:
            option["kind"] = "commas"
        default = re.search(r"\bdefault: '?([^,')]+)", line)
        if default and option and line.startswith(" "):
            option.setdefault("default", default[1])
        head = re.match(r"(-{1,2}[A-Za-z].*?)(?:\s{2,}(?=[^-\s])|$)", line)
        names = re.findall(r"(?<![\w-])(--?[A-Za-z][\w.-]*)", head[1]) if head else []
        long = [name for name in names if name.startswith("--")]
        if not head or not long:
            continue
        takes = re.sub(r"(?<![\w-])--?[A-Za-z][\w.-]*", "", head[1]).strip(" ,")
        first = long[0]
        negation = f"--no-{first[2:]}"
        is_negatable = negation in long
        positive = [name for name in long if not is_negatable or not name.startswith("--no-")]
        end = names.index(positive[-1]) + 1
        kind = "negatable" if is_negatable else "value" if takes else "flag"
        option = {"kind": "commas" if kind == "value" and "comma-separated" in line else kind}
        if aliases := [name for name in names[: end if is_negatable else None] if name != first]:
            option["aliases"] = aliases
        if is_negatable:
            option["negations"] = [negation, *(name for name in names[end:] if name != negation)]
        if default:
            option["default"] = default[1]
        if choices := re.fullmatch(r"[\[{]([a-z0-9_]+(?:[,|][a-z0-9_]+)+)[\]}]", takes):
            option["choices"] = re.split(r"[,|]", choices[1])
        table[first] = option
    if not table:
        raise ValueError("its --help names no options")
    return table


class Served(NamedTuple):
    """What a running engine tells about itself; `answers` is False when it tells nothing at all."""

    answers: bool
    version: str = ""
    models: tuple[str, ...] = ()  # the names that it serves
    path: str = ""  # of the model


def ask(unit: InstalledUnit) -> Served | None:
    """What the running engine of a unit tells; None when it is not asked.

    An on-demand engine is asked directly: a question to its socket would count as use.
    """
    if unit.endpoint is None or unit.backend not in ENGINES:  # it has none, or somebody edited the unit
        return None
    host, port = unit.engine_address or unit.endpoint_address
    return served(unit.backend, Endpoint(host, port, None).connect, port)


def served(backend: str, host: str, port: int) -> Served:
    """The version and the models that a running engine tells. What it answers is not trusted."""
    engine = ENGINES[backend]
    status, version = _answer(host, port, engine.version_path)
    if status is None:
        return Served(answers=False)
    _, models = _answer(host, port, "/v1/models")
    rows = models.get("data") if isinstance(models, dict) else None
    rows = [row for row in rows if isinstance(row, dict)] if isinstance(rows, list) else []
    names = [row.get("id") for row in rows]
    text = version.get(engine.version_key) if isinstance(version, dict) else None
    texts = tuple(name[:200] for name in names[:100] if isinstance(name, str))
    # llama.cpp and SGLang tell the path beside the version, vLLM as the root of a model.
    path = version.get("model_path") if isinstance(version, dict) else None
    path = path or (rows[0].get("root") if names else None)
    return Served(
        answers=True,
        version=text[:100] if isinstance(text, str) else "",
        models=texts,
        path=path[:4096] if isinstance(path, str) else "",
    )


def _answer(host: str, port: int, path: str) -> tuple[int | None, object]:
    """(HTTP status, JSON) of one GET; the status is None without an answer, and 0 for what is no HTTP."""
    text = sockets.http_answer(host, port, path, _ANSWER_TIMEOUT_SEC, _MAX_ANSWER_BYTES)
    if text is None:
        return None, None
    status = sockets.status_of(text) or 0
    try:
        return status, json.loads(text.partition(b"\r\n\r\n")[2]) if status == 200 else None
    except (ValueError, RecursionError):
        return 0, None
