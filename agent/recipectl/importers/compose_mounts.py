"""What a Compose file mounts into its services: volumes, and the files of secrets and configs."""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from recipectl.importers.compose_variables import interpolated
from recipectl.importers.draft import VARIABLE_START, host_variable
from recipectl.importers.lines import Remark
from recipectl.importers.shapes import mapping, sequence

# Where Docker puts what has no `target:`, or a relative one.
_FOLDERS = {"secrets": "/run/secrets/", "configs": "/"}


class Sources(NamedTuple):
    """What services can mount: the volumes as the container engine names them, and files of the host."""

    volumes: dict[str, str]
    secrets: dict[str, str]
    configs: dict[str, str]


def sources(
    data: Mapping[str, Any], folder: Path, variables: Mapping[str, str], lost: list[Remark]
) -> Sources:
    """The volumes of a Compose file, and the files of its secrets and configs; `folder` has the file."""
    return Sources(
        volumes=_volumes(data, folder, variables),
        secrets=_files(data, "secrets", folder, variables, lost),
        configs=_files(data, "configs", folder, variables, lost),
    )


def _volumes(data: Mapping[str, Any], folder: Path, variables: Mapping[str, str]) -> dict[str, str]:
    """The volumes of a Compose file: their names for the container engine, or their folders of the host."""
    project = (
        variables.get("COMPOSE_PROJECT_NAME")
        or data.get("name")
        or re.sub("[^a-z0-9_-]", "", folder.name.lower())
    )
    volumes = {}
    for name, value in mapping(data.get("volumes"), "volumes").items():
        settings = value if isinstance(value, Mapping) else {}
        options = interpolated(settings.get("driver_opts"), variables, [])
        is_bind = isinstance(options, Mapping) and "bind" in str(options.get("o"))
        device = str(options.get("device") or "") if is_bind else ""
        own_name = settings.get("name") or (name if settings.get("external") else f"{project}_{name}")
        volumes[str(name)] = _from_folder(device, folder) if device else str(own_name)
    return volumes


def _files(
    data: Mapping[str, Any], key: str, folder: Path, variables: Mapping[str, str], lost: list[Remark]
) -> dict[str, str]:
    paths = {}
    for name, entry in mapping(data.get(key), key).items():
        if isinstance(entry, Mapping) and isinstance(entry.get("file"), str):
            paths[str(name)] = _from_folder(interpolated(entry["file"], variables, lost), folder)
    return paths


def _from_folder(path: str, folder: Path) -> str:
    """A path as Compose resolves it: from the folder of its file, with `~` for the home folder."""
    path = re.sub(r"^~(?=/)", host_variable("HOME"), path)
    return path if path.startswith(VARIABLE_START) else str(folder / path)


def mounts_of_files(key: str, value: Any, files: Mapping[str, str]) -> Iterator[tuple[str, str | None]]:
    """The `secrets:` or `configs:` of a service: the name of each, and its mount where it is a file."""
    for item in sequence(value, key):
        entry = item if isinstance(item, Mapping) else {"source": item}
        name = str(entry.get("source"))
        target = Path(_FOLDERS[key], str(entry.get("target") or name))
        yield name, f"{files[name]}:{target}:ro" if name in files else None
