"""A user for each model, helpers without privilege: what one model can do to another, and to its host."""

import json
import os
import re
import signal
import subprocess
import time
from pathlib import Path

import pytest

from live.common import (
    IN_TMP,
    RECIPES,
    journal,
    main_pid,
    recipe,
    recipectl,
    script,
    show,
    systemctl,
    until,
    written,
)

pytestmark = pytest.mark.systemd
SECRETS = Path("/etc/recipectl/secrets")
TOKEN = "hf_thisisnottobeseen0123456789"

# An engine with something to hide: in its environment, memory, credentials, state, cache and shared memory.
VICTIM = """
import http.server, os, pathlib, sys
os.umask(0o022)
for folder in (os.environ["HOME"], os.environ["XDG_CACHE_HOME"], "/dev/shm"):
    pathlib.Path(folder, "private").write_text("private")
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self): self.send_response(200); self.end_headers()
    def log_message(self, *a): pass
http.server.HTTPServer(("127.0.0.1", int(sys.argv[sys.argv.index("--port") + 1])), Handler).serve_forever()
"""
# An engine that tries all of it on the other one, and writes what succeeded.
ATTACKER = """
import ctypes, http.server, json, os, pathlib, signal, socket, subprocess, sys
from pathlib import Path
def other():
    for path in Path("/proc").glob("[0-9]*"):
        try:
            if b"victim-engine" in (path / "cmdline").read_bytes(): return int(path.name)
        except OSError: pass
    return VICTIM_PID
VICTIM_PID = int(Path("/run/victim").read_text())
pid = other()
def ptrace(): assert ctypes.CDLL(None, use_errno=True).ptrace(16, pid, 0, 0) == 0
def reuse_port():
    with socket.socket() as s:
        s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        s.bind(("127.0.0.1", 18201))
def tell_systemd():
    assert os.environ.get("NOTIFY_SOCKET")
attacks = {
    "environ": lambda: Path(f"/proc/{pid}/environ").read_bytes(),
    "memory": lambda: open(f"/proc/{pid}/mem", "rb").close(),
    "credentials by /proc": lambda: [*Path(f"/proc/{pid}/root/run/credentials/model-victim.service").iterdir()][0].read_text(),
    "credentials": lambda: [*Path("/run/credentials/model-victim.service").iterdir()][0].read_text(),
    "ptrace": ptrace,
    "pidfd_getfd": lambda: os.close(ctypes.CDLL(None, use_errno=True).syscall(438, os.pidfd_open(pid), 0, 0)),
    "kill": lambda: os.kill(pid, 0),
    "stop": lambda: os.kill(pid, signal.SIGSTOP),
    "state": lambda: Path("/var/lib/models/victim/private").read_text(),
    "list state": lambda: os.listdir("/var/lib/models/victim"),
    "cache": lambda: Path("/var/cache/models/victim/private").read_text(),
    "list cache": lambda: os.listdir("/var/cache/models/victim"),
    "write cache": lambda: Path("/var/cache/models/victim/planted").write_text(""),
    "shared memory": lambda: Path("/dev/shm/private").write_text("mine"),
    "memory map": lambda: Path(f"/proc/{pid}/maps").read_text(),
    "its files": lambda: os.listdir(f"/proc/{pid}/fd"),
    "its folder": lambda: os.listdir(f"/proc/{pid}/cwd/"),
    "its port": reuse_port,
    "recipes": lambda: Path("/etc/recipectl/recipes/x").write_text(""),
    "helper": lambda: Path("/var/lib/recipectl/x").write_text(""),
    "start units": lambda: subprocess.run(["systemctl", "--no-ask-password", "stop", "model-victim.service"], check=True, capture_output=True),
    "tell systemd": tell_systemd,
}
succeeded = []
for name, attack in attacks.items():
    try:
        attack()
    except (OSError, AssertionError, IndexError, subprocess.CalledProcessError): continue
    succeeded.append(name)
Path(os.environ["HOME"], "succeeded").write_text(json.dumps(succeeded))
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self): self.send_response(200); self.end_headers()
    def log_message(self, *a): pass
http.server.HTTPServer(("127.0.0.1", int(sys.argv[sys.argv.index("--port") + 1])), Handler).serve_forever()
"""


