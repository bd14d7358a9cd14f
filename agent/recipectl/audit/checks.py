"""The checks of `recipectl doctor`: each yields the problems of one kind."""

import stat
from collections.abc import Callable, Iterator
from itertools import combinations
from pathlib import Path

from recipectl.audit.subject import Subject
from recipectl.audit.unit_checks import check_systemd, check_units
from recipectl.compiler import identity, secrets
from recipectl.errors import Problem, on_host
from recipectl.files import failures_named, is_open
from recipectl.machine import access, nvidia, processes
from recipectl.machine.disk import Disk
from recipectl.place import lingering_fault
from recipectl.recipe import search
from recipectl.systemd.dbus import Manager
from recipectl.systemd.unitfile import GATEWAY

_SECRETS = Path(secrets.SECRETS_FOLDER)


def check_recipes(subject: Subject) -> Iterator[Problem]:
    """Errors and warnings of recipes, and files that nothing reads."""
    for problems in subject.result.failures.values():
        yield from problems
    yield from (warning for warning in subject.warnings if warning.kind != "secret")
    yield from search.unread_files(subject.place.recipe_folders)


def check_secrets(subject: Subject) -> Iterator[Problem]:
    """Secrets in recipes, and secrets' files that others may read."""
    yield from (warning for warning in subject.warnings if warning.kind == "secret")
    # The compiler checks those that a recipe names.
    with failures_named("read", _SECRETS):
        paths = _SECRETS.iterdir() if _SECRETS.is_dir() else ()
        modes = {path: path.stat().st_mode for path in sorted(paths) if path.is_file()}
    for path, mode in modes.items():
        if is_open(mode):
            yield on_host("secret", "others may read or change it; set mode 0600", file=str(path))


def check_permissions(subject: Subject) -> Iterator[Problem]:
    """Files and folders that decide what runs, and that others may change."""
    place = subject.place
    sources = search.sources(place.recipe_folders)
    files = {path for source in sources for path in (source.file, *source.drop_ins)}
    files |= {*search.host_files(place.bases)}
    for path in sorted(files | {path.parent for path in files} | {place.unit_folder}):
        try:
            status = path.stat()
        except (FileNotFoundError, NotADirectoryError):
            continue
        except OSError as error:
            sentence = f"it cannot be read ({error.strerror}); correct its owner or its mode"
            yield on_host("permission", sentence, file=str(path))
            continue
        if status.st_mode & stat.S_IWOTH and not status.st_mode & stat.S_ISVTX:
            sentence = "anyone may write it, and decide what runs; run chmod o-w"
            yield on_host("permission", sentence, file=str(path))
        if not place.user and status.st_uid != 0:
            sentence = f"it belongs to user {status.st_uid}, who decides what runs here; run chown root"
            yield on_host("permission", sentence, file=str(path))


def check_gpus(subject: Subject) -> Iterator[Problem]:
    """GPUs that recipes name and this host does not have, and a driver of two versions."""
    present = {path.name.removeprefix("nvidia") for path in Path("/dev").glob("nvidia[0-9]*")}
    ids = nvidia.gpu_ids() | {gpu for gpu in subject.settings.gpus if gpu.startswith("GPU-")}
    for name, resolved in sorted(subject.result.resolved.items()):
        missing = sorted({*resolved.gpus.indices} - present)
        if resolved.recipe.accelerator != "cuda":
            continue
        if missing:
            has = ", ".join(sorted(present)) or "none"
            fault = f"{name} wants GPU {', '.join(missing)}, and this host has {has}"
            yield resolved.problem("device", f"{fault}; load the driver, or correct `gpus:`", "gpus")
        unknown = sorted(
            gpu for gpu in resolved.gpus.words if gpu.startswith("GPU-") and ids and gpu not in ids
        )
        if unknown:
            fault = f"{name} wants {', '.join(unknown)}, and this host has {', '.join(sorted(ids))}"
            yield resolved.problem("device", f"{fault}; correct `gpus:`, or `gpus:` of the host file", "gpus")
    if driver := nvidia.driver_fault():
        yield on_host("device", driver)
    if nvidia.mps_of_one_user():
        yield from _users_of_mps(subject)


