"""From recipe files to units: read → resolve → preflight → environment → argv → relate → render."""

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from recipectl.compiler import environment, gpus, lint, members, preflight, relations, units
from recipectl.compiler.claims import Claim, claim_of, gpus_cannot_be_compared, with_installed
from recipectl.compiler.members import Member
from recipectl.compiler.model import (
    CompiledModel,
    CompileResult,
    Environment,
    GatewaySettings,
    ResolvedRecipe,
)
from recipectl.compiler.problems import ProblemCollector
from recipectl.engines import argv, overlaps
from recipectl.engines.endpoint import client_endpoint, engine_endpoint
from recipectl.errors import MultipleUsageError, Problem, RecipectlError, RecipeError, UsageError
from recipectl.machine.disk import Disk
from recipectl.machine.installation import Installation
from recipectl.machine.runtime import Runtime
from recipectl.machine.runtime import resolve as resolve_runtime
from recipectl.place import Place
from recipectl.recipe.gpu_selection import UNSET
from recipectl.recipe.hostfile import HostSettings
from recipectl.recipe.load import load_with_positions
from recipectl.recipe.schema import Recipe
from recipectl.recipe.search import SUFFIXES, Source
from recipectl.systemd import quoting

NO_RUNTIME = Runtime("none", ("/none",))
_MIXED_GPUS = (
    "`gpus` are indices in some recipes and ids in others; list `gpus:` in the host file to compare them"
)


def compile_recipes(
    sources: Sequence[Source],
    settings: HostSettings,
    installation: Installation,
    disk: Disk,
    installed: Sequence[Claim] = (),
    *,
    whole: bool = True,
) -> CompileResult:
    """The units of some recipes together. A wrong recipe stops only those that require it.

    `installed` are the claims of units that stay. They count instead of wrong recipes; if the `whole` host is
    not applied, they count for right recipes too.
    """
    by_name: dict[str, ResolvedRecipe] = {}
    claims: Sequence[Claim] = ()
    failures: dict[str, tuple[Problem, ...]] = {}
    for source in sources:
        try:
            by_name[source.name] = resolve(source, settings, installation, disk)
        except RecipectlError as error:
            failures[source.name] = error.problems
    holders = frozenset((claim.name, port) for claim in installed for _, port in claim.ports)
    while True:
        usable = {name: resolved for name, resolved in by_name.items() if name not in failures}
        claims = [claim for claim in installed if not whole or claim.name not in usable]
        models, wrong = relate_and_render(
            usable, frozenset(failures), settings, installation, claims, holders
        )
        if not wrong:
            return CompileResult(models, dict(sorted(failures.items())), by_name, _gateway(settings))
        failures |= wrong  # what requires a wrong recipe is wrong too: relate the others once more


def resolve(source: Source, settings: HostSettings, installation: Installation, disk: Disk) -> ResolvedRecipe:
    """One recipe through the steps that need no other recipe; RecipeError with all its problems."""
    if source.fault:
        problem = Problem(file=str(source.file), line=1, column=1, kind="file", sentence=source.fault)
        raise RecipeError((problem,))
    if target := _recipe_behind(source.file):
        sentence = f"it is a link to {target} in the same folder, a second model; copy the file, or remove it"
        raise RecipeError((Problem(file=str(source.file), kind="file", sentence=sentence),))
    recipe, positions = load_with_positions((source.file, *source.drop_ins), settings.vars, disk.content)
    problems = ProblemCollector(str(source.file), positions)
    runtime = None
    resolved = None
    member: Member | None = None
    lock_differences: tuple[str, ...] = ()
    with problems:
        recipe, member = members.with_member(recipe, disk.answer)
    with problems:
        runtime = _runtime(recipe, settings, disk)
    problems.add(*preflight.check(recipe, runtime, settings, installation, disk))
    with problems:
        if runtime:
            lock_differences = preflight.check_lock(
                installation.place, source.lock, recipe, runtime, settings, disk
            )
    with problems:
        quoting.line(str(source.file))
        file = os.path.abspath(source.file)  # noqa: PTH100  (a link to a recipe has a name of its own)
        # Without a runtime, the steps still tell what else is wrong.
        resolved = resolve_purely(recipe, file, runtime or NO_RUNTIME, settings, installation, member)
    if problems.problems or resolved is None:
        raise problems.error()
    groups = () if installation.user else preflight.supplementary_groups(resolved, disk)
    resolved = replace(resolved, groups=groups, mps_pipes=preflight.mps_pipes(resolved, disk))
    noticed = (
        *_warnings(installation.place, resolved, source, lock_differences, disk),
        *preflight.warnings(resolved, settings, installation, disk),
    )
    warnings = [problems.placed(warning, "warning") for warning in noticed]
    return replace(
        resolved,
        positions=positions,
        lock=str(source.lock) if source.lock else None,
        lock_differences=lock_differences,
        warnings=tuple(dict.fromkeys(warnings)),
    )


