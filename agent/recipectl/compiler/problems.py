"""Errors become problems at the place of their key."""

from recipectl.errors import MultipleUsageError, Problem, RecipeError, Severity, UsageError
from recipectl.recipe.positions import KeyPath, Position, Positions, nearest_position


class ProblemCollector:
    """The problems of one recipe. `with` records a UsageError, and goes on with the next step."""

    def __init__(self, file: str, positions: Positions) -> None:
        self.file = file
        self.positions = positions
        self.problems: list[Problem] = []

    def add(self, *errors: UsageError) -> None:
        """Note errors, each at the place of its key."""
        for error in errors:
            if isinstance(error, MultipleUsageError):
                self.add(*error.errors)
            elif isinstance(error, RecipeError):
                self.problems += error.problems
            else:
                self.problems.append(self.placed(error))

    def placed(self, error: UsageError, severity: Severity = "error") -> Problem:
        """The problem at its key, else at the key that chose the engine or the model."""
        place = self._place(error.key) or (self.file, 1, 1)
        key = ".".join(map(str, error.key))
        return Problem(*place, key=key, kind=error.kind, sentence=str(error), severity=severity)

    def _place(self, key: KeyPath) -> Position | None:
        keys: tuple[KeyPath, ...] = (key, ("backend",), ("model_path",))
        return next(filter(None, (nearest_position(self.positions, candidate) for candidate in keys)), None)

    def error(self) -> RecipeError:
        """All problems as one error, in the order of their positions."""
        return RecipeError(sorted({*self.problems}))

    def __enter__(self) -> None:
        """Begin a step."""

    def __exit__(self, _: object, error: object, __: object) -> bool:
        if isinstance(error, UsageError):
            self.add(error)
        return isinstance(error, UsageError)
