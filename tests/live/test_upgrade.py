"""Units that an earlier release wrote (commit 6c61e55): they run after an upgrade, and `apply` moves them."""

import os
import re
import signal
import subprocess
import time
from pathlib import Path

import packaging
import pytest

from live.common import (
    ENGINE,
    IN_TMP,
    ROOT,
    ask,
    journal,
    main_pid,
    recipe,
    recipectl,
    script,
    show,
    systemctl,
    until,
)

pytestmark = pytest.mark.systemd
UNITS = Path("/etc/systemd/system")


@pytest.fixture
def earlier() -> dict[str, str]:
    """A host whose units the earlier release wrote, with the recipes that it wrote them from."""
    subprocess.run(["useradd", "--system", "recipectl"], check=False, capture_output=True)
    recipe("plain", port=18201, engine_version=">=2026", python_version=">=3.11",
           watch={"every": "1s", "failures": 2, "timeout": "1s"})  # fmt: skip
    recipectl("lock", "plain")
    recipe("first", port=18202, gpus=["0"], gpu_sharing="ordered")
    recipe("second", port=18203, gpus=["0"], gpu_sharing="ordered")
    recipe("lazy", port=18204, gpus=["1"], on_demand={"idle": "1min"})
    recipe("rival", port=18205, gpus=["1"])
    text = (ROOT / "tests/live/earlier_units.txt").read_text()
    places = {
        "@ROOT@": str(ROOT),
        "PrivateTmp=yes": f"PrivateTmp={'no' if IN_TMP else 'yes'}",
        "@LIBRARIES@": str(Path(packaging.__file__).parents[1]),
        "@PYTHON@": next(ENGINE.glob("lib/python3*")).name,
        ".yaml": ".json",
    }
    for place, value in places.items():
        text = text.replace(place, value)
    parts = re.split(r"^# ── (\S+)\n", text, flags=re.M)[1:]
    units = dict(zip(parts[::2], parts[1::2], strict=True))
    for name, unit in units.items():
        (UNITS / name).write_text(unit)
    systemctl("daemon-reload")
    return units


def test_units_of_the_earlier_release_start_restart_and_stop(earlier: dict[str, str]) -> None:
    for name in ("plain", "first", "second"):
        done = subprocess.run(
            ["systemctl", "start", f"model-{name}.service"], capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, recipectl("logs", name, "--no-pager").stdout
    assert subprocess.run(["systemctl", "restart", "model-first.service"], check=False).returncode == 0
    assert recipectl("restart", "second").returncode == 0
    assert show("plain", "User") == "recipectl"
    os.kill(main_pid("plain"), signal.SIGSTOP)  # its watch finds it
    until("plain", "NRestarts", "1")
    until("plain", "ActiveState", "active")
    for name in ("plain", "first", "second"):
        systemctl("stop", f"model-{name}.service")
        assert (show(name, "ActiveState"), show(name, "Result")) == ("inactive", "success")


def test_on_demand_units_of_the_earlier_release_answer(earlier: dict[str, str]) -> None:
    systemctl("start", "model-rival.service", "model-lazy.socket")
    assert ask(18204)
    assert (show("lazy", "ActiveState"), show("rival", "ActiveState")) == ("active", "inactive")
    assert recipectl("start", "rival").returncode == 0
    assert recipectl("start", "lazy").returncode == 0
    # The proxy of that release starts its model even when a stop ends its wait for idle rivals.
    until("lazy-proxy", "ActiveState", "active")
    assert recipectl("stop", "lazy").returncode == 0


def test_a_load_of_the_earlier_release_that_swallows_sigterm_is_stopped(earlier: dict[str, str]) -> None:
    ignores = "import signal, time\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\ntime.sleep(1000)"
    engine = script(Path("/opt/ignores"), ignores)
    unit = earlier["model-first.service"].replace(f"{ENGINE}/bin/llama-server", engine)
    (UNITS / "model-first.service").write_text(unit)
    systemctl("daemon-reload")
    systemctl("start", "--no-block", "model-first.service")
    until("first", "SubState", "start-post")
    time.sleep(0.5)
    systemctl("stop", "model-first.service")
    assert "timed out. Killing" not in journal("model-first.service")
    assert show("first", "ActiveState") == "inactive"


def test_an_apply_moves_a_host_of_the_earlier_release(earlier: dict[str, str]) -> None:
    systemctl("start", "model-plain.service", "model-lazy.socket", "model-plain-watch.timer")
    cache = Path("/var/cache/models/plain/huggingface")
    cache.mkdir(exist_ok=True)
    (cache / "weights").write_text("downloaded")
    applied = recipectl("apply")
    assert applied.returncode == 0, applied.stderr
    assert "restarting model-plain.service" in applied.stdout
    assert "removed model-plain-watch.timer" in applied.stdout
    until("plain", "ActiveState", "active")
    assert (show("plain", "User"), recipectl("wait", "plain").returncode) == ("model-plain", 0)
    assert (cache / "weights").read_text() == "downloaded"
    assert (cache / "weights").owner() == "model-plain"
    end = time.monotonic() + 20
    while systemctl("is-active", "model-plain-watch.service") != "active" and time.monotonic() < end:
        time.sleep(0.1)
    assert systemctl("is-active", "model-plain-watch.service") == "active"
    assert ask(18204)
    assert recipectl("apply", "--check").returncode == 0
