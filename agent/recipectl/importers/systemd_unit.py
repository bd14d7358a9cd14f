"""A hand-written systemd service that runs an engine."""

import contextlib
import glob
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from recipectl.compiler import service_settings
from recipectl.compiler.secrets import has_secret
from recipectl.errors import RecipectlError, UsageError
from recipectl.importers.command import SHELLS, Command, script_in
from recipectl.importers.draft import AS_IT_RUNS, VARIABLE_START, Draft, host_variable
from recipectl.importers.from_command import draft_from_command, model_name
from recipectl.importers.programs import program, program_name, runs_container, unwrapped
from recipectl.importers.shell import commands
from recipectl.importers.shell_words import PRIVATE
from recipectl.importers.unit_text import expanded, without_specifiers
from recipectl.importers.variables import keep_cache
from recipectl.recipe.parts import LONGEST_SEC
from recipectl.recipe.spans import span_sec
from recipectl.recipe.yamlsyntax import read_text
from recipectl.systemd import quoting
from recipectl.systemd.unitfile import Setting, parse_settings

# Settings that every compiled unit has in its own way, or that the functions below read.
_COMPILED = frozenset(
    """
    Type Restart ExecStart NotifyAccess LimitMEMLOCK Description Documentation User Environment
    EnvironmentFile TimeoutStartSec TimeoutSec
    """.split()  # noqa: SIM905  (a list one can read)
)
# Values that change nothing: the compiled unit has them too, or they are systemd's defaults.
_NETWORK = frozenset(("network.target", "network-online.target", "nvidia-persistenced.service"))
_JOURNAL = frozenset(("journal", "inherit", "syslog"))
_DEFAULT_VALUES = {
    "After": _NETWORK | {"nvidia-fabricmanager.service", "syslog.target", "multi-user.target"},
    "Wants": _NETWORK,
    "StandardOutput": _JOURNAL,
    "StandardError": _JOURNAL,
    "KillSignal": frozenset(("SIGTERM", "TERM", "15")),
    "KillMode": frozenset(("mixed", "control-group")),
    "SendSIGKILL": frozenset(("yes", "true", "on", "1")),
    "RestartSec": frozenset(("10", "10s")),
    "TasksMax": frozenset(("infinity",)),
}
_EARLIER_NAMES = {"StartLimitInterval": "StartLimitIntervalSec", "MemoryLimit": "MemoryMax"}
_COMPILED_LIMIT_NOFILE = 1048576


def draft(text: str, name: str, source: str) -> Draft:
    """The recipe of a service, `name` without `.service`; UsageError when it has no command of an engine."""
    if PRIVATE.search(text):
        raise UsageError(f"{source} has characters of Unicode's private area; remove them")
    unit_settings = parse_settings(text)
    not_carried_over: list[str] = []
    command_lines = _command_lines(unit_settings)
    if not command_lines:
        raise UsageError(f"{source} has no ExecStart=; give a service that runs an engine")
    environment = _environment(unit_settings, name, not_carried_over)
    environment |= _variables_of_files(unit_settings, name, environment, not_carried_over)
    folder = next((value for _, key, value in reversed(unit_settings) if key == "WorkingDirectory"), "")
    folder = without_specifiers(folder.lstrip("-"), name, not_carried_over)
    folder = host_variable("HOME") if folder == "~" else folder
    command = _command(command_lines[-1], environment, name, not_carried_over, folder or None)
    if len(command_lines) > 1:
        not_carried_over += [f"ExecStart={without_specifiers(line, name, [])}" for line in command_lines[:-1]]
    result = draft_from_command(command, model_name(name.replace("@", "-")), f"From {source}.")
    result.not_carried_over += not_carried_over
    set_keys(result, unit_settings, name)
    users = {key: value for _, key, value in unit_settings if key in ("User", "DynamicUser")}
    is_dynamic = users.get("DynamicUser", "no").lower() in ("1", "yes", "true", "on")
    if users.get("User") in (None, "", "root") and not is_dynamic and "/user/" not in source:
        if result.fields.get("user", "root") == "root":  # `sudo -u` in ExecStart= says another one
            result.fields.pop("user", None)
            result.not_carried_over.append("it ran as root; it will run as a user of its own, see `user:`")
            if _has_hub_model(result):
                result.not_carried_over.append("the Hugging Face cache of root; it downloads the model again")
    else:
        keep_cache(result, users.get("User", ""))
    return result


def _has_hub_model(draft: Draft) -> bool:
    """Whether the model comes from the hub's default cache, which is in the home of a user."""
    variables = draft.fields.get("env_vars", {})
    is_file = str(draft.fields["model_path"]).startswith(("/", VARIABLE_START))
    return not is_file and not {"HF_HOME", "HF_HUB_CACHE", "LLAMA_CACHE"} & {*variables}


