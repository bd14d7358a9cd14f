"""What a model runs with on this host: engine, lock, driver and GPUs, for a comparison with other hosts."""

from collections.abc import Mapping
from typing import TypedDict

from recipectl.compiler.model import ResolvedRecipe
from recipectl.compiler.preflight import current_lock
from recipectl.machine import nvidia
from recipectl.machine.lockfile import Lock


class Equipment(TypedDict):
    """One model's; `lock` is as NAME.lock would be now, `gpu_models` has a name for each GPU."""

    engine: str | None
    lock: Lock | None
    driver: str | None
    gpu_models: list[str]


NOTHING: Equipment = {"engine": None, "lock": None, "driver": None, "gpu_models": []}  # of a wrong recipe


def equipment(resolved: Mapping[str, ResolvedRecipe]) -> dict[str, Equipment]:
    """By the name of the model. The files of a runtime are read once."""
    locks: dict[tuple[object, ...], Lock] = {}
    driver, gpus = nvidia.driver_version(), nvidia.gpus()
    by_model: dict[str, Equipment] = {}
    for name, model in resolved.items():
        runtime = model.runtime
        key = (model.recipe.backend, runtime.recorded, runtime.installed_in)
        if key not in locks:
            locks[key] = current_lock(model.recipe, runtime)
        has_gpus = model.recipe.accelerator == "cuda" and model.gpus.mode != "none"
        by_model[name] = {
            "engine": model.recipe.backend,
            "lock": locks[key],
            "driver": driver if has_gpus else None,
            "gpu_models": [gpu.model for gpu in gpus if has_gpus and _uses(model, gpu)],
        }
    return by_model


def _uses(model: ResolvedRecipe, gpu: nvidia.Gpu) -> bool:
    devices = {*model.gpus.devices}
    # Which card has a MIG device is not told without NVIDIA's library.
    is_mig = any(device.startswith("MIG-") for device in devices)
    return not devices or is_mig or bool({gpu.minor, gpu.id} & devices)