def pair(hardening: str) -> None:
    SECRETS.mkdir(parents=True, exist_ok=True)
    for name, text in (("hf", TOKEN), ("key", f'VLLM_API_KEY="{TOKEN}"\n')):
        (SECRETS / name).write_text(text)
        (SECRETS / name).chmod(0o600)
    secrets = {"HF_TOKEN": str(SECRETS / "hf"), "VLLM_API_KEY": str(SECRETS / "key")}
    victim = script(Path("/opt/victim-engine"), VICTIM)
    recipe("victim", binary=victim, port=18201, secrets=secrets, hardening=hardening)
    recipe("attacker", binary=script(Path("/opt/attacker"), ATTACKER), port=18202, hardening=hardening)


@pytest.mark.parametrize("hardening", ["default", "strict", "off"])
def test_one_model_cannot_touch_another(hardening: str) -> None:
    pair(hardening)
    assert recipectl("apply").returncode == 0
    assert recipectl("start", "victim").returncode == 0
    Path("/run/victim").write_text(show("victim", "MainPID"))
    started = recipectl("start", "attacker")
    assert started.returncode == 0, started.stderr
    # SIGSTOP of another user's process is refused: the victim still answers.
    assert json.loads(Path("/var/lib/models/attacker/succeeded").read_text()) == []
    assert show("victim", "ActiveState") == "active"


def test_a_model_runs_as_its_own_user_in_the_group_of_shared_data() -> None:
    recipe("a", port=18201)
    recipe("Big.Name-of-a-model-that-does-not-fit", port=18202)
    recipectl("apply")
    subprocess.run(["getent", "group", "model-data"], check=True)
    assert recipectl("start", "a", "Big.Name-of-a-model-that-does-not-fit").returncode == 0
    ids = Path(f"/proc/{show('a', 'MainPID')}/status").read_text()
    names = subprocess.run(["id", "model-a"], capture_output=True, text=True, check=True).stdout
    uid = re.match(r"uid=(\d+)", names)
    assert uid
    assert f"Uid:\t{uid[1]}" in ids
    assert "(models)" not in names
    long = show("Big.Name-of-a-model-that-does-not-fit", "User")
    assert re.fullmatch(r"model-big-name-of-a-mo-[0-9a-f]{8}", long)
    assert recipectl("apply", "--check").returncode == 0


def test_helpers_and_companions_are_sandboxed() -> None:
    recipe("w", port=18201, watch={})
    recipe("d", port=18202, gpus=["0"], on_demand={})
    recipe("e", port=18203, gpus=["0"])
    recipe("f", port=18204, on_demand={})
    recipectl("apply")
    exposures = {}
    for unit in sorted(path.name for path in Path("/etc/systemd/system").glob("model-*.service")):
        text = subprocess.run(
            ["systemd-analyze", "security", "--no-pager", unit], capture_output=True, text=True, check=False
        ).stdout
        exposures[unit] = float(re.findall(r"Overall exposure level for \S+: ([0-9.]+)", text)[0])
    engines = {unit: level for unit, level in exposures.items() if unit.count("-") == 1}
    companions = {unit: level for unit, level in exposures.items() if unit not in engines}
    assert len(companions) == 6, companions  # watch, hung, two proxies, two keeps
    assert max(companions.values()) <= 2.5, companions
    assert max(engines.values()) <= (2.4 if IN_TMP else 2.3), engines


def test_no_unit_with_an_engines_environment_has_a_privileged_line() -> None:
    recipe("a", port=18201, watch={}, on_demand={}, gpus=["0"])
    recipe("b", port=18202, gpus=["0"])
    recipectl("apply")
    for path in Path("/etc/systemd/system").glob("model-*.service"):
        text = path.read_text()
        privileged = re.findall(r"^Exec\w+=[-@:]*[+!].*", text, re.M)
        assert "Environment=" not in text or not privileged, path


