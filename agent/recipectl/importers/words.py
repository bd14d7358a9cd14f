"""The words of an engine's command as a recipe's fields, each only where it gives the same words back."""

import hashlib
import json
import re
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from recipectl import engines
from recipectl.compiler import environment
from recipectl.engines import flags
from recipectl.engines.flags import Given
from recipectl.errors import UsageError
from recipectl.importers.containers import contained
from recipectl.importers.draft import CLOSE, OPEN, UNKNOWN, Draft, Plain, marked
from recipectl.importers.programs import Program, program, unwrapped
from recipectl.importers.shell import Command
from recipectl.machine.disk import SCRIPTS
from recipectl.recipe.hostfile import DEFAULT_PATH
from recipectl.recipe.schema import GPU, TOKEN, VARIABLE, Nodes, Recipe
from recipectl.recipe.yamlfile import Written
from recipectl.systemd.unitfile import HELPERS

_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)("")
# Flags whose value is a secret, and the variable that the engine reads instead.
_KEYS = {("vllm", "--api-key"): "VLLM_API_KEY", ("llamacpp", "--api-key"): "LLAMA_API_KEY"}
_KEYS |= {("vllm", "--hf-token"): "HF_TOKEN", ("llamacpp", "--hf-token"): "HF_TOKEN"}
SECRETS = "/etc/recipectl/secrets"


def typed(text: str) -> Any:
    """A value as YAML would have it, when it is given back as just this text; else the text."""
    if re.fullmatch(r"0|-?[1-9][0-9]*", text):
        return int(text)
    if _LOADER.resolve(yaml.ScalarNode, text, (True, False)).endswith(":float") and text[0] in "-.0123456789":
        try:
            return Written(float(text), text)
        except ValueError:
            return text
    if text[:1] == "{":
        try:
            value = json.loads(text)
        except ValueError:
            return text
        return value if json.dumps(value, ensure_ascii=False) == text and _plain(value) else text
    return text


def _plain(value: Any) -> bool:
    """Whether a JSON value is the same after YAML: no floats, whose spelling could change."""
    if isinstance(value, dict):
        return all(_plain(item) for item in value.values())
    return all(_plain(item) for item in value) if isinstance(value, list) else not isinstance(value, float)


def _as_field(backend: str, field: str, flag: str, option: Given) -> Any:
    """The value of a field that gives an option's words back, None when there is none."""
    text = option.values[0] if len(option.values) == 1 else None
    candidates: list[Any] = [True] if not option.values else [] if text is None else [text, typed(text)]
    numeric = Recipe.model_fields[field].annotation not in (str | None, str)
    candidates.reverse()  # a number as a number, where the field takes it
    for value in candidates:
        if numeric and isinstance(value, str) and re.fullmatch(f"{OPEN}[^{CLOSE}]*{CLOSE}", value):
            return Plain(value)
        try:
            kept = getattr(Recipe.model_validate({"model_path": "m", field: value}), field)
        except ValidationError:
            continue
        if engines.words(backend, flag, kept) == (flag, *option.values):
            return value
    return None


def _as_extra(backend: str, option: Given) -> tuple[str, Any] | None:
    """(key, value) of `extra_args` that gives an option's words back."""
    known = engines.options(backend)
    candidates: list[tuple[str, Any]] = []
    long = option.flag.startswith("--")
    key = option.flag[2:] if long else option.flag
    if not option.values:
        if long and key.startswith("no-") and known.kind(f"--{key[3:]}") == "negatable":
            candidates.append((key[3:], False))
        candidates.append((key, True))
    elif len(option.values) == 1 and known.kind(option.flag) not in ("words", "repeated"):
        candidates.append((key, typed(option.values[0])))
    else:
        candidates.append((key, [typed(value) for value in option.values]))
    # As it was written: an underscore, a short flag.
    candidates += [(option.name, value) for _, value in candidates[-1:]]
    plain = "_" not in option.name and "." not in option.name
    wanted = (option.flag if plain else option.name, *option.values)
    return next((pair for pair in candidates if engines.words(backend, *pair) == wanted), None)


def _nodes(backend: str, options: list[Given]) -> tuple[dict[str, Any] | None, list[Given]]:
    """`nodes:` and the options that it stands for, where it gives just these."""
    by_name = {option.name: option for option in options if "=" not in option.raw[0]}
    value = {name: option.values[0] for name, option in by_name.items() if len(option.values) == 1}
    try:
        given: dict[str, Any] = {"count": int(value["--nnodes"]), "rank": int(value["--node-rank"])}
        if backend == "sglang":
            given["address"], _, port = value["--dist-init-addr"].rpartition(":")
        else:
            given["address"], port = value["--master-addr"], value.get("--master-port", "")
        given |= {"port": int(port)} if port else {}
        words = engines.node_words(backend, Nodes.model_validate(given))
    except (KeyError, ValueError, UsageError):
        return None, []
    taken = [by_name[word] for word in words if word in by_name]
    return (given, taken) if [w for o in taken for w in o.raw] == list(words) else (None, [])


