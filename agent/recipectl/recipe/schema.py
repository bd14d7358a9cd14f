"""What a recipe may say. pydantic checks it; inside the package the values are plain."""

import re
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationInfo,
    ValidatorFunctionWrapHandler,
    WithJsonSchema,
    field_validator,
)
from pydantic_core import PydanticCustomError

from recipectl.recipe import gpu_selection
from recipectl.recipe.parts import ANY_SCALAR, Canary, Nodes, OnDemand, Positive, Queue, Ready, Text, Watch
from recipectl.systemd.unitfile import GATEWAY_USER, PROXY_USER, QUEUE_USER
from recipectl.text import TOKEN

_ONE_OR_MORE = {"anyOf": [ANY_SCALAR, {"type": "array", "items": ANY_SCALAR}]}


def _as_list(value: object) -> object:
    return (value,) if isinstance(value, str) else value


# One word, or a list of them.
Texts = Annotated[tuple[Text, ...], BeforeValidator(_as_list), WithJsonSchema(_ONE_OR_MORE)]
# A long word of letters and digits where the name of a credential belongs.
_LIKE_A_TOKEN = re.compile(r"(?=.*[0-9])(?=.*[A-Za-z])[A-Za-z0-9_.-]{24,}|[0-9a-fA-F-]{32,}")
HF_TOKENS = ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN")  # the present name and the earlier one
VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
USER = r"^[A-Za-z_][A-Za-z0-9_.-]*$"  # as systemd takes them (USER_NAMES, systemd.io)
# The users of the gateway and of what stands before models: an engine as one of them could read keys, and
# requests to other models.
OWN_USERS = (GATEWAY_USER, PROXY_USER, QUEUE_USER)


def _is_for_models(user: str) -> str:
    if user in OWN_USERS:
        raise ValueError(f"is `{user}`, which runs what stands before models; name another, or leave it out")
    return user


UserName = Annotated[str, Field(pattern=USER), AfterValidator(_is_for_models)]

# Other names that people have in their files, mostly from VLLM Studio; kebab-case becomes snake_case before.
ALIASES = {"id": "name", "engine": "backend", "tp": "tensor_parallel_size", "pp": "pipeline_parallel_size"}
ALIASES |= {"envVars": "env_vars"}

# Keys of `extra_args` that recipectl reads itself and never passes to the engine, and their other names.
INTERNAL = frozenset({"venv_path", "env_vars", "cuda_visible_devices", "description", "tags", "status"})
INTERNAL_ALIASES = {"envVars": "env_vars", "CUDA_VISIBLE_DEVICES": "cuda_visible_devices"}


def _length(value: object) -> object:
    """A number of tokens as written: `32768`, or vLLM's `32k`, `auto` and `-1`."""
    text = str(value) if isinstance(value, int | str) and not isinstance(value, bool) else ""
    if not re.fullmatch(r"[1-9][0-9]*|[0-9.]+[kKmMgG]i?|auto|-1", text):
        raise PydanticCustomError("int_type", "a number of tokens")
    return text


Length = Annotated[str, BeforeValidator(_length), WithJsonSchema({"type": ["integer", "string"]})]


def variable_names(values: dict[str, str]) -> dict[str, str]:
    """The same mapping; ValueError when a name cannot be a variable's."""
    for name in values:
        if not VARIABLE.fullmatch(name):
            raise ValueError(f"has `{name!a}`; a variable has letters, digits and `_`, no digit first")
    return values


Variables = Annotated[dict[str, Text], AfterValidator(variable_names)]


def _other_names(schema: dict[str, Any]) -> None:
    """Add kebab-case and aliases to the schema, so that an editor knows them too."""
    properties = schema["properties"]
    names = {name.replace("_", "-"): name for name in properties if "_" in name} | ALIASES
    properties |= {other: properties[name] for other, name in names.items()}
    required = schema.pop("required")
    schema["allOf"] = [
        {"anyOf": [{"required": [key]} for key in (name, *(o for o, n in names.items() if n == name))]}
        for name in required
    ]


def _or_boolean(schema: dict[str, Any]) -> None:
    schema["anyOf"].append({"type": "boolean"})


