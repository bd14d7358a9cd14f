"""Warnings: settings that are valid, but probably unintended. Pure."""

from collections.abc import Iterator

from recipectl.compiler import gpus, secrets
from recipectl.compiler.companions import has_metrics
from recipectl.compiler.environment import key_of
from recipectl.compiler.model import ResolvedRecipe, Variable
from recipectl.engines.registry import ENGINES
from recipectl.errors import UsageError
from recipectl.recipe.schema import HF_TOKENS

_KEY_VARIABLES = {name for engine in ENGINES.values() for name in engine.key_variables}
_GPU_VARIABLES = ("CUDA_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES")
_RECIPE_LAYERS = {"extra_args.env_vars", "env_vars", "gpus"}


def warnings(resolved: ResolvedRecipe) -> Iterator[UsageError]:
    """Yield each warning with the key that causes it."""
    recipe = resolved.recipe
    for sentence in resolved.runtime.warnings:
        yield UsageError(sentence, *resolved.runtime.key, kind="runtime")
    misleading = ENGINES[recipe.backend].misleading_variables
    for name, variable in resolved.environment.items():
        key = key_of(variable.layer, name)
        if variable.layer not in ("secrets", "directories") and secrets.looks_secret(name, variable.value):
            owner = " of the host file" if variable.layer == "host file" else ""
            fault = f"`{name}`{owner} looks like a secret, and anyone may read a unit"
            yield UsageError(f"{fault}; move it to `secrets:`", *key, kind="secret")
        if name in misleading and variable.layer != "nodes":
            fault = f"`{name}` does not set where the engine listens"
            yield UsageError(f"{fault}; use `host:` and `port:`", *key, kind="variable")
        yield from _chosen_elsewhere(recipe.backend, name, variable)
        yield from _contradictions(name, variable)
    words = resolved.words
    for word, shown_text in zip(words, secrets.redacted(resolved.argv), strict=True):
        if word.key and shown_text != word.text:
            remedy = "use `secrets:`"
            if recipe.backend == "sglang":
                remedy = "SGLang reads no variable for it, so put a proxy that asks for a key before it"
            sentence = f"a word of the command looks like a secret, and anyone may read it; {remedy}"
            yield UsageError(sentence, *word.key, kind="secret")
    yield from _open_address(resolved)
    yield from _unread_token(resolved)
    yield from _low_port(resolved)
    for sentence in gpus.spelling_problems(recipe, resolved.gpus):
        yield UsageError(sentence, "gpus", kind="gpu")
    yield from _no_metrics(resolved)
    if recipe.venv_path and recipe.extra_args.get("venv_path") not in (None, recipe.venv_path):
        sentence = "`venv_path` and `extra_args.venv_path` disagree; keep one of them"
        yield UsageError(sentence, "venv_path", kind="runtime")


def _no_metrics(resolved: ResolvedRecipe) -> Iterator[UsageError]:
    """Yield a warning where a watch asks for progress, and the engine does not count it."""
    watch, engine = resolved.recipe.watch, ENGINES[resolved.recipe.backend]
    if watch and watch.ask == "progress" and not has_metrics(resolved):
        flag = (engine.metrics_flag or "").lstrip("-")
        remedy = f"add `extra_args: {{{flag}: true}}`" if flag else f"remove `{engine.no_metrics_flag}`"
        fault = "`watch.ask` is `progress`, which needs the engine's metrics, and they are off"
        yield UsageError(f"{fault}; {remedy}", "watch", "ask", kind="value")


def _chosen_elsewhere(backend: str, name: str, variable: Variable) -> Iterator[UsageError]:
    """Yield a warning about a variable that chooses a GPU or a model which the recipe does not name."""
    key = key_of(variable.layer, name)
    if name in _GPU_VARIABLES and variable.layer not in ("gpus", "secrets"):
        fault = f"`{name}` chooses GPUs that recipectl does not know of, so others may run there too"
        yield UsageError(f"{fault}; use `gpus:`", *key, kind="gpu")
    if name in ENGINES[backend].model_variables:
        fault = f"`{name}` names another model than `model_path`"
        yield UsageError(f"{fault}; remove it", *key, kind="variable")


def _open_address(resolved: ResolvedRecipe) -> Iterator[UsageError]:
    """Yield warnings about keys that nobody reads, and about an engine that everybody may use."""
    recipe, endpoint = resolved.recipe, resolved.client_endpoint
    engine = ENGINES[recipe.backend]
    for name in sorted({*recipe.secrets} & _KEY_VARIABLES - {*engine.key_variables}):
        fault = f"{recipe.backend} reads no {name}"
        yield UsageError(f"{fault}, so it asks for no key; remove it", "secrets", name, kind="secret")
    asks = {*engine.key_variables} & {*resolved.environment, *recipe.secrets}
    asks |= {word.text for word in resolved.words if word.text.startswith(engine.key_flags)}
    if endpoint.path is None or not endpoint.is_wildcard or asks:
        return
    cause = (
        f"`host` is {endpoint.host}" if recipe.host else f"{recipe.backend} listens everywhere without `host`"
    )
    key = "put a proxy that asks for a key before it"
    if engine.key_variables:
        key = f"give it a key: `secrets: {{{engine.key_variables[0]}: /etc/recipectl/secrets/{recipe.name}}}`"
    fault = f"{cause}, and no key is asked for, so everybody may use it"
    yield UsageError(f"{fault}; set `host: 127.0.0.1`, or {key}", "host", kind="access")


def _unread_token(resolved: ResolvedRecipe) -> Iterator[UsageError]:
    """Yield a warning about a token that the engine's own download does not read."""
    recipe = resolved.recipe
    engine = ENGINES[recipe.backend]
    if engine.reads_token_file or engine.model_flag_of(recipe.model_path) != engine.hub_flag:
        return
    for name in HF_TOKENS:
        if name in recipe.secrets and name not in secrets.environment_files(recipe):
            fault = f"{recipe.backend} reads this token from its environment only, and downloads without it"
            remedy = f"name a file that ends in `{secrets.LINES_ENDING}`, with a line `{name}=…`"
            yield UsageError(f"{fault}; {remedy}", "secrets", name, kind="secret")


def _low_port(resolved: ResolvedRecipe) -> Iterator[UsageError]:
    """Yield a warning about a port that only root, or a capability, may listen at."""
    recipe = resolved.recipe
    if recipe.port is None or recipe.port >= 1024 or recipe.front or recipe.user == "root":
        return
    if "AmbientCapabilities" not in recipe.service:
        fault = f"port {recipe.port} is below 1024, where a model's user cannot listen"
        remedy = "choose another, or use `queue:` or `on_demand:`, whose socket systemd opens"
        yield UsageError(f"{fault}; {remedy}", "port", kind="port")


def _contradictions(name: str, variable: Variable) -> Iterator[UsageError]:
    for layer, value in variable.overrode:
        if value != variable.value and {layer, variable.layer} <= _RECIPE_LAYERS:
            fault = (
                f"`{layer}` and `{variable.layer}` set `{name}` to different values (`{variable.value}` wins)"
            )
            yield UsageError(f"{fault}; keep one of them", *key_of(variable.layer, name), kind="variable")
