"""What an engine would refuse, told before it starts."""

import getpass
import subprocess
import sys
from pathlib import Path

import imported
import pytest

from recipectl.engines import ask, flags, parser_probe
from recipectl.engines.argv import Word
from recipectl.engines.options import parse_table, shipped_options
from recipectl.machine.runtime import Runtime

CASES = {
    "a flag that is gone": ("vllm", "--swap-space 4", "`--swap-space` is not an option of vllm 0.33.0; remove it (the nearest is `--"),
    "a misspelt flag": ("vllm", "--max-modle-len 4", "`--max-modle-len` is not an option of vllm 0.33.0; did you mean `--max-model-len`?"),
    "a value that is no choice": ("vllm", "--dtype floaty", "`--dtype` cannot be `floaty` in vllm 0.33.0; did you mean `float`?"),
    "a choice with `=`": ("vllm", "--dtype=floaty", "`--dtype` cannot be `floaty`"),
    "a deprecated flag": ("vllm", "--disable-cascade-attn", "`--disable-cascade-attn` is deprecated in vllm 0.33.0"),
    "a flag with a value": ("vllm", "--headless=yes", "`--headless` takes no value in vllm 0.33.0; give `true` or `false`, not `yes`"),
    "a word of no option": ("vllm", "--headless yes", "`yes` belongs to no option of vllm 0.33.0; remove it"),
    "no value": ("vllm", "--port", "`--port` needs a value in vllm 0.33.0; give one"),
    "the beginning of a flag": ("vllm", "--enable-prefix-cachin", "abbreviates `--enable-prefix-caching`"),
    "a part of an unknown option": ("vllm", "--compilation.mode 3", "`--compilation` is not an option of vllm 0.33.0"),
    "SGLang knows no underscores": ("sglang", "--mem_fraction_static 0.5", "`--mem_fraction_static` is not an option of sglang 0.5.23; did you mean `--mem-fraction-static`?"),
}  # fmt: skip


def sentences(engine: str, line: str) -> list[str]:
    words = [Word(text, ("args",)) for text in line.split()]
    return [str(error) for error in flags.check(engine, words, shipped_options(engine))]


@pytest.mark.parametrize(("engine", "line", "sentence"), CASES.values(), ids=CASES.keys())
def test_a_wrong_option_is_told(engine: str, line: str, sentence: str) -> None:
    (result,) = sentences(engine, line)
    assert sentence in result


FINE = {
    "negated": ("vllm", "--no-enable-prefix-caching"),
    "underscores": ("vllm", "--max_model_len 4"),
    "a short flag": ("vllm", "-tp 2"),
    "a part of a JSON option": ("vllm", "--compilation-config.mode 3 -cc.pass_config.x=True"),
    "several words": ("vllm", "--served-model-name a b"),
    "negated with underscores": ("vllm", "--no_enable_prefix_caching"),
    "negated in another way": ("vllm", "--disable-prefix-caching"),
    "a level that follows at once": ("vllm", "-O3 --port 1"),
    "whole words of a flag": ("sglang", "--tp 2"),
    "a short negation": ("llamacpp", "-nkvo --port 1"),
    "an alias": ("sglang", "--tensor-parallel-size 2"),
    "a negative number": ("llamacpp", "--n-gpu-layers -1"),
}


@pytest.mark.parametrize(("engine", "line"), FINE.values(), ids=FINE.keys())
def test_what_the_engine_takes_is_not_told(engine: str, line: str) -> None:
    assert sentences(engine, line) == []


HELP = """----- common params -----

-h,    --help, --usage                  print usage and exit
-t,    --threads N                      number of CPU threads to use during generation (default: -1)
                                        (env: LLAMA_ARG_THREADS)
-fa,   --flash-attn [on|off|auto]       set Flash Attention use ('on', 'off', or 'auto', default: 'auto')
--rope-scaling {none,linear,yarn}       RoPE frequency scaling method, defaults to linear
--mmap, --no-mmap                       whether to memory-map model
-kvo,  --kv-offload, -nkvo, --no-kv-offload
                                        whether to enable KV cache offloading (default: enabled)
                                        --no-perf is no option here
--tags STRING                           set model tags, comma-separated (informational, not used for routing)
-ngl,  --gpu-layers, --n-gpu-layers N   max. number of layers to store in VRAM
--jinja                                 use jinja template for chat (default: disabled)
"""


