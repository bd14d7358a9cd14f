"""Addresses as engines, systemd and URLs spell them. Standard library only: the helper has it, too."""

WILDCARDS = {"0.0.0.0": "127.0.0.1", "::": "::1", "": "127.0.0.1"}  # noqa: S104  (every address -> the one to ask)


def to_ask(host: str) -> str:
    """The address at which to ask what listens at `host`: a wildcard is asked on loopback."""
    return WILDCARDS.get(host, host)


def in_url(host: str) -> str:
    """A host before a port: an address of IPv6 gets brackets."""
    return f"[{host}]" if ":" in host else host


def split(text: str) -> tuple[str, str]:
    """(host, port) of `host:port`; an address of IPv6 without its brackets. Empty where one is missing."""
    host, _, port = text.rpartition(":")
    return host.strip("[]"), port
