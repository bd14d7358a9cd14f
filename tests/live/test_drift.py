"""Each way in which what runs can differ from its recipe, with real venvs and a small engine in vLLM's place."""

import json
import os
import shutil
import subprocess
import sys
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from live.common import RECIPES, main_pid, recipectl, systemctl

pytestmark = pytest.mark.systemd
VENV, OTHER = Path("/opt/drift"), Path("/opt/drift-other")
HOST = Path("/etc/recipectl/host.yaml")
ENGINE = """
import http.server, json, sys
print("an earlier run", flush=True)
from importlib.metadata import version

RUNS = version("vllm")  # as it was when the process started
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200); self.end_headers()
        self.wfile.write(json.dumps({"version": RUNS}).encode())
    def log_message(self, *_): pass

def main():
    port = int(sys.argv[sys.argv.index("--port") + 1])
    http.server.HTTPServer(("127.0.0.1", port), Handler).serve_forever()
"""


def wheel(version: str) -> Path:
    path = Path(f"/opt/wheels/vllm-{version}-py3-none-any.whl")
    path.parent.mkdir(exist_ok=True)
    info = f"vllm-{version}.dist-info"
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("vllm/__init__.py", ENGINE)
        file.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: vllm\nVersion: {version}\n")
        file.writestr(
            f"{info}/WHEEL", "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        file.writestr(f"{info}/entry_points.txt", "[console_scripts]\nvllm = vllm:main\n")
        file.writestr(f"{info}/RECORD", "")
    return path


def install(venv: Path, version: str) -> None:
    pip = [sys.executable, "-m", "pip", "--python", str(venv / "bin/python"), "-q", "install", "--no-index"]
    subprocess.run([*pip, "--no-warn-script-location", "--force-reinstall", str(wheel(version))], check=True)


@pytest.fixture(autouse=True)
def venvs() -> Iterator[None]:
    for folder, version in ((VENV, "1.0"), (OTHER, "2.0")):
        subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True)
        install(folder, version)
    yield
    for folder in (VENV, OTHER):
        shutil.rmtree(folder)


def write(venv: Path = VENV, **fields: object) -> None:
    RECIPES.mkdir(parents=True, exist_ok=True)
    defaults = {"python_path": str(venv / "bin/python"), "model_path": "org/m", "port": 18300}
    (RECIPES / "a.json").write_text(json.dumps(defaults | fields))


def start(**fields: object) -> None:
    write(**fields)
    assert recipectl("apply").returncode == 0
    started = recipectl("start", "a")
    assert started.returncode == 0, started.stderr


def row(status: int = 3) -> dict[str, Any]:
    result = recipectl("versions", "a", "--json")
    assert result.returncode == status, result.stdout + result.stderr
    (entry,) = json.loads(result.stdout)
    return dict(entry)


def causes(entry: dict[str, Any]) -> list[tuple[str, str]]:
    return [(difference["where"], difference["cause"]) for difference in entry["differences"]]


def test_where_nothing_differs_all_agree() -> None:
    start()
    entry = row(status=0)
    assert [entry[key] for key in ("recipe", "unit", "loaded", "running", "answers")] == [
        "1.0",
        "1.0",
        "same",
        "same",
        "1.0",
    ]
    assert entry["argv"][-4:] == ["serve", "org/m", "--port", "18300"]
    assert recipectl("versions").stdout.splitlines()[1].split() == ["a", "1.0", "1.0", "same", "same", "1.0"]


def test_an_edit_that_was_not_applied() -> None:
    start()
    write(max_model_len=5)
    entry = row()
    assert causes(entry) == [("unit", "an edit was not applied")]
    assert entry["differences"][0]["remedy"] == "recipectl apply a"


def test_an_apply_without_a_restart() -> None:
    start()
    write(max_model_len=5)
    recipectl("apply", "--no-restart")
    entry = row()
    assert causes(entry) == [("running", "applied without a restart")]
    assert "became --max-model-len 5" in entry["differences"][0]["what"]
    assert recipectl("restart", "a").returncode == 0
    row(status=0)


