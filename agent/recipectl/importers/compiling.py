"""What a recipe that an import makes lacks to compile, as far as the recipe alone can tell. Pure."""

from pathlib import Path

from recipectl.compiler import service_settings
from recipectl.compiler.pipeline import NO_RUNTIME, resolve_purely
from recipectl.errors import UsageError
from recipectl.importers.draft import Draft
from recipectl.machine.installation import Installation
from recipectl.recipe.hostfile import HostSettings
from recipectl.recipe.load import load_with_positions

_NEWEST = 999  # of systemd: the host may be another


def faults(draft: Draft, text: str) -> list[str]:
    """What `compile` would refuse of a recipe, its `text`; none where variables of the host may decide it."""
    if draft.variables:
        return []
    file = f"/{draft.name}.yaml"
    try:
        recipe, _ = load_with_positions((Path(file),), {}, lambda _: text.encode())
        installation = Installation(("/none",), systemd_version=_NEWEST)
        resolve_purely(recipe, file, NO_RUNTIME, HostSettings(), installation)
    except UsageError as error:
        return [problem.sentence for problem in error.problems]
    return [str(error) for error in service_settings.check(recipe, installation)]
