"""import: recipes from commands, units and other tools' files."""

import json
import shlex
import sqlite3
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import click
import yaml

from recipectl.errors import RecipectlError, UsageError
from recipectl.importers import official, shell, studio, swap, units
from recipectl.importers.draft import Draft, render, told
from recipectl.importers.programs import program, runs_container, unwrapped
from recipectl.importers.words import drafted
from recipectl.recipe.yamlfile import read
from recipectl.systemd.store import Store

_OUTPUT = click.option(
    "-o", "--output", type=click.Path(path_type=Path), metavar="DIR", help="Write files here."
)


def _text(source: str) -> str:
    return sys.stdin.read() if source == "-" else read(Path(source))


def _give(drafts: Iterable[Draft], output: Path | None, lost: Iterable[str] = ()) -> int:
    """Print recipes, or write each to a file of its own; what was lost goes to standard error."""
    made: dict[str, Draft] = {}
    digests: dict[str, str] = {}
    for one in drafts:
        stem, number = one.name, 2
        while stem in made:
            stem, number = f"{one.name}-{number}", number + 1
        made[stem] = one
        for name, digest in one.secrets.items():
            if digests.setdefault(name, digest) != digest:  # another secret than that of the recipe before
                one.fields["secrets"][name] += f"-{stem}"
    for stem, one in made.items():
        if output:
            output.mkdir(parents=True, exist_ok=True)
            path = output / f"{stem}.yaml"
            try:
                with path.open("x", encoding="utf-8") as file:
                    file.write(render(one))
            except FileExistsError as error:
                raise UsageError(f"{path} is there already; remove it or give another -o") from error
            click.echo(path)
        else:
            click.echo((f"# ── {stem}.yaml\n" if len(made) > 1 else "") + render(one), nl=len(made) > 1)
        for text in one.lost:
            click.echo(f"{stem}: not carried over: {told(text)}", err=True)
        if one.variables:
            names = ", ".join(one.variables)
            click.echo(f"{stem}: give under `vars:` of the host file: {names}", err=True)
    for text in lost:
        click.echo(f"not carried over: {told(text)}", err=True)
    return 0


@click.group("import")
def import_() -> None:
    """Turn a command, a unit or another tool's file into recipes.

    They are printed, or written with -o; what could not be carried over is told on standard error.
    """


@import_.command("command", context_settings={"ignore_unknown_options": True})
@click.argument("words", nargs=-1, required=True, metavar="FILE|-|-- WORD...", type=click.UNPROCESSED)
@_OUTPUT
def command_(words: tuple[str, ...], output: Path | None) -> int:
    """A shell script's engine commands, or one after `--`."""
    if len(words) > 1 or (words[0] != "-" and not Path(words[0]).exists()):
        if len(words) == 1 and not words[0].strip().count(" "):
            raise UsageError(f"{words[0]}: there is no such file; give one, `-`, or a command after `--`")
        # One word that is no file may be a whole command in quotes.
        text = shell.commands(words[0]) if len(words) == 1 else [shell.split(list(words))]
    else:
        text = shell.commands(_text(words[0]))
    drafts, other = [], list[str]()
    before: list[str] = []  # of commands that are no engine's: what was decided there still counts
    for command in text:
        inner = unwrapped(command)
        if program(inner.words) or runs_container(inner.words) or len(text) == 1:
            command.lost[:0] = before
            before = []
            drafts.append(drafted(command))
        else:
            before += command.lost
            other.append(f"`{shlex.join(command.words)}`, which runs no engine")
    if not drafts:
        raise UsageError(f"no engine is run in {words[0]} (vllm, sglang, llama-server); give its command")
    return _give(drafts, output, other)


@import_.command("vllm-studio")
@click.argument("source", metavar="FILE|-")
@_OUTPUT
def studio_(source: str, output: Path | None) -> int:
    """VLLM Studio's JSON or database.

    FILE is the JSON of `GET /recipes`, or controller.db, which is only read.
    """
    found = _rows(Path(source)) if source != "-" and _is_sqlite(source) else studio.recipes(_json(source))
    drafts, status = [], 0
    for one in found:
        try:
            drafts.append(studio.draft(one, source))
        except RecipectlError as error:
            click.echo(str(error), err=True)
            status = error.status
    return _give(drafts, output) or status


def _is_sqlite(source: str) -> bool:
    try:
        with Path(source).open("rb") as file:
            return file.read(16) == b"SQLite format 3\0"
    except OSError as error:
        raise UsageError(f"{source}: cannot be read: {error.strerror}") from error


def _json(source: str) -> Any:
    try:
        return json.loads(_text(source))
    except ValueError as error:
        raise UsageError(f"{source}: is not JSON ({error}); give `GET /recipes` or controller.db") from error


