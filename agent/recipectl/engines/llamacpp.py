"""llama.cpp's llama-server: a list repeats its flag, and a wrong argument ends it with status 1."""

from recipectl.engines.engine import Engine
from recipectl.engines.parallel import Parallel
from recipectl.errors import UsageError
from recipectl.recipe.parts import Nodes


def _nodes(_: Nodes, _parallel: Parallel) -> tuple[str, ...]:
    raise UsageError("`nodes` means nothing to llamacpp; remove it", "nodes", kind="argument")


ENGINE = Engine(
    name="llamacpp",
    model_flag="--model",
    hub_flag="--hf-repo",
    reads_token_file=False,  # it has no library for the hub
    host="127.0.0.1",
    port=8080,
    health_path="/health",
    written_flags=("--slot-save-path", "--log-prompts-dir"),
    written_files=("--log-file", "--lookup-cache-dynamic", "-lcd"),
    # common/arg.cpp: they fill one list each; of the buffers for tensors the first that matches counts.
    ordered_flags=(
        ("--override-tensor", "--cpu-moe", "--n-cpu-moe"),
        ("--spec-draft-override-tensor", "--spec-draft-cpu-moe", "--spec-draft-n-cpu-moe"),
        ("--lora", "--lora-scaled"),
        ("--control-vector", "--control-vector-scaled"),
    ),
    version_path="/props",
    version_key="build_info",
    flags={
        "host": "--host", "port": "--port", "served_model_name": "--alias", "max_model_len": "--ctx-size",
        "max_num_seqs": "--parallel", "tensor_parallel_size": None, "pipeline_parallel_size": None,
        "gpu_memory_utilization": None, "kv_cache_dtype": None, "trust_remote_code": None,
        "tool_call_parser": None, "enable_auto_tool_choice": None, "reasoning_parser": None,
        "quantization": None, "dtype": None,
    },
    nodes=_nodes,
    model_variables=(
        "LLAMA_ARG_MODEL", "LLAMA_ARG_MODEL_URL", "LLAMA_ARG_HF_REPO", "LLAMA_ARG_DOCKER_REPO",
        "LLAMA_ARG_ALIAS", "LLAMA_ARG_MODELS_DIR", "LLAMA_ARG_MODELS_PRESET",
    ),
    key_variables=("LLAMA_API_KEY",),
    metrics_flag="--metrics",
    metrics_variable="LLAMA_ARG_ENDPOINT_METRICS",
    model_sources=("--model-url", "--hf-repo", "--docker-repo", "--models-dir", "--models-preset"),
    misleading_variables=("LLAMA_ARG_PORT", "LLAMA_ARG_HOST"),
    abbreviates_flags=False,
    list_repeats_flag=True,
    is_binary=True,
)  # fmt: skip
