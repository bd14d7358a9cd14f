"""Where an engine listens, and where its clients ask."""

import re
from collections.abc import Sequence
from typing import NamedTuple

from recipectl.addresses import WILDCARDS, in_url, to_ask
from recipectl.engines.options import flag_of
from recipectl.engines.registry import ENGINES
from recipectl.errors import UsageError
from recipectl.recipe.schema import Recipe


class Endpoint(NamedTuple):
    """Address and port from an engine's arguments, and the path that answers 200 when it is ready."""

    host: str
    port: int
    path: str | None  # None: it answers no requests, and is ready when it runs

    @property
    def connect(self) -> str:
        """The address to ask."""
        return to_ask(self.host)

    @property
    def is_wildcard(self) -> bool:
        """True if it listens at every address of the host."""
        return self.host in WILDCARDS

    @property
    def url(self) -> str:
        return f"http://{in_url(self.connect)}:{self.port}"


def loopback_address(recipe: Recipe) -> tuple[str, int]:
    """Host and port of an engine with something in front, which has the recipe's own address."""
    public_port = recipe.port or ENGINES[recipe.backend].port
    # Not among the ports that Linux gives to clients (ip(7)): 32768 to 60999 may be taken at any time.
    default = public_port + 20000 if public_port < 12768 else (public_port - 12768) % 30000 + 2768
    port = (recipe.front.engine_port if recipe.front else None) or default
    if port == public_port:
        fault = f"`{recipe.front_key}.engine_port` is the same as `port` ({public_port})"
        raise UsageError(f"{fault}; choose another", recipe.front_key, "engine_port", kind="port")
    return "127.0.0.1", port


def engine_endpoint(recipe: Recipe, argv: Sequence[str]) -> Endpoint:
    """Where the engine listens, read from its argv, so that `host`, `extra_args` and `args` all count."""
    engine = ENGINES[recipe.backend]
    own = (None, None) if recipe.front else (recipe.host, recipe.port)
    values = {"--host": own[0] or engine.host, "--port": str(own[1] or engine.port)}
    for index, word in enumerate(argv):
        name, equals, value = word.partition("=")
        if engine.abbreviates_flags and len(name) > 4:
            name = next((flag for flag in values if flag.startswith(name)), name)
        if name in values:  # the last one wins, as in argparse
            values[name] = value if equals else _word_after(argv, index)
    port = values["--port"]
    if not (port.isascii() and port.isdigit() and 0 < int(port) < 65536):
        fault = f"the port `{port}` is not a number from 1 to 65535"
        raise UsageError(f"{fault}; set `port:`", "args", "port", kind="port")
    path = None if recipe.is_follower else recipe.ready.path or engine.health_path
    return Endpoint(values["--host"], int(port), path)


def client_endpoint(recipe: Recipe, endpoint: Endpoint) -> Endpoint:
    """Where clients ask: what is in front of an engine, else the engine itself."""
    if not recipe.front:
        return endpoint
    # A socket without an address of its own is for this host: an engine's default may be every address.
    return Endpoint(recipe.host or "127.0.0.1", recipe.port or ENGINES[recipe.backend].port, endpoint.path)


def drain_sec(recipe: Recipe, argv: Sequence[str]) -> int:
    """How long an engine may take to finish its requests after SIGTERM."""
    flag = ENGINES[recipe.backend].drain_flag
    text = ""
    for index, word in enumerate(argv):
        name, equals, value = word.partition("=")
        if name.startswith("--") and flag_of(name[2:]) == flag:  # the last one wins, as in argparse
            text = value if equals else _word_after(argv, index)
    return int(float(text)) if re.fullmatch(r"[0-9]+(\.[0-9]+)?", text) else 0


def _word_after(argv: Sequence[str], index: int) -> str:
    return argv[index + 1] if index + 1 < len(argv) else ""
