"""What runs beside a model: the hosts of its set (`nodes: {hosts: …}`), its tie, its watch, its queue."""

from __future__ import annotations

from typing import TYPE_CHECKING

from recipectl.place import Place
from recipectl.systemd.unitfile import UnitNames
from recipectl.tie_state import state_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from recipectl.systemd.dbus import Manager
    from recipectl.systemd.states import UnitState
    from recipectl.systemd.unitfile import InstalledUnit


def set_rows(place: Place, model: str) -> list[dict[str, object]]:
    """Each host: is it connected, its engine's version, and whether the set is ready; [] without a set."""
    state = state_of(UnitNames(model).tie_stem, user=place.user)
    if not state:
        return []
    return [
        {
            "host": host,
            "rank": rank,
            "connected": rank in state["connected"],
            "engine_version": state["versions"].get(str(rank)),
            "ready": state["ready"],
        }
        for rank, host in enumerate(state["hosts"])
    ]


def set_line(row: Mapping[str, object]) -> str:
    """One host in words."""
    role = "head" if row["rank"] == 0 else f"rank {row['rank']}"
    there = "connected" if row["connected"] else "missing"
    version = (
        f", {row['engine_version']}"
        if row["connected"] and row["engine_version"] not in (None, "unknown")
        else ""
    )
    ready = ", the set is ready" if row["ready"] and row["rank"] == 0 else ""
    return f"{row['host']} ({role}): {there}{version}{ready}"


def missing_hosts(place: Place, model: str) -> list[str]:
    """The hosts that a member waits for; none on another host."""
    rows = [] if place.remote else set_rows(place, model)
    return [str(row["host"]) for row in rows if not row["connected"]]


def waiting_requests(
    manager: Manager, states: Sequence[UnitState], units: Sequence[InstalledUnit | None]
) -> dict[str, str]:
    """Service of a stopped model on demand -> what a request for it waits for, until its rivals are idle."""
    proxy_of = {
        UnitNames.of_service(state.name).proxy: state.name
        for state, unit in zip(states, units, strict=True)
        if unit and unit.setting("StopWhenUnneeded") and state.word == "stopped"
    }
    proxies = manager.states([*proxy_of], brief=True) if proxy_of else ()
    reason = "a request waits until the models that conflict with it are idle"
    return {proxy_of[proxy.name]: reason for proxy in proxies if proxy.active_state == "activating"}


def not_running_beside(
    place: Place, manager: Manager, states: Sequence[UnitState], units: Sequence[InstalledUnit | None]
) -> dict[str, list[str]]:
    """Service of a ready model -> what should run beside it and does not: its watch, its queue, its tie."""
    service_of: dict[str, str] = {}
    for state, unit in zip(states, units, strict=True):
        names = UnitNames.of_service(state.name)
        if not unit or state.word != "ready":
            continue
        beside = {*unit.wants} & {*names.every}
        if names.queue_socket in beside:
            beside.add(names.queue)  # it starts with the first request
        if names.queue_socket in beside or unit.setting("StopWhenUnneeded"):
            beside.add(names.reachable)  # the socket wants it, where the host has a gateway
        service_of |= dict.fromkeys(beside, state.name)
    down: dict[str, list[str]] = {}
    for other in manager.states([*service_of], brief=True) if service_of else ():
        names = UnitNames.of_service(service_of[other.name])
        never_asked = other.name == names.queue and other.active_state == "inactive"
        restarts = other.waits_to_restart or bool(other.crashes)
        # systemd loads what a loaded unit wants: without a gateway, nothing wants `reachable`.
        is_there = other.load_state not in ("not-found", "unloaded")
        if is_there and ((other.is_down and not never_asked) or restarts):
            # A tie that starts beside a running member would wait for its end.
            remedy = (
                place.verb(f"restart {names.recipe}")
                if other.name == names.tie
                else place.systemctl(f"start {other.name}")
            )
            if restarts:
                remedy = place.systemctl(f"status {other.name}")
            word = "restarting" if restarts else other.active_state
            down.setdefault(names.service, []).append(f"{other.name} is {word}; run `{remedy}`")
    return down
