"""A command without the wrappers before its program: `sudo`, `env`, `nohup`, `nice`, `uv run`."""

import contextlib
import re
import shlex
from copy import deepcopy

from recipectl.importers.command import READS_PROFILE, Command, add_variable, assignment, script_in
from recipectl.importers.draft import host_variable
from recipectl.importers.programs import program_name, runs_engine
from recipectl.importers.sessions import Session, session_of
from recipectl.importers.wrappers import niceness, options_of, settings
from recipectl.systemd import quoting

# Wrappers, and the letters of their short options that take a word.
_WRAPPERS = {
    "exec": "a", "nohup": "", "time": "fo", "setsid": "", "command": "", "sudo": "ugpCDRThrt", "doas": "uC",
    "stdbuf": "ioe", "nice": "n", "ionice": "cn", "numactl": "", "taskset": "", "timeout": "ks", "chrt": "",
    "systemd-inhibit": "", "systemd-run": "puEMHGt", "uv": "", "uvx": "", "conda": "np", "mamba": "np",
    "poetry": "", "flock": "wE", "runuser": "ugG", "setpriv": "", "unbuffer": "", "chronic": "",
    "micromamba": "np", "pixi": "e", "pipx": "", "pyenv": "", "prlimit": "",
    "pipenv": "", "hatch": "e", "pdm": "p", "rye": "", "tini": "p", "dumb-init": "r", "gosu": "",
    "su-exec": "", "strace": "eosuaEIOSPX", "choom": "n", "setarch": "", "catchsegv": "", "nsys": "o",
    "ip": "", "op": "", "doppler": "p",
}  # fmt: skip
_LONG_WITH_WORD = frozenset(
    """
    --property --setenv --unit --uid --slice --nice --description --membind --cpunodebind --interleave
    --physcpubind --preferred --cpu-list --adjustment
    --from --with --with-requirements --python --project --directory --extra --group --env-file --index
    --cwd --index-url --extra-index-url --default-index --prerelease --torch-backend
    """.split()  # noqa: SIM905  (a list one can read)
)
# Their options become settings of the unit.
_WITH_SETTINGS = ("nice", "ionice", "taskset", "numactl", "systemd-run")
_RUNTIME = "make its runtime with `recipectl venv create`, and name that in `venv_path:`"
_REMEDIES = dict.fromkeys(("uv", "uvx", "poetry", "pipx", "pipenv", "hatch", "pdm", "rye"), _RUNTIME) | {
    **dict.fromkeys(
        ("conda", "mamba", "micromamba", "pixi", "pyenv"), "name its interpreter in `python_path:`"
    ),
    **dict.fromkeys(("op", "doppler"), "put what it gives into `secrets:`"),
    **dict.fromkeys(("gosu", "su-exec"), "see `user:`"),
    **dict.fromkeys(
        ("nsys", "strace", "catchsegv", "exec", "command", "time", "flock"), "the engine runs without it"
    ),
    "ip": "the engine uses the network of this host",
    **dict.fromkeys(("stdbuf", "unbuffer"), "the journal has each line at once"),
    "timeout": "see `RuntimeMaxSec` of `service:`",
}  # fmt: skip
# Settings that are lists: one line of words, or one that cannot be joined.
_JOINED_LISTS = re.compile(
    "SupplementaryGroups|(ReadOnly|ReadWrite|Inaccessible|Exec|NoExec)Paths|RestrictAddressFamilies"
    "|IPAddress(Allow|Deny)|(Startup)?Allowed(CPUs|MemoryNodes)|CPUAffinity|After|Before|Wants|Requires"
)
_LISTS = re.compile("Device|Bind|IODevice|IORead|IOWrite|SystemCall|LoadCredential|TemporaryFileSystem")
# Options of sudo and the like that change nothing here, or that are read elsewhere.
_SUDO_QUIET = (
    "", "-E", "--preserve-env", "-H", "--set-home", "-n", "--non-interactive", "-S", "--stdin", "-k",
    "--reset-timestamp", "-b", "--background", "-l", "-p", "--prompt", "-m", "--",
)  # fmt: skip
# They run what follows somewhere else.
_ELSEWHERE = ("docker", "podman", "nerdctl", "ssh", "kubectl", "srun")
# Without options, these wrappers do nothing that a unit does not do.
_NEEDLESS_WRAPPERS = ("exec", "nohup", "time", "setsid", "command")
# With options too.
_NEEDLESS_INITS = ("tini", "dumb-init")
# The first word that is no option is the program.
_DIRECT_WRAPPERS = (*_NEEDLESS_WRAPPERS, "sudo", "doas", "stdbuf", "unbuffer", "chronic")


def unwrapped(command: Command) -> Command:
    """The command without `env`, `sudo`, `nohup` and the like; their effect is kept, or not carried over."""
    inner = deepcopy(command)
    while inner.words and not runs_engine(inner.words):
        if not _remove_wrapper(inner):
            break
    inner.path = inner.environment.pop("PATH", inner.path)
    return inner


