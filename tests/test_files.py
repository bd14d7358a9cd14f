"""Files that are written whole, and errors that name the path that failed."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from recipectl import files
from recipectl.errors import RecipectlError
from recipectl.regular import open_regular


def test_a_file_is_written_with_its_mode(tmp_path: Path) -> None:
    files.write_whole({tmp_path / "a/b": "text"}, mode=0o600)
    assert ((tmp_path / "a/b").read_text(), (tmp_path / "a/b").stat().st_mode & 0o777) == ("text", 0o600)


def test_only_a_regular_file_is_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Opening a device acts: a terminal is made, or a watchdog armed."""
    opened: list[int] = []
    real_open = os.open

    def open_noted(path: str, flags: int, *rest: int) -> int:
        opened.append(flags)
        return real_open(path, flags, *rest)

    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "file").write_text("text")
    (tmp_path / "link").symlink_to("file")
    monkeypatch.setattr(os, "open", open_noted)
    for path in (tmp_path / "pipe", Path("/dev/null"), tmp_path, tmp_path / "none"):
        with pytest.raises(OSError, match=str(path)):
            open_regular(path)
    with pytest.raises(OSError, match="not a regular file"):
        open_regular(tmp_path / "link", follow=False)
    assert [flags for flags in opened if not flags & os.O_PATH] == []
    with open_regular(tmp_path / "link") as file:
        assert file.read() == b"text"


@pytest.mark.parametrize(
    ("mode", "owner", "is_read"), [(0o600, 0, True), (0o666, 0, False), (0o620, 0, False), (0o600, 1, False)]
)
def test_a_cache_that_others_can_write_is_none(tmp_path: Path, mode: int, owner: int, is_read: bool) -> None:
    file = tmp_path / "cache"
    file.write_text("text")
    file.chmod(mode)
    os.chown(file, owner or os.geteuid(), -1)
    if is_read:
        assert files.read_own(file) == b"text"
    else:
        with pytest.raises(OSError, match="others can write it"):
            files.read_own(file)


def test_whatever_the_umask_is_nobody_else_can_write_what_a_verb_makes(tmp_path: Path) -> None:
    folder = tmp_path / "CONFIG/recipectl/recipes"
    folder.mkdir(parents=True)
    (folder / "a.yaml").write_text("backend: llamacpp\nbinary: /bin/true\nmodel_path: m\n")
    names = ("CONFIG", "CACHE", "DATA", "STATE")
    environment = os.environ | {f"XDG_{name}_HOME": str(tmp_path / name) for name in names}
    words = [sys.executable, "-B", "-m", "recipectl", "--user", "compile"]
    done = subprocess.run(words, env=environment, umask=0, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    made = [*(tmp_path / "CACHE").rglob("*")]
    assert made, done.stderr
    assert [path for path in made if path.stat().st_mode & 0o022] == []


def test_many_files_are_written_for_good(tmp_path: Path) -> None:
    contents = {tmp_path / f"{index}": str(index) for index in range(25)}
    files.write_whole(contents, durable=True)
    assert {path: path.read_text() for path in tmp_path.iterdir()} == contents


def test_a_file_in_the_place_of_a_folder_is_named(tmp_path: Path) -> None:
    (tmp_path / "afile").write_text("")
    with pytest.raises(RecipectlError) as caught:
        files.write_whole({tmp_path / "afile/sub/sub/a.service": "text"})
    folder = tmp_path / "afile/sub/sub"
    what = f"{folder} could not be written: {tmp_path}/afile is not a folder"
    assert str(caught.value) == f"{what}; move it away, or choose another path"


def test_a_failure_changes_no_file_and_leaves_none_behind(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("old")
    (tmp_path / "b").mkdir()  # no file can replace it
    with pytest.raises(RecipectlError, match=rf"{tmp_path}/.*b.* could not be written: Is a directory"):
        files.write_whole({tmp_path / "b": "new", tmp_path / "a": "new"})
    assert ((tmp_path / "a").read_text(), sorted(path.name for path in tmp_path.iterdir())) == (
        "old",
        ["a", "b"],
    )


@pytest.mark.parametrize(
    ("number", "remedy"),
    [
        (13, "correct its owner or its mode"),
        (28, "free some space"),
        (30, "remount it read-write"),
    ],
)
def test_the_remedy_is_that_of_the_failure(number: int, remedy: str) -> None:
    with pytest.raises(RecipectlError) as caught, files.failures_named("removed", Path("/x")):
        raise OSError(number, os.strerror(number), "/x/y")
    assert str(caught.value) == f"/x/y could not be removed: {os.strerror(number)}; {remedy}"
