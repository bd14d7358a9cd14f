"""vLLM's official recipes (vllm-project/recipes): the command for one variant, hardware and strategy.

A command has these layers, later ones winning: the recipe's base, the variant, the strategy, the recipe's
arguments for the strategy, the hardware (generation, then profile), the features. Hardware arguments for the
strategy replace those of the recipe and the variant.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from recipectl.errors import UsageError
from recipectl.importers.command import Command
from recipectl.importers.draft import Draft
from recipectl.importers.from_command import draft_from_command
from recipectl.importers.shapes import Map
from recipectl.importers.shell import commands
from recipectl.importers.vllm_recipe_notes import check_shapes, name_images, set_accelerator, set_version
from recipectl.text import did_you_mean

_Layer = tuple[Any, Any]  # arguments, environment

DEFAULT_HARDWARE = "h200"
DEFAULT_STRATEGY = "single_node_tp"


@dataclass(frozen=True)
class Choice:
    """What to import; `features` None is the recipe's default, `modes` is feature -> its mode."""

    variant: str = "default"
    hardware: str = DEFAULT_HARDWARE
    strategy: str = DEFAULT_STRATEGY
    features: tuple[str, ...] | None = None
    modes: Mapping[str, str] = field(default_factory=dict)


def _map(value: Any, *keys: str) -> Map:
    """The mapping below these keys; an empty one where there is none."""
    for key in keys:
        value = _map(value).get(key)
    return value if isinstance(value, Mapping) else {}


def _entry(kind: str, name: str, entries: Map) -> Map:
    """The entry with this name; UsageError with the nearest name when there is none."""
    if name in entries:
        return _map(entries[name])
    hint = did_you_mean(name, entries, f"it has {', '.join(entries) or 'none'}")
    raise UsageError(f"there is no {kind} `{name}`; {hint}")


@dataclass(frozen=True)
class _Hardware:
    """A hardware profile of taxonomy.yaml."""

    name: str
    profile: Map

    @property
    def generation(self) -> str:
        generation = self.profile.get("generation") or self.profile.get("gpu_generation") or ""
        return str(generation[0] if isinstance(generation, list) else generation)

    @property
    def brand(self) -> str:
        return str(self.profile.get("brand", "")).lower()

    @property
    def gpus(self) -> int:
        count = self.profile.get("gpu_count")
        return count if isinstance(count, int) else 1

    def value(self, by_hardware: Any) -> Any:
        """The value for this hardware: by its name, generation, brand, else `default`."""
        values = _map(by_hardware)
        keys = (self.name, self.generation, self.brand, "default")
        return next((values[key] for key in keys if key and values.get(key) is not None), None)

    def override(self, settings: Map) -> Map:
        """The overrides for this generation; `nvidia:` is for all other NVIDIA GPUs."""
        overrides = _map(settings, "hardware_overrides")
        nvidia = overrides.get("nvidia") if self.brand == "nvidia" else None
        return _map(overrides.get(self.generation) or nvidia)


@dataclass(frozen=True)
class _Selection:
    """The parts of a recipe that a choice selects."""

    recipe: Map
    choice: Choice
    variant: Map
    hardware: _Hardware
    strategy: Map

    @property
    def strategy_overrides(self) -> Map:
        return _map(self.recipe, "strategy_overrides", self.choice.strategy)


def _select(recipe: Map, taxonomy: Map, strategies: Map, choice: Choice) -> _Selection:
    """UsageError for an unknown name, and for a strategy of several nodes."""
    variants = _map(recipe, "variants")
    has_variant = variants or choice.variant != "default"
    variant = _entry("variant", choice.variant, variants) if has_variant else {}
    profile = _entry("hardware", choice.hardware, _map(taxonomy, "hardware_profiles"))
    strategy = _entry("strategy", choice.strategy, strategies)
    if strategy.get("deploy_type", "single_node") != "single_node":
        raise UsageError(f"`{choice.strategy}` needs several nodes; choose single_node_tp, _tep or _dep")
    return _Selection(
        recipe=recipe,
        choice=choice,
        variant=variant,
        hardware=_Hardware(choice.hardware, profile),
        strategy=strategy,
    )


