"""What fails around recipectl, or lies to it: one sentence tells of it, and nothing is taken for right."""

import argparse
import json
import os
import resource
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from recipectl import rivals, tie_state
from recipectl.cli import failures, recipectl
from recipectl.command_line import in_order
from recipectl.converge import apply, copies
from recipectl.errors import Problem, RecipectlError, UsageError
from recipectl.machine import lockfile, sockets, systemd_analyze
from recipectl.place import Place
from recipectl.systemd.states import UnitState
from recipectl.systemd.unitfile import InstalledUnit


def program(folder: Path, name: str, script: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Put a program in front of those of the host."""
    file = folder / name
    file.write_text(f"#!/bin/sh\n{script}\n")
    file.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")


def test_accounts_that_were_not_created_are_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program(tmp_path, "systemd-sysusers", "exit 1", monkeypatch)
    with pytest.raises(
        RecipectlError,
        match="the accounts model-a could not be created: systemd-sysusers ended with status 1",
    ):
        apply.create_accounts((), ("model-a",))


def test_settings_that_nothing_has_checked_are_not_taken_for_right(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program(tmp_path, "systemd-analyze", "exit 0", monkeypatch)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "full"))
    with pytest.raises(UsageError, match="systemd-analyze could not check `service:`"):
        systemd_analyze.ignored_settings((("Service", "Nice=1"),))


def test_a_path_that_cannot_be_asked_for_is_not_missing() -> None:
    unit = InstalledUnit("model-a.service", f"[Unit]\nAssertPathExists=/{'x' * 300}\n")
    state = UnitState("model-a.service", load_state="loaded", active_state="inactive", sub_state="dead")
    assert failures._failed_check(state, unit) is None


LIES: dict[str, Any] = {
    "no list": {"hosts": 5},
    "a number for a list": {"connected": 5},
    "a text for a list": {"connected": "0", "versions": ["a"]},
    "line feeds": {"hosts": ["a\nmodel-b: ready", "b"]},
}


@pytest.mark.parametrize("lie", LIES)
def test_what_a_tie_wrote_is_not_trusted(lie: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    file = tmp_path / "model-a-tie/state"
    file.parent.mkdir()
    truth = {
        "hosts": ["a", "b"],
        "rank": 0,
        "connected": [0],
        "versions": {},
        "complete": False,
        "ready": False,
    }
    file.write_text(json.dumps(truth | LIES[lie]))
    state = tie_state.state_of("model-a-tie", user=True)
    assert state is None or (state["connected"] in ([], [0]) and "\n" not in "".join(state["hosts"]))


def test_a_pipe_in_place_of_what_a_tie_wrote_is_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    (tmp_path / "model-a-tie").mkdir()
    os.mkfifo(tmp_path / "model-a-tie/state")
    assert tie_state.state_of("model-a-tie", user=True) is None


def test_notes_that_cannot_be_read_are_not_replaced(tmp_path: Path) -> None:
    notes = tmp_path / "copies.json"
    assert copies._read_notes(notes) == {}
    notes.write_text("{")
    with pytest.raises(RecipectlError, match=r"copies\.json cannot be read"):
        copies._read_notes(notes)


def test_a_service_manager_that_does_not_answer_stops_nobodys_start() -> None:
    options = argparse.Namespace(user=True, units=["a=1", "b=2"], patience_sec=0.1, at_once=False)
    assert rivals.wait_until_idle(options) == 0


IMPORTS = {
    "a file in place of the folder": (["import", "command", "-o", "file", "--", "vllm", "serve", "a/b"], b"", "file could not be written: file is not a folder; move it away"),
    "bytes that are no text": (["import", "command", "-"], b"vllm serve \xff\n", "is not UTF-8 at byte 11"),
}  # fmt: skip


@pytest.mark.parametrize("case", IMPORTS)
def test_an_import_that_cannot_read_or_write_says_so(
    case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words, content, sentence = IMPORTS[case]
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("")
    result = CliRunner().invoke(recipectl, words, input=content)
    assert isinstance(result.exception, RecipectlError)
    assert sentence in str(result.exception)


def test_json_may_stand_before_the_verb_of_a_group() -> None:
    assert in_order(["--json", "fleet", "check"]) == ["fleet", "check", "--json"]


@pytest.fixture
def head(tmp_path: Path) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    """The tie of the head of three hosts, and its port."""
    with socket.create_server(("127.0.0.1", 0)) as sock:
        port = sock.getsockname()[1]
    hosts = ("a=127.0.0.1", "b=127.0.0.2", "c=127.0.0.3")
    asking = ("--ask-address", "127.0.0.1", "--ask-port", "1", "--path", "/health", "--model", "m")
    words = (
        "tie",
        "--address",
        "127.0.0.1",
        "--port",
        str(port),
        "--rank",
        "0",
        "--set",
        "x",
        "--version",
        "1",
    )
    process = subprocess.Popen(
        [sys.executable, "-m", "recipectl.health", *words, *asking, *hosts],
        env=os.environ | {"RUNTIME_DIRECTORY": str(tmp_path)},
        stderr=subprocess.DEVNULL,
    )
    try:
        yield process, port
    finally:
        process.kill()
        process.wait()


def hello(port: int, rank: int) -> socket.socket:
    """A host of the set that has just connected."""
    end = time.monotonic() + 30
    while True:
        try:
            source = (f"127.0.0.{rank + 1}", 0)
            sock = socket.create_connection(("127.0.0.1", port), source_address=source)
        except ConnectionRefusedError:
            assert time.monotonic() < end
            time.sleep(0.05)
        else:
            sock.settimeout(30)
            sock.sendall(json.dumps({"rank": rank, "set": "x", "version": "1"}).encode() + b"\n")
            return sock


def connected(folder: Path, ranks: list[int]) -> None:
    """Wait until a tie has just these hosts."""
    end = time.monotonic() + 30
    while not (folder / "state").exists() or json.loads((folder / "state").read_text())["connected"] != ranks:
        assert time.monotonic() < end
        time.sleep(0.05)


def test_a_host_that_begins_anew_replaces_its_connection_until_the_set_is_complete(
    head: tuple[subprocess.Popen[bytes], int], tmp_path: Path
) -> None:
    process, port = head
    with hello(port, 1) as first:
        connected(tmp_path, [0, 1])
        with hello(port, 1):
            while first.recv(65536):  # until the head ends it
                pass
            connected(tmp_path, [0, 1])
            with hello(port, 2):
                connected(tmp_path, [0, 1, 2])
                assert process.poll() is None
                with hello(port, 1):
                    assert process.wait(30) == 1


@pytest.fixture
def recipes_of_user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A user's own recipes: `a`."""
    for variable in ("CONFIG", "CACHE", "DATA", "RUNTIME", "STATE"):
        name = "XDG_RUNTIME_DIR" if variable == "RUNTIME" else f"XDG_{variable}_HOME"
        monkeypatch.setenv(name, str(tmp_path / variable))
    folder = tmp_path / "CONFIG/recipectl/recipes"
    folder.mkdir(parents=True)
    (folder / "a.yaml").write_text("backend: llamacpp\nmodel_path: m\n")
    monkeypatch.chdir(tmp_path)
    return folder


def test_a_file_is_about_its_own_model_alone(recipes_of_user: Path, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    for name in ("a", "b"):
        (tmp_path / f"other/{name}.yaml").write_text("garbage")
    refused = {
        "other/a.yaml": f"other/a.yaml is not the recipe of `a`, which is {recipes_of_user}/a.yaml; name the model: `a`",
        "/nope/a.yaml": "/nope/a.yaml is not the recipe of `a`",
        "/nope/b.json": "there is no file /nope/b.json; name the model, or correct the path",
        "other/b.yaml": "other/b.yaml has no unit yet; write it with `recipectl --user apply other/b.yaml`",
    }
    for verb in ("stop", "start", "remove", "status", "enable", "logs"):
        for word, sentence in refused.items():
            result = CliRunner().invoke(recipectl, ["--user", verb, word])
            assert isinstance(result.exception, UsageError), (verb, word, result.exception)
            assert sentence in str(result.exception), (verb, word)


@pytest.mark.parametrize("word", ["a", "a.yaml", "model-a", "model-a.service"])
def test_a_model_is_known_by_each_of_its_names(word: str, recipes_of_user: Path) -> None:
    result = CliRunner().invoke(recipectl, ["--user", "explain", word])
    assert f"{recipes_of_user}/a.yaml" in f"{result.output}{result.exception}", result.exception


def test_no_editor_is_opened_without_a_terminal(
    recipes_of_user: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("SYSTEMD_EDITOR", "VISUAL", "EDITOR"):
        monkeypatch.delenv(name, raising=False)
    result = CliRunner().invoke(recipectl, ["--user", "edit", "a"])
    assert isinstance(result.exception, UsageError)
    assert "there is no terminal for an editor; name a program in EDITOR=" in str(result.exception)


@pytest.mark.parametrize("mode", [0o755, 0o750])
def test_a_lock_says_what_it_does_not_hold(mode: int, recipes_of_user: Path, tmp_path: Path) -> None:
    binary = tmp_path / "llama-server"
    binary.write_text("#!/bin/sh\n")
    binary.chmod(mode)
    (recipes_of_user / "a.yaml").write_text(f"backend: llamacpp\nbinary: {binary}\nmodel_path: m\n")
    result = CliRunner().invoke(recipectl, ["--user", "lock", "a"])
    warning = f"a: the lock has no digest of {binary}, so a change there is not noticed"
    assert (result.exit_code, warning in result.stderr) == (0, mode == 0o750), result.output


@pytest.mark.parametrize("span", ["nan", "-1", "soon"])
def test_a_time_to_wait_is_a_span(span: str, recipes_of_user: Path) -> None:
    result = CliRunner().invoke(recipectl, ["--user", "wait", f"--timeout={span}", "a"])
    assert (result.exit_code, "give seconds, or a span such as `15min`" in result.output) == (2, True)


def test_an_import_that_cannot_be_written_leaves_no_file(tmp_path: Path) -> None:
    def no_space() -> None:  # SIGXFSZ is ignored by Python: a write is an error then
        resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))

    words = [sys.executable, "-B", "-m", "recipectl", "import", "command", "-o", str(tmp_path / "new")]
    done = subprocess.run(
        [*words, "--", "llama-server", "-m", "/models/m.gguf"],
        capture_output=True, text=True, check=False, preexec_fn=no_space,
    )  # fmt: skip
    assert (done.returncode, [*(tmp_path / "new").iterdir()]) == (1, []), done.stderr


def test_a_log_is_read_within_limits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    endless = """yes '{"MESSAGE": "'$(head -c 5000 /dev/zero | tr '\\0' x)'"}'"""
    program(tmp_path, "journalctl", endless, monkeypatch)
    lines = failures.log_lines(Place(), "model-a.service", 8)
    assert (len(lines), {len(line) for line in lines}) == (8, {1001})


def test_names_with_line_feeds_stay_on_their_line() -> None:
    lock: dict[str, Any] = {"interpreter": "", "interpreter_file": "", "interpreter_sha256": ""}
    lock |= {"python_version": None, "folder": "", "distributions": {}, "at_start": {"x\nb: well.pth": "1"}}
    assert lockfile.differences(lock, lock | {"at_start": {}}) == ["x?b: well.pth is gone"]  # type: ignore[arg-type]
    assert str(Problem(file="a\nb", sentence="is wrong")) == "a\\nb: is wrong"


def test_only_the_listeners_that_a_connection_reaches_count() -> None:
    with socket.create_server(("127.0.0.1", 0)) as own:
        port = own.getsockname()[1]
        with socket.socket(socket.AF_INET6) as other:
            other.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            other.bind(("::", port))
            other.listen()
            os.fchown(other.fileno(), 1, -1)
            assert sockets.reached_users(port, "127.0.0.1") == {0}
            assert sockets.reached_users(port, "::1") == {1}
            assert sockets.reached_users(port, "localhost") == {0, 1}


def test_words_that_are_no_files_are_no_tracebacks(recipes_of_user: Path) -> None:
    for word in (f"{'a' * 300}.yaml", "x.yaml"):
        result = CliRunner().invoke(recipectl, ["--user", "stop", word])
        assert isinstance(result.exception, UsageError), result.exception
