"""What an import says of words, users and endpoints that a recipe cannot have as they are."""

import contextlib
import os
import pwd
import re
from pathlib import Path

import pytest
from click.testing import CliRunner
from imported import losses

from recipectl.cli import recipectl
from recipectl.errors import UsageError
from recipectl.importers import draft, from_command, shell


def imported(text: str, folder: Path, name: str = "a.sh", verb: str = "command") -> tuple[int, str, str]:
    """Exit status, recipes and what is said of them."""
    path = folder / name
    path.write_text(text)
    result = CliRunner().invoke(recipectl, ["import", verb, str(path)], standalone_mode=False)
    return result.return_value, result.stdout, result.stderr


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("llama-server -m /m/a.gguf --host /run/a.sock", "`host` is the socket /run/a.sock"),
        ("vllm serve /m/a --uds /run/a.sock", "plain HTTP over TCP, which `--uds` turns off"),
        ("llama-server -m /m/a.gguf --port 0", "the port `0` is not a number from 1 to 65535"),
    ],
)
def test_a_recipe_that_does_not_compile_is_named_with_its_reason(
    tmp_path: Path, text: str, sentence: str
) -> None:
    status, _, said = imported(text, tmp_path)
    assert (status, "the recipe does not compile: " in said, sentence in said) == (0, True, True)


def test_a_recipe_that_compiles_is_not_named(tmp_path: Path) -> None:
    assert imported("/v/bin/vllm serve /m/a --port 8001", tmp_path)[2] == ""


def test_engines_at_sockets_and_at_ports_of_the_kernels_choice_share_no_port(tmp_path: Path) -> None:
    lines = ["vllm serve /m/a --uds /run/a", "vllm serve /m/b --port 0", "vllm serve /m/c", "vllm serve /m/d"]
    recipes = imported("\n".join(lines), tmp_path)[1].split("# ── ")
    assert ["conflicts" in recipe for recipe in recipes[1:]] == [False, False, False, True]


def test_what_stays_beside_a_refused_engine_is_named(tmp_path: Path) -> None:
    text = "./embeddings.sh\nsystemctl start reranker\nssh h 'vllm serve /m'\n"
    status, _, said = imported(text, tmp_path)
    assert (status, "import command ./embeddings.sh" in said, "import unit reranker" in said) == (
        2,
        True,
        True,
    )


def test_a_word_behind_a_flag_stays_there() -> None:
    words = "vllm serve /m --enable-prefix-caching True --served-model-name x y"
    draft = from_command.draft_from_command(shell.commands(words)[0])
    assert draft.fields["args"] == ["--enable-prefix-caching", "True"]
    assert draft.fields["extra_args"] == {"served-model-name": ["x", "y"]}


@pytest.mark.parametrize("user", ["john.doe", "John", "svc_a-1"])
def test_a_user_that_systemd_takes_is_one_of_a_recipe(tmp_path: Path, user: str) -> None:
    text = f"[Service]\nUser={user}\nRestart=always\nExecStart=/v/bin/vllm serve /m\n"
    status, recipe, said = imported(text, tmp_path, "a.service", "unit")
    assert (status, f"user: {user}" in recipe, said) == (0, True, "")


def test_the_number_of_a_user_is_its_name(tmp_path: Path) -> None:
    numbers = {0: "it ran as root", 4711: "the user `4711`, which this host has no name for"}
    for number, sentence in numbers.items():
        text = f"[Service]\nUser={number}\nRestart=always\nExecStart=/v/bin/vllm serve /m\n"
        status, recipe, said = imported(text, tmp_path, "a.service", "unit")
        assert (status, "user:" in recipe.replace("`user:`", ""), sentence in said) == (0, False, True)
    daemon = pwd.getpwnam("daemon").pw_uid
    draft = from_command.draft_from_command(shell.commands(f"sudo -u '#{daemon}' vllm serve /m")[0])
    assert draft.fields["user"] == "daemon"


def test_a_name_that_docker_refuses_in_a_file_of_variables_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.env").write_text("A=1\nexport B=2\nC\n")
    _, recipe, said = imported(
        f"docker run --gpus all --env-file {tmp_path}/a.env vllm/vllm-openai --model a/b", tmp_path
    )
    assert "A: '1'" in recipe
    assert "`export B` in " in said
    assert "the variable `C` of the caller" in said