def model_name(text: str) -> str:
    """A recipe's name from a model's: `Qwen/Qwen3-8B` and `/models/Qwen3-8B/` are `qwen3-8b`."""
    last = re.sub(f"[{OPEN}{CLOSE}]", "", text).rstrip("/").rpartition("/")[2].removesuffix(".gguf")
    name = re.sub(r"[^a-z0-9._-]+", "-", last.lower()).strip("-._")[:80]
    return f"{name}-model" if name.endswith(HELPERS) else name or "model"


def drafted(command: Command, name: str | None = None, origin: str = "") -> Draft:
    """The recipe of one engine command; UsageError when it runs no engine that is known."""
    command = unwrapped(command)
    notes: list[str] = []
    if inside := contained(command):
        command, notes = unwrapped(inside[0]), inside[1]
    found = program(command.words)
    if found is None:
        what = " ".join(command.words[:3])
        raise UsageError(f"`{what}` runs no engine that is known (vllm, sglang, llama-server); correct it")
    if any(UNKNOWN in text for text in (*command.words, *command.environment.values())):
        raise UsageError(
            f"line {command.line} of the command: a substitution cannot be run here; write its result"
        )
    draft = Draft(name or "", lost=list(command.lost))
    draft.why[""] = "\n".join([origin, *notes] if origin else notes)
    draft.set("backend", found.backend)
    _runtime(draft, found, command)
    options, strays = flags.given(found.backend, found.words, engines.options(found.backend))
    stray = [found.words[at] for at in strays]
    _model(draft, found, options, stray)
    if command.folder and str(draft.fields["model_path"]).startswith(("./", "../")):
        draft.set(
            "model_path", f"{command.folder.rstrip('/')}/{draft.fields['model_path'].removeprefix('./')}"
        )
    _arguments(draft, found.backend, options, stray)
    _environment(draft, command.environment)
    if command.user:
        draft.set("user", command.user)
    if command.folder:
        draft.lost.append(f"`cd {command.folder}`: a unit has its own folder; make relative paths absolute")
    draft.name = name or model_name(str(draft.fields.get("served_model_name") or draft.fields["model_path"]))
    return draft


def _runtime(draft: Draft, found: Program, command: Command) -> None:
    fields = dict(found.fields)
    folders = [folder for folder in (command.path or "").split(":") if folder.startswith(("/", OPEN))]
    own = [folder for folder in folders if folder not in DEFAULT_PATH and OPEN not in folder]
    script = SCRIPTS[found.backend]
    if not fields and command.venv:
        fields = {"venv_path": command.venv}
    elif not fields and (there := next((folder for folder in own if Path(folder, script).exists()), None)):
        own.remove(there)
        llama = found.backend == "llamacpp"
        fields = {"binary": f"{there}/{script}"} if llama else {"python_path": f"{there}/python"}
    for key, value in fields.items():
        # A unit has no folder to start from: what is relative is told by the host.
        base = command.folder or marked("FOLDER")
        whole = value if value.startswith(("/", OPEN)) else f"{base.rstrip('/')}/{value.removeprefix('./')}"
        draft.set(key, whole)
    # The folder of the runtime comes first in the unit's PATH= anyway.
    runs = {value.rpartition("/")[0] for value in fields.values()} | {f"{fields.get('venv_path')}/bin"}
    if own := [folder for folder in own if folder not in runs]:
        draft.lost.append(f"`PATH` with {':'.join(own)}; see `path:` of the host file")
    if not fields:
        key = "binary" if found.backend == "llamacpp" else "python_path"
        draft.why["backend"] = f"The command names no venv: set `{key}:`, else the host's path decides."


def _model(draft: Draft, found: Program, options: list[Given], stray: list[str]) -> None:
    flag = engines.model_flag(found.backend)
    known = engines.options(found.backend).by_flag
    aliases = {flag, "--model", *(known[flag].aliases if flag in known else ())}
    if stray and (found.serves or found.words[:1] == stray[:1]):
        draft.set("model_path", stray.pop(0))
        return
    given = next((option for option in options if option.name in aliases and option.values), None)
    if given is None:
        short = {"-hf", "--hf-repo", "-hfr", "-mu", "--model-url"}
        if hub := next((option for option in options if option.name in short), None):
            raise UsageError(f"`{hub.name}` downloads a model; fetch it, and name the file with --model")
        raise UsageError(f"the command names no model; add it (`{flag} PATH`)")
    options.remove(given)
    draft.set("model_path", given.values[0])


