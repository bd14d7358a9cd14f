"""One environment from several layers, with provenance."""

import re
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import NamedTuple

from recipectl.errors import UsageError
from recipectl.machine.runtime import Runtime
from recipectl.recipe.hostfile import Host
from recipectl.recipe.schema import GPU, TOKEN, VARIABLE, Recipe, plain_gpus


class Variable(NamedTuple):
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


# What an engine, or a library of one, reads from a file instead of from the variable itself.
_FILE_OF = {"HF_TOKEN": "HF_TOKEN_PATH", "HUGGING_FACE_HUB_TOKEN": "HF_TOKEN_PATH"}


def gpus(recipe: Recipe) -> tuple[str, ...] | None:
    """The GPUs that a recipe asks for, None when it does not say; () is `none`."""
    if recipe.gpus is not None:
        return () if recipe.gpus == ("none",) else recipe.gpus
    return legacy_gpus(recipe)


def legacy_gpus(recipe: Recipe) -> tuple[str, ...] | None:
    """The GPUs of `extra_args.cuda_visible_devices`: VLLM Studio's spelling, in which `0` is a GPU too."""
    given = recipe.extra_args.get("cuda_visible_devices")
    if given is None:
        return None
    words = [str(item) for item in given] if isinstance(given, list) else str(given).split(",")
    found = tuple(word.strip() for word in words if word.strip())
    if isinstance(given, bool) or not all(GPU.fullmatch(word) for word in found):
        text = "`extra_args.cuda_visible_devices` must be indices or ids, for example `0,1`; use `gpus:`"
        raise UsageError(text, "extra_args", "cuda_visible_devices")
    try:
        return plain_gpus(found)
    except ValueError as error:
        text = f"`extra_args.cuda_visible_devices` {error}"
        raise UsageError(text, "extra_args", "cuda_visible_devices") from error


def _legacy(recipe: Recipe) -> dict[str, str]:
    """`extra_args.env_vars`, whose values the loader has left as they are written."""
    given = recipe.extra_args.get("env_vars") or {}
    if not isinstance(given, dict):
        raise UsageError(
            "`extra_args.env_vars` must be a mapping of names to values", "extra_args", "env_vars"
        )
    for name, value in given.items():
        where = ("extra_args", "env_vars", name)
        if not VARIABLE.fullmatch(name):
            what = f"`extra_args.env_vars` has `{name!a}`"
            raise UsageError(f"{what}; a variable has letters, digits and `_`, no digit first", *where)
        if not isinstance(value, str):
            what = "a list" if isinstance(value, list) else "a mapping"
            raise UsageError(f"`extra_args.env_vars.{name}` is {what}; give one value", *where)
    return given


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
    return {
        variable: source
        for variable, source in recipe.secrets.items()
        if variable not in _FILE_OF and not variable.endswith(("_FILE", "_PATH"))
    }


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
    legacy = _legacy(recipe)
    for variable in recipe.secrets:
        if variable in recipe.env_vars or variable in legacy:
            text = f"`{variable}` is in `secrets` and in `env_vars`; keep it in `secrets`"
            layer = "env_vars" if variable in recipe.env_vars else "extra_args.env_vars"
            raise UsageError(text, *key_of(layer, variable))
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


def key_of(layer: str, name: str) -> tuple[str, ...]:
    """The key of a recipe that gives a variable, by its layer; () where no recipe does."""
    if layer in ("env_vars", "extra_args.env_vars", "secrets"):
        return (*layer.split("."), name)
    return ("gpus",) if layer == "gpus" else ()


_SECRET = re.compile(
    r"(TOKEN|SECRET|PASSWORD|PASSWD|_PASS|API_?KEYS?|PRIVATE_KEY|ACCESS_KEY|CREDENTIALS?)(_ID)?\Z", re.I
)
_IN_URL = re.compile(r"[a-z][a-z0-9+.-]*://[^/\s:@]+:[^/\s@]+@|Bearer\s+\S{8,}", re.I)


@lru_cache(maxsize=8192)
def looks_secret(name: str, value: str) -> bool:
    """Whether a variable is likely a secret, by its name or by the shape of its value."""
    return bool(
        value
        and (
            (_SECRET.search(name) and not name.startswith("TOKENIZERS_"))
            or TOKEN.match(value)
            or _IN_URL.search(value)
        )
    )


def hidden(words: Sequence[str]) -> list[str]:
    """Words of a command as a message may show them: `…` for what looks like a secret."""
    found = []
    for before, word in zip(("", *words), words, strict=False):
        name, equals, value = word.partition("=")
        flag = before.replace("-", "_") if before.startswith("--") and not word.startswith("--") else ""
        if equals and looks_secret(name.replace("-", "_"), value):
            found.append(f"{name}=…")
        else:
            found.append("…" if looks_secret(flag, word) else word)
    return found
