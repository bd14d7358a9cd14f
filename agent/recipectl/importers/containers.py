"""`docker run`, Compose and Quadlet: the engine's command in a container, without the container."""

import re
from collections.abc import Iterable
from dataclasses import replace

from recipectl.addresses import WILDCARDS
from recipectl.engines.registry import ENGINES
from recipectl.errors import UsageError
from recipectl.importers.command import (
    SHELLS,
    Command,
    NoEngineError,
    OtherProgramError,
    is_given_model,
    program_shown,
)
from recipectl.importers.container_model import model_in, with_served_name, without_config_file
from recipectl.importers.container_network import name_addresses, name_network
from recipectl.importers.container_options import Container
from recipectl.importers.container_words import read_options
from recipectl.importers.draft import AS_IT_RUNS, STAYS_DOWN, VARIABLE_START
from recipectl.importers.lines import Remark, at
from recipectl.importers.mounts import NAME_VARIABLES, Mounts
from recipectl.importers.programs import program, program_name, runs_container
from recipectl.importers.shell_inline import engine_of, inline_commands
from recipectl.importers.unwrapping import unwrapped
from recipectl.importers.wrappers import options_of

# The entrypoints of images: a pattern of the image's name and tag, and the words before the arguments.
_ENTRYPOINTS = {
    r"vllm": ("vllm", "serve"),
    r"sglang": (),
    r"llama[.-]?cpp.*:light": ("llama-cli",),
    r"llama[.-]?cpp.*:full": ("tools.sh",),
    r"llama[.-]?cpp|llama-server": ("llama-server",),
}
_STARTERS = ("tini", "dumb-init", "nvidia_entrypoint.sh")  # they run what follows
_REMOTE = ("DOCKER_HOST", "CONTAINER_HOST", "DOCKER_CONTEXT")
_REMOTE_OPTION = re.compile("-H|-c|--(host|context|url|connection)")
_LOCAL = re.compile(r"(unix|fd)://|(default|rootless)?\Z")
_DEFAULT_PORTS = tuple(str(engine.port) for engine in ENGINES.values())
_PROGRAMS = ("vllm", "python", "python3", "sglang", "llama-server", *SHELLS)


def command_in_container(command: Command) -> tuple[Command, list[str]] | None:
    """The command inside a container, and notes on the container; None when no container is run."""
    if not runs_container(command.words):
        return None
    options = options_of(command.words[1 : command.words.index("run")])
    remote = [(option, value) for option, value, _ in options if _REMOTE_OPTION.fullmatch(option)]
    remote += [(name, command.environment[name]) for name in _REMOTE if name in command.environment]
    for name, value in remote:
        if not _LOCAL.match(value):
            raise UsageError(f"`{name}` runs the container on another host; import its command there")
    base = command.folder or command.script_folder or ""
    container = Container(
        command.environment,
        list(command.not_carried_over),
        mounts=Mounts(base, container_program=program_name(command.words)),
    )
    image_and_arguments = read_options(command.words[command.words.index("run") + 1 :], container)
    if container.is_detached and not container.restart and not command.is_of_unit:
        container.lose(f"without `--restart` {STAYS_DOWN}")
    if not image_and_arguments:
        return None
    return engine_command(command, container, image_and_arguments[0], image_and_arguments[1:])


