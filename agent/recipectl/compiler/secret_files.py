"""What is wrong with the files of a recipe's secrets on this host."""

import os
import re
import stat
from collections.abc import Iterator
from pathlib import Path

from recipectl.compiler import secrets
from recipectl.errors import UsageError
from recipectl.files import is_open, read_bounded
from recipectl.machine.disk import Disk
from recipectl.recipe.schema import HF_TOKENS, Recipe
from recipectl.recipe.trusted import Trust


def check(recipe: Recipe, disk: Disk, trust: Trust | None = None) -> Iterator[UsageError]:
    """Yield what is wrong with the files of secrets: missing, open to others, empty, or in another form."""
    for variable, source in recipe.secrets.items():
        if source.startswith("/") and (sentence := _wrong_secret_file(source, disk, trust)):
            yield UsageError(f"`secrets.{variable}`: {sentence}", "secrets", variable, kind="secret")
        elif source.startswith("/") and not source.endswith(".cred"):
            in_environment = variable in secrets.environment_files(recipe)
            if sentence := _wrong_content(variable, source, in_environment=in_environment):
                yield UsageError(f"`secrets.{variable}`: {sentence}", "secrets", variable, kind="secret")
        elif variable in secrets.environment_files(recipe):
            fault = f"`secrets.{variable}` is read from the environment only"
            sentence = f"{fault}; give the absolute path of a file with a line `{variable}=…`"
            yield UsageError(sentence, "secrets", variable, kind="secret")


def _wrong_secret_file(source: str, disk: Disk, trust: Trust | None) -> str | None:
    mode = disk.node(source).mode  # first of all, so that a cache checks it again
    if not mode:
        visible = os.geteuid() == 0 or os.access(Path(source).parent, os.X_OK)
        return f"{source} does not exist; create it with mode 0600" if visible else None
    if not stat.S_ISREG(mode):
        return f"{source} is not a file; give a file"
    if is_open(mode):
        return f"others may read or change {source}; set mode 0600"
    # systemd reads it as root at each start: nobody else may put another file, or a link, in its place.
    fault = trust.fault(Path(source)) if trust else None
    return f"{fault}; move it to where only root can write" if fault else None


def _wrong_content(variable: str, source: str, *, in_environment: bool) -> str | None:
    """What is wrong with the content of a secret's file; None also when it cannot be read here."""
    try:
        text = read_bounded(source).decode(errors="replace")
    except OSError:
        return None
    if in_environment:
        values = re.findall(rf"^{variable}=(.*)$", text, re.M)
        if not values:
            fault = f"{source} is empty" if not text.strip() else f"{source} has no line `{variable}=`"
            return f'{fault}: it must have a line `{variable}="…"`, which becomes a variable of the engine'
        if not values[-1].strip().strip("\"'"):
            return f"{source} gives it an empty value; write the secret there"
        return None
    if not text.strip():
        return f"{source} is empty; write the secret there"
    name = re.match(r"\s*(?:export\s+)?([A-Za-z_][A-Za-z0-9_]*)=", text)
    if name and (name[1] in (variable, *HF_TOKENS) or text[name.end() :][:1] in ("'", '"')):
        return f"{source} must hold the secret alone, without `{variable}=` before it"
    return None
