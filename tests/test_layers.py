"""Imports run one way: each module imports only from those before it."""

import ast
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ORDER = [
    "errors",
    "installed",
    "sources",
    "unitfile",
    "compiled",
    "recipe",
    "reader",
    "load",
    "hostfile",
    "disk",
    "runtime",
    "environment",
    "quoting",
    "settings",
    "checks",
    "engines",
    "flags",
    "relations",
    "sandbox",
    "unit",
    "compiler",
    "parallel",
    "probes",
    "imports",
    "plan",
    "store",
    "bus",
    "host",
    "health",
    "running",
    "drift",
    "cli",
]
PACKAGE = Path(__file__).parents[1] / "agent/recipectl"


def imported(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module == "recipectl":
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("recipectl."):
            found.add(node.module.split(".")[1])
    return found - {"__version__"}


def own(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


FILES = [path for path in PACKAGE.rglob("*.py") if own(path) not in ("__init__", "__main__")]


def test_every_module_has_its_place_in_the_order() -> None:
    assert {own(path) for path in FILES} == {*ORDER}


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_a_module_imports_only_from_its_left(path: Path) -> None:
    allowed = ORDER[: ORDER.index(own(path)) + 1]
    assert imported(path) <= set(allowed)


def test_only_bus_imports_pystemd() -> None:
    assert [
        path.name
        for path in PACKAGE.rglob("*.py")
        if "import pystemd" in (t := path.read_text()) or "from pystemd" in t
    ] == ["bus.py"]


@pytest.mark.parametrize(
    ("words", "spared"),
    [
        (("--help",), "pydantic|jinja2|yaml|pystemd|recipectl.bus"),
        (("status",), "pydantic|jinja2|yaml|lxml"),
        (("compile", "RECIPE"), "pystemd|importlib.metadata|multiprocessing|recipectl.bus"),
    ],
)
def test_a_verb_imports_nothing_heavy_that_it_does_not_need(
    words: tuple[str, ...], spared: str, tmp_path: Path
) -> None:
    recipe = tmp_path / "a.json"
    recipe.write_text('{"backend": "llamacpp", "binary": "/bin/true", "model_path": "m", "user": "root"}')
    given = [str(recipe) if word == "RECIPE" else word for word in words]
    command = (sys.executable, "-X", "importtime", "-m", "recipectl", "--user", *given)
    environ = os.environ | {"HOME": str(tmp_path), "XDG_CONFIG_HOME": str(tmp_path)}
    told = subprocess.run(command, capture_output=True, text=True, check=False, env=environ).stderr
    imported = {line.rpartition("|")[2].strip() for line in told.splitlines() if "import time:" in line}
    assert "recipectl.cli" in imported
    assert not {name for name in imported if re.fullmatch(rf"({spared})(\..*)?", name)}
