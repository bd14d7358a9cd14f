"""A recipe in the making: its fields, their comments, what is not carried over; and its YAML text."""

import re
from collections.abc import Collection
from dataclasses import dataclass, field
from itertools import chain, count
from typing import Any

import yaml

from recipectl.importers.lines import Losing, Remark
from recipectl.recipe.schema import USER
from recipectl.recipe.trusted import user_name
from recipectl.recipe.yamlfile import Written
from recipectl.text import TOKEN

# They enclose the name of a variable that only the host knows; the recipe has `${name}` instead.
VARIABLE_START = "\ue000"
VARIABLE_END = "\ue001"
# It stands for a value that only a running shell knows, such as the output of `$(date)`.
UNKNOWN_VALUE = "\ue002"
# Characters that no original may have: those above, and those of the shell's words.
PRIVATE = re.compile("[\ue000-\ue00f]")
# The way around what no importer reads: the end of a refusal.
RUN_IT = "start it, then run `recipectl import process PID`"
AS_IT_RUNS = f"or {RUN_IT}"
# What happens without a policy for restarts, which every compiled unit has.
STAYS_DOWN = "it stayed down when it ended; recipectl always restarts a model that ends"
# What becomes of the primary group of a process that is another than its user's.
OTHER_GROUP = "the engine is in this group, and its files have the group of its user"
VARIABLE_ALONE = re.compile(f"{VARIABLE_START}[^{VARIABLE_END}]*{VARIABLE_END}")
_HOST_VARIABLE = re.compile(f"{VARIABLE_START}([A-Za-z_][A-Za-z0-9_]*){VARIABLE_END}")
_SECRET = re.compile(
    rf"({TOKEN.pattern})|((?:(?:key|token|secret|pass(?:w(?:or)?d|phrase)?|pwd|auth)[\"']?[=:]\s*|bearer\s+"
    rf"|--?[\w-]{{0,80}}(?:key|token|secret|passw(?:or)?d)\s+|(?-i:\b(?!\w*(?:bos|eos|pad|unk|mask)_)[a-z]+_[a-z_]*(?:key|token|secret|passw(?:or)?d))\s+)[\"']?)[^\s\"'`]+",
    re.I,
)
# Secrets in other programs' forms: registry logins, web hooks, tokens of bots, what is piped into a login.
_OTHER_SECRETS = re.compile(
    r"(--creds[= ]\s{0,9}[^\s:]{1,200}:|hooks\.slack\.com/services/|/bot\d+:|\bauthtoken\s+"
    r"|\b(?:echo|printf)\s+(?=[^|]{0,500}\|[^|]{0,500}(?:--password-stdin|login)))[^\s`'\"|]+"
)
_STRING_TAG = "tag:yaml.org,2002:str"


@dataclass
class Draft(Losing):
    """Fields in the order of the file; `comments` is key -> comment, "" is the comment of the whole file."""

    name: str
    fields: dict[str, Any] = field(default_factory=dict)
    comments: dict[str, str] = field(default_factory=dict)
    not_carried_over: list[Remark] = field(default_factory=list)
    secrets: dict[str, str] = field(default_factory=dict)  # variable -> digest of its value, never the value
    places: dict[str, str] = field(default_factory=dict)  # key of the original -> its place
    hidden: set[str] = field(default_factory=set)  # values that are in nothing that is written or printed

    def set(self, key: str, value: Any, comment: str | None = None) -> None:
        """Set a field, and the comment above it."""
        self.fields[key] = value
        if comment:
            self.comments[key] = comment

    def set_user(self, user: str) -> None:
        """Set `user:`: a number becomes the name that this host has for it; what cannot be one is named."""
        number = user.removeprefix("#")
        name = user_name(int(number)) if re.fullmatch("[0-9]{1,9}", number) else user
        if VARIABLE_START in name or re.search(USER, name):
            self.set("user", name)
        else:
            fault = "which this host has no name for" if number.isdigit() else "which cannot be a name"
            self.lose(f"the user `{user}`, {fault}; see `user:`")

    def hide_secrets(self) -> None:
        """Remove the variables that hold a secret of the command: its value is in nothing that is written."""
        variables = self.fields.get("env_vars", {})
        for name, text in [*variables.items()]:
            if any(value in str(text) for value in self.hidden if len(value) > 3):
                del variables[name]
                self.lose(f"the variable `{name}`, which holds a secret of the command")
        if variables == {}:
            self.fields.pop("env_vars", None)

    def shown(self, text: str) -> str:
        """A text for a comment or a message: one line, without secrets."""
        for value in self.hidden:
            text = text.replace(value, "…") if len(value) > 3 else text
        return redacted(text)

    def rename_variable(self, name: str, new: str) -> None:
        """Give a variable of the host a name that no other recipe uses."""
        self.fields = _renamed(self.fields, host_variable(name), host_variable(new))

    @property
    def variables(self) -> tuple[str, ...]:
        """The names that the host file must define under `vars:`, sorted."""
        return tuple(sorted({name for text in _texts(self.fields) for name in _HOST_VARIABLE.findall(text)}))


