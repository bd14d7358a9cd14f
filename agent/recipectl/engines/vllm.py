"""vLLM: `vllm serve MODEL`, or its module with `--model` (never positional: vllm#27389)."""

import re

from recipectl.engines.engine import Adapters, Engine
from recipectl.engines.parallel import Parallel, check_divisible
from recipectl.errors import UsageError
from recipectl.recipe.parts import Nodes

_PORT = 29501


def _nodes(nodes: Nodes, parallel: Parallel) -> tuple[str, ...]:
    """The words for one host of several; only hosts that answer requests go without `--headless`.

    vLLM's ways to refuse are read in its ParallelConfig and serve.py (0.33.0).
    """
    headless = () if nodes.serves else ("--headless",)
    if nodes.hosts:
        _check(nodes, parallel)
        if parallel.data > 1 and parallel.data % nodes.count == 0:
            return (*_copies(nodes, parallel), *headless)
    words = [
        "--nnodes",
        str(nodes.count),
        "--node-rank",
        str(nodes.rank),
        "--master-addr",
        nodes.address or "",
    ]
    words += ["--master-port", str(nodes.port)] if nodes.port else []
    return (*words, *headless)


def _copies(nodes: Nodes, parallel: Parallel) -> tuple[str, ...]:
    """The words of a host that has whole copies of the model (data parallelism)."""
    local = parallel.data // nodes.count
    place = ["--data-parallel-address", nodes.address or ""]
    place += ["--data-parallel-rpc-port", str(nodes.port)] if nodes.port else []
    if parallel.balancing == "external":
        return (*place, "--data-parallel-rank", str(nodes.rank))
    words = ["--data-parallel-size-local", str(local), *place]
    words += ["--data-parallel-start-rank", str(nodes.rank * local)] if nodes.rank else []
    return tuple(words)


def _check(nodes: Nodes, parallel: Parallel) -> None:
    """UsageError for what vLLM refuses of several hosts."""
    size = parallel.data * parallel.tensor * parallel.pipeline * parallel.context
    check_divisible(nodes, "DP*TP*PP", size, parallel)
    fault = None
    if parallel.executor not in (None, "mp"):
        fault = f"several hosts need the executor `mp`, and the recipe says `{parallel.executor}`"
    elif parallel.conflict:
        fault = "hybrid and external load balancing exclude each other"
    elif parallel.balancing != "internal" and nodes.headless:
        fault = f"with {parallel.balancing} load balancing each host answers requests, so none is headless"
    elif parallel.balancing != "internal" and parallel.data % nodes.count:
        fault = f"{parallel.balancing} load balancing needs whole copies of the model on each host"
    elif parallel.balancing == "external" and parallel.data != nodes.count:
        fault = f"external load balancing needs one copy a host, and there are {parallel.data}"
    if fault:
        raise UsageError(f"`nodes`: {fault}; correct `extra_args:`", "nodes", kind="argument")


# Model name -> parser, the first match wins (the list of VLLM Studio, for `auto`).
_PARSERS = {
    "reasoning_parser": (
        (r"minimax[-_ ]?m2", "minimax_m2_append_think"),
        (r"intellect[-_ ]?3", "deepseek_r1"),
        (r"glm[-_ ]?4\.[567]", "glm45"),
        (r"mirothinker", "deepseek_r1"),
        (r"qwen3.*thinking", "deepseek_r1"),
        (r"qwen3", "qwen3"),
    ),
    "tool_call_parser": ((r"glm[-_ ]?4\.[567]", "glm45"), (r"intellect[-_ ]?3", "hermes")),
}


def infer_parser(field: str, model: str) -> str | None:
    """The parser for a model by its name, None when the name does not tell."""
    name = model.rstrip("/").rsplit("/", 1)[-1].lower()
    return next((parser for pattern, parser in _PARSERS[field] if re.search(pattern, name)), None)


ENGINE = Engine(
    name="vllm",
    model_flag="--model",
    host="0.0.0.0",  # noqa: S104  (`--host` is None: create_server_socket() then binds "")
    port=8000,
    health_path="/health",
    written_flags=("--download-dir",),
    config_flag="--config",
    version_path="/version",
    version_key="version",
    flags={
        "host": "--host", "port": "--port", "served_model_name": "--served-model-name",
        "tensor_parallel_size": "--tensor-parallel-size",
        "pipeline_parallel_size": "--pipeline-parallel-size", "max_model_len": "--max-model-len",
        "gpu_memory_utilization": "--gpu-memory-utilization", "max_num_seqs": "--max-num-seqs",
        "kv_cache_dtype": "--kv-cache-dtype", "trust_remote_code": "--trust-remote-code",
        "tool_call_parser": "--tool-call-parser", "enable_auto_tool_choice": "--enable-auto-tool-choice",
        "reasoning_parser": "--reasoning-parser", "quantization": "--quantization", "dtype": "--dtype",
    },
    nodes=_nodes,
    address_variable="VLLM_HOST_IP",
    rendezvous_port=_PORT,
    key_variables=("VLLM_API_KEY",),
    metrics_flag="",
    adapters=Adapters("--lora-modules", "name"),  # LoRAParserAction in vllm/entrypoints
    no_metrics_flag="--disable-log-stats",
    short_lengths=True,
    module_ignores_headless=True,
    misleading_variables=("VLLM_PORT", "VLLM_HOST_IP"),
    joined_flags=("-O",),
    takes_underscores=True,
    dotted_options=True,
    drain_flag="--shutdown-timeout",
    infer_parser=infer_parser,
)  # fmt: skip
