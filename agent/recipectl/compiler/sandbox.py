"""The sandbox of a unit: as tight as CUDA, NCCL and JIT compilers allow."""

import posixpath
from collections.abc import Collection, Mapping, Sequence
from itertools import pairwise

from recipectl.compiler.environment import directories
from recipectl.compiler.model import ResolvedRecipe
from recipectl.engines.registry import ENGINES
from recipectl.machine.installation import Installation
from recipectl.systemd import quoting

_TEMPORARY = "/tmp/"  # noqa: S108  (compared, not used); it also matches /var/tmp/
_HOMES = ("/home/", "/root/", "/run/user/")
# Caches of libraries, besides those that each model has of its own.
CACHES = (
    "HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "TRANSFORMERS_CACHE", "HF_XET_CACHE", "HF_ASSETS_CACHE",
    "HF_MODULES_CACHE", "HF_DATASETS_CACHE", "LLAMA_CACHE", "MODELSCOPE_CACHE",
)  # fmt: skip
# Other folders that engines and their libraries write.
WRITTEN = (
    "TORCH_HOME", "TORCH_EXTENSIONS_DIR", "CUDA_CACHE_PATH", "TMPDIR", "RAY_TMPDIR", "NUMBA_CACHE_DIR",
    "FLASHINFER_WORKSPACE_BASE", "OUTLINES_CACHE_DIR", "PROMETHEUS_MULTIPROC_DIR", "VLLM_CONFIG_ROOT",
    "VLLM_TORCH_PROFILER_DIR", "SGLANG_TORCH_PROFILER_DIR", "SGLANG_CACHE_DIR", "TVM_FFI_CACHE_DIR",
    "MPLCONFIGDIR",
)  # fmt: skip
# They stay read-only, whatever a variable or a flag says.
_OF_SYSTEM = (
    "/", "/bin", "/boot", "/etc", "/home", "/lib", "/lib64", "/opt", "/root", "/run", "/sbin", "/srv", "/usr",
    "/var", "/var/lib", "/var/log",
)  # fmt: skip
_ALWAYS_WRITABLE = ("/dev/", "/proc/", "/sys/")  # ProtectSystem=strict leaves them as they are


def unit_lines(
    resolved: ResolvedRecipe, installation: Installation, level: str, *, own_user: bool
) -> list[str]:
    """The lines that keep an engine away from the rest of the host; `level` is off, default or strict."""
    environment = resolved.environment
    values = [variable.value for variable in environment.values()]
    runtime = resolved.runtime
    starts_in = [
        f"{folder.removeprefix('-')}/" for folder in resolved.recipe.service.get("WorkingDirectory", ())
    ]
    used = "\n".join((*resolved.argv, *runtime.path, *runtime.link_targets, *values, *starts_in))
    # A private /tmp would hide a venv or a model that lies there; so would ProtectHome=yes.
    private = _TEMPORARY not in used
    lines = [f"PrivateTmp={'yes' if private else 'no'}", "UMask=0027"]
    if private and resolved.mps_pipes:
        lines.append(f"BindPaths=-{resolved.mps_pipes}")
    if installation.user:
        return lines
    lines += _ALWAYS
    # A person's shared memory must survive the stop of a model.
    lines += ["RemoveIPC=yes"] if own_user else []
    if level == "off":
        return lines
    lines += [*_bounding_set(resolved.recipe.service), *_DEFAULT]
    in_home = "~/" in starts_in or any(home in used for home in _HOMES)
    lines.append(f"ProtectHome={'read-only' if in_home else 'yes'}")
    lines += [f"ReadWritePaths={quoting.word(f'-{path}')}" for path in _writable(resolved)]
    if level == "strict":
        lines += _STRICT
        if resolved.member:
            lines.append(f"IPAddressAllow={' '.join(resolved.member.addresses)}")
        # Before 253 ProtectClock= hid every GPU (systemd#18142).
        lines += ["ProtectClock=yes"] if installation.systemd_version >= 253 else []
        lines += ["PrivateDevices=yes"] if resolved.gpus.mode == "none" else []
    return lines


def _bounding_set(service: Mapping[str, Sequence[str]]) -> list[str]:
    """No capabilities but AmbientCapabilities=: nobody has one outside of this set (capabilities(7))."""
    return [
        "CapabilityBoundingSet=",
        *(
            f"CapabilityBoundingSet={names}"
            for names in service.get("AmbientCapabilities", ())
            if names and not names.startswith("~")
        ),
    ]


def helper_lines(user: str = "", *, limited: bool = True) -> list[str]:
    """The sandbox of a unit of recipectl's own: of a user that exists while it runs, or of `user`."""
    identity = [f"User={user}"] if user else ["DynamicUser=yes"]
    return [*identity, *_HELPER, *(["MemoryMax=64M", "TasksMax=16"] if limited else [])]


