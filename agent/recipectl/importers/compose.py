"""The services of a Compose file: what `docker run` would be given for them."""

import contextlib
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from recipectl.engines.registry import ENGINES
from recipectl.errors import RecipectlError, UsageError
from recipectl.importers import go_yaml
from recipectl.importers.command import Command, NoEngineError, script_in
from recipectl.importers.compose_deploy import add_resources, set_restart
from recipectl.importers.compose_forms import texts
from recipectl.importers.compose_mounts import Sources, mounts_of_files, sources
from recipectl.importers.compose_variables import dotenv, interpolated
from recipectl.importers.compose_words import split
from recipectl.importers.container_options import Container
from recipectl.importers.containers import engine_command
from recipectl.importers.draft import STAYS_DOWN, Draft
from recipectl.importers.from_command import draft_from_command, model_name
from recipectl.importers.lines import Remark, at, errors_at, node_of, place_of
from recipectl.importers.mounts import Mounts
from recipectl.importers.secret_names import is_likely_secret
from recipectl.importers.shapes import mapping, refuse_private, sequence
from recipectl.importers.variables import read_variables
from recipectl.recipe.yamlsyntax import read_text

_WHOLE = "import what `docker compose config` prints"
# Keys of a Compose service with one value or a list of them -> the option of `docker run`.
_COMPOSE_OPTIONS = {
    "restart": "--restart", "network_mode": "--network", "networks": "--network", "env_file": "--env-file",
    "environment": "-e", "ports": "-p", "volumes": "-v", "devices": "--device", "mem_limit": "--memory",
    "mem_reservation": "--memory-reservation", "cpus": "--cpus", "cpuset": "--cpuset-cpus",
    "pids_limit": "--pids-limit", "oom_score_adj": "--oom-score-adj", "ulimits": "--ulimit",
    "gpus": "--gpus", "group_add": "--group-add", "stop_signal": "--stop-signal",
    "security_opt": "--security-opt", "user": "--user", "working_dir": "--workdir", "runtime": "--runtime",
    "pull_policy": "--pull",
}  # fmt: skip
# What only matters to a container, or to the tool that makes it.
_COMPOSE_QUIET = frozenset(
    """
    image command entrypoint deploy container_name hostname domainname annotations
    tty stdin_open ipc shm_size platform profiles expose develop read_only tmpfs init isolation
    """.split()  # noqa: SIM905  (a list one can read)
)
_SOURCES = {"build": ": what it installs and sets", "extends": f", and what it inherits; {_WHOLE}"}
_OWN_LOGS = (None, "json-file", "local", "journald", "none")
_EMPTY: tuple[Any, ...] = (None, "", [], {}, "false")


def compose_drafts(text: str, source: str) -> tuple[list[Draft], list[Remark]]:
    """The recipes of a Compose file, and what was left out: services of other programs.

    UsageError when the file is not Compose's.
    """
    data, root = go_yaml.document(text, source)
    services = data.get("services", {} if "include" in data else None) if isinstance(data, dict) else None
    if not isinstance(services, dict):
        raise UsageError(f"{source}: has no `services:`; give a Compose file")
    with errors_at(source):
        refuse_private(services)
    folder = Path(source).absolute().parent
    drafts: list[Draft] = []
    overrides = [folder / f"{Path(source).stem}.override{ending}" for ending in (".yaml", ".yml")]
    left_out = [
        Remark(f"{path}, which changes these services; {_WHOLE}")
        for path in overrides
        if Path(source).stem in ("compose", "docker-compose") and path.exists()
    ]
    if "include" in data:
        left_out.append(Remark(f"the files of `include:`; {_WHOLE}", within=place_of(root, "include")))
    variables: dict[str, str] = {}
    if (folder / ".env").is_file():  # Compose reads it for `${NAME}`
        with contextlib.suppress(RecipectlError):
            variables = dotenv(read_text(folder / ".env"), {}, [])
    if files := variables.get("COMPOSE_FILE"):
        fault = f"COMPOSE_FILE={files} of {folder / '.env'}, which may name further files"
        left_out.append(Remark(f"{fault}; {_WHOLE}"))
    with errors_at(source):
        mounted = sources(data, folder, variables, left_out)
    places = []
    for name, service in services.items():
        try:
            drafts.append(_service_draft(str(name), service, root, folder, source, mounted, variables))
            places.append(place_of(root, "services", str(name)))
        except UsageError as error:
            fault = "runs no engine" if isinstance(error, NoEngineError) else str(error)
            place = _place_of_fault(error, root, str(name))
            left_out.append(Remark(f"the service `{name}`: {fault}", within=place))
    movable = {model_name(str(name)) for name, service in services.items() if _is_unpublished(service)}
    _give_own_ports(drafts, places, movable)
    return drafts, left_out


