"""`docker run` and `podman run` of an engine's image: its arguments, without the container."""

import re
from pathlib import PurePosixPath

from recipectl.imports.draft import OPEN
from recipectl.imports.shell import ASSIGNMENT, Command

_ALONE = {
    "--rm",
    "--init",
    "--privileged",
    "--detach",
    "--interactive",
    "--tty",
    "--read-only",
    "--oom-kill-disable",
}
_ALONE |= {"--publish-all", "--no-healthcheck", "--sig-proxy", "--quiet"}
_SHORT_ALONE = re.compile(r"-[ditqP]+\Z")
# What becomes of an image without a command of its own.
_ENTRY: tuple[tuple[str, list[str]], ...] = (
    (r"vllm", ["vllm", "serve"]),
    (r"sglang", []),
    (r"llama\.?cpp|llama-server", ["llama-server"]),
)


def contained(command: Command) -> tuple[Command, list[str]] | None:
    """The command inside a container and notes on the container; None when it is no such command."""
    words = list(command.words)
    if not words or PurePosixPath(words[0]).name not in ("docker", "podman") or "run" not in words[:3]:
        return None
    words = words[words.index("run") + 1 :]
    environ: dict[str, str] = {}
    notes: list[str] = []
    lost = list(command.lost)
    mounts: list[tuple[str, str]] = []
    ports: dict[str, str] = {}
    entry: list[str] | None = None
    while words and words[0].startswith("-"):
        name, equals, value = words[0].partition("=")
        words = words[1:]
        if name in _ALONE or _SHORT_ALONE.match(name):
            continue
        if not name.startswith("--") and len(name) > 2:
            name, value, equals = name[:2], name[2:] + equals + value, "="
        if not equals:
            value, words = (words[0], words[1:]) if words else ("", [])
        if name in ("-e", "--env"):
            if match := ASSIGNMENT.match(value):
                environ[match[1]] = match[2]
            else:
                lost.append(f"the caller's variable {value}; set it in `env_vars:` or `secrets:`")
        elif name in ("-v", "--volume"):
            source, _, target = value.partition(":")
            mounts.append((target.split(":")[0], source))
        elif name in ("-p", "--publish"):
            *_, outside, inside = value.rsplit(":", 2)
            ports[inside.split("/")[0]] = outside
        elif name == "--gpus":
            environ |= _gpus(value)
        elif name == "--entrypoint":
            entry = [value]
        elif name == "--env-file":
            lost.append(f"the variables in {value}; set them in `env_vars:` or `secrets:`")
        elif name not in (
            "--name",
            "--ipc",
            "--shm-size",
            "--network",
            "--net",
            "--runtime",
            "--restart",
            "--pull",
        ):
            lost.append(f"`{name} {value}` of the container; see `service:` for its like")
    if not words:
        return None
    image, inside_words = words[0], words[1:]
    notes.append(f"The image was {image}; the engine now runs from this host: install it, and pin it below.")
    started = entry or next((list(start) for pattern, start in _ENTRY if re.search(pattern, image)), [])
    if inside_words and PurePosixPath(inside_words[0]).name in (
        "vllm",
        "python",
        "python3",
        "sglang",
        "llama-server",
    ):
        started = []
    inside_words = [_outside(word, mounts) for word in [*started, *inside_words]]
    inside_words = _published(inside_words, ports)
    if mounts:
        shown = ", ".join(f"{target} is {source}" for target, source in mounts)
        notes.append(f"Paths of the container are the host's: {shown}.")
    if started == ["vllm", "serve"] and "--model" in inside_words:
        inside_words = ["python3", "-m", "vllm.entrypoints.openai.api_server", *inside_words[2:]]
    variables = command.environment | {name: _outside(value, mounts) for name, value in environ.items()}
    return Command(variables, inside_words, command.venv, command.folder, None, lost), notes


def _gpus(value: str) -> dict[str, str]:
    """`--gpus` as the variable that it amounts to; `all` is what an engine sees anyway."""
    text = value.strip("\"'")
    return {"CUDA_VISIBLE_DEVICES": text.removeprefix("device=")} if text.startswith("device=") else {}


def _outside(word: str, mounts: list[tuple[str, str]]) -> str:
    for target, source in mounts:
        if (
            target
            and (word == target or word.startswith(f"{target.rstrip('/')}/"))
            and source.startswith(("/", OPEN))
        ):
            return source.rstrip("/") + word[len(target.rstrip("/")) :]
    return word


def _published(words: list[str], ports: dict[str, str]) -> list[str]:
    """The port as it was published: there is no other one any more."""
    if not ports:
        return words
    found = list(words)
    if "--port" in found[:-1]:
        at = found.index("--port") + 1
        found[at] = ports.get(found[at], found[at])
        return found
    return [*found, "--port", next(iter(ports.values()))]
