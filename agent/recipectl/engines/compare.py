"""Compare two runtimes of an engine: `python -m recipectl.engines.compare JSON`.

A program of its own, which asks the parsers of both and runs without privilege. It prints what the new one
would refuse of a recipe's words, and which flags and defaults differ. Exit status 3: it would refuse some;
4: nothing tells it.
JSON: {"backend", "words": [[text, key, ...]], "extra_args", "old": {...}, "new": {...}} (`as_json`).
"""

import json
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from recipectl.engines.argv import Word
from recipectl.engines.ask import EngineOptions, options_of
from recipectl.engines.flags import DeprecatedError, check_recipe
from recipectl.engines.options import Options
from recipectl.machine.runtime import Runtime
from recipectl.text import names_in_words, printable

STATUSES = {True: 0, False: 3, None: 4}
_MOST = 12  # names in a line


def as_json(
    backend: str, words: Sequence[Word], extra_args: Mapping[str, object], old: Runtime, new: Runtime
) -> str:
    """What this program is given."""
    false = {key: False for key, value in extra_args.items() if value is False}
    runtimes = {
        name: {
            "rule": runtime.rule, "command": runtime.command, "interpreter": runtime.interpreter,
            "path": runtime.path, "installed_in": runtime.installed_in,
            "engine_version": runtime.engine_version,
        }
        for name, runtime in (("old", old), ("new", new))
    }  # fmt: skip
    rows = [[word.text, *word.key] for word in words]
    return json.dumps({"backend": backend, "words": rows, "extra_args": false} | runtimes)


def report(
    backend: str,
    words: Sequence[Word],
    extra_args: Mapping[str, object],
    old: EngineOptions,
    new: EngineOptions,
) -> tuple[list[str], bool | None]:
    """The lines of a comparison, and whether the new engine takes the recipe's words; None: nothing tells."""
    if not new.asked:
        return [f"the flags are not compared: {new.origin}"], None
    findings = check_recipe(backend, words, extra_args, new.options)
    lines = [str(finding) for finding in findings]
    takes = all(isinstance(finding, DeprecatedError) for finding in findings)
    return [*lines, *(_differences(old.options, new.options) if old.asked else ())], takes


def fits(status: int) -> bool | None:
    """What the exit status of this program says: True, False, or None where it could not tell."""
    return next((answer for answer, known in STATUSES.items() if known == status), None)


def _differences(old: Options, new: Options) -> Iterator[str]:
    """Which flags and defaults differ between two versions of an engine."""
    before, after = old.by_flag, new.by_flag
    yield from _named("flags that are gone", (name for name in before if new.canonical(name) not in after))
    yield from _named("new flags", (name for name in after if old.canonical(name) not in before))
    changed = (name for name in before if name in after and before[name].default != after[name].default)
    pairs = (f"{name} {_default(before[name].default)} → {_default(after[name].default)}" for name in changed)
    yield from _named("other defaults", pairs)


def _default(value: str | None) -> str:
    return "none" if value is None else value[:40]


def _named(what: str, names: Iterable[str]) -> Iterator[str]:
    sorted_names = sorted(names)
    if sorted_names:
        yield f"{what}: {names_in_words(sorted_names, _MOST)}"


def _runtime(fields: dict[str, Any]) -> Runtime:
    command, path = tuple(fields.pop("command")), tuple(fields.pop("path"))
    return Runtime(command=command, path=path, **fields)


def main(text: str) -> int:
    """Ask both engines, and print what differs; the exit status."""
    message = json.loads(text)
    words = [Word(row[0], tuple(row[1:])) for row in message["words"]]
    runtimes = [_runtime(message[name]) for name in ("old", "new")]
    old, new = (options_of(message["backend"], runtime, "", cache=None) for runtime in runtimes)
    lines, takes = report(message["backend"], words, message["extra_args"], old, new)
    for line in lines:
        sys.stdout.write(f"{printable(line)}\n")
    return STATUSES[takes]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
