"""What an engine's last log line says about its load, in a few words. The lines are those of real engines."""

import re

# vLLM 0.32 and SGLang 0.5.23: bars of tqdm, of which the last update of a line counts. SGLang writes the
# begin of a phase, vLLM the end of it; llama.cpp's server writes dots, and then what it does next.
_PHASES = {
    r"loading .*checkpoint shards:.*?(\d+)/(\d+)": "loading weights {} of {}",
    r"loading .*checkpoint shards|load weight begin|starting to load model|load_tensors": "loading weights",
    r"capturing (?:cuda )?graphs?.*?(\d+)/(\d+)": "capturing graphs {} of {}",
    r"capturing (?:cuda )?graphs?|capture .*(?:graph|decode|extend) .*begin": "capturing graphs",
    r"loading weights took|load weight end|model loading took": "its weights are loaded",
    r"dynamo bytecode|compiling a graph|torch\.compile took|warming up model for the comp": "compiling",
    r"kv cache size|memory pool end|kv cache is allocated|llama_kv_cache": "its KV cache is allocated",
    r"graph capturing finished|capture .*end": "its graphs are captured",
    r"warming up|warmup": "warming up",
}


def of_line(line: str) -> str:
    """The phase that a log line tells; the line itself where it tells none."""
    last = line.rstrip("\r").rpartition("\r")[2]
    for pattern, words in _PHASES.items():
        if match := re.search(pattern, last, re.IGNORECASE):
            return words.format(*match.groups())
    return last.strip()
