"""A shell script of engine commands as words and environments: enough of POSIX sh for what people paste."""

import re
from dataclasses import dataclass, field

from recipectl.errors import UsageError
from recipectl.imports.draft import marked

_NAME = r"[A-Za-z_][A-Za-z0-9_]*"
ASSIGNMENT = re.compile(rf"({_NAME})=(.*)\Z", re.S)
_BRACED = re.compile(rf"({_NAME})(?:(:?[-=])(.*))?\Z", re.S)
_QUIET = {
    "[",
    "test",
    "[[",
    "exit",
    "return",
    "mkdir",
    "kill",
    "pkill",
    "tail",
    "local",
    "set",
    "echo",
    "printf",
    "sleep",
    "wait",
    "trap",
    "shopt",
    "true",
    ":",
    "pwd",
    "which",
    "date",
}
_KEYWORDS = {"if", "then", "elif", "else", "fi", "while", "until", "do", "done", "{", "}", "!"}
_BREAKS = ("&&", "||", ";;", ";", "&", "|", "\n")


@dataclass
class Command:
    """One engine command: its environment, its words, and the script's lines that came to nothing."""

    environment: dict[str, str]
    words: list[str]
    venv: str | None = None
    folder: str | None = None
    path: str | None = None  # what PATH begins with
    lost: list[str] = field(default_factory=list)


