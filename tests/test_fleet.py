"""fleet check: the recipes of many hosts of a real Ansible inventory, read by real ansible-inventory."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from recipectl.fleet import check as checks
from recipectl.fleet.inventory import FleetHost
from recipectl.fleet.remote import HostModels, Model
from recipectl.fleet.versions import compare

ROOT = Path(__file__).parents[1]
ANSIBLE = ROOT / ".build/ansible/bin"


def write(folder: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return folder


def check(folder: Path, *words: str, inventory: str = "inventory") -> subprocess.CompletedProcess[str]:
    return fleet(folder, "check", *words, inventory=inventory)


def fleet(
    folder: Path, verb: str, *words: str, inventory: str = "inventory", path: str = "/usr/bin"
) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "recipectl", "fleet", verb, "-i", inventory, *words]
    folders = f"{path}:{ANSIBLE}:{os.environ['PATH']}"
    environment = os.environ | {"PATH": folders, "PYTHONPATH": str(ROOT / "agent")}
    return subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, check=False, timeout=300
    )


def hosts(folder: Path, own: bool = False) -> list[FleetHost]:
    """gpu1 and gpu2; with `own`, gpu2 has the recipes of own/."""
    host_file = folder / "host.yaml"
    return [
        FleetHost(name, f"10.0.0.{index}", (folder / recipes,), host_file if host_file.exists() else None, {})
        for index, name, recipes in (
            (1, "gpu1", "recipes"),
            (2, "gpu2", "own" if own else "recipes"),
        )
    ]


PAIR = "[gpu]\ngpu1.example.org ansible_host=10.0.0.1\ngpu2.example.org ansible_host=10.0.0.2\n"
BIG = """model_path: org/big
tensor_parallel_size: 2
port: 8001
nodes: {hosts: [gpu1, gpu2], interface: eth1}
"""
SMALL = "model_path: org/small\nport: 8000\n"


def test_a_fleet_without_a_fault_says_nothing(tmp_path: Path) -> None:
    write(tmp_path, {"inventory": PAIR, "recipes/big.yaml": BIG, "recipes/small.yaml": SMALL})
    result = check(tmp_path)
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")


FAULTS: dict[str, tuple[dict[str, str], list[str]]] = {
    "a typo on all hosts": (
        {"recipes/small.yaml": "model_path: m\nprot: 1\n"},
        ["recipes/small.yaml:2:1: `prot` is not a key of a recipe; did you mean `port`? (gpu1, gpu2)"],
    ),
    "two models at one port": (
        {"recipes/other.yaml": "model_path: m\nport: 8000\n"},
        [
            "recipes/other.yaml:2:7: `other` and `small` both use port 8000 and could run at once; change one `port:` (gpu1, gpu2)",
            "recipes/small.yaml:2:7: `small` and `other` both use port 8000 and could run at once; change one `port:` (gpu1, gpu2)",
        ],
    ),
    "a host of a set that the inventory lacks": (
        {"recipes/big.yaml": BIG.replace("gpu2", "gpu9")},
        [
            "recipes/big.yaml:4:16: `nodes.hosts` has gpu1, gpu9, and this host is called `10.0.0.2` or `gpu2`; add it, or remove the recipe here (gpu2)",
            "recipes/big.yaml:4:16: `nodes.hosts` names gpu9, which is not in the inventory; add it, or correct the name (gpu1)",
        ],
    ),
    "a set whose recipes differ": (
        {"own/big.yaml": BIG.replace("size: 2", "size: 4")},
        ["own/big.yaml:4:16: `big` differs from recipes/big.yaml of gpu1; all hosts of a set need the same recipe (gpu2)",
         "recipes/big.yaml:4:16: `big` differs from own/big.yaml of gpu2; all hosts of a set need the same recipe (gpu1)"],
    ),
    "a set with two pins": (
        {"recipes/big.yaml": BIG + "engine_version: ==0.33.0\n", "own/big.yaml": BIG + "engine_version: ==0.32.0\n"},
        ["own/big.yaml:4:16: `big` pins vllm ==0.32.0, and on gpu1 vllm ==0.33.0; a set needs one version of the engine (gpu2)",
         "recipes/big.yaml:4:16: `big` pins vllm ==0.33.0, and on gpu2 vllm ==0.32.0; a set needs one version of the engine (gpu1)"],
    ),
    "a member without its recipe": (
        {"own/tiny.yaml": "model_path: org/tiny\n"},
        ["recipes/big.yaml:4:16: `big` needs gpu2, which has no right recipe `big`; give it the same file (gpu1)"],
    ),
    "a size that the hosts cannot share": (
        {"recipes/big.yaml": BIG.replace("size: 2", "size: 3")},
        ["recipes/big.yaml:4:16: `nodes`: DP*TP*PP is 3, which 2 hosts cannot share evenly; change the sizes or the hosts (gpu1, gpu2)"],
    ),
    "a GPU that a host does not have": (
        {"host.yaml": "gpus: [GPU-11111111-1111-1111-1111-111111111111]\n", "recipes/small.yaml": SMALL + "gpus: [1]\n"},
        ["recipes/small.yaml:3:7: `gpus` has 1, and the host file lists only 0 to 0; correct one of them (gpu1, gpu2)"],
    ),
    "one name with two meanings": (
        {"own/big.yaml": BIG, "own/small2.yaml": "model_path: org/other\nserved_model_name: org/small\n"},
        ["own/small2.yaml:2:20: `org/small` is served by recipes/small.yaml:1 on gpu1 too, with `org/small` where `org/other` is here; make them the same, or give another `served_model_name:` (gpu2)"],
    ),
    "a wrong host file": (
        {"host.yaml": "hardenin: off\n"},
        ["host.yaml:1:1: `hardenin` is not a key of the host file; did you mean `hardening`? (gpu1, gpu2)"],
    ),
}  # fmt: skip


@pytest.mark.parametrize(("files", "lines"), FAULTS.values(), ids=[name.replace(" ", "-") for name in FAULTS])
def test_a_fault_of_a_fleet_is_told_with_its_place_and_hosts(
    files: dict[str, str], lines: list[str], tmp_path: Path
) -> None:
    site = {"recipes/big.yaml": BIG, "recipes/small.yaml": SMALL}
    folder = write(tmp_path, site | files)
    findings = checks.check(hosts(folder, own=(folder / "own").exists())).hosts
    told = [
        f"{problem} ({', '.join(names)})".replace(f"{folder}/", "") for problem, names in findings.items()
    ]
    assert sorted(told) == sorted(lines)


def test_group_vars_and_a_folder_of_inventories_count(tmp_path: Path) -> None:
    files = {
        "hosts/a.yml": "gpu: {hosts: {gpu1: {}, gpu2: {}}}\n",
        "hosts/group_vars/gpu.yml": "recipectl_recipes: [common, more/x.yaml]\nrecipectl_host_file: gpu.yaml\n",
        "common/small.yaml": "model_path: ${folder}/m\n",
        "more/x.yaml": "model_path: m\nprot: 1\n",
        "gpu.yaml": "vars: {folder: /models}\n",
    }
    result = check(write(tmp_path, files), "--json", inventory="hosts")
    (row,) = json.loads(result.stdout)
    assert (row["key"], row["hosts"], result.returncode) == ("prot", ["gpu1", "gpu2"], 2)


WRONG = {
    "no such file": ({}, "there is no inventory inventory; give its file or folder"),
    "no such folder": (
        {"inventory": "gpu1 recipectl_recipes=nowhere\n"},
        "`recipectl_recipes` of gpu1 is nowhere, which is not in {folder}; correct it",
    ),
    "a template": (
        {"inventory": "gpu1 recipectl_recipes={{x}}\n"},
        "`recipectl_recipes` of gpu1 is a template, which only a playbook fills in; give a path",
    ),
}


@pytest.mark.parametrize(("files", "sentence"), WRONG.values(), ids=WRONG.keys())
def test_an_inventory_that_cannot_be_used_is_told(
    files: dict[str, str], sentence: str, tmp_path: Path
) -> None:
    result = check(write(tmp_path, files))
    assert (result.returncode, result.stderr.strip()) == (2, sentence.replace("{folder}", str(tmp_path)))


def test_an_inventory_that_ansible_cannot_parse_is_no_empty_fleet(tmp_path: Path) -> None:
    result = check(write(tmp_path, {"inventory": "[gpu\ngpu1 = = =\n"}))
    assert result.returncode == 2
    assert "Ansible cannot read inventory" in result.stderr


def test_a_machine_without_ansible_is_told_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    (tmp_path / "inventory").write_text("gpu1\n")
    command = [sys.executable, "-m", "recipectl", "fleet", "check", "-i", str(tmp_path / "inventory")]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (result.returncode, "install ansible-core" in result.stderr) == (1, True)


def model(**fields: object) -> Model:
    """A model as its host tells it."""
    lock = {
        "interpreter_sha256": "0123456789",
        "python_version": "3.12",
        "distributions": {"vllm": {"version": "0.32.0", "record": "aaaaaaaaaa"}},
    }
    usual = {
        "name": "a",
        "engine": "vllm",
        "recipe": "0.32.0",
        "lock": lock,
        "driver": "580",
        "gpu_models": ["H100"],
        "differences": [],
    }
    return Model.model_validate(usual | fields)


@pytest.mark.parametrize("name", ["x\ngood: a: the process runs /x", "a; rm", "a" * 101, "a\n", ""])
def test_the_name_of_a_hosts_model_begins_no_line(name: str) -> None:
    assert model(name="a.b-1").name == "a.b-1"
    with pytest.raises(ValueError, match="name"):
        model(name=name)


def deviations(*models: Model) -> list[str]:
    """What is told of hosts gpu1, gpu2 and so on, each with one model."""
    answers = [HostModels(f"gpu{index}", (each,)) for index, each in enumerate(models, 1)]
    return [str(deviation) for deviation in compare(answers).between]


def test_each_part_that_differs_is_told_with_its_hosts() -> None:
    other = model(driver="570", gpu_models=["H100", "H100"])
    assert deviations(model(), model(), other) == [
        "a: the driver is 570 on gpu3; 580 on 2 others",
        "a: the GPU is 2 x H100 on gpu3; 1 x H100 on 2 others",
    ]


def test_a_host_whose_recipe_is_wrong_is_not_compared() -> None:
    assert deviations(model(), model(engine=None, lock=None, driver=None, gpu_models=[])) == []


def test_a_name_of_the_inventory_is_no_option_of_ssh(tmp_path: Path) -> None:
    write(
        tmp_path,
        {"inventory": f"gpu1 ansible_host='-oProxyCommand=touch {tmp_path}/planted' ansible_port=1\n"},
    )
    result = fleet(tmp_path, "versions")
    assert result.returncode == 1
    assert "gpu1: no answer: " in result.stderr
    assert not (tmp_path / "planted").exists()


def answering(folder: Path, program: str, inventory: str = "gpu1 ansible_connection=local\n") -> str:
    """A folder for PATH, with a `recipectl` that answers as a host would."""
    write(folder, {"inventory": inventory, "bin/recipectl": program})
    (folder / "bin/recipectl").chmod(0o755)
    return str(folder / "bin")


def test_a_host_that_answers_something_else_is_a_row(tmp_path: Path) -> None:
    result = fleet(tmp_path, "versions", path=answering(tmp_path, "#!/bin/sh\necho '[{}]'\n"))
    assert result.returncode == 1
    assert (
        result.stderr
        == "gpu1: no answer: its answer is not that of this release; install the same recipectl there\n"
    )


def test_a_host_without_recipes_is_a_row(tmp_path: Path) -> None:
    result = fleet(tmp_path, "versions", path=answering(tmp_path, "#!/bin/sh\necho '[]'\n"))
    assert (result.returncode, result.stdout.split()[6:]) == (0, ["-", "no", "recipes", "gpu1"])


def test_a_host_cannot_print_lines_about_another(tmp_path: Path) -> None:
    forged = {"where": "unit", "what": "x\na: the driver is 1 on gpu2", "cause": "\x1b[2J", "remedy": "z"}
    answer = model(differences=[forged]).model_dump(by_alias=True) | {"differences": [forged]}
    program = f"#!/bin/sh\ncat <<'END'\n{json.dumps([answer])}\nEND\n"
    result = fleet(tmp_path, "versions", path=answering(tmp_path, program))
    assert result.returncode == 3
    assert [line for line in result.stdout.splitlines() if line.startswith("a: ")] == []
    assert "\x1b" not in result.stdout
    driver = answer | {"driver": "580\na  vllm"}
    result = fleet(
        tmp_path,
        "versions",
        path=answering(tmp_path, program.replace(json.dumps([answer]), json.dumps([driver]))),
    )
    assert "gpu1: no answer: its answer is not that of this release" in result.stderr


@pytest.mark.parametrize(
    "variable",
    ["ansible_host='{{ ip }}'", "ansible_connection=docker", "ansible_become=true ansible_become_user=vllm"],
)
def test_what_ssh_cannot_take_from_an_inventory_is_refused(tmp_path: Path, variable: str) -> None:
    write(tmp_path, {"inventory": f"gpu1 {variable}\n"})
    result = fleet(tmp_path, "versions")
    assert result.returncode == 2
    assert " of gpu1 is " in result.stderr


def test_an_interrupt_ends_the_questions_and_leaves_nobody_behind(tmp_path: Path) -> None:
    hosts = "".join(f"gpu{index} ansible_connection=local\n" for index in range(70))
    slow = f"#!/bin/sh\necho $$ >>{tmp_path}/asked\nexec sleep 1000\n"
    path = answering(tmp_path, slow, hosts)
    words = [sys.executable, "-m", "recipectl", "fleet", "versions", "-i", "inventory"]
    environment = os.environ | {
        "PATH": f"{path}:{ANSIBLE}:{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT / "agent"),
    }
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell ignores it in the background
    process = subprocess.Popen(words, cwd=tmp_path, env=environment, stderr=subprocess.DEVNULL)
    asked = tmp_path / "asked"
    while not asked.exists() or len(asked.read_text().split()) < 64:
        time.sleep(0.1)
    for _ in range(
        4
    ):  # Python loses an interrupt that comes within a callback; a person presses the keys again
        process.send_signal(signal.SIGINT)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(timeout=30)
            break
    assert process.returncode == 130
    pids = asked.read_text().split()
    assert len(pids) == 64
    end = time.monotonic() + 30  # a process that is killed ends when it gets a processor
    while left := [pid for pid in pids if b"1000" in commandline(pid)]:
        assert time.monotonic() < end, left
        time.sleep(0.1)


def commandline(pid: str) -> bytes:
    """What a process runs; nothing when it has ended."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except FileNotFoundError:
        return b""
