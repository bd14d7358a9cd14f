"""The house: which rooms there are, who imports from whom, and who may touch what."""

import ast
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from recipectl.importers.shell_syntax import _FIELDS

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "agent/recipectl"
# The rooms and their files, the lowest first: a file imports only from files before it.
HOUSE = {
    "errors": (), "text": (), "addresses": (), "place": (), "command_line": (), "regular": (), "files": (), "bounded": (),
    "systemd": ("quoting", "directives", "unitfile", "started", "states", "store", "refusal", "dbus"),
    "recipe": ("gpu_selection", "positions", "spans", "parts", "schema", "search", "trusted", "yamlsyntax", "yamlfile", "places", "load", "hostfile"),
    "machine": ("distributions", "loads", "lockfile", "network", "disk", "access", "nvidia", "runtime", "processes", "sockets", "clients", "helperfile", "installation", "systemd_analyze"),
    "journal": (), "gateway_keys": (), "proxy": (), "request_queue": (), "rivals": (), "watch": (), "tie_state": (), "tie": (), "canary": (), "helper": (), "health": (),
    "engines": ("options", "parallel", "engine", "llamacpp", "sglang", "vllm", "registry", "endpoint", "argv", "flags", "phases",
                "overlaps", "served", "parser_probe", "ask", "compare"),
    "compiler": ("members", "model", "identity", "gpus", "secrets", "environment", "problems", "claims", "relations", "sandbox",
                 "service_settings", "helper_commands", "companions", "lint", "lifetimes", "unit_text", "units", "secret_files", "model_config", "preflight", "pipeline", "cache"),
    "converge": ("values", "differences", "copies", "situation", "plan", "records", "holds", "survey", "apply"),
    "fleet": ("inventory", "between", "check", "remote", "versions"),
    "gateway": ("routes", "configuration", "engine_keys", "host", "include", "certificate", "compile", "converge"),
    "audit": ("edits", "drift", "versions", "equipment", "subject", "unit_checks", "checks"),
    "venvs": ("request", "uv", "verify", "verified", "create", "inventory"),
    "upgrades": ("target", "edits", "steps", "questions", "progress", "prepare", "back", "run"),
    "importers": (
        "container_gpus", "container_ports", "go_yaml", "host_units", "lines", "draft", "command",
        "compiling", "mounts", "option_sources", "process_limits", "programs", "named_model",
        "recipe_keys", "relative_paths", "secret_names", "compose_variables", "sessions", "shapes",
        "compose_mounts", "compose_words", "llama_swap_groups", "llama_swap_macros",
        "shell_quotes", "shell_syntax", "shell_arithmetic", "shell_scope", "shell_branches",
        "shell_expansions", "shell_parameters", "shell_substitutions", "shell_words",
        "shell_conditions", "unit_text", "variables", "arguments", "container_options",
        "compose_deploy", "compose_forms", "container_model", "container_network",
        "container_words", "vllm_recipe_notes", "vllm_studio_arguments", "vllm_studio_environment",
        "vllm_studio_present", "wrappers", "unit_keys", "unwrapping", "shell_programs",
        "shell_assignments", "shell_builtins", "shell_commands", "shell_control",
        "shell_functions", "shell_redirections", "shell", "shell_inline", "containers",
        "from_command", "compose", "llama_swap", "running", "scripts", "unit_command", "systemd_unit", "quadlet",
        "vllm_recipes", "vllm_studio",
    ),
    "cli": ("terminal", "names", "options", "explanation", "beside", "log", "failures", "sockets", "jobs", "boot", "listing", "query", "gateway", "show", "decision", "converge", "removal", "fidelity", "doctor", "import_output", "import_sources", "imports", "edit", "venv", "upgrade_unit", "preview", "upgrade", "setup", "fleet", "version"),
}  # fmt: skip
ORDER = [name for room, files in HOUSE.items() for name in (room, *(f"{room}.{file}" for file in files))]
# Programs of their own: they print, and exit.
PROGRAMS = {
    "__main__",
    "helper",
    "journal",
    "health",
    "engines.parser_probe",
    "engines.compare",
}
# The steps between reading and writing: the same input gives the same units.
PURE = [
    f"compiler.{file}"
    for file in HOUSE["compiler"]
    if file not in ("pipeline", "secret_files", "model_config", "preflight", "cache")
]
IMPURE_MODULES = {
    "os",
    "subprocess",
    "pwd",
    "grp",
    "socket",
    "time",
    "pathlib",
    "shutil",
    "tempfile",
    "random",
}


def name_of(path: Path) -> str:
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(parts).removesuffix(".__init__")


FILES = {name_of(path): path for path in sorted(PACKAGE.rglob("*.py")) if path != PACKAGE / "__init__.py"}


