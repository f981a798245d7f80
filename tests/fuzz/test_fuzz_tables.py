"""Damaged tables: text files of every kind and encoding, changed parquet, cells that are unusual but allowed."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest

from anglekit.errors import InputError
from anglekit.probes.data import ProbeData, read_probe
from anglekit.probes.tokenize import tokenize_probe
from tests.fuzz.damaged_tables import write_table
from tests.fuzz.harness import Campaign, cases

SUFFIXES = (".jsonl", ".csv", ".tsv", ".parquet")


def sane(probe: ProbeData, tokenizer) -> None:
    assert probe.texts
    assert all(isinstance(text, str) and text.strip() for text in probe.texts)
    assert len(probe.rows) == len(probe.texts) == len(set(probe.rows))
    assert probe.targets is None or len(probe.targets) == len(probe.texts)
    for text in probe.texts:
        text.encode()
    try:
        tokens = tokenize_probe(probe, tokenizer, needs_target=False, max_length=None, model_max_length=64)
    except InputError as error:
        assert probe.source in str(error)  # noqa: PT017 - texts of special tokens alone
        return
    assert np.all(tokens.lost_tokens >= 0)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_tables(suffix, tiny_tokenizer, tmp_path):
    campaign = Campaign(place := tmp_path / "place")
    tokenizer = tiny_tokenizer()
    file = place / f"probe{suffix}"
    for case in cases(f"table {suffix}", few=100):
        write_table(case, file)
        options = {"limit": case.rng.choice((None, None, 1, 2)), "seed": 3}
        campaign.judge(case, partial(read_probe, str(file), **options), str(file), partial(sane, tokenizer=tokenizer))
    campaign.finish()