def test_a_text_that_is_not_utf_8_is_named_once(tmp_path: Path) -> None:
    path = tmp_path / "a.sh"
    path.write_bytes(b"a\xff")
    refusal = CliRunner().invoke(recipectl, ["import", "command", os.fspath(path)]).exception
    assert str(refusal).count(str(path)) == 1


@pytest.mark.parametrize("guard", ["cd /srv || exit", "command -v vllm || { echo none; exit 1; }"])
def test_a_guard_that_fails_is_no_other_end(guard: str) -> None:
    draft = from_command.draft_from_command(shell.commands(f"{guard}\nvllm serve /m")[-1])
    assert not any("may end there" in text for text in losses(draft))


def sentences(said: str) -> list[str]:
    return [line.partition(": not carried over: ")[2] or line for line in said.splitlines()]


COMPOSE = """services:
  v:
    image: vllm/vllm-openai
    restart: always
    ports: ["8000:8000"]
    gpus: all
    command: --model /models/q
    env_file: ${ENVDIR}/vllm.env
    environment: [VLLM_LOGGING_LEVEL]
    networks: [front, back, default]
    pull_policy: always
    logging: {driver: syslog}
    volumes:
      - {type: bind, source: "${MODEL_DIR}", target: /models}
      - {type: bind, source: plugins, target: /models/plugins}
"""


