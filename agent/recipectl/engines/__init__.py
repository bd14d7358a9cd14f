"""How a recipe becomes an engine's argv; one file per engine says what is its own."""

import json
import re
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Any, NamedTuple

from recipectl.engines import llamacpp, sglang, vllm
from recipectl.errors import SeveralError, UsageError
from recipectl.machine.runtime import Runtime
from recipectl.recipe.schema import INTERNAL, Nodes, Recipe

_ENGINES = {"vllm": vllm, "sglang": sglang, "llamacpp": llamacpp}


class Option(NamedTuple):
    """One option. Kinds: flag, negatable (has --no-x), value, optional, words, repeated, commas."""

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

    def choices(self, name: str) -> tuple[str, ...] | None:
        """The words that an option takes, None where it takes any."""
        found = self.by_flag.get(name)
        return found.choices if found else None

    def canonical(self, name: str) -> str:
        """The long flag of an alias, or of a negation; a name that is not known as it is."""
        name = flag(name[2:]) if name.startswith("--") else name
        name = self.aliases.get(name, name)
        if name.startswith("--no-") and self.kind(
            other := self.aliases.get(f"--{name[5:]}", f"--{name[5:]}")
        ):
            return other if self.kind(other) == "negatable" else name
        return name


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


# Numbers that argparse tells from flags (its _negative_number_matcher).
_NEGATIVE = re.compile(r"-\d+\Z|-\d*\.\d+\Z")


def words(engine: str, key: str, value: Any) -> tuple[str, ...]:
    """The words that one option becomes; none for null, and for false where the engine has no `--no-`.

    UsageError for `on` or `off` without quotes, where the engine wants such a word.
    """
    name, known = flag(key), options(engine)
    kind = known.kind(known.canonical(name))
    if value is None:
        return ()
    if isinstance(value, bool):
        choices = known.choices(known.canonical(name))
        if choices and kind != "optional" and (value or {"off", "no", "false", "none"} & {*choices}):
            spelled = "on" if value else "off"
            told = f"is one of {', '.join(choices)}, and YAML takes `{spelled}` for true or false"
            raise UsageError(f"`extra_args.{key}` {told}; put it in quotes", "extra_args", key)
        if value:
            return (name,)
        negated = name.startswith("--no-") and known.canonical(name) != name
        return (f"--no-{name[2:]}",) if kind == "negatable" and name[:2] == "--" and not negated else ()
    if isinstance(value, dict):
        return (name, _json(value))
    if isinstance(value, list):
        if kind == "words":
            return (name, *map(_scalar, value)) if value else ()
        if kind == "commas":
            return (name, ",".join(map(_scalar, value)))
        if kind == "repeated" or engine == "llamacpp":
            return tuple(word for item in value for word in (name, _scalar(item)))
        return (name, _json(value))
    text = _scalar(value)
    # argparse takes a word that begins with `-` for a flag, unless it is a number.
    if text.startswith("-") and not _NEGATIVE.match(text) and name.startswith("--"):
        return (f"{name}={text}",)
    return (name, text)


def _inferred(recipe: Recipe, field: str, flag: str) -> str:
    if "auto" in (options(recipe.backend).choices(flag) or ()):
        return "auto"  # SGLang infers it itself
    found = vllm.infer(field, recipe.model_path) if recipe.backend == "vllm" else None
    if found is None:
        told = f"`{field}: auto` knows no parser of {recipe.backend} for `{recipe.model_path}`; name one"
        raise UsageError(told, field)
    return found


def _fields(recipe: Recipe) -> dict[str, tuple[str, tuple[str, ...]]]:
    """Flag -> (field, words) of the fields that the recipe sets, in the engine's customary order."""
    result, errors = {}, list[UsageError]()
    for field, name in _ENGINES[recipe.backend].FIELDS:
        value = getattr(recipe, field)
        if value is None:
            continue
        try:
            if name is None:
                told = f"`{field}` means nothing to {recipe.backend}; remove it or use `extra_args:`"
                raise UsageError(told, field)
            if field in ("tool_call_parser", "reasoning_parser") and value == "auto":
                value = _inferred(recipe, field, name)
            result[name] = (field, words(recipe.backend, name, value))
        except UsageError as error:
            errors.append(error)
    if recipe.binary and recipe.backend != "llamacpp":
        told = f"`binary` means nothing to {recipe.backend}; remove it or use `python_path:`"
        errors.append(UsageError(told, "binary"))
    if errors:
        raise SeveralError(errors)
    return result


