"""The pure steps of every golden recipe under an audit hook; prints how many units came out."""

import difflib  # noqa: F401  (a message about a mistake imports it)
import sys

import test_golden as golden

from recipectl.compiler import unit_text
from recipectl.engines.options import shipped_options
from recipectl.engines.registry import ENGINES
from recipectl.errors import RecipectlError
from recipectl.recipe.load import load
from recipectl.systemd.directives import directives

TOUCHES = ("open", "os.", "subprocess.", "socket.", "shutil.", "pathlib.", "import", "pwd.", "ctypes.")


def main() -> None:
    recipes = []
    for path in (*golden.GOLDEN, *golden.EXAMPLES):
        try:
            recipes.append((path, load(path)))
        except RecipectlError:
            continue  # a mistake of its file
    # What the package itself ships is loaded once.
    for engine in ENGINES:
        shipped_options(engine)
    directives()
    for template in unit_text.templates().list_templates():
        unit_text.templates().get_template(template)

    def refuse(event: str, arguments: tuple[object, ...]) -> None:
        if event.startswith(TOUCHES):
            raise AssertionError(f"{event} {arguments[:1]}")

    sys.addaudithook(refuse)
    count = 0
    for path, recipe in recipes:
        try:
            count += len(golden.compiled(path, recipe).units)
        except RecipectlError:
            continue  # a mistake that the compiler finds
    print(count)