def test_variables_networks_and_what_a_compose_file_says_of_updates_and_logs(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("VLLM_LOGGING_LEVEL=DEBUG\n")
    status, recipe, said = imported(COMPOSE, tmp_path, "a.yaml", "compose")
    assert (status, 'model_path: "${MODEL_DIR}/q"' in recipe, "VLLM_LOGGING_LEVEL: DEBUG" in recipe) == (
        0,
        True,
        True,
    )
    assert sentences(said)[:-1] == [
        "line 8: the variables in ${ENVDIR}/vllm.env; set them in `env_vars:` or `secrets:`",
        "line 11: the updates of its image (`always`); see `recipectl upgrade`",
        "line 12: `logging:` of the service",
        "line 10: the network `front`, in which others reached the engine by its name",
        "line 10: the network `back`, in which others reached the engine by its name",
        f"line 15: `{tmp_path}/plugins` at /models/plugins, which nothing in the recipe names",
    ]


AROUND_A_SERVICE = """services:
  v:
    image: vllm/vllm-openai
    restart: always
    ports: ["8000:8000"]
    command: --model /models/q
    volumes: ["models:/models", "plugins:/plugins"]
    deploy:
      resources:
        reservations:
          devices: [{driver: nvidia, count: all, capabilities: [gpu], options: {virtualization: "false"}}]
networks:
  default: {external: true, name: proxy}
volumes:
  models: {driver_opts: {type: none, o: bind, device: ./q}}
  plugins: {driver_opts: {type: none, o: bind, device: ~/plugins}}
"""


def test_what_stands_around_a_service_counts(tmp_path: Path) -> None:
    status, recipe, said = imported(AROUND_A_SERVICE, tmp_path, "a.yaml", "compose")
    assert (status, f"model_path: {tmp_path}/q/q" in recipe) == (0, True), recipe
    assert [text for text in sentences(said) if text.startswith(("line 7:", "line 8:", "line 13:"))] == [
        "line 8: `deploy:` of the service: options of its GPUs",
        "line 13: the network `proxy`, in which others reached the engine by its name",
        "line 7: `${HOME}/plugins` at /plugins, which nothing in the recipe names",
    ]


REFUSED_SERVICES = {
    "a word of its command": ("command:\n      - --model\n      - a/b\n      - extra", "line 7: the service `v`: `extra` belongs"),
    "a placeholder": ("command: --model <MODEL>\n    ports: ['8000:8000']", "line 4: the service `v`: fill in `<MODEL>`"),
    "a key that is a number": ("command: --model a/b\n    8000: 8000", "the service `v`: the key `8000` is no text"),
    "a variable that is a number": ("command: --model a/b\n    environment: {1: }", "line 5: the variable `1` of the caller"),
}  # fmt: skip


@pytest.mark.parametrize(("text", "sentence"), REFUSED_SERVICES.values(), ids=REFUSED_SERVICES.keys())
def test_what_is_wrong_with_a_service_is_told_where_it_stands(
    tmp_path: Path, text: str, sentence: str
) -> None:
    service = f"services:\n  v:\n    image: vllm/vllm-openai\n    {text}\n"
    assert sentence in imported(service, tmp_path, "a.yaml", "compose")[2]


def test_keys_that_vllm_studio_did_not_pass_or_that_are_there_twice_are_named(tmp_path: Path) -> None:
    extra_args = '{"block_size": 32, "swap-space": 4, "swap_space": 5, "hip_visible_devices": "1", "engine_args": {"a": 1}}'
    text = f"""[{{"id": "x", "model_path": "/m", "user": "bob", "tp": 2, "tensor_parallel_size": 4, "block-size": 16,
      "engine_args": {{"seed": 1}}, "extra_args": {extra_args}}},
      {{"id": "y", "model_path": "/m", "port": [8000]}}, {{"id": "z", "model_path": "/m"}}]"""
    status, recipes, said = imported(text, tmp_path, "a.json", "vllm-studio")
    assert (status, recipes.count("backend: vllm"), "its `port` is a list or a mapping" in said) == (
        2,
        2,
        True,
    )
    assert "gpus: [1]\n# VLLM Studio had `hip_visible_devices`.\naccelerator: rocm" in recipes
    for sentence in (
        "`user:`, a key that VLLM Studio did not pass", "`engine_args:`, a key that VLLM Studio did not pass",
        "`tp:`, which `tensor_parallel_size:` overrode", "`swap-space: 4`, which `swap_space` overrode",
        '`engine_args: {"a": 1}`, which it did not pass',
        "`block_size` of `extra_args`, which the recipe's own `block_size` overrode",
    ):  # fmt: skip
        assert sentence in said


def test_the_words_of_a_unit_are_those_of_systemd(tmp_path: Path) -> None:
    r"""replace_env_argv() and extract_first_word() in its source: `$NAME` keeps what a backslash is before."""
    text = r"""[Service]
Environment="WORDS=--seed 1\\.5"
ExecStart=/v/bin/vllm serve m --served-model-name a ";" b $HOME/x $WORDS ; /bin/true 'x y'
"""
    _, recipe, said = imported(text, tmp_path, "a.service", "unit")
    assert "served-model-name: [a, ;, b]" in recipe
    assert "seed: 1.5" in recipe
    assert "line 3: `; /bin/true x y`, a second command of ExecStart=" in said
    assert "line 3: `$HOME/x`, which systemd takes for a variable of that name, and drops" in said


def test_a_file_of_variables_that_is_not_here_may_set_all_that_podman_gets(tmp_path: Path) -> None:
    text = """[Container]
Image=docker.io/vllm/vllm-openai:latest
AddDevice=nvidia.com/gpu=${GPU}
PublishPort=${PORT}:8000
Volume=${MODELS}:/models
Network=a.network
Network=b.network
Exec=--model /models/q
[Service]
Environment=PORT=8009 GPU=1 MODELS=/srv/small
EnvironmentFile=/etc/no-such-file.env
"""
    _, recipe, said = imported(text, tmp_path, "a.container", "quadlet")
    assert ('model_path: "${MODELS}/q"' in recipe, "port: ${PORT}" in recipe, '"${GPU}"' in recipe) == (
        True,
    ) * 3
    assert "line 11: `MODELS` is `/srv/small`, if that file does not set it" in said
    assert ("line 6: the network `a.network`" in said, "line 7: the network `b.network`" in said) == (
        True,
        True,
    )


def test_a_description_repeats_no_key(tmp_path: Path) -> None:
    key = "sk-" + "a1b2c3d4" * 4
    unit = f"[Unit]\nDescription=Qwen, ask with {key}\n[Service]\nExecStart=/v/bin/vllm serve /m\n"
    _, recipe, said = imported(unit, tmp_path, "a.service", "unit")
    assert ("description: Qwen, ask with …" in recipe, key in recipe + said) == (True, False)


def test_of_two_names_of_one_token_the_present_one_stays(tmp_path: Path) -> None:
    lines = "HF_TOKEN: ${TOKEN}\n      HUGGING_FACE_HUB_TOKEN: ${TOKEN}"
    text = f"services:\n  v:\n    image: vllm/vllm-openai\n    command: --model a/b\n    environment:\n      {lines}\n"
    _, recipe, said = imported(text, tmp_path, "a.yaml", "compose")
    assert ("  HF_TOKEN: /" in recipe, "HUGGING_FACE_HUB_TOKEN: /" in recipe) == (True, False)
    assert ("an earlier name of HF_TOKEN, which wins" in said, "does not compile" in said) == (True, False)


def test_the_paths_of_adapters_begin_at_the_folder_of_the_command() -> None:
    adapters = """'{"name":"a","path":"q/a/b"}' b=q/a/c c=o/z d=./d"""
    script = f"cd /srv\nvllm serve m --enable-lora --lora-modules {adapters}"
    fields = from_command.draft_from_command(shell.commands(script)[-1]).fields
    assert fields["extra_args"]["lora-modules"] == [
        '{"name":"a","path":"/srv/q/a/b"}',
        "b=/srv/q/a/c",
        "c=o/z",
        "d=/srv/d",
    ]


LINES_OF_ORDINARY_SCRIPTS = {
    "an option of a loop over arguments": (
        'while [[ $# -gt 0 ]]; do case "$1" in --eager) EAGER="--enforce-eager"; shift;; *) shift;; esac; done\n'
        "vllm serve a/b $EAGER\n",
        {"backend": "vllm", "model_path": "a/b"},
        ["`EAGER` is `--enforce-eager` under a condition, which does not hold here"],
    ),
    "what getopts has read": (
        'while getopts "p:" o; do case $o in p) PORT=$OPTARG;; esac; done\nshift $((OPTIND-1))\n'
        'vllm serve a/b --port ${PORT:-8000} "$@"\n',
        {"backend": "vllm", "model_path": "a/b", "port": 8000},
        ["`$@`, the arguments of the script"],
    ),
    "a guard with an empty default": (
        'if [[ -z "${MODEL:-}" ]]; then exit 1; fi\nvllm serve "$MODEL"\n',
        {"backend": "vllm", "model_path": draft.host_variable("MODEL")},
        ["without `MODEL` the script ends there"],
    ),
    "parts of paths": (
        'M=/srv/models/q\nD=$(dirname "$M")\nvllm serve $M --served-model-name "$(basename $M)" q.gguf --chat-template "$D/c"\n',
        {
            "backend": "vllm",
            "model_path": "/srv/models/q",
            "extra_args": {"served-model-name": ["q", "q.gguf"], "chat-template": "/srv/models/c"},
        },
        [],
    ),
    "llama.cpp in one program": (
        "/opt/l/llama serve -m /m/q.gguf --port 1\n",
        {"backend": "llamacpp", "binary": "/opt/l/llama-server", "model_path": "/m/q.gguf", "port": 1},
        ["`llama serve`: a recipe starts `llama-server` of the same release; install that, too"],
    ),
    "two that nobody gives": (
        'if [ -z "${A:-}" ] && [ -z "${1:-}" ]; then exit 1; fi\nvllm serve a/b\n',
        {"backend": "vllm", "model_path": "a/b"},
        ["without one of `$1`, `A` the script ends there"],
    ),
    "a file of supervisor that a script writes": (
        "cat > /etc/x.conf <<E\n[program:nginx]\ncommand=nginx\nE\nvllm serve a/b\n",
        {"backend": "vllm", "model_path": "a/b"},
        ["line 1: the file `/etc/x.conf`, which it writes"],
    ),
    "a name of the hub": (
        "cd /nonexistent\nllama-server -hf models/q-GGUF\n",
        {"backend": "llamacpp", "model_path": "models/q-GGUF"},
        [],
    ),
    "a model in a folder that is not here": (
        "cd /nonexistent/llm\nvllm serve models/q\n",
        {"backend": "vllm", "model_path": "models/q"},
        ["`models/q` is taken for a name of the hub; if it is a folder of /nonexistent/llm, give its path"],
    ),
    "a mount with a slash at its end": (
        "docker run -p 1:8000 -v /h/:/root/.cache/huggingface vllm/vllm-openai:v0.11.0 --model a/b\n",
        {"backend": "vllm", "model_path": "a/b", "port": 1, "env_vars": {"HF_HOME": "/h"}},
        [],
    ),
    "all caches of llama.cpp": (
        "docker run -p 1:8080 -v /h:/root/.cache ghcr.io/ggml-org/llama.cpp:server -hf a/b-GGUF\n",
        {
            "backend": "llamacpp",
            "model_path": "a/b-GGUF",
            "host": "0.0.0.0",
            "port": 1,
            "env_vars": {"HF_HOME": "/h/huggingface"},
        },
        [],
    ),
}


@pytest.mark.parametrize(
    ("text", "fields", "sentences"), LINES_OF_ORDINARY_SCRIPTS.values(), ids=LINES_OF_ORDINARY_SCRIPTS.keys()
)
def test_what_ordinary_scripts_do_is_understood(
    text: str, fields: dict[str, object], sentences: list[str]
) -> None:
    result = from_command.draft_from_command(shell.commands(text)[-1])
    assert result.fields == fields
    assert [text for text in sentences if text not in " ".join(losses(result))] == []
    if not sentences:
        assert not any(
            "which nothing in the recipe" in text or "of the hub" in text for text in losses(result)
        )


def test_the_reason_of_a_refusal_is_what_is_not_known() -> None:
    text = 'P=${P:-1}\nA=(--port $P --threads $(nproc))\nllama-server -m /m/x.gguf "${A[@]}"\n'
    reason, _, _ = shell.commands(text)[-1].refusal.partition("; ")
    assert reason == "`$(nproc …)`: recipectl does not run substitutions (line 2)"


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("# x\nFROM --platform=linux/amd64 vllm/vllm-openai AS y # z\nENTRYPOINT [\"vllm\"]\n", "a Dockerfile"),
        ("#cloud-config\nruncmd: [vllm serve a/b]\n", "a file of cloud-init"),
        ("[program:v]\ncommand=vllm serve a/b\n", "a file of supervisor"),
    ],
)  # fmt: skip
def test_a_file_of_another_kind_is_told(text: str, kind: str) -> None:
    with pytest.raises(UsageError, match=f"it is {kind}; give the command in it"):
        shell.commands(text)


