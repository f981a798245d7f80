"""Files and directories that are whole or absent, and documents of a known form."""

import json
import re
from dataclasses import asdict, dataclass, field
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from anglekit.errors import InputError, RunError
from anglekit.runtime.files import (
    half_written,
    names_told_apart,
    read_document,
    whole_directory,
    write_json,
    write_whole,
)


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


@dataclass
class Arm:
    name: str
    seed: int


@dataclass
class Grid:
    arms: list[Arm]
    notes: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.arms:
            raise InputError("there is no arm", "add one", setting="arms")


def test_a_document_is_read_as_what_was_written(tmp_path):
    file = tmp_path / "grid.json"
    grid = Grid([Arm("ä", 1)], {"loss": 0.5})
    write_json(file, grid)
    assert file.read_bytes() == (json.dumps(asdict(grid), indent=2, ensure_ascii=False) + "\n").encode()
    assert read_document(file, Grid, "begin again") == grid
    with pytest.raises(FileNotFoundError):
        read_document(tmp_path / "none.json", Grid, "begin again")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"arms": [{"name": "a", "seed": "1"}]}, "is damaged (arms[0].seed: expected int, got str); begin again"),
        ({"arms": [{"name": "a"}]}, "is damaged (arms[0]: missing required field seed); begin again"),
        ({}, "is damaged (missing required field arms); begin again"),
        ({"arms": [], "notes": {"x": True}}, "is damaged (notes[...]: expected float, got bool); begin again"),
        ({"arms": []}, "grid.json: there is no arm; add one"),
    ],
)
def test_a_document_of_another_form_is_one_line_that_names_the_place(tmp_path, content, message):
    file = tmp_path / "grid.json"
    write_json(file, content)
    with pytest.raises(InputError, match=re.escape(message)):
        read_document(file, Grid, "begin again")


def test_a_directory_appears_whole(tmp_path):
    target = tmp_path / "new" / "out"
    with whole_directory(target, "a") as scratch:
        (scratch / "a").write_text("1")
        assert not target.exists()
    (tmp_path / "plain").mkdir()
    assert target.stat().st_mode == (tmp_path / "plain").stat().st_mode
    with pytest.raises(InputError, match="out exists; choose another"), whole_directory(target, "a"):
        pass
    with whole_directory(target, "a", overwrite=True, scratch=tmp_path / "here") as scratch:
        assert scratch == tmp_path / "here"
        (scratch / "b").write_text("2")
    assert [path.name for path in target.iterdir()] == ["b"]
    assert [path.name for path in target.parent.iterdir()] == ["out"]


@pytest.mark.parametrize(("raised", "shown"), [(KeyError("x"), KeyError), (OSError(28, "No space left"), RunError)])
def test_a_directory_that_fails_leaves_what_was_there_and_nothing_else(tmp_path, raised, shown):
    target = tmp_path / "out"
    write_whole(target / "a", "old")
    with pytest.raises(shown), whole_directory(target, "a", overwrite=True):
        raise raised
    assert (target / "a").read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_what_a_killed_process_was_writing_is_found(tmp_path):
    for name in (".a.json-x7_kq2p0", "a.json.partial", ".b-00000000", ".b-00000000-old", ".c.json-x7_kq2p0", "a.json"):
        (tmp_path / name).touch()
    found = half_written(tmp_path, "a.json", "b")
    assert [path.name for path in found] == [".a.json-x7_kq2p0", ".b-00000000", ".b-00000000-old", "a.json.partial"]
    assert half_written(tmp_path / "none", "a.json") == []


def test_directories_of_one_name_are_called_with_those_above():
    places = [Path("/r/a/run"), Path("/r/b/run"), Path("/r/b/other"), Path("/q/b/run"), Path("/r/a/run")]
    assert names_told_apart(places) == ["a/run", "r/b/run", "other", "q/b/run", "a/run"]
    assert names_told_apart([Path("/a/run"), Path("/run")]) == ["a/run", "/run"]


@settings(max_examples=30)
@given(st.lists(st.lists(st.sampled_from("ab"), min_size=1, max_size=4), max_size=5))
def test_names_are_as_many_as_the_directories_and_no_longer_than_needed(parts):
    places = [Path("/", *part) for part in parts]
    names = names_told_apart(places)
    assert len(set(names)) == len(set(places))
    for place, name in zip(places, names, strict=True):
        shorter = place.parts[-len(name.split("/")) :][1:]
        assert str(place).endswith(name)
        assert not shorter or any(other != place and other.parts[-len(shorter) :] == shorter for other in places)
