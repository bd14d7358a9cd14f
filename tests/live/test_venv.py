"""Runtimes as root makes them for models: who owns them, what is trusted, a full disk, and what uses them."""

import os
import random
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from wheels import wheel

from live.common import recipe, recipectl, remove_all

pytestmark = pytest.mark.systemd
WHEELS = Path("/opt/wheels-of-tests")
SERVER = """
import http.server, sys
class Handler(http.server.BaseHTTPRequestHandler):
    def log_message(self, *_): pass
    def do_GET(self):
        self.send_response(200); self.send_header("Content-Length", "2"); self.end_headers(); self.wfile.write(b"{}")
port = int(sys.argv[sys.argv.index("--port") + 1])
http.server.ThreadingHTTPServer(("127.0.0.1", port), Handler).serve_forever()
"""


@pytest.fixture(autouse=True)
def wheels(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A folder of wheels, which is all that uv knows: no network is here."""
    WHEELS.mkdir()
    WHEELS.chmod(0o755)
    package = {"sglang/__init__.py": "", "sglang/launch_server.py": SERVER}
    wheel(WHEELS, "sglang", "0.1.0", package)
    large = random.Random(1).randbytes(40_000_000)
    wheel(WHEELS, "sglang", "0.2.0", package | {"sglang/kernel.so": large})
    for name, value in {"UV_FIND_LINKS": str(WHEELS), "UV_NO_INDEX": "1", "UV_OFFLINE": "1"}.items():
        monkeypatch.setenv(name, value)
    yield
    remove_all()
    shutil.rmtree(WHEELS)
    shutil.rmtree("/opt/venvs", ignore_errors=True)


def test_a_runtime_is_roots_and_serves_and_is_not_removed_from_under_its_model() -> None:
    done = recipectl("venv", "create", "sglang==0.1.0")
    venv = Path("/opt/venvs/sglang-0.1.0")
    assert (done.returncode, done.stdout) == (0, f"{venv}\n"), done.stderr
    owners = {
        (path.lstat().st_uid, path.lstat().st_mode & 0o022)
        for path in venv.rglob("*")
        if not path.is_symlink()
    }
    assert owners == {(0, 0)}
    python = f"{venv}/bin/python"
    recipe(
        "a", backend="sglang", binary=None, python_path=python, model_path="org/m", port=18205, autostart=True
    )
    assert recipectl("apply").returncode == 0
    assert recipectl("wait", "a").returncode == 0
    listed = recipectl("venv", "list").stdout.splitlines()
    assert listed[1].split()[:3] + listed[1].split()[-1:] == ["sglang-0.1.0", "sglang", "0.1.0", "a"]
    assert recipectl("venv", "verify").returncode == 0
    refused = recipectl("venv", "remove", "sglang-0.1.0")
    assert (
        refused.returncode,
        "is used by" in refused.stderr,
        "/etc/recipectl/recipes/a.json, model-a.service" in refused.stderr,
    ) == (
        2,
        True,
        True,
    )
    Path(next(Path("/etc/recipectl/recipes").glob("a.*"))).unlink()
    refused = recipectl("venv", "remove", "sglang-0.1.0")  # its unit runs on
    assert (refused.returncode, "model-a.service" in refused.stderr, "process " in refused.stderr) == (
        2,
        True,
        True,
    )
    assert recipectl("apply").returncode == 0
    removed = recipectl("venv", "remove", "sglang-0.1.0")
    assert (removed.returncode, [*Path("/opt/venvs").iterdir()]) == (0, []), removed.stderr


def test_a_full_disk_leaves_nothing_that_looks_finished() -> None:
    folder = Path("/opt/venvs")
    folder.mkdir(exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=30m,mode=755", "tmpfs", str(folder)], check=True)
    try:
        done = recipectl("venv", "create", "sglang==0.2.0")
        assert (done.returncode, "No space left" in done.stderr) == (1, True), done.stderr
        assert [*folder.iterdir()] == []
        assert recipectl("venv", "create", "sglang==0.1.0").returncode == 0
        # Full to the last byte, at which step ever: what is left is no runtime, or a whole one.
        subprocess.run(
            ["dd", "if=/dev/zero", f"of={folder}/ballast", "bs=4096"], check=False, capture_output=True
        )
        done = recipectl("venv", "create", "sglang==0.1.0", "--name", "second")
        assert (done.returncode, (folder / "second").exists()) == (1, False), done.stderr
        assert "Traceback" not in done.stderr
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def test_root_takes_nothing_from_a_folder_that_others_can_write(tmp_path: Path) -> None:
    hostile = tmp_path / "hostile"
    hostile.mkdir()
    hostile.chmod(0o777)
    (hostile / "uv.toml").write_text('index-url = "http://127.0.0.1:9/evil"\n')
    home = hostile / ".config/uv"
    home.mkdir(parents=True)
    (home / "uv.toml").write_text("not even toml")
    words = ["recipectl", "venv", "create", "sglang==0.1.0", "--name", str(hostile / "x")]
    environment = os.environ | {"HOME": str(hostile), "XDG_CONFIG_HOME": str(hostile / ".config")}
    done = recipectl(*words[1:])
    assert (done.returncode, "can change" in done.stderr, (hostile / "x").exists()) == (2, True, False), (
        done.stderr
    )
    (hostile / "x.lock").write_text("sglang==0.1.0 --hash=sha256:00\n")
    done = recipectl("venv", "create", "sglang==0.1.0", "--lock", str(hostile / "x.lock"))
    assert (done.returncode, "x.lock is not root's alone" in done.stderr) == (2, True), done.stderr
    done = subprocess.run(
        [str(Path(sys.executable).with_name("recipectl")), *words[1:4]], cwd=hostile, env=environment, capture_output=True,
        text=True, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (0, "/opt/venvs/sglang-0.1.0\n"), done.stderr
    assert not (hostile / ".cache").exists()
    assert Path("/var/cache/recipectl/uv").is_dir()
