"""All recipes of a host at once: read, resolved, related and rendered, or told what is wrong, and where."""

import os
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Protocol

from recipectl import engines
from recipectl.compiler import environment, relations
from recipectl.compiler import preflight as checks
from recipectl.compiler import service_settings as settings
from recipectl.compiler import units as unit
from recipectl.compiler.model import Compiled, Outcome
from recipectl.errors import Problem, RecipectlError, RecipeError, SeveralError, UsageError
from recipectl.machine import runtime
from recipectl.machine.disk import Disk
from recipectl.recipe import load
from recipectl.recipe.hostfile import Host
from recipectl.recipe.search import Source
from recipectl.recipe.yamlfile import Places
from recipectl.systemd import quoting
from recipectl.systemd.unitfile import Site

# Stands in for a runtime that was not found, so that what else is wrong with the recipe is told with that.
_NONE = runtime.Runtime("none", ("/none",))


class _Wrong:
    """What is wrong with one recipe, each at the place of its key."""

    def __init__(self, file: Path, places: Places) -> None:
        self.file, self.places, self.problems = str(file), places, list[Problem]()

    def add(self, *errors: UsageError) -> None:
        for error in errors:
            if isinstance(error, SeveralError):
                self.add(*error.errors)
            else:
                self.problems.append(self.at(str(error), error.key))

    def at(self, sentence: str, key: tuple[str | int, ...]) -> Problem:
        """The sentence at the place of a key, of the nearest one around it, or of what chose the engine."""
        around = [key[:n] for n in range(len(key), 0, -1)]
        found = [self.places[one] for one in (*around, ("backend",), ("model_path",)) if one in self.places]
        return Problem(*(found[0] if found else (self.file, 1, 1)), sentence)

    def __enter__(self) -> None:
        """`with` notes what a step refuses, and goes on."""

    def __exit__(self, _: object, error: object, __: object) -> bool:
        if isinstance(error, UsageError):
            self.add(error)
        return isinstance(error, UsageError)


def steps(source: Source, host: Host, site: Site, disk: Disk) -> unit.Steps:
    """One recipe through the pure steps; RecipeError with everything that is wrong with it."""
    if source.twin:
        told = f"`{source.name}` is also {source.twin.name} in this folder; remove one of them"
        raise RecipeError((Problem(str(source.file), 1, 1, told),))
    recipe, places = load.placed((source.file, *source.drop_ins), host.vars, disk.content)
    wrong, found, made, drift = _Wrong(source.file, places), _NONE, None, list[str]()
    with wrong:
        found = runtime.resolve(recipe, host, disk)
        if recipe.model_path.startswith("/"):
            found = replace(found, behind=(*found.behind, disk.real(Path(recipe.model_path))))
        if not site.user:
            checks.reach(recipe, found, host, disk)
    refused = tuple(settings.refused(recipe, site))
    wrong.add(*checks.secrets(recipe, disk), *(refused or checks.values(recipe)))
    if found is not _NONE:
        with wrong:
            checks.versions(recipe, found)
        with wrong:
            drift = checks.drift(source.lock, recipe, found, host, disk)
    with wrong:
        quoting.line(str(source.file))
        # abspath: a link to a recipe is that recipe's own name
        made = unit.steps(recipe, os.path.abspath(source.file), found, host, site)  # noqa: PTH100
    if wrong.problems or made is None:
        raise RecipeError(tuple(sorted({*wrong.problems}, key=lambda one: (one.file, one.line, one.column))))
    said = [*((text, found.key) for text in found.warnings), *_warnings(made, disk)]
    lock = str(source.lock) if source.lock else None
    warnings = tuple(dict.fromkeys(str(wrong.at(*one)) for one in [*said, *((text, ()) for text in drift)]))
    if warnings:
        found = replace(found, warnings=warnings)
    return replace(made, runtime=found, places=places, lock=lock, locked=tuple(drift))


# Variables that people take for --host and --port: vLLM's are for its own processes (vllm#8791).
_INNER = {"vllm": ("VLLM_PORT", "VLLM_HOST_IP"), "llamacpp": ("LLAMA_ARG_PORT", "LLAMA_ARG_HOST")}


