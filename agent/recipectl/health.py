"""The helper under the name and with the words of earlier releases: units that they wrote still run.

`apply` writes the units anew, with a helper of their own; nothing else calls this file.
"""

import contextlib
import os
import socket
import subprocess
import sys
from pathlib import Path

if not __package__:  # run as a program with -I -S, where the package is not on sys.path
    sys.path.append(str(Path(__file__).parents[1]))

from recipectl import helper
from recipectl.machine import sockets

# The options of an earlier verb in the order of its words, and the verb as it is called now; `-` is no value.
_EARLIER = {
    "free": ("wait-until-free", "--address --port"),
    "pinned": ("check-pins", "LIBRARIES --interpreter --python --engine --compiled-for --folder"),
    "locked": ("check-lock", "--lock --policy --interpreter --folder"),
    "devices": ("wait-for-devices", ""),
    "turn": ("wait-for-loads", ""),
    "ready": ("wait-until-ready", "--address --port --path"),
    "spare": ("wait-until-idle", "--patience-sec"),
    "poke": ("connect-once", "--address --port"),
}
# Options that earlier releases did not have. Their units count a SIGKILL as a success.
_FIXED = {"wait-for-devices": ("--vendor", "0x10de"), "wait-until-ready": ("--last-signal", "SIGKILL")}


def _translated(words: list[str]) -> list[str]:
    """The words of an earlier release as the helper of today takes them."""
    verb, arguments = words[0], words[1:]
    user = ["--user"] if "--user" in arguments else []
    if verb not in _EARLIER:  # between two releases, `--libraries` was an option, and NVIDIA the only vendor
        if "--libraries" in arguments:
            index = arguments.index("--libraries")
            sys.path.append(arguments[index + 1])
            del arguments[index : index + 2]
        return ["wait-until-free" if verb == "check-port" else verb, *_FIXED.get(verb, ()), *arguments]
    rest = [word for word in arguments if word != "--user"]
    today, names = _EARLIER[verb]
    options: list[str] = []
    for name in names.split():
        value = rest.pop(0)
        if name == "LIBRARIES":
            sys.path.append(value)
        elif value != "-":
            options += [name, value]
    return [today, *user, *_FIXED.get(today, ()), *options, *rest]


def _notify_ready() -> None:
    """Tell systemd STATUS=, which those units show."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock, contextlib.suppress(OSError):
        sock.connect("\0" + address[1:] if address.startswith("@") else address)
        sock.send(b"STATUS=ready")


def _probe(words: list[str]) -> int:
    """Ask a running engine once, as a watch of an earlier release does; kill it after so many failures."""
    user = ["--user"] if "--user" in words else []
    names = ("--address", "--port", "--path", "--timeout-sec", "--failures", "--action")
    rest = [word for word in words if word != "--user" and word not in names]
    address, port, path, timeout_sec, failures, action, unit = rest
    counter = Path(os.environ.get("RUNTIME_DIRECTORY", "/run"), "failures")
    systemctl = ["/usr/bin/systemctl", *user]
    if subprocess.run([*systemctl, "is-active", "-q", unit], check=False).returncode:  # noqa: S603
        return 0
    if sockets.http_status(address, int(port), path, float(timeout_sec)) == 200:
        counter.unlink(missing_ok=True)
        return 0
    count = 1 + (len(counter.read_text()) if counter.exists() else 0)
    counter.write_text("x" * count)
    print(f"{unit} does not answer {path} ({count} of {failures})", file=sys.stderr, flush=True)
    if count >= int(failures):
        counter.unlink()
        if action == "stop":
            subprocess.run([*systemctl, "stop", "--no-block", unit], check=False)  # noqa: S603
        subprocess.run([*systemctl, "kill", "--signal=SIGKILL", unit], check=False)  # noqa: S603
    return 0


def main(words: list[str]) -> int:
    """Run one verb of an earlier release; the exit status of the helper."""
    if words[:1] == ["probe"]:
        return _probe(words[1:])
    status = helper.main(_translated(words) if words else [])
    if status == 0 and words[:1] in (["ready"], ["wait-until-ready"]):
        _notify_ready()
    return status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
