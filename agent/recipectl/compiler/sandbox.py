"""The sandbox of a unit: as tight as CUDA, NCCL and JIT compilers bear."""

from recipectl.compiler import environment
from recipectl.compiler.environment import Environment
from recipectl.errors import UsageError
from recipectl.machine.runtime import Runtime
from recipectl.recipe.schema import Recipe
from recipectl.systemd import quoting
from recipectl.systemd.unitfile import Site

_TEMPORARY = "/tmp/"  # noqa: S108  (asked, not used); /var/tmp/ too
_HOMES = ("/home/", "/root/", "/run/user/")


def settings(recipe: Recipe, runtime: Runtime, argv: tuple[str, ...], environ: Environment, site: Site,
             level: str) -> list[str]:  # fmt: skip
    """The lines that keep an engine to its own."""
    folders = environment.directories(recipe)
    moved = [
        environ[name].value for name in folders if name in environ and environ[name].value != folders[name]
    ]
    used = "\n".join((*argv, *runtime.path, *runtime.behind, *(one.value for one in environ.values())))
    # A private /tmp would hide a venv or a model that is kept there; so would ProtectHome=yes.
    in_tmp, in_home = _TEMPORARY in used, any(folder in used for folder in _HOMES)
    lines = [f"PrivateTmp={'no' if in_tmp else 'yes'}", "UMask=0027"]
    if site.user or level == "off":
        return lines
    lines += _DEFAULT
    lines.append(f"ProtectHome={'read-only' if in_home else 'yes'}")
    # `-`: a folder that is missing would fail the start with 226/NAMESPACE.
    lines += [f"ReadWritePaths={quoting.word(f'-{path}')}" for path in moved if path.startswith("/")]
    if level == "strict":
        lines += _STRICT
        # Before 253 it hid every GPU (systemd#18142).
        lines += ["ProtectClock=yes"] if site.systemd >= 253 else []
        lines += ["PrivateDevices=yes"] if environment.gpus(recipe) == () else []
    return lines


_DEFAULT = [
    "NoNewPrivileges=yes",
    "CapabilityBoundingSet=",
    "ProtectSystem=strict",
    "ProtectControlGroups=yes",
    "ProtectHostname=yes",
    "ProtectKernelLogs=yes",
    "ProtectKernelModules=yes",
    "ProtectKernelTunables=yes",
    "ProtectProc=invisible",
    "KeyringMode=private",
    "LockPersonality=yes",
    "RemoveIPC=yes",
    "RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6 AF_NETLINK",  # NCCL and psutil ask netlink
    "RestrictNamespaces=yes",
    "RestrictRealtime=yes",
    "RestrictSUIDSGID=yes",
    "SystemCallArchitectures=native",
    # Not @debug (pidfd_getfd shares CUDA memory) nor @resources (mbind); a refusal is an error, not a kill.
    "SystemCallFilter=~@clock @cpu-emulation @module @mount @obsolete @raw-io @reboot @swap",
    "SystemCallErrorNumber=EPERM",
]
_STRICT = ["PrivateIPC=yes", "IPAddressDeny=any", "IPAddressAllow=localhost"]


def devices(recipe: Recipe) -> list[str]:
    """DeviceAllow= lines for its GPUs alone; empty without `device_isolation:`."""
    if not recipe.device_isolation:
        return []
    gpus = environment.gpus(recipe)
    if gpus is None or any(not gpu.isdigit() for gpu in gpus):
        text = "`device_isolation` needs `gpus:` as indices, or `none`; give them so"
        raise UsageError(text, "device_isolation")
    if recipe.accelerator == "rocm":
        nodes = ["/dev/kfd", *(f"/dev/dri/renderD{128 + int(gpu)}" for gpu in gpus)]
    else:
        common = ["/dev/nvidiactl", "/dev/nvidia-uvm", "/dev/nvidia-uvm-tools", "/dev/nvidia-modeset"]
        nodes = [*common, *(f"/dev/nvidia{gpu}" for gpu in gpus)]
    return ["DevicePolicy=closed", *(f"DeviceAllow={node} rw" for node in nodes if gpus)]
