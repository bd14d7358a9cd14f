"""What people who know systemctl type, on a real systemd."""

import re
import time
from pathlib import Path

import pytest
from pseudo_terminal import on_terminal

from live.common import RECIPES, journal, recipe, recipectl, script, show, systemctl, until

pytestmark = pytest.mark.systemd


def test_patterns_and_all_stand_for_models() -> None:
    for port, name in enumerate(("qwen-a", "qwen-b", "llama"), 18201):
        recipe(name, port=port)
    recipectl("apply", "qwen*")
    assert recipectl("start", "*").returncode == 0
    states = {name: show(name, "ActiveState") for name in ("qwen-a", "qwen-b", "llama")}
    assert states == {"qwen-a": "active", "qwen-b": "active", "llama": "inactive"}
    left_out = recipectl("stop", "[ql]*a*")
    assert "`llama` has no unit yet, and is left out" in left_out.stderr
    assert show("qwen-a", "ActiveState") == "inactive"
    assert show("qwen-b", "ActiveState") == "active"
    assert recipectl("stop", "--all").returncode == 0
    assert show("qwen-b", "ActiveState") == "inactive"
    recipectl("remove", "--all")
    nothing = recipectl("stop", "--all")
    assert (nothing.returncode, nothing.stderr) == (
        2,
        "there is no recipe and no model; see `recipectl list`\n",
    ) or ("no unit yet" in nothing.stderr and nothing.returncode == 2)


def test_enable_now_and_disable_now_are_as_systemctls() -> None:
    recipe("a")
    recipectl("apply")
    assert recipectl("enable", "--now", "a").returncode == 0
    assert (systemctl("is-enabled", "model-a"), show("a", "ActiveState")) == ("enabled", "active")
    assert recipectl("disable", "--now", "a").returncode == 0
    assert (systemctl("is-enabled", "model-a"), show("a", "ActiveState")) == ("disabled", "inactive")


def test_enable_now_of_an_on_demand_model_listens_and_loads_nothing() -> None:
    recipe("a", on_demand={})
    recipectl("apply")
    recipectl("disable", "--now", "a")
    assert systemctl("is-active", "model-a.socket") == "inactive"
    assert recipectl("enable", "--now", "a").returncode == 0
    assert (systemctl("is-active", "model-a.socket"), show("a", "ActiveState")) == ("active", "inactive")


def test_no_block_returns_while_a_model_loads() -> None:
    slow = script(Path("/opt/slow"), "import time\ntime.sleep(1000)\n")
    recipe("a", binary=slow)
    recipectl("apply")
    assert recipectl("start", "--no-block", "a").returncode == 0
    until("a", "SubState", "start-post")
    assert recipectl("stop", "--no-block", "a").returncode == 0
    until("a", "ActiveState", "inactive")


def test_a_start_that_stops_another_model_says_so_and_the_dry_run_before() -> None:
    recipe("a", port=18201)
    recipe("b", port=18202, conflicts=["a"])
    recipe("c", port=18203, requires=["a"])
    recipe("d", port=18204, requires=["c"])
    recipectl("apply")
    assert recipectl("start", "d").stdout == ""
    sentence = "model-a.service: it and model-b.service stop each other\n"
    requires = "model-c.service: it requires model-a.service\n"
    of_that = "model-d.service: it requires model-c.service\n"
    would = recipectl("start", "--dry-run", "b").stdout
    stopped = f"would stop {sentence}would stop {requires}would stop {of_that}"
    assert would == f"{stopped}would start model-b.service\n"
    assert show("a", "ActiveState") == "active"
    assert (
        recipectl("stop", "--dry-run", "a").stdout
        == f"would stop {requires}would stop {of_that}would stop model-a.service\n"
    )
    assert recipectl("start", "b").stdout == f"stopping {sentence}stopping {requires}stopping {of_that}"
    # What a start requires stops others, too.
    assert (
        "would stop model-b.service: it and model-a.service stop"
        in recipectl("start", "--dry-run", "c").stdout
    )
    assert (show("a", "ActiveState"), show("b", "ActiveState")) == ("inactive", "active")
    assert recipectl("-q", "start", "a").stdout == ""