def _command_lines(unit_settings: Sequence[Setting]) -> list[str]:
    """The values of ExecStart=; an empty value removes those before it."""
    values = [value for section, key, value in unit_settings if (section, key) == ("Service", "ExecStart")]
    while "" in values:
        values = values[values.index("") + 1 :]
    return values


def _environment(unit_settings: Sequence[Setting], name: str, not_carried_over: list[str]) -> dict[str, str]:
    environment: dict[str, str] = {}
    for _, key, value in unit_settings:
        if key == "Environment":
            words = quoting.split(without_specifiers(value, name, not_carried_over))
            assignments = {variable: text for variable, _, text in (word.partition("=") for word in words)}
            environment = environment | assignments if words else {}
    return environment


def _variables_of_files(
    unit_settings: Sequence[Setting], name: str, environment: Mapping[str, str], not_carried_over: list[str]
) -> dict[str, str]:
    """What EnvironmentFile= sets: it wins over Environment= (systemd.exec(5)).

    Of a file that is not here nothing is known: what the command takes of Environment= may be another value.
    """
    variables: dict[str, str] = {}
    values = [value for _, key, value in unit_settings if key == "EnvironmentFile"]
    while "" in values:  # an empty value removes those before it
        values = values[values.index("") + 1 :]
    for value in values:
        pattern = without_specifiers(value.removeprefix("-"), name, not_carried_over)
        texts = []
        for file in sorted(glob.glob(pattern)):  # noqa: PTH207  (absolute)
            with contextlib.suppress(OSError, RecipectlError):
                texts.append(read_text(Path(file)))
        variables |= {key: text for content in texts for key, text in quoting.environment_file(content)}
        if not texts:
            fault = f"the variables in {pattern}, which cannot be read here and win over Environment="
            not_carried_over.append(f"{fault}; set them in `env_vars:` or `secrets:`")
            commands = " ".join(_command_lines(unit_settings)[-1:])
            used = re.findall(r"\$\{?([A-Za-z_][A-Za-z0-9_]*)", commands)
            variables |= {key: host_variable(key) for key in used if key in environment}
    return variables


def _command(
    line: str, environment: dict[str, str], name: str, not_carried_over: list[str], folder: str | None
) -> Command:
    """The command of one ExecStart=; UsageError when its shell runs no engine."""
    command_line = line.lstrip("-@:+!|")
    prefix = line.removesuffix(command_line)
    words = list(quoting.split(without_specifiers(command_line, name, not_carried_over)))
    if {"+", "!"} & {*prefix}:
        not_carried_over.append(f"the prefix `{prefix}` of ExecStart=, which ran it with privileges")
    if "@" in prefix:
        words = [*words[:1], *words[2:]]  # the second word is the name that the process shows
    if ";" in words:
        not_carried_over.append(f"`{' '.join(words[words.index(';') :])}`, a second command of ExecStart=")
        words = words[: words.index(";")]
    if ":" not in prefix:  # systemd does not expand variables after this prefix
        words = [part for word in words for part in expanded(word, environment)]
    if (script := script_in(words[:5])) is not None:
        return _command_in_script(script, environment, not_carried_over, folder)
    path = environment.get("PATH")
    variables = {variable: value for variable, value in environment.items() if variable != "PATH"}
    command = Command(variables, words, path=path, script_folder=folder)
    inner = unwrapped(command).words
    if not inner or program(inner) or runs_container(inner):
        return command
    file, script = _own_script(inner)
    arguments = tuple(inner[inner.index(file) + 1 :])
    return _command_in_script(script, environment, not_carried_over, str(Path(file).parent), arguments)


def _own_script(words: list[str]) -> tuple[str, str]:
    """The path and text of the script that a command is; UsageError when it is none, or cannot be read."""
    file = next(
        (word for word in words[:3] if word.startswith("/") and program_name([word]) not in SHELLS), ""
    )
    text = ""
    with contextlib.suppress(OSError, RecipectlError):
        text = read_text(Path(file))
    if program_name(words) in SHELLS or re.match(r"#!.*\b(ba|da|z)?sh\b", text):
        if text:
            return file, text
        fault = f"`{file}` cannot be read here"
    elif "compose" in " ".join(words[:2]):
        raise UsageError(
            f"`{' '.join(words[:2])}` runs containers; run `recipectl import compose` with its file"
        )
    else:
        fault = f"`{file or words[0]}` is no engine (vllm, sglang, llama-server)"
    raise UsageError(
        f"{fault}; if it is a script, run `recipectl import command {file or 'FILE'}`, {AS_IT_RUNS}"
    )


