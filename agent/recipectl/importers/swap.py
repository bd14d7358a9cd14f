"""llama-swap's config.yaml: each model a recipe of its own, on demand, on a port of its own."""

import re
import shlex
from collections.abc import Mapping
from typing import Any

from recipectl.errors import UsageError
from recipectl.importers import shell
from recipectl.importers.draft import Draft, marked
from recipectl.importers.words import drafted, model_name

# What a proxy in front of models does, and units do not.
_LOST = ("cmdStop", "proxy", "filters", "metadata", "concurrencyLimit", "timeouts", "capabilities", "compat",
         "unlisted", "useModelName", "unloadTimeout", "sendLoadingState")  # fmt: skip
_HOST_LOST = ("apiKeys", "peers", "profiles", "selectors", "upstream", "store", "performance")
_MACRO = re.compile(r"\$\{([A-Za-z0-9_.-]+)\}")
NEVER = "365d"


def _macros(text: str, known: Mapping[str, Any]) -> str:
    """`${name}` replaced, as often as a macro holds another; `${env.NAME}` is a variable of the host."""

    def one(match: re.Match[str]) -> str:
        name = match[1]
        if name.startswith("env."):
            return marked(name[4:])
        if name not in known:
            raise UsageError(f"`${{{name}}}` is no macro of this file; define it under `macros:`")
        value = known[name]
        return str(value).lower() if isinstance(value, bool) else str(value)

    for _ in range(10):
        replaced = _MACRO.sub(one, text)
        if replaced == text:
            return text
        text = replaced
    raise UsageError(f"the macros in `{text[:40]}` lead back to themselves; break the circle")


def _one_line(command: str) -> str:
    """A command of several lines: comments go, and the lines are one (with or without `\\`)."""
    lines = [line.strip() for line in command.splitlines()]
    return " ".join(line.removesuffix("\\").strip() for line in lines if line and not line.startswith("#"))


def _groups(config: Mapping[str, Any]) -> dict[str, tuple[str, Mapping[str, Any]]]:
    """Model -> (its group's name, the group)."""
    router = ((config.get("routing") or {}).get("router") or {}).get("settings") or {}
    groups = config.get("groups") or router.get("groups") or {}
    return {member: (name, group) for name, group in groups.items() for member in group.get("members") or ()}


def drafts(config: Mapping[str, Any], source: str) -> tuple[list[Draft], list[str]]:
    """The recipes, and what of the file has no place in any; a model that cannot be read is told there."""
    models = config.get("models")
    if not isinstance(models, Mapping):
        raise UsageError(f"{source} has no `models:`; give llama-swap's config.yaml")
    lost = [f"`{key}:`, which belongs to a proxy" for key in _HOST_LOST if config.get(key)]
    if ((config.get("routing") or {}).get("router") or {}).get("use") == "matrix":
        lost.append("`routing.router.settings.matrix`: use `gpus:` and `gpu_sharing:`")
    found: dict[str, Draft] = {}
    try:
        port = int(config.get("startPort") or 5800)
    except ValueError as error:
        raise UsageError(f"{source}: `startPort` is no number; correct it") from error
    preload = ((config.get("hooks") or {}).get("on_startup") or {}).get("preload") or ()
    for name, model in models.items():
        try:
            if not isinstance(model, Mapping):
                raise UsageError("it says nothing; give it a `cmd`")
            one = _draft(str(name), model, config, port, source)
            port += 1
        except UsageError as error:
            lost.append(f"model `{name}`: {error}")
            continue
        if name in preload:
            one.lost.append("`hooks.on_startup.preload`: an on-demand model loads at its first request")
        taken, stem, number = {there.name for there in found.values()}, one.name, 2
        while one.name in taken:
            one.name, number = f"{stem}-{number}", number + 1
        found[str(name)] = one
    _share(found, _groups(config))
    return list(found.values()), lost


