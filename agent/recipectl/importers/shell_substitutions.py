"""The substitutions of a shell whose text is known without running them, as that of the script's folder."""

import os
import re
from dataclasses import replace

from recipectl.importers.draft import VARIABLE_START, host_variable
from recipectl.importers.shell_scope import Scope, Variable

_FILE = r"\$(?:0|\{0\}|BASH_SOURCE|\{BASH_SOURCE(?:\[0\])?\})"
# Substitutions are compared without quotes.
_DIRNAME = rf"dirname (?:-- )?(?:{_FILE}|\$\( ?(?:realpath|readlink -f) (?:-- )?{_FILE} ?\))"
_OWN_FOLDER = re.compile(
    rf"pwd(?: -P)?|{_DIRNAME}"
    rf"|cd (?:-P )?(?:-- )?\$\( ?{_DIRNAME} ?\)(?P<below>(?:/\.\.)*(?:/\w[\w.-]*)*)/?"
    r"(?: ?&?> ?/dev/null(?: 2>&1)?)? ?(?:&&|;) ?pwd(?: -P)?"
)
_WHICH = re.compile(r"(?:which|command -v|type -[pP]) (vllm|sglang|llama-server|python[0-9.]*)")

_OWN_IDS = {"id -u": host_variable("UID"), "id -g": host_variable("GID")}  # for docker's --user
_PART_OF_PATH = re.compile(
    r"(?:\$\(|`)\s*(basename|dirname)\s+(?:--\s+)?(\"?)\$(?:(\w+)|\{(\w+)\})\2\s*[)`]", re.ASCII
)
_PLAIN_PATH = re.compile(r"(/[\w.@+:-]+)+")


def part_of_path(source: str, scope: Scope) -> Variable | None:
    """`$(basename "$NAME")` or `$(dirname "$NAME")` of a path that is known; None for others."""
    match = _PART_OF_PATH.fullmatch(source)
    if not match or match[1] in scope.functions:
        return None
    variable = scope.variables.get(match[3] or match[4], Variable())
    if variable.elements is not None or not _PLAIN_PATH.fullmatch(variable.value):
        return None
    folder, _, name = variable.value.rpartition("/")
    return replace(variable, value=name if match[1] == "basename" else folder.rstrip("/") or "/")


def known_text(source: str, scope: Scope) -> str | None:
    """The text of `$(…)` or of backquotes; None for what only a running shell knows."""
    if re.fullmatch(r"`\s*#[^`]*`", source):
        return ""  # a comment between continued lines
    if "\n" in source.strip() or re.search(r"[\"']\s+\$", source):
        return None
    text = " ".join(re.sub(r"[\"']|^\$\(|\)$|^`|`$", "", source).split())
    if text in ("pwd", "pwd -P") and scope.folder:
        return scope.folder
    # It is the folder that most scripts are started from.
    own = _OWN_FOLDER.fullmatch(text)
    if scope.script_folder and own and not (".." in text and VARIABLE_START in scope.script_folder):
        return os.path.normpath(f"{scope.script_folder}{own['below'] or ''}")
    if engine := _WHICH.fullmatch(text):
        return engine[1]  # PATH decides, as it does for the word alone
    return _OWN_IDS.get(text)
