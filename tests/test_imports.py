"""Recipes from commands, units and other tools' files; and back to just the same words."""

import json
import pwd
import re
import shlex
import sqlite3
from collections import Counter
from pathlib import Path
from typing import Any

import corpus
import pytest
import yaml
from click.testing import CliRunner
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from imported import compiled, losses

from recipectl.cli import recipectl
from recipectl.errors import UsageError
from recipectl.importers import (
    from_command,
    llama_swap,
    option_sources,
    shell,
    systemd_unit,
    vllm_recipes,
    vllm_studio,
)
from recipectl.importers.draft import Draft, render
from recipectl.importers.lines import placed
from recipectl.machine import nvidia
from recipectl.recipe.load import load_with_positions
from recipectl.recipe.yamlfile import read_document
from recipectl.systemd import quoting


def drafted(text: str, name: str | None = None) -> Draft:
    *_, command = shell.commands(text)
    return from_command.draft_from_command(command, name)


def argv(text: str, folder: Path) -> list[str]:
    outcome = compiled(drafted(text, "a"), folder)
    return list(outcome.argv[len(outcome.runtime.command) :])


def grouped(argv: list[str]) -> list[tuple[str, ...]]:
    """The options by their names, each with its values: flags may change places, but not those that repeat."""
    starts = [n for n, word in enumerate(argv) if n == 0 or re.match("--?[A-Za-z]", word)]
    groups = [tuple(argv[a:b]) for a, b in zip(starts, [*starts[1:], len(argv)], strict=True)]
    return sorted(groups, key=lambda group: group[0].partition("=")[0])


def typed_in(word: str) -> str:
    """A word as a person types it into a shell, its `$NAME` left to the shell."""
    parts = re.findall(r"\$[A-Z_0-9]+|[^$]+|\$", word)
    return (
        "".join(part if re.fullmatch(r"\$[A-Z_0-9]+", part) else shlex.quote(part) for part in parts) or "''"
    )


@corpus.NEEDED
def test_every_official_command_comes_back_as_it_was(tmp_path: Path) -> None:
    rows = [json.loads(line) for line in corpus.COMMANDS.read_text().splitlines()]
    counts: Counter[str] = Counter()
    differ = []
    lines = []
    for row in rows:
        variables = [f"{name}={typed_in(str(value))}" for name, value in row["env"].items()]
        lines.append(" ".join([*variables, *map(typed_in, row["argv"])]))
    for row, command in zip(rows, shell.commands("\n".join(lines)), strict=True):
        draft = from_command.draft_from_command(command, "a")
        outcome = compiled(draft, tmp_path)
        # PATH is the runtime's, and `gpus:` counts as nvidia-smi does.
        added = {"PATH", *({"CUDA_DEVICE_ORDER"} if "gpus" in draft.fields else ())}
        env = {name: item.value for name, item in outcome.environment.items() if name not in added}
        same = grouped(list(outcome.argv[2:])) == grouped(row["argv"][2:])
        if not same or env != {name: str(value) for name, value in row["env"].items()}:
            differ.append(row)
        counts.update(
            lines=1,
            exact=row not in differ[-1:],
            args="args" in draft.fields,
            lost=bool(draft.not_carried_over),
        )
    # What is named are relative paths of templates in vLLM's own sources.
    assert (counts, differ) == ({"lines": 3298, "exact": 3298, "args": 236, "lost": 317}, [])


COMMANDS = {
    "fields where there are fields": (
        "/opt/v/bin/vllm serve /m -tp 2 --max-model-len=4096 --gpu-memory-utilization 0.90",
        {"backend": "vllm", "python_path": "/opt/v/bin/python", "model_path": "/m", "tensor_parallel_size": 2,
         "max_model_len": 4096, "gpu_memory_utilization": 0.90},
    ),
    "flags as extra_args, each with the type that gives it back": (
        "vllm serve /m --enable-prefix-caching --no-async-scheduling --seed 007 --limit-mm-per-prompt '{\"image\": 2}'",
        {"backend": "vllm", "model_path": "/m", "extra_args": {
            "enable-prefix-caching": True, "async-scheduling": False, "seed": "007", "limit-mm-per-prompt": {"image": 2}}},
    ),
    "args where no key gives just these words": (
        "vllm serve /m --block-size=64 -cc.mode=3",
        {"backend": "vllm", "model_path": "/m", "args": ["--block-size=64", "-cc.mode=3"]},
    ),
    "the module form names its model": (
        "/opt/v/bin/python3 -m vllm.entrypoints.openai.api_server --model /m --port 1",
        {"backend": "vllm", "python_path": "/opt/v/bin/python3", "model_path": "/m", "port": 1},
    ),
    "SGLang, and an abbreviated flag": (
        "python -m sglang.launch_server --model-path /m --tp 4 --mem-fraction-static 0.8",
        {"backend": "sglang", "model_path": "/m", "tensor_parallel_size": 4, "gpu_memory_utilization": 0.8},
    ),
    "sglang serve": ("/s/bin/sglang serve --model-path /m", {"backend": "sglang", "python_path": "/s/bin/python", "model_path": "/m"}),
    "llama.cpp by its short flags": (
        "/l/llama-server -m /m.gguf -c 4096 --jinja",
        {"backend": "llamacpp", "binary": "/l/llama-server", "model_path": "/m.gguf", "max_model_len": 4096, "extra_args": {"jinja": True}},
    ),
    "llama.cpp with a model of the hub": (
        "/l/llama-server -hf org/m-GGUF:Q4_K_M -hff m-Q4.gguf",
        {"backend": "llamacpp", "binary": "/l/llama-server", "model_path": "org/m-GGUF:Q4_K_M", "extra_args": {"hf-file": "m-Q4.gguf"}},
    ),
    "llama.cpp's short negations": (
        "/l/llama-server -m /m.gguf -nkvo -nocb -no-kvu --no-mmap",
        {"backend": "llamacpp", "binary": "/l/llama-server", "model_path": "/m.gguf", "extra_args": {
            "kv-offload": False, "cont-batching": False, "kv-unified": False, "mmap": False}},
    ),
    "a fork of llama.cpp": (
        "/opt/ik/ik-llama-server -m /m.gguf", {"backend": "llamacpp", "binary": "/opt/ik/ik-llama-server", "model_path": "/m.gguf"},
    ),
    "flags with underscores": (
        "vllm serve /m --max_model_len 4096 --tensor_parallel_size=2 --no_enable_prefix_caching",
        {"backend": "vllm", "model_path": "/m", "tensor_parallel_size": 2, "max_model_len": 4096, "extra_args": {"enable-prefix-caching": False}},
    ),
    "env, exec and wrappers": (
        "exec env A=1 nohup vllm serve /m > log 2>&1",
        {"backend": "vllm", "model_path": "/m", "env_vars": {"A": "1"}},
    ),
    "exports, continued lines, known variables": (
        "export A=1\nM=/m; O='--port 1 --seed 2'\nsource /opt/v/bin/activate\nvllm serve \"$M\" \\\n  $O",
        {"backend": "vllm", "venv_path": "/opt/v", "model_path": "/m", "port": 1, "extra_args": {"seed": 2}, "env_vars": {"A": "1"}},
    ),
    "in an if, a subshell, after a heredoc": (
        "cat > x <<'EOF'\nnot 'closed\nEOF\nif [ -d /m ]; then (cd /; vllm serve /m --port 1) & fi",
        {"backend": "vllm", "model_path": "/m", "port": 1},
    ),
    "GPUs": ("CUDA_VISIBLE_DEVICES=0,1 vllm serve /m", {"backend": "vllm", "model_path": "/m", "gpus": [0, 1]}),
    "ROCm's GPUs": ("HIP_VISIBLE_DEVICES=1 vllm serve /m", {"backend": "vllm", "model_path": "/m", "accelerator": "rocm", "gpus": [1]}),
    "a part of several hosts": (
        "vllm serve /m --nnodes 2 --node-rank 1 --master-addr 10.0.0.1 --headless",
        {"backend": "vllm", "model_path": "/m", "nodes": {"count": 2, "rank": 1, "address": "10.0.0.1"}},
    ),
    "docker run": (
        "docker run --rm --gpus '\"device=0,1\"' -v /data:/models -e A=1 -p 8001:8000 vllm/vllm-openai:v0.14.1 --model /models/m -tp 2",
        {"backend": "vllm", "model_path": "/data/m", "served_model_name": "/models/m", "port": 8001, "tensor_parallel_size": 2, "gpus": [0, 1], "env_vars": {"A": "1"}},
    ),
    "another user's, by sudo": (
        "sudo -E -u llm env CUDA_VISIBLE_DEVICES=0 A=1 /opt/v/bin/vllm serve /m",
        {"backend": "vllm", "python_path": "/opt/v/bin/python", "model_path": "/m", "gpus": [0], "env_vars": {"A": "1"}, "user": "llm"},
    ),
    "sudo docker run, published on loopback": (
        "sudo docker run -dp 127.0.0.1:8001:8000 --gpus '\"device=1\",\"capabilities=compute\"' -v /data:/models vllm/vllm-openai --model /models/x --chat-template=/models/t.jinja",
        {"backend": "vllm", "model_path": "/data/x", "served_model_name": "/models/x", "host": "127.0.0.1", "port": 8001, "gpus": [1], "args": ["--chat-template=/data/t.jinja"]},
    ),
    "docker run of a shell": (
        "docker run -e NVIDIA_VISIBLE_DEVICES=2 -p 8000 vllm/vllm-openai bash -lc 'export A=1; exec vllm serve /m'",
        {"backend": "vllm", "model_path": "/m", "port": 8000, "gpus": [2], "env_vars": {"A": "1"}},
    ),
    "arguments of the script": ("exec vllm serve /m --port 8001 \"$@\"", {"backend": "vllm", "model_path": "/m", "port": 8001}),
    "arrays": (
        "ARGS=(--port 1\n  --seed '2 3')\nARGS+=(--headless)\nvllm serve /m \"${ARGS[@]}\"",
        {"backend": "vllm", "model_path": "/m", "port": 1, "extra_args": {"seed": "2 3", "headless": True}},
    ),
    "set -a, a default that is kept": (
        "set -a; A=1\nset +a; port=8; : \"${M:=/m}\"; vllm serve $M --port $port",
        {"backend": "vllm", "model_path": "/m", "port": 8, "env_vars": {"A": "1"}},
    ),
    "a fallback does not hide the interpreter that is known": (
        "PY=/opt/v/bin/python; [ -x \"$PY\" ] || PY=python3\n[ ! -x \"$PY\" ] && PY=python3\nif [ -z \"$PY\" ]; then PY=python3; fi\n$PY -m sglang.launch_server --model-path /m",
        {"backend": "sglang", "python_path": "/opt/v/bin/python", "model_path": "/m"},
    ),
    "a venv that is there, or the next one": (
        "if [ -d /a ]; then . /a/bin/activate; else . /b/bin/activate; fi\nvllm serve /m",
        {"backend": "vllm", "venv_path": "/a", "model_path": "/m"},
    ),
    "substitutions that the engine does not use": (
        "DIR=\"$(cd \"$(dirname \"$0\")\"; pwd)\"\nLOG=`date`.log\nvllm serve /m --port $((1+1 > 0 ? 1 : 2)) >$LOG" .replace(" --port $((1+1 > 0 ? 1 : 2))", ""),
        {"backend": "vllm", "model_path": "/m"},
    ),
    "a script in the script's folder": (
        "cd /srv/llm && source venv/bin/activate && vllm serve ./m",
        {"backend": "vllm", "venv_path": "/srv/llm/venv", "model_path": "/srv/llm/m", "served_model_name": "./m"},
    ),
    "the host's own script": ("/usr/local/bin/vllm serve /m", {"backend": "vllm", "model_path": "/m"}),
    "words split as a shell splits them": (
        "A='--port\t1\n--seed 2'\nvllm serve /m $A",
        {"backend": "vllm", "model_path": "/m", "port": 1, "extra_args": {"seed": 2}},
    ),
    "case, function and redirections": (
        "case $1 in a) echo x ;; esac\nvllm serve /m --port 1 2>&1 | tee log",
        {"backend": "vllm", "model_path": "/m", "port": 1},
    ),
}  # fmt: skip


