"""`fleet check` of 1,000 hosts with 10 recipes each, all different files, beside `ansible-inventory` alone."""

import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parents[1]
HOSTS, RECIPES = 1000, 10


def write(folder: Path) -> None:
    """Each host has recipes of its own; hosts in pairs are a set."""
    lines = []
    for number in range(HOSTS):
        own = folder / f"site/gpu{number}"
        own.mkdir(parents=True)
        lines.append(f"gpu{number} recipectl_recipes=site/gpu{number}")
        for index in range(RECIPES - 1):
            text = f"model_path: org/m{index}\nport: {9000 + index}\ngpus: [{index % 8}]\ngpu_sharing: free\n"
            (own / f"m{index}.yaml").write_text(
                f"{text}max_model_len: 32768\nextra_args: {{enforce_eager: true}}\n"
            )
        first = number // 2 * 2
        pair = f"nodes: {{hosts: [gpu{first}, gpu{first + 1}], interface: eth1}}\n"
        (own / "big.yaml").write_text(f"model_path: org/big\ntensor_parallel_size: 16\nport: 8800\n{pair}")
    (folder / "inventory").write_text("\n".join(lines) + "\n")


def run(folder: Path, *words: str) -> tuple[float, float]:
    """Seconds, and the largest process so far in MiB."""
    begin = time.perf_counter()
    environment = os.environ | {"PATH": f"{ROOT}/.build/ansible/bin:{os.environ['PATH']}"}
    subprocess.run(words, cwd=folder, env=environment, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - begin, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write(folder)
        alone = run(folder, "ansible-inventory", "-i", "inventory", "--list")
        checked = run(folder, sys.executable, "-m", "recipectl", "fleet", "check", "-i", "inventory")
    print(f"ansible-inventory --list of {HOSTS} hosts   {alone[0]:6.1f} s  {alone[1]:5.0f} MiB")
    print(f"recipectl fleet check, {RECIPES} recipes each  {checked[0]:6.1f} s  {checked[1]:5.0f} MiB")


if __name__ == "__main__":
    main()
