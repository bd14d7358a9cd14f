"""llama.cpp's llama-server: a list repeats its flag, and a wrong argument ends it with status 1."""

from recipectl.errors import UsageError
from recipectl.recipe.schema import Nodes

MODEL, HOST, PORT, HEALTH = "--model", "127.0.0.1", 8080, "/health"
FIELDS: tuple[tuple[str, str | None], ...] = (
    ("host", "--host"),
    ("port", "--port"),
    ("served_model_name", "--alias"),
    ("max_model_len", "--ctx-size"),
    ("max_num_seqs", "--parallel"),
    ("tensor_parallel_size", None),
    ("pipeline_parallel_size", None),
    ("gpu_memory_utilization", None),
    ("kv_cache_dtype", None),
    ("trust_remote_code", None),
    ("tool_call_parser", None),
    ("enable_auto_tool_choice", None),
    ("reasoning_parser", None),
    ("quantization", None),
    ("dtype", None),
)


def nodes(_: Nodes) -> tuple[str, ...]:
    """llama-server has no notion of other nodes."""
    raise UsageError("`nodes` means nothing to llamacpp; remove it", "nodes")
