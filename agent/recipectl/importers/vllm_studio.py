"""VLLM Studio's recipes: what it passed silently is written out, its mistakes are corrected and reported."""

import json
import re
from collections.abc import Mapping
from typing import Any

from recipectl.engines import vllm
from recipectl.engines.options import flag_of, shipped_options
from recipectl.engines.registry import ENGINES
from recipectl.errors import UsageError
from recipectl.importers.arguments import take_secret
from recipectl.importers.draft import Draft
from recipectl.importers.from_command import model_name
from recipectl.importers.shapes import mapping, word
from recipectl.importers.variables import move_secrets
from recipectl.recipe.schema import ALIASES, Recipe

# VLLM Studio passes these for every recipe that does not set them.
_DEFAULTS: dict[str, Any] = {
    "host": "0.0.0.0",  # noqa: S104  (VLLM Studio's default)
    "port": 8000,
    "max_model_len": 32768,
    "gpu_memory_utilization": 0.9,
    "max_num_seqs": 256,
    "trust_remote_code": True,
}
# Keys that VLLM Studio keeps for itself.
_STUDIO_KEYS = {"id", "name", "status", "tags", "description", "created_at", "updated_at"}
_STUDIO_EXTRA_ARGS = {*_STUDIO_KEYS, "engine_args", "launched_at", "running"}
# Keys of its own that are no flags of an engine, and what becomes of them.
_NO_FLAGS = {
    "thinking_mode": "a setting of its chat", "vision": "a setting of its chat", "metadata": "its own notes",
    "crash_loop": "its own state", "docker_image": "the engine now runs from this host",
    "launch_command": "see `recipectl import command`",
}  # fmt: skip
_VLLM_ONLY = ("tool_call_parser", "reasoning_parser", "enable_auto_tool_choice", "dtype")
_PARSERS = ("tool_call_parser", "reasoning_parser")
_JSON_OPTIONS = ("speculative_config", "default_chat_template_kwargs")
_GPU_KEYS = ("visible_devices", "cuda_visible_devices", "cuda-visible-devices", "CUDA_VISIBLE_DEVICES")


def recipes(data: Any) -> list[Mapping[str, Any]]:
    """The recipes in a JSON document: a recipe, a list, or the answer of `GET /recipes`."""
    entries = data.get("recipes", data) if isinstance(data, Mapping) else data
    entries = [entries] if isinstance(entries, Mapping) else entries
    if not isinstance(entries, list) or not any(isinstance(entry, Mapping) for entry in entries):
        raise UsageError("these are not recipes of VLLM Studio; give its JSON or controller.db")
    return entries


def draft(studio_recipe: Any, source: str) -> Draft:
    """One recipe; UsageError when it lacks what VLLM Studio requires, and for another engine."""
    if not isinstance(studio_recipe, Mapping):
        raise UsageError(f"{source}: one entry, `{str(studio_recipe)[:40]}`, is no recipe; it is left out")
    settings = _normalized(studio_recipe)
    for key in ("id", "model_path"):
        if not isinstance(settings.get(key), str) or not settings[key]:
            raise UsageError(f"a recipe in {source} has no `{key}`, which VLLM Studio requires; add it")
    extra_args = dict(mapping(settings.get("extra_args"), "extra_args"))
    recipe_keys = {*Recipe.model_fields, *_STUDIO_KEYS, "engine_args", "extra_args"}
    extra_args |= {key: value for key, value in settings.items() if key not in recipe_keys}
    result = Draft(model_name(settings["id"]))
    result.comments[""] = (
        f"From VLLM Studio ({source}), recipe {settings['id']}. Its default arguments are written out."
    )
    if title := str(settings.get("name") or ""):
        result.set("description", " ".join(title.split()))
    backend = _set_backend(result, settings, source)
    _set_runtime(result, settings, extra_args)
    result.set("model_path", settings["model_path"])
    _prefer_extra_args(result, settings, extra_args, backend)
    _set_fields(result, settings, backend)
    _set_parsers(result, settings, backend)
    _set_gpus(result, extra_args)
    _set_environment(result, settings, extra_args)
    _set_extra_args(result, extra_args, backend)
    return result


def _normalized(studio_recipe: Mapping[str, Any]) -> dict[str, Any]:
    """A recipe with the keys of ours; `env_vars` wins over its other spellings."""
    settings: dict[str, Any] = {}
    for key, value in studio_recipe.items():
        name = key if key == "id" else ALIASES.get(key, key.replace("-", "_"))
        earlier = settings.get(name)
        if name == "env_vars" and isinstance(earlier, dict) and isinstance(value, dict):
            settings[name] = earlier | value if key == "env_vars" else value | earlier
        else:
            settings[name] = value
    return settings


def _set_backend(draft: Draft, settings: Mapping[str, Any], source: str) -> str:
    backend = settings.get("backend") or "vllm"
    if backend == "transformers":
        draft.not_carried_over.append("`backend: transformers`, for which VLLM Studio also ran vLLM")
        backend = "vllm"
    if not isinstance(backend, str) or backend not in ENGINES:
        fault = f"recipe {settings['id']} in {source} has `backend: {backend}`"
        raise UsageError(f"{fault}; only {', '.join(ENGINES)} are imported")
    draft.set("backend", backend)
    return str(backend)


