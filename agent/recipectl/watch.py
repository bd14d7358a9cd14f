"""The watch of a running engine: asks it again and again, and leaves a mark when it hangs.

A verb of the helper, standard library only. It runs without privilege and without the bus.
"""

import argparse
import os
import sys
import time
from pathlib import Path

from recipectl.machine import processes, sockets

_HUNG_STATUS = 42  # the unit has RestartPreventExitStatus= for it


def watch(options: argparse.Namespace) -> int:
    """Ask a running engine again and again; after --failures failures in a row, leave a mark and end with 42.

    Without privilege and without the bus: the unit that kills the engine looks only for the mark.
    """
    unit = options.units[0]
    mark = Path(os.environ["RUNTIME_DIRECTORY"], "hung")
    mark.unlink(missing_ok=True)
    folder = processes.cgroup_folder(unit)
    failures = 0
    while folder and processes.has_processes(folder):
        time.sleep(options.every_sec)
        status = sockets.http_status(options.address, options.port, options.path, options.timeout_sec)
        if not processes.has_processes(folder):
            break
        failures = 0 if status == 200 else failures + 1
        if failures:
            message = f"{unit} does not answer {options.path} ({failures} of {options.failures})"
            print(message, file=sys.stderr, flush=True)
        if failures >= options.failures:
            mark.touch()
            return _HUNG_STATUS
    return 0  # it has ended: it starts its watch again
