"""One environment from several layers, with provenance."""

import re
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


# What an engine, or a library of one, reads from a file instead of from the variable itself.
_FILE_OF = {"HF_TOKEN": "HF_TOKEN_PATH", "HUGGING_FACE_HUB_TOKEN": "HF_TOKEN_PATH"}


def gpus(recipe: Recipe) -> tuple[str, ...] | None:
    """The GPUs that a recipe asks for, None when it does not say; () is `none`."""
    if recipe.gpus is not None:
        return () if recipe.gpus == ("none",) else recipe.gpus
    for key in ("cuda_visible_devices", "cuda-visible-devices", "CUDA_VISIBLE_DEVICES"):
        if key in recipe.extra_args:
            value = _text(recipe.extra_args[key], f"extra_args.{key}")
            return tuple(word.strip() for word in value.split(",") if word.strip())
    return None


def visible(recipe: Recipe) -> dict[str, str]:
    """The variables that show an engine its GPUs and no others."""
    chosen = gpus(recipe)
    if recipe.accelerator == "rocm":
        if chosen is None or chosen == ("all",):
            return {}
        # HIP takes indices only, and counts among those that ROCR shows: never set both.
        by_id = any(not gpu.isdigit() for gpu in chosen)
        return {"ROCR_VISIBLE_DEVICES" if by_id else "HIP_VISIBLE_DEVICES": ",".join(chosen) or "-1"}
    if chosen is None:
        return {}
    order = {"CUDA_DEVICE_ORDER": "PCI_BUS_ID"}
    return order if chosen == ("all",) else order | {"CUDA_VISIBLE_DEVICES": ",".join(chosen)}


def credentials(recipe: Recipe) -> dict[str, tuple[str, str]]:
    """Variable naming a file -> (credential, source): the secrets that are read from a file."""
    found = {}
    for variable, source in recipe.secrets.items():
        if name := _FILE_OF.get(variable, variable if variable.endswith(("_FILE", "_PATH")) else None):
            found[name] = (variable.lower(), source)
    return found


def environment_files(recipe: Recipe) -> dict[str, str]:
    """Variable -> EnvironmentFile= for the secrets that an engine takes from its environment alone."""
    found = {}
    for variable, source in recipe.secrets.items():
        if variable in _FILE_OF or variable.endswith(("_FILE", "_PATH")):
            continue
        if not source.startswith("/"):
            raise UsageError(
                f"`secrets.{variable}` is read from the environment only; give the absolute path of a file "
                f"that says `{variable}=…`"
            )
        found[variable] = source
    return found


def directories(recipe: Recipe) -> dict[str, str]:
    """Where a model's caches and state go: below its CacheDirectory= and StateDirectory=."""
    cache, state = f"/var/cache/models/{recipe.name}", f"/var/lib/models/{recipe.name}"
    return {
        "HOME": state,
        "XDG_CACHE_HOME": cache,
        "HF_HOME": f"{cache}/huggingface",
        "VLLM_CACHE_ROOT": f"{cache}/vllm",
        "TRITON_CACHE_DIR": f"{cache}/triton",
        "TORCHINDUCTOR_CACHE_DIR": f"{cache}/torchinductor",
    }


def layers(
    recipe: Recipe, runtime: Runtime, host: Host, *, user: bool
) -> tuple[tuple[str, Mapping[str, str]], ...]:
    """The layers in the order of the design, above the directories that a system unit gives its engine."""
    needs = {"PATH": ":".join(runtime.path)}
    if runtime.venv:
        needs["VIRTUAL_ENV"] = runtime.venv
    legacy = recipe.extra_args.get("env_vars") or {}
    if not isinstance(legacy, dict):
        raise UsageError("`extra_args.env_vars` must be a mapping of names to values")
    for variable in recipe.secrets:
        if variable in recipe.env_vars or variable in legacy:
            raise UsageError(f"`{variable}` is in `secrets` and in `env_vars`; keep it in `secrets`")
    secret = {name: f"%d/{credential}" for name, (credential, _) in credentials(recipe).items()}
    return (
        ("directories", {} if user else directories(recipe)),
        ("host file", host.environment),
        ("runtime", needs),
        ("extra_args.env_vars", legacy),
        ("env_vars", recipe.env_vars),
        ("gpus", visible(recipe)),
        ("secrets", secret),
    )


_SECRET = re.compile(r"(TOKEN|SECRET|PASSWORD|PASSWD|API_?KEY|PRIVATE_KEY|ACCESS_KEY)(_ID)?\Z", re.I)
_TOKEN = re.compile(r"(hf_|sk-|ghp_|glpat-|xox[bp]-|AKIA)[A-Za-z0-9_-]{12,}")


def looks_secret(name: str, value: str) -> bool:
    """Whether a variable is likely a secret, by its name or by the shape of its value."""
    return bool(
        value and ((_SECRET.search(name) and not name.startswith("TOKENIZERS_")) or _TOKEN.match(value))
    )
