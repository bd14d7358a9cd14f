"""The host file: what is common to all recipes of a host."""

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from recipectl.recipe.load import validate
from recipectl.recipe.schema import USER, Text, variable_names
from recipectl.recipe.yamlfile import Places, document

DEFAULT_PATH = ("/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin")


class Host(BaseModel):
    """/etc/recipectl/host.yaml; every key may be left out."""

    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)

    environment: dict[str, Text] = {}
    vars: dict[str, Text] = Field(default={}, description="what recipes may use as `${name}`")
    path: tuple[str, ...] = DEFAULT_PATH
    sglang_python: str | None = None
    missing_runtime: Literal["refuse", "fall-through"] = "refuse"
    require_pinned_runtime: bool = False
    drift: Literal["warn", "refuse"] = Field(
        default="warn", description="what to do when a runtime is not as its NAME.lock has it"
    )
    user: str = Field(
        default="recipectl", pattern=USER, description="User= of the units, made by apply when it is missing"
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
    def _names(cls, variables: dict[str, str]) -> dict[str, str]:
        return variable_names(variables)

    @field_validator("path")
    @classmethod
    def _absolute(cls, folders: tuple[str, ...]) -> tuple[str, ...]:
        for folder in folders:
            if not folder.startswith("/") or ":" in folder:
                raise ValueError(f"has `{folder}`; each folder is an absolute path without `:`")
        return folders


def placed(paths: tuple[Path, ...]) -> tuple[Host, Places]:
    """The host file, and where each of its values stands."""
    if not paths:
        return Host.model_construct(), {}  # the defaults alone
    data, reader = document(paths)
    return validate(Host, data, reader), reader.places
