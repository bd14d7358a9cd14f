"""What the verbs share: where recipes and units live, and the one path from a file to its steps."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

from recipectl.errors import Problem, RecipectlError, RecipeError, UsageError
from recipectl.store import Store
from recipectl.unitfile import name as unit_name

if TYPE_CHECKING:  # pydantic and jinja2 are slow to import, and half of the verbs need neither
    from recipectl import hostfile, unit

SUFFIXES = (".yaml", ".yml", ".json")


def warn(text: str) -> None:
    """A line on standard error that stops nothing."""
    click.echo(f"warning: {text}", err=True)


@dataclass(frozen=True)
class Place:
    """The system, or one user: where recipes, the host file and units are."""

    user: bool

    @property
    def _config(self) -> Path:
        return Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config")

    @property
    def folders(self) -> tuple[Path, ...]:
        """Recipe folders, the first that has a name wins."""
        from recipectl import load

        system = tuple(Path(folder) for folder in load.SYSTEM)
        return (self._config / "recipectl/recipes", *system) if self.user else system

    @property
    def host(self) -> hostfile.Host:
        from recipectl import hostfile

        own = self._config / "recipectl/host.yaml"
        return hostfile.load(own if self.user and own.exists() else Path("/etc/recipectl/host.yaml"))

    @property
    def store(self) -> Store:
        return Store(self._config / "systemd/user" if self.user else Path("/etc/systemd/system"))

    @property
    def site(self) -> unit.Site:
        from recipectl import unit

        poller = Path(unit.__file__).with_name("wait_ready.py")
        return unit.Site((sys.executable, "-I", "-S", str(poller)), self.user)

    @property
    def journal(self) -> str:
        """The command that a person reads a unit's log with, without the unit."""
        return "journalctl --user -u" if self.user else "journalctl -u"


def steps(path: Path, place: Place, host: hostfile.Host) -> unit.Steps:
    """One recipe file through the pure steps; every error names the file."""
    from recipectl import load, runtime, unit

    recipe = load.load(path)
    source = str(Path(os.path.abspath(path)))  # noqa: PTH100  (a link to a recipe is that recipe's own name)
    try:
        made = unit.steps(recipe, source, runtime.resolve(recipe, host), host)
        unit.render(made, place.site, host)
    except UsageError as error:
        raise RecipeError((Problem(str(path), 0, 0, str(error)),)) from error
    if os.environ.get("VLLM_STUDIO_SGLANG_PYTHON") and recipe.backend == "sglang" and not host.sglang_python:
        warn("VLLM_STUDIO_SGLANG_PYTHON of your shell is not used; set `sglang_python:` in the host file")
    for note in made.runtime.warnings:
        warn(f"{path}: {note}")
    if recipe.model_path.startswith("/") and not Path(recipe.model_path).exists():
        warn(f"{path}: `model_path` {recipe.model_path} does not exist on this host")
    return made


def each(names: tuple[str, ...], place: Place) -> tuple[list[unit.Steps], int]:
    """The steps of every named recipe (without names, of all), and the status: a bad one stops no other."""
    from recipectl import load

    host, status = place.host, 0
    found: list[unit.Steps] = []
    paths: list[Path] = []
    for name in names:
        try:
            paths.append(load.find(name, place.folders))
        except RecipectlError as error:
            click.echo(str(error), err=True)
            status = error.status
    for path in paths if names else load.every(place.folders):
        try:
            found.append(steps(path, place, host))
        except RecipectlError as error:
            click.echo(str(error), err=True)
            status = error.status
    return found, status


def service(name: str) -> str:
    """The unit of a RECIPE argument: its name, its file, or the unit itself."""
    if name.startswith("model-") and name.endswith(".service"):
        return name
    stem = Path(name).name
    return unit_name(Path(stem).stem if stem.endswith(SUFFIXES) else stem)
