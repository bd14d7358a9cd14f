"""What the verbs say that need no systemd."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner
from conftest import make_venv

from recipectl.cli import recipectl


def run(*words: str) -> str:
    return CliRunner().invoke(recipectl, words, catch_exceptions=False).stdout


def test_the_engine_of_the_callers_shell_is_told_when_it_is_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine, other = make_venv(tmp_path / "v", "vllm"), make_venv(tmp_path / "w", "vllm", version="0.11.0")
    file = tmp_path / "a.json"
    file.write_text(json.dumps({"python_path": f"{mine}/bin/python", "model_path": "org/m", "user": "root"}))
    monkeypatch.setenv("PATH", f"{other}/bin")
    assert f"your shell   finds another engine: {other}/bin/vllm, version 0.11.0" in run("runtime", str(file))
    monkeypatch.setenv("PATH", f"{mine}/bin")
    assert "your shell" not in run("runtime", str(file))


def test_explain_is_one_screen_with_the_place_of_every_word_variable_and_setting(tmp_path: Path) -> None:
    venv, file = make_venv(tmp_path / "v", "vllm"), tmp_path / "a.yaml"
    lines = [
        f"python_path: {venv}/bin/python",
        "model_path: org/m",
        "user: root",
        "port: 8001",
        "gpus: [0]",
        "max_model_len: 4096",
        "tool_call_parser: hermes",
        "env_vars: {HF_HOME: /srv/hf, GREETING: two words}",
        "extra_args: {enable_prefix_caching: true}",
        "service: {Nice: 5, LimitNOFILE: 10}",
    ]
    file.write_text("\n".join(lines))
    screen = run("explain", str(file))
    assert sum(1 + len(line) // 120 for line in screen.splitlines()) <= 50
    folded = " ".join(screen.split())
    for said in (
        f"{venv}/bin/vllm serve (a.yaml:1)",
        "org/m (a.yaml:2)",
        "--port 8001 (a.yaml:4)",
        "CUDA_VISIBLE_DEVICES=0 (a.yaml:5)",
        "--max-model-len 4096 (a.yaml:6)",
        "--tool-call-parser hermes (a.yaml:7)",
        "GREETING=two words (a.yaml:8)",
        "HF_HOME=/srv/hf (a.yaml:8, over directories's `/var/cache/models/a/huggingface`)",
        "--enable-prefix-caching (a.yaml:9)",
        "Nice=5 (a.yaml:10) LimitNOFILE=10 (a.yaml:10)",
        "LimitNOFILE=1048576 TasksMax=infinity",
        "User=root (a.yaml:3)",
    ):
        assert said in folded
    facts = json.loads(run("explain", "--json", str(file)))[0]
    assert [word["text"] for word in facts["words"]] == facts["argv"]
    assert all(word["place"].startswith(f"{file}:") for word in facts["words"])
    unit = run("compile", str(file)).partition("[X-Recipectl]")[0]
    settings = [one["setting"] for one in facts["settings"]]
    own = ("ExecStart=", "Environment=", "Description=")
    assert sorted(settings) == sorted(
        line
        for line in unit.replace("\\\n    ", "").splitlines()
        if "=" in line and not line.startswith(("#", *own))
    )