def _remove_wrapper(command: Command) -> bool:
    """Remove the first wrapper of a command; False when there is none."""
    name = program_name(command.words)
    if pair := assignment(command.words[0]):
        command.environment |= [pair]
        command.words = command.words[1:]
        return True
    if name == "env":
        _remove_env(command)
        return True
    if session := session_of(command.words):
        _enter(command, session)
        return True
    place = command.words.index("-m") if "-m" in command.words else 0
    is_of_file = any(word.endswith(".py") for word in command.words[:place])
    if name == "uv" and place and not is_of_file and not _wrapper_length(command.words):  # `uv run -m MODULE`
        command.words = [*command.words[:place], "python", *command.words[place:]]
    length = _wrapper_length(command.words) if name in _WRAPPERS else 0
    wrapper = command.words[:length]
    if wrapper and name in ("sudo", "doas", "runuser"):
        _take_sudo(command, wrapper)
    elif wrapper and name in _WITH_SETTINGS:
        _take_settings(command, wrapper)
    elif wrapper[1:2] == ["run"] and (environment := _conda_environment(wrapper)):
        command.venv, command.conda_environment = None, environment
        command.folder = _value_of(wrapper, "--cwd") or command.folder
    elif wrapper and name not in _NEEDLESS_INITS and (name not in _NEEDLESS_WRAPPERS or wrapper[1:]):
        remedy = _REMEDIES.get(name, "see `service:` for a similar setting")
        version = [word for word in command.words[length : length + 1] if re.search("@|==", word)]
        shown = " ".join((*wrapper, *version))  # `uvx vllm==0.32.0`
        command.lose(f"`{shown}` before the program; {remedy}")
        command.folder = _value_of(wrapper, "--directory" if name == "uv" else "--cwd") or command.folder
    command.words = command.words[length:]
    return bool(wrapper)


def _enter(command: Command, session: Session) -> None:
    """Go on with what a session runs."""
    if command.environment and program_name(command.words) == "tmux":
        names = ", ".join(f"`{name}`" for name in sorted(command.environment))
        fault = f"{names}, which `tmux` passes on only if no server of it runs yet"
        command.lose(f"{fault}; remove what the engine did not have")
    if session.is_login:
        command.lose(f"`{program_name(command.words)}`: {READS_PROFILE}")
        command.environment, command.secrets, command.path = {}, {}, None
        command.venv = command.conda_environment = None
        command.folder = host_variable("HOME")
    command.words = session.words
    command.user = session.user or command.user
    command.folder = session.folder or command.folder
    command.environment |= filter(None, map(assignment, session.variables))


def _value_of(wrapper: list[str], name: str) -> str:
    """The value of an option of a wrapper; empty without it."""
    return next((value for option, value, _ in options_of(wrapper) if option == name), "")


def _conda_environment(wrapper: list[str]) -> str:
    """The folder of the environment of `/opt/conda/bin/conda run -n NAME`; "" where that is not known."""
    if program_name(wrapper) not in ("conda", "mamba", "micromamba"):
        return ""
    values = {option: value for option, value, _ in options_of(wrapper[2:])}
    if prefix := values.get("-p") or values.get("--prefix"):
        return prefix
    name = values.get("-n") or values.get("--name")
    if not name or not wrapper[0].startswith("/") or program_name(wrapper) == "micromamba":
        return ""  # micromamba has its environments wherever MAMBA_ROOT_PREFIX says
    folder = re.sub(r"/(bin|condabin)/\w+\Z", "", wrapper[0])
    return folder if name == "base" else f"{folder}/envs/{name}"


def _pass_on(command: Command, program: str, lists: list[str]) -> None:
    """Add and name variables as `doas`, or `sudo` without -E, does; `lists` are of --preserve-env."""
    kept = {name for names in lists for name in names.split(",")} - {""}
    for name in sorted(kept - command.environment.keys()):
        add_variable(name, {}, command)
    dropped = sorted(command.environment.keys() - kept)
    if dropped and "" not in lists:
        variables = ", ".join(f"`{name}`" for name in dropped)
        condition = "`doas`" if program == "doas" else "`sudo` without -E"
        fault = f"{variables}, which {condition} may not have passed on"
        command.lose(f"{fault}; remove what the engine did not have")


def _take_sudo(command: Command, wrapper: list[str]) -> None:
    """The user, group and folder that `sudo -u USER -g GROUP -D FOLDER` gives."""
    options = [(option, value) for option, value, _ in options_of(wrapper[1:])]
    joined = [option for option, _ in options if re.fullmatch("-[A-Za-z]{2,}", option)]  # `-iu`
    options += [
        (f"-{letter}", value) for option, value in options if option in joined for letter in option[1:]
    ]
    names = {option for option, _ in options}
    command.user = command.user if names & {"-g", "--group"} else "root"
    if program_name(wrapper) == "doas" or (program_name(wrapper) == "sudo" and "-E" not in names):
        _pass_on(
            command, program_name(wrapper), [value for option, value in options if option == "--preserve-env"]
        )
    for option, value in options:
        if option in ("-u", "--user"):
            command.user = value
        elif option in ("-g", "--group"):
            command.service["Group"] = value.removeprefix("#")
        elif option in ("-D", "--chdir"):
            command.folder = value
        elif option in ("-i", "--login"):
            command.lose(f"`{program_name(wrapper)} {option}`: {READS_PROFILE}")
            command.folder = host_variable("HOME")
        elif option in ("-G", "--supp-group") and program_name(wrapper) == "runuser":
            command.service["SupplementaryGroups"] = value
        elif option not in (*joined, *_SUDO_QUIET):
            shown = " ".join(filter(None, (option, value)))
            command.lose(f"`{program_name(wrapper)} {shown}` before the program")


