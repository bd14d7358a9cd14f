"""What only this host can tell about a recipe: access, pinned versions, locked runtimes."""

import contextlib
import json
import os
import stat
from collections.abc import Iterator
from pathlib import Path

import yaml

from recipectl.compiler import gpus, identity, model_config, sandbox, secret_files, service_settings
from recipectl.compiler.model import ResolvedRecipe, Variable
from recipectl.engines import flags
from recipectl.engines.options import flag_of, shipped_options
from recipectl.engines.registry import ENGINES
from recipectl.errors import RecipeError, UsageError, on_host
from recipectl.machine import access, lockfile
from recipectl.machine.disk import Disk
from recipectl.machine.distributions import ENGINE_DISTRIBUTIONS, lock_of, satisfies
from recipectl.machine.installation import Installation
from recipectl.machine.runtime import Runtime
from recipectl.place import Place
from recipectl.recipe.hostfile import HostSettings
from recipectl.recipe.schema import Recipe
from recipectl.recipe.trusted import Content, Trust
from recipectl.recipe.yamlsyntax import Loader
from recipectl.request_queue import HAPROXY

# Debian's and Ubuntu's groups of GPUs.
_DEVICE_GROUPS = ("render", "video")
# Members of these groups can become root.
_ROOT_GROUPS = ("docker", "lxd", "incus-admin", "libvirt", "disk")
_MPS_PIPES = "/tmp/nvidia-mps"  # noqa: S108  (the default of CUDA_MPS_PIPE_DIRECTORY)
_NOT_SET = Variable("", "")


def check(
    recipe: Recipe, runtime: Runtime | None, settings: HostSettings, installation: Installation, disk: Disk
) -> Iterator[UsageError]:
    """Yield what is wrong with a recipe on this host; without a runtime, what does not depend on it."""
    owned_by_root = os.geteuid() == 0 and not installation.user
    yield from secret_files.check(recipe, disk, Trust(frozenset({0})) if owned_by_root else None)
    unknown_settings = tuple(service_settings.check(recipe, installation))
    yield from unknown_settings or check_service_values(recipe)
    if recipe.queue and not disk.is_executable(Path(HAPROXY)):
        fault = f"`queue` needs HAProxy, and there is no {HAPROXY}"
        remedy = "run `apt install haproxy`, and `systemctl disable --now haproxy` if nothing else needs it"
        yield UsageError(f"{fault}; {remedy}", "queue", kind="file")
    yield from model_config.check(recipe, disk)
    if runtime and not installation.user:
        yield from check_access(recipe, runtime, settings, disk)
    if runtime:
        yield from check_pins(installation.place, recipe, runtime)


def check_access(
    recipe: Recipe, runtime: Runtime, settings: HostSettings, disk: Disk
) -> Iterator[UsageError]:
    """Yield the files that the unit's user cannot reach, because it may not enter a folder above them."""
    user = identity.user_of(recipe, settings)
    if recipe.user and access.identity(user, disk)[0] < 0:
        sentence = f"`user` is {user}, and there is no such user; create it or correct `user:`"
        yield UsageError(sentence, "user", kind="access")
        return
    if user == "root":
        return
    groups = (*_own_groups(recipe), identity.DATA_GROUP, identity.EARLIER_USER)
    for path in (runtime.command[0], runtime.interpreter or "", recipe.model_path, *runtime.link_targets):
        if path.startswith("/") and (folder := access.closed_folder(user, groups, path, disk)):
            key = ("model_path",) if path == recipe.model_path else runtime.key
            fault = f"the unit's user {user} cannot reach {path} ({folder} is closed to it)"
            yield UsageError(f"{fault}; move it, open the folder, or set `user:`", *key, kind="access")
            return


def _own_groups(recipe: Recipe) -> tuple[str, ...]:
    """The groups of `service: {SupplementaryGroups: …}`."""
    return tuple(word for value in recipe.service.get("SupplementaryGroups", ()) for word in value.split())


