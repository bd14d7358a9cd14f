"""Hostile recipe files from a seed: `hostile.py [COUNT [SEED]]` reads each, and prints what was slowest."""

import contextlib
import json
import random
import sys
import tempfile
import time
from itertools import pairwise
from pathlib import Path

from recipectl.errors import RecipectlError
from recipectl.machine import lockfile
from recipectl.machine.installation import Installation
from recipectl.machine.runtime import Runtime
from recipectl.recipe.hostfile import HostSettings, load_host_settings
from recipectl.recipe.load import load
from recipectl.recipe.schema import Recipe

COUNT, SEED = 1000, 20261126
RUNTIME = Runtime("test", ("/v/bin/vllm", "serve"), positional_model=True)
KEYS = [
    *Recipe.model_fields,
    "venv-path",
    "envVars",
    "id",
    "<<",
    "? [a]",
    "''",
    "\U0001f600",
    "a b",
    "__proto__",
]
SCALARS = [
    "", "~", "null", "yes", "0o17", "017", "1:30", ".inf", "-.nan", "1e999", "9" * 320, "9" * 5000, "-0", "0x" + "f" * 400,
    "2026-11-26", "2026-13-45", "!!python/object:os.system x", "!!binary aGk=", "!!float x", "!!int '1'", "!!set {a}",
    "&a *a", "*b", "|\n  x", ">\n  y", "'it''s'", '"\\x1b[2J"', '"\\ud800"', '"\\uffff"', "%n", "$HOME", "${x}", "${", "@x",
    "`x`", "\t", "é", "\u2028", "\ufeff", "- a", "[", "{", "]", "a: b: c", "x" * 100_000, "../../etc/shadow", "/dev/zero",
    "-x", "a\\", "#", "!", "|", ">", "&", "*", "[1, [2, [3]]]", "{a: {b: {c: d}}}", "0", "-1", "99999999999", "GPU-x", "all",
]  # fmt: skip


def text(source: random.Random) -> bytes:
    """One file: lines that look like a recipe, or a bomb, or noise."""
    kind = source.randrange(12)
    if kind == 0:
        return source.randbytes(source.randrange(2000))
    if kind == 1:
        return (source.choice("[{-?:&*!|>'\"%@`") * source.randrange(1, 200_000)).encode()
    if kind == 2:
        names = "abcdefghij"
        lines = [f"{names[0]}: &{names[0]} [{', '.join('x' * 10)}]"]
        lines += [f"{b}: &{b} [{', '.join([f'*{a}'] * 10)}]" for a, b in pairwise(names)]
        return "\n".join(lines).encode()
    if kind == 3:
        return ("model_path: m\nargs:\n" + "- a\n" * source.randrange(1, 250_000)).encode()[:1_048_576]
    if kind == 4:
        return b"a:\n" + b"".join(b" " * depth + b"a:\n" for depth in range(source.randrange(1, 1400)))
    if kind == 5:
        value: object = "m"
        for _ in range(source.randrange(1, 900)):
            value = {"a": value} if source.random() < 0.5 else [value]
        return json.dumps({"model_path": value}).encode()
    lines = ["model_path: m"] if source.random() < 0.8 else []
    for _ in range(source.randrange(1, 12)):
        key, value = source.choice(KEYS), source.choice(SCALARS)
        nested = f"\n  {source.choice(KEYS)}: {source.choice(SCALARS)}"
        lines.append(f"{key}: {nested if source.random() < 0.3 else value}")
    noise = "\n".join(lines).encode()
    if kind == 6:
        at = source.randrange(len(noise) + 1)
        noise = noise[:at] + source.randbytes(3) + noise[at:]
    return noise


def read(file: Path) -> None:
    """All that recipectl does with a file of this kind before it looks at the host."""
    from recipectl.compiler.pipeline import relate_and_render, resolve_purely

    settings, installation = HostSettings(), Installation(("/h",), systemd_version=252)
    with contextlib.suppress(RecipectlError):
        recipe = load(file)
        resolved = resolve_purely(recipe, str(file), RUNTIME, settings, installation)
        relate_and_render({resolved.name: resolved}, frozenset(), settings, installation)
    with contextlib.suppress(RecipectlError):
        load_host_settings((file,))
    with contextlib.suppress(ValueError):
        lockfile.read_lock(file.read_bytes())


def slowest(count: int, seed: int) -> tuple[float, int]:
    """(seconds of the slowest file, its number); any other exception than a sentence ends it."""
    worst = (0.0, 0)
    with tempfile.TemporaryDirectory() as folder:
        for number in range(count):
            source = random.Random(f"{seed} {number}")
            file = Path(folder, f"a.{source.choice(('yaml', 'yml', 'json'))}")
            file.write_bytes(text(source))
            begin = time.perf_counter()
            try:
                read(file)
            except Exception:
                print(f"file {number} of seed {seed} is a traceback", file=sys.stderr)
                raise
            worst = max(worst, (time.perf_counter() - begin, number))
            file.unlink()
    return worst


if __name__ == "__main__":
    arguments = [int(word) for word in sys.argv[1:]]
    count, seed = (*arguments, *(COUNT, SEED)[len(arguments) :])
    seconds, number = slowest(count, seed)
    print(
        f"hostile files: {count} of seed {seed}, 0 tracebacks, the slowest (number {number}) took {seconds:.2f} s"
    )
