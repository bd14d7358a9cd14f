"""The keys of engines' own APIs in the gateway that runs: an apply renews them, and a reload reads them.

At its start the gateway writes the same file from its credentials (gateway_keys).
"""

import os
import pwd
import subprocess
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from recipectl.compiler.secrets import Credential
from recipectl.errors import RecipectlError
from recipectl.files import failures_named, read_bounded
from recipectl.gateway.configuration import RUN
from recipectl.gateway_keys import ENGINE_PREFIX, as_objects, engine_key
from recipectl.systemd.unitfile import GATEWAY_USER

FILE = f"{RUN}/engines.json"


def decrypted(source: str, name: str) -> bytes:
    """The content of an encrypted file, as systemd reads it for a credential; ValueError where it cannot."""
    words = ["systemd-creds", "decrypt", f"--name={name}", source, "-"]
    try:
        done = subprocess.run(words, capture_output=True, check=False, timeout=60)  # noqa: S603  (fixed words)
    except OSError as error:
        raise RecipectlError(f"systemd-creds cannot be run ({error.strerror}); install systemd") from error
    if done.returncode:
        raise ValueError(done.stderr.decode(errors="replace").strip())
    return done.stdout


def expected(credentials: Iterable[Credential]) -> str | None:
    """What the file should have; None for a user who cannot read the keys.

    A file that is missing gives no key: its model refuses what comes through the gateway, the others go on.
    """
    if os.geteuid() != 0:
        return None
    keys = {}
    for credential in credentials:
        source, content = credential.source, b""
        with suppress(OSError, ValueError):
            is_sealed = source.endswith(".cred")
            content = decrypted(source, credential.name) if is_sealed else read_bounded(source)
        keys[credential.name.removeprefix(ENGINE_PREFIX)] = engine_key(content)
    return as_objects({}, keys)["engines.json"]


def present() -> str:
    """What the file has; empty where there is none."""
    with suppress(OSError, UnicodeDecodeError):
        return read_bounded(FILE, follow=False).decode()
    return ""


def write(text: str) -> None:
    """Replace the file, if the gateway runs: its start writes it, too.

    The folder is the gateway's own: nothing that lies there is followed or opened.
    """
    _, _, uid, gid, *_ = pwd.getpwnam(GATEWAY_USER)
    temporary = Path(f"{FILE}.{os.urandom(6).hex()}")
    with failures_named("written", Path(FILE)), suppress(FileNotFoundError):
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
        try:
            with os.fdopen(descriptor, "w") as file:
                os.fchown(descriptor, uid, gid)
                file.write(text)
            temporary.rename(FILE)
        finally:
            temporary.unlink(missing_ok=True)  # where the disk is full
