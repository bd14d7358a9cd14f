"""Which interpreter and entry point serve a recipe. Looks at the disk, never runs a program."""

from dataclasses import asdict, dataclass, replace
from pathlib import Path

from recipectl.errors import RuntimeNotFoundError
from recipectl.machine.disk import Disk, interpreter_of
from recipectl.machine.distributions import ENGINE_SCRIPTS, UNFINISHED
from recipectl.recipe.hostfile import HostSettings
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
    base: str | None = None  # the file behind every link: only to compare, never to run
    link_targets: tuple[
        str, ...
    ] = ()  # the files behind the links to programs and model; the sandbox must show them
    key: tuple[str, ...] = ()  # of the recipe, which chose it; none for the host's path

    @property
    def recorded(self) -> str:
        """What a lock records: the interpreter of an engine that is installed beside it, else the program."""
        return (self.interpreter if self.installed_in else None) or self.command[0]

    def as_json(self) -> dict[str, object]:
        """The fields by the names that --json has had from the start."""
        fields = asdict(self)
        fields["behind"] = fields.pop("link_targets")
        return fields


@dataclass(frozen=True)
class _Pin:
    """An interpreter or executable that a recipe names, or (without `key`) the host file."""

    name: str
    program: Path
    key: tuple[str, ...]


@dataclass(frozen=True)
class _Search:
    """One search for a runtime: where it looks, and which candidates it passes over."""

    recipe: Recipe
    settings: HostSettings
    disk: Disk
    passed_over: list[str]

    @property
    def engine(self) -> str:
        return self.recipe.backend


def venv_path(recipe: Recipe) -> tuple[tuple[str, ...], str] | None:
    """(key, path) of the venv that a recipe names: the top-level key before that of extra_args."""
    if recipe.venv_path is not None:
        return ("venv_path",), recipe.venv_path
    path = recipe.extra_args.get("venv_path")
    if path is not None and not isinstance(path, str):
        key = ("extra_args", "venv_path")
        raise RuntimeNotFoundError("`extra_args.venv_path` is not a path; give an absolute path", *key)
    return None if path is None else (("extra_args", "venv_path"), path)


def resolve(recipe: Recipe, settings: HostSettings, disk: Disk) -> Runtime:
    """The runtime by the rules of each engine, in their order; RuntimeNotFoundError when none fits."""
    key = (recipe.backend, recipe.python_path, venv_path(recipe), recipe.binary)
    if key not in disk.runtimes:  # a thousand recipes share a few runtimes
        search = _Search(recipe, settings, disk, [])
        rules = {"vllm": _resolve_vllm, "sglang": _resolve_sglang, "llamacpp": _resolve_llamacpp}
        disk.runtimes[key] = rules[recipe.backend](search)
    runtime: Runtime = disk.runtimes[key]
    if settings.require_pinned_runtime and not runtime.key:
        raise RuntimeNotFoundError("the host file says `require_pinned_runtime: true`; set `python_path:`")
    return runtime


def _pinned(search: _Search) -> _Pin | None:
    """The interpreter of python_path or a venv; a missing one is refused, unless the host file allows it."""
    candidates: list[tuple[tuple[str, ...], str, str]] = []
    if search.recipe.python_path is not None:
        candidates.append((("python_path",), search.recipe.python_path, ""))
    if venv := venv_path(search.recipe):
        candidates.append((*venv, "bin/python"))
    pin: _Pin | None = None
    for key, text, below in candidates:
        name = ".".join(key)
        if not text.startswith("/"):
            raise RuntimeNotFoundError(f"`{name}` is `{text}`; give an absolute path", *key)
        python = Path(text, below)
        if pin:
            search.passed_over.append(f"{name}: {python} (python_path comes first)")
        elif search.disk.is_executable(python):
            pin = _Pin(name, python, key)
        elif search.settings.missing_runtime == "fall-through":
            search.passed_over.append(f"{name}: {python} (not an executable file)")
        else:
            fault = f"{python} is not an executable file on this host"
            raise RuntimeNotFoundError(f"{fault}; create it or correct `{name}:`", *key)
    return pin


def _require_engine(search: _Search, pin: _Pin) -> None:
    """RuntimeNotFoundError for a venv in which the engine is not installed."""
    venv = search.disk.venv(pin.program)
    if venv and search.disk.engine_version(pin.program, search.engine) is None:
        fault = f"{venv} has no {search.engine}"
        raise RuntimeNotFoundError(f"{fault}; install it there or correct `{pin.name}:`", *pin.key)


def _resolve_vllm(search: _Search) -> Runtime:
    if pin := _pinned(search):
        script = pin.program.parent / "vllm"
        if search.disk.is_executable(script):
            choice = Runtime(f"{pin.name}: its `vllm` sibling", (str(script), "serve"), positional_model=True)
            return _completed(search, choice, pin.program, pin.key)
        search.passed_over.append(f"{script} (not an executable file)")
        _require_engine(search, pin)
        command = (str(pin.program), "-m", "vllm.entrypoints.openai.api_server")
        return _completed(search, Runtime(f"{pin.name}: as a module", command), pin.program, pin.key)
    scripts = search.disk.which("vllm", search.settings.path)
    if not scripts:
        folders = ":".join(search.settings.path)
        remedy = "set `python_path:` to a venv's bin/python"
        raise RuntimeNotFoundError(f"there is no `vllm` in the host file's path ({folders}); {remedy}")
    choice = Runtime("`vllm` on the host's path", (str(scripts[0]), "serve"), positional_model=True)
    return _completed(search, choice, interpreter_of(scripts[0]), ())


