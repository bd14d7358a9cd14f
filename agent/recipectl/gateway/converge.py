"""What must change so that the gateway serves what the recipes say, and its change."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from recipectl.converge.values import Action, Survey
from recipectl.errors import HostError, RecipectlError, on_host
from recipectl.files import failures_named, remove, write_whole
from recipectl.gateway import engine_keys, host
from recipectl.gateway.configuration import FOLDER, Gateway
from recipectl.machine import access, sockets
from recipectl.machine.disk import Disk
from recipectl.systemd.dbus import Manager
from recipectl.systemd.unitfile import GATEWAY, GATEWAY_USER

_FILES_CHANGED = "what it serves changed"
_EDITED = "it was edited by hand"
_KEYS_CHANGED = "the keys of engines' own APIs changed"
_LISTEN = re.compile(r"^ *listen [^ ;]+:([0-9]+)[^;]*;", re.M)
_LONGEST_STOP_SEC = 300
_REFUSES = "new requests are refused until those that run have ended, a minute at most"
_NO_LONGER = "the host file has no `gateway:` any more"


class Present(NamedTuple):
    """The gateway's files by name as they are, the digest that the running nginx has loaded, and its keys."""

    files: Mapping[str, str]
    loaded: str | None
    engine_keys: str


def present() -> Present:
    """The gateway as it is on this host."""
    return Present(host.installed(Path(FOLDER)), host.loaded(), engine_keys.present())


def gateway_actions(
    gateway: Gateway, survey: Survey, state: Present, *, due: Action | None
) -> tuple[Action, ...]:
    """The actions of the gateway; `due` is its restart. Its unit is written with all units, by their plan."""
    changed = _EDITED if state.loaded == gateway.digest else _FILES_CHANGED
    actions = [
        Action("write file", f"{FOLDER}/{name}", changed if name in state.files else "it is new")
        for name, text in gateway.files.items()
        if state.files.get(name) != text
    ]
    if survey.is_up(GATEWAY) and due is None:
        keys = engine_keys.expected(gateway.engine_credentials)
        if state.engine_keys and keys not in (None, state.engine_keys):
            actions.append(Action("write file", engine_keys.FILE, _KEYS_CHANGED))
    is_stale = bool(actions) or state.loaded != gateway.digest
    if access.identity(GATEWAY_USER, Disk())[0] < 0:
        actions.insert(0, Action("create user", GATEWAY_USER, "a unit runs as this user"))
    is_new = GATEWAY not in survey.installed
    if is_new:
        actions.append(Action("enable", GATEWAY, "the host file has `gateway:`"))
    if survey.is_up(GATEWAY):
        only_keys = [action.unit for action in actions] == [engine_keys.FILE]
        reason = _KEYS_CHANGED if only_keys else changed
        refresh = due or (Action("reload service", GATEWAY, reason) if is_stale else None)
        return (*actions, *filter(None, (refresh,)))
    is_wanted = is_new or GATEWAY in survey.enabled  # else an operator has disabled it
    if is_wanted and not survey.is_coming_up(GATEWAY):
        failed = ", and it has failed" if survey.failed(GATEWAY) else ""
        actions.append(Action("start", GATEWAY, f"the host file has `gateway:`{failed}"))
    return tuple(actions)


def removal(survey: Survey, state: Present) -> tuple[Action, ...]:
    """The actions that end a gateway."""
    unit = [Action("remove", GATEWAY, _NO_LONGER)] if GATEWAY in survey.installed else []
    return (*unit, *(Action("remove file", f"{FOLDER}/{name}", _NO_LONGER) for name in state.files))


def restart_that_is_due(gateway: Gateway, survey: Survey, state: Present) -> Action | None:
    """The restart that the gateway needs where a reload is not enough: for credentials, or its sandbox."""
    if reason := reason_to_restart(gateway, survey, state):
        return Action("restart", GATEWAY, f"{reason}; {_REFUSES}")
    if GATEWAY in survey.rotated:
        return Action("restart", GATEWAY, f"a file of its keys or its certificate was changed; {_REFUSES}")
    return None


def reason_to_restart(gateway: Gateway, survey: Survey, state: Present) -> str:
    """Why nginx, as it runs, cannot serve the new files; empty where it can."""
    if not survey.is_up(GATEWAY):
        return ""
    if survey.started.get(GATEWAY) not in (None, gateway.unit_digest):
        return "its unit changed"
    before, after = (_LISTEN.search(files.get("nginx.conf", "")) for files in (state.files, gateway.files))
    # nginx binds its new address before it gives up the old one, and both cannot have one port.
    moved = before and after and before[1] == after[1] and before[0] != after[0]
    return "its address changed, at the same port" if moved else ""


