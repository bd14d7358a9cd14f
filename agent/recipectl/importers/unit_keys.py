"""The settings of a service that a recipe has keys for; the others go to `service:`, or are named."""

import re
from collections.abc import Sequence

from recipectl.compiler import service_settings
from recipectl.compiler.secrets import has_secret
from recipectl.importers.draft import OTHER_GROUP, STAYS_DOWN, VARIABLE_START, Draft, host_variable
from recipectl.importers.lines import Remark, at
from recipectl.importers.unit_text import PlacedSetting, without_specifiers
from recipectl.importers.wrappers import niceness
from recipectl.recipe.parts import Ready
from recipectl.recipe.spans import LONGEST_SEC, span_sec

# Settings that every compiled unit has in its own way, or that the functions below read.
_COMPILED = frozenset(
    """
    Type Restart ExecStart NotifyAccess Description Documentation User Environment
    EnvironmentFile TimeoutStartSec
    """.split()  # noqa: SIM905  (a list one can read)
)
# Values that change nothing: the compiled unit has them too, or they are systemd's defaults.
_NETWORK = frozenset(("network.target", "network-online.target"))
_JOURNAL = frozenset(("journal", "inherit", "syslog"))
_DEFAULT_VALUES = {
    "After": _NETWORK
    | {"nvidia-persistenced.service", "nvidia-fabricmanager.service", "syslog.target", "multi-user.target"},
    "Wants": _NETWORK,
    "StandardOutput": _JOURNAL,
    "StandardError": _JOURNAL,
    "KillSignal": frozenset(("SIGTERM", "TERM", "15")),
    "KillMode": frozenset(("mixed", "control-group")),
    "DynamicUser": frozenset(("yes", "true", "on", "1")),
    "SendSIGKILL": frozenset(("yes", "true", "on", "1")),
    "RestartSec": frozenset(("10", "10s")),
    "TasksMax": frozenset(("infinity",)),
    "LimitMEMLOCK": frozenset(("infinity", "infinity:infinity")),
    "LimitNOFILE": frozenset(("1048576",)),
}
_OTHER_FILES = ", with which the unit's paths are not those of this host; write the host's own paths"
_OF_LOAD = ", which did not count its load; here a start lasts until the model is ready"
_WITH_SANDBOX = ", which the sandbox of a recipe would change; see `hardening:`"
_REASONS = {
    **dict.fromkeys((
        "RootDirectory", "RootImage", "RootImageOptions", "MountImages", "ExtensionImages",
        "ExtensionDirectories", "BindPaths", "BindReadOnlyPaths", "TemporaryFileSystem", "NoExecPaths",
        "ExecPaths",
    ), _OTHER_FILES),
    **dict.fromkeys((
        "JobTimeoutSec", "JobRunningTimeoutSec", "JobTimeoutAction", "JobTimeoutRebootArgument",
    ), _OF_LOAD),
    **dict.fromkeys(("SystemCallFilter", "RestrictAddressFamilies"), _WITH_SANDBOX),
}  # fmt: skip
# Settings whose last value alone counts.
_ONCE = re.compile(
    r"Type|User|Group|Restart(Sec)?|Timeout\w+|Kill(Signal|Mode)|SendSIG\w+|DynamicUser|TasksMax|Limit\w+|Nice"
    r"|Memory\w+|CPU(Quota|Weight)|Standard(Output|Error)|OOM\w+|UMask|Slice|WorkingDirectory|StartLimit\w+"
)
_CONTAINER_ENGINE = re.compile(r"(docker|containerd|podman)\.(service|socket)")
_TIDIES_CONTAINERS = re.compile(r"[-+!@:]*(\S*/)?(docker|podman) (rm|stop|kill|pull)\b")
# What a unit of Docker's client means for the engine too; its other settings bound the client alone.
_NOT_OF_CLIENT = re.compile(
    r"Exec\w+|Restart\w*|Start\w+|Timeout\w+|Type|Kill\w+|SendSIG\w+|RemainAfterExit|\w*Environment\w*|Standard\w+"
    r"|Syslog\w+|Log\w+|Notify\w+|PIDFile|Watchdog\w+|Success\w+|Failure\w+|RuntimeMaxSec|GuessMainPID|Delegate"
)
# podman's container is in a control group of its own, but for `--cgroups=split`.
_OF_CGROUP = re.compile(
    r"Memory(?!Deny)\w+|CPU(Quota|Weight|Shares)\w*|Startup\w+|Tasks\w+|IO(Weight|Read|Write|Device)\w+|Allowed\w+"
    r"|IPA\w+|Device\w+"
)
_AT_BOOT = {"multi-user.target", "default.target", "graphical.target", "network-online.target"}
_EARLIER_NAMES = {"StartLimitInterval": "StartLimitIntervalSec", "MemoryLimit": "MemoryMax"}


