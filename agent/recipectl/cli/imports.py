"""import: recipes from commands, units and other tools' files."""

import os
import re
from pathlib import Path

import click

from recipectl.cli.import_output import let_share_gpus, output, output_host_file
from recipectl.cli.import_sources import (
    database_recipes,
    document_of,
    is_sqlite,
    json_recipes,
    text_of,
)
from recipectl.cli.names import complete_engine, complete_file
from recipectl.cli.options import Folder
from recipectl.errors import RecipectlError, UsageError
from recipectl.importers import (
    compose,
    host_units,
    llama_swap,
    quadlet,
    running,
    scripts,
    shell,
    systemd_unit,
    vllm_recipes,
    vllm_studio,
)
from recipectl.importers.command import Command, command_from_words
from recipectl.importers.draft import AS_IT_RUNS, RUN_IT, Draft, redacted
from recipectl.importers.lines import Remark, errors_at, place_of, placed
from recipectl.importers.shapes import mapping
from recipectl.place import Place
from recipectl.systemd.store import Store

_OUTPUT = click.option("-o", "--output", "folder", type=Folder(), metavar="DIR", help="Write files here.")


@click.group("import")
def import_() -> None:
    """Turn what runs, a command, a unit or another tool's file into recipes.

    They are printed, or written with -o; what is not carried over is reported on standard error.
    """


@import_.command("command", context_settings={"ignore_unknown_options": True})
@click.argument(
    "words",
    nargs=-1,
    required=True,
    metavar="FILE|-|-- WORD...",
    type=click.UNPROCESSED,
    shell_complete=complete_engine,
)
@_OUTPUT
def command_(words: tuple[str, ...], folder: Path | None) -> int:
    """A shell script's engine commands, or one after `--`."""
    imported = scripts.imported(_commands(words))
    if not imported.drafts and not imported.refusals:
        _refuse_other(words[0], imported.not_carried_over)
    let_share_gpus(imported.drafts)
    output(imported.drafts, folder, imported.not_carried_over)
    file = words[0] if len(words) == 1 and _is_file(words[0]) else ""
    for refusal in imported.refusals:
        click.echo(placed(refusal, file), err=True)
    return 2 if imported.refusals else 0


def _refuse_other(source: str, not_carried_over: list[Remark]) -> None:
    for remark in not_carried_over:
        click.echo(placed(redacted(str(remark)), source), err=True)
    fault = f"{source} runs no engine (vllm, sglang, llama-server)"
    raise UsageError(f"{fault}; give an engine's command, {AS_IT_RUNS}")


@import_.command("vllm-studio")
@click.argument("source", metavar="FILE|-", shell_complete=complete_file)
@_OUTPUT
def vllm_studio_(source: str, folder: Path | None) -> int:
    """VLLM Studio's JSON or database.

    FILE is the JSON of `GET /recipes`, or controller.db, which is only read.
    """
    if source != "-" and is_sqlite(source):
        recipes = [(recipe, None) for recipe in database_recipes(Path(source))]
    else:
        recipes = json_recipes(source)
    drafts: list[Draft] = []
    status = 0
    for recipe, node in recipes:
        try:
            drafts.append(vllm_studio.draft(recipe, source, node))
        except RecipectlError as error:
            name = recipe.get("id", recipe.get("name")) if isinstance(recipe, dict) else None
            keys = map(str, error.key) if isinstance(error, UsageError) else ()
            parts = (source, place_of(node, *keys), f"recipe {name}" if name else "")
            click.echo(placed(str(error), ": ".join(filter(None, parts))), err=True)
            status = error.status
    vllm_studio.set_conflicts(drafts)
    return output(drafts, folder) or status


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
def vllm_recipe_(
    source: Path, variant: str, hardware: str | None, strategy: str | None,
    features: tuple[str, ...], no_features: bool, modes: tuple[str, ...], folder: Path | None,
) -> int:  # fmt: skip
    """One of vLLM's official recipes.

    FILE is in a checkout of vllm-project/recipes. The recipe runs the command that their site shows for one
    node.
    """
    recipe, _ = document_of(source)
    folders = source.absolute().parents
    checkout = next((folder for folder in folders if (folder / "taxonomy.yaml").exists()), None)
    if checkout is None:
        raise UsageError(f"no taxonomy.yaml in a folder above {source}; give the file in its checkout")
    strategies = {
        path.stem: document_of(path)[0] for path in sorted((checkout / "strategies").glob("*.yaml"))
    }
    taxonomy, _ = document_of(checkout / "taxonomy.yaml")
    if wrong := next((mode for mode in modes if not all(mode.partition("=")[::2])), None):
        raise UsageError(f"--mode is `{wrong}`; give FEATURE=MODE")
    if no_features and features:
        raise UsageError("--no-features and --feature cannot be given together; give one of them")
    meta = mapping(recipe.get("meta"), "meta")
    default_hardware = str(meta.get("default_hardware") or vllm_recipes.DEFAULT_HARDWARE)
    choice = vllm_recipes.Choice(
        variant=variant,
        hardware=default_hardware if hardware is None else hardware,
        strategy=strategy or recipe.get("default_strategy") or vllm_recipes.DEFAULT_STRATEGY,
        features=() if no_features else features or None,
        modes=dict(mode.partition("=")[::2] for mode in modes),
    )
    return output([vllm_recipes.draft(recipe, taxonomy, strategies, choice, str(source))], folder)


