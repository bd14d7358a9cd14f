"""`docker run` and `podman run` of an engine's image: its arguments, without the container."""

import re
from dataclasses import dataclass, field, replace
from pathlib import PurePosixPath

from recipectl.importers.draft import OPEN
from recipectl.importers.programs import program, unwrapped
from recipectl.importers.shell import ASSIGNMENT, Command, commands

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
_ALONE |= {"--replace", "--rmi", "--no-hosts", "--no-hostname", "--env-host"}  # podman's
_SHORT_ALONE = re.compile(r"-[ditqP]+\Z")
_SHORT_PORT = re.compile(r"-[ditqP]+p\Z")
# What becomes of an image without a command of its own.
_ENTRY: tuple[tuple[str, list[str]], ...] = (
    (r"vllm", ["vllm", "serve"]),
    (r"sglang", []),
    (r"llama\.?cpp|llama-server", ["llama-server"]),
)


# Of a container alone: nothing of it is missed.
_OF_CONTAINERS = frozenset(
    """
    --name --ipc --shm-size --network --net --runtime --restart --pull --label -l --log-driver --log-opt
    --hostname -h
    """.split()  # noqa: SIM905  (a list one can read)
)
_USUAL = ("8000", "30000", "8080")  # where vLLM, SGLang and llama.cpp listen by themselves
_SHELLS = ("sh", "bash", "dash", "zsh")


@dataclass
class _Run:
    """What the options of `docker run` say."""

    environ: dict[str, str] = field(default_factory=dict)
    lost: list[str] = field(default_factory=list)
    mounts: list[tuple[str, str]] = field(default_factory=list)  # (in the container, on the host)
    ports: dict[str, tuple[str, str]] = field(default_factory=dict)  # inside -> (address, port)
    entry: list[str] | None = None


def contained(command: Command) -> tuple[Command, list[str]] | None:
    """The command inside a container and notes on the container; None when it is no such command."""
    words = list(command.words)
    if not words or PurePosixPath(words[0]).name not in ("docker", "podman") or "run" not in words[1:4]:
        return None
    run = _Run(lost=list(command.lost))
    words = _options(words[words.index("run") + 1 :], run, command.environment)
    if not words:
        return None
    image, inside = words[0], words[1:]
    notes = [f"The image was {image}; the engine now runs from this host: install it, and pin it below."]
    started = run.entry or next((list(start) for pattern, start in _ENTRY if re.search(pattern, image)), [])
    first = PurePosixPath(inside[0]).name if inside else ""
    if first in ("vllm", "python", "python3", "sglang", "llama-server", *_SHELLS) and not run.entry:
        started = []
    inside = [*started, *inside]
    shell = PurePosixPath(inside[0]).name in _SHELLS if inside else False
    if shell and (at := next((n for n, word in enumerate(inside) if re.fullmatch(r"-[a-z]*c", word)), 0)):
        found = commands(inside[at + 1] if at + 1 < len(inside) else "", run.environ)
        if found:
            last = next((one for one in reversed(found) if program(unwrapped(one).words)), found[-1])
            run.environ, inside = last.environment, last.words
            run.lost += last.lost
            run.lost += [f"`{' '.join(one.words)}` in the container" for one in found if one is not last]
    inside = _published([_outside(word, run.mounts) for word in inside], run.ports)
    if run.mounts:
        shown = ", ".join(f"{target} is {source}" for target, source in run.mounts)
        notes.append(f"Paths of the container are the host's: {shown}.")
    if started == ["vllm", "serve"] and "--model" in inside:
        inside = ["python3", "-m", "vllm.entrypoints.openai.api_server", *inside[2:]]
    # The caller's environment is not the container's.
    variables = {name: _outside(value, run.mounts) for name, value in run.environ.items()}
    host = replace(command, path=None, venv=None, user=None)
    return replace(host, environment=variables, words=inside, lost=run.lost), notes


