"""NVIDIA's driver as /proc and the disk show it, without a program of it."""

import contextlib
from pathlib import Path
from typing import NamedTuple

_GPUS = Path("/proc/driver/nvidia/gpus")
_MODULE = Path("/sys/module/nvidia/version")
_LIBRARIES = (
    Path("/usr/lib/x86_64-linux-gnu"),
    Path("/usr/lib/aarch64-linux-gnu"),
    Path("/usr/lib64"),
    Path("/usr/lib"),
)


class Gpu(NamedTuple):
    """One GPU as its driver describes it; `minor` is that of its device, and its index."""

    minor: str
    id: str
    model: str


def gpus(folder: Path = _GPUS) -> list[Gpu]:
    """This host's GPUs in the order of their indices."""
    devices = []
    for file in folder.glob("*/information"):
        with contextlib.suppress(OSError):
            lines = [line.partition(":") for line in file.read_text(errors="replace").splitlines()]
            values = {key.strip(): value.strip() for key, _, value in lines}
            devices.append(
                Gpu(*(values.get(key) or "unknown" for key in ("Device Minor", "GPU UUID", "Model")))
            )
    return sorted(devices, key=lambda gpu: (len(gpu.minor), gpu.minor))


def gpu_ids(folder: Path = _GPUS) -> set[str]:
    """The ids of this host's GPUs, as `gpus:` may name them."""
    return {gpu.id for gpu in gpus(folder) if gpu.id.startswith("GPU-")}


def driver_version(module: Path = _MODULE) -> str | None:
    """The version of the kernel module that is loaded."""
    try:
        return module.read_text(errors="replace").strip()
    except OSError:
        return None


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
    loaded = driver_version(module)
    if loaded is None:
        return None
    names = [path.name for folder in libraries for path in folder.glob("libnvidia-ml.so.*.*")]
    installed = sorted({name.removeprefix("libnvidia-ml.so.") for name in names})
    if not installed or loaded in installed:
        return None
    fault = f"NVIDIA's kernel module is {loaded}, and the installed library is {', '.join(installed)}"
    return f"{fault}: CUDA does not start; reboot, or load the new module"
