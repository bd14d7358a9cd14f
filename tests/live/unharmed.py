"""`unharmed.py PYTHON [ROOT]`: run the live tests, and fail if the machine is not as it was before.

ROOT is that of another Debian release, with the checkout in its /srv/recipectl.
"""

import contextlib
import os
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[2]


def machine() -> dict[str, object]:
    """What must stay as it was: mounts, systemd processes, our cgroups, unit files, users, the checkout."""
    status = ["git", "-c", "safe.directory=*", "-C", str(ROOT), "status", "--porcelain"]
    names = []
    for path in Path("/proc").glob("[0-9]*/comm"):
        try:
            names.append(path.read_text())
        except OSError:
            continue  # gone meanwhile
    return {
        "mounts": Path("/proc/self/mountinfo").read_text(),
        "cgroups": sorted(str(path) for path in Path("/sys/fs/cgroup").rglob("throwaway-systemd.*")),
        "units": sorted(str(path) for path in Path("/etc/systemd/system").rglob("*")),
        "users": Path("/etc/passwd").read_text(),
        "systemd processes": names.count("systemd\n"),
        "git status": subprocess.run(status, capture_output=True, check=False).stdout,
    }


# Four systems at once: most tests wait for an engine. The long ones first, each to the shortest run.
SHARDS = (
    ("storm", "gateway", "runtimes", "bus"),
    ("convergence", "supervision", "silence", "quoting", "requests", "access", "running", "hostile_engine"),
    ("gpus", "watch", "queue", "user", "drift"),
    ("ansible", "package", "conventions", "upgrade", "identity", "trust", "secrets", "venv"),
)


def live(python: str, *root: str) -> int:
    """Run the shards side by side, each in a throwaway systemd of its own; print them one after the other."""
    there = {path.stem.removeprefix("test_") for path in (ROOT / "tests/live").glob("test_*.py")}
    named = {name for shard in SHARDS for name in shard} | {
        "throwaway",
        "guide",
        "gpu_proof",
        "reboots",
        "nodes",
        "fleet",
        "rolling",
        "vllm_nodes",
        "vllm_upgrade",
        "vllm",
        "sglang",
    }
    if there != named:
        print(f"no shard runs {', '.join(sorted(there ^ named))}; correct SHARDS", file=sys.stderr)
        return 1
    runs = []
    with contextlib.ExitStack() as files_open:
        outputs = [files_open.enter_context(tempfile.TemporaryFile("w+")) for _ in SHARDS[1:]]
        for shard, output in zip(SHARDS, (None, *outputs), strict=True):
            files = [f"tests/live/test_{name}.py" for name in shard]
            words = ["-q", "-p", "no:cacheprovider", "-m", "systemd and not upgrade", "--durations=5", *files]
            other = [arg for path in root for arg in ("--root", path)]
            command = [str(ROOT / "packaging/throwaway-systemd"), *other, python, "-m", "pytest", *words]
            runs.append(subprocess.Popen(command, cwd=ROOT, stdout=output, stderr=output))
        statuses = [run.wait() for run in runs]
        for output in outputs:
            output.seek(0)
            print(output.read(), flush=True)
    return max(statuses)


def main() -> int:
    with tempfile.TemporaryDirectory() as folder, tempfile.NamedTemporaryFile(dir="/etc") as in_etc:
        kept = (Path(folder, "kept"), Path(in_etc.name))
        for path in kept:
            path.write_text("mine")
        before = machine()
        status = live(*sys.argv[1:])
        after = machine()
        harmed = [what for what in before if before[what] != after[what]]
        harmed += [str(path) for path in kept if not path.exists() or path.read_text() != "mine"]
    if harmed:
        print(f"the live run has changed this machine: {', '.join(harmed)}", file=sys.stderr)
    return status or bool(harmed)


if __name__ == "__main__":
    if os.geteuid() != 0:
        sys.exit("unharmed.py: run it as root (sudo)")
    sys.exit(main())
