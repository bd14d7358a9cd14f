"""What the part of a script that runs under a condition adds to the variables and settings after it."""

import re
from collections.abc import Collection, Iterator
from dataclasses import replace

from recipectl.importers.draft import UNKNOWN_VALUE, VARIABLE_ALONE, host_variable
from recipectl.importers.lines import Remark
from recipectl.importers.secret_names import is_likely_secret
from recipectl.importers.shell_scope import Scope, Variable, is_known

NOT_RUN = "as it is, the script does not run it"
# Values that are shown without being used: options, paths, names of models, short numbers, host variables.
_PLAIN = re.compile(
    rf"(… )?(-[^@]*|/[^\s@]*|[\w.-]+/[\w./-]+|[0-9]{{0,6}}(\.[0-9]+)?|{VARIABLE_ALONE.pattern}"
    r"|(?i:true|false|on|off|yes|no|none|auto|debug|info|warning|error|spawn|fork|mp|ray|awq|gptq|half)"
    r"|(b?float|[a-z]?int|b?fp|bf|i?q)[0-9]{1,2}\w{0,8})"
)


def merge(
    scope: Scope,
    after: Scope,
    line: int,
    *,
    wins: bool,
    unset: Collection[str] = (),
    tested: Collection[str] = (),
) -> list[Remark]:
    """Add to a scope what it was after a part under a condition; what must be said of that.

    The part's values win, or only add what is unknown else. The names in `unset` stay without a value. Those
    in `tested` keep theirs: a test of a value that is not known may say no.
    """
    _merge_variables(scope, after, line, wins=wins, unset=unset, tested=tested)
    sentences = [
        Remark(f"`{name}` is exported under a condition; here it is not set", line)
        for name in sorted(after.exported_names & {*unset} - scope.exported_names)
    ]
    scope.exported_names |= after.exported_names - {*unset}
    scope.has_unknown_variables |= after.has_unknown_variables
    scope.required |= after.required
    scope.add_dropped(after.dropped)
    return [*sentences, *_settings(scope, after, line, wins=wins, adds=True)]


def name_not_run(scope: Scope, other: Scope, line: int) -> list[Remark]:
    """What must be said of a part that does not run: what it would change in a scope."""
    sentences = []
    for name in [*other.variables, *(other.dropped.keys() - other.variables.keys())]:
        known = scope.variables.get(name)
        scope.set_elsewhere.add(name)
        if known is None:
            scope.leave_unset(name)
        own = (other.variables[name],) if name in other.variables else ()
        values = [
            value
            for value in (*own, *other.dropped.get(name, ()))
            if known is None or known.text != value.text
        ]
        if values and (name in other.set_names or name in other.dropped) and name.isidentifier():
            shown = " or ".join(dict.fromkeys(_value_shown(name, value, known) for value in values))
            sentences.append(_not_here(f"`{name}` is {shown}", values[0].line or line))
    for name in other.without_value.keys() - scope.variables.keys():  # what a part within it leaves unset
        scope.leave_unset(name)
    for name in sorted(other.unset_names & scope.variables.keys()):
        sentences.append(_not_here(f"`{name}` is unset", line))
    for name in sorted(other.exported_names - scope.exported_names):
        sentences.append(_not_here(f"`{name}` is exported", line))
    return [*sentences, *_settings(scope, other, line, wins=False, adds=False)]


def not_run(remark: Remark) -> Remark:
    """What is lost, as a part loses it that does not run."""
    if remark.about == "not here":
        return remark
    return replace(remark, sentence=f"{remark.sentence}; {NOT_RUN}", about="not here")


def _value_shown(name: str, variable: Variable, known: Variable | None) -> str:
    """A value that is not used here, for a sentence."""
    if variable.text == host_variable(name):
        return "set"
    shown = _shown(name, variable.text, known.text if known else "").replace(UNKNOWN_VALUE, "…")
    # It may be a secret, whatever the name says: nobody uses it here, so nothing tells.
    shown = shown if _PLAIN.fullmatch(shown) else "…"
    return f"`{shown}`" if shown else "empty"


