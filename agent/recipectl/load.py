"""Reading recipe files and merging their drop-ins; errors with file:line:column."""

import difflib
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from recipectl.errors import Problem, RecipeError, UsageError
from recipectl.recipe import ALIASES, Recipe

NAME = re.compile(r"[a-z0-9A-Z][a-zA-Z0-9._-]{0,99}\Z")
_Loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
VARIABLE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}")
M = TypeVar("M", bound=BaseModel)
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
_AS_WRITTEN_LISTS = {("args",), ("gpus",), ("after",), ("requires",)}
_AS_WRITTEN_ALONE = {("gpus",), ("after",), ("requires",), ("hardening",)}  # `off` is a word there
_NESTED = {"ready", "on_demand", "watch", "nodes"}  # mappings whose keys are ours too


class Written(float):
    """A number that remembers how it was spelled (`0.90`), so that the engine is given just that."""

    text: str

    def __new__(cls, value: float, text: str) -> "Written":
        self = super().__new__(cls, value)
        self.text = text
        return self


def _key(text: str, path: Path_) -> str:
    if path and path[0] not in _NESTED:
        folded = text.replace("-", "_")
        return ALIASES.get(text, folded) if path == ("extra_args",) and folded == "env_vars" else text
    return ALIASES.get(text, text.replace("-", "_"))


class _Reader:
    """Turns the nodes of one document into values, remembering where each stood."""

    def __init__(self, file: str, variables: Mapping[str, str] | None) -> None:
        self.file, self.problems, self.variables = file, list[Problem](), variables
        self.places: Places = {}
        self.keys: Places = {}
        self.loader = _Loader("")

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
        return yaml.ScalarNode(tag, text, node.start_mark, node.end_mark, node.style)

    def value(self, node: Any, path: Path_) -> Any:
        self.places[path] = self._place(node)
        if self.variables is not None and isinstance(node, yaml.ScalarNode) and "${" in node.value:
            node = self._resolved(node)
        if isinstance(node, yaml.MappingNode):
            return self._mapping(node, path)
        if isinstance(node, yaml.SequenceNode):
            return [self.value(item, (*path, index)) for index, item in enumerate(node.value)]
        if _written(path):
            if node.tag.endswith(":null"):
                where = ".".join(map(str, path))
                self.wrong(node, f'`{where}` has no value; give one, or `""` for an empty one')
                return ""
            return node.value
        try:
            value = self.loader.construct_object(node)
        except (yaml.YAMLError, ValueError):
            self.wrong(node, f"`{node.value}` cannot be read; put it in quotes")
            return None
        if isinstance(value, bool) or value is None or isinstance(value, str | int):
            return value
        return Written(value, node.value) if isinstance(value, float) else node.value  # a date is its text

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
    """JSON is YAML but for two things: it may hold U+007F raw, and it escapes an emoji as two surrogates."""

    def joined(match: re.Match[str]) -> str:
        high, low = int(match[2], 16), int(match[3], 16)
        return f"{match[1]}{chr(0x10000 + ((high - 0xD800) << 10) + low - 0xDC00)}"

    pair = r"(?<!\\)((?:\\\\)*)\\u([dD][89abAB][0-9a-fA-F]{2})\\u([dD][c-fC-F][0-9a-fA-F]{2})"
    return re.sub(pair, joined, text).replace("\x7f", "\\u007f")


def _compose(path: Path, text: str) -> Any:
    """The root node of a YAML or JSON file; RecipeError when it is no mapping. An empty file says nothing."""
    if path.suffix == ".json":
        text = _yaml_of_json(text)
    try:
        node = yaml.compose(text, Loader=_Loader)
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


