"""What the verbs share: where recipes and units live, and the one path from files to units."""

from __future__ import annotations

import os
import re
import sys
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import click

import recipectl
from recipectl.errors import UsageError
from recipectl.recipe import search as sources
from recipectl.systemd import unitfile
from recipectl.systemd.store import Store
from recipectl.systemd.unitfile import Site
from recipectl.systemd.unitfile import name as unit_name

if TYPE_CHECKING:  # pydantic and jinja2 are slow to import, and half of the verbs need neither
    from recipectl.compiler import model as compiled
    from recipectl.compiler import units as unit
    from recipectl.recipe import hostfile
    from recipectl.recipe.yamlfile import Places


@dataclass(frozen=True)
class Place:
    """The system, one user, or another host: where recipes, the host file and units are."""

    user: bool = False
    remote: str | None = None

    def here(self) -> None:
        """UsageError for a verb that needs the other host's files."""
        if self.remote:
            raise UsageError(
                f"over -H only start, stop, restart, switch, wait, status and logs work; for this one run "
                f"`ssh {self.remote} recipectl …`"
            )

    @property
    def _config(self) -> Path:
        return Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config")

    @property
    def bases(self) -> tuple[Path, ...]:
        """Folders of recipectl's configuration, the first that has a name wins."""
        own = (self._config / "recipectl", Path(self.runtime, "recipectl")) if self.user else ()
        return (*own, *sources.BASES)

    @property
    def runtime(self) -> str:
        """The folder of what lasts until the next boot."""
        if not self.user:
            return "/run"
        return os.environ.get("XDG_RUNTIME_DIR") or f"/run/user/{os.getuid()}"

    @property
    def folders(self) -> tuple[Path, ...]:
        """Recipe folders, the first that has a name wins."""
        self.here()
        # The host's own recipes are the system manager's; a user has their own.
        bases = self.bases[:2] if self.user else self.bases
        return tuple(base / "recipes" for base in bases)

    @property
    def host_files(self) -> tuple[Path, ...]:
        self.here()
        return sources.host_files(self.bases)

    @property
    def host(self) -> hostfile.Host:
        return self._host[0]

    @property
    def host_places(self) -> Places:
        """Where each value of the host file stands."""
        return self._host[1]

    @cached_property
    def _host(self) -> tuple[hostfile.Host, Places]:
        from recipectl.recipe import hostfile

        return hostfile.placed(self.host_files)

    @property
    def store(self) -> Store:
        self.here()
        return Store(self._config / "systemd/user" if self.user else Path("/etc/systemd/system"))

    @cached_property
    def installed(self) -> dict[str, str]:
        """NAME -> text of every unit of ours, as it was when first asked."""
        return self.store.installed()

    @property
    def ad_hoc(self) -> tuple[Path, ...]:
        """Recipes that were applied as files from elsewhere, and are there still: they count on this host."""
        there = {*map(sources.stem, sources.every(self.folders))}
        found = (Path(unitfile.source(text)) for text in self.installed.values())
        paths = {path for path in found if path.parent not in self.folders and path.is_file()}
        return tuple(sorted(path for path in paths if sources.stem(path) not in there))

    @cached_property
    def site(self) -> Site:
        """The helper runs under the system's own python: the venv of recipectl may be upgraded or moved."""
        helper = str(Path(recipectl.__file__).with_name("health.py"))
        system = "/usr/bin/python3"
        python = system if os.access(system, os.X_OK) else sys.executable
        libraries = str(Path(click.__file__).parent.parent)
        return Site((python, "-I", "-S", helper), self.user, systemd_version(), libraries)

    @property
    def cache(self) -> Path:
        folder = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
        return (Path(folder) if self.user else Path("/var/cache")) / "recipectl/compiled.json"

    @property
    def journal(self) -> list[str]:
        """The words that a person reads a unit's log with, without the unit."""
        words = ["journalctl", *(["--user"] if self.user else []), "-u"]
        return ["ssh", self.remote, *words] if self.remote else words


