"""What recipectl costs, beside something real in the same run: `make bench` (it needs the throwaway systemd)."""

import json
import os
import resource
import shutil
import subprocess
import sys
import time
from pathlib import Path

from recipectl import load, unit
from recipectl.hostfile import Host
from recipectl.runtime import Runtime, installed_version

ROOT = Path(__file__).parents[1]
RECIPES, UNITS = Path("/etc/recipectl/recipes"), Path("/etc/systemd/system")
RECIPECTL = (sys.executable, "-m", "recipectl")
BARE = f"#!{sys.executable} -IS\n"
SERVER = """
import http.server, sys, time
time.sleep(0.5)
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        if not first: first.append(1); open('/run/first-200', 'w').write(str(time.time()))
        self.send_response(200); self.end_headers()
    def log_message(self, *a): pass
first = []
server = http.server.HTTPServer(('127.0.0.1', int(sys.argv[sys.argv.index('--port') + 1])), Handler)
open('/run/listening', 'w').write(str(time.time()))
server.serve_forever()
"""


def wall(*words: str, times: int = 5) -> float:
    """The best wall time of a command, in seconds."""
    found = []
    for _ in range(times):
        begun = time.monotonic()
        subprocess.run(words, capture_output=True, check=False)
        found.append(time.monotonic() - begun)
    return min(found)


def cpu(*words: str, times: int = 5) -> float:
    """The best CPU time of a command and its children, in seconds."""
    found = []
    for _ in range(times):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run(words, capture_output=True, check=False)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        found.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    return min(found)


def line(what: str, ours: float, theirs: float, beside: str) -> None:
    ratio = f"{ours / theirs:6.2f} x" if theirs else ""
    print(f"{what:46} {ours * 1000:9.1f} ms   {beside:34} {theirs * 1000:9.1f} ms   {ratio}", flush=True)


def recipe(name: str, **fields: object) -> None:
    RECIPES.mkdir(parents=True, exist_ok=True)
    wanted = {"backend": "llamacpp", "binary": "/opt/bench-server", "model_path": "tiny", "port": 18400}
    (RECIPES / f"{name}.json").write_text(json.dumps(wanted | fields))


def start_and_stop() -> None:
    """`recipectl start` against `systemctl start` of the same unit, and how late readiness is noticed."""
    Path("/opt/bench-server").write_text(BARE + SERVER)
    Path("/opt/bench-server").chmod(0o755)
    recipe("bench")
    subprocess.run([*RECIPECTL, "apply", "bench"], check=True, capture_output=True)
    best: dict[str, float] = {}
    noticed = []
    for starter in (("systemctl", "start", "model-bench.service"), (*RECIPECTL, "start", "bench")) * 3:
        begun = time.monotonic()
        subprocess.run(starter, check=True)
        best[starter[0]] = min(best.get(starter[0], 1e9), time.monotonic() - begun)
        active = subprocess.run(
            ["systemctl", "show", "-P", "ActiveEnterTimestamp", "--timestamp=us+utc", "model-bench.service"],
            capture_output=True, text=True, check=True, env=os.environ | {"LC_ALL": "C"},
        ).stdout  # fmt: skip
        clock = active.split()[2]
        hours, minutes, seconds = clock.split(":")
        of_day = int(hours) * 3600 + int(minutes) * 60 + float(seconds)
        noticed.append(of_day - float(Path("/run/listening").read_text()) % 86400)
        subprocess.run(["systemctl", "stop", "model-bench.service"], check=True)
    systemctl, ours = best["systemctl"], best[RECIPECTL[0]]
    line("recipectl start", ours, systemctl, "systemctl start, same unit")
    print(f"{'  more than systemctl (at most 150 ms)':46} {(ours - systemctl) * 1000:9.1f} ms")
    print(f"{'  listening to active (at most 100 ms)':46} {max(noticed) * 1000:9.1f} ms")


def many() -> None:
    """status of 100 units against systemctl list-units, and 1,000 recipes compiled in one process."""
    for index in range(100):
        recipe(f"many{index}")
    subprocess.run(
        [*RECIPECTL, "apply", *(f"many{index}" for index in range(100))], check=True, capture_output=True
    )
    bare = wall(sys.executable, "-c", "")
    line("status of 100 units, less bare python", wall(*RECIPECTL, "status") - bare,
         wall("systemctl", "list-units", "--all", "--no-pager"), "systemctl list-units --all")  # fmt: skip
    begun = time.monotonic()
    host, site = Host(), unit.Site(("/usr/bin/python3", "/x"))
    runtime = Runtime("bench", ("/opt/bench-server",))
    for _ in range(10):
        for path in load.every((RECIPES,))[:100]:
            unit.render(unit.steps(load.load(path), str(path), runtime, host), site, host)
    spent = time.monotonic() - begun
    quadlet = next(
        (path for path in ("/usr/lib/podman/quadlet", "/usr/libexec/podman/quadlet") if Path(path).exists()),
        None,
    )
    beside = "quadlet is installed: see make bench" if quadlet else "quadlet is not installed"
    print(f"{'compile of 1,000 recipes, each':46} {spent:9.3f} ms   {beside}")
    for index in range(100):
        (RECIPES / f"many{index}.json").unlink()


def main() -> None:
    line(
        "CPU of recipectl --help (at most 150 ms)",
        cpu(*RECIPECTL, "--help"),
        cpu("systemctl", "--help"),
        "systemctl --help",
    )
    for index in range(10):
        recipe(f"ten{index}")
    Path("/opt/bench-server").write_text(BARE)
    Path("/opt/bench-server").chmod(0o755)
    line(
        "CPU of recipectl list, 10 recipes (150 ms)",
        cpu(*RECIPECTL, "list"),
        cpu("systemctl", "list-units"),
        "systemctl list-units",
    )
    for path in RECIPES.glob("ten*.json"):
        path.unlink()
    start_and_stop()
    many()
    python = ROOT / ".build/vllm/bin/python"
    if python.exists():
        begun = time.monotonic()
        for _ in range(100):
            installed_version(python, "vllm")
        disk = (time.monotonic() - begun) / 100
        asked = wall(str(python), "-c", "import vllm; print(vllm.__version__)", times=1)
        line("engine version from disk", disk, asked, "import vllm; vllm.__version__")
        print(f"{'  faster (at least 100 x)':46} {asked / disk:9.0f} x")
    shutil.rmtree(RECIPES)


if __name__ == "__main__":
    main()