def test_a_token_for_llamacpp_is_a_line_and_for_others_a_file(tmp_path: Path) -> None:
    script = "export HF_TOKEN=hf_aaaaaaaaaaaaaaaaaaaa\nllama-server -hf a/b-GGUF &\nvllm serve a/b --port 1\n"
    recipe = imported(script, tmp_path, "a.sh")[1]
    assert "# Put a line HF_TOKEN=… in this file" in recipe
    assert "HF_TOKEN: /etc/recipectl/secrets/HF_TOKEN.env\n" in recipe
    assert "HF_TOKEN: /etc/recipectl/secrets/HF_TOKEN\n" in recipe


def test_one_engine_of_two_verbs_is_one_recipe(tmp_path: Path) -> None:
    script = 'case "$1" in start) vllm serve a/b;; restart) sleep 1; vllm serve a/b;; *) exit 1;; esac\n'
    status, recipe, _ = imported(script, tmp_path, "a.sh")
    assert (status, recipe.count("model_path:"), "conflicts" in recipe) == (0, 1, False)
    script = 'if [ "$1" = debug ]; then vllm serve a/b; else nvidia-smi -pl 250; vllm serve a/b; fi\n'
    status, recipe, said = imported(script, tmp_path, "b.sh")
    assert (status, recipe.count("model_path:"), "does not run it" in said) == (0, 1, False), said
    assert "`nvidia-smi -pl 250`, which sets the GPUs up" in said


