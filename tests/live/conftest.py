"""Live tests change the system they run on: they run in the throwaway systemd, and nowhere else."""

import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from live.common import ROOT, remove_all

LIVE = ("systemd", "vllm", "upgrade", "sglang")


@cache
def open_the_way() -> None:
    """The checkout and Python are open to the units' user (in the throwaway's overlay, not on the machine)."""
    for folder in (*Path(__file__).resolve().parents, *Path(sys.executable).resolve().parents):
        folder.chmod(folder.stat().st_mode | 0o055)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    if any(item.get_closest_marker(marker) for marker in LIVE):
        if not Path("/run/throwaway").exists():
            pytest.exit("live tests change the system they run on: use `make live`", returncode=2)
        open_the_way()


@pytest.fixture(autouse=True)
def clean(request: pytest.FixtureRequest) -> Iterator[None]:
    yield
    if request.node.get_closest_marker("systemd"):
        remove_all()


@pytest.fixture
def haproxy() -> None:
    """Debian's HAProxy as its packages have it, without the site's unit."""
    subprocess.run(["cp", "-a", f"{ROOT}/.build/haproxy/usr/.", "/usr"], check=True)
    subprocess.run(["ldconfig"], check=True)
