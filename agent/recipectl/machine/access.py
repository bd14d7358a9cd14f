"""What a user of this host may reach, open and write, as modes and groups say."""

import contextlib
import grp
import os
import pwd
import stat
from functools import cache
from pathlib import Path

from recipectl.machine.disk import Disk
from recipectl.recipe.trusted import group_name, has_acl

_DEVICE_NODES = ("nvidia*", "kfd", "dri/renderD*")


def denied(path: Path, uid: int, gids: frozenset[int], disk: Disk) -> str | None:
    """The group of a path that a user cannot read and write; None when it can, or when nothing is there."""
    mode, owner, group = disk.node(path)
    shift = 6 if owner == uid else 3 if group in gids else 0
    may = not mode or mode >> shift & 0o6 == 0o6 or has_acl(path)
    return None if may else group_name(group)


def groups_of_nodes(disk: Disk) -> set[str]:
    """The groups of GPU device nodes that others cannot open."""
    groups = set()
    for pattern in _DEVICE_NODES:
        for path in Path("/dev").glob(pattern):
            mode, _, gid = disk.node(path)
            if stat.S_ISCHR(mode) and mode & stat.S_IWGRP and not mode & stat.S_IWOTH and gid:
                with contextlib.suppress(KeyError):
                    groups.add(grp.getgrgid(gid).gr_name)
    return groups


def has_group(path: str, gid: int, disk: Disk) -> bool:
    """True if a path, or a folder above it, belongs to a group."""
    return any(disk.node(part).group == gid for part in (Path(path), *Path(path).parents))


def closed_folder(user: str, groups: tuple[str, ...], path: str, disk: Disk) -> str | None:
    """The outermost folder above a path that a user with some more groups cannot enter."""
    known = (user, groups, os.path.dirname(path))  # noqa: PTH120  (a thousand recipes share a few folders)
    if known not in disk.closed_folders:
        uid, gids = identity(user, disk)
        gids |= {gid for group in groups if (gid := group_id(group)) is not None}
        folders = (
            folder for folder in reversed(Path(path).parents) if not _may_enter(folder, uid, gids, disk)
        )
        closed = next(folders, None)
        disk.closed_folders[known] = str(closed) if closed else None
    return disk.closed_folders[known]


def _may_enter(folder: Path, uid: int, gids: frozenset[int], disk: Disk) -> bool:
    mode, owner, group = disk.node(folder)
    bit = stat.S_IXUSR if owner == uid else stat.S_IXGRP if group in gids else stat.S_IXOTH
    return not mode or bool(mode & bit) or has_acl(folder)


def identity(user: str, disk: Disk) -> tuple[int, frozenset[int]]:
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


def group_id(group: str) -> int | None:
    """The id of a group, which may be written as a number; None when there is no such group."""
    try:
        return grp.getgrnam(group).gr_gid
    except KeyError:
        return int(group) if group.isdigit() else None
