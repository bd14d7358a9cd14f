"""NVIDIA's driver as /proc and the disk show it, without a program of it."""

import contextlib
import re
from pathlib import Path

_GPUS = Path("/proc/driver/nvidia/gpus")
_MODULE = Path("/sys/module/nvidia/version")
_LIBRARIES = (
    Path("/usr/lib/x86_64-linux-gnu"),
    Path("/usr/lib/aarch64-linux-gnu"),
    Path("/usr/lib64"),
    Path("/usr/lib"),
)


def gpu_ids(folder: Path = _GPUS) -> set[str]:
    """The ids of this host's GPUs, as `gpus:` may name them."""
    ids = set()
    for file in folder.glob("*/information"):
        with contextlib.suppress(OSError):
            if match := re.search(r"^GPU UUID:\s*(GPU-\S+)", file.read_text(errors="replace"), re.M):
                ids.add(match[1])
    return ids


def mps_of_one_user(processes: Path = Path("/proc")) -> bool:
    """True if CUDA's MPS runs here and serves one user at a time: clients of another wait (driver 580)."""
    for file in processes.glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            words = file.read_bytes().split(b"\0")
            if words[0].endswith(b"nvidia-cuda-mps-control") and b"-multiuser-server" not in words:
                return True
    return False


def driver_fault(module: Path = _MODULE, libraries: tuple[Path, ...] = _LIBRARIES) -> str | None:
    """A sentence when the loaded kernel module is not the version of the installed library."""
    try:
        loaded = module.read_text().strip()
    except OSError:
        return None  # no module of NVIDIA is loaded
    names = [path.name for folder in libraries for path in folder.glob("libnvidia-ml.so.*.*")]
    installed = sorted({name.removeprefix("libnvidia-ml.so.") for name in names})
    if not installed or loaded in installed:
        return None
    fault = f"NVIDIA's kernel module is {loaded}, and the installed library is {', '.join(installed)}"
    return f"{fault}: CUDA does not start; reboot, or load the new module"
