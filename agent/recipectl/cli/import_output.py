"""What `import` prints and writes: recipes, and what they lack."""

from collections.abc import Collection, Iterable, Mapping
from pathlib import Path

import click
import yaml

from recipectl.errors import UsageError
from recipectl.files import failures_named, refuse_planted_links
from recipectl.importers.compiling import faults
from recipectl.importers.draft import Draft, redacted, render, unique_name
from recipectl.importers.lines import Remark
from recipectl.place import Place
from recipectl.recipe import search


def output(drafts: Iterable[Draft], folder: Path | None, not_carried_over: Iterable[Remark] = ()) -> int:
    """Print recipes, or write each to a file; what is not carried over goes to standard error.

    The status is 2 when nothing was imported.
    """
    recipes = _named(drafts)
    for name, draft in recipes.items():
        text = render(draft)
        if folder:
            click.echo(_write(folder / f"{name}.yaml", text))
        elif len(recipes) > 1:
            click.echo(f"# ── {name}.yaml\n{text}")
        else:
            click.echo(text, nl=False)
        for remark in draft.not_carried_over:
            click.echo(f"{name}: not carried over: {draft.shown(str(remark))}", err=True)
        for fault in faults(draft, text):
            click.echo(f"{name}: the recipe does not compile: {draft.shown(fault)}", err=True)
        if draft.secrets:
            secrets = ", ".join(draft.secrets)
            click.echo(f"{name}: write the secrets into their files, see `secrets:`: {secrets}", err=True)
        if draft.variables:
            variables = ", ".join(draft.variables)
            folder_is = " (FOLDER: where relative paths begin)" if "FOLDER" in draft.variables else ""
            click.echo(f"{name}: define under `vars:` of the host file: {variables}{folder_is}", err=True)
    for remark in not_carried_over:
        click.echo(f"not carried over: {redacted(str(remark))}", err=True)
    return 0 if recipes else 2


def let_share_gpus(drafts: Collection[Draft]) -> None:
    """Let recipes that name one GPU run at the same time, as what they come from did."""
    for draft in drafts:
        others = [other.name for other in drafts if other is not draft and _gpus(draft) & _gpus(other)]
        if others:
            comment = f"A GPU is shared with {', '.join(others)}: with `exclusive`, only one would run."
            draft.set("gpu_sharing", "ordered", comment)


def _gpus(draft: Draft) -> set[str]:
    gpus = draft.fields.get("gpus")
    return {*map(str, gpus)} if isinstance(gpus, list) else set()


def output_host_file(settings: Mapping[str, object], place: Place, folder: Path | None) -> None:
    """What belongs in the host file: a new file beside the folder of recipes, else lines for one."""
    if place.user:
        click.echo(
            "not carried over: the one address of all models, which only the system can have", err=True
        )
        return
    text = yaml.safe_dump(dict(settings), sort_keys=False)
    files = search.host_files(place.bases)
    if folder and not files and folder.absolute() in place.recipe_folders:
        click.echo(_write(folder.absolute().parent / "host.yaml", text))
    else:
        file = files[0] if files else place.bases[0] / "host.yaml"
        click.echo(f"for the one address of all models, add to {file}:\n{text}", nl=False, err=True)


def _named(drafts: Iterable[Draft]) -> dict[str, Draft]:
    """Drafts by names that differ; different secrets of one variable get different files."""
    by_name: dict[str, Draft] = {}
    digests: dict[str, str] = {}
    for draft in drafts:
        name = unique_name(draft.name, by_name)
        by_name[name] = draft
        for variable, digest in draft.secrets.items():
            if digests.setdefault(variable, digest) != digest:
                draft.fields["secrets"][variable] += f"-{name}"
    return by_name


def _write(path: Path, text: str) -> Path:
    refuse_planted_links(path.parent)
    with failures_named("written", path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            file = path.open("x", encoding="utf-8")
        except FileExistsError as error:
            raise UsageError(f"{path} exists already; remove it or give another -o") from error
        try:
            with file:
                file.write(text)
        except OSError:
            path.unlink()  # no half of a recipe, nor an empty one
            raise
    return path
