"""What a container was given, as Compose, Quadlet and llama-swap read their own files."""

from pathlib import Path

import pytest
from imported import losses

from recipectl.errors import RecipeError, UsageError
from recipectl.importers import go_yaml, llama_swap
from recipectl.importers.compose import compose_drafts
from recipectl.importers.draft import Draft, host_variable
from recipectl.importers.quadlet import quadlet_draft
from recipectl.importers.vllm_recipe_notes import check_shapes

SERVICE = (
    "services:\n  llm:\n    image: vllm/vllm-openai:v0.32.0\n    restart: always\n    ports: ['8000:8000']\n"
)


def compose(text: str, folder: Path) -> tuple[Draft, str]:
    drafts, left_out = compose_drafts(SERVICE + text, str(folder / "compose.yml"))
    assert drafts, left_out
    return drafts[0], "\n".join(losses(drafts[0]))


@pytest.mark.parametrize(
    "rest", ["| tee /tmp/log", "; echo done", "> /tmp/log 2>&1", "2> /tmp/log", "&& echo x", "& wait"]
)
def test_compose_drops_a_command_behind_an_operator(rest: str, tmp_path: Path) -> None:
    command = "--model Qwen/Qwen3-8B --served-model-name 'a;b' --max-model-len 4096"
    plain = compose(f"    gpus: all\n    command: {command}\n", tmp_path)[0].fields
    assert compose(f"    gpus: all\n    command: {command} {rest}\n", tmp_path)[0].fields == plain
    assert (plain["served_model_name"], plain["max_model_len"]) == ("a;b", 4096)


def test_a_word_before_a_redirection_is_kept_as_go_keeps_it(tmp_path: Path) -> None:
    command = "    command: --model m --max-model-len=4096>/tmp/log\n"
    assert compose(f"    gpus: all\n{command}", tmp_path)[0].fields["max_model_len"] == 4096


@pytest.mark.parametrize(("command", "told"), [
    ("command: --model m --served-model-name a(b)", "Compose refuses the `(` of `command:`"),
    ("command: |\n      --model m \\\n      --max-model-len 9", "has a `\\` at the end of a line"),
    ("command:\n      - --model: m", "has an item that is no text"),
])  # fmt: skip
def test_a_command_that_compose_refuses_or_garbles_is_refused(
    command: str, told: str, tmp_path: Path
) -> None:
    drafts, left_out = compose_drafts(f"{SERVICE}    {command}\n", str(tmp_path / "compose.yml"))
    assert (drafts, told in "\n".join(map(str, left_out))) == ([], True), left_out


@pytest.mark.parametrize(("text", "gpus"), [
    ("    deploy: {resources: {reservations: {devices: [{driver: nvidia, device_ids: ['0'], capabilities: [nvidia]}]}}}\n", [0]),
    ("    deploy: {resources: {reservations: {devices: [{device_ids: ['1'], capabilities: [compute, utility]}]}}}\n", [1]),
    ("    devices: ['amd.com/gpu=1']\n", [1]),
    ("    runtime: amd\n    environment: {AMD_VISIBLE_DEVICES: '0,1'}\n", [0, 1]),
    ("    runtime: amd\n    environment: {AMD_VISIBLE_DEVICES: '2,3', HIP_VISIBLE_DEVICES: '1'}\n", [3]),
    ("    runtime: amd\n    environment: {AMD_VISIBLE_DEVICES: '2,3', CUDA_VISIBLE_DEVICES: '1'}\n", [3]),
])  # fmt: skip
def test_a_container_has_the_gpus_that_its_engine_gives_it(
    text: str, gpus: list[int], tmp_path: Path
) -> None:
    draft, told = compose(f"{text}    command: --model m\n", tmp_path)
    assert (draft.fields["gpus"], "no GPUs" in told, "VISIBLE" in str(draft.fields)) == (gpus, False, False)


def test_of_several_entries_each_is_set_or_named(tmp_path: Path) -> None:
    text = "    gpus: all\n    ulimits: {stack: 67108864, rtprio: 99}\n    group_add: ['993', '994']\n"
    draft, told = compose(f"{text}    command: --model m\n", tmp_path)
    assert draft.fields["service"] == {"LimitSTACK": "67108864", "LimitRTPRIO": "99"}
    assert "`group_add: 993`" in told
    assert "`group_add: 994`" in told


@pytest.mark.parametrize(("policy", "autostart"), [("any", True), ("none", None)])
def test_the_policy_of_deploy_wins(policy: str, autostart: bool | None, tmp_path: Path) -> None:
    text = f"    gpus: all\n    deploy: {{replicas: 1, restart_policy: {{condition: {policy}}}}}\n    command: --model m\n"
    draft, told = compose(text, tmp_path)
    assert (draft.fields.get("autostart"), "replicas" in told) == (autostart, False)
    told = compose(text.replace("condition:", "max_attempts: 3, condition:"), tmp_path)[1]
    assert "`deploy.restart_policy`: max_attempts" in told


