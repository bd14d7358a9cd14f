"""The short and the long forms of a Compose service's keys, as the options of `docker run` have them."""

import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from recipectl.importers.compose_deploy import gpus_of
from recipectl.importers.compose_words import scalar
from recipectl.importers.draft import VARIABLE_START, host_variable
from recipectl.importers.lines import Remark
from recipectl.importers.shapes import mapping, sequence


def texts(key: str, value: Any, folder: Path, lost: list[Remark]) -> Iterator[str]:
    """The values of one key, each as the option of `docker run` has it."""
    if key == "environment" and isinstance(value, dict):
        yield from (f"{name}" if text is None else f"{name}={scalar(text)}" for name, text in value.items())
        return
    if key == "ulimits":
        for name, limit in mapping(value, key).items():
            parts = (limit.get("soft", ""), limit.get("hard", "")) if isinstance(limit, dict) else (limit,)
            yield f"{name}={':'.join(map(str, parts))}"
        return
    for item in value if key == "networks" and isinstance(value, dict) else sequence(value, key):
        if isinstance(item, dict) and item.get("type") == "tmpfs":
            continue  # a folder of the container alone
        text = _text_of_item(key, item) if isinstance(item, dict) else str(item)
        if isinstance(item, dict) and key == "volumes":
            is_relative = not text.startswith(("/", "~", ".", VARIABLE_START))
            text = f"./{text}" if item.get("type") == "bind" and is_relative else text
            if subpath := mapping(item.get("volume"), "volume").get("subpath"):
                lost.append(Remark(f"`subpath: {subpath}` of the volume `{item.get('source')}`"))
        if key in ("volumes", "env_file"):
            text = re.sub(r"^~(?=/)", host_variable("HOME"), text)
            is_of_folder = key == "env_file" and not text.startswith(VARIABLE_START)
            text = str(folder / text) if text.startswith(".") or is_of_folder else text
        is_optional = isinstance(item, dict) and not item.get("required", True)
        if is_optional and not os.path.exists(text):  # noqa: PTH110  (no error in a closed folder)
            lost.append(Remark(f"the variables in {text}, which is not here"))
        else:
            yield text


def _text_of_item(key: str, item: Mapping[str, Any]) -> str:
    """A port, volume, GPU or file in its long form, as the option of `docker run` has it."""
    match key:
        case "ports":
            address, published = item.get("host_ip"), item.get("published")
            parts = [published] if address is None and published is not None else []
            parts = parts if address is None else [address, "" if published is None else published]
            return ":".join(map(str, (*parts, f"{item.get('target')}/{item.get('protocol', 'tcp')}")))
        case "volumes":
            return f"{item.get('source', '')}:{item.get('target', '')}{':ro' * bool(item.get('read_only'))}"
        case "gpus":
            return gpus_of(item)
        case "devices":
            return f"{item.get('source', '')}:{item.get('target', item.get('source', ''))}"
        case _:
            return str(item.get("path", ""))
