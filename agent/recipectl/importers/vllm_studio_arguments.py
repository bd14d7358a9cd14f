"""VLLM Studio's `extra_args`: what it passed to the engine, and what it kept for itself."""

import json
from collections.abc import Mapping
from typing import Any

from recipectl.engines.flags import long_flag
from recipectl.engines.options import flag_of, shipped_options
from recipectl.importers.arguments import take_secret
from recipectl.importers.draft import Draft

# Keys that VLLM Studio keeps for itself.
STUDIO_KEYS = {"id", "name", "status", "tags", "description", "created_at", "updated_at"}
_STUDIO_EXTRA_ARGS = {*STUDIO_KEYS, "launched_at", "running"}
# Keys of its own that are no flags of an engine, and what becomes of them.
_NO_FLAGS = {
    "thinking_mode": "a setting of its chat", "vision": "a setting of its chat", "metadata": "its own notes",
    "crash_loop": "its own state", "docker_image": "the engine now runs from this host",
    "launch_command": "see `recipectl import command`", "custom_command": "see `recipectl import command`",
    "docker_container": "the engine now runs from this host",
    "docker_vllm_bin": "the engine now runs from this host",
    "docker_entrypoint": "the engine now runs from this host", "mlx_python": "of another engine",
    "max_thinking_tokens": "a setting of its chat",
    "engine_args": "which it did not pass; write in `extra_args:` what you want of it",
}  # fmt: skip
_JSON_OPTIONS = ("speculative_config", "default_chat_template_kwargs")


def _choice(key: str, value: Any, backend: str) -> Any:
    """`on` or `off` for a boolean, where the engine takes these words: `flash-attn` of llama-server."""
    options = shipped_options(backend)
    choices = options.choices(options.canonical(flag_of(key))) or ()
    is_choice = isinstance(value, bool) and {"on", "off"} <= {*choices}
    return ("on" if value else "off") if is_choice else value


def keep_text(draft: Draft, key: str, value: Any) -> None:
    """Keep a description, if there is no other; name a second one, and tags."""
    if key not in ("description", "tags") or not value:
        return
    text = " ".join(str(value).split())
    if key == "tags" or draft.fields.setdefault("description", text) != text:
        draft.lose(f"`{key}: {json.dumps(value)}`, its own notes", key)


def set_extra_args(draft: Draft, studio_extra_args: Mapping[str, Any], backend: str) -> None:
    """Set `extra_args:`, with a comment where VLLM Studio passed something else to the engine."""
    extra_args: dict[str, Any] = draft.fields.get("extra_args", {})
    for key, value in studio_extra_args.items():
        name = key.replace("-", "_")
        keep_text(draft, key, value)
        if name in _STUDIO_EXTRA_ARGS or value is None:
            continue
        if name in _NO_FLAGS:
            if value and value != {"blocked": False}:
                draft.lose(f"`{key}: {json.dumps(value)}`, {_NO_FLAGS[name]}", key)
            continue
        if name in _JSON_OPTIONS and isinstance(value, str):
            value = _of_json(draft, key, value)
        recipe_key = _extra_key(key)
        items = value if isinstance(value, list) else [value]
        words = [item if isinstance(item, str) else json.dumps(item) for item in items]
        if take_secret(draft, backend, flag_of(recipe_key), words):
            continue
        if recipe_key in extra_args:
            draft.lose(
                f"`{recipe_key}: {json.dumps(extra_args[recipe_key])}`, which `{key}` overrode", recipe_key
            )
        extra_args[recipe_key] = _with_underscores(_choice(key, value, backend))
        if comment := _difference(key, value, backend):
            draft.comments[f"extra_args.{recipe_key}"] = comment
    if extra_args:
        draft.set("extra_args", extra_args)


def _of_json(draft: Draft, key: str, text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        draft.lose(f"`{key}` as JSON: it cannot be read, and is kept as text", key)
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
    known = long_flag(backend, flag.partition(".")[0], options)
    if options.kind(known) is None and known not in {*options.aliases, *options.negations}:
        return f"{' '.join(filter(None, (backend, options.version)))} has no {flag}; correct or remove it."
    return None
