"""What only this host can tell about a recipe: access, pinned versions, locked runtimes, files of secrets."""

import grp
import os
import pwd
import re
import stat
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from recipectl.compiler import secrets, service_settings
from recipectl.errors import UsageError
from recipectl.machine import lockfile
from recipectl.machine.disk import Disk
from recipectl.machine.distributions import ENGINE_DISTRIBUTIONS, satisfies
from recipectl.machine.installation import Installation
from recipectl.machine.runtime import Runtime
from recipectl.recipe.hostfile import HostSettings
from recipectl.recipe.schema import Recipe


def check(
    recipe: Recipe, runtime: Runtime | None, settings: HostSettings, installation: Installation, disk: Disk
) -> Iterator[UsageError]:
    """Yield what is wrong with a recipe on this host; without a runtime, what does not depend on it."""
    yield from check_secrets(recipe, disk)
    unknown_settings = tuple(service_settings.check(recipe, installation))
    yield from unknown_settings or check_service_values(recipe)
    if runtime and not installation.user:
        yield from check_access(recipe, runtime, settings, disk)
    if runtime:
        yield from check_pins(recipe, runtime)


def check_access(
    recipe: Recipe, runtime: Runtime, settings: HostSettings, disk: Disk
) -> Iterator[UsageError]:
    """Yield the files that the unit's user cannot reach, because it may not enter a folder above them."""
    user = recipe.user or settings.user
    if recipe.user and _identity(user, disk)[0] < 0:
        sentence = f"`user` is {user}, and there is no such user; create it or correct `user:`"
        yield UsageError(sentence, "user", kind="access")
        return
    if user == "root":
        return
    groups = tuple(word for value in recipe.service.get("SupplementaryGroups", ()) for word in value.split())
    for path in (runtime.command[0], runtime.interpreter or "", recipe.model_path, *runtime.link_targets):
        if path.startswith("/") and (folder := _closed_folder(user, groups, path, disk)):
            key = ("model_path",) if path == recipe.model_path else runtime.key
            fault = f"the unit's user {user} cannot reach {path} ({folder} is closed to it)"
            yield UsageError(f"{fault}; move it, open the folder, or set `user:`", *key, kind="access")
            return


def _closed_folder(user: str, groups: tuple[str, ...], path: str, disk: Disk) -> str | None:
    """The outermost folder above a path that a user with some more groups cannot enter."""
    known = (user, groups, os.path.dirname(path))  # noqa: PTH120  (a thousand recipes share a few folders)
    if known not in disk.closed_folders:
        uid, gids = _identity(user, disk)
        gids |= {gid for group in groups if (gid := _gid(group)) is not None}
        folders = (
            folder for folder in reversed(Path(path).parents) if not _may_enter(folder, uid, gids, disk)
        )
        closed = next(folders, None)
        disk.closed_folders[known] = str(closed) if closed else None
    return disk.closed_folders[known]


def _may_enter(folder: Path, uid: int, gids: frozenset[int], disk: Disk) -> bool:
    mode, owner, group, *_ = (*disk.fingerprint(folder).split(":"), "0", "0", "0")
    bit = stat.S_IXUSR if owner == str(uid) else stat.S_IXGRP if int(group) in gids else stat.S_IXOTH
    return bool(int(mode or "777", 8) & bit) or _has_acl(folder)


def _identity(user: str, disk: Disk) -> tuple[int, frozenset[int]]:
    """A user's id and groups; -1 and none for a user that apply is going to create."""
    # The fingerprints make a cache check these files again.
    return _passwd_entry(user, disk.fingerprint("/etc/passwd"), disk.fingerprint("/etc/group"))


@cache
def _passwd_entry(user: str, *_fingerprints: str) -> tuple[int, frozenset[int]]:
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


def _has_acl(folder: Path) -> bool:
    """True if an ACL decides who may enter a folder; recipectl does not read it."""
    try:
        return "system.posix_acl_access" in os.listxattr(folder)
    except OSError:
        return False


def check_pins(recipe: Recipe, runtime: Runtime) -> Iterator[UsageError]:
    """Yield the versions of the engine and its Python that are not those which the recipe pins."""
    program = runtime.command[0]
    pins = (
        ("engine_version", recipe.engine_version, recipe.backend, runtime.engine_version, program),
        ("python_version", recipe.python_version, "Python", runtime.python_version, f"Python of {program}"),
    )
    for key, specifier, product, version, installed in pins:
        if specifier and version is None:
            sentence = f"`{key}` is {specifier}, and no {product} is installed beside {program}"
            yield UsageError(f"{sentence}; install it there or correct the runtime", key, kind="pin")
        elif specifier and not satisfies(version, specifier):
            sentence = f"`{key}` is {specifier}, and {installed} is {version}"
            yield UsageError(f"{sentence}; install one that fits, or edit the recipe", key, kind="pin")