def test_a_venv_upgraded_under_a_running_engine() -> None:
    start()
    install(VENV, "2.0")
    entry = row()
    assert [entry[key] for key in ("recipe", "unit", "answers")] == ["2.0", "1.0", "1.0"]
    assert ("answers", "the venv was changed under a running engine") in causes(entry)
    assert ("unit", "the venv was changed after apply") in causes(entry)
    report = recipectl("versions", "a").stdout
    assert (
        "the engine answers 1.0, and 2.0 is installed (the venv was changed under a running engine); recipectl restart a"
        in report
    )


def test_another_venv_in_the_recipe() -> None:
    start()
    write(OTHER)
    recipectl("apply", "--no-restart")
    entry = row()
    assert (entry["recipe"], entry["unit"], entry["answers"]) == ("2.0", "2.0", "1.0")
    assert ("running", "applied without a restart") in causes(entry)


def test_a_drop_in_that_overrides() -> None:
    start()
    folder = Path("/etc/systemd/system/model-a.service.d")
    folder.mkdir()
    (folder / "10-site.conf").write_text("[Service]\nEnvironment=SITE=1\n")
    entry = row()
    assert ("loaded", "files were changed without a reload") in causes(entry)
    systemctl("daemon-reload")
    entry = row()
    assert ("drop-in", f"{folder}/10-site.conf") in causes(entry)
    assert ("running", "applied without a restart") in causes(entry)
    shutil.rmtree(folder)
    systemctl("daemon-reload")
    row(status=0)


def test_a_unit_that_was_edited_by_hand() -> None:
    start()
    unit = Path("/etc/systemd/system/model-a.service")
    unit.write_text(unit.read_text().replace("--port", "--trust-remote-code \\\n    --port"))
    entry = row()
    result = causes(entry)
    assert ("unit", "somebody edited it by hand") in result
    assert "systemctl edit" in entry["differences"][0]["remedy"]
    assert "unit was edited" in recipectl("list").stdout
    assert "would write model-a.service: was edited by hand" in recipectl("diff").stdout
    assert ("loaded", "files were changed without a reload") in result


def test_somebody_who_runs_it_by_hand() -> None:
    write()
    recipectl("apply")
    scope = ["systemd-run", "-q", "--scope", "--unit=by-hand"]  # as a login session would be
    by_hand = subprocess.Popen([*scope, str(VENV / "bin/vllm"), "serve", "org/m", "--port", "18300"])
    try:
        end = time.monotonic() + 120
        while "port" not in [where for where, _ in causes(row_of())] and time.monotonic() < end:
            time.sleep(0.1)
        entry = row()
        assert causes(entry) == [("port", "somebody started it by hand")]
        assert f"port 18300 is answered by process {by_hand.pid}" in entry["differences"][0]["what"]
        doctor = recipectl("doctor")
        assert doctor.returncode == 3
        assert (
            f"process {by_hand.pid} in by-hand.scope is an engine that no service supervises" in doctor.stdout
        )
    finally:
        by_hand.kill()
        by_hand.wait()


def test_an_engine_in_a_service_of_its_own_is_no_orphan() -> None:
    words = [
        "systemd-run",
        "-q",
        "--unit=theirs",
        str(VENV / "bin/vllm"),
        "serve",
        "org/m",
        "--port",
        "18301",
    ]
    subprocess.run(words, check=True)
    result = doctor()
    systemctl("stop", "theirs")
    assert result["orphans"] == []


def doctor() -> dict[str, list[str]]:
    """Check -> the sentences of its problems, each with its place."""
    rows = json.loads(recipectl("doctor", "--json").stdout)
    return {row["check"]: [sentence(problem) for problem in row["problems"]] for row in rows}


def sentence(problem: dict[str, Any]) -> str:
    place = ":".join(str(problem[name]) for name in ("file", "line", "column") if problem[name])
    return f"{place}: {problem['sentence']}" if place else str(problem["sentence"])


def row_of() -> dict[str, Any]:
    return dict(json.loads(recipectl("versions", "a", "--json").stdout)[0])


def test_a_pinned_engine_that_pip_upgraded_does_not_start() -> None:
    start(engine_version="==1.*", python_version=f"=={sys.version_info[0]}.{sys.version_info[1]}.*")
    install(VENV, "2.0")
    failed = recipectl("restart", "a")
    assert failed.returncode == 1
    assert "the recipe pins vllm ==1.*" in failed.stderr
    assert (
        "now has 2.0 (the unit was compiled for 1.0); install the pinned version or correct `engine_version:`"
        in failed.stderr
    )


