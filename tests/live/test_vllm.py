"""The same path with real vLLM: a tiny model, its answer, and the faults that only vLLM has."""

import json
import shutil
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import documentation
import imported
import pytest

from live.common import clients, journal, recipectl, show, until

pytestmark = pytest.mark.vllm
ROOT = Path(__file__).parents[2]
SENTENCE = " a recipe names an engine and its model"
DOCUMENTATION = ROOT / ".build/documentation"
RECIPE = f"""
backend: vllm
python_path: {ROOT}/.build/vllm/bin/python
model_path: {ROOT}/.build/tiny
served_model_name: tiny
host: 127.0.0.1
port: 18300
dtype: float32
max_model_len: 128
max_num_seqs: 4
env_vars: {{HF_HUB_OFFLINE: 1, HOME: /var/tmp, OMP_NUM_THREADS: 1}}
extra_args: {{enforce_eager: true, kv_cache_memory_bytes: 64M}}
"""


URL = "http://127.0.0.1:18300/v1/completions"
BODY = '{"model": "tiny", "prompt": "hello", "max_tokens": 100, "ignore_eos": true}'


@pytest.fixture(scope="module")
def tiny() -> Iterator[str]:
    folder = Path("/etc/recipectl/recipes")
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "tiny.yaml").write_text(RECIPE)
    assert recipectl("apply", "tiny").returncode == 0
    started = recipectl("start", "tiny")
    assert started.returncode == 0, started.stderr
    yield "tiny"
    recipectl("remove", "tiny")


def answer(port: int = 18300) -> str:
    body = json.dumps({"model": "tiny", "prompt": "hello", "max_tokens": 12}).encode()
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}/v1/completions", body, {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=30) as reply:
        return str(json.load(reply)["choices"][0]["text"])


def test_vllm_answers_when_start_returns(tiny: str) -> None:
    assert answer() == SENTENCE


def test_the_version_in_status_is_the_venvs(tiny: str) -> None:
    assert json.loads(recipectl("status", tiny, "--json").stdout)[0]["engine_version"].startswith("0.32.0")


def test_recipe_unit_process_and_vllms_own_answer_agree(tiny: str) -> None:
    result = recipectl("versions", tiny, "--json")
    (row,) = json.loads(result.stdout)
    assert (row["differences"], row["running"], row["answers"]) == ([], "same", "0.32.0"), result.stdout
    assert row["argv"][:3] == [f"{ROOT}/.build/vllm/bin/python", f"{ROOT}/.build/vllm/bin/vllm", "serve"]


def test_vllms_own_parser_tells_what_it_would_refuse(tmp_path: Path) -> None:
    extra = (
        "swap_space: 4, enable_prefix_cachin: true, disable_cascade_attn: true, kv_cache_memory_bytes: 64M"
    )
    file = tmp_path / "wrong.yaml"
    file.write_text(
        RECIPE.replace("dtype: float32", "dtype: floaty")
        .replace("18300", "18309")
        .replace("enforce_eager: true, kv_cache_memory_bytes: 64M", extra)
    )
    tmp_path.chmod(0o755)
    shutil.rmtree("/var/cache/recipectl/options", ignore_errors=True)
    result = recipectl("check", str(file))
    assert result.returncode == 2
    # A slow machine is told of every ten seconds.
    lines = [line for line in result.stderr.splitlines() if "asking its engine for its options" not in line]
    assert f"{file}:8:8: `--dtype` cannot be `floaty` in vllm 0.32.0; did you mean `float`?" in lines[0]
    assert "`--swap-space` is not an option of vllm 0.32.0; remove it (the nearest is `--" in lines[1]
    assert "`--enable-prefix-cachin` abbreviates `--enable-prefix-caching`" in lines[2]
    assert "warning:" in lines[3]
    assert "`--disable-cascade-attn` is deprecated in vllm 0.32.0" in lines[3]
    assert lines[4] == f"wrong: checked with the parser of {ROOT}/.build/vllm/bin/vllm"
    assert recipectl("check", str(file)).stderr.splitlines()[4].endswith("(asked before)")


