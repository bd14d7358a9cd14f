"""`docker run` and `podman run` of an engine's image: the engine's command, without the container."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

from recipectl.importers.draft import VARIABLE_START
from recipectl.importers.programs import program, program_name, runs_container, unwrapped
from recipectl.importers.shell import SHELLS, Command, assignment, commands, script_in

_FLAGS = frozenset(
    """
    --rm --init --privileged --detach --interactive --tty --read-only --oom-kill-disable --publish-all
    --no-healthcheck --sig-proxy --quiet --replace --rmi --no-hosts --no-hostname --env-host
    """.split()  # noqa: SIM905  (a list one can read)
)
_SHORT_FLAGS = re.compile(r"-[ditqP]+\Z")
_SHORT_FLAGS_AND_PORT = re.compile(r"-[ditqP]+p\Z")
# Options that only matter to a container: leaving them out loses nothing.
_CONTAINER_ONLY = frozenset(
    """
    --name --ipc --shm-size --network --net --runtime --restart --pull --label -l --log-driver --log-opt
    --hostname -h
    """.split()  # noqa: SIM905  (a list one can read)
)
# The entrypoints of images: a pattern of the image's name, and the words that it puts before the arguments.
_ENTRYPOINTS = {
    r"vllm": ("vllm", "serve"),
    r"sglang": (),
    r"llama\.?cpp|llama-server": ("llama-server",),
}
_DEFAULT_PORTS = ("8000", "30000", "8080")  # of vLLM, SGLang and llama.cpp
_PROGRAMS = ("vllm", "python", "python3", "sglang", "llama-server", *SHELLS)


@dataclass
class _Container:
    """The meaning of the options of `docker run`."""

    caller_environment: Mapping[str, str]
    not_carried_over: list[str]
    environment: dict[str, str] = field(default_factory=dict)
    mounts: list[tuple[str, str]] = field(default_factory=list)  # (path in the container, path on the host)
    ports: dict[str, tuple[str, str]] = field(default_factory=dict)  # container port -> host address and port
    entrypoint: tuple[str, ...] | None = None
    network: str = ""
    restart: str = ""

    def add_variable(self, value: str) -> None:
        if pair := assignment(value):
            self.environment |= [pair]
        elif value in self.caller_environment:
            self.environment[value] = self.caller_environment[value]
        else:
            self._leave_out(f"the variable {value} of the caller; set it in `env_vars:` or `secrets:`")

    def add_environment_file(self, value: str) -> None:
        self._leave_out(f"the variables in {value}; set them in `env_vars:` or `secrets:`")

    def add_volume(self, value: str) -> None:
        source, _, target = value.partition(":")
        self.mounts.append((target.split(":")[0], source))

    def add_mount(self, value: str) -> None:
        parts = dict(part.partition("=")[::2] for part in value.split(","))
        source = parts.get("source") or parts.get("src") or ""
        target = parts.get("target") or parts.get("dst") or parts.get("destination") or ""
        self.mounts.append((target, source))

    def add_port(self, value: str) -> None:
        parts = value.replace("[::1]", "::1").rsplit(":", 2)
        address, host_port, container_port = ["", "", *parts][-3:]
        container_port = container_port.split("/")[0]
        self.ports[container_port] = (address, host_port or container_port)

    def add_gpus(self, value: str) -> None:
        if devices := re.search(r"device=([^\"']+?)(?:\"|'|$)", value):
            self.environment["CUDA_VISIBLE_DEVICES"] = devices[1]
        elif value.strip("\"'") not in ("all", ""):
            self._leave_out(f"`--gpus {value}`: it takes any free GPUs; name them in `gpus:`")

    def add_device(self, value: str) -> None:
        gpu = value.removeprefix("nvidia.com/gpu=")
        if gpu == value:
            self.add_other("--device", value)
        elif gpu != "all":
            gpus = self.environment.get("CUDA_VISIBLE_DEVICES")
            self.environment["CUDA_VISIBLE_DEVICES"] = f"{gpus},{gpu}" if gpus else gpu

    def set_entrypoint(self, value: str) -> None:
        self.entrypoint = (value,)

    def set_network(self, value: str) -> None:
        self.network = value

    def set_restart(self, value: str) -> None:
        self.restart = value
        if value.startswith("on-failure"):
            self._leave_out(f"`--restart {value}`: recipectl always restarts a model that ends")

    def add_other(self, name: str, value: str) -> None:
        if name not in _CONTAINER_ONLY:
            self._leave_out(f"`{name} {value}` of the container; see `service:` for a similar setting")

    def _leave_out(self, text: str) -> None:
        self.not_carried_over.append(text)

    def host_path(self, word: str) -> str:
        """A word with the paths of the host, where a path begins: in front, after `=` and within JSON."""
        for target, source in self.mounts:
            if target and source.startswith(("/", VARIABLE_START)):
                pattern = rf"(?<![^=:,\"'\s]){re.escape(target.rstrip('/'))}(?=/|$|[\"',:\s])"
                word = re.sub(pattern, source.rstrip("/").replace("\\", r"\\"), word)
        return word


_HANDLERS: Mapping[str, Callable[[_Container, str], None]] = {
    "-e": _Container.add_variable,
    "--env": _Container.add_variable,
    "--env-file": _Container.add_environment_file,
    "-v": _Container.add_volume,
    "--volume": _Container.add_volume,
    "--mount": _Container.add_mount,
    "-p": _Container.add_port,
    "--publish": _Container.add_port,
    "--gpus": _Container.add_gpus,
    "--device": _Container.add_device,
    "--entrypoint": _Container.set_entrypoint,
    "--network": _Container.set_network,
    "--net": _Container.set_network,
    "--restart": _Container.set_restart,
}


def command_in_container(command: Command) -> tuple[Command, list[str]] | None:
    """The command inside a container, and notes on the container; None when no container is run."""
    if not runs_container(command.words):
        return None
    container = _Container(command.environment, list(command.not_carried_over))
    image_and_arguments = _read_options(command.words[command.words.index("run") + 1 :], container)
    if not image_and_arguments:
        return None
    image, *arguments = image_and_arguments
    notes = [f"The image was {image}. The engine now runs from this host: install it, and pin it below."]
    entrypoint = _entrypoint(container, image, arguments)
    words = _inside_shell([*entrypoint, *arguments], container)
    words = _with_host_port([container.host_path(word) for word in words], container.ports)
    if not container.ports and container.network != "host":
        fault = "the container published no port: only its own networks reached the engine"
        container.not_carried_over.append(f"{fault}; see `host:`")
    if container.mounts:
        pairs = ", ".join(f"{target} is {source}" for target, source in container.mounts)
        notes.append(f"Paths of the container are replaced by the host's: {pairs}.")
    if entrypoint == ("vllm", "serve") and "--model" in words:
        words = ["python3", "-m", "vllm.entrypoints.openai.api_server", *words[2:]]
    engine_command = replace(
        command,
        environment={name: container.host_path(value) for name, value in container.environment.items()},
        words=words,
        not_carried_over=container.not_carried_over,
        autostart=container.restart in ("always", "unless-stopped"),
        # A container does not inherit these from the caller.
        path=None,
        venv=None,
        user=None,
    )
    return engine_command, notes


def _read_options(words: list[str], container: _Container) -> list[str]:
    """Read the options of `docker run`; returns the image and its arguments."""
    while words and words[0].startswith("-"):
        name, equals, value = words[0].partition("=")
        words = words[1:]
        if name in _FLAGS or _SHORT_FLAGS.match(name):
            continue
        if _SHORT_FLAGS_AND_PORT.match(name):
            name = "-p"
        if not name.startswith("--") and len(name) > 2:  # `-p8000:8000`
            value = name[2:] + equals + value
            name = name[:2]
        elif not equals:
            value = "".join(words[:1])
            words = words[1:]
        if handler := _HANDLERS.get(name):
            handler(container, value)
        else:
            container.add_other(name, value)
    gpus = container.environment.pop("NVIDIA_VISIBLE_DEVICES", None)
    if gpus not in (None, "all", "void"):
        container.environment.setdefault("CUDA_VISIBLE_DEVICES", str(gpus))
    return words


def _entrypoint(container: _Container, image: str, arguments: list[str]) -> tuple[str, ...]:
    if container.entrypoint:
        return container.entrypoint
    if program_name(arguments) in _PROGRAMS:
        return ()
    return next((words for pattern, words in _ENTRYPOINTS.items() if re.search(pattern, image)), ())


def _inside_shell(words: list[str], container: _Container) -> list[str]:
    """The engine's command in `bash -c SCRIPT`; other words as they are."""
    script = commands(script_in(words) or "", container.environment)
    if not script:
        return words
    engines = [command for command in script if program(unwrapped(command).words)]
    engine = engines[-1] if engines else script[-1]
    container.environment = engine.environment
    container.not_carried_over += engine.not_carried_over
    container.not_carried_over += [
        f"`{' '.join(command.words)}` in the container" for command in script if command is not engine
    ]
    return engine.words


def _with_host_port(words: list[str], ports: Mapping[str, tuple[str, str]]) -> list[str]:
    """The words with the published port and address of the host in place of the container's."""
    if not ports:
        return words
    container_port = next(port for port in (*_DEFAULT_PORTS, *ports) if port in ports)
    address = ports[container_port][0]
    host_words: list[str] = []
    remaining = list(words)
    while remaining:
        word = remaining.pop(0)
        name, equals, value = word.partition("=")
        if name != "--port" and not (name == "--host" and address):
            host_words.append(word)
            continue
        if not equals:
            value = remaining.pop(0) if remaining else ""
        if name == "--port":
            container_port = value
    address, host_port = ports.get(container_port, (address, container_port))
    if address and address not in ("0.0.0.0", "::"):  # noqa: S104  (read)
        host_words += ["--host", address]
    return [*host_words, "--port", host_port]