def _check_offered(recipe: Map, variant: Map, profiles: Map, choice: Choice) -> None:
    """UsageError for a combination that vLLM's site does not offer, with what it offers."""
    strategy, hardware = choice.strategy, choice.hardware
    compatible = recipe.get("compatible_strategies") or ()
    strategies = [name for name in compatible if name.startswith("single_node")]
    if strategies and strategy not in strategies:
        fault = f"the recipe does not offer `{strategy}`"
        raise UsageError(f"{fault}; it offers {', '.join(strategies)}: give one with --strategy")
    supported = list(variant.get("supported_hardware") or ())
    if supported and hardware not in supported:
        fault = f"variant `{choice.variant}` does not offer `{hardware}`"
        raise UsageError(f"{fault}; it offers {', '.join(supported)}: give one with --hardware")
    if not _is_offered(recipe, profiles, hardware, strategy):
        offered = [name for name in profiles if _is_offered(recipe, profiles, name, strategy)]
        fault = f"the recipe does not offer `{hardware}` with {strategy}"
        raise UsageError(f"{fault}; it offers {', '.join(offered) or 'none'}: give one with --hardware")


def _is_offered(recipe: Map, profiles: Map, hardware: str, strategy: str) -> bool:
    """Whether vLLM's site offers a profile for a recipe; restricted ones only where the recipe names them."""
    known = _map(recipe, "meta", "hardware")
    states = (known.get(hardware), _map(recipe, "strategy_hardware", strategy).get(hardware))
    is_restricted = _map(profiles, hardware).get("restricted") and hardware not in known
    return not ("unsupported" in states or is_restricted)


def _parallel_size(selection: _Selection) -> int:
    """The number of GPUs: all of one node, but plain tensor parallelism may need fewer."""
    hardware = selection.hardware
    if selection.choice.strategy != "single_node_tp":
        return hardware.gpus
    for declared in (selection.variant.get("tp"), selection.strategy_overrides.get("tp")):
        size = declared if isinstance(declared, int) else hardware.value(declared)
        if isinstance(size, int) and size > 0:
            return size if hardware.generation == "cpu" else min(size, hardware.gpus)
    model_gb = selection.variant.get("vram_minimum_gb") or 0
    node_gb = hardware.profile.get("vram_gb") or 0
    fits_on_gpu = model_gb and node_gb and model_gb <= node_gb / hardware.gpus
    return 1 if fits_on_gpu else hardware.gpus


def _last_of_each_flag(words: list[str]) -> list[str]:
    """The words, each flag only where it is last."""
    options: list[list[str]] = []  # a flag with at most one value, or a value alone
    for word in words:
        if options and len(options[-1]) == 1 and options[-1][0].startswith("-") and not word.startswith("-"):
            options[-1].append(word)
        else:
            options.append([word])
    last = {option[0]: index for index, option in enumerate(options) if option[0].startswith("-")}
    return [
        word for index, option in enumerate(options) if last.get(option[0], index) == index for word in option
    ]


def _mode(selection: _Selection, name: str, feature: Map) -> Map:
    """The mode of a feature: the chosen one, else the variant's, the feature's, the first that is possible.

    UsageError when the chosen mode is not possible with this hardware and variant.
    """
    modes = _map(feature, "modes")
    hardware = selection.hardware
    possible = []
    for key, mode in modes.items():
        by_hardware = _map(mode, "hardware")
        is_supported = "unsupported" not in (
            by_hardware.get(hardware.generation),
            by_hardware.get(hardware.name),
        )
        if is_supported and selection.choice.variant in (mode.get("variants") or [selection.choice.variant]):
            possible.append(key)
    chosen = selection.choice.modes.get(name)
    if chosen and chosen not in possible:
        raise UsageError(f"`{name}` has no mode `{chosen}` for this choice; it has {', '.join(possible)}")
    defaults = (_map(selection.variant, "default_modes").get(name), feature.get("default_mode"))
    return next((_map(modes[key]) for key in (chosen, *defaults, *possible) if key in possible), {})


def _feature_names(selection: _Selection) -> tuple[str, ...]:
    """The chosen features, else all that the recipe does not make optional."""
    if selection.choice.features is not None:
        return selection.choice.features
    recipe = selection.recipe
    optional = {*(recipe.get("opt_in_features") or ())}
    optional |= {*(_map(recipe, "hardware_opt_in_features").get(selection.hardware.name) or ())}
    optional -= {*_map(selection.variant, "default_modes")}
    return tuple(name for name in _map(recipe, "features") if name not in optional)


