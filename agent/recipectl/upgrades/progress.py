"""How far an upgrade is: its record, what it works with, and what it says."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

from recipectl.converge import records
from recipectl.converge.records import Passed, Record
from recipectl.errors import UsageError
from recipectl.place import Place
from recipectl.systemd.store import Store
from recipectl.systemd.unitfile import UnitNames
from recipectl.upgrades.steps import JobKeeper, Verbs


@dataclass
class Progress:
    """One upgrade. `tell` gets a sentence for each thing that was done."""

    place: Place
    record: Record
    manager: JobKeeper
    verbs: Verbs
    tell: Callable[[str], None]
    kept: list[str] = field(default_factory=list)

    @property
    def names(self) -> UnitNames:
        return UnitNames(self.record.model)

    @property
    def store(self) -> Store:
        return Store(self.place.unit_folder)

    @property
    def is_rollback(self) -> bool:
        return self.record.kind == "rollback"

    @property
    def last(self) -> Passed:
        """The upgrade that a rollback takes back; UsageError where there is none."""
        if not self.record.history:
            raise UsageError(f"`{self.record.model}` has no upgrade to go back from", kind="unit")
        return self.record.history[-1]

    def note(self, step: str, **changes: object) -> None:
        """Write the record, before the step is done."""
        changed = replace(self.record, step=step, **changes)  # type: ignore[arg-type]
        self.record = records.write(self.place, changed)

    def say(self, sentence: str) -> None:
        """A line of the progress: told, and kept for who follows the upgrade."""
        self.tell(sentence)
        self.note(self.record.step, said=(*self.record.said, sentence))

    def keep(self, sentence: str) -> None:
        """A line of the way back: told, and kept for its end, because the disk may be full until then."""
        self.tell(sentence)
        self.kept.append(sentence)

    def tell_of_wait(self, lock: Path) -> None:
        """Say that another recipectl holds the lock."""
        self.tell(f"waiting for another recipectl, which holds {lock}")

    def log_of(self, unit: str) -> str:
        """The command that shows the log of a unit."""
        return " ".join((*self.place.journalctl, unit))

    def is_active(self) -> bool:
        """True while the model is ready."""
        return self.manager.state(self.names.service, brief=True).active_state == "active"
