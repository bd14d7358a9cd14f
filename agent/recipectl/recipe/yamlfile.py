"""One file's YAML or JSON as values that know where they stand; drop-ins merged over it."""

import difflib
import math
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import yaml

from recipectl.errors import Problem, RecipeError, UsageError
from recipectl.recipe.schema import ALIASES, INTERNAL_ALIASES

_Loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
VARIABLE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}")
Path_ = tuple[str | int, ...]
Place = tuple[str, int, int]  # file, line, column
Places = dict[Path_, Place]

# Maps whose values stay as they are written: `1`, `0.50` and `yes` are text there.
_AS_WRITTEN = {
    ("vars",),
    ("env_vars",),
    ("service",),
    ("extra_args", "env_vars"),
    ("environment",),
    ("secrets",),
}
GPUS = ("extra_args", "cuda_visible_devices")
_AS_WRITTEN_LISTS = {("args",), ("gpus",), ("after",), ("requires",), ("conflicts",), GPUS, GPUS[1:]}
_AS_WRITTEN_ALONE = {
    ("gpus",),
    ("after",),
    ("requires",),
    ("hardening",),
    GPUS,
    GPUS[1:],
}  # `off` is a word there
_NESTED = {"ready", "on_demand", "watch", "nodes"}  # mappings whose keys are ours too


class Written(float):
    """A number that remembers how it was spelled (`0.90`), so that the engine is given just that."""

    text: str

    def __new__(cls, value: float, text: str) -> "Written":
        self = super().__new__(cls, value)
        self.text = text
        return self


def _key(text: str, path: Path_) -> str:
    """A key as we know it: snake_case where keys are ours, or flags (before their first dot)."""
    if path == ("extra_args",) and not text.startswith("-"):
        head, dot, tail = text.partition(".")
        folded = head.replace("-", "_") + dot + tail
        return INTERNAL_ALIASES.get(folded, folded)
    if path and path[0] not in _NESTED:
        return text
    return ALIASES.get(text, text.replace("-", "_"))


# Whole numbers that YAML 1.1 reads otherwise than a person: octal, and base 60.
_MISREAD = re.compile(r"[-+]?(0[0-9_]+|[0-9_]+(:[0-9]+)+(\.[0-9_]*)?)\Z")
# A number to JSON and YAML 1.2, text to YAML 1.1.
_EXPONENT = re.compile(r"-?(0|[1-9][0-9]*)(\.[0-9]+)?[eE][-+]?[0-9]+\Z")
_DEEPEST, _LARGEST = 50, 100_000  # levels, values


def shown(value: object) -> str:
    """A value in a message: as YAML spells it, on one line, not too long."""
    text = str(value).lower() if isinstance(value, bool) else "" if value is None else str(value)
    text = text if text.isprintable() else ascii(text)[1:-1]
    return text if len(text) <= 60 else f"{text[:57]}…"


