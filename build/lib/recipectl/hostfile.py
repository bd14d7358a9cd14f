"""The host file: what is common to all recipes of a host."""

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

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
    user: str = Field(default="recipectl", description="User= of the units, made by apply when it is missing")
    hardening: Literal["strict", "default", "off"] = "default"
    on_failure: str | None = Field(
        default=None, pattern=r"^[A-Za-z0-9:_.@%-]+\.(service|target)$", description="a unit for OnFailure="
    )
    gpus: tuple[Text, ...] = Field(
        default=(), description="the UUIDs of GPU 0, 1, …, to compare the two spellings"
    )


def load(paths: tuple[Path, ...]) -> Host:
    """The host file with its drop-ins over it, or the defaults where there is none."""
    if not paths:
        return Host()
    data, reader = document(paths)
    return validate(Host, data, reader)
