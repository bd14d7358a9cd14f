"""The words of a shell script's commands, after the expansions that need no running shell."""

import re
from collections.abc import Callable, Mapping
from copy import deepcopy
from typing import ClassVar

from recipectl.importers.draft import UNKNOWN_VALUE, host_variable
from recipectl.importers.shell_text import Scope, ScriptText, own_folder

_NAME = r"[A-Za-z_][A-Za-z0-9_]*"
ASSIGNMENT = re.compile(rf"({_NAME})(\+?)=(.*)\Z", re.S)  # name, `+` when it appends, value
_ARRAY_ASSIGNMENT = re.compile(rf"({_NAME})(\+?)=")
_ARRAY_ELEMENTS = re.compile(rf"({_NAME})\[[@*]\]\Z")
# What may follow a `$`.
_EXPANSION = re.compile(
    rf"(?P<name>{_NAME}|[1-9])|(?P<brace>\{{)|(?P<substitution>\()|(?P<arguments>[@*])|(?P<special>[#?!$0-])"
)
# Within `${…}`: name, operator, default.
_BRACED = re.compile(rf"({_NAME}|[0-9]+)(?:(:?[-=+?])(.*))?\Z", re.S)
_HEREDOC = re.compile(r"<-?\s*(['\"]?)([\w.-]+)\1")
_SEPARATOR = re.compile(r"&&|\|\||;;|[;&|\n]")
# It separates the elements of an array within a word. The character is private: no script has it.
_ELEMENT_END = "\ue003"


