"""What people have, as in tests/cases: each file becomes the right recipe, or what it lacks is named."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

CASES = Path(__file__).with_name("cases")
AGENT = Path(__file__).parents[1] / "agent"
Result = subprocess.CompletedProcess[str]


def imported(verb: str, path: Path) -> Result:
    command = [sys.executable, "-m", "recipectl", "import", verb, str(path)]
    return subprocess.run(
        command, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": str(AGENT)}
    )


def recipes(result: Result) -> list[dict[str, Any]]:
    """The recipes that were printed; several stand below lines of their own."""
    return [recipe for part in result.stdout.split("# ── ") if (recipe := yaml.safe_load(f"# {part}"))]


def has(**fields: Any) -> Callable[[Result], bool]:
    """One recipe, with these fields; a value of None is a field that it lacks."""

    def check(result: Result) -> bool:
        (recipe,) = recipes(result)
        return all(recipe.get(key) == value for key, value in fields.items())

    return check


def says(*texts: str) -> Callable[[Result], bool]:
    return lambda result: all(text in result.stderr for text in texts)


def refuses(*texts: str) -> Callable[[Result], bool]:
    return lambda result: result.returncode == 2 and says(*texts)(result)


def _studio(result: Result) -> bool:
    vllm, llama, docker = recipes(result)
    flags = {key for recipe in (vllm, llama, docker) for key in recipe.get("extra_args", {})}
    return (
        vllm["python_path"] == "/opt/venvs/a/bin/python"
        and (llama["binary"], llama["backend"]) == ("/opt/llama/llama-server", "llamacpp")
        and "example/vllm:1" in result.stderr
        and not flags & {"runtime", "crash_loop", "vision", "status"}
    )


def _swap(result: Result) -> bool:
    return len(recipes(result)) == 2 and not any("conflicts" in recipe for recipe in recipes(result))


AS_IT_RUNS = "recipectl import process PID"
RIGHT: dict[str, tuple[str, tuple[Callable[[Result], bool], ...]]] = {
    "envfile-overrides.service": ("unit", (has(model_path="${MODEL}"), says("the variables in /etc/engine.env"))),
    "env-from-substitution.sh": ("command", (
        has(env_vars={"CUDA_VISIBLE_DEVICES": "${M_CUDA_VISIBLE_DEVICES}", "VLLM_HOST_IP": "${M_VLLM_HOST_IP}"}),
        says("`CUDA_VISIBLE_DEVICES` is set from a substitution", "`VLLM_HOST_IP` is set from a substitution"))),
    "home-cache-offline.service": ("unit", (says("the Hugging Face cache of user someone", "HF_HOME"),)),
    "studio-runtime.json": ("vllm-studio", (_studio,)),
    "swap-persistent.yaml": ("llama-swap", (_swap,)),
    "download-dir.service": ("unit", (has(extra_args={"download-dir": "/srv/weights"}),)),
    "wrapper.service": ("unit", (refuses("recipectl import command /srv/model/start.sh"),)),
    "wrapper-start.sh": ("command", (has(model_path=f"{CASES}/weights", venv_path=f"{CASES}/.venv", port=8000), says("line 4: `${PORT}` has its default value here, `8000`"))),
    "swap-nothing-imported.yaml": ("llama-swap", (has(model_path="org/a-GGUF:Q4_K_M", backend="llamacpp"),)),
    "conda.sh": ("command", (has(python_path="${HOME}/miniconda3/envs/serving/bin/python"),)),
    "script-folder-a.sh": ("command", (has(python_path=f"{CASES}/venv/bin/python", model_path=f"{CASES}/weights"),)),
    "script-folder-b.sh": ("command", (has(python_path=f"{CASES}/venv/bin/python", model_path=f"{CASES}/weights"),)),
    "no-user.service": ("unit", (
        says("it ran as root; it will run as a user of its own", "Restart=on-failure"),
        has(user=None, service={"RestartSec": "15", "StartLimitIntervalSec": "300", "StartLimitBurst": "3",
                                "TimeoutStopSec": "30", "SyslogIdentifier": "engine-a"}))),
    "rocm.sh": ("command", (has(accelerator="rocm", gpus=[0]),)),
    "docker-restart.sh": ("command", (has(autostart=True), says("the container published no port"))),
    "loop.sh": ("command", (refuses("line 2 of the command: it is in a loop (line 1)", AS_IT_RUNS),)),
    "systemd-run.sh": ("command", (has(service={"MemoryMax": "90%"}),)),
    "quadlet.container": ("quadlet", (
        has(host="127.0.0.1", port=8001, max_model_len=8192, autostart=True, env_vars={"HF_HOME": "/srv/hub"},
            secrets={"HF_TOKEN": "/etc/recipectl/secrets/HF_TOKEN"}),
        says("which podman keeps as `hub`"))),
    "compose.yml": ("compose", (
        has(port=8001, gpus=[0], autostart=True, max_model_len=8192, env_vars={"HF_HUB_OFFLINE": "1", "HF_HOME": "/srv/hub"}),)),
}  # fmt: skip


def test_each_case_is_here() -> None:
    assert {path.name for path in CASES.iterdir()} == {*RIGHT}


@pytest.mark.parametrize("name", RIGHT)
def test_a_case_is_imported_right(name: str) -> None:
    verb, checks = RIGHT[name]
    result = imported(verb, CASES / name)
    assert [check(result) for check in checks] == [True] * len(checks), result.stderr


def test_a_units_file_of_variables_counts_where_it_is(tmp_path: Path) -> None:
    text = (CASES / "envfile-overrides.service").read_text()
    (tmp_path / "engine.env").write_text("MODEL=/models/big\n")
    unit = tmp_path / "a.service"
    unit.write_text(text.replace("/etc/engine.env", str(tmp_path / "engine.env")))
    assert has(model_path="/models/big")(imported("unit", unit))


def test_a_units_own_script_has_the_units_variables(tmp_path: Path) -> None:
    shutil.copy(CASES / "wrapper-start.sh", tmp_path / "start.sh")
    unit = tmp_path / "a.service"
    unit.write_text(
        (CASES / "wrapper.service").read_text().replace("/srv/model/start.sh", f"{tmp_path}/start.sh")
    )
    result = imported("unit", unit)
    assert has(port=8001, user="someone", venv_path=f"{tmp_path}/.venv", ready={"timeout_sec": 1800})(
        result
    ), result.stderr
