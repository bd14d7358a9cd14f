"""Make systemd/directives.json from the manual pages of systemd: `settings_of_systemd.py FOLDER >FILE`.

A page says of each setting `Added in version N`; what is older than 247 is written as 0.
"""

import gzip
import json
import re
import sys
from pathlib import Path

PAGES = {
    "Unit": ("systemd.unit",),
    "Service": ("systemd.service", "systemd.exec", "systemd.kill", "systemd.resource-control"),
}
INSTALL = {"Alias", "Also", "DefaultInstance", "RequiredBy", "UpheldBy", "WantedBy"}


def settings(page: str) -> dict[str, int]:
    """Setting -> version, from a page's items: a line of names, its text, the version at its end."""
    result: dict[str, int] = {}
    for item in page.split("\n.PP\n"):
        first = item.split("\n", 1)[0].replace("\\fI", "").replace("\\fR", "").replace("\\-", "-")
        names = re.findall(r"\b([A-Z][A-Za-z0-9]+)=", first)
        if not names or "\\fI" not in item.split("\n", 1)[0]:
            continue
        versions = [int(number) for number in re.findall(r"Added in version (\d+)", item)]
        for name in names:
            result.setdefault(name, versions[-1] if versions and versions[-1] > 247 else 0)
    return result


def main() -> None:
    folder = Path(sys.argv[1])
    table: dict[str, dict[str, int]] = {}
    for section, pages in PAGES.items():
        table[section] = {}
        for name in pages:
            with gzip.open(folder / f"{name}.5.gz", "rt") as file:
                table[section] |= settings(file.read())
    unit = {k: v for k, v in table["Unit"].items() if k not in INSTALL}
    # An item names its Condition…= first and its Assert…= after; both came together.
    table["Unit"] = {k: unit.get(k.replace("Assert", "Condition", 1), v) for k, v in unit.items()}
    table["Service"]["CPUAccounting"] = 0  # obsolete since 258, and still read
    table["Service"] = {k: v for k, v in table["Service"].items() if k not in table["Unit"]}
    print(json.dumps({section: dict(sorted(names.items())) for section, names in table.items()}, indent=0))


if __name__ == "__main__":
    main()
