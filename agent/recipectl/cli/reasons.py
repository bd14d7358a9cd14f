"""Why a unit has each of its settings, for explain; recipe(5) tells the same at length."""

# Setting -> the keys of a recipe that decide it, the first that is set is named with file:line.
KEYS = {
    "SourcePath": ("name",),
    "Requires": ("requires",),
    "After": ("after", "requires"),
    "Conflicts": ("conflicts", "gpus"),
    "AssertPathExists": ("model_path",),
    "StopWhenUnneeded": ("on_demand",),
    "Wants": ("watch",),
    "User": ("user",),
    "TimeoutStartSec": ("ready.timeout_sec",),
    "ProtectHome": ("hardening",),
    "LoadCredential": ("secrets",),
    "LoadCredentialEncrypted": ("secrets",),
    "EnvironmentFile": ("secrets",),
    "DevicePolicy": ("device_isolation",),
    "DeviceAllow": ("gpus",),
    "Restart": ("on_demand",),
    "NoNewPrivileges": ("hardening",),
    "WantedBy": ("autostart",),
}

COMES_BACK, ON_DEMAND = "comes back, 4 tries", "each request is a try"
SERVICE = "`service:` of the recipe"
# What is in no group belongs to the sandbox.
SANDBOX = "sandbox of `hardening:`"
_GROUPS = {
    "compiled from": ("SourcePath", "Documentation"),
    "runs as": ("User",),
    "up, or gone, before it": ("Wants", "Requires", "After", "Conflicts", "AssertPathExists"),
    "all models together": ("PartOf", "WantedBy", "Slice"),
    "up while it is needed": ("StopWhenUnneeded",),
    "checked first": ("ExecStartPre",),
    "started: it answers": ("Type", "NotifyAccess", "ExecStartPost", "TimeoutStartSec"),
    "a stop frees its GPUs": ("TimeoutStopSec", "KillMode", "SuccessExitStatus", "OOMPolicy"),
    # Engines exit 0 when they die, and 2 when an argument is wrong; a slow failure must reach the limit.
    COMES_BACK: (
        "Restart", "RestartSec", "RestartSteps", "RestartMaxDelaySec", "RestartPreventExitStatus",
        "StartLimitIntervalSec", "StartLimitBurst",
    ),
    "told when given up": ("OnFailure", "RestartMode"),
    "room for an engine": ("LimitMEMLOCK", "LimitNOFILE", "TasksMax"),
    "files of its own": (
        "CacheDirectory", "StateDirectory", "WorkingDirectory", "ReadWritePaths", "PrivateTmp", "UMask",
    ),
    "secrets, read at start": ("LoadCredential", "LoadCredentialEncrypted", "EnvironmentFile"),
    "`device_isolation:`": ("DevicePolicy", "DeviceAllow"),
}  # fmt: skip
REASONS = {setting: why for why, settings in _GROUPS.items() for setting in settings}
# The order in which they are told.
ORDER = (*_GROUPS, ON_DEMAND, SERVICE, SANDBOX)