def test_the_working_recipe_passes_its_check(tiny: str) -> None:
    result = recipectl("check", tiny)
    said = [line for line in result.stderr.splitlines() if "asking its engine for its options" not in line]
    assert (result.returncode, result.stdout, said) == (0, "", [])


def test_an_engine_core_that_stops_is_found_although_health_says_200(tiny: str) -> None:
    """The API server answers on; its engine core does not. One that is only saturated is left alone."""
    file = Path("/etc/recipectl/recipes/tiny.yaml")
    file.write_text(RECIPE + "watch: {every: 2s, timeout: 5s, failures: 2}\n")
    assert recipectl("apply", tiny).returncode == 0
    before = show(tiny, "MainPID")
    with clients(URL, BODY, 12):
        time.sleep(20)
        assert (show(tiny, "MainPID"), show(tiny, "NRestarts")) == (before, "0")
        command = ["pgrep", "-f", "VLLM::EngineCore"]
        (core,) = subprocess.run(command, capture_output=True, text=True).stdout.split()
        begin = time.monotonic()
        subprocess.run(["kill", "-STOP", core], check=True)
        time.sleep(1)
        health = urllib.request.urlopen("http://127.0.0.1:18300/health", timeout=5).status
        assert health == 200
        while show(tiny, "MainPID") == before:
            assert time.monotonic() - begin < 300
            time.sleep(0.1)
        print(f"killed after {time.monotonic() - begin:.1f} s")
    until(tiny, "ActiveState", "active", timeout_sec=180)
    assert answer() == SENTENCE
    file.write_text(RECIPE)
    recipectl("apply", tiny)


def test_an_engine_that_exits_0_by_itself_comes_back(tiny: str) -> None:
    restarts = int(show(tiny, "NRestarts"))
    subprocess.run(["pkill", "-9", "-f", "VLLM::EngineCore"], check=True)
    until(tiny, "NRestarts", str(restarts + 1), timeout_sec=60)
    until(tiny, "ActiveState", "active", timeout_sec=180)
    assert answer() == SENTENCE


def test_a_stop_during_a_load_does_not_wait_for_systemds_limit(tiny: str) -> None:
    recipectl("stop", tiny)
    subprocess.run(["systemctl", "start", "--no-block", "model-tiny.service"], check=True)
    time.sleep(12)  # vLLM swallows the first SIGTERM from about 9 s on until it is ready
    assert show(tiny, "SubState") == "start-post"
    assert recipectl("stop", tiny).returncode == 0
    assert "timed out. Killing" not in journal("model-tiny.service")
    assert show(tiny, "ActiveState") == "inactive"
    assert subprocess.run(["pgrep", "-f", "VLLM::"], capture_output=True, check=False).stdout == b""


def test_torch_compile_works_in_the_default_sandbox() -> None:
    recipe = (
        RECIPE.replace("18300", "18301").replace("enforce_eager: true, ", "").replace("HOME: /var/tmp, ", "")
    )
    file = Path("/etc/recipectl/recipes/jit.yaml")
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(recipe)
    assert recipectl("apply", "jit").returncode == 0
    started = recipectl("start", "jit", timeout_sec=400)
    assert started.returncode == 0, started.stderr
    assert answer(18301) == SENTENCE
    assert show("jit", "ProtectSystem") == "strict"
    assert any(Path("/var/cache/models/jit/vllm").rglob("*"))
    recipectl("remove", "jit")


def test_every_spelling_of_every_option_means_the_same_after_an_import(tmp_path: Path) -> None:
    imported.check_spellings("vllm", ROOT / ".build/vllm/bin/python", tmp_path, least=400)


@pytest.mark.skipif(not DOCUMENTATION.exists(), reason="`make setup-test` fetches the documentation")
def test_a_command_of_vllms_documentation_means_the_same_after_an_import() -> None:
    counts, by_engine = documentation.pairs(documentation.scripts([DOCUMENTATION]))
    taken, differ = imported.compare("vllm", ROOT / ".build/vllm/bin/python", by_engine["vllm"])
    print(f"in the same words {counts['exact']}, in others {taken}, of which {len(differ)} differ; {counts}")
    assert differ == []
    assert counts["exact"] + taken > 200