def test_a_service_without_containers_does_not_start_at_boot(tmp_path: Path) -> None:
    draft, _ = compose("    gpus: all\n    deploy: {replicas: 0}\n    command: --model m\n", tmp_path)
    assert "autostart" not in draft.fields


def test_what_the_file_of_variables_says_of_the_project_counts(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("COMPOSE_PROJECT_NAME=ai\nCOMPOSE_FILE=compose.yml:gpu.yml\n")
    text = (
        f"{SERVICE}    command: --model m\n    volumes: ['hf:/root/.cache/huggingface']\nvolumes: {{hf: }}\n"
    )
    drafts, left_out = compose_drafts(text, str(tmp_path / "compose.yml"))
    assert "the volume `ai_hf`" in "\n".join(losses(drafts[0]))
    assert "COMPOSE_FILE=compose.yml:gpu.yml of " in "\n".join(map(str, left_out))


def test_names_keep_what_clients_ask_for_and_paths_of_a_config_file_are_the_hosts(tmp_path: Path) -> None:
    (tmp_path / "vllm.yaml").write_text("model: /models/q\nchat-template: /models/t.jinja\nport: 8123\n")
    draft, lost = compose(
        f"    gpus: all\n    command: --config /cfg/vllm.yaml --root-path /models\n    volumes: ['{tmp_path}:/cfg', '/srv/m:/models']\n"
        "    environment: {LD_LIBRARY_PATH: '/none/a:/usr', PYTHONPATH: '/none/b:/none/c'}\n",
        tmp_path,
    )  # fmt: skip
    assert draft.fields["model_path"] == "/srv/m/q"
    assert draft.fields["served_model_name"] == "/models/q"
    assert draft.fields["extra_args"] == {"root-path": "/models", "chat-template": "/srv/m/t.jinja"}
    assert draft.fields["env_vars"] == {"LD_LIBRARY_PATH": "/usr"}
    told = [part for part in ("LD_LIBRARY_PATH=…/none/a…", "PYTHONPATH=…/none/c…") if part not in lost]
    assert (told, "/cfg" in lost, "/models" in lost) == ([], False, False), lost


@pytest.mark.parametrize(
    ("value", "conflicts"), [("no", None), ("'off'", None), ("yes", ["b"]), ("maybe", "error")]
)
def test_words_of_yaml_count_in_the_groups_of_llama_swap(value: str, conflicts: object) -> None:
    models = "".join(f"  {name}: {{cmd: 'llama-server -m /{name}.gguf --port ${{PORT}}'}}\n" for name in "ab")
    text = f"models:\n{models}groups: {{g: {{swap: {value}, members: [a, b]}}}}\n"
    data, root = go_yaml.document(text, "compose.yml")
    if conflicts == "error":
        with pytest.raises(UsageError, match=r"`groups.g.swap` is 'maybe'; give `true` or `false`"):
            llama_swap.imported(data, "config.yaml", root)
        return
    drafts = llama_swap.imported(data, "config.yaml", root).drafts
    assert drafts[0].fields.get("conflicts") == conflicts


def test_secrets_and_configs_that_are_files_are_paths_of_the_host(tmp_path: Path) -> None:
    draft, lost = compose(
        "    gpus: all\n    command: --model m --chat-template /chat.jinja --ssl-keyfile /run/secrets/tls.key\n"
        "    configs:\n      - {source: template, target: /chat.jinja}\n"
        "    secrets:\n      - {source: tls, target: tls.key}\n      - unused\n      - far\n"
        "configs:\n  template: {file: ./a.jinja}\n"
        "secrets:\n  tls: {file: ./tls.pem}\n  unused: {file: /etc/b}\n  far: {external: true}\n",
        tmp_path,
    )
    assert draft.fields["extra_args"] == {
        "chat-template": f"{tmp_path}/a.jinja", "ssl-keyfile": f"{tmp_path}/tls.pem"
    }  # fmt: skip
    assert "line 10: `secrets:` of the service: `far`, which is no file of this host" in lost
    draft, _ = compose(
        "    gpus: all\n    command: --model m --chat-template /a.jinja --ssl-keyfile /run/secrets/tls\n"
        "    configs: [{source: a, target: /a.jinja}]\n    secrets: [tls]\n"
        "configs: {a: {file: ~/a.jinja}}\nsecrets: {tls: {file: '${KEYS}/tls.pem'}}\n",
        tmp_path,
    )
    assert {**draft.fields["extra_args"]} == {
        "chat-template": f"{host_variable('HOME')}/a.jinja", "ssl-keyfile": f"{host_variable('KEYS')}/tls.pem"
    }  # fmt: skip
    assert "line 10: `/etc/b` at /run/secrets/unused, which nothing in the recipe names" in lost
    assert "template" not in lost


def test_hosts_and_interfaces_of_the_containers_network_are_named(tmp_path: Path) -> None:
    variables = "{NCCL_SOCKET_IFNAME: eth0, LMCACHE_REMOTE_URL: 'redis://:pass@redis:6379', HF_ENDPOINT: 'https://hf-mirror.com'}"
    text = f"    gpus: all\n    environment: {variables}\n"
    command = "    command: --model s3://bucket/m --otlp-traces-endpoint http://jaeger:4317\n"
    told = compose(text + command, tmp_path)[1]
    assert "`NCCL_SOCKET_IFNAME=eth0`, which belongs to the container's network" in told
    assert "`redis` in LMCACHE_REMOTE_URL, a host of the container's network" in told
    assert "`jaeger` in --otlp-traces-endpoint, a host of the container's network" in told
    assert ("pass" in told, "bucket` in" in told, "mirror" in told) == (False, False, False)
    assert "the container's network" not in compose(f"{text}    network_mode: host\n{command}", tmp_path)[1]


def test_a_mount_that_only_begins_alike_is_no_mount(tmp_path: Path) -> None:
    text = "    gpus: all\n    volumes: ['/srv/m:/models', '/nvme:/tmp']\n"
    told = compose(f"{text}    command: --model /models/q --chat-template /srv/m-old/t.jinja\n", tmp_path)[1]
    assert "`/srv/m-old/t.jinja`, a path of the image" in told
    assert "`/nvme` at /tmp, which nothing in the recipe names" in told


def test_quadlets_drop_ins_and_a_health_check_that_a_start_waits_for(tmp_path: Path) -> None:
    for folder in ("llm-big.container.d", "llm-.container.d", "container.d"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "10.conf").touch()
    text = (
        "[Container]\nImage=docker.io/vllm/vllm-openai:v0.32.0\nAddDevice=nvidia.com/gpu=all\nNotify=healthy\n"
        "Network=vpn.container\nExec=--model m\n[Service]\nRestart=always\nTimeoutStartSec=300\n"
    )
    draft = quadlet_draft(text, "llm-big", str(tmp_path / "llm-big.container"))
    told = "\n".join(losses(draft))
    assert told.count("10.conf, which changes this file") == 3
    assert "the engine was in the network of `vpn`" in told
    assert draft.fields["ready"] == {"timeout_sec": 300}


def test_the_files_beside_a_quadlet_file_are_read(tmp_path: Path) -> None:
    (tmp_path / "v.image").write_text("[Image]\nImage=docker.io/vllm/vllm-openai:v0.32.0\n")
    (tmp_path / "hf.volume").write_text("[Volume]\nVolumeName=hfcache\n")
    (tmp_path / "m.volume").write_text("[Volume]\nDevice=/srv/m\nType=none\nOptions=bind\n")
    text = (
        "[Container]\nImage=v.image\nMount=type=image,source=ghcr.io/m,destination=/oci\nVolume=hf.volume:/root/.cache/huggingface\nVolume=m.volume:/models\n"
        "Volume=none.volume:/data\nAddDevice=nvidia.com/gpu=all\nExec=--model /models/q\n[Service]\nRestart=always\n"
    )
    draft = quadlet_draft(text, "llm", str(tmp_path / "llm.container"))
    told = "\n".join(losses(draft))
    assert (draft.fields["backend"], draft.fields["model_path"]) == ("vllm", "/srv/m/q")
    assert "the image `ghcr.io/m` at /oci; copy its files to this host" in told
    for name in ("vllm-openai:v0.32.0", "the volume `hfcache`", "the volume `systemd-none`"):
        assert name in told


SWAP = """
macros: {v: "2507", seconds: 300}
globalTTL: ${seconds}
models:
  q:
    cmd: llama-server -m /m/q.gguf --port ${PORT}
    checkEndpoint: /${MODEL_ID}/health
    aliases: ["qwen-${v}"]
    cmdStop: STOP
    metadata: {note: "${unknown}"}
x-common: "${PORT}"
"""


def test_macros_of_llama_swap_count_in_every_value() -> None:
    draft = llama_swap.imported(*_swap("kill -TERM ${PID}")).drafts[0]
    assert draft.fields["ready"] == {"path": "/q/health"}
    assert draft.fields["on_demand"] == {"idle": 300}
    assert draft.fields["served_model_name"] == "q,qwen-2507"
    assert not any("cmdStop" in text for text in losses(draft))


@pytest.mark.parametrize(
    "command", ["kill -INT ${PID}", "kill -SIGKILL ${PID}", "docker stop -t 300 q", "docker kill q"]
)
def test_another_stop_than_ours_is_named(command: str) -> None:
    draft = llama_swap.imported(*_swap(command)).drafts[0]
    assert any(text.endswith("`cmdStop`, how llama-swap stops it") for text in losses(draft))


def _swap(stop: str) -> tuple[dict[str, object], str, object]:
    config, root = go_yaml.document(SWAP.replace("STOP", stop), "config.yaml")
    return config, "config.yaml", root


def test_what_go_refuses_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="`llm` is given twice, first on line 2"):
        compose_drafts(f"{SERVICE}  llm: {{}}\n", str(tmp_path / "compose.yml"))
    with pytest.raises(UsageError, match="its `models:` is empty"):
        llama_swap.imported({"models": {}}, "config.yaml")