def _set_runtime(draft: Draft, settings: Mapping[str, Any], extra_args: dict[str, Any]) -> None:
    runtime = extra_args.pop("runtime", None) or {}
    ref = str(runtime.get("ref") or "") if isinstance(runtime, Mapping) else str(runtime)
    kind = runtime.get("kind") if isinstance(runtime, Mapping) else None
    if ref and (kind == "docker" or not ref.startswith("/")):
        draft.not_carried_over.append(f"the runtime `{ref}` ({kind}); the engine now runs from this host")
    elif ref and (kind == "binary" or draft.fields["backend"] == "llamacpp"):
        draft.set("binary", ref)
    elif ref:
        draft.set("python_path" if ref.rpartition("/")[2].startswith("python") else "venv_path", ref)
    if binary := extra_args.pop("llama_bin", None):
        draft.set("binary", str(binary))
    for key in ("python_path", "venv_path"):
        in_extra_args = [extra_args.pop(name, None) for name in (key, key.replace("_", "-"))]
        if value := settings.get(key) or in_extra_args[0] or in_extra_args[1]:
            draft.set(key, value)
    if not {"python_path", "venv_path", "binary"} & {*draft.fields}:
        key = "binary" if draft.fields["backend"] == "llamacpp" else "python_path"
        draft.comments["backend"] = f"The recipe names no runtime: set `{key}:`, or the host's PATH decides."


def _prefer_extra_args(
    draft: Draft, settings: dict[str, Any], extra_args: dict[str, Any], backend: str
) -> None:
    """Move values of extra_args to the settings: VLLM Studio passed both, and the engine took the last."""
    for field, flag in ENGINES[backend].flags.items():
        name = flag[2:].replace("-", "_") if flag else field
        key = next((key for key in extra_args if key.replace("-", "_") == name), "")
        if flag and extra_args.get(key) is not None and not isinstance(extra_args[key], bool):
            settings[field] = extra_args.pop(key)
            draft.comments[field] = "From extra_args, which came last on VLLM Studio's command line."


def _set_fields(draft: Draft, settings: Mapping[str, Any], backend: str) -> None:
    """Set each field of the engine that VLLM Studio passed, in the engine's order."""
    for field, flag in ENGINES[backend].flags.items():
        value = settings.get(field)
        if isinstance(value, str) and re.fullmatch(r"[0-9]+", value):
            value = int(value)
        if value is None and field in _DEFAULTS and (backend != "llamacpp" or field in ("host", "port")):
            value = _DEFAULTS[field]
            draft.comments[field] = "VLLM Studio's default."
        if _is_passed(draft, field, value, backend) and flag is not None:
            draft.set(field, value)


def _is_passed(draft: Draft, field: str, value: Any, backend: str) -> bool:
    """Whether a field's value belongs in the recipe; reports a value that is lost."""
    if value in (None, "auto") or field in (*_PARSERS, "enable_auto_tool_choice"):
        return False
    if field == "trust_remote_code" and not value:
        return False  # VLLM Studio did not pass false, which is the engine's default
    if field in ("tensor_parallel_size", "pipeline_parallel_size") and value == 1:
        return False
    if value == "" or (field == "max_num_seqs" and isinstance(value, int) and value <= 0):
        draft.not_carried_over.append(f"`{field}: {value}`, which no engine accepts")
        return False
    if backend == "sglang" and field in _VLLM_ONLY:
        draft.not_carried_over.append(f"`{field}: {value}`, which VLLM Studio did not pass to SGLang")
        return False
    return True


def _set_parsers(draft: Draft, settings: Mapping[str, Any], backend: str) -> None:
    """Set the parsers of vLLM, also those that VLLM Studio inferred from the model's name."""
    if backend != "vllm":
        draft.not_carried_over += [
            f"`{key}: {settings[key]}`, which VLLM Studio did not pass to {backend}"
            for key in _PARSERS
            if settings.get(key)
        ]
        return
    model = settings["model_path"]
    for key in _PARSERS:
        if value := settings.get(key):
            draft.set(key, value)
        elif inferred := vllm.infer_parser(key, model):
            draft.set(key, inferred, "Inferred from the model's name, as VLLM Studio did.")
        elif re.search(r"intellect[-_ ]?2.*3", model, re.I):
            draft.not_carried_over.append(
                f"`{key}` of INTELLECT-3, for which VLLM Studio took this model because of the digits"
            )
    if "tool_call_parser" in draft.fields:
        draft.set("enable_auto_tool_choice", True)
    elif settings.get("enable_auto_tool_choice"):
        draft.not_carried_over.append(
            "`enable_auto_tool_choice` without `tool_call_parser`, for which VLLM Studio passed nothing"
        )
    gpus = settings.get("tensor_parallel_size")
    if isinstance(gpus, int) and gpus > 4 and re.search(r"minimax[-_ ]?m2", model, re.I):
        draft.fields.setdefault("extra_args", {})["enable-expert-parallel"] = True
        draft.comments["extra_args.enable-expert-parallel"] = (
            "VLLM Studio added it for MiniMax M2 on more than 4 GPUs."
        )


