"""A `.container` file of Podman's Quadlet: what `podman run` would be given for it."""

import contextlib
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from recipectl.errors import RecipectlError, UsageError
from recipectl.importers.command import Command
from recipectl.importers.container_options import Container
from recipectl.importers.container_words import read_options
from recipectl.importers.containers import engine_command
from recipectl.importers.draft import Draft
from recipectl.importers.from_command import draft_from_command, model_name
from recipectl.importers.lines import Remark, at, errors_at
from recipectl.importers.mounts import Mounts
from recipectl.importers.shapes import refuse_private
from recipectl.importers.systemd_unit import environment_of
from recipectl.importers.unit_keys import set_keys
from recipectl.importers.unit_text import (
    PlacedSetting,
    expanded_words,
    in_force,
    placed_settings,
    with_own_folders,
    with_variables,
    without_specifiers,
)
from recipectl.recipe.yamlsyntax import read_text
from recipectl.systemd import quoting

_QUADLET_OPTIONS = {
    "Environment": "-e", "EnvironmentFile": "--env-file", "Volume": "-v", "Mount": "--mount",
    "PublishPort": "-p", "AddDevice": "--device", "Network": "--network", "Secret": "--secret",
    "Ulimit": "--ulimit", "Memory": "--memory", "PidsLimit": "--pids-limit", "StopSignal": "--stop-signal",
    "User": "--user", "HealthCmd": "--health-cmd", "GroupAdd": "--group-add", "WorkingDir": "--workdir",
    "Pod": "--pod", "Label": "--label", "Pull": "--pull",
}  # fmt: skip
_QUADLET_QUIET = frozenset(
    """
    Image Exec Entrypoint PodmanArgs ContainerName HostName Annotation Notify RunInit
    ShmSize LogDriver NetworkAlias Timezone Tmpfs SecurityLabelDisable NoNewPrivileges DropCapability ReadOnly
    """.split()  # noqa: SIM905  (a list one can read)
)


# podman-systemd.unit(5); those above belong to them.
_OTHER_KEYS = frozenset(
    """
    AddCapability AddHost AppArmor AutoUpdate CgroupsMode ContainersConfModule DNS DNSOption DNSSearch
    EnvironmentHost ExposeHostPort GIDMap GlobalArgs Group HealthInterval HealthLogDestination
    HealthMaxLogCount HealthMaxLogSize HealthOnFailure HealthRetries HealthStartPeriod HealthStartupCmd
    HealthStartupInterval HealthStartupRetries HealthStartupSuccess HealthStartupTimeout HealthTimeout
    HttpProxy IP IP6 LogOpt Mask ReadOnlyTmpfs ReloadCmd ReloadSignal RemapGid RemapUid RemapUidSize
    RemapUsers Retry RetryDelay Rootfs SeccompProfile SecurityLabelFileType SecurityLabelLevel
    SecurityLabelNested SecurityLabelType ServiceName StartWithPod StopTimeout SubGIDMap SubUIDMap Sysctl
    UIDMap Unmask UserNS VolatileTmp
    """.split()  # noqa: SIM905  (a list one can read)
)


def _recipe(command: Command, name: str, origin: str, settings: Sequence[PlacedSetting]) -> Draft:
    """The recipe of a container's command; UsageError, also for a key that Podman does not know."""
    try:
        return draft_from_command(command, model_name(name), origin)
    except UsageError as error:
        known = {*_QUADLET_OPTIONS, *_QUADLET_QUIET, *_OTHER_KEYS}
        if key := next((key for key in settings if key.name not in known), None):
            fault = f"{error}; `{key.name}=` ({key.place}) is no key of [Container]"
            raise UsageError(f"{fault}: correct it") from error
        raise


def _add_setting(container: Container, setting: PlacedSetting, environment: Mapping[str, str]) -> None:
    """Add what one setting of [Container] means."""
    key, value = setting.name, setting.value
    for word in quoting.split(value) if key in ("Environment", "Label") else [value]:
        word = word.removeprefix("-") if key == "AddDevice" else word  # `-`: only if it is there
        word = with_variables(word, environment)
        if key == "Network" and word.endswith(".container"):  # another file of Quadlet
            word = f"container:{word.removesuffix('.container')}"
        container.add(_QUADLET_OPTIONS.get(key, ""), word, f"`{key}={value}`")