def _added(unit_settings: list[tuple[str, str]], command: Command, program: str) -> list[tuple[str, str]]:
    """The settings without those that add to one that the command has already."""
    rest = []
    for name, value in unit_settings:
        if name == "Nice" and program == "nice":  # it adds to the niceness that its caller has (nice(1))
            command.service["Nice"] = niceness(command.service.get("Nice", "0"), value)
        elif name == "CPUAffinity" and program in ("taskset", "numactl"):
            command.service[name] = value
        elif name in command.service and value and _JOINED_LISTS.fullmatch(name):
            command.service[name] += f" {value}"
        elif name in command.service and _LISTS.match(name):
            command.lose(f"{name}={value}, besides the one that is kept")
        elif _JOINED_LISTS.fullmatch(name) or _LISTS.match(name):
            command.service[name] = value
        else:
            rest.append((name, value))
    return rest


def _take_settings(command: Command, wrapper: list[str]) -> None:
    """Keep what a wrapper means as settings of the unit; name the rest."""
    unit_settings, rest = settings(wrapper)
    of_caller = dict(command.environment)
    if program_name(wrapper) == "systemd-run" and "--scope" not in wrapper:
        # The service manager starts it: nothing of the caller is left.
        command.environment, command.secrets, command.service = {}, {}, {}
        if not {"-d", "--same-dir"} & {*wrapper}:
            command.folder = host_variable("HOME") if "--user" in wrapper else "/"
            command.places.pop("cd", None)
    unit_settings = _added(unit_settings, command, program_name(wrapper))
    for name, value in unit_settings:
        if name == "Environment":
            for word in quoting.split(value):
                add_variable(word, of_caller, command)
        elif name == "User":
            command.user = value
        elif name == "WorkingDirectory":
            command.folder = value
        else:
            command.service[name] = value
    if rest:
        command.lose(f"`{program_name(wrapper)} {' '.join(rest)}` before the program")


def _remove_env(command: Command) -> None:
    """Remove `env` with its options, and apply them to the environment."""
    words = command.words[1:]
    while words and words[0].startswith("-"):
        option = words.pop(0)
        name, _, value = option.partition("=")
        if joined := re.fullmatch("-([i0v]+)([uCS].*)?", option):  # `-iv`, `-iS "NAME=value program"`
            if "i" in joined[1]:
                command.environment.clear()
            words[:0] = [f"-{joined[2]}"] if joined[2] else []
        elif text := re.match("(?:-S|--split-string=?)(.*)", option, re.S):
            with contextlib.suppress(ValueError):
                words[:0] = shlex.split(text[1] or (words.pop(0) if words else ""))
        elif name in ("-u", "--unset"):
            command.environment.pop(value or (words.pop(0) if words else ""), None)
        elif name in ("-C", "--chdir"):
            command.folder = value or (words.pop(0) if words else None)
        elif option in ("-", "--ignore-environment"):
            command.environment.clear()
        elif option not in ("--", "--debug"):
            command.lose(f"`env {option}` before the program")
    command.words = words


def _wrapper_length(words: list[str]) -> int:
    """The number of words before the wrapped command; 0 when there is no command that we know."""
    options_with_word = _WRAPPERS[program_name(words)]
    if words[1:3] in (["netns", "exec"], ["vrf", "exec"]):  # ip-netns(8), ip-vrf(8): a name follows
        return min(4, len(words) - 1)
    for length in range(1, len(words)):
        option = words[length - 1]
        if program_name([option]) in _ELSEWHERE:
            return 0
        short = r"-[A-Za-z]+" if program_name(words) in ("sudo", "doas", "runuser") else r"-[A-Za-z]"
        takes_word = re.fullmatch(short, option) and option[-1] in options_with_word
        takes_word = takes_word or option in _LONG_WITH_WORD
        takes_word = takes_word or (
            program_name(words) == "sudo" and option in ("--user", "--group", "--chdir")
        )
        is_program = program_name(words) in _DIRECT_WRAPPERS and not words[length].startswith("-")
        if (is_program or _begins_command(words[length:])) and not takes_word:
            return length
    return 0


def _begins_command(words: list[str]) -> bool:
    """Whether these words are a wrapper, an assignment or a program that we know."""
    name = program_name(words)
    is_assignment = assignment(words[0]) and "==" not in words[0]  # `vllm==0.11.0` is a package
    is_script = script_in(words[:4]) is not None
    return name == "env" or name in _WRAPPERS or bool(is_assignment) or is_script or runs_engine(words)
