"""The gateway and this host: nginx, what the running one has loaded, whether a new configuration is right."""

from __future__ import annotations

import errno
import os
import pwd
import stat
import subprocess
import tempfile
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from recipectl import gateway_keys
from recipectl.errors import Problem, RecipectlError, UsageError, on_host
from recipectl.files import failures_named, is_open, read_bounded
from recipectl.gateway.configuration import FILES, LOADED, Gateway, Nginx, Paths, configuration
from recipectl.gateway.engine_keys import decrypted
from recipectl.machine import processes, sockets
from recipectl.systemd.unitfile import GATEWAY, GATEWAY_USER, InstalledUnit
from recipectl.text import printable

if TYPE_CHECKING:
    from recipectl.compiler.model import GatewaySettings
    from recipectl.recipe.trusted import Content
    from recipectl.systemd.dbus import Manager

_PROGRAMS = ("/usr/sbin/nginx", "/usr/local/sbin/nginx", "/usr/bin/nginx")
_MODULES = ("/usr/lib/nginx/modules", "/usr/lib64/nginx/modules", "/usr/local/lib/nginx/modules")
_MODULE = "ngx_http_js_module.so"
_LONGEST_RELOAD_SEC = 30
_LOOK_SEC = 1
_WORKER = "nginx: worker process"
_UNUSED_ID = 65533  # Debian gives it to nobody
_LOW_PORT = ("--inh-caps=-all,+net_bind_service", "--ambient-caps=-all,+net_bind_service")


def find_nginx() -> Nginx:
    """nginx and its JavaScript module; RecipectlError with the packages to install."""
    program = next((path for path in _PROGRAMS if os.access(path, os.X_OK)), None)
    module = next((f"{folder}/{_MODULE}" for folder in _MODULES if Path(folder, _MODULE).exists()), None)
    if program and module:
        return Nginx(program, module)
    missing = "nginx" if program is None else "nginx's JavaScript module"
    raise RecipectlError(
        f"`gateway:` needs {missing}; run `apt install nginx libnginx-mod-http-js`, "
        "and `systemctl disable --now nginx` if the host needs no web server besides"
    )


def loaded() -> str | None:
    """The digest of the configuration that the running nginx has; None when none answers."""
    _, _, body = sockets.local_answer(LOADED).partition(b"\r\n\r\n")
    digest = printable(body.decode(errors="replace").strip())[:12]
    return digest if len(digest) == 12 else None


def changed_secrets(manager: Manager, unit: InstalledUnit) -> Iterator[Problem]:
    """The files of keys and of the certificate that were changed since the gateway read them."""
    pid = manager.state(GATEWAY, brief=True).main_pid
    for file in processes.rotated_secrets(pid, unit.secret_files) if pid else ():
        sentence = "it was changed after the gateway had read it; run `recipectl apply`"
        yield on_host("secret", sentence, file=file)


def missing_secrets(unit: InstalledUnit) -> Iterator[Problem]:
    """The files of keys and of the certificate that are gone."""
    for file in unit.secret_files:
        try:
            os.stat(file)  # noqa: PTH116  (only its absence counts: not every caller may look)
        except FileNotFoundError:
            sentence = "it is gone, and the gateway cannot start again without it; restore it"
            yield on_host("secret", sentence, file=file)
        except OSError:
            continue


def accepting_workers() -> set[int]:
    """The processes of the gateway that accept requests.

    At a reload nginx starts new workers before it tells the old ones to end. Each of these changes its title
    when it accepts no more (ngx_worker_process_cycle in nginx's ngx_process_cycle.c).
    """
    folder = processes.cgroup_folder(GATEWAY)
    pids = processes.members(folder) if folder else []
    members = filter(None, map(processes.read_process, pids))
    return {process.pid for process in members if (process.argv or ("",))[0] == _WORKER}


def what_is_in_force() -> str:
    """What goes on where a new configuration is wrong, as the end of a sentence."""
    return "the one in force stays" if loaded() is not None else "no gateway runs until then"


