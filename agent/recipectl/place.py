"""The system, one user, or another host: where recipes, the host file, units and caches are."""

import os
import shlex
from dataclasses import dataclass
from pathlib import Path

from recipectl.errors import UsageError

_SYSTEM_BASES = tuple(Path(base, "recipectl") for base in ("/etc", "/run", "/usr/local/lib", "/usr/lib"))


def _home() -> Path:
    """The home of the caller; UsageError for a user without one."""
    try:
        home = Path.home()
    except RuntimeError as error:
        raise UsageError(f"user {os.getuid()} has no home here; set HOME") from error
    if not home.is_absolute() or not os.environ.get("HOME", "/"):
        raise UsageError(f"HOME is `{os.environ.get('HOME')}`, which is no absolute path; correct it")
    return home


def _xdg(variable: str, default: str) -> Path:
    """A folder of the caller. A relative path does not count (XDG Base Directory Specification)."""
    value = os.environ.get(variable, "")
    return Path(value) if value.startswith("/") else _home() / default


@dataclass(frozen=True)
class Place:
    """Where a verb works: the system, with `user` the caller's own manager, or another host over ssh."""

    user: bool = False
    remote: str | None = None

    def require_local(self) -> None:
        """UsageError when the place is another host: a verb that needs its files cannot work."""
        if self.remote:
            raise UsageError(
                "over -H only start, stop, restart, switch, wait, status and logs work; for other verbs run "
                f"`ssh {self.remote} recipectl …`"
            )

    @property
    def _user_config(self) -> Path:
        return _xdg("XDG_CONFIG_HOME", ".config")

    @property
    def runtime_folder(self) -> str:
        """The folder of what lasts until the next boot."""
        if not self.user:
            return "/run"
        return os.environ.get("XDG_RUNTIME_DIR") or f"/run/user/{os.getuid()}"

    @property
    def bases(self) -> tuple[Path, ...]:
        """The folders of recipectl's configuration; the first that has a name wins."""
        return (*self.own_bases, *_SYSTEM_BASES) if self.user else _SYSTEM_BASES

    @property
    def own_bases(self) -> tuple[Path, ...]:
        """The folders that are this place's alone: a user's, or the system's."""
        if not self.user:
            return _SYSTEM_BASES
        return (self._user_config / "recipectl", Path(self.runtime_folder, "recipectl"))

    @property
    def recipe_folders(self) -> tuple[Path, ...]:
        """The folders of recipes; the first that has a name wins."""
        self.require_local()
        # The system's recipes belong to the system manager; a user has their own.
        return tuple(base / "recipes" for base in self.own_bases)

    @property
    def owners(self) -> frozenset[int] | None:
        """The users who may decide what runs here; None for a caller who cannot apply anything."""
        if self.user:
            return frozenset({0, os.geteuid()})
        return frozenset({0}) if os.geteuid() == 0 else None

    @property
    def unit_folder(self) -> Path:
        """The folder that units are written to."""
        self.require_local()
        return self._user_config / "systemd/user" if self.user else Path("/etc/systemd/system")

    @property
    def state_folder(self) -> Path:
        """The folder of the helper that units run, and of the records of upgrades and copies."""
        if not self.user:
            return Path("/var/lib/recipectl")
        return _xdg("XDG_STATE_HOME", ".local/state") / "recipectl"

    @property
    def cache_folder(self) -> Path:
        """The folder of what can be made again: compiled recipes, options of engines, checks of venvs."""
        if not self.user:
            return Path("/var/cache/recipectl")
        return _xdg("XDG_CACHE_HOME", ".cache") / "recipectl"

    @property
    def venv_folder(self) -> Path:
        """The folder of venvs, where the host file names none."""
        if not self.user:
            return Path("/opt/venvs")
        return _xdg("XDG_DATA_HOME", ".local/share") / "recipectl/venvs"

    def verb(self, words: str) -> str:
        """A verb as a person runs it here, for a remedy: `recipectl --user apply`."""
        return f"{self._over_ssh}recipectl {'--user ' if self.user else ''}{words}"

    def systemctl(self, words: str) -> str:
        """As `verb`, of systemctl."""
        return f"{self._over_ssh}systemctl {'--user ' if self.user else ''}{words}"

    @property
    def _over_ssh(self) -> str:
        return f"ssh -t {self.remote} " if self.remote else ""

    @property
    def journalctl(self) -> tuple[str, ...]:
        """The words that a person reads a unit's log with, without the unit."""
        words = ("journalctl", *(("--user",) if self.user else ()), "-u")
        return ("ssh", "--", self.remote, *words) if self.remote else words

    def command(self, *words: str) -> tuple[str, ...]:
        """A command as it is run here: a shell on another host gets each word quoted."""
        if not self.remote:
            return words
        return *words[:3], " ".join(map(shlex.quote, words[3:]))


def lingering_fault() -> str | None:
    """A sentence when the caller's service manager ends with the caller's last session (loginctl(1))."""
    import pwd

    name = pwd.getpwuid(os.getuid()).pw_name
    if os.getuid() == 0 or Path("/var/lib/systemd/linger", name).exists():
        return None
    return (
        f"lingering is off for {name}: your models end when you log out, and do not start at boot; "
        "switch it on with `loginctl enable-linger`"
    )
