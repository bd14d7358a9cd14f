"""Bad input: each mistake is told at its place with its remedy, and stops nobody else."""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from click.testing import CliRunner
from conftest import make_venv

from recipectl.cli import recipectl
from recipectl.errors import RecipectlError, RecipeError
from recipectl.recipe import search
from recipectl.recipe.load import load
from recipectl.recipe.schema import OWN_USERS

ROOT = Path(__file__).parents[1]
# Another user must be able to run this checkout.
IS_OPEN = all(path.stat().st_mode & 0o001 for path in (ROOT, *ROOT.parents))

GOOD = "model_path: org/m\nuser: root\n"


def compiled(folder: Path, *files: Path) -> tuple[str, int]:
    """What `compile` says on standard error, without the folder, and its status."""
    words = ("compile", *map(str, files))
    try:
        done = CliRunner().invoke(recipectl, words, standalone_mode=False, catch_exceptions=False)
    except RecipectlError as error:
        return str(error).replace(f"{folder}/", ""), error.status
    return done.stderr.replace(f"{folder}/", ""), int(done.return_value or 0)


@pytest.fixture
def venv(tmp_path: Path) -> Path:
    return make_venv(tmp_path / "v", "vllm")


# What is wrong -> (the recipe, what is said of it).
MISTAKES = {
    "a name of a secret that would be a directive": (
        'secrets: {"X=1\\nExecStartPre=+/bin/true\\nY_FILE": cred}', "a.yaml:4:10: `secrets` has `'X=1\\nExecStartPre=+/bin/true\\nY_FILE'`; a variable has"),
    "a secret that is the token itself": ("secrets: {HF_TOKEN: hf_abcdefghijklmnop0123456789}", "a.yaml:4:10: `secrets` gives `HF_TOKEN` what looks like the secret itself"),
    "a question that is no JSON": ("watch: {path: /x, body: '{\"a\": '}", "a.yaml:4:8: `watch` has a `body` that is not JSON; correct it"),
    "a tag of a text": ("served_model_name: !foo \"bar\"", "a.yaml:4:20: the tag `!foo` means nothing; remove it"),
    "a tag of bytes": ("description: !!binary aGVsbG8=", "a.yaml:4:14: the tag `!!binary` means nothing; remove it"),
    "a list as a variable": ("extra_args: {env_vars: {A: [1]}}", "a.yaml:4:28: `extra_args.env_vars.A` is a list; give one value"),
    "a variable's name": ("env_vars: {A-B: 1}", "a.yaml:4:11: `env_vars` has `'A-B'`; a variable has letters"),
    "itself": ("extra_args: &a {x: *a}", "`extra_args` is nested too deeply; write less"),
    "ten of ten of ten": ("extra_args: {a: &a [1,1,1,1,1,1,1,1,1,1], b: &b [*a,*a,*a,*a,*a,*a,*a,*a,*a,*a], c: &c [*b,*b,*b,*b,*b,*b,*b,*b,*b,*b], d: &d [*c,*c,*c,*c,*c,*c,*c,*c,*c,*c], e: [*d,*d,*d,*d,*d,*d,*d,*d,*d,*d]}", "`extra_args` is too large; write less"),
    "an unreadable tag": ("extra_args: {x: !!bool maybe}", "a.yaml:4:17: `maybe` cannot be read; put it in quotes"),
    "octal": ("extra_args: {api_key: 0012345}", "a.yaml:4:23: YAML reads `0012345` as 5349; write that, or put it in quotes"),
    "base 60": ("port: 1:30", "a.yaml:4:7: YAML reads `1:30` as 90"),
    "no finite number": ("extra_args: {x: .inf}", "a.yaml:4:17: an engine cannot take `.inf` as a number"),
    "a control character": ('description: "a\x01b"', "a.yaml:4:16: a recipe cannot contain U+0001 itself"),
    "a word that YAML takes for true": ("backend: llamacpp\nextra_args: {flash-attn: on}", "`extra_args.flash_attn` must be one of on, off, auto; YAML reads `on` as a boolean; put it in quotes"),
    "two spellings of a flag": ("tensor_parallel_size: 2\nextra_args: {-tp: 4}", "a.yaml:5:19: `tensor_parallel_size` and `extra_args.-tp` disagree on --tensor-parallel-size"),
    "the model twice": ("extra_args: {model: other}", "a.yaml:4:21: `model_path` and `extra_args.model` disagree on --model"),
    "a key under another": ("on_demand: {idel: 5}", "a.yaml:4:13: `on_demand.idel` is not a key of `on_demand`; did you mean `idle`?"),
    "a setting that would break readiness": ("service: {Delegate: yes}", "a.yaml:4:21: `service.Delegate` cannot be set: readiness depends"),
    "a setting that would hide an end": ("service: {RemainAfterExit: yes}", "`service.RemainAfterExit` cannot be set: an engine that has ended must be started again"),
    "a value of two lines": ('service: {MemoryMax: "1G\\nUser=root"}', "a.yaml:4:22: `service.MemoryMax`: '1G\\nUser=root' cannot be a setting's value"),
    "an address in brackets": ("host: '[::1]'", "a.yaml:4:7: `host` is `[::1]`, and no engine takes brackets; write `::1`"),
    "two in front": ("on_demand: {}\nqueue: true", "a.yaml:5:8: `queue` stands beside `on_demand`"),
    "a name for HAProxy to listen at": ("host: foo.example\nqueue: true", "a.yaml:4:7: "),
    "a name for systemd to listen at": ("host: foo.example\non_demand: {}", "a.yaml:4:7: `host` is foo.example, and systemd listens on addresses only"),
    "a watch of nobody": ("nodes: {count: 2, rank: 1, address: a}\nwatch: {}", "a.yaml:5:8: `watch` needs an HTTP endpoint, and this node (rank 1) has none; remove `watch:`"),
    "a field of another engine": ("binary: /bin/true", "a.yaml:4:9: `binary` means nothing to vllm"),
    "a user that is not there": ("user: vlmm", "a.yaml:3:7: `user` is vlmm, and there is no such user"),
    "a rank that is none": ("nodes: {count: 2, rank: 2, address: a}", "a.yaml:4:8: `nodes` has rank 2 of 2; ranks count from 0"),
    "true for a share": ("gpu_memory_utilization: true", "a.yaml:4:25: `gpu_memory_utilization` is `true`; give a number"),
    "a model that is a flag": ("extra_args: {uds: /run/x}", "a.yaml:4:19: recipectl needs plain HTTP over TCP, which `--uds` turns off"),
    "requests to nobody": ("nodes: {count: 2, rank: 1, address: a}\non_demand: {}", "a.yaml:5:12: `on_demand` needs an HTTP endpoint, and this node (rank 1) has none"),
    "a folder as a secret": ("secrets: {VLLM_API_KEY: /etc}", "a.yaml:4:25: `secrets.VLLM_API_KEY`: /etc is not a file"),
    "a load of a century": ("ready: {timeout_sec: 99999999999}", "a.yaml:4:22: `ready.timeout_sec` is `99999999999`; give at most"),
}  # fmt: skip


