"""Recipe -> unit, whole: tests/golden/CASE.yaml and CASE.out."""

import shutil
import subprocess
from pathlib import Path

import pytest

from recipectl import load, unit, unitfile
from recipectl.engines import vllm
from recipectl.errors import RecipectlError
from recipectl.hostfile import Host
from recipectl.runtime import Runtime

GOLDEN = sorted((Path(__file__).parent / "golden").glob("*.yaml"))
EXAMPLES = sorted((Path(__file__).parents[1] / "recipes").glob("*.yaml"))
SITE = unit.Site(("/usr/bin/python3", "/usr/lib/recipectl/wait_ready.py"))
RUNTIMES = {
    "vllm": Runtime(
        "python_path: its `vllm` sibling", ("/v/bin/vllm", "serve"), True, "/v/bin/python", "/v", "0.32.0"
    ),
    "sglang": Runtime("python_path", ("/v/bin/python", "-m", "sglang.launch_server"), venv="/v"),
    "llamacpp": Runtime("binary", ("/v/bin/llama-server",)),
}


def rendered(path: Path) -> str:
    try:
        recipe = load.load(path)
        made = unit.steps(recipe, f"/etc/recipectl/recipes/{path.name}", RUNTIMES[recipe.backend], Host())
        return unit.render(made, SITE, Host()).text
    except RecipectlError as error:
        return f"exit {error.status}: {error}\n".replace(str(path.parent) + "/", "")


@pytest.mark.parametrize("path", [*GOLDEN, *EXAMPLES], ids=lambda path: path.stem)
def test_a_recipe_compiles_to_just_this(path: Path, request: pytest.FixtureRequest) -> None:
    expected = Path(__file__).parent / "golden" / f"{path.stem}.out"
    if request.config.getoption("--rewrite-golden"):
        expected.write_text(rendered(path))
    assert rendered(path) == expected.read_text()


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="systemd-analyze is not installed")
def test_systemd_finds_nothing_to_say_about_the_golden_units(tmp_path: Path) -> None:
    units = [(path, text) for path in [*GOLDEN, *EXAMPLES] if not (text := rendered(path)).startswith("exit")]
    for path, text in units:
        for program in ("/v/bin/vllm", "/v/bin/python", "/v/bin/llama-server"):
            text = text.replace(f":{program}", ":/bin/true")  # the one thing that is not on this host
        (tmp_path / f"model-{path.stem}.service").write_text(text)
    for name in ("models.target", "models.slice"):
        found = [one for one in unit.shared(SITE) if one.name == name]
        (tmp_path / name).write_text(found[0].text)
    files = sorted(str(path) for path in tmp_path.iterdir())
    words = ["systemd-analyze", "verify", "--man=no", "--recursive-errors=no", *files]
    said = subprocess.run(words, capture_output=True, text=True, check=False)
    assert (said.returncode, [line for line in said.stderr.splitlines() if "model" in line]) == (0, [])


def test_the_same_input_gives_the_same_bytes() -> None:
    assert rendered(EXAMPLES[0]) == rendered(EXAMPLES[0])


def test_what_a_unit_says_of_itself_can_be_read_back() -> None:
    facts = unitfile.facts(rendered(next(path for path in EXAMPLES if path.stem == "qwen3-8b")))
    assert (facts["Recipe"], facts["EngineVersion"], facts["Gpus"]) == ("qwen3-8b", "0.32.0", "0")


def test_the_parsers_that_are_inferred_are_those_of_the_models() -> None:
    assert vllm.infer("reasoning_parser", "/m/Qwen3-8B") == "qwen3"