def supplementary_groups(resolved: ResolvedRecipe, disk: Disk) -> tuple[str, ...]:
    """The groups that a unit needs here besides that of shared data: for GPUs, and for older caches."""
    groups = []
    if resolved.gpus.mode != "none":
        disk.fingerprint("/etc/group")
        # Those that distributions give to GPUs, whose nodes may appear late, and those of other nodes.
        groups += [group for group in _DEVICE_GROUPS if access.group_id(group) is not None]
        groups += sorted(access.groups_of_nodes(disk) - {*groups})
    earlier = access.group_id(identity.EARLIER_USER)
    runtime = resolved.runtime
    paths = (resolved.recipe.model_path, runtime.command[0], *runtime.link_targets)
    paths += tuple(sandbox.moved_directories(resolved))
    absolute = [path for path in paths if path.startswith("/")]
    if earlier is not None and any(access.has_group(path, earlier, disk) for path in absolute):
        groups.append(identity.EARLIER_USER)
    return tuple(groups)


def warnings(
    resolved: ResolvedRecipe, settings: HostSettings, installation: Installation, disk: Disk
) -> Iterator[UsageError]:
    """Yield warnings: the unit's user has too many rights, or cannot open or write a file."""
    recipe = resolved.recipe
    user = identity.user_of(recipe, settings)
    if installation.user:
        return
    uid, gids = access.identity(user, disk)
    if uid == 0:
        where = "" if recipe.user else " of the host file"
        fault = f"the unit's user is {user}, so the engine and what it loads may change this host"
        remedy = f"remove `user:`{where}, and the model has a user of its own"
        yield UsageError(f"{fault}; {remedy}", "user", kind="access")
        return
    own = (identity.DATA_GROUP, *resolved.groups)
    gids |= {gid for group in (*own, *_own_groups(recipe)) if (gid := access.group_id(group)) is not None}
    yield from _powerful_groups(user, gids)
    for node in gpus.device_nodes(recipe, resolved.gpus, has_card=True):
        if (group := access.denied(Path(node), uid, gids, disk)) is not None:
            fault = f"the unit's user {user} cannot open {node} (group {group}), so no GPU is used"
            remedy = "correct its group and mode"
            if group != "root":  # no engine belongs there
                remedy = f"give `service: {{SupplementaryGroups: {group}}}`, or correct its mode"
            yield UsageError(f"{fault}; {remedy}", "gpus", kind="device")
    if resolved.environment.get("HF_HUB_OFFLINE", _NOT_SET).value in ("1", "true", "TRUE", "yes", "on"):
        return  # it only reads
    for folder in _cache_folders(resolved):
        if (group := access.denied(folder, uid, gids, disk)) is not None:
            fault = f"the unit's user {user} cannot write {folder}, so it cannot download there"
            change = f"`chgrp -R {identity.DATA_GROUP} {folder}` and `chmod -R g+rwX {folder}`"
            remedy = f"run {change}, or set HF_HUB_OFFLINE=1"
            yield UsageError(f"{fault}; {remedy}", kind="access")


def _powerful_groups(user: str, gids: frozenset[int]) -> Iterator[UsageError]:
    """Yield the groups of a unit's user that no engine belongs in."""
    if user == identity.OPERATORS_GROUP or access.group_id(identity.OPERATORS_GROUP) in gids:
        fault = f"the unit's user {user} is in the group {identity.OPERATORS_GROUP}"
        effect = "so the engine may start and stop models, too"
        yield UsageError(f"{fault}, {effect}; give it another user", "user", kind="access")
    for name in _ROOT_GROUPS:
        if access.group_id(name) in gids:
            fault = f"the unit's user {user} is in the group {name}, whose members can become root"
            yield UsageError(f"{fault}; take it out, or give the unit another user", "user", kind="access")


def mps_pipes(resolved: ResolvedRecipe, disk: Disk) -> str | None:
    """CUDA's default folder of MPS pipes, if it is root's: anybody may make one in /tmp."""
    if resolved.recipe.accelerator != "cuda" or resolved.gpus.mode == "none":
        return None
    mode, owner, _ = disk.node(_MPS_PIPES)
    is_folder = stat.S_ISDIR(mode) and not os.path.islink(_MPS_PIPES)  # noqa: PTH114
    return _MPS_PIPES if is_folder and owner == 0 else None


