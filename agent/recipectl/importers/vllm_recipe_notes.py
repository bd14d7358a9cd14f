"""What an official recipe says besides its command: version, accelerator, images; and its form."""

import re
from collections.abc import Mapping
from typing import Any

from recipectl.errors import UsageError
from recipectl.importers.draft import Draft
from recipectl.importers.shapes import Map

# What the official recipes have as lists and mappings, wherever it stands.
_LISTS = (
    "base_args", "extra_args", "vllm_args", "args", "tasks", "compatible_strategies", "supported_hardware",
    "opt_in_features", "dependencies", "strategies",
)  # fmt: skip
_MAPPINGS = ("meta", "model", "features", "modes")


def set_accelerator(draft: Draft, brand: str, generation: str, name: str) -> None:
    """Set `accelerator:` for the brand of the hardware, or name hardware that recipectl does not know."""
    if brand == "amd":
        draft.set("accelerator", "rocm")
    elif generation == "cpu":
        draft.fields.pop("accelerator", None)
        draft.set("gpus", "none", f"{name} has no GPU.")
    elif brand not in ("nvidia", ""):
        draft.lose(f"the hardware {name} of {brand}: recipectl knows CUDA and ROCm alone")


def name_images(draft: Draft, recipe: Map, image: Any) -> None:
    """Name the container's image and the notes on how to install the engine."""
    if image and not str(image).endswith(":latest"):
        draft.lose(f"the image `{image}`; install its version of vLLM on this host")
    install = recipe.get("install")
    for method, settings in install.items() if isinstance(install, Mapping) else ():
        if isinstance(settings, Mapping) and settings.get("note"):
            draft.lose(f"`install.{method}`: {' '.join(str(settings['note']).split())}")


def set_version(draft: Draft, model: Map, variant: Map) -> None:
    """Pin the oldest version that the variant, else the model, runs with; name what is no release."""
    version = str(variant.get("min_vllm_version") or model.get("min_vllm_version") or "")
    if re.fullmatch(r"v?[0-9]+(\.[0-9]+)*((a|b|rc|\.post|\.dev)[0-9]+)?", version):
        draft.set("engine_version", f">={version.removeprefix('v')}", "The recipe's min_vllm_version.")
    elif version:
        draft.lose(f"min_vllm_version `{version}`, which is no release; pin `engine_version:`")
    if variant.get("nightly_required", model.get("nightly_required")):
        draft.lose("nightly_required: the recipe needs a nightly build of vLLM")


def check_shapes(value: Any, key: str = "") -> None:
    """UsageError for a value that is no list, mapping or number where the format has one."""
    fault = ""
    if key in _LISTS and not (isinstance(value, list | None) and None not in (value or ())):
        fault = "a list"
    elif key in _MAPPINGS and not isinstance(value, Mapping | None):
        fault = "a mapping"
    elif key == "vram_minimum_gb" and not isinstance(value, int | float | None):
        fault = "a number"
    if fault:
        raise UsageError(f"`{key}` is not {fault}, as the official recipes have it; correct it", key)
    for name, content in value.items() if isinstance(value, Mapping) else ():
        check_shapes(content, str(name))