def set_keys(
    draft: Draft,
    unit_settings: Sequence[PlacedSetting],
    name: str,
    *,
    waits: bool = False,
    client: str = "",
) -> None:
    """Set the fields for the settings of a service; settings without a field go to `service:`.

    `waits` is true for a unit that is started only once its engine is ready. `client` is the program of
    a unit that starts a container outside itself: docker, or podman.
    """
    service: dict[str, list[str]] = {}
    users = [setting.value for setting in unit_settings if setting.name == "User"]
    types = [setting.value for setting in unit_settings if setting.name == "Type"]
    # Only these are started when they say so; another one is started at once, however long it loads.
    waits = waits or bool({*types[-1:]} & {"notify", "notify-reload", "dbus"})
    waits = waits or any(setting.name == "ExecStartPost" for setting in unit_settings)
    starts = [setting.value for setting in unit_settings if setting.name == "ExecStart"]
    is_container = not starts or bool(re.search(r"(docker|podman|nerdctl)\b.* run ", starts[-1], re.S))
    # Group= last: it becomes one of SupplementaryGroups=, which an empty value does not remove.
    parts = [part for whole in unit_settings for part in _parts(whole, is_container=is_container)]
    last = {part.name: part for part in parts}
    parts = [part for part in parts if not _ONCE.fullmatch(part.name) or part is last[part.name]]
    parts.sort(key=lambda part: part.name == "Group")
    places = {setting.name: setting.place for setting in parts}
    for setting in parts:
        # The unit's own limit wins over that of `docker stop`.
        own_service = {} if "TimeoutStopSec" in places else service
        if is_container and _take_of_container(draft, own_service, setting, client):
            continue
        if setting.name == "Group" and setting.value in users[-1:]:
            continue  # the unit has the group of its user
        with at(setting.place, draft.not_carried_over):
            if setting.name == "TimeoutStartSec" and not waits and _is_short(setting.value):
                fault = f"TimeoutStartSec={setting.value}, which did not limit its load"
                draft.lose(f"{fault}; see `ready.timeout_sec`")
            elif reason := _reason_to_leave_out(setting):
                draft.lose(reason)
            elif not _set_field(draft, setting, name):
                _add_to_service(draft, service, setting, name)
    if not any(setting.name == "Restart" for setting in unit_settings):
        draft.lose(f"without Restart= {STAYS_DOWN}")
    # What stands in the command itself, as `nice`, wins over the unit's.
    own = draft.fields.get("service", {})
    if "Nice" in own and "Nice" in service:  # nice(1) adds to what it has
        own["Nice"] = niceness(own["Nice"], *service.pop("Nice"))
    draft.not_carried_over += [
        Remark(f"{key}={' '.join(service[key])}; here {key}={own[key]} counts", within=places.get(key, ""))
        for key in own.keys() & service.keys()
        if [own[key]] != service[key]
    ]
    kept = {key: texts[0] if len(texts) == 1 else texts for key, texts in service.items()} | own
    if kept:
        draft.set("service", kept)


def _take_of_container(
    draft: Draft, service: dict[str, list[str]], setting: PlacedSetting, client: str
) -> bool:
    """Whether a setting belongs to a container, or to its client; what it means for the engine is taken."""
    of_docker = client == "docker" and not _NOT_OF_CLIENT.fullmatch(setting.name)
    if setting.section == "Service" and (of_docker or (client and _OF_CGROUP.fullmatch(setting.name))):
        fault = (
            f"{setting.name}={setting.value} of {client.title()}'s client; the engine ran in the container"
        )
        key = "user" if setting.name in ("User", "Group", "SupplementaryGroups") else "service"
        if setting.value and setting.name != "WorkingDirectory":
            draft.not_carried_over.append(Remark(f"{fault}, see `{key}:`", within=setting.place))
        return True
    if not (setting.name.startswith("Exec") and _TIDIES_CONTAINERS.match(setting.value)):
        return False
    if limit := re.search(r" stop .*?(?:-t|--time|--timeout)[ =]([0-9]{1,6})\b", setting.value):
        service.setdefault("TimeoutStopSec", [limit[1]])
    elif re.search(r"\bpull\b", setting.value):
        fault = f"{setting.name}={setting.value}: each start pulled the image"
        draft.not_carried_over.append(Remark(f"{fault}; here a version stays", within=setting.place))
    return True


