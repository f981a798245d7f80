"""Parts of a table below one another, against pandas' own concatenation."""

import numpy as np
import pandas as pd
import pytest
import torch

from anglekit.results.rows import data_frame


def part(student, n, kind=1):
    return {
        "student": student,
        "vertex": np.arange(n),
        "mean": torch.arange(n, dtype=torch.float64).view(1, n) / 3,
        "side": np.array(["teacher", "student"] * n, dtype=object)[:n],
        "t": kind / 2,
        "n": kind,
    }


def by_pandas(parts):
    frames = []
    for each in parts:
        rows = len(each["vertex"])
        columns = {
            name: value.numpy().ravel()
            if isinstance(value, torch.Tensor)
            else value
            if isinstance(value, np.ndarray)
            else [value] * rows
            for name, value in each.items()
        }
        frames.append(pd.DataFrame(columns))
    return pd.concat(frames, ignore_index=True)


@pytest.mark.parametrize("sizes", [(3,), (2, 5), (1, 4, 1, 7)])
def test_parts_equal_frames_that_pandas_puts_together(sizes):
    parts = [part(f"s{size % 3}", size, kind) for kind, size in enumerate(sizes)]
    pd.testing.assert_frame_equal(data_frame(parts), by_pandas(parts))


def test_many_rows_whose_columns_are_filled_in_threads_are_the_same():
    parts = [part("a", 60_000), part("b", 50_000, kind=2)]
    pd.testing.assert_frame_equal(data_frame(parts), by_pandas(parts))


def test_a_part_without_rows_adds_none():
    pd.testing.assert_frame_equal(data_frame([part("a", 2), part("b", 0)]), by_pandas([part("a", 2)]))


def test_other_parts_make_another_frame():
    assert not data_frame([part("a", 2), part("b", 3)]).equals(data_frame([part("b", 3), part("a", 2)]))


def test_columns_of_different_lengths_are_refused():
    with pytest.raises(ValueError, match=r"columns of different lengths: \[2, 3\]"):
        data_frame([part("a", 3) | {"mean": torch.zeros(2)}])
    with pytest.raises(ValueError, match="different lengths"):
        data_frame([{"student": "a"}])


@pytest.mark.parametrize("text", ["", "student", "é, ひ and 🙂"])
def test_one_text_for_all_rows_is_as_if_written_row_by_row(text):
    found = data_frame([{"name": text, "value": np.arange(3)}, {"name": text, "value": np.arange(2)}])
    pd.testing.assert_frame_equal(found, pd.DataFrame({"name": [text] * 5, "value": [0, 1, 2, 0, 1]}))
    found.loc[1, "name"] = "other"
    assert found["name"].tolist() == [text, "other", text, text, text]


def test_a_view_of_somebody_elses_array_is_copied_and_an_array_of_its_own_is_taken():
    whole = np.arange(10)
    own = np.arange(5)
    found = data_frame([{"view": whole[:5], "own": own}])
    whole[0] = own[0] = 9
    assert found["view"].tolist() == [0, 1, 2, 3, 4]
    assert np.shares_memory(found["own"].to_numpy(), own)