def moved_directories(resolved: ResolvedRecipe) -> list[str]:
    """The folders for downloads and states that a variable or a flag puts elsewhere."""
    # They are written with `-`: a missing folder would fail the start with 226/NAMESPACE.
    flags = ENGINES[resolved.recipe.backend].written_flags
    names = dict.fromkeys(CACHES, "") | directories(resolved.recipe)
    return _values_of_flags(resolved, flags) + _values_of_variables(resolved, names)


def _writable(resolved: ResolvedRecipe) -> list[str]:
    """The folders that the engine writes, and those of files that it writes, besides its own."""
    others = _values_of_variables(resolved, dict.fromkeys(WRITTEN, ""))
    files = map(_normal, _values_of_flags(resolved, ENGINES[resolved.recipe.backend].written_files))
    folders = [_normal(path) for path in (*moved_directories(resolved), *others)]
    for file in files:
        folder = posixpath.dirname(file)
        folders.append(file if folder in _OF_SYSTEM else folder)  # a file that is there can be written
    return [
        path
        for path in dict.fromkeys(folders)
        if path not in _OF_SYSTEM and not f"{path}/".startswith(_ALWAYS_WRITABLE)
    ]


def _normal(path: str) -> str:
    return f"/{posixpath.normpath(path).lstrip('/')}"


def _values_of_variables(resolved: ResolvedRecipe, names: Mapping[str, str]) -> list[str]:
    """The absolute paths that variables have; `names` are variable -> the value that changes nothing."""
    values = [
        (resolved.environment[name].value, own) for name, own in names.items() if name in resolved.environment
    ]
    return [value for value, own in values if value != own and value.startswith("/")]


def _values_of_flags(resolved: ResolvedRecipe, flags: Collection[str]) -> list[str]:
    words = [part for word in resolved.argv for part in word.split("=", 1 if word.startswith("--") else 0)]
    pairs = pairwise(words)
    return [value for flag, value in pairs if flag.replace("_", "-") in flags and value.startswith("/")]


_KERNEL = [
    "ProtectControlGroups=yes", "ProtectHostname=yes", "ProtectKernelLogs=yes",
    "ProtectKernelModules=yes", "ProtectKernelTunables=yes", "KeyringMode=private",
    "LockPersonality=yes",
]  # fmt: skip
# With `hardening: off` too: one model must not read or signal another through a program with privileges.
_ALWAYS = ["NoNewPrivileges=yes", "RestrictSUIDSGID=yes", "ProtectProc=invisible"]
_DEFAULT = [
    "ProtectSystem=strict",
    *_KERNEL,
    "RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6 AF_NETLINK",  # NCCL and psutil use netlink
    "RestrictNamespaces=yes",
    "RestrictRealtime=yes",
    "SystemCallArchitectures=native",
    # Not @debug (pidfd_getfd shares CUDA memory) nor @resources (mbind); a refusal is an error, not a kill.
    "SystemCallFilter=~@clock @cpu-emulation @module @mount @obsolete @raw-io @reboot @swap",
    "SystemCallErrorNumber=EPERM",
]
_STRICT = ["PrivateIPC=yes", "IPAddressDeny=any", "IPAddressAllow=localhost"]
# Not PrivateUsers=: hosts without user namespaces would not start the unit (217/USER).
_HELPER = [
    "NoNewPrivileges=yes",
    "CapabilityBoundingSet=",
    "PrivateTmp=yes",
    "PrivateDevices=yes",
    "PrivateIPC=yes",
    "ProtectSystem=strict",
    "ProtectHome=yes",
    "ProtectProc=invisible",
    "ProtectClock=yes",
    *_KERNEL,
    "MemoryDenyWriteExecute=yes",
    "RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6",
    "RestrictNamespaces=yes",
    "RestrictRealtime=yes",
    "RestrictSUIDSGID=yes",
    "SystemCallArchitectures=native",
    "SystemCallFilter=@system-service",
    "SystemCallFilter=~@privileged @resources",
    "SystemCallErrorNumber=EPERM",
    "UMask=0077",
]
# The unit that kills a hung model is root's, to reach systemd; it has no network and no capabilities.
KILLER = [
    *(line for line in _HELPER if not line.startswith("RestrictAddressFamilies")),
    "PrivateNetwork=yes",
    "RestrictAddressFamilies=AF_UNIX",
]
# For a unit that runs true(1), and then only shows that it is up. PrivateTmp= would keep a folder as long.
MARKER = [line for line in KILLER if not line.startswith("PrivateTmp")]
