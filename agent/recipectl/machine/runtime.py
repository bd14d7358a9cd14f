"""Which interpreter and entry point serve a recipe. Looks at the disk, never runs a program."""

from dataclasses import dataclass
from pathlib import Path

from recipectl.errors import RuntimeNotFoundError
from recipectl.machine.disk import SCRIPTS, Disk, interpreter_of
from recipectl.recipe.hostfile import Host
from recipectl.recipe.schema import Recipe


@dataclass(frozen=True)
class Runtime:
    """What will run a recipe, and the rule that chose it; `command` is absolute, before all arguments."""

    rule: str
    command: tuple[str, ...]
    positional_model: bool = False
    interpreter: str | None = None
    venv: str | None = None
    engine_version: str | None = None
    python_version: str | None = None
    passed_over: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    path: tuple[str, ...] = ()
    installed_in: str | None = None  # the folder that the engine's version was read from
    base: str | None = None  # the file behind every link: only for what must be reachable, never to run
    behind: tuple[str, ...] = ()  # the files behind the links to programs and model, to be left in sight
    key: tuple[str, ...] = ()  # of the recipe, which chose it; none for the host's path


@dataclass(frozen=True)
class _Pin:
    """An interpreter or executable that a recipe (or, without `key`, the host file) names."""

    name: str
    program: Path
    key: tuple[str, ...]


def venv_path(recipe: Recipe) -> tuple[tuple[str, ...], str] | None:
    """(key, path) of the venv that a recipe names: the top-level key before that of extra_args."""
    if recipe.venv_path is not None:
        return ("venv_path",), recipe.venv_path
    given = recipe.extra_args.get("venv_path")
    if given is not None and not isinstance(given, str):
        key = ("extra_args", "venv_path")
        raise RuntimeNotFoundError("`extra_args.venv_path` is no path; give an absolute path", *key)
    return None if given is None else (("extra_args", "venv_path"), given)


def _pinned(recipe: Recipe, host: Host, disk: Disk, passed: list[str]) -> _Pin | None:
    """The interpreter of python_path or of a venv; a missing one is refused, unless the host file says."""
    candidates: list[tuple[tuple[str, ...], str, str]] = []
    if recipe.python_path is not None:
        candidates.append((("python_path",), recipe.python_path, ""))
    if venv := venv_path(recipe):
        candidates.append((*venv, "bin/python"))
    chosen: _Pin | None = None
    for key, text, inside in candidates:
        name = ".".join(key)
        if not text.startswith("/"):
            raise RuntimeNotFoundError(f"`{name}` is `{text}`; give an absolute path", *key)
        python = Path(text, inside)
        if chosen:
            passed.append(f"{name}: {python} (python_path comes first)")
        elif disk.executable(python):
            chosen = _Pin(name, python, key)
        elif host.missing_runtime == "fall-through":
            passed.append(f"{name}: {python} (not an executable file)")
        else:
            told = f"{python} is not an executable file on this host; create it or correct `{name}:`"
            raise RuntimeNotFoundError(told, *key)
    return chosen


def _made(
    engine: str,
    rule: str,
    command: tuple[str, ...],
    python: Path | None,
    host: Host,
    disk: Disk,
    passed: list[str],
    *,
    key: tuple[str, ...],
    positional: bool = False,
) -> Runtime:
    """The runtime with its versions, and what else of it is in sight; without `key` it is not pinned."""
    own, notes = Path(command[0]), list[str]()
    if not key:
        remedy = "`binary:`" if engine == "llamacpp" else "`python_path:`"
        notes.append(f"the runtime is not pinned: {own} is whatever is installed there; set {remedy}")
    (version, folder), venv = disk.distribution(own, engine), disk.venv(python)
    if python and (runs := interpreter_of(own)) and not disk.same_folder(runs.parent, python.parent):
        if not disk.executable(runs):
            told = f"{own} starts {runs}, which is not there: the venv was moved; make it anew"
            raise RuntimeNotFoundError(told, *key)
        what = f"{own} starts {runs} ({engine} {version or 'of unknown version'}), not {python}"
        notes.append(f"{what}: the venv was copied; make it anew")
    for other in disk.which(SCRIPTS[engine], host.path):
        if other != own:
            theirs = disk.version(other, engine)
            passed.append(f"{other} on the host's path, version {theirs or 'unknown'}")
            if theirs != version:
                is_ = f"{other} is another {engine} ({theirs or 'unknown version'})"
                notes.append(f"{is_}; this recipe runs {own}")
    return Runtime(
        rule,
        command,
        positional,
        str(python) if python else None,
        str(venv) if venv else None,
        version,
        disk.python_version(python) if python else None,
        tuple(passed),
        tuple(notes),
        # Its own folder first, for ninja and other tools that a JIT compiler runs (conda has no pyvenv.cfg).
        tuple(dict.fromkeys((*((str(python.parent),) if python and (key or venv) else ()), *host.path))),
        str(folder) if folder else None,
        disk.real(python or own),
        (disk.real(own), disk.real(python or own)),
        key,
    )


