"""An exception of pystemd as values; dbus.py turns it into an error that names the request."""

import errno
import re

_LOST = (errno.ECONNRESET, errno.ENOTCONN, errno.EPIPE, errno.ESHUTDOWN)
_DENIED = (errno.EACCES, errno.EPERM)


class Refusal(Exception):  # noqa: N818  (never leaves dbus.py)
    """An exception of pystemd as values: the errno and the words of sd-bus."""

    def __init__(self, error: BaseException) -> None:
        # pystemd says `b'System.Error.X'[err -2]: b'words'`, or the same without the quotes.
        lines = str(error.args[0] if error.args else error).splitlines() or [""]
        match = re.match(r".*?\[err (-?\d+)\]: (.*)", lines[0])
        text = match[2] if match else lines[0]
        quoted = re.match(r"""b(['"])(.*?)\.?\1\Z""", text)
        self.errno = abs(int(match[1])) if match else getattr(error, "errno", 0) or 0
        self.text = quoted[2].replace("\\'", "'") if quoted else text or type(error).__name__
        super().__init__(self.text)

    @property
    def lost(self) -> bool:
        return self.errno in _LOST

    @property
    def denied(self) -> bool:
        """True if the caller may not do that."""
        return self.errno in _DENIED or self.text.startswith("Interactive authentication")

    def remedy(self, *, members_may: bool) -> str:
        """What to try; `members_may` is True for what the polkit rule lets the group models do."""
        if self.denied:
            member = ", as a member of the group models," if members_may else ""
            return f"run it as root (sudo){member} or with --user for your own units"
        if "destructive" in self.text:  # a job of --job-mode=replace-irreversibly
            return "let the job that is in the way end, or cancel it"
        return ""