def _arguments(draft: Draft, backend: str, options: list[Given], stray: list[str]) -> None:
    """Each option to its field, to `extra_args`, or as it is to `args`."""
    known = engines.options(backend)
    fields: dict[str, Any] = {}
    extra: dict[str, Any] = {}
    rest: list[str] = []
    nodes, taken = _nodes(backend, options)
    for option in options:
        if option in taken:
            continue
        flag = option.flag
        if secret := _KEYS.get((backend, flag)):
            if option.values:
                _secret(draft, secret, ",".join(option.values))
            continue
        if _is_secret(option):
            where = f"{backend} takes it on its command line, which anyone may read"
            draft.lost.append(f"the secret of `{option.name}`: {where}")
            continue
        field, own = next(
            ((f, o) for f, o in engines.fields(backend) if o and known.aliases.get(o, o) == flag),
            (None, flag),
        )
        spelled = (
            option.name == flag
            or known.aliases.get(option.name, "").startswith("-")
            or "_" not in option.name
        )
        if field and spelled and field not in fields:
            value = _as_field(backend, field, own, option)
            if value is not None:
                fields[field] = value
                continue
        pair = None if "=" in option.raw[0] else _as_extra(backend, option)
        if pair and pair[0] not in extra and not (field in fields and spelled):
            extra[pair[0]] = pair[1]
        elif pair and known.kind(flag) == "repeated" and isinstance(extra.get(pair[0]), list):
            extra[pair[0]] += pair[1]
        else:
            rest += option.raw
    for field, _ in engines.fields(backend):
        if field in fields:
            draft.set(field, fields[field])
    if nodes:
        draft.set("nodes", nodes)
    if extra:
        draft.set("extra_args", extra)
    if rest or stray:
        draft.set("args", [*stray, *rest], "as written, for no key gives just these words")


def _secret(draft: Draft, name: str, value: str) -> None:
    draft.secrets[name] = hashlib.sha256(value.encode()).hexdigest()
    secrets = draft.fields.setdefault("secrets", {})
    secrets[name] = f"{SECRETS}/{name}"
    form = "the value alone" if name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN") else f"a line {name}=…"
    draft.why[f"secrets.{name}"] = f"put {form} there, mode 0600; it is not repeated here"


_SECRET_FLAG = re.compile(r"(^|-)(api-keys?|token|password|passwd|secret)$")


def _is_secret(option: Given) -> bool:
    """Whether an option's value must not be repeated: by the flag's name, or by the value's look."""
    values = option.values or (option.raw[0].partition("=")[2],)
    return bool(any(values)) and (
        _SECRET_FLAG.search(option.flag) is not None or any(TOKEN.search(value) for value in values)
    )


def _environment(draft: Draft, variables: dict[str, str]) -> None:
    left = dict(variables)
    rocm = "HIP_VISIBLE_DEVICES" if "HIP_VISIBLE_DEVICES" in left else "ROCR_VISIBLE_DEVICES"
    shown = left.get("CUDA_VISIBLE_DEVICES", left.get(rocm))
    both = "CUDA_VISIBLE_DEVICES" in left and rocm in left
    if shown is not None and not both and "gpus" not in draft.fields:
        gpus = [word.strip() for word in shown.split(",") if word.strip()]
        if all(GPU.fullmatch(gpu) for gpu in gpus) and len({*gpus}) == len(gpus):
            cuda = "CUDA_VISIBLE_DEVICES" in left
            if not cuda:
                draft.set("accelerator", "rocm")
            value: list[Any] = [int(gpu) if str(typed(gpu)) == gpu and gpu.isdigit() else gpu for gpu in gpus]
            draft.set("gpus", value or "none")
            if cuda and left.get("CUDA_DEVICE_ORDER", "PCI_BUS_ID") != "PCI_BUS_ID":
                draft.why["gpus"] = "counted as nvidia-smi does; the command had another CUDA_DEVICE_ORDER"
            for name in ("CUDA_VISIBLE_DEVICES", "CUDA_DEVICE_ORDER") if cuda else (rocm,):
                left.pop(name, None)
    # The compiler sets it again by the venv that the recipe names.
    named = [str(draft.fields[key]) for key in ("python_path", "binary") if key in draft.fields]
    if left.get("VIRTUAL_ENV") in (
        draft.fields.get("venv_path"),
        *(name.rpartition("/bin/")[0] for name in named),
    ):
        left.pop("VIRTUAL_ENV", None)
    if left:
        draft.set("env_vars", left)
        move_secrets(draft)


def move_secrets(draft: Draft) -> None:
    """Out of `env_vars:` with what looks like a secret: its value must not be in a recipe."""
    variables: dict[str, str] = draft.fields["env_vars"]
    for name in list(variables):
        if environment.looks_secret(name, variables[name]):
            _secret(draft, name, variables.pop(name))
        elif not VARIABLE.fullmatch(name):
            draft.lost.append(f"the variable `{name}`, which systemd cannot carry")
            variables.pop(name)
    if not variables:
        draft.fields.pop("env_vars")
