"""A shell script of engine commands as words and environments: enough of bash for what people paste."""

import re
from dataclasses import dataclass, field

from recipectl.errors import UsageError
from recipectl.importers.draft import UNKNOWN, marked

_NAME = r"[A-Za-z_][A-Za-z0-9_]*"
ASSIGNMENT = re.compile(rf"({_NAME})=(.*)\Z", re.S)
_ASSIGN = re.compile(rf"({_NAME})(\+?)=(.*)\Z", re.S)
_BRACED = re.compile(rf"({_NAME}|[0-9]+)(?:(:?[-=+?])(.*))?\Z", re.S)
_ELEMENTS = re.compile(rf"({_NAME})\[[@*]\]\Z")
_QUIET = frozenset(
    """
    [ test [[ exit return mkdir kill pkill tail shift echo printf sleep wait trap shopt true : pwd which date
    nvidia-smi ulimit rm cat break continue read tee
    """.split()  # noqa: SIM905  (a list one can read)
)
_KEYWORDS = frozenset(
    ("if", "then", "elif", "else", "fi", "while", "until", "do", "done", "{", "}", "!", "esac")
)
_BREAKS = ("&&", "||", ";;", ";", "&", "|", "\n")
# Between the elements of an array within a word; private, so that no script has it.
_BETWEEN = "\ue003"


@dataclass
class Command:
    """One command: its environment, its words, and what of the script came to nothing before it."""

    environment: dict[str, str]
    words: list[str]
    venv: str | None = None
    folder: str | None = None
    path: str | None = None  # what PATH begins with
    lost: list[str] = field(default_factory=list)
    line: int = 1
    user: str | None = None