def test_a_venv_made_anew_with_another_python_does_not_start() -> None:
    start(python_version=f"=={sys.version_info[0]}.{sys.version_info[1]}.*")
    config = VENV / "pyvenv.cfg"
    config.write_text(
        "".join(
            "version = 3.9.1\n" if line.startswith("version") else line
            for line in config.read_text().splitlines(True)
        )
    )
    python = (VENV / "bin/python").resolve()
    for name in ("python", "python3"):
        (VENV / "bin" / name).unlink()
    (VENV / "bin/python3.9").write_bytes(python.read_bytes())
    (VENV / "bin/python3.9").chmod(0o755)
    (VENV / "bin/python").symlink_to("python3.9")
    failed = recipectl("restart", "a")
    assert failed.returncode == 1
    assert (
        f"the recipe pins Python =={sys.version_info[0]}.{sys.version_info[1]}.*, and {VENV}/bin/python is now 3.9.1"
        in failed.stderr
    )


def test_a_lock_notices_what_no_version_tells() -> None:
    start()
    assert recipectl("lock", "a").stdout == f"wrote {RECIPES}/a.lock\n"
    assert recipectl("lock", "a").stdout == ""
    (record,) = VENV.glob("lib/python3*/site-packages/vllm-1.0.dist-info/RECORD")
    record.write_text(record.read_text() + "vllm/patched.py,,\n")
    warned = recipectl("apply")
    assert warned.returncode == 0
    assert (
        f"the runtime differs from {RECIPES}/a.lock: vllm 1.0 was installed again with other files"
        in warned.stderr
    )
    HOST.write_text("drift: refuse\n")
    refused = recipectl("apply")
    assert refused.returncode == 2
    assert "put it back, or accept it with `recipectl lock --update a`" in refused.stderr
    updated = recipectl("lock", "a", "--update")
    assert updated.stdout == f"a: vllm 1.0 was installed again with other files\nwrote {RECIPES}/a.lock\n"
    assert recipectl("apply").returncode == 0


def test_a_unit_with_a_lock_refuses_a_changed_runtime_by_itself() -> None:
    HOST.parent.mkdir(parents=True, exist_ok=True)
    HOST.write_text("drift: refuse\n")
    write()
    recipectl("lock", "a")
    assert recipectl("apply").returncode == 0
    assert recipectl("start", "a").returncode == 0
    install(VENV, "2.0")
    failed = recipectl("restart", "a")
    assert failed.returncode == 1
    difference = f"the runtime differs from {RECIPES}/a.lock: vllm was 1.0 and is 2.0"
    assert difference in failed.stderr
    (entry,) = json.loads(recipectl("status", "a", "--json").stdout)
    assert (entry["log"], entry["next"]) == ([difference], "recipectl versions a")


def test_a_healthy_host_satisfies_the_doctor() -> None:
    start(host="127.0.0.1")  # without a host, everybody could use it
    result = recipectl("doctor", "--json")
    assert {entry["check"]: entry["problems"] for entry in json.loads(result.stdout)} == {
        "recipes": [], "secrets": [], "permissions": [], "gpus": [], "systemd": [], "units": [], "drift": [], "ports": [], "orphans": [],
        "gateway": [], "identities": [], "lingering": [],
    }  # fmt: skip
    assert result.returncode == 0


def test_the_doctor_names_what_is_wrong() -> None:
    start(env_vars={"MY_TOKEN": "x"}, autostart=True)
    (RECIPES / "b.json").write_text("{")
    (RECIPES / "a.json").chmod(0o666)
    os.kill(main_pid("a"), 9)
    result = doctor()
    missing = "b.json:2:1: a value is missing; add it, or close the `[` or `{` before"
    assert any(missing in text for text in result["recipes"])
    assert f"{RECIPES}/a.json: anyone may write it" in result["permissions"][0]
    assert any(f"everybody can change {RECIPES}/a.json (mode 0666)" in text for text in result["recipes"])


def dropped_in(text: str, folder: str = "/etc/systemd/system/model-a.service.d") -> Path:
    Path(folder).mkdir(parents=True, exist_ok=True)
    path = Path(folder, "10-site.conf")
    path.write_text(text)
    systemctl("daemon-reload")
    return path


