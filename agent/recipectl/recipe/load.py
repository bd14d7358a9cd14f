"""Recipe files checked against the schema; each mistake becomes a problem at its place."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar, get_args

from pydantic import BaseModel, ValidationError

from recipectl.errors import Kind, Problem, RecipeError
from recipectl.files import read_bounded
from recipectl.recipe.positions import Positions, nearest_position
from recipectl.recipe.schema import Recipe
from recipectl.recipe.search import NAME_RULE, RECIPE_NAME
from recipectl.recipe.yamlfile import LEGACY_GPUS, Reader, read_document
from recipectl.systemd.unitfile import RESERVED_ENDINGS
from recipectl.text import did_you_mean, display

_COMMA_LISTS = ("gpus", "after", "requires", "conflicts")
M = TypeVar("M", bound=BaseModel)

# pydantic's type of an error -> what to do; `{…}` is from the error's context.
_REMEDIES = {
    "string_type": "give one value, in quotes if it looks like a number",
    "int_type": "give a whole number",
    "int_parsing": "give a whole number",
    "float_parsing": "give a number",
    "float_type": "give a number",
    "bool_type": "give `true` or `false`",
    "bool_parsing": "give `true` or `false`",
    "dict_type": "give a mapping of names to values",
    "tuple_type": "give a list, for example `[a, b]`",
    "model_type": "give a mapping of names to values (`{{}}` for the defaults)",
    "literal_error": "give one of {expected}",
    "greater_than_equal": "give at least {ge}",
    "less_than_equal": "give at most {le}",
    "greater_than": "give more than {gt}",
    "string_too_short": "give at least one character",
    "string_pattern_mismatch": "give text that matches `{pattern}`",
}


def _known_keys(model: type[BaseModel], path: tuple[str | int, ...]) -> list[str]:
    """The keys that are known where an unknown key stands."""
    if len(path) == 1:
        return [*model.model_fields]
    field = model.model_fields.get(str(path[0]))
    parts = _parts(field.annotation) if field else []
    deeper = [] if isinstance(path[1], int) else path[1:]
    if len(deeper) > 1:
        return [name for part in parts for name in _known_keys(part, tuple(deeper))]
    return [name for part in parts for name in part.model_fields]


def _parts(annotation: Any) -> list[type[BaseModel]]:
    """The models in a type: `Watch | None`, `tuple[Canary, ...]`."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [part for inner in get_args(annotation) for part in _parts(inner)]


def _unknown_key(model: type[BaseModel], path: tuple[str | int, ...]) -> str:
    known = _known_keys(model, path)
    key = display(".".join(map(str, path)))
    if len(path) > 1:
        hint = did_you_mean(str(path[-1]), known, f"it takes {', '.join(known)}")
        outer = display(".".join(map(str, path[:-1])))
        return f"`{key}` is not a key of `{outer}`; {hint}"
    if model is Recipe:
        hint = did_you_mean(str(path[-1]), known, "put an engine's own flag under `extra_args:`")
        return f"`{key}` is not a key of a recipe; {hint}"
    hint = did_you_mean(str(path[-1]), known, "see recipectl-host(5)")
    return f"`{key}` is not a key of the host file; {hint}"


def _value_in_words(value: object) -> str:
    if isinstance(value, list):
        return "a list"
    if isinstance(value, dict):
        return "a mapping"
    return "empty" if value is None else f"`{display(value)}`"


