"""VLLM Studio's recipes: what it passed silently is written out, its mistakes are corrected and reported."""

import re
from collections.abc import Mapping
from typing import Any

from recipectl.engines import vllm
from recipectl.engines.argv import INFERRED
from recipectl.engines.flags import long_flag
from recipectl.engines.options import shipped_options
from recipectl.engines.registry import ENGINES
from recipectl.errors import UsageError
from recipectl.importers import vllm_studio_present
from recipectl.importers.draft import Draft, unique_name
from recipectl.importers.from_command import model_name
from recipectl.importers.lines import keys_of, place_of
from recipectl.importers.shapes import mapping, refuse_private
from recipectl.importers.vllm_studio_arguments import STUDIO_KEYS, keep_text, set_extra_args
from recipectl.importers.vllm_studio_environment import set_environment, set_gpus
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
_ABOVE_ZERO = ("max_num_seqs", "gpu_memory_utilization")
_ABOVE_ONE = ("tensor_parallel_size", "pipeline_parallel_size")  # only more than 1 is passed
_NOT_TO_SGLANG = "Earlier releases of VLLM Studio did not pass it to SGLang."
_OF_ENGINES = {field for engine in ENGINES.values() for field in engine.flags}
_READ = {"backend", "model_path", "python_path", "venv_path", "env_vars", "extra_args", *INFERRED}


def recipes(data: Any) -> list[Mapping[str, Any]]:
    """The recipes in a JSON document: a recipe, a list, or the answer of `GET /recipes`."""
    entries = data.get("recipes", data) if isinstance(data, Mapping) else data
    entries = [entries] if isinstance(entries, Mapping) else entries
    if entries == []:
        raise UsageError("it has no recipes; give the answer of a Studio that has some")
    if not isinstance(entries, list) or not any(isinstance(entry, Mapping) for entry in entries):
        raise UsageError("these are not recipes of VLLM Studio; give its JSON or controller.db")
    return entries


def draft(studio_recipe: Any, source: str, node: Any = None) -> Draft:
    """One recipe; UsageError when it lacks what VLLM Studio requires, and for another engine.

    `node` is its YAML node, for the lines of its keys; a database has none.
    """
    if not isinstance(studio_recipe, Mapping):
        raise UsageError(f"one entry, `{str(studio_recipe)[:40]}`, is no recipe; it is left out")
    refuse_private(studio_recipe)
    settings = _normalized(studio_recipe)
    scalars = (
        name for name, value in settings.items() if name in _OF_ENGINES and isinstance(value, dict | list)
    )
    if key := next(scalars, None):
        raise UsageError(f"its `{key}` is a list or a mapping; correct it", key)
    for key in ("id", "model_path"):
        if not isinstance(settings.get(key), str) or not settings[key]:
            fault = f"its `{key}` is no text" if settings.get(key) else f"it has no `{key}`"
            raise UsageError(f"{fault}, which VLLM Studio requires; correct it", key)
    extra_args = dict(mapping(settings.get("extra_args"), "extra_args"))
    result = Draft(model_name(settings["id"]), places=_places(node))
    _add_unknown_keys(result, settings, extra_args)
    _name_second_spellings(result, studio_recipe)
    result.comments[""] = (
        f"From VLLM Studio ({source}), recipe {settings['id']}. Its default arguments are written out."
    )
    if title := str(settings.get("name") or ""):
        result.set("description", " ".join(title.split()))
    for key in ("description", "tags"):
        keep_text(result, key, settings.get(key))
    backend = _set_backend(result, settings)
    _set_runtime(result, settings, extra_args)
    result.set("model_path", settings["model_path"])
    _prefer_extra_args(result, settings, extra_args, backend)
    _set_fields(result, settings, backend)
    _set_parsers(result, settings, backend)
    set_gpus(result, extra_args)
    set_environment(result, settings, extra_args)
    set_extra_args(result, extra_args, backend)
    return result


def set_conflicts(drafts: list[Draft]) -> None:
    """Let recipes at one port stop each other: VLLM Studio ran one model at a time."""
    by_port: dict[object, list[str]] = {}
    for draft in drafts:
        draft.name = unique_name(draft.name, {name for names in by_port.values() for name in names})
        others = by_port.setdefault(draft.fields.get("port"), [])
        if others:
            draft.set("conflicts", [*others], "VLLM Studio ran one model at a time, at one port.")
        others.append(draft.name)


def _places(node: Any) -> dict[str, str]:
    """The lines of the keys of a recipe and of its `extra_args`, by their spelling and by ours."""
    places: dict[str, str] = {}
    extra = "extra_args" if "extra_args" in keys_of(node) else "extra-args"
    for parts in ((), (extra,)):
        for key in keys_of(node, *parts):
            name = _name(key)
            places |= dict.fromkeys((key, name), place_of(node, *parts, key))
    return places