def test_llama_servers_help_is_read() -> None:
    assert ask.llama_options(HELP) == {
        "--help": {"kind": "flag", "aliases": ["-h", "--usage"]},
        "--threads": {"kind": "value", "aliases": ["-t"], "default": "-1"},
        "--flash-attn": {
            "kind": "value", "aliases": ["-fa"], "choices": ["on", "off", "auto"], "default": "auto",
        },
        "--rope-scaling": {"kind": "value", "choices": ["none", "linear", "yarn"]},
        "--mmap": {"kind": "negatable", "negations": ["--no-mmap"]},
        "--kv-offload": {
            "kind": "negatable", "aliases": ["-kvo"], "negations": ["--no-kv-offload", "-nkvo"],
            "default": "enabled",
        },
        "--tags": {"kind": "commas"},
        "--gpu-layers": {"kind": "value", "aliases": ["-ngl", "--n-gpu-layers"]},
        "--jinja": {"kind": "flag", "default": "disabled"},
    }  # fmt: skip


LLAMA_SERVER = Path(__file__).parents[1] / ".build/llama-server/bin/llama-server-vulkan"


@pytest.mark.skipif(not LLAMA_SERVER.exists(), reason="`make setup-test` installs a real llama-server")
def test_every_negation_of_llama_server_means_no_after_an_import(tmp_path: Path) -> None:
    """A router tells what the engine's own parser makes of its words."""
    runtime = Runtime("test", (str(LLAMA_SERVER),), path=("/usr/bin",))
    answer = ask.options_of("llamacpp", runtime, getpass.getuser(), tmp_path / "cache")
    assert answer.asked
    (tmp_path / "models").mkdir()
    (tmp_path / "models/m.gguf").touch()
    for options in (answer.options, shipped_options("llamacpp")):
        known = {*answer.options.by_flag, *answer.options.aliases, *answer.options.negations}
        booleans = [
            [spelling for spelling in (name, *option.aliases, *option.negations) if spelling in known]
            for name, option in options.by_flag.items()
            if option.kind == "negatable" and name in known
        ]
        assert len(booleans) > 20
        for number in range(max(map(len, booleans))):
            words = [names[number % len(names)] for names in booleans]
            again = imported.again("llamacpp", words, tmp_path)
            same = [imported.router_args(LLAMA_SERVER, text, tmp_path / "models") for text in (words, again)]
            assert same[0] == same[1]


def server(folder: Path, body: str) -> Runtime:
    path = folder / "llama-server"
    path.write_text(f"#!{sys.executable} -IS\n{body}")
    path.chmod(0o755)
    return Runtime("test", (str(path),), path=("/usr/bin",))


def test_an_engine_is_asked_once(tmp_path: Path) -> None:
    asked = server(
        tmp_path, f"open({str(tmp_path / 'count')!r}, 'a').write('x'); print('--port N   the port')"
    )
    for _ in range(2):
        options, origin, _ = ask.options_of("llamacpp", asked, "root", tmp_path / "cache")
    assert (list(options.by_flag), origin.endswith("(asked before)")) == (["--port"], True)
    assert (tmp_path / "count").read_text() == "x"


def test_an_engine_that_cannot_be_asked_is_checked_by_the_shipped_table(tmp_path: Path) -> None:
    options, origin, _ = ask.options_of(
        "llamacpp", server(tmp_path, "import sys; sys.exit('no libcuda')"), "root", tmp_path / "cache"
    )
    assert options == shipped_options("llamacpp")
    assert origin.startswith("recipectl's own table of llamacpp")
    assert "cannot tell (no libcuda)" in origin


def test_an_engine_that_hangs_is_not_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ask, "PARSER_TIMEOUT_SEC", 0.5)
    _, origin, _ = ask.options_of(
        "llamacpp", server(tmp_path, "import time; time.sleep(60)"), "root", tmp_path / "cache"
    )
    assert "did not answer within 0.5 s" in origin


def test_a_probe_of_another_parser_gives_the_same_table(tmp_path: Path) -> None:
    program = """
import argparse, runpy, json, sys
probe = runpy.run_path(sys.argv[1])
p = argparse.ArgumentParser()
p.add_argument("--a", "-x", choices=["b", "a"])
p.add_argument("--c", action=argparse.BooleanOptionalAction)
p.add_argument("--d", nargs="+"), p.add_argument("--e", action="append"), p.add_argument("--f", action="store_true", help="[DEPRECATED] no")
print(json.dumps({"version": "1", "options": probe["options"](p)}))
"""
    probe = Path(parser_probe.__file__)
    text = subprocess.run(
        [sys.executable, "-c", program, str(probe)], capture_output=True, text=True, check=True
    ).stdout
    table = parse_table(text)
    assert {name: option.kind for name, option in table.by_flag.items()} == {
        "--a": "value",
        "--c": "negatable",
        "--d": "words",
        "--e": "repeated",
        "--f": "flag",
    }
    assert (table.by_flag["--a"].choices, table.by_flag["--f"].deprecated) == (("a", "b"), "[DEPRECATED] no")
