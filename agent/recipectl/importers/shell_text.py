"""A shell script as text: a position in it, and what ends a quote, a bracket and a here-document."""

from recipectl.errors import UsageError
from recipectl.importers.draft import AS_IT_RUNS


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
