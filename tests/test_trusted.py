"""Whose files recipectl reads, and what it reads of them."""

import os
import re
from pathlib import Path

import hostile
import pytest

from recipectl.files import MAX_BYTES, read_bounded
from recipectl.recipe.trusted import Trust, content_for

OWN = frozenset({os.geteuid(), 0})
pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files to others")


def fault_of(path: Path, owners: frozenset[int]) -> str | None:
    return Trust(owners).fault(path)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    folder = tmp_path / "recipes"
    folder.mkdir()
    path = folder / "a.yaml"
    path.write_text("model_path: m\n")
    return path


def test_a_file_that_only_root_can_change_is_read(file: Path) -> None:
    assert content_for(OWN)(file) == b"model_path: m\n"
    file.chmod(0o444)
    assert fault_of(file, OWN) is None


@pytest.mark.parametrize(("mode", "fault"), [
    (0o646, "everybody can change {file} (mode 0646)"),
    (0o660, "group daemon can change {file} (mode 0660)"),
])  # fmt: skip
def test_a_file_that_others_can_change_is_refused_with_its_mode(file: Path, mode: int, fault: str) -> None:
    os.chown(file, 0, 1)
    file.chmod(mode)
    assert fault_of(file, OWN) == fault.format(file=file)
    with pytest.raises(PermissionError, match=re.escape(fault.format(file=file))):
        content_for(OWN)(file)
    assert content_for(None)(file)  # a caller who can apply nothing may look


def test_a_file_of_another_user_is_refused(file: Path) -> None:
    os.chown(file, 1, 0)
    assert fault_of(file, OWN) == f"user daemon can change {file} (mode 0644)"
    assert fault_of(file, frozenset({0, 1})) is None


def test_a_folder_above_counts_as_well(file: Path) -> None:
    file.parent.chmod(0o777)
    assert fault_of(file, OWN) == f"everybody can change {file.parent} (mode 0777)"
    file.parent.chmod(0o1777)  # as /tmp: nobody can replace what belongs to root
    assert fault_of(file, OWN) is None
    os.chown(file, 1, 0)
    assert "user daemon can change" in str(fault_of(file, OWN))
    os.chown(file, 0, 0)
    os.chown(file.parent.parent, 1, 0)
    assert fault_of(file, OWN) == f"user daemon can change {file.parent.parent} (mode 0700)"


def test_a_group_of_root_alone_is_no_other(file: Path) -> None:
    file.chmod(0o664)
    assert fault_of(file, OWN) is None


def test_a_link_is_checked_and_what_is_behind_it(file: Path, tmp_path: Path) -> None:
    link = tmp_path / "b.yaml"
    link.symlink_to(file)
    assert content_for(OWN)(link) == b"model_path: m\n"
    file.chmod(0o666)
    assert "everybody can change" in str(fault_of(link, OWN))
    file.chmod(0o644)
    os.lchown(link, 1, 1)
    assert f"user daemon can change {link}" in str(fault_of(link, OWN))


def test_a_folder_that_is_a_link_is_checked_too(file: Path, tmp_path: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to(file.parent)
    assert fault_of(link / "a.yaml", OWN) is None
    file.parent.chmod(0o777)
    assert "everybody can change" in str(fault_of(link / "a.yaml", OWN))


def test_what_is_missing_is_told_by_reading(tmp_path: Path) -> None:
    assert fault_of(tmp_path / "none", OWN) is None
    with pytest.raises(FileNotFoundError):
        content_for(OWN)(tmp_path / "none")


def test_only_regular_files_of_a_mib_are_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", Path("/dev/zero"), tmp_path):
        with pytest.raises(OSError, match=r"(Is a directory|it is not a regular file)"):
            read_bounded(path)
    large = tmp_path / "large"
    large.write_bytes(b"x" * MAX_BYTES)
    assert len(read_bounded(large)) == MAX_BYTES
    with large.open("ab") as opened:
        opened.write(b"x")
    with pytest.raises(OSError, match=r"larger than 1048576 bytes"):
        read_bounded(large)


def test_no_hostile_file_is_a_traceback() -> None:
    assert hostile.slowest(60, hostile.SEED)[0] > 0
