"""What a call of a script's own function changes."""

from typing import NamedTuple

from recipectl.importers.shell_scope import Scope

# A field of the scope -> the words for it.
_EFFECTS = {
    "folder": "the folder",
    "venv": "the venv",
    "conda_environment": "conda's environment",
    "service": "limits",
    "exports_all": "`set -a`",
    "ended": "whether the script goes on",
}


class Function(NamedTuple):
    """The variables that a function changes, those that it exports, and what else it changes, in words."""

    variables: set[str]
    exported: set[str]
    effects: tuple[str, ...]


def function_of(before: Scope, after: Scope) -> Function:
    """What the commands of a function change, whatever the values are before a call."""
    changed = after.set_names | after.unset_names
    effects = (text for name, text in _EFFECTS.items() if getattr(after, name) != getattr(before, name))
    return Function(changed, after.exported_names, tuple(effects))
