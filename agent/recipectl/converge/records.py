"""The record of a model's upgrade on disk: written before each step, so that nothing is lost by a crash."""

import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

from recipectl.errors import RecipectlError
from recipectl.files import failures_named, read_bounded, write_whole
from recipectl.machine import helperfile
from recipectl.place import Place

_MAX_BYTES = 64 * 1024 * 1024
_LONGEST_HISTORY = 10


@dataclass(frozen=True)
class Edit:
    """A value that was replaced in a file: `old` and `new` are words as the file has them.

    Without `key` they are whole texts: None is a file that is not there.
    """

    file: str
    key: tuple[str, ...]
    old: str | None
    new: str | None


@dataclass(frozen=True)
class Before:
    """A model as it was before the switch. Texts by name or path; None for a file that was not there."""

    units: dict[str, str]
    enabled: tuple[str, ...]
    up: tuple[str, ...]  # the units that ran, with those of models that require it
    files: dict[str, str | None]  # its lock, and the lock of its venv


@dataclass(frozen=True)
class Passed:
    """An upgrade that went well, for a rollback: what it began with, what it changed, and what it left."""

    began_with: str
    ended_with: str
    edits: tuple[Edit, ...]
    before: Before
    after: Before


# To another runtime, to what the recipe says, or back.
Kind = Literal["runtime", "recipe", "rollback"]
# The last two are the ends.
Step = Literal["requested", "runtime", "flags", "switch", "start", "canaries", "back", "done", "failed"]


@dataclass(frozen=True)
class Record:
    """One upgrade."""

    model: str
    kind: Kind
    to: str
    began_sec: float
    step: Step = "requested"
    began_with: str = ""
    ended_with: str = ""
    edits: tuple[Edit, ...] = ()
    before: Before | None = None
    switched_sec: float = 0  # when the old engine was stopped
    failure: str | None = None
    failed_at: str | None = None  # the step
    said: tuple[str, ...] = ()  # the lines of its progress so far
    held: str | None = None  # the digest of a recipe that is not applied, because its upgrade has failed
    history: tuple[Passed, ...] = ()

    @property
    def is_over(self) -> bool:
        """True when nothing is left to do."""
        return self.step in ("done", "failed")

    def passed(self, after: Before) -> "Record":
        """The same with this upgrade in its history."""
        if self.before is None:
            return self
        entry = Passed(
            began_with=self.began_with,
            ended_with=self.ended_with,
            edits=self.edits,
            before=self.before,
            after=after,
        )
        return replace(self, history=(*self.history, entry)[-_LONGEST_HISTORY:])


def folder(place: Place) -> Path:
    """The folder of all records."""
    return place.state_folder / "upgrades"


def path(place: Place, model: str) -> Path:
    """The file of a model's record."""
    return folder(place) / f"{model}.json"


def write(place: Place, record: Record) -> Record:
    """Put a record on disk so that it lasts; returns it."""
    text = json.dumps(asdict(record), indent=1) + "\n"
    write_whole({path(place, record.model): text}, durable=True)
    return record


def read(place: Place, model: str) -> Record | None:
    """The record of a model; None for one that was never upgraded."""
    file = path(place, model)
    try:
        return _record(json.loads(read_bounded(file, _MAX_BYTES), object_hook=_tuples))
    except FileNotFoundError:
        return None
    except OSError as error:
        raise RecipectlError(f"{file} cannot be read: {error.strerror}; see its owner and mode") from error
    except (ValueError, LookupError, TypeError) as error:
        fault = f"{file} is no record of an upgrade that this release can read"
        raise RecipectlError(f"{fault}; move it away") from error


def names(place: Place) -> list[str]:
    """The models that have a record."""
    with failures_named("read", folder(place)):
        return sorted(file.name.removesuffix(".json") for file in folder(place).glob("*.json"))


def helpers(place: Place) -> set[str]:
    """The file names of the helpers that recorded units run: a way back may put these units in place."""
    files = [path(place, model) for model in names(place)]
    with failures_named("read", folder(place)):
        texts = [read_bounded(file, _MAX_BYTES).decode(errors="replace") for file in files]
    return {name for text in texts for name in helperfile.NAME.findall(text)}


def _tuples(data: dict[str, Any]) -> dict[str, Any]:
    """JSON has lists where a record has tuples."""
    return {name: tuple(value) if isinstance(value, list) else value for name, value in data.items()}


def _with_parts(data: dict[str, Any]) -> dict[str, Any]:
    """The fields of a record, or of an upgrade in its history, with their own parts as values."""
    edits = tuple(Edit(**edit) for edit in data["edits"])
    states = {name: Before(**data[name]) for name in ("before", "after") if data.get(name)}
    return data | states | {"edits": edits}


def _record(data: dict[str, Any]) -> Record:
    history = tuple(Passed(**_with_parts(passed)) for passed in data["history"])
    return Record(**_with_parts(data) | {"history": history})