def test_logs_takes_the_words_of_journalctl_for_several_models() -> None:
    for port, name in ((18201, "a"), (18202, "b"), (18203, "c")):
        words = f"import sys, time\nprint('<3>trouble of {name}', flush=True)\nprint('talk of {name}', flush=True)\ntime.sleep(1000)\n"
        recipe(name, port=port, binary=script(Path(f"/opt/{name}"), words))
    recipectl("apply")
    recipectl("start", "--no-block", "--all")
    for name in "abc":
        until(name, "SubState", "start-post")
    end = time.monotonic() + 30
    while any(f"talk of {name}" not in journal(f"model-{name}.service") for name in "abc"):
        assert time.monotonic() < end
        time.sleep(0.1)
    # Before systemd 254, journalctl takes the first lines with `-n` and `--since` together.
    both = recipectl("logs", "--since", "1 hour ago", "-b", "-o", "cat", "a", "b").stdout
    assert "talk of b" in recipectl("logs", "-n", "50", "-b", "-o", "cat", "a", "b").stdout
    assert all(f"{word} of {name}" in both for name in "ab" for word in ("trouble", "talk"))
    assert "of c" not in both
    urgent = recipectl("logs", "-p", "err", "-o", "cat", "a", "b", "--no-pager").stdout
    assert "trouble of a" in urgent
    assert "talk" not in urgent
    assert "talk of c" in recipectl("logs", "-g", "talk", "*").stdout
    assert "talk of a" in recipectl("logs", "-n", "5", "a").stdout


@pytest.mark.parametrize(
    "verb", ["start", "stop", "restart", "wait", "enable", "disable", "switch", "apply", "remove", "logs"]
)
def test_a_wrong_name_gets_the_same_sentence_from_every_verb(verb: str) -> None:
    recipe("qwen3-8b")
    recipectl("apply")
    wrong = recipectl(verb, "qwen3-8")
    assert (wrong.returncode, wrong.stdout) == (2, "")
    assert wrong.stderr.startswith("there is no recipe `qwen3-8` in /etc/recipectl/recipes, ")
    assert wrong.stderr.endswith("; did you mean `qwen3-8b`?\n")


@pytest.mark.parametrize("verb", ["start", "stop", "wait", "enable", "switch", "status"])
def test_a_recipe_that_was_not_applied_is_told_as_that(verb: str) -> None:
    recipe("a")
    wrong = recipectl(verb, "a")
    assert (wrong.returncode, wrong.stderr) == (2, "`a` has no unit yet; write it with `recipectl apply a`\n")


@pytest.mark.parametrize("verb", ["start", "stop", "wait", "enable", "switch", "status"])
def test_a_wrong_recipe_without_a_unit_is_told_what_is_wrong(verb: str) -> None:
    recipe("a", prot=1)
    wrong = recipectl(verb, "a")
    assert (wrong.returncode, wrong.stdout) == (2, "")
    assert "`prot` is not a key of a recipe; did you mean `port`?" in wrong.stderr
    assert "has no unit yet" not in wrong.stderr


@pytest.mark.parametrize("verb", ["apply", "list", "doctor"])
def test_a_recipe_that_is_never_read_is_told(verb: str) -> None:
    recipe("a")
    recipectl("apply")
    (RECIPES / "b.yal").write_text("model_path: m\n")
    (RECIPES / "team").mkdir()
    (RECIPES / "team/c.yaml").write_text("model_path: m\n")
    done = recipectl(verb)
    for name in ("b.yal", "team/c.yaml"):
        assert f"{RECIPES}/{name}: it is never read: " in done.stdout + done.stderr


def test_an_empty_host_is_told_in_one_line() -> None:
    RECIPES.mkdir(parents=True, exist_ok=True)
    for verb in ("apply", "status", "list", "versions"):
        done = recipectl(verb)
        assert (done.returncode, done.stdout, done.stderr.count("\n")) == (0, "", 1)
        assert done.stderr.startswith("no recipes in /etc/recipectl/recipes, ")


def test_the_last_load_time_is_kept_and_told() -> None:
    recipe("a")
    recipectl("apply")
    assert recipectl("start", "a").stderr == ""
    kept = Path("/var/lib/models/a/.last-load-sec")
    assert float(kept.read_text()) < 100
    recipectl("stop", "a")
    kept.write_text("94.2\n")
    assert recipectl("start", "a").stderr.startswith("a is loading (usually 94 s)")
    recipectl("stop", "a")
    for hostile in ("1e999\n", "\033[31m\n", "", "9" * 100):
        kept.write_text(hostile)
        assert "usually" not in recipectl("restart", "a").stderr
    kept.unlink()
    kept.symlink_to("/etc/passwd")
    assert "usually" not in recipectl("restart", "a").stderr


def test_on_a_terminal_a_load_is_one_moving_line_with_the_engines_words() -> None:
    body = (
        "import os, sys, time\n"
        "print('Loading safetensors checkpoint shards:  36% Completed | 12/33', flush=True)\n"
        "while not os.path.exists('/opt/seen-shards'): time.sleep(0.1)\n"
    )
    recipe("a", binary=script(Path("/opt/shards"), f"{body}sys.exit(1)\n"), port=18201)
    recipectl("apply")
    shown = lambda text: Path("/opt/seen-shards").touch() if "12 of 33" in text else None  # noqa: E731
    screen = on_terminal("start", "a", watch=shown)
    assert re.search(r"s  a is loading[^:]*: loading weights 12 of 33", screen)
    assert "\r\033[K" in screen
    recipectl("stop", "a")


