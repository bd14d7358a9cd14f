"""The words of `docker run` and `podman run`: the options, then the image and its arguments."""

import re

from recipectl.importers.container_options import Container
from recipectl.importers.draft import VARIABLE_ALONE

_FLAGS = frozenset(
    """
    --rm --init --detach --interactive --tty --read-only --unsetenv-all --tls-verify --read-only-tmpfs
    --no-healthcheck --sig-proxy --quiet --replace --rmi --no-hosts --no-hostname -d -i -t -q
    --disable-content-trust --http-proxy --passwd --use-api-socket --rootfs
    """.split()  # noqa: SIM905  (a list one can read)
)
_NAMED_FLAGS = ("--privileged", "--env-host", "--oom-kill-disable")
_SHORT_FLAGS = re.compile(r"-[ditqP]+\Z")
_DETACHED = re.compile(r"-[itqP]*d")
_JOINED_SHORT_FLAGS = re.compile(r"-[ditqP]+([a-zA-Z].*)\Z")


_IMAGE = re.compile(r"(?!\.{1,2}/)[\w./:@-]*(vllm-openai|vllm/|sglang|llama\.cpp:)")


def _is_variable_of_options(words: list[str]) -> bool:
    """True for `$OPTIONS` before an image of an engine, or before options of its container."""
    if len(words) < 2 or not VARIABLE_ALONE.fullmatch(words[0]):
        return False
    images = words[2:] if words[1].startswith("-") else words[1:2]
    return any(map(_IMAGE.match, images))


def read_options(words: list[str], container: Container) -> list[str]:
    """Read the options of `docker run`; returns the image and its arguments."""
    while words and (words[0].startswith("-") or _is_variable_of_options(words)):
        if not words[0].startswith("-"):
            container.lose(f"`{words[0]}`, which may be options of the container")
            words = words[1:]
            continue
        name, equals, value = words[0].partition("=")
        words = words[1:]
        if name in _NAMED_FLAGS and value != "false":
            container.lose(f"`{name}` of the container")
        if name == "--publish-all" or (_SHORT_FLAGS.match(name) and "P" in name):
            container.publishes_all = True
            container.lose(f"`{name}`: its port was any free one of the host; see `port:`")
        container.is_detached |= name == "--detach" or bool(_DETACHED.match(name))
        if name in (*_FLAGS, *_NAMED_FLAGS, "--publish-all") or _SHORT_FLAGS.match(name):
            continue
        if joined := _JOINED_SHORT_FLAGS.match(name):  # `-itv /m:/m`
            name = f"-{joined[1]}"
        if not name.startswith("--") and len(name) > 2:  # `-p8000:8000`
            value = name[2:] + equals + value
            name = name[:2]
        elif not equals:
            value = "".join(words[:1])
            words = words[1:]
        container.add(name, value)
    return words