class _Shell:
    """Reads a script once, from left to right, expanding as it goes."""

    def __init__(self, text: str, variables: dict[str, str] | None = None) -> None:
        self.text, self.at, self.line = text, 0, 1
        self.variables: dict[str, str] = dict(variables or {})
        self.arrays: dict[str, list[str]] = {}
        self.exported: set[str] = {*self.variables}
        self.all_exported = False
        self.depth = 0  # of if, while, case
        self.cases = 0
        self.commands: list[Command] = []
        self.venv: str | None = None
        self.folder: str | None = None
        self.lost: list[str] = []
        self.heredocs: list[str] = []
        self.separator = "\n"  # what ended the command before
        self.condition = False  # `[ … ] &&` before this one
        self.outer: list[tuple[dict[str, str], set[str], dict[str, list[str]], str | None, str | None]] = []
        self.closing = 0  # subshells that end with this command

    def wrong(self, sentence: str) -> UsageError:
        return UsageError(f"line {self.line} of the command: {sentence}")

    def tell(self, text: str) -> None:
        self.lost.append(f"line {self.line}: {text}")

    # ── expansions

    def _closed(self, opening: str, closing: str) -> str:
        """The text up to the bracket that closes the one just read, and past it; quotes are respected."""
        depth, begun, quote = 1, self.at, ""
        while self.at < len(self.text):
            char = self.text[self.at]
            self.at += 1
            self.line += char == "\n"
            if char == "\\":
                self.at += 1
            elif quote:
                quote = "" if char == quote else quote
            elif char in "\"'":
                quote = char
            elif char in (opening, closing):
                depth += 1 if char == opening != closing else -1
                if depth == 0:
                    return self.text[begun : self.at - 1]
        raise self.wrong(f"a `{opening}` is never closed; close it")

    def _dollar(self) -> str:
        """What stands after a `$`: a known value, a variable of the host, or UNKNOWN (it must be run)."""
        rest = self.text[self.at :]
        if match := re.match(_NAME, rest):
            self.at += match.end()
            return self._known(match[0])
        if rest.startswith("{"):
            self.at += 1
            return self._braced(self._closed("{", "}"))
        if rest.startswith("("):
            self.at += 1
            self._closed("(", ")")
            return UNKNOWN
        if rest[:1] in ("@", "*"):
            self.at += 1
            self.tell(f"`${rest[0]}`, the script's own arguments")
            return _BETWEEN
        if rest[:1].isdigit() and rest[:1] != "0":
            self.at += 1
            return self._known(rest[0])
        if rest[:1] and rest[0] in "#?!$0-":
            self.at += 1
            return UNKNOWN
        return "$"

    def _known(self, name: str) -> str:
        if name in self.variables:
            return self.variables[name]
        return marked(f"ARG{name}" if name.isdigit() else name)

    def _braced(self, inner: str) -> str:
        if elements := _ELEMENTS.match(inner):
            name = elements[1]
            if name in self.arrays:
                return _BETWEEN.join(self.arrays[name]) if self.arrays[name] else _BETWEEN
            return self._known(name)
        match = _BRACED.match(inner)
        if match is None or match[2] in ("+", ":+"):
            return UNKNOWN
        name, how, default = match.groups()
        if name in self.variables or not how or "?" in how:
            return self._known(name)
        value = _Shell(f'"{default}"', self.variables).words()[0][0] if default else ""
        self.tell(f"`${{{name}}}` is taken as its default `{value}`")
        if "=" in how:
            self.variables[name] = value
        return value

    # ── words

    def _double(self) -> str:
        found = ""
        while self.at < len(self.text):
            char = self.text[self.at]
            self.at += 1
            self.line += char == "\n"
            if char == '"':
                return found
            if char == "\\" and self.text[self.at : self.at + 1] in ('"', "\\", "$", "`", "\n"):
                self.line += self.text[self.at] == "\n"
                found += "" if self.text[self.at] == "\n" else self.text[self.at]
                self.at += 1
            elif char == "`":
                self._closed("`", "`")
                found += UNKNOWN
            elif char == "$":
                found += self._dollar()
            else:
                found += char
        raise self.wrong('a `"` is never closed; close it')

    def _single(self) -> str:
        stop = self.text.find("'", self.at)
        if stop < 0:
            raise self.wrong("a `'` is never closed; close it")
        found = self.text[self.at : stop]
        self.line += found.count("\n")
        self.at = stop + 1
        return found

    def words(self) -> tuple[list[str], bool]:
        """The words up to the next separator, and whether there is more."""
        found: list[str] = []
        word: str | None = None
        skip = False  # the target of a redirection

        def end() -> None:
            nonlocal word, skip
            if word is not None and word != _BETWEEN and not skip:  # of no elements, there is no word
                found.extend(word.split(_BETWEEN))
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
                if broke == "&" and word is None and skip:  # `>&2`
                    self.at += 1
                    continue
                end()
                self.at += len(broke)
                self.separator = broke
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
            elif char == "(" and word and (array := re.fullmatch(rf"({_NAME})(\+?)=", word)):
                inside = self._closed("(", ")")
                elements = _Shell(inside.replace("\n", " "), self.variables)
                elements.arrays = self.arrays
                new = elements.words()[0]
                if self.depth > 0:
                    self.tell(f"`{array[1]}` is set under a condition; it is taken as `{' '.join(new)}`")
                self.arrays[array[1]] = [*(self.arrays.get(array[1], []) if array[2] else []), *new]
                word = None
            elif char == "(" and self.text[self.at : self.at + 1] == ")" and (word or found):
                self.at, word, found = (
                    self.at + 1,
                    None,
                    [],
                )  # a function: its body is read like the rest
            elif char == ")" and self.cases:
                word, found = None, []  # a pattern of `case`
            elif char in "()":  # a subshell's: what it sets ends with it
                end()
                if char == "(":
                    self._enter()
                elif self.outer:
                    self.closing += 1
                if found:
                    self.separator = char
                    return found, True
                self._leave()
            elif char == "<" and (heredoc := re.match(r"<-?\s*(['\"]?)([\w.-]+)\1", self.text[self.at :])):
                end()
                self.at += heredoc.end()
                self.heredocs.append(heredoc[2])
            elif char in "<>":
                if word is not None and word.isdigit():
                    word = None
                end()
                while self.text[self.at : self.at + 1] in ("<", ">", "&", "|"):
                    self.at += 1
                skip = True
            elif char == "'":
                word = (word or "") + self._single()
            elif char == '"':
                word = (word or "") + self._double()
            elif char == "\\":
                word = (word or "") + self.text[self.at : self.at + 1]
                self.at += 1
            elif char == "`":
                self._closed("`", "`")
                word = (word or "") + UNKNOWN
            elif char == "$" and self.text[self.at : self.at + 1] == "'":
                self.at += 1
                text = self._single()
                word = (word or "") + (text.encode().decode("unicode_escape") if text.isascii() else text)
            elif char == "$":
                assigns = word is not None and _ASSIGN.match(word) is not None
                text = self._dollar()
                # Without quotes a value of several words is several words, but not in an assignment.
                if not assigns and re.search(r"\s", text):
                    before, *pieces = re.split(r"[ \t\n]+", text)
                    word = (word or "") + before if before or word is not None else None
                    for piece in pieces:
                        end()
                        word = piece or None
                elif text or word is not None:
                    word = (word or "") + text
            elif (
                char == "~"
                and self.text[self.at : self.at + 1] in ("/", "", " ", "\n", ":")
                and (word is None or (word.endswith(("=", ":")) and _ASSIGN.match(word)))
            ):
                word = (word or "") + marked("HOME")
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

    # ── commands

    def run(self) -> list[Command]:
        more = True
        while more:
            before, separator = self.line, self.separator
            words, more = self.words()
            if words:
                self.condition = separator in ("&&", "||") and self.condition
                self._command(words, before)
                self.condition = self.condition or words[0] in ("[", "[[", "test", "!")
            self._leave()
        return self.commands

    def _enter(self) -> None:
        self.outer.append((self.variables, self.exported, self.arrays, self.folder, self.venv))
        self.variables, self.exported, self.arrays = {**self.variables}, {*self.exported}, {**self.arrays}

    def _leave(self) -> None:
        while self.closing and self.outer:
            self.variables, self.exported, self.arrays, self.folder, self.venv = self.outer.pop()
            self.closing -= 1
        self.closing = 0

    def _set(self, words: list[str]) -> tuple[dict[str, str], list[str]]:
        """The assignments at the front of some words; a value that would have to be run leaves none."""
        given: dict[str, str] = {}
        while words and (match := _ASSIGN.match(words[0])):
            name, adds, value = match.groups()
            words = words[1:]
            if UNKNOWN in value:
                given.pop(name, None)
                self.variables.pop(name, None)
                continue
            given[name] = (given.get(name, self.variables.get(name, "")) + value) if adds else value
        return given, words

    def _command(self, words: list[str], line: int) -> None:
        while words and words[0] in _KEYWORDS:
            self.depth += {"if": 1, "while": 1, "until": 1, "fi": -1, "done": -1, "esac": -1}.get(words[0], 0)
            self.cases -= words[0] == "esac"
            words = words[1:]
        if words[:1] in (["for"], ["case"]):
            self.depth += 1
            self.cases += words[0] == "case"
            return
        if words[:1] == ["function"]:
            return
        given, rest = self._set(words)
        if not rest:
            self._keep(given)
            return
        verb, *arguments = rest
        if verb in ("export", "declare", "typeset", "readonly", "local"):
            arguments = [word for word in arguments if not word.startswith("-")]
            new, names = self._set(arguments)
            self._keep(new)
            while names:
                more, names = self._set(names[1:])
                self._keep(more)
            if verb != "local":
                self.exported |= {_ASSIGN.sub(r"\1", word) for word in arguments}
        elif verb == "set":
            self.all_exported = ("-a" in arguments) or (self.all_exported and "+a" not in arguments)
        elif verb in ("source", ".") and arguments and arguments[0].endswith("/bin/activate"):
            self.venv = self._there(arguments[0].removesuffix("/bin/activate"))
        elif verb in ("source", "."):
            self.tell(f"`{verb} {' '.join(arguments)}`, which may set variables")
        elif verb == "unset":
            for name in arguments:
                self.variables.pop(name, None)
                self.exported.discard(name)
        elif verb == "cd" and arguments:
            self.folder = self._there(arguments[0])
        elif verb not in _QUIET:
            exported = {
                name: self.variables[name] for name in sorted(self.exported) if name in self.variables
            }
            one = Command(exported | given, rest, self.venv, self.folder, None, [], line)
            path = one.environment.pop("PATH", None) or self.variables.get("PATH")
            one.path = path
            one.lost, self.lost = self.lost, []
            self.commands.append(one)

    def _keep(self, given: dict[str, str]) -> None:
        for name, value in given.items():
            if self.depth > 0 or self.condition:
                self.tell(f"`{name}` is set under a condition; it is taken as `{value}`")
            self.variables[name] = value
            if self.all_exported:
                self.exported.add(name)

    def _there(self, path: str) -> str:
        """A path as seen from the script's folder, as far as that is known."""
        if path.startswith(("/", marked("")[0])) or not self.folder:
            return path
        return f"{self.folder.rstrip('/')}/{path.removeprefix('./')}"


def commands(text: str, variables: dict[str, str] | None = None) -> list[Command]:
    """Every command of a script that is more than a shell's own; `variables` are in its environment."""
    return _Shell(text.replace("\r\n", "\n"), variables).run()


def split(words: list[str]) -> Command:
    """A command that a shell has split already: `NAME=value …` before the program is its environment."""
    environment = {}
    while words and (match := ASSIGNMENT.match(words[0])):
        environment[match[1]] = match[2]
        words = words[1:]
    path = environment.pop("PATH", None)
    return Command(environment, list(words), path=path)
