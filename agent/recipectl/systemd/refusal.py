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
