"""What must change on the host, decided without touching anything."""

from dataclasses import dataclass

from recipectl.unitfile import Unit


@dataclass(frozen=True)
class Plan:
    """Units to write and names to remove."""

    write: tuple[Unit, ...] = ()
    remove: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.write or self.remove)


def decide(wanted: tuple[Unit, ...], installed: dict[str, str], *, remove: tuple[str, ...] = ()) -> Plan:
    """Write what differs; remove what is named and there."""
    write = tuple(unit for unit in wanted if installed.get(unit.name) != unit.text)
    return Plan(write, tuple(name for name in remove if name in installed))
