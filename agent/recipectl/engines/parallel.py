"""How a model is spread over processes: the sizes that a recipe gives an engine. Pure."""

from itertools import pairwise
from typing import NamedTuple

from recipectl.engines.options import flag_of, shipped_options
from recipectl.errors import UsageError
from recipectl.recipe.parts import Nodes
from recipectl.recipe.schema import INTERNAL, Recipe


class Parallel(NamedTuple):
    """The sizes of a recipe's engine, and who takes the requests of a model with several copies."""

    data: int = 1
    tensor: int = 1
    pipeline: int = 1
    context: int = 1  # of prompts (prefill context parallelism)
    balancing: str = "internal"  # or hybrid, external: each host answers requests
    conflict: bool = False  # hybrid and external balancing are both set
    executor: str | None = None
    has_config: bool = False  # a file that may say more


def parallel_of(recipe: Recipe) -> Parallel:
    """The sizes that a recipe says with its fields, `extra_args` and `args`."""
    values = _values_of_flags(recipe)

    def size(flag: str, field: int | None = None) -> int:
        text = values.get(flag, "")
        return int(text) if text.isdigit() and int(text) else field or 1

    external = values.keys() & {"--data-parallel-external-lb", "--data-parallel-rank"}
    hybrid = "--data-parallel-hybrid-lb" in values
    return Parallel(
        data=size("--data-parallel-size"),
        tensor=size("--tensor-parallel-size", recipe.tensor_parallel_size),
        pipeline=size("--pipeline-parallel-size", recipe.pipeline_parallel_size),
        context=size("--prefill-context-parallel-size"),
        balancing="external" if external else "hybrid" if hybrid else "internal",
        conflict=bool(external) and hybrid,
        executor=values.get("--distributed-executor-backend"),
        has_config="--config" in values,
    )


def _values_of_flags(recipe: Recipe) -> dict[str, str]:
    """The engine's own names of flags -> their values as text; the last one wins, as in argparse."""
    options = shipped_options(recipe.backend)
    values = {
        options.canonical(flag_of(key)): str(getattr(value, "text", value))
        for key, value in recipe.extra_args.items()
        if key not in INTERNAL and value not in (None, False)
    }
    for word, following in pairwise((*recipe.args, "")):
        name, equals, value = word.partition("=")
        if name.startswith("-"):
            values[options.canonical(name)] = value if equals else following
    return values


def check_divisible(nodes: Nodes, name: str, size: int, parallel: Parallel) -> None:
    """UsageError when the processes of a model do not spread evenly over its hosts."""
    if size % nodes.count and not parallel.has_config:
        fault = f"{name} is {size}, which {nodes.count} hosts cannot share evenly"
        raise UsageError(
            f"`nodes`: {fault}; change the sizes or the hosts", "nodes", "hosts", kind="argument"
        )
