"""How a recipe becomes an engine's argv; one file per engine says what is its own."""

import json
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Any

from recipectl.engines import llamacpp, sglang, vllm
from recipectl.errors import UsageError
from recipectl.recipe import INTERNAL, Nodes, Recipe
from recipectl.runtime import Runtime

_ENGINES = {"vllm": vllm, "sglang": sglang, "llamacpp": llamacpp}


@dataclass(frozen=True)
class Option:
    """One option of an engine. Kinds: flag, negatable (has --no-x), value, optional, words, repeated."""

    kind: str
    aliases: tuple[str, ...] = ()
    choices: tuple[str, ...] | None = None
    deprecated: str | None = None  # what its help says about that


@dataclass(frozen=True)
class Options:
    """An engine's options by their long flags, from its own parser (`version` says which)."""

    version: str | None
    by_flag: dict[str, Option]

    @cached_property
    def aliases(self) -> dict[str, str]:
        """Another spelling -> the long flag."""
        return {alias: name for name, option in self.by_flag.items() for alias in option.aliases}

    def kind(self, name: str) -> str | None:
        """What a long flag takes, None for one that is not known."""
        found = self.by_flag.get(name)
        return found.kind if found else None


def table(text: str) -> Options:
    """The options in the JSON of a probe."""
    data = json.loads(text)
    by_flag = {}
    for name, one in data["options"].items():
        choices = tuple(one["choices"]) if "choices" in one else None
        aliases = tuple(one.get("aliases", ()))
        by_flag[name] = Option(one["kind"], aliases, choices, one.get("deprecated"))
    return Options(data["version"], by_flag)


@cache
def options(engine: str) -> Options:
    """The table shipped for an engine."""
    return table(Path(__file__).with_name(f"{engine}.json").read_text())


def flag(key: str) -> str:
    """`max_model_len` -> `--max-model-len`; only the part before the first dot is normalised."""
    if key.startswith("-"):
        return key
    head, dot, tail = key.partition(".")
    return f"--{head.replace('_', '-')}{dot}{tail}"


