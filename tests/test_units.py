"""Settings of units that depend on the host: systemd's version, the manager, the level of the sandbox."""

from typing import Any

import pytest

from recipectl.compiler import gpus, service_settings, units
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
    version: int = 252, *, user: bool = False, host: dict[str, Any] | None = None, **fields: Any
) -> list[str]:
    """The lines of the service of a recipe."""
    recipe = Recipe.model_validate({"name": "a", "model_path": "org/m"} | fields)
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
])  # fmt: skip
def test_on_failure_runs_once_where_systemd_would_run_it_often(
    version: int, host: dict[str, str], direct: bool
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


@pytest.mark.parametrize(("variables", "lines"), [
    ({"HF_HOME": "/srv/hf"}, ["ReadWritePaths=-/srv/hf"]), ({"HF_HOME": "relative"}, []), ({"OTHER": "/srv"}, []),
])  # fmt: skip
def test_a_moved_folder_can_be_written(variables: dict[str, str], lines: list[str]) -> None:
    assert [line for line in unit(env_vars=variables) if line.startswith("ReadWrite")] == lines


@pytest.mark.parametrize(("path", "tmp", "home"), [
    ("/tmp/m", "no", "yes"), ("/home/x/m", "yes", "read-only"), ("/root/m", "yes", "read-only"), ("/srv/m", "yes", "yes"),
])  # fmt: skip
def test_what_a_model_needs_stays_visible(path: str, tmp: str, home: str) -> None:
    lines = unit(model_path=path)
    assert (f"PrivateTmp={tmp}" in lines, f"ProtectHome={home}" in lines) == (True, True)


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
