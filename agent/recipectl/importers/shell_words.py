"""The words of a shell's command: quotes, variables, arrays and defaults, as bash expands them."""

import re
from dataclasses import replace

from recipectl.compiler.secrets import has_secret
from recipectl.errors import UsageError
from recipectl.importers.command import ASSIGNMENT
from recipectl.importers.draft import UNKNOWN_VALUE, VARIABLE_START, host_variable
from recipectl.importers.lines import About, Remark
from recipectl.importers.shell_arithmetic import result
from recipectl.importers.shell_expansions import CUTS, changed, expansion_shown
from recipectl.importers.shell_parameters import Parameters
from recipectl.importers.shell_quotes import ansi_text
from recipectl.importers.shell_scope import Scope, Variable, is_known
from recipectl.importers.shell_substitutions import known_text, part_of_path
from recipectl.importers.shell_syntax import Node, all_elements

# Private characters, which no script may have: the end of a field, and the place of a quoted text.
_FIELD_END = "\ue003"
_QUOTED = "\ue004"
MAX_VALUE = 128 * 1024  # of a word that is executed (execve(2), MAX_ARG_STRLEN)
_UNKNOWN: tuple[About, ...] = ("number", "substitution")
_BLANKS = " \t\n"
_PATTERN = re.compile(r"[*?[]")
_SUBSTITUTION = "recipectl does not run substitutions"
_BRACES = re.compile(r"\{[^{}\s]*(,|\.\.)[^{}\s]*\}")


