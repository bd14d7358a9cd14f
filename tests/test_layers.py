"""Imports run one way: each module imports only from those before it."""

import ast
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

# The rooms, the lowest first: each module imports only from its own room and from those before it.
ROOMS = [
    "errors", "text", "systemd", "recipe", "place", "machine", "health", "engines", "compiler", "converge", "audit",
    "importers", "cli",
]  # fmt: skip
PACKAGE = Path(__file__).parents[1] / "agent/recipectl"


def imported_rooms(path: Path) -> set[str]:
    rooms = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module == "recipectl":
            rooms |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("recipectl."):
            rooms.add(node.module.split(".")[1])
    return rooms - {"__version__"}


def room(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


FILES = [path for path in PACKAGE.rglob("*.py") if room(path) not in ("__init__", "__main__")]


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_a_module_imports_only_from_rooms_below_it(path: Path) -> None:
    assert imported_rooms(path) <= {*ROOMS[: ROOMS.index(room(path)) + 1]}


def test_only_dbus_imports_pystemd() -> None:
    assert [
        path.name
        for path in PACKAGE.rglob("*.py")
        if "import pystemd" in (t := path.read_text()) or "from pystemd" in t
    ] == ["dbus.py"]


@pytest.mark.parametrize(
    ("words", "spared"),
    [
        (("--help",), "pydantic|jinja2|yaml|pystemd|recipectl.systemd.dbus"),
        (("status",), "pydantic|jinja2|yaml|lxml"),
        (("compile", "RECIPE"), "pystemd|importlib.metadata|multiprocessing|recipectl.systemd.dbus"),
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
