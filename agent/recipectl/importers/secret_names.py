"""Which variables of other tools' files are likely secrets: more of them than in a recipe."""

import re

from recipectl.compiler.secrets import looks_secret
from recipectl.importers.draft import VARIABLE_START

_NAME = re.compile(
    r"(^|_)(\w*KEY|\w*PASS|PW|AUTH|JWT|BEARER|SK|DSN|COOKIE|SALT|CONNECTION_STRING|WEBHOOK(_URL)?)$", re.I
)
# Values of any length count under these names.
_ALWAYS = re.compile(
    r"((SECRET|MASTER|API|ACCESS|PRIVATE|ENCRYPTION|SIGNING|SESSION)_?KEY|AUTHKEY|(^|_)(JWT|BEARER|DSN))\Z",
    re.I,
)
_PLAIN_NAME = re.compile(
    r"((PUBLIC|CACHE|\AMODEL|SORT|PARTITION|HASH|PRIMARY|FOREIGN)_?KEY|BYPASS|COMPASS)\Z", re.I
)
_HOOK = re.compile(
    r"https?://(hooks\.slack\.com/services/|[^/@\s]+@)|/bot\d+:[\w-]+|\btskey-\w|\bAccountKey=\S"
)
_SWITCHES = ("", "0", "1", "true", "false", "yes", "no", "on", "off", "none", "enabled", "disabled")


def is_likely_secret(name: str, value: str) -> bool:
    """True if a variable is likely a secret, by name or value; a path or a host variable is none."""
    if looks_secret(name, value) or _HOOK.search(value):
        return True
    if _PLAIN_NAME.search(name) or re.search(r"\.[a-z]{2,4}\Z", value) or value.lower() in _SWITCHES:
        return False
    is_likely = _ALWAYS.search(name) or (_NAME.search(name) and len(value) > 5)
    return bool(is_likely) and not value.startswith(("/", VARIABLE_START))
