"""What only this host can tell about a recipe."""

import json
import os
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from conftest import make_venv

from recipectl.cli import recipectl
from recipectl.compiler import preflight, secret_files
from recipectl.errors import UsageError
from recipectl.machine import lockfile, nvidia
from recipectl.machine.disk import Disk
from recipectl.machine.runtime import Runtime, resolve
from recipectl.place import Place
from recipectl.recipe.hostfile import HostSettings
from recipectl.recipe.schema import Recipe

RUNTIME = Runtime("test", ("/v/bin/vllm", "serve"), engine_version="0.32.0", python_version="3.11.7")


def recipe(**fields: Any) -> Recipe:
    return Recipe.model_validate({"name": "a", "model_path": "org/m"} | fields)


def sentences(errors: Any) -> list[str]:
    return [str(error) for error in errors]


PINS = {
    "both as pinned": ("==0.32.*", "==3.11.*", []),
    "another engine": ("==0.14.*", None, ["`engine_version` is ==0.14.*, and /v/bin/vllm is 0.32.0"]),
    "another Python": (None, ">=3.12", ["`python_version` is >=3.12, and Python of /v/bin/vllm is 3.11.7"]),
    "neither pinned": (None, None, []),
}


@pytest.mark.parametrize(("engine", "python", "starts"), PINS.values(), ids=PINS.keys())
def test_pins_are_compared(engine: str | None, python: str | None, starts: list[str]) -> None:
    problems = sentences(
        preflight.check_pins(Place(), recipe(engine_version=engine, python_version=python), RUNTIME)
    )
    assert [sentence.partition(";")[0] for sentence in problems] == starts


def test_a_pin_of_what_is_not_installed_is_refused() -> None:
    unknown = Runtime("test", ("/v/bin/vllm",))
    (problems,) = sentences(preflight.check_pins(Place(), recipe(engine_version="==1"), unknown))
    assert problems.startswith("`engine_version` is ==1, and no vllm is installed beside /v/bin/vllm;")
    assert sentences(preflight.check_pins(Place(), recipe(), unknown)) == []


@pytest.fixture
def locked(tmp_path: Path) -> tuple[Path, Runtime]:
    """A lock, and a runtime that has changed since."""
    venv = make_venv(tmp_path / "v", "vllm")
    folder = venv / "lib/python3.11/site-packages"
    runtime = Runtime(
        "test", (f"{venv}/bin/vllm",), interpreter=f"{venv}/bin/python", installed_in=str(folder)
    )
    lock = tmp_path / "a.lock"
    lock.write_text(json.dumps(preflight.current_lock(recipe(), runtime)))
    (folder / "torch-2.0.dist-info").mkdir()
    return lock, runtime


def test_a_lock_that_does_not_hold_is_a_warning_or_an_error(locked: tuple[Path, Runtime]) -> None:
    warned = preflight.check_lock(Place(), *locked[:1], recipe(), locked[1], HostSettings(), Disk())
    assert warned == ("torch 2.0 is new",)
    with pytest.raises(
        UsageError, match=r"torch 2.0 is new; put it back, or accept it with `recipectl lock --update a`"
    ):
        preflight.check_lock(Place(), locked[0], recipe(), locked[1], HostSettings(drift="refuse"), Disk())


def test_a_lock_that_holds_is_no_difference(locked: tuple[Path, Runtime]) -> None:
    lock, runtime = locked
    lock.write_text(json.dumps(preflight.current_lock(recipe(), runtime)))
    disk = Disk()
    assert preflight.check_lock(Place(), lock, recipe(), runtime, HostSettings(drift="refuse"), disk) == ()
    assert f"{runtime.interpreter}" not in disk.fingerprints
    assert os.path.realpath(runtime.interpreter or "") in disk.fingerprints
    assert preflight.check_lock(Place(), None, recipe(), runtime, HostSettings(), disk) == ()


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"interpreter": 1}'])
def test_a_file_that_is_no_lock_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "a.lock").write_text(text)
    with pytest.raises(UsageError, match="cannot be read as a lock"):
        preflight.check_lock(Place(), tmp_path / "a.lock", recipe(), RUNTIME, HostSettings(), Disk())


def test_a_lock_without_a_version_is_refused(locked: tuple[Path, Runtime]) -> None:
    lock = json.loads(locked[0].read_text())
    locked[0].write_text(json.dumps(lock | {"distributions": {"vllm": {"version": "1"}}}))
    with pytest.raises(ValueError, match="its distributions are not names with a version and a record"):
        lockfile.read_lock(locked[0].read_bytes())


