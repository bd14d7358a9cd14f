"""Small wheels, for tests that install something."""

import base64
import hashlib
import zipfile
from pathlib import Path


def wheel(folder: Path, name: str, version: str, files: dict[str, str | bytes], *needs: str) -> Path:
    """A wheel of a distribution (name with `_`) with these files, its RECORD, and what it requires."""
    information = f"{name}-{version}.dist-info"
    metadata = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
    metadata += "".join(f"Requires-Dist: {need}\n" for need in needs)
    tag = "Wheel-Version: 1.0\nGenerator: tests\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
    everything = files | {f"{information}/METADATA": metadata, f"{information}/WHEEL": tag}
    contents = {path: text.encode() if isinstance(text, str) else text for path, text in everything.items()}
    rows = [f"{path},{digest(content)},{len(content)}" for path, content in contents.items()]
    record = "\n".join([*rows, f"{information}/RECORD,,", ""])
    path = folder / f"{name}-{version}-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for inside, content in {**contents, f"{information}/RECORD": record.encode()}.items():
            archive.writestr(zipfile.ZipInfo(inside, (2026, 1, 1, 0, 0, 0)), content)
    return path


def digest(content: bytes) -> str:
    """A digest as RECORD spells it."""
    return f"sha256={base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b'=').decode()}"
