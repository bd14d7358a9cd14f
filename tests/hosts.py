"""Several hosts in one: a throwaway systemd each, joined by a bridge in a network namespace of its own."""

import contextlib
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from types import TracebackType

ROOT = Path(__file__).parents[1]
TOOL = ROOT / "packaging/throwaway-systemd"


def sh(*words: str, check: bool = True) -> str:
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    if check and done.returncode:
        raise AssertionError(f"{' '.join(words)}: {done.stdout}{done.stderr}")
    return done.stdout


def _descendants(pid: int) -> list[int]:
    try:
        children = [int(text) for text in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []
    return [found for child in children for found in (child, *_descendants(child))]


def _folders() -> list[str]:
    """What a model's user must be able to pass."""
    return [str(path) for path in (ROOT, *ROOT.parents, *Path(sys.executable).resolve().parents)]


class Switch:
    """A bridge that hosts are plugged into; a port can be pulled while the host is up."""

    def __init__(self) -> None:
        self.process = subprocess.Popen(["unshare", "--net", "sleep", "infinity"])
        own = Path("/proc/self/ns/net").readlink()
        while Path(f"/proc/{self.process.pid}/ns/net").readlink() == own:
            time.sleep(0.01)
        self.do("ip link add br0 type bridge")
        self.do("ip link set br0 up")

    def do(self, command: str) -> str:
        return sh("nsenter", "-t", str(self.process.pid), "-n", *command.split())

    def plug(self, pid: int, name: str, address: str) -> None:
        # A network card keeps its address over a boot; a new one would be unknown to the others for 50 s.
        card = "02:00:" + ":".join(f"{int(part):02x}" for part in address.split("."))
        self.do(f"ip link add {name} type veth peer name eth1 address {card} netns {pid}")
        self.do(f"ip link set {name} master br0 up")
        for command in (f"ip address add {address}/24 dev eth1", "ip link set eth1 up"):
            sh("nsenter", "-t", str(pid), "-n", *command.split())

    def close(self) -> None:
        self.process.kill()
        self.process.wait()


class Host:
    """A host with a name and an address; its processes end with it."""

    def __init__(self, switch: Switch, name: str, address: str, shared: Path, table: str) -> None:
        self.switch, self.name, self.address, self.shared, self.table = switch, name, address, shared, table

    def keep_disk(self) -> None:
        """What a boot with it finds again: configuration, units, users and what is enabled."""
        self.shell(f"echo {self.name} >/etc/hostname")
        self.run("tar", "cPf", str(self._disk), "/etc", "/var/lib/models", "/var/lib/recipectl")

    @property
    def _disk(self) -> Path:
        return self.shared / f"{self.name}.tar"

    def boot(self, *, with_disk: bool = False) -> None:
        """A systemd of its own, with nothing of an earlier boot or with its disk; the network comes late."""
        # What it says goes to a file: the tool ends when nobody holds its output any more.
        self.pid = 0
        open_folders = " ".join(["chmod", "o+rx", *_folders()])
        before = ["--before", f"{open_folders}; tar xPf {self._disk}"] if with_disk else []
        words = [str(TOOL), "--keep", str(self.shared), *before, "sleep", "infinity"]
        self.process = subprocess.Popen(words, cwd=ROOT, stdout=subprocess.DEVNULL, start_new_session=True)
        end = time.monotonic() + 60
        while not (pids := self._systemds()):
            assert self.process.poll() is None
            assert time.monotonic() < end, "systemd does not start"
            time.sleep(0.05)
        self.pid = pids[0]
        self.switch.plug(self.pid, self.name, self.address)
        # The own name is a loopback address too, as Debian's installer writes it.
        lines = f"127.0.0.1 localhost\n127.0.1.1 {self.name}\n{self.table}"
        self.shell(f"cat >/etc/hosts <<'END'\n{lines}END")
        while self.run("systemctl", "is-active", "throwaway.service", check=False).strip() != "activating":
            assert time.monotonic() < end
            time.sleep(0.1)
        self.run("hostname", self.name)  # systemd has set the machine's own while it booted
        self.run("chmod", "o+rx", *_folders())

    def _systemds(self) -> list[int]:
        found = []
        for pid in _descendants(self.process.pid):
            with contextlib.suppress(OSError):  # it has ended
                found += [pid] if Path(f"/proc/{pid}/comm").read_text() == "systemd\n" else []
        return found

    def run(self, *words: str, check: bool = True) -> str:
        inside = [
            "nsenter",
            "-t",
            str(self.pid),
            "-m",
            "-u",
            "-i",
            "-n",
            "-p",
            "-C",
            f"--root=/proc/{self.pid}/root",
        ]
        return sh(*inside, "--wdns=/", *words, check=check)

    def shell(self, script: str, *, check: bool = True) -> str:
        return self.run("sh", "-euc", script, check=check)

    def recipectl(self, *words: str, check: bool = True) -> str:
        path = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin"
        return self.run("env", path, "HOME=/root", sys.executable, "-m", "recipectl", *words, check=check)

    def show(self, unit: str, field: str) -> str:
        return self.run("systemctl", "show", "-P", field, unit).strip()

    def journal(self, unit: str) -> str:
        return self.run("journalctl", "-u", unit, "-o", "short-precise", "--no-pager", "-q", check=False)

    def pull(self) -> None:
        """The cable: packets go nowhere, and nobody is told."""
        self.switch.do(f"ip link set {self.name} nomaster")

    def put_back(self) -> None:
        self.switch.do(f"ip link set {self.name} master br0")

    def die(self) -> None:
        """The power: no connection is closed, and no process ends in order."""
        self.pull()
        # With its systemd all of a host ends; the tool then takes its cgroup and its folder away.
        for pid in [self.pid] if self.pid else _descendants(self.process.pid):
            try:
                os.kill(pid, 9)
            except ProcessLookupError:
                continue
        self.process.wait()
        sh(
            "nsenter",
            "-t",
            str(self.switch.process.pid),
            "-n",
            "ip",
            "link",
            "delete",
            self.name,
            check=False,
        )

    def close(self) -> None:
        self.die()


class Network:
    """Some hosts at 10.77.0.1, .2 and so on, named gpu1, gpu2 and so on."""

    def __init__(self, count: int, shared: Path) -> None:
        self.switch = Switch()
        rows = [(f"gpu{index}", f"10.77.0.{index}") for index in range(1, count + 1)]
        table = "".join(f"{address} {name}\n" for name, address in rows)
        self.hosts: list[Host] = []
        try:
            for name, address in rows:
                self.hosts.append(Host(self.switch, name, address, shared, table))
                self.hosts[-1].boot()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        for host in self.hosts:
            host.close()
        self.switch.close()

    def __enter__(self) -> list[Host]:
        return self.hosts

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def with_ssh(hosts: list[Host], folder: Path) -> str:
    """An ssh server on each host, with a key of the test's own in a folder; returns an Ansible inventory."""
    shared = hosts[0].shared
    words = ["-q", "-t", "ed25519", "-N", "", "-f", str(folder / "key")]
    sh("ssh-keygen", *words)
    shutil.copy(folder / "key.pub", shared / "authorized_keys")
    sh("dropbearkey", "-t", "ed25519", "-f", str(shared / "host_key"))
    hosts[0].switch.do("ip address add 10.77.0.254/24 dev br0")
    for host in hosts:
        host.shell(f"""
mkdir -p -m 700 /root/.ssh; cp {shared}/authorized_keys /root/.ssh/
dropbear -s -p 2222 -r {shared}/host_key -P /run/dropbear.pid
""")
    options = (
        f"-o StrictHostKeyChecking=no -o UserKnownHostsFile={folder}/known -o LogLevel=ERROR -F /dev/null"
    )
    return "\n".join(
        [
            *(f"{host.name} ansible_host={host.address}" for host in hosts),
            "[all:vars]",
            "ansible_user=root",
            "ansible_port=2222",
            f"ansible_ssh_private_key_file={folder}/key",
            f"ansible_ssh_common_args='{options}'",
            "",
        ]
    )
