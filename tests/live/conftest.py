"""In the throwaway systemd the checkout and Python are open to the units' user (an overlay: not on the host)."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from live.common import remove_all

for folder in (*Path(__file__).resolve().parents, *Path(sys.executable).resolve().parents):
    folder.chmod(folder.stat().st_mode | 0o055)


@pytest.fixture(autouse=True)
def clean(request: pytest.FixtureRequest) -> Iterator[None]:
    yield
    if request.node.get_closest_marker("systemd"):
        remove_all()