@pytest.mark.parametrize("planted", ["systemctl in the venv", "library", "python in the venv"])
def test_what_is_planted_beside_an_engine_runs_without_privilege(planted: str, tmp_path: Path) -> None:
    """The venv's owner, or a folder of LD_LIBRARY_PATH=, decides nothing that root runs."""
    bin_folder = Path("/opt/planted/bin")
    bin_folder.mkdir(parents=True, exist_ok=True)
    Path("/var/tmp/uids").unlink(missing_ok=True)
    Path("/var/tmp/uids").touch()
    Path("/var/tmp/uids").chmod(0o666)
    evil = "#!/bin/sh\nid -u >>/var/tmp/uids\n"
    for name in ("systemctl", "python3", "python", "sh"):
        (bin_folder / name).write_text(evil)
        (bin_folder / name).chmod(0o755)
    variables = {"PATH": f"{bin_folder}:/usr/bin:/bin"}
    if planted == "library":
        source = Path("/opt/planted/evil.c")
        source.write_text(
            "#include <fcntl.h>\n#include <stdio.h>\n#include <unistd.h>\n"
            "__attribute__((constructor)) static void go(void) {"
            ' FILE *f = fopen("/var/tmp/uids", "a"); if (f) { fprintf(f, "%d\\n", getuid()); fclose(f); } }\n'
        )
        subprocess.run(["gcc", "-shared", "-fPIC", "-o", "/opt/planted/libevil.so", str(source)], check=True)
        variables = {"LD_PRELOAD": "/opt/planted/libevil.so", "LD_LIBRARY_PATH": "/opt/planted"}
    service = {"PrivateTmp": "no", "ReadWritePaths": "/var/tmp"}
    recipe("a", port=18201, gpus=["5"], gpu_sharing="ordered", env_vars=variables, service=service, watch={})
    recipe("b", port=18202, gpus=["5"], gpu_sharing="ordered")
    recipectl("apply")
    started = recipectl("start", "a")
    assert started.returncode == 0, started.stderr
    recipectl("stop", "a")
    assert "0" not in Path("/var/tmp/uids").read_text().split()


def test_an_engine_cannot_tell_systemd_about_another_process() -> None:
    """It writes MAINPID= into its own environment, where a helper with root's rights once read it."""
    liar = """
import ctypes, http.server, os, socket, sys
address = os.environ.get("NOTIFY_SOCKET", "/run/systemd/notify")
sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
try:
    sock.sendto(b"MAINPID=1\\nSTATUS=x\\nEXTEND_TIMEOUT_USEC=600000000\\nRELOADING=1\\nSTOPPING=1", address)
except OSError: pass
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self): self.send_response(200); self.end_headers()
    def log_message(self, *a): pass
http.server.HTTPServer(("127.0.0.1", 18201), Handler).serve_forever()
"""
    lie = "x]\nMAINPID=1"
    recipe("a", port=18201, binary=script(Path("/opt/liar"), liar), env_vars={"RECIPECTL_DIGEST": lie})
    recipectl("apply")
    assert recipectl("start", "a").returncode == 0
    assert int(show("a", "MainPID")) > 1
    assert (show("a", "StatusText"), show("a", "ActiveState")) == ("", "active")
    assert recipectl("stop", "a").returncode == 0


def test_the_helper_survives_recipectls_own_installation(tmp_path: Path) -> None:
    recipe("a", port=18201, engine_version=">=0")
    recipectl("apply")
    helpers = [*Path("/var/lib/recipectl").glob("helper-*.pyz")]
    assert len(helpers) == 1
    status = helpers[0].stat()
    assert (status.st_uid, status.st_mode & 0o777) == (0, 0o644)
    text = Path("/etc/systemd/system/model-a.service").read_text()
    assert (
        "site-packages"
        not in "".join(re.findall(r"^Exec(?:StartPre|StartPost)=(?:.|\\\n)*", text, re.M)[:1]).split(
            "--folder"
        )[0]
    )
    hidden = ["mount", "--bind", "/opt", str(Path(__file__).parents[2] / "agent")]
    subprocess.run(hidden, check=True)
    try:
        assert systemctl("start", "model-a.service") == ""
        assert show("a", "ActiveState") == "active"
    finally:
        subprocess.run(["umount", hidden[-1]], check=True)


def test_an_older_helper_stays_while_a_unit_names_it() -> None:
    recipe("a", port=18201)
    recipe("b", port=18202)
    recipectl("apply")
    unit = Path("/etc/systemd/system/model-b.service")
    own = next(Path("/var/lib/recipectl").glob("helper-*.pyz"))
    older = own.with_name("helper-000000000000.pyz")
    older.write_bytes(own.read_bytes())
    unit.write_text(unit.read_text().replace(own.name, older.name))
    assert recipectl("apply", "a").returncode == 0
    assert older.exists()
    assert f"removed {older}" in recipectl("apply").stdout
    assert (older.exists(), own.exists()) == (False, True)