@pytest.mark.parametrize(("text", "fields"), COMMANDS.values(), ids=COMMANDS.keys())
def test_a_command_becomes_a_recipe(text: str, fields: dict[str, Any]) -> None:
    assert drafted(text).fields == fields


def test_what_a_script_takes_becomes_a_variable_of_the_host() -> None:
    draft = drafted('MODEL=$1; shift; vllm serve "$MODEL" --port ${2:-8000} --x ${PWD}/y')
    assert (draft.variables, draft.fields["port"]) == (("ARG1", "PWD"), 8000)


def test_a_model_of_the_hub_compiles_to_llama_servers_own_flag(tmp_path: Path) -> None:
    assert argv("llama-server -hf org/m-GGUF:Q4_K_M --jinja", tmp_path) == [
        "--hf-repo",
        "org/m-GGUF:Q4_K_M",
        "--jinja",
    ]
    assert argv("cd /s; llama-server -m sub/m.gguf --mmproj=../p.gguf", tmp_path) == [
        "--model",
        "/s/sub/m.gguf",
        "--mmproj=/s/../p.gguf",
    ]
    assert drafted("llama-server -m ./m.gguf").variables == ("FOLDER",)


def test_the_file_of_config_counts_like_flags(tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text(
        "model: /m\nport: 9001\ntensor-parallel-size: 4\nenable-prefix-caching: false\nasync-scheduling: true\n"
        "compilation-config: {mode: 3}\nallowed-media-domains: [a, b]\nseed: 1\n"
    )
    draft = drafted(f"vllm serve --config {tmp_path}/c.yaml -tp 2 --seed 2")
    assert draft.fields == {
        "backend": "vllm", "model_path": "/m", "port": 9001, "tensor_parallel_size": 2, "extra_args": {
            "seed": 2, "enable-prefix-caching": False, "async-scheduling": True, "compilation-config": {"mode": 3},
            "allowed-media-domains": ["a", "b"]},
    }  # fmt: skip
    assert f"The options of {tmp_path}/c.yaml are written out here." in draft.comments[""]
    kept = drafted("vllm serve /m --config /no/such.yaml")
    assert kept.fields["extra_args"] == {"config": "/no/such.yaml"}


def test_a_relative_interpreter_is_told_by_the_host() -> None:
    draft = drafted(".venv/bin/vllm serve /m")
    assert (draft.variables, 'python_path: "${FOLDER}/.venv/bin/python"' in render(draft)) == (
        ("FOLDER",),
        True,
    )


LOST = {
    "a wrapper": ("numactl --cpunodebind=0 vllm serve /m", "`numactl --cpunodebind=0` before the program"),
    "PATH": ("export PATH=/usr/local/cuda/bin:$PATH; vllm serve /m", "`PATH` with /usr/local/cuda/bin"),
    "a default, even before another command": ("M=${M:-/m}\nvllm serve $M", "line 1: `${M}` has its default value here, `/m`"),
    "a condition": ("M=/a\nif [ -d /b ]; then M=/b; fi\nvllm serve $M", "`M` is set under a condition; its value here is `/b`"),
    "a secret flag": ("python3 -m sglang.launch_server --model-path /m --api-key sk-abcdefghijklmnop", "the secret of `--api-key`"),
    "one under a condition, without another value": ('if [ "$D" = 1 ]; then E=--enforce-eager; fi; vllm serve /m $E', "`E` is `--enforce-eager` under a condition, which does not hold here"),
    "one after a test": ('[ "$D" = 1 ] && E=--enforce-eager; vllm serve /m $E', "`E` is `--enforce-eager` under a condition"),
    "what else a container runs": ('docker run x/vllm bash -c "pip install x && vllm serve /m"', "`pip install x` in the container"),
    "no GPUs": ("docker run vllm/vllm-openai --model /m", "the container was given no GPUs"),
    "a value that a flag does not take": ("vllm serve /m --enable-prefix-caching True --served-model-name x y", "`True` after `--enable-prefix-caching`, which takes no value; it stays there"),
    "an end under a condition": ('read A\n[ "$A" = y ] && exit 0\nvllm serve /m', "line 2: the script may end there"),
    "an end after a test": ("if pgrep -f vllm; then echo x; exit; fi\nvllm serve /m", "line 1: the script may end there"),
    "lines that end with CR": ("A=1\r\nvllm serve /m", "line 1: lines end with CR and LF"),
    "the CPUs of what runs in the background": ("vllm serve /m &\nP=$!\ntaskset -pc 0-7 $P", "line 3: `taskset -pc 0-7 "),
    "a number of no user": ("sudo -u 4711 vllm serve /m", "the user `4711`, which this host has no name for"),
}  # fmt: skip


@pytest.mark.parametrize(("text", "answer"), LOST.values(), ids=LOST.keys())
def test_what_cannot_be_carried_over_is_told(text: str, answer: str) -> None:
    draft = drafted(text)
    assert any(answer in entry for entry in losses(draft)), losses(draft)
    assert "sk-abc" not in render(draft)


def test_other_commands_of_a_script_are_told_and_stop_nothing() -> None:
    script = "docker rm -f x\nhuggingface-cli login --token hf_abcdefghijklmnop\ndocker run vllm/vllm-openai --model /m\n"
    done = CliRunner().invoke(recipectl, ["import", "command", "-"], input=script, catch_exceptions=False)
    assert "model_path: /m\n" in done.stdout
    assert "`huggingface-cli login …`, which runs no engine" in done.stderr
    assert "hf_abc" not in done.output


def test_what_a_subshell_sets_ends_with_it() -> None:
    script = (
        "( export CUDA_VISIBLE_DEVICES=0; cd /a && vllm serve ./m ) & ( cd /b; vllm serve ./m --port 1 ) &"
    )
    first, second = (from_command.draft_from_command(entry) for entry in shell.commands(script))
    assert (first.fields["gpus"], first.fields["model_path"]) == ([0], "/a/m")
    assert ("gpus" in second.fields, second.fields["model_path"]) == (False, "/b/m")


def test_podmans_own_options_and_a_second_port() -> None:
    text = "podman run --replace --name vllm -p 9090:9090 -p 8001:8000 docker.io/vllm/vllm-openai --model m"
    assert (drafted(text).fields["model_path"], drafted(text).fields["port"]) == ("m", 8001)


def test_two_secrets_of_one_name_are_two_files() -> None:
    script = "HF_TOKEN=hf_aaaaaaaaaaaaaaaa vllm serve /a\nHF_TOKEN=hf_bbbbbbbbbbbbbbbb vllm serve /b\n"
    done = CliRunner().invoke(recipectl, ["import", "command", "-"], input=script, catch_exceptions=False)
    assert "  HF_TOKEN: /etc/recipectl/secrets/HF_TOKEN\n" in done.stdout
    assert "  HF_TOKEN: /etc/recipectl/secrets/HF_TOKEN-b\n" in done.stdout


@pytest.mark.parametrize(
    ("content", "is_read"),
    [
        ("# x\nexport A='b c'\nPORT=9000 TP=\"2\"\nE=\n", True),
        ("A=1\nPORT=$(id -u)\n", False),
        ("A=1\ncd /x\n", False),
        ("", True),
        ("export A='b c' PORT=${B:-9000}\nTP=2 E=\n", True),
        ("A='1\n", False),
        ("A=1 >x\n", False),
        ("A=1 true\n", False),
    ],
)
def test_a_file_of_variables_that_a_script_reads_counts(tmp_path: Path, content: str, is_read: bool) -> None:
    (tmp_path / ".env").write_text(content)
    script = f"PORT=1 TP=1\n[ -f .env ] && set -a && . ./.env && set +a\nB=1; {tmp_path}/v/bin/vllm serve m --port $PORT"
    (command,) = shell.commands(script, folder=str(tmp_path))
    names_it = any(
        "line 2: `. ./.env`, which may set variables; its line" in loss for loss in losses(command)
    )
    assert names_it is not is_read, losses(command)
    expected = {"A": "b c", "PORT": "9000", "TP": "2", "E": ""} if is_read and content else {}
    assert (command.environment, command.words[-1]) == (expected, expected.get("PORT", "1"))


def test_a_file_that_is_closed_to_a_process_is_not_read_for_it(tmp_path: Path) -> None:
    for folder in (tmp_path, *tmp_path.parents):
        folder.chmod(folder.stat().st_mode | 0o011)
    file = tmp_path / "closed/c.yaml"
    file.parent.mkdir()
    file.write_text("seed: 5\n")
    words = ["m", "--config", str(file)]
    for folder_mode, mode, reader, is_read in (
        (0o755, 0o644, 1000, True), (0o700, 0o644, 1000, False), (0o755, 0o600, 1000, False), (0o700, 0o600, 0, True),
        (0o700, 0o600, None, True),
    ):  # fmt: skip
        file.parent.chmod(folder_mode)
        file.chmod(mode)
        arguments, read_file = option_sources.with_config_file("vllm", words, None, reader)
        assert ("--seed" in arguments, read_file is not None) == (is_read, is_read), (
            folder_mode,
            mode,
            reader,
        )


def test_what_only_the_host_knows_becomes_a_variable(tmp_path: Path) -> None:
    draft = drafted("vllm serve /m --port $PORT --master-addr \"http://${HEAD}:1\" --x '${no}'")
    assert draft.variables == ("HEAD", "PORT")
    text = render(draft)
    assert "port: ${PORT}\n" in text
    assert 'master-addr: "http://${HEAD}:1"' in text
    (tmp_path / "a.yaml").write_text(text)
    recipe, _ = load_with_positions((tmp_path / "a.yaml",), {"PORT": "8001", "HEAD": "h"})
    assert (recipe.port, recipe.extra_args) == (8001, {"master_addr": "http://h:1", "x": "${no}"})


def test_a_secret_is_named_and_not_repeated() -> None:
    text = render(drafted("HF_TOKEN=hf_abcdefghijklmnop vllm serve /m --api-key sk-abcdefghijklmnop"))
    assert "hf_abc" not in text
    assert "sk-abc" not in text
    assert "  HF_TOKEN: /etc/recipectl/secrets/HF_TOKEN\n" in text


REFUSED = {
    "vllm serve $(cat x)": "line 1: `$(cat …)`: recipectl does not run substitutions; write the result",
    "vllm serve 'x": "line 1: bash cannot read it (reached EOF without closing quote `'`); correct it",
    "\nvllm serve ${X%y}": "line 2: the value of `${X%…}` is for a shell to find; write the result",
    "vllm serve --port <PORT>": "line 1: fill in `<PORT>`",
    "vllm serve --port <PORT> \\\n --served-model-name x": "line 1: fill in `<PORT>`",
    "vllm serve /m --x {a,b}": "line 1: `{a,b}` has braces that a shell expands",
    "run() { vllm serve /m; }": "line 1: it is in a function (line 1)",
    "for i in 0 1; do\n vllm serve /m --port 800$i &\ndone": "line 2: it is in a loop (line 1)",
    "while true; do vllm serve /m; done": "line 1: it is in a loop (line 1)",
    "port=$((8000+1)); vllm serve /m; exit\nvllm serve /n": "line 2: line 1 ends the script before it",
    "vllm serve --port 1": "the command names no model; add it (`--model PATH`)",
    "foo -l": "`foo -l` does not run a known engine (vllm, sglang, llama-server); correct it",
    "llama-server -mu http://x/m.gguf": "`-mu` downloads a model; fetch it, and name the file with --model",
    "llama-server --models-dir /m": "`--models-dir` makes llama-server a router",
    "llama-server --port 1": "the command names no model, which makes llama-server a router",
    "vllm serve /m –port 8000": "`–port` belongs to no option of vllm; correct it",
    "alias v='vllm serve'\nv /m": "line 2: `v` is an alias (line 1); write the command out",
    "#!/bin/zsh\nX='--seed 1'\nvllm serve /m $=X": "line 3: `$=X` is of zsh; write its words out",
    "IFS=,; L=a,b; vllm serve /m --served-model-name $L": "`IFS` decides into which words it is split",
    "vllm serve --config /no/such.yaml": "the model is in /no/such.yaml, which cannot be read here",
}


@pytest.mark.parametrize(("text", "sentence"), REFUSED.items(), ids=REFUSED.keys())
def test_a_command_that_cannot_be_read_is_refused(text: str, sentence: str) -> None:
    command = shell.commands(text)[-1]
    with pytest.raises(UsageError) as refusal:
        from_command.draft_from_command(command)
    assert sentence in placed(str(refusal.value), command.place)


# ── show-command, and back


# `{{` at the end of a word begins a template, which is refused; `.` is a folder, which a host has to tell.
_WORD = st.text(st.characters(exclude_categories=("Cs", "Cc", "Co", "Cn")), max_size=12).filter(
    lambda word: not word.endswith(("{{", "{%")) and not re.match(r"\.\.?(/|\Z)", word)
)
_EXTRA = st.dictionaries(
    st.from_regex(r"zz[a-z]{3,8}(_[a-z]{2,5})?", fullmatch=True),
    st.one_of(_WORD, st.booleans(), st.integers()),
    max_size=4,
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@example(extra={}, args=["\ufffd"], env={"AB": "\ufffd"})  # the character, which stands for no byte
@given(
    extra=_EXTRA,
    args=st.lists(_WORD, max_size=3),
    env=st.dictionaries(
        st.from_regex(r"[A-Z]{1,5}Z", fullmatch=True), _WORD, max_size=3
    ),  # a name that is no secret's
)
def test_a_printed_command_is_imported_as_it_was(
    tmp_path: Path, extra: dict[str, Any], args: list[str], env: dict[str, str]
) -> None:
    (tmp_path / "v/bin").mkdir(parents=True, exist_ok=True)
    for name in ("python", "vllm"):
        (tmp_path / "v/bin" / name).write_text(f"#!{tmp_path}/v/bin/python\n")
        (tmp_path / "v/bin" / name).chmod(0o755)
    escaped = json.loads(
        json.dumps([extra, [f"--z{n}={word}" for n, word in enumerate(args)], env]).replace("${", "$${")
    )
    fields = {"python_path": f"{tmp_path}/v/bin/python", "model_path": "org/m", "user": "root"}
    first = tmp_path / "first.json"
    first.write_text(json.dumps(fields | dict(zip(("extra_args", "args", "env_vars"), escaped, strict=True))))
    run = CliRunner()
    display = run.invoke(recipectl, ["show-command", str(first)], catch_exceptions=False).stdout
    imported = run.invoke(recipectl, ["import", "command", "-"], input=display, catch_exceptions=False).stdout
    second = tmp_path / "second.yaml"
    second.write_text(f"{imported}user: root\n")
    again = run.invoke(recipectl, ["show-command", str(second)], catch_exceptions=False).stdout
    before, after = (shell.commands(text)[0] for text in (display, again))
    assert (grouped(after.words), after.environment) == (grouped(before.words), before.environment)


OFFERS = {
    "a strategy": ({"strategy": "single_node_dep"}, "the recipe does not offer `single_node_dep`; it offers single_node_tp: give one"),
    "hardware of a variant": ({"variant": "amd"}, "variant `amd` does not offer `h200`; it offers mi300x: give one with --hardware"),
    "hardware that is unsupported": ({"hardware": "h100"}, "the recipe does not offer `h100` with single_node_tp; it offers h200, mi300x: give one"),
    "hardware for few": ({"hardware": "spark"}, "the recipe does not offer `spark` with single_node_tp; it offers h200, mi300x: give one"),
}  # fmt: skip
OFFICIAL = {
    "model": {"model_id": "org/m", "min_vllm_version": "0.11.0"},
    "compatible_strategies": ["single_node_tp", "multi_node_tp"],
    "meta": {"hardware": {"h200": "verified", "h100": "unsupported"}},
    "variants": {"default": {}, "amd": {"supported_hardware": ["mi300x"]}, "new": {"min_vllm_version": "0.22.0"},
                 "odd": {"min_vllm_version": "nightly", "nightly_required": True}},
}  # fmt: skip
TAXONOMY = {"hardware_profiles": {"h200": {}, "h100": {}, "mi300x": {}, "spark": {"restricted": True}}}
STRATEGIES: dict[str, Any] = {"single_node_tp": {}, "single_node_dep": {}}


@pytest.mark.parametrize(("choice", "sentence"), OFFERS.values(), ids=OFFERS.keys())
def test_what_vllms_site_does_not_offer_is_refused(choice: dict[str, str], sentence: str) -> None:
    with pytest.raises(UsageError, match=re.escape(sentence)):
        vllm_recipes.draft(OFFICIAL, TAXONOMY, STRATEGIES, vllm_recipes.Choice(**choice), "m.yaml")  # type: ignore[arg-type]


def test_the_oldest_version_of_a_variant_counts_and_nightly_is_none() -> None:
    drafts = {
        name: vllm_recipes.draft(OFFICIAL, TAXONOMY, STRATEGIES, vllm_recipes.Choice(name), "m.yaml")
        for name in ("default", "new", "odd")
    }
    versions = {name: draft.fields.get("engine_version") for name, draft in drafts.items()}
    assert versions == {"default": ">=0.11.0", "new": ">=0.22.0", "odd": None}
    assert len(losses(drafts["odd"])) == 2


# ── other tools


@corpus.NEEDED
def test_official_recipes_give_the_official_command(tmp_path: Path) -> None:
    home = corpus.FOLDER / "vllm-recipes"
    taxonomy = yaml.safe_load((home / "taxonomy.yaml").read_text())
    strategies = {
        path.stem: yaml.safe_load(path.read_text()) for path in (home / "strategies").glob("*.yaml")
    }
    recipes = {
        f"{path.parent.name}/{path.stem}": yaml.safe_load(path.read_text())
        for path in (home / "models").glob("*/*.yaml")
    }
    checked, differ = 0, []
    for row in map(json.loads, corpus.COMMANDS.read_text().splitlines()):
        org, name, *rest = row["source"].split("/")
        recipe = recipes.get(f"{org}/{name}")
        named = dict(zip(rest[::2], rest[1::2], strict=True))
        if (
            recipe is None
            or row["role"] != "single"
            or not named.get("strategies", "single_").startswith("single_")
        ):
            continue
        # The site's own choice of hardware, where the row names none: it follows the variant's precision.
        hardware = (
            [named["hw"]]
            if "hw" in named
            else [recipe["meta"].get("default_hardware"), "h200", "b200", *taxonomy["hardware_profiles"]]
        )
        served = {
            key
            for key, entry in recipe["variants"].items()
            if (entry.get("model_id") or recipe["model"]["model_id"]) == row["argv"][2]
        }
        result = []
        for place in filter(None, hardware):
            for variant in served:
                strategy = named.get("strategies") or recipe.get("default_strategy")
                choice = vllm_recipes.Choice(variant, place, strategy or vllm_recipes.DEFAULT_STRATEGY)
                result.append(vllm_recipes.official_command(recipe, taxonomy, strategies, choice))
        checked += 1
        if (row["argv"], {key: str(value) for key, value in row["env"].items()}) not in result:
            differ.append(row["source"])
    assert (checked, differ) == (284, [])


@corpus.NEEDED
def test_an_official_recipe_compiles_to_the_official_words(tmp_path: Path) -> None:
    file = corpus.FOLDER / "vllm-recipes/models/openai/gpt-oss-120b.yaml"
    outcome = CliRunner().invoke(
        recipectl, ["import", "vllm-recipe", str(file), "--hardware", "mi300x", "-o", str(tmp_path)]
    )
    assert outcome.output == f"{tmp_path}/gpt-oss-120b.yaml\n"
    steps = compiled(Draft("a", load_fields(tmp_path / "gpt-oss-120b.yaml")), tmp_path)
    rows = map(json.loads, corpus.COMMANDS.read_text().splitlines())
    row = next(row for row in rows if row["source"] == "openai/gpt-oss-120b/hw/mi300x")
    assert grouped(list(steps.argv[2:])) == grouped(row["argv"][2:])


def load_fields(path: Path) -> dict[str, Any]:
    result: dict[str, Any] = read_document((path,))[0]
    return result


STUDIO = {
    "minimal vLLM": (
        {"model_path": "/models/Qwen3-8B"},
        "/models/Qwen3-8B --host 0.0.0.0 --port 8000 --max-model-len 32768 --gpu-memory-utilization 0.9 --max-num-seqs 256 --trust-remote-code --reasoning-parser qwen3",
    ),
    "minimal SGLang": (
        {"model_path": "/models/Qwen3-8B", "backend": "sglang"},
        "--model-path /models/Qwen3-8B --host 0.0.0.0 --port 8000 --context-length 32768 --mem-fraction-static 0.9 --max-running-requests 256 --trust-remote-code",
    ),
    "all fields": (
        {"model_path": "/m/Foo-70B", "host": "127.0.0.1", "port": 8001, "served_model_name": "foo", "tp": 4, "pp": 2,
         "max_model_len": 65536, "gpu_memory_utilization": 0.85, "max_num_seqs": 64, "kv_cache_dtype": "fp8", "trust_remote_code": False,
         "tool_call_parser": "hermes", "reasoning_parser": "deepseek_r1", "quantization": "awq", "dtype": "bfloat16",
         "extra_args": {"enable_prefix_caching": True, "swap_space": 0, "seed": None, "speculative_config": {"method": "mtp", "num-speculative-tokens": 1},
                        "limit-mm-per-prompt": {"image": 2}, "description": "x", "tags": ["t"], "status": "running"}},
        "/m/Foo-70B --host 127.0.0.1 --port 8001 --served-model-name foo --tensor-parallel-size 4 --pipeline-parallel-size 2 --max-model-len 65536 "
        "--gpu-memory-utilization 0.85 --max-num-seqs 64 --kv-cache-dtype fp8 --tool-call-parser hermes --enable-auto-tool-choice --reasoning-parser deepseek_r1 "
        """--quantization awq --dtype bfloat16 --enable-prefix-caching --swap-space 0 --speculative-config '{"method": "mtp", "num_speculative_tokens": 1}' """
        """--limit-mm-per-prompt '{"image": 2}'""",
    ),
    "GLM-4.6": (
        {"model_path": "/m/GLM-4.6"},
        "/m/GLM-4.6 --host 0.0.0.0 --port 8000 --max-model-len 32768 --gpu-memory-utilization 0.9 --max-num-seqs 256 --trust-remote-code "
        "--tool-call-parser glm45 --enable-auto-tool-choice --reasoning-parser glm45",
    ),
    "MiniMax-M2 on 8 GPUs": (
        {"model_path": "/m/MiniMax-M2", "tp": 8},
        "/m/MiniMax-M2 --host 0.0.0.0 --port 8000 --tensor-parallel-size 8 --enable-expert-parallel --max-model-len 32768 --gpu-memory-utilization 0.9 "
        "--max-num-seqs 256 --trust-remote-code --reasoning-parser minimax_m2_append_think",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("recipe", "command"), STUDIO.values(), ids=STUDIO.keys())
def test_vllm_studios_recipes_keep_their_command(
    tmp_path: Path, recipe: dict[str, Any], command: str
) -> None:
    outcome = compiled(vllm_studio.draft({"id": "a", "name": "A"} | recipe, "x.json"), tmp_path)
    assert grouped(list(outcome.argv[len(outcome.runtime.command) :])) == grouped(shlex.split(command))


def test_what_vllm_studio_did_wrong_is_put_right_and_told() -> None:
    extra = {"async_scheduling": False, "max_modle_len": 1, "cuda_visible_devices": 0, "env_vars": {"A": "1"}}
    draft = vllm_studio.draft(
        {"id": "a", "name": "A", "model_path": "/m", "env_vars": {"A": "2"}, "extra_args": extra}, "x"
    )
    assert (draft.fields["gpus"], draft.fields["env_vars"]) == ([0], {"A": "2"})
    assert draft.comments["extra_args.async-scheduling"].endswith("the recipe passes --no-async-scheduling.")
    assert "has no --max-modle-len" in draft.comments["extra_args.max-modle-len"]
    assert "which overrode `env_vars`" in losses(draft)[0]


@pytest.mark.parametrize("column", ["data", "json"])
def test_vllm_studios_database_is_read(tmp_path: Path, column: str) -> None:
    with sqlite3.connect(tmp_path / "controller.db") as base:
        base.execute(f"CREATE TABLE recipes (id TEXT, {column} TEXT)")
        base.execute(
            "INSERT INTO recipes VALUES ('a', ?)", [json.dumps({"id": "a", "name": "A", "model_path": "/m"})]
        )
    base.close()
    run = CliRunner().invoke(
        recipectl, ["import", "vllm-studio", str(tmp_path / "controller.db"), "-o", str(tmp_path)]
    )
    assert (run.exit_code, run.stdout) == (0, f"{tmp_path}/a.yaml\n")


def test_llama_swaps_groups_say_who_stops_whom(tmp_path: Path) -> None:
    config = yaml.safe_load("""
models:
  a: {cmd: "llama-server -m /a.gguf --alias x", aliases: [y]}
  b: {cmd: "llama-server -m /b.gguf -ot .ffn_(up|down)_exps.=CPU"}
  c: {cmd: "llama-server -m /c.gguf"}
  d:
groups: {one: {swap: false, members: [a, b]}, two: {swap: false, members: [c]}}
""")
    imported = llama_swap.imported(config, "c.yaml")
    result, lost = imported.drafts, losses(imported)
    assert [(entry.name, entry.fields["conflicts"], entry.fields["port"]) for entry in result] == [
        ("a", ["c"], 5800), ("b", ["c"], 5801), ("c", ["a", "b"], 5802)
    ]  # fmt: skip
    assert result[0].fields["served_model_name"] == "x,a,y"
    assert lost[:-1] == ["model `d`: it has no settings; give it a `cmd`"]
    assert lost[-1].startswith("clients on other machines: ")


def test_llama_swaps_one_address_becomes_the_gateway_of_the_host_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("recipectl.place._SYSTEM_BASES", (tmp_path / "recipectl",))
    config = tmp_path / "c.yaml"
    config.write_text("""
apiKeys: [sk-of-anna]
models:
  a: {cmd: "llama-server -m /a.gguf --port ${PORT}", aliases: [first]}
  b: {cmd: "python -m sglang.launch_server --model-path /b --port ${PORT}", aliases: [second]}
""")
    words = ["import", "llama-swap", str(config), "-o", str(tmp_path / "recipectl/recipes")]
    written = CliRunner().invoke(recipectl, words, catch_exceptions=False)
    file = tmp_path / "recipectl/host.yaml"
    assert str(file) in written.stdout.splitlines()
    assert yaml.safe_load(file.read_text()) == {
        "gateway": {"listen": "127.0.0.1:8080", "names": {"second": "b"}}
    }
    assert "`apiKeys:`: write each as a line `name key`" in written.stderr
    assert "sk-of-anna" not in written.output
    printed = CliRunner().invoke(recipectl, words[:3], catch_exceptions=False)
    assert f"add to {file}:\ngateway:\n  listen: 127.0.0.1:8080\n" in printed.stderr
    own = CliRunner().invoke(recipectl, ["--user", *words[:3]], catch_exceptions=False)
    assert "which only the system can have" in own.stderr


def test_what_vllm_studio_passed_counts() -> None:
    given = {
        "id": "a",
        "name": "A",
        "model_path": "/m",
        "port": "8001",
        "max_num_seqs": 0,
        "env_vars": {"A": "1"},
        "envVars": {"B": "2"},
    }
    draft = vllm_studio.draft(given | {"extra_args": {"max_model_len": 4096}}, "x")
    assert (draft.fields["port"], draft.fields["max_model_len"], draft.fields["env_vars"]) == (
        8001,
        32768,
        {"A": "1", "B": "2"},
    )
    assert "max_num_seqs" not in draft.fields
    assert "`max_model_len: 4096` of extra_args, for VLLM Studio passed --max-model-len 32768" in str(
        losses(draft)
    )


def test_what_no_engine_takes_is_named_and_a_default_does_not_contradict_extra_args() -> None:
    fields = {"id": "a", "model_path": "/m", "max_model_len": 0, "gpu_memory_utilization": 0}
    draft = vllm_studio.draft(fields | {"extra_args": {"trust_remote_code": False}}, "x")
    assert {"max_model_len", "gpu_memory_utilization", "trust_remote_code"}.isdisjoint(draft.fields)
    assert sum("which no engine accepts" in text for text in losses(draft)) == 2


@pytest.mark.parametrize(("wrapper", "told"), [
    ("/usr/bin/tini -s --", ""), ("gosu app", "see `user:`"), ("strace -f -o /tmp/x", "the engine runs without it"),
    ("/sbin/ip netns exec vpn", "the engine uses the network of this host"),
    ("op run --env-file=/etc/x --", "put what it gives into `secrets:`"),
])  # fmt: skip
def test_a_program_around_an_engine_is_taken_off_and_named(wrapper: str, told: str) -> None:
    draft = systemd_unit.draft(
        f"[Service]\nRestart=always\nExecStart={wrapper} /v/bin/vllm serve /m\n", "a", "a"
    )
    assert (draft.fields["model_path"], draft.fields["python_path"]) == ("/m", "/v/bin/python")
    named = [text for text in losses(draft) if "before the program" in text]
    assert [text for text in named if text.endswith(told)] == named
    assert bool(named) == bool(told)


def test_an_official_recipe_names_its_image_and_sets_the_accelerator_of_its_hardware() -> None:
    taxonomy = {"hardware_profiles": {"mi9": {"brand": "AMD", "gpu_count": 8}, "xeon": {"generation": "cpu"}}}
    recipe = {
        "model": {"model_id": "org/m", "docker_image": {"amd": "rocm/vllm:m", "default": "vllm:latest"}},
        "install": {"docker": {"note": "Use the\npreview image"}},
    }
    choices = (vllm_recipes.Choice(hardware=name) for name in ("mi9", "xeon"))
    amd, cpu = (vllm_recipes.draft(recipe, taxonomy, STRATEGIES, choice, "m.yaml") for choice in choices)
    assert (amd.fields["accelerator"], cpu.fields["gpus"]) == ("rocm", "none")
    assert "the image `rocm/vllm:m`; install its version of vLLM on this host" in losses(amd)
    assert "`install.docker`: Use the preview image" in losses(amd)
    assert not any("latest" in text for text in losses(cpu))


def test_a_row_that_is_no_recipe_stops_no_other(tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / "controller.db") as base:
        base.execute("CREATE TABLE recipes (id TEXT, data TEXT)")
        rows = [("a", "{"), ("b", json.dumps({"id": "b", "name": "B", "model_path": "/m"}))]
        base.executemany("INSERT INTO recipes VALUES (?, ?)", rows)
    base.close()
    run = CliRunner().invoke(recipectl, ["import", "vllm-studio", str(tmp_path / "controller.db")])
    assert (run.exit_code, "model_path: /m" in run.stdout, "row 1 is not a recipe" in run.stderr) == (
        0,
        True,
        True,
    )


def test_llama_swaps_models_become_recipes_on_demand() -> None:
    config = yaml.safe_load("""
startPort: 9000
healthCheckTimeout: 500
macros: {llama: "/l/llama-server --port ${PORT}", ctx: 4096}
models:
  chat:
    cmd: |
      # ${unknown} in a comment
      ${llama} -m /m/chat.gguf
      -c ${ctx}
    env: ["CUDA_VISIBLE_DEVICES=0"]
    ttl: 60
    aliases: [gpt]
  other: {cmd: "${llama} -m ${env.MODELS}/o.gguf"}
  broken: {cmd: "ls"}
groups: {together: {swap: false, members: [other]}}
""")
    imported = llama_swap.imported(config, "c.yaml")
    (chat, other), gateway, lost = imported.drafts, imported.gateway, losses(imported)
    assert gateway == {"listen": "127.0.0.1:8080"}
    assert chat.fields == {
        "backend": "llamacpp", "binary": "/l/llama-server", "model_path": "/m/chat.gguf", "port": 9000, "max_model_len": 4096,
        "gpus": [0], "served_model_name": "chat,gpt", "ready": {"timeout_sec": 500}, "on_demand": {"idle": 60},
    }  # fmt: skip
    assert (other.variables, other.fields["port"], other.fields["gpu_sharing"]) == (("MODELS",), 9001, "free")
    assert lost[:-1] == ["model `broken`: `ls`, which runs no engine"]


@corpus.NEEDED
def test_llama_swaps_own_example_is_read() -> None:
    config = yaml.safe_load((corpus.FOLDER / "llama-swap.config.example.yaml").read_text())
    imported = llama_swap.imported(config, "config.yaml")
    drafts, lost = imported.drafts, losses(imported)
    assert [entry.name for entry in drafts] == ["gpt-oss-120b", "docker-llama"]
    assert not any("sk-" in text for text in lost)


UNIT = """[Unit]
Description=Our model
[Service]
User=vllm
Environment="A=b c" CUDA_VISIBLE_DEVICES=0
EnvironmentFile=-/etc/default/vllm
ExecStart=/old
ExecStart=
ExecStart=/opt/v/bin/vllm serve /models/%p \\
    --port 8000 \\
    # told in a comment
    --limit-mm-per-prompt '{"image": 2}' --chat-template "a\\tb" --seed ${SEED}
MemoryMax=100G
Restart=always
TimeoutStartSec=10min
"""


def test_a_hand_written_unit_becomes_a_recipe() -> None:
    draft = systemd_unit.draft(UNIT, "chat", "chat.service")
    assert draft.fields | {"extra_args": None} == {
        "description": "Our model", "backend": "vllm", "python_path": "/opt/v/bin/python", "model_path": "/models/chat", "port": 8000,
        "extra_args": None, "gpus": [0], "env_vars": {"A": "b c"}, "user": "vllm", "service": {"MemoryMax": "100G"},
    }  # fmt: skip
    assert draft.fields["extra_args"]["chat-template"] == "a\tb"
    assert draft.variables == ("SEED",)
    assert losses(draft) == [
        "line 6: the variables in /etc/default/vllm, which cannot be read here and win over Environment=; set them in `env_vars:` or `secrets:`",
        "line 15: TimeoutStartSec=10min, which did not limit its load; see `ready.timeout_sec`",
    ]


def test_a_units_drop_ins_and_its_instance_count(tmp_path: Path) -> None:
    (tmp_path / "vl@qwen.service").write_text(
        "[Service]\nExecStart=/opt/v/bin/vllm serve %S/models/%i\nEnvironment=A=1\n"
    )
    folder = tmp_path / "vl@qwen.service.d"
    folder.mkdir()
    (folder / "10-x.conf").write_text(
        "[Service]\nEnvironment=\nEnvironment=B=2\nDeviceAllow=/dev/a rw\nDeviceAllow=/dev/b rw\nRestart=no\nLoadCredential=x:/y\n[Install]\nWantedBy=multi-user.target\n"
    )
    outcome = CliRunner().invoke(
        recipectl, ["import", "unit", str(tmp_path / "vl@qwen.service")], catch_exceptions=False
    )
    result = yaml.safe_load(outcome.stdout)
    assert (result["model_path"], result["env_vars"], result["autostart"]) == (
        "/var/lib/models/qwen",
        {"B": "2"},
        True,
    )
    assert result["service"] == {"DeviceAllow": ["/dev/a rw", "/dev/b rw"]}
    assert "Restart=no" in outcome.stderr
    assert "LoadCredential=x:/y" in outcome.stderr


@pytest.mark.parametrize(
    "text", ["bash -lc 'vllm serve /m --port 1'", "sh -c 'vllm serve /m --port 1 | tee log'"]
)
def test_a_units_shell_is_looked_through_for_the_engine(text: str) -> None:
    outcome = systemd_unit.draft(
        f"[Service]\nExecStart=/bin/{text}\nTimeoutStartSec=infinity\n", "m", "m.service"
    )
    assert (outcome.fields["model_path"], outcome.fields["port"], outcome.fields["ready"]) == (
        "/m",
        1,
        {"timeout_sec": 31536000},
    )


def test_a_unit_that_goes_through_a_shell_is_read_too() -> None:
    text = "[Service]\nExecStart=/bin/bash -c 'source /opt/v/bin/activate && exec vllm serve /m --port 1'\n"
    assert systemd_unit.draft(text, "m", "m.service").fields == {
        "backend": "vllm",
        "venv_path": "/opt/v",
        "model_path": "/m",
        "port": 1,
    }


def test_a_units_file_of_variables_wins_over_its_variables(tmp_path: Path) -> None:
    file = tmp_path / "engine.env"
    text = f"[Service]\nUser=u\nEnvironment=MODEL=/models/small B=1\nEnvironmentFile=-{file}\nExecStart=/v/bin/vllm serve ${{MODEL}}\n"
    unknown = systemd_unit.draft(text, "m", "m.service")
    assert (unknown.variables, "/models/small" in str(unknown.fields)) == (("MODEL",), False)
    assert any(str(file) in note for note in losses(unknown))
    file.write_text("# MODEL=no\nMODEL=/models/big\nC='x y' \n")
    known = systemd_unit.draft(text, "m", "m.service")
    assert known.fields["model_path"] == "/models/big"
    assert known.fields["env_vars"] == {"MODEL": "/models/big", "B": "1", "C": "x y"}


@pytest.mark.parametrize(
    ("content", "value"),
    [("A=b c ", "b c"), ('A="b\\"c"d', 'b"cd'), ("A='b\\c'", "b\\c"), ("A=b\\\n  c", "b  c"), ("A=\\x", "x"), ("A=", ""),
     ("#A=b", None), ("export A=b", None), ("A='b\nc'", "b\nc"), ("A=b'c' \"d\"", "b'c' \"d\""), ("A='b' c'd'", "bc'd'"), ("A =b\\ ", "b "), ("A=b#c", "b#c"), ("  A= b", "b")],
)  # fmt: skip
def test_a_file_of_variables_is_read_as_systemd_reads_it(content: str, value: str | None) -> None:
    assert dict(quoting.environment_file(f"{content}\n")).get("A") == value


def test_what_a_unit_says_about_restarts_and_its_user_is_kept_or_named() -> None:
    text = "[Service]\nExecStart=/v/bin/vllm serve /m\nRestart=on-failure\nRestartSec=15\nStartLimitBurst=3\nKillMode=process\nTimeoutStopSec=30\nSyslogIdentifier=a\n[Install]\nAlias=b.service\n"
    draft = systemd_unit.draft(text, "m", "m.service")
    assert draft.fields["service"] == {
        "RestartSec": "15", "StartLimitBurst": "3", "TimeoutStopSec": "30", "SyslogIdentifier": "a",
    }  # fmt: skip
    told = "\n".join(losses(draft))
    for part in ("Restart=on-failure", "KillMode=process", "Alias=b.service", "it ran as root"):
        assert part in told
    assert "ran as root" not in str(
        losses(systemd_unit.draft(text + "[Service]\nUser=u\n", "m", "m.service"))
    )


def test_the_cache_of_the_user_that_ran_it_stays_in_use_or_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = "[Service]\nUser=someone\nRestart=always\nExecStart=/v/bin/vllm serve org/m\n"
    assert "cache of user someone" in str(losses(systemd_unit.draft(text, "m", "m.service")))
    (tmp_path / ".cache/huggingface").mkdir(parents=True)
    entry = pwd.struct_passwd(("someone", "x", 1, 1, "", str(tmp_path), "/bin/sh"))
    monkeypatch.setattr(pwd, "getpwnam", lambda _: entry)
    draft = systemd_unit.draft(text, "m", "m.service")
    assert (draft.fields["env_vars"], losses(draft)) == (
        {"HF_HOME": f"{tmp_path}/.cache/huggingface"},
        [],
    )


def test_a_units_own_script_is_read_with_the_units_variables(tmp_path: Path) -> None:
    script = tmp_path / "start.sh"
    text = f"[Service]\nUser=u\nEnvironment=PORT=8001\nExecStart={script}\n"
    with pytest.raises(UsageError, match=f"recipectl import command {script}"):
        systemd_unit.draft(text, "m", "m.service")
    script.write_text("#!/bin/bash\nexec /v/bin/vllm serve /m --port ${PORT:-8000}\n")
    draft = systemd_unit.draft(text, "m", "m.service")
    assert (draft.fields["port"], draft.fields["user"]) == (8001, "u")
    script.write_text("#!/bin/bash\nfor i in 1 2; do\n  /v/bin/vllm serve /m\ndone\n")
    with pytest.raises(UsageError, match=f"^line 4: {script}: line 3: it is in a loop"):
        systemd_unit.draft(text, "m", "m.service")


def test_what_a_unit_waits_for_and_writes_to_is_carried_over() -> None:
    text = (
        "[Unit]\nAfter=network-online.target data.mount\n[Service]\nExecStart=/opt/v/bin/vllm serve m\n"
        "StandardOutput=append:/var/log/m\nKillSignal=SIGINT\nLimitNOFILE=65536\n"
    )
    expected = {"After": "data.mount", "StandardOutput": "append:/var/log/m", "KillSignal": "SIGINT"}
    expected |= {"LimitNOFILE": "65536"}
    assert systemd_unit.draft(text, "m", "m.service").fields["service"] == expected


def test_words_in_ansi_quotes_follow_what_stands_before_them() -> None:
    assert shell.commands("vllm serve m --x=$'\u00e9'", {})[0].words[-1] == "--x=\u00e9"


WRAPPED = {
    "nice": ("nice -n 5", {"Nice": "5"}),
    "nice, in one word": ("nice -n5", {"Nice": "5"}),
    "taskset": ("taskset -c 0,2-4", {"CPUAffinity": "0 2-4"}),
    "taskset with a mask": ("taskset 0x5", {"CPUAffinity": "0 2"}),
    "ionice": ("ionice -c2 -n 7", {"IOSchedulingClass": "best-effort", "IOSchedulingPriority": "7"}),
    "numactl": ("numactl --membind=1", {"NUMAPolicy": "bind", "NUMAMask": "1"}),
    "numactl, both": ("numactl -N 0 -m 0", {"NUMAPolicy": "bind", "NUMAMask": "0", "CPUAffinity": "numa"}),
    "systemd-run": ("systemd-run --user --scope -p MemoryMax=90% --property CPUQuota=50%", {"MemoryMax": "90%", "CPUQuota": "50%"}),
    "two": ("numactl --interleave=0-1 nice -n 3", {"NUMAPolicy": "interleave", "NUMAMask": "0-1", "Nice": "3"}),
}  # fmt: skip


@pytest.mark.parametrize(("wrapper", "settings"), WRAPPED.values(), ids=WRAPPED.keys())
def test_what_stands_before_an_engine_becomes_settings(wrapper: str, settings: dict[str, str]) -> None:
    draft = from_command.draft_from_command(shell.commands(f"{wrapper} /v/bin/vllm serve /m", {})[0])
    assert (draft.fields["service"], losses(draft)) == (settings, [])


@pytest.mark.parametrize(("words", "models", "told"), [
    ("CUDA_VISIBLE_DEVICES=0", ["A", "A"], []),
    ("CUDA_VISIBLE_DEVICES=0", ["A", "B"], ["CUDA counted the fastest GPU first, and this host has A, B; `gpus:` counts as nvidia-smi counts: correct it"]),
    ("CUDA_VISIBLE_DEVICES=0 CUDA_DEVICE_ORDER=PCI_BUS_ID", ["A", "B"], []),
    ("CUDA_VISIBLE_DEVICES=GPU-0", ["A", "B"], []),
])  # fmt: skip
def test_another_order_of_the_gpus_is_named(
    words: str, models: list[str], told: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    gpus = [nvidia.Gpu(str(number), "", model) for number, model in enumerate(models)]
    monkeypatch.setattr(nvidia, "gpus", lambda: gpus)
    draft = from_command.draft_from_command(shell.commands(f"{words} /v/bin/vllm serve /m", {})[0])
    assert (
        [text.removeprefix("line 1: ") for text in losses(draft)],
        draft.comments.get("gpus"),
    ) == (told, None)


def test_what_systemd_run_gives_besides_settings_is_kept() -> None:
    text = "systemd-run -E A=b --setenv=C=d --uid bob --on-calendar=daily /v/bin/vllm serve /m"
    draft = from_command.draft_from_command(shell.commands(text, {})[0])
    assert (draft.fields["env_vars"], draft.fields["user"]) == ({"A": "b", "C": "d"}, "bob")
    assert losses(draft) == ["line 1: `systemd-run --on-calendar=daily` before the program"]


@pytest.mark.parametrize("own", [
    "$(pwd)", "$(dirname $0)", '$(dirname "$0")', '$(cd "$(dirname "$0")" && pwd)', "$( cd -- \"$(dirname -- \"${BASH_SOURCE[0]}\")\" &> /dev/null && pwd )",
    '$(dirname "$(readlink -f "$0")")', '$(dirname $(realpath "$0"))',
])  # fmt: skip
def test_a_script_that_finds_its_own_folder_has_it_in_its_recipe(own: str) -> None:
    text = f'DIR="{own}"\nexec "$DIR/venv/bin/vllm" serve "$DIR/weights"'
    draft = from_command.draft_from_command(shell.commands(text, folder="/srv/a")[0])
    assert (draft.fields["model_path"], draft.variables) == ("/srv/a/weights", ())
    unknown = from_command.draft_from_command(shell.commands(text)[0])
    assert unknown.variables == ("WEIGHTS_DIR",)


def test_what_vllm_studio_keeps_for_itself_is_no_flag() -> None:
    common = {"model_path": "/m", "vision": True, "crash_loop": {"blocked": False}, "docker_image": "i:1", "thinking_mode": None,
              "launch_command": "x", "metadata": {"a": 1}, "visible_devices": "1,2"}  # fmt: skip
    runtimes = {
        "python": ("vllm", {"kind": "system", "ref": "/v/bin/python3.12"}, {"python_path": "/v/bin/python3.12"}),
        "venv": ("sglang", {"kind": "venv", "ref": "/v"}, {"venv_path": "/v"}),
        "binary": ("llamacpp", {"kind": "binary", "ref": "/l/llama-server"}, {"binary": "/l/llama-server"}),
        "docker": ("vllm", {"kind": "docker", "ref": "i:1"}, {}),
    }  # fmt: skip
    for name, (backend, runtime, expected) in runtimes.items():
        draft = vllm_studio.draft({"id": name, "backend": backend, "runtime": runtime, **common}, "s")
        assert "extra_args" not in draft.fields
        assert draft.fields["gpus"] == [1, 2]
        assert {
            key: draft.fields[key] for key in ("python_path", "venv_path", "binary") if key in draft.fields
        } == expected
        told = str(losses(draft))
        assert all(key in told for key in ("vision", "docker_image", "launch_command", "metadata"))
        assert ("`i:1` (docker)" in told, "crash_loop" in told) == (name == "docker", False)


def test_a_conda_environment_is_its_python() -> None:
    for text, python in (
        ("source ~/conda/etc/profile.d/conda.sh\nconda activate x", f"{from_command.host_variable('HOME')}/conda/envs/x/bin/python"),
        (". /opt/conda/etc/profile.d/conda.sh; conda activate base", "/opt/conda/bin/python"),
        ("conda activate /srv/env", "/srv/env/bin/python"),
    ):  # fmt: skip
        draft = from_command.draft_from_command(
            shell.commands(f"{text}\npython -m sglang.launch_server --model-path /m")[0]
        )
        assert (draft.fields["python_path"], losses(draft)) == (python, [])
    draft = from_command.draft_from_command(shell.commands("conda activate x\nvllm serve /m")[0])
    assert "`conda activate x`; give its `bin/python`" in str(losses(draft))
    assert "conda run" in str(
        losses(from_command.draft_from_command(shell.commands("conda run -n x vllm serve /m")[0]))
    )


def test_a_variable_from_a_substitution_is_never_dropped() -> None:
    text = 'export CUDA_VISIBLE_DEVICES=$(pick)\nexport A="`date`" B=1\nX="$(id)/y" /v/bin/vllm serve /m'
    draft = from_command.draft_from_command(shell.commands(text)[0])
    names = {"CUDA_VISIBLE_DEVICES": "M_CUDA_VISIBLE_DEVICES", "A": "M_A", "X": "M_X"}
    recipe = yaml.safe_load(render(draft))
    assert recipe["env_vars"] == {name: f"${{{variable}}}" for name, variable in names.items()} | {"B": "1"}
    assert draft.variables == tuple(sorted(names.values()))
    assert sum("set from a substitution" in note for note in losses(draft)) == 3


def test_a_persistent_group_is_stopped_by_nobody() -> None:
    models = {name: {"cmd": f"llama-server -m /{name}.gguf --port ${{PORT}}"} for name in "ab"}
    always = {"persistent": True, "swap": False, "exclusive": False, "members": ["a"]}
    drafts, *_ = llama_swap.imported({"models": models, "groups": {"always": always}}, "c")
    assert [draft.fields.get("conflicts") for draft in drafts] == [None, None]
    drafts, *_ = llama_swap.imported(
        {"models": models, "groups": {"other": always | {"persistent": False}}}, "c"
    )
    assert [draft.fields.get("conflicts") for draft in drafts] == [["b"], None]  # the GPUs say it too
    assert "`a` did not stop `b`; here each stops the other" in losses(drafts[0])


def test_a_configuration_of_which_nothing_was_imported_fails(tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text("models: {a: {cmd: 'llama-server -mu http://o/a --port ${PORT}'}}\n")
    assert (
        CliRunner()
        .invoke(recipectl, ["import", "llama-swap", str(tmp_path / "c.yaml")], standalone_mode=False)
        .return_value
        == 2
    )


def test_a_container_that_comes_up_with_the_host_starts_at_boot() -> None:
    text = "docker run -d --restart {} vllm/vllm-openai --model /m"
    drafts = {word: from_command.draft_from_command(shell.commands(text.format(word))[0]) for word in ("always", "unless-stopped", "no", "on-failure:3")}  # fmt: skip
    assert {word: draft.fields.get("autostart") for word, draft in drafts.items()} == {"always": True, "unless-stopped": True, "no": None, "on-failure:3": None}  # fmt: skip
    assert "on-failure:3" in str(losses(drafts["on-failure:3"]))
    assert all("published no port" in str(losses(draft)) for draft in drafts.values())
    assert "published" not in str(losses(from_command.draft_from_command(shell.commands("docker run --network host vllm/vllm-openai --model /m")[0])))  # fmt: skip


def test_a_devices_container_name_is_a_gpu() -> None:
    text = "podman run -p 8000:8000 --device nvidia.com/gpu=0 --device nvidia.com/gpu=2 vllm/vllm-openai --model org/m"
    draft = from_command.draft_from_command(shell.commands(text, {})[0])
    assert (draft.fields["gpus"], losses(draft)) == ([0, 2], [])


@pytest.mark.parametrize(("words", "is_named"), [
    ("--gpus all", True), ("--gpus=all", True), ("--gpus '\"all\"'", True), ("--device nvidia.com/gpu=all", True),
    ("-e NVIDIA_VISIBLE_DEVICES=all", True), ("--gpus all -e CUDA_VISIBLE_DEVICES=1", False), ("", False),
])  # fmt: skip
def test_a_container_that_had_all_gpus_is_named(words: str, is_named: bool) -> None:
    text = f"docker run {words} -p 8000:8000 vllm/vllm-openai --model org/m"
    draft = from_command.draft_from_command(shell.commands(text, {})[0])
    lost = (
        []
        if words
        else ["line 1: the container was given no GPUs, and the recipe has all of them; see `gpus:`"]
    )
    assert ("It had all GPUs" in draft.comments[""], losses(draft)) == (is_named, lost)


def test_the_path_and_the_venv_of_the_engine_itself_are_no_loss() -> None:
    text = "PATH=/opt/l/bin:/usr/bin VIRTUAL_ENV=/opt/l /opt/l/bin/llama-server --model /m"
    draft = from_command.draft_from_command(shell.commands(text, {})[0])
    assert (losses(draft), "env_vars" in draft.fields) == ([], False)


def test_a_variable_of_a_unit_is_split_as_systemd_splits_it() -> None:
    text = """[Service]\nEnvironment="ARGS=--port 1 --chat-template 'a b'"\nExecStart=/v/bin/vllm serve a/b $ARGS\n"""
    draft = systemd_unit.draft(text, "m", "m.service")
    assert (draft.fields["port"], draft.fields["extra_args"]) == (1, {"chat-template": "a b"})


def test_the_last_setting_of_a_unit_counts() -> None:
    text = "[Unit]\nDescription=old\nDescription=new\n[Service]\nUser=u\nUser=\nExecStart=+/v/bin/vllm serve a/b ; /v/bin/vllm serve c/d\n[Install]\nWantedBy=\n"
    draft = systemd_unit.draft(text, "m", "m.service")
    assert (draft.fields["description"], draft.fields.get("user"), "autostart" in draft.fields) == (
        "new",
        None,
        False,
    )
    told = str(losses(draft))
    assert all(part in told for part in ("it ran as root", "the prefix `+`", "serve c/d"))


WRAPPERS = {
    "nice": {"Nice": "10"}, "nice -n -5": {"Nice": "-5"}, "nice -n 5 nice -n 3": {"Nice": "8"}, "nice -n 25": {"Nice": "19"},
    "taskset -c 0-7:2": {"CPUAffinity": "0 2 4 6"}, "systemd-run --slice=a": {"Slice": "a.slice"},
}  # fmt: skip


@pytest.mark.parametrize(("wrapper", "service"), WRAPPERS.items())
def test_a_wrapper_gives_what_it_gave(wrapper: str, service: dict[str, str]) -> None:
    assert drafted(f"{wrapper} vllm serve a/b").fields["service"] == service


def test_a_list_of_processors_that_systemd_has_no_form_for_is_named() -> None:
    draft = drafted("numactl -C all vllm serve a/b")
    assert ("service" in draft.fields, "numactl -C all" in str(losses(draft))) == (False, True)


def test_an_endless_value_is_refused() -> None:
    with pytest.raises(UsageError, match="longer than 128 KiB"):
        shell.commands("A=aaaaaaaaaa\n" + 7 * "A=$A$A$A$A$A$A$A$A$A$A\n" + "vllm serve /m --x $A\n")
    assert drafted(f"vllm serve a/b --port {'9' * 5000}").fields["model_path"] == "a/b"
    assert drafted("sudo -u bob -g ai vllm serve a/b").fields["service"] == {"SupplementaryGroups": "ai"}
