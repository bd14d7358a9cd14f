"""What root reads, and what it prints: files that others can change, hostile engines and hostile venvs."""

import fcntl
import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

import recipectl as recipectl_package
from live.common import RECIPES, recipe, recipectl, script, show, systemctl
from recipectl.machine import processes, sockets

pytestmark = pytest.mark.systemd
ESCAPES = "\x1b]0;owned\x07\x1b[2J\r\x9b31m"


@pytest.fixture(scope="module", autouse=True)
def alice() -> None:
    subprocess.run(["useradd", "--create-home", "alice"], check=False, capture_output=True)


def owned_by(user: str, path: Path) -> None:
    subprocess.run(["chown", f"{user}:", str(path)], check=True)


@pytest.mark.parametrize("how", ["the file", "its mode", "its folder", "a drop-in", "a link"])
def test_a_recipe_that_somebody_else_can_change_is_refused_with_path_and_mode(
    how: str, tmp_path: Path
) -> None:
    recipe("good", port=18201)
    recipe("bad", port=18202)
    bad = RECIPES / "bad.json"
    if how == "the file":
        owned_by("alice", bad)
        fault = f"user alice can change {bad} (mode 0644)"
    elif how == "its mode":
        bad.chmod(0o666)
        fault = f"everybody can change {bad} (mode 0666)"
    elif how == "its folder":
        elsewhere = Path("/opt/open")
        elsewhere.mkdir(exist_ok=True)
        elsewhere.chmod(0o777)
        bad.rename(elsewhere / "target")
        bad.symlink_to(elsewhere / "target")
        fault = f"everybody can change {elsewhere} (mode 0777)"
    elif how == "a drop-in":
        folder = RECIPES / "bad.yaml.d"
        folder.mkdir()
        (folder / "x.yaml").write_text("user: root\n")
        (folder / "x.yaml").chmod(0o646)
        fault = f"everybody can change {folder}/x.yaml (mode 0646)"
    else:
        target = Path("/home/alice/bad.json")
        bad.rename(target)
        bad.symlink_to(target)
        fault = "user alice can change /home/alice"
    applied = recipectl("apply")
    assert applied.returncode == 2
    assert fault in applied.stderr, applied.stderr
    units = Path("/etc/systemd/system")
    assert ((units / "model-good.service").exists(), (units / "model-bad.service").exists()) == (True, False)


def test_a_host_file_that_somebody_else_can_change_is_refused() -> None:
    host = Path("/etc/recipectl/host.yaml")
    host.write_text("user: root\n")
    host.chmod(0o666)
    recipe("a", port=18201)
    applied = recipectl("apply")
    assert (applied.returncode, f"everybody can change {host} (mode 0666)" in applied.stderr) == (2, True)


def test_a_recipe_from_a_home_is_copied_and_what_happens_there_later_counts_for_nothing() -> None:
    recipe("x", port=18201)
    home = Path("/home/alice/x.yaml")
    home.write_text((RECIPES / "x.json").read_text())
    (RECIPES / "x.json").unlink()
    owned_by("alice", home)
    applied = recipectl("apply", str(home))
    assert applied.returncode == 0, applied.stderr
    assert f"copied {home} to {RECIPES}/x.yaml" in applied.stdout
    assert (RECIPES / "x.yaml").stat().st_uid == 0
    home.write_text(home.read_text().replace("18201", "18202"))
    assert recipectl("apply", "--check").returncode == 0
    owned_by("root", home)
    home.parent.chmod(0o755), owned_by("root", home.parent)
    assert recipectl("apply", "--check", str(home)).returncode == 3
    owned_by("alice", home.parent), owned_by("alice", home)
    again = recipectl("apply", str(home))  # its own copy is replaced
    assert (again.returncode, "18202" in (RECIPES / "x.yaml").read_text()) == (0, True), again.stderr
    home.unlink()
    os.mkfifo(home)
    assert recipectl("apply", "--check").returncode == 0
    other = Path("/opt/x.yaml")
    other.write_text((RECIPES / "x.yaml").read_text())
    refused = recipectl("apply", str(other))
    assert (refused.returncode, "which is not a copy of it; rename it" in refused.stderr) == (2, True)