FILES = {
    "a good file": (0o600, "VLLM_API_KEY=x\n", []),
    "readable by its group": (0o640, "VLLM_API_KEY=x\n", []),
    "readable by all": (0o604, "VLLM_API_KEY=x\n", ["others may read or change"]),
    "writable by its group": (0o620, "VLLM_API_KEY=x\n", ["others may read or change"]),
    "without the variable": (0o600, "OTHER=x\n", ["must have a line `VLLM_API_KEY="]),
    "an empty value": (0o600, "VLLM_API_KEY=\n", ["gives it an empty value"]),
    "an empty value in quotes": (0o600, "VLLM_API_KEY=x\nVLLM_API_KEY=''\n", ["gives it an empty value"]),
}


@pytest.mark.parametrize(("mode", "text", "parts"), FILES.values(), ids=FILES.keys())
def test_the_file_of_a_secret_is_checked(tmp_path: Path, mode: int, text: str, parts: list[str]) -> None:
    (tmp_path / "secret").write_text(text)
    (tmp_path / "secret").chmod(mode)
    problems = sentences(secret_files.check(recipe(secrets={"VLLM_API_KEY": f"{tmp_path}/secret"}), Disk()))
    assert len(problems) == len(parts)
    assert all(part in sentence for part, sentence in zip(parts, problems, strict=True))


TOKENS = {
    "a token": ("hf_x\n", []),
    "nothing": ("", ["is empty; write the secret there"]),
    "blanks": (" \n\n", ["is empty; write the secret there"]),
    "an assignment": ('HF_TOKEN="hf_x"\n', ["must hold the secret alone, without `HF_TOKEN=`"]),
    "an export": ("export HF_TOKEN=hf_x\n", ["must hold the secret alone, without `HF_TOKEN=`"]),
}


@pytest.mark.parametrize(("text", "parts"), TOKENS.values(), ids=TOKENS.keys())
def test_the_file_of_a_token_holds_the_token_alone(tmp_path: Path, text: str, parts: list[str]) -> None:
    file = tmp_path / "token"
    file.write_text(text)
    file.chmod(0o600)
    problems = sentences(secret_files.check(recipe(secrets={"HF_TOKEN": str(file)}), Disk()))
    assert [part in problem for part, problem in zip(parts, problems, strict=True)] == [True] * len(parts)
    assert not any("hf_x" in problem for problem in problems)
    encrypted = file.rename(tmp_path / "token.cred")
    assert sentences(secret_files.check(recipe(secrets={"HF_TOKEN": str(encrypted)}), Disk())) == []


@pytest.mark.parametrize("pasted", [
    "hf_abcdefghijklmnop", "sk-abcdefghijklmnop", "eyJhbGciOiJIUzI1NiJ9", "A1b2C3d4E5f6G7h8I9j0K1l2", "0123456789abcdef0123456789abcdef",
])  # fmt: skip
def test_a_token_where_a_path_belongs_is_refused_and_not_repeated(pasted: str) -> None:
    with pytest.raises(ValueError, match="looks like the secret itself") as refused:
        recipe(secrets={"HF_TOKEN": pasted})
    assert pasted not in str(refused.value).partition("[type=")[0]


def test_two_names_of_one_secret_are_refused() -> None:
    with pytest.raises(ValueError, match="which are one credential"):
        recipe(secrets={"HF_TOKEN": "/a", "HUGGING_FACE_HUB_TOKEN": "/b"})


def test_an_mps_that_serves_one_user_is_known(tmp_path: Path) -> None:
    assert not nvidia.mps_of_one_user(tmp_path)
    process = tmp_path / "12"
    process.mkdir()
    (process / "cmdline").write_bytes(b"/usr/bin/nvidia-cuda-mps-control\0-d\0")
    assert nvidia.mps_of_one_user(tmp_path)
    (process / "cmdline").write_bytes(b"nvidia-cuda-mps-control\0-d\0-multiuser-server\0")
    assert not nvidia.mps_of_one_user(tmp_path)


def test_nvidias_driver_is_compared_with_its_library(tmp_path: Path) -> None:
    module, library = tmp_path / "version", tmp_path / "lib"
    library.mkdir()
    assert nvidia.driver_fault(module, (library,)) is None
    module.write_text("550.54.14\n")
    assert nvidia.driver_fault(module, (library,)) is None
    (library / "libnvidia-ml.so.1").touch()
    (library / "libnvidia-ml.so.550.54.15").touch()
    fault = nvidia.driver_fault(module, (library, tmp_path))
    assert fault is not None
    assert fault.startswith("NVIDIA's kernel module is 550.54.14, and the installed library is 550.54.15")
    (library / "libnvidia-ml.so.550.54.14").touch()
    assert nvidia.driver_fault(module, (library,)) is None


