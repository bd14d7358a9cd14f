"""A hand-written systemd service that runs an engine."""

import contextlib
import glob
import re
from collections.abc import Mapping, Sequence
from types import MappingProxyType

from recipectl.errors import RecipectlError, UsageError
from recipectl.importers.draft import (
    VARIABLE_START,
    Draft,
    host_variable,
    redacted,
)
from recipectl.importers.from_command import draft_from_command, model_name
from recipectl.importers.lines import Remark, at, errors_at
from recipectl.importers.programs import program_name, runs_container
from recipectl.importers.secret_names import is_likely_secret
from recipectl.importers.shapes import refuse_private
from recipectl.importers.unit_command import command_of
from recipectl.importers.unit_keys import set_keys
from recipectl.importers.unit_text import (
    PlacedSetting,
    in_force,
    is_of_user,
    placed_settings,
    with_own_folders,
    without_specifiers,
    words_without_specifiers,
)
from recipectl.importers.unwrapping import unwrapped
from recipectl.importers.variables import is_user_of_host, keep_cache, may_use_hub_cache, read_variables
from recipectl.systemd import quoting

_VARIABLE = re.compile(r"\$[A-Z_]+|\$\{[A-Z_]+\}")


def draft(text: str, name: str, source: str, drop_ins: Mapping[str, str] = MappingProxyType({})) -> Draft:
    """The recipe of a service, `name` without `.service`; UsageError when it has no command of an engine.

    `drop_ins` are the paths and texts of the files that change it, in their order.
    """
    refuse_private([text, *drop_ins.values()])
    lost: list[Remark] = []
    unit_settings = placed_settings(text, lost)
    unit_settings += [setting for file in drop_ins for setting in placed_settings(drop_ins[file], lost, file)]
    if not any(setting.section == "Service" for setting in unit_settings):
        raise UsageError("it has no [Service]; give a systemd service that runs an engine")
    unit_settings = in_force(with_own_folders(unit_settings, source))
    start_settings = _of_service(unit_settings, "ExecStart")
    if not start_settings:
        raise UsageError("it has no ExecStart=; give a service that runs an engine")
    environment, unread_files = environment_of(unit_settings, name, lost)
    search_path = _of_service(unit_settings, "ExecSearchPath")
    if search_path:
        # systemd looks for programs there, and sets PATH to it (systemd.exec(5)).
        environment.setdefault("PATH", ":".join(setting.value for setting in search_path))
    for setting in start_settings[:-1]:
        lost.append(Remark(f"ExecStart={without_specifiers(setting.value, name, [])}", within=setting.place))
    with errors_at(start_settings[-1].place), at(start_settings[-1].place, lost):
        command = command_of(
            start_settings[-1].value, environment, name, lost, _folder(unit_settings, name, source)
        )
    command.stand_at(start_settings[-1].place)
    command.unread_files += unread_files
    for setting in (*_of_service(unit_settings, "Environment"), *search_path):
        if setting.name == "ExecSearchPath" or re.search(r"(^|[\s\"'])PATH=", setting.value):
            command.places.setdefault("PATH", setting.place)
    with errors_at(command.place):
        result = draft_from_command(command, model_name(name.replace("@", "-")), f"From {source}.")
    result.not_carried_over += lost
    own_user = result.fields.get("user", "root")  # of `sudo -u` in ExecStart=
    client = unwrapped(command).words
    is_of_docker = "docker" in program_name(client) and runs_container(client)
    in_unit = any(word in ("--cgroups=split", "--cgroups=disabled") for word in client)
    starter = "docker" if is_of_docker else "podman" if runs_container(client) and not in_unit else ""
    set_keys(result, unit_settings, name, client=starter)
    settings = {setting.name: setting.value for setting in unit_settings}
    if own_user != "root":
        result.fields["user"] = own_user
    if "user" in result.fields:
        settings["User"] = result.fields["user"]  # the name of a number
    if is_of_docker:
        result.lose("it ran as the image's user, often root; see `user:`")
    else:
        _name_what_systemd_gave(result, settings, has_user=is_of_user(unit_settings, source))
    return result


def _name_what_systemd_gave(draft: Draft, settings: Mapping[str, str], *, has_user: bool) -> None:
    """Name the user that a service has without saying so, and keep that user's cache."""
    is_dynamic = settings.get("DynamicUser", "no").lower() in ("1", "yes", "true", "on")
    if is_dynamic and "user" in draft.fields and not is_user_of_host(draft.fields["user"]):
        user = draft.fields.pop("user")
        draft.lose(f"DynamicUser= with User={user}, whom systemd made; it will run as a user of its own")
        return
    if settings.get("User") not in (None, "", "root") or has_user:
        keep_cache(draft, settings.get("User", ""))
        if "user" not in draft.fields and not settings.get("User"):
            draft.lose("it ran as the user who started it; it will run as a user of its own, see `user:`")
    elif not is_dynamic and draft.fields.get("user", "root") == "root":
        draft.fields.pop("user", None)
        draft.lose("it ran as root; it will run as a user of its own, see `user:`")
        if may_use_hub_cache(draft):
            draft.lose("the Hugging Face cache of root; it downloads the model again")


