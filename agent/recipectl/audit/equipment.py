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


def equipment(resolved: Mapping[str, ResolvedRecipe], name: str) -> Equipment:
    """That of one model; nothing is known of a recipe that is wrong."""
    model = resolved.get(name)
    if model is None:
        return {"engine": None, "lock": None, "driver": None, "gpu_models": []}
    has_gpus = model.recipe.accelerator == "cuda" and model.gpus.mode != "none"
    return {
        "engine": model.recipe.backend,
        "lock": current_lock(model.recipe, model.runtime),
        "driver": nvidia.driver_version() if has_gpus else None,
        "gpu_models": [
            gpu.model
            for gpu in nvidia.gpus()
            if has_gpus and (not model.gpus.devices or {gpu.minor, gpu.id} & {*model.gpus.devices})
        ],
    }
