"""The value of Docker's `--publish`, which may be a range of ports."""

import re

_MAX_PORTS = 1001


def published(value: str) -> tuple[list[str], bool]:
    """The published ports that a value stands for, and whether they are only the first of its range."""
    if ranges := re.fullmatch(r"(.*:)?([0-9]+)-([0-9]+):([0-9]+)-([0-9]+)(/.*)?", value):
        address, kind = ranges[1] or "", ranges[6] or ""
        first, last, inside = (int(ranges[number]) for number in (2, 3, 4))
        count = min(last - first + 1, _MAX_PORTS)
        return [f"{address}{first + number}:{inside + number}{kind}" for number in range(count)], False
    if alone := re.fullmatch("([0-9]+)-[0-9]+(/.*)?", value):
        return [alone[1]], True
    if port_range := re.fullmatch(r"((?:.*:)?[0-9]+)-[0-9]+:([0-9]+(?:/.*)?)", value):
        return [f"{port_range[1]}:{port_range[2]}"], True
    return [value], False
