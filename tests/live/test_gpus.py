"""Recipes that share a GPU, and models that start at the first request."""

import concurrent.futures
import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
from pathlib import Path

import pytest

from live.common import RECIPES, ask, journal, recipe, recipectl, script, show, systemctl, until
from recipectl.machine import processes

pytestmark = pytest.mark.systemd
# A loading engine says when it began and when it ended; it answers after a second.
SLOW = """
import http.server, os, sys, time
port = int(sys.argv[sys.argv.index("--port") + 1])
open("/var/tmp/loads", "a").write(f"{port} begin {time.monotonic()}\\n")
time.sleep(float(os.environ.get("LOAD_SEC", "1")))
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        time.sleep(float(os.environ.get("ANSWER_SEC", "0")) if self.path == "/slow" else 0)
        self.send_response(200); self.end_headers(); self.wfile.write(b"{\\"data\\": [{\\"id\\": \\"slow\\"}]}")
    def log_message(self, *a): pass
server = http.server.ThreadingHTTPServer(("127.0.0.1", port), Handler)
open("/var/tmp/loads", "a").write(f"{port} ready {time.monotonic()}\\n")
server.serve_forever()
"""


def slow(name: str, **fields: object) -> None:
    Path("/var/tmp/loads").touch()
    Path("/var/tmp/loads").chmod(0o666)
    binary = script(Path("/opt/slow"), SLOW)
    recipe(
        name, **({"binary": binary, "service": {"ReadWritePaths": "/var/tmp", "PrivateTmp": "no"}} | fields)
    )


def test_starting_one_stops_the_other_and_waits_until_it_is_gone() -> None:
    recipe("a", port=18201, gpus=["0"])
    recipe("b", port=18202, gpus=["0", "1"])
    recipectl("apply"), recipectl("start", "a")
    assert recipectl("start", "b").returncode == 0
    assert (show("a", "ActiveState"), show("b", "ActiveState")) == ("inactive", "active")
    gone, start_time = (
        int(show(n, f))
        for n, f in (("a", "InactiveEnterTimestampMonotonic"), ("b", "ExecMainStartTimestampMonotonic"))
    )
    assert start_time >= gone
    assert recipectl("start", "a").returncode == 0
    assert (show("a", "ActiveState"), show("b", "ActiveState")) == ("active", "inactive")


# A worker whose first thread is gone, and whose memory takes long to free: as CUDA's threads free a GPU's.
HOLDS = """
import ctypes, mmap, os, signal, sys, threading, time
libc = ctypes.CDLL(None)
def work():
    libc.prctl(41, 1, 0, 0, 0)  # small pages
    memory = mmap.mmap(-1, 3 << 30, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | mmap.MAP_POPULATE)
    os.write(ready[1], b"x"), time.sleep(1000)
ready = os.pipe()
if os.fork() == 0:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    threading.Thread(target=work).start()
    libc.syscall(60, 0)
os.read(ready[0], 1)
"""


def last_thread(pid: int, ends: list[float]) -> None:
    """When a process was last seen with a thread that is no zombie."""
    while True:
        at = time.monotonic()
        states = []
        with contextlib.suppress(OSError):  # the process may end while it is looked at
            for path in Path(f"/proc/{pid}/task").glob("*/stat"):
                with contextlib.suppress(OSError):
                    states.append(path.read_text().rpartition(")")[2].split()[0])
        if not {*states} - {"Z", "X"}:
            return
        ends.append(at)
        time.sleep(0.002)


def holder(unit: str) -> tuple[int, int]:
    """The main process of a unit, and the worker of HOLDS."""
    folder = Path("/sys/fs/cgroup") / systemctl("show", "-P", "ControlGroup", unit).lstrip("/")
    main, worker = sorted(int(pid) for pid in (folder / "cgroup.procs").read_text().split())
    return main, worker


def test_a_successor_waits_for_threads_that_systemd_no_longer_sees() -> None:
    """systemd 255 starts it 0.2 s too early (packaging/gpu-proof, stage memory)."""
    common = {"gpus": ["0"], "env_vars": {"LOAD_SEC": "0"}}
    slow("a", port=18201, **common | {"binary": script(Path("/opt/holds"), HOLDS + SLOW)})
    slow("b", port=18202, **common)
    recipectl("apply"), recipectl("start", "a")
    ends: list[float] = []
    watching = threading.Thread(target=last_thread, args=(holder("model-a.service")[1], ends))
    watching.start()
    assert recipectl("switch", "b").returncode == 0
    watching.join(timeout=60)
    assert ends[-1] < int(show("b", "ExecMainStartTimestampMonotonic")) / 1e6


