"""The recipe of one engine command."""

import os
import re
import shutil
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

from recipectl.compiler import sandbox, service_settings
from recipectl.compiler.secrets import has_secret
from recipectl.compiler.secrets import redacted as redacted_words
from recipectl.engines import flags
from recipectl.engines.options import shipped_options
from recipectl.errors import UsageError
from recipectl.importers.arguments import SECRET_FLAG, place_stray_words, set_arguments
from recipectl.importers.command import OF_CALLER, Command, NoEngineError, placeholder_in, template_in
from recipectl.importers.containers import command_in_container
from recipectl.importers.draft import (
    OTHER_GROUP,
    VARIABLE_END,
    VARIABLE_START,
    Draft,
    host_variable,
    redacted,
)
from recipectl.importers.lines import Remark, at
from recipectl.importers.named_model import take_model
from recipectl.importers.option_sources import of_environment, with_config_file
from recipectl.importers.programs import Program, program, program_name, script_runtime
from recipectl.importers.relative_paths import (
    AbsoluteArguments,
    absolute_model,
    folder_of,
    join,
    with_absolute_paths,
)
from recipectl.importers.unwrapping import unwrapped
from recipectl.importers.variables import set_environment, set_secret
from recipectl.machine.distributions import ENGINE_SCRIPTS
from recipectl.recipe.hostfile import DEFAULT_PATH
from recipectl.systemd.unitfile import RESERVED_ENDINGS

# Variables of folders, beside those of libraries.
_FOLDERS = ("HF_HOME", "XDG_CACHE_HOME", "XDG_CONFIG_HOME", "VLLM_CACHE_ROOT", "TRITON_CACHE_DIR")
# A model in a folder as people call it. A name of the hub has this shape, too.
_LIKE_A_FOLDER = re.compile(r"(models?|weights|checkpoints?|ckpts?|llms?|hf|data|downloads?)/[\w.-]+\Z")
# Words that somebody must replace.
_TWO_WORDS = re.compile(
    r"(-m|-hf|-c|-ngl|--(model|model-path|host|port|hf-repo|served-model-name|alias)) +\S"
)
_TEMPLATE = re.compile(r"\{\{ *[\w.-]+ *(\|[^}]*)?\}\}|^\{\{\Z")
_PLACEHOLDER = re.compile(
    r"^<([A-Z][A-Z0-9_ .-]*|[A-Za-z]\w*[ _.-][\w .-]*|model|path|port|host|name)>$|^[^%]*\{\{ *[\w.-]+ *\}\}"
    r"|\b(?i:your)[_-](?i:model|path|api|key|hf|org|user|dir|repo|token|name|server|host|hub)|^/path/to/|^\.\.\.$"
)


def model_name(text: str) -> str:
    """A recipe's name from a model's: `Qwen/Qwen3-8B` and `/models/Qwen3-8B/` are `qwen3-8b`."""
    path = re.sub(f"[{VARIABLE_START}{VARIABLE_END}]", "", text).rstrip("/")
    file = path.rpartition("/")[2].removesuffix(".gguf")
    name = re.sub(r"[^a-z0-9._-]+", "-", file.lower()).strip("-._")[:80]
    return f"{name}-model" if name.endswith(RESERVED_ENDINGS) else name or "model"


def draft_from_command(command: Command, name: str | None = None, origin: str = "") -> Draft:
    """The recipe of one engine command, `origin` above it; NoEngineError when it runs no known engine."""
    if command.refusal:
        raise UsageError(command.refusal)
    draft = _draft(replace(command, not_carried_over=[]), name, origin)
    lost = list(command.not_carried_over)
    with at(command.place, lost):
        lost += draft.not_carried_over
    draft.not_carried_over = [*dict.fromkeys(lost)]
    return draft


