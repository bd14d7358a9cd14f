"""What a call of a script's own function changes."""

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from recipectl.importers.shell_scope import Scope

# A field of the scope -> the words for it.
_EFFECTS = {
    "folder": "the folder",
    "venv": "the venv",
    "conda_environment": "conda's environment",
    "service": "limits",
    "exports_all": "`set -a`",
    "has_unknown_variables": "variables that a file or a program sets",
}


class Function(NamedTuple):
    """The variables that a function changes, those that it exports, and what else it changes, in words."""

    variables: set[str]
    exported: set[str]
    effects: tuple[str, ...]
    calls: frozenset[str] = frozenset()  # programs that it runs, which may be functions that come later
    sets_unknown_variables: bool = False
    ends: bool = False  # the script


def function_of(before: Scope, after: Scope, calls: Iterable[str] = ()) -> Function:
    """What the commands of a function change."""
    changed = {name for name, variable in after.variables.items() if before.variables.get(name) != variable}
    changed |= after.set_names | after.unset_names  # what it sets may have another value at a call
    effects = (text for name, text in _EFFECTS.items() if getattr(after, name) != getattr(before, name))
    return Function(
        variables=changed,
        exported=after.exported_names,
        effects=tuple(effects),
        calls=frozenset(calls),
        sets_unknown_variables=after.has_unknown_variables,
        ends=after.ends_script,
    )


def with_called(name: str, functions: Mapping[str, Function]) -> Function:
    """What a call of a function changes, with all that it calls."""
    names: set[str] = set()
    remaining = [name]
    while remaining:
        called = remaining.pop()
        if called in functions and called not in names:
            names.add(called)
            remaining += functions[called].calls
    every = [functions[called] for called in sorted(names)]
    return Function(
        variables={variable for function in every for variable in function.variables},
        exported={variable for function in every for variable in function.exported},
        effects=tuple(dict.fromkeys(effect for function in every for effect in function.effects)),
        sets_unknown_variables=any(function.sets_unknown_variables for function in every),
        ends=any(function.ends for function in every),
    )