def test_a_unit_whose_recipe_lies_elsewhere_is_told_and_left_alone() -> None:
    recipe("a", port=18201)
    recipectl("apply"), recipectl("start", "a")
    unit = Path("/etc/systemd/system/model-a.service")
    (RECIPES / "a.json").rename("/opt/a.json")
    unit.write_text(unit.read_text().replace(f"{RECIPES}/a.json", "/opt/a.json"))
    applied = recipectl("apply")
    assert applied.returncode == 2
    assert "model-a.service was written from /opt/a.json, outside the recipe folders" in applied.stderr
    assert show("a", "ActiveState") == "active"
    assert "recipe is elsewhere" in recipectl("list").stdout
    assert recipectl("apply", "/opt/a.json").returncode == 0
    assert recipectl("apply", "--check").returncode == 0


HOSTILE = {
    "a pipe": lambda path: os.mkfifo(path),
    "an endless file": lambda path: path.symlink_to("/dev/zero"),
    "a large file": lambda path: path.write_bytes(b"#" * (1024 * 1024 + 1)),
    "Latin-1": lambda path: path.write_bytes(b"model_path: caf\xe9\n"),
    "a long number": lambda path: path.write_text(f"model_path: m\nmax_num_seqs: {'9' * 320}\n"),
    "many brackets": lambda path: path.write_text("a: " + "[" * 100_000),
    "aliases of aliases": lambda path: path.write_text(
        "a: &a [x, x, x, x, x, x, x, x, x]\n"
        + "".join(f"{b}: &{b} [{', '.join(f'*{a}' for _ in range(9))}]\n" for a, b in zip("abcdefgh", "bcdefghi", strict=True))
    ),
    "a folder": lambda path: path.mkdir(),
    "a link to nothing": lambda path: path.symlink_to("/nowhere"),
    "a link to a neighbour": lambda path: path.symlink_to("good.json"),
}  # fmt: skip


@pytest.mark.parametrize("kind", HOSTILE)
def test_one_hostile_file_stops_no_other(kind: str) -> None:
    recipe("good", port=18201)
    bad = RECIPES / "bad.yaml"
    HOSTILE[kind](bad)
    applied = recipectl("apply", timeout_sec=60)
    assert (applied.returncode, "Traceback" in applied.stderr) == (2, False), applied.stderr
    assert "bad.yaml" in applied.stderr
    assert Path("/etc/systemd/system/model-good.service").exists()
    subprocess.run(["rm", "-rf", str(bad)], check=True)


def test_a_venv_that_is_hostile_stops_nobody() -> None:
    for name, make in {
        "latin": lambda path: path.write_bytes(b"home = /usr/bin\nversion = 3.11\n# caf\xe9\n"),
        "pipe": lambda path: os.mkfifo(path),
        "zero": lambda path: path.symlink_to("/dev/zero"),
    }.items():
        venv = Path(f"/opt/hostile/{name}")
        (venv / "bin").mkdir(parents=True, exist_ok=True)
        python = venv / "bin/python"
        python.unlink(missing_ok=True), (venv / "pyvenv.cfg").unlink(missing_ok=True)
        python.symlink_to(sys.executable)
        make(venv / "pyvenv.cfg")
        (RECIPES / f"{name}.json").write_text(
            json.dumps({"python_path": str(python), "model_path": "org/m", "python_version": ">=3"})
        )
    recipe("good", port=18201)
    applied = recipectl("apply", timeout_sec=20)
    assert "Traceback" not in applied.stderr
    assert Path("/etc/systemd/system/model-good.service").exists()


def test_a_lock_of_wrong_types_is_told() -> None:
    recipe("a", port=18201)
    recipectl("lock", "a")
    lock = RECIPES / "a.lock"
    for text in (
        lock.read_text().replace('"python_version": "', '"python_version": 3, "x": "'),
        "[" * 100_000,
        "{}",
    ):
        lock.write_text(text)
        applied = recipectl("apply")
        assert (applied.returncode, "cannot be read as a lock" in applied.stderr) == (2, True), applied.stderr