def _recipe_behind(file: Path) -> str | None:
    """The name of another recipe file in the same folder that this one is a link to."""
    if not file.is_symlink():
        return None
    folder, name = os.path.split(os.path.realpath(file))
    same = folder == os.path.realpath(file.parent) and name != file.name and name.endswith(SUFFIXES)
    return name if same else None


def resolve_purely(
    recipe: Recipe,
    file: str,
    runtime: Runtime,
    settings: HostSettings,
    installation: Installation,
    member: Member | None = None,
) -> ResolvedRecipe:
    """GPUs, environment, argv and endpoint of a recipe; MultipleUsageError with all that is wrong."""
    errors: list[UsageError] = []
    selection = UNSET
    variables: Environment = {}
    try:
        selection = gpus.select(recipe)
        variables = environment.compose(
            recipe, runtime, selection, settings, user=installation.user, member=member
        )
    except UsageError as error:
        errors.append(error)
    try:
        words = argv.words(recipe, runtime)
        recipe = overlaps.settled(recipe, words)
        endpoint = engine_endpoint(recipe, [word.text for word in words])
        resolved = ResolvedRecipe(
            recipe=recipe,
            file=file,
            runtime=runtime,
            gpus=selection,
            environment=variables,
            words=words,
            endpoint=endpoint,
            client_endpoint=client_endpoint(recipe, endpoint),
            member=member and members.agreed(member, recipe, words),
        )
        units.check_endpoint(resolved)
    except UsageError as error:
        raise MultipleUsageError([*errors, error]) from error
    if errors:
        raise MultipleUsageError(errors)
    return resolved


def relate_and_render(
    by_name: Mapping[str, ResolvedRecipe],
    broken: frozenset[str],
    settings: HostSettings,
    installation: Installation,
    installed: Sequence[Claim] = (),
    holders: frozenset[tuple[str, int]] = frozenset(),
) -> tuple[tuple[CompiledModel, ...], dict[str, tuple[Problem, ...]]]:
    """The units of recipes by name, and the problems of the recipes that do not fit the others."""
    own = [claim_of(resolved, settings) for resolved in by_name.values()]
    claims = with_installed(own, installed, settings)
    gateway = _gateway(settings)
    decisions = relations.relate(claims, broken, holders, gateway.address if gateway else None)
    warn_of_gpus = gpus_cannot_be_compared(claims, settings)
    models: list[CompiledModel] = []
    failures: dict[str, tuple[Problem, ...]] = {}
    for name, resolved in sorted(by_name.items()):
        problems = ProblemCollector(resolved.file, resolved.positions)
        problems.add(*decisions.errors.get(name, ()))
        with problems:
            if not problems.problems:
                model = units.render(resolved, decisions.relations[name], settings, installation)
                extra = (resolved.problem("gpu", _MIXED_GPUS, "gpus", severity="warning"),)
                warned = warn_of_gpus and resolved.gpus.words
                models.append(model._replace(warnings=(*model.warnings, *extra)) if warned else model)
        if problems.problems:
            failures[name] = problems.error().problems
    return tuple(models), failures


def _gateway(settings: HostSettings) -> GatewaySettings | None:
    gateway = settings.gateway
    if gateway is None:
        return None
    tls = gateway.tls.model_dump() if gateway.tls else {}
    return GatewaySettings(**gateway.model_dump(exclude={"tls"}), **tls)


def _runtime(recipe: Recipe, settings: HostSettings, disk: Disk) -> Runtime:
    runtime = resolve_runtime(recipe, settings, disk)
    if recipe.model_path.startswith("/"):
        model = disk.real(Path(recipe.model_path))
        runtime = replace(runtime, link_targets=(*runtime.link_targets, model))
    return runtime


def _warnings(
    place: Place, resolved: ResolvedRecipe, source: Source, lock_differences: tuple[str, ...], disk: Disk
) -> Iterator[UsageError]:
    yield from lint.warnings(resolved)
    yield from preflight.unread_options(resolved, disk)
    yield from preflight.model_faults(resolved.recipe, disk)
    for clause in lock_differences:
        yield preflight.lock_error(place, source.lock, source.name, clause)