def _cache_folders(resolved: ResolvedRecipe) -> Iterator[Path]:
    """The folders of a Hugging Face cache that a variable moves, as far as they exist."""
    moved = sandbox.moved_directories(resolved)
    home = resolved.environment.get("HF_HOME", _NOT_SET).value
    if home in moved:
        model = f"models--{resolved.recipe.model_path.replace('/', '--')}"
        for part in ("", "hub", f"hub/{model}", "hub/.locks"):
            if os.path.isdir(folder := f"{home}/{part}".rstrip("/")):  # noqa: PTH112  (a long name is no error)
                yield Path(folder)
    yield from (Path(path) for path in moved if path != home and os.path.isdir(path))  # noqa: PTH112


def unread_options(resolved: ResolvedRecipe, disk: Disk) -> Iterator[UsageError]:
    """Yield keys of the `--config` file that set an address or a model: recipectl does not read them."""
    recipe, engine = resolved.recipe, ENGINES[resolved.recipe.backend]
    texts = [word.text for word in resolved.words]
    if not any(text.startswith(engine.config_flag or " ") for text in texts):
        return
    options = shipped_options(recipe.backend)
    options_used, _ = flags.parse(recipe.backend, texts, options)
    fields = ("host", "port", "served_model_name")
    owned = {options.canonical(engine.flags[name] or ""): name for name in fields}
    owned |= {engine.model_flag: "model_path", "--model": "model_path"}
    for option in options_used:
        if option.flag != engine.config_flag or not "".join(option.values).startswith("/"):
            continue
        path = Path(option.values[0])
        data: object = None
        if disk.fingerprint(path):
            with contextlib.suppress(OSError, UnicodeDecodeError, yaml.YAMLError):
                data = yaml.load(disk.content(path).decode(), Loader)  # noqa: S506  (it is a safe loader)
        for key in data if isinstance(data, dict) else ():
            if field := owned.get(options.canonical(flag_of(str(key)))):
                fault = f"{path} sets `{key}`, which recipectl does not read there"
                place = resolved.words[option.index].key
                yield UsageError(f"{fault}; write it as `{field}:`", *place, kind="argument")


def check_pins(place: Place, recipe: Recipe, runtime: Runtime) -> Iterator[UsageError]:
    """Yield the pins that the installed engine and Python do not match."""
    program = runtime.command[0]
    pins = (
        ("engine_version", recipe.engine_version, recipe.backend, runtime.engine_version, program),
        ("python_version", recipe.python_version, "Python", runtime.python_version, f"Python of {program}"),
    )
    for key, specifier, product, version, installed in pins:
        if specifier and version is None:
            sentence = f"`{key}` is {specifier}, and no {product} is installed beside {program}"
            remedy = "install it there or correct the runtime"
            if recipe.binary:
                sentence = f"`{key}` is {specifier}, and no file tells the version of {program}"
                remedy = f"remove it, and record the program with `{place.verb('lock')} {recipe.name}`"
            yield UsageError(f"{sentence}; {remedy}", key, kind="pin")
        elif specifier and not satisfies(version, specifier):
            sentence = f"`{key}` is {specifier}, and {installed} is {version}"
            yield UsageError(f"{sentence}; install one that fits, or edit the recipe", key, kind="pin")


def check_service_values(recipe: Recipe) -> Iterator[UsageError]:
    """Yield what this host's systemd would ignore of the values in `service:`, in its own words."""
    sections = ("Unit", "Service")
    lines = tuple((section, line) for section in sections for line in service_settings.lines(recipe, section))
    if not lines:
        return
    from recipectl.machine.systemd_analyze import ignored_settings

    for name, reason in ignored_settings(lines):
        sentence = f"systemd would ignore `service.{name}` ({reason}); correct it"
        yield UsageError(sentence, "service", name, kind="setting")


