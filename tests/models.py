"""Compiled models and states of units, as the tests of plans need them."""

from dataclasses import dataclass

from recipectl.compiler.model import CompiledModel
from recipectl.recipe.gpu_selection import UNSET
from recipectl.systemd.unitfile import Unit

TEXT = "[Service]\n\n[X-Recipectl]\nRecipe={name}\nDigest=0123456789ab\n"


@dataclass(frozen=True)
class State:
    active_state: str = "inactive"
    started_digest: str | None = None
    main_pid: int = 0
    waits_to_restart: bool = False
    job: str = ""
    name: str = ""

    @property
    def will_stop(self) -> bool:
        return self.job in ("stop", "restart")

    @property
    def is_down(self) -> bool:
        return self.active_state in ("inactive", "failed")


def model(
    name: str = "qwen", *, text: str = "", units: tuple[Unit, ...] = (), **fields: object
) -> CompiledModel:
    """A model as the compiler gives it, without relations."""
    defaults: dict[str, object] = {
        "name": name, "file": f"/r/{name}.yaml", "backend": "vllm", "user": None, "user_in_front": None, "digest": "0123456789ab",
        "units": units or (Unit(f"model-{name}.service", text or TEXT.format(name=name)),), "autostart": None, "on_demand": False, "queued": False, "watched": False,
        "gpus": UNSET, "url": None, "socket_address": None, "requires": (), "rivals": (), "warnings": (),
    }  # fmt: skip
    return CompiledModel(**(defaults | fields))  # type: ignore[arg-type]
