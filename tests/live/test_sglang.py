"""The same path with real SGLang: a tiny model, its answer, and a clean stop."""

import json
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import imported
import pytest

from live.common import clients, recipectl, show

pytestmark = pytest.mark.sglang
ROOT = Path(__file__).parents[2]
SENTENCE = " a recipe names an engine and its model"
RECIPE = f"""
backend: sglang
python_path: {ROOT}/.build/sglang/bin/python
model_path: {ROOT}/.build/tiny
served_model_name: tiny
host: 127.0.0.1
port: 18600
dtype: float32
max_model_len: 128
max_num_seqs: 4
env_vars: {{HF_HUB_OFFLINE: 1, SGLANG_USE_CPU_ENGINE: 1, OMP_NUM_THREADS: 1}}
extra_args: {{device: cpu, attention_backend: torch_native, max_total_tokens: 2048, enable_metrics: true}}
watch: {{every: 5s, timeout: 10s, failures: 2}}
"""


@pytest.fixture(scope="module")
def tiny() -> Iterator[str]:
    folder = Path("/etc/recipectl/recipes")
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "tiny-sglang.yaml").write_text(RECIPE)
    applied = recipectl("apply", "tiny-sglang")
    assert applied.returncode == 0, applied.stderr
    started = recipectl("start", "tiny-sglang")
    assert started.returncode == 0, started.stderr
    yield "tiny-sglang"
    recipectl("remove", "tiny-sglang")


def test_sglang_answers_when_start_returns(tiny: str) -> None:
    body = json.dumps({"model": "tiny", "prompt": "hello", "max_tokens": 12}).encode()
    request = urllib.request.Request(
        "http://127.0.0.1:18600/v1/completions", body, {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=60) as reply:
        assert json.load(reply)["choices"][0]["text"] == SENTENCE


def test_the_version_is_the_venvs(tiny: str) -> None:
    assert json.loads(recipectl("status", tiny, "--json").stdout)[0]["engine_version"] == "0.5.23"


def test_recipe_unit_process_and_sglangs_own_answer_agree(tiny: str) -> None:
    result = recipectl("versions", tiny, "--json")
    (row,) = json.loads(result.stdout)
    assert (row["differences"], row["running"], row["answers"]) == ([], "same", "0.5.23"), result.stdout


def test_sglangs_own_parser_tells_what_it_would_refuse(tiny: str, tmp_path: Path) -> None:
    said = recipectl("check", tiny).stderr.splitlines()
    # A slow machine is told of every ten seconds.
    assert [line for line in said if "asking its engine for its options" not in line] == []
    file = tmp_path / "wrong.yaml"
    file.write_text(
        RECIPE.replace("18600", "18609").replace(
            "attention_backend: torch_native", "attention_backend: torch, disable_cuda_graph: true"
        )
    )
    tmp_path.chmod(0o755)
    result = recipectl("check", str(file))
    assert result.returncode == 2
    assert "`--attention-backend` cannot be `torch` in sglang 0.5.23; " in result.stderr
    assert "`--disable-cuda-graph` is deprecated in sglang 0.5.23" in result.stderr


def test_a_scheduler_that_stops_is_found_and_a_busy_one_is_left_alone(tiny: str) -> None:
    """The watch asks for progress: the metrics are switched on."""
    before = show(tiny, "MainPID")
    body = '{"model": "tiny", "prompt": "hello", "max_tokens": 100, "ignore_eos": true}'
    with clients("http://127.0.0.1:18600/v1/completions", body, 6):
        time.sleep(20)
        assert (show(tiny, "MainPID"), show(tiny, "NRestarts")) == (before, "0")
        found = subprocess.run(
            ["pgrep", "-f", "sglang::scheduler"], capture_output=True, text=True, check=False
        )
        begin = time.monotonic()
        subprocess.run(["kill", "-STOP", *found.stdout.split()], check=True)
        while show(tiny, "MainPID") == before:
            assert time.monotonic() - begin < 300
            time.sleep(0.1)
        print(f"killed after {time.monotonic() - begin:.1f} s")


def test_a_stop_leaves_nothing_of_it(tiny: str) -> None:
    assert recipectl("stop", tiny).returncode == 0
    assert show(tiny, "ActiveState") == "inactive"
    assert (
        subprocess.run(["pgrep", "-f", "sglang::|launch_server"], capture_output=True, check=False).stdout
        == b""
    )


def test_every_spelling_of_every_option_means_the_same_after_an_import(tmp_path: Path) -> None:
    imported.check_spellings("sglang", ROOT / ".build/sglang/bin/python", tmp_path, least=450)
