"""The analysis written down as its definitions read: one forward pass an example, NumPy in float64."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
import pandas as pd
import pytest
import torch
from numpy.typing import NDArray
from pandas.testing import assert_frame_equal

from anglekit.models.checkpoints import Checkpoint
from anglekit.probes.data import ProbeData
from anglekit.results.geometry import Geometry

States = dict[str, NDArray[np.float64]]
KEYS = ["student", "stream", "vertex", "teacher_i", "teacher_k"]
TABLES = ("angles", "histograms", "layers", "examples")


def naive_states(checkpoint: Checkpoint, probe: ProbeData, row: int) -> States:
    """One example alone, unpadded: float64 (layers, tokens, width) of each stream, as Hugging Face reports them."""
    tokenizer, model = checkpoint.tokenizer, checkpoint.model
    inputs = {"input_ids": torch.tensor([tokenizer(probe.texts[row])["input_ids"]])}
    if len(checkpoint.streams) == 2:
        labels = tokenizer(text_target=probe.targets[row])["input_ids"]
        inputs["decoder_input_ids"] = torch.tensor([[model.config.decoder_start_token_id, *labels[:-1]]])
    with torch.no_grad():
        output = model(**inputs, output_hidden_states=True)
    if len(checkpoint.streams) == 2:
        found = {"encoder": output.encoder_hidden_states, "decoder": output.decoder_hidden_states}
    else:
        found = {checkpoint.streams[0]: output.hidden_states}
    return {stream: torch.cat(tuple(states)).double().numpy() for stream, states in found.items()}


def unit(x: NDArray[np.float64]) -> NDArray[np.float64]:
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


def naive_rows(
    teacher: Sequence[NDArray[np.float64]], student: Sequence[NDArray[np.float64]]
) -> dict[tuple[int, int, int], dict[str, object]]:
    """Every vertex and pair over all examples, written down as the definitions read."""
    rows = {}
    pairs = itertools.combinations(range(len(teacher[0])), 2)
    for vertex, (i, k) in itertools.product(range(len(student[0])), pairs):
        cosines, angles, tangential, null = [], [], [], []
        for t, s in zip(teacher, student, strict=True):
            a, b, origin = t[i], t[k], s[vertex]
            cosines.append((unit(a - origin) * unit(b - origin)).sum(-1))
            angles.append(np.degrees(np.arccos(cosines[-1])))
            axis = unit(origin)
            flat = [x - (x * axis).sum(-1, keepdims=True) * axis for x in (a, b)]
            tangential.append((unit(flat[0]) * unit(flat[1])).sum(-1))
            squares = [(x**2).sum(-1) for x in (a, b, origin)]
            null.append(squares[2] / np.sqrt((squares[2] + squares[0]) * (squares[2] + squares[1])))
        every = np.concatenate(cosines)
        n, examples = len(every), len(cosines)
        residual = np.array([c.sum() - every.mean() * len(c) for c in cosines])
        rows[vertex, i, k] = {
            "mean_cosine": every.mean(),
            "std_cosine": every.std(),
            "mean_angle_degrees": np.concatenate(angles).mean(),
            "acute_fraction": (every > 0).mean(),
            "mean_tangential_cosine": np.concatenate(tangential).mean(),
            "mean_tangential_angle_degrees": np.degrees(np.arccos(np.concatenate(tangential))).mean(),
            "null_cosine": np.concatenate(null).mean(),
            "se_cosine": np.sqrt(examples / (examples - 1) * (residual**2).sum()) / n,
            "n_tokens": n,
            "n_examples": examples,
            "cosines": cosines,
            "angles": angles,
        }
    return rows


def all_states(checkpoint: Checkpoint, probe: ProbeData, stream: str) -> list[NDArray[np.float64]]:
    return [naive_states(checkpoint, probe, row)[stream] for row in range(len(probe.texts))]


def naive_padded_states(checkpoint: Checkpoint, probe: ProbeData, length: int, stream: str) -> NDArray[np.float64]:
    """All examples in one batch of one padded length: float64 (layers, examples * length, width)."""
    tokenizer, model = checkpoint.tokenizer, checkpoint.model
    options = {"padding": "max_length", "max_length": length, "return_tensors": "pt"}
    inputs = tokenizer(list(probe.texts), **options)
    inputs = {name: inputs[name] for name in ("input_ids", "attention_mask")}
    if len(checkpoint.streams) == 2:
        labels = tokenizer(text_target=list(probe.targets), **options)
        start = torch.full((len(probe.texts), 1), model.config.decoder_start_token_id)
        shifted = torch.cat([start, labels["input_ids"][:, :-1]], dim=1)
        # The start token takes the place of the closing one: as many inputs as labels.
        ends = labels["attention_mask"].sum(1, keepdim=True) == torch.arange(length)
        inputs["decoder_input_ids"] = shifted.masked_fill(ends, 0)
        inputs["decoder_attention_mask"] = labels["attention_mask"]
    with torch.no_grad():
        output = model(**inputs, output_hidden_states=True)
    states = getattr(output, f"{stream}_hidden_states", None) or output.hidden_states
    return torch.stack(tuple(states)).flatten(1, 2).double().numpy()


def assert_matches_naive(geometry: Geometry, teacher: Checkpoint, student: Checkpoint, probe: ProbeData) -> None:
    for stream in teacher.streams:
        teacher_states, student_states = (all_states(each, probe, stream) for each in (teacher, student))
        expected = naive_rows(teacher_states, student_states)
        found = geometry.angles.query("student == @student.name and stream == @stream")
        assert len(found) == len(expected)
        for row in found.itertuples():
            want = expected[row.vertex, row.teacher_i, row.teacher_k]
            for name in set(want) - {"cosines", "angles"}:
                assert getattr(row, name) == pytest.approx(want[name], abs=2e-4 if "degrees" in name else 3e-6), name
        bins = geometry.histograms.query("student == @student.name and stream == @stream and teacher_i >= 0")
        for (vertex, i, k), group in bins.groupby(["vertex", "teacher_i", "teacher_k"]):
            cosines = np.concatenate(expected[vertex, i, k]["cosines"])
            left = np.repeat(group["bin"].to_numpy(), group["count"].to_numpy()) / 500 - 1
            # A token on a bin's edge may fall on either side; sorted, each lies within its bin.
            assert len(left) == len(cosines)
            assert np.abs(np.sort(cosines) - (left + 0.001)).max() < 0.001 + 1e-5
        examples = geometry.examples.query("student == @student.name and stream == @stream")
        for row in examples.itertuples():
            own = [want for key, want in expected.items() if key[0] == row.vertex]
            cosines = [want["cosines"][row.example] for want in own]
            assert row.mean_cosine == pytest.approx(np.mean(cosines), abs=3e-6)
            angles = [want["angles"][row.example] for want in own]
            assert row.mean_angle_degrees == pytest.approx(np.mean(angles), abs=2e-4)
            assert row.n_tokens == len(cosines[0])


def assert_close(a: Geometry, b: Geometry, tolerance: float = 1e-6) -> None:
    """Compare every table but the bins; a token on an edge may change its bin, so of those only the sums."""
    for table in ("angles", "layers", "examples"):
        assert_frame_equal(getattr(a, table), getattr(b, table), rtol=tolerance, atol=tolerance)
    sums = [each.histograms.groupby(KEYS)["count"].sum() for each in (a, b)]
    pd.testing.assert_series_equal(*sums)
