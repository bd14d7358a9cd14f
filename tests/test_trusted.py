"""Whose files recipectl reads, and what it reads of them."""

import hashlib
import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import hostile
import pytest
from conftest import make_venv

from recipectl.compiler import preflight
from recipectl.engines import ask
from recipectl.errors import RecipeError, UsageError
from recipectl.files import MAX_BYTES, read_bounded, refuse_planted_links
from recipectl.machine import lockfile, processes
from recipectl.machine.disk import Disk
from recipectl.machine.runtime import Runtime
from recipectl.recipe.load import load
from recipectl.recipe.trusted import Trust, content_for
from recipectl.venvs import request

OWN = frozenset({os.geteuid(), 0})
pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files to others")


def fault_of(path: Path, owners: frozenset[int]) -> str | None:
    return Trust(owners).fault(path)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    folder = tmp_path / "recipes"
    folder.mkdir()
    path = folder / "a.yaml"
    path.write_text("model_path: m\n")
    return path


def test_a_file_that_only_root_can_change_is_read(file: Path) -> None:
    assert content_for(OWN)(file) == b"model_path: m\n"
    file.chmod(0o444)
    assert fault_of(file, OWN) is None


@pytest.mark.parametrize(("mode", "fault"), [
    (0o646, "everybody can change {file} (mode 0646)"),
    (0o660, "group daemon can change {file} (mode 0660)"),
])  # fmt: skip
def test_a_file_that_others_can_change_is_refused_with_its_mode(file: Path, mode: int, fault: str) -> None:
    os.chown(file, 0, 1)
    file.chmod(mode)
    assert fault_of(file, OWN) == fault.format(file=file)
    with pytest.raises(PermissionError, match=re.escape(fault.format(file=file))):
        content_for(OWN)(file)
    assert content_for(None)(file)  # a caller who can apply nothing may look


def test_a_file_of_another_user_is_refused(file: Path) -> None:
    os.chown(file, 1, 0)
    assert fault_of(file, OWN) == f"user daemon can change {file} (mode 0644)"
    assert fault_of(file, frozenset({0, 1})) is None


def test_a_folder_above_counts_as_well(file: Path) -> None:
    file.parent.chmod(0o777)
    assert fault_of(file, OWN) == f"everybody can change {file.parent} (mode 0777)"
    file.parent.chmod(0o1777)  # as /tmp: nobody can replace what belongs to root
    assert fault_of(file, OWN) is None
    os.chown(file, 1, 0)
    assert "user daemon can change" in str(fault_of(file, OWN))
    os.chown(file, 0, 0)
    os.chown(file.parent.parent, 1, 0)
    assert fault_of(file, OWN) == f"user daemon can change {file.parent.parent} (mode 0700)"


def test_a_group_of_root_alone_is_no_other(file: Path) -> None:
    file.chmod(0o664)
    assert fault_of(file, OWN) is None


def test_a_link_is_checked_and_what_is_behind_it(file: Path, tmp_path: Path) -> None:
    link = tmp_path / "b.yaml"
    link.symlink_to(file)
    assert content_for(OWN)(link) == b"model_path: m\n"
    file.chmod(0o666)
    assert "everybody can change" in str(fault_of(link, OWN))
    file.chmod(0o644)
    os.lchown(link, 1, 1)
    assert f"user daemon can change {link}" in str(fault_of(link, OWN))


