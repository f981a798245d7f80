"""Parquet files are read batch by batch, within bounds; the bounds are lowered here."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from anglekit.errors import InputError
from anglekit.tables import arrow
from anglekit.tables.read import read_table


@pytest.fixture
def table_of(tmp_path, monkeypatch):
    """Writes a parquet file, and sets how many values and characters it may hold."""

    def write(columns, *, values=10**6, characters=10**6, batch=2):
        monkeypatch.setattr(arrow, "_VALUES_PER_BYTE", 0)
        monkeypatch.setattr(arrow, "_CHARACTERS_PER_BYTE", 0)
        monkeypatch.setattr(arrow, "_MORE_VALUES", values)
        monkeypatch.setattr(arrow, "_MORE_CHARACTERS", characters)
        monkeypatch.setattr(arrow, "_ROWS_OF_A_BATCH", batch)
        file = tmp_path / "x.parquet"
        pq.write_table(pa.table(columns), file)
        return str(file)

    return write


@pytest.mark.parametrize("batch", [1, 2, 100])
def test_batches_do_not_matter(table_of, batch):
    columns = {
        "text": ["a", None, "a", "b", ""],
        "choices": [["x", "y"], [], None, [None], ["z"]],
        "both": [{"en": "a", "de": "b"}, {"en": None, "de": ""}, {"en": "c", "de": "d"}, None, {"en": "e", "de": "f"}],
        "number": [1, None, 3, 4, 5],
    }
    file = table_of(columns, batch=batch)
    flat = {name: [(cell or {}).get(name) for cell in columns["both"]] for name in ("en", "de")}
    expected = {name: cells for name, cells in columns.items() if name != "both"}
    expected |= {f"both.{name}": cells for name, cells in flat.items()}
    found = read_table(file).frame.to_dict("list")
    assert found == expected
    assert read_table(file, limit=3).frame.to_dict("list") == {name: cells[:3] for name, cells in expected.items()}


def test_rows_times_columns_are_bounded_by_the_footer(table_of):
    columns = {"text": ["a"] * 6, "label": [1] * 6}
    assert len(read_table(table_of(columns, values=12)).frame) == 6
    with pytest.raises(InputError, match="it claims 12 values in"):
        read_table(table_of(columns, values=11))


@pytest.mark.parametrize(
    ("cells", "n_values"),
    [
        ([["a", "b"], ["c"], []], 3 + 3),
        ([[[1, 2], [3]], [[]], None], 3 + 3 + 3),
        ([[{"a": 1}, {"a": 2}]], 1 + 2 + 2),
        ([[None, None, None]], 1 + 3),
    ],
)
def test_what_lists_hold_is_counted(table_of, cells, n_values):
    assert read_table(table_of({"x": cells}, values=n_values)).frame["x"].tolist() == cells
    with pytest.raises(InputError, match="holds far more than its"):
        read_table(table_of({"x": cells}, values=n_values - 1))


def test_texts_that_repeat_are_counted_each_time_and_kept_once(table_of):
    texts = ["a" * 50] * 10
    found = read_table(table_of({"text": texts}, characters=500)).frame["text"]
    assert found.tolist() == texts
    with pytest.raises(InputError, match=r"holds far more than its .* write it without repetitions"):
        read_table(table_of({"text": texts}, characters=499))


def test_texts_in_lists_are_counted(table_of):
    with pytest.raises(InputError, match="holds far more than its"):
        read_table(table_of({"text": [["a" * 300, "a" * 300]]}, characters=500))


def test_no_more_than_the_limit_is_counted(table_of):
    file = table_of({"x": [[1]] * 4 + [[1] * 100]}, values=12)
    assert len(read_table(file, limit=4).frame) == 4
    with pytest.raises(InputError, match="holds far more"):
        read_table(file)
