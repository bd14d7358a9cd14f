"""All recipes of a host at once, on real files."""

import grp
import json
import os
from collections.abc import Callable
from pathlib import Path

import jsonschema
import pytest
import yaml
from conftest import make_venv

from recipectl.compiler import cache
from recipectl.compiler.claims import Claim
from recipectl.compiler.model import CompileResult, Problem
from recipectl.compiler.pipeline import compile_recipes
from recipectl.machine.disk import Disk
from recipectl.machine.installation import Installation
from recipectl.recipe.hostfile import HostSettings
from recipectl.recipe.search import sources

Write = Callable[[str, str], Path]
INSTALLATION = Installation(("/usr/bin/python3", "/health.py"))
SETTINGS = HostSettings(user="root", path=())


@pytest.fixture
def venv(tmp_path: Path) -> Path:
    return make_venv(tmp_path / "v", "vllm", version="0.32.0+cpu")


def compiled(folder: Path, settings: HostSettings = SETTINGS) -> CompileResult:
    return compile_recipes(sources((folder,)), settings, INSTALLATION, Disk())


def warnings(folder: Path) -> list[Problem]:
    """The warnings of the recipe, but for the user that the tests take."""
    return [warning for warning in compiled(folder / "r").models[0].warnings if warning.key != "user"]


def text(venv: Path, **fields: object) -> str:
    return json.dumps({"python_path": f"{venv}/bin/python", "model_path": "org/m"} | fields)


def test_a_wrong_recipe_stops_no_other(write: Write, venv: Path, tmp_path: Path) -> None:
    write("r/good.json", text(venv)), write("r/bad.json", "{")
    result = compiled(tmp_path / "r")
    assert ([model.name for model in result.models], list(result.failures)) == (["good"], ["bad"])


@pytest.mark.parametrize("pin", ["==0.32.0", "==0.32.*", ">=0.30,<1"])
def test_a_pin_that_the_installed_engine_meets_compiles(
    write: Write, venv: Path, tmp_path: Path, pin: str
) -> None:
    write("r/a.json", text(venv, engine_version=pin))
    assert compiled(tmp_path / "r").failures == {}


def test_a_pin_that_it_does_not_meet_names_both_versions(write: Write, venv: Path, tmp_path: Path) -> None:
    write("r/a.json", text(venv, engine_version="==0.14.*"))
    assert (
        f"`engine_version` is ==0.14.*, and {venv}/bin/vllm is 0.32.0+cpu"
        in compiled(tmp_path / "r").failures["a"][0].sentence
    )


def test_an_unchanged_host_is_remembered_and_a_changed_one_is_not(
    write: Write, venv: Path, tmp_path: Path
) -> None:
    path = write("r/a.json", text(venv))
    results, disk, file = sources((tmp_path / "r",)), Disk(), tmp_path / "cache.json"
    result = compile_recipes(results, SETTINGS, INSTALLATION, disk)
    before = cache.key(results, (), INSTALLATION, "1")
    cache.keep(file, before, result, disk.fingerprints)
    assert cache.recall(file, before) == result._replace(resolved={})
    path.write_text(text(venv, port=1))
    assert cache.recall(file, cache.key(results, (), INSTALLATION, "1")) is None


def test_an_engine_that_was_upgraded_is_not_remembered(write: Write, venv: Path, tmp_path: Path) -> None:
    write("r/a.json", text(venv))
    disk, file = Disk(), tmp_path / "cache.json"
    result = compile_recipes(sources((tmp_path / "r",)), SETTINGS, INSTALLATION, disk)
    cache.keep(file, "key", result, disk.fingerprints)
    packages = venv / "lib/python3.11/site-packages"
    (packages / "vllm-0.32.0+cpu.dist-info").rename(packages / "vllm-0.33.0.dist-info")
    assert cache.recall(file, "key") is None


def test_a_unit_that_held_a_port_and_is_gone_is_noticed_by_the_cache(
    write: Write, venv: Path, tmp_path: Path
) -> None:
    write("r/a.json", text(venv, port=8001)), write("r/b.json", text(venv, port=8001))
    held = Claim(
        name="a", ports=(("127.0.0.1", 8001),), gpus=(), accelerator="", gpu_sharing="free", has_socket=False,
        at_boot=False, after=(), requires=(), conflicts=(),
    )  # fmt: skip
    disk, file = Disk(), tmp_path / "cache.json"
    result = compile_recipes(sources((tmp_path / "r",)), SETTINGS, INSTALLATION, disk, (held,))
    assert list(result.failures) == ["b"]
    cache.keep(file, "key", result, disk.fingerprints, (held,))
    assert cache.recall(file, "key", (held,)) == result._replace(resolved={})
    assert cache.recall(file, "key", ()) is None


