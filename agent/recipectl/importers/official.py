"""vLLM's official recipes (vllm-project/recipes): the command of one variant, hardware and strategy.

Their layers, later ones winning: base, variant, strategy, the recipe's words on the strategy, hardware
(generation, then brand; a strategy's own hardware words replace the recipe's), features.
"""

import difflib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from recipectl.errors import UsageError
from recipectl.importers.draft import Draft
from recipectl.importers.shell import Command, commands
from recipectl.importers.words import drafted

Map = Mapping[str, Any]


@dataclass(frozen=True)
class Choice:
    """What to render; features None is the recipe's own default, `modes` is feature -> its mode."""

    variant: str = "default"
    hardware: str = "h200"
    strategy: str | None = None
    features: tuple[str, ...] | None = None
    modes: Mapping[str, str] = field(default_factory=dict)


def _known(what: str, name: str, names: Map) -> Any:
    if name in names:
        return names[name] or {}
    near = difflib.get_close_matches(name, names, 1)
    hint = f"did you mean `{near[0]}`?" if near else f"it has {', '.join(names) or 'none'}"
    raise UsageError(f"there is no {what} `{name}`; {hint}")


def _map(value: Any) -> Map:
    return value if isinstance(value, Mapping) else {}


@dataclass(frozen=True)
class _Place:
    """A hardware profile and what keys it answers to."""

    name: str
    profile: Map

    @property
    def generation(self) -> str:
        found = self.profile.get("generation") or self.profile.get("gpu_generation") or ""
        return str(found[0] if isinstance(found, list) else found)

    @property
    def brand(self) -> str:
        return str(self.profile.get("brand", "")).lower()

    @property
    def gpus(self) -> int:
        count = self.profile.get("gpu_count")
        return count if isinstance(count, int) else 1

    def keyed(self, found: Any) -> Any:
        """The value for this hardware: by its own name, generation, brand, else `default`."""
        for key in (self.name, self.generation, self.brand, "default"):
            if key and _map(found).get(key) is not None:
                return _map(found)[key]
        return None

    def override(self, found: Any) -> Map | None:
        """The overrides of this generation; all NVIDIA GPUs share `nvidia:`."""
        value = _map(found).get(self.generation)
        return _map(value or _map(found).get("nvidia")) if value or self.brand == "nvidia" else None


def parallel_size(recipe: Map, variant: Map, place: _Place, strategy: str) -> int:
    """How many GPUs one node gives: all, but for plain tensor parallelism, which may fit on one."""
    if strategy != "single_node_tp":
        return place.gpus
    for declared in (variant.get("tp"), _map(_map(recipe.get("strategy_overrides")).get(strategy)).get("tp")):
        size = declared if isinstance(declared, int) else place.keyed(declared)
        if isinstance(size, int) and size > 0:
            return size if place.generation == "cpu" else min(size, place.gpus)
    need, node = variant.get("vram_minimum_gb") or 0, place.profile.get("vram_gb") or 0
    return 1 if need and node and need <= node / place.gpus else place.gpus


def _last_wins(words: list[str]) -> list[str]:
    """Each flag once, where and as it stands last."""
    pairs: list[list[str]] = []
    for word in words:
        if word.startswith("-") or not pairs or len(pairs[-1]) > 1 or not pairs[-1][0].startswith("-"):
            pairs.append([word])
        else:
            pairs[-1].append(word)
    last = {pair[0]: index for index, pair in enumerate(pairs) if pair[0].startswith("-")}
    kept = [pair for index, pair in enumerate(pairs) if last.get(pair[0], index) == index]
    return [word for pair in kept for word in pair]


def _mode(feature: Map, name: str, variant: Map, choice: Choice, place: _Place) -> Map:
    """The mode of a feature that has several: what was asked for, the variant's, the feature's, the first."""
    modes = _map(feature.get("modes"))
    allowed = []
    for key, mode in modes.items():
        hardware, variants = _map(mode.get("hardware")), mode.get("variants")
        shut = "unsupported" in (hardware.get(place.generation), hardware.get(place.name))
        if not shut and (not variants or choice.variant in variants):
            allowed.append(key)
    wishes = (
        choice.modes.get(name),
        _map(variant.get("default_modes")).get(name),
        feature.get("default_mode"),
    )
    if choice.modes.get(name) and choice.modes[name] not in allowed:
        raise UsageError(f"`{name}` has no mode `{choice.modes[name]}` here; it has {', '.join(allowed)}")
    chosen = next((wish for wish in wishes if wish in allowed), allowed[0] if allowed else None)
    return _map(modes.get(chosen)) if chosen else {}


