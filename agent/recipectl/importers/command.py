"""One command as it was given to a shell, a unit or a process: the values that importers pass on."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Protocol

from recipectl.compiler.secrets import looks_secret
from recipectl.errors import UsageError
from recipectl.importers.draft import AS_IT_RUNS, VARIABLE_ALONE
from recipectl.importers.lines import Losing, Remark, placed

SHELLS = ("sh", "bash", "dash", "zsh")
# What a program is given that is likely an engine, though its name is not known.
_MODEL_WORDS = re.compile(
    r"(^|\s)(serve|--model|--model-path|-hf)\s|(?<!python)(?<!python3)(^|\s)-m\s"
    r"|(?<![/@\w])(sglang|vllm|llama-server)\b(?!:\d)"
)
# Programs whose arguments are shown: what is secret in them is hidden in any sentence (`redacted`).
_WITHOUT_SECRETS = re.compile(
    r"((docker|podman|nerdctl) (stop|kill|rm|pause)|rm|systemctl|kill|pkill|killall|modprobe|sysctl|mount"
    r"|umount|swapoff|chmod|chown|cp|mv|ln|ip|ethtool|nvidia-smi|pip3? install|apt(-get)? install|tee|grep) "
)
# A name that stands alone, or is a part of a path or a list; text of a prompt or JSON has none.
_PLACEHOLDER = re.compile(
    r"(?<![^\s=:/])(__[A-Z][A-Z0-9_]*[A-Z0-9]__|@[A-Z][A-Z0-9_]+@)(?![^\s:/])"
    r"|(?<![^=:])(<\w[\w .-]*>)(?=/)|(?<![^\s=:\"'])[/~](?:[^\s\"'<>{}]*/)?(<\w[\w .-]*>)"
)
ASSIGNMENT = re.compile(r"([A-Za-z_][A-Za-z0-9_]*)=(.*)\Z", re.S)


# Says of a variable that only the caller's environment had its value.
OF_CALLER = "which the caller had"
# What is said of a login shell, and of an interactive one.
READS_PROFILE = "such a shell reads files of its user (~/.profile, ~/.bashrc), which may set variables"


class NoEngineError(UsageError):
    """A command that runs another program, or an image of one."""


class OtherProgramError(NoEngineError):
    """A command that runs a program which is known to be no engine."""


@dataclass
class Command(Losing):
    """One command; `not_carried_over` is what cannot be kept of it, `refusal` why it cannot be imported."""

    environment: dict[str, str]
    words: list[str]
    venv: str | None = None
    folder: str | None = None  # where the script went with `cd`
    reader: int | None = None  # the user of a running process; its files count only as far as it can read
    script_folder: str | None = None  # from which most scripts are started
    path: str | None = None  # the value of PATH
    not_carried_over: list[Remark] = field(default_factory=list)
    lost_before: list[Remark] = field(default_factory=list)  # the losses among them of earlier commands
    place: str = ""  # `line 3`; empty for a command that came alone
    user: str | None = None
    autostart: bool = False
    is_of_unit: bool = False  # it stands in a unit, which says whether it starts again
    conda_environment: str | None = None
    service: dict[str, str] = field(default_factory=dict)  # settings of its unit
    secrets: dict[str, str] = field(default_factory=dict)  # variable -> where its value was kept
    unread_files: list[str] = field(default_factory=list)  # files of variables that are not here
    written_files: frozenset[str] = frozenset()  # by the script, before the command
    has_rocm: bool = False  # of a container with AMD's GPUs
    places: dict[str, str] = field(
        default_factory=dict
    )  # PATH, `cd`, a secret, or of a container -> its place
    substituted: frozenset[str] = frozenset()  # variables of the host for what a substitution gives
    column: int = 0  # where it begins on its line of a script
    refusal: str = ""
    condition: int | None = None  # the line of the test that decides whether it runs
    branches: dict[int, int] = field(default_factory=dict)  # statement of a script -> its part
    is_skipped: bool = False  # the script does not run it, as it is
    given_words: dict[str, str] = field(default_factory=dict)  # path here -> as a process was given it
    hides_engine: bool = False  # in a variable, with words that only a shell knows

    def stand_at(self, place: str) -> None:
        """Put a place in front of its own, and of those of what it lost: it stands within something else."""
        self.place = ": ".join(filter(None, (place, self.place)))
        self.places = {name: placed(where, place) for name, where in self.places.items()}
        self.not_carried_over = [remark.moved_into(place) for remark in self.not_carried_over]

    def refuse(self, place: str, reason: str) -> None:
        """Say why the command is not imported."""
        self.place = place
        self.refusal = f"{reason}, {AS_IT_RUNS}"

    def refuse_unknown(self, reasons: Sequence[Remark]) -> None:
        """Refuse it, at the line of the first reason, for words that only a running shell knows."""
        reasons = reasons or [Remark("only a shell knows its words", within=self.place)]
        place = reasons[0].place or self.place
        texts = dict.fromkeys(reason.sentence if reason.place == place else str(reason) for reason in reasons)
        self.refuse(place, f"{'; '.join(texts)}; write the result")


def template_in(words: Sequence[str]) -> str | None:
    """A variable that a template has left in a command, `{{ model }}` without quotes; None without one."""
    text = " ".join(words)
    is_split = any(word.endswith(("{{", "{%")) for word in words)
    match = re.search(r"\{[{%].{0,200}?([}%]\}|\Z)", text if is_split else "".join(words[:1]))
    return match[0] if match else next(filter(None, map(placeholder_in, words)), None)


def placeholder_in(text: str) -> str | None:
    """What somebody must fill in: `__PORT__`, `@PORT@`, `<user>` of `/home/<user>/x`; None without one."""
    match = _PLACEHOLDER.search(text)
    return next(filter(None, match.groups()), None) if match else None


def is_given_model(words: Sequence[str]) -> bool:
    """Whether a program that is not known is likely an engine."""
    return bool(_MODEL_WORDS.search(" ".join(words)))


def program_shown(words: Sequence[str]) -> str:
    """A command that is named, and not run: its arguments may hold secrets, in any program's form."""
    if _WITHOUT_SECRETS.match(" ".join(words)):
        return " ".join(words)
    length = 2 if len(words) > 1 and re.fullmatch("[a-z][a-z-]{0,20}", words[1]) else 1
    return " ".join((*words[:length], *(["…"] if len(words) > length else [])))