def test_a_process_that_is_ending_counts_until_its_last_thread_is_gone() -> None:
    holds = script(Path("/opt/holds-alone"), HOLDS + "print('ready', flush=True); time.sleep(1000)")
    subprocess.run(["systemd-run", "-q", "--unit", "holds", "-p", "KillMode=mixed", holds], check=True)
    end = time.monotonic() + 30
    while "ready" not in journal("holds.service") and time.monotonic() < end:
        time.sleep(0.05)
    main, worker = holder("holds.service")
    folder = processes.cgroup_folder("holds.service")
    assert folder
    os.kill(main, signal.SIGKILL), os.kill(worker, signal.SIGKILL)
    hidden = 0
    while processes.ending(["holds.service"]):
        with contextlib.suppress(OSError):
            hidden += (folder / "cgroup.procs").read_text() == ""
    ends: list[float] = []
    last_thread(worker, ends)
    assert (hidden > 0, ends) == (True, [])


def test_switch_says_whom_it_stopped() -> None:
    recipe("a", port=18201, gpus=["0"])
    recipe("b", port=18202, gpus=["0"])
    recipectl("apply"), recipectl("start", "a")
    outcome = recipectl("switch", "b").stdout
    stopping = "stopping model-a.service: it and model-b.service stop each other\n"
    assert re.fullmatch(rf"{stopping}model-b.service is ready after [0-9.]+ s\n", outcome)


def test_ordered_ones_live_together_but_never_load_together() -> None:
    for index, name in enumerate("abc"):
        slow(name, port=18201 + index, gpus=["0"], gpu_sharing="ordered")
    recipectl("apply")
    for order in ("abc", "cba", "bca"):
        Path("/var/tmp/loads").write_text("")
        for name in order:
            systemctl("start", "--no-block", f"model-{name}.service")
            time.sleep(0.15)
        for name in order:
            until(name, "ActiveState", "active")
        events = sorted(
            (float(line.split()[2]), line.split()[1])
            for line in Path("/var/tmp/loads").read_text().splitlines()
        )
        assert [what for _, what in events] == ["begin", "ready"] * 3
        systemctl("stop", "model-a.service", "model-b.service", "model-c.service")


def test_a_stop_while_it_waits_its_turn_is_no_failure() -> None:
    for index, name in enumerate("ab"):
        slow(name, port=18201 + index, gpus=["0"], gpu_sharing="ordered", env_vars={"LOAD_SEC": "5"})
    recipectl("apply")
    systemctl("start", "--no-block", "model-b.service")
    until("b", "SubState", "start-post")
    systemctl("start", "--no-block", "model-a.service")
    until("a", "SubState", "start-pre")
    time.sleep(0.3)
    assert recipectl("stop", "a").returncode == 0
    assert (show("a", "ActiveState"), show("a", "Result")) == ("inactive", "success")


def test_a_stop_in_the_first_moments_of_a_start_is_no_failure() -> None:
    """A helper whose Python still starts dies by the signal of the stop."""
    slow("a", port=18201, gpus=["0"], env_vars={"LOAD_SEC": "5"})
    recipectl("apply")
    for delay_sec in (0, 0.01, 0.03, 0.1, 0.2):
        systemctl("start", "--no-block", "model-a.service")
        time.sleep(delay_sec)
        systemctl("stop", "model-a.service")
        assert (show("a", "ActiveState"), show("a", "Result")) == ("inactive", "success"), delay_sec


def test_list_gpus_draws_who_owns_what() -> None:
    recipe("a", port=18201, gpus=["0"])
    recipe("b", port=18202, gpus=["0"])
    recipectl("apply"), recipectl("start", "a")
    rows = [line.split() for line in recipectl("list", "--gpus").stdout.splitlines()[1:]]
    assert rows == [
        ["0", "a*", "ready", "http://127.0.0.1:18201", "b"],
        ["0", "b", "stopped", "http://127.0.0.1:18202", "a"],
    ]


