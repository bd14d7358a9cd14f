"""The value of Docker's `--gpus`."""

import csv


def gpus_of_option(value: str) -> tuple[list[str], str]:
    """The devices, and how many there are to be: a number or `all`.

    It is CSV: `all`, a count, `"device=0,1"` with its quotes, `count=2`, and settings of the driver.
    """
    devices: list[str] = []
    count = ""
    try:
        parts = next(csv.reader([value.strip("'")]), []) if value.isprintable() else [value]
    except csv.Error:  # too long
        parts = [value]
    for part in parts:
        key, equals, content = part.partition("=")
        if key == "device":
            devices += content.split(",")
        elif devices and not equals:
            devices.append(part)  # the quotes are missing
        elif key == "count" or not equals:
            count = count or content or part
    return devices, count or ("1" if value else "all")  # Docker gives one