def imports(path: Path) -> Iterator[str]:
    """The dotted names that a file imports, wherever in the file."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def own_imports(path: Path) -> set[str]:
    """The files of the package that a file imports."""
    names = {name.removeprefix("recipectl.") for name in imports(path) if name.startswith("recipectl.")}
    longest = ((name, name.rpartition(".")[0]) for name in names)
    return {next((part for part in pair if part in FILES), "") for pair in longest} - {""}


def test_the_house_has_just_these_rooms_and_files() -> None:
    listed = {*ORDER, "__main__", "cli"}
    assert {*FILES} == listed


@pytest.mark.parametrize("name", [name for name in FILES if name != "__main__"])
def test_a_file_imports_only_from_files_below_it(name: str) -> None:
    room = name.partition(".")[0]
    below = {*ORDER[: ORDER.index(name if name in ORDER else room)]} | {room}
    assert own_imports(FILES[name]) - {name} <= below


def test_the_design_has_a_sentence_for_each_room() -> None:
    design = (ROOT / "docs/design.md").read_text()
    table = dict(re.findall(r"^\| `([a-z_]+)(?:/|\.py)` \| (.+?) \|$", design, re.M))
    assert [*table] == [*reversed(HOUSE)]
    assert [room for room, sentence in table.items() if not sentence.endswith(".")] == []


def test_only_dbus_imports_pystemd() -> None:
    assert [name for name, path in FILES.items() if "pystemd" in " ".join(imports(path))] == ["systemd.dbus"]


def test_no_private_module_of_a_library_is_imported_or_replaced() -> None:
    texts = {name: path.read_text() for name, path in FILES.items()}
    assert [name for name, text in texts.items() if "sys.modules[" in text] == []
    private = re.compile(r"(pydantic|pystemd|click|jinja2|yaml)\.(\w+\.)*_")
    assert [name for name, path in FILES.items() for module in imports(path) if private.match(module)] == []


def speaks(path: Path) -> bool:
    """True if a file prints or ends the process."""
    calls = {
        ast.unparse(node.func) for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)
    }
    return bool(
        calls & {"print", "click.echo", "sys.exit", "os._exit", "sys.stdout.write", "sys.stderr.write"}
    )


def test_only_the_verbs_print_or_exit() -> None:
    speakers = {name for name, path in FILES.items() if speaks(path)}
    assert {name for name in speakers if not name.startswith("cli")} == PROGRAMS


@pytest.mark.parametrize("name", PURE)
def test_a_pure_step_imports_nothing_that_looks_at_the_host(name: str) -> None:
    assert {module.partition(".")[0] for module in imports(FILES[name])} & IMPURE_MODULES == set()


def test_a_pure_step_touches_nothing_when_it_runs() -> None:
    """Under an audit hook: no file, process, socket or name service, from the recipe to the units."""
    code = f"import sys; sys.path[:0] = {sys.path!r}\nimport pure_run\npure_run.main()"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert int(done.stdout) > 20  # units


@pytest.mark.parametrize("name", FILES)
def test_a_constructor_with_more_than_four_values_takes_them_by_name(name: str) -> None:
    calls = (node for node in ast.walk(ast.parse(FILES[name].read_text())) if isinstance(node, ast.Call))
    long_calls = {ast.unparse(call.func) for call in calls if len(call.args) > 4}
    constructors = {call for call in long_calls if call.rpartition(".")[2].strip("_")[:1].isupper()}
    assert constructors - {"Property"} == set()  # a row of the table of properties


# What only the system's manager has, and text that is no remedy.
OF_THE_SYSTEM = re.compile(r"one line for|on its host|gateway|nginx|haproxy|\*\*|`recipectl upgrade`")
COMMAND = re.compile(
    r"recipectl (apply|start|stop|restart|switch|status|wait|logs|check|edit|lock|upgrade|remove|versions|list|diff|doctor)\b"
    r"|`(systemctl|journalctl) "
)


@pytest.mark.parametrize("name", sorted({*FILES} - {name for name in FILES if "gateway" in name}))
def test_a_remedy_is_for_the_manager_that_it_is_about(name: str) -> None:
    """`recipectl apply` without --user does nothing for a user's models: Place.verb() writes it."""
    tree = ast.parse(FILES[name].read_text())
    documented = (
        node for node in ast.walk(tree) if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef)
    )
    docstrings = {ast.get_docstring(node, clean=False) for node in documented}
    constants = (node.value for node in ast.walk(tree) if isinstance(node, ast.Constant))
    texts = {value for value in constants if isinstance(value, str)} - docstrings
    assert [text for text in texts if COMMAND.search(text) and not OF_THE_SYSTEM.search(text)] == []


@pytest.mark.parametrize("name", FILES)
def test_no_file_has_more_than_300_lines(name: str) -> None:
    assert len(FILES[name].read_text().splitlines()) <= 300


@pytest.mark.parametrize(
    ("words", "unloaded"),
    [
        (("--help",), r"pydantic|jinja2|yaml|pystemd|recipectl\.systemd\.dbus"),
        (("status",), "pydantic|jinja2|yaml"),
        (("compile", "RECIPE"), r"pystemd|multiprocessing|recipectl\.systemd\.dbus"),
        (("list",), "pydantic|jinja2|yaml|difflib"),
        (("apply",), "pydantic|jinja2|yaml|difflib"),
    ],
)
def test_a_verb_imports_nothing_heavy_that_it_does_not_need(
    words: tuple[str, ...], unloaded: str, tmp_path: Path
) -> None:
    recipe = tmp_path / "a.json"
    recipe.write_text('{"backend": "llamacpp", "binary": "/bin/true", "model_path": "m", "user": "root"}')
    arguments = [str(recipe) if word == "RECIPE" else word for word in words]
    command = (sys.executable, "-X", "importtime", "-m", "recipectl", "--user", *arguments)
    environment = os.environ | {"HOME": str(tmp_path), "XDG_CONFIG_HOME": str(tmp_path)}
    warm = (sys.executable, "-m", "recipectl", "--user", "list")  # the cache of this host
    subprocess.run(warm, capture_output=True, check=False, env=environment)
    output = subprocess.run(command, capture_output=True, text=True, check=False, env=environment).stderr
    imported = {line.rpartition("|")[2].strip() for line in output.splitlines() if "import time:" in line}
    assert "recipectl.cli" in imported
    assert {name for name in imported if re.fullmatch(rf"({unloaded})(\..*)?", name)} == set()


def test_a_node_of_a_script_has_every_field_that_is_read() -> None:
    read = {
        node.attr
        for name, path in FILES.items()
        if name.startswith("importers.shell")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Attribute) and ast.unparse(node.value) not in ("re", "self", "subprocess")
    }
    assert {name for name in read if name[0].isupper()} == {*_FIELDS}
