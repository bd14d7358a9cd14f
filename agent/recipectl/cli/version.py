"""--version: the release, where it was installed from, and systemd's version."""

import importlib
import json
import re
import subprocess
from importlib.metadata import distribution
from pathlib import Path
from urllib.parse import unquote, urlsplit


def text() -> str:
    """The line of `recipectl --version`."""
    installed = distribution("recipectl")
    try:
        answer = subprocess.run(["/usr/bin/systemctl", "--version"], capture_output=True, text=True).stdout
    except OSError:
        answer = ""
    systemd = next(iter(answer.splitlines()), "no systemd")
    origin = _package() or _folder(installed.read_text("direct_url.json") or "{}") or "wheel"
    return f"recipectl {installed.version} ({origin}), {systemd}"


def _package() -> str:
    """The package and the commit, as the build of a package writes them."""
    try:
        build = importlib.import_module("recipectl.build")
    except ImportError:
        return ""
    return f"{build.package}, commit {build.commit}"


def _folder(direct_url: str) -> str:
    """The folder that was installed from, with its commit (PEP 610)."""
    folder = Path(unquote(urlsplit(str(json.loads(direct_url).get("url", ""))).path))
    head = folder / ".git/HEAD"
    if not head.is_file():
        return ""
    content = head.read_text().strip()
    reference = folder / ".git" / content.removeprefix("ref: ")
    commit = reference.read_text() if content.startswith("ref: ") and reference.is_file() else content
    return f"{folder}, commit {commit[:12]}" if re.match("[0-9a-f]{12}", commit) else str(folder)
