"""The text of a unit from its template: values arrive quoted, and none of them can begin a line. Pure."""

import re
from functools import cache

from jinja2 import Environment as Templates
from jinja2 import PackageLoader, StrictUndefined

from recipectl.errors import UnrepresentableError
from recipectl.systemd import quoting
from recipectl.systemd.unitfile import Unit, UnitNames, sealed

_CONTROL = re.compile("[\x00-\x1f\x7f]")


@cache
def templates() -> Templates:
    """The package's templates."""
    return Templates(  # noqa: S701  (unit files, not HTML)
        loader=PackageLoader("recipectl"), undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True,
        keep_trailing_newline=True, auto_reload=False,
    )  # fmt: skip


def rendered(template: str, **values: str | int | list[str]) -> str:
    """A template with its values. No value can begin a line of its own."""
    for name, value in values.items():
        for text in value if isinstance(value, list) else (str(value),):
            # systemd takes \r and NUL for the end of a line too: a raw one would begin a setting of its own.
            # Only a continued command line has line feeds.
            if not text.isprintable() and _CONTROL.search(text.replace(" \\\n", "")):
                raise UnrepresentableError(f"a control character reached the {name} of a unit; remove it")
    text = templates().get_template(template).render(values)
    if len(text) * 4 > quoting.MAX_LINE_BYTES:  # UTF-8 has at most four bytes for a character
        for line in text.replace(" \\\n", "").split("\n"):
            if len(line.encode(errors="surrogateescape")) > quoting.MAX_LINE_BYTES:
                fault = f"{line.partition('=')[0][:40]}= is longer than the 1 MiB that systemd reads"
                raise UnrepresentableError(f"{fault}; shorten it")
    return text


def unit_of(file: str, names: UnitNames, name: str, template: str, **values: str | int | list[str]) -> Unit:
    """A unit of a recipe in `file`, from its template."""
    source = quoting.line(file)
    common = {"recipe": names.recipe, "source": source, "service": names.service, "stem": names.stem}
    return sealed(Unit(name, rendered(template, **common, **values)))