def _draft(command: Command, name: str | None, origin: str) -> Draft:
    command = unwrapped(command)
    notes: list[str] = []
    _refuse_template(command)
    if container_command := command_in_container(command):
        command = unwrapped(container_command[0])
        notes = container_command[1]
    _refuse_template(command)
    engine = _engine(command)
    draft = Draft(name or "", not_carried_over=list(command.not_carried_over))
    arguments, _, originals = _arguments(engine, command, draft, notes)
    draft.comments[""] = "\n".join([origin, *notes] if origin else notes)
    draft.set("backend", engine.backend)
    if program_name(command.words) == "llama":
        fault = "`llama serve`: a recipe starts `llama-server` of the same release"
        draft.lose(f"{fault}; install that, too, if there is `llama` alone")
    _set_runtime(draft, engine, command)
    options, stray_positions = flags.parse(engine.backend, arguments, shipped_options(engine.backend))
    stray_words = [arguments[position] for position in stray_positions]
    model = take_model(engine, options, stray_words, draft.not_carried_over, command.unread_files)
    rest = stray_positions[len(stray_positions) - len(stray_words) :]  # without the model
    options, stray_words = place_stray_words(
        engine.backend,
        options,
        dict(zip(rest, stray_words, strict=True)),
        draft.not_carried_over,
        runs=command.reader is not None,
    )
    if has_secret(model):
        raise UsageError("the model's address holds a secret; correct it")
    if not model:
        raise UsageError("the model is empty here; name it")
    originals = command.given_words | originals
    if (absolute := absolute_model(model, command)) != model:
        originals |= {absolute: model}
        model = absolute
    draft.set("model_path", model)
    if command.has_rocm:
        draft.set("accelerator", "rocm")
    set_arguments(draft, engine.backend, options, stray_words)
    set_environment(draft, {name: _with_folders(name, command) for name in command.environment})
    if engine.interpreter_options:
        options_shown = " ".join(engine.interpreter_options)
        draft.lose(f"`{options_shown}` of the interpreter; python(1) has variables for them")
    _set_secrets(draft, command)
    draft.hide_secrets()
    is_named = any(option.flag == "--served-model-name" for option in options)
    if model in originals and engine.backend != "llamacpp" and not is_named:
        draft.set("served_model_name", originals[model])  # clients use this name
    _set_service(draft, command)
    draft.name = name or model_name(str(draft.fields.get("served_model_name") or model))
    for variable in command.substituted:
        draft.rename_variable(variable, f"{re.sub('[^A-Z0-9]', '_', draft.name.upper())}_{variable}")
    return draft


def _set_secrets(draft: Draft, command: Command) -> None:
    """Set the secrets whose values the command does not have itself."""
    for variable, source in command.secrets.items():
        if variable in draft.secrets:  # a word of the command gives it, and wins
            continue
        if command.unread_files and source == OF_CALLER:
            source = f"which may be in {command.unread_files[0]}"
        set_secret(draft, variable, source)
        sentence = f"the value of `{variable}`, {source}: write it into its file"
        draft.not_carried_over.append(Remark(sentence, within=command.places.get(variable, "")))


def _refuse_template(command: Command) -> None:
    """UsageError for a command, or a variable of its environment, that a template has still to fill in."""
    values = command.environment.values()
    matches = filter(None, map(_TEMPLATE.search, values))
    template = template_in(command.words) or next((match[0] for match in matches), None)
    if template := template or next(filter(None, map(placeholder_in, values)), None):
        raise UsageError(f"fill in `{redacted(template)}`")


def _with_folders(name: str, command: Command) -> str:
    """The value of a variable; a list of folders begins at the folder of the command."""
    value = command.environment[name]
    is_folder = name in (*_FOLDERS, *sandbox.CACHES, *sandbox.WRITTEN) and re.match(r"\w(?!.*://)", value)
    if is_folder or value.startswith(("./", "../")) or value in (".", ".."):
        return join(folder_of(command), value)
    if name not in ("PYTHONPATH", "LD_LIBRARY_PATH"):
        return value
    parts = [
        part if not part or part.startswith(("/", "$", VARIABLE_START)) else join(folder_of(command), part)
        for part in value.split(":")
    ]
    return ":".join(part.removesuffix("/.") for part in parts)


def _engine(command: Command) -> Program:
    """The engine of a command; NoEngineError when it runs another program, UsageError for an unknown one."""
    engine = program(command.words)
    if engine is not None:
        return engine
    if VARIABLE_START in program_name(command.words):
        fault = f"`{redacted(command.words[0])}` is not known here, so neither is its engine"
        raise UsageError(f"{fault}; write the program's path")
    start = redacted(" ".join(redacted_words(command.words)[:3]))
    raise NoEngineError(f"`{start}` does not run a known engine (vllm, sglang, llama-server); correct it")


def _arguments(engine: Program, command: Command, draft: Draft, notes: list[str]) -> AbsoluteArguments:
    """The engine's arguments with those of its files and variables; UsageError for a placeholder."""
    folder = command.folder or command.script_folder
    arguments, config_file = with_config_file(
        engine.backend, engine.arguments, folder, command.reader, command.written_files
    )
    if config_file:
        notes.append(f"The options of {config_file} are written out here.")
    from_environment = of_environment(engine.backend, arguments, command.environment)
    absolute = with_absolute_paths([*arguments, *from_environment], engine.backend, command)
    for before, word in pairwise(("", *absolute.words[: len(arguments)])):
        if _TWO_WORDS.match(word) and not before.startswith("-"):
            raise UsageError(f"`{redacted(word)}` is one word, which no engine reads; make it two")
        # A chat template may be given as it is: it is one of Jinja itself.
        if _PLACEHOLDER.search(word) and before != "--chat-template":
            is_secret = SECRET_FLAG.search(before) or SECRET_FLAG.search(word.partition("=")[0])
            raise UsageError(f"fill in {'the key of the API' if is_secret else f'`{redacted(word)}`'}")
    if not (command.folder or command.script_folder):
        files = [word for word in absolute.relative if not word.endswith(".gguf")]
        draft.lose_each(f"`{redacted(word)}`, a relative path; a unit has its own folder" for word in files)
    return absolute


