"""Relative paths of a command, which begin at its folder: a unit has another one."""

import os
import re
from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

from recipectl.importers.command import Command
from recipectl.importers.draft import host_variable
from recipectl.importers.mounts import names_in

# A relative path, by its ending.
_FILE = re.compile(r"[\w.-]+(/[\w.-]+)*\.(jinja2?|py|ya?ml|pem|key|crt|gguf|json|txt)")
_PATH_OPTION = re.compile(
    r"--?(?!-|model-|tokenizer-|hf-config-|.*(?:-model|-or|root|-per)-path)(?:[\w-]*-)?(path|dir|file|keyfile|certfile|certs)"
)
# Options of llama.cpp's server that take files, whatever their names are; several with commas between them.
_FILES_OF_LLAMACPP = (
    "-m", "--model", "-md", "--model-draft", "--spec-draft-model", "-mm", "--mmproj", "-mv",
    "--model-vocoder", "--lora", "--lora-scaled", "--control-vector", "--control-vector-scaled",
)  # fmt: skip
# Options that take a folder, or a name on the hub, which has one slash at most.
_ADAPTERS = ("--lora-modules", "--lora-paths")  # with any number of words
_MODEL_OPTIONS = ("--model", "--model-path", "--tokenizer", "--tokenizer-path", *_ADAPTERS)


def folder_of(command: Command) -> str:
    """The folder that the relative paths of a command begin at; the host file says what no script tells."""
    return command.folder or command.script_folder or host_variable("FOLDER")


def join(folder: str, path: str) -> str:
    """A relative path from a folder."""
    return f"{folder.rstrip('/')}/{path.removeprefix('./')}".removesuffix("/.")


class AbsoluteArguments(NamedTuple):
    """The arguments of an engine with absolute paths, and which were relative."""

    words: list[str]
    relative: list[str]  # words that are likely files, as they were
    originals: dict[str, str]  # an absolute path -> as it was written


def with_absolute_paths(arguments: list[str], backend: str, command: Command) -> AbsoluteArguments:
    """An engine's arguments with the paths that begin at the folder of the command."""
    placed = [*zip(pairwise(("", *arguments)), names_in(arguments), strict=True)]
    relative = [word for (before, word), is_name in placed if not is_name and _is_file(before, word)]
    words: list[str] = []
    originals: dict[str, str] = {}
    option = ""
    for (before, word), is_name in placed:
        if is_name:
            words.append(word)
            continue
        option, prefix, path, suffix = _parts(option if option in _ADAPTERS else before, word)
        if _is_path(option, path, backend, command):
            files = path.split(",") if backend == "llamacpp" else [path]
            absolute = ",".join(join(folder_of(command), file) for file in files)
            words.append(f"{prefix}{absolute}{suffix}")
        else:
            words.append(_absolute(word, command, relative))
            absolute = words[-1].removeprefix(prefix).removesuffix(suffix)
        if absolute != path:
            originals[absolute] = path
    return AbsoluteArguments(words, relative, originals)


def _parts(before: str, word: str) -> tuple[str, str, str, str]:
    """The option of a word, what stands before its path (`--flag=`, `NAME=` of a LoRA), the path, the rest.

    A LoRA of vLLM may be JSON.
    """
    option, equals, value = word.partition("=") if word.startswith("-") else (before, "", word)
    of_json = re.fullmatch(r"""(\{.*"path"\s*:\s*")([^"\\]*)(".*)""", value, re.S)
    name, path, rest = of_json.groups() if of_json else (*re.split(r"^([\w.-]+=|)", value)[1:], "")
    return option, f"{option}={name}" if equals else name, path, rest


def _is_path(option: str, path: str, backend: str, command: Command) -> bool:
    """True for a relative path that has no `./`."""
    if not re.match(r"[\w.]", path) or path.startswith(("./", "../")) or "://" in path:
        return False
    if backend == "llamacpp":
        return option in _FILES_OF_LLAMACPP
    return (option in _MODEL_OPTIONS and _is_no_name(path)) or _is_there(path, command)


def _is_no_name(path: str) -> bool:
    """True for what is no name on the hub."""
    return path.endswith("/") or path.count("/") > 1


def _is_there(path: str, command: Command) -> bool:
    folder = command.folder or command.script_folder
    return bool(folder) and "/" in path and os.path.exists(f"{folder}/{path}")  # noqa: PTH110  (no error)


def absolute_model(model: str, command: Command) -> str:
    """The model of a command: a path that begins at its folder, or a name on the hub as it is."""
    is_path = _is_no_name(model) or _is_there(model, command)
    is_relative = re.fullmatch(r"[\w.-]+(/[\w.-]+)*/?", model)
    return join(folder_of(command), model) if is_path and is_relative else model


def _is_file(before: str, word: str) -> bool:
    """Whether a word is likely the relative path of a file, by its ending."""
    name, _, value = word.partition("=") if word.startswith("-") else (before, "", word)
    if name in ("--hf-file", "-hff", "--alias", "--served-model-name"):
        return False
    is_path = _PATH_OPTION.fullmatch(name) and re.match(r"[\w.-]", value) and "://" not in value
    return bool(is_path or _FILE.fullmatch(value))


def _absolute(word: str, command: Command, files: Sequence[str]) -> str:
    """A word with a path that begins at the folder, `./x` or `--flag=../x`, or a file where that is known."""
    option, equals, path = word.partition("=") if word.startswith("-") else ("", "", word)
    is_known_file = word in files and (command.folder or command.script_folder or path.endswith(".gguf"))
    if path in (".", "..") or (is_known_file and not path.startswith(("./", "../"))):
        return f"{option}{equals}{join(folder_of(command), path)}"
    # Also within a list, a pair or JSON: `a=./lora/a`.
    folder = folder_of(command).rstrip("/").replace("\\", r"\\")
    return re.sub(r"(?<![^=,:\"'])(?:\./|(?=\.\./))", f"{folder}/", word)
