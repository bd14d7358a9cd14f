"""What of a recipe names its runtime, and what it must say for another one."""

import os
from pathlib import Path

from packaging.specifiers import SpecifierSet

from recipectl.engines.registry import ENGINES
from recipectl.errors import UsageError
from recipectl.machine.disk import Disk
from recipectl.machine.distributions import ENGINE_DISTRIBUTIONS, is_finished, satisfies
from recipectl.machine.runtime import Runtime, venv_path
from recipectl.recipe.positions import KeyPath
from recipectl.recipe.schema import Recipe


def require_one_host(recipe: Recipe) -> None:
    """UsageError for a model that several hosts serve: one of them alone would never be ready."""
    if recipe.nodes and recipe.nodes.hosts:
        fault = f"`{recipe.name}` is served by {', '.join(recipe.nodes.hosts)} together, with one version"
        raise UsageError(f"{fault}; change the recipe on all of them, and apply it on each")


def require_named_runtime(recipe: Recipe) -> None:
    """UsageError for a recipe that leaves its runtime to the host: there is no value to replace."""
    require_one_host(recipe)
    if not any((recipe.python_path, venv_path(recipe), recipe.binary)):
        key = "binary" if ENGINES[recipe.backend].is_binary else "python_path"
        fault = f"`{recipe.name}` names no runtime of its own, and takes the host's"
        raise UsageError(f"{fault}; give it `{key}:` first, and apply it", kind="runtime")


def values(recipe: Recipe, runtime: Runtime, new: Path, disk: Disk) -> dict[KeyPath, str]:
    """Key -> the value that a recipe must have for a runtime: a venv, or a program.

    UsageError where the runtime has no program for it.
    """
    require_named_runtime(recipe)
    keys: dict[KeyPath, str] = {}
    if recipe.binary:
        keys["binary",] = _program(new, _below(recipe.binary, runtime.venv), disk)
    if recipe.python_path:
        keys["python_path",] = _program(new, _below(recipe.python_path, runtime.venv), disk)
    if venv := venv_path(recipe):
        folder = new if disk.is_folder(new) else new.parent.parent
        _program(folder, ["bin/python"], disk)
        keys[venv[0]] = str(folder)
    program = Path(next(iter(keys.values())))
    program = program / "bin/python" if disk.is_folder(program) else program
    version = disk.engine_version(program, recipe.backend)
    if recipe.engine_version and version and not satisfies(version, recipe.engine_version):
        keys["engine_version",] = _pin(recipe.engine_version, version)
    return keys


def is_runtime(folder: Path, version: str, backend: str, disk: Disk) -> bool:
    """True if a folder is a finished venv with this version of an engine, whoever has made it."""
    installed = disk.engine_version(folder / "bin/python", backend) if is_finished(folder) else None
    return bool(installed and satisfies(installed, f"=={version}"))


def refuse_another_engine(distribution: str, backend: str) -> None:
    """UsageError for a distribution that is known to bring another engine; a fork may have any name."""
    name = distribution.replace("-", "_")
    others = [engine for engine, known in ENGINE_DISTRIBUTIONS.items() if engine != backend and name in known]
    if others and name not in ENGINE_DISTRIBUTIONS[backend]:
        fault = f"`{distribution}` is {others[0]}, and the recipe says `backend: {backend}`"
        raise UsageError(f"{fault}; name a {backend}, or write another recipe", kind="runtime")


def _below(program: str, venv: str | None) -> list[str]:
    """Where the same program may be in another runtime."""
    inside = os.path.relpath(program, venv) if venv and program.startswith(f"{venv}/") else None
    name = os.path.basename(program)  # noqa: PTH119
    return [path for path in (inside, f"bin/{name}", name, f"build/bin/{name}") if path]


def _program(new: Path, below: list[str], disk: Disk) -> str:
    """The program in a new runtime; `new` may be the program itself."""
    if not disk.is_folder(new):
        if disk.is_executable(new):
            return str(new)
        raise UsageError(f"{new} is not an executable file on this host; name another", kind="runtime")
    for path in below:
        if disk.is_executable(new / path):
            return str(new / path)
    raise UsageError(f"{new} has no {below[0]}, which the recipe runs; name another runtime", kind="runtime")


def _pin(specifier: str, version: str) -> str:
    """A pin that a version fits, in the form of an earlier pin: `==0.32.*` becomes `==0.33.*`."""
    clauses = [*SpecifierSet(specifier)]
    public = version.partition("+")[0]
    if len(clauses) == 1 and clauses[0].operator in ("==", "~="):
        parts = clauses[0].version.removesuffix(".*").split(".")
        shortened = ".".join(public.split(".")[: len(parts)])
        pin = f"{clauses[0].operator}{shortened}{'.*' if clauses[0].version.endswith('.*') else ''}"
        if satisfies(version, pin):
            return pin
    return f"=={public}"


def in_words(recipe: Recipe, runtime: Runtime) -> str:
    """A runtime for messages: the engine, its version and where it is."""
    where = runtime.command[0] if recipe.binary else runtime.venv or runtime.command[0]
    return f"{recipe.backend} {runtime.engine_version or 'of unknown version'} in {where}"
