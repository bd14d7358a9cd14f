"""The keys of the gateway: from the files of its credentials to what nginx loads.

A verb of the helper, standard library only. It runs as the gateway's user, in its runtime folder.
"""

import argparse
import hashlib
import json
import os
import re
from pathlib import Path

from recipectl.journal import say
from recipectl.text import TOKEN

# What looks like a key by its characters: in the place of a name it would be in the journal.
_RANDOM = re.compile(
    r"(?=.*[0-9])(?=.*[a-z])(?=.*[A-Z])[A-Za-z0-9+/=_.-]{24,}|(?=.*[0-9])(?=.*[a-f])[0-9a-f-]{32,}"
)
ENGINE_PREFIX = "engine-"  # of the credentials with the keys of engines' own APIs
KEY_VARIABLES = ("VLLM_API_KEY", "LLAMA_API_KEY")  # what engines read the keys of their APIs from
_LINE = re.compile(r"(\S+)[ \t]+(\S+)\Z")
_ENGINE_LINE = re.compile(rf"({'|'.join(KEY_VARIABLES)})\s*=(.*)\Z")


def parse(content: bytes) -> dict[str, str]:
    """SHA-256 of a key -> its name, from lines `name key`; ValueError names a wrong line, and no key."""
    keys: dict[str, str] = {}
    try:
        lines = content.decode("utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        number = content[: error.start].count(b"\n") + 1
        raise ValueError(f"line {number} is not UTF-8") from error
    for number, line in enumerate(lines, 1):
        stripped = line.strip()
        if not stripped or stripped.startswith("#"):
            continue
        match = _LINE.match(stripped)
        if not match:
            raise ValueError(f"line {number} is not `name key`")
        name, key = match.groups()
        if TOKEN.match(name) or (_RANDOM.fullmatch(name) and not _RANDOM.fullmatch(key)):
            raise ValueError(f"line {number} has a key where its name should be; write `name key`")
        digest = hashlib.sha256(key.encode()).hexdigest()
        if digest in keys:
            raise ValueError(f"line {number} has the key of `{keys[digest]}` once more")
        keys[digest] = name
    if not keys:
        raise ValueError("it has no key")
    return keys


def engine_key(content: bytes) -> str:
    """A key of an engine's API from a file of EnvironmentFile=; empty without one. The last line counts.

    llama.cpp takes several keys with commas between them (llama-server --help); the first is as good as any.
    """
    lines = content.decode(errors="replace").splitlines()
    lines_of_keys = [match for line in lines if (match := _ENGINE_LINE.match(line.strip()))]
    if not lines_of_keys:
        return ""
    name, value = lines_of_keys[-1].groups()
    value = value.strip().strip("\"'")
    return value.partition(",")[0] if name == "LLAMA_API_KEY" else value


def as_objects(keys: dict[str, str], engines: dict[str, str]) -> dict[str, str]:
    """File name -> JSON for js_preload_object; `engines` are recipe -> key."""
    tables = {"keys.json": keys, "engines.json": engines}
    return {
        file: json.dumps({f":{name}": table[name] for name in sorted(table)})
        for file, table in tables.items()
    }


def prepare_gateway(_: argparse.Namespace) -> int:
    """Write the keys of the gateway and of the engines behind it from credentials; 1 for a wrong file."""
    folder = Path(os.environ.get("CREDENTIALS_DIRECTORY", "/nowhere"))
    files = {path.name: path.read_bytes() for path in folder.glob("*")}
    keys = {}
    if "keys" in files:
        try:
            keys = parse(files["keys"])
        except ValueError as error:
            say(f"the file of `gateway.keys` is wrong: {error}; correct it")
            return 1
    engines = {
        name.removeprefix(ENGINE_PREFIX): engine_key(content)
        for name, content in files.items()
        if name.startswith(ENGINE_PREFIX)
    }
    for name, text in as_objects(keys, engines).items():
        Path(os.environ["RUNTIME_DIRECTORY"], name).write_text(text)
    return 0
