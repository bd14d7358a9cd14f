"""What inference engines do on a GPU, with PyTorch: each function is one operation, and raises when it fails."""

import os
import sys
from pathlib import Path

import torch


def hold(mib: int) -> object:
    """Memory of the GPU that is kept until the process ends."""
    if not mib:
        return None
    kept = torch.empty(mib << 20, dtype=torch.uint8, device="cuda")
    kept.fill_(1)
    torch.cuda.synchronize()
    return kept


def devices() -> str:
    return f"{torch.cuda.device_count()} GPU"


def allocate() -> str:
    tensor = torch.empty(1 << 30, dtype=torch.uint8, device="cuda")
    tensor.fill_(7)
    if int(tensor[-1]) != 7:
        raise RuntimeError("the memory does not hold what was written")
    return "1 GiB"


def matmul() -> str:
    left, right = (torch.randn(1024, 1024, device="cuda") for _ in range(2))
    exact = left.double() @ right.double()
    error = float(((left.bfloat16() @ right.bfloat16()).double() - exact).norm() / exact.norm())
    if not error < 0.01:
        raise RuntimeError(f"the product is wrong by {error:.3g}")
    return f"1024 x 1024, bfloat16, error {error:.1e}"


def triton() -> str:
    """A kernel that Triton compiles into the unit's own cache."""
    from triton_kernel import add

    left, right = (torch.randn(4096, device="cuda") for _ in range(2))
    if not torch.allclose(add(left, right), left + right):
        raise RuntimeError("the kernel's sum is wrong")
    cache = Path(os.environ.get("TRITON_CACHE_DIR") or Path.home() / ".triton/cache")
    compiled = [path for path in cache.rglob("*.cubin") if path.stat().st_uid == os.getuid()]
    if not compiled:
        raise RuntimeError(f"no kernel of this user is in {cache}")
    return f"compiled into {cache}"


def pinned() -> str:
    source = torch.randint(0, 255, (256 << 20,), dtype=torch.uint8).pin_memory()
    target = source.to("cuda", non_blocking=True)
    torch.cuda.synchronize()
    if not torch.equal(target[-4096:].cpu(), source[-4096:]):
        raise RuntimeError("the copy differs")
    return "256 MiB"


def nccl() -> str:
    """NCCL with one rank, over a TCP store as engines use it."""
    import torch.distributed as distributed

    store = distributed.TCPStore("127.0.0.1", 0, is_master=True)
    distributed.init_process_group("nccl", store=store, rank=0, world_size=1)
    try:
        tensor = torch.full((1024,), 3.0, device="cuda")
        distributed.all_reduce(tensor)
        torch.cuda.synchronize()
        if float(tensor[0]) != 3.0:
            raise RuntimeError("the sum is wrong")
    finally:
        distributed.destroy_process_group()
    return ".".join(str(part) for part in torch.cuda.nccl.version())


def _add_one(queue: object, done: object) -> None:
    tensor = queue.get()  # type: ignore[attr-defined]
    tensor += 1
    torch.cuda.synchronize()
    done.put(True)  # type: ignore[attr-defined]


def ipc() -> str:
    """A second process of the unit writes to memory of this one, by CUDA IPC."""
    import torch.multiprocessing as multiprocessing

    main = sys.modules["__main__"]
    spec, file = main.__spec__, main.__file__
    main.__spec__ = main.__file__ = None  # type: ignore[assignment]  # the child must not run the server again
    context = multiprocessing.get_context("spawn")
    queue, done = context.Queue(), context.Queue()
    child = context.Process(target=_add_one, args=(queue, done))
    try:
        child.start()
    finally:
        main.__spec__, main.__file__ = spec, file
    tensor = torch.zeros(1024, device="cuda")
    queue.put(tensor)
    done.get(timeout=60)
    child.join(timeout=60)
    if float(tensor[0]) != 1.0:
        raise RuntimeError("the other process did not write")
    return "another process wrote"


def nvml() -> str:
    import pynvml

    pynvml.nvmlInit()
    handle = pynvml.nvmlDeviceGetHandleByIndex(0)
    used = pynvml.nvmlDeviceGetMemoryInfo(handle).used >> 20
    return f"{pynvml.nvmlDeviceGetName(handle)}, {used} MiB used"


OPERATIONS = {
    "devices": devices, "allocate": allocate, "matmul": matmul, "triton": triton, "pinned": pinned,
    "nccl": nccl, "ipc": ipc, "nvml": nvml,
}  # fmt: skip
