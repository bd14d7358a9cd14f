"""What recipectl must know about an engine; a file for each engine fills it in."""

import re
from collections.abc import Callable
from typing import NamedTuple

from recipectl.engines.parallel import Parallel
from recipectl.recipe.parts import Nodes

# A name of the Hugging Face hub, with a quantization or without: `org/name-GGUF:Q4_K_M`.
_HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+(:[\w.-]+)?\Z")


def _infers_nothing(_field: str, _model: str) -> str | None:
    return None


class Adapters(NamedTuple):
    """How the LoRA adapters of an engine are named: `NAME=PATH`, or JSON with the name under a key."""

    flag: str
    name_key: str
    with_base: bool = False  # clients write `BASE:NAME`


class Engine(NamedTuple):
    """The facts about one engine that no option table has."""

    name: str
    model_flag: str  # where the model is not positional
    host: str  # where it listens by default
    port: int
    health_path: str  # answers 200 when the engine is ready
    version_path: str  # answers JSON that has its version
    version_key: str
    flags: dict[str, str | None]  # field -> flag, in the customary order; None where the field means nothing
    nodes: Callable[[Nodes, Parallel], tuple[str, ...]]  # the words for one host of several
    model_variables: tuple[str, ...] = ()  # what it reads another model from
    key_variables: tuple[str, ...] = ()  # what it reads the key of its API from
    key_flags: tuple[str, ...] = ("--api-key", "--api_key")  # or its beginning
    short_lengths: bool = False  # a number of tokens may be `32k` or `auto`
    metrics_flag: str | None = None  # switches on the metrics that tell of progress; empty: they are on
    metrics_variable: str = ""  # switches them on, too
    no_metrics_flag: str = ""  # switches them off
    written_flags: tuple[str, ...] = ()  # flags that name a folder which it writes
    written_files: tuple[str, ...] = ()  # the same for a file
    ordered_flags: tuple[tuple[str, ...], ...] = ()  # sets of flags whose order among each other decides
    hub_flag: str | None = None  # instead of `model_flag`, for a model of the hub
    config_flag: str | None = None  # names a YAML file whose keys are flags
    model_sources: tuple[str, ...] = ()  # flags that name a model in another way
    # Variables that people take for --host and --port, and that mean something else (vllm#8791).
    misleading_variables: tuple[str, ...] = ()
    address_variable: str | None = None  # its own address among several hosts
    rendezvous_port: int = 0  # where the head of several hosts listens by default
    module_ignores_headless: bool = False  # where it has no script, it cannot be a follower
    abbreviates_flags: bool = True  # argparse takes the beginning of a flag
    joined_flags: tuple[str, ...] = ()  # short flags whose value may follow at once: `-O3`
    takes_underscores: bool = False  # `--max_model_len` is `--max-model-len`
    list_repeats_flag: bool = False  # a list whose option is unknown repeats its flag, instead of JSON
    dotted_options: bool = False  # `--compilation-config.mode` is a part of a JSON option
    is_binary: bool = False  # `binary:` names it, and its options come from --help
    adapters: Adapters | None = None
    reads_token_file: bool = True  # its library huggingface_hub reads the file of HF_TOKEN_PATH=
    drain_flag: str | None = None  # how long it may finish its requests after SIGTERM, in seconds
    infer_parser: Callable[[str, str], str | None] = _infers_nothing  # (field, model) -> parser, for `auto`

    def model_flag_of(self, model: str) -> str:
        """The flag for a model: llama-server has one for files, and another one for names of the hub."""
        is_hub_name = _HUB_NAME.match(model) and not model.endswith(".gguf")
        return self.hub_flag if self.hub_flag and is_hub_name else self.model_flag
