"""Units as text: their names, their settings, and what they say about themselves."""

import pytest

from recipectl.systemd.unitfile import (
    InstalledUnit,
    Unit,
    UnitNames,
    is_companion,
    is_queue,
    parse_settings,
    recipe_of,
    sealed,
    shared_units,
)

TEXT = """# comment
[Unit]
Description=a
SourcePath=/r/100%%.yaml
[Service]
ExecStart=:/bin/x \\
    one \\
# within
    two
 Environment = A=1
; comment
nothing
Environment=B=\\
[odd=1
odd]

[X-Recipectl]
Recipe=a
Backend=vllm
EngineVersion=0.32.0
Endpoint=http://127.0.0.1:1
Model=50%%
Gpus=0,1
Digest=0123456789ab
"""


def test_settings_are_read_with_their_sections() -> None:
    assert [tuple(setting) for setting in parse_settings(TEXT)][:6] == [
        ("Unit", "Description", "a"),
        ("Unit", "SourcePath", "/r/100%%.yaml"),
        ("Service", "ExecStart", ":/bin/x      one      two"),
        ("Service", "Environment", "A=1"),
        ("Service", "Environment", "B= [odd=1"),
        ("X-Recipectl", "Recipe", "a"),
    ]


def test_an_installed_unit_tells_its_recipe() -> None:
    unit = InstalledUnit("model-a.service", TEXT)
    assert (unit.recipe, unit.backend, unit.engine_version) == ("a", "vllm", "0.32.0")
    assert (unit.endpoint, unit.model, unit.gpus) == ("http://127.0.0.1:1", "50%", "0,1")
    assert (unit.digest, unit.source) == ("0123456789ab", "/r/100%.yaml")


@pytest.mark.parametrize("line", ["", "Endpoint=none\n"])
def test_a_model_without_requests_has_no_endpoint(line: str) -> None:
    unit = InstalledUnit("model-a.service", f"[Unit]\n\n[X-Recipectl]\n{line}")
    assert (unit.endpoint, unit.recipe, unit.source, unit.digest) == (None, "", "", None)


def test_an_edit_by_hand_is_recognised() -> None:
    name, text = sealed(Unit("model-a.service", "[Service]\nNice=1\n"))
    assert text.startswith("[Service]\nNice=1\nText=")
    assert not InstalledUnit(name, text).edited_by_hand
    assert InstalledUnit(name, text.replace("Nice=1", "Nice=2")).edited_by_hand
    assert InstalledUnit(name, f"{text}\n").edited_by_hand
    assert not InstalledUnit(name, "[Service]\n").edited_by_hand


def test_a_unit_belongs_to_its_recipe() -> None:
    names = UnitNames("a.b-c")
    assert names.every == (
        "model-a.b-c.service", "model-a.b-c.socket", "model-a.b-c-proxy.service", "model-a.b-c-keep.service",
        "model-a.b-c-queue.socket", "model-a.b-c-queue-open.service", "model-a.b-c-queue.service",
        "model-a.b-c-reachable.service", "model-a.b-c-watch.timer", "model-a.b-c-watch.service", "model-a.b-c-hung.service",
            "model-a.b-c-canaries.service", "model-a.b-c-tie.service", "model-a.b-c-lost.service",
    )  # fmt: skip
    assert recipe_of(names.service) == "a.b-c"


@pytest.mark.parametrize(("user", "target"), [(True, "default.target"), (False, "multi-user.target")])
def test_models_start_with_the_managers_own_target(user: bool, target: str) -> None:
    units = shared_units(user=user)
    assert [unit.name for unit in units] == ["models.target", "models.slice"]
    assert f"WantedBy={target}\n" in units[0].text


def test_the_units_of_a_queue_are_known_by_their_names() -> None:
    assert [is_queue(unit) for unit in (UnitNames("a").queue, UnitNames("a").queue_socket)] == [True, True]
    assert [is_queue(unit) for unit in ("model-queue.service", "model-a-queue-open.service")] == [
        False,
        False,
    ]
    assert [is_companion(unit) for unit in ("model-a-queue.service", "model-queue.service")] == [True, False]
