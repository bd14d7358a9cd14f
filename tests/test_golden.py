"""Recipe -> unit, whole: tests/golden/CASE.yaml and CASE.out."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from recipectl.compiler import service_settings, units
from recipectl.compiler.model import CompiledModel
from recipectl.compiler.pipeline import resolve_purely
from recipectl.compiler.relations import Relations
from recipectl.engines import vllm
from recipectl.errors import RecipectlError
from recipectl.machine.installation import Installation
from recipectl.machine.runtime import Runtime
from recipectl.recipe.hostfile import HostSettings
from recipectl.recipe.load import load
from recipectl.recipe.schema import Recipe
from recipectl.systemd.unitfile import InstalledUnit, shared_units

GOLDEN = sorted((Path(__file__).parent / "golden").glob("*.yaml"))
EXAMPLES = sorted((Path(__file__).parents[1] / "recipes").glob("*.yaml"))
SETTINGS = HostSettings()
INSTALLATION = Installation(helper=("/usr/bin/python3", "/var/lib/recipectl/helper-0123456789ab.pyz"))
RUNTIMES = {
    "vllm": Runtime(
        "python_path: its `vllm` sibling",
        ("/v/bin/vllm", "serve"),
        True,
        "/v/bin/python",
        "/v",
        "0.32.0",
        installed_in="/v/lib/python3.11/site-packages",
    ),
    "sglang": Runtime("python_path", ("/v/bin/python", "-m", "sglang.launch_server"), venv="/v"),
    "llamacpp": Runtime("binary", ("/v/bin/llama-server",)),
}

# What the other recipes of the host are to a case.
RELATIONS = {
    "rag": Relations(taking_turns=("qwen3-8b",), after=("qwen3-8b",), requires=("qwen3-8b",)),
    "on-demand": Relations(rivals=("b",), after=("b",), stopped=(("b", 8001),)),
    "related": Relations(
        rivals=("b", "y"),
        taking_turns=("a", "z"),
        after=("a", "b", "embed"),
        requires=("embed",),
        stopped=(("b", 8001),),
    ),
}


def compiled(path: Path, recipe: Recipe) -> CompiledModel:
    """The units of a recipe by the pure steps alone."""
    for error in service_settings.check(recipe, INSTALLATION):
        raise error
    file = f"/etc/recipectl/recipes/{path.name}"
    steps = resolve_purely(recipe, file, RUNTIMES[recipe.backend], SETTINGS, INSTALLATION)
    return units.render(steps, RELATIONS.get(path.stem, Relations()), SETTINGS, INSTALLATION)


def rendered(path: Path) -> str:
    try:
        return "\n".join(f"# ── {unit.name}\n{unit.text}" for unit in compiled(path, load(path)).units)
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
    texts = [text for path in [*GOLDEN, *EXAMPLES] if not (text := rendered(path)).startswith("exit")]
    for part in "\n".join(texts).split("# ── ")[1:]:
        name, text = part.split("\n", 1)
        for program in ("/v/bin/vllm", "/v/bin/python", "/v/bin/llama-server"):
            text = text.replace(f":{program}", ":/bin/true")  # the one thing that is not on this host
        (tmp_path / name).write_text(text)
    for unit in shared_units(user=False):
        (tmp_path / unit.name).write_text(unit.text)
    files = sorted(str(path) for path in tmp_path.iterdir())
    words = ["systemd-analyze", "verify", "--man=no", "--recursive-errors=no", *files]
    result = subprocess.run(words, capture_output=True, text=True, check=False)
    assert (result.returncode, [line for line in result.stderr.splitlines() if "model" in line]) == (0, [])


def test_the_same_input_gives_the_same_bytes() -> None:
    """Whatever the order of sets and the process are."""
    code = (
        f"import sys; sys.path[:0] = {sys.path!r}\nimport test_golden as t\nprint(*map(t.rendered, t.GOLDEN))"
    )
    runs = [
        subprocess.run(
            [sys.executable, "-c", code], env={"PYTHONHASHSEED": seed}, capture_output=True, check=True
        )
        for seed in ("1", "2")
    ]
    assert runs[0].stdout == runs[1].stdout != b""


def test_what_a_unit_says_of_itself_can_be_read_back() -> None:
    text = rendered(next(path for path in EXAMPLES if path.stem == "qwen3-8b"))
    unit = InstalledUnit("model-qwen3-8b.service", text.partition("\n")[2])
    assert (unit.recipe, unit.engine_version, unit.gpus) == ("qwen3-8b", "0.32.0", "0")
    assert (unit.source, unit.edited_by_hand) == ("/etc/recipectl/recipes/qwen3-8b.yaml", False)


def test_the_parsers_that_are_inferred_are_those_of_the_models() -> None:
    assert vllm.infer_parser("reasoning_parser", "/m/Qwen3-8B") == "qwen3"


@pytest.mark.parametrize("end", ["\n", "\r", "\0", "\x7f"])
def test_whatever_slips_through_begins_no_line_of_a_unit(end: str) -> None:
    recipe = load(EXAMPLES[0])
    steps = resolve_purely(recipe, "/r/a.yaml", RUNTIMES[recipe.backend], SETTINGS, INSTALLATION)
    relations = Relations(requires=(f"b{end}ExecStartPre=/bin/evil #",))
    with pytest.raises(RecipectlError, match="a control character reached the requires of a unit"):
        units.render(steps, relations, SETTINGS, INSTALLATION)
