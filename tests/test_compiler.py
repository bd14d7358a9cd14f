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

from recipectl.compiler import model as compiled
from recipectl.compiler import pipeline as compiler
from recipectl.compiler.model import Outcome
from recipectl.machine.disk import Disk
from recipectl.recipe import search as sources
from recipectl.recipe.hostfile import Host
from recipectl.systemd.unitfile import Site

Write = Callable[[str, str], Path]
SITE = Site(("/usr/bin/python3", "/health.py"))
HOST = Host(user="root", path=())


@pytest.fixture
def venv(tmp_path: Path) -> Path:
    return make_venv(tmp_path / "v", "vllm", version="0.32.0+cpu")


def outcome(folder: Path, host: Host = HOST) -> Outcome:
    return compiler.compile_all(sources.sources((folder,)), host, SITE, Disk())[1]


def text(venv: Path, **fields: object) -> str:
    return json.dumps({"python_path": f"{venv}/bin/python", "model_path": "org/m"} | fields)


def test_a_wrong_recipe_stops_no_other(write: Write, venv: Path, tmp_path: Path) -> None:
    write("r/good.json", text(venv)), write("r/bad.json", "{")
    found = outcome(tmp_path / "r")
    assert ([model.name for model in found.models], list(found.wrong)) == (["good"], ["bad"])


@pytest.mark.parametrize("pin", ["==0.32.0", "==0.32.*", ">=0.30,<1"])
def test_a_pin_that_the_installed_engine_meets_compiles(
    write: Write, venv: Path, tmp_path: Path, pin: str
) -> None:
    write("r/a.json", text(venv, engine_version=pin))
    assert outcome(tmp_path / "r").wrong == {}


def test_a_pin_that_it_does_not_meet_names_both_versions(write: Write, venv: Path, tmp_path: Path) -> None:
    write("r/a.json", text(venv, engine_version="==0.14.*"))
    assert (
        f"`engine_version` is ==0.14.*, and {venv}/bin/vllm is 0.32.0+cpu"
        in outcome(tmp_path / "r").wrong["a"][0]
    )


def test_an_unchanged_host_is_remembered_and_a_changed_one_is_not(
    write: Write, venv: Path, tmp_path: Path
) -> None:
    path = write("r/a.json", text(venv))
    found, disk, cache = sources.sources((tmp_path / "r",)), Disk(), tmp_path / "cache.json"
    _, made = compiler.compile_all(found, HOST, SITE, disk)
    before = compiled.key(found, (), SITE, "1")
    compiled.keep(cache, before, made, disk.seen)
    assert compiled.recall(cache, before) == made
    path.write_text(text(venv, port=1))
    assert compiled.recall(cache, compiled.key(found, (), SITE, "1")) is None


def test_an_engine_that_was_upgraded_is_not_remembered(write: Write, venv: Path, tmp_path: Path) -> None:
    write("r/a.json", text(venv))
    found, disk, cache = sources.sources((tmp_path / "r",)), Disk(), tmp_path / "cache.json"
    _, made = compiler.compile_all(found, HOST, SITE, disk)
    compiled.keep(cache, "key", made, disk.seen)
    packages = venv / "lib/python3.11/site-packages"
    (packages / "vllm-0.32.0+cpu.dist-info").rename(packages / "vllm-0.33.0.dist-info")
    assert compiled.recall(cache, "key") is None


def test_a_second_file_of_a_name_is_noticed_by_the_cache(tmp_path: Path, write: Write) -> None:
    venv = make_venv(tmp_path / "v", "vllm")
    write("r/a.yaml", text(venv))
    key = compiled.key(sources.sources((tmp_path / "r",)), (), SITE, "1")
    write("r/a.yml", text(venv))
    assert compiled.key(sources.sources((tmp_path / "r",)), (), SITE, "1") != key


def test_a_broken_cache_is_no_cache(tmp_path: Path) -> None:
    (tmp_path / "cache.json").write_text("{")
    assert compiled.recall(tmp_path / "cache.json", "key") is None


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
    said = [error.message for error in validator.iter_errors(recipe)]
    assert said == ["Additional properties are not allowed ('prot' was unexpected)"]


def test_a_secret_in_the_command_is_known_by_its_flag_too(write: Write, venv: Path, tmp_path: Path) -> None:
    write("r/a.json", text(venv, extra_args={"api-key": "hunter2", "max-num-seqs": 4}))
    told = outcome(tmp_path / "r").models[0].warnings
    assert [line.partition(": ")[2] for line in told] == [
        "a word of the command looks like a secret, and anyone may read it; use `secrets:`"
    ]
    assert "hunter2" not in told[0]


def test_the_last_drain_of_a_command_counts(write: Write, venv: Path, tmp_path: Path) -> None:
    write("r/a.json", text(venv, extra_args={"shutdown-timeout": 10}, args=["--shutdown-timeout", "300"]))
    assert "\nTimeoutStopSec=315\n" in outcome(tmp_path / "r").models[0].units[0].text


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
    assert f"({models} is closed to it)" in outcome(tmp_path / "r").wrong["a"][0]
    write("r/a.json", text(venv, **named, service={"SupplementaryGroups": "adm"}))
    assert outcome(tmp_path / "r").wrong == {}


def test_one_gpu_named_twice_is_refused_in_the_old_spelling_too(
    write: Write, venv: Path, tmp_path: Path
) -> None:
    write("r/a.json", text(venv, extra_args={"cuda_visible_devices": "01,1"}))
    assert "`extra_args.cuda_visible_devices` names a GPU twice" in outcome(tmp_path / "r").wrong["a"][0]


def test_a_value_of_service_that_systemd_would_ignore_is_an_error(
    write: Write, venv: Path, tmp_path: Path
) -> None:
    write("r/a.json", text(venv, service={"MemoryMax": "lots", "Nice": "5", "CPUQuota": "150%"}))
    (told,) = outcome(tmp_path / "r").wrong["a"]
    assert "`service.MemoryMax` would not be in force (Invalid memory limit 'lots'" in told
    write("r/a.json", text(venv, service={"MemoryMax": "40G", "Nice": "5", "CPUQuota": "150%"}))
    assert outcome(tmp_path / "r").wrong == {}
