"""A unit as a file: its name, its text, and what it says of its recipe."""

import hashlib
import re
from typing import NamedTuple

SECTION = "[X-Recipectl]"

# The variable that tells which unit a process was started with: the digest of what it keeps from its start.
MARK = "RECIPECTL_DIGEST"

# Endings of the names of services that help a model: no recipe's own name may end so.
HELPERS = ("-proxy", "-keep", "-watch")

# What all models of a host belong to.
SHARED = {
    "models.target": """# Written by recipectl; changes belong in drop-ins (systemctl edit models.target).
[Unit]
Description=All models of this host
Documentation=man:recipectl(1)

[Install]
WantedBy=@WANTED_BY@

[X-Recipectl]
""",
    "models.slice": """# Written by recipectl; changes belong in drop-ins (systemctl edit models.slice).
[Unit]
Description=Slice of all models of this host
Documentation=man:recipectl(1)

[X-Recipectl]
""",
}


class Unit(NamedTuple):
    """A unit's file name and its exact text."""

    name: str
    text: str


class Site(NamedTuple):
    """What rendering must know about the place: our helper's command, whose manager, which systemd."""

    helper: tuple[str, ...]
    user: bool = False
    systemd: int = 252
    libraries: str = ""  # the folder of recipectl's own libraries, for the helper to compare versions with

    @property
    def wanted_by(self) -> str:
        return "default.target" if self.user else "multi-user.target"


def sealed(unit: Unit) -> Unit:
    """The unit with the digest of its own text as its last line, by which an edit by hand is known."""
    return Unit(unit.name, f"{unit.text}Text={_digest(unit.text)}\n")


def edited(text: str) -> bool:
    """Whether somebody has changed a unit's file after it was written."""
    body, found, digest = text.rpartition("\nText=")
    return bool(found) and digest != _digest(f"{body}\n") + "\n"


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode(errors="surrogateescape")).hexdigest()[:12]


def shared(site: Site) -> tuple[Unit, ...]:
    """The target and the slice that all models belong to."""
    return tuple(Unit(name_, text.replace("@WANTED_BY@", site.wanted_by)) for name_, text in SHARED.items())


def name(recipe_name: str) -> str:
    """The service of a recipe."""
    return f"model-{recipe_name}.service"


def source(text: str) -> str:
    """The recipe's file that a unit was written from; empty when it does not say."""
    match = re.search(r"^SourcePath=(.*)$", text, re.M)
    return match[1].replace("%%", "%") if match else ""


def required(text: str) -> list[str]:
    """The services of other models that a service's text requires."""
    return re.findall(r"^Requires=(model-.*)$", text, re.M)


def recipe_of(unit: str) -> str:
    """The recipe of a service."""
    return unit.removeprefix("model-").removesuffix(".service")


def kinds(recipe_name: str) -> tuple[str, ...]:
    """Every unit that may belong to a recipe, the one that serves first."""
    endings = (".service", ".socket", "-proxy.service", "-keep.service", "-watch.timer", "-watch.service")
    return tuple(f"model-{recipe_name}{ending}" for ending in endings)


def facts(text: str) -> dict[str, str]:
    """KEY -> value of a unit's [X-Recipectl] section; empty for a unit that is not ours."""
    _, found, tail = text.partition(f"\n{SECTION}\n")
    pairs = (line.partition("=") for line in tail.split("\n") if "=" in line)
    return {key: value.replace("%%", "%") for key, _, value in pairs} if found else {}