def wait_until_loaded(
    digest: str, has_ended: Callable[[], bool], since_sec: float, earlier_workers: Collection[int] = ()
) -> str | None:
    """Wait until all that accepts requests has a configuration; else a sentence.

    It ends as soon as nginx has refused one since `since_sec`, in seconds since the epoch.
    """
    end = time.monotonic() + _LONGEST_RELOAD_SEC
    look = time.monotonic() + _LOOK_SEC
    while (loaded_digest := loaded()) != digest or accepting_workers() & {*earlier_workers}:
        if has_ended():
            return "models-gateway.service does not stay up"
        is_refused = False
        if time.monotonic() > look:
            look += _LOOK_SEC
            is_refused = bool(refusal(since_sec))
        if is_refused or time.monotonic() > end:
            state = f"has still configuration {loaded_digest}" if loaded_digest else "does not answer"
            if loaded_digest == digest:
                state = "has still a worker with its earlier configuration"
            return f"models-gateway.service {state}"
        time.sleep(0.02)
    return None


def refusal(since_sec: float) -> str:
    """Why nginx has refused a configuration, by its last line in the journal; empty where it says nothing."""
    words = ["journalctl", "-q", "-o", "cat", "-u", GATEWAY, f"--since=@{since_sec:.6f}"]
    with suppress(OSError, subprocess.TimeoutExpired):
        done = subprocess.run(words, capture_output=True, check=False, timeout=10)  # noqa: S603  (fixed words)
        lines = done.stdout.decode(errors="replace").splitlines()
        # nginx tries to bind an address several times: it may get it yet.
        ends = [line for line in lines if "[emerg]" in line and ": bind() to " not in line]
        return _emergency(ends[-1]) if ends else ""
    return ""


def _emergency(line: str) -> str:
    """The message in a line of nginx that ends a start or a reload."""
    return printable(line.partition("[emerg]")[2].partition(": ")[2] or line).strip()[:300]


def test(gateway: Gateway, nginx: Nginx, source: str, content: Content) -> None:
    """Let nginx read a new configuration, before anything is replaced; UsageError with what it says.

    `content` reads what the host file names, and refuses what others can change.
    """
    try:
        _test(gateway, nginx, source, content)
    except (OSError, subprocess.TimeoutExpired) as error:
        reason = error.strerror if isinstance(error, OSError) else "it did not answer within 60 s"
        fault = f"nginx could not read the gateway's new configuration ({reason})"
        raise RecipectlError(f"{fault}; run `recipectl apply` again, {what_is_in_force()}") from error


def _test(gateway: Gateway, nginx: Nginx, source: str, content: Content) -> None:
    settings = gateway.settings
    keys = _keys(settings.keys, content) if settings.keys else {}
    uid, gid, groups = _UNUSED_ID, _UNUSED_ID, "--clear-groups"  # until an apply has made the user
    with suppress(KeyError):
        _, _, uid, gid, *_ = pwd.getpwnam(GATEWAY_USER)
        groups = "--init-groups"
    with tempfile.TemporaryDirectory(prefix="recipectl-gateway-", dir="/run") as folder:
        run = f"{folder}/run"  # nginx writes here
        paths = Paths(
            folder=folder,
            run=run,
            certificate=f"{folder}/certificate",
            key=f"{folder}/key",
            access_log="off",
        )
        text = configuration(settings, nginx, source, paths, gateway.digest, gateway.site_lines)
        files = {**gateway.files, "nginx.conf": text}
        files |= {f"run/{name}": value for name, value in gateway_keys.as_objects(keys, {}).items()}
        contents = {name: value.encode() for name, value in files.items()} | _certificate(settings)
        Path(run).mkdir(mode=0o700)
        for name, data in contents.items():
            with Path(folder, name).open("xb") as file:
                os.fchmod(file.fileno(), 0o640)
                os.fchown(file.fileno(), 0, gid)
                file.write(data)
        os.chown(run, uid, gid)
        os.chown(folder, 0, gid)
        Path(folder).chmod(0o750)
        # As the gateway's own user, which may open less than root: the site's own files, above all.
        words = ["/usr/bin/setpriv", f"--reuid={uid}", f"--regid={gid}", groups]
        words += _LOW_PORT if settings.address[1] < 1024 else []
        words += [nginx.program, "-t", "-q", "-e", "stderr", "-c", f"{folder}/nginx.conf"]
        done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=60)  # noqa: S603
        if done.stderr.startswith("setpriv: "):
            reason = printable(done.stderr.strip())
            raise RecipectlError(
                f"nginx's configuration cannot be tested as {GATEWAY_USER} ({reason}); see setpriv(1)"
            )
        if done.returncode:
            reason = next(
                (line for line in done.stderr.splitlines() if "[emerg]" in line), done.stderr.strip()
            )
            message = _emergency(reason.replace(folder, "…"))
            if "(99: " in message:  # EADDRNOTAVAIL
                fault = f"no interface of this host has the address {settings.address[0]} now"
                raise UsageError(
                    f"{fault}; bring it up, or choose another", "gateway", "listen", kind="network"
                )
            fault = f"nginx refuses the gateway's new configuration: {message}"
            raise UsageError(f"{fault}; correct `gateway:`, {what_is_in_force()}", "gateway")