def _set_gpus(draft: Draft, extra_args: dict[str, Any]) -> None:
    for key in _GPU_KEYS:
        value = extra_args.pop(key, None)
        if value is None or value is False:
            continue
        devices = [
            str(device).strip() for device in (value if isinstance(value, list) else str(value).split(","))
        ]
        if gpus := [int(device) if device.isdigit() else device for device in devices if device]:
            draft.set("gpus", gpus)
            if value == 0 or isinstance(value, list):
                draft.comments["gpus"] = f"VLLM Studio had `{key}: {value}`, and ignored it."


def _set_environment(draft: Draft, settings: Mapping[str, Any], extra_args: dict[str, Any]) -> None:
    variables: dict[str, Any] = {}
    for key in ("env_vars", "env-vars", "envVars"):
        variables |= mapping(extra_args.pop(key, None), f"extra_args.{key}")
    recipe_variables = dict(mapping(settings.get("env_vars"), "env_vars"))
    for name in sorted({*variables} & {*recipe_variables}):
        if str(variables[name]) != str(recipe_variables[name]):
            draft.not_carried_over.append(
                f"`{name}` of `extra_args.env_vars`, which overrode `env_vars`; the recipe keeps `env_vars`"
            )
    variables |= recipe_variables
    texts = {name: str(value).lower() if isinstance(value, bool) else str(value)
             for name, value in variables.items() if value is not None}  # fmt: skip
    if texts:
        draft.set("env_vars", texts)
        move_secrets(draft)


def _choice(key: str, value: Any, backend: str) -> Any:
    """`on` or `off` for a boolean, where the engine takes these words: `flash-attn` of llama-server."""
    options = shipped_options(backend)
    choices = options.choices(options.canonical(flag_of(key))) or ()
    is_choice = isinstance(value, bool) and {"on", "off"} <= {*choices}
    return ("on" if value else "off") if is_choice else value


def _set_extra_args(draft: Draft, studio_extra_args: Mapping[str, Any], backend: str) -> None:
    """Set `extra_args:`, with a comment where VLLM Studio passed something else to the engine."""
    extra_args: dict[str, Any] = draft.fields.get("extra_args", {})
    for key, value in studio_extra_args.items():
        name = key.replace("-", "_")
        if name == "description" and isinstance(value, str):
            draft.fields.setdefault("description", " ".join(value.split()))
        if name in _STUDIO_EXTRA_ARGS or value is None:
            continue
        if name in _NO_FLAGS:
            if value and value != {"blocked": False}:
                draft.not_carried_over.append(f"`{key}: {json.dumps(value)}`, {_NO_FLAGS[name]}")
            continue
        if name in _JSON_OPTIONS and isinstance(value, str):
            value = _of_json(draft, key, value)
        recipe_key = _extra_key(key)
        words = [word(item) for item in (value if isinstance(value, list) else [value])]
        if take_secret(draft, backend, flag_of(recipe_key), words):
            continue
        extra_args[recipe_key] = _with_underscores(_choice(key, value, backend))
        if comment := _difference(key, value, backend):
            draft.comments[f"extra_args.{recipe_key}"] = comment
    if extra_args:
        draft.set("extra_args", extra_args)


def _of_json(draft: Draft, key: str, text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        draft.not_carried_over.append(f"`{key}` as JSON: it cannot be read, and is kept as text")
        return text


def _extra_key(key: str) -> str:
    """A key of `extra_args` with `-` for `_`, before its first dot."""
    head, dot, tail = key.partition(".")
    return head.replace("_", "-") + dot + tail


def _with_underscores(value: Any) -> Any:
    """The value of a JSON option, its keys with `_` as VLLM Studio passed them."""
    if isinstance(value, Mapping):
        return {key.replace("-", "_"): _with_underscores(item) for key, item in value.items()}
    return [_with_underscores(item) for item in value] if isinstance(value, list) else value


def _difference(key: str, value: Any, backend: str) -> str | None:
    """How the words for an option differ from those that VLLM Studio passed; None when they do not."""
    flag = flag_of(key)
    options = shipped_options(backend)
    if value is False:
        replacement = f"passes --no-{flag[2:]}" if options.kind(flag) == "negatable" else "passes nothing"
        return f"VLLM Studio passed {flag} for false; the recipe {replacement}."
    if isinstance(value, list) and options.kind(flag) in ("words", "repeated"):
        return "VLLM Studio passed a JSON list; the recipe passes words."
    if options.kind(flag.partition(".")[0]) is None and flag not in {*options.aliases, *options.negations}:
        return f"{' '.join(filter(None, (backend, options.version)))} has no {flag}; see `recipectl check`."
    return None