def _renamed(value: Any, old: str, new: str) -> Any:
    if isinstance(value, dict):
        return {key: _renamed(item, old, new) for key, item in value.items()}
    if isinstance(value, list):
        return [_renamed(item, old, new) for item in value]
    return type(value)(value.replace(old, new)) if isinstance(value, str) else value


def _texts(value: Any) -> list[str]:
    if isinstance(value, dict):
        return [text for item in (*value, *value.values()) for text in _texts(item)]
    if isinstance(value, list | tuple):
        return [text for item in value for text in _texts(item)]
    return [value] if isinstance(value, str) else []


def host_variable(name: str) -> str:
    """A variable of the host, in the form that drafts hold."""
    return f"{VARIABLE_START}{name}{VARIABLE_END}"


def recipe_text(text: str) -> str:
    """A draft's text as the recipe has it: `${name}` for a host variable, `$${` for a literal `${`."""
    return _HOST_VARIABLE.sub(r"${\1}", text.replace("${", "$${"))


def redacted(text: str) -> str:
    """A draft's text for a comment or a message: one line, without secrets."""
    line = text.replace(UNKNOWN_VALUE, "…").replace("\n", " ")
    line = re.sub(r"(://)[^/\s:@]*:[^/\s@]+@", r"\1…@", line)
    line = re.sub(r"(\s-u\s*[^\s:]+:|\b(?:login|mysql\w*|sshpass)\b[^`]*?\s-p\s*)[^\s`]+", r"\1…", line)
    line = re.sub(r"([?&](?:api_?key|key|token|secret|password)=)[^&\s`]+", r"\1…", line, flags=re.I)
    line = _OTHER_SECRETS.sub(r"\1…", line)
    return _HOST_VARIABLE.sub(r"${\1}", _SECRET.sub(lambda match: f"{match[3] or ''}…", line))


def unique_name(name: str, names: Collection[str]) -> str:
    """The name, with a number from 2 on where another recipe has it."""
    numbered = (f"{name}-{number}" for number in count(2))
    return next(candidate for candidate in chain([name], numbered) if candidate not in names)


class UnquotedText(str):
    """A text that YAML writes without quotes: a host variable that stands for a number."""


class _Dumper(yaml.SafeDumper):
    def ignore_aliases(self, data: Any) -> bool:
        return True


def _represent_text(dumper: yaml.SafeDumper, text: str) -> yaml.Node:
    # In quotes, the value of a host variable stays text, and a line's end is written as an escape.
    style = '"' if re.search(f"[\n\x85\u2028\u2029{VARIABLE_START}]", text) else None
    return dumper.represent_scalar(_STRING_TAG, recipe_text(text), style=style)


def _represent_unquoted_text(dumper: yaml.SafeDumper, text: UnquotedText) -> yaml.Node:
    return dumper.represent_scalar(_STRING_TAG, recipe_text(text))


def _represent_number(dumper: yaml.SafeDumper, value: Written) -> yaml.Node:
    return dumper.represent_scalar("tag:yaml.org,2002:float", value.text)


_Dumper.add_representer(str, _represent_text)
_Dumper.add_representer(UnquotedText, _represent_unquoted_text)
_Dumper.add_representer(Written, _represent_number)


def _yaml(value: Any, *, in_flow_style: bool = False) -> str:
    return yaml.dump(
        value,
        Dumper=_Dumper,
        sort_keys=False,
        allow_unicode=True,
        width=10**6,
        default_flow_style=in_flow_style,
    ).rstrip("\n")


def _is_short_list(value: Any) -> bool:
    """Whether a value is a short list of words."""
    return (
        isinstance(value, list)
        and all(isinstance(item, int | str) for item in value)
        and len(str(value)) < 80
    )


def _entry(key: str, value: Any) -> list[str]:
    """The lines of one key with its value."""
    if _is_short_list(value):
        return [f"{_yaml({key: None}).removesuffix(' null')} {_yaml(value, in_flow_style=True)}"]
    return _yaml({key: value}).split("\n")


def _comment(draft: Draft, key: str) -> list[str]:
    return [f"# {line}" for line in draft.comments.get(key, "").splitlines()]


def _mapping(draft: Draft, key: str, mapping: dict[str, Any]) -> list[str]:
    """The lines of a key that holds a mapping: each entry has its own comment."""
    lines = [f"{key}:" if mapping else f"{key}: {{}}"]
    for entry_key, value in mapping.items():
        entry = [*_comment(draft, f"{key}.{entry_key}"), *_entry(entry_key, value)]
        lines += [f"  {line}" for line in entry]
    return lines


def render(draft: Draft) -> str:
    """The recipe's YAML: its origin, what is not carried over, and the fields with their comments."""
    lines = [draft.shown(line) for line in _comment(draft, "")]
    if draft.variables:
        lines.append(f"# Define under `vars:` of the host file: {', '.join(draft.variables)}")
    lines += [f"# Not carried over: {draft.shown(str(remark))}" for remark in draft.not_carried_over]
    for key, value in draft.fields.items():
        lines += _comment(draft, key)
        text = redacted(value) if key == "description" else value  # people write keys there, too
        lines += _mapping(draft, key, value) if isinstance(value, dict) else _entry(key, text)
    return "\n".join(lines) + "\n"
