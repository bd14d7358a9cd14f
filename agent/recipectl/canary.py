"""The canaries of a model: is it the model that its recipe names, and does it answer as it must?

Verbs of the helper, standard library only. They run without privilege. What the engine answers is read within
limits; it decides the exit status, and goes into the journal as text.
"""

import argparse
import json
import posixpath
import re
import time
from collections.abc import Iterator
from typing import Any

from recipectl.journal import say
from recipectl.watch import Answer, EngineClient, key_of

_MAX_TOKENS = 512  # of an answer to `ask`: a model that reasons writes much before it answers
_CHAT, _COMPLETION = "/v1/chat/completions", "/v1/completions"
_NO_CHAT = (400, 404, 405, 501)  # a model without a chat template refuses a chat
_SHOWN = 200  # characters of an answer in the journal


def ask_model(options: argparse.Namespace) -> int:
    """Fail when the engine serves another model than that of --model and --model-path."""
    engine = _engine(options)
    models = engine.ask("/v1/models")
    if models.status != 200:
        return _wrong(f"/v1/models answers {_status(models)}")
    rows = _json(models).get("data")
    rows = [row for row in rows if isinstance(row, dict)] if isinstance(rows, list) else []
    names = [str(row.get("id")) for row in rows]
    if options.model and options.model not in names:
        return _wrong(f"the engine serves {_excerpt(', '.join(names) or 'nothing')}, not {options.model}")
    # llama.cpp and SGLang tell the model's path beside their version, vLLM as the root of a model.
    reported_path = _json(engine.ask(options.path)).get("model_path") if options.path else None
    path = reported_path or (rows[0].get("root") if rows else None)
    path = path if options.model_path and isinstance(path, str) else ""
    if path and posixpath.normpath(path) != posixpath.normpath(options.model_path):
        return _wrong(f"the engine has loaded {_excerpt(path)}, not {options.model_path}")
    say("the engine serves the model of its recipe")
    return 0


def ask_canary(options: argparse.Namespace) -> int:
    """Ask one canary; fail when the answer is not as --contains and --matches want it."""
    begin = time.monotonic()
    answer = _answer(options)
    name = f"canary {options.number}"
    if answer.status != 200:
        return _wrong(
            f"{name}: the engine answers {_status(answer)}: {_excerpt(answer.body.decode(errors='replace'))}"
        )
    text = _text(answer)
    for fault in _faults(text, options):
        return _wrong(f"{name}: {fault}: {_excerpt(text)}")
    say(f"{name} has passed after {time.monotonic() - begin:.1f} s")
    return 0


def _faults(text: str, options: argparse.Namespace) -> Iterator[str]:
    if options.contains and options.contains not in text:
        yield f"the answer has no `{options.contains}`"
    if options.matches and not re.search(options.matches, text):
        yield f"the answer does not match `{options.matches}`"
    if options.ask and not text.strip():
        yield "the answer is empty"


def _answer(options: argparse.Namespace) -> Answer:
    engine = _engine(options)
    if options.body:
        return engine.ask(options.path, json.dumps({"model": options.model} | json.loads(options.body)))
    common = {"model": options.model, "max_tokens": _MAX_TOKENS, "temperature": 0}
    chat = common | {"messages": [{"role": "user", "content": options.ask}]}
    answer = engine.ask(_CHAT, json.dumps(chat))
    if answer.status not in _NO_CHAT:
        return answer
    say(f"canary {options.number}: a chat is answered with {answer.status}, so the text is asked as a prompt")
    return engine.ask(_COMPLETION, json.dumps(common | {"prompt": options.ask}))


def _text(answer: Answer) -> str:
    """The text of the first choice; of an answer without choices, all of it."""
    choices = _json(answer).get("choices")
    first = choices[0] if isinstance(choices, list) and choices else None
    if not isinstance(first, dict):
        return answer.body.decode(errors="replace")
    message = first.get("message")
    text = message.get("content") if isinstance(message, dict) else first.get("text")
    return text if isinstance(text, str) else ""


def _engine(options: argparse.Namespace) -> EngineClient:
    return EngineClient(options.address, options.port, options.timeout_sec, key_of(options.key_file))


def _json(answer: Answer) -> dict[str, Any]:
    try:
        data = json.loads(answer.body)
    except (ValueError, RecursionError):
        return {}
    return data if isinstance(data, dict) else {}


def _status(answer: Answer) -> str:
    return f"status {answer.status}" if answer.status is not None else "nothing in time"


def _excerpt(text: str) -> str:
    return ascii(text[:_SHOWN])[1:-1] + ("…" if len(text) > _SHOWN else "")


def _wrong(text: str) -> int:
    say(text)
    return 1