class Reader:
    """Turns the nodes of one document into values, remembering where each stood."""

    def __init__(self, file: str, variables: Mapping[str, str] | None) -> None:
        self.file, self.problems, self.variables = file, list[Problem](), variables
        self.places: Places = {}
        self.keys: Places = {}
        self.loader = _Loader("")
        self.read = 0

    def _place(self, node: Any) -> Place:
        return self.file, node.start_mark.line + 1, node.start_mark.column + 1

    def wrong(self, node: Any, sentence: str) -> None:
        self.problems.append(Problem(*self._place(node), sentence))

    def _resolved(self, node: Any) -> Any:
        """The scalar with the host's variables in it; a plain one may become a number by that."""

        def one(match: re.Match[str]) -> str:
            if match[0] == "$${":
                return "${"
            known = self.variables or {}
            if match[1] in known:
                return known[match[1]]
            wrong.append(match[0])
            near = difflib.get_close_matches(match[1] or "", known, 1)
            plain = "write `$${` for a plain `${`"
            if not match[1]:
                self.wrong(node, f"`${{` begins no name; {plain}")
            elif near:
                told = f"`{match[0]}` is no variable of this host; did you mean `${{{near[0]}}}`?"
                self.wrong(node, f"{told} Or {plain}")
            else:
                told = f"`{match[0]}` is no variable of this host; add it to `vars:` of the host file"
                self.wrong(node, f"{told}, or {plain}")
            return match[0]

        wrong: list[str] = []
        text = re.sub(rf"\$\$\{{|{VARIABLE.pattern}|\$\{{", one, node.value)
        if wrong:
            return node
        tag = self.loader.resolve(yaml.ScalarNode, text, (not node.style, bool(node.style)))
        if not text:
            tag = "tag:yaml.org,2002:str"  # an empty variable is an empty text, and not a key left out
        return yaml.ScalarNode(tag, text, node.start_mark, node.end_mark, node.style)

    def value(self, node: Any, path: Path_) -> Any:
        self.places[path] = self._place(node)
        self.read += 1
        if len(path) > _DEEPEST or self.read > _LARGEST:
            # An alias may stand within itself, and ten of ten of ten: nobody's recipe.
            what = "nested too deeply" if len(path) > _DEEPEST else "too large"
            raise RecipeError((Problem(*self._place(node), f"`{path[0]}` is {what}; write less"),))
        if self.variables is not None and isinstance(node, yaml.ScalarNode) and "${" in node.value:
            node = self._resolved(node)
        if isinstance(node, yaml.MappingNode):
            return self._mapping(node, path)
        if isinstance(node, yaml.SequenceNode):
            return [self.value(item, (*path, index)) for index, item in enumerate(node.value)]
        if _written(path):
            if node.tag.endswith(":null"):
                if path in _AS_WRITTEN_ALONE:
                    return None
                where = ".".join(map(str, path))
                self.wrong(node, f'`{where}` has no value; give one, or `""` for an empty one')
                return ""
            return node.value
        return self._scalar(node)

    def _scalar(self, node: Any) -> Any:
        text = node.value
        try:
            value = text if node.tag == "tag:yaml.org,2002:str" else self.loader.construct_object(node)
            if isinstance(value, str) and not node.style and _EXPONENT.match(text):
                value = float(text)
        except (yaml.YAMLError, ValueError, KeyError, AttributeError, TypeError):
            self.wrong(node, f"`{shown(text)}` cannot be read; put it in quotes")
            return None
        if isinstance(value, bool | str) or value is None:
            return value
        if isinstance(value, int | float) and _MISREAD.match(text):
            self.wrong(node, f"`{shown(text)}` is {shown(value)} to YAML; write that, or put it in quotes")
            return None
        if isinstance(value, float) and not math.isfinite(value):
            self.wrong(node, f"`{shown(text)}` is no number that an engine can be given; correct it")
            return None
        if isinstance(value, int):
            return value
        return Written(value, text) if isinstance(value, float) else text  # a date is its text

    def _mapping(self, node: Any, path: Path_) -> dict[str, Any]:
        seen: dict[str, Any] = {}
        result: dict[str, Any] = {}
        for key_node, value_node in node.value:
            if not isinstance(key_node, yaml.ScalarNode):
                self.wrong(key_node, "a key must be a word; quote it if it is meant as text")
                continue
            if key_node.tag.endswith(":merge"):
                self.wrong(key_node, "`<<` merges nothing here; write the keys out, or use a drop-in")
                continue
            key = _key(key_node.value, path)
            if key in seen:
                first = seen[key].start_mark.line + 1
                both = f"`{key_node.value}`"
                if seen[key].value != key_node.value:
                    both = f"`{seen[key].value}` and {both} are one key, which"
                self.wrong(key_node, f"{both} is given twice (first on line {first}); keep one of them")
                continue
            seen[key] = key_node
            self.keys[(*path, key)] = self._place(key_node)
            result[key] = self.value(value_node, (*path, key))
        return result


