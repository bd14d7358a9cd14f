"""One environment from several layers; each variable knows the layer it came from."""

from collections.abc import Mapping
from typing import NamedTuple

from recipectl.compiler import gpus, secrets
from recipectl.compiler.members import Member
from recipectl.compiler.model import Environment, Variable
from recipectl.engines.registry import ENGINES
from recipectl.errors import UnrepresentableError, UsageError
from recipectl.machine.runtime import Runtime
from recipectl.recipe.gpu_selection import GpuSelection
from recipectl.recipe.hostfile import HostSettings
from recipectl.recipe.schema import Recipe, variable_names
from recipectl.systemd import quoting

_LEGACY_LAYER = "extra_args.env_vars"


class Layer(NamedTuple):
    """The variables that one source gives."""

    name: str
    variables: Mapping[str, str]


def compose(
    recipe: Recipe,
    runtime: Runtime,
    selection: GpuSelection,
    settings: HostSettings,
    *,
    user: bool,
    member: Member | None = None,
) -> Environment:
    """The environment of the engine; UsageError for a variable that systemd cannot carry."""
    environment = merge(*_layers(recipe, runtime, selection, settings, user, member))
    for name, variable in environment.items():
        try:
            assignment(name, variable)
        except UnrepresentableError as error:
            raise UsageError(f"`{name}`: {error}", *key_of(variable.layer, name)) from error
    return environment


def merge(*layers: Layer) -> Environment:
    """Merge layers, later ones winning, sorted by name so that the unit does not churn."""
    result: Environment = {}
    for layer in layers:
        for name, value in layer.variables.items():
            below = result.get(name)
            overrode = (*below.overrode, (below.layer, below.value)) if below else ()
            result[name] = Variable(value, layer.name, overrode)
    return dict(sorted(result.items()))


def _layers(
    recipe: Recipe,
    runtime: Runtime,
    selection: GpuSelection,
    settings: HostSettings,
    user: bool,
    member: Member | None,
) -> tuple[Layer, ...]:
    """The layers in their order; the directories, which only a system unit has, are the lowest."""
    legacy = _legacy_variables(recipe)
    for name in recipe.secrets:
        if name in recipe.env_vars or name in legacy:
            layer = "env_vars" if name in recipe.env_vars else _LEGACY_LAYER
            sentence = f"`{name}` is in `secrets` and in `env_vars`; keep it in `secrets`"
            raise UsageError(sentence, *key_of(layer, name), kind="secret")
    needed = {"PATH": ":".join(runtime.path)}
    if runtime.venv:
        needed["VIRTUAL_ENV"] = runtime.venv
    # `%d` is the folder in which systemd puts credentials (systemd.unit(5)).
    files = {name: f"%d/{credential.name}" for name, credential in secrets.credentials(recipe).items()}
    return (
        Layer("directories", {} if user else directories(recipe)),
        Layer("host file", settings.environment),
        Layer("runtime", needed),
        Layer("nodes", _set_variables(recipe, member) if member else {}),
        Layer(_LEGACY_LAYER, legacy),
        Layer("env_vars", recipe.env_vars),
        Layer("gpus", gpus.visible_variables(recipe, selection)),
        Layer("secrets", files),
    )


def _set_variables(recipe: Recipe, member: Member) -> dict[str, str]:
    """Where the engines of several hosts find each other; without them they may take 127.0.1.1."""
    variable = ENGINES[recipe.backend].address_variable
    variables = {variable: member.address} if variable else {}
    if member.interface:
        variables |= {"NCCL_SOCKET_IFNAME": member.interface, "GLOO_SOCKET_IFNAME": member.interface}
    return variables


def _legacy_variables(recipe: Recipe) -> dict[str, str]:
    """`extra_args.env_vars`; the reader has left its values as they are written."""
    variables = recipe.extra_args.get("env_vars") or {}
    if not isinstance(variables, dict):
        sentence = "`extra_args.env_vars` must be a mapping of names to values; write `NAME: value`"
        raise UsageError(sentence, *_LEGACY_LAYER.split("."), kind="variable")
    for name, value in variables.items():
        key = (*_LEGACY_LAYER.split("."), name)
        try:
            variable_names({name: ""})
        except ValueError as error:
            raise UsageError(f"`extra_args.env_vars` {error}", *key, kind="variable") from error
        if not isinstance(value, str):
            fault = "a list" if isinstance(value, list) else "a mapping"
            raise UsageError(
                f"`extra_args.env_vars.{name}` is {fault}; give one value", *key, kind="variable"
            )
    return variables


def directories(recipe: Recipe) -> dict[str, str]:
    """Where a model's caches and state go: below its CacheDirectory= and StateDirectory=."""
    cache = f"/var/cache/models/{recipe.name}"
    return {
        "HOME": f"/var/lib/models/{recipe.name}",
        "XDG_CACHE_HOME": cache,
        "HF_HOME": f"{cache}/huggingface",
        "VLLM_CACHE_ROOT": f"{cache}/vllm",
        "TRITON_CACHE_DIR": f"{cache}/triton",
        "TORCHINDUCTOR_CACHE_DIR": f"{cache}/torchinductor",
    }


def key_of(layer: str, name: str) -> tuple[str, ...]:
    """The key of a recipe that gives a variable, by its layer; () where the recipe does not give it."""
    if layer in ("env_vars", _LEGACY_LAYER, "secrets"):
        return (*layer.split("."), name)
    return (layer,) if layer in ("gpus", "nodes") else ()


def assignment(name: str, variable: Variable) -> str:
    """The value of one Environment= line; UnrepresentableError when systemd cannot carry it."""
    if variable.layer == "secrets":  # systemd expands the `%d` in it: it is not doubled
        return f"{quoting.name(name)}={variable.value}"
    return quoting.assignment(name, variable.value)
