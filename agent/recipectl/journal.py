"""Lines in the journal of a unit, from the helper that it runs."""

import sys


def say(text: str) -> None:
    """Print a line at once; systemd writes it into the unit's journal."""
    print(text, file=sys.stderr, flush=True)
