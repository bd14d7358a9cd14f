"""llama-swap's macros: `${NAME}` in any value of its configuration."""

import re
from collections.abc import Mapping
from typing import Any

from recipectl.errors import UsageError
from recipectl.importers.draft import host_variable
from recipectl.importers.shapes import Map, mapping

_MACRO = re.compile(r"\$\{([A-Za-z0-9_.-]+)\}")
_MAX_MACRO_DEPTH = 10
_MAX_TEXT = 128 * 1024  # of a word that is executed (execve(2), MAX_ARG_STRLEN)
# Keys of a model with macros that are replaced at once. Its command, variables and title follow later.
_WITH_MACROS = ("checkEndpoint", "aliases", "ttl", "proxy", "filters", "useModelName", "cmdStop")


def with_own_macros(name: str, model: Any, shared: Map, port: int) -> Map:
    """The settings of a model: `macros` are all that it has, and they are replaced where a value counts."""
    if not isinstance(model, Mapping):
        raise UsageError("it has no settings; give it a `cmd`")
    macros = {**shared, **mapping(model.get("macros"), "macros"), "PORT": port, "MODEL_ID": name}
    with_pid = {**macros, "PID": "${PID}"}  # llama-swap knows it only when it stops the model
    values = {
        key: replaced(value, with_pid) if key in _WITH_MACROS else value for key, value in model.items()
    }
    return {**values, "macros": macros}


def replaced(value: Any, macros: Map) -> Any:
    """A value of the configuration with its macros replaced, in keys too."""
    if isinstance(value, Mapping):
        return {
            with_macros(key, macros) if isinstance(key, str) else key: replaced(content, macros)
            for key, content in value.items()
        }
    if isinstance(value, list):
        return [replaced(item, macros) for item in value]
    return with_macros(value, macros) if isinstance(value, str) else value


def with_macros(text: str, macros: Map) -> str:
    """`${name}` replaced, also within macros; `${env.NAME}` is a variable of the host."""

    def value(match: re.Match[str]) -> str:
        name = match[1]
        if name.startswith("env."):
            return host_variable(name.removeprefix("env."))
        if name not in macros:
            raise UsageError(f"`${{{name}}}` is not a macro of this file; define it under `macros:`")
        macro = macros[name]
        return str(macro).lower() if isinstance(macro, bool) else str(macro)

    for _ in range(_MAX_MACRO_DEPTH):
        text_before = text
        text = _MACRO.sub(value, text)
        if text == text_before:
            return text
        if len(text) > _MAX_TEXT:
            raise UsageError(f"the macros in `{text_before[:40]}` make more than 128 KiB; shorten them")
    raise UsageError(f"the macros in `{text[:40]}` refer to themselves; break the circle")
