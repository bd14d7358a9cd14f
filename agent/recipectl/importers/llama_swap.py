"""llama-swap's config.yaml: each model becomes an on-demand recipe with a port, behind one address."""

import re
import shlex
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from recipectl.errors import UsageError
from recipectl.importers.command import (
    Command,
    NoEngineError,
    OtherProgramError,
    command_from_words,
    program_shown,
)
from recipectl.importers.draft import Draft, redacted, unique_name
from recipectl.importers.from_command import draft_from_command, model_name
from recipectl.importers.lines import Remark, at, place_of
from recipectl.importers.llama_swap_groups import groups_of, router_of, set_conflicts
from recipectl.importers.llama_swap_macros import replaced, with_macros, with_own_macros
from recipectl.importers.shapes import Map, mapping, refuse_private, sequence, whole_number
from recipectl.importers.shell_inline import opened_engine
from recipectl.importers.shell_programs import hidden_engine, what_it_is
from recipectl.importers.unwrapping import unwrapped
from recipectl.importers.variables import keep_cache

# Keys for the proxy in front of the models; units have no proxy.
_PROXY_KEYS = (
    "peers", "profiles", "selectors", "upstream", "store", "performance", "sendLoadingState", "unloadTimeout",
    "logLevel", "logTimeFormat", "logToStdout", "logRequests", "includeAliasesInList", "metricsMaxInMemory",
    "captureBuffer", "ui",
)  # fmt: skip
_MODEL_PROXY_KEYS = """
    cmdStop proxy filters metadata concurrencyLimit timeouts capabilities compat unlisted useModelName
    unloadTimeout sendLoadingState
    """.split()  # noqa: SIM905  (a list one can read)
_KEYS = {
    *_PROXY_KEYS, "apiKeys", "models", "groups", "macros", "startPort", "healthCheckTimeout", "hooks",
    "globalTTL", "routing", "matrix",
}  # fmt: skip
# The keys with macros that are read here; each model has macros of its own.
_READ_WITH_MACROS = ("groups", "routing", "matrix", "hooks", "healthCheckTimeout", "globalTTL", "startPort")
_MODEL_KEYS = {
    *_MODEL_PROXY_KEYS, "cmd", "aliases", "env", "checkEndpoint", "ttl", "name", "description", "macros",
}  # fmt: skip
_NEVER = "365d"
# What llama-swap listens at by default; its configuration does not say it.
_LISTEN = "127.0.0.1:8080"
_OWN_PORT = re.compile(r"https?://(?:localhost|127\.0\.0\.1):([0-9]{1,5})/?")
_OTHER_MACHINES = "clients on other machines: for them `gateway:` needs `listen: 0.0.0.0:8080` and `keys:`"


class Imported(NamedTuple):
    """The recipes, `gateway:` of the host file, and what is not carried over."""

    drafts: list[Draft]
    gateway: dict[str, Any]
    not_carried_over: list[Remark]


def imported(config: Map, source: str, root: Any = None) -> Imported:
    """The recipes and the gateway of llama-swap's configuration; UsageError when the file is not its own.

    `root` is the YAML node of the configuration, for its lines. Not carried over are settings of the proxy,
    and models with an error.
    """
    refuse_private(config)
    models = config.get("models")
    if not isinstance(models, Mapping):
        raise UsageError("it has no `models:`; give llama-swap's config.yaml")
    if not models:
        raise UsageError("its `models:` is empty; give a configuration with models", "models")
    models = {str(name): model for name, model in models.items()}
    shared = mapping(config.get("macros"), "macros")
    config = {
        key: replaced(value, shared) if key in _READ_WITH_MACROS else value for key, value in config.items()
    }
    not_carried_over = [
        Remark(sentence, within=place_of(root, *keys)) for *keys, sentence in _settings_without_key(config)
    ]
    port = whole_number(config.get("startPort") or 5800, "startPort")
    groups = groups_of(config, root)
    preloaded = _preloaded(config)
    by_model: dict[str, Draft] = {}
    for name, model in [*models.items()]:
        try:
            model = models[name] = with_own_macros(name, model, shared, port)
            draft = _draft(str(name), model, config, root, port=port, source=source)
            if {str(name), *_aliases(model)} & preloaded:
                fault = "`hooks.on_startup.preload`: an on-demand model loads at its first request"
                draft.not_carried_over.append(
                    Remark(fault, within=place_of(root, "hooks", "on_startup", "preload"))
                )
        except UsageError as error:
            place = place_of(root, "models", str(name), *map(str, error.key or ["cmd"]))
            is_unknown = isinstance(error, NoEngineError) and not isinstance(error, OtherProgramError)
            fault = _what_runs(model) if is_unknown else str(error)
            not_carried_over.append(Remark(f"model `{name}`: {fault}", within=place))
            continue
        port += 1
        holders = {other.fields["port"]: other.name for other in by_model.values()}
        port = _set_own_port(draft, holders, port, place_of(root, "models", str(name), "cmd"))
        draft.name = unique_name(draft.name, {other.name for other in by_model.values()})
        by_model[str(name)] = draft
    aliases = {name: {name, *_aliases(models[name])} for name in by_model}
    not_carried_over += _of_several_models(aliases, preloaded - {*models}, root)
    set_conflicts(by_model, groups)
    names = {
        alias: draft.name
        for name, draft in by_model.items()
        for alias in (name, *_aliases(models[name]))
        if draft.fields["backend"] == "sglang"
        and alias not in (draft.name, draft.fields["served_model_name"])
    }
    not_carried_over += [Remark(_OTHER_MACHINES)] if by_model else []
    gateway = {"listen": _LISTEN} | ({"names": names} if names else {})
    return Imported(list(by_model.values()), gateway, not_carried_over)


