"""What a recipe that an import makes lacks to compile, as far as the recipe alone can tell. Pure."""

from itertools import product
from pathlib import Path

from recipectl.compiler import service_settings
from recipectl.compiler.pipeline import NO_RUNTIME, resolve_purely
from recipectl.errors import Problem, UsageError
from recipectl.importers.draft import Draft
from recipectl.machine.installation import Installation
from recipectl.recipe.hostfile import HostSettings
from recipectl.recipe.load import load_with_positions

_NEWEST = 999  # of systemd: the host may be another
# Values that are tried for a variable of the host: a path first, then a number and an address.
_PATH = "/x"
_OTHERS = ("8", "127.0.0.1")


def faults(draft: Draft, text: str) -> list[str]:
    """What `compile` would refuse of a recipe, its `text`; not where a variable of the host decides it."""
    values = dict.fromkeys(draft.variables, _PATH)
    problems = _problems(draft.name, text, values)
    for variable, value in product(draft.variables, _OTHERS) if problems else ():
        others = values | {variable: value}
        if len(fewer := _problems(draft.name, text, others)) < len(problems):
            problems, values = fewer, others
    lines = ["", *text.splitlines()]
    return [problem.sentence for problem in problems if "${" not in lines[problem.line]]


def _problems(name: str, text: str, variables: dict[str, str]) -> list[Problem]:
    """What `compile` would refuse, with values for the variables of the host; each with its line."""
    file = f"/{name}.yaml"
    lines: dict[str, int] = {}
    try:
        recipe, positions = load_with_positions((Path(file),), variables, lambda _: text.encode())
        lines = {".".join(map(str, key)): line for key, (_, line, _) in positions.items()}
        installation = Installation(("/none",), systemd_version=_NEWEST)
        resolve_purely(recipe, file, NO_RUNTIME, HostSettings(), installation)
        problems = [
            problem for error in service_settings.check(recipe, installation) for problem in error.problems
        ]
    except UsageError as error:
        problems = [*error.problems]
    return [problem._replace(line=problem.line or lines.get(problem.key, 0)) for problem in problems]
