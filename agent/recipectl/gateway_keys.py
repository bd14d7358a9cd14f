"""The keys of the gateway: from the files of its credentials to what nginx loads.

A verb of the helper, standard library only. It runs as the gateway's user, in its runtime folder.
"""

import argparse
import hashlib
import json
import os
import re
from pathlib import Path

ENGINE_PREFIX = "engine-"  # of the credentials with the keys of engines' own APIs
_LINE = re.compile(r"(\S+)[ \t]+(\S+)\Z")


def parse(text: str) -> dict[str, str]:
    """SHA-256 of a key -> its name, from lines `name key`; ValueError names a wrong line, and no key."""
    keys: dict[str, str] = {}
    for number, line in enumerate(text.splitlines(), 1):
        stripped = line.strip()
        if not stripped or stripped.startswith("#"):
            continue
        match = _LINE.match(stripped)
        if not match:
            raise ValueError(f"line {number} is not `name key`")
        digest = hashlib.sha256(match[2].encode()).hexdigest()
        if digest in keys:
            raise ValueError(f"line {number} has the key of `{keys[digest]}` once more")
        keys[digest] = match[1]
    if not keys:
        raise ValueError("it has no key")
    return keys


def as_objects(keys: dict[str, str], engines: dict[str, str]) -> dict[str, str]:
    """File name -> JSON for js_preload_object; `engines` are recipe -> key."""
    tables = {"keys.json": keys, "engines.json": engines}
    return {
        file: json.dumps({f":{name}": value for name, value in table.items()})
        for file, table in tables.items()
    }


def prepare_gateway(_: argparse.Namespace) -> int:
    """Write the keys of the gateway and of the engines behind it from their credentials."""
    folder = Path(os.environ.get("CREDENTIALS_DIRECTORY", "/nowhere"))
    files = {path.name: path.read_text() for path in folder.glob("*")}
    keys = {}
    if "keys" in files:
        try:
            keys = parse(files["keys"])
        except ValueError as error:
            raise SystemExit(f"the file of `gateway.keys` is wrong: {error}; correct it") from error
    engines = {
        name.removeprefix(ENGINE_PREFIX): text.strip().partition("=")[2].strip().strip("\"'")
        for name, text in files.items()
        if name.startswith(ENGINE_PREFIX)
    }
    for name, text in as_objects(keys, engines).items():
        Path(os.environ["RUNTIME_DIRECTORY"], name).write_text(text)
    return 0