def _command_in_script(
    script: str,
    environment: dict[str, str],
    not_carried_over: list[str],
    folder: str | None = None,
    arguments: tuple[str, ...] | None = None,
) -> Command:
    # A script of its own has no specifiers of the unit.
    has_specifiers = arguments is None
    script_commands = commands(
        script, environment, folder, arguments=arguments, has_specifiers=has_specifiers
    )
    engines = []
    for command in script_commands:
        words = unwrapped(command).words
        if program(words) or runs_container(words):
            engines.append(command)
    if not engines:
        fault = "the shell of its ExecStart= does not run a known engine"
        raise UsageError(f"{fault}; name the engine there, {AS_IT_RUNS}")
    not_carried_over += [
        f"`{' '.join(command.words)}` of its shell" for command in script_commands if command != engines[-1]
    ]
    return engines[-1]


def set_keys(draft: Draft, unit_settings: Sequence[Setting], name: str) -> None:
    """Set the fields for the settings of a service; settings without a field go to `service:`."""
    service: dict[str, list[str]] = {}
    for setting in unit_settings:
        if reason := _reason_to_leave_out(setting):
            draft.not_carried_over.append(reason)
        elif not _set_field(draft, setting, name):
            _add_to_service(draft, service, setting, name)
    # What stands in the command itself, as `nice`, wins over the unit's.
    own = draft.fields.get("service", {})
    draft.not_carried_over += [
        f"{key}={' '.join(service[key])}, which the command replaces" for key in own.keys() & service.keys()
    ]
    kept = {key: texts[0] if len(texts) == 1 else texts for key, texts in service.items()} | own
    if kept:
        draft.set("service", kept)


def _reason_to_leave_out(setting: Setting) -> str | None:
    """The sentence for a setting that no recipe can have; None for any other."""
    _, key, value = setting
    if key == "Restart" and value not in ("always", ""):
        return f"Restart={value}: recipectl always restarts a model that ends"
    if key == "TimeoutStopSec" and value and not isinstance(span_sec(value), int):
        return f"{key}={value}; a stop has a limit here"
    if key in ("SetCredential", "SetCredentialEncrypted"):
        return f"{key}=, whose value is not repeated; see `secrets:`"
    if key in ("Requires", "BindsTo", "PartOf", "Conflicts", "OnFailure", "Requisite"):
        return f"{key}={value}; see `requires:`, `conflicts:` and the host file's `on_failure:`"
    return None


def _set_field(draft: Draft, setting: Setting, name: str) -> bool:
    """Whether a setting has a field of its own in a recipe; if so, set it."""
    match setting:
        case ("Unit", "Description", value):
            text = without_specifiers(value, name, [])
            draft.fields = {
                "description": text,
                **{k: v for k, v in draft.fields.items() if k != "description"},
            }
        case (_, "TimeoutStartSec" | "TimeoutSec" as key, value):
            _set_start_timeout(draft, key, value)
        case (_, "User", ""):  # an empty value removes those before it
            draft.fields.pop("user", None)
        case ("Install", "WantedBy", ""):
            draft.fields.pop("autostart", None)
        case (_, "User", value):
            draft.set("user", without_specifiers(value, name, draft.not_carried_over))
        case ("Install", "WantedBy", value):
            draft.set("autostart", True, f"The service was wanted by {value}.")
        case _:
            return False
    return True


def _set_start_timeout(draft: Draft, key: str, value: str) -> None:
    is_endless = value in ("infinity", "0")
    seconds = LONGEST_SEC if is_endless else span_sec(value)
    if isinstance(seconds, int) and seconds > 0:
        draft.set("ready", {"timeout_sec": seconds}, "The service had no limit." if is_endless else None)
    else:
        draft.not_carried_over.append(f"{key}={value}")


def _add_to_service(draft: Draft, service: dict[str, list[str]], setting: Setting, name: str) -> None:
    section, key, value = setting
    key = _EARLIER_NAMES.get(key, key)
    is_low_limit = key == "LimitNOFILE" and value.isdigit() and int(value) <= _COMPILED_LIMIT_NOFILE
    if key in _DEFAULT_VALUES and value:
        value = " ".join(word for word in value.split() if word not in _DEFAULT_VALUES[key])
        if not value:
            return
    elif key in _COMPILED or is_low_limit:
        return
    if not value:
        service.pop(key, None)
    elif has_secret(value):
        draft.not_carried_over.append(f"{key}=, which holds a secret")
    elif service_settings.is_allowed(key) and section in ("Service", "Unit"):
        text = without_specifiers(value, name, draft.not_carried_over)
        service.setdefault(key, []).append(text)
    else:
        draft.not_carried_over.append(f"{key}={value}")
