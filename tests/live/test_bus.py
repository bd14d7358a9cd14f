"""The connection to systemd: opened late, opened again, and named in every error."""

import os
import socket
import subprocess
import sys

import pytest

from live.common import recipe, recipectl, systemctl
from recipectl.errors import BusError
from recipectl.place import Place
from recipectl.systemd.dbus import Manager

pytestmark = pytest.mark.systemd


def lose(manager: Manager) -> None:
    """End the connection under the manager, as a restart of the bus does."""
    with socket.socket(fileno=os.dup(manager._connection.get_fd())) as connection:
        connection.shutdown(socket.SHUT_RDWR)


def test_no_connection_is_opened_before_the_first_request() -> None:
    with Manager(Place()) as manager:
        assert manager._connection is None
        assert manager.version() >= 252
        assert manager._connection is not None


def test_a_lost_connection_is_opened_once_more() -> None:
    with Manager(Place()) as manager:
        before = manager.version()
        lose(manager)
        assert manager.version() == before
        lose(manager)
        manager.reload()


def test_jobs_are_reported_after_a_lost_connection() -> None:
    recipe("a", port=18201)
    assert recipectl("apply").returncode == 0
    with Manager(Place()) as manager:
        assert manager.job("Stop", "model-a.service") == "done"
        lose(manager)
        assert manager.job("Start", "model-a.service") == "done"
    assert systemctl("is-active", "model-a.service") == "active"


def test_a_connection_that_is_lost_while_a_job_is_waited_for_is_told() -> None:
    recipe("a", port=18201)
    assert recipectl("apply").returncode == 0
    with Manager(Place()) as manager:
        job = manager.queue("Start", "model-a.service")
        lose(manager)
        with pytest.raises(
            BusError, match=r"connection to systemd was lost before the job ended; the job goes on"
        ):
            manager.result(job)
    assert recipectl("wait", "a").returncode == 0


def test_a_refusal_names_what_was_asked_and_what_to_try() -> None:
    recipe("a", port=18201)
    assert recipectl("apply").returncode == 0
    words = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", sys.executable, "-m", "recipectl"]
    refused = subprocess.run([*words, "stop", "a"], capture_output=True, text=True, check=False)
    assert refused.returncode == 1
    assert refused.stderr.startswith("systemd did not stop model-a.service: ")
    assert refused.stderr.endswith(
        "; run it as root (sudo), as a member of the group models, or with --user for your own units\n"
    )
