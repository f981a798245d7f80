"""Rows of a table, gathered part by part and made into one data frame at the end.

Even a data frame of few rows takes a fraction of a millisecond to make, and a table has parts for every student,
stream, null and view.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import torch
from numpy.typing import NDArray
from torch import Tensor

#: Some rows of a table by column: arrays or tensors of one length and any shape, or one value for all rows.
Rows = Mapping[str, Any]

Array = NDArray[Any]

# From so many rows on a column takes longer to fill than a thread to start: most of it is fetching fresh memory.
_MANY_ROWS = 100_000


def data_frame(parts: Sequence[Rows]) -> pd.DataFrame:
    """Join one or more parts below one another; all have the same columns, and each has an array or tensor.

    Raises:
        ValueError: columns of different lengths.
    """
    lengths = [_length(part) for part in parts]

    def column(name: str) -> Any:  # noqa: ANN401 - as `_column`
        return _column([part[name] for part in parts], lengths)

    if sum(lengths) < _MANY_ROWS:
        return pd.DataFrame({name: column(name) for name in parts[0]}, copy=False)
    with ThreadPoolExecutor(torch.get_num_threads()) as pool:
        columns = dict(zip(parts[0], pool.map(column, parts[0]), strict=True))
    return pd.DataFrame(columns, copy=False)


def _length(part: Rows) -> int:
    sizes = {int(np.size(value)) for value in part.values() if isinstance(value, np.ndarray)}
    sizes |= {value.numel() for value in part.values() if isinstance(value, Tensor)}
    if len(sizes) != 1:
        raise ValueError(f"columns of different lengths: {sorted(sizes)}")
    return sizes.pop()


def _column(values: Sequence[Any], lengths: Sequence[int]) -> Any:  # noqa: ANN401 - an array as this pandas wants it
    if all(isinstance(value, str) for value in values):
        if len(set(values)) == 1 and isinstance(pd.Series(values).dtype, pd.StringDtype):
            return _repeated(values[0], sum(lengths))
        # Each part's text is converted to pandas' string storage once, not row by row.
        return pd.Series(values).array.repeat(lengths)
    if len(values) == 1 and isinstance(values[0], np.ndarray) and values[0].ndim == 1 and values[0].flags.owndata:
        return values[0]  # nobody else's, so it need not be copied
    return np.concatenate([_flat(value, length) for value, length in zip(values, lengths, strict=True)])


def _flat(value: Any, length: int) -> Array:  # noqa: ANN401
    if isinstance(value, Tensor):
        value = value.cpu().numpy()
    return value.reshape(-1) if isinstance(value, np.ndarray) else np.full(length, value)


def _repeated(text: str, number: int) -> Any:  # noqa: ANN401 - an array as this pandas wants it
    """Return a text so many times: its bytes and where each begins, which is all that a column of texts is."""
    encoded = np.frombuffer(text.encode(), dtype=np.uint8)
    starts = np.arange(number + 1, dtype=np.int64) * len(encoded)
    buffers = [None, pa.py_buffer(starts), pa.py_buffer(np.tile(encoded, number))]
    return pd.array(pa.Array.from_buffers(pa.large_string(), number, buffers), dtype="str")
