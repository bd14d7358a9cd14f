"""Settings of units that depend on the host: systemd's version, the manager, the level of the sandbox."""

import hashlib
from typing import Any

import pytest

from recipectl.compiler import gpus, identity, service_settings, units
from recipectl.compiler.pipeline import resolve_purely
from recipectl.compiler.relations import Relations
from recipectl.errors import UsageError
from recipectl.machine.installation import Installation
from recipectl.machine.runtime import Runtime
from recipectl.recipe.gpu_selection import GpuSelection, parse
from recipectl.recipe.hostfile import HostSettings
from recipectl.recipe.schema import Recipe

RUNTIME = Runtime("test", ("/v/bin/vllm", "serve"), positional_model=True)


def unit(
    version: int = 252,
    *,
    user: bool = False,
    host: dict[str, Any] | None = None,
    user_name: str = "",
    **fields: Any,
) -> list[str]:
    """The lines of the service of a recipe."""
    own = {"user": user_name} if user_name else {}
    recipe = Recipe.model_validate({"name": "a", "model_path": "org/m"} | own | fields)
    installation = Installation(("/h",), user, version)
    settings = HostSettings.model_validate(host or {})
    resolved = resolve_purely(recipe, "/r/a.yaml", RUNTIME, settings, installation)
    return units.render(resolved, Relations(), settings, installation).units[0].text.splitlines()


def test_the_pause_before_a_restart_grows_where_systemd_can() -> None:
    growing = ["RestartSec=10", "RestartSteps=3", "RestartMaxDelaySec=60"]
    for version, expected in ((253, growing[:1]), (254, growing)):
        lines = [line for line in unit(version) if line.startswith(("RestartS", "RestartMax"))]
        assert lines == expected
    assert "Restart=no" in unit(257, on_demand={})


@pytest.mark.parametrize(("version", "host", "direct"), [
    (254, {"on_failure": "x.service"}, True), (253, {"on_failure": "x.service"}, False), (257, {}, False),
    (257, {"on_failure": "x.service", "gateway": {}}, False),  # what is bound to the model must stop with it
])  # fmt: skip
def test_on_failure_runs_once_where_systemd_would_run_it_often(
    version: int, host: dict[str, object], direct: bool
) -> None:
    lines = unit(version, host=host)
    assert ("RestartMode=direct" in lines, "OnFailure=x.service" in lines) == (direct, bool(host))


@pytest.mark.parametrize(("level", "version", "lines"), [
    ("off", 257, []),
    ("default", 257, ["ProtectSystem=strict", "ProtectHome=yes"]),
    ("strict", 257, ["ProtectSystem=strict", "ProtectHome=yes", "PrivateIPC=yes", "ProtectClock=yes"]),
    ("strict", 252, ["ProtectSystem=strict", "ProtectHome=yes", "PrivateIPC=yes"]),
])  # fmt: skip
def test_the_sandbox_is_as_tight_as_its_level(level: str, version: int, lines: list[str]) -> None:
    known = ("ProtectSystem=", "ProtectHome=", "PrivateIPC=", "ProtectClock=", "PrivateDevices=")
    assert [line for line in unit(version, hardening=level) if line.startswith(known)] == lines
    assert [line for line in unit(version, host={"hardening": level}) if line.startswith(known)] == lines


def test_without_gpus_a_strict_sandbox_hides_all_devices() -> None:
    assert "PrivateDevices=yes" in unit(hardening="strict", gpus="none")
    assert "PrivateDevices=yes" not in unit(hardening="strict", gpus="0")
    assert "PrivateDevices=yes" not in unit(hardening="default", gpus="none")


def test_a_users_manager_has_no_sandbox_and_no_user() -> None:
    lines = unit(user=True)
    assert [line for line in lines if line.startswith(("Protect", "User=", "CacheDirectory="))] == []
    assert "PrivateTmp=yes" in lines


@pytest.mark.parametrize("words", [
    {"extra_args": {"download-dir": "/srv/weights"}}, {"args": ["--download_dir=/srv/weights"]},
    {"args": ["--download-dir", "/srv/weights"]},
])  # fmt: skip
def test_the_folder_that_a_flag_has_written_is_writable(words: dict[str, object]) -> None:
    lines = unit(**words)
    assert "ReadWritePaths=-/srv/weights" in lines
    assert any(line.startswith("RequiresMountsFor=") and "/srv/weights" in line for line in lines)


