"""The engine that a command runs, without the wrappers before it: `sudo`, `env`, `nohup`."""

import contextlib
import re
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

from recipectl.importers.command import Command, assignment, script_in
from recipectl.importers.draft import host_variable
from recipectl.importers.wrappers import options_of, settings
from recipectl.recipe.hostfile import DEFAULT_PATH
from recipectl.regular import open_regular
from recipectl.systemd import quoting

_MODULES = {
    "vllm.entrypoints.openai.api_server": "vllm",
    "vllm.entrypoints.cli.main": "vllm",
    "sglang.launch_server": "sglang",
}
# Wrappers, and the letters of their short options that take a word.
_WRAPPERS = {
    "exec": "a", "nohup": "", "time": "fo", "setsid": "", "command": "", "sudo": "ugpCDRTh", "doas": "u",
    "stdbuf": "ioe", "nice": "n", "ionice": "cn", "numactl": "", "taskset": "", "timeout": "ks", "chrt": "",
    "systemd-inhibit": "", "systemd-run": "puEMHGt", "uv": "", "uvx": "", "conda": "np", "mamba": "np",
    "poetry": "", "flock": "wE", "runuser": "ugG", "setpriv": "", "unbuffer": "", "chronic": "",
    "micromamba": "np", "pixi": "e", "pipx": "", "pyenv": "", "prlimit": "",
}  # fmt: skip
_LONG_WITH_WORD = frozenset(
    """
    --property --setenv --unit --uid --slice --nice --description --membind --cpunodebind --interleave
    --physcpubind --preferred --cpu-list --adjustment
    --from --with --with-requirements --python --project --directory --extra --group --env-file --index
    --cwd --index-url --extra-index-url --default-index --prerelease --torch-backend
    """.split()  # noqa: SIM905  (a list one can read)
)
# Their options become settings of the unit.
_WITH_SETTINGS = ("nice", "ionice", "taskset", "numactl", "systemd-run")
_RUNTIME = "make its runtime with `recipectl venv create`, and name that in `venv_path:`"
_REMEDIES = dict.fromkeys(("uv", "uvx", "poetry", "pipx"), _RUNTIME) | {
    **dict.fromkeys(
        ("conda", "mamba", "micromamba", "pixi", "pyenv"), "name its interpreter in `python_path:`"
    ),
    "stdbuf": "the journal has each line at once", "timeout": "see `RuntimeMaxSec` of `service:`",
}  # fmt: skip
# They run what follows somewhere else.
_ELSEWHERE = ("docker", "podman", "nerdctl", "ssh", "kubectl", "srun")
# Without options, these wrappers do nothing that a unit does not do.
_NEEDLESS_WRAPPERS = ("exec", "nohup", "time", "setsid", "command")
# The first word that is no option is the program.
_DIRECT_WRAPPERS = (*_NEEDLESS_WRAPPERS, "sudo", "doas", "stdbuf", "unbuffer", "chronic")


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
        return Program("vllm", _script_runtime(words[0]), arguments[1:], has_positional_model=True)
    if name == "sglang" and arguments[:1] == ["serve"]:
        return Program("sglang", _script_runtime(words[0]), arguments[1:])
    if is_llama:
        is_fork = name != "llama-server"  # the host's PATH would decide for another one
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


def _script_runtime(path: str) -> dict[str, str]:
    """The python beside a console script, unless the script is one of the host's own."""
    folder = PurePosixPath(path).parent
    has_no_python = Path(path).exists() and not Path(folder, "python").exists()
    if "/" not in path or str(folder) in DEFAULT_PATH or has_no_python:
        return {}
    return {"python_path": str(folder / "python")}