@import_.command("llama-swap")
@click.argument("source", metavar="FILE", type=click.Path(path_type=Path))
@_OUTPUT
@click.pass_obj
def llama_swap_(place: Place, source: Path, folder: Path | None) -> int:
    """The models of llama-swap's config.yaml, and its one address as `gateway:` of the host file."""
    config, root = document_of(source)
    with errors_at(str(source)):
        imported = llama_swap.imported(config, str(source), root)
    status = output(imported.drafts, folder, imported.not_carried_over)
    if imported.drafts:
        output_host_file({"gateway": imported.gateway}, place, folder)
    return status


@import_.command("unit")
@click.argument("source", metavar="FILE|-|UNIT", shell_complete=complete_file)
@_OUTPUT
def unit_(source: str, folder: Path | None) -> int:
    """A systemd service that runs an engine, with its drop-ins."""
    if source == "-":
        text = text_of(source)
        with errors_at("standard input"):
            return output([systemd_unit.draft(text, "model", source)], folder)
    path = Path(source)
    name = path.name.removesuffix(".service")
    if path.suffix == ".container":
        return _import_quadlet(source, path.stem, folder)
    is_installed = "/" not in source and not path.exists()
    if is_installed:
        path = host_units.file_of(name)
    if own := Store(path.parent).read(path.name):
        raise UsageError(f"{path} is a unit of recipectl itself: its recipe is {own.source}", kind="file")
    drop_ins = Store(path.parent).drop_ins(f"{name}.service")
    if path.is_symlink():  # an alias: systemd reads the drop-ins of all names (systemd.unit(5))
        drop_ins |= Store(path.parent).drop_ins(path.resolve().name)
    text = text_of(str(path))
    with errors_at(str(path)):
        draft = systemd_unit.draft(text, name, str(path), drop_ins)
    if is_installed and "autostart" in draft.fields and not host_units.is_enabled(f"{name}.service"):
        del draft.fields["autostart"]
        draft.comments[""] += (
            "\nThe service was not enabled. With `autostart: true` the model starts at boot."
        )
    return output([draft], folder)


@import_.command("compose")
@click.argument("source", metavar="FILE|-", shell_complete=complete_file)
@_OUTPUT
def compose_(source: str, folder: Path | None) -> int:
    """The engines among the services of a Compose file."""
    drafts, left_out = compose.compose_drafts(text_of(source), source)
    let_share_gpus(drafts)
    return output(drafts, folder, left_out)


@import_.command("quadlet")
@click.argument("source", metavar="FILE|-", shell_complete=complete_file)
@_OUTPUT
def quadlet_(source: str, folder: Path | None) -> int:
    """An engine's .container file of Podman's Quadlet."""
    name = "model" if source == "-" else Path(source).name.removesuffix(".container")
    return _import_quadlet(source, name, folder)


def _import_quadlet(source: str, name: str, folder: Path | None) -> int:
    text = text_of(source)
    with errors_at(source):
        draft = quadlet.quadlet_draft(text, name, source)
    return output([draft], folder)


@import_.command("process")
@click.argument("pid", required=False, type=click.IntRange(min=1), metavar="[PID]")
@click.option("--port", type=click.IntRange(1, 65535), help="Whatever listens there.")
@_OUTPUT
def process_(pid: int | None, port: int | None, folder: Path | None) -> int:
    """An engine that runs, whatever started it.

    Its command, environment, user, limits and address are read from /proc, as root or as its own user.
    """
    if (pid is None) == (port is None):
        raise UsageError("give a PID or --port: one of them")
    return output([running.draft(pid or running.pid_on_port(port or 0), port)], folder)


def _commands(words: tuple[str, ...]) -> list[Command]:
    """The commands of a script, or the one command in the words, or in a single quoted word."""
    if len(words) > 1:
        return [command_from_words(list(words))]
    source = words[0]
    if source == "-" or _is_file(source):
        folder = None if source == "-" else str(Path(source).absolute().parent)
        text = text_of(source)
        with errors_at("" if source == "-" else source):
            if Path(source).suffix in (".fish", ".csh", ".ps1", ".nix", ".py"):
                raise UsageError(f"it is no script of a shell; {RUN_IT}")
            return shell.commands(text, folder=folder)
    if not re.search(r"\s", source.strip()):
        fault = f"`{source}` is neither a file nor a command with arguments"
        raise UsageError(f"{fault}; give a file, `-`, or a whole command after `--`")
    return shell.commands(source)


def _is_file(word: str) -> bool:
    return os.path.exists(word)  # noqa: PTH110  (Path's own fails for a long command)
