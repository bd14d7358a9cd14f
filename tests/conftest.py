"""What tests share: a venv-shaped folder, a recipe file, and the rewriting of golden files."""

from collections.abc import Callable
from pathlib import Path

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--rewrite-golden", action="store_true", help="write tests/golden/*.out anew")


@pytest.fixture
def write(tmp_path: Path) -> Callable[[str, str], Path]:
    def write(name: str, text: str) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return path

    return write


def make_venv(folder: Path, *scripts: str, engine: str = "vllm", version: str = "0.32.0") -> Path:
    """A venv as the disk shows it; its python is a link, as real ones are."""
    (folder / "bin").mkdir(parents=True)
    (folder / "bin/python").symlink_to("/bin/sh")
    (folder / "pyvenv.cfg").write_text("home = /usr/bin\nversion = 3.11.7\n")
    (folder / f"lib/python3.11/site-packages/{engine}-{version}.dist-info").mkdir(parents=True)
    for script in scripts:
        (folder / "bin" / script).write_text(f"#!{folder}/bin/python\n")
        (folder / "bin" / script).chmod(0o755)
    return folder