@pytest.mark.parametrize(("variables", "lines"), [
    ({"HF_HOME": "/srv/hf"}, ["ReadWritePaths=-/srv/hf"]), ({"HF_HOME": "relative"}, []), ({"OTHER": "/srv"}, []),
    ({"HF_HUB_CACHE": "/srv/hub", "PROMETHEUS_MULTIPROC_DIR": "/run/p"}, ["ReadWritePaths=-/srv/hub", "ReadWritePaths=-/run/p"]),
])  # fmt: skip
def test_a_moved_folder_can_be_written(variables: dict[str, str], lines: list[str]) -> None:
    assert [line for line in unit(env_vars=variables) if line.startswith("ReadWrite")] == lines


@pytest.mark.parametrize(("path", "tmp", "home"), [
    ("/tmp/m", "no", "yes"), ("/home/x/m", "yes", "read-only"), ("/root/m", "yes", "read-only"), ("/srv/m", "yes", "yes"),
])  # fmt: skip
def test_what_a_model_needs_stays_visible(path: str, tmp: str, home: str) -> None:
    lines = unit(model_path=path)
    assert (f"PrivateTmp={tmp}" in lines, f"ProtectHome={home}" in lines) == (True, True)


@pytest.mark.parametrize(
    ("folder", "home"),
    [
        ("/home/x/llama", "read-only"),
        ("~", "read-only"),
        ("/root", "read-only"),
        ("-/home/x", "read-only"),
        ("/srv/x", "yes"),
    ],
)
def test_the_folder_of_the_engine_stays_visible(folder: str, home: str) -> None:
    assert f"ProtectHome={home}" in unit(service={"WorkingDirectory": folder})


@pytest.mark.parametrize(
    "words", [{"extra_args": {"log-file": "/srv/logs/a.log"}}, {"args": ["-lcd", "/srv/logs/a.bin"]}]
)
def test_the_folder_of_a_file_that_is_written_is_writable(words: dict[str, object]) -> None:
    lines = unit(backend="llamacpp", binary="/bin/true", model_path="/m.gguf", **words)
    assert "ReadWritePaths=-/srv/logs" in lines


@pytest.mark.parametrize(
    "path", ["/x.log", "/etc/x.log", "/var/log/../../etc/x.log", "/dev/stderr", "/var/log/x.log"]
)
def test_no_flag_opens_a_folder_of_the_system(path: str) -> None:
    lines = unit(backend="llamacpp", binary="/bin/true", model_path="/m.gguf", extra_args={"log-file": path})
    opened = [line.removeprefix("ReadWritePaths=-") for line in lines if line.startswith("ReadWritePaths=")]
    assert opened in ([], [path.replace("/var/log/../..", "")])  # the file alone


@pytest.mark.parametrize("folder", ["/", "/etc", "//", "/dev/shm/x", "/usr/../etc"])
def test_no_variable_opens_a_folder_of_the_system(folder: str) -> None:
    assert not [line for line in unit(env_vars={"TMPDIR": folder}) if line.startswith("ReadWrite")]


def test_a_folder_is_opened_once() -> None:
    lines = unit(env_vars={"TMPDIR": "/srv/x", "HF_HUB_CACHE": "/srv/x/", "TORCH_HOME": "/srv/y/../x"})
    assert [line for line in lines if line.startswith("ReadWrite")] == ["ReadWritePaths=-/srv/x"]


def test_what_closes_more_opens_nothing() -> None:
    lines = unit(service={"InaccessiblePaths": "/home/alice /tmp/x"})
    assert ("PrivateTmp=yes" in lines, "ProtectHome=yes" in lines) == (True, True)


def test_times_follow_from_the_load() -> None:
    lines = unit(ready={"timeout_sec": 100}, extra_args={"shutdown-timeout": 100})
    assert {
        "StartLimitIntervalSec=800",
        "StartLimitBurst=4",
        "TimeoutStartSec=100",
        "TimeoutStopSec=115",
    } <= {*lines}
    assert "StartLimitIntervalSec=0" in unit(on_demand={})
    assert "TimeoutStopSec=60" in unit(extra_args={"shutdown-timeout": 44})


