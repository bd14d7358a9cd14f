"""A hand-written systemd service that runs an engine."""

import re
from pathlib import PurePosixPath

from recipectl.compiler import service_settings as settings
from recipectl.errors import UsageError
from recipectl.importers import shell
from recipectl.importers.draft import Draft, marked
from recipectl.importers.programs import program, runs_container, unwrapped
from recipectl.importers.words import drafted, model_name
from recipectl.recipe.schema import LONGEST_SEC, span_sec
from recipectl.systemd import quoting

# What a compiled unit has in its own way: nothing is lost with these.
_OURS = frozenset(
    """
    Type Restart RestartSec ExecStart KillMode TimeoutStopSec SendSIGKILL NotifyAccess
    StartLimitIntervalSec StartLimitBurst StartLimitInterval SyslogIdentifier
    LimitMEMLOCK TasksMax Description Documentation User Environment EnvironmentFile
    TimeoutStartSec TimeoutSec Alias
    """.split()  # noqa: SIM905  (a list one can read)
)
# Values that change nothing: the compiled unit has them, or more, or they are systemd's own.
_NETWORK = frozenset(("network.target", "network-online.target", "nvidia-persistenced.service"))
_SAME = {
    "After": _NETWORK | {"nvidia-fabricmanager.service", "syslog.target", "multi-user.target"},
    "Wants": _NETWORK,
    "StandardOutput": frozenset(("journal", "inherit", "syslog")),
    "StandardError": frozenset(("journal", "inherit", "syslog")),
    "KillSignal": frozenset(("SIGTERM", "TERM", "15")),
}
_VALUES_HIDDEN = ("SetCredential", "SetCredentialEncrypted")


def draft(text: str, name: str, source: str) -> Draft:
    """The recipe of a service; UsageError when it has no command of an engine."""
    found = quoting.settings(text)
    values = [value for section, key, value in found if (section, key) == ("Service", "ExecStart")]
    while "" in values:
        values = values[values.index("") + 1 :]  # an empty one forgets those before
    if not values:
        raise UsageError(f"{source} has no ExecStart=; give a service that runs an engine")
    environ: dict[str, str] = {}
    lost: list[str] = []
    for _, key, value in found:
        if key == "Environment":
            pairs = [word.partition("=") for word in quoting.split(_specifiers(value, name, lost))]
            environ = environ | {variable: text for variable, _, text in pairs} if pairs else {}
        elif key == "EnvironmentFile" and value:
            lost.append(f"the variables in {value.lstrip('-')}; set them in `env_vars:` or `secrets:`")
    command = _command(values[-1], environ, name, lost)
    if len(values) > 1:
        lost.append(f"{len(values) - 1} more ExecStart= before the last")
    made = drafted(command, model_name(name.replace("@", "-")), f"From {source}.")
    made.lost += lost
    _settings(made, found, name)
    return made


def _specifiers(text: str, name: str, lost: list[str]) -> str:
    """systemd.unit(5)'s specifiers, as far as they are the same for every service of the system."""
    prefix, _, rest = name.partition("@")
    known = {"%": "%", "n": f"{name}.service", "N": name, "p": prefix, "t": "/run", "S": "/var/lib"}
    known |= {"C": "/var/cache", "E": "/etc", "L": "/var/log", "T": "/tmp", "V": "/var/tmp"}  # noqa: S108  (read)
    known |= {"i": rest or marked("INSTANCE"), "I": rest.replace("-", "/") or marked("INSTANCE")}
    known |= {"h": marked("HOME"), "H": marked("HOSTNAME"), "u": marked("USER"), "U": marked("UID")}

    def one(match: re.Match[str]) -> str:
        if match[1] not in known:
            lost.append(f"the specifier {match[0]}, which stays as it is; write its value")
        return known.get(match[1], match[0])

    return re.sub(r"%([A-Za-z%])", one, text)