# It answers with what a terminal would obey, endlessly, slowly, or from somewhere else.
LIAR = """
import http.server, os, sys, time
how = os.environ["HOW"]
escapes = "\\x1b]0;owned\\x07\\x1b[2J"
print(f"log {escapes} line", flush=True)
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        if self.path == "/health":
            self.send_response(200); self.end_headers(); return
        if how == "redirect":
            self.send_response(302); self.send_header("Location", "http://127.0.0.1:18299/"); self.end_headers(); return
        self.send_response(200); self.end_headers()
        if how == "endless":
            while True: self.wfile.write(b"x" * 65536)
        if how == "slow":
            while True: self.wfile.write(b" "); time.sleep(0.2)
        if how == "deep": self.wfile.write(b"[" * 60000)
        if how == "escapes":
            self.wfile.write(('{"build_info": "1.0' + escapes.replace("\\x1b", "\\\\u001b").replace("\\x07", "\\\\u0007")
                              + '", "data": [{"id": "\\\\u001b[2J"}]}').encode())
    def log_message(self, *a): pass
http.server.ThreadingHTTPServer(("127.0.0.1", 18201), Handler).serve_forever()
"""


@pytest.mark.parametrize("how", ["escapes", "endless", "slow", "deep", "redirect"])
def test_an_engines_answer_is_bounded_and_printed_as_text(how: str) -> None:
    recipe("a", port=18201, binary=script(Path("/opt/liar"), LIAR), env_vars={"HOW": how})
    recipectl("apply")
    assert recipectl("start", "a").returncode == 0
    outputs = [
        recipectl("versions"),
        recipectl("doctor"),
        recipectl("versions", "--json"),
        recipectl("status", "a"),
    ]
    for output in outputs:
        assert not {"\x1b", "\x07", "\x9b"} & {*output.stdout, *output.stderr}
        assert "Traceback" not in output.stderr
    if how == "escapes":
        assert "\\x1b[2J" in outputs[0].stdout


def test_log_lines_are_printed_as_text() -> None:
    code = """import socket, sys
text = b"core dumped\\nframe 1\\nframe 2"
journal = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
journal.sendto(b"MESSAGE\\n" + len(text).to_bytes(8, "little") + text + b"\\n", "/run/systemd/journal/socket")
print('\\x1b]0;owned\\x07 bad', flush=True); sys.exit(2)
"""
    recipe("a", port=18201, binary=script(Path("/opt/failing"), code))
    recipectl("apply")
    failed = recipectl("start", "a")
    assert failed.returncode == 1
    assert "\x1b" not in failed.stderr
    assert "bad" in failed.stderr
    assert "core dumped\n  frame 1\n  frame 2\n" in failed.stderr


STRANGER = """
import http.server, os, pathlib
own = pathlib.Path("/sys/fs/cgroup" + open("/proc/self/cgroup").read().split("::")[1].strip())
for name in ("od", "a"):
    (own / f"model-{name}.service").mkdir()
(own / "user@0.service").mkdir()
(own / "user@0.service/model-b.service").mkdir()
if os.fork():
    (own / "model-a.service/cgroup.procs").write_text(str(os.getpid()))
else:
    (own / "model-od.service/cgroup.procs").write_text(str(os.getpid()))
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        os.write(1, repr(dict(self.headers)).encode())
        self.send_response(200)
        self.end_headers()
address = ("127.0.0.1", 8201 if "-od." in open("/proc/self/cgroup").read() else 8301)
http.server.HTTPServer(address, Handler).serve_forever()
"""


