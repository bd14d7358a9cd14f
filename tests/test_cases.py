"""What people have, as in tests/cases: each file becomes the right recipe, or what it lacks is named."""

import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import forked
import pytest
import yaml

CASES = Path(__file__).with_name("cases")
AGENT = Path(__file__).parents[1] / "agent"
Result = subprocess.CompletedProcess[str]


def imported(verb: str, path: Path) -> Result:
    return forked.recipectl("import", verb, str(path))


def recipes(result: Result) -> list[dict[str, Any]]:
    """The recipes that were printed; several stand below lines of their own."""
    return [recipe for part in result.stdout.split("# ── ") if (recipe := yaml.safe_load(f"# {part}"))]


def has(**fields: Any) -> Callable[[Result], bool]:
    """One recipe, with these fields; a value of None is a field that it lacks."""

    def check(result: Result) -> bool:
        (recipe,) = recipes(result)
        return all(recipe.get(key) == value for key, value in fields.items())

    return check


def says(*texts: str) -> Callable[[Result], bool]:
    return lambda result: all(text in result.stderr for text in texts)


def refuses(*texts: str) -> Callable[[Result], bool]:
    return lambda result: result.returncode == 2 and says(*texts)(result)


def _studio(result: Result) -> bool:
    vllm, llama, docker = recipes(result)
    flags = {key for recipe in (vllm, llama, docker) for key in recipe.get("extra_args", {})}
    return (
        vllm["python_path"] == "/opt/venvs/a/bin/python"
        and (llama["binary"], llama["backend"]) == ("/opt/llama/llama-server", "llamacpp")
        and "example/vllm:1" in result.stderr
        and not flags & {"runtime", "crash_loop", "vision", "status"}
    )


def _swap(result: Result) -> bool:
    return len(recipes(result)) == 2 and not any("conflicts" in recipe for recipe in recipes(result))


AS_IT_RUNS = "recipectl import process PID"
RIGHT: dict[str, tuple[str, tuple[Callable[[Result], bool], ...]]] = {
    "envfile-overrides.service": ("unit", (has(model_path="${MODEL}"), says("the variables in /etc/engine.env"))),
    "env-from-substitution.sh": ("command", (
        has(env_vars={"CUDA_VISIBLE_DEVICES": "${M_CUDA_VISIBLE_DEVICES}", "VLLM_HOST_IP": "${M_VLLM_HOST_IP}"}),
        says("`CUDA_VISIBLE_DEVICES` is set from a substitution", "`VLLM_HOST_IP` is set from a substitution"))),
    "home-cache-offline.service": ("unit", (says("the Hugging Face cache of user someone", "HF_HOME"),)),
    "studio-runtime.json": ("vllm-studio", (_studio,)),
    "swap-persistent.yaml": ("llama-swap", (_swap,)),
    "download-dir.service": ("unit", (has(extra_args={"download-dir": "/srv/weights"}),)),
    "wrapper.service": ("unit", (refuses("recipectl import command /srv/model/start.sh"),)),
    "wrapper-start.sh": ("command", (has(model_path=f"{CASES}/weights", venv_path=f"{CASES}/.venv", port=8000), says("line 4: `${PORT}` has its default value here, `8000`"))),
    "swap-nothing-imported.yaml": ("llama-swap", (has(model_path="org/a-GGUF:Q4_K_M", backend="llamacpp"),)),
    "conda.sh": ("command", (has(python_path="${HOME}/miniconda3/envs/serving/bin/python"),)),
    "script-folder-a.sh": ("command", (has(python_path=f"{CASES}/venv/bin/python", model_path=f"{CASES}/weights"),)),
    "script-folder-b.sh": ("command", (has(python_path=f"{CASES}/venv/bin/python", model_path=f"{CASES}/weights"),)),
    "no-user.service": ("unit", (
        says("it ran as root; it will run as a user of its own", "Restart=on-failure",
             "line 5: StartLimitIntervalSec=300 in [Service], where systemd ignores it"),
        has(user=None, service={"RestartSec": "15", "StartLimitBurst": "3",
                                "TimeoutStopSec": "30", "SyslogIdentifier": "engine-a"}))),
    "rocm.sh": ("command", (has(accelerator="rocm", gpus=[0]),)),
    "docker-restart.sh": ("command", (has(autostart=True), says("the container published no port"))),
    "loop.sh": ("command", (refuses("line 2: it is in a loop (line 1)", AS_IT_RUNS),)),
    "systemd-run.sh": ("command", (has(service={"MemoryMax": "90%"}),)),
    "quadlet.container": ("quadlet", (
        has(host="127.0.0.1", port=8001, max_model_len=8192, autostart=True, env_vars={"HF_HOME": "/srv/hub"},
            secrets={"HF_TOKEN": "/etc/recipectl/secrets/HF_TOKEN"}),
        says("which podman keeps as `hub`"))),
    "compose.yml": ("compose", (
        has(port=8001, gpus=[0], autostart=True, max_model_len=8192, env_vars={"HF_HUB_OFFLINE": "1", "HF_HOME": "/srv/hub"}),)),
}  # fmt: skip


def test_each_case_is_here() -> None:
    assert {path.name for path in CASES.iterdir()} == {*RIGHT}


@pytest.mark.parametrize("name", RIGHT)
def test_a_case_is_imported_right(name: str) -> None:
    verb, checks = RIGHT[name]
    result = imported(verb, CASES / name)
    assert [check(result) for check in checks] == [True] * len(checks), result.stderr


def test_a_units_file_of_variables_counts_where_it_is(tmp_path: Path) -> None:
    text = (CASES / "envfile-overrides.service").read_text()
    (tmp_path / "engine.env").write_text("MODEL=/models/big\n")
    unit = tmp_path / "a.service"
    unit.write_text(text.replace("/etc/engine.env", str(tmp_path / "engine.env")))
    assert has(model_path="/models/big")(imported("unit", unit))


def test_a_units_own_script_has_the_units_variables(tmp_path: Path) -> None:
    shutil.copy(CASES / "wrapper-start.sh", tmp_path / "start.sh")
    unit = tmp_path / "a.service"
    unit.write_text(
        (CASES / "wrapper.service").read_text().replace("/srv/model/start.sh", f"{tmp_path}/start.sh")
    )
    result = imported("unit", unit)
    assert has(port=8001, user="someone", venv_path=f"{tmp_path}/.venv", ready={"timeout_sec": 1800})(
        result
    ), result.stderr