def write_files(actions: Sequence[Action], gateway: Gateway, report: Callable[[Action], None]) -> None:
    """Write the files, each whole or not at all. nginx goes on with what it has loaded."""
    written = [action for action in actions if action.verb == "write file"]
    files = [Path(action.unit) for action in written if action.unit != engine_keys.FILE]
    contents = {file: gateway.files[file.name] for file in files}
    if contents:
        with failures_named("written", Path(FOLDER)):
            Path(FOLDER).mkdir(parents=True, exist_ok=True)
            Path(FOLDER).chmod(0o755)  # nginx's user reads it, whatever root's umask is
    write_whole(contents, durable=True)
    keys = engine_keys.expected(gateway.engine_credentials) if len(files) < len(written) else None
    if keys is not None:
        engine_keys.write(keys)
    for action in written:
        report(action)


def put_files_back(before: Present) -> None:
    """Write the files as they were, each whole or not at all: nginx may start again at any time."""
    with suppress(RecipectlError):  # the disk is full: what is there stays
        now = host.installed(Path(FOLDER))
        files = {Path(FOLDER, name): text for name, text in before.files.items() if now.get(name) != text}
        write_whole(files, durable=True)


def finish(
    actions: Sequence[Action],
    gateway: Gateway | None,
    before: Present,
    manager: Manager,
    report: Callable[[Action], None],
) -> None:
    """Reload nginx where that is due, and wait until it serves what it should.

    HostError if it does not: where it served `before`, it does so again.
    """
    _remove_files(actions, report, with_folder=gateway is None)
    verbs = {action.verb for action in actions if action.unit == GATEWAY}
    if gateway is None or not verbs & {"reload service", "start", "restart"}:
        return
    # The plan has queued a start: this job joins it, and at a boot it may wait for the network.
    # A gateway that could not listen waits for its next attempt: systemd cannot reload it then.
    is_up = manager.state(GATEWAY).active_state == "active"
    reloads = "reload service" in verbs and is_up
    _wait_for_the_port(gateway, manager)
    since_sec, workers = time.time(), host.accepting_workers() if reloads else set()
    result = manager.job("Reload" if reloads else "Start", GATEWAY)
    failure = f"{GATEWAY} did not start or reload (its job was {result})"

    def has_ended() -> bool:
        return manager.state(GATEWAY).waits_to_restart

    if result == "done":
        failure = host.wait_until_loaded(gateway.digest, has_ended, since_sec, workers) or ""
    if failure:
        failure += _cause(gateway, since_sec)
        # A worker that is stuck is no reason to undo what nginx has loaded.
        is_loaded = host.loaded() == gateway.digest
        if (
            before.files
            and not is_loaded
            and _put_back(before, manager, has_ended, restart="reload service" not in verbs)
        ):
            failure += "; it goes on with its earlier configuration"
        raise HostError([on_host("unit", f"{failure}; see `journalctl -u models-gateway`")])
    for action in actions:
        if action.verb == "reload service":
            report(action)


def _remove_files(actions: Sequence[Action], report: Callable[[Action], None], *, with_folder: bool) -> None:
    for action in actions:
        if action.verb == "remove file":
            remove(Path(action.unit))
            report(action)
    if with_folder:
        with suppress(OSError):  # the site has files there
            Path(FOLDER).rmdir()


def _wait_for_the_port(gateway: Gateway, manager: Manager) -> None:
    """Wait while a model that had the gateway's port until now ends, or is about to."""
    address, port = gateway.settings.address
    end = time.monotonic() + _LONGEST_STOP_SEC

    def is_ending() -> bool:
        units = [holder.unit for holder in sockets.holders(port, address) if holder.unit]
        states = manager.states([unit for unit in units if unit.startswith("model-")])
        return any(state.active_state == "deactivating" or state.job for state in states)

    while is_ending() and time.monotonic() < end:
        time.sleep(0.1)


def _cause(gateway: Gateway, since_sec: float) -> str:
    """Why nginx does not serve its new configuration, as a clause; empty where nothing tells."""
    address, port = gateway.settings.address
    for holder in sockets.holders(port, address):
        if holder.unit != GATEWAY:
            return f": {gateway.settings.listen} is taken by {holder}"
    reason = host.refusal(since_sec)
    return f": {reason}" if reason else ""


def _put_back(before: Present, manager: Manager, has_ended: Callable[[], bool], *, restart: bool) -> bool:
    """Put the earlier nginx.conf back, and keep the new routes. True if nginx loads it."""
    since_sec, workers = time.time(), host.accepting_workers()
    files = {Path(FOLDER, name): text for name, text in before.files.items() if name == "nginx.conf"}
    write_whole(files, durable=True)
    if not before.loaded:
        return False
    manager.job("Restart" if restart else "Reload", GATEWAY)
    return host.wait_until_loaded(before.loaded, has_ended, since_sec, workers) is None
