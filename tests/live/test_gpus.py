"""Recipes that share a GPU, and models that start at the first request."""

import concurrent.futures
import re
import socket
import subprocess
import sys
import time
import urllib.error
from pathlib import Path

import pytest

from live.common import ask, recipe, recipectl, script, show, systemctl, until

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
    gone, begun = (
        int(show(n, f))
        for n, f in (("a", "InactiveEnterTimestampMonotonic"), ("b", "ExecMainStartTimestampMonotonic"))
    )
    assert begun >= gone
    assert recipectl("start", "a").returncode == 0
    assert (show("a", "ActiveState"), show("b", "ActiveState")) == ("active", "inactive")


def test_switch_says_whom_it_stopped() -> None:
    recipe("a", port=18201, gpus=["0"])
    recipe("b", port=18202, gpus=["0"])
    recipectl("apply"), recipectl("start", "a")
    said = recipectl("switch", "b").stdout
    assert re.fullmatch(r"stopped model-a.service\nmodel-b.service is ready after [0-9.]+ s\n", said)


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
    until("a", "ActiveState", "inactive", timeout_sec=10)
    assert ask(18201) == "a"


def test_a_port_that_an_on_demand_model_cannot_have_is_told_by_apply() -> None:
    with socket.create_server(("127.0.0.1", 18201)):
        recipe("a", port=18201, on_demand={})
        failed = recipectl("apply")
    assert (failed.returncode, "model-a.socket could not listen; is the port taken?" in failed.stderr) == (
        1,
        True,
    )
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
            on_demand={"idle": "1min", "patience": "20s"},
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
            assert answer.result(timeout=20) == "slow"
    assert show("a", "ActiveState") == "inactive"
    assert ask(18201) == "slow"


def test_an_operators_stop_does_not_wait_for_connections() -> None:
    for index, name in enumerate("ab"):
        slow(name, port=18201 + index, gpus=["0"], on_demand={"idle": "1min"}, env_vars={"LOAD_SEC": "0.2"})
    recipectl("apply")
    ask(18201)
    with socket.create_connection(("127.0.0.1", 18201)):
        begun = time.monotonic()
        assert recipectl("stop", "a").returncode == 0
        assert time.monotonic() - begun < 5


def test_evict_always_does_not_wait() -> None:
    for index, name in enumerate("ab"):
        slow(
            name, port=18201 + index, gpus=["0"], on_demand={"evict": "always"}, env_vars={"LOAD_SEC": "0.2"}
        )
    recipectl("apply")
    ask(18201)
    with socket.create_connection(("127.0.0.1", 18201)):
        begun = time.monotonic()
        assert ask(18202) == "slow"
        assert time.monotonic() - begun < 5


def test_start_of_an_on_demand_model_keeps_it_until_it_is_idle() -> None:
    recipe("a", port=18201, served_model_name="a", on_demand={"idle": "1s"})
    recipectl("apply")
    assert recipectl("start", "a").returncode == 0
    time.sleep(1)
    assert (show("a", "ActiveState"), ask(18201)) == ("active", "a")


def test_device_isolation_leaves_only_the_gpus_of_the_recipe() -> None:
    recipe("a", port=18201, gpus=["1"], device_isolation=True)
    assert recipectl("apply").returncode == 0
    shown = systemctl("show", "-p", "DevicePolicy,DeviceAllow", "model-a.service")
    assert "DevicePolicy=closed" in shown
    assert "DeviceAllow=/dev/nvidia1 rw" in shown
    assert "/dev/nvidia0 " not in shown


def test_a_setting_of_the_recipe_reaches_systemd() -> None:
    recipe("a", port=18201, service={"Nice": "5", "RequiresMountsFor": "/models"})
    recipectl("apply")
    assert (show("a", "Nice"), "/models" in show("a", "RequiresMountsFor")) == ("5", True)
    assert sys.executable
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
