"""vLLM: `vllm serve MODEL`, or its module with `--model` (never positional: vllm#27389)."""

import re

from recipectl.recipe.schema import Nodes

MODEL, HOST, PORT, HEALTH = "--model", "127.0.0.1", 8000, "/health"
FIELDS: tuple[tuple[str, str | None], ...] = (
    ("host", "--host"),
    ("port", "--port"),
    ("served_model_name", "--served-model-name"),
    ("tensor_parallel_size", "--tensor-parallel-size"),
    ("pipeline_parallel_size", "--pipeline-parallel-size"),
    ("max_model_len", "--max-model-len"),
    ("gpu_memory_utilization", "--gpu-memory-utilization"),
    ("max_num_seqs", "--max-num-seqs"),
    ("kv_cache_dtype", "--kv-cache-dtype"),
    ("trust_remote_code", "--trust-remote-code"),
    ("tool_call_parser", "--tool-call-parser"),
    ("enable_auto_tool_choice", "--enable-auto-tool-choice"),
    ("reasoning_parser", "--reasoning-parser"),
    ("quantization", "--quantization"),
    ("dtype", "--dtype"),
)


def nodes(given: Nodes) -> tuple[str, ...]:
    """The words for one host of several; hosts but the first serve no HTTP (`--headless`)."""
    words: tuple[str, ...] = ("--nnodes", str(given.count), "--node-rank", str(given.rank))
    words += ("--master-addr", given.address)
    words += ("--master-port", str(given.port)) if given.port else ()
    return words if given.rank == 0 else (*words, "--headless")


# Model name -> parser, the first match wins (VLLM Studio's list, for `auto`).
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


def infer(field: str, model: str) -> str | None:
    """The parser for a model by its name, None when the name says nothing."""
    name = model.rstrip("/").rsplit("/", 1)[-1].lower()
    return next((parser for pattern, parser in _PARSERS[field] if re.search(pattern, name)), None)