def _users_of_mps(subject: Subject) -> Iterator[Problem]:
    """Models that use one GPU at once through CUDA's MPS, as users that it does not serve at once."""
    shares = [
        resolved for resolved in subject.result.resolved.values()
        if resolved.mps_pipes or "CUDA_MPS_PIPE_DIRECTORY" in resolved.environment
    ]  # fmt: skip
    for first, second in combinations(shares, 2):
        first_user = identity.user_of(first.recipe, subject.settings)
        second_user = identity.user_of(second.recipe, subject.settings)
        exclusive = "exclusive" in (first.recipe.gpu_sharing, second.recipe.gpu_sharing)
        if first_user != second_user and not exclusive and {*first.gpus.words} & {*second.gpus.words}:
            models = f"{first.recipe.name} ({first_user}) and {second.recipe.name} ({second_user})"
            fault = (
                f"{models} share a GPU through CUDA's MPS, which serves one user at a time: the second waits"
            )
            remedy = "start it with `nvidia-cuda-mps-control -d -multiuser-server`, or give them one `user:`"
            yield on_host("gpu", f"{fault}; {remedy}")


def check_identities(subject: Subject) -> Iterator[Problem]:
    """Models whose user is missing, and those that share one: each can read the secrets of the other."""
    by_user: dict[str, list[str]] = {}
    for model in subject.result.models:
        by_user.setdefault(model.user or "", []).append(model.name)
    installed, disk = subject.store.installed().values(), Disk()
    for user in sorted({user for unit in installed if unit.recipe for user in unit.setting("User")}):
        if access.identity(user, disk)[0] < 0:
            fault = f"there is no user {user}, as which a unit runs"
            yield on_host("permission", f"{fault}; run `{subject.place.verb('apply')}`")
    for user, names in sorted(by_user.items()):
        secret = [name for name in names if subject.result.resolved[name].recipe.secrets]
        if user and len(names) > 1 and secret:
            fault = f"{', '.join(names)} run as {user}, so each can read the secrets of {', '.join(secret)}"
            yield on_host("permission", f"{fault}; take `user:` away, and each has a user of its own")


def check_lingering(subject: Subject) -> Iterator[Problem]:
    """A user's models that end with the user's last session."""
    enabled = subject.store.enabled()
    starts = any(model.autostart or model.enabled_unit in enabled for model in subject.result.models)
    if subject.place.user and starts and (lingering := lingering_fault()):
        yield on_host("host", lingering)


def check_drift(subject: Subject) -> Iterator[Problem]:
    """Everything between unit and process that is not as the recipe says."""
    for row in subject.rows:
        for difference in row.differences:
            if difference.where not in ("recipe", "port", "drop-in"):
                yield on_host("drift", f"{row.name}: {difference}")
        if row.running == "unknown":
            yield on_host("drift", f"{row.name}: process {row.pid} cannot be read; run doctor as root")


def check_ports(subject: Subject) -> Iterator[Problem]:
    """Other processes on the ports of models."""
    for row in subject.rows:
        for difference in row.differences:
            if difference.where == "port":
                yield on_host("port", f"{row.name}: {difference.what}; {difference.remedy}")


def check_gateway(subject: Subject) -> Iterator[Problem]:
    """What the gateway serves against what the recipes say."""
    from recipectl.gateway import compile as gateway
    from recipectl.gateway import host
    from recipectl.gateway.configuration import FOLDER, LEFT_OVER

    installed = subject.store.installed()
    if subject.result.gateway is None:
        yield from [on_host("unit", LEFT_OVER)] if GATEWAY in installed else ()
        return
    targets = gateway.targets(subject.result.models, installed)
    # With nginx's own test: a key or a certificate that is missing stops the next start.
    compiled, problems = gateway.compiled(subject.place, subject.result.gateway, targets, test=True)
    yield from problems
    if subject.place.user:
        return
    if reason := subject.store.reason_not_ours(GATEWAY):
        yield on_host("unit", reason)
    elif compiled:
        sentences = gateway.differences(compiled, Path(FOLDER), installed, subject.store.enabled())
        yield from (on_host("unit", sentence) for sentence in sentences)
    if unit := installed.get(GATEWAY):
        with Manager(subject.place) as manager:
            yield from host.changed_secrets(manager, unit)


def check_orphans(subject: Subject) -> Iterator[Problem]:
    """Engines that no service supervises."""
    for process in processes.unsupervised_engines():
        words = " ".join(secrets.redacted(process.argv or ()))[:100]
        where = f"in {process.unit}" if process.unit else "in no unit"
        fault = f"process {process.pid} {where} is an engine that no service supervises ({words})"
        remedy = f"end it, or make a recipe of it with `{subject.place.verb('import process')} {process.pid}`"
        yield on_host("orphan", f"{fault}; {remedy}")


CHECKS: dict[str, Callable[[Subject], Iterator[Problem]]] = {
    "recipes": check_recipes,
    "secrets": check_secrets,
    "permissions": check_permissions,
    "gpus": check_gpus,
    "systemd": check_systemd,
    "units": check_units,
    "drift": check_drift,
    "ports": check_ports,
    "gateway": check_gateway,
    "orphans": check_orphans,
    "identities": check_identities,
    "lingering": check_lingering,
}