def _scalar(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return str(getattr(value, "text", value))


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def words(engine: str, key: str, value: Any) -> tuple[str, ...]:
    """The words that one option becomes; none for null, and for false where the engine has no `--no-`."""
    name, known = flag(key), options(engine)
    if value is None:
        return ()
    if value is True:
        return (name,)
    if value is False:
        return (f"--no-{name[2:]}",) if known.kind(name) == "negatable" else ()
    if isinstance(value, dict):
        return (name, _json(value))
    if isinstance(value, list):
        if known.kind(name) == "words":
            return (name, *map(_scalar, value)) if value else ()
        if known.kind(name) == "repeated" or engine == "llamacpp":
            return tuple(word for item in value for word in (name, _scalar(item)))
        return (name, _json(value))
    text = _scalar(value)
    # argparse takes a word that begins with `-` for a flag, unless it is a number.
    if text.startswith("-") and not text[1:2].isdigit() and name.startswith("--"):
        return (f"{name}={text}",)
    return (name, text)


def _inferred(recipe: Recipe, field: str) -> str:
    found = vllm.infer(field, recipe.model_path)
    if found is None:
        raise UsageError(f"`{field}: auto` knows no parser for `{recipe.model_path}`; name one")
    return found


def _fields(recipe: Recipe) -> dict[str, tuple[str, tuple[str, ...]]]:
    """Flag -> (field, words) of the fields that the recipe sets, in the engine's customary order."""
    result = {}
    for field, name in _ENGINES[recipe.backend].FIELDS:
        value = getattr(recipe, field)
        if value is None:
            continue
        if name is None:
            raise UsageError(f"`{field}` means nothing to {recipe.backend}; remove it or use `extra_args:`")
        if field in ("tool_call_parser", "reasoning_parser") and value == "auto":
            value = _inferred(recipe, field)
        result[name] = (field, words(recipe.backend, name, value))
    return result


def behind(recipe: Recipe) -> tuple[str, int]:
    """Host and port of an on-demand engine: on loopback, behind the socket that has the recipe's own."""
    given = recipe.on_demand
    public = recipe.port or _ENGINES[recipe.backend].PORT
    own = (given.engine_port if given else None) or (public + 20000 if public < 45536 else public - 20000)
    if own == public:
        raise UsageError(f"`on_demand.engine_port` is `port` itself ({public}); choose another")
    return "127.0.0.1", own


@dataclass(frozen=True)
class Word:
    """One word of argv, and the key of the recipe that it comes from; () is the runtime."""

    text: str
    key: tuple[str | int, ...]


def argv(recipe: Recipe, runtime: Runtime) -> tuple[str, ...]:
    """The words of ExecStart=."""
    return tuple(word.text for word in command(recipe, runtime))


def command(recipe: Recipe, runtime: Runtime) -> tuple[Word, ...]:
    """The words of ExecStart= with their keys: runtime, model, fields, extra_args in their order, `args`."""
    engine = _ENGINES[recipe.backend]
    if recipe.on_demand:
        for flag_ in ("--host", "--port"):
            if any(word == flag_ or word.startswith(f"{flag_}=") for word in recipe.args):
                raise UsageError(f"`args` has {flag_}, which `on_demand` sets; use `{flag_[2:]}:`")
        host, port = behind(recipe)
        recipe = recipe.model_copy(update={"host": host, "port": port})
    model = (recipe.model_path,) if runtime.positional_model else (engine.MODEL, recipe.model_path)
    made = [Word(text, ()) for text in runtime.command] + [Word(text, ("model_path",)) for text in model]
    fields = _fields(recipe)
    behind_socket = ("host", "port") if recipe.on_demand else ()
    for field, rendered in fields.values():
        key = "on_demand" if field in behind_socket else field
        made += [Word(text, (key,)) for text in rendered]
    made += [Word(text, ("nodes",)) for text in (engine.nodes(recipe.nodes) if recipe.nodes else ())]
    seen: dict[str, str] = {}
    for key, value in recipe.extra_args.items():
        if key.replace("-", "_") in INTERNAL or value is None:
            continue
        name, rendered = flag(key), words(recipe.backend, key, value)
        if name in seen:
            raise UsageError(
                f"`extra_args` has both `{seen[name]}` and `{key}`, which are one flag; keep one"
            )
        seen[name] = key
        if name == engine.MODEL:
            raise UsageError(f"`extra_args.{key}` is the model; use `model_path:`")
        if name in fields:
            if fields[name][1] != rendered:
                raise UsageError(
                    f"`{fields[name][0]}` and `extra_args.{key}` disagree on {name}; keep one of them"
                )
            continue
        made += [Word(text, ("extra_args", key)) for text in rendered]
    made += [Word(text, ("args", index)) for index, text in enumerate(recipe.args)]
    return tuple(made)


@dataclass(frozen=True)
class Endpoint:
    """Where the engine will listen, as far as its own arguments say, and its health path."""

    host: str
    port: int
    path: str | None  # None: it answers no requests, and is ready when it runs

    @property
    def connect(self) -> str:
        """The address to ask: a wildcard is asked on loopback."""
        return {"0.0.0.0": "127.0.0.1", "::": "::1", "": "127.0.0.1"}.get(self.host, self.host)  # noqa: S104  (read)

    @property
    def url(self) -> str:
        host = f"[{self.connect}]" if ":" in self.connect else self.connect
        return f"http://{host}:{self.port}"


def endpoint(recipe: Recipe, argv: tuple[str, ...]) -> Endpoint:
    """Read back from the argv, so that `host`, `extra_args` and `args` all count; the last one wins."""
    engine = _ENGINES[recipe.backend]
    found = {"--host": engine.HOST, "--port": str(engine.PORT)}
    for index, given in enumerate(argv):
        name, equals, value = given.partition("=")
        if name in found:
            found[name] = value if equals else argv[index + 1] if index + 1 < len(argv) else ""
    if not (found["--port"].isascii() and found["--port"].isdigit() and 0 < int(found["--port"]) < 65536):
        raise UsageError(f"the port `{found['--port']}` is not a number from 1 to 65535; set `port:`")
    silent = recipe.nodes is not None and recipe.nodes.rank > 0
    path = None if silent else recipe.ready.path or engine.HEALTH
    return Endpoint(found["--host"], int(found["--port"]), path)


def public(recipe: Recipe, behind: Endpoint) -> Endpoint:
    """Where clients ask: the socket of an on-demand model, else the engine itself."""
    if not recipe.on_demand:
        return behind
    engine = _ENGINES[recipe.backend]
    return Endpoint(recipe.host or engine.HOST, recipe.port or engine.PORT, behind.path)


def model_flag(engine: str) -> str:
    """The flag that names the model where it is not positional."""
    return str(_ENGINES[engine].MODEL)


def node_words(engine: str, nodes: Nodes) -> tuple[str, ...]:
    """The words for one host of several."""
    words: tuple[str, ...] = _ENGINES[engine].nodes(nodes)
    return words


def fields(engine: str) -> tuple[tuple[str, str | None], ...]:
    """(field, flag) in the engine's customary order; no flag where the field means nothing to it."""
    pairs: tuple[tuple[str, str | None], ...] = _ENGINES[engine].FIELDS
    return pairs
