"""From a recipe to the words of ExecStart=."""

import json
from typing import Any

import corpus
import pytest

from recipectl.compiler import environment
from recipectl.compiler.environment import Layer
from recipectl.compiler.model import Variable
from recipectl.compiler.pipeline import resolve_purely
from recipectl.engines import argv, overlaps
from recipectl.engines.endpoint import drain_sec, engine_endpoint
from recipectl.errors import MultipleUsageError, UsageError
from recipectl.machine.installation import Installation
from recipectl.machine.runtime import Runtime
from recipectl.recipe.hostfile import HostSettings
from recipectl.recipe.schema import Recipe

VLLM = Runtime("test", ("/v/bin/vllm", "serve"), positional_model=True)


def built(runtime: Runtime = VLLM, **fields: Any) -> tuple[str, ...]:
    recipe = Recipe.model_validate({"name": "a", "model_path": "/m", **fields})
    return tuple(word.text for word in argv.words(recipe, runtime))[2:]


WORDS = {
    "true is the bare flag": ({"enable_prefix_caching": True}, ("--enable-prefix-caching",)),
    "false is --no-x where there is one": ({"enable_prefix_caching": False}, ("--no-enable-prefix-caching",)),
    "false is absent where there is none": ({"headless": False}, ()),
    "null is absent": ({"seed": None}, ()),
    "zero is kept": ({"seed": 0}, ("--seed", "0")),
    "kebab-case is the same": ({"max-log-len": 4}, ("--max-log-len", "4")),
    "only the part before the dot": ({"attention_config.use_fp4": 1}, ("--attention-config.use_fp4", "1")),
    "a mapping is one JSON word": ({"limit_mm_per_prompt": {"image": 2}}, ("--limit-mm-per-prompt", '{"image": 2}')),
    "several words": ({"lora_modules": ["a=b", "c=d"]}, ("--lora-modules", "a=b", "c=d")),
    "a repeated flag": ({"middleware": ["a", "b"]}, ("--middleware", "a", "--middleware", "b")),
    "a list as JSON": ({"cors_x": ["a"]}, ("--cors-x", '["a"]')),
    "a value like a flag": ({"chat_template": "-x"}, ("--chat-template=-x",)),
    "ours are not passed": ({"venv_path": "/v", "tags": ["a"], "cuda_visible_devices": "0"}, ()),
}  # fmt: skip


@pytest.mark.parametrize(("extra", "words"), WORDS.values(), ids=WORDS.keys())
def test_extra_args_become_words(extra: dict[str, Any], words: tuple[str, ...]) -> None:
    assert built(extra_args=extra)[1:] == words


def test_the_module_form_names_its_model() -> None:
    module = Runtime("test", ("/v/bin/python", "-m"))
    assert built(module)[:2] == ("--model", "/m")


def test_args_come_last_as_written() -> None:
    assert built(port=1, extra_args={"seed": 1}, args=("--x_y",)) == (
        "/m",
        "--port",
        "1",
        "--seed",
        "1",
        "--x_y",
    )


def test_a_field_and_extra_args_that_disagree_are_refused() -> None:
    with pytest.raises(UsageError, match=r"`port` and `extra_args.port` disagree on --port"):
        built(port=1, extra_args={"port": 2})


def test_a_field_and_extra_args_that_agree_are_given_once() -> None:
    assert built(port=1, extra_args={"port": 1}) == ("/m", "--port", "1")


def test_auto_infers_a_parser_from_the_models_name() -> None:
    assert built(model_path="/m/GLM-4.6", tool_call_parser="auto")[1:] == ("--tool-call-parser", "glm45")


def test_auto_without_a_known_name_is_refused() -> None:
    with pytest.raises(UsageError, match="knows no parser"):
        built(reasoning_parser="auto")


def test_the_endpoint_is_read_back_from_the_arguments() -> None:
    recipe = Recipe.model_validate({"name": "a", "model_path": "/m", "args": ("--port=9", "--host", "::")})
    assert (
        engine_endpoint(recipe, tuple(word.text for word in argv.words(recipe, VLLM))).url == "http://[::1]:9"
    )


def test_later_layers_win_and_say_what_they_overrode() -> None:
    merged = environment.merge(Layer("host file", {"A": "1"}), Layer("env_vars", {"A": "2"}))
    assert merged["A"] == Variable("2", "env_vars", (("host file", "1"),))


def test_gpus_win_over_variables_and_zero_is_a_gpu() -> None:
    recipe = Recipe.model_validate(
        {"name": "a", "model_path": "/m", "extra_args": {"cuda_visible_devices": "0"}}
    )
    settings = HostSettings(environment={"CUDA_VISIBLE_DEVICES": "7"})
    steps = resolve_purely(recipe, "/a.yaml", VLLM, settings, Installation(("/h",)))
    assert steps.environment["CUDA_VISIBLE_DEVICES"].value == "0"