class _Shell:
    """Reads a script once, from left to right, expanding as it goes."""

    def __init__(self, text: str) -> None:
        # A continued line is one line; comments end at theirs.
        self.text, self.at, self.line = text.replace("\r\n", "\n"), 0, 1
        self.variables: dict[str, str] = {}
        self.exported: set[str] = set()
        self.commands: list[Command] = []
        self.venv: str | None = None
        self.folder: str | None = None
        self.lost: list[str] = []
        self.heredocs: list[str] = []

    def wrong(self, sentence: str) -> UsageError:
        return UsageError(f"line {self.line} of the command: {sentence}")

    def value(self, name: str) -> str | None:
        return self.variables.get(name)

    def _dollar(self) -> str | list[str]:
        """What stands after a `$`: a known value as it is, else a variable of the host."""
        rest = self.text[self.at :]
        if match := re.match(_NAME, rest):
            self.at += match.end()
            known = self.value(match[0])
            return marked(match[0]) if known is None else known
        if rest.startswith("{"):
            end = rest.find("}")
            inner = _BRACED.match(rest[1:end]) if end > 0 else None
            if inner is None:
                raise self.wrong(
                    f"`${rest[: end + 1] or rest[:20]}` cannot be expanded here; write its result"
                )
            self.at += end + 1
            known = self.value(inner[1])
            if known is None and inner[2]:
                self.lost.append(f"line {self.line}: `${{{inner[1]}}}` is taken as its default `{inner[3]}`")
                return inner[3]
            return marked(inner[1]) if known is None else known
        if rest.startswith("("):
            raise self.wrong("a command substitution cannot be run here; write its result")
        if rest[:1] in "@*#?!$0123456789" and rest[:1]:
            self.at += 1
            self.lost.append(f"line {self.line}: `${rest[0]}`, the script's own arguments or status")
            return ""
        return "$"

    def _double(self) -> str:
        found = ""
        while self.at < len(self.text):
            char = self.text[self.at]
            self.at += 1
            if char == '"':
                return found
            if char == "\\" and self.text[self.at : self.at + 1] in ('"', "\\", "$", "`", "\n"):
                found += "" if self.text[self.at] == "\n" else self.text[self.at]
                self.at += 1
            elif char == "`":
                raise self.wrong("a command substitution cannot be run here; write its result")
            elif char == "$":
                found += "".join(self._dollar())
            else:
                found += char
        raise self.wrong('a `"` is never closed; close it')

    def words(self) -> tuple[list[str], bool]:
        """The words up to the next separator, and whether there is more."""
        found: list[str] = []
        word: str | None = None
        skip = False  # the target of a redirection

        def end() -> None:
            nonlocal word, skip
            if word is not None and not skip:
                found.append(word)
            if word is not None:
                skip = False
            word = None

        while self.at < len(self.text):
            char = self.text[self.at]
            if char == "\\" and self.text[self.at + 1 : self.at + 2] == "\n":
                self.at, self.line = self.at + 2, self.line + 1
                continue
            if broke := next((b for b in _BREAKS if self.text.startswith(b, self.at)), None):
                if broke == "&" and self.text[self.at + 1 : self.at + 2] == ">":
                    end()
                    self.at, skip = self.at + 2, True
                    continue
                end()
                self.at += len(broke)
                if broke == "\n":
                    self.line += 1
                    self._skip_heredocs()
                return found, True
            self.at += 1
            if char in " \t":
                end()
            elif char == "#" and word is None:
                stop = self.text.find("\n", self.at)
                self.at = len(self.text) if stop < 0 else stop
            elif char in "()":  # a subshell's or a function's: what is inside is read like the rest
                end()
                if found:
                    return found, True
            elif char == "<" and (heredoc := re.match(r"<-?\s*(['\"]?)([\w.-]+)\1", self.text[self.at :])):
                end()
                self.at += heredoc.end()
                self.heredocs.append(heredoc[2])
            elif char in "<>":
                if word is not None and word.isdigit():
                    word = None
                end()
                while self.text[self.at : self.at + 1] in ("<", ">", "&"):
                    self.at += 1
                skip = True
            elif char == "'":
                stop = self.text.find("'", self.at)
                if stop < 0:
                    raise self.wrong("a `'` is never closed; close it")
                word = (word or "") + self.text[self.at : stop]
                self.line += self.text.count("\n", self.at, stop)
                self.at = stop + 1
            elif char == '"':
                word = (word or "") + self._double()
            elif char == "\\":
                word = (word or "") + self.text[self.at : self.at + 1]
                self.at += 1
            elif char == "`":
                raise self.wrong("a command substitution cannot be run here; write its result")
            elif char == "$":
                pieces = "".join(self._dollar()).split(" ") if word is None else ["".join(self._dollar())]
                # Without quotes a value of several words is several words; within one (`--x=$A`) it stays.
                *whole, last = [piece for piece in pieces if piece] or [""]
                found.extend(whole if not skip else ())
                word = (word or "") + last if last else word
            elif char == "~" and word is None and self.text[self.at : self.at + 1] in ("/", "", " "):
                word = marked("HOME")
            else:
                word = (word or "") + char
        end()
        return found, False

    def _skip_heredocs(self) -> None:
        for delimiter in self.heredocs:
            while self.at < len(self.text):
                line, newline, _ = self.text[self.at :].partition("\n")
                self.at, self.line = self.at + len(line) + len(newline), self.line + 1
                if line.strip() == delimiter:
                    break
        self.heredocs = []

    def run(self) -> list[Command]:
        more = True
        while more:
            before = self.line
            words, more = self.words()
            if words:
                self._command(words, before)
        return self.commands

    def _assign(self, words: list[str]) -> tuple[dict[str, str], list[str]]:
        given = {}
        while words and (match := ASSIGNMENT.match(words[0])):
            given[match[1]] = match[2]
            words = words[1:]
        return given, words

    def _command(self, words: list[str], line: int) -> None:
        while words and words[0] in _KEYWORDS:
            words = words[1:]
        given, rest = self._assign(words)
        if not rest:
            self.variables |= given
            return
        verb, *arguments = rest
        if verb in ("export", "declare", "typeset", "readonly"):
            arguments = [word for word in arguments if not word.startswith("-")]
            new, names = self._assign(arguments)
            self.variables |= new
            self.exported |= {*new, *names}
        elif verb in ("source", ".") and arguments and arguments[0].endswith("/bin/activate"):
            self.venv = arguments[0].removesuffix("/bin/activate")
        elif verb == "unset":
            for name in arguments:
                self.variables.pop(name, None)
                self.exported.discard(name)
        elif verb == "cd" and arguments:
            self.folder = arguments[0]
        elif verb in _QUIET:
            pass
        else:
            exported = {
                name: self.variables[name] for name in sorted(self.exported) if name in self.variables
            }
            one = Command(exported | given, rest, self.venv, self.folder, None, [])
            path = one.environment.pop("PATH", None) or self.variables.get("PATH")
            one.path = path
            one.lost, self.lost = self.lost, []
            self.commands.append(one)


def commands(text: str) -> list[Command]:
    """Every command of a script that is more than a shell's own, in order; UsageError where it must run."""
    return _Shell(text).run()


def split(words: list[str]) -> Command:
    """A command that a shell has split already: `NAME=value …` before the program is its environment."""
    environment = {}
    while words and (match := ASSIGNMENT.match(words[0])):
        environment[match[1]] = match[2]
        words = words[1:]
    path = environment.pop("PATH", None)
    return Command(environment, list(words), path=path)