UNITS = {
    "a user that systemd makes": (
        "DynamicUser=yes\nUser=no-such-user",
        {"DynamicUser= with User=no-such-user, whom systemd made; it will run as a user of its own"},
    ),
    "a user of the host": ("DynamicUser=yes\nUser=nobody", {"user: nobody"}),
    "a path in its place": ("BindReadOnlyPaths=/srv/models", {"BindReadOnlyPaths: /srv/models"}),
    "a path elsewhere": ("BindPaths=/a:/b", {"BindPaths=/a:/b, with which the unit's paths are not those"}),
}


@pytest.mark.parametrize(("lines", "sentences"), UNITS.values(), ids=UNITS.keys())
def test_settings_of_a_unit_are_kept_or_named(tmp_path: Path, lines: str, sentences: set[str]) -> None:
    text = f"[Service]\n{lines}\nExecStart=/v/bin/vllm serve /m/q\n"
    _, recipe, said = imported(text, tmp_path, "a.service", "unit")
    assert {sentence for sentence in sentences if sentence not in recipe + said} == set(), recipe + said


def test_a_unit_of_podman_needs_no_folder_of_containers(tmp_path: Path) -> None:
    text = "[Unit]\nRequiresMountsFor=%t/containers\n[Service]\nExecStart=/usr/bin/podman run vllm/vllm-openai --model a/b\n"
    assert "RequiresMountsFor" not in "".join(imported(text, tmp_path, "a.service", "unit")[1:])