def as_recipe(command: list[str], env: dict[str, str]) -> Recipe:
    """The recipe of an official command: flags through extra_args, `args` from the first that they cannot say."""
    extra: dict[str, Any] = {}
    rest = command[3:]
    while rest:
        name, values = rest[0], []
        for word in rest[1:]:
            if word.startswith("--") or word.startswith("-cc."):
                break
            values.append(word)
        head = name.partition(".")[0]
        if not name.startswith("--") or "_" in head or "=" in name or name[2:] in extra or name == "--model":
            break
        extra[name[2:]] = True if not values else values[0] if len(values) == 1 else values
        rest = rest[1 + len(values) :]
    fields = {
        "name": "a",
        "model_path": command[2],
        "extra_args": extra,
        "args": tuple(rest),
        "env_vars": {name: str(value) for name, value in env.items()},
    }
    return Recipe.model_validate(fields)


@corpus.NEEDED
def test_every_official_command_can_be_said_by_a_recipe() -> None:
    rows = [json.loads(line) for line in corpus.COMMANDS.read_text().splitlines()]
    settings, installation = HostSettings(), Installation(("/h",), user=True)
    differ = []
    for row in rows:
        result = resolve_purely(as_recipe(row["argv"], row["env"]), "/a.yaml", VLLM, settings, installation)
        env = {name: item.value for name, item in result.environment.items() if name != "PATH"}
        if list(result.argv[2:]) != row["argv"][2:] or env != {k: str(v) for k, v in row["env"].items()}:
            differ.append(row)
    assert (len(rows), differ) == (3298, [])


ENDPOINTS = {
    "defaults": ({}, "http://127.0.0.1:8000", "/health"),
    "fields": ({"host": "10.0.0.1", "port": 9}, "http://10.0.0.1:9", "/health"),
    "the last one wins": ({"args": ("--port", "8", "--port=9")}, "http://127.0.0.1:9", "/health"),
    "a beginning of a flag": ({"args": ("--hos", "10.0.0.1")}, "http://10.0.0.1:8000", "/health"),
    "too little of a flag": ({"args": ("--ho", "10.0.0.1")}, "http://127.0.0.1:8000", "/health"),
    "a path of one's own": ({"ready": {"path": "/x"}}, "http://127.0.0.1:8000", "/x"),
    "the head of several": (
        {"nodes": {"count": 2, "rank": 0, "address": "h"}},
        "http://127.0.0.1:8000",
        "/health",
    ),
    "one behind a head": ({"nodes": {"count": 2, "rank": 1, "address": "h"}}, "http://127.0.0.1:8000", None),
    "the highest port": ({"port": 65535}, "http://127.0.0.1:65535", "/health"),
}


@pytest.mark.parametrize(("fields", "url", "path"), ENDPOINTS.values(), ids=ENDPOINTS.keys())
def test_an_endpoint_is_what_the_arguments_say(fields: dict[str, Any], url: str, path: str | None) -> None:
    recipe = Recipe.model_validate({"name": "a", "model_path": "/m"} | fields)
    endpoint = engine_endpoint(recipe, [word.text for word in argv.words(recipe, VLLM)])
    assert (endpoint.url, endpoint.path) == (url, path)


@pytest.mark.parametrize("port", ["0", "65536", "web", "", "٣"])
def test_a_port_that_is_none_is_refused(port: str) -> None:
    recipe = Recipe.model_validate({"name": "a", "model_path": "/m", "args": ("--port", port)})
    with pytest.raises(UsageError, match="is not a number from 1 to 65535"):
        engine_endpoint(recipe, [word.text for word in argv.words(recipe, VLLM)])


DRAINS = {"none": ((), 0), "seconds": (("--shutdown-timeout", "30"), 30), "a fraction": (("--shutdown-timeout=1.5",), 1),
          "underscores": (("--shutdown_timeout", "30"), 30), "no number": (("--shutdown-timeout", "x"), 0),
          "no value": (("--shutdown-timeout",), 0), "a value": (("--x", "shutdown-timeout", "9"), 0)}  # fmt: skip


@pytest.mark.parametrize(("words", "seconds"), DRAINS.values(), ids=DRAINS.keys())
def test_a_drain_is_read_from_the_arguments(words: tuple[str, ...], seconds: int) -> None:
    assert drain_sec(Recipe.model_validate({"model_path": "/m"}), words) == seconds
    assert drain_sec(Recipe.model_validate({"model_path": "/m", "backend": "sglang"}), words) == 0


@pytest.mark.parametrize("flag", ["--host", "--port"])
def test_an_on_demand_engine_listens_only_where_its_socket_expects_it(flag: str) -> None:
    fields = {"name": "a", "model_path": "/m", "on_demand": {}}
    for words in ((flag, "1"), (f"{flag}=1",), (f"{flag[:-1]}=1",)):
        recipe = Recipe.model_validate(fields | {"args": words})
        with pytest.raises(UsageError, match=f"`{flag} 1` contradicts `on_demand`; keep one of them"):
            overlaps.settled(recipe, argv.words(recipe, VLLM))