def _resolve_vllm(recipe: Recipe, host: Host, disk: Disk) -> Runtime:
    passed: list[str] = []
    command: tuple[str, ...]
    if pin := _pinned(recipe, host, disk, passed):
        script = pin.program.parent / "vllm"
        if disk.executable(script):
            rule, command = f"{pin.name}: its `vllm` sibling", (str(script), "serve")
            return _made("vllm", rule, command, pin.program, host, disk, passed, key=pin.key, positional=True)
        passed.append(f"{script} (not an executable file)")
        _has("vllm", pin, disk)
        command = (str(pin.program), "-m", "vllm.entrypoints.openai.api_server")
        return _made(
            "vllm", f"{pin.name}: as a module", command, pin.program, host, disk, passed, key=pin.key
        )
    found = disk.which("vllm", host.path)
    if not found:
        searched = ":".join(host.path)
        raise RuntimeNotFoundError(
            f"no `vllm` in the host file's path ({searched}); set `python_path:` to a venv's bin/python"
        )
    rule, command = "`vllm` on the host's path", (str(found[0]), "serve")
    return _made("vllm", rule, command, interpreter_of(found[0]), host, disk, passed, key=(), positional=True)


def _has(engine: str, pin: _Pin, disk: Disk) -> None:
    """RuntimeNotFoundError for a venv in which the engine is not installed."""
    if disk.version(pin.program, engine) is None and (venv := disk.venv(pin.program)):
        told = f"{venv} has no {engine}; install it there or correct `{pin.name}:`"
        raise RuntimeNotFoundError(told, *pin.key)


def _resolve_sglang(recipe: Recipe, host: Host, disk: Disk) -> Runtime:
    passed: list[str] = []
    legacy = host.environment.get("VLLM_STUDIO_SGLANG_PYTHON")
    name = "environment.VLLM_STUDIO_SGLANG_PYTHON" if legacy else "sglang_python"
    if pin := _pinned(recipe, host, disk, passed):
        rule = pin.name
    elif wanted := legacy or host.sglang_python:
        rule = f"{name} of the host file"
        if not wanted.startswith("/") or not disk.executable(Path(wanted)):
            raise RuntimeNotFoundError(
                f"{wanted} is not the absolute path of an executable file; correct `{name}:` of the host file"
            )
        pin = _Pin(name, Path(wanted), (name,))
    elif found := disk.which("python", host.path) or disk.which("python3", host.path):
        rule, pin = "`python` on the host's path", _Pin("path", found[0], ())
    else:
        raise RuntimeNotFoundError(
            "no `python` in the host file's path; set `python_path:` to a venv's bin/python"
        )
    _has("sglang", pin, disk)
    command = (str(pin.program), "-m", "sglang.launch_server")
    return _made("sglang", rule, command, pin.program, host, disk, passed, key=pin.key)


def _resolve_llamacpp(recipe: Recipe, host: Host, disk: Disk) -> Runtime:
    passed: list[str] = []
    if recipe.binary is not None:
        binary = Path(recipe.binary)
        if not binary.is_absolute() or not disk.executable(binary):
            told = f"{binary} is not an executable file on this host; create it or correct `binary:`"
            raise RuntimeNotFoundError(told, "binary")
        others = (recipe.python_path, venv[1] if (venv := venv_path(recipe)) else None)
        passed += [f"{other} (binary comes first)" for other in others if other]
        python = interpreter_of(binary)
        return _made("llamacpp", "binary", (str(binary),), python, host, disk, passed, key=("binary",))
    if pin := _pinned(recipe, host, disk, passed):
        binary = pin.program.parent / "llama-server"
        if not disk.executable(binary):
            told = f"{binary} is not an executable file; install it there or set `binary:`"
            raise RuntimeNotFoundError(told, *pin.key)
        rule, command = f"{pin.name}: its `llama-server` sibling", (str(binary),)
        return _made("llamacpp", rule, command, pin.program, host, disk, passed, key=pin.key)
    found = disk.which("llama-server", host.path)
    if not found:
        raise RuntimeNotFoundError("no `llama-server` in the host file's path; set `binary:` to it")
    rule, python = "`llama-server` on the host's path", interpreter_of(found[0])
    return _made("llamacpp", rule, (str(found[0]),), python, host, disk, passed, key=())


def resolve(recipe: Recipe, host: Host, disk: Disk) -> Runtime:
    """The runtime by design's rules, in their order; RuntimeNotFoundError rather than another one."""
    rules = {"vllm": _resolve_vllm, "sglang": _resolve_sglang, "llamacpp": _resolve_llamacpp}
    asked = (recipe.backend, recipe.python_path, venv_path(recipe), recipe.binary)
    if asked not in disk.runtimes:  # a thousand recipes share a few
        disk.runtimes[asked] = rules[recipe.backend](recipe, host, disk)
    runtime: Runtime = disk.runtimes[asked]
    if host.require_pinned_runtime and not runtime.key:
        raise RuntimeNotFoundError("the host file says `require_pinned_runtime: true`; set `python_path:`")
    return runtime