def test_a_folder_that_is_a_link_is_checked_too(file: Path, tmp_path: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to(file.parent)
    assert fault_of(link / "a.yaml", OWN) is None
    file.parent.chmod(0o777)
    assert "everybody can change" in str(fault_of(link / "a.yaml", OWN))


def test_what_is_missing_is_told_by_reading(tmp_path: Path) -> None:
    assert fault_of(tmp_path / "none", OWN) is None
    with pytest.raises(FileNotFoundError):
        content_for(OWN)(tmp_path / "none")


def test_only_regular_files_of_a_mib_are_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", Path("/dev/zero"), tmp_path):
        with pytest.raises(OSError, match=r"(Is a directory|it is not a regular file)"):
            read_bounded(path)
    large = tmp_path / "large"
    large.write_bytes(b"x" * MAX_BYTES)
    assert len(read_bounded(large)) == MAX_BYTES
    with large.open("ab") as opened:
        opened.write(b"x")
    with pytest.raises(OSError, match=r"larger than 1048576 bytes"):
        read_bounded(large)


def test_no_hostile_file_is_a_traceback() -> None:
    assert hostile.slowest(60, hostile.SEED)[0] > 0


def test_every_link_on_the_way_counts(file: Path, tmp_path: Path) -> None:
    """Root's link leads to somebody's link, and that to a file of root's: whoever turns it decides."""
    theirs = tmp_path / "theirs"
    theirs.mkdir()
    (theirs / "hop").symlink_to(file)
    (tmp_path / "x.yaml").symlink_to(theirs / "hop")
    assert fault_of(tmp_path / "x.yaml", OWN) is None
    os.chown(theirs, 1, 0)
    assert fault_of(tmp_path / "x.yaml", OWN) == f"user daemon can change {theirs} (mode 0755)"
    (theirs / "folder").symlink_to(file.parent)
    (tmp_path / "link").symlink_to(theirs / "folder")
    assert fault_of(tmp_path / "link/a.yaml", OWN) == f"user daemon can change {theirs} (mode 0755)"


def test_a_circle_of_links_ends(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").symlink_to(tmp_path / "b")
    (tmp_path / "b").symlink_to(tmp_path / "a.yaml")
    with pytest.raises(OSError, match="Too many levels"):
        content_for(OWN)(tmp_path / "a.yaml")


def test_an_output_does_not_go_through_somebodys_link(tmp_path: Path) -> None:
    (tmp_path / "out").symlink_to("/etc")
    refuse_planted_links(tmp_path / "out")
    os.lchown(tmp_path / "out", 1, 1)
    refuse_planted_links(tmp_path / "out")  # in a folder of ours
    os.chown(tmp_path, 1, 1)
    with pytest.raises(UsageError, match="is a link in a folder that others can write"):
        refuse_planted_links(tmp_path / "out/below")


HOSTILE_VENVS = {
    "a venv of its own": ("pyvenv.cfg", "home = {venv}/bin\ninclude-system-site-packages = true\n"),
    "a NUL in a script": ("bin/vllm", "#!/x\0y/bin/python3\n"),
    "a circle of links": ("bin/vllm", "#!{venv}/bin/python9\n"),
}  # fmt: skip


@pytest.mark.parametrize(("name", "text"), HOSTILE_VENVS.values(), ids=HOSTILE_VENVS.keys())
def test_a_hostile_venv_is_read_without_harm(tmp_path: Path, name: str, text: str) -> None:
    venv = make_venv(tmp_path / "v", "vllm")
    (venv / "bin/python9").symlink_to(venv / "bin/python9")
    (venv / name).write_text(text.format(venv=venv))
    disk = Disk()
    disk.engine_version(venv / "bin/vllm", "vllm")
    disk.engine_version(venv / "bin/python", "vllm")
    disk.python_version(venv / "bin/python9")
    (tmp_path / "p/torch-1**.dist-info").mkdir(parents=True)
    (tmp_path / "p/vllm-1.dist-info").mkdir()
    os.mkfifo(tmp_path / "p/vllm-1.dist-info/RECORD")
    recorded = lockfile.record(str(venv / "bin/python"), str(tmp_path / "p"), ("vllm",))["distributions"]
    assert recorded["vllm"] == {"version": "1", "record": "none"}


def test_a_process_may_have_any_name() -> None:
    code = "import ctypes, time; ctypes.CDLL(None).prctl(15, b'\\xff\\xfe', 0, 0, 0); print(1, flush=True); time.sleep(20)"
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as process:
        assert process.stdout
        process.stdout.readline()
        assert processes.read_process(process.pid)
        assert processes.is_alive(process.pid)
        assert processes.started_sec(process.pid)
        process.kill()


@pytest.mark.parametrize(
    "table", ['{"version": 1, "options": []}', '{"version": 1, "options": {"a": "b"}}', "[" * 100_000]
)
def test_a_hostile_table_of_options_is_none(
    table: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ask, "_ask_python", lambda *_: table)
    runtime = Runtime("test", ("/nowhere/vllm", "serve"), interpreter="/nowhere/python")
    assert not ask.options_of("vllm", runtime, "root", tmp_path).asked


def test_a_long_line_of_help_is_passed_over() -> None:
    text = "-a" + " " * 100_000 + "-\n--model FILE  the model\n"
    assert list(ask.llama_options(text)) == ["--model"]


@pytest.mark.parametrize("text", [
    "max_num_seqs: " + "1:" * 200 + "1.0", 'max_num_seqs: !!int ""', 'gpu_memory_utilization: !!float ""',
    "max_num_seqs: " + "1:" * 300_000 + "1", 'model_path: "/a\\0b"', 'binary: "/a\\0b"', 'secrets: {A: "/a\\0b"}',
])  # fmt: skip
def test_hostile_values_are_sentences(text: str, tmp_path: Path) -> None:
    file = tmp_path / "a.yaml"
    file.write_text(f"model_path: m\n{text}\n" if not text.startswith("model_path") else f"{text}\n")
    with pytest.raises(RecipeError):
        load(file)


def test_too_many_values_beside_a_drop_in_are_a_sentence(tmp_path: Path) -> None:
    base, drop_in = tmp_path / "a.yaml", tmp_path / "b.yaml"
    base.write_text("model_path: m\ntags: &t [" + "x, " * 9_990 + "x]\nafter: *t\n")
    drop_in.write_text("port: 1\n")
    with pytest.raises(RecipeError, match="too large"):
        load(base, drop_in, drop_in, drop_in, drop_in, drop_in, drop_in, drop_in, drop_in)


def test_a_lock_has_the_libraries_beside_a_program(tmp_path: Path) -> None:
    """llama.cpp's server is small: what computes is in libggml-*.so beside it."""
    for name in ("llama-server", "libllama.so", "libggml-cuda.so"):
        (tmp_path / name).write_text(name)
    program = str(tmp_path / "llama-server")
    locked = lockfile.record(program, None, ())
    assert sorted(locked["libraries"]) == ["libggml-cuda.so", "libllama.so"]
    assert lockfile.differences(locked, lockfile.record(program, None, ())) == []
    (tmp_path / "libllama.so").write_text("newer")
    (tmp_path / "libggml-cuda.so").rename(tmp_path / "libggml-hip.so")
    assert lockfile.differences(locked, lockfile.record(program, None, ())) == [
        "libggml-cuda.so is gone", "libggml-hip.so is new", "libllama.so has another content"
    ]  # fmt: skip
    assert lockfile.read_lock(json.dumps(locked).encode()) == locked
    earlier = {key: value for key, value in locked.items() if key != "libraries"}
    assert (
        lockfile.differences(
            lockfile.read_lock(json.dumps(earlier).encode()), lockfile.record(program, None, ())
        )
        == []
    )
    with pytest.raises(ValueError, match="libraries"):
        lockfile.read_lock(json.dumps(earlier | {"libraries": []}).encode())


def test_a_file_in_the_root_folder_is_looked_at() -> None:
    assert Trust(frozenset({0})).fault(Path("/etc")) is None
    assert Trust(frozenset({0})).fault(Path("/no-such-file.yaml")) is None
    assert Trust(frozenset({12345})).fault(Path("/no-such-file.yaml")) is not None


@pytest.fixture
def others_venv(tmp_path: Path) -> Path:
    """A venv of another user, in a folder of that user."""
    tmp_path.chmod(0o755)
    venv = tmp_path / "home/v"
    make_venv(venv, "vllm")
    for path in (venv.parent, *venv.parent.rglob("*")):
        os.chown(path, 1, 1, follow_symlinks=False)
    return venv


def record_of(venv: Path) -> lockfile.Lock:
    site = next(venv.glob("lib/python3*/site-packages"))
    return lockfile.record(f"{venv}/bin/python", str(site), ("vllm",))


def test_the_lock_beside_anothers_venv_is_nobodys(others_venv: Path, tmp_path: Path) -> None:
    lock, secret = Path(f"{others_venv}.lock"), tmp_path / "secret"
    asked = '{"requirement":"vllm==0.33.0","python":"/home/v/evil","indexes":["http://127.0.0.1:9/"]}'
    text = f"{lockfile.VENV_LOCK_HEADER}# request: {asked}\nvllm==0.33.0 --hash=sha256:00\n"
    secret.write_text(text)
    secret.chmod(0o600)
    for make in (lambda: lock.write_text(text), lambda: lock.symlink_to(secret), lambda: os.mkfifo(lock)):
        lock.unlink(missing_ok=True)
        make()
        os.chown(lock, 1, 1, follow_symlinks=False)
        assert lockfile.own_venv_lock(others_venv) is None
        assert "venv_lock" not in record_of(others_venv)
        assert [*preflight.lock_contents(tmp_path / "a.lock", record_of(others_venv))] == [
            tmp_path / "a.lock"
        ]
        assert request.like_another("vllm==0.34.0", others_venv) == request.Request(
            requirement="vllm==0.34.0"
        )
    lock.unlink()
    lock.write_text(text)  # of root, as `venv create` leaves it
    assert record_of(others_venv)["venv_lock"] == hashlib.sha256(text.encode()).hexdigest()
    assert request.like_another("vllm==0.34.0", others_venv).python == "/home/v/evil"


def test_a_lock_records_nothing_of_a_private_file_that_a_venv_leads_to(
    others_venv: Path, tmp_path: Path
) -> None:
    secret = tmp_path / "root/secret"
    secret.parent.mkdir()
    secret.write_text("secret")
    site = next(others_venv.glob("lib/python3*/site-packages"))
    (site / "x.pth").symlink_to(secret)
    for mode, group, is_recorded in (
        (0o600, 0, False),
        (0o640, 4, False),
        (0o640, 0, False),
        (0o644, 0, True),
    ):
        secret.chmod(mode)
        os.chown(secret, 0, group)
        record = record_of(others_venv)
        assert (record["at_start"]["x.pth"] != "none") is is_recorded, mode
        assert ("x.pth" in lockfile.without_digest(record)) is not is_recorded
    private = site / "y.pth"
    private.write_text("import y")
    private.chmod(0o600)
    os.chown(private, 1, 1)
    assert record_of(others_venv)["at_start"]["y.pth"] != "none"  # the venv's owner runs its model


def test_an_unreadable_lock_beside_a_venv_is_no_error(others_venv: Path, tmp_path: Path) -> None:
    (tmp_path / "root").mkdir(mode=0o700)
    Path(f"{others_venv}.lock").symlink_to(tmp_path / "root/x")
    program = f"""
import os; os.setgid(1); os.setuid(1)
from pathlib import Path
from recipectl.machine import lockfile
print(lockfile.own_venv_lock(Path({str(others_venv)!r})))
"""
    package = Path(lockfile.__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, env={"PYTHONPATH": str(package)}
    )
    assert (done.stdout, done.stderr) == ("None\n", "")


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that every user may enter: that of pytest is root's alone."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


def test_a_question_to_a_hostile_engine_leaves_no_process_and_gives_no_privilege(open_folder: Path) -> None:
    program = open_folder / "llama-server"
    program.write_text(
        f"#!{sys.executable} -IS\n"
        "import os, re, time\n"
        "status = open('/proc/self/status').read()\n"
        "print('--uid-%d-of-%d' % (os.getuid(), os.getpid()))\n"
        "print('--privileges-' + ''.join(re.findall('NoNewPrivs:\\t(.)|CapBnd:\\t(.*)', status)[0]))\n"
        "if os.fork() == 0:\n"
        "    os.setsid()\n"
        "    os.execv('/usr/bin/sleep', ['sleep', '98765'])\n"
        "time.sleep(0.3)\n"
    )
    program.chmod(0o755)
    runtime = Runtime("binary", (str(program),), path=("/usr/bin",))
    options = json.loads(ask._ask_binary("llamacpp", runtime, "daemon"))["options"]
    (uid,) = (name for name in options if name.startswith("--uid"))
    assert re.fullmatch("--uid-1-of-[0-9]", uid)
    assert [name for name in options if name.startswith("--priv")] in (
        ["--privileges-0000000000000000"],
        ["--privileges-1"],
    )
    left = subprocess.run(["pgrep", "-f", "sleep 98765"], capture_output=True, text=True).stdout
    assert left == ""