def test_a_group_with_the_name_of_a_model_in_a_strangers_unit_is_not_the_models() -> None:
    """Any user's own manager makes such groups; requests went to whoever had one and the engine's port."""
    recipe("od", port=18201, on_demand={"idle": "10min"})
    recipe("a", port=18202)
    recipe("b", port=18203, conflicts=["a"])
    recipectl("apply")
    words = [
        "systemd-run",
        "-q",
        "--unit=stranger",
        "-pDelegate=yes",
        "-pUser=alice",
        "-pStandardOutput=file:/var/tmp/got",
    ]
    subprocess.run([*words, "/usr/bin/python3", "-c", STRANGER], check=True)
    try:
        while not sockets.holder(8201, "127.0.0.1"):
            time.sleep(0.1)
        asked = subprocess.run(
            ["curl", "-s", "-H", "Authorization: Bearer secret", "http://127.0.0.1:18201/"],
            check=False, capture_output=True, timeout=100,
        )  # fmt: skip
        assert (asked.returncode != 0, asked.stdout, Path("/var/tmp/got").read_text()) == (True, b"", "")
        holder = sockets.holder(8201, "127.0.0.1")
        assert holder is not None
        assert holder.unit == "stranger.service"
        group = Path("/sys/fs/cgroup/system.slice/stranger.service/user@0.service/model-b.service")
        with subprocess.Popen(["sleep", "60"]) as sleeper:
            (group / "cgroup.procs").write_text(str(sleeper.pid))
            assert processes.unit_of(sleeper.pid) == "stranger.service"
            sleeper.kill()
        assert recipectl("start", "b").returncode == 0
    finally:
        subprocess.run(["systemctl", "stop", "stranger"], check=True)


def test_check_runs_an_interpreter_as_the_units_user_without_a_terminal() -> None:
    """A venv's interpreter once could type into root's shell (TIOCSTI)."""
    venv = Path("/opt/typing")
    (venv / "bin").mkdir(parents=True, exist_ok=True)
    (venv / "lib/python3.11/site-packages/vllm-0.32.0.dist-info").mkdir(parents=True, exist_ok=True)
    (venv / "pyvenv.cfg").write_text("home = /usr/bin\nversion = 3.11.2\n")
    spy = """
import json, os, sys
seen = {"uid": os.getuid(), "tty": True}
try: os.open("/dev/tty", os.O_RDWR)
except OSError: seen["tty"] = False
open("/var/tmp/spy", "w").write(json.dumps(seen))
print("x" * (64 * 1024 * 1024))
"""
    Path("/var/tmp/spy").unlink(missing_ok=True)
    Path("/var/tmp/spy").touch()
    Path("/var/tmp/spy").chmod(0o666)
    script(venv / "bin/python", spy)
    (RECIPES / "a.json").write_text(json.dumps({"python_path": f"{venv}/bin/python", "model_path": "org/m"}))
    recipectl("apply")
    typed = f"script -qec '{sys.executable} -m recipectl check a' /dev/null"
    subprocess.run(["sh", "-c", typed], check=False, capture_output=True, timeout=60)
    seen = json.loads(Path("/var/tmp/spy").read_text())
    assert seen["uid"] not in (0, None)
    assert seen["tty"] is False


def test_the_lock_of_apply_is_roots_alone() -> None:
    recipe("a", port=18201)
    recipectl("apply")
    lock = Path("/etc/systemd/system/.recipectl.lock")
    assert lock.stat().st_mode & 0o777 == 0o600
    with lock.open("r+") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        waiting = subprocess.Popen(
            [sys.executable, "-m", "recipectl", "apply"], stderr=subprocess.PIPE, text=True
        )
        assert waiting.stderr is not None
        assert "waiting for another recipectl" in waiting.stderr.readline()
        fcntl.flock(held, fcntl.LOCK_UN)
    waiting.communicate(timeout=60)


def test_outputs_do_not_follow_a_planted_link() -> None:
    recipe("a", port=18201)
    open_folder = Path("/var/tmp/open")
    open_folder.mkdir(exist_ok=True)
    open_folder.chmod(0o1777)
    target = Path("/etc/planted-target")
    target.mkdir(exist_ok=True)
    link = open_folder / "out"
    link.unlink(missing_ok=True)
    link.symlink_to(target)
    os.lchown(link, 65534, 65534)
    refused = recipectl("compile", "-o", str(link), "a")
    assert (refused.returncode, [*target.iterdir()]) == (2, []), refused.stderr
    assert f"{link} is a link in a folder that others can write" in refused.stderr


