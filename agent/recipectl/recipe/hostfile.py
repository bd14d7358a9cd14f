"""The host file: the settings that all recipes of a host share."""

from collections.abc import Callable
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from recipectl.files import read_bounded
from recipectl.recipe.load import validate
from recipectl.recipe.positions import Positions
from recipectl.recipe.schema import USER, Text, variable_names
from recipectl.recipe.yamlfile import read_document

DEFAULT_PATH = ("/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin")


class HostSettings(BaseModel):
    """/etc/recipectl/host.yaml; every key may be left out."""

    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)

    environment: dict[str, Text] = {}
    vars: dict[str, Text] = Field(default={}, description="what recipes may use as `${name}`")
    path: tuple[str, ...] = DEFAULT_PATH
    sglang_python: str | None = None
    missing_runtime: Literal["refuse", "fall-through"] = "refuse"
    require_pinned_runtime: bool = False
    drift: Literal["warn", "refuse"] = Field(
        default="warn", description="what to do when a runtime differs from its NAME.lock"
    )
    user: str | None = Field(
        default=None,
        pattern=USER,
        description="one User= for all units, made by apply when it is missing; left out: one for each",
    )
    hardening: Literal["strict", "default", "off"] = "default"
    on_failure: str | None = Field(
        default=None, pattern=r"^[A-Za-z0-9:_.@%-]+\.(service|target)$", description="a unit for OnFailure="
    )
    gpus: tuple[Text, ...] = Field(
        default=(), description="the UUIDs of GPU 0, 1, …, to compare the two spellings"
    )

    @field_validator("vars", "environment")
    @classmethod
    def _have_valid_names(cls, variables: dict[str, str]) -> dict[str, str]:
        return variable_names(variables)

    @field_validator("path")
    @classmethod
    def _are_absolute(cls, folders: tuple[str, ...]) -> tuple[str, ...]:
        for folder in folders:
            if not folder.startswith("/") or ":" in folder:
                raise ValueError(f"has `{folder}`; each folder is an absolute path without `:`")
        return folders


def load_host_settings(
    paths: tuple[Path, ...], content: Callable[[Path], bytes] = read_bounded
) -> tuple[HostSettings, Positions]:
    """The settings of a host file with its drop-ins, and the positions of its values; else RecipeError."""
    if not paths:
        return HostSettings.model_construct(), {}
    data, reader = read_document(paths, content=content)
    return validate(HostSettings, data, reader), reader.positions