@pytest.mark.parametrize(("text", "sentence"), MISTAKES.values(), ids=MISTAKES.keys())
def test_a_mistake_is_told_at_its_place(tmp_path: Path, venv: Path, text: str, sentence: str) -> None:
    good, bad = tmp_path / "good.yaml", tmp_path / "a.yaml"
    keys = f"python_path: {venv}/bin/python\n"
    good.write_text(f"{GOOD}{keys}port: 8001\n")
    text = f"model_path: org/m\nuser: root\n{keys if 'backend' not in text else 'binary: /bin/true' + chr(10)}{text}\n"
    if text.count("user: ") > 1:
        text = text.replace("user: root\n", "", 1)
    bad.write_text(text)
    report, status = compiled(tmp_path, bad, good)
    assert (status, "Traceback" in report) == (2, False), report
    assert sentence in report


def test_everything_that_is_wrong_is_told_at_once(tmp_path: Path) -> None:
    file = tmp_path / "a.yaml"
    file.write_text(
        "model_path: org/m\npython_path: /nope/python\nport: 1\nextra_args: {model: x, port: 2, env_vars: {a-b: 1}}\n"
        "service: {Foo: 1, Type: x}\nsecrets: {A_KEY: b}\nuser: root\n"
    )
    report, _ = compiled(tmp_path, file)
    places = [line.split(": ")[0] for line in report.splitlines()]
    assert places == [
        "a.yaml:2:14",
        "a.yaml:4:21",
        "a.yaml:4:30",
        "a.yaml:4:49",
        "a.yaml:5:16",
        "a.yaml:5:25",
        "a.yaml:6:18",
    ]


