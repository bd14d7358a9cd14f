"""What systemd puts into the text of a unit: specifiers and variables."""

import os
import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from recipectl.errors import UsageError
from recipectl.importers.command import placeholder_in
from recipectl.importers.draft import host_variable, redacted
from recipectl.importers.lines import Remark
from recipectl.systemd import quoting
from recipectl.systemd.directives import directives
from recipectl.systemd.unitfile import lines_without_setting, settings_with_lines

# What a template of Ansible, Jinja or Go has still to fill in. Words of a command have rules of their own.
_TEMPLATE = re.compile(r"\{\{[^{}]{1,80}\}\}|\{%.{1,80}?%\}")
# Settings whose values may have a `#`.
_OF_TEXT = re.compile("Exec|Environment|Description|Documentation|PassEnvironment|X-|Annotation|Label|Health")


def without_specifiers(text: str, name: str, not_carried_over: list[Remark]) -> str:
    """Replace the specifiers of systemd.unit(5) that are the same for every service of the system."""
    prefix, _, instance = name.partition("@")
    values = {"%": "%", "n": f"{name}.service", "N": name, "p": prefix, "t": "/run", "S": "/var/lib"}
    values |= {"C": "/var/cache", "E": "/etc", "L": "/var/log", "T": "/tmp", "V": "/var/tmp"}  # noqa: S108  (read)
    values["i"] = instance or host_variable("INSTANCE")
    values["I"] = _unescaped(instance) or host_variable("INSTANCE")
    host_names = {"h": "HOME", "H": "HOSTNAME", "u": "USER", "U": "UID"}
    values |= {letter: host_variable(variable) for letter, variable in host_names.items()}

    def value(match: re.Match[str]) -> str:
        if match[1] not in values:
            not_carried_over.append(
                Remark(f"the specifier {match[0]}, which stays as it is; write its value")
            )
        return values.get(match[1], match[0])

    return re.sub(r"%([A-Za-z%])", value, text)


def words_without_specifiers(text: str, name: str, not_carried_over: list[Remark]) -> list[str]:
    """The words of a setting: systemd replaces specifiers after it has unquoted (load-fragment.c)."""
    return [without_specifiers(word, name, not_carried_over) for word in quoting.split(text)]


def _unescaped(instance: str) -> str:
    """What systemd-escape(1) was given."""
    text = re.sub(r"\\x([0-9a-f]{2})", lambda match: chr(int(match[1], 16)), instance.replace("-", "/"))
    return text.encode("latin-1", "replace").decode(errors="replace") if "\\x" in instance else text


def is_of_user(settings: Sequence["PlacedSetting"], source: str) -> bool:
    """Whether a unit belongs to the manager of a user: by its folder, or by what wants it."""
    wanted_by = [setting.value for setting in settings if setting.name == "WantedBy"]
    path = os.path.abspath(source)  # noqa: PTH100  (it is only compared)
    if re.search("/user/|/[.]config/containers/", path):
        return True
    # A manager of a user takes no User=; default.target is the system's, too.
    is_of_system = "/systemd/system/" in path or any(setting.name == "User" for setting in settings)
    return wanted_by[-1:] == ["default.target"] and not is_of_system


def with_own_folders(settings: list["PlacedSetting"], source: str) -> list["PlacedSetting"]:
    """The settings of a unit; in a user's, specifiers of folders are the user's own (systemd.unit(5))."""
    is_of_system = any(
        setting.name == "User" or (setting.name, setting.value) == ("WantedBy", "multi-user.target")
        for setting in settings
    ) or "/systemd/system/" in os.path.abspath(source)  # noqa: PTH100  (compared)
    if not is_of_user(settings, source):
        # They are those of the manager, whatever User= says.
        values = {"%h": "/root", "%u": "root", "%U": "0"} if is_of_system else {}
    else:
        names = {"t": "RUNTIME_DIR", "S": "STATE_HOME", "C": "CACHE_HOME", "E": "CONFIG_HOME"}
        values = {f"%{letter}": host_variable(f"XDG_{name}") for letter, name in names.items()}
        values["%L"] = f"{values['%S']}/log"

    def value(match: re.Match[str]) -> str:
        return values.get(match[0], match[0])

    return [setting._replace(value=re.sub("%.", value, setting.value)) for setting in settings]


def expanded_words(word: str, environment: Mapping[str, str]) -> list[str]:
    """`$NAME` alone is split into words, `${NAME}` is not (systemd.service(5)); `$$` is `$`.

    systemd takes all that follows a `$` for one name, and drops a word whose name cannot be one.
    """
    if not is_variable_alone(word):
        return [with_variables(word, environment)]
    name = word[1:]
    if name in environment:
        return list(quoting.split(environment[name], unescape=False))
    return [host_variable(name)] if re.fullmatch("[A-Za-z_][A-Za-z0-9_]*", name) else []


