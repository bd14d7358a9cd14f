"""Which GPUs a recipe asks for, as one value whatever its spelling."""

import re
from collections.abc import Sequence
from typing import Literal, NamedTuple

_DEVICE = re.compile(r"[0-9]+|(GPU|MIG)-[0-9A-Za-z/-]+")


class GpuSelection(NamedTuple):
    """The GPUs of a recipe. `devices` are indices (`0`) or ids (`GPU-…`, `MIG-…`), else empty.

    A list that mixes both has the mode `ids`, for an id cannot be written as an index.
    """

    mode: Literal["unset", "none", "all", "indices", "ids"] = "unset"
    devices: tuple[str, ...] = ()

    @property
    def words(self) -> tuple[str, ...]:
        """As people write it: `all`, or the devices; empty when unset or none."""
        return ("all",) if self.mode == "all" else self.devices

    @property
    def indices(self) -> tuple[str, ...]:
        """Those devices that are indices."""
        return tuple(device for device in self.devices if device.isdigit())

    @property
    def mixes_spellings(self) -> bool:
        """True if some devices are indices and others ids."""
        return 0 < len(self.indices) < len(self.devices)


UNSET = GpuSelection()


def parse(words: Sequence[str]) -> GpuSelection:
    """The selection that words name; ValueError, as the end of a sentence about the key, when they do not."""
    for word in words:
        if word in ("all", "none") and len(words) > 1:
            raise ValueError(f"has `{word}` beside other values; give it alone")
        if word not in ("all", "none") and not is_device(word):
            raise ValueError(f"has `{word}`; give indices, `GPU-…` or `MIG-…` ids, `all` or `none`")
    if words and words[0] == "all":
        return GpuSelection("all")
    if not words or words[0] == "none":
        return GpuSelection("none")
    # `01` is `1`.
    devices = tuple(str(int(word)) if word.isdigit() else word for word in words)
    if len({*devices}) < len(devices):
        raise ValueError("names a GPU twice; name it once")
    return GpuSelection("indices" if all(device.isdigit() for device in devices) else "ids", devices)


def is_device(word: str) -> bool:
    """True for an index, a UUID or a MIG id."""
    return _DEVICE.fullmatch(word) is not None
