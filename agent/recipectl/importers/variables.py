"""The environment of a command as `gpus:`, `secrets:` and `env_vars:`."""

import hashlib
import pwd
from pathlib import Path

from recipectl.compiler.secrets import LINES_ENDING, SECRETS_FOLDER
from recipectl.engines.registry import ENGINES
from recipectl.importers.draft import VARIABLE_START, Draft
from recipectl.importers.lines import Remark
from recipectl.importers.mounts import has_cache_of_llamacpp
from recipectl.importers.secret_names import is_likely_secret
from recipectl.machine import nvidia
from recipectl.recipe.gpu_selection import is_device
from recipectl.recipe.schema import HF_TOKENS, VARIABLE
from recipectl.recipe.yamlsyntax import read_text

_DYNAMIC_IDS = range(61184, 65520)


def read_variables(file: str, lost: list[Remark]) -> str:
    """The text of a file of variables; OSError or RecipectlError where it cannot be read.

    A recipe is for everybody to read: a file that is not, and whose variables come into the recipe, is named.
    """
    text, mode = read_text(Path(file)), Path(file).stat().st_mode & 0o777
    if not mode & 0o004:
        fault = f"{file} has mode {mode:04o}, but anybody may read this recipe"
        lost.append(Remark(f"{fault}, which has the values that are no secrets"))
    return text


def set_environment(draft: Draft, variables: dict[str, str]) -> None:
    """Set the keys of a recipe that give a command its environment; its other fields are set before."""
    remaining = dict(variables)
    _set_gpus(draft, remaining)
    # The compiler sets VIRTUAL_ENV again, to the venv of the recipe.
    programs = [str(draft.fields[key]) for key in ("python_path", "binary") if key in draft.fields]
    venvs = [draft.fields.get("venv_path"), *(path.rpartition("/bin/")[0] for path in programs)]
    if remaining.get("VIRTUAL_ENV") in venvs:
        remaining.pop("VIRTUAL_ENV", None)
    if remaining:
        draft.set("env_vars", remaining)
        move_secrets(draft)


def is_user_of_host(name: str) -> bool:
    """Whether a user is there without a unit that runs: one of DynamicUser= is not (systemd.exec(5))."""
    try:
        return pwd.getpwnam(name).pw_uid not in _DYNAMIC_IDS
    except (KeyError, ValueError):
        return False


def may_use_hub_cache(draft: Draft) -> bool:
    """Whether the model is in the default cache of the hub, which is in the home of a user."""
    caches = {"HF_HOME", "HF_HUB_CACHE", "LLAMA_CACHE"}
    is_file = str(draft.fields["model_path"]).startswith(("/", VARIABLE_START))
    return not is_file and not caches & {*draft.fields.get("env_vars", {})}


def keep_cache(draft: Draft, user: str, home: str | None = None) -> None:
    """Keep the Hugging Face cache in the home of the user that ran the engine, or name it."""
    if not may_use_hub_cache(draft):
        return
    variables = draft.fields.get("env_vars", {})
    if home is None:
        try:
            home = pwd.getpwnam(user).pw_dir
        except (KeyError, ValueError):  # nobody, or no name at all
            home = ""
    if home and draft.fields["backend"] == "llamacpp" and has_cache_of_llamacpp(Path(home, ".cache")):
        draft.set("env_vars", {**variables, "LLAMA_CACHE": f"{home}/.cache/llama.cpp"})
    elif home and Path(home, ".cache/huggingface").is_dir():
        draft.set("env_vars", {**variables, "HF_HOME": f"{home}/.cache/huggingface"})
    elif not home:
        owner = f"user {user}" if user else "its user"
        draft.lose(f"the Hugging Face cache of {owner}; set HF_HOME to it in `env_vars:`")


