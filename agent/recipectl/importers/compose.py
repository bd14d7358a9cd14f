"""The services of a Compose file: what `docker run` would be given for them."""

import contextlib
import os
import re
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from recipectl.engines.registry import ENGINES
from recipectl.errors import RecipectlError, UsageError
from recipectl.importers import go_yaml
from recipectl.importers.command import Command, NoEngineError, script_in
from recipectl.importers.compose_deploy import add_resources, gpus_of, set_restart
from recipectl.importers.compose_mounts import Sources, mounts_of_files, sources
from recipectl.importers.compose_variables import dotenv, interpolated
from recipectl.importers.compose_words import scalar, split
from recipectl.importers.container_options import Container
from recipectl.importers.containers import engine_command
from recipectl.importers.draft import STAYS_DOWN, Draft, host_variable
from recipectl.importers.from_command import draft_from_command, model_name
from recipectl.importers.lines import at, errors_at, node_of, place_of, placed
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
}  # fmt: skip
# What only matters to a container, or to the tool that makes it.
_COMPOSE_QUIET = frozenset(
    """
    image command entrypoint deploy container_name hostname domainname annotations logging pull_policy
    tty stdin_open ipc shm_size platform profiles expose develop read_only tmpfs init isolation
    """.split()  # noqa: SIM905  (a list one can read)
)
_SOURCES = {"build": ": what it installs and sets", "extends": f", and what it inherits; {_WHOLE}"}
_EMPTY: tuple[Any, ...] = (None, "", [], {}, "false")


def compose_drafts(text: str, source: str) -> tuple[list[Draft], list[str]]:
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
        f"{path}, which changes these services; {_WHOLE}"
        for path in overrides
        if Path(source).stem in ("compose", "docker-compose") and path.exists()
    ]
    if "include" in data:
        left_out.append(f"{place_of(root, 'include')}: the files of `include:`; {_WHOLE}")
    variables: dict[str, str] = {}
    if (folder / ".env").is_file():  # Compose reads it for `${NAME}`
        with contextlib.suppress(RecipectlError):
            variables = dotenv(read_text(folder / ".env"), {}, [])
    if files := variables.get("COMPOSE_FILE"):
        left_out.append(f"COMPOSE_FILE={files} of {folder / '.env'}, which may name further files; {_WHOLE}")
    with errors_at(source):
        mounted = sources(data, folder, variables, left_out)
    places = []
    for name, service in services.items():
        try:
            drafts.append(_service_draft(str(name), service, root, folder, source, mounted, variables))
            places.append(place_of(root, "services", str(name)))
        except UsageError as error:
            fault = "runs no engine" if isinstance(error, NoEngineError) else str(error)
            place = place_of(root, "services", str(name), *map(str, error.key or ["image"]))
            left_out.append(f"{place}: the service `{name}`: {fault}")
    movable = {model_name(str(name)) for name, service in services.items() if _is_unpublished(service)}
    _give_own_ports(drafts, places, movable)
    return drafts, left_out


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
            draft.not_carried_over.append(placed(f"port {port}, which `{holders[port]}` has, too", place))
        holders[own_port] = draft.name


def _service_draft(
    name: str, service: Any, root: Any, folder: Path, source: str, mounted: Sources,
    variables: Mapping[str, str],
) -> Draft:  # fmt: skip
    is_built = isinstance(service, dict) and "build" in service and "image" not in service
    if not is_built and (not isinstance(service, dict) or not isinstance(service.get("image"), str)):
        has_base = isinstance(service, dict) and "extends" in service
        remedy = _WHOLE if has_base else "give it one"
        raise UsageError(f"it has no `image:` here; {remedy}")
    lost: list[str] = []
    container = Container({}, lost, mounts=Mounts(volumes=mounted.volumes))
    written, service = service, {}
    for key, value in written.items():
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
                lost[count:] = [_without_secrets(text, key, value) for text in lost[count:]]
                _add_option(container, key, value, variables, folder)
    if service.get("entrypoint") is not None:
        container.entrypoint = tuple(split(service["entrypoint"], "entrypoint"))
    image, arguments = service.get("image", ""), split(service.get("command"), "command")
    with at(place_of(root, "services", name, "deploy", "restart_policy"), lost):
        has_policy = set_restart(container, mapping(service.get("deploy"), "deploy"))
    if service.get("profiles") and container.restart not in ("", "no"):
        container.restart = ""
        with at(place_of(root, "services", name, "restart"), lost):
            container.leave_out(
                "`restart:` of a service with `profiles:`, which starts by hand; see `autostart:`"
            )
    if written.get("restart") is None and not has_policy:
        with at(place_of(root, "services", name), lost):
            container.leave_out(f"without `restart:` {STAYS_DOWN}")
    told_in = "entrypoint" if script_in(list(container.entrypoint or ())) else "command"
    place = place_of(root, "services", name, told_in if told_in in service else "image")
    container.places["image"] = place_of(root, "services", name, "image")
    container.places["folder"] = place_of(root, "services", name, "working_dir")
    with at(place, lost):
        command, notes = engine_command(Command({}, [], place=place), container, image, arguments)
    # One variable may stand in many lines; the first is named.
    lines = {re.sub(r"^line \d+: ", "", text): text for text in reversed(command.not_carried_over)}
    command.not_carried_over = [text for text in command.not_carried_over if text in lines.values()]
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


