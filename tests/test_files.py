"""A file is complete, or what it was before."""

import errno
import os
from pathlib import Path

import pytest

from gssr.files import atomic_path, atomic_write, disk_full
from tests.full_disk import FullDisk


def test_a_file_appears_at_the_end_of_the_block(tmp_path: Path) -> None:
    file = tmp_path / "new" / "a.txt"
    with atomic_write(file) as draft:
        draft.write("one")
        assert not file.exists()
    with atomic_write(file, "wb") as draft:
        draft.write(b"two")
        assert file.read_text() == "one"
    assert file.read_text() == "two"
    assert list(file.parent.iterdir()) == [file]


@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError])
def test_after_an_error_the_older_file_is_there_and_no_draft(error: type[BaseException], tmp_path: Path) -> None:
    file = tmp_path / "a.txt"
    file.write_text("old")
    with pytest.raises(error), atomic_write(file) as draft:
        draft.write("new")
        raise error
    assert file.read_text() == "old"
    assert list(tmp_path.iterdir()) == [file]


def test_a_full_disk_is_told_and_leaves_the_older_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "a.txt"
    file.write_text("old")
    FullDisk(monkeypatch)
    with pytest.raises(OSError, match=r"No space left on device: '.*a\.txt'") as stopped, atomic_write(file) as draft:
        draft.write("new")
    assert disk_full(stopped.value) is stopped.value
    assert file.read_text() == "old"
    assert list(tmp_path.iterdir()) == [file]


def test_a_full_disk_is_found_behind_other_errors() -> None:
    full = OSError(errno.ENOSPC, "No space left on device")
    outer, other = RuntimeError("writer"), ValueError("late")
    outer.__cause__, other.__context__ = full, outer
    assert disk_full(other) is full
    assert disk_full(OSError(errno.ENOENT, "gone")) is None
    assert disk_full(None) is None


def test_a_device_is_never_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "device"
    file.write_text("old")
    # No device of the machine: without the check root would lose it.
    monkeypatch.setattr(Path, "is_char_device", lambda path: path == file)
    with pytest.raises(ValueError, match="is a device; choose another name"), atomic_write(file) as draft:
        draft.write("new")
    assert file.read_text() == "old"


def test_a_folder_is_written_atomically_too(tmp_path: Path) -> None:
    folder = tmp_path / "table"
    stale = tmp_path / f"table.{os.getpid()}.tmp"
    stale.mkdir()
    with pytest.raises(ValueError), atomic_path(folder) as draft:
        draft.mkdir()
        (draft / "a").write_text("half")
        raise ValueError
    assert list(tmp_path.iterdir()) == []
    with atomic_path(folder) as draft:
        draft.mkdir()
        (draft / "a").write_text("all")
    assert [path.name for path in tmp_path.iterdir()] == ["table"] and (folder / "a").read_text() == "all"