def test_caches_of_the_shared_user_keep_working() -> None:
    """A host of an earlier release: all models ran as `recipectl`, and shared a cache in HF_HOME."""
    subprocess.run(["useradd", "--system", "recipectl"], check=False, capture_output=True)
    own, shared = Path("/var/cache/models/a/huggingface"), Path("/srv/hf/hub")
    for folder in (own, shared):
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "weights").write_text("downloaded")
    subprocess.run(["chown", "-R", "recipectl:recipectl", "/var/cache/models/a", "/srv/hf"], check=True)
    subprocess.run(["chmod", "-R", "o-rwx,g-w", "/srv/hf"], check=True)
    reads = """
import os, pathlib
print(pathlib.Path(os.environ["XDG_CACHE_HOME"], "huggingface/weights").read_text(), flush=True)
pathlib.Path(os.environ["XDG_CACHE_HOME"], "huggingface/more").write_text("new")
print(pathlib.Path("/srv/hf/hub/weights").read_text(), flush=True)
pathlib.Path(os.environ["HOME"], "done").touch()
raise SystemExit(2)
"""
    recipe("a", port=18201, binary=script(Path("/opt/reads"), reads), env_vars={"HF_HOME": "/srv/hf"})
    recipectl("apply"), recipectl("start", "a")
    assert Path("/var/lib/models/a/done").exists(), recipectl("logs", "a", "--no-pager").stdout
    assert own.joinpath("weights").owner() == "model-a"
    assert shared.joinpath("weights").owner() == "recipectl"


def test_shared_memory_of_a_person_survives_a_stop() -> None:
    subprocess.run(["useradd", "--create-home", "alice"], check=False, capture_output=True)
    mine = Path("/dev/shm/alice-notes")
    mine.write_text("mine")
    os.chown(
        mine,
        int(subprocess.run(["id", "-u", "alice"], capture_output=True, text=True, check=True).stdout),
        -1,
    )
    recipe("a", port=18201, user="alice")
    recipectl("apply"), recipectl("start", "a"), recipectl("stop", "a")
    assert mine.read_text() == "mine"
    assert (show("a", "RemoveIPC"), show("a", "User")) == ("no", "alice")
    mine.unlink()


def test_a_watch_that_breaks_kills_nothing_and_comes_back() -> None:
    recipe(
        "a", port=18201, watch={"every": "1s", "failures": 2, "timeout": "30s"}, service={"CPUWeight": "10"}
    )
    recipectl("apply"), recipectl("start", "a")
    pid = show("a", "MainPID")
    watch = "model-a-watch.service"
    for number in (signal.SIGKILL, signal.SIGTERM):
        before = systemctl("show", "-P", "MainPID", watch)
        os.kill(int(before), number)
        end = time.monotonic() + 30
        while systemctl("show", "-P", "MainPID", watch) in ("0", before) and time.monotonic() < end:
            time.sleep(0.2)
        assert systemctl("show", "-P", "MainPID", watch) not in ("0", before)
    assert (show("a", "MainPID"), show("a", "ActiveState")) == (pid, "active")
    recipectl("stop", "a")
    assert systemctl("show", "-P", "ActiveState", watch) == "inactive"


def test_a_sigkill_that_nobody_asked_for_is_a_failure(tmp_path: Path) -> None:
    RECIPES.mkdir(parents=True, exist_ok=True)
    Path("/etc/recipectl/host.yaml").write_text("on_failure: alert@%n.service\n")
    alert = Path("/run/systemd/system/alert@.service")
    alert.write_text("[Service]\nType=oneshot\nExecStart=/bin/sh -c 'echo %i >>/run/alerts'\n")
    Path("/run/alerts").unlink(missing_ok=True)
    recipe("a", port=18201, served_model_name="a", on_demand={"idle": "1min"})
    recipectl("apply"), recipectl("start", "a")
    until("a-keep", "ActiveState", "active")  # before, the proxy may still be starting it
    os.kill(main_pid("a"), signal.SIGKILL)
    until("a", "ActiveState", "failed")
    assert show("a", "Result") == "signal"
    assert written(Path("/run/alerts")) == "model-a.service\n"
    alert.unlink()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_helper_that_somebody_kills_is_no_readiness(number: int) -> None:
    slow = "import time; time.sleep(1000)"
    recipe("a", port=18201, binary=script(Path("/opt/sleeps"), slow), service={"RestartSec": "1h"})
    recipectl("apply")
    systemctl("start", "--no-block", "model-a.service")
    until("a", "SubState", "start-post")
    time.sleep(0.5)
    helper = show("a", "ControlPID")
    os.kill(int(helper), number)
    time.sleep(1)
    assert show("a", "ActiveState") != "active"
    recipectl("stop", "a")