def test_the_first_request_starts_the_model_and_idleness_stops_it() -> None:
    recipe("a", port=18201, served_model_name="a", on_demand={"idle": "2s"})
    assert recipectl("apply").returncode == 0
    assert (show("a", "ActiveState"), systemctl("is-active", "model-a.socket")) == ("inactive", "active")
    assert ask(18201) == "a"
    with concurrent.futures.ThreadPoolExecutor() as pool:
        assert list(pool.map(ask, [18201] * 5)) == ["a"] * 5
    until("a", "ActiveState", "inactive", timeout_sec=120)
    assert ask(18201) == "a"


def test_a_port_that_an_on_demand_model_cannot_have_is_told_by_apply() -> None:
    with socket.create_server(("127.0.0.1", 18201)):
        recipe("a", port=18201, on_demand={})
        failed = recipectl("apply")
    assert failed.returncode == 1
    assert "model-a.socket cannot listen (its job was failed)" in failed.stderr
    assert f"model-a.socket: port 18201 is taken by process {os.getpid()} (" in failed.stderr
    assert (recipectl("apply").returncode, systemctl("is-active", "model-a.socket")) == (0, "active")


def test_an_engine_that_cannot_start_resets_its_client_and_the_next_request_tries_again() -> None:
    recipe("a", port=18201, binary=script(Path("/opt/failing"), "import sys; sys.exit(2)"), on_demand={})
    recipectl("apply")
    for _ in range(3):
        with pytest.raises((urllib.error.URLError, ConnectionError)):
            ask(18201)
    assert systemctl("is-active", "model-a.socket") == "active"
    recipe("a", port=18201, served_model_name="a", on_demand={})
    recipectl("apply")
    assert ask(18201) == "a"


def test_a_request_waits_until_a_busy_rival_is_idle_and_then_evicts_it() -> None:
    for index, name in enumerate("ab"):
        slow(
            name,
            port=18201 + index,
            gpus=["0"],
            on_demand={"idle": "1min", "patience": "10min"},
            env_vars={"LOAD_SEC": "0.2"},
        )
    recipectl("apply")
    assert ask(18201) == "slow"
    with socket.create_connection(("127.0.0.1", 18201)) as busy:
        time.sleep(0.3)
        with concurrent.futures.ThreadPoolExecutor() as pool:
            answer = pool.submit(ask, 18202)
            time.sleep(2)
            assert (answer.done(), show("a", "ActiveState")) == (False, "active")
            busy.close()
            assert answer.result(timeout=200) == "slow"
    assert show("a", "ActiveState") == "inactive"
    assert ask(18201) == "slow"


def test_a_stop_of_a_model_whose_request_waits_evicts_nobody() -> None:
    for index, name in enumerate("ab"):
        demand = {"idle": "1min", "patience": "10min"}
        slow(name, port=18201 + index, gpus=["0"], on_demand=demand, env_vars={"LOAD_SEC": "0.2"})
    recipectl("apply")
    assert ask(18201) == "slow"
    with socket.create_connection(("127.0.0.1", 18201)):
        time.sleep(0.3)
        with socket.create_connection(("127.0.0.1", 18202)) as waiting:
            waiting.sendall(b"GET / HTTP/1.0\r\n\r\n")
            end = time.monotonic() + 60
            while "waiting for idle" not in journal("model-b-proxy.service") and time.monotonic() < end:
                time.sleep(0.1)
            stops = [recipectl("stop", *words, "b") for words in ((), ("--socket",))]
            assert [stop.returncode for stop in stops] == [0, 0], stops
            assert (show("a", "ActiveState"), show("b", "ActiveState")) == ("active", "inactive")
            assert show("b-proxy", "ActiveState") == "inactive"
            assert show("b-proxy", "Result") in ("success", "exec-condition")


def test_an_operators_stop_does_not_wait_for_connections() -> None:
    for index, name in enumerate("ab"):
        slow(name, port=18201 + index, gpus=["0"], on_demand={"idle": "1min"}, env_vars={"LOAD_SEC": "0.2"})
    recipectl("apply")
    ask(18201)
    with socket.create_connection(("127.0.0.1", 18201)):
        assert recipectl("stop", "a").returncode == 0


