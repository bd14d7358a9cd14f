"""The errors that a user reads, and the problems that they consist of."""

from collections.abc import Sequence
from typing import Literal, NamedTuple

Severity = Literal["error", "warning"]
Kind = Literal[
    "access", "argument", "device", "drift", "environment", "file", "gpu", "host", "key", "lock", "network",
    "orphan", "permission", "pin", "port", "relation", "runtime", "secret", "setting", "syntax", "unit",
    "value", "variable",
]  # fmt: skip


class Problem(NamedTuple):
    """One thing that is wrong at one place; line and column count from 1, 0 where there is no place.

    `key` is the path of the key with dots.
    """

    file: str = ""
    line: int = 0
    column: int = 0
    key: str = ""
    kind: Kind = "host"
    sentence: str = ""
    severity: Severity = "error"

    @property
    def is_error(self) -> bool:
        """False for a warning."""
        return self.severity == "error"

    def __str__(self) -> str:
        if not self.file:
            return self.sentence
        file = self.file.replace("\n", "\\n")
        place = f"{file}:{self.line}:{self.column}" if self.line else file
        return f"{place}: {self.sentence}"

    def as_json(self) -> dict[str, str | int | None]:
        """The same as a JSON object; null for what is not known."""
        return {name: value or None for name, value in self._asdict().items()}


def on_host(kind: Kind, sentence: str, *, file: str = "", severity: Severity = "error") -> Problem:
    """A problem of the host, or of a whole file."""
    return Problem(file=file, kind=kind, sentence=sentence, severity=severity)


class RecipectlError(Exception):
    """Something that a user can act on: a sentence with its remedy, and the exit status of the process."""

    status = 1  # the host failed
    kind: Kind = "host"

    @property
    def problems(self) -> tuple[Problem, ...]:
        """The error as values, for `--json`."""
        return (on_host(self.kind, str(self)),)


class UsageError(RecipectlError):
    """The command line or a recipe must change; `key` is the path of the recipe's key, where one is wrong."""

    status = 2
    kind: Kind = "value"
    key: tuple[str | int, ...] = ()

    def __init__(self, sentence: str, *key: str | int, kind: Kind | None = None) -> None:
        super().__init__(sentence)
        self.key = key
        self.kind = kind or self.kind

    @property
    def problems(self) -> tuple[Problem, ...]:
        """The error as a value, with its key."""
        return (Problem(key=".".join(map(str, self.key)), kind=self.kind, sentence=str(self)),)


class MultipleUsageError(UsageError):
    """Several usage errors at once."""

    def __init__(self, errors: Sequence[UsageError]) -> None:
        super().__init__("\n".join(str(error) for error in errors))
        self.errors = tuple(errors)

    @property
    def problems(self) -> tuple[Problem, ...]:
        """The problems of all of them."""
        return tuple(problem for error in self.errors for problem in error.problems)


class RuntimeNotFoundError(UsageError):
    """No interpreter or executable on this host fits the recipe."""

    kind = "runtime"


class UnrepresentableError(UsageError):
    """A value that no systemd unit can carry."""


class BusError(RecipectlError):
    """systemd, or the connection to it, refused or failed."""


class JobError(RecipectlError):
    """A job of systemd did not end as `done`."""

    kind = "unit"


class _ProblemsError(RecipectlError):
    """Several problems at once."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        super().__init__("\n".join(str(problem) for problem in problems))
        self._problems = tuple(problems)

    @property
    def problems(self) -> tuple[Problem, ...]:
        """The problems in their order."""
        return self._problems


class HostError(_ProblemsError):
    """Several things that failed on the host."""


class RecipeError(_ProblemsError, UsageError):
    """Everything that is wrong in a recipe, a host file, or a file beside them such as a lock."""
