"""Files of variables that a script reads with `source`, such as `.env`."""

from recipectl.errors import RecipectlError
from recipectl.importers.lines import at
from recipectl.importers.shell_scope import Scope
from recipectl.importers.shell_syntax import Fault, Node, statements
from recipectl.importers.shell_words import Words
from recipectl.importers.variables import read_variables

_NEED_A_SHELL = ("ParamExp", "CmdSubst", "ArithmExp", "ProcSubst", "ExtGlob")


def text_of(file: str) -> str:
    """The text of a file; empty where it cannot be read."""
    try:
        return read_variables(file, [])
    except (OSError, RecipectlError):
        return ""


def variables_of(file: str, place: str, lost: list[str]) -> dict[str, tuple[str, bool]] | None:
    """The values that a file gives to variables, and if it exports them; None where it does more."""
    try:
        with at(place, lost):
            text = read_variables(file, lost)
        nodes = [*statements(text.replace("\r\n", "\n") + "\n")]
    except (OSError, RecipectlError):
        return None
    variables: dict[str, tuple[str, bool]] = {}
    for node in nodes:
        if isinstance(node, Fault) or not (items := _assignments(node)):
            return None
        is_exported = node.Cmd.Type == "DeclClause"
        for item in items:
            was_exported = variables.get(item.Name.Value, ("", False))[1]
            value = Words(Scope()).value(item.Value)
            variables[item.Name.Value] = (value, is_exported or was_exported)
    return variables


def _assignments(node: Node) -> list[Node]:
    """The assignments of a statement; none where a part of it needs a running shell."""
    command = node.Cmd
    if not command or node.Redirs or node.Background or any(any(node.texts(kind)) for kind in _NEED_A_SHELL):
        return []
    if command.Type == "DeclClause" and command.Variant.Value == "export":
        items = command.Args or []
    else:
        items = (command.Assigns or []) if command.Type == "CallExpr" and not command.Args else []
    is_plain = all(
        item.Name and not (item.Naked or item.Append or item.Index or item.Array) for item in items
    )
    return items if is_plain else []
