"""A unit as text: its name, its settings, and what it says about its recipe."""

import re
from collections.abc import Collection, Iterator
from functools import cached_property
from typing import NamedTuple

from recipectl import addresses
from recipectl.systemd import quoting
from recipectl.text import digest_of

SECTION = "[X-Recipectl]"  # systemd ignores sections that begin with X- (systemd.unit(5))
# The field of the journal that tells which unit started a process: a digest of what it keeps from its start.
# Earlier releases had a variable of this name.
DIGEST_FIELD = "RECIPECTL_DIGEST"
# No recipe's name may end like this: the unit would belong to another model.
RESERVED_ENDINGS = (
    "-proxy", "-keep", "-queue", "-queue-open", "-reachable", "-watch", "-hung", "-canaries", "-tie", "-lost",
    ".service", ".socket",
)  # fmt: skip

_TARGET = """# Written by recipectl; changes belong in drop-ins (systemctl edit models.target).
[Unit]
Description=All models of this host
Documentation=man:recipectl(1)

[Install]
WantedBy={wanted_by}

[X-Recipectl]
"""
_SLICE = """# Written by recipectl; changes belong in drop-ins (systemctl edit models.slice).
[Unit]
Description=Slice of all models of this host
Documentation=man:recipectl(1)

[X-Recipectl]
"""
TARGET, SLICE = "models.target", "models.slice"
GATEWAY = "models-gateway.service"
# The users of what stands before models; no engine may run as one of them.
GATEWAY_USER = "models-gateway"
PROXY_USER = "recipectl-proxy"  # of proxies that wait until other models are idle: they ask the bus
QUEUE_USER = "recipectl-queue"  # of queues and of what opens them
_OF_ENGINES = "engine-"  # gateway_keys.ENGINE_PREFIX


class UnitNames:
    """The names of the units that a recipe may have; `every` has those that stay, the service first."""

    def __init__(self, recipe: str) -> None:
        self.recipe = recipe
        self.stem = f"model-{recipe}"
        self.service = f"{self.stem}.service"
        self.socket = f"{self.stem}.socket"
        self.proxy = f"{self.stem}-proxy.service"
        self.keep = f"{self.stem}-keep.service"
        self.queue_socket = f"{self.stem}-queue.socket"
        self.queue = f"{self.stem}-queue.service"
        self.queue_open = f"{self.stem}-queue-open.service"  # lets requests through while the model runs
        self.reachable = f"{self.stem}-reachable.service"  # while it is up, the gateway sends to the model
        self.watch = f"{self.stem}-watch.service"
        self.hung = f"{self.stem}-hung.service"  # kills a model whose watch found it hung
        self.canaries = f"{self.stem}-canaries.service"  # asks the model what its recipe has of canaries
        self.tie_stem = f"{self.stem}-tie"
        self.tie = f"{self.tie_stem}.service"  # of a model that several hosts serve
        self.lost = f"{self.stem}-lost.service"  # kills a model whose tie is lost
        self.check = f"recipectl-check-{recipe}.service"  # asks an engine for its flags, in an upgrade
        self.watch_timer = f"{self.stem}-watch.timer"  # of earlier releases
        self.every = (
            self.service, self.socket, self.proxy, self.keep, self.queue_socket, self.queue_open, self.queue,
            self.reachable, self.watch_timer, self.watch, self.hung, self.canaries, self.tie, self.lost,
        )  # fmt: skip

    @property
    def listening(self) -> tuple[str, ...]:
        """What listens for clients while nothing of the model runs, and what shows that to the gateway."""
        return (self.socket, self.queue_socket, self.queue, self.reachable)

    def listener(self, *, on_demand: bool, queued: bool) -> str:
        """The unit that listens for clients: the socket, if the model has one, else its service."""
        return self.queue_socket if queued else self.socket if on_demand else self.service

    @classmethod
    def of_service(cls, unit: str) -> "UnitNames":
        """The names of the recipe that a service belongs to."""
        return cls(recipe_of(unit))


def recipe_of(service: str) -> str:
    """The name of the recipe that a service belongs to."""
    return service.removeprefix("model-").removesuffix(".service")


def recipe_of_unit(unit: str) -> str:
    """The name of the recipe that a service, or a unit beside one, belongs to."""
    stem = unit.removeprefix("model-").rpartition(".")[0]
    endings = (ending for ending in RESERVED_ENDINGS if stem.endswith(ending))
    return stem.removesuffix(next(endings, ""))


def is_model_unit(unit: str) -> bool:
    """True for the name of a model's service, or of a service beside it."""
    return unit.startswith("model-") and unit.endswith(".service")


def is_companion(service: str) -> bool:
    """True for the name of a service beside that of a model."""
    return recipe_of(service).endswith(RESERVED_ENDINGS)


def is_queue(unit: str) -> bool:
    """True for the name of a unit where requests wait."""
    return unit.removeprefix("model-").endswith(("-queue.socket", "-queue.service"))


def is_tie(unit: str) -> bool:
    """True for the name of a unit that ties a model to other hosts."""
    return unit.startswith("model-") and unit.endswith("-tie.service")


class Unit(NamedTuple):
    """A unit's file name and its exact text."""

    name: str
    text: str


class Setting(NamedTuple):
    """One setting of a unit file; `value` is as written, continued lines joined."""

    section: str
    name: str
    value: str


def parse_settings(text: str) -> tuple[Setting, ...]:
    """The settings of a unit file in its order, without comments."""
    return tuple(setting for _, setting in settings_with_lines(text))