VISIBLE = {
    "unset": (None, "cuda", {}),
    "none": ("none", "cuda", {"CUDA_DEVICE_ORDER": "PCI_BUS_ID", "CUDA_VISIBLE_DEVICES": ""}),
    "all": ("all", "cuda", {"CUDA_DEVICE_ORDER": "PCI_BUS_ID"}),
    "indices": ("0,01", "cuda", {"CUDA_DEVICE_ORDER": "PCI_BUS_ID", "CUDA_VISIBLE_DEVICES": "0,1"}),
    "rocm: unset": (None, "rocm", {}),
    "rocm: none": ("none", "rocm", {"HIP_VISIBLE_DEVICES": "-1"}),
    "rocm: all": ("all", "rocm", {}),
    "rocm: indices": ("2", "rocm", {"HIP_VISIBLE_DEVICES": "2"}),
    "rocm: ids": ("GPU-a", "rocm", {"ROCR_VISIBLE_DEVICES": "GPU-a"}),
}


def recipe(words: str | None, accelerator: str = "cuda", **fields: Any) -> Recipe:
    named = {"gpus": words.split(",")} if words else {}
    return Recipe.model_validate(
        {"name": "a", "model_path": "m", "accelerator": accelerator} | named | fields
    )


@pytest.mark.parametrize(("words", "accelerator", "variables"), VISIBLE.values(), ids=VISIBLE.keys())
def test_an_engine_sees_its_gpus_and_no_others(
    words: str | None, accelerator: str, variables: dict[str, str]
) -> None:
    target = recipe(words, accelerator)
    assert gpus.visible_variables(target, gpus.select(target)) == variables


SELECTIONS = {
    "nothing": ((), GpuSelection("none")),
    "none": (("none",), GpuSelection("none")),
    "all": (("all",), GpuSelection("all")),
    "indices": (("0", "01"), GpuSelection("indices", ("0", "1"))),
    "ids": (("GPU-a", "MIG-b/1"), GpuSelection("ids", ("GPU-a", "MIG-b/1"))),
    "both": (("0", "GPU-a"), GpuSelection("ids", ("0", "GPU-a"))),
}


@pytest.mark.parametrize(("words", "selection"), SELECTIONS.values(), ids=SELECTIONS.keys())
def test_words_name_a_selection(words: tuple[str, ...], selection: GpuSelection) -> None:
    assert parse(words) == selection


@pytest.mark.parametrize(("words", "mixes", "indices", "words_shown"), [
    (("0", "GPU-a"), True, ("0",), ("0", "GPU-a")), (("0",), False, ("0",), ("0",)), (("GPU-a",), False, (), ("GPU-a",)),
    (("all",), False, (), ("all",)), (("none",), False, (), ()),
])  # fmt: skip
def test_a_selection_knows_its_spelling(
    words: tuple[str, ...], mixes: bool, indices: tuple[str, ...], words_shown: tuple[str, ...]
) -> None:
    selection = parse(words)
    assert (selection.mixes_spellings, selection.indices, selection.words) == (mixes, indices, words_shown)


@pytest.mark.parametrize("words", [("all", "0"), ("0", "none"), ("0", "00"), ("GPU",), ("-1",), ("",)])
def test_words_that_are_no_gpus_are_refused(words: tuple[str, ...]) -> None:
    with pytest.raises(ValueError, match=r"has|names"):
        parse(words)


def test_isolation_needs_indices() -> None:
    target = recipe("0", device_isolation=True)
    lines = gpus.device_settings(target, parse(("0",)))
    assert (lines[0], lines[-1], len(lines)) == ("DevicePolicy=closed", "DeviceAllow=/dev/nvidia0 rw", 6)
    assert gpus.device_settings(target, parse(())) == ["DevicePolicy=closed"]
    assert gpus.device_settings(recipe("0"), parse(("0",))) == []
    rocm = gpus.device_settings(recipe("1", "rocm", device_isolation=True), parse(("1",)))
    assert rocm == ["DevicePolicy=closed", "DeviceAllow=/dev/kfd rw", "DeviceAllow=/dev/dri/renderD129 rw"]
    for other in (GpuSelection(), parse(("all",)), parse(("GPU-a",))):
        with pytest.raises(UsageError, match="needs `gpus:` as indices"):
            gpus.device_settings(target, other)


def test_the_nodes_that_an_engine_opens_are_waited_for() -> None:
    common = ("/dev/nvidiactl", "/dev/nvidia-uvm")
    for words, nodes in (
        ("0,2", (*common, "/dev/nvidia0", "/dev/nvidia2")),
        ("all", common),
        ("GPU-a", common),
    ):
        assert gpus.device_nodes(recipe(words), parse(tuple(words.split(",")))) == nodes
    assert gpus.device_nodes(recipe("0", "rocm"), parse(("0",))) == ("/dev/kfd", "/dev/dri/renderD128")
    assert gpus.device_nodes(recipe("all", "rocm"), parse(("all",))) == ("/dev/kfd",)
    assert gpus.device_nodes(recipe("none"), parse(("none",)), has_card=True) == ()
    assert gpus.device_nodes(recipe(None), GpuSelection()) == ()
    assert gpus.device_nodes(recipe(None), GpuSelection(), has_card=True) == common


