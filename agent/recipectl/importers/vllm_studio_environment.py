"""The GPUs and the variables of VLLM Studio's recipes."""

from collections.abc import Mapping
from typing import Any

from recipectl.importers.draft import Draft
from recipectl.importers.shapes import mapping
from recipectl.importers.variables import move_secrets

_GPU_KEYS = ("visible_devices", "cuda_visible_devices", "hip_visible_devices", "rocr_visible_devices")


def set_gpus(draft: Draft, extra_args: dict[str, Any]) -> None:
    """Set `gpus:` from the keys that select GPUs, and remove these."""
    for key in [key for key in extra_args if key.lower().replace("-", "_") in _GPU_KEYS]:
        value = extra_args.pop(key)
        if value is None or value is False:
            continue
        devices = [
            str(device).strip() for device in (value if isinstance(value, list) else str(value).split(","))
        ]
        gpus = [int(device) if device.isdigit() else device for device in devices if device]
        if draft.fields.get("gpus", gpus) != gpus:
            draft.lose(f"`{key}: {value}`, a second list of GPUs; see `gpus:`", key)
        elif gpus:
            draft.set("gpus", gpus)
            if not key.lower().startswith(("visible", "cuda")):
                draft.set("accelerator", "rocm", f"VLLM Studio had `{key}`.")
            if value == 0 or isinstance(value, list):
                draft.comments["gpus"] = f"VLLM Studio had `{key}: {value}`, and ignored it."


def set_environment(draft: Draft, settings: Mapping[str, Any], extra_args: dict[str, Any]) -> None:
    """Set `env_vars:` and `secrets:`; those of the recipe win over those of `extra_args`."""
    variables: dict[str, Any] = {}
    for key in ("env_vars", "env-vars", "envVars"):
        variables |= mapping(extra_args.pop(key, None), f"extra_args.{key}")
    recipe_variables = dict(mapping(settings.get("env_vars"), "env_vars"))
    for name in sorted({*variables} & {*recipe_variables}):
        if str(variables[name]) != str(recipe_variables[name]):
            fault = "which overrode `env_vars`; the recipe keeps `env_vars`"
            draft.lose(f"`{name}` of `extra_args.env_vars`, {fault}", "extra_args")
    variables |= recipe_variables
    texts = {name: str(value).lower() if isinstance(value, bool) else str(value)
             for name, value in variables.items() if value is not None}  # fmt: skip
    if texts:
        draft.set("env_vars", texts)
        move_secrets(draft)
