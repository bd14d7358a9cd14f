"""What binds a process that runs: its cgroup, limits, processors, priority and privileges, from /proc."""

import contextlib
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

from recipectl.importers.draft import Draft
from recipectl.machine import processes

_DEFAULT_TASKS = 4096  # systemd gives each service 15 % of what the kernel takes, which is more
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
    if more := int(processes.status(process.pid).get("CapAmb", "0"), 16):
        draft.not_carried_over.append(
            f"its capabilities, `capsh --decode={more:x}`; see AmbientCapabilities= in systemd.exec(5)"
        )


def _cgroup_limits(pid: int) -> Iterator[tuple[str, str]]:
    """The limits of the process's own control group, as settings of systemd.resource-control(5)."""
    path = processes.cgroup(pid)
    folder = next((base / path.strip("/") for base in (Path("/sys/fs/cgroup"), Path("/sys/fs/cgroup/unified"))
                   if (base / path.strip("/") / "cgroup.procs").exists()), None)  # fmt: skip
    if path == "/" or folder is None:
        return
    files = {"memory.max": "MemoryMax", "memory.high": "MemoryHigh", "memory.swap.max": "MemorySwapMax",
             "cpuset.cpus": "AllowedCPUs", "cpuset.mems": "AllowedMemoryNodes"}  # fmt: skip
    for file, name in files.items():
        with contextlib.suppress(OSError):
            if (value := (folder / file).read_text().strip()) not in ("", "max"):
                yield name, value
    with contextlib.suppress(OSError, ValueError):
        if (tasks := int((folder / "pids.max").read_text())) < _DEFAULT_TASKS:
            yield "TasksMax", str(tasks)
    with contextlib.suppress(OSError, ValueError):
        quota, period = (folder / "cpu.max").read_text().split()
        if quota != "max":
            yield "CPUQuota", f"{round(100 * int(quota) / int(period))}%"


def _placement(pid: int) -> Iterator[tuple[str, str]]:
    """Affinity, NUMA policy and priority, where they are not those of every process."""
    processors = os.sched_getaffinity(pid)
    if processors != os.sched_getaffinity(1):
        yield "CPUAffinity", " ".join(map(str, sorted(processors)))
    with contextlib.suppress(OSError, IndexError):
        policy, _, nodes = Path(f"/proc/{pid}/numa_maps").read_text().split(maxsplit=2)[1].partition(":")
        names = {"bind": "bind", "interleave": "interleave", "prefer": "preferred", "local": "local"}
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