def _resolve_sglang(search: _Search) -> Runtime:
    legacy = search.settings.environment.get("VLLM_STUDIO_SGLANG_PYTHON")
    name = "environment.VLLM_STUDIO_SGLANG_PYTHON" if legacy else "sglang_python"
    path = search.settings.path
    if pin := _pinned(search):
        rule = pin.name
    elif python := legacy or search.settings.sglang_python:
        rule = f"{name} of the host file"
        if not python.startswith("/") or not search.disk.is_executable(Path(python)):
            fault = f"{python} is not the absolute path of an executable file"
            raise RuntimeNotFoundError(f"{fault}; correct `{name}:` of the host file")
        pin = _Pin(name, Path(python), (name,))
    elif pythons := search.disk.which("python", path) or search.disk.which("python3", path):
        rule = "`python` on the host's path"
        pin = _Pin("path", pythons[0], ())
    else:
        remedy = "set `python_path:` to a venv's bin/python"
        raise RuntimeNotFoundError(f"there is no `python` in the host file's path; {remedy}")
    _require_engine(search, pin)
    command = (str(pin.program), "-m", "sglang.launch_server")
    return _completed(search, Runtime(rule, command), pin.program, pin.key)


def _resolve_llamacpp(search: _Search) -> Runtime:
    recipe = search.recipe
    if recipe.binary is not None:
        binary = Path(recipe.binary)
        if not binary.is_absolute() or not search.disk.is_executable(binary):
            fault = f"{binary} is not an executable file on this host"
            raise RuntimeNotFoundError(f"{fault}; create it or correct `binary:`", "binary")
        others = (recipe.python_path, venv[1] if (venv := venv_path(recipe)) else None)
        search.passed_over.extend(f"{other} (binary comes first)" for other in others if other)
        return _completed(search, Runtime("binary", (str(binary),)), interpreter_of(binary), ("binary",))
    if pin := _pinned(search):
        binary = pin.program.parent / "llama-server"
        if not search.disk.is_executable(binary):
            fault = f"{binary} is not an executable file"
            raise RuntimeNotFoundError(f"{fault}; install it there or set `binary:`", *pin.key)
        choice = Runtime(f"{pin.name}: its `llama-server` sibling", (str(binary),))
        return _completed(search, choice, pin.program, pin.key)
    binaries = search.disk.which("llama-server", search.settings.path)
    if not binaries:
        raise RuntimeNotFoundError("there is no `llama-server` in the host file's path; set `binary:` to it")
    choice = Runtime("`llama-server` on the host's path", (str(binaries[0]),))
    return _completed(search, choice, interpreter_of(binaries[0]), ())


def _completed(search: _Search, choice: Runtime, python: Path | None, key: tuple[str, ...]) -> Runtime:
    """The runtime with its versions and warnings; without `key` it is not pinned."""
    disk = search.disk
    program = Path(choice.command[0])
    version, folder = disk.engine_distribution(program, search.engine)
    venv = disk.venv(python)
    places = (program.parent.parent, *((venv,) if venv else ()))
    if unfinished := next((place for place in places if disk.fingerprint(place / UNFINISHED)), None):
        fault = f"{unfinished} is not finished: a `recipectl venv create` runs, or was interrupted"
        raise RuntimeNotFoundError(f"{fault}; wait for it, or run it again", *key)
    warnings = [] if key else [_not_pinned(search, program)]
    warnings += _copied_venv(search, program, python, version, key)
    warnings += _other_engines(search, program, version)
    # Its own folder comes first, for ninja and other tools of JIT compilers (conda has no pyvenv.cfg).
    own_folder = (str(python.parent),) if python and (key or venv) else ()
    base = disk.real(python or program)
    return replace(
        choice,
        interpreter=str(python) if python else None,
        venv=str(venv) if venv else None,
        engine_version=version,
        python_version=disk.python_version(python) if python else None,
        passed_over=tuple(search.passed_over),
        warnings=tuple(warnings),
        path=tuple(dict.fromkeys((*own_folder, *search.settings.path))),
        installed_in=str(folder) if folder else None,
        base=base,
        link_targets=(disk.real(program), base),
        key=key,
    )


def _not_pinned(search: _Search, program: Path) -> str:
    remedy = "`binary:`" if search.engine == "llamacpp" else "`python_path:`"
    return f"the runtime is not pinned: an upgrade may change {program}; set {remedy}"


def _copied_venv(
    search: _Search, program: Path, python: Path | None, version: str | None, key: tuple[str, ...]
) -> list[str]:
    """A warning when a script starts another venv's interpreter; an error when that is missing."""
    started = interpreter_of(program) if python else None
    if not python or not started or search.disk.same_folder(started.parent, python.parent):
        return []
    if not search.disk.is_executable(started):
        fault = f"{program} starts {started}, which does not exist: the venv was moved"
        raise RuntimeNotFoundError(f"{fault}; create the venv again", *key)
    engine = f"{search.engine} {version or 'of unknown version'}"
    fault = f"{program} starts {started} ({engine}), not {python}: the venv was copied"
    return [f"{fault}; create the venv again"]


def _other_engines(search: _Search, program: Path, version: str | None) -> list[str]:
    """Note the other scripts of the engine on the host's path; a warning for each of another version."""
    warnings = []
    for other in search.disk.which(ENGINE_SCRIPTS[search.engine], search.settings.path):
        if other == program:
            continue
        other_version = search.disk.engine_version(other, search.engine)
        search.passed_over.append(f"{other} on the host's path, version {other_version or 'unknown'}")
        if other_version != version:
            fault = f"{other} is another {search.engine} ({other_version or 'unknown version'})"
            warnings.append(f"{fault}; this recipe runs {program}")
    return warnings
