"""Stage 2: what engines do on a GPU, inside the sandbox of a unit, beside the same without a unit."""

import concurrent.futures
import os
import re
import stat
import subprocess
from pathlib import Path

import pynvml
from live.common import show, systemctl

from gpu.host import (
    UNITS,
    Options,
    Table,
    applied,
    by_hand,
    get,
    gpu,
    remove,
    server_recipe,
    started,
    torch_server,
)

OPERATIONS = ("devices", "allocate", "matmul", "triton", "pinned", "shared", "nccl", "ipc", "nvml")
# A sandbox's settings, and the value that takes each back; all others are no part of it.
NEUTRAL = {
    "CapabilityBoundingSet": "~", "DeviceAllow": "", "DevicePolicy": "auto", "IPAddressAllow": "", "IPAddressDeny": "",
    "KeyringMode": "inherit", "ProtectProc": "default", "ProcSubset": "all", "ProtectSystem": "no", "ProtectHome": "no",
    "RestrictAddressFamilies": "", "SystemCallArchitectures": "", "SystemCallFilter": "", "UMask": "0022",
} | dict.fromkeys(("LockPersonality", "MemoryDenyWriteExecute", "NoNewPrivileges", "PrivateDevices", "PrivateIPC", "PrivateNetwork", "PrivateTmp", "PrivateUsers", "ProtectClock", "ProtectControlGroups", "ProtectHostname", "ProtectKernelLogs", "ProtectKernelModules", "ProtectKernelTunables", "RestrictNamespaces", "RestrictRealtime", "RestrictSUIDSGID"), "no")  # fmt: skip


def _models(gpu_id: str) -> dict[str, tuple[str, dict[str, object]]]:
    """Name -> what it shows, and the fields of its recipe."""
    return {
        "off": ("hardening: off", {"gpus": "0", "hardening": "off"}),
        "default": ("hardening: default", {"gpus": "0"}),
        "strict": ("hardening: strict", {"gpus": "0", "hardening": "strict"}),
        "isolated": ("device_isolation", {"gpus": [0], "device_isolation": True}),
        "by-id": ("gpus: GPU-…", {"gpus": gpu_id}),
        "hidden": ("gpus: none", {"gpus": "none"}),
        "closed": ("gpus: none, device_isolation", {"gpus": "none", "device_isolation": True}),
        "alone": ("gpus: none, strict", {"gpus": "none", "hardening": "strict"}),
    }


def _prove(port: int, operation: str) -> tuple[bool, str]:
    try:
        answer = get(port, f"/prove/{operation}")
    except OSError as error:
        return False, f"the server did not answer: {error}"
    return bool(answer["ok"]), str(answer["detail"])


def _settings(name: str) -> list[str]:
    """The settings of a unit's sandbox, in the order of its files."""
    text = systemctl("cat", f"model-{name}.service")
    names = re.findall(r"^([A-Za-z]+)=", text, re.MULTILINE)
    return [key for key in dict.fromkeys(names) if key in NEUTRAL]


