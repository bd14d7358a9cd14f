"""How long the last load of a model took: the helper writes it, and the next start tells it."""

import contextlib
import os
import re
from pathlib import Path

_FILE = ".last-load-sec"  # in the state directory of a model


def write(load_sec: float, unit: str, *, user: bool) -> None:
    """Keep the time of a load that has ended well; a load does not fail for it."""
    state = os.environ.get("STATE_DIRECTORY", "").partition(":")[0]
    path = _of_user(os.environ["XDG_RUNTIME_DIR"], unit) if user else Path(state, _FILE)
    with contextlib.suppress(OSError):
        if user:
            path.parent.mkdir(parents=True, exist_ok=True)
        if user or state:
            path.write_text(f"{load_sec:.1f}\n")


def _of_user(runtime_folder: str, unit: str) -> Path:
    return Path(runtime_folder, "recipectl/loads", unit)


def last_sec(recipe: str, runtime_folder: str, *, user: bool) -> float | None:
    """How long a model loaded the last time, in seconds; None when nothing tells it.

    The model's own user has written it: it is good for a message, and for nothing else.
    """
    from recipectl.files import read_bounded  # the helper has only `write`

    own = _of_user(runtime_folder, f"model-{recipe}.service")
    try:
        content = read_bounded(own if user else Path("/var/lib/models", recipe, _FILE), 32, follow=False)
    except OSError:
        return None
    text = content.decode(errors="replace")
    return float(text) if re.fullmatch(r"[0-9]{1,6}\.[0-9]\n", text) else None