def test_a_unit_that_systemd_cannot_load_is_refused_and_can_be_removed() -> None:
    host = Path("/etc/recipectl/host.yaml")
    host.write_text("vars: {x: " + "x" * 1000 + "}\n")
    recipe("a", port=18201, description="${x}" * 1100)
    refused = recipectl("apply")
    assert (refused.returncode, "longer than the 1 MiB that systemd reads" in refused.stderr) == (2, True)
    recipe("a", port=18201)
    assert recipectl("apply").returncode == 0
    unit = Path("/etc/systemd/system/model-a.service")
    unit.write_text(unit.read_text().replace("Description=", "Description=" + "x" * 1_200_000))
    systemctl("daemon-reload")
    assert systemctl("show", "-P", "LoadState", "model-a.service") in ("error", "bad-setting")
    removed = recipectl("remove", "a")
    assert (removed.returncode, unit.exists()) == (0, False), removed.stderr


def test_a_copy_publishes_nothing_that_was_closed() -> None:
    secret = Path("/etc/recipectl/secrets/b")
    secret.parent.mkdir(parents=True, exist_ok=True)
    secret.write_text("hf_thisisnottobeseen0123456789\n")
    secret.chmod(0o600)
    link = Path("/home/alice/l.yaml")
    link.symlink_to(secret)
    refused = recipectl("apply", str(link))
    assert (refused.returncode, "is a link; give the file behind it" in refused.stderr) == (2, True)
    link.unlink()
    closed = Path("/opt/closed.yaml")
    recipe("closed")
    (RECIPES / "closed.json").rename(closed)  # JSON is YAML
    closed.chmod(0o600)
    recipectl("apply", str(closed))
    assert (RECIPES / "closed.yaml").stat().st_mode & 0o777 == 0o600
    bad = Path("/opt/a b.yaml")
    bad.write_text("model_path: m\n")
    assert recipectl("apply", str(bad)).returncode == 2
    assert not (RECIPES / "a b.yaml").exists()


def test_a_secret_that_somebody_else_could_replace_is_refused() -> None:
    token = Path("/home/alice/token")
    token.write_text("hf_thisisnottobeseen0123456789\n")
    token.chmod(0o600)
    owned_by("alice", token)
    recipe("a", port=18201, secrets={"HF_TOKEN": str(token)})
    refused = recipectl("apply")
    assert (refused.returncode, f"user alice can change {token}" in refused.stderr) == (2, True), (
        refused.stderr
    )


def test_the_helper_can_be_run_whatever_roots_umask_is() -> None:
    subprocess.run(["rm", "-rf", "/var/lib/recipectl"], check=True)
    recipe("a", port=18201)
    command = f"umask 077; exec {sys.executable} -m recipectl apply"
    subprocess.run(["sh", "-c", command], check=True)
    assert Path("/var/lib/recipectl").stat().st_mode & 0o777 == 0o755
    assert recipectl("start", "a").returncode == 0
    Path("/var/lib/recipectl").chmod(0o700)
    assert recipectl("apply", "--check").returncode == 3
    recipectl("apply")
    assert recipectl("restart", "a").returncode == 0


def test_apply_as_root_is_refused_from_an_installation_that_others_can_write() -> None:
    """Not in a throwaway system, which this test therefore leaves for a moment."""
    recipe("a")
    package, marker = Path(recipectl_package.__file__).parent, Path("/run/throwaway")
    owner = (package / "text.py").stat().st_uid
    marker.rename("/run/lasting")
    try:
        os.chown(package / "text.py", 12345, -1)
        refused = recipectl("apply")
        assert (refused.returncode, refused.stdout) == (1, "")
        assert re.match(r"this recipectl is not safe to apply as root: user \w+ can change /", refused.stderr)
        assert not Path("/etc/systemd/system/model-a.service").exists()
        assert recipectl("diff").returncode == 3
    finally:
        os.chown(package / "text.py", owner, -1)
        Path("/run/lasting").rename(marker)
    assert recipectl("apply").returncode == 0