def _set_service(draft: Draft, command: Command) -> None:
    """Set what stands around the command: its start at boot, its user, the settings of its unit."""
    if command.autostart:
        draft.set("autostart", True, "The container was started with the host.")
    if command.user:
        draft.set_user(command.user)
    settings = dict(command.service)
    if group := settings.pop("Group", ""):
        settings["SupplementaryGroups"] = " ".join(filter(None, (settings.get("SupplementaryGroups"), group)))
        draft.lose(f"the group {group}: {OTHER_GROUP}")
    allowed = {
        name: value
        for name, value in settings.items()
        if service_settings.is_allowed(name) and not has_secret(str(value))
    }
    for name in settings.keys() - allowed.keys():
        is_secret = "Credential" in name or has_secret(str(settings[name]))
        draft.lose(f"{name}={'…' if is_secret else settings[name]}")
    if allowed:
        draft.set("service", allowed)
    if command.folder and command.folder != "/":  # where systemd starts an engine, too
        fault = f"`cd {command.folder}`: relative paths were made absolute from there"
        sentences = [f"{fault}; the unit runs in another folder"]
        model = str(draft.fields["model_path"])
        is_likely = _LIKE_A_FOLDER.match(model) and draft.fields["backend"] != "llamacpp"
        if is_likely and not os.path.exists(command.folder):  # noqa: PTH110  (no error)
            fault = f"`{model}` is taken for a name of the hub"
            sentences.append(f"{fault}; if it is a folder of {command.folder}, give its path")
        place = command.places.get("cd", "")
        draft.not_carried_over += [Remark(sentence, within=place) for sentence in sentences]


def _set_runtime(draft: Draft, engine: Program, command: Command) -> None:
    """Set `python_path:`, `venv_path:` or `binary:`; report the other folders of PATH."""
    path_folders = [
        folder
        for folder in (command.path or "").split(":")
        if folder.startswith(("/", VARIABLE_START)) and folder not in (*DEFAULT_PATH, host_variable("PATH"))
    ]
    fields = engine.runtime_fields
    if not fields and command.venv:
        fields = {"venv_path": command.venv}
    elif not fields and command.conda_environment:
        fields = {"python_path": f"{command.conda_environment}/bin/python"}
    elif not fields:
        fields = _runtime_on_path(engine.backend, path_folders)
    for key, value in fields.items():
        # A unit does not start in a folder: the host file says where a relative path begins.
        is_on_path = "/" not in value and key != "venv_path"
        if is_on_path:
            variable = re.sub("[^A-Z0-9]", "_", value.upper())
            value = shutil.which(value) or host_variable(variable)
        is_absolute = value.startswith(("/", VARIABLE_START))
        draft.set(key, value if is_absolute else join(folder_of(command), value))
    # The runtime's folder is the first of the unit's PATH= in any case.
    runtime_folders = [value.rpartition("/")[0] for value in fields.values()]
    runtime_folders.append(f"{fields.get('venv_path')}/bin")
    if other_folders := [folder for folder in path_folders if folder not in runtime_folders]:
        sentence = f"`PATH` with {':'.join(other_folders)}; see `path:` of the host file"
        draft.not_carried_over.append(Remark(sentence, within=command.places.get("PATH", "")))
    if not fields:
        key = "binary" if engine.backend == "llamacpp" else "python_path"
        draft.comments["backend"] = f"The command names no venv: set `{key}:`, or the host's PATH decides."
        script = Path(unwrapped(command).words[0])
        if script.is_absolute() and str(script.parent) not in DEFAULT_PATH:
            draft.lose(f"`{script}`, whose interpreter is not known here; set `{key}:`")


def _runtime_on_path(backend: str, folders: list[str]) -> dict[str, str]:
    """The runtime in the first folder of PATH that has the engine's script on this host."""
    script = ENGINE_SCRIPTS[backend]
    for folder in folders:
        if Path(folder, script).exists():
            is_binary = backend == "llamacpp"
            return {"binary": f"{folder}/{script}"} if is_binary else script_runtime(f"{folder}/{script}")
    return {}