def default_features(recipe: Map, variant: Map, hardware: str) -> tuple[str, ...]:
    """All features but those that ask to be chosen."""
    opt_in = {*(recipe.get("opt_in_features") or ())}
    opt_in |= {*(_map(recipe.get("hardware_opt_in_features")).get(hardware) or ())}
    forced = {*_map(variant.get("default_modes"))}
    return tuple(name for name in _map(recipe.get("features")) if name in forced or name not in opt_in)


def rendered(recipe: Map, taxonomy: Map, strategies: Map, choice: Choice) -> tuple[list[str], dict[str, str]]:
    """(argv, environment) as vLLM's site renders them; UsageError for what is not of one node."""
    variants = _map(recipe.get("variants"))
    variant = _known("variant", choice.variant, variants) if variants or choice.variant != "default" else {}
    place = _Place(
        choice.hardware, _known("hardware", choice.hardware, _map(taxonomy.get("hardware_profiles")))
    )
    name = choice.strategy or "single_node_tp"
    strategy = _known("strategy", name, strategies)
    if strategy.get("deploy_type", "single_node") != "single_node":
        raise UsageError(f"`{name}` is not of one node; choose one of single_node_tp, _tep and _dep")
    model = _map(recipe.get("model"))
    own = _map(_map(recipe.get("strategy_overrides")).get(name))
    exact = _map(_map(variant.get("hardware_overrides")).get(choice.hardware))
    size = parallel_size(recipe, variant, place, name)
    flag = strategy.get("parallel_flag") or "--tensor-parallel-size"
    layers: list[tuple[Any, Any]] = [
        (model.get("base_args"), model.get("base_env")),
        (variant.get("extra_args"), variant.get("extra_env")),
        (exact.get("extra_args"), exact.get("extra_env")),
        (strategy.get("vllm_args"), strategy.get("env")),
        ([flag, str(size)], None),
        (own.get("extra_args"), own.get("env")),
        (own.get("vllm_args"), own.get("extra_env")),
    ]
    if (replaced := place.override(own.get("hardware_overrides"))) is not None and replaced:
        layers.append((replaced.get("extra_args"), replaced.get("extra_env")))
    else:
        for source in (recipe, variant):
            found = place.override(source.get("hardware_overrides")) or {}
            layers.append((found.get("extra_args"), found.get("extra_env")))
    delta = _map(_map(own.get("hardware_overrides")).get(choice.hardware))
    layers.append((delta.get("extra_args"), delta.get("extra_env")))
    for wanted in choice.modes:
        _known("feature", wanted, _map(recipe.get("features")))
    features = choice.features
    if features is None:
        features = default_features(recipe, variant, choice.hardware)
    for wanted in features:
        feature = _known("feature", wanted, _map(recipe.get("features")))
        if feature.get("strategies") and name not in feature["strategies"]:
            continue
        if feature.get("modes"):
            feature = _mode(feature, wanted, variant, choice, place)
        special = _map(place.keyed(feature.get("hardware_overrides")))
        layers.append((special.get("args", feature.get("args")), special.get("env", feature.get("env"))))
    words = [str(word) for args, _ in layers for word in args or ()]
    environ = {key: str(value) for _, env in layers for key, value in _map(env).items()}
    served = variant.get("model_id") or model.get("model_id") or ""
    return ["vllm", "serve", str(served), *_last_wins([word for word in words if word])], environ


def draft(recipe: Map, taxonomy: Map, strategies: Map, choice: Choice, source: str) -> Draft:
    """The official command as a recipe."""
    if "omni" in (_map(recipe.get("meta")).get("tasks") or ()):
        raise UsageError("recipes of vllm-omni cannot be imported: it is another engine; see its own command")
    argv, environ = rendered(recipe, taxonomy, strategies, choice)
    # `$NAME` in them is a variable of the site, as in a shell.
    resolved = [_shell(word) for word in argv]
    command = Command({key: _shell(value) for key, value in environ.items()}, resolved)
    what = f"variant {choice.variant}, hardware {choice.hardware}, {choice.strategy or 'single_node_tp'}"
    made = drafted(command, origin=f"vLLM's official recipe {source}: {what}")
    version = _map(recipe.get("model")).get("min_vllm_version")
    if version:
        made.set("engine_version", f">={version}", "min_vllm_version of the official recipe")
    title = _map(recipe.get("meta")).get("title")
    if title:
        made.fields = {"description": str(title), **made.fields}
    return made


def _shell(text: str) -> str:
    return commands(f'x "{text}"')[0].words[1] if text.startswith("$") else text
