"""`deploy:` of a Compose service: its GPUs, its limits, and when Compose starts it again."""

from collections.abc import Mapping
from typing import Any

from recipectl.importers.container_options import Container
from recipectl.importers.shapes import mapping, sequence

_OF_NVIDIA = {"nvidia", "compute", "utility", "video", "graphics", "display", "compat32"}  # moby's driver
_DEVICE_KEYS = ("driver", "count", "device_ids", "capabilities")
_RESTARTS = {"any": "always", "none": "no"}  # condition of `deploy.restart_policy` -> `--restart`


def gpus_of(device: Mapping[str, Any]) -> str:
    """A device of Compose as `--gpus` has it."""
    if ids := device.get("device_ids"):
        return f"device={','.join(map(str, ids if isinstance(ids, list) else [ids]))}"
    return str(device.get("count", "all"))


def _is_gpu(device: Mapping[str, Any]) -> bool:
    """Whether the container engine gives a GPU for a device: for what its driver can do."""
    capabilities = {*map(str, sequence(device.get("capabilities"), "capabilities"))}
    is_nvidias = device.get("driver") in (None, "", "nvidia")
    return "gpu" in capabilities or (is_nvidias and bool(capabilities & _OF_NVIDIA))


def add_resources(container: Container, deploy: Any, written: str) -> None:
    """Add the GPUs and limits of a service, and name its other settings."""
    resources = mapping(mapping(deploy, "deploy").get("resources"), "deploy.resources")
    limits = mapping(resources.get("limits"), "deploy.resources.limits")
    reserved = mapping(resources.get("reservations"), "deploy.resources.reservations")
    for device in sequence(reserved.get("devices"), "deploy.resources.reservations.devices"):
        if isinstance(device, dict) and _is_gpu(device):
            container.add("--gpus", gpus_of(device), written)
            if others := [key for key in device if key not in _DEVICE_KEYS]:
                container.lose(f"{written}: {', '.join(map(str, others))} of its GPUs")
        else:
            driver = device.get("driver", "?") if isinstance(device, dict) else device
            container.lose(f"{written}: a device of the driver `{driver}`")
    for resource in sequence(reserved.get("generic_resources"), "deploy.resources.reservations"):
        of_swarm = mapping(
            mapping(resource, "generic_resources").get("discrete_resource_spec"), "generic_resources"
        )
        if "gpu" in str(of_swarm.get("kind")).lower():
            container.add("--gpus", str(of_swarm.get("value", 1)), written)
        else:
            container.lose(f"{written}: `generic_resources: {of_swarm.get('kind')}`")
    for key, option in (("memory", "--memory"), ("cpus", "--cpus"), ("pids", "--pids-limit")):
        if key in limits:
            container.add(option, str(limits[key]), written)
    if "memory" in reserved:
        container.add("--memory-reservation", str(reserved["memory"]), written)
    known = ("resources", "restart_policy", "mode")
    if others := [key for key in deploy or () if key not in known and (key, deploy[key]) != ("replicas", 1)]:
        container.lose(f"{written}: {', '.join(map(str, others))}")


def set_restart(container: Container, deploy: Mapping[Any, Any]) -> bool:
    """Set the restart policy of `deploy:`, which wins over `restart:`; False when it has none."""
    policy = mapping(deploy.get("restart_policy"), "deploy.restart_policy")
    if policy:
        condition = str(policy.get("condition", "any"))
        container.add("--restart", _RESTARTS.get(condition, "on-failure"))
        others = [str(key) for key in policy if key != "condition"]
        if others or condition not in (*_RESTARTS, "on-failure"):
            shown = ", ".join((*others, *({condition} - {*_RESTARTS, "on-failure"})))
            container.lose(f"`deploy.restart_policy`: {shown}; see `service:`")
    if deploy.get("replicas") in (0, "0"):
        container.restart = ""  # Compose starts no container
    return bool(policy)