def _python_program(interpreter: str, words: list[str]) -> Program | None:
    """The engine that an interpreter runs, as a module or as a console script (as /proc shows it)."""
    options: tuple[str, ...] = ()
    while words and re.fullmatch(r"-[uIsEOBqv]+|-[XW].*", words[0]):
        length = 2 if words[0] in ("-X", "-W") else 1
        options += tuple(words[:length]) if words[0] not in ("-u", "-B") else ()
        words = words[length:]
    module = words[1] if words[:1] == ["-m"] and len(words) > 1 else ""
    if module not in _MODULES:
        return program(words) if program_name(words) in ("vllm", "sglang", "llama-server") else None
    arguments = words[2:]
    serves = module == "vllm.entrypoints.cli.main" and arguments[:1] == ["serve"]
    return Program(
        _MODULES[module],
        {"python_path": interpreter} if "/" in interpreter else {},
        arguments[1:] if serves else arguments,
        has_positional_model=serves,
        interpreter_options=options,
    )


def runs_container(words: list[str]) -> bool:
    """Whether a command is `docker run`, `podman run` or the like."""
    is_engine = program_name(words) in ("docker", "podman", "nerdctl")
    return is_engine and "run" in words[1:4] and "compose" not in words[1:3]


def runs_engine(words: list[str]) -> bool:
    """Whether a command without wrappers runs an engine, or a container that may run one."""
    return program(words) is not None or runs_container(words)


def unwrapped(command: Command) -> Command:
    """The command without `env`, `sudo`, `nohup` and the like; their effect is kept, or not carried over."""
    inner = replace(
        command,
        environment=dict(command.environment),
        words=list(command.words),
        not_carried_over=list(command.not_carried_over),
        service=dict(command.service),
    )
    while inner.words and not runs_engine(inner.words):
        if not _remove_wrapper(inner):
            break
    inner.path = inner.environment.pop("PATH", inner.path)
    return inner


def _remove_wrapper(command: Command) -> bool:
    """Remove the first wrapper of a command; False when there is none."""
    name = program_name(command.words)
    if pair := assignment(command.words[0]):
        command.environment |= [pair]
        command.words = command.words[1:]
        return True
    if name == "env":
        _remove_env(command)
        return True
    length = _wrapper_length(command.words) if name in _WRAPPERS else 0
    wrapper = command.words[:length]
    if wrapper and name in ("sudo", "doas", "runuser"):
        _take_sudo(command, wrapper)
    elif wrapper and name in _WITH_SETTINGS:
        _take_settings(command, wrapper)
    elif wrapper[1:2] == ["run"] and (environment := _conda_environment(wrapper)):
        command.conda_environment = environment
        command.folder = _value_of(wrapper, "--cwd") or command.folder
    elif wrapper and (name not in _NEEDLESS_WRAPPERS or wrapper[1:]):
        remedy = _REMEDIES.get(name, "see `service:` for a similar setting")
        version = [word for word in command.words[length : length + 1] if re.search("@|==", word)]
        shown = " ".join((*wrapper, *version))  # `uvx vllm==0.32.0`
        command.not_carried_over.append(f"`{shown}` before the program; {remedy}")
        command.folder = _value_of(wrapper, "--directory" if name == "uv" else "--cwd") or command.folder
    command.words = command.words[length:]
    return bool(wrapper)


def _value_of(wrapper: list[str], name: str) -> str:
    """The value of an option of a wrapper; empty without it."""
    return next((value for option, value, _ in options_of(wrapper) if option == name), "")


def _conda_environment(wrapper: list[str]) -> str:
    """The folder of the environment of `/opt/conda/bin/conda run -n NAME`; "" where that is not known."""
    if program_name(wrapper) not in ("conda", "mamba", "micromamba"):
        return ""
    values = {option: value for option, value, _ in options_of(wrapper[2:])}
    if prefix := values.get("-p") or values.get("--prefix"):
        return prefix
    name = values.get("-n") or values.get("--name")
    if not name or not wrapper[0].startswith("/") or program_name(wrapper) == "micromamba":
        return ""  # micromamba has its environments wherever MAMBA_ROOT_PREFIX says
    folder = re.sub(r"/(bin|condabin)/\w+\Z", "", wrapper[0])
    return folder if name == "base" else f"{folder}/envs/{name}"


