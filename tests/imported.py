"""Commands imported and compiled again, for the tests that compare the words."""

import contextlib
import json
import socket
import subprocess
import time
import urllib.request
from pathlib import Path
from typing import Any

from recipectl.compiler.model import ResolvedRecipe
from recipectl.compiler.pipeline import resolve_purely
from recipectl.engines import ask, parser_probe
from recipectl.engines.options import Option, Options, shipped_options
from recipectl.engines.registry import ENGINES
from recipectl.errors import RecipectlError
from recipectl.importers.command import command_from_words
from recipectl.importers.draft import Draft, render
from recipectl.importers.from_command import draft_from_command
from recipectl.importers.lines import Losing
from recipectl.machine.installation import Installation
from recipectl.machine.runtime import Runtime
from recipectl.recipe.hostfile import HostSettings
from recipectl.recipe.load import load_with_positions

RUNTIMES = {
    "vllm": Runtime("test", ("/v/bin/vllm", "serve"), positional_model=True),
    "sglang": Runtime("test", ("/v/bin/python", "-m", "sglang.launch_server")),
    "llamacpp": Runtime("test", ("/v/bin/llama-server",)),
}
_MODEL_WORDS = {"vllm": ["/m"], "sglang": ["--model-path", "/m"], "llamacpp": ["--model", "/m"]}


def losses(imported: Losing) -> list[str]:
    """What is not carried over, as it is printed."""
    return [str(remark) for remark in imported.not_carried_over]


def compiled(draft: Draft, folder: Path) -> ResolvedRecipe:
    """The draft written as YAML, read again and compiled, on a host whose variables are `$NAME` themselves."""
    path = folder / "a.yaml"
    path.write_text(render(draft))
    host_settings = HostSettings(vars={name: f"${name}" for name in draft.variables})
    recipe, _ = load_with_positions((path,), host_settings.vars)
    installation = Installation(("/h",), user=True)
    return resolve_purely(recipe, str(path), RUNTIMES[recipe.backend], host_settings, installation)


def _values(option: Option) -> list[str]:
    """A value that an option may take; it has none for a flag."""
    if option.kind in ("flag", "negatable"):
        return []
    return [next((choice for choice in option.choices or () if choice not in ("None", "")), "1")]


def spellings_of(engine: str, options: Options) -> list[list[str]]:
    """Each option of an engine in each of its spellings, with a value."""
    words = []
    for name, option in options.by_flag.items():
        # The model is in all words already, and of two the last one counts.
        if name in ("--help", "--version", "--config", ENGINES[engine].model_flag):
            continue
        names = [name, *option.aliases, *option.negations]
        if ENGINES[engine].takes_underscores:
            names += [f"--{text[2:].replace('-', '_')}" for text in names if "-" in text[2:]]
        words += [[text, *_values(option)] for text in names]
    return words


def pairs(engine: str, spellings: list[list[str]], folder: Path) -> list[tuple[list[str], list[str]]]:
    """For each spelling: the words as somebody wrote them, and after import and compile.

    Words that are refused, named, or kept as a secret are left out.
    """
    model = _MODEL_WORDS[engine]
    result = []
    for words in spellings:
        with contextlib.suppress(RecipectlError):
            if (new := again(engine, words, folder)) is not None:
                result.append(([*model, *words], [*model, *new]))
    return result


def again(engine: str, words: list[str], folder: Path) -> list[str] | None:
    """The words of options after an import and a compile; None when something is named or kept as a secret."""
    program = [*RUNTIMES[engine].command, *_MODEL_WORDS[engine]]
    draft = draft_from_command(command_from_words([*program, *words]), "a")
    new_words = list(compiled(draft, folder).argv)
    assert new_words[: len(program)] == program
    return None if draft.not_carried_over or draft.secrets else new_words[len(program) :]


# It reads pairs of command lines, and prints those that its parser takes for two different things.
_COMPARE = """
import json, re, runpy, sys
probe = runpy.run_path(sys.argv[1])
parser = probe[sys.argv[2]]()[1]
def meaning(words):
    try:
        values = vars(parser.parse_args(words))
        values["model"] = values.pop("model_tag", None) or values.get("model")  # positional, or by its flag
        # A parser may add an id of its own.
        return {name: re.sub(r"[0-9a-f]{8}(-?[0-9a-f]{4}){3}-?[0-9a-f]{12}", "ID", repr(value)) for name, value in values.items()}
    except (SystemExit, Exception):
        return None
answers = [(words, again, meaning(words), meaning(again)) for words, again in json.load(sys.stdin)]
differ = [(words, again) for words, again, one, other in answers if one != other]
print("RESULT", json.dumps([sum(one is not None for *_, one, _ in answers), differ]))
"""


def compare(engine: str, python: Path, texts: list[tuple[list[str], list[str]]]) -> tuple[int, list[Any]]:
    """What the parser of an installed engine makes of pairs: how many it takes, and which of them differ."""
    done = subprocess.run(
        [str(python), "-I", "-c", _COMPARE, parser_probe.__file__, engine], input=json.dumps(texts),
        capture_output=True, text=True, check=True, env={"CUDA_VISIBLE_DEVICES": "", "PATH": "/usr/bin", "HOME": "/tmp"},
    )  # fmt: skip
    taken, differ = json.loads(done.stdout.partition("RESULT ")[2])
    return taken, differ


def check_spellings(engine: str, python: Path, folder: Path, least: int) -> None:
    """Each spelling of each option, of the installed engine and of the shipped table, keeps its meaning."""
    runtime = Runtime("test", (str(python),), interpreter=str(python))
    answer = ask.options_of(engine, runtime, "root", folder)
    assert answer.asked
    spellings = spellings_of(engine, answer.options)
    spellings += [words for words in spellings_of(engine, shipped_options(engine)) if words not in spellings]
    taken, differ = compare(engine, python, pairs(engine, spellings, folder))
    assert differ == []
    assert taken > least  # the others want values of their own


def router_args(server: Path, words: list[str], folder: Path) -> list[str]:
    """The words that a real llama-server, as a router, would give to its models: what its parser made of its own."""
    port = free_port()
    command = [str(server), *words, "--models-dir", str(folder), "--host", "127.0.0.1", "--port", str(port)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as process:
        try:
            for _ in range(200):
                if process.poll() is not None:
                    raise AssertionError(process.communicate()[1].decode())
                with (
                    contextlib.suppress(OSError),
                    urllib.request.urlopen(f"http://127.0.0.1:{port}/v1/models") as reply,
                ):
                    (model,) = json.load(reply)["data"]
                    return sorted(model["status"]["args"])
                time.sleep(0.05)
            raise AssertionError("llama-server does not answer")
        finally:
            process.kill()


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])