def test_a_load_is_stopped_as_service_says() -> None:
    """Its own KillSignal=, and no signal of the helper before its own TimeoutStopSec=."""
    engine = """
import os, pathlib, signal, socket, sys, time
log = pathlib.Path(os.environ["HOME"], "signals")
def note(number, _): log.open("a").write(f"{number} {time.monotonic()}\\n")
for number in (signal.SIGTERM, signal.SIGINT): signal.signal(number, note)
server = socket.create_server(("127.0.0.1", 18201))
server.accept()[0].close()  # the helper, which is in its loop
pathlib.Path(os.environ["HOME"], "asked").touch()
while True: time.sleep(0.1)
"""
    service = {"KillSignal": "SIGINT", "TimeoutStopSec": "6"}
    recipe("a", port=18201, binary=script(Path("/opt/noting"), engine), service=service)
    recipectl("apply")
    systemctl("start", "--no-block", "model-a.service")
    asked, end = Path("/var/lib/models/a/asked"), time.monotonic() + 120
    while not asked.exists() and time.monotonic() < end:
        time.sleep(0.1)
    begin = time.monotonic()
    recipectl("stop", "a")
    assert time.monotonic() - begin > 5
    numbers = {line.split()[0] for line in Path("/var/lib/models/a/signals").read_text().splitlines()}
    assert numbers == {"2"}


def test_a_stranger_of_another_user_on_the_port_is_not_the_engine() -> None:
    """Both bind with SO_REUSEPORT or by timing: the engine listens nowhere, a stranger answers for it."""
    late = "import time; time.sleep(1000)"
    recipe("a", port=18201, binary=script(Path("/opt/sleeps"), late), service={"RestartSec": "1h"})
    recipectl("apply")
    systemctl("start", "--no-block", "model-a.service")
    until("a", "SubState", "start-post")
    answers = script(Path("/opt/answers"), STRANGER)
    subprocess.run(["systemd-run", "-q", "--unit=stranger", "-p", "User=nobody", answers], check=True)
    end = time.monotonic() + 120
    while show("a", "SubState") == "start-post" and time.monotonic() < end:
        time.sleep(0.1)
    journal("model-a.service")  # all of it is there now
    log = recipectl("logs", "a", "--no-pager").stdout
    systemctl("stop", "stranger.service")
    assert "is answered by a process of user 65534, not by this engine" in log
    assert show("a", "ActiveState") != "active"
    recipectl("stop", "a")


STRANGER = """
import http.server
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self): self.send_response(200); self.end_headers()
http.server.HTTPServer(("127.0.0.1", 18201), Handler).serve_forever()
"""


def test_an_engine_that_was_started_by_another_unit_is_known_after_reloads_and_restarts() -> None:
    recipe("a", port=18201, autostart=True, service={"RestartSec": "100ms"})
    recipectl("apply"), recipectl("wait", "a")
    recipe("a", port=18201, autostart=True, service={"RestartSec": "100ms"}, env_vars={"NEW": "1"})
    assert recipectl("apply", "--no-restart").returncode == 0
    systemctl("daemon-reload"), systemctl("daemon-reexec")
    assert json.loads(recipectl("list", "--json").stdout)[0]["differs"] == "restart is due"
    os.kill(main_pid("a"), signal.SIGKILL)
    until("a", "NRestarts", "1")
    until("a", "ActiveState", "active")
    assert json.loads(recipectl("list", "--json").stdout)[0]["differs"] == ""
    assert recipectl("apply", "--check").returncode == 0


def test_a_model_has_just_the_capabilities_that_its_recipe_names() -> None:
    recipe("m", port=18201, service={"AmbientCapabilities": "CAP_IPC_LOCK"})
    assert recipectl("apply").returncode == 0
    recipectl("start", "m")
    assert recipectl("wait", "m").returncode == 0
    status = Path(f"/proc/{main_pid('m')}/status").read_text()
    sets = {int(value, 16) for value in re.findall(r"^Cap(?:Amb|Bnd|Eff):\t(\w+)$", status, re.M)}
    assert sets == {1 << 14}  # CAP_IPC_LOCK (capabilities(7))
