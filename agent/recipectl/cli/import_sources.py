"""What `import` reads: texts, JSON, YAML and a database of other tools."""

import contextlib
import errno
import json
import sqlite3
import sys
from pathlib import Path
from typing import Any

import click
import yaml

from recipectl.errors import UsageError
from recipectl.files import MAX_BYTES, read_bounded
from recipectl.importers import go_yaml, vllm_studio
from recipectl.importers.lines import errors_at
from recipectl.recipe.yamlsyntax import Loader, read_text
from recipectl.regular import open_regular


def text_of(source: str) -> str:
    """The text of a file, or of standard input for `-`; RecipeError when it cannot be read."""
    return read_text(Path(source), _of_standard_input if source == "-" else read_bounded)


def _of_standard_input(_: Path) -> bytes:
    content = sys.stdin.buffer.read(MAX_BYTES + 1)
    if len(content) > MAX_BYTES:
        raise OSError(errno.EFBIG, f"it is larger than {MAX_BYTES} bytes")
    return content


def is_sqlite(source: str) -> bool:
    """True for a database of SQLite; UsageError when the file cannot be read."""
    try:
        with open_regular(source) as file:
            return file.read(16) == b"SQLite format 3\0"
    except OSError as error:
        fault = f"{source}: cannot be read: {error.strerror}"
        raise UsageError(f"{fault}; correct its path or its mode") from error


def json_recipes(source: str) -> list[tuple[Any, Any]]:
    """The recipes in a JSON file, each with its YAML node, None where YAML cannot read the file."""
    text = text_of(source)
    try:
        with errors_at(source):
            recipes = vllm_studio.recipes(json.loads(text))
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{source}: is not JSON ({error}); give `GET /recipes` or controller.db") from error
    root = None
    with contextlib.suppress(yaml.YAMLError, RecursionError):
        root = yaml.compose(text, Loader)
    if isinstance(root, yaml.MappingNode):
        root = next((value for key, value in root.value if key.value == "recipes"), root)
    nodes = root.value if isinstance(root, yaml.SequenceNode) else [root] * len(recipes)
    return list(zip(recipes, nodes if len(nodes) == len(recipes) else [None] * len(recipes), strict=True))


def database_recipes(path: Path) -> list[Any]:
    """The recipes of controller.db, in the column `data`, or `json` of older ones; the file is only read."""
    recipes: list[Any] = []
    try:
        with sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True) as database:
            columns = {row[1] for row in database.execute("PRAGMA table_info(recipes)")}
            column = "data" if "data" in columns else "json"
            query = f'SELECT rowid, "{column}" FROM recipes ORDER BY rowid'  # noqa: S608  (one of two fixed names)
            for row, text in database.execute(query):
                try:
                    recipes += vllm_studio.recipes(json.loads(text))
                except (ValueError, TypeError, RecursionError, UsageError) as error:
                    click.echo(f"{path}: row {row} is not a recipe ({error}); it is left out", err=True)
    except sqlite3.Error as error:
        raise UsageError(
            f"{path}: its recipes cannot be read ({error}); give VLLM Studio's own file"
        ) from error
    if not recipes:
        raise UsageError(f"{path}: has no recipes; give the file of a Studio that has some")
    return recipes


def document_of(path: Path) -> tuple[dict[str, Any], Any]:
    """The mapping of a YAML file, and its root node, which knows the lines; UsageError for another file."""
    data, root = go_yaml.document(read_text(path), str(path))
    if not isinstance(data, dict):
        raise UsageError(f"{path}: must be a mapping; give the tool's own file")
    return data, root