def _certificate(settings: GatewaySettings) -> dict[str, bytes]:
    """The files of `gateway.tls`, which systemd reads as root for the unit; UsageError with one it cannot."""
    contents = {}
    for name in ("certificate", "key"):
        if not (path := getattr(settings, name)):
            continue
        with reading(path, "tls", name):
            contents[name] = read_bounded(path)
            others_may = name == "key" and is_open(Path(path).stat().st_mode)
        if name == "key" and b"ENCRYPTED" in contents[name]:
            fault = f"{path} has a passphrase, and nobody types it at a boot"
            remedy = "write it without one (`openssl pkey -in KEY -out NEW`)"
            raise UsageError(f"{fault}; {remedy}", "gateway", "tls", "key", kind="file")
        if others_may:
            sentence = f"others may read or change {path}; set mode 0600"
            raise UsageError(sentence, "gateway", "tls", "key", kind="secret")
    return contents


def require_readable(folder: Path) -> None:
    """nginx's own user must reach its files; RecipectlError with the folder that is closed to it."""
    for parent in reversed(folder.parents):
        if parent.is_dir() and not parent.stat().st_mode & 0o001:
            raise RecipectlError(
                f"nginx's user {GATEWAY_USER} cannot reach {folder}, since {parent} is closed to others; "
                f"run `chmod o+x {parent}`"
            )


def _keys(path: str, content: Callable[[Path], bytes]) -> dict[str, str]:
    try:
        with reading(path, "keys"):
            if path.endswith(".cred"):
                return _sealed_keys(path)
            if is_open(Path(path).stat().st_mode):
                sentence = f"others may read or change {path}; set mode 0600"
                raise UsageError(sentence, "gateway", "keys", kind="secret")
            return gateway_keys.parse(content(Path(path)))
    except ValueError as error:
        raise UsageError(f"{path} is wrong: {error}; correct it", "gateway", "keys", kind="value") from error


def _sealed_keys(path: str) -> dict[str, str]:
    """The keys in an encrypted file, as systemd would read it; ValueError where it cannot."""
    try:
        content = decrypted(path, "keys")
    except ValueError as error:
        raise ValueError(f"systemd cannot decrypt it ({printable(str(error))[:300]})") from error
    return gateway_keys.parse(content)


@contextmanager
def reading(path: str, *key: str) -> Iterator[None]:
    """Read a file that `gateway:` names; UsageError where it is none, or cannot be read."""
    remedies = {errno.EPERM: "let root alone own and change it", errno.EACCES: "run this as root"}
    try:
        if not stat.S_ISREG(Path(path).stat().st_mode):
            raise UsageError(f"{path} is no regular file; correct `{key[0]}:`", "gateway", *key, kind="file")
        yield
    except OSError as error:
        remedy = remedies.get(error.errno or 0, f"create it, or correct `{key[0]}:`")
        fault = f"{path} cannot be read: {error.strerror or error}"
        raise UsageError(f"{fault}; {remedy}", "gateway", *key, kind="file") from error


def installed(folder: Path) -> dict[str, str]:
    """Name -> text of the gateway's own files as they are."""
    if not folder.is_dir():
        return {}
    with failures_named("read", folder):
        paths = (folder / name for name in FILES)
        files = (path for path in paths if path.is_file() and not path.is_symlink())
        return {path.name: read_bounded(path, 16 * 1024 * 1024).decode(errors="replace") for path in files}
