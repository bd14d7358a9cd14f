"""Which engine a command runs, behind whatever stands before it: `sudo`, `env`, `nohup`, `docker run`."""

import re
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

from recipectl.importers.shell import ASSIGNMENT, Command
from recipectl.recipe.hostfile import DEFAULT_PATH

_MODULES = {
    "vllm.entrypoints.openai.api_server": "vllm",
    "vllm.entrypoints.cli.main": "vllm",
    "sglang.launch_server": "sglang",
}
# Before a program; the value is the options that take a word of their own.
_WRAPPERS = {
    "exec": "", "nohup": "", "time": "", "setsid": "", "command": "", "sudo": "ugpCDRTh", "doas": "u",
    "stdbuf": "", "nice": "n", "ionice": "cn", "numactl": "", "taskset": "", "timeout": "ks", "chrt": "",
    "systemd-inhibit": "", "uv": "", "uvx": "", "conda": "np", "mamba": "np", "poetry": "",
}  # fmt: skip
_UNTOLD = ("exec", "nohup", "time", "setsid", "command")


@dataclass
class Program:
    """Which engine a command runs, by which file, and the words after it."""

    backend: str
    fields: dict[str, str]
    words: list[str]
    serves: bool = False  # `vllm serve`: the model is positional


def _sibling(path: str) -> dict[str, str]:
    """The runtime of a console script: the python beside it, unless it is just the host's own script."""
    folder = PurePosixPath(path).parent
    alone = str(folder) in DEFAULT_PATH or (
        "/" in path and not Path(folder, "python").exists() and Path(path).exists()
    )
    return {"python_path": str(folder / "python")} if "/" in path and not alone else {}


def program(words: list[str]) -> Program | None:
    """The engine of a command; None for any other program."""
    if not words:
        return None
    name, rest = PurePosixPath(words[0]).name, words[1:]
    if name == "vllm" and rest[:1] == ["serve"]:
        return Program("vllm", _sibling(words[0]), rest[1:], serves=True)
    if name == "sglang" and rest[:1] == ["serve"]:
        return Program("sglang", _sibling(words[0]), rest[1:])
    if re.fullmatch(r"llama-server([-_.].*)?", name):
        return Program("llamacpp", {"binary": words[0]} if "/" in words[0] else {}, rest)
    if re.fullmatch(r"python[0-9.]*", name):
        runtime = {"python_path": words[0]} if "/" in words[0] else {}
        while rest and re.fullmatch(r"-[uIsEOBqv]+|-[XW].*", rest[0]):
            rest = rest[2:] if rest[0] in ("-X", "-W") else rest[1:]
        if rest[:1] == ["-m"] and rest[1:2] and rest[1] in _MODULES:
            backend, after = _MODULES[rest[1]], rest[2:]
            serves = rest[1] == "vllm.entrypoints.cli.main" and after[:1] == ["serve"]
            return Program(backend, runtime, after[1:] if serves else after, serves=serves)
        if rest and PurePosixPath(rest[0]).name in ("vllm", "sglang", "llama-server"):
            return program(rest)  # a console script, as /proc shows it
    return None


def runs_container(words: list[str]) -> bool:
    """Whether a command is `docker run` or `podman run`."""
    return bool(words) and PurePosixPath(words[0]).name in ("docker", "podman") and "run" in words[1:4]


def _begins(words: list[str]) -> bool:
    """Whether a command that we know of begins here."""
    name = PurePosixPath(words[0]).name if words else ""
    known = name == "env" or name in _WRAPPERS or ASSIGNMENT.match(words[0] if words else "")
    return bool(known or runs_container(words) or program(words))


def unwrapped(command: Command) -> Command:
    """Without `env`, `sudo`, `nohup` and the like before the program; what they did is kept, or told."""
    words, environ, lost, user = list(command.words), dict(command.environment), list(command.lost), None
    while words and program(words) is None and not runs_container(words):
        name = PurePosixPath(words[0]).name
        if match := ASSIGNMENT.match(words[0]):
            environ[match[1]] = match[2]
            words = words[1:]
        elif name == "env":
            words = words[1:]
            while words and words[0].startswith("-"):
                if words[0] in ("-u", "--unset"):
                    environ.pop(words[1] if len(words) > 1 else "", None)
                    words = words[1:]
                elif words[0] in ("-i", "-", "--ignore-environment"):
                    environ = {}
                words = words[1:]
        elif name in _WRAPPERS:
            end = next((n for n in range(1, len(words)) if _begins(words[n:]) and not _taken(words, n)), None)
            if end is None:
                break
            if name in ("sudo", "doas"):
                user = _sudo_user(words[1:end]) or user
            elif name not in _UNTOLD or end > 1:
                lost.append(f"`{' '.join(words[:end])}` before the program; see `service:` for its like")
            words = words[end:]
        else:
            break
    path = environ.pop("PATH", command.path)
    return replace(command, environment=environ, words=words, path=path, lost=lost, user=user or command.user)


def _taken(words: list[str], at: int) -> bool:
    """Whether a word belongs to an option of the wrapper before it (`sudo -u vllm`)."""
    takes = _WRAPPERS[PurePosixPath(words[0]).name]
    return bool(re.fullmatch(r"-[A-Za-z]", words[at - 1]) and words[at - 1][1] in takes)


def _sudo_user(options: list[str]) -> str | None:
    for index, word in enumerate(options):
        if word in ("-u", "--user") and index + 1 < len(options):
            return options[index + 1]
        if match := re.match(r"(?:--user=|-u)(.+)", word):
            return match[1]
    return "root"
