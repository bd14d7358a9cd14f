"""What options an engine has, by its own parser: `python -I probe.py ENGINE`, with the engine's python.

A program of its own. Prints JSON: {"version", "options": {flag: {"kind", "aliases", "choices",
"deprecated"}}}. Kinds: flag, negatable (has --no-x), value, optional, words (several), repeated.
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

    def first(name: str, *modules: str) -> Any:
        for module in modules:
            with contextlib.suppress(ImportError, AttributeError):
                return getattr(import_module(module), name)
        raise ImportError(f"{name} is in none of {', '.join(modules)}")

    parser = first("FlexibleArgumentParser", "vllm.utils.argparse_utils", "vllm.utils")
    make = first("make_arg_parser", "vllm.entrypoints.launchers.cli_args", "vllm.entrypoints.openai.cli_args")
    return engine.__version__, make(parser(prog="vllm serve"))


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


def options(parser: argparse.ArgumentParser) -> dict[str, dict[str, Any]]:
    """Each option under its first long flag; what is usual is left out."""
    found = {}
    for action in parser._actions:
        negatable = isinstance(action, argparse.BooleanOptionalAction)
        flags = [flag for flag in action.option_strings if not (negatable and flag.startswith("--no-"))]
        long = [flag for flag in flags if flag.startswith("--")]
        if not long or isinstance(action, argparse._HelpAction):
            continue
        one: dict[str, Any] = {"kind": _kind(action)}
        if len(flags) > 1:
            one["aliases"] = [flag for flag in flags if flag != long[0]]
        if action.choices is not None:
            one["choices"] = sorted(str(choice) for choice in action.choices)
        text = (action.help or "").lower().lstrip("([ ")
        told = f"{long[0]} is deprecated" in (action.help or "") or text.startswith("deprecated")
        if told or "eprecated" in type(action).__name__ or getattr(action, "deprecated", False):
            one["deprecated"] = " ".join((action.help or "").split())[:200]
        found[long[0]] = one
    return found


if __name__ == "__main__":
    os.environ["CUDA_VISIBLE_DEVICES"] = ""  # a probe must not touch a GPU
    with contextlib.redirect_stdout(io.StringIO()):
        version, parser = {"vllm": vllm, "sglang": sglang}[sys.argv[1]]()
    sys.stdout.write(json.dumps({"version": version, "options": options(parser)}))