# verb, text, and what must stand in the recipes and on standard error.
INLINE = {
    "settings where systemd ignores them": (
        "unit", "[Service]\nUser=llm\nWorkingDirectory=/srv/a\nRestart=always\nExecStart=/v/bin/vllm serve ./m\n[Unit]\nUser=root\nWorkingDirectory=/srv/b\n[Install]\nUser=svc\nEnvironment=A=1\n[service]\nTimeoutStartSec=20\n",
        ["user: llm\n", "model_path: /srv/a/m\n"],
        ["line 8: WorkingDirectory=/srv/b in [Unit], where systemd ignores it", "line 10: User=svc in [Install]", "line 11: Environment=A=1 in [Install]", "line 13: TimeoutStartSec=20 in [service]"]),
    "settings that another path, a start job or a sandbox changes": (
        "unit", "[Unit]\nWants=nvidia-persistenced.service network.target\nJobTimeoutSec=20\nDescription=vLLM on %H\n[Service]\nUser=u\nRestart=always\nExecStart=/v/bin/vllm serve /m\nBindPaths=/a:/m\nSystemCallFilter=@system-service\n",
        ["Wants: nvidia-persistenced.service\n", "description: vLLM on %H\n"],
        ["line 3: JobTimeoutSec=20, which did not count its load", "line 9: BindPaths=/a:/m, with which the unit's paths", "line 10: SystemCallFilter=@system-service, which the sandbox of a recipe would change"]),
    "a limit of a start that a session ends at once": (
        "unit", "[Service]\nUser=u\nType=forking\nTimeoutStartSec=30\nExecStart=/usr/bin/tmux new-session -d /v/bin/vllm serve /m\n",
        [], ["line 4: TimeoutStartSec=30, which did not limit its load"]),
    "a unit without a folder starts in the root": ("unit", "[Service]\nUser=u\nRestart=always\nExecStart=/v/bin/vllm serve ./m\n", ["model_path: /m\n"], []),
    "quotes in UnsetEnvironment": ("unit", '[Service]\nUser=u\nRestart=always\nEnvironment=C=3 D=4\nUnsetEnvironment="C"\nExecStart=/v/bin/vllm serve /m\n', ["env_vars:\n  D: '4'\nuser"], []),
    "a signal that no recipe can have": ("unit", "[Service]\nUser=u\nRestart=always\nKillSignal=SIGKILL\nExecStart=/v/bin/vllm serve /m\n", [], ["the recipe does not compile: `service.KillSignal` cannot be SIGKILL"]),
    "what is no unit": ("unit", "- hosts: all\n  tasks: []\n", [], ["it has no [Service]; give a systemd service that runs an engine"]),
    "doas drops variables": ("command", "A=B doas -u llm /v/bin/vllm serve /m\n", [], ["`A`, which `doas` may not have passed on"]),
    "a primary group": ("command", "sudo -u llm -g ai /v/bin/vllm serve /m\n", ["SupplementaryGroups: ai"], ["the group ai: the engine is in this group, and its files have the group of its user"]),
    "signals that env ignores": ("command", "env --ignore-signal=INT /v/bin/vllm serve /m\n", [], ["`env --ignore-signal=INT` before the program"]),
    "the cache of all programs": (
        "command", "docker run --gpus all -p 8000:8000 -v /data/c:/root/.cache vllm/vllm-openai:v1 --model a/b\n", ["VLLM_CACHE_ROOT: /data/c/vllm\n"], []),
    "a script of a language that is no shell's": ("command", "#!/bin/execlineb\ns6-setuidgid llm\nvllm serve a/b\n", [], ["line 1: it is a script of execlineb, which is not read"]),
    "a module without a blank": ("command", "python -mvllm.entrypoints.openai.api_server --model a/b\n", ["backend: vllm\n", "model_path: a/b\n"], []),
    "options of sudo with a word": ("command", "sudo -r role -t type /v/bin/vllm serve a/b\n", ["model_path: a/b\n"], ["`sudo -r role` before the program"]),
    "a long template": ("unit", "[Service]\nExecStart=/v/bin/vllm serve {{ hostvars[inventory_hostname]['models']['the_first_of_all_models'] | default('a/b') }}\n", [], ["fill in `{{ hostvars"]),
    "a variable that is unset before a function": (
        "command", "unset MODEL\ng() { :; }\nexport MODEL=org/a\ng\nvllm serve $MODEL --port 1\n", ["model_path: org/a"], []),
    "a limit of what waits after the start": (
        "unit", "[Service]\nUser=v\nExecStart=/v/bin/vllm serve a/b\nExecStartPost=/bin/sh -c 'sleep 1'\nTimeoutStartSec=90\nRestart=always\n",
        ["timeout_sec: 90"], []),
    "a semicolon that is a word": ("unit", "[Service]\nUser=v\nExecStart=/l/llama-server -m /a.gguf -r \\;\nRestart=always\n", ["reverse-prompt: ;"], []),
    "a published port without an engine": (
        "command", "docker run --gpus all -p 8000:80 vllm/vllm-openai:v1 --model a/b\n",
        ["port: 8000"], ["line 1: port 80 of the container was published, and no engine listens there by itself; see `port:`"]),
    "a relative path in a variable": ("command", "cd /data\nexport HF_HOME=./cache\nvllm serve a/b\n", ["HF_HOME: /data/cache"], []),
    "two engines on one GPU": (
        "command", "CUDA_VISIBLE_DEVICES=0 llama-server -m /a.gguf --port 1 &\nCUDA_VISIBLE_DEVICES=0,1 llama-server -m /b.gguf --port 2 &\nCUDA_VISIBLE_DEVICES=2 llama-server -m /c.gguf --port 3 &\n",
        ["# A GPU is shared with b: with `exclusive`, only one would run.\ngpu_sharing: ordered\n", "# A GPU is shared with a:"], []),
    "escapes that systemd does not know": (
        "unit", '[Service]\nUser=v\nRestart=always\nExecStart=/l/llama-server -m /a.gguf -ot "blk\\.\\d+\\.ffn_.*=CPU"\n',
        ["override-tensor: blk\\.\\d+\\.ffn_.*=CPU"], []),
    "folders of a user's unit": (
        "unit", "[Service]\nExecStart=/l/llama-server -m %S/a.gguf --lora %E/l.gguf --log-file %L/x.log\nRestart=always\n[Install]\nWantedBy=default.target\n",
        ['"${XDG_STATE_HOME}/a.gguf"', '"${XDG_CONFIG_HOME}/l.gguf"', '"${XDG_STATE_HOME}/log/x.log"'], []),
    "a short limit that was none for the load": (
        "unit", "[Service]\nUser=v\nExecStart=/v/bin/vllm serve a/b\nTimeoutStartSec=120\nRestart=always\n",
        ["python_path: /v/bin/python\nmodel_path: a/b\nuser: v\n"], ["line 4: TimeoutStartSec=120, which did not limit its load; see `ready.timeout_sec`"]),
    "a limit of the load": (
        "unit", "[Service]\nType=notify\nUser=v\nExecStart=/v/bin/vllm serve a/b\nTimeoutStartSec=120\nRestart=always\n",
        ["timeout_sec: 120"], []),
    "the subcommand of an image's own entrypoint": (
        "compose", 'services: {a: {image: "spark-vllm:1", gpus: all, restart: always, ports: ["8000:8000"], command: serve a/b --port 8000}}\n',
        ["model_path: a/b"], []),
    "ports that host networking ignores": (
        "compose", 'services: {a: {image: vllm/vllm-openai, gpus: all, restart: always, network_mode: host, command: --model a/b --port 8000, ports: ["9000:8000"]}}\n',
        ["port: 8000"], ["the published port 8000, which counts for nothing in the host's network"]),
    "one of AMD's GPUs": (
        "command", "docker run --device=/dev/kfd --device=/dev/dri/renderD129 -p 8000:8000 rocm/vllm:1 vllm serve a/b\n",
        ["accelerator: rocm"], ["`/dev/dri/renderD129` alone of the GPUs; see `gpus:`"]),
    "a working folder in a mount": (
        "compose", 'services: {a: {image: vllm/vllm-openai, gpus: all, restart: always, ports: ["8000:8000"], working_dir: /models, volumes: ["/srv/models:/models"], command: --model Qwen3-8B}}\n',
        ["model_path: Qwen3-8B", "WorkingDirectory: /srv/models"], []),
    "mounts of caches, and of code": (
        "command", "docker run --gpus all -p 8000:8000 -v /p/x.py:/usr/lib/python3/dist-packages/vllm/x.py -v /data/vc:/root/.cache/vllm -v /data/tr:/root/.triton vllm/vllm-openai:v1 --model a/b\n",
        ["VLLM_CACHE_ROOT: /data/vc", "TRITON_CACHE_DIR: /data/tr/cache"], ["`/p/x.py` at /usr/lib/python3/dist-packages/vllm/x.py, which nothing in the recipe names"]),
    "a service without a policy": (
        "compose", 'services: {a: {image: vllm/vllm-openai, gpus: all, ports: ["8000:8000"], command: --model a/b}}\n',
        ["model_path: a/b"], ["without `restart:` it stayed down when it ended"]),
    "what VLLM Studio left out": (
        "vllm-studio", '[{"id":"a","name":"a","model_path":"/m/q","max_model_len":32768,"extra_args":{"max-model-len":8192,"tensor-parallel-size":2}}]',
        ["max_model_len: 32768", "tensor_parallel_size: 2"], ["`max-model-len: 8192` of extra_args, for VLLM Studio passed --max-model-len 32768"]),
    "spellings of VLLM Studio's keys": (
        "vllm-studio", '[{"id":"a","name":"a","model_path":"/m/q","extra_args":{"HIP_VISIBLE_DEVICES":"1"}},{"id":"b","name":"b","backend":"llamacpp","model_path":"/m/q","extra_args":{"llama-bin":"/x/llama-server"}}]',
        ["gpus: [1]", "binary: /x/llama-server", "Its newest release listens on 127.0.0.1."], []),
    "keys of VLLM Studio's own": (
        "vllm-studio", '[{"id":"a","name":"a","model_path":"/m/q","max_thinking_tokens":9,"extra_args":{"custom_command":"x","docker_container":"y","mlx_python":"/x"}}]',
        ["model_path: /m/q"], ["`max_thinking_tokens: 9`", "`custom_command:", "`docker_container:", "`mlx_python:"]),
    "parsers by the served name": (
        "vllm-studio", '[{"id":"a","name":"a","model_path":"/m/foo","served_model_name":"GLM-4.6"}]',
        ["tool_call_parser: glm45"], []),
    "names of llama-swap's filters": (
        "llama-swap", 'models:\n  m:\n    cmd: llama-server -m /m/a.gguf --port ${PORT}\n    filters: {setParamsByID: {"${MODEL_ID}:high": {x: 1}, m-low: {x: 2}}}\n',
        ["served_model_name: m,m:high,m-low"], []),
    "a function that runs its words": (
        "command", 'run() { echo "$@"; "$@"; }\nvllm serve a/b --port 1 &\nrun vllm serve c/d --port 2\n',
        ["model_path: a/b", "model_path: c/d\nport: 2\n"], []),
    "what a function changes": (
        "command", "prep() { cd /a; source /opt/v/bin/activate; ulimit -n 9; unset HF_HOME; }\nexport HF_HOME=/d\nprep\nvllm serve /m\n",
        ["venv_path: /opt/v\nmodel_path: /m\n", "LimitNOFILE: '9'"], ["line 1: `cd /a`: relative paths were made absolute from there"]),
    "scripts beside an engine": (
        "command", "vllm serve a/b &\nbash serve_b.sh\nmake serve\n",
        ["model_path: a/b"], ["line 2: `bash …`, which is not read", "line 3: `make serve`, which is not read"]),
    "uvx with a version": ("command", "uvx vllm@0.9.1 serve c/d\n", ["model_path: c/d"], ["`uvx vllm@0.9.1` before the program"]),
    "a venv before cd": ("command", "source /srv/x/../venv/bin/activate\ncd /data\nvllm serve ./m\n", ["venv_path: /srv/x/../venv", "model_path: /data/m"], []),
    "a home of the script's own": ("command", "export HOME=/data/home\nvllm serve ~/m\n", ["model_path: /data/home/m"], []),
    "folders of runners": ("command", "/opt/c/bin/conda run --cwd /data -n v vllm serve ./m\n", ["model_path: /data/m", "python_path: /opt/c/envs/v/bin/python"], []),
    "sudo without -E": (
        "command", "export HF_HOME=/d\nsudo -iu llm /opt/v/bin/vllm serve a/b\n",
        ["user: llm"], ["`HF_HOME`, which `sudo` without -E may not have passed on"]),
    "a group of sudo alone": ("command", "sudo -E -g models /opt/v/bin/vllm serve a/b\n", ["SupplementaryGroups: models"], []),
    "a program without its folder": ("command", "ik_llama-server -m /a.gguf\n", ['binary: "${IK_LLAMA_SERVER}"'], []),
    "a comment between continued lines": ("command", "vllm serve a/b --port 1 `# port`  --enable-lora\n", ["port: 1", "enable-lora: true"], []),
    "ordinary values that look like blanks to fill in": (
        "command", 'llama-server -m /a.gguf --alias your-assistant -r "<end>" --chat-template "{% if x %}{{ y }}{% endif %}"\n',
        ["served_model_name: your-assistant", "reverse-prompt: <end>"], []),
    "settings of the unit and of its wrappers": (
        "unit", "[Service]\nUser=ai\nNoNewPrivileges=true\nExecStart=/usr/bin/taskset -c 0-7 /usr/bin/nice -n 5 /l/llama-server -m /x.gguf\n",
        ["NoNewPrivileges: 'true'", "CPUAffinity: 0-7", "Nice: '5'"], []),
    "mounts within each other": (
        "command", "docker run --gpus all -p 8000:8000 -v /a:/b -v /c:/a -v /d:/a/lora vllm/vllm-openai --model /b/m --chat-template /a/lora/t.jinja --tokenizer /a/t\n",
        ["model_path: /a/m", "/d/t.jinja", "tokenizer: /c/t"], []),
    "defaults within defaults": (
        "compose", '''services: {v: {image: vllm/vllm-openai, command: "--model ${M:-${N:-a/b}} --rope-scaling '${R:-{\\"a\\": {\\"b\\": 1}}}'", ports: ["8000:8000"]}}\n''',
        ["model_path: a/b", "rope-scaling:\n    a:\n      b: 1"], ["`${N}` has its default value here, `a/b`"]),
    "AMD's GPUs of a container": (
        "compose", 'services: {v: {image: vllm/vllm-openai, command: --model a/b, devices: [/dev/kfd, /dev/dri], ports: ["8000:8000"]}}\n',
        ["accelerator: rocm"], []),
    "an image for AMD": ("command", "docker run --device /dev/dri -p 8080:8080 ghcr.io/ggml-org/llama.cpp:server-rocm -m /x.gguf\n", ["accelerator: rocm"], []),
    "a variable of AMD's libraries": ("command", "HSA_OVERRIDE_GFX_VERSION=11.0.0 llama-server -m /x.gguf\n", ["accelerator: rocm"], []),
    "a limit under a condition": (
        "command", "if [ -n \"$BIG\" ]; then ulimit -n 65535; else ulimit -n 1024; fi\nvllm serve a/b\n",
        ["LimitNOFILE: '1024'"], ["line 1: `BIG` is not set here: the script's caller may set it", "line 1: `LimitNOFILE=65535` under a condition; here it is 1024"]),
    "engines in a substitution": (
        "command", 'vllm serve a/b\nCID=$(docker run -d vllm/vllm-openai --model c/d)\ndocker logs -f "`vllm serve e/f`"\nD=$(date)\n', ["model_path: a/b"],
        ["line 2: it is in a substitution; write it out", "line 3: it is in a substitution"]),
    "files that tee writes": (
        "command", "echo 3 | sudo tee /proc/sys/vm/drop_caches\ntee /x/t.jinja >/dev/null <<'E'\nx\nE\nvllm serve a/b --chat-template /x/t.jinja\n", ["model_path: a/b"],
        ["line 1: what is written to /proc/sys/vm/drop_caches", "line 2: the file `/x/t.jinja`, which it writes"]),
    "arguments that a script gives itself": ("command", 'set -- a/b --port 8001\nvllm serve "$@"\n', ["model_path: a/b\nport: 8001"], []),
    "arguments of a substitution": ("command", 'set -- $(cat f)\nvllm serve a/b "$@"\nvllm serve c/d\n', ["model_path: c/d"], ["line 2: only a shell knows its words"]),
    "`set -a` of a function": ("command", "f() { set -a; }\nf\nA=1\nvllm serve a/b\n", ["model_path: a/b\nenv_vars:\n  A: '1'\n"], []),
    "the key of llama-server's TLS": ("command", "LLAMA_ARG_SSL_KEY_FILE=/k llama-server -m /m/a.gguf\n", ["ssl-key-file: /k"], []),
    "no limit of processors": ("command", "docker run --gpus all -p 8000:8000 --cpus 0 vllm/vllm-openai --model a/b\n", ["port: 8000\n"], []),
    "readers of the output": (
        "command", "vllm serve a/b > >(tee -a out.log) 2> >(tee err.log >&2)\n", ["model_path: a/b"], ["line 1: `tee -a out.log`, which reads its output", "line 1: `tee err.log`, which"]),
    "engines of other makers": ("command", "text-generation-launcher --model-id a/b\ntrtllm-serve a/b\nvllm chat\nvllm serve c/d\n", ["model_path: c/d"], ["line 1: `text-generation-launcher …`, which is no engine that recipectl knows", "line 2: `trtllm-serve …`, which is no engine", "line 3: `vllm chat`, which runs no engine"]),
    "programs that the output is piped to": (
        "command", "vllm serve a/b |& grep -v DEBUG | tee x.log\nvllm serve c/d | cat\nvllm serve e/f | sed s/k=v9Xq//\n", ["model_path: a/b"], ["b: not carried over: line 1: `grep -v DEBUG`, which reads its output; the journal has all", "line 1: the file `x.log` of its output", "f: not carried over: line 3: `sed …`, which reads"]),
    "a test in a substitution": ("command", 'vllm serve a/b $([ "$J" = 1 ] && echo --x)\n', [], ["line 1: `$([ …)`: recipectl does not run substitutions"]),
    "IFS of one command": ("command", "IFS= read -r line < /dev/null\nvllm serve a/b\n", ["model_path: a/b"], []),
    "an image that is built": ("compose", "services: {v: {build: ., command: [--model, a/b], gpus: all}}\n", [], ["the image that is built does not tell its engine"]),
    "keys that are off": ("compose", "services: {v: {image: vllm/vllm-openai, command: --model a/b, privileged: false, gpus: all, restart: always, ports: ['8000:8000']}}\n", ["port: 8000"], []),
    "settings that the command replaces, and groups": (
        "unit", "[Service]\nUser=u\nRestart=always\nGroup=models\nSupplementaryGroups=\nCPUAffinity=4\nExecStart=/usr/bin/taskset -c 0 /v/bin/vllm serve a/b\n",
        ["SupplementaryGroups: models"], ["line 6: CPUAffinity=4; here CPUAffinity=0 counts"]),
    "arguments besides the caller's": ("command", 'set -- "$@" --port 8001\nvllm serve a/b "$@"\n', ["port: 8001"], ["line 1: `$@`, the arguments of the script"]),
    "arguments under a condition": ("command", 'if [ -n "$Z" ]; then set -- --port 1; fi\nvllm serve a/b "$@"\n', ["model_path: a/b\n"], ["line 1: `$@` is set under a condition; here it is not"]),
    "limits that a container does not have": (
        "command", "docker run --gpus all -p 8000:8000 --pids-limit -1 -m 0 vllm/vllm-openai --model a/b\n", ["  TasksMax: infinity\n"], []),
    "who ran a container": ("command", "sudo -u llm podman run --gpus all -p 8000:8000 vllm/vllm-openai --model a/b\n", ["model_path: a/b"], ["the user `llm`, who ran the container"]),
    "an empty line of a Quadlet file": (
        "quadlet", "[Container]\nImage=vllm/vllm-openai\nAddDevice=nvidia.com/gpu=0\nAddDevice=\nAddDevice=nvidia.com/gpu=1\nEnvironment=A=1\nEnvironment=\nEnvironment=B=2\nPublishPort=8000:8000\nPublishPort=\nPublishPort=9000:8000\nExec=--model a/b\n",
        ["port: 9000\ngpus: [1]\nenv_vars:\n  B: '2'\n"], []),
    "variables that llama-server does not read": (
        "unit", "[Service]\nUser=u\nRestart=always\nEnvironment=LLAMA_ARG_SEED=1 LLAMA_ARG_N_GPU_LAYERS=99 LLAMA_ARG_CTX_SIZE=4096 LLAMA_ARG_ENDPOINT_METRICS=1\nExecStart=/l/llama-server -m /m/a.gguf\n",
        ["max_model_len: 4096\nextra_args:\n  metrics: true\n", "LLAMA_ARG_SEED: '1'", "LLAMA_ARG_N_GPU_LAYERS: '99'"], []),
    "other runners of environments": (
        "unit", "\ufeff[Service]\nUser=%u\nRestart=always\nEnvironment=A=%h/x\nExecStart=/m/micromamba run -n vllm vllm serve a/b\nExecStopPost=-/usr/bin/docker kill x\n",
        ["model_path: a/b", "A: /root/x"], ["`/m/micromamba run -n vllm` before the program; name its interpreter", "line 6: ExecStopPost=-/usr/bin/docker kill x"]),
    "a version beside its runner": ("command", "uvx vllm==0.10.1 serve a/b\n", ["model_path: a/b"], ["`uvx vllm==0.10.1` before the program"]),
    "an engine that is only asked": ("command", "vllm serve x/y --help\nvllm serve a/b\n", ["model_path: a/b\n"], []),
    "what is lost before another program": (
        "compose", 'services: {a: {image: vllm/vllm-openai, gpus: all, restart: always, ports: ["8000:8000"],\n  entrypoint: [bash, -c, "source /etc/x/d.sh\\npip install foo\\nexec vllm serve a/b"]}}\n', ["model_path: a/b"],
        ["line 2: line 1: `source /etc/x/d.sh`, which may set variables", "line 2: line 2: `pip install foo` in the container"]),
    "what is lost before another program of a shell": (
        "command", "sudo -u u bash -c 'conda activate vllm; pip install foo; exec vllm serve a/b'\n", ["model_path: a/b"],
        ["line 1: `conda activate vllm`; give its `bin/python`", "line 1: `pip install foo`, which runs no engine"]),
    "the first branch in a container": (
        "command", "docker run --gpus all -p 8000:8000 vllm/vllm-openai bash -c 'if [ -f /x ]; then vllm serve a/b; else vllm serve c/d --seed 1; fi'\n",
        ["model_path: a/b"], ["`vllm serve c/d --seed 1`, another engine", "it runs under a condition"]),
    "the first branch of a unit": (
        "unit", "[Service]\nUser=u\nExecStart=/bin/bash -c 'if [ -f /x ]; then exec vllm serve a/b; else exec vllm serve c/d; fi'\n",
        ["model_path: a/b"], ["line 3: `exec vllm serve c/d`, another engine"]),
    "words as zsh has them": (
        "command", "#!/bin/zsh\nargs=(-m /m/a.gguf -ngl 99)\nP=8080\nllama-server $args --port $P\nA='--port 1 --seed 2'\nvllm serve a/b $A\nvllm serve c/d --port $P\n",
        ["model_path: c/d\nport: 8080\n"], ["line 4: zsh does not expand `$args` as bash does", "line 6: zsh does not expand `$A`"]),
    "a unit for a script": ("command", "# x\n[Service]\nExecStart=/v/bin/vllm serve a/b\n", [], ["a.txt: it is a unit of systemd; run `recipectl import unit` with it"]),
    "another shell": ("command", "#!/usr/bin/env fish\nvllm serve a/b\n", [], ["line 1: it is a script of fish, which is not read"]),
    "engines in a text": (
        "command", "c=$(cat <<E\nvllm serve a/b --port 1\nE\n)\neval $c\nread -r -d '' D <<E\nvllm serve c/d\nE\n$D\nvllm serve e/f\n", ["model_path: e/f"],
        ["line 1: the text of a here-document runs an engine", "line 6: the text of a here-document runs an engine"]),
    "a placeholder as a value": ("command", "CUDA_VISIBLE_DEVICES=<id> vllm serve a/b --port 8000\nvllm serve c/d\n", ["model_path: c/d"], ["line 1: fill in `<id>`"]),
    "words that are no assignments": (
        "unit", "[Service]\nUser=u\nRestart=always\nExecStart=/l/llama-server -m /m/a.gguf\nEnvironment=CUDA_VISIBLE_DEVICES=0 # RTX 3090\n",
        ["gpus: [0]"], ["line 5: `#`, `RTX`, `3090` of Environment=, no assignment, which systemd ignores"]),
    "an image that is not llama.cpp's own": (
        "command", "docker run --network host -v /m:/m --gpus all my/llama:1 llama-server -m /m/a.gguf\ndocker run --network host -v /m:/m --gpus all ghcr.io/ggml-org/llama.cpp:server -m /m/b.gguf\n",
        ["model_path: /m/a.gguf\n\n", "model_path: /m/b.gguf\nhost: 0.0.0.0\n"], []),
    "a word without a value": (
        "compose", "services: {v: {image: vllm/vllm-openai, command: [--model=a/b]}, w: {image: vllm/vllm-openai, command: [--model=a/b, null]}}\n",
        ["model_path: a/b"], ["line 1: the service `w`: `command:` has an item without a value"]),
    "`set -a` under a condition": (
        "command", "if [ -n \"$X\" ]; then set -a; fi\nVLLM_X=1\nvllm serve a/b\n",
        ["model_path: a/b\n"], ["line 1: `set -a` under a condition; here it does not count"]),
    "a percent sign in a Quadlet file": (
        "quadlet", "[Unit]\nDescription=100%%n\n[Container]\nImage=vllm/vllm-openai\nPublishPort=8000:8000\nExec=--model a/b\n", ["description: 100%n"], []),
    "the topology of the GPUs": ("command", "nvidia-smi topo -m\nvllm serve a/b\n", ["model_path: a/b"], []),
    "secrets of other programs": (
        "command", "wandb login 0123456789abcdef\nredis-cli -a hunter2 ping\naws configure set aws_secret_access_key wJalrX\nvllm serve a/b\n",
        ["model_path: a/b"], ["line 1: `wandb login …`, which runs no engine", "line 2: `redis-cli …`", "line 3: `aws configure …`"]),
    "names of the hub after path options": (
        "command", "python -m sglang.launch_server --model-path a/b --tokenizer-path a/t\nvllm serve c/d --hf-config-path a/c\n",
        ["tokenizer-path: a/t", "hf-config-path: a/c"], []),
    "the hub's cache beside a local model": (
        "command", "docker run --gpus all -p 8000:8000 -v /nas/hf:/root/.cache/huggingface -v /data:/data vllm/vllm-openai --model /data/m --tokenizer a/t\n",
        ["HF_HOME: /nas/hf", "model_path: /data/m"], []),
    "programs that only name an engine": (
        "command", "sudo systemctl stop llama-server || true\nsudo pkill -9 -f llama-server || true\ntmux kill-session -t llama-server\nllama-server --version\ncp x /opt/llama-server\nllama-server -m /a.gguf\n",
        ["model_path: /a.gguf"], ["line 1: `systemctl stop llama-server`, which runs no engine"]),
    "an empty default": (
        "command", "Q=\"${Q:-}\"; A=(--port 8001)\n[ -n \"$Q\" ] && A+=(--quantization \"$Q\")\nvllm serve a/b \"${A[@]}\"\n",
        ["model_path: a/b\nport: 8001\n"], ["line 1: `${Q}` is empty here, by default"]),
    "a case with a default": (
        "command", "C=\"${1:-qwen}\"\ncase $C in glm) M=z/glm ;; qwen) M=q/q ;; esac\nvllm serve $M\n", ["model_path: q/q"], ["line 1: `${1}` has its default value here, `qwen`"]),
    "conditions on constants": (
        "command", "D=0; S=large; E=\n[[ $D == 1 ]] && E=--enforce-eager\ncase $S in s*) T=1 ;; l*) T=8 ;; esac\nif [ $T -gt 4 ]; then E=\"$E -pp 2\"; fi\nvllm serve a/b -tp $T $E\n",
        ["model_path: a/b\ntensor_parallel_size: 8\npipeline_parallel_size: 2\n"], []),
    "a usage that a default would end": (
        "command", "M=\"${1:-}\"\nif [ -z \"$M\" ]; then echo usage; exit 1; fi\nvllm serve \"$M\" --port 1\n", [], []),
    "an option that is there if a variable is set": (
        "command", "llama-server -m /a.gguf ${P:+--mmproj \"$P\"} --port 8080\n", ["model_path: /a.gguf\nport: 8080"], ["line 1: `P` is not set here"]),
    "the place of a substitution": (
        "command", "llama-server -m /a.gguf \\\n --threads $(nproc)\nvllm serve a/b\n", ["model_path: a/b"], ["a.txt: line 2: `$(nproc …)`: recipectl does not run substitutions"]),
    "a program that a loop sets": (
        "command", "B=llama-server\nwhile [ $# -gt 0 ]; do B=\"$2\"; shift; done\nexec \"$B\" -m /a.gguf\n", ["model_path: /a.gguf"], ["line 2: `$#` is 0 here", "line 2: `B` is `${ARG2}` under a condition, which does not hold here"]),
    "a program that another loop sets": (
        "command", "B=llama-server\nwhile read l; do B=$l; done </x\nexec \"$B\" -m /a.gguf\n", [], ["`B` is set in a loop"]),
    "systemd's variables in a Quadlet file": (
        "quadlet", "[Container]\nImage=vllm/vllm-openai:v0.11.0\nExec=--model ${M} --port ${P} --gpu-memory-utilization $G\nAddDevice=nvidia.com/gpu=all\nPublishPort=${P}:${P}\n[Service]\nEnvironment=M=a/b P=8010\n",
        ["model_path: a/b\nport: 8010\ngpu_memory_utilization: ${G}"], ["the image `vllm/vllm-openai:v0.11.0`: install its version"]),
    "systemd's variables in a Quadlet file, and a file that is not here": (
        "quadlet", "[Container]\nImage=vllm/vllm-openai\nExec=--model ${M}\nAddDevice=nvidia.com/gpu=all\nPublishPort=8000:8000\n[Service]\nEnvironment=M=a/b\nEnvironmentFile=/no/v.env\n",
        ["model_path: \"${M}\""],
        ["line 8: the variables in /no/v.env", "line 8: `M` is `a/b`, if that file does not set it"]),
    "a variable alone for the model": ("unit", "[Service]\nUser=ai\nRestart=always\nExecStart=/v/bin/vllm serve $VLLM_ARGS\n", ["model_path: \"${VLLM_ARGS}\""], ["line 4: `${VLLM_ARGS}` is taken for the model"]),
    "a variable alone for all words": (
        "compose", "services: {v: {image: 'ghcr.io/ggml-org/llama.cpp:server', command: '${LLAMA_ARGS} --port 8080', ports: ['8080:8080']}, w: {image: vllm/vllm-openai, command: --model a/b}}\n",
        ["model_path: a/b"], ["`${LLAMA_ARGS}` may hold the model and more"]),
    "an engine behind NVIDIA's entrypoint": (
        "compose", "services: {v: {image: 'lmsysorg/sglang', entrypoint: [/opt/nvidia/nvidia_entrypoint.sh, bash, -c], command: ['sglang serve --model-path a/b'], ports: ['30000:30000']}}\n", ["backend: sglang\nmodel_path: a/b"], []),
    "images and their engines": (
        "compose", "services: {a: {image: 'ghcr.io/me/llama-cpp-x', command: [-m, /a.gguf], ports: ['8080:8080']}, b: {image: 'me/x', command: [--model, a/b]}, c: {image: vllm/vllm-openai, entrypoint: [/s/e.sh], command: [vllm, serve, a/b]}, d: {image: redis}}\n",
        ["backend: llamacpp"], ["the image `me/x` does not tell its engine", "`/s/e.sh vllm …` of the image `vllm/vllm-openai` is a script", "the service `d`: runs no engine"]),
    "a file of variables that may name the model": (
        "compose", "services: {a: {image: 'ghcr.io/ggml-org/llama.cpp:server', env_file: no.env}, b: {image: vllm/vllm-openai, command: --model a/b}}\n",
        ["model_path: a/b"], ["the model may be in ", "no.env, which cannot be read here"]),
    "paths of an image in variables": (
        "compose", "services: {a: {image: 'ghcr.io/ggml-org/llama.cpp:server', environment: {LLAMA_ARG_MODEL: /no/q.gguf, X: /no/cache}, ports: ['8080:8080']}}\n",
        ["model_path: /no/q.gguf"], ["line 1: `X=/no/cache`, a path of the image", "`LLAMA_ARG_MODEL=/no/q.gguf`, a path of the image"]),
    "a unit of a user": ("unit", "[Service]\nExecStart=%h/b/llama-server -m %h/m.gguf\nRestart=always\n[Install]\nWantedBy=default.target\n", [], ["it ran as the user who started it"]),
    "networks beside a port": (
        "compose", "services: {v: {image: vllm/vllm-openai, command: --model a/b, ports: ['8000:8000'], networks: [t]}}\n", [], ["line 1: the network `t`, in which others reached the engine"]),
    "a unit's relative script": ("unit", "[Service]\nExecStart=/usr/bin/env bash scripts/serve.sh\n", [], ["`scripts/serve.sh` cannot be read here"]),
    "a unit that runs toolbox": ("unit", "[Service]\nExecStart=/usr/bin/toolbox run -c X llama-server -m /a.gguf\n", [], ["`/usr/bin/toolbox run …` does not show its engine"]),
    "a unit that runs compose": ("unit", "[Service]\nExecStart=/usr/bin/docker compose -f /srv/c.yml up\n", [], ["run `recipectl import compose` with its file"]),
    "a volume whose folder has a variable": (
        "compose", "services: {v: {image: vllm/vllm-openai, command: --model a/b, ports: ['8000:8000'], volumes: ['hf:/root/.cache/huggingface']}}\nvolumes: {hf: {driver: local, driver_opts: {type: none, o: bind, device: '${HOME}/hf'}}}\n",
        ["HF_HOME: \"${HOME}/hf\""], []),
    "an empty default of Compose": (
        "compose", "services: {v: {image: vllm/vllm-openai, command: '--model a/b ${A:-}', container_name: '${C:-x}', healthcheck: {disable: true}, cap_drop: [ALL], ports: ['8000:8000']}}\n",
        ["model_path: a/b\nport: 8000\n"], ["line 1: `${A}` is empty here, by default"]),
    "containers of other programs": (
        "compose", "services: {a: {image: ollama/ollama}, b: {image: 'python:3', command: python -m http.server}, c: {image: x/ui, command: --url http://vllm:8000}, d: {image: vllm/vllm-openai, command: --model a/b}}\n",
        ["model_path: a/b"], ["the service `a`: runs no engine", "the service `b`: runs no engine", "the service `c`: runs no engine"]),
    "containers of other programs in a script": (
        "command", "docker run -d ollama/ollama\nvllm serve a/b\n", ["model_path: a/b"], ["line 1: `docker run …`, which runs no engine"]),
    "a condition on a program": (
        "command", "if G=$(nvidia-smi -L); then export A=1; else export A=2; fi\nif [ -z \"$(command -v vllm)\" ]; then source /opt/venv/bin/activate; fi\nvllm serve a/b\n",
        ["venv_path: /opt/venv"], ["line 1: `A` is set under a condition"]),
    "a fallback for a program that is looked for": (
        "command", "P=$(which python3.11)\n[ -z \"$P\" ] && P=/opt/v/bin/python\n$P -m sglang.launch_server --model-path a/b\n", [], ["line 2: `P` is set under a condition"]),
    "a variable that only another branch sets": (
        "command", "T=${T:-1}\nif [ \"$T\" -gt 1 ]; then X=\"--tensor-parallel-size $T\"; fi\nvllm serve a/b $X\n", ["model_path: a/b\n"], ["line 2: `X` is `--tensor-parallel-size 1` under a condition, which does not hold here"]),
    "an engine that the script does not run": (
        "command", "M=a\nif [ $M = a ]; then vllm serve A/A; else vllm serve B/B; fi\n", ["model_path: A/A", "model_path: B/B"], ["b: not carried over: line 2: as it is, the script does not run it"]),
    "patterns that shopt changes": ("command", "shopt -s nocasematch\nX=ABC\n[[ $X == abc ]] && M=a/a || M=b/b\nvllm serve $M\n", [], ["line 3: `M` is set under a condition"]),
    "the name of a process": ("command", "exec -a foo vllm serve a/b\n", ["model_path: a/b"], ["`exec -a foo` before the program"]),
    "a script that is started": ("command", "nohup ./run.sh &\nvllm serve a/b\n", ["model_path: a/b"], ["line 1: `./run.sh`, which is not read"]),
    "portable GPU variables": ("command", "export CUDA_VISIBLE_DEVICES=0 HIP_VISIBLE_DEVICES=0\nvllm serve a/b\n", ["CUDA_VISIBLE_DEVICES: '0'\n  HIP_VISIBLE_DEVICES: '0'"], []),
    "words of a Quadlet's variable": (
        "quadlet", "[Container]\nImage=vllm/vllm-openai\nExec=--model a/b\nPublishPort=8000:8000\nEnvironment=X=${MSG} Y=1\n[Service]\nEnvironment=\"MSG=a b\"\n", ["X: a b\n  Y: '1'"], []),
    "an engine behind tini": (
        "compose", "services: {v: {image: 'acme/i:1', entrypoint: [/usr/bin/tini, -g, --, vllm], command: [serve, a/b], environment: {X: /aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa}, ports: ['8000:8000']}}\n",
        ["model_path: a/b"], ["a path of the image"]),
    "flags in a variable whose name is like a model's": ("unit", "[Service]\nUser=ai\nRestart=always\nExecStart=/v/bin/vllm serve $VIDEO_FLAGS\n", [], ["line 4: `${VIDEO_FLAGS}` is taken for the model"]),
    "a bare -fa": ("command", "llama-server -m /m/b.gguf -fa --port 8081 -ngl 99\n", ["flash-attn: 'on'", "port: 8081", "gpu-layers: 99"], ["`-fa` alone"]),
    "a bare -fa at the end": ("command", "llama-server -m /m/b.gguf -fa\n", ["flash-attn: 'on'"], []),
    "a volume": (
        "compose", 'services: {v: {image: vllm/vllm-openai, command: --model a/b, volumes: ["hub:/root/.cache/huggingface"], ports: ["8000:8000"]}}\n',
        ["model_path: a/b"], ["the volume `hub` at /root/.cache/huggingface", "set HF_HOME to it"]),
    "a relative file": ("command", "cd /srv; vllm serve a/b --chat-template t/x.jinja\n", ["chat-template: /srv/t/x.jinja"], []),
    "conda's own script": ("command", "source /c/bin/activate vllm\nvllm serve a/b\n", ["python_path: /c/envs/vllm/bin/python"], []),
    "a variable that stands alone": ("command", "vllm serve a/b $EXTRA\n", ['args: ["${EXTRA}"]'], ["`${EXTRA}` stands alone"]),
    "a file of options that is not here": ("command", "vllm serve a/b --config /no/such.yaml\n", ["config: /no/such.yaml"], ["what /no/such.yaml sets"]),
    "limits of a shell": ("command", "ulimit -n 4096; umask 002; vllm serve a/b\n", ["LimitNOFILE: '4096'", "UMask: '002'"], []),
    "limits of a service": (
        "compose", 'services: {v: {image: vllm/vllm-openai, command: --model a/b, stop_signal: SIGINT, cpus: "${C}", mem_limit: 24Gi, ports: ["1:8000", "2:2"]}}\n',
        ["KillSignal: SIGINT", "MemoryMax: 24G", "port: 1"], ["`cpus:` of the service", "the published port 2"]),
    "a token of the caller": ("command", "docker run -e HF_TOKEN -p 1:8000 vllm/vllm-openai --model a/b\n", ["HF_TOKEN: /etc/recipectl/secrets/HF_TOKEN"], ["`HF_TOKEN`, which the caller had"]),
    "llama-server's variables": (
        "command", "docker run -e LLAMA_ARG_MODEL=/m/a.gguf -e LLAMA_ARG_CTX_SIZE=4096 -v /srv:/m -p 80:8080 ghcr.io/ggml-org/llama.cpp:server\n",
        ["model_path: /srv/a.gguf", "port: 80", "max_model_len: 4096"], []),
    "llama.cpp's cache": ("command", "docker run -v /c:/root/.cache/llama.cpp -p 1:8080 ghcr.io/ggml-org/llama.cpp:server -hf a/b-GGUF:Q4\n", ["LLAMA_CACHE: /c", "model_path: a/b-GGUF:Q4"], []),
    "all of llama.cpp's image": ("command", "docker run -v /m:/models -p 1:8080 ghcr.io/ggml-org/llama.cpp:full --server -m /models/a.gguf\n", ["model_path: /m/a.gguf"], []),
    "no entrypoint": ("command", 'docker run -p 1:8000 --entrypoint "" vllm/vllm-openai vllm serve a/b\n', ["model_path: a/b", "port: 1"], []),
    "a comment in a continued command": ("command", "vllm serve a/b \\\n  --port 1 \\\n  # --x 2 \\\n  --max-model-len 3\n", ["port: 1\n"], ["line 4: `--max-model-len …`, which runs no engine"]),
    "the folder of a unit's shell": (
        "unit", '[Service]\nUser=%i\nWorkingDirectory=/h/llm\nExecStart=/bin/bash -lc "source venv/bin/activate; vllm serve a/b"\n',
        ["venv_path: /h/llm/venv", 'user: "${INSTANCE}"'], []),
    "tags and services of a Compose file": (
        "compose", "services:\n  v:\n    image: vllm/vllm-openai\n    command: --model a/b\n    ports: !reset []\n  w: {extends: {file: x}}\n  x: {image: vllm/vllm-openai, deploy: 3}\n  y: {image: redis}\n",
        ["model_path: a/b"], ["line 6: the service `w`", "docker compose config", "line 7: the service `x`: `deploy:` is a number", "line 8: the service `y`: runs no engine"]),
    "keys that llama-swap does not have": (
        "llama-swap", 'models: {a: {cmd: "llama-server -m /a.gguf --port ${PORT}", foo: 1, aliases: gpt}, b: {cmd: "llama-server -m /b.gguf", ttl: 5m}}\nmatrix: {x: 1}\n',
        ["served_model_name: a,gpt"], ["`foo`, which recipectl does not know", "`matrix:`", "model `b`: `ttl` is `5m`"]),
    "an entry that is no recipe": (
        "vllm-studio", '[5, {"id": "g", "name": "G", "model_path": "/g.gguf", "backend": "llamacpp", "extra_args": {"flash_attn": true}}]',
        ["flash-attn: 'on'"], ["one entry, `5`, is no recipe"]),
    "an engine in a terminal of its own": ("command", "tmux send-keys -t x 'llama-server -m /a.gguf' C-m\nvllm serve a/b\n", ["model_path: a/b"], ["line 1: `tmux send-keys …` runs an engine", AS_IT_RUNS]),
    "what podman is given besides": (
        "quadlet", "[Container]\nImage=vllm/vllm-openai\nPodmanArgs=--memory 48g --gpus=all\nExec=--model a/b\nUlimit=stack=1:1\n[Service]\nCPUWeight=20\n",
        ["MemoryMax: 48G", "LimitSTACK: '1:1'", "CPUWeight: '20'"], []),
    "GPUs that a container counts from 0": (
        "command", "docker run --gpus '\"device=3,2\"' -e CUDA_VISIBLE_DEVICES=1 -p 1:8000 vllm/vllm-openai --model a/b\n", ["gpus: [3]"], []),
    "the GPUs of a Quadlet file": ("quadlet", "[Container]\nImage=vllm/vllm-openai\nAddDevice=nvidia.com/gpu=2\nEnvironment=CUDA_VISIBLE_DEVICES=0\nExec=--model a/b\n", ["gpus: [2]"], []),
    "a GPU that a container did not have": (
        "command", "docker run --gpus device=2 -e CUDA_VISIBLE_DEVICES=1 -p 1:8000 vllm/vllm-openai --model a/b\n", ["gpus: [2]"], ["CUDA_VISIBLE_DEVICES=1 among the container's GPUs"]),
    "a GPU by its node": ("command", "docker run --device /dev/nvidia0 --device /dev/nvidiactl -p 1:8000 vllm/vllm-openai --model a/b\n", ["gpus: [0]"], []),
    "a container without GPUs": ("command", "docker run -e NVIDIA_VISIBLE_DEVICES=none -p 1:8000 vllm/vllm-openai --model a/b\n", ["gpus: none"], []),
    "GPUs by their ids": (
        "command", "docker run --gpus '\"device=GPU-a,GPU-b\"' -e CUDA_VISIBLE_DEVICES=GPU-b -p 1:8000 vllm/vllm-openai --model a/b\n", ["gpus: [GPU-b]"], []),
    "an address of llama.cpp's image": (
        "command", "docker run -e LLAMA_ARG_HOST=10.0.0.1 -v /m:/m --network host ghcr.io/ggml-org/llama.cpp:server -m /m/a.gguf\ndocker run -v /m:/m --network host ghcr.io/ggml-org/llama.cpp:server -m /m/b.gguf --host=10.0.0.2\n",
        ["host: 10.0.0.1", "host: 10.0.0.2"], []),
    "a range of ports": (
        "command", "docker run -p 9000-9002:8000-8002 vllm/vllm-openai --model a/b --port 8001\n", ["port: 9001"], ["the published port 8000", "the published port 8002"]),
    "a folder beside the script": ("command", "cd /srv; docker run -v ./models:/models -p 1:8000 vllm/vllm-openai --model /models/x\n", ["model_path: /srv/models/x"], []),
    "the folder of a container": ("command", "cd /srv; docker run -w /models -v /data:/models -p 1:8000 vllm/vllm-openai --model ./x\n", ["model_path: /data/x"], []),
    "the address of llama.cpp's image": ("command", "docker run -v /m:/m -p 1:8080 ghcr.io/ggml-org/llama.cpp:server -m /m/a.gguf\n", ["host: 0.0.0.0"], []),
    "the network of another container": ("command", "docker run --network container:vpn vllm/vllm-openai --model a/b\n", ["model_path: a/b"], ["in the network of `vpn`"]),
    "what a Compose service inherits": (
        "compose", "services:\n  v:\n    image: vllm/vllm-openai\n    command: --model a/b\n    extends: {file: x.yaml, service: y}\ninclude: [z.yaml]\n",
        ["model_path: a/b"], ["line 5: `extends:` of the service", "the files of `include:`", "docker compose config"]),
    "specifiers in a unit's shell": (
        "unit", '[Service]\nUser=ai\nExecStart=/bin/bash -c "exec /l/llama-server -m /models/%i.gguf --alias \'%i\' --port 8081"\n',
        ['model_path: "/models/${INSTANCE}.gguf"', "port: 8081"], []),
    "output that goes elsewhere": (
        "command", "exec > >(tee -a /var/log/x) 2>&1\nexec >>/var/log/y\nvllm serve a/b | tee -a /var/log/z\n",
        ["model_path: a/b"], ["line 1: the file of its output", "line 2: the file `/var/log/y` of its output", "the file `/var/log/z` of its output"]),
    "a pipe into a file": ("command", "vllm serve a/b 2>&1 | ts >>/var/log/z\n", ["model_path: a/b"], ["the file `/var/log/z` of its output"]),
    "what is set up before": (
        "command", "nvidia-smi -pl 300\nnvidia-smi -q\necho never >/sys/kernel/mm/x\nvllm serve a/b\n", ["model_path: a/b"], ["line 1: `nvidia-smi -pl 300`", "line 3: what is written to /sys/kernel/mm/x"]),
    "options that come twice": (
        "command", "vllm serve a/b --port 8000 --max_model_len=8 --max-model-len 16 --enable-prefix-caching --no-enable-prefix-caching --port 8001\n",
        ["port: 8001", "max_model_len: 16", "enable-prefix-caching: false"], []),
    "llama.cpp's options that come twice": ("command", "/l/llama-server -m /a.gguf -c 100 --host 1.1.1.1 --lora /x --host 127.0.0.1 -c 200 --lora /y\n", ["host: 127.0.0.1", "max_model_len: 200", "[--lora, /x, --lora, /y]"], []),
    "options of two words": (
        "command", "/l/llama-server --control-vector-layer-range 10 20 -m /a.gguf --lora-scaled /b.gguf 0.5 --port 1\n",
        ["[--control-vector-layer-range, '10', '20', --lora-scaled, /b.gguf, '0.5']", "port: 1"], []),
    "a package that is no variable": ("command", "uvx --from vllm==0.10.0 vllm serve a/b\nuv run --with vllm==0.11.0 --python 3.12 vllm serve c/d\n", ["model_path: a/b", "model_path: c/d"], ["`uvx --from vllm==0.10.0`", "recipectl venv create"]),
    "another user in ExecStart=": ("unit", "[Service]\nExecStart=/usr/bin/sudo -u llm -H /l/llama-server -m /a.gguf\n", ["user: llm"], []),
    "root's cache": ("unit", "[Service]\nExecStart=/v/bin/vllm serve a/b\n", ["model_path: a/b"], ["it ran as root", "the Hugging Face cache of root"]),
    "numbers that are no secret": ("command", "python -m sglang.launch_server --model-path a/b --bucket-time-to-first-token 0.1 0.5\n", ["bucket-time-to-first-token:\n  - 0.1\n  - 0.5\n"], []),
    "a variable after a list": ("command", "vllm serve a/b --served-model-name x $EXTRA\n", ["model_path: a/b"], ["`${EXTRA}` after `--served-model-name`"]),
    "several ExecStart=": ("unit", "[Service]\nUser=ai\nType=oneshot\nExecStart=/v/bin/vllm serve c/d --port 1\nExecStart=/v/bin/vllm serve a/b\n", ["model_path: a/b"], ["ExecStart=/v/bin/vllm serve c/d --port 1"]),
    "conda run": ("command", "/opt/c/bin/conda run --no-capture-output -n x vllm serve a/b\n/opt/c/condabin/conda run -n base vllm serve c/d\n", ["python_path: /opt/c/envs/x/bin/python", "python_path: /opt/c/bin/python"], []),
    "a substitution in a container": (
        "command", "docker run -p 1:8000 vllm/vllm-openai bash -c 'vllm serve a/b -tp $(nproc)'\nvllm serve c/d\n", ["model_path: c/d"], ["recipectl does not run substitutions", AS_IT_RUNS]),
    "relative paths within words": (
        "command", "cd /srv\nvllm serve a/b --lora-modules x=./l/x y=../y --download-dir dl --speculative-config '{\"model\": \"./d\"}'\n",
        ["x=/srv/l/x", "y=/srv/../y", "download-dir: /srv/dl", "/srv/d"], []),
    "relative paths of llama.cpp": (
        "command", "cd /srv; /l/llama-server -m a.gguf --grammar-file g.gbnf --path public --slot-save-path slots/ --lora ./a.gguf,./b.gguf\n",
        ["grammar-file: /srv/g.gbnf", "path: /srv/public", "slot-save-path: /srv/slots/", "lora: /srv/a.gguf,/srv/b.gguf"], []),
    "another order of GPUs": ("command", "CUDA_DEVICE_ORDER=FASTEST_FIRST CUDA_VISIBLE_DEVICES=1 vllm serve a/b\n", ["gpus: [1]"], ["CUDA_DEVICE_ORDER=FASTEST_FIRST"]),
    "a long stop": ("unit", "[Service]\nUser=ai\nTimeoutStopSec=2min\nExecStart=/l/llama-server -m /a.gguf\n", ["TimeoutStopSec: 2min"], []),
    "a here-document of a shell": ("command", "bash <<EOF\nvllm serve a/b\nEOF\nssh h <<'EOF'\nls\nEOF\nvllm serve c/d\n", ["model_path: c/d"], ["line 1: `bash …` runs an engine", "line 4"]),
    "lines of VLLM Studio": (
        "vllm-studio", '{"recipes": [\n {"id": "x",\n  "model_path": "a/b",\n  "thinking_mode": true,\n  "extra_args": {\n   "docker_image": "y"}},\n {"id": "y",\n  "backend": "tabby",\n  "model_path": "q"}]}',
        ["model_path: a/b"], ["line 4: `thinking_mode: true`", "line 6: `docker_image", "line 8: recipe y: `backend: tabby` is no engine"]),
    "conda from a substitution": (
        "command", 'source "$(conda info --base)/etc/profile.d/conda.sh"\nconda activate x\nvllm serve a/b\nsource $(poetry env info --path)/bin/activate\nvllm serve c/d\n',
        ["model_path: a/b", "model_path: c/d"], ["line 2: `conda activate x`; give its `bin/python`", "line 4: `source …/bin/activate`; give its `bin/python`"]),
    "what comes after the last engine": ("command", "vllm serve a/b &\n. /opt/second.sh\n", ["model_path: a/b"], ["line 2: `. /opt/second.sh`"]),
    "a shell behind nohup and sudo": (
        "command", "nohup sh -c 'CUDA_VISIBLE_DEVICES=1 vllm serve a/b' &\nsudo -u ai bash -c 'source /v/bin/activate; vllm serve c/d'\n",
        ["model_path: a/b\n# Counted as nvidia-smi counts; CUDA counted the fastest GPU first, if they differ.\ngpus: [1]", "venv_path: /v\nmodel_path: c/d\nuser: ai"], []),
    "a program in a variable": ("command", "V=$(which vllm)\n$V serve a/b\n$X serve c/d\n", ["model_path: a/b"], ["line 3: `${X}` is not known here"]),
    "an array that begins empty": (
        "command", 'A=()\ndeclare -a B\nA+=(--seed 1)\nB+=(--port 8001)\nC=()\nvllm serve a/b "${A[@]}" ${B[@]} "${C[@]}"\n', ["port: 8001\nextra_args:\n  seed: 1"], []),
    "an array that begins as a text": (
        "command", 'A=x\nA+=(--seed 1)\nvllm serve a/b "${A[@]}"\nvllm serve c/d\n', ["model_path: c/d"], ["line 3: `A` is set with `+=`, which mixes a text and an array (line 2)"]),
    "GPUs that sudo sets up": (
        "command", "sudo -n nvidia-smi -pl 300\nsudo nvidia-smi -q\nvllm serve a/b\n", ["model_path: a/b"], ["line 1: `sudo -n nvidia-smi -pl 300`, which sets the GPUs up"]),
    "engines by other modules": (
        "command", "python3 -m vllm.entrypoints.api_server --port 1\npython3 -m sglang_router.launch_server --model-path a/b\npython -m sglang.bench_serving --model a/b\nvllm serve a/b\n",
        ["model_path: a/b"], ["line 1: `vllm.entrypoints.api_server` is vLLM's demo server", "line 2: `python3 …` runs an engine", "line 3: `python …`, which is not read"]),
    "a unit, a Compose file and a script that a script writes": (
        "command", "cat >/etc/systemd/system/v.service <<E\n[Service]\nExecStart=/v/bin/vllm serve a/b\nE\nsudo tee /x.sh >/dev/null <<'E'\nvllm serve a/b\nE\n"
        "cat >c.yml <<E\nservices: {v: {\nimage: vllm/vllm-openai}}\nE\ncat <<E\nusage: vllm serve M\nE\nvllm serve c/d\n", ["model_path: c/d"],
        ["line 1: the script writes `/etc/systemd/system/v.service`, which starts an engine; run `recipectl import unit`", "line 5: the script writes `/x.sh`, which", "line 8: the script writes `c.yml`, which starts an engine; run `recipectl import compose`"]),
    "a script named after llama-server": (
        "command", "./run-llama-server -m /x.gguf\n/opt/update-llama-server\nmy-llama-server -m /y.gguf\n", ["model_path: /y.gguf"],
        ["line 1: `./run-llama-server …` runs an engine in a way that cannot be read", "line 2: `/opt/update-llama-server`, which is not read"]),
    "a word that llama-server refuses": ("command", "llama-server rocm qwen\nvllm serve a/b\n", ["model_path: a/b"], ["line 1: `rocm` is no option of llama-server"]),
    "llama-swap in a container": (
        "compose", "services:\n  s:\n    image: ghcr.io/mostlygeek/llama-swap:cuda\n  v:\n    image: vllm/vllm-openai\n    command: --model a/b\n", ["model_path: a/b"],
        ["line 3: the service `s`: the image `ghcr.io/mostlygeek/llama-swap:cuda` starts its models itself; run `recipectl import llama-swap`"]),
    "an element of an array": ("command", 'M=(a/b c/d)\nvllm serve "${M[1]}"\n', ["model_path: c/d"], []),
    "a file that a script writes": (
        "command", "cat >/t/x.jinja <<'EOF'\nx\nEOF\necho $$ >/run/x.pid\nvllm serve a/b --chat-template /t/x.jinja\n", ["model_path: a/b"], ["line 1: the file `/t/x.jinja`, which it writes"]),
    "branches that are not mixed": (
        "command", 'case "$1" in\n s) M=a/b ;;\n l) M=c/d; E=--enforce-eager; export VLLM_X=1 ;;\nesac\nvllm serve $M $E\n',
        ["model_path: a/b\n"], ["`VLLM_X` is exported under a condition; here it is not set"]),
    "a folder that only a shell knows": ("command", 'cd "$(git rev-parse --show-toplevel)"\nvllm serve ./m\n', ['model_path: "${FOLDER}/m"'], ["line 1: `cd …`"]),
    "the lines of PATH and cd": (
        "command", "export PATH=/opt/cuda/bin:$PATH\ncd /opt/x\n\nvllm serve a/b\n", ["model_path: a/b"], ["line 1: `PATH` with /opt/cuda/bin", "line 2: `cd /opt/x`"]),
    "options of the interpreter": (
        "command", "cd /srv; PYTHONPATH=. python -u -X faulthandler -m sglang.launch_server --model-path a/b\n", ["PYTHONPATH: /srv"], ["`-X faulthandler` of the interpreter"]),
    "GPUs of CDI and by number": (
        "compose", "services:\n  v:\n    image: vllm/vllm-openai\n    command: --model a/b\n    deploy: {resources: {reservations: {devices: [{device_ids: ['nvidia.com/gpu=1'], capabilities: [gpu]}]}}}\n"
        "  w:\n    image: vllm/vllm-openai\n    command: --model c/d\n    gpus: [{count: 2}]\n", ["gpus: [1]", "gpus: [0, 1]"], []),
    "ports with IPv6, and twice": (
        "command", "docker run --gpus all -p '[::]:8001:8000' vllm/vllm-openai --model a/b\ndocker run --gpus all -p 8000:8000 -p 8005:8000 vllm/vllm-openai --model c/d\n",
        ["model_path: a/b\nport: 8001", "port: 8000"], ["line 2: the published port 8005:8000"]),
    "the hub's cache itself": (
        "command", "docker run --gpus all -p 1:8000 -v /d/hub:/root/.cache/huggingface/hub vllm/vllm-openai --model a/b\n", ["HF_HUB_CACHE: /d/hub"], []),
    "docker of another host": (
        "command", "docker -H ssh://g run vllm/vllm-openai --model a/b\nexport DOCKER_HOST=ssh://g\ndocker run vllm/vllm-openai --model a/b\nvllm serve c/d\n",
        ["model_path: c/d"], ["line 1: `-H` runs the container on another host", "line 3: `DOCKER_HOST` runs"]),
    "YAML as Go reads it": (
        "compose", "services:\n  v:\n    image: ghcr.io/ggml-org/llama.cpp:server-cuda\n    command: [-m, /models/a.gguf, -fa, on]\n    volumes: [/m:/models]\n    environment: {FOO: yes, S: 12:30}\n    ports: [22:22, 8080:8080]\n",
        ["flash-attn: 'on'", "FOO: 'yes'", "S: '12:30'"], ["the published port 22,"]),
    "what a Compose service is built from, and when it starts": (
        "compose", "services:\n  v:\n    build: .\n    command: /app/llama-server -m /m/a.gguf\n    restart: always\n    profiles: [gpu]\n    gpus: all\n    volumes: [hub:/m]\nvolumes:\n  hub: {driver_opts: {type: none, o: bind, device: /srv/hub}}\n",
        ["model_path: /srv/hub/a.gguf"], ["line 5: `restart:` of a service with `profiles:`"]),
    "lines of an anchor, of volumes and ports": (
        "compose", "x-v: &v\n  healthcheck: {test: x}\n  image: vllm/vllm-openai\nservices:\n  v:\n    <<: *v\n    command: --model a/b\n    gpus: all\n    volumes: [hub:/x]\n    ports: [1:8000, 2:2]\nvolumes: {hub: {name: shared}}\n",
        ["port: 1"], ["line 2: `healthcheck:` of the service", "line 9: the volume `shared` at /x", "line 10: the published port 2,"]),
    "both halves of TimeoutSec=": (
        "unit", "[Service]\nUser=ai\nTimeoutSec=300\nRestart=always\nExecStartPre=-/usr/bin/docker rm x\nExecStart=/v/bin/vllm serve a/b\n[Install]\nWantedBy=ai.target\n",
        ["TimeoutStopSec: '300'"], ["line 3: TimeoutStartSec=300, which did not limit its load", "line 8: WantedBy=ai.target, which may not be part of the boot"]),
    "groups of a unit": (
        "unit", "[Service]\nUser=ai\nGroup=video\nSupplementaryGroups=render\nRestart=always\nExecStart=/v/bin/vllm serve a/b\n",
        ["SupplementaryGroups: [render, video]"], ["line 3: Group=video: the engine is in this group"]),
    "the group of the user": ("unit", "[Service]\nGroup=ai\nUser=ai\nRestart=always\nExecStart=/l/llama-server -m /a.gguf\n", ["user: ai\n"], []),
    "variables in shells of other tools": (
        "compose", 'services:\n  v:\n    image: vllm/vllm-openai\n    gpus: all\n    entrypoint: bash -c\n    command: ["vllm serve ${MODEL} --port 8000"]\n    ports:\n      - 1:8000\n      - 2:2\n    environment:\n      A: 1.0\n      P: ~\n',
        ['model_path: "${MODEL}"', "A: '1'"], ["line 9: the published port 2,", "line 12: the variable `P` of the caller"]),
    "a variable in llama-swap's shell": (
        "llama-swap", 'models:\n  a:\n    cmd: nohup bash -c "exec vllm serve a/b --port ${PORT} --max-model-len ${env.LEN}"\n', ["max_model_len: ${LEN}"], []),
    "sudo in a unit's shell": ("unit", "[Service]\nUser=ai\nRestart=always\nExecStart=/bin/bash -c 'cd /srv/x; sudo -u llm vllm serve ./a'\n", ["user: llm", "model_path: /srv/x/a"], ["line 4: `cd /srv/x`"]),
    "other programs in a shell behind sudo": (
        "command", "sudo bash -c '\nmodprobe x\ncd /h\nvllm serve a/b\n'\n", ["model_path: a/b"], ["line 1: line 2: `modprobe x`, which runs no engine", "line 1: line 3: `cd /h`"]),
    "what runs in a container that is there": ("command", "sudo docker exec v vllm serve a/b\ndocker compose run --rm v vllm serve a/b\nvllm serve c/d\n", ["model_path: c/d"], ["line 1: `docker exec …` runs an engine", "line 2: `docker compose …` runs containers; run `recipectl import compose`"]),
    "defaults that stand alone": ("command", ': "${M:=a/b}"\nvllm serve $M\n', ["model_path: a/b"], ["line 1: `${M}` has its default value here"]),
    "a range of ports of the host": ("command", "docker run --gpus all -p 8000-8001:8000 vllm/vllm-openai --model a/b\n", ["port: 8000"], ["the published range 8000-8001:8000"]),
    "names of keys that are none": ("command", "export DISABLE_AUTH=true CACHE_KEY=modelname SSL_KEY=server.pem\nvllm serve a/b\n", ["DISABLE_AUTH: 'true'", "CACHE_KEY: modelname", "SSL_KEY: server.pem"], []),
    "pushd": ("command", "pushd /srv/x\nvllm serve ./y\npopd\n", ["model_path: /srv/x/y"], ["line 1: `cd /srv/x`"]),
    "PATH of a unit": ("unit", "[Service]\nUser=ai\nEnvironment=PATH=/opt/c/bin:/usr/bin\nRestart=always\nExecStart=/l/llama-server -m /a.gguf\n", ["user: ai"], ["line 3: `PATH` with /opt/c/bin"]),
    "a stop without an end": ("unit", "[Service]\nUser=ai\nTimeoutStopSec=0\nRestart=always\nExecStart=/l/llama-server -m /a.gguf\n", ["user: ai"], ["line 3: TimeoutStopSec=0; a stop has a limit here"]),
    "a variable that a file may set": (
        "unit", '[Service]\nUser=ai\nEnvironment="A=--seed 3"\nEnvironmentFile=-/no/such\nRestart=always\nExecStart=/v/bin/vllm serve /m $A\n', ['args: ["${A}"]'], ["line 4: `A` is `--seed 3`, if that file does not set it"]),
    "two engines in a unit's shell behind a wrapper": (
        "unit", "[Service]\nUser=ai\nRestart=always\nExecStart=/usr/bin/timeout 5 /bin/bash -c 'echo x > /sys/y; /l/llama-server -m /a.gguf & /l/llama-server -m /b.gguf'\n",
        ["model_path: /b.gguf"], ["line 4: `/l/llama-server -m /a.gguf`, another engine", "line 4: `/usr/bin/timeout 5` before the program", "line 4: what is written to /sys/y"]),
    "arguments of an inline script": (
        "command", "bash -c 'vllm serve $1 --port ${2:-8000}' _ m/n 9000\nenv -i bash -c 'exec \"$0\" \"$@\"' /l/llama-server -m /z.gguf\n", ["model_path: m/n\nport: 9000", "binary: /l/llama-server\nmodel_path: /z.gguf"], []),
    "arguments of a Compose shell": ("compose", "services:\n  v:\n    image: vllm/vllm-openai\n    command: [bash, -c, 'vllm serve $$1', _, a/b]\n", ["model_path: a/b"], []),
    "what depends on a variable in Compose": ("compose", "services:\n  v:\n    image: vllm/vllm-openai\n    command: --model a/b ${D:+--enforce-eager}\n", ["model_path: a/b\n"], ["line 4: `${D:+--enforce-eager}`"]),
    "a folder and limits in a container's shell": (
        "command", "docker run --gpus all -p 1:8000 -v /l:/x vllm/vllm-openai bash -c 'ulimit -n 9; cd /x && vllm serve ./m --lora-modules y=/img/y'\n", ["model_path: /l/m", "LimitNOFILE: '9'"], ["`/img/y`, a path of the image"]),
    "both engines behind a wrapper": ("command", "timeout 5 bash -c 'vllm serve a/b & vllm serve c/d'\n", ["model_path: a/b", "model_path: c/d"], ["b: not carried over: line 1: `timeout 5`", "d: not carried over: line 1: `timeout 5`"]),
    "a login shell of another user": ("command", "sudo -i -u ai bash -c 'vllm serve ./m'\n", ['model_path: "${HOME}/m"'], []),
    "Quadlet's dollars and a list as Entrypoint": (
        "quadlet", '[Container]\nImage=vllm/vllm-openai\nEntrypoint=["sh","-c"]\nEnvironment=M=a/b\nExec="vllm serve $$M"\n', ["model_path: a/b"], []),
    "keys that are no text": ("compose", "services:\n  v:\n    image: vllm/vllm-openai\n    command: --model a/b\n    deploy: {1: 2}\n", ["model_path: a/b"], ["`deploy:` of the service: 1"]),
    "a name that is a date": ("llama-swap", "models: {2024-01-01: {cmd: 'llama-server -m /a.gguf'}}\n", ["model_path: /a.gguf"], []),
    "the folder of systemd-run": ("command", "systemd-run --working-directory=/srv /l/llama-server -m f.gguf\n", ["model_path: /srv/f.gguf"], []),
    "any free port": ("compose", "services:\n  v:\n    image: vllm/vllm-openai\n    command: --model a/b\n    ports: [8000]\n", ["port: 8000"], ["line 5: the published port 8000 was any free one"]),
    "private characters in YAML": ("compose", 'services:\n  v:\n    image: vllm/vllm-openai\n    command: "--model a/b --x \\uE000HOME\\uE001"\n', [], ["a.txt: it has characters of Unicode's private area"]),
    "YAML that contains itself": ("compose", "services: &a\n  v:\n    image: vllm/vllm-openai\n    x: *a\n", [], ["a.txt: it is nested without end"]),
    "a path of another kind": ("vllm-studio", '[{"id": "x", "model_path": ["y"]}, {"id": "z", "model_path": "a/b"}]', ["model_path: a/b"], ["line 1: recipe x: its `model_path` is no text"]),
    "a caller's token for a shell": ("command", "export MY_TOKEN\nbash -c 'vllm serve a/b'\n", ["MY_TOKEN: /etc/recipectl/secrets/MY_TOKEN"], ["line 1: the value of `MY_TOKEN`"]),
    "what frees a GPU before": ("command", "docker stop comfyui\ncurl -F f=@x http://localhost/z\ncurl -sf http://localhost:8000/health\nvllm serve a/b\n", ["model_path: a/b"], ["line 1: `docker stop comfyui`", "line 2: `curl …`"]),
    "llama-swap's variables in a shell": ("llama-swap", "models:\n  a:\n    cmd: bash -c 'export A=2; vllm serve $MODEL'\n    env: [MODEL=a/b, A=1]\n", ["model_path: a/b", "A: '2'"], []),
    "volumes that are no mapping": ("compose", "services: {v: {image: vllm/vllm-openai}}\nvolumes: [x]\n", [], ["a.txt: `volumes:` is a list"]),
    "a number without end": ("compose", "services: {v: {image: vllm/vllm-openai, x: " + "1" * 5000 + "}}\n", [], ["is not YAML"]),
    "private characters of Quadlet": ("quadlet", "[Container]\nImage=vllm/vllm-openai\nExec=--model \ue000X\ue001\n", [], ["a.container: it has characters of Unicode's private area"]),
    "two lists of recipes": ("vllm-studio", '{"recipes":[],"recipes":[{"id":"a","model_path":"a/b"}]}', ["model_path: a/b"], []),
    "a unit that did not restart": ("unit", "[Service]\nUser=ai\nExecStart=/v/bin/vllm serve a/b\n", ["model_path: a/b"], ["without Restart="]),
    "a shell of llama-swap over several lines": (
        "llama-swap", 'models:\n  a:\n    cmd: |\n      bash -c "\n      source /v/bin/activate\n      exec vllm serve a/b --port ${PORT}\n      "\n', ["venv_path: /v\nmodel_path: a/b"], []),
    "arithmetic that sets": ("command", "P=8000\nQ=$((P++))\nvllm serve a/b --port $P\n: $((A=5))\n[[ $((B+=1)) -gt 1 ]]\nvllm serve c/d --port $C\n", ["model_path: c/d"], ["line 3: `P` is set by arithmetic (line 2)"]),
    "one export of two": ("command", "A=0\nexport A=1 B=$A\nvllm serve a/b --port 800$B\n", ["port: 8000\n"], []),
    "an element that goes": ("command", "A=(--seed 3 --enforce-eager)\nunset 'A[2]'\nvllm serve a/b \"${A[@]}\"\nvllm serve c/d\n", ["model_path: c/d"], ["line 3: `A` is set by `unset` of an element (line 2)"]),
    "quotes within quotes": ("command", "llama-server -m /a.gguf --api-prefix \"${X:-'q'}\"\nllama-server -m /b.gguf -a \"${X:-'$q'}\"\n", ["api-prefix: '''q'''"], ["line 2: single quotes within double quotes do not quote"]),
    "a variable that stays": ("command", "readonly P=8080\nP=9090\nvllm serve a/b --port $P\n", ["port: 8080"], ["line 2: `P` is read-only: it keeps its value"]),
    "cd with an end of options": ("command", "cd -- /srv/x\nvllm serve ./y\n", ["model_path: /srv/x/y"], ["line 1: `cd /srv/x`"]),
    "several limits at once": ("command", "ulimit -l unlimited -n 65535\nvllm serve a/b\n", ["LimitMEMLOCK: infinity", "LimitNOFILE: '65535'"], []),
    "variables of systemd-run": (
        "command", "export HF_HOME=/hf A=1\nsystemd-run -E HF_TOKEN -E HF_HOME --setenv=OMP_NUM_THREADS -E B=2 vllm serve a/b\nsystemd-run --scope vllm serve c/d\n",
        ["HF_HOME: /hf\n  B: '2'\nsecrets:", "HF_TOKEN: /etc/recipectl/secrets/HF_TOKEN", "A: '1'\n"], ["line 2: the variable `OMP_NUM_THREADS` of the caller", "line 2: the value of `HF_TOKEN`"]),
    "lists of systemd-run": (
        "command", "systemd-run -p SupplementaryGroups=a -p SupplementaryGroups=b -p After=x.service -p After=y.service -p 'DeviceAllow=/dev/a rw' -p 'DeviceAllow=/dev/b rw' vllm serve a/b\n",
        ["SupplementaryGroups: a b", "After: x.service y.service"], ["line 1: DeviceAllow=/dev/b rw, besides the one"]),
    "GPUs over a variable": ("command", "docker run --gpus all -e NVIDIA_VISIBLE_DEVICES=1 -p 8000:8000 vllm/vllm-openai --model a/b\n", ["port: 8000\n"], ["line 1: NVIDIA_VISIBLE_DEVICES=1, which the container's own option overrides"]),
    "GPUs as CSV": (
        "command", "docker run --gpus 'device=3,capabilities=utility' -p 1:8000 vllm/vllm-openai --model a/b\ndocker run --gpus count=2 -p 2:8000 vllm/vllm-openai --model c/d\ndocker run --gpus '\"device=4,5\",\"capabilities=a,b\"' -p 3:8000 vllm/vllm-openai --model e/f\n",
        ["gpus: [3]", "gpus: [0, 1]", "gpus: [4, 5]"], []),
    "a MIG instance and no network": (
        "command", "podman run --device nvidia.com/gpu=0:1 --network none -p 8000:8000 vllm/vllm-openai --model a/b\n", ["model_path: a/b"], ["line 1: the MIG instance `0:1`", "line 1: the network `none`: nobody reached"]),
    "joined short options": ("command", "docker run -itv /m:/x --gpus all -p 8000:8000 vllm/vllm-openai --model /x/y\n", ["model_path: /m/y"], []),
    "labels of a container": ("command", "docker run --label traefik.enable=true -l maintainer=x --gpus all -p 8000:8000 vllm/vllm-openai --model a/b\n", ["model_path: a/b"], ["line 1: the labels `traefik.enable`, which"]),
    "labels in Compose": ("compose", "services:\n  v:\n    image: vllm/vllm-openai\n    command: --model a/b\n    entrypoint: ~\n    mem_swappiness: 0\n    privileged: false\n    labels: {caddy: x, traefik.enable: true}\n", ["model_path: a/b"], ["line 8: the labels `caddy`, `traefik.enable`", "line 6: `mem_swappiness:`"]),
    "devices in their long form": ("compose", "services:\n  v:\n    image: vllm/vllm-openai\n    command: --model a/b\n    devices: [{source: /dev/kfd, target: /dev/kfd}]\n", ["accelerator: rocm"], []),
    "labels and updates of Quadlet": ("quadlet", "[Container]\nImage=vllm/vllm-openai\nExec=--model a/b\nLabel=caddy=x \"traefik.a=b c\"\nAutoUpdate=registry\n", ["model_path: a/b"], ["line 4: the labels `caddy`, `traefik.a`", "line 5: `AutoUpdate=registry`"]),
    "what a native unit requires": (
        "unit", "[Unit]\nRequires=docker.service\nAfter=docker.service\nOnFailure=\n[Service]\nUser=ai\nNice=5\nStartLimitIntervalSec=0\nStartLimitBurst=3\nRestart=always\nExecStart=/usr/bin/nice -n 10 /l/llama-server -m /a.gguf\n",
        ["Nice: '15'", "StartLimitBurst: '3'"], ["line 2: Requires=docker.service; see", "line 8: StartLimitIntervalSec=0 in [Service], where systemd ignores it"]),
    "options of sudo and runuser": (
        "command", "runuser -u ai -g video -G render -- vllm serve a/b\nsudo -R /r -T 3600 vllm serve c/d\nsudo -u '#0' vllm serve e/f\n", ["SupplementaryGroups: render video", "user: root"], ["line 2: `sudo -R /r`", "line 2: `sudo -T 3600`"]),
    "joined options of env": ("command", "export LLAMA_ARG_PORT=9\nenv -iv llama-server -m /a.gguf\nenv -S 'A=b llama-server -m /c.gguf'\n", ["model_path: /a.gguf\n\n#", "port: 9\nenv_vars:\n  A: b"], []),
    "niceness as a number": ("command", "nice -5 taskset -c 0-3 -- llama-server -m /a.gguf\n", ["Nice: '5'\n  CPUAffinity: 0-3"], []),
    "what a scheduler reads": ("command", "#!/bin/bash\n#SBATCH --gres=gpu:4\n#SBATCH --job-name=x\nvllm serve a/b\n", ["model_path: a/b"], ["line 2: `#SBATCH --gres=gpu:4`"]),
    "an engine that is piped": ("command", "echo 'vllm serve a/b' | sudo bash\necho 'vllm serve a/b' | cat\nvllm serve c/d\n", ["model_path: c/d"], ["runs the text that is piped to it; write it as a command"]),
    "what llama-swap says and how it stops": ("llama-swap", "sendLoadingState: true\nmodels:\n  a: {cmd: llama-server -m /a.gguf --port 9999, cmdStop: 'kill -9 ${PID}'}\n  b: {cmd: llama-server -m /b.gguf --port 9998, cmdStop: 'kill ${PID}'}\n", ["port: 9999"], ["line 1: `sendLoadingState:`, a setting of the proxy", "a: not carried over: line 3: `cmdStop`"]),
    "two models at one port": ("llama-swap", "models:\n  a: {cmd: llama-server -m /a.gguf --port 9999}\n  b: {cmd: llama-server -m /b.gguf --port 9999}\n", ["port: 9999", "port: 5802"], ["line 3: port 9999, which `a` has, too"]),
    "what is calculated": ("command", "P=8080\nQ=$((P+1)) R=$(( -7 / 2 + (${C:-64} % 10) * 3 ))\nS=$(( $(nproc) * 2 ))\nvllm serve a/b --port $Q --max-num-seqs $R --seed $S\n", ["port: 8081", "max_num_seqs: 9", "seed: \"${B_S}\""], ["line 2: `${C}` has its default value here, `64`", "line 3: `S` is set from `$((…))` of numbers that are not known"]),
    "a folder above the script's": ("command", 'R="$(cd "$(dirname "${BASH_SOURCE[0]}")/../no-such" && pwd)"\nvllm serve $R/m\n', ["/no-such/m\n"], []),
    "a short name of SGLang": ("vllm-studio", '{"id":"x","model_path":"a/b","backend":"sglang","extra_args":{"tp":2}}', ["tensor_parallel_size: 2\n"], []),
    "what only clears up": (
        "command", "pgrep -f 'python -m vllm.entrypoints.openai.api_server --model x' | xargs -r kill -9\necho 'starting vllm serve a/b' | ssh log tee -a /x\nvllm serve a/b\necho 'vllm serve c/d' | ssh host\necho 'vllm serve e/f' | xargs -I{} bash -c '{}'\n",
        ["model_path: a/b"], ["line 4: `ssh host` runs the text", "line 5: `xargs …` runs the text"]),
    "GPUs that are no CSV": ("command", "docker run --gpus $'0\\n1' -p 1:8000 vllm/vllm-openai --model a/b\n", ["model_path: a/b"], ["; name the GPUs in `gpus:`"]),
    "niceness that is no number": ("command", "systemd-run -p Nice=high nice -n 5 vllm serve a/b\nsystemd-run --nice=5 -p Nice=3 vllm serve c/d\nnice -n 3 nice -n 4 vllm serve e/f\n", ["Nice: '5'", "Nice: '3'", "Nice: '7'"], []),
    "options of schedulers": ("command", "#SBATCH -N 2\n#SBATCH -o x --gpus=4\n#PBS -N job\n#SBATCH -J x -o y\nvllm serve a/b\n", ["model_path: a/b"], ["line 1: `#SBATCH -N 2`", "line 2: `#SBATCH -o x --gpus=4`"]),
    "what systemd-run does not pass on": (
        "command", "export HF_TOKEN A=1\nulimit -l unlimited\nsystemd-run -p StartupAllowedCPUs=0-3 -p StartupAllowedCPUs=8 vllm serve a/b\n", ["model_path: a/b\nservice:\n  StartupAllowedCPUs: 0-3 8\n"], []),
    "what systemd does not read": (
        "unit", "[Service]\nExecStart=/v/bin/vllm serve a/b\n  --port 8001\nRestartSec=5 # five\nRestart=always\nUser=ai\nSyslogIdentifier=x#y\nDescription\n",
        ["user: ai\nservice:\n  SyslogIdentifier: x#y\n"], ["line 3: `--port 8001` is no setting, and systemd ignores it", "line 4: RestartSec=5 # five: in systemd, `#` begins no comment", "line 8: `Description` is no setting"]),
    "what a container may not write, and what nobody starts again": (
        "command", "docker run -d -v /hf:/root/.cache/huggingface:ro -v /m:/m:ro --gpus all -p 8000:8000 vllm/vllm-openai --model a/b\ndocker run --rm --gpus all -p 9000:8000 vllm/vllm-openai --model c/d\n",
        ["HF_HOME: /hf", "model_path: c/d"], ["line 1: `/hf` was mounted read-only", "line 1: without `--restart` it stayed down"]),
    "a folder of Compose that is read-only": (
        "compose", "services:\n  v:\n    image: vllm/vllm-openai\n    restart: always\n    command: --model a/b\n    volumes: [{type: bind, source: /hf, target: /root/.cache/huggingface, read_only: true}]\n",
        ["HF_HOME: /hf"], ["line 6: `/hf` was mounted read-only"]),
    "names and keys of llama.cpp": ("command", "llama-server -m /a.gguf -a one -a two,three --api-key k1-a --api-key k2-b --lora /x --lora /y\n", ["served_model_name: one,two,three", "args: [--lora, /x, --lora, /y]"], ["line 1: the keys of `--api-key` after the first"]),
    "the first of two engines in a unit's shell": ("unit", "[Service]\nRestart=always\nUser=root\nExecStart=/bin/sh -c '/opt/v/bin/vllm serve /m/main || /opt/v/bin/vllm serve /m/other'\n", ["model_path: /m/main"], ["line 4: `/opt/v/bin/vllm serve /m/other`, another engine"]),
    "images of llama.cpp with all programs": (
        "command", "docker run --gpus all --network host ghcr.io/ggml-org/llama.cpp:full-cuda --server -m /a.gguf\ndocker run --gpus all --network host ghcr.io/ggml-org/llama.cpp:server-cuda -m /b.gguf\n",
        ["model_path: /a.gguf\n\n#", "model_path: /b.gguf\nhost: 0.0.0.0\n"], []),
    "branches after one that does not run": (
        "command", "MODE=fast\nif [ $MODE = slow ]; then E=--enforce-eager; elif grep -q fast /etc/mode; then E=--seed=1; fi\nvllm serve a/b $E\nD=0\n[[ $D = 0 ]] && export Y=1 || export Z=1\nvllm serve c/d\n",
        ["args: [--seed=1]\n", "model_path: c/d\nenv_vars:\n  Y: '1'\n"], ["line 2: `E` is set under a condition"]),
    "arithmetic and expressions that decide": (
        "command", "N=2\nM=Qwen/Qwen3-8B\n(( N > 4 )) && E=--enforce-eager\nif (( N <= 1 )); then S=1; elif (( $N > 1 )); then S=2; fi\n[[ $M =~ 32B$ ]] && P=32 || P=8\nvllm serve $M $E --seed $S --tensor-parallel-size $P\n(( N++ ))\n(( N > 2 )) && Q=1\nvllm serve c/d --port 800$Q\n",
        ["tensor_parallel_size: 8\nextra_args:\n  seed: 2\n"], ["line 8: `Q` is set under a condition"]),
    "the folder itself": ("command", "cd /srv/models/q\nvllm serve .\n", ["model_path: /srv/models/q\n"], ["line 1: `cd /srv/models/q`"]),
    "the cache of another user": ("command", "sudo -u no-such-user vllm serve a/b\nexport HF_HUB_OFFLINE=1\nvllm serve c/d\nvllm serve /e/f\n", ["user: no-such-user"], ["the Hugging Face cache of user no-such-user", "the Hugging Face cache of its user"]),
    "the lines of an image and a folder": (
        "compose", "services:\n  v:\n    image: vllm/vllm-openai:v0.9.0\n    restart: always\n    working_dir: /x\n    gpus: all\n    command: --model a/b\n    environment: {PW: SeCr3tVaLu3, MYKEY: SeCr3tVaLu4}\n",
        ["PW: /etc/recipectl/secrets/PW", "MYKEY: /etc/recipectl/secrets/MYKEY"], ["line 3: the image `vllm/vllm-openai:v0.9.0`", "line 5: the folder `/x` of the container"]),
    "a pod": ("quadlet", "[Container]\nImage=vllm/vllm-openai\nExec=--model a/b\nPod=ai.pod\nVolume=/hf:/root/.cache/huggingface:ro,Z\n[Service]\nRestart=always\n", ["HF_HOME: /hf"], ["line 4: the pod `ai.pod`, which published its ports", "line 5: `/hf` was mounted read-only"]),
    "a script of Python": ("command", "#!/usr/bin/env python3\nimport os\nos.system('vllm serve a/b')\n", [], ["line 1: it is a script of python, which is not read"]),
    "a template on the command line": ("command", "vllm serve a/b --chat-template '{{ messages[0].content }}'\nvllm serve '{{ model }}'\necho c/d | xargs vllm serve\n", ["chat-template: '{{ messages[0].content }}'"], ["line 2: fill in `{{ model }}`", "line 3: `xargs vllm …` runs"]),
    "what a unit unsets and has by default": (
        "unit", "[Service]\nRestart=always\nDynamicUser=yes\nEnvironment=FOO=1 BAR=2\nUnsetEnvironment=FOO\nExecStart=/usr/bin/podman run -d --gpus all -p 8000:8000 vllm/vllm-openai --model a/b $FOO\n",
        ["model_path: a/b\n"], ["line 5: UnsetEnvironment=FOO"]),
    "a program that starts an engine": ("command", "start-stop-daemon --start --exec /opt/v/bin/vllm -- serve a/b\nvllm serve c/d\n", ["model_path: c/d"], ["line 1: `start-stop-daemon …` runs an engine in a way that cannot be read"]),
    "a user in the wrong section": ("unit", "[Unit]\nUser=foo\n[Service]\nRestart=always\nExecStart=/v/bin/vllm serve a/b\n", ["model_path: a/b"], ["line 2: User=foo in [Unit], where systemd ignores it", "it ran as root"]),
    "devices, mounts and folders with variables in them": (
        "command", "docker run -d --gpus \"\\\"device=$G\\\"\" --restart always -p 8001:8000 --mount type=bind,source=\"$HOME/m\",target=/m --user \"$(id -u):$(id -g)\" vllm/vllm-openai --model /m/x\nexport PATH=\"$HOME/.local/bin:$PATH\"\nnice -n $N numactl --cpunodebind=$NODE --membind=$NODE vllm serve a/b\nnice -$N vllm serve c/d\n",
        ["model_path: \"${HOME}/m/x\"", "CUDA_VISIBLE_DEVICES: \"${G}\"", "model_path: a/b\n\n", "model_path: c/d\n"],
        ["line 1: `--user ${UID}:${GID}` of the container", "line 2: `PATH` with ${HOME}/.local/bin", "line 3: `nice -n ${N}`", "line 3: `numactl --cpunodebind=${NODE} --membind=${NODE}`", "line 4: `nice -${N}`"]),
    "console scripts and their interpreters": (
        "command", "/usr/bin/python3 -I /home/u/.local/bin/vllm serve a/b\n/opt/v/bin/python3 /opt/v/bin/vllm serve c/d\n",
        ["python_path: /usr/bin/python3\n", "python_path: /opt/v/bin/python\n"], ["line 1: `-I` of the interpreter"]),
    "a known program in a folder that is not known": (
        "command", "$HOME/llama.cpp/build/bin/llama-bench -m x.gguf\n$HOME/bin/llama-server -m /a.gguf\n$BIN/$NAME -m /b.gguf\n",
        ["model_path: /a.gguf"], ["line 1: `${HOME}/llama.cpp/build/bin/llama-bench …`", "line 3: `${BIN}/${NAME}` is not known here"]),
    "a command of assignments alone": ("llama-swap", "models:\n  a:\n    cmd: A=x\n  b:\n    cmd: /l/llama-server -m /b.gguf --port ${PORT}\n", ["model_path: /b.gguf"], ["`cmd`, which runs no program"]),
    "a character that does not exist": ("unit", "[Service]\nRestart=always\nUser=ai\nExecStart=/v/bin/vllm serve a/b --x \\UFFFFFFFF\n", ["model_path: a/b"], []),
    "variables that sudo passes on": (
        "command", "export A=1 B=2\nsudo --preserve-env=A,C,HF_TOKEN /opt/v/bin/vllm serve a/b\n",
        ["HF_TOKEN: /etc/recipectl/secrets/HF_TOKEN"], ["line 2: the variable `C` of the caller", "line 2: `B`, which `sudo` without -E may not have passed on"]),
    "a key that the command gives, and an empty one of the caller": (
        "command", "export VLLM_API_KEY=${VLLM_API_KEY:-}\nvllm serve a/b --api-key SeCr3tVaLu3x\n",
        ["model_path: a/b\nsecrets:\n"], []),
    "engines in other sessions": (
        "command", "export A=1 HF_TOKEN\ntmux -L x new-session -d -s a -e B=2 -c /srv 'CUDA_VISIBLE_DEVICES=1 vllm serve a/b'\nscreen -dmS x vllm serve c/d\nsu - ai -c 'vllm serve e/f'\n"
        "su ai -s /bin/bash -c 'vllm serve g/h'\nuv run -m vllm.entrypoints.openai.api_server --model i/j\nsu -g video ai -c 'vllm serve k/l'\ntmux attach\n",
        ["gpus: [1]\nenv_vars:\n  A: '1'\n  B: '2'\n", "model_path: c/d\nenv_vars:\n  A: '1'\n", "model_path: e/f\nuser: ai\n", "model_path: g/h\nenv_vars:\n  A: '1'\n", "model_path: i/j\n"],
        ["line 2: `cd /srv`", "line 6: `uv run` before the program", "line 7: `su …` runs an engine in a way that cannot be read"]),
    "a crash that was no failure": ("unit", "[Service]\nRestart=on-failure\nUser=ai\nExecStart=-/v/bin/vllm serve a/b\n", ["model_path: a/b"], ["line 4: the prefix `-` of ExecStart=: systemd did not count a crash as a failure"]),
    "what each engine of a script lacks": (
        "command", "module load cuda\nfoo\nvllm serve a/b &\n(. ./z.env; vllm serve c/d) &\nvllm serve e/f\n",
        ["# Not carried over: line 1: `module load cuda`, which may set variables\n# Not carried over: line 4: `. ./z.env`, which may set variables\n# The"],
        ["b: not carried over: line 1: `module", "d: not carried over: line 1: `module", "f: not carried over: line 1: `module"]),
    "a key that a program gives": (
        "command", "vllm serve a/b --api-key $(cat /k)\nvllm serve c/d --api-key=\"$(cat /k)\"\nvllm serve $(cat /m)\n", ["VLLM_API_KEY: /etc/recipectl/secrets/VLLM_API_KEY\n\n#", "model_path: c/d"],
        ["line 1: `$(cat …)`: recipectl does not run", "line 3: `$(cat …)`: recipectl does not run substitutions; write the result"]),
    "the notes of VLLM Studio": (
        "vllm-studio", '{"id":"x","name":"n","description":"top","model_path":"a/b","tags":["t"],"extra_args":{"description":"n","tags":[]}}', ["description: n\n"],
        ['line 1: `description: "top"`, its own notes', 'line 1: `tags: ["t"]`, its own notes']),
    "sessions and evals that are more than they seem": (
        "command", "tmux new -d vllm serve a/b \\; split-window htop\nFOO=2 eval 'vllm serve c/d'\nA='eval \"$A\"'; eval \"$A\"\nM=${X:-e/f}; C=\"vllm serve $M\"; eval \"$C\"\n. /v/bin/activate\nsu - ai -c 'vllm serve g/h'\n",
        ["model_path: e/f", "# The command names no venv: set `python_path:`, or the host's PATH decides.\nbackend: vllm\nmodel_path: g/h"],
        ["line 1: `tmux new …` runs an engine", "line 2: `eval` runs what only a shell knows", "line 4: `${X}` has its default value here"]),
    "some of the arguments": ("command", 'M="${@:1:1}"\nvllm serve a/b --seed $M\nvllm serve c/d "${@:2:1}"\n', ['seed: "${B_M}"'], ["line 3: the value of `${@:…}` is for a shell to find"]),
    "an image in a variable": ("command", "docker run -d --restart always --network host --gpus all $IMAGE ./llama-server -m /a.gguf\n", ["binary: "], []),
    "what a branch reads": ("command", "[ -f .env ] && . ./.env\nvllm serve a/b &\nvllm serve c/d &\nbash -lc 'vllm serve e/f & vllm serve g/h'\n", [], ["d: not carried over: line 1: `. ./.env`", "h: not carried over: line 4: `bash -lc`"]),
    "adapters of which one has a scale": ("command", "llama-server -m /a.gguf --lora-scaled /x 0.5 --lora /y\n", ["args: [--lora-scaled, /x, '0.5', --lora, /y]"], []),
    "other processes": ("command", "vllm serve a/b & taskset -pc 0-7 $!\nsudo renice -n 5 \"$$\"\nvllm serve c/d\n", ["model_path: c/d"], ["d: not carried over: line 2: `sudo renice -n 5 $$`", "b: not carried over: line 1: `taskset -pc 0-7 $!`; see `service:`"]),
    "a function that is called again and again": (
        "command", 'M=org/old\nlog() { echo x; }\nchoose() { M=org/new; }\n' + "log a\n" * 1001 + 'choose\nvllm serve "$M"\nvllm serve a/b\n', ["model_path: org/new\n", "model_path: a/b"], []),
    "a function that sets what is set already": ("command", "f() { X=1; }\nX=1\nf\nX=2\nf\nvllm serve a/b --seed $X\nvllm serve c/d\n", ["model_path: a/b\nextra_args:\n  seed: 1\n", "model_path: c/d"], []),
    "what ends engines, and programs behind them": (
        "command", "trap 'pkill -f \"vllm serve org/x\"' EXIT\nvllm serve a/b & prlimit --pid $! --nofile=9; taskset -cp 0-3 \"$!\"\nunset HF_TOKEN; echo ${HF_TOKEN:-none}\nVLLM_TORCH_PROFILER_DIR=gs://b/x vllm serve c/d\n",
        ["line 2: `prlimit --pid $! --nofile=9`; see `service:`\n# Not carried over: line 2: `taskset -cp 0-3 $!`; see", "model_path: c/d\nenv_vars:\n  VLLM_TORCH_PROFILER_DIR: gs://b/x\n"], []),
    "tests that a shell cannot read": (
        "command", "X=\nif [ ! \"$X\" =rod ]; then A=1; else A=2; fi\n\"$X\" ] && B=4\nvllm serve a/b --seed $A --port ${B:-8009}\n", ["seed: 2", "port: 8009"], []),
    "a limit of a value that is not known": (
        "command", 'N=$(nproc)\n[ "$N" -lt 1 ] && N=1\nT=${T:-4}\nif [[ $T -gt $N ]]; then T=$N; fi\nvllm serve a/b --max-num-seqs $N --tensor-parallel-size $T\n',
        ["max_num_seqs: ${B_N}\n", "tensor_parallel_size: 4\n"], ["line 2: `N` is set under a condition; its value here is `${N}`"]),
    "conditions on what the caller could set": (
        "command", 'L=8192; [ "$QUICK" = 1 ] && L=1024\nif [[ "$MODE" == "eval" ]]; then P=(--enforce-eager); else P=(--seed 1); fi\n[ -n "$LORA" ] && P+=(--enable-lora)\n'
        'case "$1" in small) T=1;; large) T=2;; esac\nif [ "$HOME" = /x ]; then E=1; fi\nvllm serve a/b --max-model-len $L "${P[@]}" --tensor-parallel-size $T --port 100$E\n',
        ["max_model_len: 8192\n", "seed: 1\n", "tensor_parallel_size: 1\n", "port: 1001\n"],
        ["line 1: `QUICK` is not set here: the script's caller may set it", "line 1: `L` is `1024` under a condition, which does not hold here", "line 2: `P` is `--enforce-eager` under a condition",
         "line 3: `P` is `… --enable-lora` under a condition", "line 4: `T` is set under a condition; its value here is `1`"]),
    "engines of which a script runs one": (
        "command", 'if [ "$#" -gt 1 ]; then\nexec llama-server "$@"\nfi\nif [[ $ISL -eq 1024 ]]; then\nvllm serve a/b --port 1 --seed 1\nelse\nvllm serve a/b --port 1 --seed 2\nfi\n',
        ["# ── b-2.yaml", "# The script ran only one of them.\nconflicts: [b]"], ["line 1: `$#` is 0 here", "line 4: as it is, the script does not run it", "line 2: the command names no model"]),
    "what a unit of Docker's client has": (
        "unit", "[Service]\nUser=svc\nGroup=docker\nEnvironmentFile=/etc/none\nExecStartPre=/usr/bin/docker pull vllm/vllm-openai\nExecStop=docker stop -t 60 v\n"
        "ExecStart=docker run --name v --gpus all -v kc:/cache -v /d/hf/:/root/.cache/huggingface/ -v /t:/root/.triton/cache -e VLLM_API_KEY=${VLLM_API_KEY} -e TORCHINDUCTOR_CACHE_DIR=/cache/i -p 8000:8000 vllm/vllm-openai --model a/b\n",
        ["HF_HOME: /d/hf\n", "TRITON_CACHE_DIR: /t\n", "TimeoutStopSec: '60'"],
        ["line 2: User=svc of Docker's client", "line 3: Group=docker of Docker's client", "line 5: ExecStartPre=/usr/bin/docker pull", "it ran as the image's user", "`VLLM_API_KEY`, which may be in /etc/none",
         "`TORCHINDUCTOR_CACHE_DIR=/cache/i`, a path of a volume"]),
    "placeholders in a unit": ("unit", "[Service]\nUser=u\nExecStart=/v/bin/vllm serve a/b --port @PORT@\n", [], ["line 3: fill in `@PORT@`"]),
    "a placeholder in a mount": ("unit", "[Service]\nExecStart=docker run -v /home/<user>/hf:/root/.cache/huggingface vllm/vllm-openai --model a/b\n", [], ["line 2: fill in `<user>`"]),
    "a script that a unit's shell sources": ("unit", "[Service]\nExecStart=bash -lc 'source /none/run.sh 0.0.0.0'\n", [], ["run `recipectl import command /none/run.sh` if it is a script"]),
    "what stands before an engine": (
        "command", "#SBATCH --output=/x.log\n#SBATCH --container-mounts=/a:/w\npip install vllm==0.8.5\nrm -rf /c\npython3 -m vllm.entrypoints.cli.main bench serve --model a/x\nexport HF_TOKEN=$(cat /t)\nexport HUGGING_FACE_HUB_TOKEN=$HF_TOKEN\n"
        "MODEL_KEY=qwen2.5-coder-32b CUDA_VISIBLE_DEVICES=-1 vllm serve a/b\n", ["gpus: none", "MODEL_KEY: qwen2.5-coder-32b", "# Not carried over: line 3: `pip install vllm==0.8.5`", "# Not carried over: line 4: `rm -rf /c`"],
        ["line 1: `#SBATCH --output=/x.log`", "its paths are those of a container", "line 5: `python3 …`, which is not read", "`HUGGING_FACE_HUB_TOKEN`, an earlier name of HF_TOKEN"]),
    "services in networks of their own, and others": (
        "compose", 'services:\n  a: {image: "vllm/vllm-openai:v1", command: --model a/b, runtime: habana}\n  b: {image: "vllm/vllm-openai:v1", command: --model a/c}\n  c: {image: "$IMG", command: "$SPEC --port 8080"}\n'
        '  d: {build: ., entrypoint: /usr/local/bin/llama-swap}\n  e: {image: "ghcr.io/ggml-org/llama.cpp:server", command: ["-m /m/e.gguf", "--embedding"]}\n',
        ["port: 8001"], ["line 2: the runtime `habana`", "b: not carried over: line 3: port 8000, which `a` has, too", "line 4: the service `c`: the image `${IMG}` does not tell its engine",
                         "line 5: the service `d`: llama-swap starts its models; run", "line 6: the service `e`: `-m /m/e.gguf` is one word"]),
    "words of a build of llama.cpp's own": (
        "llama-swap", "captureBuffer: 15\nhooks: {on_startup: {preload: [x, a]}}\nmodels:\n  a:\n    cmd: /opt/ik/ik-llama-server -m /a.gguf -ngld 9 --flash-attn\n    aliases: [n]\n    env: [HIP_VISIBLE_DEVICES=-1]\n"
        "  b:\n    cmd: llama-server -m /b.gguf -fa\n    aliases: [n]\n  c:\n    cmd: docker run -v <ROOT>/v:/m vllm/vllm-openai --model /m/x\n",
        ["args: [-ngld, '9', --flash-attn]", "gpus: none", "flash-attn: 'on'"],
        ["line 1: `captureBuffer:`, a setting of the proxy", "line 2: `x` of `hooks.on_startup.preload`, which is no model", "line 10: the name `n` of a and b, which llama-swap refuses", "line 12: model `c`: fill in `<ROOT>`"]),
    "a key that Quadlet does not know": ("quadlet", "[Container]\nImage=ghcr.io/ggml-org/llama.cpp:server\nEeec=llama-server -hf a/b\n", [], ["`Eeec=` (line 3) is no key of [Container]"]),
    "what VLLM Studio's present release passes": (
        "vllm-studio", '[{"id": "a", "model_path": "/m/GLM-5.1", "backend": "sglang", "tool_call_parser": "glm45", "dtype": "half"},\n{"id": "b", "model_path": "/m/MiniMax-M2", "tp": 2},\n{"id": "c", "model_path": "/m/c.gguf", "backend": "llamacpp", "max_num_seqs": 256}]',
        ["tool_call_parser: glm45", "# Earlier releases of VLLM Studio did not pass it to SGLang.\ndtype: half", "# VLLM Studio ran one model at a time, at one port.\nconflicts: [a]", "conflicts: [a, b]", "# Only some releases of VLLM Studio pass it"],
        ["line 1: `--enable-metrics`, which VLLM Studio's present release passes", "`reasoning_parser`: VLLM Studio's present release passes `glm45` for this name, earlier ones nothing",
         "line 2: `tool_call_parser`: VLLM Studio's present release passes `minimax-m2`", "line 2: `--enable-expert-parallel`"]),
    "a variable that several branches export": (
        "command", 'case "$(cat /x)" in\na) A=1;;\nb) export H=0;;\nc) export H="${H:-0}";;\n*) exit 1;;\nesac\nvllm serve a/b\n', ["model_path: a/b\n"], ["line 1: `H` is exported under a condition; here it is not set"]),
    "arguments that are known": (
        "command", 'set -- a b; if [ $# -gt 1 ]; then M=$2; else M=r; fi\nbash -c \'if [ $# = 2 ]; then vllm serve x/$1 --seed $#; fi\' n y z\nfor i in "$@"; do N=$i; done\nvllm serve x/$M --port 1\n', ["model_path: x/b", "model_path: x/y", "seed: 2"], []),
    "what stays unset": (
        "command", 'if [ -n "$X" ]; then A=(--seed 1); export FOO=/a; fi; A+=(--port 9)\n[ -n "$X" ] && F=1; [ -f /no ] || F=2; export FOO\n{ [ -n "$X" ] && G=1; } || G=3\nvllm serve a/b "${A[@]}" --max-num-seqs $F --max-model-len $G ${H+--x} ${A2-}\n',
        ["port: 9", "max_num_seqs: 2", "max_model_len: 3"], ["line 1: `A` is `--seed 1` under a condition, which does not hold here", "line 1: `FOO` is exported under a condition, which does not hold here", "line 3: `G` is `1` under a condition"]),
    "what a file may set": (
        "command", 'source ./nope.env\n[ -n "$LORA" ] && E=--enable-lora\nvllm serve a/b $E\n', ["enable-lora: true"], ["line 1: `source ./nope.env`"]),
    "alternatives with defaults": (
        "command", 'case "${X:-}" in a) export FOO=1;; b) export FOO=2;; esac\nY=${Y:-none}; if [ "$Y" = a ]; then F="--seed 1"; elif [ "$Y" = b ]; then F="--seed 2"; fi\nvllm serve a/b $F\n', ["model_path: a/b\n"],
        ["line 1: `FOO` is `1` under a condition, which does not hold here", "line 2: `F` is `--seed 2` under a condition"]),
    "what a script cannot do without": (
        "command", '[ -z "$1" ] && exit 1\nM=${2:?}\nif [ "$1" = big ]; then TP=8; else TP=1; fi\n[ "$Z" = 1 ] || exit 0\nvllm serve "$M" --tensor-parallel-size $TP\n', ["tensor_parallel_size: 8"],
        ["line 1: without `$1` the script ends there", "line 3: `TP` is set under a condition; its value here is `8`", "line 4: without `Z` the script ends there"]),
    "secrets in a part that does not run": (
        "command", 'if [ -n "$V" ]; then K=hunter2; CR=hunter3; fi\nexport VLLM_API_KEY="$CR"\nMY_MODEL_KEY=hunter4 vllm serve a/b --hf-token "$K"\n', ["model_path: a/b"], ["line 1: `K` is `…` under a condition, which does not hold here", "line 1: `CR` is `…` under a condition"]),
    "what a part that does not run does": (
        "command", 'export HF_HOME=/a\nif [ -n "$V" ]; then nvidia-smi -pl 300; unset HF_HOME; PATH=/x/bin:$PATH; echo 1 >/proc/sys/vm/x; docker compose up; sysctl -w a=1; fi\nif [ -n "$Y" ]; then F=1; elif [ -f /no ]; then F=2; else F=3; fi\nvllm serve a/b --seed $F\n',
        ["seed: 2", "HF_HOME: /a"], ["line 2: `nvidia-smi -pl 300`, which sets the GPUs up; do that at boot; as it is, the script does not run it", "line 2: `HF_HOME` is unset under a condition, which does not hold here",
        "line 2: `PATH` is", "what is written to /proc/sys/vm/x; do that at boot; as it is", "run `recipectl import compose` with its file; as it is, the script does not run it", "`sysctl -w a=1`, which runs no engine; as it is", "line 3: `F` is `1` under a condition, which does not hold here"]),
    "engines of which one runs": (
        "command", 'if [ -f /x ]; then vllm serve a/a & else vllm serve a/c & fi; if [ -f /y ]; then :; else vllm serve a/b --port 8001 & fi\nif [ -f /z ]; then exec vllm serve a/d --port 5; fi\n[ -f /w ] && vllm serve a/e --port 5 || vllm serve a/f --port 5\n',
        ["model_path: a/c\n# The script ran only one of them.\nconflicts: [a]", "model_path: a/b\nport: 8001\n\n", "model_path: a/e\nport: 5\n# The script ran only one of them.\nconflicts: [d]", "conflicts: [d, e]"], []),
    "no placeholders": (
        "unit", '[Unit]\nDescription=see __README__ <b>\n[Service]\nUser=u\nRestart=always\nEnvironment=CXXFLAGS=-D__AVX512F__\nExecStart=/v/bin/llama-server -m /a.gguf --chat-template-kwargs \'{"a":"__X_Y__"}\' --system-prompt "-c 5 is a/<think>"\n', ["CXXFLAGS: -D__AVX512F__"], []),
    "the limit of a stop, twice": ("unit", "[Service]\nExecStart=/usr/bin/sudo docker run --name v --gpus all -p 8000:8000 vllm/vllm-openai --model a/b\nUser=svc\nGroup=docker\nExecStop=docker stop -t 30 v\nTimeoutStopSec=45\n", ["TimeoutStopSec: '45'"], ["line 3: User=svc of Docker's client"]),
    "services at one port": ("compose", 'services:\n  a: {image: vllm/vllm-openai, command: --model a/a, ports: ["${P}:8000"]}\n  b: {image: vllm/vllm-openai, command: --model a/b, ports: ["${P}:8000"]}\n  c: {image: vllm/vllm-openai, command: --model a/c, ports: ["127.0.0.2:9:8000"]}\n  d: {image: vllm/vllm-openai, command: --model a/d, ports: ["127.0.0.3:9:8000"]}\n', ["port: ${P}", "host: 127.0.0.3\nport: 9\n"], []),
    "tests with an error": ("command", 'if [ ! "$X" -gt 1 ]; then M=q; else M=r; fi\nif [ -n "$*" ]; then N=1; else N=2; fi\nif (( Y > 0 )); then :; fi\nvllm serve a/$M --seed $N\n', ["model_path: a/r", "seed: 2"], ["line 3: `Y` is not set here"]),
    "secrets that a part would set": (
        "command", 'if [ "$MODE" = prod ]; then P=hunter2pw; C=u:hunter3; export VLLM_API_KEY=$P; else P=other4pw; fi\nARGS=(--api-key "$P")\nvllm serve a/b "${ARGS[@]}"\n', ["VLLM_API_KEY: /etc/recipectl/secrets/VLLM_API_KEY"],
        ["line 1: `P` is `…` under a condition, which does not hold here", "line 1: `C` is `…` under a condition"]),
    "variables of the session": ("command", 'if [ -n "$ALT" ]; then HOME=/data; fi\nvllm serve $HOME/m\n', ["model_path: \"${HOME}/m\""], ["line 1: `HOME` is `/data` under a condition"]),
    "guards": (
        "command", 'MODEL=""\nwhile [[ $# -gt 0 ]]; do case "$1" in --model) MODEL="$2"; shift 2;; *) shift;; esac; done\nif [[ -z "$MODEL" ]]; then echo "--model required"; exit 1; fi\ndie() { exit 1; }\n[ -n "$MODE" ] || die\n'
        'if [ "$MODE" = fast ]; then E="--seed 1"; else E="--seed 2"; fi\nif [ $# -lt 1 ]; then exit 1; fi\nif [ "$1" = big ]; then N=1; else N=2; fi\nvllm serve "$MODEL" $E --port $N\n', ['model_path: "${MODEL}"', "seed: 1", "port: 1"],
        ["line 3: without `MODEL` the script ends there", "line 5: without `MODE` the script ends there", "line 7: without `$#` the script ends there"]),
    "an engine that ends its script": (
        "command", 'if [ "${MODE:-serve}" = serve ]; then exec vllm serve a/c --port 1; fi\nexec vllm serve a/d --port 2\n', ["model_path: a/c", "model_path: a/d\nport: 2\n# The script ran only one of them.\nconflicts: [c]"],
        ["c: not carried over: line 1: `${MODE}` has its default value here", "d: not carried over: line 2: as it is, the script does not run it"]),
    "copies of arguments, and loops over none": (
        "command", 'MODEL=$1; PORT=$2; D=false; E=()\n[ -z "$PORT" ] && PORT=8000\n[ -n "$MODEL" ] || MODEL=a/c\nif $D; then S=1; else S=2; fi\nif [ ${#E[@]} -eq 0 ]; then E=(--max-num-seqs 3); fi\nfor arg; do S=9; done\nuntil [ $# -eq 0 ]; do S=8; done\n'
        'while [ -n "${1:-}" ]; do S=7; shift; done\nwhile (( "$#" )); do S=6; shift; done\nwhile [[ $# > 0 ]]; do S=5; shift; done\nvllm serve $MODEL --port $PORT --seed $S "${E[@]}"\n', ["model_path: a/c\nport: 8000\nmax_num_seqs: 3\nextra_args:\n  seed: 2\n"], ["line 3: `MODEL` is not set here"]),
    "a venv under a condition": ("command", 'if [ -n "${CONDA_PREFIX:-}" ]; then echo x; else source /opt/v/bin/activate; fi\nvllm serve a/b\n', ["venv_path: /opt/v"], ["line 1: `/opt/v` is not used under a condition; here it is"]),
    "functions whose effect depends on a value": (
        "command", 'f(){ if test -n "$X"; then unset PORT; fi; }\ng(){ if [ "$MODE" = prod ]; then M=x; fi; }\nh(){ N=x; [ -n "$2" ] && i; }; i(){ h; }\n'
        "PORT=5; M=y; N=z; MODE=dev; f; g; MODE=prod; g; h a; N=z; i\nvllm serve a --port $PORT\nvllm serve $M\nvllm serve $N\nvllm serve a/b\n", ["model_path: a\nport: 5\n", "model_path: x\n", "model_path: a/b"],
        ["a: not carried over: line 1: `PORT` is unset under a condition, which does not hold here"]),
    "a file of llama.cpp by any name": ("command", "cd /srv/llama\n/l/llama-server -m blobs/sha256-0f --mmproj p/x --port 1\n", ["model_path: /srv/llama/blobs/sha256-0f\n", "mmproj: /srv/llama/p/x"], []),
    "a folder that cannot be a name of the hub": ("command", "cd /srv\nvllm serve q/ --tokenizer a/b/c\n", ["model_path: /srv/q/\n", "served_model_name: q/\n", "tokenizer: /srv/a/b/c"], []),
    "what a shell replaces": ("command", "M=Qwen/Qwen3-8B\nT=${M##*/}\nvllm serve $M --served-model-name \"${M//\\//_}\" ${M,,} ${T^^} ${M/Qwen/Z}\n", ["[Qwen_Qwen3-8B, qwen/qwen3-8b, QWEN3-8B, Z/Qwen3-8B]"], []),
    "what only a shell replaces": ("command", "M=a/b\nvllm serve ${M//[ab]/c}\nvllm serve ${M:0:1}\nvllm serve ${M/a/&}\n", [], ["line 2: the value of `${M/…}` is for a shell to find", "line 3: the value of `${M:…}` is", "line 4: the value of `${M/…}` is"]),
    "parts of case that go on": (
        "command", "set -Eeuo pipefail\nM=Q/Q-8B\na=(--port 1)\ncase $M in\nQ/*) a+=(--seed 1) ;;&\nz) a+=(--seed 9) ;;\n*8B) a+=(--max-num-seqs 8) ;&\nn) a+=(--dtype half) ;;\n*) a+=(--seed 3) ;;\nesac\nvllm serve $M \"${a[@]}\"\n",
        ["port: 1\n", "max_num_seqs: 8\n", "dtype: half\n", "seed: 1\n"], []),
    "an element of zsh": ("command", "#!/bin/zsh\nM=(Q/A Q/B)\nvllm serve ${M[1]} --port 1\n", [], ["line 3: zsh does not expand `$M` as bash does"]),
    "an engine in a variable that only a shell knows": (
        "command", "CMD=\"vllm serve Q/Q -tp $(nvidia-smi -L | wc -l)\"\n$CMD\ncmd=(vllm serve Q/B)\nfor f in x y; do cmd+=(--middleware $f); done\n\"${cmd[@]}\"\nvllm serve Q/A\n",
        ["model_path: Q/A\n"], ["line 2: `$CMD` runs an engine with words that only a shell knows", "line 5: `$cmd` runs an engine"]),
    "two lists of GPUs, and an alias": (
        "vllm-studio", '[{"id":"q","backend":"sglang","model_path":"/m/q","tensor_parallel_size":4,"visible_devices":"0","extra_args":{"tp":8,"cuda_visible_devices":"0,1"}}]',
        ["gpus: [0, 1]\n", "tensor_parallel_size: 8\n"], ["`visible_devices: 0`, a second list of GPUs", "`tensor_parallel_size: 4`, which `tp` of extra_args overrode"]),
    "GPUs of podman in one word": ("command", "podman run --device nvidia.com/gpu=0,nvidia.com/gpu=1 -p 8000:8000 vllm/vllm-openai --model a/b\n", ["gpus: [0, 1]\n"], []),
    "engines one after another": ("command", "vllm serve Q/A & P=$!\nkill $P\nvllm serve Q/B --port 8000\nvllm serve Q/C --port 8001\n", ["# They have one port.\nconflicts: [a]\n\n# ── c.yaml"], []),
    "conda's environments one after another": (
        "command", "source /opt/conda/bin/activate vllm\nvllm serve Q/A --port 1 &\nsource activate sg\npython -m sglang.launch_server --model-path Q/B --port 2 &\nconda deactivate\nvllm serve Q/C --port 3 &\nsource /v/bin/activate\nvllm serve Q/D --port 4\n",
        ["python_path: /opt/conda/envs/vllm/bin/python\nmodel_path: Q/A", "python_path: /opt/conda/envs/sg/bin/python\nmodel_path: Q/B", "backend: vllm\nmodel_path: Q/C", "venv_path: /v\nmodel_path: Q/D"], []),
    "relative models anywhere": (
        "command", "cd /srv/x\nvllm serve --port 1 models/org/m\nvllm serve --trust-remote-code models/org/n --served-model-name a b --port 2\nLLAMA_ARG_MODEL=models/a/b /l/llama-server --port 3\n/l/llama-server -m m --lora a,b --port 4\nvllm serve org/r --headless --port 2\n",
        ["model_path: /srv/x/models/org/m\nport: 1\nserved_model_name: models/org/m\n", "model_path: /srv/x/models/org/n\nport: 2\ntrust_remote_code: true\nextra_args:\n  served-model-name: [a, b]\n\n",
         "model_path: /srv/x/models/a/b\n", "lora: /srv/x/a,/srv/x/b", "port: 2\nextra_args:\n  headless: true\n"], []),
    "engines at two addresses": ("command", "vllm serve o/a --host 10.0.0.1 &\nvllm serve o/b --host 127.0.0.1 --seed 1\n", ["extra_args:\n  seed: 1\n"], []),
    "a pattern that a part sets": ("command", "M=p; N=a; case $M in p) N=p;;& $N) P=1;; *) P=4; esac; vllm serve m --port $P\n", [], ["line 1: `P` is set under a condition"]),
    "patterns without case": ("command", "shopt -s nocasematch; X=abc; vllm serve ${X/A/z} --port 1\n", [], ["line 1: the value of `${X/…}` is for a shell to find"]),
    "prefixes of SGLang": ("command", "docker run -d --gpus all -p 30000:30000 -v /srv/m:/models lmsysorg/sglang:latest python3 -m sglang.launch_server --model-path /models/q --host 0.0.0.0 --fastapi-root-path /models/x --uvicorn-access-log-exclude-prefixes /health /models/metrics\n", ["model_path: /srv/m/q\n", "fastapi-root-path: /models/x", "uvicorn-access-log-exclude-prefixes: [/health, /models/metrics]"], []),
    "a prefix before the model": ("command", "docker run -d --restart always --gpus all -p 8000:8000 -v /srv/m:/models vllm/vllm-openai --root-path /api /models/llama\n", ["model_path: /srv/m/llama\n", "root-path: /api", "served_model_name: /models/llama"], []),
    "other programs of an image, and ranges of ports": (
        "command", "docker run --entrypoint hf vllm/vllm-openai download x\nunset -f HF_TOKEN; echo $HF_TOKEN\ndocker run -d --restart always --gpus all -p 8000-8001 -e CONDA_PREFIX=/opt/none vllm/vllm-openai --model a/b\n", ["model_path: a/b\nport: 8000\n"],
        ["line 1: `docker run …`, which runs no engine", "line 3: the published range 8000-8001: its first port counts", "`CONDA_PREFIX=/opt/none`, a path of the image"]),
    "a pod's file": ("quadlet", "[Pod]\nPublishPort=1:1\n", [], ["it is Quadlet's file of a pod; give the file of an engine's container"]),
    "engines that other programs start": (
        "command", 'gamemoderun llama-server --model=/m.gguf\nproxychains4 vllm serve --config /etc/x.yaml\npm2 start vllm --name x -- serve /m\n(crontab -l; echo "@reboot /v/bin/vllm serve /m") | crontab -\n'
        "./start_vllm --x\ndocker start other\nsystemctl --user restart vllm\nsource activate v\nHF_HOME=cache/hf vllm serve data/models/Qwen3-8B\n",
        ["/data/models/Qwen3-8B\n", "/cache/hf\n", "line 8: `conda activate v`; give its `bin/python`"],
        ["line 1: `gamemoderun", "line 2: `proxychains4", "line 3: `pm2", "line 4: `crontab …` runs the text", "run `recipectl import command ./start_vllm`", "line 6: `docker start …`, which is not read", "run `recipectl import unit vllm`"]),
    "a template around a unit's settings": ("unit", "[Service]\nExecStart=/v/bin/vllm serve a/b\n{% if x %}\nUser=y\n{% endif %}\n", [], ["line 3: fill in `{% if x %}`"]),
    "a template in another setting": ("unit", "[Service]\nExecStart=/v/bin/vllm serve a/b --port $PORT\nEnvironment=\"PORT={{ port }}\"\n", [], ["line 3: fill in `{{ port }}`"]),
    "where a unit's program is": (
        "unit", "[Service]\nUser=u\nRestart=always\nExecSearchPath=/opt/none/bin\nEnvironment=LD_LIBRARY_PATH=/x:$LD_LIBRARY_PATH\nExecStart=vllm serve a/b\n[Install]\nWantedBy=multi-user.target ai.target\n",
        ["LD_LIBRARY_PATH: /x:$LD_LIBRARY_PATH\n"], ["line 4: `PATH` with /opt/none/bin", "line 5: `$LD_LIBRARY_PATH`, which systemd does not expand in Environment=, stays as it is", "line 8: WantedBy=ai.target; see `autostart:`"]),
    "a script in a unit's shell": ("unit", "[Service]\nExecStart=/bin/bash -c 'exec /srv/none.sh --port 1'\n", [], ["line 2: the shell of its ExecStart= does not run a known engine; run `recipectl import command /srv/none.sh` if it is a script"]),
    "what engines waited for": (
        "command", "until [ -d /mnt ]; do sleep 5; done\nvllm serve a/b &\nsleep 60\nvllm serve c/d &\npkill x; sleep 1\nvllm serve e/f & until false; do sleep 1; done\n", ["model_path: e/f\n"],
        ["b: not carried over: line 1: a loop that waits, after which it started", "d: not carried over: line 3: `sleep 60`, after which it started"]),
    "tokens that a script asks its caller for": (
        "command", ': "${HF_TOKEN:?set it}"\n[[ -z "$VLLM_API_KEY" ]] && { echo no; exit 1; }\nvllm serve a/b\n', ["HF_TOKEN: /etc/recipectl/secrets/HF_TOKEN", "VLLM_API_KEY: /etc/"],
        ["line 1: the value of `HF_TOKEN`, which the caller had", "line 2: the value of `VLLM_API_KEY`"]),
    "functions before those that they call": (
        "command", "main() {\n  setup\n}\nsetup() { export A=0; source /v/bin/activate; cd /srv; }\nmain \"$@\"\nvllm serve a/b\n", ["venv_path: /v\nmodel_path: a/b\nenv_vars:\n  A: '0'\n"], ["line 4: `cd /srv`"]),
    "functions that call each other": ("command", "a() { b; b; }\nb() { a; export X=1; a; }\na\nvllm serve a/b\n", ["X: '1'"], ["line 2: the function `a`, which calls itself here"]),
    "settings of a unit that later ones replace": (
        "unit", "[Unit]\nAfter=a.service\nAfter=\nAfter=b.service\n[Service]\nExecStart=|/v/bin/vllm serve a/b\nUser=llm\nRestart=no\nRestart=always\nKillSignal=SIGINT\nKillSignal=SIGTERM\n"
        "TasksMax=512\nTasksMax=infinity\nLimitNOFILE=4096\nLimitMEMLOCK=8G\nGroup=a\nGroup=\n",
        ["user: llm\nservice:\n  After: [a.service, b.service]\n  LimitNOFILE: '4096'\n  LimitMEMLOCK: 8G\n"], ["line 6: the prefix `|` of ExecStart=: it ran in the login shell"]),
    "what binds a client of containers alone": (
        "unit", "[Service]\nExecStart=/usr/bin/docker run --gpus all -p 8000:8000 -v ./m:/m vllm/vllm-openai --model /m/a\nWorkingDirectory=/opt/llm\nMemoryMax=2G\nPrivateNetwork=yes\nRestart=always\nTimeoutStopSec=30\n",
        ["model_path: /opt/llm/m/a\n", "service:\n  TimeoutStopSec: '30'\n"], ["line 4: MemoryMax=2G of Docker's client", "line 5: PrivateNetwork=yes of Docker's client"]),
    "a container in a group of its own": (
        "unit", "[Service]\nExecStart=/usr/bin/podman run --gpus all -p 8000:8000 vllm/vllm-openai --model a/b\nUser=llm\nMemoryMax=2G\nNice=3\nRestart=always\n", ["user: llm\nservice:\n  Nice: '3'\n"], ["line 4: MemoryMax=2G of Podman's client"]),
    "all GPUs, and the node of one": (
        "command", "docker run -d --restart always --gpus all --device /dev/nvidia0 --device /dev/nvidiactl -p 8000:8000/tcp -p 9000:9000/udp -v /cache vllm/vllm-openai --model a/b --download-dir /cache/hf\n"
        "docker run -d --restart always --device /dev/nvidia1 -p 8001:8000 vllm/vllm-openai --model c/d\n",
        ["# It had all GPUs", "model_path: a/b\nport: 8000\n", "model_path: c/d\nport: 8001\ngpus: [1]\n"],
        ["line 1: the published port 9000:9000/udp: engines listen with TCP alone", "`/cache/hf`, a path of a volume that this host does not have", "line 1: the volume `/cache` at /cache"]),
    "a path of the image that this host has, too": (
        "command", "docker run -d --restart always --gpus all -p 8000:8000 vllm/vllm-openai --model a/b --ssl-certfile /etc/passwd --ssl-keyfile /etc/nothing.pem\n",
        ["model_path: a/b\n"], ["`/etc/passwd`, a path of the image; this host has something else there", "`/etc/nothing.pem`, a path of the image that this host does not have"]),
    "a local Docker, and any free port": (
        "command", "export DOCKER_HOST=unix:///run/user/1000/docker.sock\ndocker --context default run -P --gpus all --oom-kill-disable -v /srv/models:/srv/models -w /srv/models ghcr.io/ggml-org/llama.cpp:server-cuda -m ./a.gguf\n",
        ["model_path: /srv/models/a.gguf\n", "WorkingDirectory: /srv/models\n"], ["line 2: `-P`: its port was any free one of the host", "line 2: `--oom-kill-disable` of the container"]),
    "a model that is named twice, and names of recipectl": (
        "command", "llama-server -m /m.gguf -m /z.gguf\nvllm serve a/b --model c/d --tags x --venv-path /q\n",
        ["model_path: /z.gguf\n", "model_path: a/b\n# As written: no key gives exactly these words.\nargs: [--tags, x, --venv-path, /q]"], ["line 2: `--model c/d`, which counts for nothing beside `a/b`"]),
    "the folder of what systemd starts": ("command", "cd /srv/llm\nsystemd-run --unit=v /v/bin/vllm serve a/b --chat-template ./t.jinja\nsystemd-run -d /v/bin/vllm serve c/d --chat-template ./t.jinja\n", ["chat-template: /t.jinja\n", "chat-template: /srv/llm/t.jinja\n"], []),
    "what a shell reads, and a program that nobody knows": (
        "command", "exec $(which x) run\n", [], ["line 1: `… run`, whose program only a shell knows"]),
    "a file for a placeholder": ("command", "vllm serve a/b < /etc/answers\nvllm serve c/d --chat-template '{{ bos_token }}x'\n", ["chat-template: '{{ bos_token }}x'"], ["line 1: it reads `</etc/answers`; remove that"]),
    "mounts of Compose in their long form": (
        "compose", "services:\n  v:\n    image: vllm/vllm-openai\n    gpus: all\n    restart: always\n    command: --model /m/a\n    ports: [{target: 8000, published: 8000, protocol: udp}]\n    deploy: {labels: {a: b}}\n"
        "    volumes:\n      - {type: bind, source: models, target: /m}\n      - {type: volume, source: hf, target: /x, volume: {subpath: y}}\n", ["/models/a\n"],
        ["line 7: the published port 8000:8000/udp", "line 8: `deploy:` of the service: labels", "line 11: `subpath: y` of the volume `hf`"]),
    "a function for several engines": (
        "command",
        "serve() {\n  case $1 in\n    a) vllm serve org/a --port $2 ;;\n    b)\n      vllm serve org/b --port $2 ;;\n    *) vllm serve org/c ;;\n  esac\n}\n"
        "serve a 8001 &\nserve b 8002 &\nserve b 8003\n",
        ["model_path: org/a\nport: 8001\n", "model_path: org/b\nport: 8002\n", "model_path: org/b\nport: 8003\n"],
        ["c: not carried over: line 2: as it is, the script does not run it"]),
    "a function that is declared under a condition": (
        "command", "if [ -d /x ]; then f() { vllm serve a/b; }; fi\nf\n", [], ["line 1: it is in a function that is declared under a condition (line 1); write it out"]),
    "a function that ends": (
        "command", "f() {\n  vllm serve $1; return\n  vllm serve c/d\n}\nf a/b\n", ["model_path: a/b"], ["line 3: line 2 ends the function before it; move it"]),
    "a lock, and this script again": (
        "command", "exec 9>/var/lock/x 2>&1\n$0 stop\nvllm serve a/b\ntrap 'vllm serve c/d' EXIT\nvllm() { /v/bin/vllm \"$@\"; }\nvllm serve e/f\n", ["# Not carried over: line 2: `$0`, which starts this script again\n# The", "python_path: /v/bin/python\nmodel_path: e/f\n"],
        ["line 4: the text of `trap` runs an engine; write it out"]),
    "templates in other places": (
        "command", "M=\"{{\"\nvllm serve $M\nHF_HOME={{hf}} vllm serve a/b\nllama-server -m {{ model | quote }} -c 4\ndocker run --gpus all vllm/vllm-openai:{{ tag }} --model c/d\nvllm serve e/f\n", ["model_path: e/f"],
        ["line 2: fill in `{{", "line 3: fill in `{{hf}}`", "line 4: fill in `{{ model", "line 5: fill in `{{ tag }}`"]),
    "what follows a change of the shell": ("command", "IFS=$S\nulimit -x 5\nexport FOO\nvllm serve a/b &\nvllm serve c/d\n", [], ["d: not carried over: line 1: `IFS`", "d: not carried over: line 2: `ulimit -x 5`", "d: not carried over: line 3: the variable `FOO`"]),
    "what tmux passes on": ("command", "A=1 tmux new -d 'vllm serve a/b'\n", ["A: '1'"], ["line 1: `A`, which `tmux` passes on only if no server of it runs yet"]),
    "an eval of what a program gives": ("command", "C=\"vllm serve a/b --seed $(date)\"\neval \"$C\"\nvllm serve c/d\nuv run serve.py -m vllm.entrypoints.openai.api_server --model e/f\n", ["model_path: c/d"], ["line 2: `eval` runs what only a shell knows", "line 4: `uv run …`"]),
    "options of docker before others": ("command", "docker run -d --restart always $OPTS -p 1:8000 --gpus all vllm/vllm-openai --model a/b\n", ["port: 1\n"], ["line 1: `${OPTS}`, which may be options"]),
    "no GPUs in Compose": ("compose", "services:\n  v:\n    image: vllm/vllm-openai\n    restart: always\n    runtime: nvidia\n    network_mode: host\n    environment: {NVIDIA_VISIBLE_DEVICES: void}\n    command: --model a/b\n", ["gpus: none"], []),
    "a login shell of env": ("command", "#!/usr/bin/env -S bash -l\nvllm serve a/b\n", ["model_path: a/b"], ["line 1: `-l`: such a shell"]),
    "the cache of llama-swap's user": ("llama-swap", "models:\n  a: {cmd: 'sudo -u no-such-user llama-server -hf x/y-GGUF:Q4 --port ${PORT}'}\n", ["user: no-such-user"], ["the Hugging Face cache of user no-such-user"]),
    "templates that are not filled in": (
        "command", "llama-server -m {{ model }} -c {{ ctx }}\n{{ llama_bin }} -m /a.gguf\n{{venv}}/bin/vllm serve /m/a\nvllm serve a/b\n", ["model_path: a/b"],
        ["line 1: fill in `{{ model }}`", "line 2: fill in `{{ llama_bin }}`", "line 3: fill in `{{venv}}`"]),
    "a template in a unit and a login shell": ("unit", "[Service]\nUser=ai\nRestart=always\nExecStart=/bin/bash -lc 'vllm serve {{ model }}'\n", [], ["line 4: fill in `{{ model }}`"]),
    "login shells": (
        "command", "#!/bin/bash -l\nbash -l -c 'vllm serve a/b'\nsu - ai -c 'vllm serve c/d'\nsudo -iu ai vllm serve e/f\nbash -ic 'vllm serve g/h'\n", ["model_path: g/h"],
        ["line 1: `-l`: such a shell reads files of its user", "line 2: `bash -l`: such a", "line 3: `su`: such a", "line 4: `sudo -i`: such a", "line 5: `bash -ic`: such a"]),
    "the order of what fills one list": (
        "command", "llama-server -m /a.gguf -ot a=CUDA0 -ngl 9 -ot b=CUDA1 --n-cpu-moe 99\nllama-server -m /b.gguf -ot a=CPU --n-cpu-moe 9\nllama-server -m /c.gguf --lora-scaled /x 0.5 --lora /y --lora /z\n",
        ["args: [-ot, a=CUDA0, -ot, b=CUDA1, --n-cpu-moe, '99']", "override-tensor: a=CPU\n  n-cpu-moe: 9", "args: [--lora-scaled, /x, '0.5', --lora, /y, --lora, /z]"], []),
    "processors that are set twice": (
        "command", "taskset -c 0-15 numactl --physcpubind=0-7 vllm serve a/b\nsystemd-run --scope -p CPUAffinity=0-9 taskset -c 0-3 vllm serve c/d\nrenice -n 5 $$\ntaskset -cp 0-7 $$\nvllm serve e/f --tp 2\n",
        ["CPUAffinity: 0-7\n", "CPUAffinity: 0-3\n"], ["line 3: `renice -n 5 $$`, for what follows", "line 4: `taskset -cp 0-7 $$`, for what follows"]),
    "a prefix that is no file": ("command", "cd /srv\nvllm serve a/b --root-path llm --ssl-certfile c.pem\n", ["root-path: llm", "ssl-certfile: /srv/c.pem"], []),
    "texts that other shells run": (
        "command", "sudo -u ai bash <<'X'\nvllm serve a/b\nX\nsu - ai <<X\nvllm serve a/b\nX\nat now <<< 'vllm serve a/b'\nvllm serve c/d\nsudo -S vllm serve e/f <<< 'Zx9SECRET'\n", ["model_path: c/d"],
        ["line 1: `bash …` runs an engine", "line 4: `su …` runs an engine", "line 7: `at …` runs an engine", "line 9: it reads `<<<…`; remove that"]),
    "a loop over a file": ("command", "while read -r m; do\nvllm serve $m\ndone < models.txt\nvllm serve a/b\n", ["model_path: a/b"], ["line 2: it is in a loop (line 1)"]),
    "scripts beside a script": ("command", "module load cuda/12.4\n./none.sh --port 1\nbash run.sh\nvllm serve a/b\n", ["# Not carried over: line 1: `module load cuda/12.4`, which may set variables"], ["line 2: `./none.sh …`, which is not read; if it starts an engine, run `recipectl import command ./none.sh`"]),
    "nothing but a script": ("command", "exec ./run.sh --port 1\n", [], ["line 1: `./run.sh …`, which is not read; if it starts an engine"]),
    "options of docker in a variable": ("command", "docker run -d --restart always -p 8000:8000 --gpus all $OPTS vllm/vllm-openai --model a/b\n", ["model_path: a/b"], ["line 1: `${OPTS}`, which may be options of the container"]),
    "what eval runs, and further arguments": (
        "command", 'M="${1:-a/b}"\nvllm serve "$M" "${@:2}"\nCMD="vllm serve c/d --served-model-name \'x y\'"\neval "$CMD"\nexport X=1\nexport -n X\nvllm serve e/f\n',
        ["model_path: a/b", "served_model_name: x y", "model_path: e/f\n"], ["line 2: `$@`, the arguments of the script"]),
    "a value that a loop reads": ("command", "while getopts m: o; do M=$OPTARG; done\nN=$M-x\nvllm serve a/b --seed $N\n", ["args: [--seed, -x]"], ["line 1: `$#` is 0 here", "line 1: `M` is `${OPTARG}` under a condition"]),
    "secrets in other words": ("unit", "[Service]\nUser=ai\nRestart=always\nEnvironment=MYPASS=SeCr3tVaLu3\nExecStartPre=/usr/bin/aws configure set aws_secret_access_key SeCr3tVaLu4\nExecStart=/v/bin/vllm serve a/b\n", ["MYPASS: /etc/recipectl/secrets/MYPASS"], ["aws_secret_access_key …"]),
    "a placeholder": ("command", "vllm serve a/b --port '<PORT>'\nvllm serve c/d\n", ["model_path: c/d"], ["line 1: fill in `<PORT>`"]),
}  # fmt: skip


