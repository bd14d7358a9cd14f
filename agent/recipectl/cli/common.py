"""What the verbs share: where recipes and units live, and the one path from files to units."""

from __future__ import annotations

import os
import re
import sys
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import click

import recipectl
from recipectl import sources
from recipectl.errors import UsageError
from recipectl.store import Store
from recipectl.unitfile import Site
from recipectl.unitfile import name as unit_name

if TYPE_CHECKING:  # pydantic and jinja2 are slow to import, and half of the verbs need neither
    from recipectl import compiled, hostfile, unit
    from recipectl.load import Places


@dataclass(frozen=True)
class Place:
    """The system, one user, or another host: where recipes, the host file and units are."""

    user: bool = False
    remote: str | None = None

    def _here(self) -> None:
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
        own = (self._config / "recipectl", Path(self._runtime, "recipectl")) if self.user else ()
        return (*own, *sources.BASES)

    @property
    def _runtime(self) -> str:
        return os.environ.get("XDG_RUNTIME_DIR") or f"/run/user/{os.getuid()}"

    @property
    def folders(self) -> tuple[Path, ...]:
        """Recipe folders, the first that has a name wins."""
        self._here()
        # The host's own recipes are the system manager's; a user has their own.
        bases = self.bases[:2] if self.user else self.bases
        return tuple(base / "recipes" for base in bases)

    @property
    def host_files(self) -> tuple[Path, ...]:
        self._here()
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
        from recipectl import hostfile

        return hostfile.placed(self.host_files)

    @property
    def store(self) -> Store:
        self._here()
        return Store(self._config / "systemd/user" if self.user else Path("/etc/systemd/system"))

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


def _extra(names: tuple[str, ...]) -> tuple[Path, ...]:
    return tuple(Path(name) for name in names if sources.is_file(name))


def outcome(place: Place, names: tuple[str, ...] = ()) -> compiled.Outcome:
    """What became of all recipes (files among `names` too): from the cache when nothing has changed."""
    from recipectl import compiled

    found = sources.sources(place.folders, _extra(names))
    newest = max(
        path.stat().st_mtime_ns for path in Path(recipectl.__file__).parent.rglob("*") if path.is_file()
    )
    key = compiled.key(found, place.host_files, place.site, f"{recipectl.__version__} {newest}")
    kept = compiled.recall(place.cache, key)
    if kept is None:
        from recipectl import compiler, runtime

        disk = runtime.Disk()
        _, kept = compiler.compile_all(found, place.host, place.site, disk)
        compiled.keep(place.cache, key, kept, disk.seen)
    return kept


def made(place: Place, names: tuple[str, ...]) -> tuple[dict[str, unit.Steps], compiled.Outcome]:
    """The steps of every recipe, and what became of them."""
    from recipectl import compiler, runtime

    found = sources.sources(place.folders, _extra(names))
    return compiler.compile_all(found, place.host, place.site, runtime.Disk())


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
    if os.environ.get("VLLM_STUDIO_SGLANG_PYTHON") and not place.host.sglang_python:
        warn("VLLM_STUDIO_SGLANG_PYTHON of your shell is not used; set `sglang_python:` in the host file")
    return models, status


def service(name: str) -> str:
    """The unit of a RECIPE argument: its name, its file, or the unit itself."""
    if name.startswith("model-") and name.endswith(".service"):
        return name
    stem = Path(name).name
    return unit_name(Path(stem).stem if stem.endswith(sources.SUFFIXES) else stem)


def recipe_of(unit: str) -> str:
    """The recipe of a service."""
    return unit.removeprefix("model-").removesuffix(".service")
