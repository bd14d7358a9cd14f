"""`copyright.py SITE-PACKAGES`: the machine-readable copyright file of the package, with what is inside."""

import os
import re
import sys
import time
from importlib.metadata import distributions
from pathlib import Path

YEAR = time.gmtime(int(os.environ.get("SOURCE_DATE_EPOCH", "0"))).tm_year
SITE = Path(sys.argv[1])
OWN = """Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/
Upstream-Name: recipectl

Files: *
Copyright: 2026 the recipectl authors
License: Apache-2.0

License: Apache-2.0
 On Debian systems, the text is in /usr/share/common-licenses/Apache-2.0.
"""


def main() -> None:
    print(OWN)
    licenses = {}
    for distribution in sorted(distributions(path=[str(SITE)]), key=lambda item: item.name.lower()):
        if distribution.name == "recipectl":
            continue
        data = distribution.metadata
        classifiers = [text for text in data.get_all("Classifier") or () if text.startswith("License ::")]
        name = data.get("License-Expression") or (data.get("License") or "").split("\n")[0]
        name = name or (classifiers[0].rpartition(":: ")[2] if classifiers else "other")
        short = re.sub(r"[^A-Za-z0-9.+-]+", "-", name)[:40]
        folder = f"usr/lib/recipectl/lib/*/{distribution._path.name}"  # type: ignore[attr-defined]
        print(
            f"Files: {folder}/*\nCopyright: {YEAR} the authors of {distribution.name} {distribution.version}"
        )
        print(f"License: {short}\n")
        licenses.setdefault(short, []).append(folder)
    for short, folders in sorted(licenses.items()):
        print(f"License: {short}\n The text is in the folder of each distribution:")
        print("".join(f"  {folder}\n" for folder in folders))


main()