def test_the_ids_of_gpus_are_read_from_the_driver(tmp_path: Path) -> None:
    (tmp_path / "0000:01:00.0").mkdir()
    (tmp_path / "0000:01:00.0/information").write_text("Model: \t\tX\nGPU UUID:   \tGPU-12ab\nIRQ: 1\n")
    assert nvidia.gpu_ids(tmp_path) == {"GPU-12ab"}
    assert nvidia.gpu_ids(tmp_path / "none") == set()


def test_a_missing_or_wrong_file_of_a_secret_is_told(tmp_path: Path) -> None:
    (missing,) = sentences(secret_files.check(recipe(secrets={"A_FILE": f"{tmp_path}/none"}), Disk()))
    assert missing == f"`secrets.A_FILE`: {tmp_path}/none does not exist; create it with mode 0600"
    (folder,) = sentences(secret_files.check(recipe(secrets={"A_FILE": str(tmp_path)}), Disk()))
    assert folder == f"`secrets.A_FILE`: {tmp_path} is not a file; give a file"
    assert sentences(secret_files.check(recipe(secrets={"A_FILE": "credential"}), Disk())) == []
    (relative,) = sentences(secret_files.check(recipe(secrets={"A_KEY": "credential"}), Disk()))
    assert "give the absolute path of a file with a line `A_KEY=…`" in relative


def test_closed_folders_are_found_from_the_outside(tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root may give a folder away")
    for folder in (tmp_path, *tmp_path.parents[:2]):
        folder.chmod(0o755)
    closed = tmp_path / "closed"
    (closed / "open").mkdir(parents=True)
    closed.chmod(0o700)
    target = recipe(user="nobody", model_path=f"{closed}/open/m")
    (problems,) = preflight.check_access(target, RUNTIME, HostSettings(), Disk())
    assert f"cannot reach {closed}/open/m ({closed} is closed to it)" in str(problems)
    assert problems.key == ("model_path",)
    assert [
        *preflight.check_access(
            recipe(user="root", model_path=f"{closed}/m"), RUNTIME, HostSettings(), Disk()
        )
    ] == []
    os.chown(closed, 65534, 0)
    assert [*preflight.check_access(target, RUNTIME, HostSettings(), Disk())] == []
    (unknown,) = preflight.check_access(recipe(user="vlmm"), RUNTIME, HostSettings(), Disk())
    assert unknown.key == ("user",)


def test_what_the_engines_own_file_says_of_the_address_is_told(tmp_path: Path) -> None:
    config = tmp_path / "c.yaml"
    config.write_text("port: 9000\nserved-model-name: x\nseed: 1\n")
    python = make_venv(tmp_path / "v", "vllm") / "bin/python"
    recipe = tmp_path / "a.yaml"
    recipe.write_text(
        f"{{model_path: org/m, python_path: {python}, user: root, host: 127.0.0.1, extra_args: {{config: {config}}}}}\n"
    )
    errors = CliRunner().invoke(recipectl, ["compile", str(recipe)], catch_exceptions=False).stderr
    assert f"{config} sets `port`, which recipectl does not read there; write it as `port:`" in errors
    assert "write it as `served_model_name:`" in errors
    assert "seed" not in errors


@pytest.mark.parametrize(
    ("backend", "path", "sentence"),
    [
        ("llamacpp", "{}/none.gguf", "does not exist on this host"),
        ("llamacpp", "{}", "is a folder, and llama.cpp takes a file; name the .gguf in it"),
        ("llamacpp", "models/m.gguf", "is looked for in the unit's own folder; give its absolute path"),
        ("llamacpp", "{}/m.gguf", ""), ("llamacpp", "org/m", ""), ("vllm", "{}", ""), ("vllm", "{}/none", "does not exist"),
    ],
    ids=str,
)  # fmt: skip
def test_a_model_that_cannot_be_opened_is_told(
    tmp_path: Path, backend: str, path: str, sentence: str
) -> None:
    (tmp_path / "m.gguf").touch()
    told = sentences(
        preflight.model_faults(recipe(backend=backend, model_path=path.format(tmp_path)), Disk())
    )
    assert len(told) == bool(sentence)
    assert sentence in "".join(told)


def test_a_lock_records_a_program_that_is_a_script_of_python(tmp_path: Path) -> None:
    program = tmp_path / "llama-server"
    program.write_text("#!/usr/bin/python3 -IS\n")
    program.chmod(0o755)
    own = Recipe.model_validate({"backend": "llamacpp", "binary": str(program), "model_path": "m"})
    before = preflight.current_lock(own, resolve(own, HostSettings(), Disk()))
    program.write_text("#!/usr/bin/python3 -IS\n# changed\n")
    clauses = lockfile.differences(before, preflight.current_lock(own, resolve(own, HostSettings(), Disk())))
    assert clauses == [f"{program} is another build of the same program"]