def _without_secrets(text: str, key: str, value: Any) -> str:
    """A sentence on a variable of the service without its value, where that is likely a secret."""
    entries = value if isinstance(value, dict) else {}
    words = value if isinstance(value, list) else []
    pairs = [*entries.items(), *(str(word).partition("=")[::2] for word in words)]
    for name, content in pairs if key == "environment" else ():
        if is_likely_secret(str(name), str(content)):
            text = text.replace(str(content), "…")
    return text


def _add_option(
    container: Container,
    key: str,
    value: Any,
    variables: Mapping[str, str],
    folder: Path,
) -> None:
    """Add what `docker run` has an option for; of several files of variables the last wins."""
    lost = container.not_carried_over
    for text in _texts(key, value, folder, lost):
        content = ""
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
                container.leave_out(f"{written}: `{name}`, which is no file of this host")
    elif key in _SOURCES and value not in _EMPTY:
        container.leave_out(f"{written}{_SOURCES[key]}")
    elif key == "cap_drop" or (key == "healthcheck" and mapping(value, key).get("disable")):
        return  # a unit has no capabilities, and no watch by default
    elif key not in _COMPOSE_QUIET and not key.startswith("x-") and value not in _EMPTY:
        container.leave_out(written)


def _texts(key: str, value: Any, folder: Path, lost: list[str]) -> Iterator[str]:
    """The values of one key, each as the option of `docker run` has it."""
    if key == "environment" and isinstance(value, dict):
        yield from (name if text is None else f"{name}={scalar(text)}" for name, text in value.items())
        return
    if key == "ulimits":
        for name, limit in mapping(value, key).items():
            parts = (limit.get("soft", ""), limit.get("hard", "")) if isinstance(limit, dict) else (limit,)
            yield f"{name}={':'.join(map(str, parts))}"
        return
    for item in value if key == "networks" and isinstance(value, dict) else sequence(value, key):
        if isinstance(item, dict) and item.get("type") == "tmpfs":
            continue  # a folder of the container alone
        text = _item_text(key, item) if isinstance(item, dict) else str(item)
        if isinstance(item, dict) and key == "volumes":
            text = f"./{text}" if item.get("type") == "bind" and re.match("[^/~.$]", text) else text
            if subpath := mapping(item.get("volume"), "volume").get("subpath"):
                lost.append(f"`subpath: {subpath}` of the volume `{item.get('source')}`")
        if key in ("volumes", "env_file"):
            text = re.sub(r"^~(?=/)", host_variable("HOME"), text)
            text = str(folder / text) if text.startswith(".") or key == "env_file" else text
        is_optional = isinstance(item, dict) and not item.get("required", True)
        if is_optional and not os.path.exists(text):  # noqa: PTH110  (no error in a closed folder)
            lost.append(f"the variables in {text}, which is not here")
        else:
            yield text


def _item_text(key: str, item: Mapping[str, Any]) -> str:
    """A port, volume, GPU or file in its long form, as the option of `docker run` has it."""
    match key:
        case "ports":
            address, published = item.get("host_ip"), item.get("published")
            parts = [published] if address is None and published is not None else []
            parts = parts if address is None else [address, "" if published is None else published]
            return ":".join(map(str, (*parts, f"{item.get('target')}/{item.get('protocol', 'tcp')}")))
        case "volumes":
            return f"{item.get('source', '')}:{item.get('target', '')}{':ro' * bool(item.get('read_only'))}"
        case "gpus":
            return gpus_of(item)
        case "devices":
            return f"{item.get('source', '')}:{item.get('target', item.get('source', ''))}"
        case _:
            return str(item.get("path", ""))
