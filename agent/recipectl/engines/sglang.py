"""SGLang: `python -m sglang.launch_server --model-path MODEL`; it takes no underscore spelling of a flag."""

from recipectl.recipe.schema import Nodes

MODEL, HOST, PORT, HEALTH = "--model-path", "127.0.0.1", 30000, "/health"
FIELDS: tuple[tuple[str, str | None], ...] = (
    ("host", "--host"),
    ("port", "--port"),
    ("served_model_name", "--served-model-name"),
    ("tensor_parallel_size", "--tensor-parallel-size"),
    ("pipeline_parallel_size", "--pipeline-parallel-size"),
    ("max_model_len", "--context-length"),
    ("gpu_memory_utilization", "--mem-fraction-static"),
    ("max_num_seqs", "--max-running-requests"),
    ("trust_remote_code", "--trust-remote-code"),
    ("tool_call_parser", "--tool-call-parser"),
    ("enable_auto_tool_choice", None),
    ("reasoning_parser", "--reasoning-parser"),
    ("quantization", "--quantization"),
    ("kv_cache_dtype", "--kv-cache-dtype"),
    ("dtype", "--dtype"),
)


def nodes(given: Nodes) -> tuple[str, ...]:
    """The words for one host of several."""
    address = f"{given.address}:{given.port or 29501}"  # it wants one
    return ("--nnodes", str(given.count), "--node-rank", str(given.rank), "--dist-init-addr", address)