def engine_command(
    command: Command, container: Container, image: str, arguments: list[str]
) -> tuple[Command, list[str]]:
    """The command that a container runs, with what is around `command`; and notes on the container."""
    _complete_variables(container)
    container.select_gpus()
    container.name_labels()
    if command.user not in (None, "root"):
        container.lose(f"the user `{command.user}`, who ran the container; see `user:`")
    notes = _name_image(container, image)
    entrypoint = _entrypoint(container, image, arguments)
    words = _words_of_host(container, image, [*entrypoint, *arguments], notes)
    name_network(container)
    name_addresses(container, words)
    folder = container.mounts.host_path(container.folder)
    is_mounted = bool(folder) and container.mounts.has(container.folder)
    if is_mounted:
        container.service.setdefault("WorkingDirectory", folder)
    elif folder:
        fault = f"the folder `{folder}` of the container, where the engine started"
        container.lose(fault, "its folder")
    used = "\n".join([*words, *notes, *container.environment.values(), *container.service.values()])
    notes += container.mounts.notes(used, container.not_carried_over)
    if entrypoint == ("vllm", "serve") and "--model" in words:
        words = ["python3", "-m", "vllm.entrypoints.openai.api_server", *words[2:]]
    engine_command = replace(
        command,
        environment=container.environment,
        words=words,
        not_carried_over=container.not_carried_over,
        autostart=container.restart in ("always", "unless-stopped"),
        service=container.service,
        secrets=container.secrets,
        unread_files=[*command.unread_files, *container.unread_files],
        has_rocm=container.has_rocm or "rocm" in image,
        places=container.places,
        # A container does not inherit these from the caller.
        path=None,
        venv=None,
        user=None,
        folder=None,
        script_folder=folder if is_mounted else None,
    )
    return engine_command, notes


def _complete_variables(container: Container) -> None:
    """Add the variables of files, over which the container's own win, and those of the caller."""
    container.environment = container.of_files | container.environment
    for name in [name for name in container.of_caller if name not in container.environment]:
        container.place = container.of_caller[name]
        with at(container.place, container.not_carried_over):
            container.add_variable(name)


def _name_image(container: Container, image: str) -> list[str]:
    """Name the version of an image, which the recipe lacks; notes on one without, and on its GPUs."""
    remedy = "install its version on this host, and pin it (`engine_version:`)"
    notes = []
    tag = image.rpartition("/")[2].partition(":")[2]
    if "@" in image or re.search("[0-9]", tag):
        container.lose(f"the image `{image}`: {remedy}", "its image")
    else:
        notes.append(f"The image was {image or 'built'}: {remedy}.")
    if container.all_gpus and not {"CUDA_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES"} & {*container.environment}:
        notes.append("It had all GPUs, and has them here. Name in `gpus:` those that it takes.")
    return notes


def _words_of_host(container: Container, image: str, words: list[str], notes: list[str]) -> list[str]:
    """The engine's words with the paths, the port and the address of this host."""
    words = _inside_shell(words, container)
    if words[:2] in (["tools.sh", "--server"], ["tools.sh", "-s"]):
        words = ["llama-server", *words[2:]]
    _refuse_unknown(image, words)
    words = with_served_name(without_config_file(words, container, notes), container)
    host_words = container.mounts.host_words(words)
    container.environment = {
        name: value if name in NAME_VARIABLES else container.mounts.host_path(value)
        for name, value in container.environment.items()
    }
    words = _with_host_port(container.mounts.own_paths(host_words, container.not_carried_over), container)
    container.mounts.own_variables(container.environment, container.not_carried_over, container.places)
    container.mounts.keep_cache(container.environment, model_in(words), "".join(words[:1]))
    engine = program(words)
    has_host = any(word.partition("=")[0] == "--host" for word in words)
    # llama.cpp's server images set LLAMA_ARG_HOST; its full and light ones do not (its .devops/*.Dockerfile).
    own_image = re.search(r"/llama\.cpp(:full|:light|:|\Z)", image)
    is_open = own_image[1] in (":", "") if own_image else "host" not in container.networks
    is_open = is_open or "LLAMA_ARG_HOST" in container.environment
    if engine and engine.backend == "llamacpp" and not has_host and is_open:
        words += ["--host", container.environment.pop("LLAMA_ARG_HOST", "0.0.0.0")]  # noqa: S104
    return words


# What people run in the image of an engine besides it.
_OTHER = re.compile(
    r"(nvidia-smi|rocm-smi|nvcc|huggingface-cli|hf|modelscope|curl|wget|pip3?|ls|cat|id|env|sleep)( |\Z)"
    r"|vllm (bench|chat|complete|collect-env|run-batch)( |\Z)"
)


