"""What a recipe may say (pydantic, the file's edge only)."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

# The value of a variable exactly as the file has it; the loader turns scalars of these maps into their text.
Text = Annotated[str, Field(strict=True)]
Positive = Annotated[int, Field(strict=True, ge=1)]

# Other names that people have in their files (VLLM Studio's, mostly); kebab-case is folded before.
ALIASES = {"id": "name", "engine": "backend", "tp": "tensor_parallel_size", "pp": "pipeline_parallel_size"}
ALIASES |= {"envVars": "env_vars", "venv-path": "venv_path"}

# Keys of `extra_args` that are ours and never reach the engine.
INTERNAL = frozenset(
    {"venv_path", "env_vars", "envVars", "cuda_visible_devices", "CUDA_VISIBLE_DEVICES"}
    | {"description", "tags", "status"}
)


class Ready(BaseModel):
    """How to ask the engine whether it is ready."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    path: str | None = Field(
        default=None, pattern=r"^/[!-~]*$", description="HTTP path that answers 200 when ready"
    )
    timeout_sec: Positive = Field(default=1800, description="how long a load may take, in seconds")


class Recipe(BaseModel):
    """One file, one served model. A field that is not set is not passed: the engine's own default holds."""

    model_config = ConfigDict(frozen=True, extra="forbid", title="recipectl recipe")

    name: str | None = Field(None, description="the file's stem; when set it must be the same")
    description: str | None = Field(None, description="one line for `systemctl status`")
    tags: tuple[str, ...] = ()
    backend: Literal["vllm", "sglang", "llamacpp"] = "vllm"
    engine_version: str | None = Field(None, description="a PEP 440 specifier, for example `==0.14.*`")
    model_path: str = Field(min_length=1)
    python_path: str | None = None
    venv_path: str | None = None
    binary: str | None = Field(None, description="llamacpp: the llama-server executable")
    served_model_name: str | None = Field(None, min_length=1)
    host: str | None = Field(None, min_length=1)
    port: int | None = Field(None, strict=True, ge=1, le=65535)
    tensor_parallel_size: Positive | None = None
    pipeline_parallel_size: Positive | None = None
    max_model_len: Positive | None = None
    gpu_memory_utilization: float | None = Field(None, gt=0, le=1)
    max_num_seqs: Positive | None = None
    kv_cache_dtype: str | None = None
    trust_remote_code: bool | None = Field(None, strict=True)
    tool_call_parser: str | None = None
    enable_auto_tool_choice: bool | None = Field(None, strict=True)
    reasoning_parser: str | None = None
    quantization: str | None = None
    dtype: str | None = None
    extra_args: dict[str, Any] = {}
    args: tuple[Text, ...] = Field((), description="raw words, appended last, as written")
    env_vars: dict[str, Text] = {}
    gpus: tuple[Text, ...] | None = Field(None, description="indices, UUIDs or MIG ids; `0` is a GPU")
    autostart: bool = Field(False, strict=True, description="enable the unit into models.target")
    ready: Ready = Field(default_factory=Ready)
    service: dict[str, Text] = Field({}, description="settings of [Service], as in systemd.service(5)")

    @field_validator("description")
    @classmethod
    def _one_line(cls, text: str | None) -> str | None:
        if text is not None and any(ord(char) < 32 for char in text):
            raise ValueError("must be one line without control characters")
        return text

    @field_validator("engine_version")
    @classmethod
    def _specifier(cls, text: str | None) -> str | None:
        from packaging.specifiers import InvalidSpecifier, SpecifierSet

        try:
            SpecifierSet(text or "")
        except InvalidSpecifier as error:
            raise ValueError("is not a version specifier; write for example `==0.14.*`") from error
        return text
