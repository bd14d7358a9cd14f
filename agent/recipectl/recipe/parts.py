"""The parts of a recipe that have keys of their own."""

import json
import re
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    WithJsonSchema,
    field_validator,
    model_validator,
)
from pydantic_core import PydanticCustomError

from recipectl.recipe.spans import LONGEST_SEC, span_sec

ANY_SCALAR = {"type": ["string", "number", "boolean"]}
# A value exactly as the file has it: yamlfile turns the scalars of some keys into their text.
Text = Annotated[str, Field(strict=True), WithJsonSchema(ANY_SCALAR)]
Positive = Annotated[int, Field(strict=True, ge=1)]
Port = Annotated[int, Field(strict=True, ge=1, le=65535)]
_HttpPath = Annotated[str, Field(pattern=r"^/[!-~]*$")]


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
PART = ConfigDict(frozen=True, extra="forbid", defer_build=True)


class Ready(BaseModel):
    """How the engine is asked whether it is ready."""

    model_config = PART

    path: _HttpPath | None = Field(default=None, description="HTTP path that answers 200 when ready")
    timeout_sec: Span = Field(default=1800, description="how long a load may take, in seconds")


class OnDemand(BaseModel):
    """Start at the first request, stop when idle."""

    model_config = PART

    idle: Span = Field(default=900, description="stop after this long without a connection")
    evict: Literal["idle", "always"] = Field(
        default="idle", description="take the GPUs of a model once it is idle, or at once"
    )
    patience: Span = Field(default=300, description="how long a request waits for busy models at most")
    engine_port: Port | None = Field(default=None, description="where the engine itself listens")


class Queue(BaseModel):
    """Requests wait in HAProxy while the model restarts, loads or has crashed."""

    model_config = PART

    wait: Span = Field(default=600, description="how long a request waits at most")
    drain: Span = Field(default=300, description="how long a stop waits for the requests that run")
    engine_port: Port | None = Field(default=None, description="where the engine itself listens")


class Watch(BaseModel):
    """A repeated question to the running engine, asked by a unit without privilege."""

    model_config = PART

    ask: Literal["health", "progress", "completion"] | None = Field(
        default=None, description="left out: progress, where the engine's metrics tell it, else health"
    )
    path: _HttpPath | None = Field(default=None, description="a question of your own: 200 is well")
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
        try:
            json.loads(self.body or "{}")
        except ValueError as error:
            raise ValueError("has a `body` that is not JSON; correct it") from error
        return self


# The keys of a body of the API -> where it is sent (OpenAI's API, and that of rerankers).
_PATHS = {
    "messages": "/v1/chat/completions",
    "prompt": "/v1/completions",
    "input": "/v1/embeddings",
    "documents": "/v1/rerank",
}