@pytest.mark.parametrize(("version", "sentences"), [
    (253, ["`service.RestartSteps` needs systemd 254, and this host has 253; remove it"]), (254, []), (257, []),
])  # fmt: skip
def test_a_setting_needs_a_systemd_that_has_it(version: int, sentences: list[str]) -> None:
    target = recipe(None, service={"RestartSteps": "3"})
    errors = service_settings.check(target, Installation(("/h",), systemd_version=version))
    assert [str(error) for error in errors] == sentences


REFUSED = {
    "a privileged condition": ({"ExecCondition": "-+/bin/true"}, "cannot have privileges beside an engine's environment"),
    "the helper as root": ({"PermissionsStartOnly": "yes"}, "it would run the helper as root; remove it"),
    "a signal that frees nothing": ({"FinalKillSignal": "SIGCONT"}, "a stop must free the GPUs; remove it"),
    "a stop without end": ({"TimeoutStopSec": "infinity"}, "cannot be endless"),
    "a signal that nobody ends well after": ({"KillSignal": "KILL"}, "`service.KillSignal` cannot be SIGKILL"),
    "no signal": ({"KillSignal": "SIGNOTHING"}, "`service.KillSignal` cannot be SIGNOTHING"),
    "words of the engine": ({"NotifyAccess": "all"}, "must count for nothing"),
    "a privileged second condition": ({"ExecCondition": "/bin/true ; +/bin/true"}, "cannot have privileges"),
    "a stop of zero seconds": ({"TimeoutStopSec": "0s"}, "cannot be endless"),
    "an endless abort": ({"TimeoutAbortSec": "infinity"}, "a stop must free the GPUs"),
    "another end": ({"ExitType": "cgroup"}, "the helper watches the main process"),
}  # fmt: skip


@pytest.mark.parametrize(("service", "sentence"), REFUSED.values(), ids=REFUSED.keys())
def test_a_setting_that_breaks_what_a_unit_promises_is_refused(
    service: dict[str, str], sentence: str
) -> None:
    errors = service_settings.check(recipe(None, service=service), Installation(("/h",), systemd_version=257))
    assert [sentence in str(error) for error in errors] == [True]


@pytest.mark.parametrize(
    ("value", "name"), [("SIGINT", "SIGINT"), ("int", "SIGINT"), ("2", "SIGINT"), (None, None)]
)
def test_a_stop_signal_is_known_by_its_name(value: str | None, name: str | None) -> None:
    assert service_settings.kill_signal(recipe(None, service={"KillSignal": value} if value else {})) == name
    lines = unit(service={"KillSignal": value} if value else {})
    assert (f"    {name} \\" in lines) == (name is not None)


USERS = {
    "small": ("qwen3-8b", "model-qwen3-8b"),
    "25 characters": ("a" * 25, "model-" + "a" * 25),
    "longer": ("a" * 26, "model-" + "a" * 16 + "-" + hashlib.sha256(b"a" * 26).hexdigest()[:8]),
    "a dot": ("qwen.3", "model-qwen-3-" + hashlib.sha256(b"qwen.3").hexdigest()[:8]),
    "a large letter": ("Qwen", "model-qwen-" + hashlib.sha256(b"Qwen").hexdigest()[:8]),
    "the group of shared data": ("data", "model-data-" + hashlib.sha256(b"data").hexdigest()[:8]),
    "like a digest": ("a-01234567", "model-a-01234567-" + hashlib.sha256(b"a-01234567").hexdigest()[:8]),
}  # fmt: skip


@pytest.mark.parametrize(("name", "user"), USERS.values(), ids=USERS.keys())
def test_each_model_has_a_user_of_its_own(name: str, user: str) -> None:
    assert identity.own_user(name) == user
    assert len(user) <= 31


def test_a_user_that_is_named_is_used_and_its_shared_memory_left() -> None:
    own, shared, named = unit(), unit(host={"user": "llm"}), unit(host={"user": "llm"}, user_name="ann")
    assert [line for lines in (own, shared, named) for line in lines if line.startswith("User=")] == [
        "User=model-a", "User=llm", "User=ann",
    ]  # fmt: skip
    assert ["RemoveIPC=yes" in lines for lines in (own, shared, named)] == [True, False, False]
