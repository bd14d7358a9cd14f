"""VLLM Studio's recipes: what it did is written out, what it did wrong is put right, and both are told."""

import json
import re
from collections.abc import Mapping
from typing import Any

from recipectl import engines
from recipectl.engines import vllm
from recipectl.errors import UsageError
from recipectl.importers.draft import Draft
from recipectl.importers.words import model_name, move_secrets
from recipectl.recipe.schema import ALIASES, Recipe

# Passed for every recipe, whether it said so or not.
DEFAULTS: dict[str, Any] = {
    "host": "0.0.0.0",  # noqa: S104  (what it did)
    "port": 8000,
    "max_model_len": 32768,
    "gpu_memory_utilization": 0.9,
    "max_num_seqs": 256,
    "trust_remote_code": True,
}
_OURS = {"id", "name", "status", "tags", "description", "created_at", "updated_at", "engine_args"}
_VLLM_ONLY = ("tool_call_parser", "reasoning_parser", "enable_auto_tool_choice", "dtype")


def recipes(data: Any) -> list[Mapping[str, Any]]:
    """The recipes in a JSON document: one, a list, or the answer of `GET /recipes`."""
    found = data.get("recipes", data) if isinstance(data, Mapping) else data
    found = [found] if isinstance(found, Mapping) else found
    if not isinstance(found, list) or not all(isinstance(one, Mapping) for one in found):
        raise UsageError(
            "this is no recipe of VLLM Studio, nor a list of them; give its JSON or controller.db"
        )
    return found


def _underscored(value: Any) -> Any:
    """Keys of a JSON option with `_`, as it wrote them."""
    if isinstance(value, Mapping):
        return {key.replace("-", "_"): _underscored(item) for key, item in value.items()}
    return [_underscored(item) for item in value] if isinstance(value, list) else value


def draft(given: Mapping[str, Any], source: str) -> Draft:
    """One recipe; UsageError when it lacks what VLLM Studio itself requires."""
    raw: dict[str, Any] = {}
    for key, item in given.items():
        known = key if key == "id" else ALIASES.get(key, key.replace("-", "_"))
        if known == "env_vars" and isinstance(raw.get(known), dict) and isinstance(item, dict):
            raw[known] = item | raw[known] if key != "env_vars" else raw[known] | item  # its own name wins
        else:
            raw[known] = item
    for key in ("id", "model_path"):
        if not isinstance(raw.get(key), str) or not raw[key]:
            raise UsageError(f"a recipe in {source} has no `{key}`, which VLLM Studio requires; add it")
    extra = dict(raw.get("extra_args") or {})
    extra |= {
        key: raw[key] for key in raw if key not in Recipe.model_fields and key not in {*_OURS, "extra_args"}
    }
    made = Draft(model_name(raw["id"]))
    made.why[""] = f"From VLLM Studio ({source}), recipe {raw['id']}. What it always passed is written out."
    title = str(raw.get("name") or "")
    if title:
        made.set("description", " ".join(title.split()))
    backend = raw.get("backend") or "vllm"
    if backend == "transformers":
        made.lost.append("`backend: transformers`, for which VLLM Studio ran vLLM too")
        backend = "vllm"
    if backend not in ("vllm", "sglang"):
        raise UsageError(
            f"recipe {raw['id']} in {source} has `backend: {backend}`; vllm and sglang can be imported"
        )
    made.set("backend", backend)
    for key in ("python_path", "venv_path"):
        value = raw.get(key) or extra.pop(key, None) or extra.pop(key.replace("_", "-"), None)
        extra.pop(key, None), extra.pop(key.replace("_", "-"), None)
        if value:
            made.set(key, value)
    if "python_path" not in made.fields and "venv_path" not in made.fields:
        made.why["backend"] = "No runtime was named: set `python_path:`, else the host's path decides."
    made.set("model_path", raw["model_path"])
    _fields(made, raw, extra, backend)
    _parsers(made, raw, backend)
    _environment(made, raw, extra)
    _extra(made, extra, backend)
    return made


def _number(value: Any) -> Any:
    """Numbers that were kept as text."""
    return int(value) if isinstance(value, str) and re.fullmatch(r"[0-9]+", value) else value


def _fields(made: Draft, raw: dict[str, Any], extra: dict[str, Any], backend: str) -> None:
    for field, flag in engines.fields(backend):
        name = flag[2:].replace("-", "_") if flag else field
        spelled = next((key for key in extra if key.replace("-", "_") == name), None)
        if (
            flag
            and spelled is not None
            and extra[spelled] is not None
            and not isinstance(extra[spelled], bool)
        ):
            # Both were passed, and the engine took the last.
            raw[field] = extra.pop(spelled)
            made.why[field] = "from extra_args, which came last on VLLM Studio's command line"
        value = _number(raw.get(field))
        if value is None and field in DEFAULTS:
            value = DEFAULTS[field]
            made.why[field] = "VLLM Studio's own default"
        if value is None or field in ("tool_call_parser", "reasoning_parser", "enable_auto_tool_choice"):
            continue
        if field == "trust_remote_code" and not value:
            continue  # false was not passed; left out is the engine's default, which is false
        if (field in ("tensor_parallel_size", "pipeline_parallel_size") and value == 1) or value == "auto":
            continue
        if value == "" or (field == "max_num_seqs" and isinstance(value, int) and value <= 0):
            made.lost.append(f"`{field}: {value}`, which no engine takes")
            continue
        if backend == "sglang" and field in _VLLM_ONLY:
            made.lost.append(f"`{field}: {value}`, which VLLM Studio did not pass to SGLang")
            continue
        if flag is not None:
            made.set(field, value)


