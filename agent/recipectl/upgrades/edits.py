"""The recipe's own file gets another value at its place, and gets the old one back."""

import contextlib
import os
from collections.abc import Iterable, Mapping
from pathlib import Path

import yaml

from recipectl.converge.records import Edit
from recipectl.errors import RecipectlError, UsageError
from recipectl.files import failures_named, read_bounded, remove, write_whole
from recipectl.place import Place
from recipectl.recipe.places import NotReplaceableError, in_quotes_of, raw_value, with_value
from recipectl.recipe.positions import KeyPath
from recipectl.recipe.search import Source

_DROP_INS = ("90-upgrade.yaml", "zz-upgrade.yaml")
_HEADING = "# Written by `recipectl upgrade`, because the file of the recipe {reason}.\n"


class ChangedError(RecipectlError):
    """A file says something that no upgrade has written: it is somebody's own, and stays."""


class _NotInPlaceError(Exception):
    """Why a value cannot be replaced where it stands."""


def planned(place: Place, source: Source, values: Mapping[KeyPath, str]) -> tuple[tuple[Edit, ...], str]:
    """The edits that give a recipe some values, and why that is a drop-in, where it is one.

    UsageError where neither is possible.
    """
    try:
        return tuple(_edit(place, source, key, value) for key, value in values.items()), ""
    except _NotInPlaceError as reason:
        return (in_drop_in(place, source, values, str(reason)),), str(reason)


def _edit(place: Place, source: Source, key: KeyPath, value: str) -> Edit:
    """The edit of the file that a value stands in."""
    packaged = () if place.user else place.recipe_folders[2:]
    for file in (*reversed(source.drop_ins), source.file):
        try:
            raw = raw_value(_text(file), key)
        except NotReplaceableError as error:
            raise _NotInPlaceError(f"cannot be edited ({error})") from error
        if raw is None:
            continue
        if {file.parent, file.parent.parent} & {*packaged}:
            raise _NotInPlaceError(f"belongs to a package ({file})")
        return Edit(os.path.realpath(file), tuple(map(str, key)), raw, in_quotes_of(raw, value))
    raise _NotInPlaceError(f"does not have `{'.'.join(map(str, key))}` as one word")


def in_drop_in(place: Place, source: Source, values: Mapping[KeyPath, str], reason: str) -> Edit:
    """A drop-in that gives a recipe some values; UsageError where it would not win."""
    folder = place.recipe_folders[0] / f"{source.name}.yaml.d"
    below = [path.name for path in source.drop_ins]
    name = next((name for name in _DROP_INS if all(other < name for other in below)), None)
    if name is None or os.path.lexists(folder / name):
        fault = f"the file of `{source.name}` {reason}, and no drop-in can stand above {source.drop_ins[-1]}"
        raise UsageError(f"{fault}; edit the recipe yourself, and run the upgrade without --to", kind="file")
    data: dict[str, object] = {}
    for key, value in values.items():
        part: object = value
        for word in reversed(key[1:]):
            part = {word: part}
        data[str(key[0])] = part
    return Edit(str(folder / name), (), None, _HEADING.format(reason=reason) + yaml.safe_dump(data))


def overlay(source: Source, edits: Iterable[Edit]) -> dict[Path, bytes]:
    """File -> its content with the edits, to compile a recipe before anything is written."""
    contents: dict[Path, bytes] = {}
    for edit in edits:
        path = Path(edit.file)
        before = contents[path].decode() if path in contents else _text(path) if edit.key else None
        contents[path] = (_changed(edit, before) or "").encode()
    links = {file: Path(os.path.realpath(file)) for file in (source.file, *source.drop_ins)}
    return contents | {file: contents[real] for file, real in links.items() if real in contents}


def new_files(edits: Iterable[Edit]) -> list[Path]:
    """The drop-ins that an upgrade makes."""
    return [Path(edit.file) for edit in edits if not edit.key]


def in_words(edit: Edit) -> str:
    """What an edit has changed, with its place."""
    if edit.old is None or edit.new is None:
        return f"{edit.file} is {'new' if edit.old is None else 'gone'}"
    lines = _text(Path(edit.file)).splitlines()
    numbers = [number for number, line in enumerate(lines, start=1) if edit.new in line.partition("#")[0]]
    keyed = (number for number in numbers if str(edit.key[-1]) in lines[number - 1])
    number = next(keyed, (*numbers, 1)[0])
    return f"{edit.file}:{number}: `{'.'.join(edit.key)}` is {edit.new}, and was {edit.old}"


def value_of(raw: str) -> str:
    """The value of a word as a file has it."""
    return str(yaml.safe_load(raw))


def perform(edit: Edit) -> None:
    """Write an edit so that it lasts; a file that has it already stays as it is.

    ChangedError where somebody has written something else there.
    """
    path = Path(edit.file)
    before = _text(path) if edit.key or path.exists() else None
    after = _changed(edit, before)
    if after == before:
        return
    if after is None:
        remove(path)
        with contextlib.suppress(OSError):  # it has other drop-ins
            path.parent.rmdir()
    elif before is None:
        write_whole({path: after}, durable=True)
    else:
        _replace(path, after)


def redo(edit: Edit) -> str | None:
    """Perform an edit; a sentence where somebody else has changed the file since: it stays then."""
    if edit.key and not Path(edit.file).exists():
        return f"{edit.file} is gone, and stays so"
    try:
        perform(edit)
    except ChangedError as error:
        return str(error)
    return None


def undo(edit: Edit) -> str | None:
    """Take an edit back; a sentence where somebody else has changed the file since: it stays then."""
    return redo(reversed_edit(edit))


def require_unchanged(edit: Edit) -> None:
    """ChangedError where a file is neither as an edit has left it nor as it was before."""
    path = Path(edit.file)
    _changed(edit, _text(path) if edit.key or path.exists() else None)


def reversed_edit(edit: Edit) -> Edit:
    """The edit that takes another one back."""
    return Edit(edit.file, edit.key, edit.new, edit.old)


def _replace(path: Path, text: str) -> None:
    """Write another text to a file, which keeps its mode, its owner, its ACL and its label."""
    with failures_named("read", path):
        status = path.stat()
        attributes = {name: os.getxattr(path, name) for name in os.listxattr(path)}
    write_whole({path: text}, mode=status.st_mode & 0o7777, durable=True)
    with failures_named("written", path):
        os.chown(path, status.st_uid, status.st_gid)
        for name, value in attributes.items():
            os.setxattr(path, name, value)


def _changed(edit: Edit, text: str | None) -> str | None:
    """A file's text with an edit, None for no file; ChangedError where it has neither the old nor the new."""
    if not edit.key:
        if text not in (edit.old, edit.new):
            raise ChangedError(f"{edit.file} was edited since, and stays as it is")
        return edit.new
    key = f"`{'.'.join(edit.key)}`"
    try:
        raw = raw_value(text or "", edit.key)
        if raw in (edit.old, edit.new):
            return with_value(text or "", edit.key, edit.new or "")
    except NotReplaceableError as error:
        raise ChangedError(f"{edit.file} was edited since: {error}; edit its {key} yourself") from error
    is_now = "is gone" if raw is None else f"is {raw}"
    fault = f"{edit.file} was edited since: its {key} {is_now}, and was {edit.old}"
    raise ChangedError(f"{fault}; edit it yourself")


def _text(path: Path) -> str:
    """The text of a file with its line ends as they are."""
    with failures_named("read", path):
        return read_bounded(path).decode(errors="surrogateescape")