def test_evict_always_does_not_wait() -> None:
    for index, name in enumerate("ab"):
        slow(
            name, port=18201 + index, gpus=["0"], on_demand={"evict": "always"}, env_vars={"LOAD_SEC": "0.2"}
        )
    recipectl("apply")
    ask(18201)
    with socket.create_connection(("127.0.0.1", 18201)):
        assert ask(18202) == "slow"


def test_a_socket_listens_at_an_address_that_comes_later() -> None:
    recipe("a", host="10.255.77.1", port=18201, served_model_name="a", on_demand={"idle": "1min"})
    assert recipectl("apply").returncode == 0
    assert systemctl("is-active", "model-a.socket") == "active"


def test_a_client_that_vanishes_is_noticed() -> None:
    recipe("a", port=18201, served_model_name="a", on_demand={"idle": "1min"})
    recipectl("apply")
    with socket.create_connection(("127.0.0.1", 18201)) as client:
        client.sendall(b"GET /health HTTP/1.1\r\nHost: a\r\n\r\n")
        assert client.recv(100).startswith(b"HTTP/1.")
        rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
        accepted = [row[5] for row in rows if (row[1][-5:], row[3]) == (f":{18201:04X}", "01")]
        assert [timer[:3] for timer in accepted] == ["02:"]  # the timer of keepalive (proc_pid_net(5))


def test_start_of_an_on_demand_model_keeps_it_until_it_is_idle() -> None:
    recipe("a", port=18201, served_model_name="a", on_demand={"idle": "15s"})
    recipectl("apply")
    assert recipectl("start", "a").returncode == 0
    time.sleep(1)
    assert show("a", "ActiveState") == "active"
    until("a", "ActiveState", "inactive")  # though nobody has ever asked it


def test_start_makes_the_socket_of_an_on_demand_model_listen_again() -> None:
    recipe("a", port=18201, served_model_name="a", on_demand={"idle": "1min"})
    recipectl("apply")
    systemctl("stop", "model-a.socket")
    assert "model-a.socket does not listen, and no request starts a" in recipectl("doctor").stdout
    status = recipectl("status", "a").stdout
    assert "on demand: its socket is inactive: no request starts it" in status
    assert "its socket was stopped, so no request starts it" in status
    assert recipectl("start", "a").returncode == 0
    assert ask(18201) == "a"
    assert "on demand: its socket listens" in recipectl("status", "a").stdout


def test_two_that_stop_each_other_are_not_started_at_once() -> None:
    recipe("a", port=18201, gpus=["0"])
    recipe("b", port=18202, gpus=["0"])
    recipectl("apply")
    refused = recipectl("start", "a", "b")
    assert (refused.returncode, refused.stderr) == (
        2, "model-a.service and model-b.service stop each other; start one of them\n",
    )  # fmt: skip
    assert (show("a", "ActiveState"), show("b", "ActiveState")) == ("inactive", "inactive")


def test_a_switch_that_the_recipe_turns_back_is_told() -> None:
    recipe("a", port=18201, autostart=False)
    recipectl("apply")
    assert "says `autostart: false`, so the next apply disables a again" in recipectl("enable", "a").stderr
    assert recipectl("disable", "a").stderr == ""


def test_device_isolation_leaves_only_the_gpus_of_the_recipe() -> None:
    recipe("a", port=18201, gpus=["1"], device_isolation=True)
    assert recipectl("apply").returncode == 0
    display = systemctl("show", "-p", "DevicePolicy,DeviceAllow", "model-a.service")
    assert "DevicePolicy=closed" in display
    assert "DeviceAllow=/dev/nvidia1 rw" in display
    assert "/dev/nvidia0 " not in display


def test_a_setting_of_the_recipe_reaches_systemd() -> None:
    recipe("a", port=18201, service={"Nice": "5", "RequiresMountsFor": "/models"})
    recipectl("apply")
    assert (show("a", "Nice"), "/models" in show("a", "RequiresMountsFor")) == ("5", True)
    assert (
        subprocess.run(
            [
                "systemd-analyze",
                "verify",
                "--man=no",
                "--recursive-errors=no",
                "/etc/systemd/system/model-a.service",
            ],
            check=False,
        ).returncode
        == 0
    )


