"""Values of the wrong kind in other tools' files: a sentence, never a traceback, whatever is wrong where."""

import contextlib
import copy
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import yaml

from recipectl.errors import RecipectlError
from recipectl.importers import compose, from_command, llama_swap, shell, vllm_studio
from recipectl.importers.draft import Draft, render

ODD: list[Any] = [
    None,
    3,
    -1.5,
    True,
    "",
    "x",
    [],
    [1],
    {},
    {"a": 1},
    ["x", {"b": 2}],
    "${X",
    "'",
    "5m",
    [[]],
]
SWAP = """
models:
  a: {cmd: "llama-server -m /a.gguf --port ${PORT}", aliases: [x], env: ["A=1"], ttl: 5, filters: {stripParams: t},
      proxy: "http://127.0.0.1:${PORT}", checkEndpoint: /health, macros: {q: 1}, name: n, description: d}
  b: {cmd: "vllm serve x/y"}
groups: {g: {swap: true, exclusive: false, persistent: true, members: [a]}}
macros: {m: 1}
hooks: {on_startup: {preload: [a]}}
healthCheckTimeout: 60
startPort: 5000
globalTTL: 3
routing: {router: {use: matrix, settings: {groups: {}}}}
"""
COMPOSE = """
services:
  v:
    image: vllm/vllm-openai
    command: [a/b]
    entrypoint: [vllm, serve]
    environment: {A: "1"}
    ports: ["1:8000", {target: 1, published: 2}]
    volumes: ["/a:/b", {type: bind, source: /x, target: /y}]
    ulimits: {memlock: -1, nofile: {soft: 1, hard: 2}}
    deploy: {resources: {limits: {cpus: "2", memory: 3g}, reservations: {devices: [{capabilities: [gpu], device_ids: ["0"]}]}}}
    networks: [x]
    gpus: all
    env_file: [{path: x, required: false}]
    devices: [/dev/x]
    extends: {file: x}
networks: {default: {name: n}}
volumes: {w: {driver_opts: {o: bind, device: ./d}}}
"""
STUDIO = """
- {id: m, name: M, model_path: /m, backend: vllm, runtime: {kind: system, ref: /p}, tp: 2, port: 8000, host: h,
   extra_args: {a: 1, env_vars: {A: "1"}}, env_vars: {B: "2"}, visible_devices: [0]}
"""


def of_compose(value: Any) -> list[Draft]:
    return compose.compose_drafts(yaml.safe_dump(value), "c.yml")[0]


def studio(value: Any) -> list[Draft]:
    return [vllm_studio.draft(recipe, "s.json") for recipe in vllm_studio.recipes(value)]


FILES: dict[str, tuple[str, Callable[[Any], list[Draft]]]] = {
    "llama-swap": (SWAP, lambda value: llama_swap.imported(value, "c.yaml").drafts if isinstance(value, dict) else []),
    "compose": (COMPOSE, of_compose),
    "studio": (STUDIO, studio),
}  # fmt: skip


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    yield path
    entries = (
        value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    )
    for key, entry in entries:
        yield from places(entry, (*path, key))


def put(value: Any, path: tuple[Any, ...], new: Any) -> Any:
    if not path:
        return new
    value = copy.copy(value)
    value[path[0]] = put(value[path[0]], path[1:], new)
    return value


@pytest.mark.parametrize("tool", FILES)
def test_a_value_of_another_kind_leaves_no_traceback(tool: str) -> None:
    text, read = FILES[tool]
    value = yaml.safe_load(text)
    assert read(value)
    for path in places(value):
        for odd in ODD:
            with contextlib.suppress(RecipectlError):
                for draft in read(put(value, path, odd)):
                    render(draft)


WORDS = [
    "vllm serve $'\\UFFFFFFFF'", "vllm serve $'\\ud800'", "vllm serve ${99999999999}", "shift ²; vllm serve a/b",
    "nice -n x vllm serve a/b", "taskset -c 0-99999999:1 vllm serve a/b", "ulimit -n ²; vllm serve a/b",
    "docker run --cpus 1.2.3 vllm/vllm-openai --model a/b", "$'\\x'", "vllm serve ${!x@} ${a[@]:1}",
]  # fmt: skip


@pytest.mark.parametrize("text", WORDS)
def test_an_odd_word_leaves_no_traceback(text: str) -> None:
    with contextlib.suppress(RecipectlError):
        for command in shell.commands(text):
            render(from_command.draft_from_command(command))
