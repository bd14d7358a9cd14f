"""All recipes of a host at once: read, resolved, related and rendered, or told what is wrong."""

import os
from dataclasses import replace

from recipectl import checks, engines, environment, hostfile, load, relations, runtime, unit
from recipectl.compiled import Compiled, Outcome
from recipectl.errors import Problem, RecipectlError, RecipeError, UsageError
from recipectl.sources import Source
from recipectl.unitfile import Site


def steps(source: Source, host: hostfile.Host, site: Site, disk: runtime.Disk) -> unit.Steps:
    """One recipe through the pure steps; every error names the file."""
    recipe, places = load.placed((source.file, *source.drop_ins), host.vars)
    try:
        found = runtime.resolve(recipe, host, disk)
        if not site.user:
            checks.reach(recipe, found, host, disk)
        checks.secrets(recipe, disk)
        checks.versions(recipe, found)
        drift = checks.drift(source.lock, recipe, found, host, disk)
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
