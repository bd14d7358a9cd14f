"""All recipes of a place: from the last compile where nothing has changed, else compiled."""

import contextlib
import hashlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache as cached
from pathlib import Path
from typing import Any

from recipectl.compiler.model import CompiledModel, CompileResult
from recipectl.errors import Problem, RecipectlError
from recipectl.files import write_whole
from recipectl.machine.disk import Disk, fingerprint
from recipectl.machine.installation import Installation, current_installation, release
from recipectl.place import Place
from recipectl.recipe import search
from recipectl.recipe.gpu_selection import GpuSelection
from recipectl.recipe.search import Source
from recipectl.systemd.store import Store
from recipectl.systemd.unitfile import Unit


def compile_place(place: Place, files: Sequence[Path] = (), *, with_resolved: bool = False) -> CompileResult:
    """The units of all recipes of a place, and of some files.

    An unchanged host comes from the cache. With `with_resolved` it is compiled, and the result has its steps.
    """
    content = cached(Path.read_bytes)  # the cache's key and the compiler see the same bytes
    named = {search.stem(path) for path in files}
    applied = [path for path in applied_files(place) if search.stem(path) not in named]
    sources = search.sources(place.recipe_folders, (*files, *applied))
    host_files = search.host_files(place.bases)
    installation = current_installation(user=place.user)
    cache_file = place.cache_folder / "compiled.json"
    wanted_key = key(sources, host_files, installation, release(), content)
    result = None if with_resolved else recall(cache_file, wanted_key)
    if result is None:
        from recipectl.compiler.pipeline import (
            compile_recipes,  # with pydantic and jinja2: not for a cached result
        )
        from recipectl.recipe.hostfile import load_host_settings

        disk = Disk(content)
        result = compile_recipes(sources, load_host_settings(host_files)[0], installation, disk)
        keep(cache_file, wanted_key, result, disk.fingerprints)
    return result


def applied_files(place: Place) -> list[Path]:
    """Recipe files from elsewhere that were applied before and still exist: they count on this host."""
    folders = place.recipe_folders
    installed = {Path(unit.source) for unit in Store(place.unit_folder).installed().values() if unit.source}
    elsewhere = sorted(path for path in installed if path.parent not in folders and path.is_file())
    names = {search.stem(path) for path in search.recipe_files(folders)} if elsewhere else ()
    return [path for path in elsewhere if search.stem(path) not in names]


def key(
    sources: tuple[Source, ...],
    host_files: tuple[Path, ...],
    installation: Installation,
    release: str,
    content: Callable[[Path], bytes] = Path.read_bytes,
) -> str:
    """A digest of everything that is read: recipes, drop-ins, locks, host files, and recipectl itself."""
    digest = hashlib.sha256(json.dumps([release, installation._asdict()]).encode())
    duplicates = [str(source.duplicate) for source in sources if source.duplicate]
    digest.update(json.dumps(duplicates).encode())
    recipes = [path for source in sources for path in (source.file, *source.drop_ins)]
    locks = [source.lock for source in sources if source.lock]
    for path in (*host_files, *recipes, *locks):
        digest.update(f"\0{path}\0".encode(errors="surrogateescape"))
        try:
            digest.update(content(path))
        except OSError as error:
            digest.update(str(error).encode())
    return digest.hexdigest()


def recall(file: Path, wanted_key: str) -> CompileResult | None:
    """The last result, if the key is the same and the disk looks the same."""
    try:
        data = json.loads(file.read_text())
        if data["key"] != wanted_key:
            return None
        if any(fingerprint(path) != before for path, before in data["fingerprints"].items()):
            return None
        failures = {name: _problems(problems) for name, problems in data["failures"].items()}
        return CompileResult(tuple(map(_model, data["models"])), failures, {})
    except (OSError, ValueError, KeyError, TypeError):
        return None  # no cache, or the cache of another version: compile


def _model(data: dict[str, Any]) -> CompiledModel:
    data["units"] = tuple(Unit(*unit) for unit in data["units"])
    data["gpus"] = GpuSelection(data["gpus"][0], tuple(data["gpus"][1]))
    data["listen"] = tuple(data["listen"]) if data["listen"] else None
    data["warnings"] = _problems(data["warnings"])
    for name in ("requires", "rivals"):
        data[name] = tuple(data[name])
    return CompiledModel(**data)


def _problems(rows: Iterable[Iterable[Any]]) -> tuple[Problem, ...]:
    return tuple(Problem(*row) for row in rows)


def keep(file: Path, wanted_key: str, result: CompileResult, fingerprints: Mapping[str, str]) -> None:
    """Write the cache; a host where it cannot be written works without it."""
    data = {
        "key": wanted_key,
        "fingerprints": fingerprints,
        "models": [model._asdict() for model in result.models],
        "failures": result.failures,
    }
    with contextlib.suppress(RecipectlError, OSError):
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        write_whole({file: json.dumps(data)}, mode=0o600)
