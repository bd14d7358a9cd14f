"""What only this host can tell of a recipe: who may read what, versions as pinned, runtimes as locked."""

import grp
import os
import pwd
import re
import stat
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from recipectl.compiler import environment
from recipectl.compiler import service_settings as settings
from recipectl.errors import UsageError
from recipectl.machine import distributions as installed
from recipectl.machine.disk import DISTRIBUTIONS, Disk
from recipectl.machine.runtime import Runtime
from recipectl.recipe.hostfile import Host
from recipectl.recipe.schema import Recipe


def reach(recipe: Recipe, found: Runtime, host: Host, disk: Disk) -> None:
    """UsageError when the unit's user could not enter a folder on the way to what it must read."""
    user = recipe.user or host.user
    if recipe.user and _ids(user, disk.look("/etc/passwd"), disk.look("/etc/group"))[0] < 0:
        raise UsageError(f"`user` is {user}, and there is no such user; create it or correct `user:`", "user")
    if user == "root":
        return
    groups = tuple(word for value in recipe.service.get("SupplementaryGroups", ()) for word in value.split())
    for path in (found.command[0], found.interpreter or "", recipe.model_path, *found.behind):
        if path.startswith("/") and (folder := _closed(user, groups, path, disk)):
            raise UsageError(
                f"{path} cannot be reached by the unit's user {user} ({folder} is closed to it); "
                f"move it, open the folder, or set `user:`",
                *(("model_path",) if path == recipe.model_path else found.key),
            )


def _closed(user: str, groups: tuple[str, ...], path: str, disk: Disk) -> str | None:
    """The outermost folder above a path that a user with some more groups cannot enter."""
    known = (user, groups, os.path.dirname(path))  # noqa: PTH120  (a thousand recipes share a few folders)
    if known not in disk.closed:
        uid, gids = _ids(user, disk.look("/etc/passwd"), disk.look("/etc/group"))
        gids |= {gid for group in groups if (gid := _gid(group)) is not None}
        disk.closed[known] = None
        for folder in reversed(Path(path).parents):
            mode, owner, group, *_ = (*disk.look(folder).split(":"), "0", "0", "0")
            bit = stat.S_IXUSR if owner == str(uid) else stat.S_IXGRP if int(group) in gids else stat.S_IXOTH
            if not int(mode or "777", 8) & bit and not _listed(folder):
                disk.closed[known] = str(folder)
                break
    return disk.closed[known]


@cache
def _ids(user: str, *_: str) -> tuple[int, frozenset[int]]:
    """A user's id and groups; nobody's for one that apply is going to make."""
    try:
        entry = pwd.getpwnam(user)
    except KeyError:
        return -1, frozenset()
    return entry.pw_uid, frozenset(os.getgrouplist(user, entry.pw_gid))


def _gid(group: str) -> int | None:
    try:
        return grp.getgrnam(group).gr_gid
    except KeyError:
        return int(group) if group.isdigit() else None


def _listed(folder: Path) -> bool:
    """Whether an ACL says more of who may enter a folder than its mode does; it is not read here."""
    try:
        return "system.posix_acl_access" in os.listxattr(folder)
    except OSError:
        return False


def versions(recipe: Recipe, found: Runtime) -> None:
    """UsageError when the engine or its Python is not the one that the recipe pins."""
    pins = (
        ("engine_version", recipe.engine_version, recipe.backend, found.engine_version),
        ("python_version", recipe.python_version, "Python", found.python_version),
    )
    for key, wanted, what, version in pins:
        if wanted is None:
            continue
        if version is None:
            raise UsageError(
                f"`{key}` is {wanted}, and no {what} is installed beside {found.command[0]}; "
                "install it there or correct the runtime",
                key,
            )
        if not installed.meets(version, wanted):
            its = f"{what} of {found.command[0]}" if key == "python_version" else found.command[0]
            raise UsageError(
                f"`{key}` is {wanted}, and {its} is {version}; install that version or correct the recipe",
                key,
            )


def values(recipe: Recipe) -> Iterator[UsageError]:
    """What this host's systemd would ignore of the values in `service:`, in its own words."""
    lines = [(section, line) for section in ("Unit", "Service") for line in settings.lines(recipe, section)]
    for name, said in _ignored(tuple(lines)) if lines else ():
        yield UsageError(f"`service.{name}` would not be in force ({said}); correct it", "service", name)


