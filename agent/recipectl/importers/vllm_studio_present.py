"""What VLLM Studio's present release passes to an engine, and earlier ones did not.

Its source is model-runtime-defaults.ts and sglang-spec.ts of July 2026.
"""

import re
from collections.abc import Mapping
from typing import Any

from recipectl.engines import vllm
from recipectl.engines.argv import INFERRED
from recipectl.importers.draft import Draft

_MINIMAX = r"^(?=.*minimax).*m-?2"
_GLM_4, _GLM_5 = r"glm.*4[.-][567]", r"glm.*5[.-][01]"
# Model's name -> parser, the first match wins; it looks anywhere in the name.
_PARSERS = {
    "reasoning_parser": (
        (_MINIMAX, "minimax_m2_append_think"), (r"intellect.*3|mirothinker", "deepseek_r1"),
        (f"{_GLM_4}|{_GLM_5}", "glm45"), (r"qwen3.*thinking", "deepseek_r1"), (r"qwen3", "qwen3"),
    ),
    "tool_call_parser": (
        (r"mirothinker", None), (_MINIMAX, "minimax-m2"), (_GLM_4, "glm45"), (_GLM_5, "glm47"),
        (r"intellect.*3", "qwen3_xml"),
    ),
}  # fmt: skip
_EXPERTS = rf"{_MINIMAX}|qwen3\.5|qwen3-3\.5|qwen3[-_]235b|qwen.*262"


def name_differences(draft: Draft, settings: Mapping[str, Any], backend: str, model: str) -> None:
    """Name what a recipe lacks of the command of the present release; `model` is the name it looks at."""
    extra = {key.replace("_", "-") for key in settings.get("extra_args") or ()}
    model = model.lower()
    for key in (key for key in INFERRED if not settings.get(key)):
        parsers = (parser for pattern, parser in _PARSERS[key] if re.search(pattern, model))
        now, earlier = next(parsers, None), vllm.infer_parser(key, model) if backend == "vllm" else None
        if now != earlier:
            shown, shown_earlier = (f"`{parser}`" if parser else "nothing" for parser in (now, earlier))
            fault = f"`{key}`: VLLM Studio's present release passes {shown} for this name"
            draft.lose(f"{fault}, earlier ones {shown_earlier}; choose one", "model_path")
    if backend == "sglang" and "enable-metrics" not in extra:
        fault = "`--enable-metrics`, which VLLM Studio's present release passes"
        draft.lose(f"{fault}; add it for `watch: {{ask: progress}}`", "backend")
    if backend == "vllm" and "enable-expert-parallel" not in extra | {*draft.fields.get("extra_args", ())}:
        _name_expert_parallel(draft, settings.get("tensor_parallel_size"), model)


def _name_expert_parallel(draft: Draft, gpus: object, model: str) -> None:
    if isinstance(gpus, int) and gpus > 1 and re.search(_EXPERTS, model):
        fault = "`--enable-expert-parallel`, which VLLM Studio's present release passes for this name"
        draft.lose(f"{fault}; add it to `extra_args:`", "model_path")
