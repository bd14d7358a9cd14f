"""The network of a container: who reached its engine, and what its words name there."""

import re
from itertools import pairwise

from recipectl.importers.container_options import Container
from recipectl.importers.lines import Remark

# Interfaces and addresses of the network that the engine is in.
_OF_NETWORK = re.compile("(NCCL|GLOO|TP)_SOCKET_IFNAME|(VLLM_)?HOST_IP")
# The host in a URL, where no DNS but the container's own knows it.
_OWN_HOST = re.compile(
    r"(?:https?|grpc|rediss?|tcp|nats)://(?:[^@/\s]*@)?(?!localhost\b)"
    r"([A-Za-z][\w-]*|host\.(?:docker|containers)\.internal)(?=[:/\s\"',]|\Z)"
)
# Options and a variable whose values are hosts, with ports or without.
_OF_HOSTS = re.compile(
    "--(rpc|(dist|nccl)[-_]init[-_]addr|data[-_]parallel[-_]address|master[-_]addr)|-dpa|LLAMA_ARG_RPC"
)
_HOST_ALONE = re.compile(r"(?:\A|,)\s*(?!localhost\b)([A-Za-z][\w-]*)(?=:[0-9]+(?:,|\Z)|,|\Z)")
# Of vLLM's --kv-transfer-config.
_HOST_IN_JSON = re.compile(r"\"kv_ip\"\s*:\s*\"(?!localhost\b)([A-Za-z][\w-]*)\"")


def name_addresses(container: Container, words: list[str]) -> None:
    """Name interfaces and hosts of the container's own network: this host knows others, or none."""
    if {"host", "none"} & {*container.networks}:
        return
    options = [
        (word.partition("=")[0] if word.startswith("-") else before, word)
        for before, word in pairwise(("", *words))
    ]
    for name, value in (*container.environment.items(), *options):
        if _OF_NETWORK.fullmatch(name):
            fault = f"`{name}={value}`, which belongs to the container's network; correct it"
            container.lose(fault, name)
        hosts = [*_OWN_HOST.findall(value), *_HOST_IN_JSON.findall(value)]
        if _OF_HOSTS.fullmatch(name) and name != value:
            hosts += _HOST_ALONE.findall(value.removeprefix(f"{name}="))
        for host in dict.fromkeys(hosts):
            fault = f"`{host}` in {name}, a host of the container's network; give its address here"
            container.lose(fault, name)


_PLAIN_NETWORKS = ("host", "bridge", "default", "private", "slirp4netns", "pasta")


def name_network(container: Container) -> None:
    """Name who reached the engine, where that is not by a published port or the host's network."""
    faults = {}
    for network in container.networks:
        if network.startswith(("container:", "service:")):
            fault = f"the engine was in the network of `{network.partition(':')[2]}`"
            faults[network] = f"{fault}; see `host:` and `port:`"
        elif network == "none":
            fault = "the network `none`: nobody reached the engine, and it reached nobody"
            faults[network] = f"{fault}; see `host:` and `hardening:`"
        elif container.ports and network not in _PLAIN_NETWORKS:
            faults[network] = f"the network `{network}`, in which others reached the engine by its name"
    container.not_carried_over += [
        Remark(fault, within=container.networks[network]) for network, fault in faults.items()
    ]
    is_published = container.ports or container.is_in_pod or container.publishes_all
    if not faults and "host" not in container.networks and not is_published:
        fault = "the container published no port: only its own networks reached the engine"
        container.lose(f"{fault}; see `host:`")
