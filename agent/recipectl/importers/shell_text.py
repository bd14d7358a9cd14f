"""A shell script as text: a position in it, and what ends a quote, a bracket and a here-document."""

import re
from dataclasses import dataclass, field

from recipectl.errors import UsageError
from recipectl.importers.draft import AS_IT_RUNS

_FILE = r"\$(?:0|\{0\}|BASH_SOURCE|\{BASH_SOURCE(?:\[0\])?\})"
_DIRNAME = rf"dirname(?:--)?(?:{_FILE}|\$\((?:realpath|readlink-f)(?:--)?{_FILE}\))"
_OWN_FOLDER = re.compile(
    rf"pwd(?:-P)?|{_DIRNAME}|cd(?:-P)?(?:--)?\$\({_DIRNAME}\)(?:&?>/dev/null(?:2>&1)?)?(?:&&|;)pwd(?:-P)?"
)


def own_folder(substitution: str, folder: str | None, script_folder: str | None) -> str | None:
    """The folder that a script finds with `$(…)`: its own, from which most are started, or where it is."""
    text = re.sub(r"[\s\"']", "", substitution)
    if text == "pwd" and folder:
        return folder
    return script_folder if _OWN_FOLDER.fullmatch(text) else None


@dataclass
class Scope:
    """What a subshell gets from its parent; a change in the subshell does not reach the parent."""

    variables: dict[str, str] = field(default_factory=dict)
    exported_names: set[str] = field(default_factory=set)
    arrays: dict[str, list[str]] = field(default_factory=dict)
    folder: str | None = None
    venv: str | None = None
    script_folder: str | None = None  # where the script's file is
    conda_folder: str | None = None
    conda_environment: str | None = None


class ScriptText:
    """A script and the position up to which it is read; `line` counts from 1."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.position = 0
        self.line = 1
        self.not_carried_over: list[str] = []

    @property
    def at_end(self) -> bool:
        return self.position >= len(self.text)

    def error(self, sentence: str) -> UsageError:
        return UsageError(f"line {self.line} of the command: {sentence}; {AS_IT_RUNS}")

    def report(self, text: str) -> None:
        """Note what is not carried over, with the current line."""
        self.not_carried_over.append(f"line {self.line}: {text}")

    def next_is(self, *characters: str) -> bool:
        """Whether one of these characters is next; "" is the end of the script."""
        return self.text[self.position : self.position + 1] in characters

    def take(self) -> str:
        """The next character; it is read."""
        character = self.text[self.position]
        self.position += 1
        self.line += character == "\n"
        return character

    def read_to_single_quote(self) -> str:
        end = self.text.find("'", self.position)
        if end < 0:
            raise self.error("a `'` is never closed; close it")
        text = self.text[self.position : end]
        self.line += text.count("\n")
        self.position = end + 1
        return text

    def read_to_closing(self, opening: str, closing: str) -> str:
        """The text up to the bracket that closes the one just read; brackets in quotes do not count."""
        depth = 1
        start = self.position
        quote = ""
        while not self.at_end:
            character = self.take()
            if character == "\\":
                self.position += 1
            elif quote:
                quote = "" if character == quote else quote
            elif character in "\"'":
                quote = character
            elif character in (opening, closing):
                depth += 1 if character == opening != closing else -1
                if depth == 0:
                    return self.text[start : self.position - 1]
        raise self.error(f"a `{opening}` is never closed; close it")

    def skip_heredocs(self, delimiters: list[str]) -> None:
        """Skip the here-documents that begin at this line, in the order of their delimiters."""
        for delimiter in delimiters:
            while not self.at_end:
                line, newline, _ = self.text[self.position :].partition("\n")
                self.position += len(line) + len(newline)
                self.line += 1
                if line.strip() == delimiter:
                    break
