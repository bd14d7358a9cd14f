"""Stand-ins for a GPU, in a throwaway system: device nodes, a PCI card, NVML's library."""

import subprocess
from pathlib import Path

HERE = Path(__file__).parent
# Device numbers that everybody may open and that are not in DevicePolicy=closed: fuse, loop-control, tun, autofs.
NODES = {"nvidiactl": "229", "nvidia-uvm": "237", "nvidia0": "200", "nvidia1": "235"}


def install(linger_ms: str | None) -> None:
    """Only in a throwaway system: this changes /dev and /sys."""
    if not Path("/run/throwaway").is_dir():
        raise SystemExit("gpu-proof: stand-ins are for a throwaway system alone")
    for node, minor in NODES.items():
        subprocess.run(["mknod", "-m", "666", f"/dev/{node}", "c", "10", minor], check=True)
    cards = Path("/sys/bus/pci/devices")
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", str(cards)], check=True)
    (cards / "0000:01:00.0").mkdir()
    (cards / "0000:01:00.0/vendor").write_text("0x10de\n")
    (cards / "0000:01:00.0/class").write_text("0x030200\n")  # Gloo reads it of every card
    library = "/usr/local/lib/libnvidia-ml.so.1"
    subprocess.run(
        ["gcc", "-shared", "-fPIC", "-O1", "-o", library, str(HERE / "stand_in_nvml.c")], check=True
    )
    subprocess.run(["ldconfig"], check=True)
    if linger_ms:
        Path("/run/gpu-proof-linger").write_text(linger_ms)
