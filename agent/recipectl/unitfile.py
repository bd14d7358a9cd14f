"""A unit as a file: its name, its text, and what it says of its recipe."""

from dataclasses import dataclass

SECTION = "[X-Recipectl]"


@dataclass(frozen=True)
class Unit:
    """A unit's file name and its exact text."""

    name: str
    text: str


def name(recipe_name: str) -> str:
    """The service of a recipe."""
    return f"model-{recipe_name}.service"


def facts(text: str) -> dict[str, str]:
    """KEY -> value of a unit's [X-Recipectl] section; empty for a unit that is not ours."""
    _, found, tail = text.partition(f"\n{SECTION}\n")
    pairs = (line.partition("=") for line in tail.split("\n") if "=" in line)
    return {key: value.replace("%%", "%") for key, _, value in pairs} if found else {}