@pytest.mark.parametrize(
    "where", ["/etc/systemd/system/model-a.service.d", "/run/systemd/system/model-.service.d"]
)
def test_a_drop_in_that_brings_variables_from_a_file(where: str) -> None:
    Path("/etc/site.env").write_text("VLLM_ATTENTION_BACKEND=X\n")
    start()
    path = dropped_in("[Service]\nEnvironmentFile=/etc/site.env\nUser=root\nNice=3\n", where)
    result = row(status=0)["differences"]  # told, and no drift: the header of the unit recommends it
    assert [(entry["where"], entry["what"], entry["cause"]) for entry in result] == [
        ("drop-in", "a drop-in sets EnvironmentFile=, User=", str(path))
    ]
    assert result[0]["remedy"].startswith("it stays in force; `systemctl revert model-a.service`")
    recipectl("restart", "a")
    entry = row()
    assert "has variables that no unit gives it (VLLM_ATTENTION_BACKEND)" in entry["differences"][0]["what"]
    shutil.rmtree(where)
    systemctl("daemon-reload")


def test_variables_that_the_manager_gives_everybody() -> None:
    systemctl("set-environment", "VLLM_USE_V1=0")
    start()
    entry = row()
    systemctl("unset-environment", "VLLM_USE_V1")
    assert "has variables that no unit gives it (VLLM_USE_V1)" in entry["differences"][0]["what"]
    assert (entry["running"], "systemctl set-environment" in entry["differences"][0]["cause"]) == (
        "differs",
        True,
    )


def test_torch_that_was_upgraded_under_a_locked_engine() -> None:
    (packages,) = VENV.glob("lib/python3*/site-packages")
    torch = packages / "torch-2.0.dist-info"
    torch.mkdir()
    (torch / "RECORD").write_text("torch/x,,\n")
    write()
    recipectl("lock", "a")
    start()
    time.sleep(2.1)
    torch.rename(packages / "torch-2.1.dist-info")
    result = causes(row())
    assert ("runtime", "the runtime was changed since it was locked") in result
    assert ("running", "the venv was changed under a running engine") in result
    HOST.write_text("drift: refuse\n")
    result = recipectl("versions", "a", "--json")
    assert "the runtime was changed since it was locked" in result.stdout


def test_an_engine_that_hangs() -> None:
    start()
    os.kill(main_pid("a"), 19)
    entry = row()
    os.kill(main_pid("a"), 18)
    assert causes(entry) == [("answers", "it hangs, or is very busy")]


def test_the_port_behind_an_on_demand_model() -> None:
    write(on_demand={})
    recipectl("apply")
    by_hand = subprocess.Popen([str(VENV / "bin/vllm"), "serve", "org/m", "--port", "8300"])
    end = time.monotonic() + 120
    while "port" not in [where for where, _ in causes(row_of())] and time.monotonic() < end:
        time.sleep(0.1)
    result = causes(row())
    by_hand.kill()
    by_hand.wait()
    assert result == [("port", "somebody started it by hand")]


def test_who_may_not_look_says_so() -> None:
    start()
    nobody = ["setpriv", "--reuid=65534", "--clear-groups", sys.executable, "-m", "recipectl"]
    outcome = subprocess.run([*nobody, "versions", "a"], capture_output=True, text=True, check=False)
    assert "cannot be read; run it as root to compare it" in outcome.stderr
    assert outcome.stdout.splitlines()[1].split()[4] == "unknown"


def test_a_host_file_that_is_wrong_leaves_the_doctor_its_other_checks() -> None:
    write()
    HOST.write_text("drift: maybe\n")
    result = doctor()
    assert f"{HOST}:1:8: `drift` is `maybe`; give one of 'warn' or 'refuse'" in result["recipes"][0]
    assert result["systemd"] == []


def test_rivals_with_one_port_are_not_taken_for_strangers() -> None:
    write(gpus=["0"])
    (RECIPES / "a.json").rename(RECIPES / "b.json")
    start(gpus=["0"])
    result = json.loads(recipectl("versions", "--json").stdout)
    assert [entry["differences"] for entry in result] == [[], []]


def test_an_interpreter_that_was_replaced_under_a_running_engine() -> None:
    start()
    python = VENV / "bin/python"
    real = python.resolve()
    copy = VENV / "bin/python3.copy"
    shutil.copy(real, copy)
    python.unlink()
    python.symlink_to(copy)
    entry = row()
    assert ("running", "its interpreter was replaced") in causes(entry)