def is_variable_alone(word: str) -> bool:
    """Whether systemd replaces a whole word of a command by the words of a variable (replace_env_argv())."""
    return word.startswith("$") and not word.startswith(("${", "$$"))


def with_variables(text: str, environment: Mapping[str, str]) -> str:
    """A text of a command line with `${NAME}` replaced, and `$$` by `$`."""

    def value(match: re.Match[str]) -> str:
        return "$" if match[0] == "$$" else environment.get(match[1], host_variable(match[1]))

    return re.sub(r"\$\$|\$\{([A-Za-z_][A-Za-z0-9_]*)\}", value, text)


def separated(command_line: str) -> tuple[str, str, str]:
    """The first command of ExecStart=, the `;` behind it that no quote holds, and what follows."""
    for match in re.finditer(r"(?<=\s);(?=\s|\Z)", command_line):
        before = command_line[: match.start()]
        if quoting.split(f"{before} x")[-1] == "x":  # no quote is open
            return before, ";", command_line[match.end() :]
    return command_line, "", ""


class PlacedSetting(NamedTuple):
    """One setting of a unit file, and its place there: `line 3`, or `line 3 of FILE` of a drop-in."""

    section: str
    name: str
    value: str
    place: str


# Lists that an empty value does not end (systemd.unit(5)).
_ORDERS = ("After", "Before", "Wants")


def in_force(settings: Sequence[PlacedSetting]) -> list[PlacedSetting]:
    """The settings that count: an empty value removes those of its name before it."""
    emptied = {
        setting[:2]: number
        for number, setting in enumerate(settings)
        if not setting.value and setting.name not in _ORDERS
    }
    return [
        setting
        for number, setting in enumerate(settings)
        if setting.value and number > emptied.get(setting[:2], -1)
    ]


# systemd still takes these of [Unit] in [Service].
_IN_SERVICE_TOO = ("StartLimitBurst", "StartLimitAction", "FailureAction", "RebootArgument")
_OF_QUADLET = ("Container", "Pod", "Kube", "Build", "Image", "Volume", "Network", "Quadlet")


def _is_ignored(section: str, name: str) -> bool:
    """True for a setting in a section where systemd, or Podman's generator, ignores it."""
    if section in ("Unit", "Service"):
        known = directives().get(name)
        return known is not None and known.section != section and name not in _IN_SERVICE_TOO
    return (section == "Install" and name in directives()) or section not in ("Install", *_OF_QUADLET)


def _refuse_template(text: str, place: str, name: str = "") -> None:
    """UsageError for the value of a setting, or another text, that a template has still to fill in."""
    is_prose = name in ("Description", "Documentation")
    match = _TEMPLATE.search(text)
    if template := match[0] if match else None if is_prose else placeholder_in(text):
        raise UsageError(f"{place}: fill in `{redacted(template)}`")


def placed_settings(text: str, lost: list[Remark], drop_in: str = "") -> list[PlacedSetting]:
    """The settings of a unit file in its order; `drop_in` is the path of a file that changes the unit.

    What its author may hold for a setting, and systemd ignores, is named in `lost`.
    """
    ending = f" of {drop_in}" if drop_in else ""
    text = text.removeprefix("\ufeff")  # systemd skips it, too
    for line, words in lines_without_setting(text):
        _refuse_template(words, f"line {line}{ending}")
        fault = (
            f"`{redacted(words)}` is no setting, and systemd ignores it; does the line before lack a `\\`?"
        )
        lost.append(Remark(fault, within=f"line {line}{ending}"))
    settings = []
    for line, setting in settings_with_lines(text):
        if not setting.name.startswith("Exec"):
            _refuse_template(setting.value, f"line {line}{ending}", setting.name)
        if setting.section.startswith("X-") or setting.name.startswith("X-"):
            continue  # for other programs (systemd.unit(5))
        if _is_ignored(setting.section, setting.name):
            fault = (
                f"{setting.name}={redacted(setting.value)} in [{setting.section}], where systemd ignores it"
            )
            lost.append(Remark(fault, within=f"line {line}{ending}"))
            continue
        comment = re.search(r"\s([#;])", setting.value)
        if not comment or _OF_TEXT.match(setting.name):
            settings.append(PlacedSetting(*setting, f"line {line}{ending}"))
            continue
        fault = (
            f"{setting.name}={redacted(setting.value)}: in systemd, `{comment[1]}` begins no comment there"
        )
        lost.append(Remark(f"{fault}; write the comment above it", within=f"line {line}{ending}"))
    return settings
