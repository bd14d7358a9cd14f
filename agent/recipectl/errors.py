"""The one family of errors that a user is meant to read: a sentence each, and an exit status."""

from collections.abc import Sequence
from typing import NamedTuple


class RecipectlError(Exception):
    """Something a user can act on; its text is one sentence with its remedy."""

    status = 1  # the host failed us


class UsageError(RecipectlError):
    """The command line or a recipe must change; `key` is the path of the key that must, where it is one."""

    status = 2

    def __init__(self, sentence: str, *key: str | int) -> None:
        super().__init__(sentence)
        self.key = key


class SeveralError(UsageError):
    """Several things that must change, told together."""

    def __init__(self, errors: Sequence[UsageError]) -> None:
        super().__init__("\n".join(str(error) for error in errors))
        self.errors = tuple(errors)


class RuntimeNotFoundError(UsageError):
    """No interpreter or executable on this host fits the recipe."""


class UnrepresentableError(UsageError):
    """A value that no systemd unit can carry."""


class BusError(RecipectlError):
    """systemd, or the way to it, said no."""


class JobError(RecipectlError):
    """A job ended otherwise than `done`."""


class Problem(NamedTuple):
    """One thing wrong at one place of a file; line and column count from 1, 0 when there is no place."""

    file: str
    line: int
    column: int
    sentence: str

    def __str__(self) -> str:
        place = f"{self.file}:{self.line}:{self.column}" if self.line else self.file
        return f"{place}: {self.sentence}"


class RecipeError(UsageError):
    """Everything that is wrong in one file, all at once."""

    def __init__(self, problems: tuple[Problem, ...]) -> None:
        super().__init__("\n".join(str(problem) for problem in problems))
        self.problems = problems
