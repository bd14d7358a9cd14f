"""`unharmed.py COMMAND…`: run the live tests, and fail if the machine they ran on is not as it was before."""

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


def main() -> int:
    with tempfile.TemporaryDirectory() as folder, tempfile.NamedTemporaryFile(dir="/etc") as in_etc:
        kept = (Path(folder, "kept"), Path(in_etc.name))
        for path in kept:
            path.write_text("mine")
        before = machine()
        status = subprocess.run(sys.argv[1:], check=False).returncode
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