def test_a_second_file_of_a_name_is_noticed_by_the_cache(tmp_path: Path, write: Write) -> None:
    venv = make_venv(tmp_path / "v", "vllm")
    write("r/a.yaml", text(venv))
    key = cache.key(sources((tmp_path / "r",)), (), INSTALLATION, "1")
    write("r/a.yml", text(venv))
    assert cache.key(sources((tmp_path / "r",)), (), INSTALLATION, "1") != key


def test_a_broken_cache_is_no_cache(tmp_path: Path) -> None:
    (tmp_path / "cache.json").write_text("{")
    assert cache.recall(tmp_path / "cache.json", "key") is None


def test_the_schema_that_the_examples_name_is_the_programs_own() -> None:
    from recipectl.recipe.schema import Recipe

    shipped = Path(__file__).parents[1] / "recipes/recipe.schema.json"
    assert json.loads(shipped.read_text()) == Recipe.model_json_schema()


RECIPES = [
    *(Path(__file__).parents[1] / "recipes").glob("*.yaml"),
    *(Path(__file__).parent / "golden").glob("*.yaml"),
]


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_an_editor_with_the_schema_finds_nothing_wrong_in_a_good_recipe(path: Path) -> None:
    from recipectl.recipe.schema import Recipe

    validator = jsonschema.Draft202012Validator(Recipe.model_json_schema())
    text = path.read_text().replace("hardening: off", "hardening: 'off'")  # a word in an editor's YAML 1.2
    assert [error.message for error in validator.iter_errors(yaml.safe_load(text))] == []


def test_an_editor_with_the_schema_knows_the_other_names_and_marks_what_is_no_key() -> None:
    from recipectl.recipe.schema import Recipe

    recipe = {
        "model-path": "/m",
        "tp": 2,
        "env-vars": {"A": 1},
        "on-demand": {"idle": "15min"},
        "gpus": 0,
        "prot": 1,
    }
    validator = jsonschema.Draft202012Validator(Recipe.model_json_schema())
    outcome = [error.message for error in validator.iter_errors(recipe)]
    assert outcome == ["Additional properties are not allowed ('prot' was unexpected)"]


def test_a_secret_in_the_command_is_known_by_its_flag_too(write: Write, venv: Path, tmp_path: Path) -> None:
    write("r/a.json", text(venv, extra_args={"api-key": "hunter2", "max-num-seqs": 4}))
    (warning,) = warnings(tmp_path)
    assert (warning.key, warning.kind, warning.severity) == ("extra_args.api_key", "secret", "warning")
    assert "a word of the command looks like a secret" in warning.sentence
    assert "hunter2" not in str(warning)


def test_the_last_drain_of_a_command_counts(write: Write, venv: Path, tmp_path: Path) -> None:
    write("r/a.json", text(venv, extra_args={"shutdown-timeout": 10}, args=["--shutdown-timeout", "300"]))
    assert "\nTimeoutStopSec=315\n" in compiled(tmp_path / "r").models[0].units[0].text