def test_aliases_that_multiply_are_refused() -> None:
    values = "x0: &x0 [a, a, a, a, a, a, a, a, a, a]\n"
    values += "".join(f"x{n}: &x{n} [{', '.join([f'*x{n - 1}'] * 10)}]\n" for n in range(1, 9))
    with pytest.raises(UsageError, match="it is nested without end, or too large with all its aliases"):
        go_yaml.document(values, "compose.yml")


def test_macros_that_multiply_are_refused() -> None:
    macros = {f"m{n}": f"${{m{n + 1}}}" * 10 for n in range(9)} | {"m9": "x"}
    config = {"macros": macros, "models": {"a": {"cmd": "llama-server -m /${m0}"}}}
    (told,) = losses(llama_swap.imported(config, "config.yaml"))
    assert "make more than 128 KiB; shorten them" in told


def test_other_programs_in_the_image_of_an_engine_stop_nothing(tmp_path: Path) -> None:
    text = "services:\n  a: {image: 'vllm/vllm-openai:v1', entrypoint: nvidia-smi}\n  b: {image: 'vllm/vllm-openai:v1', entrypoint: [vllm], command: [bench, serve]}\n"
    drafts, left_out = compose_drafts(text, str(tmp_path / "compose.yml"))
    assert (drafts, [*map(str, left_out)]) == (
        [], ["line 2: the service `a`: runs no engine", "line 3: the service `b`: runs no engine"]
    )  # fmt: skip


