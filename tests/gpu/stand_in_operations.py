"""The operations of cuda_operations on a machine without a GPU: the same system calls, devices that are stand-ins."""

import ctypes
import mmap
import os
import socket
import subprocess
from pathlib import Path


def _open_device() -> int:
    for node in ("nvidiactl", "nvidia-uvm", "nvidia0"):
        descriptor = os.open(f"/dev/{node}", os.O_RDWR | os.O_CLOEXEC)
    return descriptor


def hold(mib: int) -> object:
    """The stand-in's NVML counts memory for every process that has the device open."""
    return _open_device() if mib else None


def devices() -> str:
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible == "":
        return "0 GPU"
    os.close(_open_device())
    return "1 GPU"


def allocate() -> str:
    if devices() != "1 GPU":
        raise RuntimeError("no GPU is visible")
    return "opened the device"


def matmul() -> str:
    return allocate()


def triton() -> str:
    """Compile code into the unit's cache, and run it."""
    cache = Path(os.environ.get("TRITON_CACHE_DIR") or Path.home() / ".triton/cache")
    cache.mkdir(parents=True, exist_ok=True)
    (cache / "add.c").write_text("int add(int left, int right) { return left + right; }\n")
    library = cache / "add.so"
    subprocess.run(["/usr/bin/gcc", "-shared", "-fPIC", "-o", library, cache / "add.c"], check=True)
    if ctypes.CDLL(str(library)).add(2, 3) != 5:
        raise RuntimeError("the function's sum is wrong")
    return f"compiled into {cache}"


def pinned() -> str:
    memory = mmap.mmap(-1, 1 << 20)
    libc = ctypes.CDLL(None, use_errno=True)
    address = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    if libc.mlock(ctypes.c_void_p(address), ctypes.c_size_t(1 << 20)):
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return "1 MiB locked"


def nccl() -> str:
    """NCCL asks the kernel for interfaces by netlink, and connects over loopback."""
    socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE).close()
    with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname()):
        return "netlink and loopback"


def ipc() -> str:
    memory = mmap.mmap(-1, 4096)
    pid = os.fork()
    if pid == 0:
        memory[0:1] = b"x"
        os._exit(0)
    os.waitpid(pid, 0)
    if memory[0:1] != b"x":
        raise RuntimeError("the other process did not write")
    return "another process wrote"


def nvml() -> str:
    import pynvml

    pynvml.nvmlInit()
    return str(pynvml.nvmlDeviceGetName(pynvml.nvmlDeviceGetHandleByIndex(0)))


OPERATIONS = {
    "devices": devices, "allocate": allocate, "matmul": matmul, "triton": triton, "pinned": pinned,
    "nccl": nccl, "ipc": ipc, "nvml": nvml,
}  # fmt: skip
