"""Files that are whole or absent."""

from pathlib import Path

import pytest

from anglekit.errors import RunError
from anglekit.runtime.files import write_whole


def test_text_and_bytes_arrive_as_they_are_in_a_folder_that_is_made(tmp_path):
    target = tmp_path / "new" / "a.txt"
    write_whole(target, "ä\n<b>\r\n")
    assert target.read_bytes() == "ä\n<b>\r\n".encode()
    write_whole(target, b"\x00\xff")
    assert target.read_bytes() == b"\x00\xff"
    assert [path.name for path in target.parent.iterdir()] == ["a.txt"]


def test_the_rights_are_those_of_any_new_file(tmp_path):
    (tmp_path / "plain").write_text("x")
    write_whole(tmp_path / "ours", "x")
    assert (tmp_path / "ours").stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_a_write_that_fails_leaves_what_was_there_and_nothing_else(tmp_path, monkeypatch):
    target = tmp_path / "a.txt"
    write_whole(target, "old")

    def full(self: Path, _to: Path) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(RunError, match=r"cannot write .*a\.txt: No space left on device"):
        write_whole(target, "new")
    assert target.read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["a.txt"]


def test_a_folder_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(RunError, match=r"cannot write beside .*file/a\.txt"):
        write_whole(tmp_path / "file" / "a.txt", "x")