def _layers(selection: _Selection) -> list[_Layer]:
    """The layers of the command in their order, without those of the features."""
    model = _map(selection.recipe, "model")
    variant = selection.variant
    hardware = selection.hardware
    overrides = selection.strategy_overrides
    parallel_flag = selection.strategy.get("parallel_flag") or "--tensor-parallel-size"
    hardware_layers = [hardware.override(overrides)]
    if not hardware_layers[0]:
        hardware_layers = [hardware.override(selection.recipe), hardware.override(variant)]
    hardware_layers.append(_map(overrides, "hardware_overrides", hardware.name))
    variant_on_hardware = _map(variant, "hardware_overrides", hardware.name)
    return [
        (model.get("base_args"), model.get("base_env")),
        (variant.get("extra_args"), variant.get("extra_env")),
        (variant_on_hardware.get("extra_args"), variant_on_hardware.get("extra_env")),
        (selection.strategy.get("vllm_args"), selection.strategy.get("env")),
        ([parallel_flag, str(_parallel_size(selection))], None),
        (overrides.get("extra_args"), overrides.get("env")),
        (overrides.get("vllm_args"), overrides.get("extra_env")),
        *((layer.get("extra_args"), layer.get("extra_env")) for layer in hardware_layers),
    ]


def _feature_layers(selection: _Selection) -> Iterator[_Layer]:
    features = _map(selection.recipe, "features")
    for name in selection.choice.modes:
        _entry("feature", name, features)
    for name in _feature_names(selection):
        feature = _entry("feature", name, features)
        strategy = selection.choice.strategy
        if strategy not in (feature.get("strategies") or [strategy]):
            continue
        if feature.get("modes"):
            feature = _mode(selection, name, feature)
        overrides = _map(selection.hardware.value(feature.get("hardware_overrides")))
        yield overrides.get("args", feature.get("args")), overrides.get("env", feature.get("env"))


def official_command(
    recipe: Map, taxonomy: Map, strategies: Map, choice: Choice
) -> tuple[list[str], dict[str, str]]:
    """(argv, environment) as vLLM's site renders them; UsageError for a choice that the recipe lacks."""
    selection = _select(recipe, taxonomy, strategies, choice)
    layers = [*_layers(selection), *_feature_layers(selection)]
    words = [str(word) for arguments, _ in layers for word in arguments or ()]
    environment = {name: str(value) for _, variables in layers for name, value in _map(variables).items()}
    model = selection.variant.get("model_id") or _map(recipe, "model").get("model_id") or ""
    return ["vllm", "serve", str(model), *_last_of_each_flag([word for word in words if word])], environment


def draft(recipe: Map, taxonomy: Map, strategies: Map, choice: Choice, source: str) -> Draft:
    """The official command as a recipe; UsageError for a choice that the recipe lacks."""
    check_shapes(recipe)
    if not _map(recipe, "model").get("model_id"):
        raise UsageError(f"{source} has no `model.model_id`; give a recipe, a file below models/")
    meta = _map(recipe, "meta")
    if "omni" in (meta.get("tasks") or ()):
        raise UsageError("recipes of vllm-omni cannot be imported: it is another engine; see its own command")
    argv, environment = official_command(recipe, taxonomy, strategies, choice)
    variant = _map(recipe, "variants", choice.variant)
    _check_offered(recipe, variant, _map(taxonomy, "hardware_profiles"), choice)
    command = Command(
        environment={name: _with_site_variable(value) for name, value in environment.items()},
        words=[_with_site_variable(word) for word in argv],
    )
    parts = f"variant {choice.variant}, hardware {choice.hardware}, {choice.strategy}"
    official_draft = draft_from_command(command, origin=f"vLLM's official recipe {source}: {parts}")
    set_version(official_draft, _map(recipe, "model"), variant)
    hardware = _Hardware(choice.hardware, _map(taxonomy, "hardware_profiles", choice.hardware))
    set_accelerator(official_draft, hardware.brand, hardware.generation, hardware.name)
    name_images(official_draft, recipe, hardware.value(_map(recipe, "model", "docker_image")))
    for item in recipe.get("dependencies") or ():
        if isinstance(item, Mapping) and not item.get("optional"):
            what = " ".join(str(item[key]) for key in ("command", "note") if item.get(key))
            official_draft.lose(f"a dependency: {what}")
    if title := meta.get("title"):
        official_draft.fields = {"description": str(title), **official_draft.fields}
    return official_draft


def _with_site_variable(text: str) -> str:
    """`$NAME` at the start of a text is a variable of the site, as in a shell."""
    words = commands(f'x "{text}"')[0].words if re.match(r"\$[A-Za-z_{]+", text) else []
    return words[1] if len(words) > 1 else text
