"""`import process` of processes that run: what binds them, and where they listen, becomes the recipe or is named."""

import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from imported import losses

from recipectl.errors import UsageError
from recipectl.importers import running
from recipectl.importers.draft import Draft

_LISTEN = """
import socket, sys, time
ports = [int(port) for port in sys.argv[sys.argv.index("--") + 1 :]]
sockets = [socket.create_server(("127.0.0.1", port)) for port in ports]
print("ready", flush=True)
time.sleep(60)
"""
Start = Callable[..., int]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Start a program named `vllm`, in the folder of the test and below other programs; -> its PID."""
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o755)  # other users run it too
    program = folder / "vllm"
    program.write_text(f"#!/usr/bin/python3\n{_LISTEN}")
    program.chmod(0o755)
    processes: list[subprocess.Popen[str]] = []

    def started(
        *words: str, before: tuple[str, ...] = (), ports: tuple[int, ...] = (), **variables: str
    ) -> int:
        command = [*before, str(program), *words, "--", *map(str, ports)]
        process = subprocess.Popen(
            command,
            cwd=tmp_path,
            env={"PATH": "/usr/bin:/bin", **variables},
            stdout=subprocess.PIPE,
            text=True,
        )
        processes.append(process)
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        return process.pid

    yield started
    for process in processes:
        subprocess.run(["pkill", "-P", str(process.pid)], check=False)
        process.kill()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()
    shutil.rmtree(folder)


def free_ports(count: int) -> tuple[int, ...]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = tuple(sorted(sock.getsockname()[1] for sock in sockets))
    for sock in sockets:
        sock.close()
    return ports


def drawn(pid: int, port: int | None = None) -> tuple[Draft, str]:
    draft = running.draft(pid, port)
    return draft, "\n".join(losses(draft))


def test_the_port_that_was_asked_for_counts_and_another_guess_is_named(start: Start) -> None:
    low, high = free_ports(2)
    pid = start("serve", "/m/q", ports=(low, high))
    assert drawn(pid, high)[0].fields["port"] == high
    draft, told = drawn(pid)
    assert (draft.fields["port"], f"it listens at {high} too" in told) == (low, True)
    named = start("serve", "/m/q", "--port", str(high))
    assert drawn(named)[0].fields["port"] == high


def test_names_stay_and_relative_paths_become_absolute(start: Start, tmp_path: Path) -> None:
    for name in ("Qwen2.5-7B", "adapters/sql", "cache/hf"):
        (tmp_path / name).mkdir(parents=True)
    words = ("serve", "Qwen2.5-7B", "--served-model-name", "Qwen2.5-7B", "--lora-modules", "sql=adapters/sql")
    draft, told = drawn(start(*words, HF_HOME="cache/hf"))
    assert draft.fields["model_path"] == f"{tmp_path}/Qwen2.5-7B"
    assert draft.fields["served_model_name"] == "Qwen2.5-7B"
    assert f"sql={tmp_path}/adapters/sql" in str(draft.fields)
    assert draft.fields["env_vars"]["HF_HOME"] == f"{tmp_path}/cache/hf"
    assert f"the working directory {tmp_path}; relative paths" in told


def test_a_folder_that_was_deleted_is_named_and_in_no_path(start: Start, tmp_path: Path) -> None:
    folder = tmp_path / "gone"
    folder.mkdir()
    pid = start("serve", "./m", before=("env", "-C", str(folder)))
    folder.rmdir()
    draft, told = drawn(pid)
    assert draft.fields["model_path"] == f"{folder}/m"
    assert f"the working directory {folder} (deleted); relative paths" in told


def test_the_program_of_a_process_is_the_one_that_runs(tmp_path: Path) -> None:
    """Its first word is llama-server, which PATH has, too; what runs is a shell by another name."""
    for folder, name in (("path", "llama-server"), ("real", "llama-server-cuda")):
        (tmp_path / folder).mkdir()
        shutil.copy("/bin/bash", tmp_path / folder / name)
    model = tmp_path / "m.gguf"
    model.write_text("echo ready; read -r line\n")  # `bash -m FILE`
    with subprocess.Popen(
        ["llama-server", "-m", str(model), "--port", "1"],
        executable=tmp_path / "real/llama-server-cuda",
        env={"PATH": f"{tmp_path}/path:/usr/bin:/bin"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        draft, _ = drawn(process.pid)
        process.kill()
    assert draft.fields["binary"] == f"{tmp_path}/real/llama-server-cuda"
    assert draft.fields["model_path"] == str(model)


def test_what_binds_a_process_becomes_settings(start: Start) -> None:
    prefix = (
        "prlimit",
        "--cpu=3600",
        "--stack=4194304",
        "--core=0",
        "ionice",
        "-c",
        "2",
        "-n",
        "7",
        "chrt",
        "-b",
        "0",
    )
    if os.geteuid() == 0:
        prefix += ("setpriv", "--regid=video", "--clear-groups")
    settings = drawn(start("serve", "/m/q", before=prefix))[0].fields["service"]
    expected = {
        "LimitCPU": "3600", "LimitSTACK": "4194304", "IOSchedulingClass": "best-effort",
        "IOSchedulingPriority": "7", "CPUSchedulingPolicy": "batch",
    }  # fmt: skip
    assert settings | expected == settings
    assert "LimitCORE" not in settings


@pytest.mark.skipif(os.geteuid() != 0, reason="another user's process, and a network of its own, need root")
def test_a_group_a_network_and_credentials_are_reproduced_or_named(start: Start) -> None:
    before = ("unshare", "-n", "setpriv", "--reuid=games", "--regid=video", "--clear-groups")
    draft, told = drawn(start("serve", "/m/q", before=before, HF_TOKEN_PATH="/run/credentials/x.service/hf"))
    assert (draft.fields["user"], draft.fields["service"]["SupplementaryGroups"]) == ("games", "video")
    assert "a network of its own; the engine will use the network of this host" in told
    assert "`HF_TOKEN_PATH`, a file of its unit's credentials; see `secrets:`" in told
    assert "HF_TOKEN_PATH" not in draft.fields.get("env_vars", {})


def test_a_shell_leads_to_the_engine_below_it_and_a_process_that_ended_is_told(start: Start) -> None:
    shell = start("serve", "/m/q", before=("sh", "-c", '"$0" "$@"; true'))
    assert drawn(shell)[0].fields["model_path"] == "/m/q"
    with subprocess.Popen([shutil.which("true") or "true"]) as ended:
        end = time.monotonic() + 10
        while Path(f"/proc/{ended.pid}/stat").read_text().split()[2] != "Z":
            assert time.monotonic() < end
            time.sleep(0.01)
        with pytest.raises(UsageError, match=f"process {ended.pid} has ended"):
            running.draft(ended.pid)