def behind(recipe: Recipe) -> tuple[str, int]:
    """Host and port of an on-demand engine: on loopback, behind the socket that has the recipe's own."""
    given = recipe.on_demand
    public = recipe.port or _ENGINES[recipe.backend].PORT
    # Never among the ports that Linux gives to clients (ip(7)): 32768 to 60999 may be taken at any time.
    default = public + 20000 if public < 12768 else (public - 12768) % 30000 + 2768
    own = (given.engine_port if given else None) or default
    if own == public:
        told = f"`on_demand.engine_port` is `port` itself ({public}); choose another"
        raise UsageError(told, "on_demand", "engine_port")
    return "127.0.0.1", own


class Word(NamedTuple):
    """One word of argv, and the key of the recipe that it comes from; () is the runtime."""

    text: str
    key: tuple[str | int, ...]


def command(recipe: Recipe, runtime: Runtime) -> tuple[Word, ...]:
    """The words of ExecStart= with their keys: runtime, model, fields, extra_args in their order, `args`."""
    engine = _ENGINES[recipe.backend]
    if recipe.on_demand:
        for flag_ in ("--host", "--port"):
            if any(word == flag_ or word.startswith(f"{flag_}=") for word in recipe.args):
                told = f"`args` has {flag_}, which `on_demand` sets; use `{flag_[2:]}:`"
                raise UsageError(told, "args")
        host, port = behind(recipe)
        recipe = recipe.model_copy(update={"host": host, "port": port})
    model = (recipe.model_path,) if runtime.positional_model else (engine.MODEL, recipe.model_path)
    made = [Word(text, ()) for text in runtime.command] + [Word(text, ("model_path",)) for text in model]
    errors: list[UsageError] = []
    fields: dict[str, tuple[str, tuple[str, ...]]] = {}
    try:
        fields = _fields(recipe)
    except UsageError as error:
        errors.append(error)
    behind_socket = ("host", "port") if recipe.on_demand else ()
    for field, rendered in fields.values():
        key = "on_demand" if field in behind_socket else field
        made += [Word(text, (key,)) for text in rendered]
    nodes: tuple[str, ...] = ()
    try:
        nodes = engine.nodes(recipe.nodes) if recipe.nodes else ()
    except UsageError as error:
        errors.append(error)
    made += [Word(text, ("nodes",)) for text in nodes]
    known = options(recipe.backend)
    # What is given already, under the engine's own name of the flag: (key of the recipe, words).
    given = {known.canonical(name): (field, its) for name, (field, its) in fields.items()}
    given |= {known.canonical(word): ("nodes", ()) for word in nodes if word.startswith("--")}
    given[known.canonical(engine.MODEL)] = ("model_path", ())
    if known.kind("--model"):
        given[known.canonical("--model")] = ("model_path", ())
    for key, value in recipe.extra_args.items():
        if key in INTERNAL or value is None:
            continue
        where = f"extra_args.{key}"
        try:
            if not key or key.strip("-") == "":
                raise UsageError("`extra_args` has an empty key; name a flag", "extra_args", key)
            rendered = words(recipe.backend, key, value)
            name = known.canonical(flag(key))
            if name in given:
                other, its = given[name]
                if its != rendered:
                    told = f"`{other}` and `{where}` disagree on {name}; keep one of them"
                    raise UsageError(told, "extra_args", key)
                continue
            given[name] = (where, rendered)
            made += [Word(text, ("extra_args", key)) for text in rendered]
        except UsageError as error:
            errors.append(error)
    if errors:
        raise SeveralError(errors)
    made += [Word(text, ("args", index)) for index, text in enumerate(recipe.args)]
    return tuple(made)


def drain_sec(recipe: Recipe, argv: tuple[str, ...]) -> int:
    """How long an engine may take to finish its requests after SIGTERM (vLLM's --shutdown-timeout)."""
    text = ""
    for index, word in enumerate(argv):
        name, equals, value = word.partition("=")
        if recipe.backend == "vllm" and flag(name.lstrip("-")) == "--shutdown-timeout":
            # The last one counts, as for argparse.
            text = value if equals else argv[index + 1] if index + 1 < len(argv) else ""
    return int(float(text)) if re.fullmatch(r"[0-9]+(\.[0-9]+)?", text) else 0


class Endpoint(NamedTuple):
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
        if engine is not llamacpp and len(name) > 4:  # argparse takes the beginning of a flag
            name = next((flag for flag in found if flag.startswith(name)), name)
        if name in found:
            found[name] = value if equals else argv[index + 1] if index + 1 < len(argv) else ""
    if not (found["--port"].isascii() and found["--port"].isdigit() and 0 < int(found["--port"]) < 65536):
        told = f"the port `{found['--port']}` is not a number from 1 to 65535; set `port:`"
        raise UsageError(told, "args", "port")
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
