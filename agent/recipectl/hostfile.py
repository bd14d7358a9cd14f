"""The host file: what is common to all recipes of a host."""

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict

from recipectl.load import document, validate
from recipectl.recipe import Text

DEFAULT_PATH = ("/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin")


class Host(BaseModel):
    """/etc/recipectl/host.yaml; every key may be left out."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    environment: dict[str, Text] = {}
    path: tuple[str, ...] = DEFAULT_PATH
    sglang_python: str | None = None
    missing_runtime: Literal["refuse", "fall-through"] = "refuse"
    require_pinned_runtime: bool = False
    user: str | None = None


def load(path: Path) -> Host:
    """The host file, or the defaults where there is none."""
    if not path.exists():
        return Host()
    data, reader = document(path)
    return validate(Host, data, reader)
