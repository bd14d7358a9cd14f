"""What bash cuts from the value of a variable, replaces in it, and writes in another case."""

import re
from fnmatch import fnmatchcase

from recipectl.importers.shell_scope import Variable, is_known
from recipectl.importers.shell_syntax import Node

CUTS = ("#", "##", "%", "%%")
_PLAIN = re.compile(r"(?:\\/|[\w ./:,@+-])*", re.ASCII)


def changed(variable: Variable | None, node: Node) -> str | None:
    """The text of `${NAME##*/}`, `${NAME//a/b}`, `${NAME,,}` and so on; None where a shell must find it."""
    if variable is None or variable.elements is not None or not is_known(variable.value):
        return None
    text = variable.value
    if node.Repl:
        return _replaced(text, node)
    operator = str(node.Exp.Op)
    if operator in CUTS:
        return _without(text, operator, node)
    if node.Exp.Word or not text.isascii():  # other letters depend on the locale
        return None
    match operator:
        case ",,":
            return text.lower()
        case "^^":
            return text.upper()
        case ",":
            return text[:1].lower() + text[1:]
        case "^":
            return text[:1].upper() + text[1:]
        case _:
            return None


def expansion_shown(node: Node, name: str) -> str:
    """An expansion that is not read, with the sign of what it does."""
    signs = {"!": node.Excl, "#": node.Length}
    sign = "".join(sign for sign, is_there in signs.items() if is_there)
    rest = "/…" if node.Repl else ":…" if node.Slice else ""
    return f"${{{sign}{name}{rest}}}"


def _plain(word: Node | None) -> str | None:
    """A word without quotes, variables and patterns; None for any other."""
    parts = word.Parts or [] if word else []
    text = "".join(str(part.Value) if part.Type == "Lit" else "$" for part in parts)
    return text.replace("\\/", "/") if _PLAIN.fullmatch(text) else None


def _replaced(text: str, node: Node) -> str | None:
    original, replacement = _plain(node.Repl.Orig), _plain(node.Repl.With)
    if not original or replacement is None:
        return None
    return text.replace(original, replacement, -1 if node.Repl.All else 1)


def _without(text: str, operator: str, node: Node) -> str | None:
    parts = node.Exp.Word.Parts if node.Exp.Word else []
    pattern = "".join(str(part.Value) if part.Type == "Lit" else "[" for part in parts)
    if re.search(r"[\[\\~]", pattern):
        return None
    lengths = range(len(text), -1, -1) if len(operator) == 2 else range(len(text) + 1)
    if operator.startswith("#"):
        cuts = ((text[:length], text[length:]) for length in lengths)
    else:
        cuts = ((text[len(text) - length :], text[: len(text) - length]) for length in lengths)
    return next((rest for part, rest in cuts if fnmatchcase(part, pattern)), text)
