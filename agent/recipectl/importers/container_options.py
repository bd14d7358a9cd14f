"""The options of `docker run` and `podman run`: what they mean for an engine without the container."""

import contextlib
import json
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from recipectl.errors import RecipectlError
from recipectl.importers.command import add_variable, assignment
from recipectl.importers.container_gpus import csv_fields, gpus_of_option, set_gpu_variable
from recipectl.importers.container_ports import published
from recipectl.importers.draft import VARIABLE_START
from recipectl.importers.lines import Losing, Remark
from recipectl.importers.mounts import Mounts
from recipectl.importers.variables import read_variables

# Options that only matter to a container: leaving them out loses nothing.
_CONTAINER_ONLY = frozenset(
    """
    --name --ipc --shm-size --log-driver --log-opt --isolation --cgroups --userns --sdnotify
    --hostname -h --network-alias --platform --cidfile --pidfile --tmpfs --security-opt
    """.split()  # noqa: SIM905  (a list one can read)
)
_ULIMIT = re.compile(r"(?!memlock)([a-z]+)=(-?\d+(?::-?\d+)?)\Z")
# What every unit has in any case: (option, value).
_COMPILED = {
    ("--ulimit", "memlock=-1"),
    *(("--group-add", name) for name in ("video", "render", "keep-groups")),
}
# Where a recipe has a key for something similar.
_KEYS = {"--user": "user", "-u": "user", "--health-cmd": "watch", "--healthcheck-command": "watch"}
# Options that are settings of a unit, systemd.exec(5) and systemd.resource-control(5).
_SETTINGS = {
    "--memory": "MemoryMax", "-m": "MemoryMax", "--memory-reservation": "MemoryLow",
    "--cpuset-cpus": "AllowedCPUs", "--cpuset-mems": "AllowedMemoryNodes", "--pids-limit": "TasksMax",
    "--oom-score-adj": "OOMScoreAdjust", "--stop-signal": "KillSignal",
}  # fmt: skip


