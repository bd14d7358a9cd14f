"""One environment from several layers, with provenance."""

from collections.abc import Mapping
from dataclasses import dataclass

from recipectl.errors import UsageError
from recipectl.hostfile import Host
from recipectl.recipe import Recipe
from recipectl.runtime import Runtime


@dataclass(frozen=True)
class Variable:
    """One variable: its value, the layer it came from, and what it overrode as (layer, value)."""

    value: str
    layer: str
    overrode: tuple[tuple[str, str], ...] = ()


Environment = dict[str, Variable]


def merge(*layers: tuple[str, Mapping[str, str]]) -> Environment:
    """Merge (layer, NAME -> value), later ones winning, sorted by name so that the unit does not churn."""
    merged: Environment = {}
    for layer, values in layers:
        for name, value in values.items():
            old = merged.get(name)
            before = (*old.overrode, (old.layer, old.value)) if old else ()
            merged[name] = Variable(value, layer, before)
    return dict(sorted(merged.items()))


def _text(value: object, key: str) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list):
        return ",".join(str(item) for item in value)
    if value is None or isinstance(value, dict):
        raise UsageError(f"`{key}` must be one value, for example `0,1`")
    return str(getattr(value, "text", value))


def gpus(recipe: Recipe) -> str | None:
    """The value of CUDA_VISIBLE_DEVICES that a recipe asks for, None when it does not say."""
    if recipe.gpus is not None:
        return ",".join(recipe.gpus)
    for key in ("cuda_visible_devices", "cuda-visible-devices", "CUDA_VISIBLE_DEVICES"):
        if key in recipe.extra_args:
            return _text(recipe.extra_args[key], f"extra_args.{key}")
    return None


def layers(recipe: Recipe, runtime: Runtime, host: Host) -> tuple[tuple[str, Mapping[str, str]], ...]:
    """The five layers in the order of the design."""
    needs = {"PATH": ":".join(runtime.path)}
    if runtime.venv:
        needs["VIRTUAL_ENV"] = runtime.venv
    legacy = recipe.extra_args.get("env_vars") or {}
    if not isinstance(legacy, dict):
        raise UsageError("`extra_args.env_vars` must be a mapping of names to values")
    chosen = gpus(recipe)
    visible = {} if chosen is None else {"CUDA_VISIBLE_DEVICES": chosen, "CUDA_DEVICE_ORDER": "PCI_BUS_ID"}
    return (
        ("host file", host.environment),
        ("runtime", needs),
        ("extra_args.env_vars", legacy),
        ("env_vars", recipe.env_vars),
        ("gpus", visible),
    )