def check_service_values(recipe: Recipe) -> Iterator[UsageError]:
    """Yield what this host's systemd would ignore of the values in `service:`, in its own words."""
    sections = ("Unit", "Service")
    lines = tuple((section, line) for section in sections for line in service_settings.lines(recipe, section))
    for name, reason in _ignored(lines) if lines else ():
        sentence = f"systemd would ignore `service.{name}` ({reason}); correct it"
        yield UsageError(sentence, "service", name, kind="setting")


@cache
def _ignored(lines: tuple[tuple[str, str], ...]) -> tuple[tuple[str, str], ...]:
    """(setting, what systemd-analyze says about its value); nothing where that cannot be run."""
    import subprocess
    import tempfile

    text = ["[Unit]", "DefaultDependencies=no", *(line for section, line in lines if section == "Unit")]
    text += ["[Service]", "ExecStart=/bin/true", *(line for section, line in lines if section == "Service")]
    with tempfile.TemporaryDirectory(prefix="recipectl-") as folder:
        file = Path(folder, "values.service")
        file.write_text("\n".join([*text, ""]), errors="surrogateescape")
        words = ["systemd-analyze", "verify", "--man=no", "--recursive-errors=no", str(file)]
        try:
            output = subprocess.run(words, capture_output=True, text=True, check=False, timeout=10).stderr  # noqa: S603  (fixed words)
        except (OSError, subprocess.TimeoutExpired):
            return ()
    remarks = re.findall(rf"^{re.escape(str(file))}:([0-9]+): (.*gnoring.*)$", output, re.M)
    # service_settings reports unknown settings.
    known = ((number, reason) for number, reason in remarks if "Unknown" not in reason)
    return tuple((text[int(number) - 1].partition("=")[0], reason) for number, reason in known)


def current_lock(recipe: Recipe, runtime: Runtime) -> lockfile.Lock:
    """The exact runtime now, as a lock records it."""
    names = ENGINE_DISTRIBUTIONS[recipe.backend]
    return lockfile.record(runtime.interpreter or runtime.command[0], runtime.installed_in, names)


def check_lock(
    lock: Path | None, recipe: Recipe, runtime: Runtime, settings: HostSettings, disk: Disk
) -> tuple[str, ...]:
    """The differences to the recipe's lock; UsageError where the host file says `drift: refuse`."""
    if lock is None:
        return ()
    try:
        locked = lockfile.read_lock(lock)
    except (OSError, ValueError) as error:
        sentence = f"{lock} cannot be read as a lock ({error}); remove it, and run `recipectl lock` again"
        raise UsageError(sentence, kind="lock") from error
    current = current_lock(recipe, runtime)
    # The fingerprints make a cache check these files again.
    disk.fingerprint(current["interpreter_file"])
    for path in Path(current["folder"]).glob("*.dist-info/RECORD") if current["folder"] else ():
        disk.fingerprint(path)
    clauses = tuple(lockfile.differences(locked, current))
    if clauses and settings.drift == "refuse":
        fault = f"the runtime differs from {lock}: {'; '.join(clauses)}"
        remedy = f"put it back, or accept it with `recipectl lock --update {recipe.name}`"
        raise UsageError(f"{fault}; {remedy}", kind="lock")
    return clauses


def check_secrets(recipe: Recipe, disk: Disk) -> Iterator[UsageError]:
    """Yield what is wrong with the files of secrets: they are missing, open to others, or lack a line."""
    for variable, source in recipe.secrets.items():
        if source.startswith("/") and (sentence := _wrong_secret_file(source, disk)):
            yield UsageError(f"`secrets.{variable}`: {sentence}", "secrets", variable, kind="secret")
    for variable, source in secrets.environment_files(recipe).items():
        fault = f"`secrets.{variable}` is read from the environment only"
        if not source.startswith("/"):
            sentence = f"{fault}; give the absolute path of a file with a line `{variable}=…`"
            yield UsageError(sentence, "secrets", variable, kind="secret")
        elif not _has_line(source, variable):
            sentence = f'{fault}; {source} must have a line `{variable}="…"`'
            yield UsageError(sentence, "secrets", variable, kind="secret")


def _wrong_secret_file(source: str, disk: Disk) -> str | None:
    fingerprint = disk.fingerprint(source)  # first of all, so that a cache checks it again
    if not fingerprint:
        visible = os.geteuid() == 0 or os.access(Path(source).parent, os.X_OK)
        return f"{source} does not exist; create it with mode 0600" if visible else None
    mode = int(fingerprint.split(":")[0], 8)
    if not stat.S_ISREG(mode):
        return f"{source} is not a file; give a file"
    if mode & (stat.S_IRWXO | stat.S_IWGRP):
        return f"others may read or change {source}; set mode 0600"
    return None


def _has_line(source: str, variable: str) -> bool:
    """True if a file of variables sets this one, or cannot be read here."""
    if not os.path.isfile(source) or not os.access(source, os.R_OK):  # noqa: PTH113
        return True
    lines = Path(source).read_text(errors="replace").splitlines()
    return any(line.startswith(f"{variable}=") for line in lines)
