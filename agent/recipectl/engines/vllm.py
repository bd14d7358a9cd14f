"""vLLM: `vllm serve MODEL`, or its module with `--model` (never positional: vllm#27389)."""

import re

from recipectl.engines.engine import Engine
from recipectl.recipe.parts import Nodes


def _nodes(nodes: Nodes) -> tuple[str, ...]:
    """The words for one host of several; only the first host serves HTTP, the others get `--headless`."""
    words = ["--nnodes", str(nodes.count), "--node-rank", str(nodes.rank), "--master-addr", nodes.address]
    words += ["--master-port", str(nodes.port)] if nodes.port else []
    words += ["--headless"] if nodes.rank > 0 else []
    return tuple(words)


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
    key_variables=("VLLM_API_KEY",),
    metrics_flag="",
    short_lengths=True,
    module_ignores_headless=True,
    misleading_variables=("VLLM_PORT", "VLLM_HOST_IP"),
    joined_flags=("-O",),
    takes_underscores=True,
    dotted_options=True,
    drain_flag="--shutdown-timeout",
    infer_parser=infer_parser,
)  # fmt: skip
