"""The sandbox of a unit: as tight as CUDA, NCCL and JIT compilers allow."""

from recipectl.compiler.environment import directories
from recipectl.compiler.model import ResolvedRecipe
from recipectl.machine.installation import Installation
from recipectl.systemd import quoting

_TEMPORARY = "/tmp/"  # noqa: S108  (compared, not used); it also matches /var/tmp/
_HOMES = ("/home/", "/root/", "/run/user/")


def unit_lines(resolved: ResolvedRecipe, installation: Installation, level: str) -> list[str]:
    """The lines that keep an engine away from the rest of the host; `level` is off, default or strict."""
    environment = resolved.environment
    values = [variable.value for variable in environment.values()]
    runtime = resolved.runtime
    used = "\n".join((*resolved.argv, *runtime.path, *runtime.link_targets, *values))
    # A private /tmp would hide a venv or a model that lies there; so would ProtectHome=yes.
    lines = [f"PrivateTmp={'no' if _TEMPORARY in used else 'yes'}", "UMask=0027"]
    if installation.user or level == "off":
        return lines
    lines += _DEFAULT
    lines.append(f"ProtectHome={'read-only' if any(home in used for home in _HOMES) else 'yes'}")
    lines += [f"ReadWritePaths={quoting.word(f'-{path}')}" for path in _moved_directories(resolved)]
    if level == "strict":
        lines += _STRICT
        # Before 253 ProtectClock= hid every GPU (systemd#18142).
        lines += ["ProtectClock=yes"] if installation.systemd_version >= 253 else []
        lines += ["PrivateDevices=yes"] if resolved.gpus.mode == "none" else []
    return lines


def _moved_directories(resolved: ResolvedRecipe) -> list[str]:
    """The folders of caches and state that a variable moves elsewhere."""
    # They are written with `-`: a missing folder would fail the start with 226/NAMESPACE.
    environment = resolved.environment
    return [
        environment[name].value
        for name, folder in directories(resolved.recipe).items()
        if name in environment
        and environment[name].value != folder
        and environment[name].value.startswith("/")
    ]


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
    "RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6 AF_NETLINK",  # NCCL and psutil use netlink
    "RestrictNamespaces=yes",
    "RestrictRealtime=yes",
    "RestrictSUIDSGID=yes",
    "SystemCallArchitectures=native",
    # Not @debug (pidfd_getfd shares CUDA memory) nor @resources (mbind); a refusal is an error, not a kill.
    "SystemCallFilter=~@clock @cpu-emulation @module @mount @obsolete @raw-io @reboot @swap",
    "SystemCallErrorNumber=EPERM",
]
_STRICT = ["PrivateIPC=yes", "IPAddressDeny=any", "IPAddressAllow=localhost"]