def test_supplementary_groups_and_acls_open_folders(write: Write, venv: Path, tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root may give a folder away")
    models = tmp_path / "models"
    models.mkdir(mode=0o750)
    os.chown(models, 0, grp.getgrnam("adm").gr_gid)
    for folder in (tmp_path, *tmp_path.parents[:2]):
        folder.chmod(0o755)
    (models / "m").mkdir()
    named = {"model_path": f"{models}/m", "user": "nobody"}
    write("r/a.json", text(venv, **named))
    assert f"({models} is closed to it)" in compiled(tmp_path / "r").failures["a"][0].sentence
    write("r/a.json", text(venv, **named, service={"SupplementaryGroups": "adm"}))
    assert compiled(tmp_path / "r").failures == {}


ROOT = "the unit's user is root, so the engine and what it loads may change this host; remove `user:`"
POWERFUL = "the unit's user nobody is in the group disk, whose members can become root"


@pytest.mark.parametrize(("fields", "host_user", "sentence"), [
    ({"user": "root"}, None, f"{ROOT}, and"), ({}, "root", f"{ROOT} of the host file, and"),
    ({"user": "nobody", "service": {"SupplementaryGroups": "audio disk"}}, None, POWERFUL),
    ({"user": "nobody", "service": {"SupplementaryGroups": "audio"}}, None, ""), ({}, None, ""),
])  # fmt: skip
def test_a_user_that_can_become_root_is_a_warning(
    write: Write, venv: Path, tmp_path: Path, fields: dict[str, object], host_user: str | None, sentence: str
) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root may open the folders of the tests")
    for folder in (tmp_path, *tmp_path.parents[:2]):
        folder.chmod(0o755)
    write("r/a.json", text(venv, host="127.0.0.1", port=8101, gpus="none", **fields))
    (model,) = compiled(tmp_path / "r", HostSettings(user=host_user, path=())).models
    access = [warning.sentence for warning in model.warnings if warning.key == "user"]
    assert [text.startswith(sentence) for text in access] == ([True] if sentence else [])


def test_one_gpu_named_twice_is_refused_in_the_old_spelling_too(
    write: Write, venv: Path, tmp_path: Path
) -> None:
    write("r/a.json", text(venv, extra_args={"cuda_visible_devices": "01,1"}))
    assert (
        "`extra_args.cuda_visible_devices` names a GPU twice"
        in compiled(tmp_path / "r").failures["a"][0].sentence
    )


def test_a_value_of_service_that_systemd_would_ignore_is_an_error(
    write: Write, venv: Path, tmp_path: Path
) -> None:
    write("r/a.json", text(venv, service={"MemoryMax": "lots", "Nice": "5", "CPUQuota": "150%"}))
    (problem,) = compiled(tmp_path / "r").failures["a"]
    assert (problem.key, problem.kind) == ("service.MemoryMax", "setting")
    assert "systemd would ignore `service.MemoryMax` (Invalid memory limit 'lots'" in problem.sentence
    write("r/a.json", text(venv, service={"MemoryMax": "40G", "Nice": "5", "CPUQuota": "150%"}))
    assert compiled(tmp_path / "r").failures == {}


def test_a_port_that_only_root_may_use_is_a_warning(write: Write, venv: Path, tmp_path: Path) -> None:
    write("r/a.json", text(venv, host="127.0.0.1", port=80))
    (warning,) = warnings(tmp_path)
    assert (warning.key, "port 80 is below 1024" in warning.sentence) == ("port", True)
    write("r/a.json", text(venv, host="127.0.0.1", port=80, user="root"))
    assert warnings(tmp_path) == []
    write(
        "r/a.json",
        text(venv, host="127.0.0.1", port=80, service={"AmbientCapabilities": "CAP_NET_BIND_SERVICE"}),
    )
    assert warnings(tmp_path) == []


def test_a_token_that_an_engine_does_not_read_is_a_warning(write: Write, tmp_path: Path) -> None:
    def keys(model: str, file: str, **fields: object) -> list[str | None]:
        write(file, "HF_TOKEN=hf_x\n" if file.endswith(".env") else "hf_x\n").chmod(0o600)
        recipe = {"backend": "llamacpp", "model_path": model, "binary": "/bin/true", "gpus": "none", **fields}
        write("r/a.json", json.dumps({**recipe, "secrets": {"HF_TOKEN": str(tmp_path / file)}}))
        return [warning.key for warning in warnings(tmp_path)]

    assert keys("org/name-GGUF:Q4_K_M", "hf") == ["secrets.HF_TOKEN"]
    assert keys("org/name-GGUF:Q4_K_M", "hf.env") == []
    assert "secrets.HF_TOKEN" not in keys("/m.gguf", "hf")


def test_a_length_with_a_unit_is_for_vllm_alone(write: Write, venv: Path, tmp_path: Path) -> None:
    write("r/a.json", text(venv, max_model_len="32k"))
    assert compiled(tmp_path / "r").failures == {}
    write(
        "r/a.json",
        json.dumps(
            {"backend": "llamacpp", "binary": "/bin/true", "model_path": "/m", "max_model_len": "32k"}
        ),
    )
    (problem,) = compiled(tmp_path / "r").failures["a"]
    assert problem.sentence.startswith(
        "`max_model_len` is `32k`, and llamacpp takes a whole number of tokens"
    )