def _options(words: list[str], run: _Run, callers: dict[str, str]) -> list[str]:
    """Read the options into `run`; returns the image and what follows."""
    while words and words[0].startswith("-"):
        name, equals, value = words[0].partition("=")
        words = words[1:]
        if name in _ALONE or _SHORT_ALONE.match(name):
            continue
        if _SHORT_PORT.match(name):
            name = "-p"
        if not name.startswith("--") and len(name) > 2:
            name, value, equals = name[:2], name[2:] + equals + value, "="
        if not equals:
            value, words = (words[0], words[1:]) if words else ("", [])
        if name in ("-e", "--env"):
            if match := ASSIGNMENT.match(value):
                run.environ[match[1]] = match[2]
            elif value in callers:
                run.environ[value] = callers[value]
            else:
                run.lost.append(f"the caller's variable {value}; set it in `env_vars:` or `secrets:`")
        elif name in ("-v", "--volume"):
            source, _, target = value.partition(":")
            run.mounts.append((target.split(":")[0], source))
        elif name == "--mount":
            parts = dict(part.partition("=")[::2] for part in value.split(","))
            source = parts.get("source") or parts.get("src") or ""
            run.mounts.append(
                (parts.get("target") or parts.get("dst") or parts.get("destination") or "", source)
            )
        elif name in ("-p", "--publish"):
            address, outside, inside = (["", "", *value.replace("[::1]", "::1").rsplit(":", 2)])[-3:]
            run.ports[inside.split("/")[0]] = (address, outside or inside.split("/")[0])
        elif name == "--gpus":
            _gpus(value, run)
        elif name == "--entrypoint":
            run.entry = [value]
        elif name == "--env-file":
            run.lost.append(f"the variables in {value}; set them in `env_vars:` or `secrets:`")
        elif name == "--device" and value.startswith("nvidia.com/gpu="):
            if (gpu := value.partition("=")[2]) != "all":
                before = run.environ.get("CUDA_VISIBLE_DEVICES")
                run.environ["CUDA_VISIBLE_DEVICES"] = f"{before},{gpu}" if before else gpu
        elif name not in _OF_CONTAINERS:
            run.lost.append(f"`{name} {value}` of the container; see `service:` for its like")
    if (shown := run.environ.pop("NVIDIA_VISIBLE_DEVICES", None)) not in (None, "all", "void"):
        run.environ.setdefault("CUDA_VISIBLE_DEVICES", str(shown))
    return words


def _gpus(value: str, run: _Run) -> None:
    """`--gpus` as the variable that it amounts to; `all` is what an engine sees anyway."""
    if devices := re.search(r"device=([^\"']+?)(?:\"|'|$)", value):
        run.environ["CUDA_VISIBLE_DEVICES"] = devices[1]
    elif value.strip("\"'") not in ("all", ""):
        run.lost.append(f"`--gpus {value}`: any so many GPUs; name them in `gpus:`")


def _outside(word: str, mounts: list[tuple[str, str]]) -> str:
    """A word with the host's paths: at its beginning, after `=` and within JSON."""
    for target, source in mounts:
        if target and source.startswith(("/", OPEN)):
            pattern = rf"(?<![^=:,\"'\s]){re.escape(target.rstrip('/'))}(?=/|$|[\"',:\s])"
            word = re.sub(pattern, source.rstrip("/").replace("\\", r"\\"), word)
    return word


def _published(words: list[str], ports: dict[str, tuple[str, str]]) -> list[str]:
    """The port, and the address, as they were published: there are no others any more."""
    if not ports:
        return words
    found = list[str]()
    given = next((port for port in (*_USUAL, *ports) if port in ports), "")
    address, at = ports[given][0], 0
    while at < len(words):
        name, equals, value = words[at].partition("=")
        if name == "--port" or (name == "--host" and address):
            value = value if equals else words[at + 1] if at + 1 < len(words) else ""
            given = value if name == "--port" else given
            at += 1 if equals else 2
        else:
            found.append(words[at])
            at += 1
    address, outside = ports.get(given, (address, given))
    host = ["--host", address] if address and address not in ("0.0.0.0", "::") else []  # noqa: S104  (read)
    return [*found, *host, "--port", outside]
