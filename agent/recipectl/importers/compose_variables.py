"""The variables of a Compose file: `${NAME}` in its values, and its files of variables."""

import re
from collections.abc import Mapping
from typing import Any

from recipectl.importers.draft import host_variable
from recipectl.importers.lines import Remark
from recipectl.importers.secret_names import is_likely_secret

_VARIABLE = re.compile(
    r"\$(?:(\$)|([A-Za-z_]\w*)|\{([A-Za-z_]\w*)(?:(:?[-?+])"
    r"((?:[^{}\n]|\{(?:[^{}\n]|\{[^{}\n]*\})*\}){0,4096}))?\})"  # a default has variables, or JSON
)
_ENTRY = re.compile(
    r"""^[ \t]*(?:\#[^\n]*|(?:export[ \t]+)?([A-Za-z_][\w.-]*)[ \t]*(?:[=:][ \t]*"""
    r"""(?:'([^']*)'|"((?:\\.|[^"\\])*)"|([^\n]*))|$))""",
    re.M | re.S,
)
_ESCAPES = {"n": "\n", "r": "\r", "t": "\t"}


def dotenv(text: str, variables: Mapping[str, str], lost: list[Remark]) -> dict[str, str]:
    """The variables of a file as Compose reads it: quotes, comments, `${NAME}` (its pages on .env files)."""
    result: dict[str, str] = {}
    for name, literal, quoted, plain in (match.groups() for match in _ENTRY.finditer(text)):
        if name and literal is quoted is plain is None:
            lost.append(Remark(f"the variable `{name}` of the caller; set it in `env_vars:`"))
        if literal is quoted is plain is None:
            continue
        known, count = {**variables, **result}, len(lost)
        if literal is not None:
            result[name] = literal
        elif quoted is not None:
            value = interpolated(quoted.replace("\\$", "$$"), known, lost)
            result[name] = re.sub(r"\\(.)", lambda escape: _ESCAPES.get(escape[1], escape[1]), value)
        else:
            result[name] = interpolated(re.sub(r"(?:^|(?<=\s))#.*", "", plain).strip(), known, lost)
        if is_likely_secret(name, result[name]):
            lost[count:] = [remark.without(result[name]) for remark in lost[count:]]
    return result


def interpolated(value: Any, variables: Mapping[str, str], lost: list[Remark]) -> Any:
    """A value of a Compose file with `${NAME}` and `${NAME:-default}` replaced."""
    if isinstance(value, dict):
        return {key: interpolated(item, variables, lost) for key, item in value.items()}
    if isinstance(value, list):
        return [interpolated(item, variables, lost) for item in value]

    def text(match: re.Match[str]) -> str:
        name, operator, default = match[2] or match[3], match[4] or "", match[5]
        if match[1]:
            return "$"
        is_set = bool(variables.get(name)) or (name in variables and ":" not in operator)
        if "+" in operator and is_set:
            return str(interpolated(default, variables, lost))
        if "+" in operator:
            lost.append(
                Remark(f"`${{{name}{operator}{default}}}`, which depends on whether the variable is set")
            )
            return ""
        if is_set:
            return variables[name]
        if "-" in operator and (default or not is_likely_secret(name, "x" * 9)):
            default = str(interpolated(default, variables, lost))
            if not is_likely_secret(name, default):  # a secret is named with its file
                value = f"has its default value here, `{default}`" if default else "is empty here, by default"
                lost.append(Remark(f"`${{{name}}}` {value}"))
            return default
        return host_variable(name)

    return _VARIABLE.sub(text, value) if isinstance(value, str) else value