def test_a_named_apply_keeps_two_models_off_one_gpu() -> None:
    recipe("b", port=18202, gpus=["0"])
    recipectl("apply"), recipectl("start", "b")
    recipe("a", port=18201, gpus=["0"])
    assert recipectl("apply", "a").returncode == 0
    assert recipectl("start", "a").returncode == 0
    assert (show("a", "ActiveState"), show("b", "ActiveState")) == ("active", "inactive")


def test_a_typo_in_one_recipe_takes_no_gpu_from_it() -> None:
    recipe("b", port=18202, gpus=["0"])
    recipe("z", port=18203, gpus=["0"])
    recipectl("apply"), recipectl("start", "b")
    (RECIPES / "b.json").write_text("{")
    assert recipectl("apply").returncode == 2
    recipectl("start", "z")
    assert (show("b", "ActiveState"), show("z", "ActiveState")) == ("inactive", "active")


def test_a_recipe_applied_from_elsewhere_counts_on_its_gpu() -> None:
    recipe("b", port=18202, gpus=["0"])
    elsewhere = Path("/opt/adhoc.json")
    (RECIPES / "b.json").rename(elsewhere)
    assert f"copied {elsewhere} to {RECIPES}/adhoc.json" in recipectl("apply", str(elsewhere)).stdout
    elsewhere.unlink()
    recipectl("start", "adhoc")
    recipe("b", port=18203, gpus=["0"])
    recipectl("apply"), recipectl("start", "b")
    assert (show("adhoc", "ActiveState"), show("b", "ActiveState")) == ("inactive", "active")


def test_a_recipe_that_became_wrong_takes_nothing_from_its_neighbours() -> None:
    """Two steps that once put two models on one GPU: a typo in a's file and an apply, then a correction."""
    recipe("a", port=18201, gpus=["0"])
    recipe("b", port=18202, gpus=["0"])
    recipectl("apply"), recipectl("start", "a")
    good = (RECIPES / "a.json").read_text()
    (RECIPES / "a.json").write_text("{")
    assert recipectl("apply").returncode == 2
    assert "model-a.service" in show("b", "Conflicts")
    assert recipectl("start", "b").returncode == 0
    assert (show("a", "ActiveState"), show("b", "ActiveState")) == ("inactive", "active")
    (RECIPES / "a.json").write_text(good.replace("18201", '"x"'))
    assert recipectl("apply", "b").returncode == 0
    assert recipectl("start", "a").returncode == 0
    assert (show("a", "ActiveState"), show("b", "ActiveState")) == ("active", "inactive")
    (RECIPES / "a.json").write_text(good)
    assert recipectl("apply").returncode == 0
    assert recipectl("apply", "--check").returncode == 0


def test_what_is_not_applied_yet_still_has_its_gpu() -> None:
    recipe("a", port=18201, gpus=["0"])
    recipectl("apply"), recipectl("start", "a")
    recipe("a", port=18201, gpus=["1"])
    recipe("b", port=18202, gpus=["0"])
    assert recipectl("apply", "b").returncode == 0
    assert recipectl("start", "b").returncode == 0
    assert (show("a", "ActiveState"), show("b", "ActiveState")) == ("inactive", "active")
    recipectl("apply"), recipectl("start", "a")
    assert (show("a", "ActiveState"), show("b", "ActiveState")) == ("active", "active")


def test_a_model_that_loads_for_somebody_is_not_evicted_meanwhile() -> None:
    for index, name in enumerate("ab"):
        slow(name, port=18201 + index, gpus=["0"], on_demand={"idle": "1min"}, env_vars={"LOAD_SEC": "3"})
    recipectl("apply")
    with concurrent.futures.ThreadPoolExecutor() as pool:
        first = pool.submit(ask, 18201)
        until("a", "SubState", "start-post")
        second = pool.submit(ask, 18202)
        assert (first.result(timeout=200), second.result(timeout=200)) == ("slow", "slow")


def test_patience_is_the_newcomers_own() -> None:
    for index, name in enumerate("ab"):
        demand = {"idle": "1min", "patience": "2s"}
        slow(name, port=18201 + index, gpus=["0"], on_demand=demand, env_vars={"LOAD_SEC": "0.2"})
    recipectl("apply")
    ask(18201)
    with socket.create_connection(("127.0.0.1", 18201)):
        start_time = time.monotonic()
        assert ask(18202) == "slow"
        assert time.monotonic() - start_time > 2
    assert show("a", "ActiveState") == "inactive"


