"""The pages of the guide as commands: `guide.py run PART` runs those of one boot in a system that is thrown away.

A block ```sh is run by bash, ```text below it is what it prints (`…` is anything, lines may lie between), and a
block behind "`/path`:" is that file. A word behind `sh` marks a block: network, gpu and hosts are not run, reboot is
a boot, last is run after all pages.
"""

import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[1]
GUIDE = ROOT / "docs/guide"
NOT_RUN = ("network", "gpu", "hosts")
_BLOCK = re.compile(
    r"(?:^`(?P<file>/[^`]+)`:\n\n)?^```(?P<kind>\w*)(?: (?P<mark>\w+))?\n(?P<text>.*?)^```$", re.M | re.S
)


class Block(NamedTuple):
    """One block of a page; `kind` is sh, text or a file's language, `file` the path it belongs in."""

    page: str
    line: int
    kind: str
    mark: str
    file: str
    text: str


def pages() -> list[str]:
    """The pages in the order of the index."""
    return re.findall(r"^\d+\. \[[^\]]+\]\(([^)]+)\)", (GUIDE / "README.md").read_text(), re.M)


def blocks(page: str) -> Iterator[Block]:
    """The blocks of a page in their order."""
    text = (GUIDE / page).read_text()
    for match in _BLOCK.finditer(text):
        line = text.count("\n", 0, match.start("kind")) + 1
        yield Block(page, line, match["kind"], match["mark"] or "", match["file"] or "", match["text"])


def every_block() -> list[Block]:
    """All blocks in the order in which they are run: the last ones after all pages."""
    in_order = [block for page in pages() for block in blocks(page)]
    last: list[Block] = []
    for index, block in enumerate(in_order):
        expected = block.kind == "text" and index and in_order[index - 1].mark == "last"
        if block.mark == "last" or expected:
            last.append(block)
    return [block for block in in_order if block not in last] + last


def parts() -> tuple[list[Block], list[Block]]:
    """The blocks before the reboot and after it."""
    everything = every_block()
    index = next(number for number, block in enumerate(everything) if block.mark == "reboot")
    return everything[:index], everything[index + 1 :]


def missing_line(expected: str, output: str) -> str | None:
    """The first line that the output does not have in this order; None when it has all."""
    lines = iter([" ".join(line.split()) for line in output.splitlines()])
    for wanted in filter(None, (" ".join(line.split()) for line in expected.splitlines())):
        pattern = ".*".join(map(re.escape, wanted.split("…")))
        if not any(re.fullmatch(pattern, line) for line in lines):
            return wanted
    return None


def newer_package(folder: Path) -> Path:
    """The Debian package of this checkout again, with a later version and a program that has changed."""
    (package,) = folder.glob("recipectl_*.deb")
    root = folder / "newer"
    subprocess.run(["dpkg-deb", "-R", str(package), str(root)], check=True)
    control = root / "DEBIAN/control"
    control.write_text(control.read_text().replace("\nVersion: ", "\nVersion: 9:"))
    command = root / "usr/bin/recipectl"
    command.write_text(command.read_text() + "# later\n")
    build = ["dpkg-deb", "--root-owner-group", "-Znone", "-b", str(root), str(package)]
    subprocess.run(build, check=True, stdout=subprocess.DEVNULL)
    shutil.rmtree(root)
    return package


def run(some: list[Block]) -> int:
    """Run blocks, each in a bash of its own; the exit status is the number of those that failed."""
    failures = 0
    output = ""
    for block in some:
        place = f"{block.page}:{block.line}"
        if block.file:
            Path(block.file).parent.mkdir(parents=True, exist_ok=True)
            Path(block.file).write_text(block.text)
        elif block.kind == "text" and output:
            if line := missing_line(block.text, output):
                print(f"{place}: the output has no line `{line}`:\n{output}", flush=True)
                failures += 1
            output = ""
        elif block.kind == "sh" and block.mark not in NOT_RUN:
            done = subprocess.run(
                ["bash", "-euo", "pipefail", "-c", block.text], cwd=ROOT, text=True, check=False, timeout=300,
                stdout=subprocess.PIPE, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL,
            )  # fmt: skip
            output = done.stdout
            if done.returncode:
                print(f"{place}: status {done.returncode}:\n{block.text}\n{output}", flush=True)
                failures += 1
        else:
            output = ""
        if block.mark == "network" and "git pull" in block.text:
            newer_package(ROOT / ".build/deb")
    print(
        f"{sum(block.kind == 'sh' and block.mark not in NOT_RUN for block in some)} commands, {failures} failures"
    )
    return failures


if __name__ == "__main__":
    sys.exit(min(run(parts()[int(sys.argv[2]) - 1]), 99))