def _not_here(sentence: str, line: int) -> Remark:
    return Remark(f"{sentence} under a condition, which does not hold here", line, about="not here")


def _merge_variables(
    scope: Scope, after: Scope, line: int, *, wins: bool, unset: Collection[str], tested: Collection[str]
) -> None:
    for name in scope.variables.keys() - after.variables.keys():  # `unset`
        remark = Remark(f"`{name}` is unset under a condition", line)
        before = scope.variables[name]
        scope.variables[name] = replace(before, remarks=(*before.remarks, remark))
    for name, variable in after.variables.items():
        known = scope.variables.get(name)
        if known == variable:
            continue
        place = variable.line or line
        if name in unset:
            scope.leave_unset(name, Remark(f"`{name}` is set under a condition, and not here", place))
            scope.drop(name, variable)
            continue
        replaces = name not in tested and (
            known is None or is_known(variable.text) or not is_known(known.text) or _adds(variable, known)
        )
        kept = variable if known is None or (wins and replaces) else known
        shown = _shown(name, kept.text, known.text if known else "")
        other = ""
        if kept.text != variable.text:
            scope.drop(name, variable)
            other = f", not {_value_shown(name, variable, known)}"
        remark = Remark(f"`{name}` is set under a condition; its value here is `{shown}`{other}", place)
        scope.variables[name] = replace(kept, remarks=(*kept.remarks, remark))


def _adds(variable: Variable, known: Variable) -> bool:
    """Whether a value is the one before it with more at its end, all of which the host can tell."""
    is_array = variable.elements is not None and known.elements is not None
    added = (variable.elements or ())[: len(known.elements or ())] == known.elements
    extends = added if is_array else variable.text.startswith(known.text)
    return extends and UNKNOWN_VALUE not in variable.text


def _shown(name: str, text: str, before: str) -> str:
    """A value for a sentence; of one that begins with the value before it, what it adds."""
    added = text.removeprefix(before)
    shown = f"… {added.strip()}" if before and added and added != text else text
    return "…" if is_likely_secret(name, text) else shown


def _settings(scope: Scope, after: Scope, line: int, *, wins: bool, adds: bool) -> Iterator[Remark]:
    if after.exports_all != scope.exports_all:
        option = "set -a" if after.exports_all else "set +a"
        yield Remark(f"`{option}` under a condition; here it {'counts' if wins else 'does not count'}", line)
        scope.exports_all = after.exports_all if wins else scope.exports_all
    for setting, value in after.service.items() - scope.service.items():
        if wins:
            scope.service[setting] = value
        kept_value = scope.service.get(setting, "systemd's default")
        yield Remark(f"`{setting}={value}` under a condition; here it is {kept_value}", line)
    is_shifted = after.shifted != scope.shifted and adds
    if after.arguments != scope.arguments or is_shifted:
        words, known_words = (
            Variable(elements=after.arguments or ()),
            Variable(elements=scope.arguments or ()),
        )
        value = "" if is_shifted else f": {_value_shown('@', words, known_words)}"
        sentence = f"`$@` is set under a condition; here it {'is' if wins else 'is not'}{value}"
        yield Remark(sentence, line, about="run alone" if is_shifted else "")
        if wins:
            scope.arguments, scope.shifted = after.arguments, after.shifted
    for place in ("venv", "conda_environment", "folder"):
        known_place, new = getattr(scope, place), getattr(after, place)
        if known_place != new and new is None:
            yield Remark(f"`{known_place}` is not used under a condition; here it is", line)
        elif known_place != new:
            kept_place = new if wins else known_place or (new if adds else None)
            setattr(scope, place, kept_place)
            here = "; the recipe uses it" if kept_place == new else f"; here it is `{kept_place}`"
            here = here if kept_place else "; the recipe does not use it"
            yield Remark(f"`{new}` is used under a condition{here}", line)
