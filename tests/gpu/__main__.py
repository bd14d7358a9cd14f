"""Run one stage of packaging/gpu-proof; it prints a table and writes it to the folder of results."""

import argparse
import importlib
import signal
import sys
import time
from pathlib import Path

LIMIT_SEC = 480


def _stop(*_: object) -> None:
    raise SystemExit(f"gpu-proof: the stage did not end within {LIMIT_SEC} s")


def main() -> int:
    parser = argparse.ArgumentParser(prog="gpu-proof", allow_abbrev=False)
    parser.add_argument("stage", choices=["place", "sandbox", "memory", "waiting", "engine", "table"])
    parser.add_argument("--results", type=Path, required=True)
    parser.add_argument("--python", required=True)
    parser.add_argument("--server", type=Path)
    parser.add_argument("--model", type=Path)
    parser.add_argument("--throwaway", action="store_true")
    parser.add_argument("--stand-in", action="store_true")
    parser.add_argument("--break", dest="breaks", action="append", default=[])
    words = parser.parse_args()
    if words.stage == "table":
        from gpu import claims

        return claims.write(words.results)
    from gpu import host

    breaks = dict(setting.split("=", 1) for setting in words.breaks)
    if words.stand_in and words.stage != "place":  # that one looks at the machine itself
        from gpu import stand_in

        stand_in.install(breaks.pop("linger", None))
    options = host.Options(
        words.results,
        words.python,
        words.stand_in,
        breaks,
        words.throwaway,
        words.server,
        words.model,
    )
    if words.stage != "place" and (used := host.used_mib(host.gpu())) > 1024:
        raise SystemExit(
            f"gpu-proof: {used} MiB of GPU 0 are in use; stop what uses it (nvidia-smi names it)"
        )
    signal.signal(signal.SIGALRM, _stop)
    signal.alarm(LIMIT_SEC)
    table = host.Table(words.stage, words.results)
    begin = time.monotonic()
    print(f"── {words.stage}", flush=True)
    try:
        importlib.import_module(f"gpu.{words.stage}").run(options, table)
    except BaseException as error:
        table.add(
            f"{words.stage}-ended", "the stage ran to its end", f"{type(error).__name__}: {error}", False
        )
        raise
    table.add(f"{words.stage}-ended", "the stage ran to its end", f"{time.monotonic() - begin:.0f} s")
    return int(any(row.holds is False for row in table.rows))


if __name__ == "__main__":
    sys.exit(main())