def _normalized(studio_recipe: Mapping[str, Any]) -> dict[str, Any]:
    """A recipe with the keys of ours; `env_vars` wins over its other spellings."""
    settings: dict[str, Any] = {}
    for key, value in studio_recipe.items():
        name = _name(key)
        earlier = settings.get(name)
        if name == "env_vars" and isinstance(earlier, dict) and isinstance(value, dict):
            settings[name] = earlier | value if key == "env_vars" else value | earlier
        else:
            settings[name] = value
    return settings


def _add_unknown_keys(draft: Draft, settings: Mapping[str, Any], extra_args: dict[str, Any]) -> None:
    """Add keys that are no field of a recipe to `extra_args`; name those that VLLM Studio did not pass."""
    own = settings.keys() & {*Recipe.model_fields, *STUDIO_KEYS, "engine_args"}
    for key in sorted(settings.keys() & extra_args.keys() - own):
        if settings[key] != extra_args[key]:
            draft.lose(f"`{key}` of `extra_args`, which the recipe's own `{key}` overrode", key)
    extra_args |= {key: value for key, value in settings.items() if key not in own}
    for key in sorted(own - {*STUDIO_KEYS, *_READ, *_OF_ENGINES}):
        if settings[key]:
            draft.lose(
                f"`{key}:`, a key that VLLM Studio did not pass; write it yourself if you want it", key
            )


def _name_second_spellings(draft: Draft, studio_recipe: Mapping[str, Any]) -> None:
    """Name keys that another spelling of the same key overrides; variables of both are kept."""
    last = {_name(key): key for key in studio_recipe}
    for key, value in studio_recipe.items():
        winner = last[_name(key)]
        if winner != key and _name(key) != "env_vars" and value != studio_recipe[winner]:
            draft.lose(f"`{key}:`, which `{winner}:` overrode", key)


def _name(key: str) -> str:
    return key if key == "id" else ALIASES.get(key, key.replace("-", "_"))


def _set_backend(draft: Draft, settings: Mapping[str, Any]) -> str:
    backend = settings.get("backend") or "vllm"
    if backend == "transformers":
        draft.lose("`backend: transformers`, for which VLLM Studio also ran vLLM", "backend")
        backend = "vllm"
    if not isinstance(backend, str) or backend not in ENGINES:
        raise UsageError(
            f"`backend: {backend}` is no engine; only {', '.join(ENGINES)} are imported", "backend"
        )
    draft.set("backend", backend)
    return str(backend)


def _set_runtime(draft: Draft, settings: Mapping[str, Any], extra_args: dict[str, Any]) -> None:
    runtime = extra_args.pop("runtime", None) or {}
    ref = str(runtime.get("ref") or "") if isinstance(runtime, Mapping) else str(runtime)
    kind = runtime.get("kind") or runtime.get("type") if isinstance(runtime, Mapping) else None
    if ref and (kind == "docker" or not ref.startswith("/")):
        draft.lose(
            f"the runtime `{ref}` ({kind or 'no kind'}); the engine now runs from this host", "runtime"
        )
    elif ref and (kind == "binary" or draft.fields["backend"] == "llamacpp"):
        draft.set("binary", ref)
    elif ref:
        draft.set("python_path" if ref.rpartition("/")[2].startswith("python") else "venv_path", ref)
    for key in ("llama_bin", "llama-bin"):
        if binary := extra_args.pop(key, None):
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
    """Move values of extra_args to the settings that VLLM Studio did not pass; name those that it left out.

    A flag that the command line had already was not added again (`if flag in cmd: continue`).
    """
    known_options = shipped_options(backend)
    for field, flag in ENGINES[backend].flags.items():
        spelled = {key: f"--{key.replace('_', '-')}" for key in extra_args}
        wanted = known_options.canonical(flag) if flag else None
        keys = (key for key, name in spelled.items() if long_flag(backend, name, known_options) == wanted)
        key = next(keys, "")
        if extra_args.get(key) is None or isinstance(extra_args[key], bool):
            continue
        value = extra_args.pop(key)
        if spelled[key] != flag:  # both were passed: the last one counts
            if field in settings and str(settings[field]) != str(value):
                draft.lose(f"`{field}: {settings[field]}`, which `{key}` of extra_args overrode", field)
            settings[field] = value
            continue
        known = settings.get(field)
        if known is None and (backend != "llamacpp" or field in ("host", "port")):
            known = _DEFAULTS.get(field)
        is_passed = known not in (None, "", "auto", False) and not (known == 1 and field in _ABOVE_ONE)
        if not is_passed or (backend == "llamacpp" and field == "max_model_len"):
            settings[field] = value
            draft.comments[field] = "From extra_args."
        elif str(known) != str(value):
            fault = f"for VLLM Studio passed {flag} {known}; its newest release passes {value}"
            draft.lose(f"`{key}: {value}` of extra_args, {fault}", key)


