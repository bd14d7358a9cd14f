"""The variables of a shell, and what else a subshell gets from its parent."""

import re
from collections.abc import Collection, Iterable, Mapping
from copy import copy
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from recipectl.importers.draft import UNKNOWN_VALUE, VARIABLE_START
from recipectl.importers.lines import Remark
from recipectl.importers.shell_syntax import Node

# What engines, and the hub's and S3's libraries in them, read from the environment of the script's caller.
READ_BY_ENGINES = re.compile(
    r"HF_TOKEN|HUGGING_FACE_HUB_TOKEN|(VLLM|LLAMA|SGLANG)_API_KEY|AWS_(ACCESS_KEY_ID|SECRET_ACCESS_KEY|SESSION_TOKEN)"
)
# What a session, a shell, a scheduler or a launcher of several processes sets.
_KNOWN_TO_SHELL = re.compile(
    r"HOME|USER|LOGNAME|(OLD)?PWD|PATH|SHELL|HOST(NAME|TYPE)|OSTYPE|MACHTYPE|E?UID|LANG|LC_\w+|TERM|TMPDIR|DISPLAY"
    r"|VIRTUAL_ENV|CONDA_(PREFIX|DEFAULT_ENV)|BASH\w*|ZSH_\w+|PPID|SHLVL|RANDOM|SECONDS|LINENO|FUNCNAME|PIPESTATUS|IFS|OPTIND|OPTARG|REPLY|XDG_\w+|SUDO_\w+"
    r"|(SLURM|PBS|LSB|OMPI|PMIX?)_\w+|(LOCAL_|NODE_)?RANK|WORLD_SIZE|MASTER_(ADDR|PORT)|LD_LIBRARY_PATH|0"
)


@dataclass(frozen=True)
class Variable:
    """A variable's value, or an array's elements; `remarks` is what an import must say when it is used."""

    value: str = ""
    elements: tuple[str, ...] | None = None
    remarks: tuple[Remark, ...] = ()
    line: int = field(default=0, compare=False)  # where the script sets it

    @property
    def text(self) -> str:
        return self.value if self.elements is None else " ".join(self.elements)


@dataclass
class Function:
    """A function as it is declared; one under a condition may be another, or none, when it is called."""

    node: Node
    is_certain: bool
    is_called: bool = False


class Before(NamedTuple):
    """What a variable was before a function had one of its own by that name."""

    variable: Variable | None
    is_exported: bool
    is_readonly: bool
    is_not_of_caller: bool
    is_prefixed: bool  # it has its value from `NAME=value function`