def _draft(name: str, model: Mapping[str, Any], config: Mapping[str, Any], port: int, source: str) -> Draft:
    known = {**(config.get("macros") or {}), **(model.get("macros") or {}), "PORT": port, "MODEL_ID": name}
    # Comments go before macros come: a comment may name one.
    text = _one_line(_macros(_one_line(str(model.get("cmd") or "")), known))
    try:
        command = shell.split(shlex.split(text))  # llama-swap runs it without a shell
    except ValueError as error:
        raise UsageError(f"its `cmd` cannot be split into words ({error}); correct its quotes") from error
    for entry in model.get("env") or ():
        variable, _, value = _macros(str(entry), known).partition("=")
        command.environment[variable] = value
    one = drafted(command, model_name(str(name)), f"From llama-swap ({source}), model {name}.")
    title = model.get("description") or model.get("name")
    if title:
        one.fields = {"description": " ".join(_macros(str(title), known).split()), **one.fields}
    if "port" not in one.fields:
        one.set("port", port, "llama-swap's port for it; clients ask it here, there is no proxy for all")
    _served(one, [name, *map(str, model.get("aliases") or ())])
    ready = {}
    if (path := model.get("checkEndpoint")) == "none":
        one.lost.append("`checkEndpoint: none`: a model is ready when it answers `ready.path`")
    elif path and path != "/health":
        ready["path"] = path
    if timeout := config.get("healthCheckTimeout"):
        ready["timeout_sec"] = max(15, int(timeout))
    if ready:
        one.set("ready", ready)
    ttl = model.get("ttl", -1)
    ttl = config.get("globalTTL") or 0 if ttl in (-1, None) else ttl
    why = None if ttl else "llama-swap never unloads it by itself"
    one.set("on_demand", {"idle": int(ttl) if ttl else NEVER}, why)
    own = {"proxy": "http://127.0.0.1:${PORT}"}  # llama-swap's default
    one.lost += [
        f"`{key}`" for key in _LOST if model.get(key) not in (None, own.get(key), "", [], {}, 0, False)
    ]
    return one


def _served(one: Draft, names: list[str]) -> None:
    """The names that clients use: llama-swap's id and aliases, beside those that the command gives itself."""
    backend, extra = one.fields["backend"], one.fields.get("extra_args", {})
    given = one.fields.pop("served_model_name", None) or extra.pop("served-model-name", None) or []
    given = given if isinstance(given, list) else [str(given)]
    together = list(dict.fromkeys([*given, *names]))
    why = "its own name, llama-swap's id and aliases" if given else "llama-swap's id and aliases"
    if backend == "vllm" and len(together) > 1:
        one.fields.setdefault("extra_args", {})["served-model-name"] = together
        one.why["extra_args.served-model-name"] = why
    elif backend == "sglang":
        one.set("served_model_name", together[0])
        one.lost += [f"the name `{name}`: SGLang serves one name" for name in together[1:]]
    else:
        one.set("served_model_name", ",".join(together), why if len(together) > 1 else None)


def _share(found: Mapping[str, Draft], groups: Mapping[str, tuple[str, Mapping[str, Any]]]) -> None:
    """Who may run beside whom, as the groups say it."""
    for name, one in found.items():
        mine, group = groups.get(name, ("(default)", {}))
        if "gpus" not in one.fields:
            one.set("gpus", "all", "llama-swap does not say which; name them, and more may run at once")
        together = not group.get("swap", True)
        others = []
        for other in found:
            its, theirs = groups.get(other, ("(default)", {}))
            exclusive = group.get("exclusive", True) or theirs.get("exclusive", True)
            if its != mine and exclusive and not theirs.get("persistent"):
                others.append(other)
        if together or len(others) + 1 < len(found):
            # What the GPUs would say of each pair is said of each by name.
            siblings = [] if together else [
                other for other in found if other != name and groups.get(other, ("(default)", {}))[0] == mine
            ]  # fmt: skip
            one.set("gpu_sharing", "free", f"group {mine}: who stops whom is below")
            if stopped := sorted(found[other].name for other in [*others, *siblings]):
                one.set("conflicts", stopped)
        if group.get("persistent"):
            one.lost.append(f"group {mine} is persistent: nothing of another group stops its members")
