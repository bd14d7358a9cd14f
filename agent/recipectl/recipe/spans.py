"""Spans of time as people write them (systemd.time(7))."""

import re

LONGEST_SEC = 31_536_000  # a year
_UNITS_SEC = {
    "s": 1,
    "sec": 1,
    "second": 1,
    "m": 60,
    "min": 60,
    "minute": 60,
    "h": 3600,
    "hr": 3600,
    "hour": 3600,
}
_UNITS_SEC |= {"d": 86400, "day": 86400, "w": 604800, "week": 604800, "": 1}


def span_sec(value: object) -> object:
    """`90`, `30s`, `15min`, `1h 30min`, `1.5h` (systemd.time(7)) as whole seconds; other values unchanged."""
    parts = re.findall(r"([0-9]+(?:\.[0-9]+)?)\s*([a-z]*)", value) if isinstance(value, str) else []
    if not parts or "".join(str(value).split()) != "".join(number + unit for number, unit in parts):
        return value
    # `secs` and `hours` are plurals; `ms` is not the plural of `m`.
    units = [unit.removesuffix("s") if len(unit) > 2 else unit for _, unit in parts]
    if not all(unit in _UNITS_SEC for unit in units):
        return value
    seconds = sum(float(number) * _UNITS_SEC[unit] for (number, _), unit in zip(parts, units, strict=True))
    return int(seconds) if seconds == int(seconds) else value
