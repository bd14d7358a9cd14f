"""Upgrades between two real vLLM: one goes well, one meets a flag that is gone, one is killed while it loads."""

import json
import time
import urllib.request
from pathlib import Path

import pytest

from live.common import ROOT, recipectl, show, systemctl

pytestmark = pytest.mark.upgrade
EARLIER, LATER = ROOT / ".build/vllm-0.31.0", ROOT / ".build/vllm"
FILE = Path("/etc/recipectl/recipes/real.yaml")
RECORD = Path("/var/lib/recipectl/upgrades/real.json")
SENTENCE = " a recipe names an engine and its model"
RECIPE = f"""# The tiny model of the tests
backend: vllm
python_path: {EARLIER}/bin/python  # moved by upgrades
engine_version: ==0.31.*
model_path: {ROOT}/.build/tiny
served_model_name: tiny
host: 127.0.0.1
port: 18310
autostart: true
dtype: float32
max_model_len: 128
max_num_seqs: 4
env_vars: {{HF_HUB_OFFLINE: 1, HOME: /var/tmp}}
extra_args: {{enforce_eager: true, kv_cache_memory_bytes: 64M}}
canaries:
  - request: {{prompt: hello, max_tokens: 12, temperature: 0}}
    contains: names an engine
"""


def version() -> str:
    with urllib.request.urlopen("http://127.0.0.1:18310/version", timeout=30) as reply:
        return str(json.load(reply)["version"])


def upgrade(*words: str) -> str:
    result = recipectl("upgrade", "real", *words, timeout_sec=600)
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


@pytest.fixture(scope="module", autouse=True)
def earlier() -> None:
    FILE.parent.mkdir(parents=True, exist_ok=True)
    FILE.write_text(RECIPE)
    assert recipectl("lock", "real").returncode == 0
    applied = recipectl("apply")
    assert applied.returncode == 0, applied.stderr
    assert recipectl("wait", "real", timeout_sec=300).returncode == 0
    assert version().startswith("0.31.0")


def test_an_upgrade_of_real_vllm_goes_well_with_its_pin_and_its_lock() -> None:
    said = upgrade("--to", str(LATER))
    assert "passes its canaries (1)" in said
    assert version().startswith("0.32.0")
    assert FILE.read_text() == RECIPE.replace("vllm-0.31.0", "vllm").replace("==0.31.*", "==0.32.*")
    assert recipectl("lock", "--check", "real").returncode == 0
    assert recipectl("versions", "real").returncode == 0


def test_a_flag_that_the_other_vllm_does_not_have_stops_nothing() -> None:
    text = FILE.read_text().replace(
        "enforce_eager: true,", "enforce_eager: true, custom_histogram_buckets: '1,2',"
    )
    FILE.write_text(text)
    pid = show("real", "MainPID")
    result = recipectl("upgrade", "real", "--to", str(EARLIER), timeout_sec=600)
    assert (result.returncode, show("real", "MainPID")) == (1, pid)
    assert "`--custom-histogram-buckets` is not an option of vllm 0.31.0" in result.stderr
    assert FILE.read_text() == text
    FILE.write_text(text.replace(" custom_histogram_buckets: '1,2',", ""))


def test_a_kill_while_the_other_vllm_loads_brings_the_first_one_back() -> None:
    text = FILE.read_text()
    assert recipectl("upgrade", "real", "--to", str(EARLIER), "--no-block").returncode == 0
    end = time.monotonic() + 300
    while json.loads(RECORD.read_text())["step"] != "start" and time.monotonic() < end:
        time.sleep(0.1)
    time.sleep(5)
    systemctl("kill", "--signal=KILL", "--kill-who=main", "recipectl-upgrade@real.service")
    while json.loads(RECORD.read_text())["step"] != "failed" and time.monotonic() < end:
        time.sleep(0.5)
    assert (version()[:6], FILE.read_text()) == ("0.32.0", text)


def test_a_rollback_brings_the_earlier_vllm_back() -> None:
    result = recipectl("rollback", "real", timeout_sec=600)
    assert result.returncode == 0, result.stdout + result.stderr
    assert (version()[:6], FILE.read_text()) == ("0.31.0", RECIPE)
    assert recipectl("lock", "--check", "real").returncode == 0
