"""A hand-written systemd service that runs an engine."""

import re
from pathlib import PurePosixPath

from recipectl import quoting
from recipectl.errors import UsageError
from recipectl.imports import shell
from recipectl.imports.draft import Draft, marked
from recipectl.imports.words import drafted, model_name
from recipectl.recipe import span_sec

# What a compiled unit has in its own way.
_OURS = frozenset(
    """
    Type Restart RestartSec ExecStart ExecStartPre ExecStartPost ExecStop KillMode Environment
    EnvironmentFile User Group TimeoutStartSec TimeoutSec TimeoutStopSec WorkingDirectory KillSignal
    StartLimitIntervalSec StartLimitBurst StartLimitInterval StandardOutput StandardError
    SyslogIdentifier LimitNOFILE LimitMEMLOCK TasksMax PassEnvironment NotifyAccess PIDFile
    RemainAfterExit SendSIGKILL
    """.split()  # noqa: SIM905  (a list one can read)
)
_TOLD = {
    "ExecStartPre",
    "ExecStartPost",
    "ExecStop",
    "Group",
    "WorkingDirectory",
    "PassEnvironment",
    "PIDFile",
}


def draft(text: str, name: str, source: str) -> Draft:
    """The recipe of a service; UsageError when it has no command of an engine."""
    found = quoting.settings(text)
    values = [value for section, key, value in found if (section, key) == ("Service", "ExecStart")]
    while "" in values:
        values = values[values.index("") + 1 :]  # an empty one forgets those before
    if not values:
        raise UsageError(f"{source} has no ExecStart=; give a service that runs an engine")
    environ: dict[str, str] = {}
    lost = []
    for _, key, value in found:
        if key == "Environment":
            pairs = (word.partition("=") for word in quoting.split(_specifiers(value, name)))
            environ |= {variable: text for variable, _, text in pairs}
        elif key == "EnvironmentFile":
            lost.append(f"the variables in {value.lstrip('-')}; set them in `env_vars:` or `secrets:`")
    command = _command(values[-1], environ, name)
    if len(values) > 1:
        lost.append(f"{len(values) - 1} more ExecStart= before the last")
    made = drafted(command, model_name(name), f"From {source}.")
    made.lost += lost
    _settings(made, found)
    return made


def _specifiers(text: str, name: str) -> str:
    known = {"%": "%", "n": f"{name}.service", "N": name, "p": name.partition("@")[0]}
    known |= {"i": marked("instance"), "h": marked("HOME"), "H": marked("HOSTNAME"), "u": marked("USER")}
    return re.sub(r"%(.)", lambda match: known.get(match[1], match[0]), text)


def _command(value: str, environ: dict[str, str], name: str) -> shell.Command:
    prefix = re.match(r"[-@:+!|]*", value)
    literal = ":" in (prefix[0] if prefix else "")
    words = list(quoting.split(_specifiers(value[prefix.end() if prefix else 0 :], name)))
    if not literal:
        words = [part for word in words for part in _expanded(word, environ)]
    if PurePosixPath(words[0]).name in ("sh", "bash", "zsh") and "-c" in " ".join(words[1:3]):
        at = next(n for n, word in enumerate(words) if word.startswith("-") and word.endswith("c"))
        given = "\n".join(f"export {key}={shell_quoted(text)}" for key, text in environ.items())
        inner = shell.commands(f"{given}\n{words[at + 1]}")
        if not inner:
            raise UsageError("the shell of its ExecStart= runs no program; name the engine there")
        return inner[-1]
    path = environ.pop("PATH", None)
    return shell.Command(dict(environ), words, path=path)


def shell_quoted(text: str) -> str:
    """A word for our own reading of a shell's text."""
    return "'" + text.replace("'", "'\\''") + "'"


def _expanded(word: str, environ: dict[str, str]) -> list[str]:
    """`$NAME` alone is split into words, `${NAME}` is not (systemd.service(5)); `$$` is one `$`."""
    if match := re.fullmatch(r"\$([A-Za-z_][A-Za-z0-9_]*)", word):
        known = environ.get(match[1])
        return [marked(match[1])] if known is None else known.split()

    def one(match: re.Match[str]) -> str:
        return "$" if match[0] == "$$" else environ.get(match[1], marked(match[1]))

    return [re.sub(r"\$\$|\$\{([A-Za-z_][A-Za-z0-9_]*)\}", one, word)]


def _settings(made: Draft, found: list[tuple[str, str, str]]) -> None:
    """Title, user and limits; what else is there goes through `service:` or is told."""
    service: dict[str, str] = {}
    for section, key, value in found:
        if key == "Description" and section == "Unit":
            made.fields = {"description": value, **made.fields}
        elif key == "User":
            made.set("user", value)
        elif key in ("TimeoutStartSec", "TimeoutSec") and isinstance(span_sec(value), int):
            made.set("ready", {"timeout_sec": span_sec(value)})
        elif key in _TOLD:
            made.lost.append(f"{key}={value}")
        elif section == "Service" and key not in _OURS:
            service[key] = value
        elif section == "Unit" and key in ("Requires", "BindsTo", "PartOf", "Conflicts", "OnFailure"):
            made.lost.append(f"{key}={value}; see `requires:`, `gpus:` and the host file's `on_failure:`")
    if service:
        made.set("service", service)
