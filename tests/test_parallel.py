"""Many recipes, compiled by several processes."""

import json
import multiprocessing
import os
import signal
from pathlib import Path

import pytest
from conftest import make_venv

from recipectl import compiler, parallel, sources
from recipectl.disk import Disk
from recipectl.hostfile import Host
from recipectl.unitfile import Site

SITE = Site(("/usr/bin/python3", "/health.py"))
HOST = Host(user="root", path=())


@pytest.fixture
def found(tmp_path: Path) -> tuple[sources.Source, ...]:
    """340 recipes: neighbours share a GPU, need each other, or are wrong by themselves or by another."""
    venv = make_venv(tmp_path / "v", "vllm", version="0.32.0+cpu")
    folder = tmp_path / "r"
    folder.mkdir()
    for n in range(340):
        fields: dict[str, object] = {"model_path": "org/m", "port": 20000 + n, "gpus": [str(n // 2)]}
        fields |= {"python_path": f"{venv}/bin/python"}
        if n % 50 == 7:
            fields |= {"requires": [f"m{n - 1:03}"], "gpu_sharing": "ordered"}
        if n == 56:
            fields |= {"prot": 1}  # m057 needs it
        if n == 120:
            fields |= {"port": 20122}  # m122 has another GPU
        (folder / f"m{n:03}.json").write_text(json.dumps(fields))
    return sources.sources((folder,))


@pytest.mark.parametrize("processors", [1, 2, 3, 16])
def test_the_outcome_is_that_of_one_process(found: tuple[sources.Source, ...], processors: int) -> None:
    alone, together = Disk(), Disk()
    _, wanted = compiler.compile_all(found, HOST, SITE, alone)
    assert parallel.compile_all(found, HOST, SITE, together, processors) == wanted
    assert sorted(wanted.wrong) == ["m056", "m057", "m120", "m122"]
    assert together.seen == alone.seen
    assert multiprocessing.active_children() == []


def test_a_process_that_is_killed_costs_nothing_but_time(found: tuple[sources.Source, ...]) -> None:
    here = os.getpid()

    def content(path: Path) -> bytes:
        if os.getpid() != here:
            os.kill(os.getpid(), signal.SIGKILL)
        return path.read_bytes()

    _, wanted = compiler.compile_all(found, HOST, SITE, Disk())
    assert parallel.compile_all(found, HOST, SITE, Disk(content), 3) == wanted
    assert multiprocessing.active_children() == []


def test_wrong_recipes_come_in_their_order(found: tuple[sources.Source, ...]) -> None:
    assert [*parallel.compile_all(found, HOST, SITE, Disk(), 3).wrong] == ["m056", "m057", "m120", "m122"]
