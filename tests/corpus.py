"""The corpus of official commands and other tools' files, for the tests that find it."""

from pathlib import Path

import pytest

_ROOT = Path(__file__).parents[1]
# `make test` keeps a copy: where the checkout is below /tmp, the throwaway systemd hides what is beside it.
_BESIDE, _COPY = _ROOT.parent / "shared/corpus", _ROOT / ".build/corpus"
FOLDER = _BESIDE if _BESIDE.exists() else _COPY
COMMANDS = FOLDER / "vllm-commands.jsonl"
NEEDED = pytest.mark.skipif(not COMMANDS.exists(), reason="the corpus is not beside this checkout")
