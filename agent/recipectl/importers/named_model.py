"""The model that an engine's command names."""

import re

from recipectl.engines.engine import Engine
from recipectl.engines.flags import GivenOption
from recipectl.engines.registry import ENGINES
from recipectl.errors import UsageError
from recipectl.importers.draft import VARIABLE_ALONE, VARIABLE_START, redacted
from recipectl.importers.lines import Remark
from recipectl.importers.programs import Program

_MODEL_VARIABLE = re.compile(
    r"\A.(\w+_)?(MODEL\w*|PATH|DIR|REPO|NAME|WEIGHTS|CKPT|CHECKPOINT|ID|ARG)(_\w+|[0-9]+)?.\Z", re.I
)
_DOWNLOAD_FLAGS = ("--model-url", "--docker-repo")
_ROUTER = (
    "llama-server a router, which starts its models as processes of its own; write a recipe for each model,"
    " with `on_demand:`, and systemd starts them at their first request"
)
_ROUTER_FLAGS = ("--models-dir", "--models-preset", "--models-max")


def take_model(
    engine: Program, options: list[GivenOption], stray_words: list[str], lost: list[Remark], unread: list[str]
) -> str:
    """Remove the model from the options or the stray words; UsageError when the command names none."""
    if stray_words and (engine.has_positional_model or engine.arguments[0] == stray_words[0]):
        word = stray_words.pop(0)
        if engine.backend == "llamacpp" and VARIABLE_START not in word:
            raise UsageError(f"`{redacted(word)}` is no option of llama-server, which refuses it; remove it")
        is_unknown = VARIABLE_ALONE.fullmatch(word) and not _MODEL_VARIABLE.search(word)
        if is_unknown and not engine.has_positional_model:
            raise UsageError(f"`{redacted(word)}` may hold the model and more; write its words here")
        if is_unknown:
            lost.append(
                Remark(f"`{redacted(word)}` is taken for the model; if it holds more, write its words here")
            )
        for option in [option for option in options if option.flag == "--model" and option.values]:
            options.remove(option)
            fault = f"`{redacted(' '.join(option.raw))}`, which counts for nothing beside"
            lost.append(Remark(f"{fault} `{redacted(word)}`"))
        return word
    facts = ENGINES[engine.backend]
    for flag in (facts.model_flag, "--model", facts.hub_flag):
        named = [option for option in options if option.flag == flag and option.values]
        for option in named:
            options.remove(option)
        if named:
            return named[-1].values[0]  # engines take the last one
    raise UsageError(_no_model(facts, options, unread))


def _no_model(facts: Engine, options: list[GivenOption], unread: list[str]) -> str:
    """Why a command names no model, and what to do."""
    if unread:
        fault = f"the model may be in {redacted(unread[0])}, which cannot be read here"
        return f"{fault}; run this where it is, or name the model"
    for option in options:
        if option.flag in _DOWNLOAD_FLAGS:
            return f"`{option.name}` downloads a model; fetch it, and name the file with --model"
        if option.flag in _ROUTER_FLAGS:
            return f"`{option.name}` makes {_ROUTER}"
        if option.flag == facts.config_flag:
            fault = f"the model is in {redacted(' '.join(option.values))}, which cannot be read here"
            return f"{fault}; run this where it is, or name the model"
        if option.name.endswith("-default"):
            return f"`{option.name}` is a model of llama.cpp's choice; name it with -hf"
    if facts.hub_flag:
        return f"the command names no model, which makes {_ROUTER}; or add it (`{facts.model_flag} PATH`)"
    return f"the command names no model; add it (`{facts.model_flag} PATH`)"
