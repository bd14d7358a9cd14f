"""What became of a host's recipes, and its cache: an unchanged host is not compiled again."""

import contextlib
import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from recipectl.machine.disk import sight
from recipectl.recipe.search import Source
from recipectl.systemd.unitfile import Site, Unit


class Compiled(NamedTuple):
    """One recipe as units, with what a plan must know of it. Names of rivals are recipes."""

    name: str
    file: str
    units: tuple[Unit, ...]
    autostart: bool | None
    on_demand: bool
    gpus: tuple[str, ...] | None
    endpoint: str
    rivals: tuple[str, ...]
    warnings: tuple[str, ...]

    @property
    def enabled_unit(self) -> str:
        """What [Install] belongs to: the socket of an on-demand model, else the service."""
        return self.units[1 if self.on_demand else 0].name


class Outcome(NamedTuple):
    """What became of all recipes: those that compiled, and name -> sentences of those that did not."""

    models: tuple[Compiled, ...]
    wrong: dict[str, tuple[str, ...]]


def key(
    found: tuple[Source, ...],
    host_files: tuple[Path, ...],
    site: Site,
    release: str,
    content: Callable[[Path], bytes] = Path.read_bytes,
) -> str:
    """A digest of everything that is read: recipes, drop-ins, host files, and what recipectl itself is."""
    digest = hashlib.sha256(json.dumps([release, site._asdict()]).encode())
    locks = [source.lock for source in found if source.lock]
    digest.update(json.dumps([str(source.twin) for source in found if source.twin]).encode())
    read = [path for source in found for path in (source.file, *source.drop_ins)]
    for path in (*host_files, *read, *locks):
        digest.update(f"\0{path}\0".encode(errors="surrogateescape"))
        try:
            digest.update(content(path))
        except OSError as error:
            digest.update(str(error).encode())
    return digest.hexdigest()


def _model(kept: dict[str, Any]) -> Compiled:
    lists = {name: tuple(kept[name]) for name in ("rivals", "warnings")}
    gpus = None if kept["gpus"] is None else tuple(kept["gpus"])
    return Compiled(**kept | lists | {"units": tuple(Unit(*pair) for pair in kept["units"]), "gpus": gpus})


def recall(file: Path, wanted: str) -> Outcome | None:
    """The outcome of the last time, if the key is the same and the disk looks the same."""
    try:
        kept = json.loads(file.read_text())
        if kept["key"] != wanted or any(sight(path) != seen for path, seen in kept["seen"].items()):
            return None
        models = [_model(model) for model in kept["models"]]
        return Outcome(tuple(models), {name: tuple(said) for name, said in kept["wrong"].items()})
    except (OSError, ValueError, KeyError, TypeError):
        return None  # no cache, or not one of ours: compile


def keep(file: Path, wanted: str, outcome: Outcome, seen: dict[str, str]) -> None:
    """Write the cache whole; a host where it cannot be written goes without."""
    models = [model._asdict() for model in outcome.models]
    text = json.dumps({"key": wanted, "seen": seen, "models": models, "wrong": outcome.wrong})
    with contextlib.suppress(OSError):
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        temporary = file.with_suffix(f".{os.getpid()}")
        try:
            temporary.write_bytes(text.encode())
            temporary.replace(file)
        except OSError:
            temporary.unlink()
            raise
