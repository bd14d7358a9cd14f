"""What a running unit was started with. An apply compares it with the unit on disk."""

import re
from pathlib import Path

from recipectl.systemd import quoting
from recipectl.systemd.unitfile import DIGEST_FIELD, parse_settings

_FIELD = re.compile(rf"{DIGEST_FIELD}=([0-9a-f]{{12}})".encode())


def started_digest(unit: str, runtime_folder: str, *, user: bool) -> str | None:
    """The digest of the unit that started a running process, empty for a unit of an earlier release.

    None when it cannot be read. The engine has no part in it: systemd keeps the LogExtraFields= of a running
    unit in this file until the unit's next start (unit_export_log_extra_fields() in its source), also after a
    reload. A user's manager keeps none; there the helper notes it.
    """
    folder = "recipectl/started" if user else "systemd/units"
    file = Path(runtime_folder, folder, unit if user else f"log-extra-fields:{unit}")
    try:
        text = _beginning(file)
    except FileNotFoundError:
        return ""
    except OSError:
        return None
    if user:
        return text.decode(errors="replace")
    match = _FIELD.search(text)
    return match[1].decode() if match else ""


def shows_other_fields(unit: str, text: str, runtime_folder: str) -> bool:
    """True if a unit of the system that is up shows other LogExtraFields= than its text."""
    settings = (setting for setting in parse_settings(text) if setting.name == "LogExtraFields")
    fields = [
        word.replace("%%", "%").encode() for setting in settings for word in quoting.split(setting.value)
    ]
    try:
        shown = _beginning(Path(runtime_folder, "systemd/units", f"log-extra-fields:{unit}"))
    except OSError:
        return False  # it went meanwhile, or an earlier release started it
    return not all(field in shown for field in fields)


def _beginning(file: Path) -> bytes:
    with file.open("rb") as opened:
        return opened.read(65536)