def test_two_files_of_one_name_are_told(tmp_path: Path, venv: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "recipectl/recipes"
    folder.mkdir(parents=True)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    text = json.dumps({"model_path": "org/m", "python_path": f"{venv}/bin/python"})
    for name in ("a.json", "a.yaml"):
        (folder / name).write_text(text)
    done = CliRunner().invoke(recipectl, ("--user", "compile"), standalone_mode=False, catch_exceptions=False)
    assert f"{folder}/a.json:1:1: `a` is also a.yaml in this folder; remove one of them" in done.stderr


WARNED = {
    "an inner variable": ("env_vars: {VLLM_PORT: 1}", "a.yaml:4:23: `VLLM_PORT` does not set where the engine listens"),
    "two spellings of the GPUs": ("gpus: 1\nextra_args: {cuda_visible_devices: 0}", "`gpus` and `extra_args.cuda_visible_devices` disagree"),
    "a variable twice": ("env_vars: {A: 1}\nextra_args: {envVars: {A: 2}}", "a.yaml:4:15: `extra_args.env_vars` and `env_vars` set `A` to different values"),
    "a secret in the command": ("args: [--api-key=sk-abcdefghijklmnop]", "a.yaml:4:8: a word of the command looks like a secret"),
}  # fmt: skip


@pytest.mark.parametrize(("text", "sentence"), WARNED.values(), ids=WARNED.keys())
def test_what_is_hardly_meant_is_a_warning_at_its_place(
    tmp_path: Path, venv: Path, text: str, sentence: str
) -> None:
    file = tmp_path / "a.yaml"
    file.write_text(f"{GOOD}python_path: {venv}/bin/python\n{text}\n")
    report, status = compiled(tmp_path, file)
    assert (status, sentence in report, report.startswith("warning: ")) == (0, True, True), report


LISTS = {
    "llamacpp: one word with commas": ("llamacpp", {"tensor-split": [3, 1], "device": ["CUDA0", "CUDA1"]}, "--tensor-split 3,1 --device CUDA0,CUDA1"),
    "llamacpp: an alias that can be negated": ("llamacpp", {"webui": False}, "--no-webui"),
    "vllm: numbers that argparse takes for flags": ("vllm", {"x": "-1e-4", "y": -5, "z": -0.5}, "--x=-1e-4 --y -5 --z -0.5"),
    "vllm: a negation that is denied": ("vllm", {"no_enable_prefix_caching": False}, ""),
    "vllm: null is absent": ("vllm", {"cuda_visible_devices": None, "seed": None}, ""),
}  # fmt: skip


@pytest.mark.parametrize(("engine", "extra", "words"), LISTS.values(), ids=LISTS.keys())
def test_words_are_the_engines_own(
    tmp_path: Path, venv: Path, engine: str, extra: dict[str, object], words: str
) -> None:
    file = tmp_path / "a.json"
    runtime = {"binary": "/bin/true"} if engine == "llamacpp" else {"python_path": f"{venv}/bin/python"}
    file.write_text(
        json.dumps({"model_path": "m", "backend": engine, "user": "root", "extra_args": extra} | runtime)
    )
    result = CliRunner().invoke(recipectl, ("show-command", str(file)), catch_exceptions=False).stdout
    assert " ".join(result.replace("\\\n", " ").split()).endswith(f"m {words}".strip())


SLIPS = {
    "host: 127.0.0.1:8004": "`host` is `127.0.0.1:8004`, which is more than an address; write `host: 127.0.0.1` and `port: 8004`",
    "host: http://gpu1/": "`host` is `http://gpu1/`, which is more than an address; write `host: gpu1`",
    'autostart: "true"': "`autostart` is `true`; give it without quotes: true",
    "ready: {path: health}": "`ready.path` is `health`; begin it with `/`, and leave blanks out",
    "args: [--seed: 7]": "`args.0` is a mapping; give one value; quote it if it has a `:`",
    "canaries: {ask: x}": "`canaries` is a mapping; give a list: begin each entry with `-`",
    "---\nport: 1": "a file has one document; remove the line `---` and what follows",
}  # fmt: skip


@pytest.mark.parametrize("slip", SLIPS)
def test_a_slip_is_told_with_what_to_write(slip: str, tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(f"model_path: /m\n{slip}\n")
    with pytest.raises(RecipeError) as caught:
        load(tmp_path / "a.yaml")
    assert [problem.sentence for problem in caught.value.problems] == [SLIPS[slip]]


# What a user cannot read is told in a line: the closed folder below the home, and a verb of `--user`.
CLOSED = {
    "recipes": (".config/recipectl", ["list", "diff", "versions", "check", "apply --check"]),
    "units": (".config/systemd", ["status", "list"]),
    "links": (".config/systemd/user/models.target.wants", ["status", "list"]),
    "upgrades": (".local/state/recipectl", ["upgrade --status m", "rollback m"]),
}


@pytest.mark.parametrize("case", CLOSED)
@pytest.mark.skipif(os.geteuid() != 0 or not IS_OPEN, reason="root alone can become another user")
def test_a_closed_folder_is_named_in_a_line(case: str) -> None:
    folder, verbs = CLOSED[case]
    with tempfile.TemporaryDirectory(dir="/var/tmp") as home:
        recipes = Path(home, ".config/recipectl/recipes")
        for path in (recipes, Path(home, folder)):
            path.mkdir(parents=True, exist_ok=True)
        Path(recipes, "m.yaml").write_text("backend: llamacpp\nmodel_path: /m.gguf\nbinary: /bin/true\n")
        subprocess.run(["chown", "-R", "65534:65534", home], check=True)
        Path(home, folder).chmod(0)
        for verb in verbs:
            done = subprocess.run(
                [sys.executable, "-m", "recipectl", "--user", *verb.split()],
                env={"HOME": home, "XDG_RUNTIME_DIR": home, "PYTHONPATH": str(ROOT / "agent"), "PATH": os.defpath},
                cwd="/", user=65534, group=65534, extra_groups=(), capture_output=True, text=True,
            )  # fmt: skip
            assert "Traceback" not in done.stderr, f"{verb}: {done.stderr}"
            assert f"{home}/{folder}" in done.stderr, f"{verb}: {done.stderr}"
            assert "Permission denied" in done.stderr, verb


def run_of(*words: str, **changes: str) -> subprocess.CompletedProcess[str]:
    """A verb in a process of its own, with changes of its environment."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "agent"), **changes}
    return subprocess.run([sys.executable, "-m", "recipectl", *words], env=environment, capture_output=True, text=True)  # fmt: skip


YAML_OF_OTHERS = {
    "\tservices: {}": ":1:1: line 1 is indented with a tab; YAML needs spaces",
    "services: 'x\n" + "y\n" * 9: ":1:11: a quote is not closed; add it",
    "a: [" * 2000: ": the file is nested too deeply; write less",
    '"\\uD800": 1': ": an escape in double quotes is no character; correct it",
    f"{'k' * 1100}: 1": ": a key has more than 1024 characters; write a shorter one",
}


@pytest.mark.parametrize("text", YAML_OF_OTHERS)
@pytest.mark.parametrize("verb", ["compose", "llama-swap"])
def test_yaml_of_other_tools_is_told_at_its_place(verb: str, text: str, tmp_path: Path) -> None:
    (tmp_path / "a.yml").write_text(text)
    done = run_of("import", verb, str(tmp_path / "a.yml"))
    assert (done.returncode, done.stderr.count("\n"), "Traceback" in done.stderr) == (2, 1, False)
    assert YAML_OF_OTHERS[text] in done.stderr


def test_a_lock_that_cannot_be_read_is_named_itself(tmp_path: Path, venv: Path) -> None:
    recipe = tmp_path / "a.yaml"
    recipe.write_text(f"{GOOD}venv_path: {venv}\n")
    (tmp_path / "a.lock").write_text("{")
    text, status = compiled(tmp_path, recipe)
    assert (status, text.splitlines()[0]) == (
        2, "a.lock: it cannot be read as a lock (it is not JSON); remove it, and run `recipectl lock a`",
    )  # fmt: skip


def test_odd_surroundings_are_told(tmp_path: Path) -> None:
    (tmp_path / "m.yaml").write_text("backend: llamacpp\nmodel_path: /m.gguf\nbinary: /bin/true\n")
    recipe = str(tmp_path / "m.yaml")
    assert (
        "HOME is `rel`, which is no absolute path; correct it" in run_of("--user", "list", HOME="rel").stderr
    )
    assert "HOME is ``" in run_of("--user", "list", HOME="").stderr
    assert "it is empty; give a folder" in run_of("compile", "-o", "", recipe).stderr
    assert (
        "it is empty; give a folder"
        in run_of("import", "command", "-o", "", "--", "vllm", "serve", "a/b").stderr
    )
    assert (
        "`llama-server` is neither a file nor a command"
        in run_of("import", "command", "--", "llama-server").stderr
    )
    assert "run it without `--user`" in run_of("--user", "gateway", HOME=str(tmp_path)).stderr
    edit = run_of("edit", recipe, EDITOR='"', XDG_CONFIG_HOME=str(tmp_path))
    assert (edit.returncode, "cannot be split into words; correct EDITOR=" in edit.stderr) == (2, True)


def test_a_full_standard_error_loses_no_output(tmp_path: Path) -> None:
    (tmp_path / "m.yaml").write_text(
        "backend: llamacpp\nmodel_path: /m.gguf\nbinary: /bin/true\nenv_vars: {HF_TOKEN: hf_abcdefghijklmnop}\n"
    )
    for words, output in (
        (["compile", str(tmp_path / "m.yaml")], b"ExecStart="),
        (
            ["import", "command", "--", "docker", "run", "vllm/vllm-openai", "--model", "a/b"],
            b"model_path: a/b",
        ),
    ):
        with Path("/dev/full").open("wb") as full:
            done = subprocess.run(
                [sys.executable, "-m", "recipectl", *words], env={**os.environ, "PYTHONPATH": str(ROOT / "agent")},
                stdout=subprocess.PIPE, stderr=full,
            )  # fmt: skip
        assert (output in done.stdout, done.returncode) == (True, 0)


@pytest.mark.parametrize("words", ["status", "compile ./m.yaml", "compile -o units /m.yaml", "edit ./m.yaml"])
def test_a_removed_current_folder_is_told(words: str, tmp_path: Path) -> None:
    folder = tmp_path / "gone"
    folder.mkdir()
    done = subprocess.run(
        ["sh", "-c", 'rmdir "$0" && exec "$@"', folder, sys.executable, "-m", "recipectl", *words.split()],
        env={**os.environ, "PYTHONPATH": str(ROOT / "agent")}, cwd=folder, capture_output=True, text=True,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (
        1,
        "the current folder was removed; change to another one (`cd`)\n",
    )


@pytest.mark.parametrize("kind", ["link in a circle", "file"])
def test_what_is_no_folder_of_recipes_is_told(kind: str, tmp_path: Path) -> None:
    folder = tmp_path / "recipectl/recipes"
    folder.parent.mkdir()
    folder.symlink_to("recipes") if kind == "link in a circle" else folder.touch()
    with pytest.raises(RecipectlError, match=f"{folder} could not be read: "):
        search.recipe_files((folder,))


@pytest.mark.parametrize("verb", ["unit", "vllm-studio", "compose", "command", "llama-swap", "quadlet"])
def test_a_pipe_is_no_file_to_import(verb: str, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.container")
    done = subprocess.run(
        [sys.executable, "-m", "recipectl", "import", verb, str(tmp_path / "a.container")],
        env={**os.environ, "PYTHONPATH": str(ROOT / "agent")}, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert (done.returncode != 0, "it is not a regular file" in done.stderr) == (True, True), done.stderr


@pytest.mark.parametrize("user", OWN_USERS)
def test_no_engine_runs_as_what_stands_before_models(user: str, tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_text(f"model_path: org/m\nuser: {user}\n")
    assert (
        f"a.yaml:2:7: `user` is `{user}`, which runs what stands before models" in compiled(tmp_path, path)[0]
    )


@pytest.mark.parametrize(
    ("backend", "added", "told"),
    [
        (
            "llamacpp",
            "",
            "which needs the engine's metrics, and they are off; add `extra_args: {metrics: true}`",
        ),
        ("llamacpp", "extra_args: {metrics: true}\n", ""),
        ("llamacpp", "env_vars: {LLAMA_ARG_ENDPOINT_METRICS: 1}\n", ""),
        ("vllm", "extra_args: {disable_log_stats: true}\n", "they are off; remove `--disable-log-stats`"),
    ],
)
def test_progress_without_metrics_is_told(backend: str, added: str, told: str, tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    python = f"python_path: {make_venv(tmp_path / 'v', 'vllm')}/bin/python\n" if backend == "vllm" else ""
    binary = "binary: /bin/true\n" if backend == "llamacpp" else ""
    path.write_text(f"{GOOD}backend: {backend}\nwatch: {{ask: progress}}\n{python}{binary}{added}")
    said = compiled(tmp_path, path)[0]
    assert ("`watch.ask` is `progress`" in said, told in said) == (bool(told), True), said
