"""What the checks of `recipectl doctor` look at, each read once."""

from collections.abc import Iterator
from functools import cached_property

from recipectl.audit import versions
from recipectl.compiler.cache import compile_place
from recipectl.compiler.model import CompileResult
from recipectl.converge import holds
from recipectl.errors import Problem
from recipectl.place import Place
from recipectl.recipe.hostfile import HostSettings, settings_of
from recipectl.systemd.store import Store


class Subject:
    """What the checks look at, each read once."""

    def __init__(self, place: Place) -> None:
        self.place = place
        self.store = Store(place.unit_folder)

    @cached_property
    def result(self) -> CompileResult:
        return compile_place(self.place, with_resolved=True, held=holds.held(self.place))

    @cached_property
    def settings(self) -> HostSettings:
        return settings_of(self.place.bases, self.place.owners)[0]

    @cached_property
    def rows(self) -> list[versions.Row]:
        return versions.version_rows(self.place, self.result, ())

    @property
    def warnings(self) -> Iterator[Problem]:
        return (warning for model in self.result.models for warning in model.warnings)
