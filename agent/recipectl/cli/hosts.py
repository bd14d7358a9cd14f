"""What a member of a set says of its hosts (`nodes: {hosts: …}`)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from recipectl.systemd.unitfile import UnitNames
from recipectl.tie_state import state_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from recipectl.place import Place
    from recipectl.systemd.states import UnitState
    from recipectl.systemd.unitfile import InstalledUnit


def set_rows(place: Place, unit: InstalledUnit) -> list[dict[str, object]]:
    """Each host: is it connected, its engine's version, and whether the set is ready; [] without a set."""
    state = state_of(UnitNames(unit.recipe).tie_stem, user=place.user)
    if not state or state["rank"] >= len(state["hosts"]):
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
    version = f", {row['engine_version']}" if row["connected"] and row["engine_version"] else ""
    ready = ", the set is ready" if row["ready"] and row["rank"] == 0 else ""
    return f"{row['host']} ({role}): {there}{version}{ready}"


def missing_hosts(place: Place, unit: InstalledUnit | None) -> list[str]:
    """The hosts that a member waits for."""
    rows = set_rows(place, unit) if unit and not place.remote else []
    return [str(row["host"]) for row in rows if not row["connected"]]


def without_tie(place: Place, state: UnitState, unit: InstalledUnit | None) -> str | None:
    """That the tie of a running member does not run."""
    names = UnitNames.of_service(state.name)
    if (
        unit is None
        or place.remote
        or state.word != "ready"
        or names.tie not in " ".join(unit.setting("Wants"))
    ):
        return None
    if set_rows(place, unit):
        return None
    remedy = f"run `recipectl restart {names.recipe}`"
    return f"{names.tie} does not run, so nothing ends this member with the others; {remedy}"