@cache
def _ignored(lines: tuple[tuple[str, str], ...]) -> tuple[tuple[str, str], ...]:
    """(setting, what systemd-analyze says of its value); nothing where that cannot be run."""
    import subprocess
    import tempfile

    text = ["[Unit]", "DefaultDependencies=no", *(line for section, line in lines if section == "Unit")]
    text += ["[Service]", "ExecStart=/bin/true", *(line for section, line in lines if section == "Service")]
    with tempfile.TemporaryDirectory(prefix="recipectl-") as folder:
        file = Path(folder, "values.service")
        file.write_text("\n".join([*text, ""]), errors="surrogateescape")
        words = ["systemd-analyze", "verify", "--man=no", "--recursive-errors=no", str(file)]
        try:
            told = subprocess.run(words, capture_output=True, text=True, check=False, timeout=10).stderr  # noqa: S603  (fixed words)
        except (OSError, subprocess.TimeoutExpired):
            return ()
    found = re.findall(rf"^{re.escape(str(file))}:([0-9]+): (.*gnoring.*)$", told, re.M)
    # A setting that is not known at all is told otherwise.
    return tuple((text[int(n) - 1].partition("=")[0], said) for n, said in found if "Unknown" not in said)


def locked_now(recipe: Recipe, found: Runtime) -> installed.Locked:
    """The facts of a runtime as a lock records them."""
    names = DISTRIBUTIONS[recipe.backend]
    return installed.facts(found.interpreter or found.command[0], found.installed_in, names)


def drift(lock: Path | None, recipe: Recipe, found: Runtime, host: Host, disk: Disk) -> list[str]:
    """What is not as the recipe's lock has it; UsageError where the host file says `drift: refuse`."""
    if lock is None:
        return []
    try:
        before = installed.read_lock(lock)
    except (OSError, ValueError) as error:
        raise UsageError(f"{lock} cannot be read as a lock ({error}); remove it, and lock again") from error
    now = locked_now(recipe, found)
    said = installed.differences(before, now)
    # Looked at, so that a cache notices when they change.
    disk.look(now["interpreter_file"])
    for path in Path(now["folder"]).glob("*.dist-info/RECORD") if now["folder"] else ():
        disk.look(path)
    said = [f"not as locked in {lock}: {clause}" for clause in said]
    if said and host.drift == "refuse":
        raise UsageError(f"{'; '.join(said)}; put it back, or accept it with `recipectl lock --update`")
    return said


def secrets(recipe: Recipe, disk: Disk) -> Iterator[UsageError]:
    """What is wrong with the secrets, as far as we may look: missing, open to others, of the wrong form."""
    for variable, source in recipe.secrets.items():
        if not source.startswith("/"):
            continue
        seen = disk.look(source)  # first of all: a cache must look again
        if not seen and (os.geteuid() == 0 or os.access(Path(source).parent, os.X_OK)):
            text = f"`secrets.{variable}`: {source} does not exist; create it with mode 0600"
            yield UsageError(text, "secrets", variable)
        if seen and not stat.S_ISREG(int(seen.split(":")[0], 8)):
            yield UsageError(f"`secrets.{variable}`: {source} is no file; give a file", "secrets", variable)
        elif seen and int(seen.split(":")[0], 8) & (stat.S_IRWXO | stat.S_IWGRP):
            text = f"`secrets.{variable}`: others may read or change {source}; chmod 0600 it"
            yield UsageError(text, "secrets", variable)
    for variable, source in environment.environment_files(recipe).items():
        if not source.startswith("/"):
            text = f"`secrets.{variable}` is read from the environment only; give the absolute path of a file"
            yield UsageError(f"{text} that says `{variable}=…`", "secrets", variable)
        if os.path.isfile(source) and os.access(source, os.R_OK):  # noqa: PTH113
            lines = Path(source).read_text(errors="replace").splitlines()
            if not any(line.startswith(f"{variable}=") for line in lines):
                yield UsageError(
                    f"`secrets.{variable}` is read from the environment only; {source} must have a line "
                    f'`{variable}="…"`',
                    "secrets",
                    variable,
                )
