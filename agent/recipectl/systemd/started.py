"""Which unit a running process was started with. An apply compares it with the unit on disk."""

import re
from pathlib import Path

from recipectl.systemd.unitfile import DIGEST_FIELD

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
        with file.open("rb") as opened:
            text = opened.read(65536)
    except FileNotFoundError:
        return ""
    except OSError:
        return None
    if user:
        return text.decode(errors="replace")
    match = _FIELD.search(text)
    return match[1].decode() if match else ""