SGLANG = Runtime("test", ("/v/bin/python", "-m", "sglang.launch_server"))
LLAMA = Runtime("test", ("/v/bin/llama-server",))
RUNTIMES = {"vllm": VLLM, "sglang": SGLANG, "llamacpp": LLAMA}

CONTRADICTIONS = {
    "the model": ("llamacpp", {}, ["-m", "/other.gguf"], "`--model /other.gguf` contradicts `model_path`"),
    "a second argument": ("vllm", {}, ["--model", "other"], "`--model other` contradicts `model_path`"),
    "an alias of it": ("sglang", {}, ["--model=other"], "`--model-path other` contradicts `model_path`"),
    "its beginning": ("sglang", {}, ["--model-pat", "other"], "`--model-path other` contradicts `model_path`"),
    "another source": ("llamacpp", {}, ["-hf", "org/m"], "`--hf-repo org/m` serves another model than `model_path`"),
    "a port": ("vllm", {"port": 1}, ["--port", "2"], "`--port 2` contradicts `port`"),
    "a beginning": ("vllm", {"host": "::1"}, ["--hos=::2"], "`--host ::2` contradicts `host`"),
    "underscores": ("vllm", {"tensor_parallel_size": 1}, ["--tensor_parallel_size", "2"], "`--tensor-parallel-size 2` contradicts"),
    "a short flag": ("vllm", {"tensor_parallel_size": 1}, ["-tp", "2"], "`--tensor-parallel-size 2` contradicts"),
    "served names": ("llamacpp", {"served_model_name": "a"}, ["-a", "b"], "`--alias b` contradicts `served_model_name`"),
    "a flag that a field denies": ("vllm", {"trust_remote_code": False}, ["--trust-remote-code"], "`--trust-remote-code` contradicts `trust_remote_code`"),
    "nodes": ("vllm", {"nodes": {"count": 2, "rank": 1, "address": "h"}}, ["--node-rank", "0"], "`--node-rank 0` contradicts `nodes`"),
    "no number": ("vllm", {}, ["--port", "http"], "`--port http` needs a whole number"),
}  # fmt: skip


@pytest.mark.parametrize(
    ("engine", "fields", "words", "sentence"), CONTRADICTIONS.values(), ids=CONTRADICTIONS.keys()
)
def test_a_flag_that_contradicts_a_field_is_refused_at_its_place(
    engine: str, fields: dict[str, Any], words: list[str], sentence: str
) -> None:
    recipe = Recipe.model_validate(
        {"name": "a", "model_path": "/m", "backend": engine, "args": words} | fields
    )
    with pytest.raises(MultipleUsageError) as refused:
        overlaps.settled(recipe, argv.words(recipe, RUNTIMES[engine]))
    assert (str(refused.value).startswith(sentence), refused.value.errors[0].key) == (True, ("args", 0))


ADOPTIONS = {
    "a port": ("vllm", ["--port=9000"], {"port": 9000}),
    "a host by its beginning": ("sglang", ["--hos", "0.0.0.0"], {"host": "0.0.0.0"}),
    "a name": ("llamacpp", ["-a", "b,c"], {"served_model_name": "b"}),
    "several names": ("vllm", ["--served-model-name", "b", "c"], {"served_model_name": "b"}),
    "sizes": ("vllm", ["-tp", "2", "-pp", "4"], {"tensor_parallel_size": 2, "pipeline_parallel_size": 4}),
}  # fmt: skip


@pytest.mark.parametrize(("engine", "words", "fields"), ADOPTIONS.values(), ids=ADOPTIONS.keys())
def test_a_flag_alone_counts_as_its_field(engine: str, words: list[str], fields: dict[str, object]) -> None:
    recipe = Recipe.model_validate({"name": "a", "model_path": "/m", "backend": engine, "args": words})
    settled = overlaps.settled(recipe, argv.words(recipe, RUNTIMES[engine]))
    assert {name: getattr(settled, name) for name in fields} == fields


def test_a_flag_that_says_the_same_as_its_field_is_no_mistake() -> None:
    fields = {"name": "a", "model_path": "/m", "port": 1, "trust_remote_code": True}
    recipe = Recipe.model_validate(fields | {"args": ["--port", "1", "--trust-remote-code", "--model", "/m"]})
    assert overlaps.settled(recipe, argv.words(recipe, VLLM)) == recipe


def test_the_module_form_of_vllm_cannot_be_a_follower() -> None:
    nodes = {"count": 2, "rank": 1, "address": "h"}
    module = Runtime("test", ("/v/bin/python", "-m", "vllm.entrypoints.openai.api_server"))
    recipe = Recipe.model_validate({"name": "a", "model_path": "/m", "nodes": nodes})
    with pytest.raises(UsageError, match="rank 1 needs `vllm serve`: the module never reads --headless"):
        argv.words(recipe, module)
    assert argv.words(recipe.model_copy(update={"nodes": None}), module)
