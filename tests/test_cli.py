"""What the verbs say that need no systemd."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner
from conftest import make_venv

from recipectl.cli import recipectl
from recipectl.errors import RecipectlError


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
    for result in (
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
        assert result in folded
    facts = json.loads(run("explain", "--json", str(file)))[0]
    assert [word["text"] for word in facts["words"]] == facts["argv"]
    assert all(word["place"].startswith(f"{file}:") for word in facts["words"])
    unit = run("compile", str(file)).partition("[X-Recipectl]")[0]
    settings = [item["setting"] for item in facts["settings"]]
    own = ("ExecStart=", "Environment=", "Description=")
    assert sorted(settings) == sorted(
        line
        for line in unit.replace("\\\n    ", "").splitlines()
        if "=" in line and not line.startswith(("#", *own))
    )


def process(
    *words: str, environment: dict[str, str] | None = None, output: str | None = None
) -> tuple[int, str]:
    """The exit status and standard error of a whole process; standard output goes to the file `output`."""
    with Path(output or os.devnull).open("w") as stdout:
        done = subprocess.run(
            [sys.executable, "-m", "recipectl", *words],
            stdout=stdout, stderr=subprocess.PIPE, text=True, check=False, env=os.environ | (environment or {}),
        )  # fmt: skip
    return done.returncode, done.stderr


@pytest.fixture
def home(tmp_path: Path) -> dict[str, str]:
    """A user without a service manager who has one recipe, `m`."""
    recipes = tmp_path / "config/recipectl/recipes"
    recipes.mkdir(parents=True)
    recipe = {"backend": "llamacpp", "binary": "/bin/true", "model_path": "m"}
    (recipes / "m.json").write_text(json.dumps(recipe))
    return {
        "HOME": str(tmp_path),
        "XDG_CONFIG_HOME": str(tmp_path / "config"),
        "XDG_RUNTIME_DIR": str(tmp_path / "no-manager"),
        "XDG_CACHE_HOME": str(tmp_path / "cache"),
    }


@pytest.mark.parametrize("words", [("--help",), ("--user", "list"), ("--user", "compile")], ids=" ".join)
def test_a_full_output_ends_in_one_line(home: dict[str, str], words: tuple[str, ...]) -> None:
    status, errors = process(*words, environment=home, output="/dev/full")
    lines = [line for line in errors.splitlines() if "states are unknown" not in line]
    assert (status, lines) == (
        1, ["standard output cannot be written: No space left on device; the output is incomplete"],
    )  # fmt: skip


def test_closed_standard_files_hurt_nothing(home: dict[str, str], tmp_path: Path) -> None:
    folder = tmp_path / "units"

    def run(words: str) -> tuple[int, str]:
        script = f"{sys.executable} -m recipectl --user {words}"
        done = subprocess.run(
            ["sh", "-c", script], capture_output=True, text=True, check=False, env=os.environ | home
        )
        return done.returncode, done.stderr

    failure = "standard output cannot be written: Bad file descriptor; the output is incomplete\n"
    assert run("compile >&-") == (1, failure)
    assert run("compile >&- 2>&- <&-") == (1, "")
    assert run("no-such-verb 2>&-") == (2, "")
    # Nothing is printed, so nothing is lost; and no unit has got the number of a closed file.
    assert run(f"compile -o {folder} >&- 2>&- <&-") == (0, "")
    assert [path.read_text()[:9] for path in folder.glob("model-*")] == ["# Written"]


def test_a_reader_that_leaves_is_no_error(home: dict[str, str]) -> None:
    words = f"{sys.executable} -m recipectl --user compile | head -n 1"
    done = subprocess.run(
        ["sh", "-c", words], capture_output=True, text=True, check=False, env=os.environ | home
    )
    assert (done.stdout.startswith("# Written by recipectl"), done.stderr) == (True, "")


def test_a_missing_program_is_named(home: dict[str, str]) -> None:
    status, errors = process("--user", "logs", "m", environment=home | {"PATH": "/nonexistent"})
    sentence = "journalctl cannot be run (No such file or directory); install it, or correct PATH\n"
    assert (status, errors) == (1, sentence)


@pytest.mark.parametrize("verb", ["start", "stop", "wait", "status", "logs", "enable", "remove"])
@pytest.mark.parametrize("name", ["sm*", "a b", "[x]", "", "é"])
def test_a_name_that_is_none_ends_in_a_sentence(home: dict[str, str], verb: str, name: str) -> None:
    with pytest.raises(RecipectlError) as caught:
        CliRunner(env=home).invoke(
            recipectl, ("--user", verb, name), standalone_mode=False, catch_exceptions=False
        )
    assert caught.value.status == 2
    assert re.search(r"; .*(recipectl --user list|correct it|put one there|give)", str(caught.value))


def test_the_bus_is_opened_when_it_is_needed(home: dict[str, str]) -> None:
    """A wrong host file is reported first: no connection is made before the recipes are compiled."""
    host = Path(home["XDG_CONFIG_HOME"], "recipectl/host.yaml")
    host.write_text("drift: maybe\n")
    _, errors = process("--user", "apply", environment=home)
    assert errors.startswith(f"{host}:1:8: `drift` is `maybe`")
    host.unlink()
    status, errors = process("--user", "apply", environment=home)
    assert (status, "there is no connection to your own service manager" in errors) == (1, True)
    assert "log in with a session that has one" in errors


@pytest.mark.parametrize("verb", ["compile", "check"])
def test_json_has_the_problems_as_values(home: dict[str, str], verb: str) -> None:
    file = Path(home["XDG_CONFIG_HOME"], "recipectl/recipes/bad.yaml")
    file.write_text("model_path: m\nport: 0\n")
    done = CliRunner(env=home).invoke(recipectl, ("--user", verb, "--json"), standalone_mode=False)
    (problem,) = json.loads(done.stdout)["problems"]
    assert problem == {
        "file": str(file), "line": 2, "column": 7, "key": "port", "kind": "value",
        "sentence": "`port` is `0`; give at least 1", "severity": "error",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("verb", "empty"),
    [
        ("compile", {"units": []}),
        ("check", {"models": []}),
        ("diff", {"changed": False, "actions": [], "diff": {}, "drop_ins": [], "left": [], "ok": False}),
        ("apply", {"changed": False, "actions": [], "diff": {}, "drop_ins": [], "left": [], "ok": False}),
        ("gateway", {}),
    ],
)
def test_json_has_the_error_that_ends_a_verb(
    home: dict[str, str], tmp_path: Path, verb: str, empty: dict[str, object]
) -> None:
    file = Path(home["XDG_CONFIG_HOME"], "recipectl/host.yaml")
    file.write_text("environment: {}\nno_such_key: 1\n")
    output = tmp_path / "output"
    status, _ = process("--user", verb, "--json", environment=home, output=str(output))
    printed = json.loads(output.read_text())
    (problem,) = printed.pop("problems")
    assert (printed, status) == (empty, 2)
    if verb != "gateway":
        assert (problem["file"], problem["line"], problem["severity"]) == (str(file), 2, "error")