def _place_of_fault(error: UsageError, root: Any, name: str) -> str:
    """The place of what is wrong with a service: a key, a word of its command, or its image."""
    if error.key or isinstance(error, NoEngineError):
        return place_of(root, "services", name, *map(str, error.key or ["image"]))
    node = node_of(root, "services", name, "command")
    words = node.value if isinstance(node, yaml.SequenceNode) else []
    word = next((word for word in words if f"`{word.value}`" in str(error)), node)
    return place_of(word) if word is not None else place_of(root, "services", name, "image")


def _is_unpublished(service: Any) -> bool:
    """Whether nobody but other containers knows the port of a service."""
    return isinstance(service, dict) and not service.get("ports") and service.get("network_mode") != "host"


def _give_own_ports(drafts: list[Draft], places: list[str], movable: Collection[str]) -> None:
    """Give a recipe in `movable`, of a container with its own network, a port that none before it has."""
    ports = [draft.fields.get("port", ENGINES[draft.fields["backend"]].port) for draft in drafts]
    holders: dict[object, str] = {}
    for draft, port, place in zip(drafts, ports, places, strict=True):
        own_port = port
        while draft.name in movable and isinstance(own_port, int) and own_port < 65535:
            if own_port not in holders and (own_port == port or own_port not in ports):
                break
            own_port += 1
        if own_port != port:
            draft.set("port", own_port)
            draft.not_carried_over.append(
                Remark(f"port {port}, which `{holders[port]}` has, too", within=place)
            )
        holders[own_port] = draft.name


def _service_draft(
    name: str, service: Any, root: Any, folder: Path, source: str, mounted: Sources,
    variables: Mapping[str, str],
) -> Draft:  # fmt: skip
    is_built = isinstance(service, dict) and "build" in service and "image" not in service
    if not is_built and (not isinstance(service, dict) or not isinstance(service.get("image"), str)):
        has_base = isinstance(service, dict) and "extends" in service
        remedy = _WHOLE if has_base else "give it one"
        raise UsageError(f"it has no `image:` here; {remedy}", "image")
    lost: list[Remark] = []
    container = Container({}, lost, mounts=Mounts(volumes=mounted.volumes))
    default = node_of(root, "networks", "default", "name")
    networks = service.get("networks") or ["default"]
    uses_default = isinstance(networks, list | dict) and "default" in networks
    if isinstance(default, yaml.ScalarNode) and uses_default and not service.get("network_mode"):
        container.networks[interpolated(default.value, variables, lost)] = place_of(default)
    written, service = service, {}
    for key, value in written.items():
        if not isinstance(key, str):
            raise UsageError(f"the key `{key}` is no text; remove it, or write it in quotes")
        node = node_of(root, "services", name, key)
        place = place_of(root, "services", name, key)
        if key not in _COMPOSE_OPTIONS:
            with at(place, lost):
                is_used = key in ("image", "command", "entrypoint", "deploy", "secrets", "configs")
                service[key] = interpolated(value, variables, lost if is_used else [])
                container.place = place
                _add_key(container, key, "false" if service[key] is False else service[key], mounted)
            continue
        for container.place, part in _parts(node, place, value):
            with at(container.place, lost):
                count = len(lost)
                value = interpolated(part, variables, lost)
                lost[count:] = [_without_secrets(remark, key, value) for remark in lost[count:]]
                _add_option(container, key, value, variables, folder)
    if service.get("entrypoint") is not None:
        container.entrypoint = tuple(split(service["entrypoint"], "entrypoint"))
    image, arguments = service.get("image", ""), split(service.get("command"), "command")
    with at(place_of(root, "services", name, "deploy", "restart_policy"), lost):
        has_policy = set_restart(container, mapping(service.get("deploy"), "deploy"))
    if service.get("profiles") and container.restart not in ("", "no"):
        container.restart = ""
        with at(place_of(root, "services", name, "restart"), lost):
            container.lose("`restart:` of a service with `profiles:`, which starts by hand; see `autostart:`")
    if written.get("restart") is None and not has_policy:
        with at(place_of(root, "services", name), lost):
            container.lose(f"without `restart:` {STAYS_DOWN}")
    told_in = "entrypoint" if script_in(list(container.entrypoint or ())) else "command"
    place = place_of(root, "services", name, told_in if told_in in service else "image")
    container.places["its image"] = place_of(root, "services", name, "image")
    container.places["its folder"] = place_of(root, "services", name, "working_dir")
    with at(place, lost):
        command, notes = engine_command(Command({}, [], place=place), container, image, arguments)
    # One variable may stand in many lines; the first is named.
    first = {remark.sentence: remark for remark in reversed(command.not_carried_over)}
    command.not_carried_over = [*reversed(first.values())]
    origin = "\n".join((f"From {source}, service {name}.", *notes))
    return draft_from_command(command, model_name(name), origin)


