"""fleet: many hosts of an Ansible inventory."""

from __future__ import annotations

from bisect import insort
from pathlib import Path
from typing import TYPE_CHECKING

import click

from recipectl.cli.options import json_option, print_json
from recipectl.cli.terminal import moving_line, table
from recipectl.text import names_in_words

if TYPE_CHECKING:
    from recipectl.errors import Problem
    from recipectl.fleet.remote import Answer

_INVENTORY = click.option(
    "-i",
    "--inventory",
    required=True,
    type=click.Path(path_type=Path),
    help="An Ansible inventory: a file or folder.",
)


@click.group("fleet")
def fleet_() -> None:
    """Check and compare many hosts of an Ansible inventory."""


@fleet_.command("check")
@_INVENTORY
@json_option()
def check(inventory: Path, as_json: bool) -> int:
    """Check the recipes of all hosts together, from a checkout; no engine is needed.

    Exit status 2 when something is wrong.
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
    return 2 if any(_is_error(problem) for problem in findings) else 0


def _is_error(problem: Problem) -> bool:
    return problem.severity == "error"


@fleet_.command("versions")
@_INVENTORY
@json_option("object")
def versions(inventory: Path, as_json: bool) -> int:
    """Compare what each recipe runs with on all hosts: engine, lock, driver and GPUs; over ssh.

    Exit status 3 when hosts differ, or one differs from its own recipe; 1 when one does not answer.
    """
    from recipectl.fleet.inventory import variables_of
    from recipectl.fleet.remote import ask_all
    from recipectl.fleet.versions import compare

    hosts = variables_of(inventory)
    answers: list[Answer] = []
    with moving_line(lambda: f"{len(answers)} of {len(hosts)} hosts have answered"):
        for answer in ask_all(hosts):
            insort(answers, answer, key=lambda answer: answer.host)
    comparison = compare(answers)
    silent = [answer for answer in answers if answer.fault]
    own = [
        (answer.host, model.name, difference)
        for answer in answers
        for model in answer.models
        for difference in model.differences
    ]
    if as_json:
        print_json(
            {
                "models": [row._asdict() | {"hosts": names} for row, names in comparison.variants.items()],
                "between": [deviation._asdict() for deviation in comparison.deviations],
                "own": [
                    {"host": host, "recipe": name} | difference.model_dump() for host, name, difference in own
                ],
                "no_answer": [{"host": answer.host, "reason": answer.fault} for answer in silent],
            }
        )
    else:
        rows = [[*row, names_in_words(names)] for row, names in comparison.variants.items()]
        rows += [["-", "no answer", "", "", "", answer.host] for answer in silent]
        table(rows, ["RECIPE", "ENGINE", "LOCK", "DRIVER", "GPUS", "HOSTS"])
        for line in (
            *map(str, comparison.deviations),
            *(f"{host}: {name}: {difference}" for host, name, difference in own),
        ):
            click.echo(line)
        for answer in silent:
            click.echo(f"{answer.host}: no answer: {answer.fault}", err=True)
    # As `versions` has it, a site's drop-in is told, and is no drift.
    drift = comparison.deviations or any(difference.where != "drop-in" for _, _, difference in own)
    return 3 if drift else 1 if silent else 0
