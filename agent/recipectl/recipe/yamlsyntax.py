"""The text of a YAML or JSON file as nodes, or a plain sentence about its syntax."""

import errno
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

from recipectl.errors import Problem, RecipeError
from recipectl.files import read_bounded

_MAX_NODES = 20_000
_Base: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class TooManyNodesError(yaml.YAMLError):
    """A file with more values than any recipe has."""


class Loader(_Base):  # type: ignore[misc]
    """A safe loader that ends at a number of nodes: a file of a MiB may have half a million."""

    def __init__(self, stream: str) -> None:
        super().__init__(stream)
        self.nodes = 0

    def resolve(self, kind: Any, value: Any, implicit: Any) -> Any:
        """The tag of a node; the parser asks for it once a node."""
        self.nodes += 1
        if self.nodes > _MAX_NODES:
            raise TooManyNodesError
        return super().resolve(kind, value, implicit)


def read_text(path: Path, content: Callable[[Path], bytes] = read_bounded) -> str:
    """The text of one file; RecipeError when it cannot be read."""
    try:
        return content(path).decode()
    except OSError as error:
        remedies = {errno.EPERM: "correct its owner and mode", errno.EFBIG: "give a smaller file"}
        remedy = remedies.get(error.errno or 0, "correct its path or its mode")
        sentence = f"cannot be read: {error.strerror}; {remedy}"
    except UnicodeDecodeError as error:
        sentence = f"is not UTF-8 at byte {error.start}; save it as UTF-8"
    raise RecipeError((Problem(file=str(path), kind="file", sentence=sentence),))


def _yaml_of_json(text: str) -> str:
    """JSON as YAML: raw line separators become escapes, and a pair of surrogates becomes its character."""
    if text.isascii() and "\\u" not in text and "\x7f" not in text:
        return text

    def joined(match: re.Match[str]) -> str:
        high, low = int(match[2], 16), int(match[3], 16)
        return f"{match[1]}{chr(0x10000 + ((high - 0xD800) << 10) + low - 0xDC00)}"

    pair = r"(?<!\\)((?:\\\\)*)\\u([dD][89abAB][0-9a-fA-F]{2})\\u([dD][c-fC-F][0-9a-fA-F]{2})"
    return re.sub("[\x7f\x85\u2028\u2029]", lambda raw: f"\\u{ord(raw[0]):04x}", re.sub(pair, joined, text))


# Within a value too, YAML takes these for the end of a line.
_LINE_ENDS = re.compile("[\x85\u2028\u2029]")
_LONGEST_KEY = 1024  # of a key without `?` (YAML 1.2, 7.4.2)
_TOO_DEEP = "the file is nested too deeply; write less"
# What libyaml says -> what is wrong and what to do, for the mistakes that people make.
_SYNTAX = {
    "cannot start any token": "a value cannot begin with this character; put the value in quotes",
    "mapping values are not allowed": "a `:` stands where no key is; quote the value, or indent it right",
    "did not find expected key": "the indentation does not match the lines above; align it",
    "could not find expected ':'": "a key has no `:` after it; add one",
    "did not find expected ',' or ']'": "a `[` is not closed; add `]`, or the missing `,`",
    "did not find expected ',' or '}'": "a `{` is not closed; add `}`, or the missing `,`",
    "did not find expected node content": "a value is missing; add it, or close the `[` or `{` before",
    "found unexpected end of stream": "a quote is not closed; add it",
    "exceeded maximum nesting depth": _TOO_DEEP,
    "found incompatible YAML document": "the version after `%YAML` is not 1.1 or 1.2; remove the line",
    "invalid Unicode character escape code": "an escape in double quotes is no character; correct it",
    "found undefined alias": "`*` begins the name of an anchor that does not exist; put the value in quotes",
    "but found another document": "a file has one document; remove the line `---` and what follows",
    "did not find expected alphabetic or numeric character":
        "`*` and `&` begin names of anchors; put the value in quotes",
}  # fmt: skip


def syntax_problem(error: Exception, text: str, file: str) -> Problem:
    """What is wrong with a text that yaml refused, at its place."""
    if isinstance(error, RecursionError):
        return Problem(file, 1, 1, kind="syntax", sentence=_TOO_DEEP)
    if not isinstance(error, yaml.YAMLError):
        return Problem(file, 1, 1, kind="syntax", sentence=f"this is not YAML ({error}); correct it")
    line, column, sentence = _syntax_error(error, text)
    return Problem(file, line, column, kind="syntax", sentence=sentence)


def _syntax_error(error: yaml.YAMLError, text: str) -> tuple[int, int, str]:
    """Line, column and sentence of a YAML error."""
    if isinstance(error, TooManyNodesError):
        return 1, 1, f"the file has more than {_MAX_NODES} values; write less"
    problem = str(getattr(error, "problem", None) or error)
    lines = [*text.split("\n"), ""]
    # A key without its `:` is noticed in the line below it.
    is_key = "could not find expected ':'" in problem
    # A quote that is not closed is noticed at the end of the file.
    is_at_begin = is_key or "unexpected end of stream" in problem
    mark = getattr(error, "context_mark" if is_at_begin else "problem_mark", None)
    line, column = (mark.line + 1, mark.column + 1) if mark else (1, 1)
    begin = lines[min(line, len(lines)) - 1][: column - 1]
    if column > _LONGEST_KEY and "mapping values are not allowed" in problem and ": " not in begin:
        return line, column, f"a key has more than {_LONGEST_KEY} characters; write a shorter one"
    if is_key and ":" in lines[min(line, len(lines)) - 1][column - 1 :]:
        return line, column, "a `:` needs a blank after it; write `key: value`"
    if lines[min(line, len(lines)) - 1].lstrip(" ").startswith("\t"):
        return line, column, f"line {line} is indented with a tab; YAML needs spaces"
    plain = next((sentence for words, sentence in _SYNTAX.items() if words in problem), None)
    return line, column, plain or f"this is not YAML ({problem}); correct it"


def compose(path: Path, text: str) -> Any:
    """The root node of a YAML or JSON file, None for an empty file; RecipeError when it is not a mapping."""

    def failure(line: int, column: int, sentence: str) -> RecipeError:
        problem = Problem(file=str(path), line=line, column=column, kind="syntax", sentence=sentence)
        return RecipeError((problem,))

    if path.suffix == ".json":
        text = _yaml_of_json(text)
    if raw := yaml.reader.Reader.NON_PRINTABLE.search(text) or _LINE_ENDS.search(text):
        before = text[: raw.start()]
        line, column = before.count("\n") + 1, raw.start() - before.rfind("\n")
        remedy = "write it as an escape in double quotes" if raw[0] != "\0" else "remove it"
        sentence = f"a recipe cannot contain U+{ord(raw[0]):04X} itself; {remedy}"
        raise failure(line, column, sentence)
    try:
        node = yaml.compose(text, Loader=Loader)
    except (yaml.YAMLError, RecursionError) as error:
        raise RecipeError((syntax_problem(error, text, str(path)),)) from error
    if node is not None and not isinstance(node, yaml.MappingNode):
        raise failure(1, 1, "the file must be a mapping of keys to values; write `key: value` lines")
    return node