def _set_gpus(draft: Draft, variables: dict[str, str]) -> None:
    """Set `gpus:` from the variable that selects GPUs, and remove that variable."""
    has_cuda = "CUDA_VISIBLE_DEVICES" in variables
    for name in variables:
        selects = name in ("HIP_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES")  # portable scripts set all of them
        if name.startswith(("HIP_", "HSA_", "ROCR_", "VLLM_ROCM_")) and not (selects and has_cuda):
            draft.set("accelerator", "rocm", f"The command sets {name}.")
            break
    has_rocm = draft.fields.get("accelerator") == "rocm"
    rocm_variable = "HIP_VISIBLE_DEVICES" if "HIP_VISIBLE_DEVICES" in variables else "ROCR_VISIBLE_DEVICES"
    name = rocm_variable if has_rocm else "CUDA_VISIBLE_DEVICES"
    # With ROCm, CUDA's variable counts beside HIP's: it stays as it is.
    if name not in variables or (has_rocm and has_cuda) or "gpus" in draft.fields:
        return
    if not has_rocm and rocm_variable in variables:
        return
    gpus = [device.strip() for device in variables[name].split(",") if device.strip()]
    if "-1" in gpus:  # CUDA and HIP see the GPUs before it alone
        gpus = gpus[: gpus.index("-1")]
    if not all(is_device(gpu) for gpu in gpus) or len({*gpus}) < len(gpus):
        return
    draft.set("gpus", [int(gpu) if gpu.isdigit() else gpu for gpu in gpus] or "none")
    variables.pop(name)
    if not has_rocm:
        _name_order(draft, variables.pop("CUDA_DEVICE_ORDER", None), has_indices="".join(gpus).isdigit())


def _name_order(draft: Draft, order: str | None, *, has_indices: bool) -> None:
    """Name an order of GPUs that is not that of `gpus:`. CUDA's default is FASTEST_FIRST (CUDA's guide)."""
    models = {gpu.model for gpu in nvidia.gpus()}
    if order not in (None, "PCI_BUS_ID"):
        draft.lose(f"CUDA_DEVICE_ORDER={order}; `gpus:` counts as nvidia-smi counts")
    elif order is None and has_indices and len(models) > 1:
        fault = f"CUDA counted the fastest GPU first, and this host has {', '.join(sorted(models))}"
        draft.lose(f"{fault}; `gpus:` counts as nvidia-smi counts: correct it")
    elif order is None and has_indices and not models:
        draft.comments["gpus"] = (
            "Counted as nvidia-smi counts; CUDA counted the fastest GPU first, if they differ."
        )


def set_secret(draft: Draft, name: str, value: str) -> None:
    """Add an entry of `secrets:`; the value itself goes nowhere."""
    draft.secrets[name] = hashlib.sha256(value.encode()).hexdigest()
    is_read_from_file = name in HF_TOKENS and ENGINES[draft.fields["backend"]].reads_token_file
    ending = LINES_ENDING if name in HF_TOKENS and not is_read_from_file else ""
    draft.fields.setdefault("secrets", {})[name] = f"{SECRETS_FOLDER}/{name}{ending}"
    content = "the value alone" if is_read_from_file else f"a line {name}=…"
    draft.comments[f"secrets.{name}"] = f"Put {content} in this file, mode 0600; it is not repeated here."
    if {*HF_TOKENS} <= {*draft.secrets}:  # one credential
        present, earlier = HF_TOKENS
        del draft.secrets[earlier], draft.fields["secrets"][earlier], draft.comments[f"secrets.{earlier}"]
        draft.lose(f"`{earlier}`, an earlier name of {present}, which wins")


def move_secrets(draft: Draft) -> None:
    """Move what looks like a secret from `env_vars:` to `secrets:`, and drop what systemd cannot carry."""
    variables: dict[str, str] = draft.fields["env_vars"]
    for name, value in list(variables.items()):
        if name in draft.secrets:  # a word of the command gives it, and wins
            variables.pop(name)
        elif is_likely_secret(name, value):
            set_secret(draft, name, variables.pop(name))
        elif not VARIABLE.fullmatch(name):
            draft.lose(f"the variable `{name}`, which systemd cannot carry")
            variables.pop(name)
    if not variables:
        draft.fields.pop("env_vars")