def systemd_version() -> int:
    """The major version of the systemd that is installed here, from its library's name (else it is asked)."""
    for folder in (Path("/usr/lib/systemd"), *Path("/usr/lib").glob("*/systemd")):
        for path in folder.glob("libsystemd-shared-*.so"):
            if match := re.match(r"libsystemd-shared-(\d+)", path.name):
                return int(match[1])
    import subprocess

    try:
        said = subprocess.run(["systemctl", "--version"], capture_output=True, text=True, check=False).stdout  # noqa: S607
    except FileNotFoundError:
        said = ""
    match = re.match(r"systemd (\d+)", said)
    return int(match[1]) if match else 252


def warn(text: str) -> None:
    """A line on standard error that stops nothing."""
    click.echo(f"warning: {text}", err=True)


def _extra(place: Place, names: tuple[str, ...]) -> tuple[Path, ...]:
    """Recipe files from elsewhere: those named now, and those applied before."""
    named = tuple(sources.find(name, ()) for name in names if sources.is_file(name))
    stems = {*map(sources.stem, named)}
    return (*named, *(path for path in place.ad_hoc if sources.stem(path) not in stems))


def outcome(place: Place, names: tuple[str, ...] = ()) -> compiled.Outcome:
    """What became of all recipes (files among `names` too): from the cache when nothing has changed."""
    from recipectl.compiler import model as compiled

    found = sources.sources(place.folders, _extra(place, names))
    package = Path(recipectl.__file__).parent
    files = (*package.rglob("*"), *(package / "templates").glob("*"))  # a link, in a checkout
    newest = max(path.stat().st_mtime_ns for path in files if path.is_file())
    content = cache(Path.read_bytes)  # the recipes that are compiled are those that the key is of
    key = compiled.key(found, place.host_files, place.site, f"{recipectl.__version__} {newest}", content)
    kept = compiled.recall(place.cache, key)
    if kept is None:
        from recipectl.compiler import pipeline
        from recipectl.machine.disk import Disk

        disk = Disk(content)
        _, kept = pipeline.compile_all(found, place.host, place.site, disk)
        compiled.keep(place.cache, key, kept, disk.seen)
    return kept


def made(place: Place, names: tuple[str, ...]) -> tuple[dict[str, unit.Steps], compiled.Outcome]:
    """The steps of every recipe, and what became of them."""
    from recipectl.compiler import pipeline as compiler
    from recipectl.machine.disk import Disk

    found = sources.sources(place.folders, _extra(place, names))
    return compiler.compile_all(found, place.host, place.site, Disk())


def chosen(
    result: compiled.Outcome, names: tuple[str, ...], place: Place
) -> tuple[tuple[compiled.Compiled, ...], int]:
    """The models that were named (all without names); what is wrong with them is told, and is status 2."""
    wanted, status = set[str](), 0
    for name in names:
        try:
            wanted.add(sources.stem(sources.find(name, place.folders)))
        except UsageError as error:
            click.echo(str(error), err=True)
            status = 2
    for name, said in result.wrong.items():
        if not names or name in wanted:
            click.echo("\n".join(said), err=True)
            status = 2
    models = tuple(model for model in result.models if not names or model.name in wanted)
    for model in models:
        for text in model.warnings:
            warn(text)
    name = "VLLM_STUDIO_SGLANG_PYTHON"
    if name in os.environ and any("\nBackend=sglang\n" in model.units[0].text for model in models):
        if place.host.sglang_python or name in place.host.environment:
            return models, status
        warn("VLLM_STUDIO_SGLANG_PYTHON of your shell is not used; set `sglang_python:` in the host file")
    return models, status


def service(name: str) -> str:
    """The unit of a RECIPE argument: its name, its file, or the unit itself."""
    if name.startswith("model-") and name.endswith(".service"):
        return name
    stem = Path(name).name.removesuffix(".service")
    return unit_name(Path(stem).stem if stem.endswith(sources.SUFFIXES) else stem)