def _parts(node: Any, place: str, value: Any) -> Iterator[tuple[str, Any]]:
    """The items of a list or mapping, each alone with its place; any other value as it is."""
    if isinstance(value, list) and isinstance(node, yaml.SequenceNode) and len(node.value) == len(value):
        yield from ((place_of(item), [part]) for item, part in zip(node.value, value, strict=True))
    elif isinstance(value, dict) and value:
        yield from ((place_of(node, str(name)), {name: part}) for name, part in value.items())
    else:
        yield place, value


def _without_secrets(remark: Remark, key: str, value: Any) -> Remark:
    """A remark on a variable of the service without its value, where that is likely a secret."""
    entries = value if isinstance(value, dict) else {}
    words = value if isinstance(value, list) else []
    pairs = [*entries.items(), *(str(word).partition("=")[::2] for word in words)]
    for name, content in pairs if key == "environment" else ():
        if is_likely_secret(str(name), str(content)):
            remark = remark.without(str(content))
    return remark


def _add_option(
    container: Container,
    key: str,
    value: Any,
    variables: Mapping[str, str],
    folder: Path,
) -> None:
    """Add what `docker run` has an option for; of several files of variables the last wins."""
    lost = container.not_carried_over
    for text in texts(key, value, folder, lost):
        content = ""
        if key == "environment" and text in variables:  # of the caller, or of `.env`
            text = f"{text}={variables[text]}"
        if key == "env_file" and not _is_raw(value):
            with contextlib.suppress(OSError, RecipectlError):
                content = read_variables(text, lost)
        if content:
            of_file = dotenv(content, variables, lost)
            container.of_files |= of_file
            container.places = dict.fromkeys(of_file, container.place) | container.places
        else:
            shown = f"`{key}: {text}`" if key in ("ulimits", "group_add") else f"`{key}:` of the service"
            container.add(_COMPOSE_OPTIONS[key], text, shown)


def _is_raw(value: Any) -> bool:
    """Whether a file of variables is read as `docker run` reads it, without quotes and `${NAME}`."""
    item = value[0] if isinstance(value, list) and value else value
    return isinstance(item, dict) and item.get("format") == "raw"


def _is_needless(key: str, value: Any) -> bool:
    """Whether units have it in any case: no capabilities, no watch by default, and systemd's journal."""
    settings = value if isinstance(value, dict) else {}
    if key == "logging":
        return settings.get("driver") in _OWN_LOGS
    return key == "cap_drop" or (key == "healthcheck" and bool(settings.get("disable")))


def _add_key(container: Container, key: str, value: Any, mounted: Sources) -> None:
    """Add what another key of a service means for its container, or name it."""
    written = f"`{key}:` of the service"
    if key == "labels":
        for label in value if isinstance(value, Mapping) else sequence(value, key):
            container.add_label(str(label))
    elif key == "deploy":
        add_resources(container, value, written)
    elif key in ("secrets", "configs"):
        files = mounted.secrets if key == "secrets" else mounted.configs
        for name, mount in mounts_of_files(key, value, files):
            if mount:
                container.add("-v", mount, written)
            else:
                container.lose(f"{written}: `{name}`, which is no file of this host")
    elif _is_needless(key, value):
        return
    elif key in _SOURCES and value not in _EMPTY:
        container.lose(f"{written}{_SOURCES[key]}")
    elif key not in _COMPOSE_QUIET and not key.startswith("x-") and value not in _EMPTY:
        container.lose(written)
