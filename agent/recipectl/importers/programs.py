"""The engine that a command runs, by the name of its program."""

import contextlib
import os
import re
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from recipectl.machine.disk import interpreter_of
from recipectl.recipe.hostfile import DEFAULT_PATH
from recipectl.regular import open_regular

_MODULES = {
    "vllm.entrypoints.openai.api_server": "vllm",
    "vllm.entrypoints.cli.main": "vllm",
    "sglang.launch_server": "sglang",
}

_NAMES_OF_SCRIPTS = re.compile(
    r"(start|run|launch|serve|update|stop|restart|build|install|setup|deploy|docker)[-_.].*|.*\.(sh|py)\Z"
)


@dataclass
class Program:
    """The engine of a command: `runtime_fields` of the recipe name its file, `arguments` follow it."""

    backend: str
    runtime_fields: dict[str, str]
    arguments: list[str]
    has_positional_model: bool = False  # `vllm serve MODEL`
    interpreter_options: tuple[str, ...] = ()  # `-X` and the like of Python


def program(words: list[str]) -> Program | None:
    """The engine of a command without wrappers; None for any other program."""
    name = re.sub("^(vllm|sglang)(@|==).*", r"\1", program_name(words))  # `uvx vllm@0.32.0`
    arguments = words[1:]
    arguments = [word for word in arguments if word != "--"]  # argparse takes the words after it as they are
    is_llama = bool(re.fullmatch(r"(.*[-_.])?llama[-_]server([-_.].*)?", name))
    if (is_llama or name in ("vllm", "sglang")) and _is_shell_script(words[0]):
        return None
    if name == "vllm" and arguments[:1] == ["serve"]:
        return Program("vllm", script_runtime(words[0]), arguments[1:], has_positional_model=True)
    if name == "sglang" and arguments[:1] == ["serve"]:
        return Program("sglang", script_runtime(words[0]), arguments[1:])
    if name == "llama" and arguments[:1] in (["serve"], ["server"]):  # one program for all of llama.cpp's
        server = str(PurePosixPath(words[0]).with_name("llama-server"))
        return Program("llamacpp", {"binary": server} if "/" in words[0] else {}, arguments[1:])
    if is_llama:
        is_fork = name != "llama-server"  # for another name, PATH could select another program
        return Program("llamacpp", {"binary": words[0]} if "/" in words[0] or is_fork else {}, arguments)
    return _python_program(words[0], arguments) if re.fullmatch(r"python[0-9.]*", name) else None


def _is_shell_script(file: str) -> bool:
    """Whether a file with an engine's name is a site's shell script, by its name or its first line."""
    if _NAMES_OF_SCRIPTS.match(PurePosixPath(file).name):
        return True
    start = b""
    if file.startswith("/"):
        with contextlib.suppress(OSError), open_regular(file) as script:
            start = script.read(500)
    # pip starts a long interpreter's path with `exec` in a script of sh.
    return bool(re.match(rb"#!.*\b(ba|da|z)?sh\b", start)) and b"'''exec'" not in start


def program_name(words: list[str]) -> str:
    """The file name of a command's program; "" for no command."""
    return PurePosixPath(words[0]).name if words else ""


def script_runtime(path: str) -> dict[str, str]:
    """The python beside a console script, or that of its first line; none for one of the host's own."""
    folder = PurePosixPath(path).parent
    if "/" not in path or str(folder) in DEFAULT_PATH:
        return {}
    has_no_python = os.path.exists(path) and not os.path.exists(folder / "python")  # noqa: PTH110  (no error)
    # `uv tool` and `pipx` put a script into a folder without its python.
    interpreter = interpreter_of(Path(path)) if has_no_python else folder / "python"
    return {"python_path": str(interpreter)} if interpreter else {}


def _python_program(interpreter: str, words: list[str]) -> Program | None:
    """The engine that an interpreter runs, as a module or as a console script (as /proc shows it)."""
    options: tuple[str, ...] = ()
    if words and (joined := re.fullmatch("-m([a-z].*)", words[0])):
        words = ["-m", joined[1], *words[1:]]
    while words and re.fullmatch(r"-[uIsEOBqv]+|-[XW].*", words[0]):
        length = 2 if words[0] in ("-X", "-W") else 1
        options += tuple(words[:length]) if words[0] not in ("-u", "-B") else ()
        words = words[length:]
    module = words[1] if words[:1] == ["-m"] and len(words) > 1 else ""
    if module not in _MODULES:
        return _console_script(interpreter, words, options)
    arguments = words[2:]
    if module == "vllm.entrypoints.cli.main" and arguments and arguments[0] != "serve":
        return None  # as `vllm bench`
    serves = module == "vllm.entrypoints.cli.main" and arguments[:1] == ["serve"]
    return Program(
        _MODULES[module],
        {"python_path": interpreter} if "/" in interpreter else {},
        arguments[1:] if serves else arguments,
        has_positional_model=serves,
        interpreter_options=options,
    )


def _console_script(interpreter: str, words: list[str], options: tuple[str, ...]) -> Program | None:
    """The engine of a console script.

    The interpreter that runs it may be in another folder, as after `pip install --user`.
    """
    engine = program(words) if program_name(words) in ("vllm", "sglang", "llama-server") else None
    if engine and engine.backend != "llamacpp":
        engine.interpreter_options = options
        if "/" in interpreter and PurePosixPath(interpreter).parent != PurePosixPath(words[0]).parent:
            engine.runtime_fields = {"python_path": interpreter}
    return engine


def runs_container(words: list[str]) -> bool:
    """Whether a command is `docker run`, `podman run` or the like."""
    is_client = program_name(words) in ("docker", "podman", "nerdctl")
    return is_client and "run" in words[1:4] and "compose" not in words[1:3]


def runs_engine(words: list[str]) -> bool:
    """Whether a command without wrappers runs an engine, or a container that may run one."""
    return program(words) is not None or runs_container(words)