def _warnings(made: unit.Steps, disk: Disk) -> Iterable[tuple[str, tuple[str | int, ...]]]:
    """(sentence, key) of what is no error, and hardly meant."""
    recipe, extra = made.recipe, made.recipe.extra_args
    if recipe.model_path.startswith("/") and not disk.look(recipe.model_path):
        yield f"`model_path` {recipe.model_path} does not exist on this host", ("model_path",)
    inner = _INNER.get(recipe.backend, ())
    for name, variable in made.environment.items():
        key = environment.key_of(variable.layer, name)
        if variable.layer not in ("secrets", "directories") and environment.looks_secret(
            name, variable.value
        ):
            of = " of the host file" if variable.layer == "host file" else ""
            yield f"`{name}`{of} looks like a secret, and anyone may read a unit; move it to `secrets:`", key
        if name in inner:
            yield f"`{name}` is not where recipectl knows the engine to listen; use `host:` and `port:`", key
        for layer, value in variable.overrode:
            both = {layer, variable.layer}
            if value != variable.value and both <= {"extra_args.env_vars", "env_vars", "gpus"}:
                told = f"`{name}` is `{variable.value}` by `{variable.layer}` and another by `{layer}`"
                yield f"{told}; keep one of them", key
    for word, shown in zip(made.words, environment.hidden(made.argv), strict=True):
        if word.key and shown != word.text:
            yield (
                "a word of the command looks like a secret, and anyone may read it; use `secrets:`",
                word.key,
            )
    if recipe.gpus is not None:
        if len({gpu.isdigit() for gpu in recipe.gpus}) > 1:
            yield "`gpus` mixes indices and ids; write all of them one way", ("gpus",)
        legacy = environment.legacy_gpus(recipe)
        if legacy is not None and legacy != environment.gpus(recipe):
            yield "`gpus` and `extra_args.cuda_visible_devices` disagree; keep `gpus`", ("gpus",)
    if recipe.venv_path and extra.get("venv_path") not in (None, recipe.venv_path):
        yield "`venv_path` and `extra_args.venv_path` disagree; keep one of them", ("venv_path",)


_MIXED = "`gpus` are indices in some recipes and ids in others; list `gpus:` in the host file to compare them"
Wrong = dict[str, tuple[str, ...]]  # name of a recipe -> sentences


class Part(Protocol):
    """Some recipes of a host: what they claim of it and, once all claims are known, their units."""

    @property
    def claims(self) -> list[relations.Claim]: ...

    @property
    def wrong(self) -> Wrong: ...

    def tell(self, decided: relations.Decided, *, mixed: bool) -> None:
        """What was decided of all recipes; `models` is what becomes of these by that."""

    def models(self) -> tuple[list[Compiled], Wrong]:
        """The recipes as units, and what is wrong with those that cannot be."""


class Here:
    """A part that this process compiles itself."""

    def __init__(self, found: Iterable[Source], host: Host, site: Site, disk: Disk) -> None:
        self.host, self.site = host, site
        self.made: dict[str, unit.Steps] = {}
        self.claims: list[relations.Claim] = []
        self.wrong: Wrong = {}
        for source in found:
            try:
                one = steps(source, host, site, disk)
                public = engines.public(one.recipe, one.endpoint)
                self.claims.append(relations.claim(one.recipe, one.endpoint, public, host))
                self.made[source.name] = one
            except RecipectlError as error:
                self.wrong[source.name] = tuple(str(error).split("\n"))

    def tell(self, decided: relations.Decided, *, mixed: bool) -> None:
        self._decided, self._mixed = decided, mixed

    def models(self) -> tuple[list[Compiled], Wrong]:
        decided, models, wrong = self._decided, list[Compiled](), Wrong()
        for claim in self.claims:
            name, one = claim.name, self.made[claim.name]
            noted = _Wrong(Path(one.source), one.places)
            noted.add(*decided.wrong.get(name, ()))
            if name in decided.relations and not noted.problems:
                with noted:
                    models.append(self._compiled(claim, one, decided.relations[name]))
            if noted.problems:
                wrong[name] = tuple(map(str, noted.problems))
        return models, wrong

    def _compiled(self, claim: relations.Claim, one: unit.Steps, related: relations.Relations) -> Compiled:
        public = engines.public(one.recipe, one.endpoint)
        mixed = [f"{one.source}: {_MIXED}"] if self._mixed and claim.gpus else []
        return Compiled(
            claim.name, one.source, unit.render(one, self.site, self.host, related), one.recipe.autostart,
            claim.on_demand, environment.gpus(one.recipe), public.url if public.path else "none",
            related.rivals, (*one.runtime.warnings, *mixed),
        )  # fmt: skip


def settle(parts: Sequence[Part], host: Host) -> Outcome:
    """What becomes of the recipes of all parts together; a wrong one stops no other."""
    wrong = {name: said for part in parts for name, said in part.wrong.items()}
    claims = sorted((claim for part in parts for claim in part.claims), key=lambda claim: claim.name)
    while True:  # a recipe that needs one that turns out to be wrong is wrong itself
        kept = [one for one in claims if one.name not in wrong]
        decided, mixed = relations.decide(kept, frozenset(wrong)), relations.mixed(kept, host)
        for part in parts:
            part.tell(decided, mixed=mixed)
        answers = [part.models() for part in parts]
        new = {name: said for _, its in answers for name, said in its.items()}
        if not new:
            models = (model for its, _ in answers for model in its)
            return Outcome(tuple(sorted(models, key=lambda model: model.name)), dict(sorted(wrong.items())))
        wrong |= new


def compile_all(
    found: tuple[Source, ...], host: Host, site: Site, disk: Disk
) -> tuple[dict[str, unit.Steps], Outcome]:
    """The steps and the units of every recipe."""
    part = Here(found, host, site, disk)
    return part.made, settle([part], host)
