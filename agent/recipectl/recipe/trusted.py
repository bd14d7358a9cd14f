"""The content of what people write for recipectl: read only where nobody else can have written it."""

import errno
import os
import stat
from collections.abc import Callable
from functools import cache
from pathlib import Path

from recipectl.files import read_bounded

Content = Callable[[Path], bytes]
_MAX_LINKS = 40  # as the kernel has it (path_resolution(7))


def content_for(owners: frozenset[int] | None) -> Content:
    """A reader of recipes, drop-ins, host files and locks; each file is read once.

    `owners` are the users who may decide what runs; None for a caller who only looks. The reader raises
    OSError for a file that somebody else can change, for what is no regular file, and for more than a MiB.
    """

    trust = Trust(owners) if owners is not None else None

    @cache
    def content(path: Path) -> bytes:
        if trust and (fault := trust.fault(path)):
            raise PermissionError(errno.EPERM, fault, str(path))
        return read_bounded(path)

    return content


class Trust:
    """Which files nobody but the owners can have written; looks at each folder once."""

    def __init__(self, owners: frozenset[int]) -> None:
        self.owners = owners
        self._hops: dict[str, tuple[str, ...]] = {}
        self._folders: dict[tuple[str, int | None], str | None] = {}

    def fault(self, path: Path) -> str | None:
        """Why a file is not trusted: somebody else can write it, a link to it, or a folder above them."""
        folder, name = os.path.split(os.path.abspath(path))  # noqa: PTH100  (a thousand files)
        if folder not in self._hops:
            self._hops[folder] = _hops(folder)
        places = [f"{hop.rstrip('/')}/{name}" for hop in self._hops[folder]]
        if os.path.islink(places[-1]):  # noqa: PTH114
            places += _hops(places[-1])
        return next((fault for place in dict.fromkeys(places) if (fault := self._of_place(place))), None)

    def _of_place(self, path: str) -> str | None:
        owner, fault = _look_at(path, self.owners, None)
        return fault or self._of_folder(os.path.dirname(path), owner)  # noqa: PTH120

    def _of_folder(self, folder: str, owner_below: int | None) -> str | None:
        """The fault of a folder or of one above it; `owner_below` owns what is looked at in the folder."""
        key = (folder, owner_below)
        if key not in self._folders:
            owner, fault = _look_at(folder, self.owners, owner_below)
            above = None if folder == "/" else self._of_folder(os.path.dirname(folder), owner)  # noqa: PTH120
            self._folders[key] = fault or above
        return self._folders[key]


def _hops(path: str) -> tuple[str, ...]:
    """A path, and every path that the links on it lead to in turn; the last one has no link."""
    hops = [path]
    for _ in range(_MAX_LINKS):
        parts = hops[-1].split("/")
        prefixes = ("/".join(parts[:count]) for count in range(2, len(parts) + 1))
        link = next((prefix for prefix in prefixes if os.path.islink(prefix)), None)  # noqa: PTH114
        if link is None:
            return tuple(hops)
        target = os.path.join(os.path.dirname(link), os.readlink(link))  # noqa: PTH115, PTH118, PTH120
        hops.append(os.path.normpath(target + hops[-1][len(link) :]))
    return tuple(hops)


def _look_at(path: str, owners: frozenset[int], owner_below: int | None) -> tuple[int | None, str | None]:
    """The owner of a file, link or folder, and why it is not trusted.

    A folder such as /tmp, where everybody may write, lets nobody replace what belongs to another (sticky).
    """
    try:
        status = os.lstat(path)
    except OSError:
        return None, None  # reading it fails with the reason
    mode = f"mode {stat.S_IMODE(status.st_mode):04o}"
    if status.st_uid not in owners:
        return status.st_uid, f"user {user_name(status.st_uid)} can change {path} ({mode})"
    sticky = bool(status.st_mode & stat.S_ISVTX) and owner_below in owners
    if stat.S_ISLNK(status.st_mode) or sticky:
        return status.st_uid, None
    if status.st_mode & stat.S_IWOTH:
        return status.st_uid, f"everybody can change {path} ({mode})"
    if status.st_mode & stat.S_IWGRP and (has_acl(path) or not _is_private(status.st_gid, owners)):
        return status.st_uid, f"group {group_name(status.st_gid)} can change {path} ({mode})"
    return status.st_uid, None


@cache
def _is_private(gid: int, owners: frozenset[int]) -> bool:
    """True if nobody but the owners is in a group: root's own, or the group of one user (umask 0002)."""
    import grp
    import pwd

    try:
        group = grp.getgrgid(gid)
        names = {pwd.getpwuid(uid).pw_name for uid in owners}
    except KeyError:
        return False
    return group.gr_name in names and {*group.gr_mem} <= names


def has_acl(path: str | Path) -> bool:
    """True if an ACL decides, which is not read; its mask is shown in place of the group's bits."""
    try:
        return "system.posix_acl_access" in os.listxattr(path)
    except OSError:
        return False


def user_name(uid: int) -> str:
    """The name of a user, else its number."""
    import pwd

    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def group_name(gid: int) -> str:
    """The name of a group, else its number."""
    import grp

    try:
        return grp.getgrgid(gid).gr_name
    except KeyError:
        return str(gid)