def _command(value: str, environ: dict[str, str], name: str, lost: list[str]) -> shell.Command:
    prefix = re.match(r"[-@:+!|]*", value)
    literal = ":" in (prefix[0] if prefix else "")
    words = list(quoting.split(_specifiers(value[prefix.end() if prefix else 0 :], name, lost)))
    if not literal:
        words = [part for word in words for part in _expanded(word, environ)]
    at = next((n for n, word in enumerate(words[:4]) if re.fullmatch(r"-[a-z]*c", word)), None)
    if words and PurePosixPath(words[0]).name in ("sh", "bash", "dash", "zsh") and at and at + 1 < len(words):
        inner = shell.commands(words[at + 1], environ)
        runs = [one for one in inner if program(unwrapped(one).words) or runs_container(unwrapped(one).words)]
        if not runs:
            raise UsageError("the shell of its ExecStart= runs no engine that is known; name it there")
        lost += [f"`{' '.join(one.words)}` of its shell" for one in inner if one not in runs[-1:]]
        return runs[-1]
    path = environ.pop("PATH", None)
    return shell.Command(dict(environ), words, path=path)


def _expanded(word: str, environ: dict[str, str]) -> list[str]:
    """`$NAME` alone is split into words, `${NAME}` is not (systemd.service(5)); `$$` is one `$`."""
    if match := re.fullmatch(r"\$([A-Za-z_][A-Za-z0-9_]*)", word):
        known = environ.get(match[1])
        return [marked(match[1])] if known is None else known.split()

    def one(match: re.Match[str]) -> str:
        return "$" if match[0] == "$$" else environ.get(match[1], marked(match[1]))

    return [re.sub(r"\$\$|\$\{([A-Za-z_][A-Za-z0-9_]*)\}", one, word)]


def _settings(made: Draft, found: list[tuple[str, str, str]], name: str) -> None:
    """Title, user and limits; what else is there goes through `service:` or is told."""
    service: dict[str, list[str]] = {}
    for section, key, value in found:
        if key == "Description" and section == "Unit":
            made.fields = {"description": _specifiers(value, name, []), **made.fields}
        elif key == "User":
            made.set("user", value)
        elif key in ("TimeoutStartSec", "TimeoutSec"):
            _timeout(made, key, value)
        elif key == "WantedBy" and section == "Install":
            made.set("autostart", True, f"it was wanted by {value}")
        elif key == "Restart" and value in ("no", "on-abnormal", "on-abort", "on-watchdog"):
            made.lost.append(f"Restart={value}: a model that ends is started again")
        elif key == "TimeoutStopSec" and (sec := span_sec(value)) and (not isinstance(sec, int) or sec > 60):
            made.lost.append(f"TimeoutStopSec={value}; a drain is as long as the engine's --shutdown-timeout")
        elif key in _VALUES_HIDDEN:
            made.lost.append(f"{key}=, whose value is not repeated; see `secrets:`")
        elif key in ("Requires", "BindsTo", "PartOf", "Conflicts", "OnFailure", "Requisite"):
            made.lost.append(
                f"{key}={value}; see `requires:`, `conflicts:` and the host file's `on_failure:`"
            )
        elif key == "LimitNOFILE" and value.isdigit() and int(value) <= 1048576:
            pass  # the compiled unit has more
        elif key in _SAME and value:
            if left := " ".join(word for word in value.split() if word not in _SAME[key]):
                service.setdefault(key, []).append(_specifiers(left, name, made.lost))
        elif key not in _OURS and section in ("Service", "Unit"):
            if not value:
                service.pop(key, None)
            elif settings.passes(key):
                service.setdefault(key, []).append(_specifiers(value, name, made.lost))
            else:
                made.lost.append(f"{key}={value}")
    if service:
        made.set(
            "service", {key: values[0] if len(values) == 1 else values for key, values in service.items()}
        )


def _timeout(made: Draft, key: str, value: str) -> None:
    seconds = LONGEST_SEC if value in ("infinity", "0") else span_sec(value)
    if isinstance(seconds, int) and seconds > 0:
        made.set(
            "ready", {"timeout_sec": seconds}, "as long as it takes" if value in ("infinity", "0") else None
        )
    else:
        made.lost.append(f"{key}={value}")