def refused(line: int, reason: str) -> Command:
    """What stands for a part of a script that is not imported."""
    command = Command({}, [])
    command.refuse(f"line {line}", reason)
    return command


def assignment(word: str) -> tuple[str, str] | None:
    """(name, value) of `NAME=value`; None for any other word."""
    match = ASSIGNMENT.match(word)
    return (match[1], match[2]) if match else None


class _Environment(Protocol):
    """What a wrapper or a container gives to an engine."""

    environment: dict[str, str]
    secrets: dict[str, str]
    not_carried_over: list[Remark]

    def lose(self, sentence: str) -> None: ...


def add_variable(word: str, of_caller: Mapping[str, str], target: _Environment) -> None:
    """Add `NAME=value`, or `NAME` with the value that its caller has (docker-run(1), systemd-run(1))."""
    pair = assignment(word)
    name = pair[0] if pair else word
    if looks_secret(name, "x") and (VARIABLE_ALONE.fullmatch(pair[1]) if pair else word not in of_caller):
        target.secrets[name] = OF_CALLER
    elif pair or word in of_caller:
        target.environment[name] = pair[1] if pair else of_caller[word]
    else:
        target.lose(f"the variable `{word}` of the caller; set it in `env_vars:`")


def script_in(words: list[str]) -> str | None:
    """The script of `bash -c SCRIPT`; None for any other command."""
    for index, word in enumerate(words[1:-1], start=1):
        if PurePosixPath(words[0]).name in SHELLS and re.fullmatch(r"-[a-z]*c", word):
            return words[index + 1]
    return None


def command_from_words(words: list[str]) -> Command:
    """A command that a shell has split already: `NAME=value` before the program is its environment."""
    environment: dict[str, str] = {}
    while words and (pair := assignment(words[0])):
        environment |= [pair]
        words = words[1:]
    path = environment.pop("PATH", None)
    return Command(environment, list(words), path=path)
