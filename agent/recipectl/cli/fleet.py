"""fleet: many hosts of an Ansible inventory."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from recipectl.cli.options import json_option, print_json

if TYPE_CHECKING:
    from recipectl.errors import Problem

_NAMED_HOSTS = 3
_INVENTORY = click.option(
    "-i",
    "--inventory",
    required=True,
    type=click.Path(path_type=Path),
    help="An Ansible inventory: a file or folder.",
)


@click.group("fleet")
def fleet_() -> None:
    """Check the recipes of many hosts."""


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
            click.echo(f"{problem} ({_hosts_in_words(names)})", err=True)
    return 2 if any(_is_error(problem) for problem in findings) else 0


def _is_error(problem: Problem) -> bool:
    return problem.severity == "error"


def _hosts_in_words(names: list[str]) -> str:
    """`gpu1, gpu2, gpu3 and 997 more`."""
    shown = ", ".join(names[:_NAMED_HOSTS])
    more = len(names) - _NAMED_HOSTS
    return f"{shown} and {more} more" if more > 0 else shown