def _sentence(error: Any, model: type[BaseModel]) -> str:
    """pydantic's error in the words of a recipe: the key, what is wrong, what to do."""
    key = ".".join(str(part) for part in error["loc"])
    kind = error["type"]
    context = error.get("ctx", {})
    value = error.get("input")
    if kind == "extra_forbidden":
        return _unknown_key(model, error["loc"])
    if kind == "missing":
        return f"`{key}` is missing; add it"
    if kind == "value_error":
        return f"`{key}` {context.get('error', '')}"
    remedy = _REMEDIES.get(kind, "{message}").format(**context, message=error["msg"])
    is_quoted = kind == "int_type" and isinstance(value, str) and value.isdigit()
    if is_quoted or (kind.startswith("bool") and value in ("true", "false")):
        remedy = f"give it without quotes: {value}"
    if kind == "string_pattern_mismatch" and str(context.get("pattern")).startswith("^/"):
        remedy = "begin it with `/`, and leave blanks out"
    if kind == "string_type" and isinstance(value, dict):
        remedy = "give one value; quote it if it has a `:`"
    if kind == "tuple_type" and isinstance(value, dict):
        remedy = "give a list: begin each entry with `-`"
    return f"`{key}` is {_value_in_words(value)}; {remedy}"


def validate(model: type[M], data: dict[str, Any], reader: Reader) -> M:
    """The model's value, or RecipeError with every problem of the file in the order of its lines."""
    problems = list(reader.problems)
    try:
        value = model.model_validate(data)
    except ValidationError as errors:
        for error in errors.errors():
            path = error["loc"]
            unknown = error["type"] == "extra_forbidden"
            positions = reader.key_positions if unknown else reader.positions
            position = nearest_position(positions, path) or (reader.file, 1, 1)
            kind: Kind = "key" if unknown or error["type"] == "missing" else "value"
            key = ".".join(map(str, path))
            problems.append(Problem(*position, key=key, kind=kind, sentence=_sentence(error, model)))
    if problems:
        raise RecipeError(sorted({*problems}))
    return value


def load(path: Path, *drop_ins: Path) -> Recipe:
    """One recipe from a YAML or JSON file and its drop-ins, on a host without variables."""
    return load_with_positions((path, *drop_ins), {})[0]


def load_with_positions(
    paths: tuple[Path, ...],
    variables: Mapping[str, str],
    content: Callable[[Path], bytes] = read_bounded,
) -> tuple[Recipe, Positions]:
    """One recipe (its `name` is the file's stem) and where each of its values stands."""
    path = paths[0]
    data, reader = read_document(paths, variables, content)
    data = {key: value for key, value in data.items() if value is not None}  # null: not set
    name = path.name.removesuffix(path.suffix)
    _check_name(name, path, data, reader)
    for key in _COMMA_LISTS:
        if isinstance(data.get(key), str):
            data[key] = [word.strip() for word in data[key].split(",")]
    _move_legacy_gpus(data, reader)
    return validate(Recipe, data | {"name": name}, reader), reader.positions


def _check_name(name: str, path: Path, data: dict[str, Any], reader: Reader) -> None:
    position = reader.positions.get(("name",), (str(path), 0, 0))
    if not RECIPE_NAME.match(name):
        reader.report(position, ("name",), "file", f"`{name}` cannot be a unit name; use {NAME_RULE}")
    elif name.endswith(RESERVED_ENDINGS):
        sentence = f"`{name}` ends like the name of a unit of another model; choose another name"
        reader.report(position, ("name",), "file", sentence)
    elif "name" in data and data["name"] != name:
        fault = f"`name` is `{display(data['name'])}` but the file is {path.name}"
        remedy = "rename the file or remove the key (a title goes in `description:`)"
        reader.report(position, ("name",), "value", f"{fault}; {remedy}")


def _move_legacy_gpus(data: dict[str, Any], reader: Reader) -> None:
    """VLLM Studio moves unknown top-level keys into extra_args, and people rely on this one."""
    extra = data.setdefault("extra_args", {})
    if "cuda_visible_devices" not in data or not isinstance(extra, dict):
        return
    value = data.pop("cuda_visible_devices")
    position = reader.positions["cuda_visible_devices",]
    if extra.setdefault("cuda_visible_devices", value) != value:
        sentence = "`cuda_visible_devices` differs from `extra_args.cuda_visible_devices`; keep one of them"
        reader.report(position, ("cuda_visible_devices",), "value", sentence)
    reader.positions.setdefault(LEGACY_GPUS, position)