def test_a_whole_range_of_odd_ports_and_gpus_of_compose(tmp_path: Path) -> None:
    service = SERVICE.replace("    ports: ['8000:8000']\n", "")
    text = (
        "    ports: [{target: 8000, host_ip: 127.0.0.1}]\n    command: --model a/b\n    build: {context: .}\n"
        "    deploy: {resources: {reservations: {generic_resources: [{discrete_resource_spec: {kind: NVIDIA-GPU, value: 1}}]}}}\n"
    )
    (draft,), _ = compose_drafts(service + text, str(tmp_path / "compose.yml"))
    assert (draft.fields["host"], draft.fields["port"], draft.fields["gpus"]) == ("127.0.0.1", 8000, [0])
    lost = "\n".join(losses(draft))
    assert (
        "was any free one of the host" in lost,
        "`build:` of the service: what it installs and sets" in lost,
    ) == (True, True)


@pytest.mark.parametrize(
    "recipe", [{"meta": [1]}, {"base_args": 5}, {"opt_in_features": 5}, {"vram_minimum_gb": [None]}, {"compatible_strategies": [None]}]
)  # fmt: skip
def test_an_official_recipe_in_another_form_is_refused(recipe: dict[str, object]) -> None:
    with pytest.raises(UsageError, match="as the official recipes have it; correct it"):
        check_shapes({"model": recipe, **recipe})


def test_hosts_of_the_containers_network_and_variables_of_files_are_named_with_their_lines(
    tmp_path: Path,
) -> None:
    (tmp_path / "p.env").write_text("HF_HOME=/root/.cache/hf\nU=redis://redis:6379\n")
    _, lost = compose(
        "    gpus: all\n    env_file: p.env\n    command: --model m --data-parallel-address head"
        """ --kv-transfer-config '{"kv_connector":"P","kv_ip":"prefill"}'\n""",
        tmp_path,
    )
    wanted = [
        "line 7: `HF_HOME=/root/.cache/hf`, a path of the image",
        "line 7: `redis` in U, a host of the container's network",
        "line 8: `head` in --data-parallel-address, a host",
        "line 8: `prefill` in --kv-transfer-config, a host",
    ]
    assert [text for text in wanted if text not in lost] == [], lost
