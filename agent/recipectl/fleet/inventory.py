"""The hosts of an Ansible inventory, with their recipes and host files in a checkout."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

from recipectl.errors import RecipectlError, UsageError
from recipectl.files import failures_named

RECIPES, HOST_FILE = "recipectl_recipes", "recipectl_host_file"
_DEFAULTS = {RECIPES: "recipes/", HOST_FILE: "host.yaml"}  # as the playbook recipectl.models.site has them
_TIMEOUT_SEC = 300


class FleetHost(NamedTuple):
    """One host: its name in the inventory, where ssh reaches it, and its files."""

    name: str
    address: str
    recipes: tuple[Path, ...]  # folders and files
    host_file: Path | None
    facts: dict[str, Any]  # of Ansible's cache, where there is one


def read(inventory: Path) -> tuple[FleetHost, ...]:
    """The hosts in the order of their names. `ansible-inventory` reads it, with group_vars and host_vars.

    UsageError for an inventory that Ansible cannot read, or that names files which are not there.
    """
    with failures_named("read", inventory):
        own = inventory.absolute() if inventory.is_dir() else inventory.absolute().parent
    bases = tuple(dict.fromkeys((Path.cwd(), own)))
    return tuple(_host(name, variables, bases) for name, variables in variables_of(inventory).items())


def variables_of(inventory: Path) -> dict[str, dict[str, Any]]:
    """Each host's variables, in the order of the names; UsageError for what Ansible cannot read."""
    data = _listed(inventory)
    variables = data.get("_meta", {}).get("hostvars", {})
    names = {host for group in data.values() if isinstance(group, dict) for host in group.get("hosts", ())}
    return {name: variables.get(name, {}) for name in sorted({*names, *variables})}


def _listed(inventory: Path) -> dict[str, Any]:
    if not inventory.exists():
        raise UsageError(f"there is no inventory {inventory}; give its file or folder", kind="file")
    beside = Path(sys.executable).with_name("ansible-inventory")
    program = shutil.which("ansible-inventory") or (str(beside) if beside.exists() else None)
    if program is None:
        raise RecipectlError("`ansible-inventory` reads inventories, and it is missing; install ansible-core")
    words = [program, "-i", str(inventory), "--list"]
    # What Ansible cannot parse must not pass for an empty inventory.
    environment = os.environ | {"ANSIBLE_INVENTORY_UNPARSED_FAILED": "1", "ANSIBLE_NOCOLOR": "1"}
    try:
        done = subprocess.run(  # noqa: S603  (fixed words)
            words, capture_output=True, text=True, check=False, timeout=_TIMEOUT_SEC, env=environment
        )
    except OSError as error:
        raise RecipectlError(f"{program} cannot be run ({error.strerror}); install ansible-core") from error
    except subprocess.TimeoutExpired as error:
        raise RecipectlError(
            f"{inventory} was not read within {_TIMEOUT_SEC} s; ask for fewer hosts"
        ) from error
    if done.returncode:
        lines = [line for line in done.stderr.splitlines() if "ERROR" in line] or done.stderr.splitlines()
        reason = lines[0].strip() if lines else f"status {done.returncode}"
        raise UsageError(f"Ansible cannot read {inventory}: {reason}; `ansible-inventory --list` tells more")
    try:
        listed = json.loads(done.stdout)
    except ValueError as error:
        raise RecipectlError(f"{program} printed no JSON ({error}); correct its configuration") from error
    return listed if isinstance(listed, dict) else {}


def _host(name: str, variables: dict[str, Any], bases: tuple[Path, ...]) -> FleetHost:
    values = _DEFAULTS | {key: variables[key] for key in _DEFAULTS if key in variables}
    recipes = values[RECIPES]
    words = [recipes] if isinstance(recipes, str) else recipes
    if not isinstance(words, list) or not all(isinstance(word, str) for word in words):
        raise UsageError(f"`{RECIPES}` of {name} must be a folder, or a list of folders and files")
    files = tuple(_file(name, RECIPES, word, bases) for word in words)
    host_file = values[HOST_FILE]
    has_host_file = HOST_FILE in variables or any((base / str(host_file)).exists() for base in bases)
    return FleetHost(
        name=name,
        address=str(variables.get("ansible_host", name)),
        recipes=files,
        host_file=_file(name, HOST_FILE, str(host_file), bases) if host_file and has_host_file else None,
        facts=variables.get("ansible_facts", {})
        | {k: v for k, v in variables.items() if k == "ansible_hostname"},
    )


def _file(name: str, variable: str, word: str, bases: tuple[Path, ...]) -> Path:
    """A file or folder of the checkout: seen from the current folder, else from that of the inventory."""
    if "{{" in word:
        raise UsageError(f"`{variable}` of {name} is a template, which only a playbook fills in; give a path")
    paths = [base / word for base in bases]
    path = next((path for path in paths if path.exists()), None)
    if path is None:
        where = " or ".join(map(str, bases))
        raise UsageError(f"`{variable}` of {name} is {word}, which is not in {where}; correct it")
    return path
