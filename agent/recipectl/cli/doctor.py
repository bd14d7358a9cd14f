"""doctor: all checks of a host at once."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from recipectl.audit.checks import CHECKS
from recipectl.audit.subject import Subject
from recipectl.cli.options import json_option, print_json, problems_as_json
from recipectl.errors import BusError, Problem, RecipectlError
from recipectl.text import one_line

if TYPE_CHECKING:
    from recipectl.place import Place


@click.command("doctor")
@json_option()
@click.pass_obj
def doctor_(place: Place, as_json: bool) -> int:
    """Run all checks of this host, and say what to do; exit status 3 when there is something."""
    subject = Subject(place)
    rows = []
    status = 0
    told: set[Problem] = set()
    for name, check in CHECKS.items():
        try:
            problems = tuple(sorted({*check(subject)}))
        except RecipectlError as error:  # a wrong host file, or no systemd: the other checks go on
            problems = error.problems
            status = 1 if isinstance(error, BusError) else status
        rows.append({"check": name, "ok": not problems, "problems": problems_as_json(problems)})
        if not as_json:
            # A wrong host file ends several checks.
            new = [problem for problem in problems if problem not in told]
            told |= {*new}
            result = f"{len(new)} to do" if new else "as above" if problems else "ok"
            click.echo(f"{name:<12} {result}")
            for problem in new:
                click.echo(f"  {one_line(str(problem))}")
    if as_json:
        print_json(rows)
    return status or (0 if all(row["ok"] for row in rows) else 3)
