"""What people who know systemctl type, and what recipectl answers: the part that needs no systemd."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from pseudo_terminal import on_terminal

from recipectl.cli import terminal
from recipectl.engines import phases
from recipectl.recipe import search

FIRST = '{"backend": "llamacpp", "binary": "/bin/true", "port": 8001, "model_path": "m"}'


@pytest.fixture
def home(tmp_path: Path) -> dict[str, str]:
    """A user without a service manager, and with three recipes."""
    recipes = tmp_path / "config/recipectl/recipes"
    recipes.mkdir(parents=True)
    for port, name in enumerate(("llama", "qwen3-8b", "qwen3-32b"), 8001):
        (recipes / f"{name}.json").write_text(FIRST.replace("8001", str(port)))
    return {
        "HOME": str(tmp_path),
        "XDG_CONFIG_HOME": str(tmp_path / "config"),
        "XDG_RUNTIME_DIR": str(tmp_path / "no-manager"),
        "XDG_CACHE_HOME": str(tmp_path / "cache"),
    }


def run(home: dict[str, str], *words: str) -> tuple[int, str, str]:
    done = subprocess.run(
        [sys.executable, "-m", "recipectl", *words], env=os.environ | home, capture_output=True, text=True,
        check=False, stdin=subprocess.DEVNULL,
    )  # fmt: skip
    return done.returncode, done.stdout, done.stderr


@pytest.mark.parametrize(
    ("words", "names"),
    [
        (("qwen*",), ["qwen3-32b", "qwen3-8b"]), (("*",), ["llama", "qwen3-32b", "qwen3-8b"]),
        (("qwen3-?b", "llama"), ["qwen3-8b", "llama"]), (("[ql]*", "llama"), ["llama", "qwen3-32b", "qwen3-8b"]),
    ],
    ids=str,
)  # fmt: skip
def test_a_pattern_stands_for_the_recipes_that_it_matches(
    home: dict[str, str], words: tuple[str, ...], names: list[str]
) -> None:
    status, output, _ = run(home, "--user", "runtime", "--json", *words)
    assert (status, sorted(names)) == (
        0,
        sorted(line.split('"')[3] for line in output.splitlines() if '"recipe"' in line),
    )


@pytest.mark.parametrize(
    "verb", ["start", "stop", "status", "logs", "wait", "enable", "apply", "compile", "remove", "lock"]
)
def test_a_pattern_that_matches_nothing_is_a_wrong_command_line(home: dict[str, str], verb: str) -> None:
    status, output, errors = run(home, "--user", verb, "mistral*")
    assert (status, output) == (2, "")
    assert errors == "no recipe or model matches `mistral*`; see `recipectl --user list`\n"


def test_all_and_names_exclude_each_other(home: dict[str, str]) -> None:
    status, _, errors = run(home, "--user", "stop", "--all", "llama")
    assert (status, "--all and names cannot be given together" in errors) == (2, True)


@pytest.mark.parametrize(
    ("words", "remedy"),
    [
        (("ls",), "use `recipectl list`"), (("ps",), "use `recipectl status`"), (("rm", "a"), "use `recipectl remove`"),
        (("version",), "use `recipectl --version`"), (("reload", "a"), "use `recipectl restart`"),
        (("logs", "--tail", "3", "a"), "use `-n LINES`"), (("logs", "--json", "a"), "use `-o json`"),
        (("logs", "-u", "a"), "name the recipe alone"), (("logs", "--utc", "a"), "use `journalctl -u model-NAME --utc`"),
        (("logs", "--colour", "a"), "see `recipectl help logs`"),
    ],
    ids=str,
)  # fmt: skip
def test_the_words_of_other_tools_are_answered_with_ours(
    home: dict[str, str], words: tuple[str, ...], remedy: str
) -> None:
    status, _, errors = run(home, *words)
    assert (status, errors.splitlines()[-1].endswith(f"; {remedy}")) == (2, True), errors


@pytest.mark.parametrize(
    "verb", ["is-active", "is-enabled", "is-failed", "cat", "show", "kill", "try-restart", "unmask"]
)
def test_a_verb_of_systemctl_is_answered_with_its_whole_command(home: dict[str, str], verb: str) -> None:
    assert run(home, verb, "llama", "-q") == (
        2, "", f"Error: recipectl has no `{verb}`; use `systemctl {verb} model-llama`\n",
    )  # fmt: skip
    assert f"use `systemctl --user {verb} model-a model-b`" in run(home, verb, "a", "b", "--user")[2]
    assert f"use `systemctl {verb} model-NAME`" in run(home, verb)[2]


def test_a_mask_needs_a_unit_that_is_gone(home: dict[str, str]) -> None:
    remedy = "`recipectl remove a`, then `systemctl mask model-a`"
    assert run(home, "mask", "a") == (2, "", f"Error: recipectl has no `mask`; use {remedy}\n")


@pytest.mark.parametrize(
    ("typed", "verb"),
    [("restrat", "restart"), ("stauts", "status"), ("strat", "start"), ("isactive", "is-active")],
)
def test_a_verb_with_a_slip_is_answered_with_the_nearest(home: dict[str, str], typed: str, verb: str) -> None:
    assert run(home, typed) == (2, "", f"Error: recipectl has no `{typed}`; did you mean `{verb}`?\n")


@pytest.mark.parametrize(
    "words",
    [
        ("--user", "--json", "runtime", "llama"), ("runtime", "llama", "--json", "--user"),
        ("runtime", "--user", "--no-pager", "-q", "--json", "llama"), ("-q", "runtime", "--json", "llama", "--user"),
    ],
    ids=" ".join,
)  # fmt: skip
def test_options_stand_before_or_behind_the_verb(home: dict[str, str], words: tuple[str, ...]) -> None:
    status, output, _ = run(home, *words)
    assert (status, output[:1]) == (0, "[")


def test_the_words_of_an_engine_are_not_options_of_recipectl(home: dict[str, str]) -> None:
    words = ("vllm", "serve", "m", "--host", "::1", "--port", "8001")
    first, second = run(home, "import", "command", *words), run(home, "import", "command", "--", *words)
    assert first[:2] == second[:2]
    assert (first[0], "host: ::1" in first[1] or 'host: "::1"' in first[1]) == (0, True)


@pytest.mark.parametrize("verb", ["start", "logs", "import"])
def test_help_and_a_verb_is_the_help_of_the_verb(home: dict[str, str], verb: str) -> None:
    assert run(home, "help", verb) == run(home, verb, "--help")
    assert run(home, "help") == run(home, "--help")


@pytest.mark.parametrize("verb", ["status", "list", "versions"])
def test_a_host_without_recipes_is_told_in_one_line(home: dict[str, str], verb: str, tmp_path: Path) -> None:
    status, output, errors = run(home | {"XDG_CONFIG_HOME": str(tmp_path / "none")}, "--user", verb)
    lines = [line for line in errors.splitlines() if not line.startswith("warning: states are unknown")]
    assert (output, len(lines)) == ("", 1)
    assert lines[0].startswith(f"no recipes in {tmp_path}/none/recipectl/recipes, ")
    assert "begin with an example in" in lines[0]
    assert status in (0, 1)  # list: there is no manager here


def test_an_empty_folder_and_none_are_told_by_apply(home: dict[str, str], tmp_path: Path) -> None:
    status, _, errors = run(home | {"XDG_CONFIG_HOME": str(tmp_path / "none")}, "--user", "apply")
    assert (status, errors.count("\n")) == (1, 1)
    assert errors.startswith(f"no recipes in {tmp_path}/none/recipectl/recipes")


def test_a_file_that_was_never_applied_is_told_by_start(home: dict[str, str], tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("model_path: org/m\n")
    for verb in ("start", "restart", "stop", "wait"):
        status, output, errors = run(home, "--user", verb, str(file))
        assert (status, output) == (2, "")
        assert errors == f"{file} has no unit yet; write it with `recipectl --user apply {file}`\n"


@pytest.mark.parametrize(
    "verb",
    ["compile", "explain", "runtime", "lock", "show-command", "edit", "status", "logs", "remove"],
)
def test_a_wrong_name_gets_the_same_sentence_from_every_verb(home: dict[str, str], verb: str) -> None:
    status, output, errors = run(home, "--user", verb, "qwen3-8")
    folders = f"{home['XDG_CONFIG_HOME']}/recipectl/recipes, {home['XDG_RUNTIME_DIR']}/recipectl/recipes"
    assert (status, output) == (2, "")
    assert errors.splitlines()[0] == f"there is no recipe `qwen3-8` in {folders}; did you mean `qwen3-8b`?"


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("a.yal", "a recipe ends in .yaml, .yml or .json, as a.yaml does"), ("a.YAML", "as a.yaml does"),
        ("a.Yml", "as a.yml does"), ("a.yaml.disabled", "as a.yaml.yaml does"), ("team/a.yaml", "not in subfolders"),
        ("deep/er/a.json", "not in subfolders"), ("../a.yaml", "recipes are in"), ("../host.yml", "the host file is host.yaml"),
        ("a.lock", "there is no recipe a"), ("a", "as a.yaml does"),
    ],
)  # fmt: skip
def test_a_file_that_looks_like_a_recipe_and_is_never_read_is_told(
    tmp_path: Path, name: str, reason: str
) -> None:
    folder = tmp_path / "recipes"
    folder.mkdir()
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("model_path: m\n")
    (problem,) = search.unread_files((folder,))
    assert (problem.severity, reason in problem.sentence) == ("warning", True)
    assert Path(problem.file).resolve() == path.resolve()


@pytest.mark.parametrize(
    "name", ["README.md", "README", "a.yaml~", "a.yaml.bak", ".a.yaml.swp", ".git/a.yaml", "a.yaml.dpkg-old", "../host.yaml",
             "a.yaml.rpmnew", "../gateway.keys", "LICENSE"],
)  # fmt: skip
def test_what_people_keep_beside_recipes_is_left_alone(tmp_path: Path, name: str) -> None:
    folder = tmp_path / "recipes"
    folder.mkdir()
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("model_path: m\n")
    assert search.unread_files((folder,)) == ()


def test_list_fits_on_a_terminal_and_is_whole_in_a_pipe(home: dict[str, str]) -> None:
    long = "qwen3-235b-a22b-instruct-2507-fp8-tensor-parallel-8-nodes-2"
    Path(home["XDG_CONFIG_HOME"], f"recipectl/recipes/{long}.json").write_text(FIRST.replace("8001", "8004"))
    _, output, _ = run(home, "--user", "list")
    assert long in output
    lines = [
        line for line in on_terminal("--user", "list", environment=home).splitlines() if "not applied" in line
    ]
    assert len(lines) == 4
    assert max(map(len, lines)) <= 80
    assert any(line.startswith("qwen3-235b") and "…" in line and long not in line for line in lines)


def test_colours_are_for_terminals_alone(home: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    assert terminal.coloured("failed") == "\033[1;31mfailed\033[0m"
    assert terminal.coloured("ready") == "\033[32mready\033[0m"
    assert terminal.coloured("ready, socket failed") == "\033[1;31mready, socket failed\033[0m"
    assert terminal.coloured("stopped") == "stopped"
    monkeypatch.setenv("NO_COLOR", "1")
    assert terminal.coloured("failed") == "failed"
    monkeypatch.delenv("NO_COLOR")
    monkeypatch.setenv("TERM", "dumb")
    assert terminal.coloured("failed") == "failed"


@pytest.mark.parametrize(
    ("line", "phase"),
    [
        ("Loading safetensors checkpoint shards:  36% Completed | 12/33 [00:05<00:09,  2.2it/s]", "loading weights 12 of 33"),
        ("Multi-thread loading shards: 12% Completed | 4/33 [00:01<00:05]", "Multi-thread loading shards: 12% Completed | 4/33 [00:01<00:05]"),
        ("Capturing CUDA graphs (mixed prefill-decode, PIECEWISE):  45%|████| 30/67 [00:01<00:01]", "capturing graphs 30 of 67"),
        ("[2026-11-27 05:00:00] Capture cuda graph begin. This can take up to several minutes. avail mem=8 GB", "capturing graphs"),
        ("INFO 11-27 05:00:00 [gpu_model_runner.py:5040] Starting to load model /models/x...", "loading weights"),
        ("INFO [kv_cache_utils.py:1] GPU KV cache size: 1,000 tokens", "its KV cache is allocated"),
        ("Loading pt checkpoint shards:   0% Completed | 0/2\rLoading pt checkpoint shards:  50% Completed | 1/2", "loading weights 1 of 2"),
        ("something else", "something else"),
    ],
)  # fmt: skip
def test_the_engines_own_words_tell_how_far_a_load_is(line: str, phase: str) -> None:
    assert phases.of_line(line) == phase


def editor(folder: Path, body: str) -> str:
    path = folder / "editor"
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(0o755)
    return str(path)


def test_edit_checks_a_recipe_before_it_takes_its_place(home: dict[str, str], tmp_path: Path) -> None:
    file = Path(home["XDG_CONFIG_HOME"], "recipectl/recipes/llama.json")
    wrong = {"EDITOR": editor(tmp_path, """sed -i 's/"m"}/"m", "gpus": [-1]}/' "$1" """)}
    status, output, errors = run(home | wrong, "--user", "edit", "llama")
    assert (status, output, file.read_text()) == (2, "", FIRST)
    assert f"{file}:1:" in errors
    kept = Path(errors.rstrip().rpartition(" ")[2])
    assert '"gpus": [-1]' in kept.read_text()
    right = {"EDITOR": editor(tmp_path, """sed -i 's/"m"}/"m", "host": "::1"}/' "$1" """)}
    status, output, errors = run(home | right, "--user", "edit", "llama")
    assert (status, '"host": "::1"' in file.read_text()) == (0, True)
    assert '+{"backend": "llamacpp"' in output
    assert errors == "apply it with `recipectl --user apply llama`\n"
    unchanged = {"EDITOR": editor(tmp_path, "exit 0")}
    assert run(home | unchanged, "--user", "edit", "llama") == (0, "", f"{file} is unchanged\n")
    failed = {"EDITOR": editor(tmp_path, "exit 3")}
    assert run(home | failed, "--user", "edit", "llama")[0] == 1
    assert sorted(path.name for path in file.parent.glob(".recipectl-*")) == [kept.parent.name]


def completed(home: dict[str, str], *words: str) -> list[str]:
    """What bash gets for TAB behind the last word: `TYPE,VALUE` each."""
    completing = {
        "COMP_WORDS": " ".join(("recipectl", *words)),
        "COMP_CWORD": str(len(words)),
        "_RECIPECTL_COMPLETE": "bash_complete",
    }
    script = str(Path(sys.executable).with_name("recipectl"))
    done = subprocess.run(
        [script], env=os.environ | home | completing, capture_output=True, text=True, check=False
    )
    return done.stdout.split()


@pytest.mark.parametrize(
    ("words", "completions"),
    [
        (("sta",), ["plain,start", "plain,status"]), (("start", "--no"), ["plain,--no-block"]),
        (("--user", "start", "q"), ["plain,qwen3-32b", "plain,qwen3-8b"]), (("start", "--user", "l"), ["plain,llama"]),
        (("--user", "logs", "-f", "ll"), ["plain,llama"]), (("--user", "edit", "ll"), ["plain,llama"]),
        (("import", "c"), ["plain,command", "plain,compose"]), (("import", "compose", "./a"), ["file,./a"]),
        (("hel",), ["plain,help"]), (("help", "rest"), ["plain,restart"]), (("logs", "-p", "e"), ["plain,emerg", "plain,err"]),
        (("logs", "-o", "c"), ["plain,cat"]), (("import", "command", "--", "ll"), ["plain,llama-server"]),
        (("import", "command", "-o", "/t"), ["file,/t"]), (("import", "command", "./s"), ["file,./s"]),
        (("import", "unit", "x"), ["file,x"]), (("apply", "./re"), ["file,./re"]), (("compile", "-o", "/t"), ["file,/t"]),
    ],
    ids=str,
)  # fmt: skip
def test_tab_completes_verbs_options_recipes_engines_and_files(
    home: dict[str, str], words: tuple[str, ...], completions: list[str]
) -> None:
    assert completed(home, *words) == completions


def test_a_wrong_host_file_hides_no_recipe_from_the_list(home: dict[str, str]) -> None:
    host = Path(home["XDG_CONFIG_HOME"], "recipectl/host.yaml")
    host.write_text("enviroment: {}\n")
    status, output, errors = run(home, "--user", "list")
    assert (status in (1, 2), errors.startswith(f"{host}:1:1: `enviroment`")) == (True, True)
    assert [line.split()[0] for line in output.splitlines()[1:]] == ["llama", "qwen3-32b", "qwen3-8b"]
    assert f"recipe is wrong  {host}" in output


def test_edit_with_force_begins_a_new_recipe(home: dict[str, str], tmp_path: Path) -> None:
    file = Path(home["XDG_CONFIG_HOME"], "recipectl/recipes/new.yaml")
    text = 'printf "backend: llamacpp\\nbinary: /bin/true\\nmodel_path: m\\nport: 8009\\n" >"$1"'
    right = {"EDITOR": editor(tmp_path, text)}
    assert run(home | right, "--user", "edit", "new")[0] == 2
    status, output, _ = run(home | right, "--user", "edit", "--force", "new")
    assert (status, f"wrote {file}" in output, "port: 8009" in file.read_text()) == (0, True, True)
    assert run(home | {"EDITOR": "true"}, "--user", "edit", "--force", "other")[0] == 0
    assert not file.with_name("other.yaml").exists()


def test_edit_with_a_wrong_host_file_loses_nothing(home: dict[str, str], tmp_path: Path) -> None:
    host = Path(home["XDG_CONFIG_HOME"], "recipectl/host.yaml")
    host.write_text("drift: maybe\n")
    changes = {"EDITOR": editor(tmp_path, """sed -i 's/"m"}/"m", "host": "::1"}/' "$1" """)}
    status, output, errors = run(home | changes, "--user", "edit", "llama")
    assert (status, output, errors.startswith(f"{host}:1:8: `drift` is `maybe`")) == (2, "", True)
    kept = Path(errors.rstrip().rpartition(" ")[2])
    assert '"host": "::1"' in kept.read_text()