def _written(path: Path_) -> bool:
    in_list = path[:-1] in _AS_WRITTEN_LISTS or path[:-2] == ("service",)
    return in_list or path[:-1] in _AS_WRITTEN or path in _AS_WRITTEN_ALONE


def _yaml_of_json(text: str) -> str:
    """JSON is YAML, but for what it may hold raw, and an emoji that it escapes as two surrogates."""
    if text.isascii() and "\\u" not in text and "\x7f" not in text:
        return text

    def joined(match: re.Match[str]) -> str:
        high, low = int(match[2], 16), int(match[3], 16)
        return f"{match[1]}{chr(0x10000 + ((high - 0xD800) << 10) + low - 0xDC00)}"

    pair = r"(?<!\\)((?:\\\\)*)\\u([dD][89abAB][0-9a-fA-F]{2})\\u([dD][c-fC-F][0-9a-fA-F]{2})"
    return re.sub("[\x7f\x85\u2028\u2029]", lambda raw: f"\\u{ord(raw[0]):04x}", re.sub(pair, joined, text))


# What YAML takes for the end of a line, within a value too.
_LINE_ENDS = re.compile("[\x85\u2028\u2029]")


def _compose(path: Path, text: str) -> Any:
    """The root node of a YAML or JSON file; RecipeError when it is no mapping. An empty file says nothing."""
    if path.suffix == ".json":
        text = _yaml_of_json(text)
    if raw := yaml.reader.Reader.NON_PRINTABLE.search(text) or _LINE_ENDS.search(text):
        before = text[: raw.start()]
        place = before.count("\n") + 1, raw.start() - before.rfind("\n")
        sentence = (
            f"U+{ord(raw[0]):04X} cannot stand in a recipe as it is; write it as an escape in double quotes"
        )
        raise RecipeError((Problem(str(path), *place, sentence),))
    try:
        node = yaml.compose(text, Loader=_Loader)
    except RecursionError as error:
        raise RecipeError((Problem(str(path), 1, 1, "is nested too deeply; write less"),)) from error
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line, column = (mark.line + 1, mark.column + 1) if mark else (1, 1)
        sentence = f"is not YAML: {getattr(error, 'problem', None) or error}; correct it there"
        raise RecipeError((Problem(str(path), line, column, sentence),)) from error
    if node is not None and not isinstance(node, yaml.MappingNode):
        raise RecipeError((Problem(str(path), 1, 1, "must be a mapping of keys to values"),))
    return node


def _merge(below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    """A drop-in over what it adds to: mappings merge, anything else replaces."""
    merged = dict(below)
    for key, value in above.items():
        old = merged.get(key)
        merged[key] = _merge(old, value) if isinstance(old, dict) and isinstance(value, dict) else value
    return merged


def read(path: Path, content: Callable[[Path], bytes] = Path.read_bytes) -> str:
    """The text of one file; UsageError when it cannot be read."""
    try:
        return content(path).decode()
    except OSError as error:
        raise UsageError(f"{path}: cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise UsageError(f"{path}: is not UTF-8 at byte {error.start}; save it as UTF-8") from error


def document(
    paths: tuple[Path, ...],
    variables: Mapping[str, str] | None = None,
    content: Callable[[Path], bytes] = Path.read_bytes,
) -> tuple[dict[str, Any], Reader]:
    """The mapping in a file with its drop-ins merged over it, and the places of its parts.

    `variables` are the host's, for `${name}`; None leaves such text as it is.
    """
    data: dict[str, Any] = {}
    reader = Reader(str(paths[0]), variables)
    for path in paths:
        reader.file = str(path)
        if (node := _compose(path, read(path, content))) is not None:
            data = _merge(data, reader.value(node, ()))
    reader.file = str(paths[0])
    return data, reader
