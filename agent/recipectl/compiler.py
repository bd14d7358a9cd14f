"""All recipes of a host at once: read, resolved, related and rendered, or told what is wrong."""

import json
import os
import pwd
import stat
from dataclasses import replace
from functools import cache
from pathlib import Path

from recipectl import engines, environment, hostfile, installed, load, relations, runtime, unit
from recipectl.compiled import Compiled, Outcome
from recipectl.errors import Problem, RecipectlError, RecipeError, UsageError
from recipectl.recipe import Recipe
from recipectl.sources import Source
from recipectl.unitfile import Site


def steps(source: Source, host: hostfile.Host, site: Site, disk: runtime.Disk) -> unit.Steps:
    """One recipe through the pure steps; every error names the file."""
    recipe, places = load.placed((source.file, *source.drop_ins), host.vars)
    try:
        _reach(recipe, found := runtime.resolve(recipe, host, disk), host, site, disk)
        _check_secrets(recipe, site, disk)
        _check_versions(recipe, found)
        drift = _drift(source, recipe, found, host, disk)
        # abspath: a link to a recipe is that recipe's own name
        made = unit.steps(recipe, os.path.abspath(source.file), found, host, site)  # noqa: PTH100
    except UsageError as error:
        raise RecipeError((Problem(str(source.file), 0, 0, str(error)),)) from error
    warnings = (*found.warnings, *_warnings(made, disk), *drift)
    lock = str(source.lock) if source.lock else None
    return replace(made, runtime=replace(found, warnings=warnings), places=places, lock=lock)


def _warnings(made: unit.Steps, disk: runtime.Disk) -> list[str]:
    recipe, said = made.recipe, []
    if recipe.model_path.startswith("/") and not disk.look(recipe.model_path):
        said.append(f"`model_path` {recipe.model_path} does not exist on this host")
    for name, variable in made.environment.items():
        if variable.layer not in ("secrets", "directories") and environment.looks_secret(
            name, variable.value
        ):
            said.append(f"`{name}` looks like a secret, and anyone may read a unit; move it to `secrets:`")
    if environment.gpus(recipe) is not None and recipe.gpus is not None:
        forms = {gpu.isdigit() for gpu in recipe.gpus}
        if len(forms) > 1:
            said.append("`gpus` mixes indices and ids; write all of them one way")
    spelled = recipe.extra_args.get("venv_path"), recipe.extra_args.get("venv-path")
    if all(spelled) and spelled[0] != spelled[1]:
        said.append("`extra_args.venv_path` and `extra_args.venv-path` disagree; keep one")
    return said


@cache
def _ids(user: str) -> tuple[int, frozenset[int]]:
    """A user's id and group; nobody's for one that apply is going to make."""
    try:
        entry = pwd.getpwnam(user)
    except KeyError:
        return -1, frozenset()
    return entry.pw_uid, frozenset({entry.pw_gid})


def _reach(
    recipe: Recipe, found: runtime.Runtime, host: hostfile.Host, site: Site, disk: runtime.Disk
) -> None:
    """UsageError when the unit's user could not enter a folder on the way to what it must read."""
    user = recipe.user or host.user
    if site.user or user == "root":
        return
    uid, gids = _ids(user)
    needed = {found.command[0], found.interpreter or "", found.base or "", recipe.model_path}
    for path in sorted(needed):
        for folder in Path(path).parents if path.startswith("/") else ():
            mode, owner, group, *_ = (*disk.look(folder).split(":"), "0", "0", "0")
            bits = int(mode or "777", 8)
            bit = stat.S_IXUSR if owner == str(uid) else stat.S_IXGRP if int(group) in gids else stat.S_IXOTH
            if not bits & bit:
                raise UsageError(
                    f"{path} cannot be reached by the unit's user {user} ({folder} is closed to it); "
                    f"move it, open the folder, or set `user:`"
                )