def test_a_file_of_options_that_the_script_writes_is_not_read_as_it_was(tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text("model: /old\nport: 1\n")
    script = tmp_path / "a.sh"
    read = "vllm serve --config c.yaml\n"
    script.write_text(f"{read}cat >c.yaml <<Y\nmodel: a/b\nY\n{read}")
    result = imported("command", script)
    assert ("model_path: /old\n" in result.stdout, result.stdout.count("model_path")) == (True, 1)
    assert f"line 5: the script writes {tmp_path}/c.yaml itself, so what is in it" in result.stderr


@pytest.mark.parametrize("case", INLINE)
def test_what_readers_have_found_is_imported_or_named(case: str, tmp_path: Path) -> None:
    verb, text, in_recipe, in_errors = INLINE[case]
    path = tmp_path / {"unit": "a.service", "quadlet": "a.container"}.get(verb, "a.txt")
    path.write_text(text)
    result = imported(verb, path)
    assert [part for part in in_recipe if part not in result.stdout] == [], result.stdout
    assert [part for part in in_errors if part not in result.stderr] == [], result.stderr
    assert "Traceback" not in result.stderr


def test_the_interpreter_of_a_script_that_lies_elsewhere_is_kept(tmp_path: Path) -> None:
    tool, link = tmp_path / "tools/vllm/bin/vllm", tmp_path / ".local/bin/vllm"
    for path in (tool, link):
        path.parent.mkdir(parents=True)
    tool.write_text(f"#!{tool.parent}/python\nimport sys\n")
    tool.chmod(0o755)
    link.symlink_to(tool)
    for text in (f"{link} serve /m\n", f"PATH={link.parent}:$PATH vllm serve /m\n"):
        script = tmp_path / "a.txt"
        script.write_text(text)
        assert f"python_path: {tool.parent}/python\n" in imported("command", script).stdout
    tool.write_text("#!/usr/bin/env python3\n")
    script.write_text(f"{link} serve /m\n")
    assert (
        f"`{link}`, whose interpreter is not known here; set `python_path:`"
        in imported("command", script).stderr
    )


def test_an_alias_has_the_drop_ins_of_its_unit(tmp_path: Path) -> None:
    (tmp_path / "real.service").write_text(
        "[Service]\nUser=u\nRestart=always\nExecStart=/v/bin/vllm serve /m\n"
    )
    (tmp_path / "real.service.d").mkdir()
    (tmp_path / "real.service.d/1.conf").write_text("[Service]\nMemoryMax=9G\n")
    alias = tmp_path / "a.service"
    alias.symlink_to("real.service")
    assert "MemoryMax: 9G\n" in imported("unit", alias).stdout


def test_files_of_variables_lie_beside_the_original_and_the_last_wins(tmp_path: Path) -> None:
    (tmp_path / "1.env").write_text("  A=1\nB='x'\nHF_TOKEN\nC=$HOME\n")
    (tmp_path / "2.env").write_text("A=2\n")
    options = "--env-file 1.env --env-file 2.env -e D=4"
    originals = {
        "command": f"docker run --gpus all {options} -p 8000:8000 vllm/vllm-openai --model a/b\n",
        "quadlet": "[Container]\nImage=vllm/vllm-openai\nEnvironment=D=4\nEnvironmentFile=1.env\nEnvironmentFile=2.env\nPublishPort=8000:8000\nExec=--model a/b\n",
        "compose": "services: {v: {image: vllm/vllm-openai, command: --model a/b, ports: ['8000:8000'], environment: {D: 4}, env_file: [{path: 1.env, format: raw}, 2.env]}}\n",
    }
    for verb, text in originals.items():
        path = tmp_path / f"a.{'container' if verb == 'quadlet' else 'txt'}"
        path.write_text(text)
        result = imported(verb, path)
        variables = yaml.safe_load(result.stdout)["env_vars"]
        assert variables == {"A": "2", "B": "'x'", "C": "$HOME", "D": "4"}, (verb, result.stderr)
        assert "HF_TOKEN" in yaml.safe_load(result.stdout)["secrets"]


def test_a_script_of_a_unit_gets_its_arguments(tmp_path: Path) -> None:
    script = tmp_path / "start.sh"
    script.write_text(
        "#!/bin/bash\nM=$1; shift\nvllm serve /m/$M --port ${1:-8000} --seed ${2:-7} --max-model-len ${2-9}\n"
    )
    script.chmod(0o755)
    unit = tmp_path / "a.service"
    unit.write_text(f"[Service]\nUser=ai\nExecStart={script} big 8003\n")
    result = imported("unit", unit)
    for text in ("model_path: /m/big", "port: 8003", "seed: 7", "max_model_len: 9"):
        assert text in result.stdout
    assert "default value" not in result.stderr
    script.write_text('#!/bin/bash\nexec vllm serve "$@"\n')
    unit.write_text(f"[Service]\nUser=ai\nExecStart=/bin/bash {script} a/b --port 8003\n")
    assert "model_path: a/b\nport: 8003\n" in imported("unit", unit).stdout
    script.write_text("#!/bin/bash\nexec vllm serve \ue000HOME\ue001\n")
    assert "Unicode's private area" in imported("unit", unit).stderr


SECRET = "SeCr3tVaLu3xyz"
# Inputs with a secret that nothing may show: verb and text.
WITH_SECRETS = {
    "under a condition": ("command", "if [ x ]; then export HF_TOKEN=@@; fi\nvllm serve a/b\n"),
    "a default": ("command", "export API_KEY=${API_KEY:-@@}\nvllm serve a/b --api-key $API_KEY\n"),
    "a variable of another name": ("command", "export K=@@\nvllm serve a/b --api-key $K\n"),
    "words in a variable": ("command", "export EXTRA='--api-key @@'\nvllm serve a/b $EXTRA\n"),
    "a unit's variable": ("unit", '[Service]\nEnvironment="K=@@"\nExecStart=/v/bin/vllm serve a/b --api-key ${K}\n'),
    "a credential": ("command", "systemd-run -p 'SetCredential=x:@@' vllm serve a/b\n"),
    "a URL without a user": ("command", "REDIS_URL=redis://:@@@h:1 vllm serve a/b\n"),
    "a query": ("command", "OPENAI_API_BASE='http://h/?api_key=@@' vllm serve a/b\n"),
    "other names": ("command", "MYSQL_PWD=@@ GIT_PAT=@@ X_AUTH=@@ vllm serve a/b\n"),
    "a flag's URL": ("command", "vllm serve a/b --otlp-traces-endpoint https://u:@@@h:1/x\n"),
    "a flag's JSON": ("command", "vllm serve a/b --hf-overrides '{\"token\": \"@@\"}' --model-loader-extra-config '{\"aws_secret_access_key\":\"@@\"}'\n"),
    "an earlier command": ("unit", "[Service]\nExecStart=/v/bin/vllm serve c/d --api-key @@\nExecStart=/v/bin/vllm serve a/b\n"),
    "a setting": ("unit", "[Service]\nExecCondition=/usr/bin/curl https://u:@@@h\nExecStartPre=/usr/bin/env DB_PASS=@@ x\nExecStart=/v/bin/vllm serve a/b\n"),
    "VLLM Studio's options": ("vllm-studio", '{"id":"x","model_path":"a/b","extra_args":{"api_key":"@@","hf-token":"@@x","aws_secret":["@@"]}}'),
    "a key of SGLang": ("command", "python -m sglang.launch_server --model-path a/b --api-key @@\n"),
    "keys of other names": ("command", "export LITELLM_MASTER_KEY=@@ JWT=@@ KEY=${API:-@@} SENTRY_DSN=https://@@@x/1\nvllm serve a/b\n"),
    "defaults of Compose": ("compose", "services:\n  v:\n    image: vllm/vllm-openai\n    command: --model a/b\n    environment: ['API_KEY=${API_KEY:-@@}', 'MY_KEY=${X:-@@}']\n"),
    "web hooks and logins": (
        "command", "echo @@ | docker login --password-stdin\ncurl https://hooks.slack.com/services/@@\ncurl https://api.telegram.org/bot123:@@/x\nngrok authtoken @@\nvllm serve a/b\n"),
    "options in another shape": ("vllm-studio", '[{"id":"x","model_path":"/m","extra_args":"--api-key @@"},{"id":"y","model_path":"a/b","backend":"vllm"}]'),
    "macros in another shape": ("llama-swap", 'models: {a: {cmd: "vllm serve a/b --port ${PORT}", env: {x: y}}, b: {cmd: [--api-key, "@@"], aliases: {k: "@@"}}}\n'),
    "other programs": ("command", "curl -u user:@@ http://x\nwget https://u:@@@h/x\ndocker login -p @@\nmysql -p@@\nvllm serve a/b\n"),
}  # fmt: skip


@pytest.mark.parametrize("case", WITH_SECRETS)
def test_no_secret_is_shown(case: str, tmp_path: Path) -> None:
    verb, text = WITH_SECRETS[case]
    path = tmp_path / ("a.service" if verb == "unit" else "a.sh")
    path.write_text(text.replace("@@", SECRET))
    result = imported(verb, path)
    assert "model_path: a/b" in result.stdout, result.stderr
    assert SECRET not in result.stdout + result.stderr


# What the original does not say in one line: where its models were, who it was, who called it.
WITHOUT_LINE = re.compile(
    "it ran as|without Restart=|the Hugging Face cache of|clients on other machines|the one address of all models"
    "|in the network of|published no port|which changes th"
)


@pytest.mark.parametrize("case", INLINE)
def test_what_is_not_carried_over_has_its_line(case: str, tmp_path: Path) -> None:
    verb, text, _, _ = INLINE[case]
    path = tmp_path / {"unit": "a.service", "quadlet": "a.container"}.get(verb, "a.txt")
    path.write_text(text)
    sentences = [line for line in imported(verb, path).stderr.splitlines() if "not carried over: " in line]
    without = [line for line in sentences if not re.search(": (/.*: )?line [0-9]+", line)]
    assert [line for line in without if not WITHOUT_LINE.search(line)] == []


def test_a_units_own_script_may_have_an_engines_name(tmp_path: Path) -> None:
    script, unit = tmp_path / "llama-server", tmp_path / "a.service"
    script.write_text(
        '#!/usr/bin/env bash\nexport CUDA_VISIBLE_DEVICES=1\nexec /opt/llama/llama-server --port 9001 "$@"\n'
    )
    unit.write_text(f"[Service]\nExecStart={script} -m /models/a.gguf\n")
    (recipe,) = recipes(imported("unit", unit))
    assert (recipe["binary"], recipe["port"], recipe["gpus"]) == ("/opt/llama/llama-server", 9001, [1])
    # pip's scripts for a long path of an interpreter
    script.write_text("#!/bin/sh\n'''exec' /long/bin/python \"$0\" \"$@\"\n' '''\n")
    (recipe,) = recipes(imported("unit", unit))
    assert recipe["binary"] == str(script)


def test_a_composes_file_of_variables_is_read_as_compose_reads_it(tmp_path: Path) -> None:
    (tmp_path / "v.env").write_text(
        "A=\"q\nx\"\nexport B=1\nC=${B}/x # c\nD='$B'\n# E=1\nF=a#b\nG: ${A}\nK\n"
    )
    (tmp_path / "u.env").write_text("A=1\nF=1\n")
    (tmp_path / "w.env").write_bytes(b"\xff=1\n")
    file = tmp_path / "compose.yml"
    file.write_text(
        "services:\n  v:\n    image: vllm/vllm-openai\n    gpus: all\n    network_mode: host\n"
        "    env_file: [u.env, v.env, w.env]\n    environment: {B: 2}\n    command: --model a/b\n"
    )
    result = imported("compose", file)
    assert has(env_vars={"A": "q\nx", "B": "2", "C": "1/x", "D": "$B", "F": "a#b", "G": "q\nx"})(result)
    assert says("the variable `K` of the caller", f"the variables in {tmp_path}/w.env")(result)


def test_a_file_of_variables_that_others_cannot_read_is_named(tmp_path: Path) -> None:
    variables = tmp_path / "engine.env"
    variables.write_text("PHRASE=hunter2\n")
    variables.chmod(0o600)
    originals = {
        "unit": ("a.service", f"[Service]\nRestart=always\nEnvironmentFile={variables}\nExecStart=/v/bin/vllm serve a/b\n"),
        "compose": ("compose.yaml", f"services: {{a: {{image: vllm/vllm-openai, restart: always, command: --model a/b, env_file: {variables}}}}}\n"),
        "command": ("a.sh", f"docker run --env-file {variables} vllm/vllm-openai --model a/b\n"),
    }  # fmt: skip
    for verb, (name, text) in originals.items():
        (tmp_path / name).write_text(text)
        result = imported(verb, tmp_path / name)
        assert re.search(f"line [0-9]+: {variables} has mode 0600", result.stderr), (verb, result.stderr)


def test_specifiers_of_a_unit_are_replaced_after_its_words_are_unquoted(tmp_path: Path) -> None:
    path = tmp_path / r"v@Qwen-Qwen3\x2d8B.service"
    path.write_text(
        "[Service]\nUser=llm\nRestart=always\nWorkingDirectory=/srv/%I\n"
        "ExecStart=/v/bin/vllm serve ./m --config-format %i --served-model-name %I\n"
    )
    (recipe,) = recipes(imported("unit", path))
    assert recipe["model_path"] == "/srv/Qwen/Qwen3-8B/m"
    assert recipe["served_model_name"] == "Qwen/Qwen3-8B"
    assert recipe["extra_args"] == {"config-format": r"Qwen-Qwen3\x2d8B"}


def test_a_folder_beside_the_script_is_no_name_of_the_hub(tmp_path: Path) -> None:
    (tmp_path / "models/q").mkdir(parents=True)
    (tmp_path / "run.sh").write_text("vllm serve models/q --tokenizer org/t --lora-modules sql=models/q\n")
    result = imported("command", tmp_path / "run.sh")
    assert f"model_path: {tmp_path}/models/q\n" in result.stdout
    assert f"sql={tmp_path}/models/q" in result.stdout
    assert ("served_model_name: models/q" in result.stdout, "tokenizer: org/t" in result.stdout) == (
        True,
        True,
    )