def _parts(setting: PlacedSetting, *, is_container: bool) -> list[PlacedSetting]:
    """The settings that a setting stands for; none for one that only a container's engine needs."""
    if setting.name == "TimeoutSec":
        return [setting._replace(name=name) for name in ("TimeoutStartSec", "TimeoutStopSec")]
    if setting.name in ("After", "Requires", "Wants", "BindsTo", "PartOf") and setting.value:
        is_needless = _CONTAINER_ENGINE if is_container or setting.name == "After" else re.compile("(?!)")
        words = [word for word in setting.value.split() if not is_needless.fullmatch(word)]
        return [setting._replace(value=" ".join(words))] if words else []
    of_podman = ("%t/containers", f"{host_variable('XDG_RUNTIME_DIR')}/containers")
    if is_container and setting.name == "RequiresMountsFor" and setting.value in of_podman:
        return []  # `podman generate systemd` writes it
    is_off = (setting.name, setting.value) in (("WatchdogSec", "0"), ("WatchdogSec", ""))
    return [] if is_off or setting.name in ("PIDFile", "GuessMainPID") else [setting]


def _reason_to_leave_out(setting: PlacedSetting) -> str | None:
    """The sentence for a setting that no recipe can have; None for any other."""
    _, key, value, _ = setting
    if key == "Restart" and value not in ("always", ""):
        return f"Restart={value}: recipectl always restarts a model that ends"
    seconds = span_sec(value) if key == "TimeoutStopSec" and value else 1
    if not isinstance(seconds, int) or seconds == 0:
        return f"{key}={value}; a stop has a limit here"
    is_in_place = key.startswith("Bind") and ":" not in value  # the same paths
    if value and not is_in_place and (reason := _REASONS.get(key)):
        return f"{key}={value}{reason}"
    if key in ("SetCredential", "SetCredentialEncrypted"):
        return f"{key}=, whose value is not repeated; see `secrets:`"
    if value and key in ("Requires", "BindsTo", "PartOf", "Conflicts", "OnFailure", "Requisite"):
        return f"{key}={value}; see `requires:`, `conflicts:` and the host file's `on_failure:`"
    return None


def _set_field(draft: Draft, setting: PlacedSetting, name: str) -> bool:
    """Whether a setting has a field of its own in a recipe; if so, set it."""
    match (setting.section, setting.name, setting.value):
        case ("Unit", "Description", value):
            text = without_specifiers(value, name, [])
            if VARIABLE_START in text:  # a description has no variables
                text = value
                draft.not_carried_over.append(
                    Remark("a specifier of Description=, which stays as it is written", within=setting.place)
                )
            draft.fields.pop("description", None)
            draft.fields = {"description": text} | draft.fields  # it is the first key of a recipe
        case (_, "TimeoutStartSec", value):
            _set_start_timeout(draft, value)
        case (_, "User", value):
            draft.set_user(without_specifiers(value, name, draft.not_carried_over))
        case ("Install", "WantedBy", value) if not _AT_BOOT & {*value.split()}:
            draft.lose(f"WantedBy={value}, which may not be part of the boot; see `autostart:`")
        case ("Install", "WantedBy", value):
            draft.set("autostart", True, f"The service was wanted by {value}.")
            if others := [target for target in value.split() if target not in _AT_BOOT]:
                draft.lose(f"WantedBy={' '.join(others)}; see `autostart:`")
        case _:
            return False
    return True


def _is_short(value: str) -> bool:
    """Whether a limit is shorter than that of a recipe which has none."""
    seconds = span_sec(value)
    return isinstance(seconds, int) and 0 < seconds < Ready().timeout_sec


def _set_start_timeout(draft: Draft, value: str) -> None:
    is_endless = value in ("infinity", "0")
    seconds = LONGEST_SEC if is_endless else span_sec(value)
    if isinstance(seconds, int) and seconds > 0:
        draft.set("ready", {"timeout_sec": seconds}, "The service had no limit." if is_endless else None)
    else:
        draft.lose(f"TimeoutStartSec={value}")


def _add_to_service(draft: Draft, service: dict[str, list[str]], setting: PlacedSetting, name: str) -> None:
    section, key, value, _ = setting
    key = _EARLIER_NAMES.get(key, key)
    if key == "Group" and value:
        draft.lose(f"Group={value}: {OTHER_GROUP}")
        key = "SupplementaryGroups"
    if key in _DEFAULT_VALUES and value:
        value = " ".join(word for word in value.split() if word not in _DEFAULT_VALUES[key])
        if not value:
            return
    elif key in _COMPILED:
        return
    if has_secret(value):
        draft.lose(f"{key}=, which holds a secret")
    elif service_settings.is_allowed(key) and section in ("Service", "Unit"):
        text = without_specifiers(value, name, draft.not_carried_over)
        service.setdefault(key, []).append(text)
    else:
        draft.lose(f"{key}={value}")
