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
    assert f"your shell   finds another: {other}/bin/vllm, version 0.11.0" in run("runtime", str(file))
    monkeypatch.setenv("PATH", f"{mine}/bin")
    assert "your shell" not in run("runtime", str(file))
