"""Negative controls: readers without a guard are caught by what judges the cases."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import pytest

from anglekit.errors import InputError
from tests.fuzz.harness import Campaign, Program, cases
from tests.fuzz.mutations import damaged_json_file


def unguarded(file: Path) -> dict:
    return json.loads(file.read_text(encoding="utf-8"))


def runs_a_program(file: Path) -> None:
    pickle.loads(pickle.dumps(Program(file.parent)))


def leaves_half(file: Path) -> None:
    file.with_suffix(".partial").write_text("{")
    raise InputError(f"{file} is damaged; make it again")


def names_nothing(_file: Path) -> None:
    raise InputError("something is damaged; make it again")


@pytest.mark.parametrize(
    ("load", "message"),
    [
        (unguarded, "JSONDecodeError|RecursionError|UnicodeDecodeError|ValueError"),
        (runs_a_program, "reading changed.*program-was-run"),
        (leaves_half, r"reading changed.*x\.partial"),
        (names_nothing, "does not name"),
    ],
)
def test_a_reader_without_a_guard_is_caught(load, message, tmp_path):
    campaign = Campaign(tmp_path / "place")
    file = campaign.place / "x.json"
    for case in cases("control", few=40):
        file.write_text('{"a": [1, {"b": 2}]}')
        damaged_json_file(case, file)
        campaign.judge(case, lambda: load(file), str(file))
    with pytest.raises(AssertionError, match=message):
        campaign.finish()


def test_a_case_is_the_same_every_time(tmp_path):
    contents = []
    for _ in range(2):
        for case in cases("same", few=30):
            file = tmp_path / "x.json"
            file.write_text('{"a": [1, {"b": 2}], "c": "text"}')
            damaged_json_file(case, file)
            contents.append(file.read_bytes())
    assert contents[: len(contents) // 2] == contents[len(contents) // 2 :]