def _refuse_unknown(image: str, words: list[str]) -> None:
    """NoEngineError for an image of another program, UsageError for one whose engine is not told."""
    inner = unwrapped(Command({}, words)).words
    if inner and program(inner):
        return
    if "llama-swap" in image or program_name(words).startswith("llama-swap"):
        fault = f"the image `{image}` starts its models itself" if image else "llama-swap starts its models"
        raise UsageError(f"{fault}; run `recipectl import llama-swap` with its configuration")
    if _OTHER.match(" ".join((program_name(words), *words[1:]))):
        raise OtherProgramError(f"`{program_shown(words)}` in the image `{image}` runs no engine")
    is_unknown = not image or VARIABLE_START in _without_tag(image)
    tells_nothing = is_unknown and (not words or words[0].startswith(("-", VARIABLE_START)))
    is_other = not re.search("vllm|sglang|(?<!o)llama(?!-swap)", _without_tag(image))
    if is_other and not tells_nothing and not is_given_model([*words, ""]):
        raise NoEngineError(f"the image `{image}` runs no known engine (vllm, sglang, llama-server)")
    shown = f"the image `{image}`" if image else "the image that is built"
    fault = f"{shown} does not tell its engine; if it runs one, write its program as the entrypoint"
    if words and not words[0].startswith(("-", VARIABLE_START)):
        what = "is a script" if words[0].endswith(".sh") else "does not show its engine"
        fault = f"`{program_shown(words)}` of {shown} {what}; write the engine's command instead"
    raise UsageError(f"{fault}, {AS_IT_RUNS}")


def _entrypoint(container: Container, image: str, arguments: list[str]) -> tuple[str, ...]:
    if container.entrypoint is not None:
        return tuple(filter(None, container.entrypoint))  # `--entrypoint ""` leaves the arguments alone
    if program_name(arguments) in _PROGRAMS:
        return ()
    if arguments[:1] == ["serve"] and "vllm" in image:
        return ("vllm",)
    first = "".join(arguments[:1])
    is_model = "/" in first and not first.endswith((".sh", ".py"))
    if first and not first.startswith(("-", VARIABLE_START)) and not is_model and "vllm-openai" not in image:
        return ()  # a program, or a command of the image's own program
    return next(
        (
            words
            for pattern, words in _ENTRYPOINTS.items()
            if re.search(pattern, image if ":" in pattern else _without_tag(image))
        ),
        (),
    )


def _without_tag(image: str) -> str:
    """The name of an image: the tag of another program may name an engine (`tritonserver:25.01-vllm`)."""
    return re.sub(r"(:[^/:@]*)?(@.*)?\Z", "", image)


def _inside_shell(words: list[str], container: Container) -> list[str]:
    """The engine's command in `bash -c SCRIPT`; other words without the program that starts them."""
    while words and program_name(words) in _STARTERS:
        words = words[1:]
        while words and words[0].startswith("-"):
            words = words[2 if words[0] in ("-e", "-p") else 1 :]  # tini(1)
    script = inline_commands(words, container.environment)
    if not script:
        return words
    engine = engine_of(script, "in the container") or script[-1]
    if engine.refusal:
        raise UsageError(engine.refusal)
    container.environment = engine.environment
    container.folder = engine.folder or container.folder
    container.service |= engine.service
    # The container's place belongs in front of the script's, which becomes a part of the sentence.
    container.not_carried_over += (Remark(str(remark)) for remark in engine.not_carried_over)
    return engine.words


def _lose_ports(container: Container, ports: Iterable[str], fault: str) -> None:
    for port in ports:
        container.lose(f"the published port {port}, {fault}", port)


def _with_host_port(words: list[str], container: Container) -> list[str]:
    """The words with the published port and address of the host in place of the container's."""
    ports = container.ports
    if "host" in container.networks:
        _lose_ports(container, ports, "which counts for nothing in the host's network")
        return words
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
    is_told = len(host_words) < len(words) or "LLAMA_ARG_PORT" in container.environment
    if container_port not in _DEFAULT_PORTS and not is_told:
        fault = f"port {container_port} of the container was published, and no engine listens there by itself"
        container.lose(f"{fault}; see `port:`", container_port)
    address, host_port = ports.get(container_port, (address, container_port))
    others = [port for port in ports if port != container_port]
    _lose_ports(container, others, "which is not the engine's")
    if address not in WILDCARDS:
        host_words += ["--host", address]
    return [*host_words, "--port", host_port]