def _of_several_models(aliases: Mapping[str, set[str]], preloaded: set[str], root: Any) -> Iterator[Remark]:
    """What must be said of names that several models have, and of preloaded names that none has."""
    holders: dict[str, list[str]] = {}
    for name, own_names in aliases.items():
        for alias in sorted(own_names):
            holders.setdefault(alias, []).append(name)
    for alias, names in holders.items():
        if len(names) > 1:
            fault = f"the name `{alias}` of {' and '.join(names)}, which llama-swap refuses"
            place = place_of(root, "models", names[-1], "aliases")
            yield Remark(f"{fault}; leave it to one of them", within=place)
    for name in sorted(preloaded - holders.keys()):
        fault = f"`{name}` of `hooks.on_startup.preload`, which is no model here"
        yield Remark(fault, within=place_of(root, "hooks", "on_startup", "preload"))


def _what_runs(model: Map) -> str:
    """What is said of a model whose command is no engine that can be read."""
    words = unwrapped(_command(_joined_lines(with_macros(model["cmd"], model["macros"])), {})).words
    if not words:
        return "`cmd`, which runs no program"
    return hidden_engine(words) or f"`{redacted(program_shown(words))}`, {what_it_is(words)}"


def _set_own_port(draft: Draft, holders: Mapping[Any, str], port: int, place: str) -> int:
    """Give a recipe the first free port from `port` where its own has a holder; the next port to give."""
    own = draft.fields["port"]
    if own not in holders:
        return port
    while port in holders:
        port += 1
    draft.set("port", port)
    draft.comments.pop("port", None)
    draft.not_carried_over.append(Remark(f"port {own}, which `{holders[own]}` has, too", within=place))
    return port + 1


def _settings_without_key(config: Map) -> Iterator[tuple[str, ...]]:
    """The keys of what recipectl lacks, each path with a sentence after it."""
    yield from ((key, f"`{key}:`, a setting of the proxy") for key in _PROXY_KEYS if config.get(key))
    if config.get("apiKeys"):
        yield "apiKeys", "`apiKeys:`: write each as a line `name key` into a file of `gateway.keys:`"
    unknown = (str(key) for key in config if key not in _KEYS and not str(key).startswith("x-"))
    yield from ((key, f"`{key}:`, which recipectl does not know") for key in unknown)
    if config.get("matrix"):
        yield "matrix", "`matrix:`: use `gpus:` and `gpu_sharing:`; `conflicts:` are those without it"
    routing = mapping(config.get("routing"), "routing")
    yield from (("routing", str(key), f"`routing.{key}:`") for key in routing if key != "router")
    if router_of(config).get("use") == "matrix":
        yield "routing", "`routing.router.settings.matrix`: use `gpus:` and `gpu_sharing:`"


def _preloaded(config: Map) -> set[str]:
    """The names and aliases of the models that llama-swap loads when it starts."""
    on_startup = mapping(mapping(config.get("hooks"), "hooks").get("on_startup"), "hooks.on_startup")
    return {str(name) for name in sequence(on_startup.get("preload"), "hooks.on_startup.preload")}


def _aliases(model: Map) -> list[str]:
    """The further names of a model; some files have mappings with an `id`."""
    entries = sequence(model.get("aliases"), "aliases")
    names = [entry.get("id") if isinstance(entry, Mapping) else entry for entry in entries]
    by_id = mapping(mapping(model.get("filters"), "filters").get("setParamsByID"), "filters.setParamsByID")
    return [*(str(alias) for alias in names if alias), *map(str, by_id)]


def _joined_lines(command: str) -> str:
    """A command of several lines, with or without `\\`, without comments; a line ends like a word."""
    lines = [line.strip() for line in command.splitlines()]
    return "\n".join(line.removesuffix("\\").strip() for line in lines if line and not line.startswith("#"))


