"""The settings that systemd has in [Unit] and [Service], from its manual pages (247 to 262)."""

import json
from functools import cache
from pathlib import Path
from typing import NamedTuple


class Directive(NamedTuple):
    """One setting: its section, and the first version that has it (0: older than 247)."""

    section: str
    since: int


@cache
def directives() -> dict[str, Directive]:
    """Every setting by its name."""
    table = json.loads(Path(__file__).with_name("directives.json").read_text())
    return {
        name: Directive(section, since) for section, names in table.items() for name, since in names.items()
    }
