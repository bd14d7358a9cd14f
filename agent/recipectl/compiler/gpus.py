"""The GPUs of a recipe: which it asks for, and how the engine and the unit learn of them."""

from recipectl.errors import UsageError
from recipectl.recipe.gpu_selection import UNSET, GpuSelection, is_device, parse
from recipectl.recipe.schema import Recipe
from recipectl.recipe.yamlfile import LEGACY_GPUS

# CUDA opens them whichever GPU it uses.
_NVIDIA_NEEDED = ("/dev/nvidiactl", "/dev/nvidia-uvm")
_NVIDIA_FURTHER = ("/dev/nvidia-uvm-tools", "/dev/nvidia-modeset")


def select(recipe: Recipe) -> GpuSelection:
    """The GPUs of `gpus:`, else of `extra_args.cuda_visible_devices`; UsageError for other words."""
    return legacy_selection(recipe) if recipe.gpus is None else parse(recipe.gpus)


def legacy_selection(recipe: Recipe) -> GpuSelection:
    """The GPUs of `extra_args.cuda_visible_devices`: VLLM Studio's spelling, in which `0` is a GPU too."""
    value = recipe.extra_args.get("cuda_visible_devices")
    if value is None:
        return UNSET
    items = [str(item) for item in value] if isinstance(value, list) else str(value).split(",")
    words = tuple(word.strip() for word in items if word.strip())
    if isinstance(value, bool) or not all(is_device(word) for word in words):
        sentence = "`extra_args.cuda_visible_devices` must be indices or ids, for example `0,1`; use `gpus:`"
        raise UsageError(sentence, *LEGACY_GPUS, kind="gpu")
    try:
        return parse(words)
    except ValueError as error:
        raise UsageError(f"`extra_args.cuda_visible_devices` {error}", *LEGACY_GPUS, kind="gpu") from error


def visible_variables(recipe: Recipe, gpus: GpuSelection) -> dict[str, str]:
    """The variables that show an engine its GPUs and no others."""
    if gpus.mode == "unset":
        return {}
    if recipe.accelerator == "rocm":
        if gpus.mode == "all":
            return {}
        # HIP takes indices only, and counts among those that ROCR shows: never set both.
        name = "ROCR_VISIBLE_DEVICES" if gpus.mode == "ids" else "HIP_VISIBLE_DEVICES"
        return {name: ",".join(gpus.devices) or "-1"}
    order = {"CUDA_DEVICE_ORDER": "PCI_BUS_ID"}
    return order if gpus.mode == "all" else order | {"CUDA_VISIBLE_DEVICES": ",".join(gpus.devices)}


def device_nodes(recipe: Recipe, gpus: GpuSelection, *, has_card: bool = False) -> tuple[str, ...]:
    """The device nodes that the engine opens; they may appear late at boot.

    A recipe that names no GPU uses those of a host that `has_card`s of its accelerator.
    """
    if gpus.mode == "none" or (gpus.mode == "unset" and not has_card):
        return ()
    if recipe.accelerator == "rocm":
        return "/dev/kfd", *(f"/dev/dri/renderD{128 + int(index)}" for index in gpus.indices)
    return (*_NVIDIA_NEEDED, *(f"/dev/nvidia{index}" for index in gpus.indices))


def device_settings(recipe: Recipe, gpus: GpuSelection) -> list[str]:
    """DevicePolicy= and DeviceAllow= for its GPUs alone; empty without `device_isolation:`."""
    if not recipe.device_isolation:
        return []
    if gpus.mode not in ("none", "indices"):
        sentence = "`device_isolation` needs `gpus:` as indices, or `none`; write them so"
        raise UsageError(sentence, "device_isolation", kind="gpu")
    nodes = [*(_NVIDIA_FURTHER if recipe.accelerator == "cuda" else ()), *device_nodes(recipe, gpus)]
    return ["DevicePolicy=closed", *(f"DeviceAllow={node} rw" for node in nodes if gpus.devices)]


def spelling_problems(recipe: Recipe, gpus: GpuSelection) -> list[str]:
    """Sentences about spellings of `gpus:` that contradict each other."""
    if recipe.gpus is None:
        return []
    sentences = []
    if gpus.mixes_spellings:
        sentences.append("`gpus` mixes indices and ids; write all of them one way")
    legacy = legacy_selection(recipe)
    if legacy.mode != "unset" and legacy != gpus:
        sentences.append("`gpus` and `extra_args.cuda_visible_devices` disagree; keep `gpus`")
    return sentences
