"""recipectl on a terminal, for the tests: what it shows there, and what a person types."""

import os
import pty
import subprocess
import sys
from collections.abc import Callable, Mapping


def on_terminal(
    *words: str,
    environment: Mapping[str, str] | None = None,
    keys: str = "",
    watch: Callable[[str], object] | None = None,
) -> str:
    """What a terminal of 80 columns gets from a verb, control characters and all; `watch` gets it as it comes."""
    main, other = pty.openpty()
    variables = os.environ | {"TERM": "xterm", "COLUMNS": "80"} | dict(environment or {})
    command = [sys.executable, "-m", "recipectl", *words]
    process = subprocess.Popen(command, stdin=other, stdout=other, stderr=other, env=variables)
    os.close(other)
    os.write(main, keys.encode())
    output = b""
    while True:
        try:
            part = os.read(main, 65536)
        except OSError:  # EIO: nobody has it open any more
            break
        if not part:
            break
        output += part
        if watch:
            watch(output.decode(errors="replace"))
    process.wait()
    os.close(main)
    return output.decode()
