"""The engines by their name in `backend:`. A further engine is a file like vllm.py, and a line here."""

from recipectl.engines import llamacpp, sglang, vllm

ENGINES = {engine.name: engine for engine in (vllm.ENGINE, sglang.ENGINE, llamacpp.ENGINE)}