def model_faults(recipe: Recipe, disk: Disk) -> Iterator[UsageError]:
    """Yield warnings about a model that does not exist, or that llama.cpp cannot open: it takes one file."""
    path = recipe.model_path
    is_llamacpp = recipe.backend == "llamacpp"
    if path.startswith("/") and not disk.fingerprint(path):
        fault = f"`model_path` {path} does not exist on this host"
        yield UsageError(f"{fault}; correct it, or create it before the start", "model_path", kind="file")
    elif is_llamacpp and path.endswith(".gguf") and not path.startswith("/"):
        fault = f"`model_path` is `{path}`, which is looked for in the unit's own folder"
        yield UsageError(f"{fault}; give its absolute path", "model_path", kind="value")
    elif is_llamacpp and path.startswith("/") and disk.is_folder(Path(path)):
        fault = f"`model_path` {path} is a folder, and llama.cpp takes a file"
        yield UsageError(f"{fault}; name the .gguf in it", "model_path", kind="value")


def current_lock(recipe: Recipe, runtime: Runtime) -> lockfile.Lock:
    """The exact runtime now, as a lock records it."""
    names = ENGINE_DISTRIBUTIONS[recipe.backend]
    return lockfile.record(runtime.recorded, runtime.installed_in, names)


def lock_contents(path: Path, lock: lockfile.Lock) -> dict[Path, str | bytes]:
    """The files of a recipe's lock: itself, and the copy of its venv's lock, where that has one."""
    contents: dict[Path, str | bytes] = {path: json.dumps(lock, indent=2) + "\n"}
    venv_lock = lockfile.own_venv_lock(Path(lock["interpreter"]).parent.parent)
    if "venv_lock" in lock and venv_lock is not None:
        contents[lockfile.venv_lock_beside(path)] = venv_lock
    return contents


def read_lock(place: Place, path: Path, content: Content) -> lockfile.Lock:
    """The lock of a recipe; RecipeError if it cannot be read."""
    try:
        return lockfile.read_lock(content(path))
    except (OSError, ValueError) as error:
        is_text = isinstance(error, json.JSONDecodeError | UnicodeDecodeError)
        reason = "it is not JSON" if is_text else getattr(error, "strerror", None) or str(error)
        sentence = (
            f"it cannot be read as a lock ({reason}); remove it, and run `{place.verb('lock')} {path.stem}`"
        )
        raise RecipeError((on_host("lock", sentence, file=str(path)),)) from error


def check_lock(
    place: Place, lock: Path | None, recipe: Recipe, runtime: Runtime, settings: HostSettings, disk: Disk
) -> tuple[str, ...]:
    """The differences to the recipe's lock, as clauses; UsageError if the host file says `drift: refuse`.

    RecipeError if the lock cannot be read.
    """
    if lock is None:
        return ()
    locked = read_lock(place, lock, disk.content)
    current = current_lock(recipe, runtime)
    # The fingerprints make a cache check these files again.
    program = Path(current["interpreter_file"])
    beside = lockfile.at_start(current["folder"]) if current["folder"] else lockfile.libraries(program)
    for path in (program, lock_of(Path(current["interpreter"]).parent.parent), *beside):
        disk.fingerprint(path)
    for path in Path(current["folder"]).glob("*.dist-info/RECORD") if current["folder"] else ():
        disk.fingerprint(path)
    clauses = tuple(lockfile.differences(locked, current))
    if clauses and settings.drift == "refuse":
        raise lock_error(place, lock, recipe.name, "; ".join(clauses))
    return clauses


def lock_error(place: Place, lock: Path | str | None, name: str | None, differences: str) -> UsageError:
    """The error for a runtime that differs from the lock of a recipe; `differences` are clauses."""
    fault = f"the runtime differs from {lock}: {differences}"
    remedy = f"put it back, or accept it with `{place.verb('lock')} --update {name}`"
    return UsageError(f"{fault}; {remedy}", kind="lock")
