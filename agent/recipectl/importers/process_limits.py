"""What binds a process that runs: its cgroup, limits, processors, priority and privileges.

They come from /proc, /sys/fs/cgroup and `ionice`.
"""

import contextlib
import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

from recipectl.importers.draft import Draft
from recipectl.machine import processes

_DEFAULT_TASKS = 4096  # systemd gives each service 15 % of what the kernel takes, which is more
_FILES_OF_V1 = ("memory.limit_in_bytes", "cpu.cfs_quota_us")  # -1 is no quota
_UNLIMITED = 2**62  # bytes: the kernel shows the largest number of pages
_DEFAULT_NOFILE = 1048576  # what a compiled unit may open at most
# Row of /proc/PID/limits -> the setting, and the soft limit that services have by default.
_LIMITS = {
    "Max cpu time": ("LimitCPU", "unlimited"), "Max file size": ("LimitFSIZE", "unlimited"),
    "Max data size": ("LimitDATA", "unlimited"), "Max stack size": ("LimitSTACK", "8388608"),
    "Max core file size": ("LimitCORE", "0"), "Max address space": ("LimitAS", "unlimited"),
    "Max msgqueue size": ("LimitMSGQUEUE", "819200"), "Max realtime priority": ("LimitRTPRIO", "0"),
}  # fmt: skip


def set_service(draft: Draft, name: str, value: str) -> None:
    """Set one setting of `service:`."""
    draft.set("service", {**draft.fields.get("service", {}), name: value})


def set_limits(draft: Draft, process: processes.Process) -> None:
    """Set what binds the process: its cgroup, its processors and memory nodes, its priority."""
    for name, value in [setting for read in _READERS for setting in read(process.pid)]:
        set_service(draft, name, value)
    draft.lose_each(_unusual(process.pid))
    if more := int(processes.status(process.pid).get("CapAmb", "0"), 16):
        draft.lose(
            f"its capabilities, `capsh --decode={more:x}`; see AmbientCapabilities= in systemd.exec(5)"
        )


def _cgroup_folder(pid: int) -> Path | None:
    """The folder of the process's own control group; None for the root, and where none is mounted."""
    path = processes.cgroup(pid).strip("/")
    bases = (Path("/sys/fs/cgroup"), Path("/sys/fs/cgroup/unified"))
    return next((base / path for base in bases if path and (base / path / "cgroup.procs").exists()), None)


def _cgroup_limits(pid: int) -> Iterator[tuple[str, str]]:
    """The limits of the process's own control group, as settings of systemd.resource-control(5)."""
    folder = _cgroup_folder(pid)
    if folder is None:
        return
    files = {"memory.max": "MemoryMax", "memory.high": "MemoryHigh", "memory.swap.max": "MemorySwapMax",
             "cpuset.cpus": "AllowedCPUs", "cpuset.mems": "AllowedMemoryNodes", "memory.low": "MemoryLow",
             "memory.min": "MemoryMin", "cpu.weight": "CPUWeight", "io.weight": "IOWeight"}  # fmt: skip
    for file, name in files.items():
        with contextlib.suppress(OSError):
            value = (folder / file).read_text().strip().removeprefix("default ")
            if value not in ("", "max", "0") and (file.split(".")[1] != "weight" or value != "100"):
                yield name, value
    with contextlib.suppress(OSError, ValueError):
        if (tasks := int((folder / "pids.max").read_text())) < _DEFAULT_TASKS:
            yield "TasksMax", str(tasks)
    with contextlib.suppress(OSError, ValueError):
        quota, period = (folder / "cpu.max").read_text().split()
        if quota != "max":
            yield "CPUQuota", f"{round(100 * int(quota) / int(period))}%"


def _unusual(pid: int) -> Iterator[str]:
    """What no setting of `service:` is made from."""
    with contextlib.suppress(OSError, ValueError):  # root alone may read it
        if personality := int(Path(f"/proc/{pid}/personality").read_text(), 16):
            yield f"its personality is {personality:#x} (setarch(8)); see Personality= in systemd.exec(5)"
    groups = [line.split(":") for line in Path(f"/proc/{pid}/cgroup").read_text().splitlines()]
    for _, names, path in groups:
        for file in _FILES_OF_V1:
            with contextlib.suppress(OSError, ValueError):
                limit = int(Path(f"/sys/fs/cgroup/{names}{path}", file).read_text())
                if 0 <= limit < _UNLIMITED:
                    yield f"{file} of {path} (cgroup v1) is {limit}, which bound it; see `service:`"
    folder = _cgroup_folder(pid)
    for parent in folder.parents if folder else ():
        for file in ("memory.max", "memory.high", "cpu.max"):
            with contextlib.suppress(OSError):
                value = (parent / file).read_text().strip()
                if not value.startswith("max"):
                    yield f"{file} of {parent.name} is {value}, which bound it, too; see `service:`"