def _drop_in_folders(file: Path) -> list[Path]:
    """Where Quadlet reads drop-ins of a file: its own, of its template, of shorter names, of its type."""
    stem, dashes = file.stem, [match.end() for match in re.finditer("-", file.stem)]
    template = [f"{stem.partition('@')[0]}@"] if "@" in stem and not stem.endswith("@") else []
    names = [stem, *template, *(stem[:end] for end in reversed(dashes) if end < len(stem))]
    return [*(file.with_name(f"{name}.container.d") for name in names), file.with_name("container.d")]


def _settings_beside(file: Path, name: str, section: str) -> dict[str, str]:
    """The settings of another file of Quadlet beside this one; empty where it cannot be read."""
    text = ""
    with contextlib.suppress(OSError, RecipectlError):
        text = read_text(file.with_name(Path(name).name))
    return {each.name: each.value for each in placed_settings(text, []) if each.section == section}


def _volumes_beside(file: Path, mounts: Sequence[str]) -> dict[str, str]:
    """Volume of a `.volume` file -> its own name, or the folder of the host that it is bound to."""
    volumes = {}
    for name in {mount.partition(":")[0] for mount in mounts if ".volume" in mount}:
        settings = _settings_beside(file, name, "Volume")
        own_name = f"systemd-{name.removesuffix('.volume')}"
        is_bind = "bind" in settings.get("Options", "") or settings.get("Type") == "bind"
        folder = settings.get("Device", "") if is_bind else ""
        volumes[own_name] = folder or settings.get("VolumeName", own_name)
    return volumes


def quadlet_draft(text: str, name: str, source: str) -> Draft:
    """The recipe of a Quadlet file, `name` without `.container`; UsageError when it runs no engine."""
    refuse_private(text)
    lost: list[Remark] = []
    unit_settings = in_force(with_own_folders(placed_settings(text, lost), source))
    # Podman's command is the ExecStart= of a service: systemd replaces variables in it.
    environment, unread_files = environment_of(unit_settings, name, lost)
    settings = []
    for setting in (setting for setting in unit_settings if setting.section == "Container"):
        with at(setting.place, lost):
            settings.append(setting._replace(value=without_specifiers(setting.value, name, lost)))
    values = {setting.name: setting for setting in settings}
    file = Path(source).absolute()
    volumes = _volumes_beside(file, [setting.value for setting in settings if setting.name == "Volume"])
    container = Container(
        {}, lost, mounts=Mounts(str(file.parent), volumes=volumes, container_program="podman")
    )
    lost += [
        Remark(f"{path}, which changes this file; write its settings here")
        for folder in _drop_in_folders(file)
        for path in sorted(folder.glob("*.conf"))
    ]
    for setting in settings:
        if setting.name not in _QUADLET_QUIET:
            container.place = setting.place
            with at(setting.place, lost):
                _add_setting(container, setting, environment)
    image = values.get("Image")
    if not image or not image.value:
        sections = {setting.section for setting in unit_settings}
        other = next((name for name in ("Pod", "Kube", "Build", "Volume", "Network") if name in sections), "")
        fault = f"it is Quadlet's file of a {other.lower()}" if other else "it has no Image="
        raise UsageError(f"{fault}; give the file of an engine's container, X.container")
    for setting in settings:
        if setting.name == "PodmanArgs":
            container.place = setting.place
            with at(setting.place, lost):
                read_options(list(quoting.split(setting.value)), container)
    if "Entrypoint" in values:
        container.set_entrypoint(values["Entrypoint"].value)
    place = values.get("Exec", image).place
    container.places |= {"its image": image.place, "its folder": values.get("WorkingDir", image).place}
    words = quoting.split(values["Exec"].value) if "Exec" in values else ()
    arguments = [part for word in words for part in expanded_words(word, environment)]
    with errors_at(place):
        with at(place, lost):
            outer = Command({}, [], place=place, unread_files=unread_files)
            image_name = with_variables(image.value, environment)
            if image_name.endswith(".image"):
                image_name = _settings_beside(file, image_name, "Image").get("Image", image_name)
            command, notes = engine_command(outer, container, image_name, arguments)
        draft = _recipe(command, name, "\n".join((f"From {source}.", *notes)), settings)
    around = [setting for setting in unit_settings if setting.section in ("Unit", "Service", "Install")]
    waits = "Notify" in values and values["Notify"].value == "healthy"
    set_keys(draft, around, name, waits=waits)
    return draft