def _draft(name: str, model: Map, config: Map, root: Any, *, port: int, source: str) -> Draft:
    """The recipe of one model, without what depends on the other models."""
    macros = model["macros"]
    # Comments go before macros are replaced: a comment may name an unknown macro.
    if not isinstance(model.get("cmd") or "", str):
        raise UsageError("its `cmd` is no text; write the command as one text", "cmd")
    command_line = _joined_lines(with_macros(_joined_lines(model.get("cmd") or ""), macros))
    command = _command(command_line, _environment(model, macros))
    command.stand_at(place_of(root, "models", name, "cmd"))
    draft = draft_from_command(command, model_name(name), f"From llama-swap ({source}), model {name}.")
    if user := draft.fields.get("user"):
        keep_cache(draft, user)
    if title := ": ".join(str(model[key]) for key in ("name", "description") if model.get(key)):
        description = " ".join(with_macros(title, macros).split())
        draft.fields = {"description": description, **draft.fields}
    fixed = _OWN_PORT.fullmatch(str(model.get("proxy") or ""))
    if "port" not in draft.fields and fixed and int(fixed[1]) < 65536:
        draft.set("port", int(fixed[1]), "The port of `proxy:`.")
    elif "port" not in draft.fields:
        draft.set("port", port, "llama-swap's port for this model.")
    _set_served_names(draft, [name, *_aliases(model)])
    with at(place_of(root, "models", name, "checkEndpoint"), draft.not_carried_over):
        _set_readiness(draft, model, config)
    _set_idle_time(draft, model, config)
    for key, value in model.items():
        with at(place_of(root, "models", name, str(key)), draft.not_carried_over):
            if key not in _MODEL_KEYS:
                draft.lose(f"`{key}`, which recipectl does not know")
            elif key in _MODEL_PROXY_KEYS and value and not _is_ours(key, str(value).strip(), draft):
                what = "how llama-swap stops it" if key == "cmdStop" else "a setting of the proxy"
                draft.lose(f"`{key}`, {what}")
    return draft


def _environment(model: Map, macros: Map) -> dict[str, str]:
    """The variables of `env:`, a list or a mapping."""
    entries = model.get("env")
    if isinstance(entries, Mapping):
        entries = [f"{variable}={value}" for variable, value in entries.items()]
    texts = (with_macros(str(entry), macros) for entry in sequence(entries, "env"))
    return {variable: value for variable, _, value in (text.partition("=") for text in texts)}


def _command(line: str, environment: Mapping[str, str]) -> Command:
    """The words of `cmd`, which llama-swap runs without a shell; the engine in `bash -c SCRIPT`."""
    try:
        words = shlex.split(line)
    except ValueError as error:
        raise UsageError(f"its `cmd` cannot be split into words ({error}); correct its quotes") from error
    if not words:
        raise UsageError("it has no `cmd`; give it one")
    command = command_from_words(words)
    command.environment = {**environment, **command.environment}
    return opened_engine(command)


def _is_ours(key: str, value: str, draft: Draft) -> bool:
    """Whether a setting of the proxy says nothing that the recipe does not say."""
    if key == "cmdStop":
        return bool(re.fullmatch(r"(docker|podman) stop [^-\s]\S*|kill (-(15|(SIG)?TERM) )?\$\{PID\}", value))
    if key == "useModelName":
        names = draft.fields.get("extra_args", {}).get("served-model-name", [])
        return value in (*names, *str(draft.fields.get("served_model_name")).split(","))
    return key == "proxy" and _OWN_PORT.sub(r"\1", value) == str(draft.fields.get("port"))


def _set_served_names(draft: Draft, llama_swap_names: list[str]) -> None:
    """Set the names that clients use: those of the command, then llama-swap's id and aliases."""
    backend = draft.fields["backend"]
    extra_args = draft.fields.get("extra_args", {})
    value = draft.fields.pop("served_model_name", None) or extra_args.pop("served-model-name", None) or []
    command_names = value if isinstance(value, list) else [str(value)]
    names = list(dict.fromkeys([*command_names, *llama_swap_names]))
    comment = (
        "The command's name, llama-swap's id and aliases."
        if command_names
        else "llama-swap's id and aliases."
    )
    if backend == "vllm" and len(names) > 1:
        draft.fields.setdefault("extra_args", {})["served-model-name"] = names
        draft.comments["extra_args.served-model-name"] = comment
    elif backend == "sglang":
        draft.set("served_model_name", names[0])  # it serves one name: the gateway knows the others
    else:
        draft.set("served_model_name", ",".join(names), comment if len(names) > 1 else None)


def _set_readiness(draft: Draft, model: Map, config: Map) -> None:
    ready: dict[str, Any] = {}
    path = model.get("checkEndpoint")
    if path == "none":
        draft.lose("`checkEndpoint: none`: a model is ready when it answers `ready.path`")
    elif path and path != "/health":
        ready["path"] = path
    if timeout := config.get("healthCheckTimeout"):
        ready["timeout_sec"] = max(15, whole_number(timeout, "healthCheckTimeout"))
    if ready:
        draft.set("ready", ready)


def _set_idle_time(draft: Draft, model: Map, config: Map) -> None:
    idle_sec = model.get("ttl", -1)
    if idle_sec in (-1, None):
        idle_sec = config.get("globalTTL") or 0
    idle_sec = whole_number(idle_sec, "ttl")
    if idle_sec:
        draft.set("on_demand", {"idle": idle_sec})
    else:
        draft.set("on_demand", {"idle": _NEVER}, "llama-swap does not unload this model when it is idle.")
