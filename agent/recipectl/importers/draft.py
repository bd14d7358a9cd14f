"""A recipe in the making: its fields, why they are so, what could not be carried over; and its YAML text."""

import re
from dataclasses import dataclass, field
from typing import Any

import yaml

from recipectl.recipe.schema import TOKEN
from recipectl.recipe.yamlfile import Written

# Around the name of a variable that only the host knows, in any text of a draft: it becomes `${name}`.
OPEN, CLOSE = "\ue000", "\ue001"
# In a shell's text: what only running it could tell.
UNKNOWN = "\ue002"
_MARKED = re.compile(f"{OPEN}([A-Za-z_][A-Za-z0-9_]*){CLOSE}")


@dataclass
class Draft:
    """Fields in the order of the file; `why` is key -> comment, `lost` is what has no place here."""

    name: str
    fields: dict[str, Any] = field(default_factory=dict)
    why: dict[str, str] = field(default_factory=dict)
    lost: list[str] = field(default_factory=list)
    secrets: dict[str, str] = field(default_factory=dict)  # variable -> digest of its value, never the value

    def set(self, key: str, value: Any, why: str | None = None) -> None:
        """Give a field, with the comment that stands above it."""
        self.fields[key] = value
        if why:
            self.why[key] = why

    @property
    def variables(self) -> tuple[str, ...]:
        """What the host file has to say under `vars:`."""
        return tuple(sorted({name for text in _texts(self.fields) for name in _MARKED.findall(text)}))


def _texts(value: Any) -> list[str]:
    if isinstance(value, dict):
        return [text for item in (*value, *value.values()) for text in _texts(item)]
    if isinstance(value, list | tuple):
        return [text for item in value for text in _texts(item)]
    return [value] if isinstance(value, str) else []


def marked(name: str) -> str:
    """A variable of the host, as drafts hold it."""
    return f"{OPEN}{name}{CLOSE}"


def shown(text: str) -> str:
    """A draft's text as a recipe has it: `${name}` for a variable of the host, `$${` for a plain `${`."""
    return _MARKED.sub(r"${\1}", text.replace("${", "$${"))


_SECRETS = re.compile(
    rf"({TOKEN.pattern})|((?:key|token|secret|passw(?:or)?d|bearer|auth)[\"']?[=: ]+[\"']?)[^\s\"']+", re.I
)


def told(text: str) -> str:
    """A draft's text in a comment or a message: on one line, with no secret in it."""
    plain = text.replace(UNKNOWN, "$(…)").replace("\n", " ")
    return shown(_SECRETS.sub(lambda match: f"{match[3] or ''}…", plain))


class _Dumper(yaml.SafeDumper):
    def ignore_aliases(self, data: Any) -> bool:
        return True


def _string(dumper: yaml.SafeDumper, text: str) -> yaml.Node:
    # In quotes the variable's value stays text, as `Plain` would not.
    style = '"' if "\n" in text or OPEN in text else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", shown(text), style=style)


def _number(dumper: yaml.SafeDumper, value: Written) -> yaml.Node:
    return dumper.represent_scalar("tag:yaml.org,2002:float", value.text)


class Plain(str):
    """A text that is written without quotes, for a variable of the host that stands for a number."""


_Dumper.add_representer(str, _string)
_Dumper.add_representer(Written, _number)
_Dumper.add_representer(
    Plain, lambda dumper, text: dumper.represent_scalar("tag:yaml.org,2002:str", shown(text))
)


def _yaml(value: Any) -> str:
    return yaml.dump(value, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=10**6)


def _flow(value: Any) -> bool:
    """Short lists of words stay on one line."""
    return isinstance(value, list) and all(isinstance(v, int | str) for v in value) and len(str(value)) < 80


def render(draft: Draft) -> str:
    """The recipe's YAML: what it came from, the fields with their comments, and what was lost."""
    lines = [f"# {told(line)}" for line in draft.why.get("", "").splitlines()]
    if draft.variables:
        lines.append(f"# To be given under `vars:` of the host file: {', '.join(draft.variables)}")
    lines += [f"# Not carried over: {told(lost)}" for lost in draft.lost]
    for key, value in draft.fields.items():
        lines += [f"# {line}" for line in draft.why.get(key, "").splitlines()]
        if isinstance(value, dict):
            lines.append(f"{key}:" if value else f"{key}: {{}}")
            for inner, item in value.items():
                lines += [f"  # {line}" for line in draft.why.get(f"{key}.{inner}", "").splitlines()]
                lines += [f"  {line}" for line in _entry(inner, item)]
        else:
            lines += _entry(key, value)
    return "\n".join(lines) + "\n"


def _entry(key: str, value: Any) -> list[str]:
    if _flow(value):
        text = yaml.dump(value, Dumper=_Dumper, default_flow_style=True, allow_unicode=True, width=10**6)
        return [f"{_yaml({key: None}).removesuffix(' null' + chr(10))} {text.rstrip()}"]
    return _yaml({key: value}).rstrip("\n").split("\n")