def _parsers(made: Draft, raw: Mapping[str, Any], backend: str) -> None:
    given = {key: raw.get(key) for key in ("tool_call_parser", "reasoning_parser")}
    if backend == "sglang":
        made.lost += [
            f"`{key}: {value}`, which VLLM Studio did not pass to SGLang"
            for key, value in given.items()
            if value
        ]
        return
    for key, value in given.items():
        why = None
        if not value:
            value, why = (
                vllm.infer(key, raw["model_path"]),
                "inferred from the model's name, as VLLM Studio did",
            )
            if value is None and re.search(r"intellect[-_ ]?2.*3", raw["model_path"], re.I):
                made.lost.append(
                    f"`{key}`, which VLLM Studio took for INTELLECT-3's by the digits of the name"
                )
        if value:
            made.set(key, value, why)
    if "tool_call_parser" in made.fields:
        made.set("enable_auto_tool_choice", True)
    elif raw.get("enable_auto_tool_choice"):
        made.lost.append("`enable_auto_tool_choice` without `tool_call_parser`, for which nothing was passed")
    big = isinstance(raw.get("tensor_parallel_size"), int) and raw["tensor_parallel_size"] > 4
    if big and re.search(r"minimax[-_ ]?m2", raw["model_path"], re.I):
        made.fields.setdefault("extra_args", {})["enable-expert-parallel"] = True
        made.why["extra_args.enable-expert-parallel"] = (
            "VLLM Studio added it for MiniMax M2 on more than 4 GPUs"
        )


def _environment(made: Draft, raw: Mapping[str, Any], extra: dict[str, Any]) -> None:
    legacy: dict[str, Any] = {}
    for key in ("env_vars", "env-vars", "envVars"):
        legacy |= extra.pop(key, None) or {}
    current = dict(raw.get("env_vars") or {})
    for name in sorted({*legacy} & {*current}):
        if str(legacy[name]) != str(current[name]):
            made.lost.append(
                f"`{name}` of `extra_args.env_vars`, which won over `env_vars`; now `env_vars` wins"
            )
    merged = {name: str(value).lower() if isinstance(value, bool) else str(value)
              for name, value in (legacy | current).items() if value is not None}  # fmt: skip
    for key in ("cuda_visible_devices", "cuda-visible-devices", "CUDA_VISIBLE_DEVICES"):
        if key not in extra:
            continue
        value = extra.pop(key)
        words = value if isinstance(value, list) else str(value).split(",")
        gpus = [
            int(word) if str(word).strip().isdigit() else str(word).strip()
            for word in words
            if str(word).strip()
        ]
        if value is not None and value is not False and gpus:
            made.set("gpus", gpus)
            if value == 0 or isinstance(value, list):
                made.why["gpus"] = f"VLLM Studio had `{key}: {value}`, and did not obey it"
    if merged:
        made.set("env_vars", merged)
        move_secrets(made)


def _extra(made: Draft, extra: Mapping[str, Any], backend: str) -> None:
    known = engines.options(backend)
    kept: dict[str, Any] = made.fields.get("extra_args", {})
    for key, value in extra.items():
        name = engines.flag(key)
        if key.replace("-", "_") in {*_OURS, *("launched_at", "running")} or value is None:
            if key == "description" and isinstance(value, str):
                made.fields.setdefault("description", " ".join(value.split()))
            continue
        if key.replace("-", "_") in ("speculative_config", "default_chat_template_kwargs") and isinstance(
            value, str
        ):
            try:
                value = json.loads(value)
            except ValueError:
                made.lost.append(f"the JSON in `{key}` cannot be read; it is kept as text")
        kept[key.replace("_", "-").partition(".")[0] + "".join(key.partition(".")[1:])] = _underscored(value)
        where = f"extra_args.{key.replace('_', '-').partition('.')[0] + ''.join(key.partition('.')[1:])}"
        if value is False:
            has = known.kind(name) == "negatable"
            made.why[where] = (
                f"VLLM Studio passed {name} for false; now it is {f'--no-{name[2:]}' if has else 'left out'}"
            )
        elif isinstance(value, list) and known.kind(name) in ("words", "repeated"):
            made.why[where] = "VLLM Studio passed a JSON list; now these are words"
        elif known.kind(name.partition(".")[0]) is None and name not in known.aliases:
            made.why[where] = f"{backend} {known.version} has no {name}; see `recipectl check`"
    if kept:
        made.set("extra_args", kept)
