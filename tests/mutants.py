"""`mutants.py [COUNT] [SEED]`: change the core modules a little, one change at a time, and see which changes no test notices.

Each mutant is a copy of the checkout with one change: a comparison, `and` for `or`, a condition, a constant. It is killed
when a pure test fails. Prints the survivors; the status is 1 when fewer than 85 % were killed.
"""

import ast
import copy
import os
import random
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import Queue

ROOT = Path(__file__).parents[1]
CORE = (
    "systemd/quoting", "systemd/unitfile", "recipe/gpu_selection", "machine/runtime", "engines/argv", "engines/endpoint",
    "compiler/environment", "compiler/gpus", "compiler/preflight", "compiler/relations", "compiler/sandbox",
    "compiler/secrets", "compiler/service_settings", "compiler/units", "compiler/pipeline", "converge/plan",
)  # fmt: skip
WANTED_SHARE = 0.85
OPPOSITES: dict[type[ast.cmpop], type[ast.cmpop]] = {
    ast.Eq: ast.NotEq, ast.NotEq: ast.Eq, ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt,
    ast.In: ast.NotIn, ast.NotIn: ast.In, ast.Is: ast.IsNot, ast.IsNot: ast.Is,
}  # fmt: skip
SETTING = re.compile(r"[A-Z][A-Za-z]+=\S+")


def mutated(node: ast.AST) -> ast.AST | None:
    """The node with a change; None for a node that is left alone."""
    new = copy.deepcopy(node)
    if isinstance(new, ast.Compare):
        new.ops[0] = OPPOSITES[type(new.ops[0])]()
    elif isinstance(new, ast.BoolOp):
        new.op = ast.Or() if isinstance(new.op, ast.And) else ast.And()
    elif isinstance(new, ast.If | ast.IfExp):
        new.test = ast.UnaryOp(ast.Not(), new.test)
    elif isinstance(new, ast.Constant) and isinstance(new.value, bool):
        new.value = not new.value
    elif isinstance(new, ast.Constant) and isinstance(new.value, int):
        new.value += 1
    elif isinstance(new, ast.Constant) and isinstance(new.value, str) and SETTING.fullmatch(new.value):
        new.value += "x"
    else:
        return None
    return ast.copy_location(new, node)


class Replace(ast.NodeTransformer):
    """Puts one node in the place of another, which is known by its number."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.count = -1
        self.text = ""

    def generic_visit(self, node: ast.AST) -> ast.AST:
        if isinstance(node, ast.expr | ast.stmt) and (new := mutated(node)):
            self.count += 1
            if self.count == self.number:
                line = getattr(node, "lineno", 0)
                before, after = (ast.unparse(part).split("\n")[0] for part in (node, new))
                self.text = f"{line}: {before}  ->  {after}"
                return new
        return super().generic_visit(node)


def mutants() -> Iterator[tuple[str, int]]:
    """Every possible mutant as (module, number)."""
    for module in CORE:
        tree = ast.parse((ROOT / f"agent/recipectl/{module}.py").read_text())
        counter = Replace(-2)
        counter.visit(tree)
        yield from ((module, number) for number in range(counter.count + 1))


def fails(folder: Path, limit_sec: float | None = None) -> bool:
    """Whether a pure test of a copy fails, or does not end within `limit_sec`."""
    environment = os.environ | {"PYTHONDONTWRITEBYTECODE": "1"}
    quick = ["--ignore=tests/test_imports.py", "--deselect=tests/test_layers.py"]
    end = time.monotonic() + limit_sec if limit_sec else None
    for words in (quick, ["tests/test_imports.py"]):
        command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", *words]
        left_sec = end - time.monotonic() if end else None
        try:
            run = subprocess.run(
                command, cwd=folder, capture_output=True, env=environment, timeout=left_sec, check=False
            )
        except subprocess.TimeoutExpired:
            return True
        if run.returncode:
            return True
    return False


def survives(folder: Path, module: str, number: int, limit_sec: float) -> tuple[bool, str]:
    """Whether no pure test fails with a mutant, and the mutant in words."""
    path = folder / f"agent/recipectl/{module}.py"
    original = path.read_text()
    replace = Replace(number)
    path.write_text(ast.unparse(ast.fix_missing_locations(replace.visit(ast.parse(original)))))
    try:
        return not fails(folder, limit_sec), replace.text
    finally:
        path.write_text(original)


def main() -> int:
    count, seed = (int(word) for word in (*sys.argv[1:], *("90", "20261126")[len(sys.argv) - 1 :]))
    sample = random.Random(seed).sample(list(mutants()), count)
    with tempfile.TemporaryDirectory() as base:
        folders: Queue[Path] = Queue()
        for index in range(len(os.sched_getaffinity(0))):
            folder = Path(base, str(index))
            shutil.copytree(
                ROOT, folder, symlinks=True, ignore=shutil.ignore_patterns(".venv", ".build", ".git")
            )
            (folder / ".build").mkdir()
            for path in (ROOT / ".build").iterdir():
                (folder / ".build" / path.name).symlink_to(path)
            folders.put(folder)
        start = time.monotonic()
        if fails(folder):
            sys.exit("the tests fail without a change; run `make pure`")
        limit_sec = 4 * (time.monotonic() - start)  # a mutant that does not end is killed

        def run(mutant: tuple[str, int]) -> bool:
            folder = folders.get()
            try:
                survived, text = survives(folder, *mutant, limit_sec)
            finally:
                folders.put(folder)
            if survived:
                print(f"survived  {mutant[0]}.py:{text}", flush=True)
            return survived

        with ThreadPoolExecutor(folders.qsize()) as pool:
            survivors = sum(pool.map(run, sample))
    share = 1 - survivors / count
    print(f"{count - survivors} of {count} mutants killed: {share:.0%} (at least {WANTED_SHARE:.0%})")
    return int(share < WANTED_SHARE)


if __name__ == "__main__":
    sys.exit(main())
