"""Recipe files checked against what a recipe may say; errors with file:line:column."""

import difflib
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar, get_args

from pydantic import BaseModel, ValidationError

from recipectl.errors import Problem, RecipeError
from recipectl.recipe.schema import ALIASES, Recipe
from recipectl.recipe.yamlfile import GPUS, Places, Reader, document, shown
from recipectl.systemd.unitfile import HELPERS

NAME = re.compile(r"[a-z0-9A-Z][a-zA-Z0-9._-]{0,99}\Z")
_SPANS = ("idle", "patience", "every", "timeout", "timeout_sec")
M = TypeVar("M", bound=BaseModel)


def _names(model: type[BaseModel], loc: tuple[str | int, ...]) -> list[str]:
    """The keys that are known where an unknown one stands."""
    if len(loc) == 1:
        return [*model.model_fields, *(ALIASES if model is Recipe else ())]
    field = model.model_fields.get(str(loc[0]))
    inner = get_args(field.annotation) or (field.annotation,) if field else ()
    models = [one for one in inner if isinstance(one, type) and issubclass(one, BaseModel)]
    return [name for one in models for name in one.model_fields]


def _sentence(error: Any, model: type[BaseModel]) -> str:
    """pydantic's finding in our words: the key, what is wrong, what to do."""
    key = ".".join(str(part) for part in error["loc"])
    kind, limit, given = error["type"], error.get("ctx", {}), error.get("input")
    if kind == "extra_forbidden":
        names = _names(model, error["loc"])
        near = difflib.get_close_matches(str(error["loc"][-1]), names, 1)
        at_top = len(error["loc"]) == 1
        of = ("a recipe" if model is Recipe else "the host file") if at_top else f"`{error['loc'][0]}`"
        hint = f"did you mean `{near[0]}`?" if near else f"it takes {', '.join(names)}"
        if at_top and not near:
            hint = (
                "put an engine's own flag under `extra_args:`" if model is Recipe else "see recipectl-host(5)"
            )
        return f"`{shown(key)}` is not a key of {of}; {hint}"
    if kind == "missing":
        return f"`{key}` is missing; add it"
    if kind == "value_error":
        return f"`{key}` {limit.get('error', '')}"
    what = (
        "a list"
        if isinstance(given, list)
        else "a mapping"
        if isinstance(given, dict)
        else f"`{shown(given)}`"
    )
    if given is None:
        what = "empty"
    span = "give seconds, or a span such as `15min`" if key.rpartition(".")[2] in _SPANS else None
    number = f"give it without quotes: {given}" if isinstance(given, str) and given.isdigit() else None
    wanted = {
        "string_type": "give one value, in quotes if it looks like a number",
        "int_type": span or number or "give a whole number",
        "int_parsing": span or "give a whole number",
        "float_parsing": "give a number",
        "float_type": "give a number",
        "bool_type": "give `true` or `false`",
        "bool_parsing": "give `true` or `false`",
        "dict_type": "give a mapping of names to values",
        "tuple_type": "give a list, for example `[a, b]`",
        "model_type": "give a mapping of names to values (`{}` for the defaults)",
        "literal_error": f"give one of {limit.get('expected', '')}",
        "greater_than_equal": f"give at least {limit.get('ge')}",
        "less_than_equal": f"give at most {limit.get('le')}",
        "greater_than": f"give more than {limit.get('gt')}",
        "string_too_short": "give at least one character",
        "string_pattern_mismatch": f"give text that matches `{limit.get('pattern')}`",
    }
    return f"`{key}` is {what}; {wanted.get(kind) or error['msg']}"


def validate(model: type[M], data: dict[str, Any], reader: Reader) -> M:
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


def placed(
    paths: tuple[Path, ...],
    variables: Mapping[str, str],
    content: Callable[[Path], bytes] = Path.read_bytes,
) -> tuple[Recipe, Places]:
    """One recipe (its `name` is the file's stem) and where each of its values stands."""
    path = paths[0]
    data, reader = document(paths, variables, content)
    name, here = path.name.removesuffix(path.suffix), reader.places.get(("name",), (str(path), 0, 0))
    data = {key: value for key, value in data.items() if value is not None}  # null: not set
    if not NAME.match(name):
        rule = "letters, digits, `.`, `_` and `-` (at most 100, the first a letter or digit)"
        reader.problems.append(Problem(*here, f"`{name}` cannot be a unit name; use {rule}"))
    elif name.endswith(HELPERS):
        text = f"`{name}` ends like the name of a unit that belongs to another model; choose another name"
        reader.problems.append(Problem(*here, text))
    elif "name" in data and data["name"] != name:
        told = f"`name` is `{shown(data['name'])}` but the file is {path.name}"
        remedy = "rename the file or remove the key (a title goes in `description:`)"
        reader.problems.append(Problem(*here, f"{told}; {remedy}"))
    for key in ("gpus", "after", "requires", "conflicts"):
        if isinstance(data.get(key), str):
            data[key] = [word.strip() for word in data[key].split(",")]
    # VLLM Studio folds unknown top-level keys into extra_args; this is one that people rely on.
    extra = data.setdefault("extra_args", {})
    if "cuda_visible_devices" in data and isinstance(extra, dict):
        given, here = data.pop("cuda_visible_devices"), reader.places["cuda_visible_devices",]
        if extra.setdefault("cuda_visible_devices", given) != given:
            told = "`cuda_visible_devices` is another in `extra_args`; keep one of them"
            reader.problems.append(Problem(*here, told))
        reader.places.setdefault(GPUS, here)
    return validate(Recipe, data | {"name": name}, reader), reader.places
