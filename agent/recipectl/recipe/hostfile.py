"""The host file: the settings that all recipes of a host share."""

import re
from collections.abc import Callable
from ipaddress import ip_address
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, Field, field_validator

from recipectl.files import read_bounded
from recipectl.recipe.load import validate
from recipectl.recipe.parts import PART, Canary, Text
from recipectl.recipe.positions import Positions
from recipectl.recipe.schema import UserName, Variables
from recipectl.recipe.search import host_files
from recipectl.recipe.trusted import content_for
from recipectl.recipe.yamlfile import read_document

# A word of nginx's configuration, and of a unit.
_Absolute = Annotated[str, Field(pattern=r"^/[^\x00-\x20;{}'\"\\$:%]*$")]
DEFAULT_PATH = ("/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin")


class Tls(BaseModel):
    """The certificate of the gateway, read as credentials."""

    model_config = PART

    certificate: _Absolute = Field(description="a PEM file, with intermediate certificates")
    key: _Absolute = Field(description="a PEM file, readable by root alone")


class Gateway(BaseModel):
    """One address for all models of the host."""

    model_config = PART

    listen: str = Field(default="127.0.0.1:8000", description="address:port")
    tls: Tls | None = None
    keys: _Absolute | None = Field(
        default=None, description="a file of lines `name key`; left out: no key is asked for"
    )
    names: dict[Text, Text] = Field(default={}, description="further names of models")
    include: _Absolute | None = Field(
        default=None, description="the site's own lines in nginx's server block"
    )

    @field_validator("names")
    @classmethod
    def _are_names(cls, names: dict[str, str]) -> dict[str, str]:
        if "" in names:
            raise ValueError("has an empty name; remove it")
        return names

    @field_validator("listen")
    @classmethod
    def _is_an_address(cls, listen: str) -> str:
        host, _, port = listen.rpartition(":")
        bracketed = re.fullmatch(r"\[([^]%]*)\]", host)
        try:
            right = bool(bracketed) == (ip_address(bracketed[1] if bracketed else host).version == 6)
        except ValueError:
            right = False
        if not right or not re.fullmatch("[0-9]{1,5}", port) or not 0 < int(port) < 65536:
            raise ValueError("must be an address and a port, such as `0.0.0.0:8000` or `[::1]:8000`")
        return listen


class HostSettings(BaseModel):
    """/etc/recipectl/host.yaml; every key may be left out."""

    model_config = PART

    environment: Variables = {}
    vars: Variables = Field(default={}, description="what recipes may use as `${name}`")
    path: tuple[str, ...] = DEFAULT_PATH
    sglang_python: str | None = None
    missing_runtime: Literal["refuse", "fall-through"] = "refuse"
    require_pinned_runtime: bool = False
    drift: Literal["warn", "refuse"] = Field(
        default="warn", description="what to do when a runtime differs from its NAME.lock"
    )
    user: UserName | None = Field(
        default=None,
        description="one User= for all units, made by apply when it is missing; left out: one for each",
    )
    hardening: Literal["strict", "default", "off"] = "default"
    on_failure: str | None = Field(
        default=None, pattern=r"^[A-Za-z0-9:_.@%-]+\.(service|target)$", description="a unit for OnFailure="
    )
    gpus: tuple[Text, ...] = Field(
        default=(), description="the UUIDs of GPU 0, 1, …, to compare the two spellings"
    )

    venvs: _Absolute | None = Field(
        default=None, description="the folder of `recipectl venv`; default: /opt/venvs"
    )
    canaries: tuple[Canary, ...] | None = Field(
        default=None, description="those of every recipe, before its own"
    )
    gateway: Gateway | None = Field(default=None, description="one address for all models of the host")

    @field_validator("path")
    @classmethod
    def _are_absolute(cls, folders: tuple[str, ...]) -> tuple[str, ...]:
        for folder in folders:
            if not folder.startswith("/") or ":" in folder:
                raise ValueError(f"has `{folder}`; each folder is an absolute path without `:`")
        return folders


def settings_of(bases: tuple[Path, ...], owners: frozenset[int] | None) -> tuple[HostSettings, Positions]:
    """The settings of the host file in the folders of a place, whose `owners` may decide what runs."""
    return load_host_settings(host_files(bases), content_for(owners))


def load_host_settings(
    paths: tuple[Path, ...], content: Callable[[Path], bytes] = read_bounded
) -> tuple[HostSettings, Positions]:
    """The settings of a host file with its drop-ins, and the positions of its values; else RecipeError."""
    if not paths:
        return HostSettings.model_construct(), {}
    data, reader = read_document(paths, content=content)
    return validate(HostSettings, data, reader), reader.positions