def _take_sudo(command: Command, wrapper: list[str]) -> None:
    """The user, group and folder that `sudo -u USER -g GROUP -D FOLDER` gives."""
    options = [(option, value) for option, value, _ in options_of(wrapper[1:])]
    joined = [option for option, _ in options if re.fullmatch("-[A-Za-z]{2,}", option)]  # `-iu`
    options += [
        (f"-{letter}", value) for option, value in options if option in joined for letter in option[1:]
    ]
    names = {option for option, _ in options}
    command.user = command.user if names & {"-g", "--group"} else "root"
    keeps = "-E" in names or ("--preserve-env", "") in options
    if program_name(wrapper) == "sudo" and command.environment and not keeps:
        variables = ", ".join(f"`{name}`" for name in sorted(command.environment))
        fault = f"{variables}, which `sudo` without -E may not have passed on"
        command.not_carried_over.append(f"{fault}; remove what the engine did not have")
    for option, value in options:
        if option in ("-u", "--user"):
            command.user = value
        elif option in ("-g", "--group"):
            command.service["Group"] = value
        elif option in ("-D", "--chdir"):
            command.folder = value
        elif option in ("-i", "--login"):
            command.folder = host_variable("HOME")


def _take_settings(command: Command, wrapper: list[str]) -> None:
    """Keep what a wrapper means as settings of the unit; name the rest."""
    unit_settings, rest = settings(wrapper)
    for name, value in unit_settings:
        if name == "Environment":
            command.environment |= [assignment(word) or (word, "") for word in quoting.split(value)]
        elif name == "Nice" and re.fullmatch(r"-?[0-9]{1,9}", value):
            level = int(command.service.get("Nice", "0")) + int(value)
            command.service["Nice"] = str(max(-20, min(19, level)))
        elif name in command.service and name.startswith(("Device", "Bind", "ReadWrite", "IODevice")):
            command.not_carried_over.append(f"{name}={value}, besides the one that is kept")
        elif name == "User":
            command.user = value
        elif name == "WorkingDirectory":
            command.folder = value
        else:
            command.service[name] = value
    if rest:
        command.not_carried_over.append(f"`{program_name(wrapper)} {' '.join(rest)}` before the program")


def _remove_env(command: Command) -> None:
    """Remove `env` with its options, and apply them to the environment."""
    words = command.words[1:]
    while words and words[0].startswith("-"):
        option = words.pop(0)
        name, _, value = option.partition("=")
        if name in ("-u", "--unset"):
            command.environment.pop(value or (words.pop(0) if words else ""), None)
        elif name in ("-C", "--chdir"):
            command.folder = value or (words.pop(0) if words else None)
        elif option in ("-i", "-", "--ignore-environment"):
            command.environment.clear()
    command.words = words


def _wrapper_length(words: list[str]) -> int:
    """The number of words before the wrapped command; 0 when there is no command that we know."""
    options_with_word = _WRAPPERS[program_name(words)]
    for length in range(1, len(words)):
        option = words[length - 1]
        if program_name([option]) in _ELSEWHERE:
            return 0
        short = r"-[A-Za-z]+" if program_name(words) in ("sudo", "doas", "runuser") else r"-[A-Za-z]"
        takes_word = re.fullmatch(short, option) and option[-1] in options_with_word
        takes_word = takes_word or option in _LONG_WITH_WORD
        takes_word = takes_word or (
            program_name(words) == "sudo" and option in ("--user", "--group", "--chdir")
        )
        is_program = program_name(words) in _DIRECT_WRAPPERS and not words[length].startswith("-")
        if (is_program or _begins_command(words[length:])) and not takes_word:
            return length
    return 0


def _begins_command(words: list[str]) -> bool:
    """Whether these words are a wrapper, an assignment or a program that we know."""
    name = program_name(words)
    is_assignment = assignment(words[0]) and "==" not in words[0]  # `vllm==0.11.0` is a package
    is_script = script_in(words[:4]) is not None
    return name == "env" or name in _WRAPPERS or bool(is_assignment) or is_script or runs_engine(words)
