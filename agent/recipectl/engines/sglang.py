"""SGLang: `python -m sglang.launch_server --model-path MODEL`; it takes no underscores in flags."""

from recipectl.addresses import in_url
from recipectl.engines.engine import Adapters, Engine
from recipectl.engines.parallel import Parallel, check_divisible
from recipectl.recipe.parts import Nodes

_PORT = 29501


def _nodes(nodes: Nodes, parallel: Parallel) -> tuple[str, ...]:
    """The words for one host of several; SGLang requires a port."""
    if nodes.hosts:
        check_divisible(nodes, "TP*PP", parallel.tensor * parallel.pipeline, parallel)
    head = in_url(nodes.address or "") if nodes.hosts else nodes.address
    address = f"{head}:{nodes.port or _PORT}"
    return "--nnodes", str(nodes.count), "--node-rank", str(nodes.rank), "--dist-init-addr", address


ENGINE = Engine(
    name="sglang",
    model_flag="--model-path",
    host="127.0.0.1",
    port=30000,
    health_path="/health",
    written_flags=(
        "--download-dir", "--file-storage-path", "--crash-dump-folder", "--debug-tensor-dump-output-folder",
        "--export-metrics-to-file-dir", "--ple-offload-dir", "--spec-trace-dir",
        "--modelopt-checkpoint-save-path", "--modelopt-export-path",
    ),
    config_flag="--config",
    version_path="/server_info",
    version_key="version",
    flags={
        "host": "--host", "port": "--port", "served_model_name": "--served-model-name",
        "tensor_parallel_size": "--tensor-parallel-size",
        "pipeline_parallel_size": "--pipeline-parallel-size", "max_model_len": "--context-length",
        "gpu_memory_utilization": "--mem-fraction-static", "max_num_seqs": "--max-running-requests",
        "trust_remote_code": "--trust-remote-code", "tool_call_parser": "--tool-call-parser",
        "enable_auto_tool_choice": None, "reasoning_parser": "--reasoning-parser",
        "quantization": "--quantization", "kv_cache_dtype": "--kv-cache-dtype", "dtype": "--dtype",
    },
    nodes=_nodes,
    address_variable="SGLANG_HOST_IP",
    rendezvous_port=_PORT,
    metrics_flag="--enable-metrics",
    # LoRAPathAction in sglang/srt/arg_groups, _parse_model_parameter in its serving_base.py
    adapters=Adapters("--lora-paths", "lora_name", with_base=True),
)  # fmt: skip
