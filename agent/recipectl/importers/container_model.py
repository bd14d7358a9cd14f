"""The model of a container: where its words name it, and by which name clients ask for it."""

from itertools import pairwise

from recipectl.engines import flags
from recipectl.engines.options import shipped_options
from recipectl.engines.registry import ENGINES
from recipectl.importers.container_options import Container
from recipectl.importers.option_sources import with_config_file
from recipectl.importers.programs import program


def model_in(words: list[str]) -> str:
    """The model of an engine's words, as far as it stands where it usually does."""
    for flag in ("--model", "--model-path", "-m", "-hf", "-hfr", "--hf-repo"):
        if flag in words[:-1]:
            return words[words.index(flag) + 1]
    return words[2] if words[:2] == ["vllm", "serve"] and len(words) > 2 else ""


def without_config_file(words: list[str], container: Container, notes: list[str]) -> list[str]:
    """The words with the options of a `--config` file that is mounted: its paths are the container's."""
    engine = program(words)
    if engine is None or not engine.arguments or ENGINES[engine.backend].config_flag is None:
        return words
    start = len(words) - len(engine.arguments)
    flag = ENGINES[engine.backend].config_flag
    arguments = [
        container.mounts.host_path(word) if flag in (before, word.partition("=")[0]) else word
        for before, word in pairwise(("", *words[start:]))
    ]
    arguments, file = with_config_file(engine.backend, arguments, None)
    if file is None:
        return words
    notes.append(f"The options of {file} are written out here.")
    return [*words[:start], *arguments]


def with_served_name(words: list[str], container: Container) -> list[str]:
    """The words with the name by which clients ask: it is the model's path in the container."""
    engine, model = program(words), model_in(words)
    if engine and engine.has_positional_model:
        _, stray = flags.parse(engine.backend, engine.arguments, shipped_options(engine.backend))
        model = engine.arguments[stray[0]] if stray else model
    is_named = any(word.partition("=")[0].replace("_", "-") == "--served-model-name" for word in words)
    is_moved = container.mounts.host_path(model) != model
    if engine is None or engine.backend == "llamacpp" or is_named or not is_moved:
        return words
    return [*words, "--served-model-name", model]
