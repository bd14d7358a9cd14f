"""What `venv verify` has found, kept until a file of the venv is touched."""

import contextlib
import hashlib
import json
import time
from pathlib import Path

from recipectl.errors import RecipectlError
from recipectl.files import read_own, write_whole
from recipectl.machine import lockfile
from recipectl.machine.distributions import lock_of
from recipectl.machine.installation import release
from recipectl.venvs.verify import Finding, Status, statuses, verify

_SETTLED_SEC = 2  # a file that was written just now may be written again within the same tick of its clock


def findings(venv: Path, cache: Path) -> list[Finding]:
    """What differs between a venv and its records; files are read when one was touched."""
    begin = time.time()
    files = statuses(venv)
    lock = lockfile.digest(lock_of(venv))
    fingerprint = _fingerprint(files, lock)
    known = cache / "venvs" / f"{hashlib.sha256(str(venv).encode()).hexdigest()}.json"
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        last = json.loads(read_own(known))
        if last["fingerprint"] == fingerprint:
            return [Finding(*map(str, row)) for row in last["findings"]]
    differences = verify(venv, files)
    newest = max((status.ctime_ns for status in files.values()), default=0) / 1e9
    if newest < begin - _SETTLED_SEC and _fingerprint(statuses(venv), lock) == fingerprint:
        with contextlib.suppress(RecipectlError):  # somebody who only looks
            write_whole(
                {known: json.dumps({"fingerprint": fingerprint, "findings": differences})}, mode=0o600
            )
    return differences


def _fingerprint(files: dict[str, Status], lock: str) -> str:
    digest = hashlib.sha256(f"{release()} {lock}".encode())
    for name in sorted(files):
        digest.update(f"{name}\0{files[name]}\0".encode(errors="surrogateescape"))
    return digest.hexdigest()
