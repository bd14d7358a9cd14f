"""The parts of a recipe that have keys of their own."""

from typing import Annotated, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema, model_validator
from pydantic_core import PydanticCustomError

from recipectl.recipe.spans import span_sec

Positive = Annotated[int, Field(strict=True, ge=1)]

LONGEST_SEC = 31_536_000  # a year


def _whole_seconds(value: object) -> int:
    seconds = span_sec(value)
    if isinstance(seconds, bool) or not isinstance(seconds, int):
        raise PydanticCustomError("span", "give whole seconds, or a span such as `15min`")
    return seconds


Span = Annotated[
    int,
    BeforeValidator(_whole_seconds),
    Field(ge=1, le=LONGEST_SEC),
    WithJsonSchema({"type": ["integer", "string"], "minimum": 1}),
]

# pydantic builds the parts together with the recipe, and not each once more.
_PART = ConfigDict(frozen=True, extra="forbid", defer_build=True)


class Ready(BaseModel):
    """How the engine is asked whether it is ready."""

    model_config = _PART

    path: str | None = Field(
        default=None, pattern=r"^/[!-~]*$", description="HTTP path that answers 200 when ready"
    )
    timeout_sec: Span = Field(default=1800, description="how long a load may take, in seconds")


class OnDemand(BaseModel):
    """Start at the first request, stop when idle."""

    model_config = _PART

    idle: Span = Field(default=900, description="stop after this long without a connection")
    evict: Literal["idle", "always"] = Field(
        default="idle", description="take the GPUs of a model once it is idle, or at once"
    )
    patience: Span = Field(default=300, description="how long `evict: idle` waits for a busy model at most")
    engine_port: int | None = Field(
        default=None, strict=True, ge=1, le=65535, description="where the engine itself listens"
    )


class Queue(BaseModel):
    """Requests wait in HAProxy while the model restarts, loads or has crashed."""

    model_config = _PART

    wait: Span = Field(default=600, description="how long a request waits at most")
    drain: Span = Field(default=300, description="how long a stop waits for the requests that run")
    engine_port: int | None = Field(
        default=None, strict=True, ge=1, le=65535, description="where the engine itself listens"
    )


class Watch(BaseModel):
    """A repeated question to the running engine, asked by a unit without privilege."""

    model_config = _PART

    ask: Literal["health", "progress", "completion"] | None = Field(
        default=None, description="left out: progress, where the engine's metrics tell it, else health"
    )
    path: str | None = Field(
        default=None, pattern=r"^/[!-~]*$", description="a question of your own: 200 is well"
    )
    body: str | None = Field(default=None, min_length=1, description="JSON, which makes it a POST")
    every: Span = 30
    failures: Positive = Field(default=3, description="failures in a row before `action`")
    timeout: Span = Field(default=10, description="how long one answer may take")
    action: Literal["restart", "stop"] = Field(
        default="restart", description="restart kills the engine; systemd or a request starts it"
    )

    @model_validator(mode="after")
    def _has_one_question(self) -> "Watch":
        if self.path and self.ask in ("progress", "completion"):
            raise ValueError(f"has `path` and `ask: {self.ask}`, which are two questions; remove one")
        if self.body is not None and not self.path:
            raise ValueError("has `body` and no `path` to send it to; give one")
        return self


class Nodes(BaseModel):
    """The part of this host in a model that several hosts serve together."""

    model_config = _PART

    count: Positive
    rank: int = Field(strict=True, ge=0, description="0 is the head, which answers requests")
    address: str = Field(min_length=1, description="address of the head")
    port: int | None = Field(
        default=None, strict=True, ge=1, le=65535, description="default: the engine's own port"
    )

    @model_validator(mode="after")
    def _rank_is_in_range(self) -> "Nodes":
        if self.rank >= self.count:
            raise ValueError(f"has rank {self.rank} of {self.count}; ranks count from 0")
        return self
