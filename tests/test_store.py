"""Unit files on disk, and carrying out a plan."""

from pathlib import Path

import pytest

from recipectl import host
from recipectl.errors import RecipectlError
from recipectl.plan import decide
from recipectl.store import Store
from recipectl.unitfile import Unit

QWEN = Unit("model-qwen.service", "[Service]\n\n[X-Recipectl]\nRecipe=qwen\n")


class Asked:
    """Remembers what a manager was asked."""

    def __init__(self) -> None:
        self.verbs: list[str] = []

    def job(self, verb: str, unit: str) -> str:
        self.verbs.append(f"{verb} {unit}")
        return "done"

    def reload(self) -> None:
        self.verbs.append("reload")

    def disable(self, units: tuple[str, ...]) -> None:
        self.verbs.append(f"disable {' '.join(units)}")


def test_an_unchanged_host_is_left_alone(tmp_path: Path) -> None:
    store, asked = Store(tmp_path), Asked()
    store.write(QWEN)
    host.apply(decide((QWEN,), store.installed()), store, asked)
    assert asked.verbs == []


def test_a_written_unit_is_followed_by_one_reload(tmp_path: Path) -> None:
    store, asked = Store(tmp_path), Asked()
    host.apply(decide((QWEN,), {}), store, asked)
    assert (asked.verbs, store.installed()) == (["reload"], {QWEN.name: QWEN.text})


def test_a_removed_unit_is_stopped_before_its_file_goes(tmp_path: Path) -> None:
    store, asked = Store(tmp_path), Asked()
    store.write(QWEN)
    host.apply(decide((), store.installed(), remove=(QWEN.name,)), store, asked)
    assert asked.verbs == ["Stop model-qwen.service", "disable model-qwen.service", "reload"]


def test_a_file_that_is_not_ours_is_never_touched(tmp_path: Path) -> None:
    (tmp_path / QWEN.name).write_text("[Service]\nExecStart=/bin/true\n")
    with pytest.raises(RecipectlError, match="was not written by recipectl"):
        Store(tmp_path).write(QWEN)


def test_no_temporary_file_is_left(tmp_path: Path) -> None:
    Store(tmp_path).write(QWEN)
    assert [path.name for path in tmp_path.iterdir()] == [QWEN.name]
