"""Whatever words a recipe holds arrive unchanged under a real systemd, or the recipe is refused."""

import json
import os
import random
import subprocess
import sys
from pathlib import Path

import corpus
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from test_engines import as_recipe

from recipectl.engines import argv as engine_argv
from recipectl.errors import UnrepresentableError
from recipectl.machine.runtime import Runtime
from recipectl.systemd import quoting

pytestmark = pytest.mark.systemd
UNITS = Path("/run/systemd/system")
DUMP = Path("/opt/dump-words")
HOSTILE = st.sampled_from(
    [*list("%$\"'\\;#=[]{}*?~ \t\n\r\v\f\0:@-+!|"), "%n", "$HOME", "\\x25", "\u2028", "\ufeff"]
)
WORD = st.lists(HOSTILE | st.characters(), max_size=12).map("".join)


@pytest.fixture(scope="module")
def dump() -> Path:
    body = "import json, os, sys\nopen(f'/run/dumped-{sys.argv[1]}', 'w').write(json.dumps([sys.argv[2:], dict(os.environ)]))\n"
    DUMP.write_text(f"#!{sys.executable} -IS\n{body}")
    DUMP.chmod(0o755)
    return DUMP


def run(
    dump: Path, cases: list[tuple[tuple[str, ...], dict[str, str]]]
) -> list[tuple[tuple[str, ...], dict[str, str]]]:
    """Each case as a unit of its own, all in one start; what the programs received."""
    for index, (words, variables) in enumerate(cases):
        lines = [f"Environment={quoting.assignment(name, value)}" for name, value in variables.items()]
        command = quoting.command_line((str(dump), str(index), *words))
        text = "\n".join(["[Service]", "Type=oneshot", *lines, f"ExecStart={command}", ""])
        (UNITS / f"words-{index}.service").write_text(text, newline="")
    subprocess.run(["systemctl", "daemon-reload"], check=True)
    subprocess.run(
        ["systemctl", "start", *(f"words-{index}.service" for index in range(len(cases)))], check=True
    )
    received = []
    for index, (_, variables) in enumerate(cases):
        argv, environ = json.loads(Path(f"/run/dumped-{index}").read_text())
        received.append((tuple(argv), {name: environ[name] for name in variables}))
    return received


def carried(word: str) -> bool:
    try:
        quoting.word(f"V={word}")
    except UnrepresentableError:
        return False
    return True


@settings(max_examples=15, deadline=None, suppress_health_check=list(HealthCheck), database=None)
@given(
    st.lists(
        st.tuples(st.lists(WORD.filter(carried), max_size=6), WORD.filter(carried)), min_size=20, max_size=20
    )
)
def test_random_words_arrive_as_they_are(dump: Path, drawn: list[tuple[list[str], str]]) -> None:
    cases = [(tuple(words), {"V": value}) for words, value in drawn]
    assert run(dump, cases) == cases


ALPHABET = [
    *"%$\"'\\;#=[]{}*?~ \t\n\r\v\f:@-+!|aZ0é",
    "%n",
    "%%",
    "$HOME",
    "${A}",
    "\\x25",
    "\u2028",
    "\ufeff",
    "😀",
    "\x1b",
    "\x85",
]


def test_many_random_words_arrive_as_they_are(dump: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """RANDOM_WORDS of them, 500 in each unit; `make storm` takes 100,000."""
    source = random.Random(int(os.environ.get("STORM_SEED", "20261126")))
    left = count = int(os.environ.get("RANDOM_WORDS", "2000"))
    while left > 0:
        words = ["".join(source.choices(ALPHABET, k=source.randrange(12))) for _ in range(min(left, 10_000))]
        words = [word for word in words if carried(word)]
        cases = [(tuple(words[at : at + 500]), {"V": words[at]}) for at in range(0, len(words), 500)]
        assert run(dump, cases) == cases
        left -= len(words)
    with capsys.disabled():
        print(f"\nquoting: {count} random words, 0 mismatches")


@corpus.NEEDED
def test_official_commands_arrive_as_they_are(dump: Path) -> None:
    rows = [json.loads(line) for line in corpus.COMMANDS.read_text().splitlines()][::10]
    runtime = Runtime("test", ("/v/bin/vllm", "serve"), positional_model=True)
    recipes = [(as_recipe(row["argv"], row["env"]), row) for row in rows]
    cases = [
        (tuple(word.text for word in engine_argv.words(recipe, runtime)[1:]), dict(recipe.env_vars))
        for recipe, _ in recipes
    ]
    assert len(cases) >= 300
    assert run(dump, cases) == [
        (tuple(row["argv"][1:]), {k: str(v) for k, v in row["env"].items()}) for row in rows
    ]