def _set_fields(draft: Draft, settings: Mapping[str, Any], backend: str) -> None:
    """Set each field of the engine that VLLM Studio passed, in the engine's order."""
    extra = {*(settings.get("extra_args") or ())}
    for field, flag in ENGINES[backend].flags.items():
        value = settings.get(field)
        if isinstance(value, str) and re.fullmatch(r"[0-9]+", value):
            value = int(value)
        is_default = field in _DEFAULTS and (backend != "llamacpp" or field in ("host", "port"))
        # Its default would contradict what `extra_args:` says.
        is_default &= field != "trust_remote_code" or not extra & {"trust_remote_code", "trust-remote-code"}
        if value is None and is_default:
            value = _DEFAULTS[field]
            newest = " Its newest release listens on 127.0.0.1." if field == "host" else ""
            draft.comments[field] = f"VLLM Studio's default.{newest}"
        if _is_passed(draft, field, value, backend) and flag is not None:
            draft.set(field, value)


def _is_passed(draft: Draft, field: str, value: Any, backend: str) -> bool:
    """Whether a field's value belongs in the recipe; reports a value that is lost."""
    if value in (None, "auto") or field in (*INFERRED, "enable_auto_tool_choice"):
        return False
    if field == "trust_remote_code" and not value:
        return False  # VLLM Studio did not pass false, which is the engine's default
    if field in _ABOVE_ONE and isinstance(value, int) and value <= 1:
        return False
    has_no_length = field == "max_model_len" and value == 0
    if value == "" or (has_no_length and backend == "llamacpp"):
        return False  # it passed nothing
    is_too_small = field in _ABOVE_ZERO and isinstance(value, int | float) and value <= 0
    if (has_no_length and backend == "vllm") or is_too_small:
        draft.lose(f"`{field}: {value}`, which no engine accepts", field)
        return False
    if backend == "sglang" and field == "dtype":
        draft.comments[field] = _NOT_TO_SGLANG
    if backend == "llamacpp" and field == "max_num_seqs":
        draft.comments[field] = (
            "Only some releases of VLLM Studio pass it; the context is shared by so many requests."
        )
    return True


def _set_parsers(draft: Draft, settings: Mapping[str, Any], backend: str) -> None:
    """Set the parsers, also those of vLLM that VLLM Studio inferred from the model's name."""
    # VLLM Studio looked at the whole of this.
    model = str(settings.get("served_model_name") or settings["model_path"]).replace("/", "-")
    for key in filter(settings.get, INFERRED if backend != "vllm" else ()):
        if backend == "sglang":
            draft.set(key, settings[key], _NOT_TO_SGLANG)
        else:
            draft.lose(f"`{key}: {settings[key]}`, which VLLM Studio did not pass to {backend}", key)
    if backend == "vllm":
        _set_parsers_of_vllm(draft, settings, model)
    if backend != "llamacpp":
        vllm_studio_present.name_differences(draft, settings, backend, model)


def _set_parsers_of_vllm(draft: Draft, settings: Mapping[str, Any], model: str) -> None:
    for key in INFERRED:
        if value := settings.get(key):
            draft.set(key, value)
        elif inferred := vllm.infer_parser(key, model):
            draft.set(key, inferred, "Inferred from the model's name, as VLLM Studio did.")
        elif re.search(r"intellect[-_ ]?2.*3", model, re.I):
            fault = "for which VLLM Studio took this model because of the digits"
            draft.lose(f"`{key}` of INTELLECT-3, {fault}", "model_path")
    if "tool_call_parser" in draft.fields:
        draft.set("enable_auto_tool_choice", True)
    elif settings.get("enable_auto_tool_choice"):
        fault = "for which VLLM Studio passed nothing"
        draft.lose(
            f"`enable_auto_tool_choice` without `tool_call_parser`, {fault}", "enable_auto_tool_choice"
        )
    gpus = settings.get("tensor_parallel_size")
    if isinstance(gpus, int) and gpus > 4 and re.search(r"minimax[-_ ]?m2", model, re.I):
        draft.fields.setdefault("extra_args", {})["enable-expert-parallel"] = True
        draft.comments["extra_args.enable-expert-parallel"] = (
            "VLLM Studio added it for MiniMax M2 on more than 4 GPUs."
        )
