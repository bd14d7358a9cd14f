"""Files that are written whole, and errors that name the path that failed."""

import os
from pathlib import Path

import pytest

from recipectl import files
from recipectl.errors import RecipectlError


def test_a_file_is_written_with_its_mode(tmp_path: Path) -> None:
    files.write_whole({tmp_path / "a/b": "text"}, mode=0o600)
    assert ((tmp_path / "a/b").read_text(), (tmp_path / "a/b").stat().st_mode & 0o777) == ("text", 0o600)


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
        (13, "run it as root (sudo), or correct its owner"),
        (28, "free some space"),
        (30, "remount it read-write"),
    ],
)
def test_the_remedy_is_that_of_the_failure(number: int, remedy: str) -> None:
    with pytest.raises(RecipectlError) as caught, files.failures_named("removed", Path("/x")):
        raise OSError(number, os.strerror(number), "/x/y")
    assert str(caught.value) == f"/x/y could not be removed: {os.strerror(number)}; {remedy}"