@dataclass
class Container(Losing):
    """The meaning of the options of `docker run`."""

    caller_environment: Mapping[str, str]
    not_carried_over: list[Remark]
    environment: dict[str, str] = field(default_factory=dict)
    mounts: Mounts = field(default_factory=Mounts)
    ports: dict[str, tuple[str, str]] = field(default_factory=dict)  # container port -> host address and port
    entrypoint: tuple[str, ...] | None = None
    networks: dict[str, str] = field(default_factory=dict)  # each with its place
    restart: str = ""
    runtime: str = ""
    service: dict[str, str] = field(default_factory=dict)
    secrets: dict[str, str] = field(default_factory=dict)  # variable -> the container's secret
    all_gpus: bool = False
    gpus: list[str] = field(default_factory=list)  # those that the container sees
    nodes: list[str] = field(default_factory=list)  # of `--device /dev/nvidia0`, where nothing else tells
    folder: str = ""  # in which its program starts
    place: str = ""  # of the option that is being added
    # A variable, a port, `its image`, `its folder` or `its labels` (no names of variables) -> its place.
    places: dict[str, str] = field(default_factory=dict)
    unread_files: list[str] = field(default_factory=list)  # files of variables that are not here
    of_caller: dict[str, str] = field(default_factory=dict)  # variable that a file names alone -> its place
    of_files: dict[str, str] = field(default_factory=dict)  # variables of files, over which those of `-e` win
    labels: list[str] = field(default_factory=list)
    is_detached: bool = False
    is_in_pod: bool = False  # which publishes its ports
    publishes_all: bool = False  # at ports that the container engine chooses
    has_gpus: bool = False  # the container was given GPUs, or their devices
    has_rocm: bool = False  # they are AMD's

    def add_variable(self, value: str) -> None:
        self.places[value.partition("=")[0]] = self.place
        add_variable(value, self.caller_environment, self)

    def add_environment_file(self, value: str) -> None:
        """Add the variables of a file, as `docker run` reads it: each line as it is; the last file wins."""
        file = value if VARIABLE_START in value else os.path.join(self.mounts.base, value)  # noqa: PTH118
        try:
            lines = read_variables(file, self.not_carried_over).splitlines()
        except (OSError, RecipectlError):
            self.lose(f"the variables in {file}; set them in `env_vars:` or `secrets:`")
            self.unread_files.append(file)
            return
        for line in (line.lstrip() for line in lines):
            if pair := assignment(line):
                self.of_files |= [pair]
                self.places.setdefault(pair[0], self.place)
            elif re.match(r"[^#\s]*[=\s]", line):
                self.lose(f"`{line.partition('=')[0]}` in {file}, which cannot be a variable's name")
            elif line and not line.startswith("#"):
                self.of_caller[line] = self.place

    def add_secret(self, value: str) -> None:
        """`--secret NAME,type=env,target=VARIABLE` of podman."""
        name, *parts = value.split(",")
        options = dict(part.partition("=")[::2] for part in parts)
        if options.get("type") == "env":
            self.secrets[options.get("target") or name] = f"which podman keeps as `{name}`"
            self.places[options.get("target") or name] = self.place
        else:
            self.lose(f"the secret `{name}`, a file of the container; see `secrets:`")

    def add_volume(self, value: str) -> None:
        source, colon, target = value.partition(":")
        target, _, options = target.partition(":")
        source, target = (source, target) if colon else ("", source)  # a volume without a name
        self.mounts.add(target, source, self.place, is_read_only="ro" in options.split(","))

    def add_mount(self, value: str) -> None:
        parts = dict(part.partition("=")[::2] for part in csv_fields(value))
        if parts.get("type") == "tmpfs":
            return  # a folder of the container alone
        source = parts.get("source") or parts.get("src") or ""
        target = parts.get("target") or parts.get("dst") or parts.get("destination") or ""
        if parts.get("type") == "image":
            self.lose(f"the image `{source}` at {target}; copy its files to this host, and name them")
            return
        if subpath := parts.get("volume-subpath"):
            self.lose(f"the folder `{subpath}` alone of the volume `{source}` at {target}")
        is_read_only = {"ro", "readonly"} & {name for name, value in parts.items() if value != "false"}
        self.mounts.add(target, source, self.place, is_read_only=bool(is_read_only))

    def add_port(self, value: str) -> None:
        """Add what `--publish` says, which may be a range."""
        ports, is_first_of_range = published(value)
        if is_first_of_range:
            self.lose(f"the published range {value}: its first port counts")
        for port in ports:
            address, host_port, inner = ["", "", *port.rsplit(":", 2)][-3:]
            inner, _, protocol = inner.partition("/")
            if protocol not in ("", "tcp"):
                self.lose(f"the published port {port}: engines listen with TCP alone")
                continue
            numbers = filter(None, (host_port, inner))
            if any(not text.isdecimal() and VARIABLE_START not in text for text in numbers):
                self.lose(f"the published port `{port}`, which is no number")
                continue
            if not host_port:
                self.lose(f"the published port {port} was any free one of the host; it is {inner} here")
            if inner in self.ports:
                self.lose(f"the published port {port}: a model has one address")
                continue
            self.ports[inner] = (address.strip("[]"), host_port or inner)
            self.places[inner] = self.place

    def add_gpus(self, value: str) -> None:
        """Add what `--gpus` says."""
        self.has_gpus = True
        devices, count = gpus_of_option(value)
        for device in devices:
            self._add_gpu(device)
        if not devices and count == "0":
            self.has_gpus, self.environment["NVIDIA_VISIBLE_DEVICES"] = False, "none"
        elif not devices and re.fullmatch("[0-9]{1,3}", count):  # the first ones
            self.gpus += map(str, range(int(count)))
        elif not devices and count not in ("all", "-1"):
            self.lose(f"`--gpus {value}`; name the GPUs in `gpus:`")
        self.all_gpus |= not devices and count in ("all", "-1")

    def _add_gpu(self, device: str) -> None:
        """Add a GPU by its number or id; CDI's names are `nvidia.com/gpu=0` and the like."""
        gpu = device.removeprefix("nvidia.com/gpu=").removeprefix("amd.com/gpu=")
        if gpu == "all":
            self.all_gpus = True
        elif re.fullmatch("[0-9]+:[0-9]+", gpu):
            self.lose(f"the MIG instance `{gpu}`; name its UUID in `gpus:`")
        else:
            self.gpus.append(gpu)

    def add_device(self, value: str) -> None:
        if node := re.fullmatch(r"/dev/nvidia([0-9]+)(:.*)?", value):
            self.nodes.append(node[1])
        elif value.startswith(("nvidia.com/gpu=", "amd.com/gpu=")):
            for device in value.split(","):  # podman takes several
                self._add_gpu(device)
        elif not value.startswith(("/dev/kfd", "/dev/dri", "/dev/nvidia")):
            self.add_other("--device", value)
            return
        if re.match("/dev/dri/(card|renderD)", value):
            self.lose(f"`{value}` alone of the GPUs; see `gpus:`")
        self.has_gpus = True  # units have the nodes of GPUs
        self.has_rocm |= value.startswith(("/dev/kfd", "amd.com/gpu="))

    def select_gpus(self) -> None:
        """CUDA_VISIBLE_DEVICES as the host counts: a container counts the GPUs that it sees from 0."""
        variable = self.environment.pop("NVIDIA_VISIBLE_DEVICES", "")
        variable = self.environment.pop("AMD_VISIBLE_DEVICES", "") if self.runtime == "amd" else variable
        self.has_rocm |= self.runtime == "amd"
        self.gpus = [] if self.all_gpus else self.gpus
        if variable not in ("", "all") and (self.all_gpus or self.gpus):
            fault = f"NVIDIA_VISIBLE_DEVICES={variable}, which the container's own option overrides"
            self.lose(fault, "NVIDIA_VISIBLE_DEVICES")
            variable = "all"
        # Images of engines say that they want all GPUs, which nvidia's runtime gives.
        is_all = variable == "all" or (self.runtime == "nvidia" and not variable)
        self.all_gpus |= is_all and not self.gpus
        if not (self.has_gpus or variable or self.runtime == "nvidia"):
            self.lose("the container was given no GPUs, and the recipe has all of them; see `gpus:`")
        of_variable = [gpu for gpu in variable.split(",") if gpu not in ("", "all", "void", "none")]
        self.gpus = self.gpus or of_variable or ([] if self.all_gpus else self.nodes)
        name = "HIP_VISIBLE_DEVICES" if self.has_rocm else "CUDA_VISIBLE_DEVICES"
        if variable in ("none", "void"):
            self.environment[name] = ""
        elif self.gpus and (foreign := set_gpu_variable(name, self.environment, self.gpus)):
            fault = f"{name}={foreign} among the container's GPUs; correct `gpus:`"
            self.lose(fault, name)

    def add_label(self, value: str) -> None:
        """Add a label that another program may read: not one that describes the image."""
        name = value.partition("=")[0]
        if not re.match(r"org\.(opencontainers|label-schema)\.|com\.docker\.compose|maintainer", name):
            self.labels.append(f"`{name}`")
            self.places.setdefault("its labels", self.place)

    def name_labels(self) -> None:
        """Name the labels: routes of a proxy, and settings of what updates or watches containers."""
        if self.labels:
            fault = f"the labels {', '.join(self.labels)}, which other programs may read"
            self.lose(fault, "its labels")

    def set_entrypoint(self, value: str) -> None:
        """Set a program, or podman's JSON list of words."""
        words: object = (value,)
        if value.startswith("["):
            with contextlib.suppress(ValueError):
                words = json.loads(value)
        self.entrypoint = tuple(map(str, words)) if isinstance(words, list) else (value,)

    def set_pull(self, value: str) -> None:
        if value in ("always", "newer", "daily", "weekly", "refresh"):
            self.lose(f"the updates of its image (`{value}`); see `recipectl upgrade`")

    def set_runtime(self, value: str) -> None:
        self.runtime = value
        if value not in ("", "nvidia", "amd", "runc", "crun", "io.containerd.runc.v2"):
            self.lose(f"the runtime `{value}`, whose devices and engine this host may not have")

    def set_pod(self, value: str) -> None:
        self.is_in_pod = True
        self.lose(f"the pod `{value}`, which published its ports; see `host:` and `port:`")

    def set_restart(self, value: str) -> None:
        self.restart = value
        if value.startswith("on-failure") or value == "no":
            self.lose(f"the restart policy `{value}`: recipectl always restarts a model that ends")

    def add(self, option: str, value: str, written: str = "") -> None:
        """Add one option of `docker run`; `written` is how the user wrote it."""
        handler = _HANDLERS.get(_LONG_NAMES.get(option, option))
        if handler:
            handler(self, value)
        else:
            self.add_other(option, value, written)

    def add_other(self, name: str, value: str, written: str = "") -> None:
        """Add an option that is a setting of a unit; name any other one that means something."""
        if value in ("0", "-1") and name in ("--memory", "-m", "--pids-limit", "--cpus"):
            if name == "--pids-limit":  # systemd has a limit by default
                self.service["TasksMax"] = "infinity"
            return
        size = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?)([kmgt]?)(i?b?)", value.lower())
        if name in _SETTINGS and (size or not _SETTINGS[name].startswith("Memory")):
            self.service[_SETTINGS[name]] = size[1] + size[2].upper() if size else value
        elif name == "--cpus" and re.fullmatch(r"[0-9]+(\.[0-9]+)?", value):
            self.service["CPUQuota"] = f"{float(value) * 100:g}%"
        elif name == "--ulimit" and (match := _ULIMIT.match(value)):
            self.service[f"Limit{match[1].upper()}"] = match[2].replace("-1", "infinity")
        elif name not in _CONTAINER_ONLY and (name, value.split(":")[0]) not in _COMPILED:
            shown = written or f"`{name} {value}` of the container"
            self.lose(f"{shown}; see `{_KEYS.get(name, 'service')}:`" if name else shown)


_LONG_NAMES = {
    "-e": "--env", "-v": "--volume", "-p": "--publish", "--net": "--network", "-w": "--workdir",
    "-l": "--label",
}  # fmt: skip
_HANDLERS: Mapping[str, Callable[[Container, str], object]] = {
    "--env": Container.add_variable,
    "--env-file": Container.add_environment_file,
    "--volume": Container.add_volume,
    "--mount": Container.add_mount,
    "--publish": Container.add_port,
    "--gpus": Container.add_gpus,
    "--device": Container.add_device,
    "--entrypoint": Container.set_entrypoint,
    "--network": lambda container, value: container.networks.setdefault(value, container.place),
    "--pull": Container.set_pull,
    "--pod": Container.set_pod,
    "--restart": Container.set_restart,
    "--secret": Container.add_secret,
    "--label": Container.add_label,
    "--runtime": Container.set_runtime,
    "--workdir": lambda container, value: setattr(container, "folder", value),
}
