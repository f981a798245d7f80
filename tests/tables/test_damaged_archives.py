"""Compressed tables that are cut off anywhere, or are none: one line with the file and the remedy."""

from __future__ import annotations

import bz2
import gzip
import lzma

import pyarrow as pa
import pytest

from anglekit.errors import InputError
from anglekit.tables.read import read_table

TEXT = "".join(f'{{"text": "row {number * 7919 % 1000}", "label": {number % 2}}}\n' for number in range(300)).encode()
PACKED = {
    ".gz": gzip.compress(TEXT),
    ".bz2": bz2.compress(TEXT),
    ".xz": lzma.compress(TEXT),
    ".zst": pa.compress(TEXT, codec="zstd", asbytes=True),
}


def refusal(path) -> str:
    with pytest.raises(InputError) as caught:
        read_table(str(path))
    message = str(caught.value)
    assert "\n" not in message
    assert str(path) in message
    return message


@pytest.mark.parametrize("suffix", PACKED)
def test_an_archive_that_is_whole_is_read(tmp_path, suffix):
    """The control of those that are not."""
    path = tmp_path / f"rows.jsonl{suffix}"
    path.write_bytes(PACKED[suffix])
    assert len(read_table(str(path))) == 300


@pytest.mark.parametrize("suffix", PACKED)
@pytest.mark.parametrize("part", [0.1, 0.5, 0.9, 0.99])
def test_a_stream_that_ends_early_is_no_shorter_table(tmp_path, suffix, part):
    path = tmp_path / f"rows.jsonl{suffix}"
    path.write_bytes(PACKED[suffix][: int(part * len(PACKED[suffix]))])
    assert "copy or download it again" in refusal(path)


@pytest.mark.parametrize("suffix", PACKED)
def test_a_file_of_another_kind_is_said_to_be_none(tmp_path, suffix):
    path = tmp_path / f"rows.jsonl{suffix}"
    path.write_bytes(TEXT)
    message = refusal(path)
    assert "is not a readable" in message
    assert f"name it without {suffix} if it is plain text" in message
