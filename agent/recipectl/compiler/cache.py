"""All recipes of a place: from the last compile where nothing has changed, else compiled."""

import contextlib
import hashlib
import json
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from recipectl.compiler.claims import Claim, claim_of_unit
from recipectl.compiler.model import CompiledModel, CompileResult, GatewaySettings
from recipectl.errors import Problem, RecipectlError
from recipectl.files import read_bounded, read_own, write_whole
from recipectl.machine import network
from recipectl.machine.disk import Disk, fingerprint
from recipectl.machine.installation import Installation, current_installation, release
from recipectl.place import Place
from recipectl.recipe import search
from recipectl.recipe.gpu_selection import GpuSelection
from recipectl.recipe.search import Source
from recipectl.recipe.trusted import content_for
from recipectl.systemd.store import Store
from recipectl.systemd.unitfile import InstalledUnit, Unit, UnitNames


def compile_place(
    place: Place,
    files: Sequence[Path] = (),
    *,
    with_resolved: bool = False,
    applied: Collection[str] | None = None,
    held: Mapping[str, Problem] | None = None,
) -> CompileResult:
    """The units of all recipes of a place, and of some files.

    An unchanged host comes from the cache. With `with_resolved` it is compiled, and the result has its steps.
    `applied` are the recipes that an apply is about to write, None for all of them: what other units claim as
    they are installed counts too. The recipes of `held` are left out: their units count as they are, and the
    reasons are among the failures.
    """
    content = content_for(place.owners)  # the cache's key and the compiler see the same bytes
    sources = search.sources(place.recipe_folders, tuple(files))
    recipes, held = {source.name for source in sources}, held or {}
    sources = tuple(source for source in sources if source.name not in held)
    host_files = search.host_files(place.bases)
    installation = current_installation(place)
    claims = _installed_claims(place, recipes, applied, held)
    cache_file = place.cache_folder / ("compiled.json" if applied is None else "applied.json")
    together = None if applied is None else (*sorted(applied), *claims)
    wanted_key = key(sources, host_files, installation, release(), content, together)
    result = None if with_resolved else recall(cache_file, wanted_key, claims)
    if result is None:
        from recipectl.compiler.pipeline import (
            compile_recipes,  # with pydantic and jinja2: not for a cached result
        )
        from recipectl.recipe.hostfile import load_host_settings

        disk = Disk(content)
        settings = load_host_settings(host_files, content)[0]
        # When the whole host is applied, only models without a valid recipe keep their units.
        whole = applied is None
        result = compile_recipes(sources, settings, installation, disk, claims, whole=whole)
        keep(cache_file, wanted_key, result, disk.fingerprints, claims, disk.answers)
    left_out = {name: (problem,) for name, problem in held.items() if name in recipes}
    return result._replace(failures=result.failures | left_out)


def _installed_claims(
    place: Place, recipes: Collection[str], applied: Collection[str] | None, held: Collection[str]
) -> tuple[Claim, ...]:
    """The claims of installed units that an apply leaves as they are.

    All others are written anew, or removed: those of recipes that compile, and those whose recipe is gone.
    """
    installed = Store(place.unit_folder).installed()
    claims = []
    for name, unit in installed.items():
        if not unit.recipe or name != UnitNames(unit.recipe).service:
            continue
        stays = unit.recipe not in applied if applied is not None else unit.recipe in recipes
        if stays or unit.recipe in held or is_elsewhere(place, unit):
            names = UnitNames(unit.recipe)
            has_socket = bool({names.socket, names.queue_socket} & installed.keys())
            claims.append(claim_of_unit(unit, has_socket=has_socket))
    return tuple(claims)


def is_elsewhere(place: Place, unit: InstalledUnit) -> bool:
    """True if a unit's recipe is outside the recipe folders: an earlier release let it stay there."""
    source = Path(unit.source)
    return bool(unit.source) and source.parent not in place.recipe_folders and source.is_file()


def key(
    sources: tuple[Source, ...],
    host_files: tuple[Path, ...],
    installation: Installation,
    release: str,
    content: Callable[[Path], bytes] = read_bounded,
    together: Sequence[object] | None = None,
) -> str:
    """A digest of everything that is read: recipes, drop-ins, locks, host files, and recipectl itself.

    `together` has what else decides, when only some recipes are applied.
    """
    digest = hashlib.sha256(json.dumps([release, installation._asdict(), together]).encode())
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


def recall(file: Path, wanted_key: str, claims: Sequence[Claim] = ()) -> CompileResult | None:
    """The last result, if the key is the same and the disk and the installed units look the same."""
    try:
        data = json.loads(read_own(file))
        if data["key"] != wanted_key:
            return None
        if any(fingerprint(path) != before for path, before in data["fingerprints"].items()):
            return None
        if any(network.answer(question) != before for question, before in data["answers"].items()):
            return None
        if data["claims"] != _counted(claims, {model["name"] for model in data["models"]}, data["failures"]):
            return None
        failures = {name: _problems(problems) for name, problems in data["failures"].items()}
        gateway = GatewaySettings(**data["gateway"]) if data["gateway"] else None
        return CompileResult(tuple(map(_model, data["models"])), failures, {}, gateway)
    except (OSError, ValueError, KeyError, TypeError):
        return None  # no cache, or the cache of another version: compile


def _model(data: dict[str, Any]) -> CompiledModel:
    data["units"] = tuple(Unit(*unit) for unit in data["units"])
    data["gpus"] = GpuSelection(data["gpus"][0], tuple(data["gpus"][1]))
    data["socket_address"] = tuple(data["socket_address"]) if data["socket_address"] else None
    data["warnings"] = _problems(data["warnings"])
    for name in ("requires", "rivals", "served"):
        data[name] = tuple(data[name])
    return CompiledModel(**data)


def _problems(rows: Iterable[Iterable[Any]]) -> tuple[Problem, ...]:
    return tuple(Problem(*row) for row in rows)


def _counted(claims: Iterable[Claim], models: Collection[str], failures: Collection[str]) -> str:
    """The claims that influenced the result, as JSON: those of units without a compiled recipe.

    If a recipe failed, all claims count: its unit keeps its port, and another recipe is refused.
    """
    return json.dumps([claim for claim in claims if failures or claim.name not in models])


def keep(
    file: Path,
    wanted_key: str,
    result: CompileResult,
    fingerprints: Mapping[str, str],
    claims: Sequence[Claim] = (),
    answers: Mapping[str, str] | None = None,
) -> None:
    """Write the cache; a host where it cannot be written works without it."""
    data = {
        "key": wanted_key,
        "fingerprints": fingerprints,
        "answers": answers or {},
        "claims": _counted(claims, {model.name for model in result.models}, result.failures),
        "models": [model._asdict() for model in result.models],
        "failures": result.failures,
        "gateway": result.gateway and result.gateway._asdict(),
    }
    with contextlib.suppress(RecipectlError, OSError):
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        write_whole({file: json.dumps(data)}, mode=0o600)
