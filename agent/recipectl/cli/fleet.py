"""fleet: many hosts of an Ansible inventory."""

from __future__ import annotations

from bisect import insort
from pathlib import Path
from typing import TYPE_CHECKING

import click

from recipectl.cli.options import json_object_option, json_option, print_json
from recipectl.cli.terminal import moving_line, table
from recipectl.errors import UsageError
from recipectl.text import names_in_words, natural

if TYPE_CHECKING:
    from recipectl.fleet.remote import HostModels
    from recipectl.fleet.versions import Comparison
    from recipectl.place import Place

_INVENTORY = click.option(
    "-i",
    "--inventory",
    required=True,
    type=click.Path(path_type=Path),
    help="An Ansible inventory: a file or folder.",
)


@click.group("fleet")
@click.pass_obj
def fleet_(place: Place) -> None:
    """Check and compare many hosts of an Ansible inventory."""
    place.require_local()


@fleet_.command("check")
@_INVENTORY
@json_option()
def check(inventory: Path, as_json: bool) -> int:
    """Check the recipes of all hosts together.

    They come from a checkout, and no engine is needed. Exit status 2 when something is wrong.
    """
    from recipectl.fleet import check as checks  # with pydantic
    from recipectl.fleet.inventory import read

    hosts = read(inventory)
    findings = checks.check(hosts).hosts
    if as_json:
        print_json([problem.as_json() | {"hosts": names} for problem, names in findings.items()])
    else:
        for problem, names in findings.items():
            click.echo(f"{problem} ({names_in_words(names)})", err=True)
    return 2 if any(problem.is_error for problem in findings) else 0


@fleet_.command("versions")
@_INVENTORY
@json_object_option()
def versions(inventory: Path, as_json: bool) -> int:
    """Compare what all hosts run their models with.

    Each host is asked over ssh for engine, lock, driver and GPUs. Exit status 3 when hosts differ,
    or one differs from its own recipe; 1 when one does not answer.
    """
    from recipectl.fleet.inventory import variables_of
    from recipectl.fleet.remote import ask_all
    from recipectl.fleet.versions import compare

    hosts = variables_of(inventory)
    if not hosts:
        raise UsageError(f"{inventory} has no hosts; name some")
    answers: list[HostModels] = []
    with moving_line(lambda: f"{len(answers)} of {len(hosts)} hosts have answered"):
        for answer in ask_all(hosts):
            insort(answers, answer, key=lambda answer: natural(answer.host))
    comparison = compare(answers)
    if as_json:
        print_json(_as_json(comparison))
    else:
        _print_comparison(comparison)
    return 3 if comparison.has_drift else 1 if comparison.no_answer else 0


def _as_json(comparison: Comparison) -> dict[str, object]:
    return {
        "models": [row._asdict() | {"hosts": names} for row, names in comparison.variants.items()],
        "between": [deviation._asdict() for deviation in comparison.between],
        "own": [
            {"host": own.host, "recipe": own.recipe} | own.difference.model_dump() for own in comparison.own
        ],
        "no_recipes": comparison.no_recipes,
        "no_answer": [{"host": host, "reason": why} for host, why in comparison.no_answer.items()],
    }


def _print_comparison(comparison: Comparison) -> None:
    rows = [[*row, names_in_words(names)] for row, names in comparison.variants.items()]
    rows += [["-", "no recipes", "", "", "", host] for host in comparison.no_recipes]
    rows += [["-", "no answer", "", "", "", host] for host in comparison.no_answer]
    table(rows, ["RECIPE", "ENGINE", "LOCK", "DRIVER", "GPUS", "HOSTS"])
    for deviation in comparison.between:
        click.echo(str(deviation))
    for own in comparison.own:
        click.echo(f"{own.host}: {own.recipe}: {own.difference}")
    for host, why in comparison.no_answer.items():
        click.echo(f"{host}: no answer: {why}", err=True)