class Canary(BaseModel):
    """A question whose answer tells whether a model works, or a command of the site that decides it."""

    model_config = PART

    ask: Text | None = Field(default=None, min_length=1, description="what a user asks, of a model for chats")
    request: dict[str, Any] | None = Field(
        default=None, description="a body of the API; `model` is put in where it is missing"
    )
    path: _HttpPath | None = Field(
        default=None, description="where `request` is sent; left out: as its keys tell"
    )
    command: tuple[Text, ...] | None = Field(
        default=None, min_length=1, description="words; exit status 0 is good, {url} and {model} are put in"
    )
    contains: Text | None = Field(default=None, min_length=1, description="text that the answer must have")
    matches: Text | None = Field(
        default=None, min_length=1, description="a regular expression that the answer must match"
    )
    timeout: Span = Field(default=60, description="how long the answer may take")

    @field_validator("matches")
    @classmethod
    def _is_an_expression(cls, text: str | None) -> str | None:
        try:
            re.compile(text or "")
        except re.error as error:
            raise ValueError(f"is no regular expression of Python ({error}); correct it") from error
        return text

    @field_validator("command")
    @classmethod
    def _is_a_program(cls, words: tuple[str, ...] | None) -> tuple[str, ...] | None:
        if words and not words[0].startswith("/"):
            raise ValueError(f"begins with `{words[0]}`; give the absolute path of a program")
        return words

    @model_validator(mode="after")
    def _is_one_question(self) -> "Canary":
        questions = [name for name in ("ask", "request", "command") if getattr(self, name) is not None]
        if len(questions) != 1:
            fault = f"has {' and '.join(f'`{name}`' for name in questions)}" if questions else "asks nothing"
            raise ValueError(f"{fault}; give one of `ask`, `request` and `command`")
        if self.command and (self.contains or self.matches):
            raise ValueError("has a `command`, whose exit status decides; remove `contains` and `matches`")
        if self.path and not self.request:
            raise ValueError("has a `path` and no `request` to send there; remove it")
        if self.request is not None and self.sent_to is None:
            raise ValueError(f"has a `request` with none of {', '.join(_PATHS)}; give its `path`")
        return self

    @property
    def sent_to(self) -> str | None:
        """The path of a request."""
        known = (path for key, path in _PATHS.items() if key in (self.request or {}))
        return self.path or next(known, None)


class Nodes(BaseModel):
    """The part of this host in a model that several hosts serve together: by their names, or by a rank.

    With `hosts` the compiler fills in `count`, `rank` and `address` (compiler/members).
    """

    model_config = PART

    hosts: tuple[Text, ...] | None = Field(
        default=None, description="names of all hosts, the head first; the same file on each"
    )
    interface: str | None = Field(
        default=None, pattern=r"^[^\s/:%]{1,15}$", description="where the hosts reach each other: `eth1`"
    )
    count: Positive = Field(default=1, description="how many hosts there are")
    rank: int = Field(default=0, strict=True, ge=0, description="0 is the head, which answers requests")
    address: str | None = Field(
        default=None, min_length=1, description="address of the head; with `hosts` its name is looked up"
    )
    port: Port | None = Field(default=None, description="default: the engine's own port")
    tie_port: Port | None = Field(default=None, description="where the head's tie listens")
    headless: bool | None = Field(
        default=None, strict=True, description="false: vLLM answers requests on each host"
    )

    @property
    def serves(self) -> bool:
        """True if this host answers requests."""
        return self.rank == 0 or self.headless is False

    @field_validator("hosts")
    @classmethod
    def _are_names(cls, hosts: tuple[str, ...] | None) -> tuple[str, ...] | None:
        for host in hosts or ():
            if re.fullmatch(r"[0-9.]+", host) or not re.fullmatch(
                r"[A-Za-z0-9]([A-Za-z0-9.-]{0,251}[A-Za-z0-9])?", host
            ):
                raise ValueError(f"has `{host!a}`, which is no name of a host; give short or full names")
        if hosts is not None and len(hosts) < 2:
            raise ValueError("needs two hosts or more; for one, remove `nodes:`")
        if len({host.lower() for host in hosts or ()}) < len(hosts or ()):
            raise ValueError("names a host twice; name each once")
        return hosts

    @model_validator(mode="after")
    def _is_one_of_two_forms(self) -> "Nodes":
        set_fields = self.model_fields_set
        if self.hosts:
            if extra := sorted({"count", "rank"} & set_fields):
                raise ValueError(f"has `hosts` and `{extra[0]}`, which follows from it; remove `{extra[0]}`")
            return self
        missing = [name for name in ("count", "rank", "address") if name not in set_fields]
        if missing:
            raise ValueError(f"has no `{missing[0]}`; give `hosts`, or `count`, `rank` and `address`")
        if others := sorted({"interface", "tie_port"} & set_fields):
            raise ValueError(f"has `{others[0]}`, which only counts with `hosts`; name all `hosts`")
        if self.rank >= self.count:
            raise ValueError(f"has rank {self.rank} of {self.count}; ranks count from 0")
        return self