def test_what_needs_the_evicted_one_is_waited_for_too() -> None:
    load = {"LOAD_SEC": "0.2"}
    slow("emb", port=18201, gpus=["0"], env_vars=load)
    slow("rag", port=18202, requires=["emb"], env_vars=load)
    slow("llm", port=18203, gpus=["0"], on_demand={"idle": "1min", "patience": "10min"}, env_vars=load)
    recipectl("apply"), recipectl("start", "rag")
    with (
        socket.create_connection(("127.0.0.1", 18202)) as busy,
        concurrent.futures.ThreadPoolExecutor() as pool,
    ):
        answer = pool.submit(ask, 18203)
        time.sleep(2)
        assert (answer.done(), show("rag", "ActiveState")) == (False, "active")
        busy.close()
        assert answer.result(timeout=200) == "slow"


def test_a_watched_on_demand_model_still_goes_when_it_is_idle() -> None:
    recipe("a", port=18201, on_demand={"idle": "1s"}, watch={"every": "1s", "failures": 2, "timeout": "30s"})
    recipectl("apply"), ask(18201)
    until("a", "ActiveState", "inactive", timeout_sec=120)


def test_requests_for_a_model_that_is_not_there_leave_its_socket_up() -> None:
    recipe("a", port=18201, model_path="/nowhere", on_demand={})
    recipectl("apply")
    for _ in range(40):
        with pytest.raises((urllib.error.URLError, ConnectionError)):
            ask(18201)
    assert systemctl("is-active", "model-a.socket") == "active"


def test_a_running_model_becomes_on_demand_in_one_apply() -> None:
    recipe("a", port=18201, served_model_name="a", autostart=True)
    recipectl("apply"), recipectl("wait", "a")
    recipe("a", port=18201, served_model_name="a", on_demand={"idle": "1s"})
    assert recipectl("apply").returncode == 0
    assert (show("a", "ActiveState"), systemctl("is-active", "model-a.socket")) == ("inactive", "active")
    assert recipectl("apply", "--check").returncode == 0
    wants = Path("/etc/systemd/system/models.target.wants")
    assert [path.name for path in wants.glob("model-*")] == ["model-a.socket"]
    assert ask(18201) == "a"
    until("a", "ActiveState", "inactive", timeout_sec=120)


def test_no_restart_leaves_an_on_demand_model_where_it_listens() -> None:
    recipe("a", port=18201, served_model_name="a", on_demand={"idle": "1min"})
    recipectl("apply"), ask(18201)
    recipe("a", port=18301, served_model_name="a", on_demand={"idle": "1min"})
    assert recipectl("apply", "--no-restart").returncode == 0
    assert ask(18201) == "a"
    assert recipectl("apply", "--check").returncode == 3
    assert recipectl("apply").returncode == 0
    assert ask(18301) == "a"


def test_a_socket_that_an_apply_was_killed_before_moving_is_moved_by_the_next() -> None:
    recipe("a", port=18201, served_model_name="a", on_demand={"idle": "1min"})
    recipectl("apply")
    recipe("a", port=18301, served_model_name="a", on_demand={"idle": "1min"})
    killed = "import os\nfrom recipectl.systemd.dbus import Manager\nManager.start_without_waiting = lambda *_: os.kill(os.getpid(), 9)\nimport sys\nsys.argv[1:] = ['apply']\nfrom recipectl.__main__ import main\nmain()"
    assert subprocess.run([sys.executable, "-c", killed], check=False).returncode == -9
    assert recipectl("apply").returncode == 0
    assert ask(18301) == "a"
    assert recipectl("apply", "--check").returncode == 0


def test_a_socket_that_an_operator_disabled_stays_so() -> None:
    recipe("a", port=18201, on_demand={})
    recipectl("apply")
    assert recipectl("disable", "a").returncode == 0
    assert recipectl("apply", "--check").returncode == 0


def test_restart_of_an_on_demand_model_leaves_it_up() -> None:
    recipe("a", port=18201, on_demand={"idle": "1min"})
    recipectl("apply")
    assert recipectl("restart", "a").returncode == 0
    time.sleep(1)
    assert show("a", "ActiveState") == "active"


