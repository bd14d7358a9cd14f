"""What the part of a script that runs under a condition adds to the variables and settings after it."""

from collections.abc import Iterator
from dataclasses import replace

from recipectl.importers.secret_names import is_likely_secret
from recipectl.importers.shell_scope import Scope, Variable


def merge(scope: Scope, after: Scope, line: int, *, wins: bool, unset: set[str]) -> list[str]:
    """Add to a scope what it was after a part under a condition; what must be said of that.

    The part's values win, or only add what is unknown else. The names in `unset` stay without a value.
    """
    _merge_variables(scope, after, line, wins=wins, unset=unset)
    return [*_exports(scope, after, line, unset, wins=wins), *_settings(scope, after, line, wins=wins)]


def _merge_variables(scope: Scope, after: Scope, line: int, *, wins: bool, unset: set[str]) -> None:
    for name in scope.variables.keys() - after.variables.keys():  # `unset`
        remark = f"line {line}: `{name}` is unset under a condition"
        before = scope.variables[name]
        scope.variables[name] = replace(before, remarks=(*before.remarks, remark))
    for name, variable in after.variables.items():
        known = scope.variables.get(name)
        if known == variable:
            continue
        kept = Variable() if name in unset else variable if wins or known is None else known
        start = known.text if known else ""
        added = kept.text.removeprefix(start)
        shown = f"… {added.strip()}" if start and added and added != kept.text else kept.text
        shown = "…" if is_likely_secret(name, kept.text) else shown
        remark = f"line {line}: `{name}` is set under a condition; its value here is `{shown}`"
        scope.variables[name] = replace(kept, remarks=(*kept.remarks, remark))


def _exports(scope: Scope, after: Scope, line: int, unset: set[str], *, wins: bool) -> Iterator[str]:
    for name in sorted(after.exported_names & unset - scope.exported_names):
        yield f"line {line}: `{name}` is exported under a condition; here it is not set"
    scope.exported_names |= after.exported_names - unset
    if after.exports_all != scope.exports_all:
        option = "set -a" if after.exports_all else "set +a"
        yield f"line {line}: `{option}` under a condition; here it {'counts' if wins else 'does not count'}"
        scope.exports_all = after.exports_all if wins else scope.exports_all


def _settings(scope: Scope, after: Scope, line: int, *, wins: bool) -> Iterator[str]:
    for setting, value in after.service.items() - scope.service.items():
        if wins:
            scope.service[setting] = value
        kept_value = scope.service.get(setting, "systemd's default")
        yield f"line {line}: `{setting}={value}` under a condition; here it is {kept_value}"
    if (after.arguments, after.shifted) != (scope.arguments, scope.shifted):
        yield f"line {line}: `$@` is set under a condition; here it {'is' if wins else 'is not'}"
        if wins:
            scope.arguments, scope.shifted = after.arguments, after.shifted
    for place in ("venv", "conda_environment", "folder"):
        known_place, new = getattr(scope, place), getattr(after, place)
        if known_place != new:
            kept_place = new if wins else known_place or new
            setattr(scope, place, kept_place)
            here = "and here" if kept_place == new else f"here it is `{kept_place}`"
            yield f"line {line}: `{new}` is used under a condition; {here}"
