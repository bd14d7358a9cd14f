"""Values of other tools' files in the shape that the tool takes; UsageError with the key for any other."""

import json
from collections.abc import Mapping
from typing import Any

from recipectl.errors import UsageError
from recipectl.importers.draft import PRIVATE

Map = Mapping[str, Any]


def refuse_private(value: Any) -> None:
    """UsageError for a document with characters that importers use themselves, or that contains itself."""
    try:
        text = json.dumps(value, ensure_ascii=False, default=str, skipkeys=True)
    except (ValueError, RecursionError) as error:
        raise UsageError(f"it is nested without end ({error}); write less") from error
    if PRIVATE.search(text):
        raise UsageError("it has characters of Unicode's private area; remove them")


def mapping(value: Any, key: str) -> Mapping[Any, Any]:
    """A mapping; nothing is an empty one."""
    if value is None or value == "":
        return {}
    if not isinstance(value, Mapping):
        raise UsageError(f"`{key}:` is {_kind(value)}; give a mapping", *key.split("."))
    return value


def _kind(value: Any) -> str:
    """What a value is, without the value: it may be a secret."""
    kinds = {str: "a text", bool: "true or false", list: "a list", int: "a number", float: "a number"}
    return "a mapping" if isinstance(value, Mapping) else kinds.get(type(value), "another value")


def sequence(value: Any, key: str) -> list[Any]:
    """A list; one text or number alone is a list of it, nothing is an empty one."""
    if value is None or value == "":
        return []
    if isinstance(value, str | int | float):
        return [value]
    if not isinstance(value, list | tuple):
        raise UsageError(f"`{key}:` is {_kind(value)}; give a list", *key.split("."))
    return list(value)


def whole_number(value: Any, key: str) -> int:
    """A number without a sign, as a number or as text."""
    text = str(value)
    if isinstance(value, bool) or not text.isascii() or not text.isdigit() or len(text) > 9:
        raise UsageError(f"`{key}` is `{value}`; give a whole number", *key.split("."))
    return int(text)
