"""What an import says of words, users and endpoints that a recipe cannot have as they are."""

import os
import pwd
from pathlib import Path

import pytest
from click.testing import CliRunner

from recipectl.cli import recipectl
from recipectl.importers import from_command, shell


def imported(text: str, folder: Path, name: str = "a.sh", verb: str = "command") -> tuple[int, str, str]:
    """Exit status, recipes and what is said of them."""
    path = folder / name
    path.write_text(text)
    result = CliRunner().invoke(recipectl, ["import", verb, str(path)], standalone_mode=False)
    return result.return_value, result.stdout, result.stderr


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("llama-server -m /m/a.gguf --host /run/a.sock", "`host` is the socket /run/a.sock"),
        ("vllm serve /m/a --uds /run/a.sock", "plain HTTP over TCP, which `--uds` turns off"),
        ("llama-server -m /m/a.gguf --port 0", "the port `0` is not a number from 1 to 65535"),
    ],
)
def test_a_recipe_that_does_not_compile_is_named_with_its_reason(
    tmp_path: Path, text: str, sentence: str
) -> None:
    status, _, said = imported(text, tmp_path)
    assert (status, "the recipe does not compile: " in said, sentence in said) == (0, True, True)


def test_a_recipe_that_compiles_is_not_named(tmp_path: Path) -> None:
    assert imported("/v/bin/vllm serve /m/a --port 8001", tmp_path)[2] == ""


def test_engines_at_sockets_and_at_ports_of_the_kernels_choice_share_no_port(tmp_path: Path) -> None:
    lines = ["vllm serve /m/a --uds /run/a", "vllm serve /m/b --port 0", "vllm serve /m/c", "vllm serve /m/d"]
    recipes = imported("\n".join(lines), tmp_path)[1].split("# ── ")
    assert ["conflicts" in recipe for recipe in recipes[1:]] == [False, False, False, True]


def test_what_stays_beside_a_refused_engine_is_named(tmp_path: Path) -> None:
    text = "./embeddings.sh\nsystemctl start reranker\nssh h 'vllm serve /m'\n"
    status, _, said = imported(text, tmp_path)
    assert (status, "import command ./embeddings.sh" in said, "import unit reranker" in said) == (
        2,
        True,
        True,
    )


def test_a_word_behind_a_flag_stays_there() -> None:
    words = "vllm serve /m --enable-prefix-caching True --served-model-name x y"
    draft = from_command.draft_from_command(shell.commands(words)[0])
    assert draft.fields["args"] == ["--enable-prefix-caching", "True"]
    assert draft.fields["extra_args"] == {"served-model-name": ["x", "y"]}


@pytest.mark.parametrize("user", ["john.doe", "John", "svc_a-1"])
def test_a_user_that_systemd_takes_is_one_of_a_recipe(tmp_path: Path, user: str) -> None:
    text = f"[Service]\nUser={user}\nRestart=always\nExecStart=/v/bin/vllm serve /m\n"
    status, recipe, said = imported(text, tmp_path, "a.service", "unit")
    assert (status, f"user: {user}" in recipe, said) == (0, True, "")


def test_the_number_of_a_user_is_its_name(tmp_path: Path) -> None:
    numbers = {0: "it ran as root", 4711: "the user `4711`, which this host has no name for"}
    for number, sentence in numbers.items():
        text = f"[Service]\nUser={number}\nRestart=always\nExecStart=/v/bin/vllm serve /m\n"
        status, recipe, said = imported(text, tmp_path, "a.service", "unit")
        assert (status, "user:" in recipe.replace("`user:`", ""), sentence in said) == (0, False, True)
    daemon = pwd.getpwnam("daemon").pw_uid
    draft = from_command.draft_from_command(shell.commands(f"sudo -u '#{daemon}' vllm serve /m")[0])
    assert draft.fields["user"] == "daemon"


def test_a_name_that_docker_refuses_in_a_file_of_variables_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.env").write_text("A=1\nexport B=2\nC\n")
    _, recipe, said = imported(
        f"docker run --gpus all --env-file {tmp_path}/a.env vllm/vllm-openai --model a/b", tmp_path
    )
    assert "A: '1'" in recipe
    assert "`export B` in " in said
    assert "the variable `C` of the caller" in said


def test_a_text_that_is_not_utf_8_is_named_once(tmp_path: Path) -> None:
    path = tmp_path / "a.sh"
    path.write_bytes(b"a\xff")
    refusal = CliRunner().invoke(recipectl, ["import", "command", os.fspath(path)]).exception
    assert str(refusal).count(str(path)) == 1


@pytest.mark.parametrize("guard", ["cd /srv || exit", "command -v vllm || { echo none; exit 1; }"])
def test_a_guard_that_fails_is_no_other_end(guard: str) -> None:
    draft = from_command.draft_from_command(shell.commands(f"{guard}\nvllm serve /m")[-1])
    assert not any("may end there" in text for text in draft.not_carried_over)