def test_the_cache_of_earlier_releases_of_llamacpp_stays_in_use(tmp_path: Path) -> None:
    (tmp_path / "llama.cpp").mkdir()
    words = f"docker run -p 1:8080 -v {tmp_path}:/root/.cache ghcr.io/ggml-org/llama.cpp:server -hf a/b-GGUF"
    variables = from_command.draft_from_command(shell.commands(words)[-1]).fields["env_vars"]
    assert variables["LLAMA_CACHE"] == f"{tmp_path}/llama.cpp"
    (tmp_path / "huggingface/hub").mkdir(parents=True)
    variables = from_command.draft_from_command(shell.commands(words)[-1]).fields["env_vars"]
    assert variables == {"HF_HOME": f"{tmp_path}/huggingface"}


def test_an_empty_field_of_vllm_studio_is_not_passed(tmp_path: Path) -> None:
    for fields, keys in (
        (
            '"model_path": "/m/q.gguf", "backend": "llamacpp", "max_model_len": 0, "dtype": ""',
            ("max_model_len", "dtype"),
        ),
        (
            '"model_path": "a/b", "backend": "vllm", "tensor_parallel_size": 0, "quantization": ""',
            ("tensor", "quantization"),
        ),
    ):
        text = f'{{"id": "q", "name": "q", {fields}}}'
        status, recipe, said = imported(text, tmp_path, "a.json", "vllm-studio")
        assert (status, [key for key in keys if key in recipe + said]) == (0, []), said


