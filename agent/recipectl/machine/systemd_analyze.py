"""What systemd-analyze(1) says of settings before a unit has them."""

import re
import shutil
import subprocess
import tempfile
from functools import cache
from pathlib import Path

from recipectl.errors import UsageError


@cache
def ignored_settings(lines: tuple[tuple[str, str], ...]) -> tuple[tuple[str, str], ...]:
    """(setting, what systemd-analyze says about its value); nothing where that is not installed.

    UsageError where it does not answer: nobody may take that for a right value.
    """
    if not shutil.which("systemd-analyze"):
        return ()
    text = ["[Unit]", "DefaultDependencies=no", *(line for section, line in lines if section == "Unit")]
    text += ["[Service]", "ExecStart=/bin/true", *(line for section, line in lines if section == "Service")]
    try:
        with tempfile.TemporaryDirectory(prefix="recipectl-") as folder:
            file = Path(folder, "values.service")
            file.write_text("\n".join([*text, ""]), errors="surrogateescape")
            words = ["systemd-analyze", "verify", "--man=no", "--recursive-errors=no", str(file)]
            output = subprocess.run(words, capture_output=True, text=True, check=False, timeout=30).stderr  # noqa: S603  (fixed words)
    except (OSError, subprocess.TimeoutExpired) as error:
        reason = error.strerror if isinstance(error, OSError) else "it did not answer within 30 s"
        fault = f"systemd-analyze could not check `service:` ({reason})"
        raise UsageError(f"{fault}; run this again", "service", kind="setting") from error
    remarks = re.findall(rf"^{re.escape(str(file))}:([0-9]+): (.*gnoring.*)$", output, re.M)
    # service_settings reports unknown settings.
    known = ((number, reason) for number, reason in remarks if "Unknown" not in reason)
    return tuple((text[int(number) - 1].partition("=")[0], reason) for number, reason in known)
