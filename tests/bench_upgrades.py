"""The share of `recipectl upgrade` beyond the load, beside a restart of the same model; part of `make bench`."""

import statistics
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
from live.common import ENGINE, ROOT, recipe, recipectl

EARLIER = ROOT / ".build/llamacpp-earlier"
ROUNDS = 8


def timed_sec(*words: str) -> float:
    begin = time.monotonic()
    done = recipectl(*words)
    assert done.returncode == 0, done.stdout + done.stderr
    return time.monotonic() - begin


def main() -> None:
    recipe("bench", port=18290, autostart=True, binary=str(EARLIER / "bin/llama-server"),
           canaries=[{"request": {"prompt": "a", "max_tokens": 1}}])  # fmt: skip
    assert recipectl("apply").returncode == 0
    assert recipectl("wait", "bench").returncode == 0
    upgrades, restarts = [], []
    for number in range(ROUNDS):  # in pairs: what else the machine does meets both
        upgrades.append(timed_sec("upgrade", "bench", "--to", str((ENGINE, EARLIER)[number % 2])))
        restarts.append(timed_sec("restart", "bench"))
    share = statistics.median(own - restart for own, restart in zip(upgrades, restarts, strict=True))
    print(f"upgrade of llama.cpp, median of {ROUNDS}{statistics.median(upgrades):22.2f} s  beside "
          f"{statistics.median(restarts):.2f} s of restart: {share:.2f} s more")  # fmt: skip
    recipectl("remove", "bench")


if __name__ == "__main__":
    main()