class Recipe(BaseModel):
    """One file, one served model. A field that is not set is not passed: the engine's own default holds."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", title="recipectl recipe", json_schema_extra=_other_names
    )

    name: str | None = Field(None, description="the file's stem; when set it must be the same")
    description: str | None = Field(None, description="one line for `systemctl status`")
    tags: tuple[str, ...] = ()
    backend: Literal["vllm", "sglang", "llamacpp"] = "vllm"
    engine_version: str | None = Field(None, description="a PEP 440 specifier, for example `==0.14.*`")
    python_version: str | None = Field(None, description="a PEP 440 specifier, for example `==3.12.*`")
    model_path: str = Field(min_length=1)
    python_path: str | None = Field(None, min_length=1)
    venv_path: str | None = Field(None, min_length=1)
    binary: str | None = Field(None, min_length=1, description="llamacpp: the llama-server executable")
    served_model_name: str | None = Field(None, min_length=1)
    host: str | None = Field(None, min_length=1)
    port: int | None = Field(None, strict=True, ge=1, le=65535)
    tensor_parallel_size: Positive | None = None
    pipeline_parallel_size: Positive | None = None
    max_model_len: Length | None = None
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
    env_vars: Variables = {}
    gpus: Texts | None = Field(None, description="indices, UUIDs or MIG ids, `all` or `none`; `0` is a GPU")
    gpu_sharing: Literal["exclusive", "ordered", "free"] = Field(
        "exclusive",
        description="exclusive: a start stops the others; ordered: one loads at a time; free: no rule",
    )
    accelerator: Literal["cuda", "rocm"] = "cuda"
    device_isolation: bool = Field(False, strict=True, description="only its GPUs' device nodes are there")
    autostart: bool | None = Field(
        None, strict=True, description="up at boot and after apply; left out: as set by `recipectl enable`"
    )
    on_demand: OnDemand | None = None
    queue: Queue | None = Field(
        None,
        description="requests wait while the model restarts; true for the defaults",
        json_schema_extra=_or_boolean,
    )
    after: Texts = Field((), description="recipes that must be ready first, if they start too")
    requires: Texts = Field((), description="recipes that are started with it and must be ready")
    conflicts: Texts = Field(
        (), description="recipes that are stopped when it starts, and the other way round"
    )
    nodes: Nodes | None = None
    ready: Ready = Field(default_factory=Ready)
    watch: Watch | None = None
    canaries: tuple[Canary, ...] | None = Field(
        None, description="questions that tell whether the model works; those of the host file come first"
    )
    secrets: dict[str, Text] = Field({}, description="variable: absolute path, or name of a credential")
    user: UserName | None = Field(None, description="the unit's User=")
    hardening: Literal["strict", "default", "off"] | None = None
    service: dict[str, Texts] = Field(
        {}, description="settings of [Service] and [Unit], as in their manuals; a list is several lines"
    )

    @property
    def front(self) -> OnDemand | Queue | None:
        """What listens for clients in the engine's place, which then listens on loopback."""
        return self.on_demand or self.queue

    @property
    def front_key(self) -> str:
        """The key of `front`; only for a recipe that has one."""
        return "on_demand" if self.on_demand else "queue"

    @property
    def is_follower(self) -> bool:
        """True on a host of a set that answers no requests of its own."""
        return self.nodes is not None and not self.nodes.serves

    @field_validator("queue", mode="before")
    @classmethod
    def _is_on_or_off(cls, value: object) -> object:
        if isinstance(value, bool):
            return {} if value else None
        if not isinstance(value, (dict, Queue)):
            raise PydanticCustomError("switch", "give `true`, or a mapping such as `{wait: 10min}`")
        return value

    @field_validator("queue")
    @classmethod
    def _is_alone_in_front(cls, queue: Queue | None, info: ValidationInfo) -> Queue | None:
        if queue and info.data.get("on_demand"):
            raise ValueError("stands beside `on_demand`, and both would listen at `port`; remove one")
        return queue

    @field_validator("model_path")
    @classmethod
    def _path_or_name(cls, text: str) -> str:
        if text.startswith(("-", "./", "../", "~")):
            raise ValueError(f"is `{text[:60]}`; give an absolute path, or a name the engine understands")
        return text

    @field_validator("host")
    @classmethod
    def _is_an_address(cls, text: str | None) -> str | None:
        if text and text.startswith("[") and text.endswith("]"):
            raise ValueError(f"is `{text[:60]}`, and no engine takes brackets; write `{text[1:-1][:60]}`")
        match = re.fullmatch(r"(?:https?://)?([^:/]+)(?::([0-9]+))?/?", text or "")
        if match and match[1] != text:
            port = f" and `port: {match[2]}`" if match[2] else ""
            fault = f"is `{match[0][:60]}`, which is more than an address"
            raise ValueError(f"{fault}; write `host: {match[1][:60]}`{port}")
        return text

    @field_validator("description")
    @classmethod
    def _is_one_line(cls, text: str | None) -> str | None:
        if text is not None and any(ord(char) < 32 for char in text):
            raise ValueError("must be one line without control characters")
        return text

    @field_validator("gpu_memory_utilization", mode="wrap")
    @classmethod
    def _keeps_its_spelling(cls, value: object, handler: ValidatorFunctionWrapHandler) -> object:
        if isinstance(value, bool):
            raise PydanticCustomError("float_type", "a number")
        checked = handler(value)
        return value if isinstance(value, float) else checked  # `0.90` stays `0.90`

    @field_validator("gpus")
    @classmethod
    def _gpus_are_known(cls, words: tuple[str, ...] | None) -> tuple[str, ...] | None:
        gpu_selection.parse(words or ())
        return words

    @field_validator("secrets")
    @classmethod
    def _are_files_or_credentials(cls, secrets: dict[str, str]) -> dict[str, str]:
        for variable, source in variable_names(secrets).items():
            if TOKEN.match(source) or _LIKE_A_TOKEN.fullmatch(source):
                raise ValueError(
                    f"gives `{variable}` what looks like the secret itself; give the path of its file"
                )
            if not re.fullmatch(r"/[^\s%\"'\\:]+|[A-Za-z0-9_.-]+", source):
                # The value is not repeated: somebody may have put the secret itself here.
                raise ValueError(
                    f"gives `{variable}` neither an absolute path nor the name of a credential; give one"
                )
        if {*HF_TOKENS} <= {*secrets}:
            raise ValueError(
                "has HF_TOKEN and HUGGING_FACE_HUB_TOKEN, which are one credential; keep HF_TOKEN"
            )
        return secrets

    @field_validator("engine_version", "python_version")
    @classmethod
    def _is_a_specifier(cls, text: str | None) -> str | None:
        from packaging.specifiers import InvalidSpecifier, SpecifierSet

        try:
            SpecifierSet(text or "")
        except InvalidSpecifier as error:
            raise ValueError("is not a version specifier; write for example `==0.14.*`") from error
        return text