def _placement(pid: int) -> Iterator[tuple[str, str]]:
    """Affinity, NUMA policy and priority, where they are not those of every process."""
    processors = os.sched_getaffinity(pid)
    if processors != os.sched_getaffinity(1):
        yield "CPUAffinity", " ".join(map(str, sorted(processors)))
    with contextlib.suppress(OSError, IndexError):
        # `prefer (many):0-1` and `weighted interleave:0-1` have a blank (mempolicy.c, mpol_to_str).
        text = Path(f"/proc/{pid}/numa_maps").read_text().split("\n", 1)[0]
        written = re.match(r"\S+ (prefer \(many\)|weighted interleave|\w+)(?:=\w+)?(?::(\S+))?", text)
        policy, nodes = written.groups() if written else ("", None)
        names = {"bind": "bind", "interleave": "interleave", "prefer": "preferred", "local": "local"}
        names |= {"prefer (many)": "preferred", "weighted interleave": "interleave"}
        if policy in names:
            yield "NUMAPolicy", names[policy]
            if nodes:
                yield "NUMAMask", nodes
    if nice := os.getpriority(os.PRIO_PROCESS, pid):
        yield "Nice", str(nice)
    with contextlib.suppress(OSError):
        if (score := Path(f"/proc/{pid}/oom_score_adj").read_text().strip()) != "0":
            yield "OOMScoreAdjust", score


def _limits(pid: int) -> Iterator[tuple[str, str]]:
    """The soft limits that are not those of every service (systemd.exec(5), setrlimit(2))."""
    own, first = _soft_limits(pid), _soft_limits(1)
    for row, (name, default) in _LIMITS.items():
        if (value := own.get(row, default)) != default:
            yield name, "infinity" if value == "unlimited" else value
    files, tasks = own.get("Max open files", "0"), own.get("Max processes", "unlimited")
    if files == "unlimited" or int(files) > _DEFAULT_NOFILE:
        yield "LimitNOFILE", "infinity" if files == "unlimited" else files
    if tasks not in ("unlimited", first.get("Max processes")):
        yield "LimitNPROC", tasks


def _soft_limits(pid: int) -> dict[str, str]:
    """Row of /proc/PID/limits -> its soft limit."""
    lines = Path(f"/proc/{pid}/limits").read_text().splitlines()[1:]
    return {line[:26].strip(): line[26:].split()[0] for line in lines}


def _disk_priority(pid: int) -> Iterator[tuple[str, str]]:
    """What ionice(1) says, where that is not what follows from the niceness."""
    with contextlib.suppress(OSError):
        words = ["/usr/bin/ionice", "-p", str(pid)]
        answer = subprocess.run(words, capture_output=True, text=True, check=False, env={})  # noqa: S603
        scheduling, _, priority = answer.stdout.strip().partition(": prio ")
        if scheduling in ("idle", "realtime", "best-effort"):
            yield "IOSchedulingClass", scheduling
            if priority:
                yield "IOSchedulingPriority", priority


def _scheduling(pid: int) -> Iterator[tuple[str, str]]:
    """The scheduler and the umask, where they are not those of every process."""
    policies = {os.SCHED_BATCH: "batch", os.SCHED_IDLE: "idle", os.SCHED_FIFO: "fifo", os.SCHED_RR: "rr"}
    if policy_name := policies.get(os.sched_getscheduler(pid)):
        yield "CPUSchedulingPolicy", policy_name
        if priority := os.sched_getparam(pid).sched_priority:
            yield "CPUSchedulingPriority", str(priority)
    if (umask := processes.status(pid).get("Umask", "0022")) != "0022":
        yield "UMask", umask


_READERS = (_cgroup_limits, _placement, _limits, _disk_priority, _scheduling)
