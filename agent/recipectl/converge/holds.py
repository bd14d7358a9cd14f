"""Which recipes an apply leaves alone: a model that is being upgraded, and one whose upgrade has failed."""

import hashlib
from collections.abc import Mapping
from dataclasses import replace

from recipectl.converge import records
from recipectl.errors import Problem, RecipectlError, on_host
from recipectl.place import Place
from recipectl.recipe import search
from recipectl.recipe.trusted import content_for


def held(place: Place) -> dict[str, Problem]:
    """Recipe -> why it is left alone, as a warning."""
    holds = {}
    for name, file in search.recipe_files(place.recipe_folders).items():
        if sentence := _why_held(place, name):
            holds[name] = on_host("unit", sentence, file=str(file), severity="warning")
    return holds


def _why_held(place: Place, name: str) -> str | None:
    try:
        record = records.read(place, name)
    except RecipectlError as error:  # nobody knows whether it is being upgraded
        return f"`{name}` is left alone: {error}"
    if record and not record.is_over:
        return f"`{name}` is being upgraded, and left alone; see `{place.verb('upgrade')} --status {name}`"
    if record is None or not record.held or record.held != digest(place, name):
        return None
    event = "its upgrade has failed" if record.step == "failed" else "its upgrade was rolled back"
    has_unit = record.before is None or record.before.units
    state = "the old unit stays in force" if has_unit else "it has no unit"
    remedy = f"change the recipe, or take it as it is with `{place.verb('apply')} --accept {name}`"
    return f"`{name}` is held: {event}, and {state}; {remedy}"


def is_being_upgraded(place: Place, name: str) -> bool:
    """True for a model whose upgrade is not over; also where its record cannot be read."""
    try:
        record = records.read(place, name)
    except RecipectlError:
        return True
    return record is not None and not record.is_over


def accept(place: Place, names: Mapping[str, Problem]) -> None:
    """Hold these recipes no longer; RecipectlError for one that is being upgraded now."""
    for name, problem in names.items():
        record = records.read(place, name)
        if record and not record.is_over:
            raise RecipectlError(problem.sentence)
        if record:
            records.write(place, replace(record, held=None))


def digest(place: Place, name: str) -> str | None:
    """A digest of what a recipe says, with its drop-ins and variables; None where it is gone or wrong."""
    # With pydantic, which an apply with nothing to do does not need.
    from recipectl.recipe.hostfile import load_host_settings
    from recipectl.recipe.load import load_with_positions

    content = content_for(place.owners)
    source = search.source_of(name, place.recipe_folders)
    if source is None:
        return None
    try:
        settings, _ = load_host_settings(search.host_files(place.bases), content)
        recipe, _ = load_with_positions((source.file, *source.drop_ins), settings.vars, content)
    except RecipectlError:
        return None
    return hashlib.sha256(recipe.model_dump_json(exclude_defaults=True).encode()).hexdigest()
