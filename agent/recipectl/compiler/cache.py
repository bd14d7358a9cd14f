"""The result of the last compile: an unchanged host is not compiled again."""

import contextlib
import hashlib
import json
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from recipectl.compiler.model import CompiledModel, CompileResult
from recipectl.errors import Problem, RecipectlError
from recipectl.files import write_whole
from recipectl.machine.disk import fingerprint
from recipectl.machine.installation import Installation
from recipectl.recipe.gpu_selection import GpuSelection
from recipectl.recipe.search import Source
from recipectl.systemd.unitfile import Unit


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