def test_a_script_of_a_unit_starts_in_the_folder_of_the_unit(tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir()
    (tmp_path / "work").mkdir()
    script = 'source venv/bin/activate\nexec vllm serve "$1" --port 8000\n'
    (tmp_path / "bin/run.sh").write_text(f"#!/bin/bash\n{script}")
    (tmp_path / "work/run.sh").write_text(script)
    other = tmp_path / "work/other.sh"
    other.write_text("exec vllm serve /wrong --port 9\n")
    for command in (f"{tmp_path}/bin/run.sh ./m", f"/bin/bash -eu -o pipefail run.sh {other}"):
        text = f"[Service]\nUser=llm\nRestart=always\nWorkingDirectory={tmp_path}/work\nExecStart={command}\n"
        status, recipe, _ = imported(text, tmp_path, "a.service", "unit")
        assert (status, f"venv_path: {tmp_path}/work/venv\n" in recipe) == (0, True), recipe
        model = other if "other" in command else f"{tmp_path}/work/m"
        assert (f"model_path: {model}\n" in recipe, "port: 8000" in recipe) == (True, True), recipe


@pytest.mark.parametrize(
    ("condition", "added", "in_recipe"),
    [
        ('[ -d "$HOME/x" ]', "--chat-template $HOME/x", 'chat-template: "${HOME}/x"'),
        ('[ "$N" -gt 1 ]', "--tensor-parallel-size $N", "tensor_parallel_size: ${"),
    ],
)
def test_what_a_condition_adds_to_a_list_is_kept(
    tmp_path: Path, condition: str, added: str, in_recipe: str
) -> None:
    start = "N=$(nvidia-smi -L | wc -l)\n"
    for add in (
        f'A="--port 1"; if {condition}; then A="$A {added}"; fi; vllm serve a/b $A\n',
        f'A=(--port 1); {condition} && A+=({added}); vllm serve a/b "${{A[@]}}"\n',
        f'A=(--port 1); o() {{ if {condition}; then A+=({added}); fi; }}; o; vllm serve a/b "${{A[@]}}"\n',
    ):
        _, recipe, _ = imported(start + add, tmp_path)
        assert (in_recipe in recipe, "port: 1" in recipe) == (True, True), recipe


def test_what_a_condition_does_not_add_is_named(tmp_path: Path) -> None:
    text = 'set -- --port 1\nif [ -n "${TP:-}" ]; then set -- "$@" --tp "$TP"; fi\nvllm serve a/b "$@"\n'
    assert "`$@` is set under a condition; here it is not: `… --tp ${TP}`" in imported(text, tmp_path)[2]
    text = "Q=$(x)\nA=1\nif [ -f /x ]; then A=2; else A=$Q; fi\nvllm serve a/b --port $A\n"
    assert "`A` is set under a condition; its value here is `2`, not `${Q}`" in imported(text, tmp_path)[2]


def test_each_part_of_a_loop_over_arguments_is_named_with_its_line(tmp_path: Path) -> None:
    text = (
        'EAGER=\nwhile [ $# -gt 0 ]; do\n  case "$1" in\n    --model) MODEL="$2"; shift 2 ;;\n'
        "    --eager) EAGER=--enforce-eager; shift ;;\n    --lora) LORA=--enable-lora; shift ;;\n"
        "    --q) Q=awq; shift ;;\n    *) exit 1 ;;\n  esac\ndone\n"
        "vllm serve ${MODEL:-org/m} --port 1 $EAGER $LORA $Q\n"
    )
    for loop in (text, text.replace("while [ $# -gt 0 ]", 'for o in "$@"').replace('"$1"', "$o")):
        _, _, said = imported(loop, tmp_path)
        for line, sentence in (
            (4, "`MODEL` is "), (5, "`EAGER` is `--enforce-eager`"), (6, "`LORA` is `--enable-lora`"), (7, "`Q` is `awq`"),
        ):  # fmt: skip
            assert f"line {line}: {sentence}" in said, said
        for noise in ("the script ends there", "`1` is", "`$@` is set under", "`o` is"):
            assert noise not in said, said


def test_a_variable_of_the_host_hides_no_fault(tmp_path: Path) -> None:
    text = "export HF_HOME=$HOME/hf\nvllm serve /m/a --uds /run/a.sock\nvllm serve $M --port $P --host $H\n"
    said = imported(text, tmp_path)[2]
    assert (said.count("the recipe does not compile"), "`--uds` turns off" in said) == (1, True), said


def test_a_file_of_variables_is_read_as_the_script_itself(tmp_path: Path) -> None:
    file = "# site\nMODEL=${MODEL:-/m/a}\nexport HF_HOME=$HOME/hf\nARGS=(--max-model-len\n  4096)\nX=1\n"
    (tmp_path / "conf.env").write_text(file)
    text = 'set -a; . ./conf.env; set +a\nvllm serve $MODEL "${ARGS[@]}"\n'
    _, recipe, said = imported(text, tmp_path)
    for part in ("model_path: /m/a\n", "max_model_len: 4096", 'HF_HOME: "${HOME}/hf"', "X: '1'"):
        assert part in recipe, recipe
    assert "line 1: `${MODEL}` has its default value here" in said
    (tmp_path / "conf.env").write_text(f"{file}echo hi\n")
    assert "which may set variables; its line 7 does more than set a variable" in imported(text, tmp_path)[2]


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("# c\nversion: '3'\nservices:\n  v: {image: x}\n", "a Compose file; run `recipectl import compose`"),
        ("models:\n  q:\n    cmd: llama-server -m /a\n", "of llama-swap; run `recipectl import llama-swap`"),
        ("---\napiVersion: apps/v1\n", "it is a manifest of Kubernetes; give the command"),
        ("- hosts: all\n  tasks: []\n", "it is a file of Ansible; give the command"),
        ("a: 1\n", "it is a YAML file; give the command"),
        ("// x\nmodule.exports = {\n}\n", "it is a file of JavaScript or TypeScript; give the command"),
        ("import { X } from 'y';\n", "it is a file of JavaScript or TypeScript; give the command"),
    ],
)
def test_a_file_that_is_no_script_is_one_sentence(text: str, sentence: str) -> None:
    with pytest.raises(UsageError, match=re.escape(sentence)):
        shell.commands(text)


@pytest.mark.parametrize("text", ["/**/" * 20_000 + "x\n", "a: 1\n" + "models:\n" * 50_000])
def test_a_long_file_of_another_kind_is_read_in_one_pass(text: str) -> None:
    with contextlib.suppress(UsageError):
        shell._refuse_other_kinds(text)


def test_a_unit_of_a_users_podman_and_a_specifier_of_a_description(tmp_path: Path) -> None:
    text = (
        "[Unit]\nDescription=serves %i\nRequiresMountsFor=%t/containers\n[Service]\n"
        "ExecStart=/usr/bin/podman run vllm/vllm-openai --model a/b\n[Install]\nWantedBy=default.target\n"
    )
    _, recipe, said = imported(text, tmp_path, "a@.service", "unit")
    assert ("RequiresMountsFor" in recipe + said, "a specifier of Description=" in said) == (False, True)
