"""What a model's config.json tells of the ways to serve it."""

import json
from collections.abc import Iterator
from pathlib import Path

from recipectl.engines.parallel import parallel_of
from recipectl.errors import UsageError
from recipectl.machine.disk import Disk
from recipectl.recipe.schema import Recipe

# The keys of a model's config.json that count its experts (vllm 0.33, ModelConfig.get_num_experts).
_EXPERTS = ("num_experts", "moe_num_experts", "n_routed_experts", "num_local_experts")


def check(recipe: Recipe, disk: Disk) -> Iterator[UsageError]:
    """Yield that external load balancing is for models with experts (vllm 0.33, ParallelConfig)."""
    if not (recipe.nodes and recipe.nodes.hosts and recipe.backend == "vllm" and recipe.model_path[0] == "/"):
        return
    if parallel_of(recipe).balancing != "external":
        return
    try:
        config = json.loads(disk.content(Path(recipe.model_path, "config.json")))
        texts = [config, config.get("text_config") or {}]
        has_experts = any(text.get(key) for text in texts for key in _EXPERTS)
    except (OSError, ValueError, AttributeError):
        return  # the engine will tell
    if not has_experts:
        fault = "external load balancing is for models with experts, and this one has none"
        remedy = "serve it with a recipe for each host, and `gateway:`"
        yield UsageError(f"`nodes`: {fault}; {remedy}", "nodes", "hosts", kind="argument")