def _check_versions(recipe: Recipe, found: runtime.Runtime) -> None:
    """UsageError when the engine or its Python is not the one that the recipe pins."""
    if recipe.engine_version is None and recipe.python_version is None:
        return
    from packaging.specifiers import SpecifierSet
    from packaging.version import Version

    pins = (
        ("engine_version", recipe.engine_version, recipe.backend, found.engine_version),
        ("python_version", recipe.python_version, "Python", found.python_version),
    )
    for key, wanted, what, version in pins:
        if wanted is None:
            continue
        if version is None:
            raise UsageError(
                f"`{key}` is {wanted}, and no {what} is installed beside {found.command[0]}; "
                "install it there or correct the runtime"
            )
        # The public part alone: a build says 0.32.0+cpu where a recipe says ==0.32.0.
        if not SpecifierSet(wanted).contains(Version(version).public, prereleases=True):
            its = f"{what} of {found.command[0]}" if key == "python_version" else found.command[0]
            raise UsageError(
                f"`{key}` is {wanted}, and {its} is {version}; install that version or correct the recipe"
            )


def locked_now(recipe: Recipe, found: runtime.Runtime) -> installed.Locked:
    """The facts of a runtime as a lock records them."""
    names = tuple(name.replace("-", "_") for name in runtime.DISTRIBUTIONS[recipe.backend])
    return installed.facts(found.interpreter or found.command[0], found.installed_in, names)


def _drift(
    source: Source, recipe: Recipe, found: runtime.Runtime, host: hostfile.Host, disk: runtime.Disk
) -> list[str]:
    """What is not as the recipe's lock has it; UsageError where the host file says `drift: refuse`."""
    if source.lock is None:
        return []
    try:
        lock: installed.Locked = json.loads(source.lock.read_text())
        now = locked_now(recipe, found)
        said = installed.differences(lock, now)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UsageError(f"{source.lock} cannot be read as a lock; remove it, and lock again") from error
    # Looked at, so that a cache notices when they change.
    disk.look(now["interpreter_file"])
    for path in Path(now["folder"]).glob("*.dist-info/RECORD") if now["folder"] else ():
        disk.look(path)
    said = [f"not as locked in {source.lock}: {clause}" for clause in said]
    if said and host.drift == "refuse":
        raise UsageError(f"{'; '.join(said)}; put it back, or accept it with `recipectl lock --update`")
    return said


def _check_secrets(recipe: Recipe, site: Site, disk: runtime.Disk) -> None:
    """UsageError when a secret's file is missing, open to everyone, or of the wrong form."""
    for variable, source in recipe.secrets.items():
        if not source.startswith("/") or not os.access(Path(source).parent, os.X_OK):
            continue
        seen = disk.look(source)
        if not seen:
            raise UsageError(f"`secrets.{variable}`: {source} does not exist; create it with mode 0600")
        if int(seen.split(":")[0], 8) & stat.S_IROTH:
            raise UsageError(f"`secrets.{variable}`: anyone may read {source}; chmod 0600 it")
    for variable, source in environment.environment_files(recipe).items():
        if os.access(source, os.R_OK):
            lines = Path(source).read_text(errors="replace").splitlines()
            if not any(line.startswith(f"{variable}=") for line in lines):
                raise UsageError(
                    f"`secrets.{variable}` is read from the environment only; {source} must have a line "
                    f'`{variable}="…"`'
                )


def compile_all(
    found: tuple[Source, ...], host: hostfile.Host, site: Site, disk: runtime.Disk
) -> tuple[dict[str, unit.Steps], Outcome]:
    """Every recipe's steps and units; a wrong one stops no other."""
    made: dict[str, unit.Steps] = {}
    wrong: dict[str, list[str]] = {}
    claims = []
    for source in found:
        try:
            one = steps(source, host, site, disk)
            public = engines.public(one.recipe, one.endpoint)
            claims.append(relations.claim(one.recipe, str(source.file), one.endpoint, public, host))
            made[source.name] = one
        except RecipectlError as error:
            wrong[source.name] = str(error).split("\n")
    related, clashes = relations.decide(claims, frozenset(wrong))
    wrong |= clashes
    models = []
    for name, one in made.items():
        if name in wrong:
            continue
        try:
            units = unit.render(one, site, host, related[name])
        except UsageError as error:
            wrong[name] = [str(Problem(one.source, 0, 0, str(error)))]
            continue
        public = engines.public(one.recipe, one.endpoint)
        models.append(
            Compiled(
                name, one.source, units, one.recipe.autostart, one.recipe.on_demand is not None,
                environment.gpus(one.recipe), public.url if public.path else "none", related[name].rivals,
                tuple(f"{one.source}: {said}" for said in one.runtime.warnings),
            )
        )  # fmt: skip
    return made, Outcome(tuple(models), {name: tuple(said) for name, said in wrong.items()})