class WordReader(ScriptText):
    """Reads a script once, from left to right, and expands each word with the values known at that point."""

    def __init__(self, text: str, scope: Scope) -> None:
        super().__init__(text)
        self.scope = scope
        self.outer_scopes: list[Scope] = []
        self.subshells_to_leave = 0  # subshells that end with the current command
        self.condition_depth = 0  # open `if`, `while`, `for` and `case`
        self.case_depth = 0  # open `case`
        self.separator = "\n"  # the end of the last command
        self._heredocs: list[str] = []  # delimiters of the here-documents that follow this line
        self._start_command()

    def _start_command(self) -> None:
        self._words: list[str] = []
        self._word: str | None = None  # None between two words
        self._skips_next_word = False  # the target of a redirection
        self._command_ended = False

    def command_words(self) -> list[str]:
        """Read up to the next separator; returns the words of one command, none when it is empty.

        UsageError when a quote or a bracket is not closed.
        """
        self._start_command()
        while not self.at_end and not self._command_ended:
            self._read_next()
        self._end_word()
        return self._words

    def leave_subshells(self) -> None:
        """Restore the variables of the shell around each subshell that has ended."""
        while self.subshells_to_leave and self.outer_scopes:
            self.scope = self.outer_scopes.pop()
            self.subshells_to_leave -= 1
        self.subshells_to_leave = 0

    def _add(self, text: str) -> None:
        """Append to the current word, or begin one."""
        self._word = (self._word or "") + text

    def _end_word(self) -> None:
        if self._word is None:
            return
        # An array without elements gives no word.
        if self._word != _ELEMENT_END and not self._skips_next_word:
            self._words.extend(self._word.split(_ELEMENT_END))
        self._skips_next_word = False
        self._word = None

    def _read_next(self) -> None:
        """Read one separator, or one character with what belongs to it."""
        if self.text.startswith("\\\n", self.position):  # a continued line
            self.position += 2
            self.line += 1
            return
        if separator := _SEPARATOR.match(self.text, self.position):
            self.position = separator.end()
            self._read_separator(separator[0])
            return
        character = self.take()
        if handler := self._HANDLERS.get(character):
            handler(self)
        else:
            self._add(character)

    def _read_separator(self, separator: str) -> None:
        if separator == "&" and self.next_is(">"):  # `&> FILE`
            self._end_word()
            self.position += 1
            self._skips_next_word = True
            return
        if separator == "&" and self._word is None and self._skips_next_word:  # the `&` of `>&2`
            return
        self._end_word()
        self.separator = separator
        self._command_ended = True
        if separator == "\n":
            self.line += 1
            self.skip_heredocs(self._heredocs)
            self._heredocs = []

    def _read_comment(self) -> None:
        if self._word is not None:
            self._add("#")
            return
        end_of_line = self.text.find("\n", self.position)
        self.position = len(self.text) if end_of_line < 0 else end_of_line

    def _read_opening_parenthesis(self) -> None:
        """An array, a function or a subshell."""
        if self._word and (array := _ARRAY_ASSIGNMENT.fullmatch(self._word)):
            self._read_array(array[1], appends=bool(array[2]))
        elif self.next_is(")") and (self._word or self._words):
            # The name of a function is dropped; its body is read like any other commands.
            self.position += 1
            self._word = None
            self._words = []
        else:
            self._end_word()
            self.outer_scopes.append(self.scope)
            self.scope = deepcopy(self.scope)
            self._end_command_at_parenthesis("(")

    def _read_closing_parenthesis(self) -> None:
        if self.case_depth:  # a pattern of `case`
            self._word = None
            self._words = []
            return
        self._end_word()
        if self.outer_scopes:
            self.subshells_to_leave += 1
        self._end_command_at_parenthesis(")")

    def _end_command_at_parenthesis(self, parenthesis: str) -> None:
        """End the command; when there is none, go on reading."""
        if self._words:
            self.separator = parenthesis
            self._command_ended = True
        else:
            self.leave_subshells()

    def _read_array(self, name: str, *, appends: bool) -> None:
        elements_text = self.read_to_closing("(", ")").replace("\n", " ")
        scope = Scope(variables={**self.scope.variables}, arrays=self.scope.arrays)
        elements = WordReader(elements_text, scope).command_words()
        if self.condition_depth > 0:
            self.report(f"`{name}` is set under a condition; its value here is `{' '.join(elements)}`")
        self.scope.arrays[name] = [*(self.scope.arrays.get(name, []) if appends else []), *elements]
        self._word = None

    def _read_less_than(self) -> None:
        heredoc = _HEREDOC.match(self.text, self.position)
        if heredoc is None:
            self._read_redirection()
            return
        self._end_word()
        self.position = heredoc.end()
        self._heredocs.append(heredoc[2])

    def _read_redirection(self) -> None:
        if self._word is not None and self._word.isdigit():  # the number of a file descriptor
            self._word = None
        self._end_word()
        while self.next_is("<", ">", "&", "|"):
            self.position += 1
        self._skips_next_word = True

    def _read_backslash(self) -> None:
        self._add("" if self.at_end else self.take())

    def _read_single_quotes(self) -> None:
        self._add(self.read_to_single_quote())

    def _read_double_quotes(self) -> None:
        text = ""
        while not self.at_end:
            character = self.take()
            if character == '"':
                self._add(text)
                return
            if character == "\\" and self.next_is('"', "\\", "$", "`", "\n"):
                text += self.take().removeprefix("\n")
            elif character == "`":
                self.read_to_closing("`", "`")
                text += UNKNOWN_VALUE
            else:
                text += self._expand() if character == "$" else character
        raise self.error('a `"` is never closed; close it')

    def _read_backticks(self) -> None:
        self.read_to_closing("`", "`")
        self._add(UNKNOWN_VALUE)

    def _read_tilde(self) -> None:
        """`~` is the home folder at the start of a word, or of a part of an assigned path list."""
        before_path = self.next_is("/", "", " ", "\n", ":")
        word = self._word
        starts_path = word is None or (word.endswith(("=", ":")) and ASSIGNMENT.match(word))
        self._add(host_variable("HOME") if before_path and starts_path else "~")

    def _read_dollar(self) -> None:
        if self.next_is("'"):  # ANSI-C quotes
            self.position += 1
            text = self.read_to_single_quote()
            self._add(text.encode().decode("unicode_escape") if text.isascii() else text)
            return
        value = self._expand()
        # Without quotes, a value with blanks is several words, but not in an assignment.
        in_assignment = self._word is not None and ASSIGNMENT.match(self._word)
        first, *other_parts = [value] if in_assignment else re.split(r"[ \t\n]+", value)
        if first or self._word is not None:
            self._add(first)
        for part in other_parts:
            self._end_word()
            self._word = part or None

    def _expand(self) -> str:
        """What follows a `$`: a known value, a variable of the host, or UNKNOWN_VALUE."""
        expansion = _EXPANSION.match(self.text, self.position)
        if expansion is None:
            return "$"
        self.position = expansion.end()
        match expansion.lastgroup:
            case "name":
                return self._value(expansion[0])
            case "brace":
                return self._expand_braced(self.read_to_closing("{", "}"))
            case "substitution":
                text = self.read_to_closing("(", ")")
                return own_folder(text, self.scope.folder, self.scope.script_folder) or UNKNOWN_VALUE
            case "arguments":
                self.report(f"`${expansion[0]}`, the arguments of the script")
                return _ELEMENT_END
            case _:  # `$?`, `$#` and the like
                pass
        return UNKNOWN_VALUE

    def _value(self, name: str) -> str:
        return self.scope.variables.get(name, host_variable(f"ARG{name}" if name.isdigit() else name))

    def _expand_braced(self, text: str) -> str:
        """The value of `${text}`."""
        if array := _ARRAY_ELEMENTS.match(text):
            elements = self.scope.arrays.get(array[1])
            if elements is None:
                return self._value(array[1])
            return _ELEMENT_END.join(elements) if elements else _ELEMENT_END
        match = _BRACED.match(text)
        if match is None or match[2] in ("+", ":+"):
            return UNKNOWN_VALUE
        name, operator, default = match.groups()
        if name in self.scope.variables or not operator or "?" in operator:
            return self._value(name)
        return self._expand_default(name, operator, default)

    def _expand_default(self, name: str, operator: str, default: str) -> str:
        """The value of `${name:-default}`; `${name:=default}` also sets the variable."""
        scope = Scope(variables={**self.scope.variables})
        value = next(iter(WordReader(f'"{default}"', scope).command_words()), "")
        self.report(f"`${{{name}}}` has its default value here, `{value}`")
        if "=" in operator:
            self.scope.variables[name] = value
        return value

    _HANDLERS: ClassVar[Mapping[str, Callable[["WordReader"], None]]] = {
        " ": _end_word,
        "\t": _end_word,
        "#": _read_comment,
        "(": _read_opening_parenthesis,
        ")": _read_closing_parenthesis,
        "<": _read_less_than,
        ">": _read_redirection,
        "'": _read_single_quotes,
        '"': _read_double_quotes,
        "`": _read_backticks,
        "\\": _read_backslash,
        "$": _read_dollar,
        "~": _read_tilde,
    }