def settings_with_lines(text: str) -> Iterator[tuple[int, Setting]]:
    """The settings of a unit file, each after the number of its line, counted from 1."""
    section = ""
    for number, line in _joined_lines(text):
        if line.startswith("[") and line.endswith("]"):
            section = line[1:-1]
        elif "=" in line:
            name, _, value = line.partition("=")
            yield number, Setting(section, name.strip(), value.strip())


def lines_without_setting(text: str) -> Iterator[tuple[int, str]]:
    """The lines that are no section and no setting, which systemd ignores, each after its number."""
    for number, line in _joined_lines(text):
        if "=" not in line and not (line.startswith("[") and line.endswith("]")):
            yield number, line


def _joined_lines(text: str) -> Iterator[tuple[int, str]]:
    """Lines without comments, each with its continuations, after the number of the first one."""
    begin, first = "", 0
    for number, raw in enumerate(text.split("\n"), start=1):
        comment = raw.lstrip().startswith(("#", ";"))
        # A comment among continued lines does not end them (systemd.syntax(7)).
        if comment or not (begin or raw.strip()):
            continue
        line = raw.rstrip() if begin else raw.strip()
        first = first if begin else number
        if line.endswith("\\"):
            begin += line[:-1] + " "
            continue
        yield first, begin + line
        begin = ""


class InstalledUnit:
    """A unit of recipectl as its file has it, parsed once. What the file does not say is None, or empty."""

    def __init__(self, name: str, text: str) -> None:
        _, _, section = text.partition(f"\n{SECTION}\n")
        pairs = (line.partition("=") for line in section.split("\n"))
        facts = {key: value.replace("%%", "%") for key, _, value in pairs}
        body, ending, digest = text.rpartition("\nText=")
        earlier = re.search(r"^SourcePath=(.*)$", text, re.M)
        endpoint = facts.get("Endpoint", "none")
        self.name = name
        self.text = text
        source = facts.get("Source") or (earlier[1].replace("%%", "%") if earlier else "")
        self.source = source  # the recipe's file
        self.recipe = facts.get("Recipe", "")
        self.backend = facts.get("Backend")
        self.engine_version = facts.get("EngineVersion")  # when it was compiled; `unknown` if nothing told it
        self.endpoint = None if endpoint == "none" else endpoint  # the URL where clients ask
        self.host = facts.get("Host")  # where it listens for clients, as the recipe or the engine has it
        self.model = facts.get("Model")
        self.served = quoting.split(facts.get("Served", ""))  # all names that the engine answers to
        self.key_file = facts.get("ApiKey") or None  # of the engine's own API
        self.model_path = facts.get("ModelPath")
        address, _, port = facts.get("Listen", "").rpartition(" ")
        self.engine_address = (address, int(port)) if port.isdigit() else None  # of the engine itself
        self.gpus = facts.get("Gpus")
        self.accelerator = facts.get("Accelerator", "cuda")
        self.gpu_sharing = facts.get("GpuSharing", "exclusive")
        self.digest = facts.get("Digest")  # a process that was started with this unit carries it
        self.edited_by_hand = bool(ending) and digest != digest_of(f"{body}\n") + "\n"

    @property
    def secret_files(self) -> tuple[str, ...]:
        """The files of its secrets, which a process reads at its start: not those that an apply renews."""
        credentials = (*self.setting("LoadCredential"), *self.setting("LoadCredentialEncrypted"))
        if self.name == GATEWAY:
            credentials = tuple(value for value in credentials if not value.startswith(_OF_ENGINES))
        files = (*(value.partition(":")[2] for value in credentials), *self.setting("EnvironmentFile"))
        return tuple(file for file in files if file.startswith("/"))

    @property
    def program(self) -> str:
        """The file that ExecStart= runs."""
        command = next(iter(self.setting("ExecStart")), "").removeprefix(":")
        return next(iter(quoting.split(command)), "").replace("%%", "%")

    @property
    def endpoint_address(self) -> tuple[str, int]:
        """Address and port of its URL; an empty address and 0 where it has none."""
        host, port = addresses.split((self.endpoint or "").removeprefix("http://"))
        return host, int(port) if port.isdigit() else 0

    @cached_property
    def _settings(self) -> tuple[Setting, ...]:
        return parse_settings(self.text)

    def setting(self, name: str) -> tuple[str, ...]:
        """The values of a setting of the unit, in its order."""
        return tuple(setting.value for setting in self._settings if setting.name == name)

    @property
    def wants(self) -> tuple[str, ...]:
        """The units that systemd starts with this one."""
        return tuple(" ".join(self.setting("Wants")).split())


def counted_per_start(names: UnitNames, wanted: Collection[str]) -> int:
    """How often systemd counts a start of a model for StartLimitBurst=; `wanted` are the units of its Wants=.

    Each start of a model counts twice if it wants a unit that is bound to it: when the model waits for its
    restart, systemd starts what it wants, and with that asks for the model once more
    (retroactively_start_dependencies() in its source).
    """
    return 2 if {names.queue_open, names.reachable} & {*wanted} else 1


def sealed(unit: Unit) -> Unit:
    """The unit with the digest of its text as the last line, by which an edit by hand is recognised."""
    return Unit(unit.name, f"{unit.text}Text={digest_of(unit.text)}\n")


def shared_units(*, user: bool) -> tuple[Unit, ...]:
    """The target and the slice that all models belong to."""
    wanted_by = "default.target" if user else "multi-user.target"
    return Unit(TARGET, _TARGET.format(wanted_by=wanted_by)), Unit(SLICE, _SLICE)