def _of_service(unit_settings: Sequence[PlacedSetting], name: str) -> list[PlacedSetting]:
    """The settings of one name in [Service]."""
    return [setting for setting in unit_settings if setting[:2] == ("Service", name)]


def environment_of(
    unit_settings: Sequence[PlacedSetting], name: str, lost: list[Remark]
) -> tuple[dict[str, str], list[str]]:
    """The variables of a service, and the files of variables that cannot be read here."""
    environment: dict[str, str] = {}
    for setting in _of_service(unit_settings, "Environment"):
        with at(setting.place, lost):
            words = words_without_specifiers(setting.value, name, lost)
        pairs = [word.partition("=") for word in words]
        environment |= {variable: text for variable, equals, text in pairs if variable and equals}
        folders = [part for variable, _, text in pairs if variable != "PATH" for part in text.split(":")]
        for folder in filter(_VARIABLE.fullmatch, folders):
            fault = f"`{folder}`, which systemd does not expand in Environment=, stays as it is"
            lost.append(Remark(f"{fault}; remove it", within=setting.place))
        if strays := ["".join(pair) for pair in pairs if not (pair[0] and pair[1])]:
            shown = ", ".join(f"`{redacted(stray)}`" for stray in strays)
            fault = f"{shown} of Environment=, no assignment, which systemd ignores"
            lost.append(Remark(fault, within=setting.place))
    unread_files: list[str] = []
    variables = _variables_of_files(unit_settings, name, environment, unread_files, lost)
    unset = [
        word
        for setting in _of_service(unit_settings, "UnsetEnvironment")
        for word in words_without_specifiers(setting.value, name, lost)
    ]
    return {
        key: value
        for key, value in (environment | variables).items()
        if key not in unset and f"{key}={value}" not in unset
    }, unread_files


def _folder(unit_settings: Sequence[PlacedSetting], name: str, source: str) -> str:
    """The folder in which a service starts: WorkingDirectory=, else that of its manager (systemd.exec(5))."""
    own = "~" if is_of_user(unit_settings, source) else "/"
    values = [own, *(setting.value for setting in _of_service(unit_settings, "WorkingDirectory"))]
    folder = without_specifiers(values[-1].lstrip("-"), name, [])
    return host_variable("HOME") if folder == "~" else folder


def _variables_of_files(
    unit_settings: Sequence[PlacedSetting], name: str, environment: Mapping[str, str],
    unread_files: list[str], lost: list[Remark],
) -> dict[str, str]:  # fmt: skip
    """What EnvironmentFile= sets: it wins over Environment= (systemd.exec(5)).

    Of a file that is not here nothing is known: what the command takes of Environment= may be another value.
    """
    variables: dict[str, str] = {}
    for setting in _of_service(unit_settings, "EnvironmentFile"):
        with at(setting.place, lost):
            pattern = without_specifiers(setting.value.removeprefix("-"), name, lost)
        texts = []
        for file in sorted(glob.glob(pattern)):  # noqa: PTH207  (absolute)
            with contextlib.suppress(OSError, RecipectlError), at(setting.place, lost):
                texts.append(read_variables(file, lost))
        variables |= {key: text for content in texts for key, text in quoting.environment_file(content)}
        if not texts:
            unread_files.append(pattern)
            fault = f"the variables in {pattern}, which cannot be read here and win over Environment="
            lost.append(Remark(f"{fault}; set them in `env_vars:` or `secrets:`", within=setting.place))
            commands = [setting.value for setting in unit_settings if setting.name == "ExecStart"]
            # Podman's command has all of them.
            commands = commands[-1:] + [each.value for each in unit_settings if each.section == "Container"]
            used = re.findall(r"\$\{?([A-Za-z_][A-Za-z0-9_]*)", "\n".join(commands))
            for key in dict.fromkeys(used):
                known = {**environment, **variables}
                if VARIABLE_START not in known.get(key, VARIABLE_START):
                    shown = "…" if is_likely_secret(key, known[key]) else known[key]
                    fault = f"`{key}` is `{shown}`, if that file does not set it"
                    lost.append(Remark(fault, within=setting.place))
                    variables[key] = host_variable(key)
    return variables
