"""The options of an engine by its own parser: `python -I parser_probe.py ENGINE`, with its python.

A program of its own. It prints JSON: {"version", "options": {flag: {kind, aliases, default, ...}}}.
Kinds: flag, negatable (has --no-x), value, optional, words (several), repeated.
"""

import argparse
import contextlib
import io
import json
import os
import sys
from typing import Any


def vllm() -> tuple[str, argparse.ArgumentParser]:
    """The parser of `vllm serve`; its modules have moved between releases."""
    from importlib import import_module

    import vllm as engine  # type: ignore[import-not-found]

    def imported(name: str, *modules: str) -> Any:
        for module in modules:
            with contextlib.suppress(ImportError, AttributeError):
                return getattr(import_module(module), name)
        raise ImportError(f"{name} is in none of {', '.join(modules)}")

    parser = imported("FlexibleArgumentParser", "vllm.utils.argparse_utils", "vllm.utils")
    add_options = imported(
        "make_arg_parser",
        "vllm.entrypoints.common.cli_args",
        "vllm.entrypoints.launchers.cli_args",
        "vllm.entrypoints.openai.cli_args",
    )
    return engine.__version__, add_options(parser(prog="vllm serve"))


def sglang() -> tuple[str, argparse.ArgumentParser]:
    """The parser of `python -m sglang.launch_server`."""
    import sglang as engine  # type: ignore[import-not-found]
    from sglang.srt.server_args import ServerArgs  # type: ignore[import-not-found]

    parser = argparse.ArgumentParser()
    ServerArgs.add_cli_args(parser)
    return engine.__version__, parser


def _kind(action: argparse.Action) -> str:
    if isinstance(action, argparse.BooleanOptionalAction):
        return "negatable"
    if isinstance(action, argparse._AppendAction):
        return "repeated"
    if action.nargs in ("+", "*"):
        return "words"
    return "flag" if action.nargs == 0 else "optional" if action.nargs == "?" else "value"


def _negations(parser: argparse.ArgumentParser, action: argparse.Action, spellings: list[str]) -> list[str]:
    """The spellings that set a boolean to False, as the action itself does: vLLM 0.33 has `--disable-x`."""
    if not isinstance(action, argparse.BooleanOptionalAction):
        return []
    negations = []
    for flag in spellings:
        namespace = argparse.Namespace()
        action(parser, namespace, None, flag)
        if getattr(namespace, action.dest) is False:
            negations.append(flag)
    return negations


def _is_deprecated(action: argparse.Action, flag: str) -> bool:
    text = action.help or ""
    by_help = f"{flag} is deprecated" in text or text.lower().lstrip("([ ").startswith("deprecated")
    return by_help or "eprecated" in type(action).__name__ or bool(getattr(action, "deprecated", False))


def options(parser: argparse.ArgumentParser) -> dict[str, dict[str, Any]]:
    """Each option under its first long flag, with its default where that is one word or number."""
    table = {}
    for action in parser._actions:
        spellings = [flag for flag, owner in parser._option_string_actions.items() if owner is action]
        negations = _negations(parser, action, spellings)
        flags = [flag for flag in spellings if flag not in negations]
        long = [flag for flag in flags if flag.startswith("--")]
        if not long or isinstance(action, argparse._HelpAction):
            continue
        option: dict[str, Any] = {"kind": _kind(action)}
        if len(flags) > 1:
            option["aliases"] = [flag for flag in flags if flag != long[0]]
        if negations:
            option["negations"] = sorted(negations, key=lambda flag: flag != f"--no-{long[0][2:]}")
        if action.choices is not None:
            option["choices"] = sorted(str(choice) for choice in action.choices)
        if isinstance(action.default, str | int | float) and action.default != argparse.SUPPRESS:
            option["default"] = str(action.default)[:100]
        if _is_deprecated(action, long[0]):
            option["deprecated"] = " ".join((action.help or "").split())[:200]
        table[long[0]] = option
    return table


if __name__ == "__main__":
    os.environ["CUDA_VISIBLE_DEVICES"] = ""  # a probe must not touch a GPU
    with contextlib.redirect_stdout(io.StringIO()):
        version, parser = {"vllm": vllm, "sglang": sglang}[sys.argv[1]]()
    sys.stdout.write(json.dumps({"version": version, "options": options(parser)}))