def culprit(name: str, port: int, operation: str) -> str:
    """The setting of the sandbox without which an operation works, found by halving; else a sentence."""
    drop_in = UNITS / f"model-{name}.service.d" / "zz-bisection.conf"
    drop_in.parent.mkdir(exist_ok=True)

    def works(without: list[str]) -> bool:
        lines = ["[Service]", *(f"{key}={NEUTRAL[key]}" for key in without)]
        drop_in.write_text("\n".join(lines) + "\n")
        systemctl("daemon-reload")
        restart = ["systemctl", "restart", f"model-{name}.service"]
        subprocess.run(["systemctl", "reset-failed", f"model-{name}.service"], check=False)
        return subprocess.run(restart, check=False).returncode == 0 and _prove(port, operation)[0]

    try:
        suspects = _settings(name)
        if not works(suspects):
            return "it fails without any setting of the sandbox too"
        while len(suspects) > 1:
            half = suspects[: len(suspects) // 2]
            suspects = half if works(half) else suspects[len(half) :]
        return f"{suspects[0]}= breaks it" if works(suspects) else "two settings break it together"
    finally:
        drop_in.unlink()
        systemctl("daemon-reload")


def _expect_none(name: str) -> bool:
    return name in ("hidden", "closed", "alone")


def run(options: Options, table: Table) -> None:
    handle = gpu()
    names = {
        f"gpu-proof-{name}": value for name, value in _models(str(pynvml.nvmlDeviceGetUUID(handle))).items()
    }
    ports = {name: 18300 + index for index, name in enumerate(names)}
    command = [torch_server(options), "--model", "/opt/gpu-proof/model", "--port", "18299"]
    with by_hand(options, 18299, command, CUDA_VISIBLE_DEVICES="0"):
        outside = {operation: _prove(18299, operation) for operation in OPERATIONS}
    for operation, (works, detail) in outside.items():
        table.add(f"outside-{operation}", f"without a unit: {operation}", detail, works or None)
    if options.throwaway and not Path("/dev/nvidia1").exists():
        # In this /dev alone. Without a GPU behind it, its opening fails otherwise than for one that is closed.
        number = Path("/dev/nvidia0").stat().st_rdev
        os.mknod("/dev/nvidia1", 0o666 | stat.S_IFCHR, os.makedev(os.major(number), 1))
        Path("/dev/nvidia1").chmod(0o666)  # the mask counted
    try:
        for name, (_, fields) in names.items():
            server_recipe(options, name, ports[name], gpu_sharing="free", **fields)
        applied(*names)
        with concurrent.futures.ThreadPoolExecutor() as pool:
            list(pool.map(started, names))
            answers = dict(zip(names, pool.map(lambda name: _answers(ports[name]), names), strict=True))
        for name, (what, _) in names.items():
            _judge(table, name.removeprefix("gpu-proof-"), what, answers[name], outside, (name, ports[name]))
            user = show(name, "User")
            identity = answers[name]["identity"][1]
            own = identity == f"user {user}, effective capabilities 0" and user.startswith("model-")
            table.add(f"{name.removeprefix('gpu-proof-')}-user", f"{what}: a user of its own", identity, own)
    finally:
        remove(*names)


def _answers(port: int) -> dict[str, tuple[bool, str]]:
    return {operation: _prove(port, operation) for operation in (*OPERATIONS, "identity", "nodes", "refused")}


def _judge(
    table: Table, short: str, what: str, answers: dict[str, tuple[bool, str]],
    outside: dict[str, tuple[bool, str]], unit: tuple[str, int],
) -> None:  # fmt: skip
    if _expect_none(short):
        count, fails = answers["devices"], not answers["allocate"][0]
        table.add(
            f"{short}-sees", f"{what}: no GPU is seen", count[1], count == (True, "0 GPU") or not count[0]
        )
        table.add(f"{short}-uses", f"{what}: CUDA cannot be used", answers["allocate"][1], fails)
        closed = short in ("closed", "alone")
        nodes = answers["nodes"][1]
        table.add(f"{short}-nodes", f"{what}: device nodes that open", nodes, nodes == "none" or not closed)
        return
    for operation in OPERATIONS:
        works, detail = answers[operation]
        if not outside[operation][0]:
            table.add(
                f"{short}-{operation}", f"{what}: {operation}", f"fails without a unit too: {detail}", None
            )
        elif works:
            table.add(f"{short}-{operation}", f"{what}: {operation}", detail)
        else:
            table.add(
                f"{short}-{operation}",
                f"{what}: {operation}",
                f"{culprit(*unit, operation)} ({detail})",
                False,
            )
    if short == "isolated":
        others = {path.name for path in Path("/dev").glob("nvidia[0-9]*")} - {"nvidia0"}
        refused = set(answers["refused"][1].split())
        table.add("isolated-nodes", f"{what}: device nodes that open", answers["nodes"][1])
        word = f"refused: {' '.join(sorted(refused))}" if others else "this machine has one GPU"
        table.add(
            "isolated-others", f"{what}: other GPUs are closed", word, others <= refused if others else None
        )
    elif short == "default":
        refused = answers["refused"][1]
        table.add("default-nodes", f"{what}: device nodes that are refused", refused, refused == "none")