@dataclass
class Scope:
    """What a subshell gets from its parent; a change in the subshell does not reach the parent."""

    variables: dict[str, Variable] = field(default_factory=dict)
    exported_names: set[str] = field(default_factory=set)
    readonly_names: set[str] = field(default_factory=set)
    # Names that the script leaves unset -> what to say of each.
    without_value: dict[str, Remark | None] = field(default_factory=dict)
    required: set[str] = field(default_factory=set)  # what the script cannot do without
    has_unknown_variables: bool = False  # set by a file or a program that is not read
    set_elsewhere: set[str] = field(default_factory=set)  # in parts that do not run
    of_caller: dict[str, str] = field(default_factory=dict)  # host variable -> what the caller gives
    functions: dict[str, Function] = field(default_factory=dict)
    aliases: dict[str, tuple[int, str]] = field(default_factory=dict)  # name -> its line, its text
    # What the variables of each function that runs hide; the innermost function is the last.
    locals: list[dict[str, Before]] = field(default_factory=list)
    returned: "tuple[int, Scope] | None" = None  # where a function may have returned, and the scope then
    ends_script: bool = False  # by `exit`, which also ends it from within a function
    exit_status: str = ""  # of `exit` as it is written
    is_over: bool = False  # an engine has run that the script does not outlive
    alternatives: dict[int, int] = field(default_factory=dict)  # statement -> the part that runs now
    unset_names: set[str] = field(default_factory=set)
    set_names: set[str] = field(default_factory=set)  # since this scope began
    # Values that another part gives than the one whose values count, since this scope began.
    dropped: dict[str, tuple[Variable, ...]] = field(default_factory=dict)
    not_of_caller: set[str] = field(default_factory=set)  # what `unset` has removed
    exports_all: bool = False  # `set -a`
    arguments: tuple[str, ...] | None = None  # None where only the script's caller knows them
    arguments_remarks: tuple[Remark, ...] = ()  # what must be said of them
    shifted: int = 0  # arguments that `shift` has taken
    folder: str | None = None
    venv: str | None = None
    service: dict[str, str] = field(default_factory=dict)  # limits, as settings of a unit
    ended: int | None = None  # the line that ends the shell
    script_folder: str | None = None  # where the script's file is
    is_zsh: bool = False
    is_repeated: bool = False  # in a loop: its values are those of another time
    has_other_patterns: bool = False  # `shopt -s nocasematch` or `extglob`
    conda_folder: str | None = None
    conda_environment: str | None = None
    places: dict[str, str] = field(default_factory=dict)  # of PATH, `cd` and the caller's secrets
    written_files: frozenset[str] = frozenset()
    lost: list[Remark] = field(default_factory=list)  # what each program from here on lacks

    def copied(self) -> "Scope":
        """A copy for a subshell, or for a part that may not run."""
        containers = (name for name, value in vars(self).items() if isinstance(value, dict | set | list))
        copies = {name: copy(getattr(self, name)) for name in containers}
        return replace(self, **copies | {"locals": [*map(copy, self.locals)]})

    def is_unset(self, name: str) -> bool:
        """Whether the script itself has left a variable without a value."""
        return name in self.not_of_caller and not self.has_unknown_variables

    def note_return(self, after: "Scope", line: int) -> None:
        """Note that a function may have returned in a part that has ended so; `after` is the scope there."""
        if self.locals and after.ended is not None and not after.ends_script:
            self.returned = self.returned or (line, after)
        self.returned = self.returned or after.returned

    def make_local(self, name: str, *, is_prefixed: bool = False) -> bool:
        """Keep a variable of a function's caller; False in no function, and where this one has its own."""
        if not self.locals or name in self.locals[-1]:
            return False
        self.locals[-1][name] = Before(
            variable=self.variables.get(name),
            is_exported=name in self.exported_names,
            is_readonly=name in self.readonly_names,
            is_not_of_caller=name in self.not_of_caller,
            is_prefixed=is_prefixed,
        )
        return True

    def restore(self, name: str, before: Before) -> None:
        """Let a variable be what it was before a function had its own."""
        self.variables.pop(name, None)
        if before.variable is not None:
            self.variables[name] = before.variable
        for names, is_member in (
            (self.exported_names, before.is_exported),
            (self.readonly_names, before.is_readonly),
            (self.not_of_caller, before.is_not_of_caller),
        ):
            (names.add if is_member else names.discard)(name)

    def of_environment(self, names: Collection[str]) -> dict[str, Variable]:
        """The variables of some names; behind a local one without a value, bash passes on the caller's."""
        result: dict[str, Variable] = {}
        for frame in self.locals:
            hidden = {name: before.variable for name, before in frame.items() if before.is_exported}
            result |= {name: variable for name, variable in hidden.items() if variable is not None}
        kept = {name: variable for name, variable in result.items() if name not in self.variables}
        own = {name: self.variables[name] for name in names if name in self.variables}
        return dict(sorted((kept | own).items()))

    def leave_unset(self, name: str, remark: Remark | None = None) -> None:
        """Note that the script leaves a variable unset that a caller could set; what must be said of it."""
        if is_of_caller(name):
            self.without_value.setdefault(name, remark)

    def drop(self, name: str, variable: Variable) -> None:
        """Note a value that a variable would have if another part ran."""
        self.add_dropped({name: (variable,)})

    def add_dropped(self, values: Mapping[str, tuple[Variable, ...]]) -> None:
        """Add such values of a part."""
        for name, variables in values.items():
            self.dropped[name] = (*self.dropped.get(name, ()), *variables)

    def forget(self, names: Iterable[str], reason: str, line: int) -> None:
        """Variables whose value only a running shell knows from here on."""
        for name in names:
            self.set_names.add(name)
            remark = Remark(f"`{name}` is set {reason}", line, about="shell")
            self.variables[name] = Variable(UNKNOWN_VALUE, remarks=(remark,), line=line)


def is_known(text: str) -> bool:
    """Whether nothing of a value is for the host, or a running shell, to tell."""
    return UNKNOWN_VALUE not in text and VARIABLE_START not in text


def is_of_caller(name: str) -> bool:
    """Whether a parameter has a value only where the caller of the script gives it one."""
    is_set = _KNOWN_TO_SHELL.fullmatch(name) or READ_BY_ENGINES.fullmatch(name) or name in "?-$!"
    return name in ("#", "@", "*") or not is_set
