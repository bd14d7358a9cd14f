"""Stage 6: what the manual says about GPUs, beside the rows that prove it."""

import json
import time
from dataclasses import dataclass
from pathlib import Path

STAGES = ("place", "sandbox", "memory", "waiting", "engine")
MODELS = ("off", "default", "strict", "isolated", "by-id", "hidden", "closed", "alone")
OPERATIONS = ("devices", "allocate", "matmul", "triton", "pinned", "shared", "nccl", "ipc", "nvml")


@dataclass(frozen=True)
class Claim:
    """A sentence of a page of the manual, as it stands there, and the rows that prove it together."""

    page: str
    sentence: str
    rows: tuple[str, ...]


def _operations(*models: str) -> tuple[str, ...]:
    return tuple(f"{model}-{operation}" for model in models for operation in OPERATIONS)


ENDS = ("stop", "kill", "worker", "evict", "abort")
CLAIMS = (
    Claim("recipe.5", "sets CUDA_VISIBLE_DEVICES= and CUDA_DEVICE_ORDER=PCI_BUS_ID",
          ("default-devices", "by-id-devices", "by-id-allocate", "hidden-sees", "hidden-uses")),
    Claim("recipe.5", "**accelerator: rocm** indices set HIP_VISIBLE_DEVICES= and ids ROCR_VISIBLE_DEVICES=", ()),
    Claim("recipe.5", "or `MIG-…` ids", ()),
    Claim("recipe.5", "starting one stops the other (Conflicts= and After=), and it starts only when the other is gone",
          ("evict-held", "switch")),
    Claim("recipe.5", "**ordered**: both live, but never load at the same time", ("ordered",)),
    Claim("recipe.5", "A unit waits at most a minute for the device nodes that its engine opens", ("late", "late-works", "never")),
    Claim("recipe.5", "and in those that own its device nodes", ("group",)),
    Claim("recipe.5", "They reach the pipes of CUDA's MPS in */tmp/nvidia-mps*, if root had made that folder when the recipe was applied",
          ("mps-multiuser", "mps-one-user")),
    Claim("recipe.5", "MPS serves one user at a time: the second model waits at its first use of the GPU", ("mps-before",)),
    Claim("recipe.5", "`true` leaves only its GPUs' device nodes to the unit (DevicePolicy=closed)",
          (*_operations("isolated"), "isolated-others", "default-nodes", "closed-uses", "closed-nodes")),
    Claim("recipe.5", "each model has a user of its own, which `apply` makes",
          tuple(f"{model}-user" for model in MODELS)),
    Claim("recipe.5", "*default* is all of systemd's sandbox that CUDA, NCCL and JIT compilers bear", _operations("default")),
    Claim("recipe.5", "*strict* adds no network but loopback, PrivateIPC= and, with **gpus: none**, no devices",
          (*_operations("strict"), "alone-sees", "alone-uses", "alone-nodes")),
    Claim("design", "Workers outlive a killed parent and hold GPU memory", tuple(f"{end}-held" for end in ENDS)),
    Claim("unit", "After=network-online.target nvidia-persistenced.service", ("persistence",)),
    Claim("README", "evict what shares its GPUs, and start", ("switch",)),
)  # fmt: skip


def _rows(results: Path) -> dict[str, dict[str, dict[str, object]]]:
    """Stage -> id -> row; a stage that was not run has none."""
    stages = {}
    for stage in STAGES:
        path = results / f"{stage}.json"
        stages[stage] = {row["id"]: row for row in json.loads(path.read_text())} if path.exists() else {}
    return stages


def _verdict(claim: Claim, rows: dict[str, dict[str, object]]) -> str:
    held = [rows.get(name, {}).get("holds") for name in claim.rows]
    if False in held:
        return "**wrong**: " + ", ".join(
            name for name, holds in zip(claim.rows, held, strict=True) if holds is False
        )
    if not held or None in held:
        missing = ", ".join(name for name, holds in zip(claim.rows, held, strict=True) if holds is None)
        return f"not proven{f' ({missing})' if missing else ''}"
    return "proven"


def _table(head: str, rows: list[tuple[str, ...]]) -> list[str]:
    cells = [" | ".join(cell.replace("|", "\\|") for cell in row) for row in rows]
    return [head, "|" + "-|" * head.count(" | ") + "-|", *(f"| {line} |" for line in cells), ""]


def write(results: Path) -> int:
    """Write gpu-proof.md from the results of the stages; 1 when a row failed or a claim is wrong."""
    stages = _rows(results)
    rows = {name: row for stage in stages.values() for name, row in stage.items()}
    word = {True: "ok", False: "**failed**", None: "not proven"}
    newest = max((path.stat().st_mtime for path in results.glob("*.json")), default=time.time())
    lines = [
        "# The proof on a GPU", "",
        f"Run on {time.strftime('%Y-%m-%d', time.gmtime(newest))} with `packaging/gpu-proof`, which says how to run it again.", "",
        "## What the manual says", "",
    ]  # fmt: skip
    verdicts = [(claim, _verdict(claim, rows)) for claim in CLAIMS]
    claims = [(f"{claim.page}: {claim.sentence}", _short(claim.rows), verdict) for claim, verdict in verdicts]
    lines += _table("| claim | rows | |", claims)
    for stage, found in stages.items():
        lines += [f"## Stage {stage}", ""]
        facts = [
            (name, str(row["what"]), str(row["value"]), word[row["holds"]]) for name, row in found.items()
        ]  # type: ignore[index]
        lines += _table("| row | what | found | |", facts) if facts else ["Not yet run.", ""]
    (results / "gpu-proof.md").write_text("\n".join(lines))
    for claim, verdict in verdicts:
        print(f"{verdict.partition(' (')[0].partition(':')[0].strip('*'):<11}{claim.sentence}")
    return int(
        any(row["holds"] is False for row in rows.values())
        or any("wrong" in verdict for _, verdict in verdicts)
    )


def _short(rows: tuple[str, ...]) -> str:
    return ", ".join(rows[:4]) + (f" and {len(rows) - 4} more" if len(rows) > 4 else "")
