"""Stage 1: what this machine is, and whether a throwaway systemd boots on it."""

import os
import platform
import subprocess
from pathlib import Path

import pynvml
from live.common import ROOT

from gpu.host import Options, Table, gpu, output


def _text(path: str) -> str:
    try:
        return Path(path).read_text().strip()
    except OSError as error:
        return f"cannot be read ({error.strerror})"


def _boots() -> tuple[str, bool]:
    command = [str(ROOT / "packaging/throwaway-systemd"), "systemctl", "--version"]
    try:
        run = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    except subprocess.TimeoutExpired:
        return "no: it did not end within 120 s", False
    if run.returncode == 0:
        return f"yes: {run.stdout.splitlines()[0]}", True
    return f"no: {(run.stderr or run.stdout).strip()[-400:]}", False


def _nodes() -> str:
    found = sorted(path for path in Path("/dev").glob("nvidia*") if path.is_char_device())
    return ", ".join(f"{path.name} {path.stat().st_mode & 0o777:o}" for path in found) or "none"


def run(options: Options, table: Table) -> None:
    release = platform.freedesktop_os_release().get("PRETTY_NAME", "unknown")
    table.add("release", "release", release)
    table.add("kernel", "kernel", platform.release())
    systemd = _text("/proc/1/comm") == "systemd"
    table.add("pid1", "process 1", "systemd" if systemd else "another than systemd")
    table.add("processors", "processors, memory",
              f"{os.cpu_count()}, {os.sysconf('SC_PHYS_PAGES') * os.sysconf('SC_PAGE_SIZE') >> 30} GiB")  # fmt: skip
    table.add("systemd", "systemd", output("systemctl", "--version").split("\n")[0])
    cgroups = output("findmnt", "-nt", "cgroup2", "-o", "TARGET").split("\n")[0]
    table.add(
        "cgroups",
        "cgroup2, its controllers",
        f"{cgroups}: {_text(f'{cgroups}/cgroup.controllers')}",
        bool(cgroups),
    )
    table.add("namespaces", "user namespaces", _text("/proc/sys/user/max_user_namespaces"))
    table.add("capabilities", "capabilities of root here",
              next(line.split()[1] for line in _text("/proc/self/status").splitlines() if "CapEff" in line))  # fmt: skip
    module = _text("/proc/driver/nvidia/version").split("\n")[0]
    table.add("module", "kernel module", module, None if options.stand_in else "NVRM" in module)
    nodes = _nodes()
    table.add("nodes", "device nodes", nodes, None if options.stand_in else "nvidiactl" in nodes)
    persistenced = output("pgrep", "-a", "nvidia-persiste") or "does not run"
    table.add("persistenced", "nvidia-persistenced", persistenced)
    try:
        handle = gpu()
        cuda = pynvml.nvmlSystemGetCudaDriverVersion_v2()
        table.add("driver", "driver, CUDA",
                  f"{pynvml.nvmlSystemGetDriverVersion()}, {cuda // 1000}.{cuda % 1000 // 10}")  # fmt: skip
        count = pynvml.nvmlDeviceGetCount()
        total = pynvml.nvmlDeviceGetMemoryInfo(handle).total >> 20
        table.add("gpus", "GPUs", f"{count} x {pynvml.nvmlDeviceGetName(handle)}, {total} MiB")
        mode = "on" if pynvml.nvmlDeviceGetPersistenceMode(handle) else "off"
        table.add("persistence", "persistence mode", mode)
    except pynvml.NVMLError as error:
        table.add("driver", "driver, CUDA", f"NVML: {error}", None if options.stand_in else False)
    versions = "import sys, torch; print('Python', sys.version.split()[0], 'PyTorch', torch.__version__, torch.cuda.is_available())"
    torch = output(options.python, "-c", versions, timeout_sec=120).split("\n")[-1]
    table.add(
        "torch",
        "PyTorch, and whether it sees a GPU",
        torch,
        None if options.stand_in else torch.endswith("True"),
    )
    value, boots = _boots()
    table.add("throwaway", "throwaway-systemd boots", value, boots)