class Words(Parameters):
    """Expands words with the variables of a scope; `remarks` collects what must be said of the result.

    What only a running shell knows becomes UNKNOWN_VALUE, with the reason in `remarks`.
    """

    def __init__(self, scope: Scope, *, is_test: bool = False) -> None:
        super().__init__(scope, is_test=is_test)
        self.reasons: list[Remark] = []  # why a value is unknown
        self.is_quoted = False  # within double quotes
        self.is_value = False  # within the value of an assignment

    def fields(self, words: list[Node]) -> list[str]:
        """The words of a command: split at blanks outside quotes."""
        return [field for word in words for field in self._fields_of(word)]

    def value(self, word: Node | None) -> str:
        """The value of an assignment, which is not split."""
        self.is_value = True
        text = self._text(word, splits=False, is_assignment=True) if word else ""
        self.is_value = False
        return _plain(text.replace(_FIELD_END, " "))

    def _fields_of(self, word: Node) -> list[str]:
        is_assignment = bool(
            word.Parts and word.Parts[0].Type == "Lit" and ASSIGNMENT.match(word.Parts[0].Value)
        )
        text = self._text(word, splits=True, is_assignment=is_assignment)
        literal = "".join(_unescaped(part.Value, "_") if part.Type == "Lit" else "_" for part in word.Parts)
        if _BRACES.search(literal):
            return [self.unknown(word, f"`{_plain(text)}` has braces that a shell expands")]
        if _PATTERN.search(literal):
            self._remark(word, f"`{_plain(text)}` is a pattern of file names, kept as it is written")
        return [_plain(part) for part in text.split(_FIELD_END) if part]

    def _text(self, word: Node, *, splits: bool, is_assignment: bool) -> str:
        texts = []
        for part in word.Parts or ():
            self.scope.forget(part.assigned_names(), "by arithmetic", part.line)
        for index, part in enumerate(word.Parts or ()):
            if part.Type != "Lit":
                texts.append(self._part(part, splits=splits))
                continue
            is_first, is_last = index == 0, index == len(word.Parts) - 1
            texts.append(self._literal(part, is_first=is_first, is_last=is_last, is_assignment=is_assignment))
        text = "".join(texts)
        if len(text) > MAX_VALUE:
            raise too_long()
        return text

    def _literal(self, part: Node, *, is_first: bool, is_last: bool, is_assignment: bool) -> str:
        """A text without quotes; `~` is the home folder at its start, and in the paths of an assignment."""
        text = str(part.Value)
        if "~" in text:
            start = r"(?:^|(?<=[:=]))" if is_assignment else "^"
            start = start if is_first else r"(?<=:)" if is_assignment else "(?!)"
            end = r"(?=[/:]|$)" if is_last else "(?=[/:])"
            home = self.scope.variables.get("HOME", Variable(host_variable("HOME"))).value
            text = re.sub(f"{start}~{end}", home.replace("\\", r"\\"), text)
            if is_first and re.match(r"~[\w+-]", text):
                return self.unknown(part, f"`{text}` begins with a folder that a shell finds")
        return _unescaped(text, r"\1")

    def _part(self, part: Node, *, splits: bool) -> str:
        match part.Type:
            case "SglQuoted" if self.is_quoted and not part.Dollar:  # within the default of a variable
                has_more = re.search(r"[$`\"\\]", part.Value or "")
                fault = "single quotes within double quotes do not quote"
                return self.unknown(part, fault) if has_more else f"{_QUOTED}'{part.Value or ''}'"
            case "SglQuoted":
                text = ansi_text(part.Value or "") if part.Dollar else part.Value or ""
                is_text = not re.search("[\ud800-\udfff]", text)
                return _QUOTED + text if is_text else self.unknown(part, "a byte of `$'…'` is not UTF-8")
            case "DblQuoted":
                return self._double_quoted(part)
            case "ParamExp":
                return self._parameter(part, splits=splits)
            case "CmdSubst":
                return self._split(part, self._substitution(part), splits=splits)
            case "ArithmExp":
                return self._arithmetic(part)
            case _:
                shown = "`<(…)`: " if part.Type == "ProcSubst" else ""
                return self.unknown(part, f"{shown}{_SUBSTITUTION}", "substitution")

    def _double_quoted(self, quoted: Node) -> str:
        was_quoted, self.is_quoted = self.is_quoted, True
        text = ""
        parts: list[Node] = quoted.Parts or []
        for part in parts:
            is_text = part.Type == "Lit"
            text += re.sub(r'\\(["\\$`])', r"\1", part.Value) if is_text else self._part(part, splits=False)
        self.is_quoted = was_quoted
        if not text and len(parts) == 1 and all_elements(parts[0]) == "@":
            return ""  # an array without elements is no word
        return _QUOTED + text.replace(_FIELD_END, f"{_QUOTED}{_FIELD_END}{_QUOTED}")

    def _split(self, node: Node, text: str, *, splits: bool) -> str:
        """A value outside quotes is split at blanks, and a pattern in it finds files."""
        if not splits:
            return text
        if _PATTERN.search(text):
            self._remark(node, f"`{text}` is a pattern of file names, kept as it is written")
        return self._split_text(node, text)

    def _split_text(self, node: Node, text: str) -> str:
        """A text split at the characters of IFS; of blanks, several are one separator (bash(1))."""
        separators = self._separators()
        if not separators.strip(_BLANKS):
            return re.sub(f"[{separators}]+", _FIELD_END, text) if separators else text
        if {*separators} & {*text} or not is_known(separators):
            return self.unknown(node, "`IFS` decides into which words it is split")
        return text

    def _separators(self) -> str:
        """The value of IFS: its first character joins, and all of them split."""
        value = self.scope.variables.get("IFS", Variable(_BLANKS)).text
        return _BLANKS if value == host_variable("IFS") else value

    def _substitution(self, node: Node) -> str:
        text = known_text(node.Source, self.scope)
        if text is not None:
            return text
        if part := part_of_path(node.Source, self.scope):
            self.remarks += part.remarks
            return part.value
        program = re.match(r"(?:\$\(|`)?\s*([\w./[-]+)", node.Source)
        shown = f"`$({program[1]} …)`: " if program and not has_secret(program[1]) else ""
        return self.unknown(node, f"{shown}{_SUBSTITUTION}", "substitution")

    def _arithmetic(self, node: Node) -> str:
        number = result(node.X, self._number)
        if number is None:
            return self.unknown(node, "a number in `$((…))` is not known", "number")
        return str(number)

    def _number(self, word: Node) -> str:
        return _plain(self._text(word, splits=False, is_assignment=False))

    def unknown(self, node: Node, reason: str, about: About = "shell") -> str:
        """The value that stands for what only a running shell knows."""
        self._remark(node, reason, about)
        self.reasons.append(Remark(reason, node.line))
        return UNKNOWN_VALUE

    def _parameter(self, node: Node, *, splits: bool) -> str:
        """The value of `$NAME`, `${NAME}`, `${NAME[@]}` or `${NAME:-default}`."""
        name = str(node.Param.Value)
        first = self._first_of_slice(node) if node.Slice and name in "@*" else 0
        is_part = node.Slice and not first
        if any((is_part, node.Excl, node.Names, node.NestedParam, node.Length, node.Repl)):
            return self._special(node, name, splits=splits)
        variable = self._known(node, name)
        if variable and variable.elements and first and UNKNOWN_VALUE not in variable.text:
            variable = replace(variable, elements=variable.elements[first - 1 :])
        if variable and UNKNOWN_VALUE in variable.text:
            # Not in front: the place of a refusal is the command's own.
            reasons = [remark for remark in variable.remarks if remark.about in _UNKNOWN] or variable.remarks
            self.reasons += (Remark(f"{remark.sentence} ({remark.place})") for remark in reasons)
        elements = all_elements(node)
        if elements and variable and variable.elements is not None and not node.Exp:
            separator = self._separators()[:1] if elements == "*" and not splits else _FIELD_END
            text = separator.join(self._split(node, each, splits=splits) for each in variable.elements)
            return text if splits or not variable.elements else _QUOTED + text  # one may be empty
        index = node.Index.Parts[0].Value if node.Index and node.Index.Parts else ""
        if variable and variable.elements and re.fullmatch("[0-9]{1,4}", index or "") and not node.Exp:
            return self._split(node, "".join(variable.elements[int(index) :][:1]), splits=splits)
        if name in "@*" or (node.Index and not elements) or (name in "#?-$!0" and variable is None):
            if name in "@*" and not node.Exp:
                self._remark(node, f"`${name}`, the arguments of the script")
                return ""
            return self.unknown(node, f"the value of `${name}` here is for a shell to find")
        if node.Exp:
            return self._with_operation(node, name, variable, splits=splits)
        if variable is None:
            return self._from_caller(node, name)
        value = variable.value if variable.elements is None else (*variable.elements, "")[0]
        return self._split(node, value, splits=splits)

    def _special(self, node: Node, name: str, *, splits: bool) -> str:
        """The value of `${#NAME[@]}` and of `${NAME/a/b}`; of others only a shell knows it."""
        text: str | None = None
        if node.Length:
            text = self._count(node, name) or None
        elif node.Repl and not any((node.Excl, node.Slice, node.Index, self.scope.has_other_patterns)):
            text = changed(self._known(node, name), node)
        if text is None:
            return self.unknown(node, f"the value of `{expansion_shown(node, name)}` is for a shell to find")
        return self._split(node, text, splits=splits)

    def _first_of_slice(self, node: Node) -> int:
        """The number of the first argument in `"${@:2}"`; 0 where it is not known, or not all of the rest."""
        if node.Slice.Length or (self.scope.arguments is None and self.is_value):
            return 0
        return max(0, result(node.Slice.Offset, self._number) or 0)

    def _operand(self, word: Node, *, splits: bool) -> str:
        """The text after an operator, which is split at the blanks that are outside quotes."""
        texts = []
        for part in word.Parts or ():
            text = self._text(Node({"Parts": [part]}), splits=splits, is_assignment=False)
            is_split = splits and part.Type == "Lit"
            texts.append(self._split_text(part, text) if is_split else text)
        return "".join(texts)

    def _with_operation(self, node: Node, name: str, variable: Variable | None, *, splits: bool) -> str:
        rest = changed(variable, node)
        operator = str(node.Exp.Op)
        if variable is None and operator in CUTS and self._is_missing(name):
            rest = ""
        if rest is not None:
            return self._split(node, rest, splits=splits)
        if variable and variable.elements is not None and operator.strip(":") in ("-", "="):
            return self._elements_or_default(node, variable, splits=splits)
        has_none = (variable.text == "" and operator == ":?") if variable else self._is_missing(name)
        if operator.strip(":") == "?" and has_none:
            return self.unknown(node, f"the script ends where `${{{name}{operator}…}}` has no value")
        return self._with_operator(node, name, variable, splits=splits)

    def _elements_or_default(self, node: Node, variable: Variable, *, splits: bool) -> str:
        """`${NAME[@]:-default}` of an array."""
        if not variable.elements:
            return self._operand(node.Exp.Word or Node({}), splits=splits)
        if all(variable.elements):
            return self._parameter(node.without("Exp"), splits=splits)
        return self.unknown(node, "an element of an array is empty")

    def _with_operator(self, node: Node, name: str, variable: Variable | None, *, splits: bool) -> str:
        """`${NAME:-default}`, `${NAME:=default}`, `${NAME:?…}`, and `${NAME:+…}` of what the script sets."""
        operator = str(node.Exp.Op)
        word = node.Exp.Word or Node({})
        is_set = variable is not None and bool(variable.value or ":" not in operator)
        if variable is None:
            self._note_secret(node, name)
        match operator.strip(":"):
            case "-" | "=" if not is_set:
                default = self._operand(word, splits=splits)
                count = len(self.remarks)
                if variable is None and not self._is_missing(name):
                    self._note_default(node, name, _plain(default.replace(_FIELD_END, " ")))
                if "=" in operator:
                    value = _plain(default.replace(_FIELD_END, " "))
                    self.scope.variables[name] = Variable(value, remarks=tuple(self.remarks[count:]))
                    self.scope.set_names.add(name)
                return default
            case "-" | "=" | "?" if variable is not None:
                return self._split(node, variable.value, splits=splits)
            case "?":
                self.scope.required.add(name)
                return self._from_caller(node, name)
            case "+" if variable is not None and VARIABLE_START not in variable.value:
                return self._operand(word, splits=splits) if is_set else ""
            case "+" if variable is None:
                if not self._is_missing(name):
                    self._remark_unset(node, name)
                return ""
        return self.unknown(node, f"the value of `${{{name}{operator}…}}` is for a shell to find")


def too_long() -> UsageError:
    """The error for a value longer than any program takes: a few lines could fill the memory."""
    return UsageError("a value of the script is longer than 128 KiB, which no program takes; shorten it")


def _plain(text: str) -> str:
    return text.replace(_QUOTED, "")


def _unescaped(text: str, replacement: str) -> str:
    return re.sub(r"\\(.)", replacement, text, flags=re.S)
