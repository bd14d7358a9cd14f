"""The words of a command line: where options may stand, verbs that do not exist, and those of systemctl."""

from __future__ import annotations

import shlex
from collections.abc import Iterable
from itertools import islice

from recipectl.place import Place
from recipectl.text import nearest

_FLAGS = ("--user", "-q", "--quiet", "--no-pager")
_WITH_VALUE = ("-H", "--host")
_GROUPS = ("import", "venv", "fleet")  # verbs that have verbs of their own
# What people who know systemctl type, and recipectl leaves to it: verbs about units, and about the manager.
_OF_UNITS = (
    "is-active", "is-enabled", "is-failed", "cat", "show", "kill", "try-restart", "reload-or-restart",
    "mask", "unmask", "reset-failed", "reenable", "preset", "revert", "set-property",
    "list-dependencies", "freeze", "thaw", "clean", "condrestart", "try-reload-or-restart",
)  # fmt: skip
_OF_THE_MANAGER = (
    "daemon-reload", "daemon-reexec", "is-system-running", "list-jobs", "cancel", "get-default",
)  # fmt: skip
# Verbs of other tools, and recipectl's verb for each.
_OTHER_NAMES = {
    "ls": "list", "ps": "status", "rm": "remove", "up": "start", "down": "stop", "inspect": "explain",
    "version": "--version", "reload": "restart", "validate": "compile",
    "lint": "compile", "create": "edit --force",
}  # fmt: skip
# Options for a log: of other programs, and those of journalctl(1) that `logs` leaves to it.
_OF_OTHER_LOGS = {
    "--json": "use `-o json`", "--tail": "use `-n LINES`", "--timestamps": "use `-o short-iso`",
    "-t": "use `-o short-iso`", "-u": "name the recipe alone", "--unit": "name the recipe alone",
}  # fmt: skip
_OF_JOURNALCTL = (
    "-c", "-e", "-k", "-M", "-q", "-x", "--after-cursor", "--case-sensitive", "--catalog",
    "--cursor", "--facility", "--full", "--machine", "--merge", "--no-full", "--no-hostname", "--no-tail",
    "--output-fields", "--pager-end", "--show-cursor", "--truncate-newline", "--utc",
)  # fmt: skip
_LISTS = ("list-units", "list-unit-files", "list-sockets", "list-timers")


def in_order(words: list[str]) -> list[str]:
    """The options of recipectl itself in front of the verb, wherever they are; `help VERB` as --help."""
    front: list[str] = []
    verb_words: list[str] = []
    rest = iter(words)
    as_json = False
    for word in rest:
        if word == "--":
            verb_words += [word, *rest]
        elif word in _FLAGS or word.startswith("--host="):
            front.append(word)
        elif word in _WITH_VALUE:
            front += [word, *islice(rest, 1)]
        elif word == "--json" and not verb_words:
            as_json = True
        else:
            verb_words.append(word)
        if verb_words == ["import", "command"]:  # the words of an engine follow
            verb_words += rest
    if verb_words[:1] == ["help"]:
        return [*front, *verb_words[1:], "--help"]
    verb = 2 if verb_words[:1] and verb_words[0] in _GROUPS else 1
    return [*front, *verb_words[:verb], *(["--json"] if as_json else []), *verb_words[verb:]]


def unknown_verb(words: list[str], verbs: Iterable[str], *, user: bool) -> str:
    """A sentence about a verb that does not exist: the command of systemctl, the nearest verb, or --help."""
    verb = words[0]
    place = Place(user)
    if verb in _OTHER_NAMES:
        return f"recipectl has no `{verb}`; use `{place.verb(_OTHER_NAMES[verb])}`"
    if verb in _OF_UNITS:
        names = [word for word in words[1:] if not word.startswith("-")] or ["NAME"]
        units = shlex.join(f"model-{name.removeprefix('model-')}" for name in names)
        # A link of this name is refused where the unit's file is.
        before = f"`{place.verb('remove')} {shlex.join(names)}`, then " if verb == "mask" else ""
        return f"recipectl has no `{verb}`; use {before}`{place.systemctl(verb)} {units}`"
    if verb in _LISTS:
        return f"recipectl has no `{verb}`; use `{place.verb('list')}`, or `{place.systemctl(verb)} 'model*'`"
    if verb in _OF_THE_MANAGER:
        return f"recipectl has no `{verb}`; use `{place.systemctl(verb)}`"
    if begun := [known for known in verbs if len(verb) > 1 and known.startswith(verb)]:
        return f"recipectl has no `{verb}`; did you mean {' or '.join(f'`{word}`' for word in begun)}?"
    known = (*verbs, *_OTHER_NAMES, *_OF_UNITS, *_LISTS, *_OF_THE_MANAGER, "help")
    if match := nearest(verb, known):
        return f"recipectl has no `{verb}`; did you mean `{match}`?"
    return f"recipectl has no `{verb}`; see `recipectl --help`"


def unknown_option_of_logs(place: Place, option: str) -> str:
    """A sentence about an option that `logs` does not have."""
    journalctl = (
        f"use `{shlex.join(place.journalctl)} model-NAME {option}`" if option in _OF_JOURNALCTL else ""
    )
    remedy = _OF_OTHER_LOGS.get(option) or journalctl or "see `recipectl help logs`"
    return f"logs has no `{option}`; {remedy}"
