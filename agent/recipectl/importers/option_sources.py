"""What engines read besides their words, as flags: the file of `--config`, and `LLAMA_ARG_…` variables."""

import json
import os
import stat
from collections.abc import Collection
from pathlib import Path
from typing import Any

import yaml

from recipectl.engines import flags
from recipectl.engines.options import flag_of, shipped_options
from recipectl.engines.registry import ENGINES
from recipectl.errors import RecipectlError, UsageError
from recipectl.importers.draft import AS_IT_RUNS
from recipectl.recipe.yamlsyntax import Loader, read_text
from recipectl.regular import open_regular

# What llama-server reads from its environment (`--help`); the other variables are left to it.
_VARIABLES = {
    f"LLAMA_ARG_{flag.upper().replace('-', '_')}": f"--{flag}"
    for flag in (
        "model", "model-url", "hf-repo", "hf-file", "docker-repo", "alias", "host", "port", "ctx-size",
        "models-dir", "models-preset", "api-prefix", "api-key-file", "ssl-key-file", "ssl-cert-file",
    )
} | {"LLAMA_ARG_N_PARALLEL": "--parallel", "LLAMA_ARG_ENDPOINT_METRICS": "--metrics"}  # fmt: skip


def with_config_file(
    backend: str,
    arguments: list[str],
    folder: str | None,
    reader: int | None = None,
    written_files: Collection[str] = (),
) -> tuple[list[str], str | None]:
    """The arguments with a file's flags instead of `--config`, and the file; unchanged when it is not here.

    A flag of the command line wins over the file's (`FlexibleArgumentParser` of vLLM, `ConfigArgumentMerger`
    of SGLang). UsageError for a file among those that the script itself writes.
    """
    known = shipped_options(backend)
    parsed, stray = flags.parse(backend, arguments, known)
    config = next((option for option in parsed if option.flag == ENGINES[backend].config_flag), None)
    if config is None or len(config.values) != 1:
        return arguments, None
    path = Path(folder or "", config.values[0])
    if path in {Path(folder or "", file) for file in written_files}:
        fault = f"the script writes {path} itself, so what is in it now does not count"
        raise UsageError(f"{fault}; write its options as flags, {AS_IT_RUNS}")
    try:
        with open_regular(path) as file:
            place = f"/proc/self/fd/{file.fileno()}"
            if not _can_read(reader, place):
                return arguments, None
            data = yaml.load(read_text(Path(place)), Loader)  # noqa: S506  (it is a safe loader)
    except (OSError, RecipectlError, yaml.YAMLError):
        return arguments, None
    if not isinstance(data, dict):
        return arguments, None
    written = {known.canonical(option.flag) for option in parsed}
    written |= {"--model"} if stray else set()  # the model of the command line
    words = [
        word
        for key, value in data.items()
        if known.canonical(flag_of(str(key))) not in written
        for word in _words(backend, str(key), value)
    ]
    others = [*arguments[: config.index], *arguments[config.index + len(config.raw) :]]
    return [*others, *words], str(path)


def _can_read(reader: int | None, place: str) -> bool:
    """False for an open file that is closed to `reader`: anybody's process may name a file of root's."""
    if reader in (None, 0):
        return True
    file = Path(os.path.realpath(place))
    rights = [(file, stat.S_IROTH), *((folder, stat.S_IXOTH) for folder in file.parents)]
    return all(path.stat().st_uid == reader or path.stat().st_mode & right for path, right in rights)


def _words(backend: str, key: str, value: Any) -> list[str]:
    known = shipped_options(backend)
    flag = f"--{key}"
    if isinstance(value, bool) and known.kind(known.canonical(flag_of(key))) == "value":
        value = str(value).lower()
    if isinstance(value, bool):
        negation = f"--no-{key}"  # vLLM leaves `false` out where it does not know this spelling
        return [flag] if value else [negation] if negation in known.negations else []
    if isinstance(value, dict):
        return [flag, json.dumps(value)]
    if isinstance(value, list):
        return [flag, *map(str, value)] if value else []
    return [flag, str(value)]


def of_environment(backend: str, arguments: list[str], environment: dict[str, str]) -> list[str]:
    """The flags of `LLAMA_ARG_…` that a recipe has keys for; they are taken out of the environment.

    A flag of the command line wins (`common_params_parse` of llama.cpp).
    """
    known = shipped_options(backend)
    parsed, _ = flags.parse(backend, arguments, known)
    written = {known.canonical(option.flag) for option in parsed}
    words: list[str] = []
    for name in [name for name in environment if name in _VARIABLES] if backend == "llamacpp" else ():
        flag = _VARIABLES[name]
        kind = known.kind(known.canonical(flag))
        value = environment.pop(name)
        if known.canonical(flag) in written:
            continue
        if kind in ("flag", "negatable"):
            is_true = value.lower() in ("1", "true", "on", "enabled")
            negation = known.negation(known.canonical(flag))
            words += [flag] if is_true else [negation] if negation else []
        else:
            words += [flag, value]
    return words
