"""Where the values of a file stand."""

KeyPath = tuple[str | int, ...]
Position = tuple[str, int, int]  # file, line, column
Positions = dict[KeyPath, Position]


def nearest_position(positions: Positions, key: KeyPath) -> Position | None:
    """The place of a key, or of the nearest key around it."""
    around = (key[:length] for length in range(len(key), 0, -1))
    return next((positions[part] for part in around if part in positions), None)