def test_states_have_colours_on_a_terminal_alone() -> None:
    recipe("a")
    recipectl("apply")
    recipectl("start", "a")
    for verb in (("status",), ("list",), ("status", "a")):
        assert "\033[32mready" in on_terminal(*verb)
        assert "\033" not in recipectl(*verb).stdout


def test_edit_shows_what_changes_and_applies_it() -> None:
    recipe("a")
    recipectl("apply")
    editor = Path("/opt/editor")
    editor.write_text("""#!/bin/sh\nsed -i 's/18200/18277/' "$1"\n""")
    editor.chmod(0o755)
    screen = on_terminal("edit", "a", environment={"EDITOR": str(editor)}, keys="y\n")
    assert "18277" in (RECIPES / "a.json").read_text()
    assert "would write model-a.service" in screen
    assert "wrote model-a.service" in screen
    assert "18277" in Path("/etc/systemd/system/model-a.service").read_text()
    assert [path.name for path in RECIPES.iterdir()] == ["a.json"]


def test_remove_of_what_has_no_units_is_no_error_and_the_others_are_removed() -> None:
    recipe("a", port=18201)
    recipectl("apply")
    recipe("b", port=18202)
    done = recipectl("remove", "b", "a")
    assert (done.returncode, done.stdout) == (0, "removed model-a.service\n")
    assert done.stderr == "`b` has no units: there is nothing to remove\n"
    assert recipectl("remove", "--all").returncode == 0


def test_a_wrong_file_from_elsewhere_is_refused_before_it_is_copied(tmp_path: Path) -> None:
    recipe("a", port=18201)
    recipectl("apply")
    file = tmp_path / "b.json"
    file.write_text((RECIPES / "a.json").read_text())
    refused = recipectl("apply", str(file))
    assert (refused.returncode, "use port 18201" in refused.stderr) == (2, True)
    assert not (RECIPES / "b.json").exists()
    assert recipectl("diff").returncode == 0


def test_a_rotated_secret_is_a_restart_for_list_diff_status_and_apply() -> None:
    secret = Path("/etc/recipectl/secrets/key")
    secret.parent.mkdir(parents=True, exist_ok=True)
    secret.touch(0o600)
    secret.write_text('LLAMA_API_KEY="one-key-of-this-test"\n')
    recipe("a", secrets={"LLAMA_API_KEY": str(secret)})
    recipectl("apply")
    recipectl("start", "a")
    before = show("a", "MainPID")
    time.sleep(2)  # its start is known to the second
    secret.write_text('LLAMA_API_KEY="another-key-of-this-test"\n')
    assert "restart is due" in recipectl("list").stdout
    assert (
        f"{secret} was changed since it was started; run `recipectl restart a`"
        in recipectl("status", "a").stdout
    )
    assert recipectl("diff").stdout == (
        "would restart model-a.service: a file of its secrets was changed since the model started\n"
    )
    left = recipectl("apply", "--no-restart")
    assert (left.stdout, left.stderr) == (
        "",
        "left for later: model-a.service must be restarted: a file of its secrets was changed since the model started\n",
    )
    assert recipectl("apply").returncode == 0
    assert recipectl("wait", "a").returncode == 0
    assert show("a", "MainPID") != before
    assert recipectl("diff").returncode == 0


def test_a_model_that_runs_is_not_ended_for_a_path_that_is_mistyped() -> None:
    recipe("a", autostart=True)
    recipectl("apply")
    recipectl("wait", "a")
    before = show("a", "MainPID")
    recipe("a", autostart=True, model_path="/models/no-such.gguf")
    for verb in ("diff", "apply"):
        done = recipectl(verb)
        assert (done.returncode, "model-a.service runs and stays as it is" in done.stderr) == (2, True), (
            done.stderr
        )
    assert (show("a", "MainPID"), "no-such" in systemctl("cat", "model-a.service")) == (before, False)
    recipectl("stop", "a")
    assert recipectl("apply").returncode == 0  # nothing is lost: it may be created before the start


def test_list_says_when_somebody_did_what_autostart_does_not_say() -> None:
    recipe("a", autostart=True)
    recipectl("apply")
    recipectl("wait", "a")
    assert "as applied" in recipectl("list").stdout
    recipectl("stop", "a")
    assert "start is due" in recipectl("list").stdout
    assert recipectl("diff").stdout == "would start model-a.service: autostart: true\n"
    recipectl("start", "a")
    recipectl("disable", "a")
    assert "not enabled" in recipectl("list").stdout
    assert recipectl("diff").stdout == "would enable model-a.service: autostart: true\n"
