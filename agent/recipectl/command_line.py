"""The words of a command line: where options may stand, verbs that do not exist, and those of systemctl."""

from __future__ import annotations

import shlex
from collections.abc import Iterable

from recipectl.text import nearest

_FLAGS = ("--user", "-q", "--quiet", "--no-pager")
_WITH_VALUE = ("-H", "--host")
# What people who know systemctl type, and recipectl leaves to it: verbs about units, and about the manager.
_OF_UNITS = (
    "is-active", "is-enabled", "is-failed", "cat", "show", "kill", "try-restart", "reload-or-restart",
    "reload", "mask", "unmask", "reset-failed", "reenable", "preset", "revert", "set-property",
    "list-dependencies", "freeze", "thaw", "clean", "condrestart", "try-reload-or-restart",
)  # fmt: skip
_OF_THE_MANAGER = (
    "daemon-reload",
    "daemon-reexec",
    "is-system-running",
    "list-jobs",
    "cancel",
    "get-default",
)
_LISTS = ("list-units", "list-unit-files", "list-sockets", "list-timers")


def in_order(words: list[str]) -> list[str]:
    """The options of recipectl itself in front of the verb, wherever they are; `help VERB` as --help."""
    front: list[str] = []
    behind: list[str] = []
    rest = iter(words)
    as_json = False
    for word in rest:
        if word == "--":
            behind += [word, *rest]
        elif word in _FLAGS or word.startswith("--host="):
            front.append(word)
        elif word in _WITH_VALUE:
            front += [word, *_first(rest)]
        elif word == "--json" and not behind:
            as_json = True
        else:
            behind.append(word)
        if behind == ["import", "command"]:  # the words of an engine follow
            behind += rest
    if behind[:1] == ["help"]:
        return [*front, *behind[1:], "--help"]
    return [*front, *behind[:1], *(["--json"] if as_json else []), *behind[1:]]


def _first(rest: Iterable[str]) -> list[str]:
    return [word for word in [next(iter(rest), None)] if word is not None]


def unknown_verb(words: list[str], verbs: Iterable[str], *, user: bool) -> str:
    """A sentence about a verb that does not exist: the command of systemctl, the nearest verb, or --help."""
    verb = words[0]
    systemctl = "systemctl --user" if user else "systemctl"
    if verb in _OF_UNITS:
        names = [word for word in words[1:] if not word.startswith("-")] or ["NAME"]
        units = shlex.join(f"model-{name.removeprefix('model-')}" for name in names)
        return f"recipectl has no `{verb}`; use `{systemctl} {verb} {units}`"
    if verb in _LISTS:
        return f"recipectl has no `{verb}`; use `recipectl list`, or `{systemctl} {verb} 'model*'`"
    if verb in _OF_THE_MANAGER:
        return f"recipectl has no `{verb}`; use `{systemctl} {verb}`"
    if begun := [known for known in verbs if len(verb) > 1 and known.startswith(verb)]:
        return f"recipectl has no `{verb}`; did you mean {' or '.join(f'`{word}`' for word in begun)}?"
    known = (*verbs, *_OF_UNITS, *_LISTS, *_OF_THE_MANAGER, "help")
    if match := nearest(verb, known):
        return f"recipectl has no `{verb}`; did you mean `{match}`?"
    return f"recipectl has no `{verb}`; see `recipectl --help`"