def _rows(path: Path) -> list[Any]:
    """The recipes of controller.db: column `data`, `json` in older ones; the file is only read."""
    found = []
    try:
        with sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True) as base:
            columns = {row[1] for row in base.execute("PRAGMA table_info(recipes)")}
            column = "data" if "data" in columns else "json"
            query = f'SELECT rowid, "{column}" FROM recipes ORDER BY rowid'  # noqa: S608  (one of two fixed names)
            for row, text in base.execute(query):
                try:
                    found += studio.recipes(json.loads(text))
                except (ValueError, TypeError, UsageError) as error:
                    click.echo(f"{path}: row {row} is no recipe ({error}); it is left out", err=True)
    except sqlite3.Error as error:
        raise UsageError(
            f"{path}: has no recipes that can be read ({error}); give VLLM Studio's own"
        ) from error
    return found


def _mapping(path: Path) -> dict[str, Any]:
    try:
        data = yaml.load(read(path), Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))  # noqa: S506  (it is safe)
    except yaml.YAMLError as error:
        raise UsageError(f"{path}: is not YAML ({error}); correct it") from error
    if not isinstance(data, dict):
        raise UsageError(f"{path}: must be a mapping; give the tool's own file")
    return data


@import_.command("vllm-recipe")
@click.argument("source", metavar="FILE", type=click.Path(path_type=Path))
@click.option("--variant", default="default", show_default=True)
@click.option(
    "--hardware", default=None, help="A profile of taxonomy.yaml.  [default: the recipe's, else h200]"
)
@click.option("--strategy", default=None, help="[default: the recipe's, else single_node_tp]")
@click.option(
    "--feature", "features", multiple=True, help="Only these; again for more.  [default: the recipe's]"
)
@click.option("--no-features", is_flag=True, help="None of the recipe's features.")
@click.option(
    "--mode", "modes", multiple=True, metavar="FEATURE=MODE", help="For a feature with several modes."
)
@_OUTPUT
def official_(
    source: Path, variant: str, hardware: str | None, strategy: str | None,
    features: tuple[str, ...], no_features: bool, modes: tuple[str, ...], output: Path | None,
) -> int:  # fmt: skip
    """One of vLLM's official recipes.

    FILE is in a checkout of vllm-project/recipes; what their site renders for one node is what is made.
    """
    recipe = _mapping(source)
    top = next((folder for folder in source.absolute().parents if (folder / "taxonomy.yaml").exists()), None)
    if top is None:
        raise UsageError(f"no taxonomy.yaml in a folder above {source}; give the file in its checkout")
    strategies = {path.stem: _mapping(path) for path in sorted((top / "strategies").glob("*.yaml"))}
    taxonomy = _mapping(top / "taxonomy.yaml")
    wished = (recipe.get("meta") or {}).get("default_hardware")
    if no_features and features:
        raise UsageError("--no-features and --feature cannot be given together; give one of them")
    pairs = dict(mode.partition("=")[::2] for mode in modes)
    choice = official.Choice(
        variant, hardware or wished or "h200", strategy or recipe.get("default_strategy"),
        () if no_features else features or None, pairs,
    )  # fmt: skip
    return _give([official.draft(recipe, taxonomy, strategies, choice, str(source))], output)


@import_.command("llama-swap")
@click.argument("source", metavar="FILE", type=click.Path(path_type=Path))
@_OUTPUT
def swap_(source: Path, output: Path | None) -> int:
    """The models of llama-swap's config.yaml."""
    drafts, lost = swap.drafts(_mapping(source), str(source))
    return _give(drafts, output, lost)


@import_.command("unit")
@click.argument("source", metavar="FILE|-|UNIT")
@_OUTPUT
def unit_(source: str, output: Path | None) -> int:
    """A systemd service that runs an engine, with its drop-ins."""
    folders = tuple(Path(base, "systemd/system") for base in ("/etc", "/run", "/usr/local/lib", "/usr/lib"))
    if source == "-":
        return _give([units.draft(_text(source), "model", source)], output)
    path, name = Path(source), Path(source).name.removesuffix(".service")
    named = "/" not in source and not path.exists()
    template = f"{name.partition('@')[0]}@.service"
    if named:
        files = (folder / one for one in dict.fromkeys((f"{name}.service", template)) for folder in folders)
        there = next((file for file in files if file.exists()), None)
        if there is None:
            where = ", ".join(map(str, folders))
            raise UsageError(f"there is no {name}.service in {where}; give the unit's file")
        path = there
    texts = [_text(str(path)), *Store(path.parent).drop_ins(f"{name}.service").values()]
    return _give([units.draft("\n".join(texts), name, str(path))], output)