def test_two_rivals_cannot_both_be_enabled() -> None:
    recipe("a", port=18201, gpus=["0"])
    recipe("b", port=18202, gpus=["0"])
    recipectl("apply"), recipectl("enable", "a")
    refused = recipectl("enable", "b")
    assert (
        refused.returncode,
        "stop each other, so only one would run after a boot" in refused.stderr,
    ) == (2, True)
    systemctl("enable", "model-b.service")
    report = recipectl("apply")
    assert (report.returncode, "`a` and `b` are enabled and stop each other" in report.stderr) == (2, True)


def test_a_model_that_was_evicted_is_not_put_back_by_an_apply() -> None:
    recipe("a", port=18201, gpus=["0"], autostart=True)
    recipe("b", port=18202, gpus=["0"])
    recipectl("apply"), recipectl("wait", "a"), recipectl("start", "b")
    again = recipectl("apply")
    assert (again.stdout, show("b", "ActiveState")) == ("", "active")


def test_people_do_not_wait_for_busy_rivals() -> None:
    load = {"LOAD_SEC": "0.2"}
    for index, name in enumerate("ab"):
        slow(name, port=18201 + index, gpus=["0"], on_demand={"idle": "1min"}, env_vars=load)
    recipectl("apply"), ask(18201)
    with socket.create_connection(("127.0.0.1", 18201)):
        assert recipectl("switch", "b").returncode == 0
    assert (show("a", "ActiveState"), show("b", "ActiveState")) == ("inactive", "active")


def test_no_restart_leaves_a_model_up_whose_recipe_is_gone() -> None:
    recipe("a", port=18201, autostart=True)
    recipectl("apply"), recipectl("wait", "a")
    (RECIPES / "a.json").unlink()
    assert recipectl("apply", "--no-restart").stdout == ""
    assert show("a", "ActiveState") == "active"
    assert "removed model-a.service" in recipectl("apply").stdout


def test_a_shorter_idle_time_reaches_a_model_that_is_up() -> None:
    recipe("a", port=18201, served_model_name="a", on_demand={"idle": "365d"})
    recipectl("apply"), ask(18201)
    recipe("a", port=18201, served_model_name="a", on_demand={"idle": "1s"})
    recipectl("apply"), ask(18201)
    until("a", "ActiveState", "inactive", timeout_sec=120)


def test_a_change_of_what_another_needs_brings_both_back() -> None:
    recipe("b", port=18202, on_demand={"idle": "1min"})
    recipe("a", port=18201, requires=["b"])
    recipectl("apply"), recipectl("start", "a")
    recipe("b", port=18202, on_demand={"idle": "1min"}, env_vars={"NEW": "1"})
    assert "restarting model-b.service" in recipectl("apply").stdout
    until("a", "ActiveState", "active")
    until("b", "ActiveState", "active")
    assert recipectl("apply", "--check").returncode == 0


def test_a_socket_moves_although_somebody_waits_behind_it() -> None:
    load = {"LOAD_SEC": "0.2"}
    slow("a", port=18201, gpus=["0"], env_vars=load)
    slow("b", port=18202, gpus=["0"], on_demand={"idle": "1min"}, env_vars=load)
    recipectl("apply"), recipectl("start", "a")
    with socket.create_connection(("127.0.0.1", 18201)), socket.create_connection(("127.0.0.1", 18202)):
        time.sleep(0.5)
        slow("b", port=18302, gpus=["0"], on_demand={"idle": "1min", "evict": "always"}, env_vars=load)
        assert recipectl("apply").returncode == 0
    assert ask(18302) == "slow"


@pytest.mark.parametrize("evict", ["idle", "always"])
def test_two_models_that_are_asked_at_once_are_both_answered(evict: str) -> None:
    """A load is not ended by a request for the other, whose own load would be ended in its turn."""
    demand = {"idle": "1min", "evict": evict, "patience": "2s"}
    for index, name in enumerate("ab"):
        slow(name, port=18201 + index, gpus=["0"], on_demand=demand, env_vars={"LOAD_SEC": "4"})
    recipectl("apply")
    with concurrent.futures.ThreadPoolExecutor() as pool:
        answers = [pool.submit(ask, port) for port in (18201, 18202, 18201, 18202)]
        assert [answer.result() for answer in answers] == ["slow"] * 4
