"""Recipe files: what is read, and how each mistake is told."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from recipectl.cli.names import recipe_file
from recipectl.errors import RecipeError, UsageError
from recipectl.place import Place
from recipectl.recipe import load, search
from recipectl.recipe.hostfile import load_host_settings

Write = Callable[[str, str], Path]


def messages_of(path: Path) -> list[str]:
    with pytest.raises(RecipeError) as caught:
        load.load(path)
    return [str(problem).replace(str(path.parent) + "/", "") for problem in caught.value.problems]


MISTAKES = {
    "unknown key": ("model_path: /m\nmax_modle_len: 4\n", "a.yaml:2:1: `max_modle_len` is not a key of a recipe; did you mean `max_model_len`?"),
    "a list for a variable": ("model_path: /m\nenv_vars:\n  NCCL_DEBUG: [1]\n", "a.yaml:3:15: `env_vars.NCCL_DEBUG` is a list; give one value, in quotes if it looks like a number"),
    "null for a variable": ("model_path: /m\nenv_vars:\n  X:\n", "a.yaml:3:5: `env_vars.X` has no value; give one, or `\"\"` for an empty one"),
    "a port out of range": ("model_path: /m\nport: 70000\n", "a.yaml:2:7: `port` is `70000`; give at most 65535"),
    "a word for a number": ("model_path: /m\nport: web\n", "a.yaml:2:7: `port` is `web`; give a whole number"),
    "a key given twice": ("model_path: /m\nport: 1\nport: 2\n", "a.yaml:3:1: `port` is given twice (first on line 2); keep one of them"),
    "two names of one key": ("model_path: /m\ntp: 1\ntensor-parallel-size: 2\n", "a.yaml:3:1: `tp` and `tensor-parallel-size` are the same key, which is given twice (first on line 2); keep one of them"),
    "no model": ("backend: vllm\n", "a.yaml:1:1: `model_path` is missing; add it"),
    "an unknown engine": ("model_path: /m\nbackend: ollama\n", "a.yaml:2:10: `backend` is `ollama`; give one of 'vllm', 'sglang' or 'llamacpp'"),
    "another name than the file's": ("name: b\nmodel_path: /m\n", "a.yaml:1:7: `name` is `b` but the file is a.yaml; rename the file or remove the key (a title goes in `description:`)"),
    "not YAML": ("model_path: [\n", "a.yaml:2:1: a value is missing; add it, or close the `[` or `{` before"),
}  # fmt: skip


@pytest.mark.parametrize(("text", "sentence"), MISTAKES.values(), ids=MISTAKES.keys())
def test_a_mistake_is_told_with_its_place_and_its_remedy(write: Write, text: str, sentence: str) -> None:
    assert messages_of(write("a.yaml", text)) == [sentence]


def test_all_mistakes_of_a_file_are_told_at_once(write: Write) -> None:
    assert len(messages_of(write("a.yaml", "model_path: /m\nport: 0\nport: 1\nfoo: 1\n"))) == 3


def test_a_name_that_cannot_be_a_unit_name_is_refused(write: Write) -> None:
    assert "cannot be a unit name" in messages_of(write("a b.yaml", "model_path: /m\n"))[0]


def test_values_of_variables_are_taken_as_written(write: Write) -> None:
    recipe = load.load(write("a.yaml", "model_path: /m\nenv-vars: {A: 1, B: 0.50, C: yes, D: on}\n"))
    assert recipe.env_vars == {"A": "1", "B": "0.50", "C": "yes", "D": "on"}


def test_json_and_vllm_studios_names_are_read(write: Write) -> None:
    recipe = load.load(
        write("a.json", '{"id": "a", "model_path": "/m", "engine": "sglang", "tp": 2, "envVars": {"X": "1"}}')
    )
    assert (recipe.name, recipe.backend, recipe.tensor_parallel_size, recipe.env_vars) == (
        "a",
        "sglang",
        2,
        {"X": "1"},
    )


@pytest.mark.parametrize(("text", "gpus"), [("0", ("0",)), ("[0, 1]", ("0", "1")), ("0,1", ("0", "1"))])
def test_gpus_may_be_one_or_many(write: Write, text: str, gpus: tuple[str, ...]) -> None:
    assert load.load(write("a.yaml", f"model_path: /m\ngpus: {text}\n")).gpus == gpus


def test_the_first_folder_that_has_a_name_wins(write: Write, tmp_path: Path) -> None:
    write("etc/a.yaml", ""), write("usr/a.yaml", ""), write("usr/b.yaml", "")
    assert search.recipe_files((tmp_path / "etc", tmp_path / "usr")) == {
        "a": tmp_path / "etc/a.yaml",
        "b": tmp_path / "usr/b.yaml",
    }


def test_a_link_to_dev_null_masks_a_recipe(write: Write, tmp_path: Path) -> None:
    write("usr/a.yaml", "")
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/a.yaml").symlink_to("/dev/null")
    assert search.recipe_files((tmp_path / "etc", tmp_path / "usr")) == {}


def test_an_unknown_name_is_told_with_the_nearest(
    write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    write("recipectl/recipes/qwen.yaml", "")
    with pytest.raises(UsageError, match="did you mean `qwen`"):
        recipe_file("qwem", Place(user=True))


def test_drop_ins_merge_in_the_order_of_their_names(write: Write, tmp_path: Path) -> None:
    recipe = write("etc/a.yaml", "model_path: /m\nport: 1\nenv_vars: {A: 1, B: 1}\n")
    (
        write("etc/a.yaml.d/20.yaml", "env_vars: {B: 3}\n"),
        write("usr/a.yaml.d/10.yaml", "env_vars: {B: 2, C: 2}\nport: 2\n"),
    )
    paths = search.drop_ins("a", (tmp_path / "etc", tmp_path / "usr"))
    merged = load.load(recipe, *paths)
    assert (merged.port, merged.env_vars) == (2, {"A": "1", "B": "3", "C": "2"})


def test_a_mistake_in_a_drop_in_is_told_with_its_own_place(write: Write) -> None:
    recipe = write("a.yaml", "model_path: /m\n")
    with pytest.raises(RecipeError, match=r"10.yaml:1:7: `port` is `0`; give at least 1"):
        load.load(recipe, write("a.yaml.d/10.yaml", "port: 0\n"))


@pytest.mark.parametrize(
    ("text", "seconds"), [("90", 90), ("30s", 30), ("15min", 900), ("1h 30min", 5400), ("2hours", 7200)]
)
def test_spans_are_systemds(write: Write, text: str, seconds: int) -> None:
    recipe = load.load(write("a.yaml", f"model_path: /m\non_demand: {{idle: {text}}}\n"))
    assert recipe.on_demand is not None
    assert recipe.on_demand.idle == seconds


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("watch.timeout", "500ms"),
        ("watch.every", "often"),
        ("queue.wait", "soon"),
        ("queue.drain", "1.5"),
        ("on_demand.idle", "true"),
        ("ready.timeout_sec", "[1]"),
    ],
)
def test_what_is_no_span_is_told_what_a_span_is(write: Write, key: str, value: str) -> None:
    part, name = key.split(".")
    with pytest.raises(RecipeError) as refused:
        load.load(write("a.yaml", f"model_path: /m\n{part}: {{{name}: {value}}}\n"))
    (problem,) = refused.value.problems
    assert problem.key == key
    assert problem.sentence.endswith("; give whole seconds, or a span such as `15min`")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "model_path: /m\nport:8001\nhost: x\n",
            "a.yaml:2:1: a `:` needs a blank after it; write `key: value`",
        ),
        (
            "model_path: /m\nextra_args:\n  b: 1\n  c:2\n",
            "a.yaml:4:3: a `:` needs a blank after it; write `key: value`",
        ),
        ("model_path: /m\nport 8001\n", "a.yaml:2:1: a key has no `:` after it; add one"),
    ],
    ids=str,
)
def test_a_key_without_its_colon_is_told_where_it_stands(write: Write, text: str, message: str) -> None:
    assert messages_of(write("a.yaml", text)) == [message]


def test_a_queue_that_is_neither_true_nor_a_mapping_is_told_both(write: Write) -> None:
    message = "`queue` is `yes please`; give `true`, or a mapping such as `{wait: 10min}`"
    assert message in messages_of(write("a.yaml", "model_path: /m\nqueue: yes please\n"))[0]


def test_a_value_in_secrets_is_never_repeated(write: Write) -> None:
    assert (
        "hf_very secret"
        not in messages_of(write("a.yaml", "model_path: /m\nsecrets: {HF_TOKEN: hf_very secret}\n"))[0]
    )


VARIABLES = {
    "a name": ("model_path: ${models}/m", "/data/m"),
    "an escape": ("model_path: $${models}", "${models}"),
    "twice": ("model_path: '${models}${models}'", "/data/data"),
    "no braces": ("model_path: $models", "$models"),
}


@pytest.mark.parametrize(("text", "path"), VARIABLES.values(), ids=VARIABLES.keys())
def test_the_hosts_variables_are_put_in(write: Write, text: str, path: str) -> None:
    recipe, _ = load.load_with_positions((write("a.yaml", text),), {"models": "/data", "port": "8001"})
    assert recipe.model_path == path


def test_a_variable_without_quotes_may_be_a_number(write: Write) -> None:
    recipe, _ = load.load_with_positions(
        (write("a.yaml", "model_path: m\nport: ${port}\n"),), {"port": "8001"}
    )
    assert recipe.port == 8001


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("${modles}", ":1:13: `${modles}` is not a variable of this host; did you mean `${models}`? Or write `$${` for a plain `${`"),
        ("${other}", ":1:13: `${other}` is not a variable of this host; add it to `vars:` of the host file, or write `$${` for a plain `${`"),
        ("'${ x'", ":1:13: no name follows `${`; write `$${` for a plain `${`"),
    ],
)  # fmt: skip
def test_an_unknown_variable_is_an_error_once(write: Write, text: str, sentence: str) -> None:
    with pytest.raises(RecipeError) as error:
        load.load_with_positions((write("a.yaml", f"model_path: {text}\n"),), {"models": "/data"})
    assert [str(problem).rpartition("a.yaml")[2] for problem in error.value.problems] == [sentence]


def test_a_load_may_be_bounded_by_a_span(write: Write) -> None:
    assert (
        load.load(write("a.yaml", "model_path: /m\nready: {timeout_sec: 15min}\n")).ready.timeout_sec == 900
    )


def test_a_folder_in_place_of_a_recipe_is_told_and_not_taken_for_a_recipe_that_is_gone(
    tmp_path: Path,
) -> None:
    (tmp_path / "a.yaml").mkdir()
    assert [source.name for source in search.sources((tmp_path,))] == ["a"]
    with pytest.raises(UsageError, match=r"a.yaml: cannot be read: Is a directory"):
        load.load(tmp_path / "a.yaml")


def test_drop_ins_that_nobody_reads_are_known(write: Write, tmp_path: Path) -> None:
    write("a.yml", "model_path: /m\n")
    unread = ("a.yaml.d/10.conf", "a.yml.d/10.yaml", "b.yaml.d/10.yaml")
    for name in (*unread, "a.yaml.d/20.yaml"):
        write(name, "port: 1\n")
    paths = [str(path.relative_to(tmp_path)) for path, _ in search.unread_drop_ins((tmp_path,))]
    assert paths == ["a.yaml.d/10.conf", "a.yml.d", "b.yaml.d"]


@pytest.mark.parametrize(("text", "sentence"), [
    ("watch:", "`watch` is empty; give `{}` for its defaults, or `null` for none"),
    ("on_demand: # 10min", "`on_demand` is empty; give `{}`"), ("queue:", "`queue` is empty"), ("watch: null\nqueue: ~", ""),
])  # fmt: skip
def test_a_switch_with_nothing_behind_it_is_an_error(write: Write, text: str, sentence: str) -> None:
    if not sentence:
        load.load(write("a.yaml", f"model_path: /m\n{text}\n"))
        return
    with pytest.raises(RecipeError, match=rf"a\.yaml:2:\d+: {re.escape(sentence)}"):
        load.load(write("a.yaml", f"model_path: /m\n{text}\n"))


@pytest.mark.parametrize("text", ["gateway:", "gateway:\n  keys:\n", "gateway:\n  tls:\n"])
def test_an_empty_gateway_or_part_of_it_is_an_error(write: Write, text: str) -> None:
    with pytest.raises(RecipeError, match="` is empty; give "):
        load_host_settings((write("host.yaml", text + "\n"),))