def read(path: Path) -> str:
    """The text of one file; UsageError when it cannot be read."""
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise UsageError(f"{path}: cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise UsageError(f"{path}: is not UTF-8 at byte {error.start}; save it as UTF-8") from error


def document(
    paths: tuple[Path, ...], variables: Mapping[str, str] | None = None
) -> tuple[dict[str, Any], _Reader]:
    """The mapping in a file with its drop-ins merged over it, and the places of its parts.

    `variables` are the host's, for `${name}`; None leaves such text as it is.
    """
    data: dict[str, Any] = {}
    reader = _Reader(str(paths[0]), variables)
    for path in paths:
        reader.file = str(path)
        if (node := _compose(path, read(path))) is not None:
            data = _merge(data, reader.value(node, ()))
    reader.file = str(paths[0])
    return data, reader


def _sentence(error: Any, model: type[BaseModel]) -> str:
    """pydantic's finding in our words: the key, what is wrong, what to do."""
    key = ".".join(str(part) for part in error["loc"])
    kind, limit, given = error["type"], error.get("ctx", {}), error.get("input")
    if kind == "extra_forbidden":
        near = difflib.get_close_matches(str(error["loc"][-1]), [*model.model_fields, *ALIASES], 1)
        hint = f"did you mean `{near[0]}`?" if near else "put an engine's own flag under `extra_args:`"
        return f"`{key}` is not a key of a recipe; {hint}"
    if kind == "missing":
        return f"`{key}` is missing; add it"
    what = "a list" if isinstance(given, list) else "a mapping" if isinstance(given, dict) else f"`{given}`"
    wanted = {
        "string_type": "give one value, in quotes if it looks like a number",
        "int_type": "give a whole number",
        "int_parsing": "give a whole number",
        "float_parsing": "give a number",
        "float_type": "give a number",
        "bool_type": "give `true` or `false`",
        "dict_type": "give a mapping of names to values",
        "tuple_type": "give a list, for example `[a, b]`",
        "model_type": "give a mapping of names to values",
        "literal_error": f"give one of {limit.get('expected', '')}",
        "greater_than_equal": f"give at least {limit.get('ge')}",
        "less_than_equal": f"give at most {limit.get('le')}",
        "greater_than": f"give more than {limit.get('gt')}",
        "string_too_short": "give at least one character",
        "string_pattern_mismatch": f"give text that matches `{limit.get('pattern')}`",
        "value_error": str(limit.get("error", "")),
    }
    return f"`{key}` is {what}; {wanted.get(kind) or error['msg']}"


def validate(model: type[M], data: dict[str, Any], reader: _Reader) -> M:
    """The model's value, or RecipeError with every problem of the file in the order of its lines."""
    problems = list(reader.problems)
    try:
        value = model.model_validate(data)
    except ValidationError as errors:
        for error in errors.errors():
            loc = error["loc"]
            places = reader.keys if error["type"] == "extra_forbidden" else reader.places
            place = next(
                (places[loc[:n]] for n in range(len(loc), 0, -1) if loc[:n] in places), (reader.file, 1, 1)
            )
            problems.append(Problem(*place, _sentence(error, model)))
    if problems:
        raise RecipeError(tuple(sorted(set(problems), key=lambda p: (p.file, p.line, p.column, p.sentence))))
    return value


def load(path: Path, *drop_ins: Path) -> Recipe:
    """One recipe from a YAML or JSON file and its drop-ins, on a host without variables."""
    return placed((path, *drop_ins), {})[0]


def placed(paths: tuple[Path, ...], variables: Mapping[str, str]) -> tuple[Recipe, Places]:
    """One recipe (its `name` is the file's stem) and where each of its values stands."""
    path = paths[0]
    data, reader = document(paths, variables)
    name, here = path.name.removesuffix(path.suffix), reader.places.get(("name",), (str(path), 0, 0))
    if not NAME.match(name):
        rule = "letters, digits, `.`, `_` and `-` (at most 100, the first a letter or digit)"
        reader.problems.append(Problem(*here, f"`{name}` cannot be a unit name; use {rule}"))
    elif name.endswith(("-proxy", "-watch")):
        text = f"`{name}` ends like the name of a unit that belongs to another model; choose another name"
        reader.problems.append(Problem(*here, text))
    elif "name" in data and data["name"] != name:
        told = f"`name` is `{data['name']}` but the file is {path.name}"
        remedy = "rename the file or remove the key (a title goes in `description:`)"
        reader.problems.append(Problem(*here, f"{told}; {remedy}"))
    for key in ("gpus", "after", "requires"):
        if isinstance(data.get(key), str):
            data[key] = [word.strip() for word in data[key].split(",")]
    # VLLM Studio folds unknown top-level keys into extra_args; this is one that people rely on.
    if "cuda_visible_devices" in data:
        data.setdefault("extra_args", {})["cuda_visible_devices"] = data.pop("cuda_visible_devices")
        reader.places["extra_args", "cuda_visible_devices"] = reader.places["cuda_visible_devices",]
    return validate(Recipe, data | {"name": name}, reader), reader.places
