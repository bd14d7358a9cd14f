"""A command in another session: `tmux new -d 'vllm serve …'`, `screen -dm vllm …`, `su USER -c '…'`."""

import getopt
from collections.abc import Callable, Mapping
from typing import NamedTuple

from recipectl.importers.programs import program_name


class Session(NamedTuple):
    """What a session runs, and what it changes of its caller's user, folder and variables."""

    words: list[str]
    user: str | None = None
    is_login: bool = False  # in the user's home, without the caller's variables
    folder: str | None = None
    variables: tuple[str, ...] = ()  # `NAME=value`


def session_of(words: list[str]) -> Session | None:
    """The session that a command starts; None for any other command, and for options that are not known."""
    read = _PROGRAMS.get(program_name(words))
    try:
        session = read(words[1:]) if read else None
    except getopt.GetoptError:
        return None
    return session if session and session.words else None


def _shell_of(words: list[str]) -> list[str]:
    """One word is a text for a shell; several are a program and its arguments (tmux(1))."""
    return ["sh", "-c", *words] if len(words) == 1 else words


def _tmux(words: list[str]) -> Session | None:
    if any(word.endswith(";") for word in words):  # several commands of tmux
        return None
    _, rest = getopt.getopt(words, "2CDluvc:f:L:S:T:")
    if rest[:1] not in (["new"], ["new-session"]):
        return None
    options, command = getopt.getopt(rest[1:], "AdDEPXc:e:f:F:n:s:t:x:y:")
    return Session(
        _shell_of(command),
        folder=dict(options).get("-c"),
        variables=tuple(value for option, value in options if option == "-e"),
    )


def _screen(words: list[str]) -> Session | None:
    options, command = getopt.getopt(words, "aADdmOqS:Uh:p:s:t:T:")
    return Session(command) if ("-m", "") in options else None


def _su(words: list[str]) -> Session | None:
    """`su [-] [USER] -c TEXT` (su(1)); runuser without `-u` is the same (runuser(1))."""
    options, rest = getopt.gnu_getopt(words, "c:s:lmpP", ["command=", "shell=", "login", "pty"])
    values = dict(options)
    text = values.get("-c") or values.get("--command")
    users = [word for word in rest if word != "-"]
    if not text or len(users) > 1:
        return None
    is_login = "-" in rest or bool({"-l", "--login"} & values.keys())
    return Session(["sh", "-c", text], user="".join(users) or "root", is_login=is_login)


_PROGRAMS: Mapping[str, Callable[[list[str]], Session | None]] = {
    "tmux": _tmux,
    "screen": _screen,
    "su": _su,
    "runuser": _su,
}
