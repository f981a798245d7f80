"""Arrays of states, from any library and in any order, give the geometry that the models give."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from pandas.testing import assert_frame_equal

import anglekit
from anglekit.analysis.preparation import prepare
from anglekit.analysis.settings import AnalysisSettings
from anglekit.errors import InputError, RunError
from anglekit.probes.tokenize import special_token_ids
from anglekit.results.columns import COLUMNS, OPTIONAL_COLUMNS
from anglekit.states.recorder import LayerRecorder, token_states

# Over all streams and students of an analysis together; arrays are of one stream.
JOINT = ["p_adjusted", "joint_low", "joint_high"]


class OtherLibrary:
    """An array of a library that we do not know."""

    def __init__(self, values: torch.Tensor) -> None:
        self.values = values.numpy()

    def __array__(self, dtype=None, copy=None) -> np.ndarray:
        return self.values


def recorded(teacher, student, probe):
    """Return by stream, for each batch: states of both sides, each token's example, and which tokens are special."""
    prepared = prepare(teacher, [student], probe, AnalysisSettings(), None)
    special = torch.from_numpy(special_token_ids(teacher.tokenizer))
    layers = [{stream: range(each.depth(stream) + 1) for stream in each.streams} for each in (teacher, student)]
    found = {stream: [] for stream in teacher.streams}
    with LayerRecorder(teacher.model, layers[0]) as large, LayerRecorder(student.model, layers[1]) as small:
        for batch in prepared.measured.batches():
            sides = [token_states(each, batch) for each in (large, small)]
            for stream, updates in found.items():
                two = len(found) == 2 and stream == "decoder"
                ids = (batch.decoder_input_ids if two else batch.input_ids).flatten()[batch.token_index(stream)]
                example = batch.examples[batch.token_example(stream)]
                states = [side[stream].states for side in sides]
                updates.append((*states, example, torch.isin(ids, special)))
    return found


@pytest.mark.parametrize("family", ["bert", "t5", "qwen3"])
def test_the_geometry_of_arrays_is_that_of_the_models(family, checkpoint, probe):
    teacher, student = checkpoint(family, "teacher", seed=1), checkpoint(family, "student", seed=2, depth=2)
    expected = anglekit.analyze(teacher, student, probe)
    random = np.random.default_rng(0)
    for stream, updates in recorded(teacher, student, probe).items():
        acc = anglekit.GeometryAccumulator(4, 3, 16, stream=stream)
        for number, (large, small, example, special) in enumerate(updates):
            order = np.arange(len(example))
            if number % 2:  # examples amid each other, each with its tokens in their order
                mixed = random.permutation(example.numpy())
                order[np.argsort(mixed, kind="stable")] = np.argsort(example.numpy(), kind="stable")
            t, s, kinds = large[:, order], small[:, order], special[order]
            given = (list(t.numpy()), OtherLibrary(s)) if number % 2 else (t, s)
            acc.update(*given, example[order].numpy(), special=kinds.numpy())
        found = acc.compute()

        for table in (*COLUMNS, *OPTIONAL_COLUMNS):
            own = getattr(expected, table)
            own = own[own["stream"] == stream].reset_index(drop=True)
            mine = getattr(found, table)
            if len(expected.angles["stream"].unique()) > 1 and table == "nulls":
                own, mine = own.drop(columns=JOINT), mine.drop(columns=JOINT)
            assert_frame_equal(mine, own, rtol=1e-12, atol=1e-12)
        assert found.counts["examples"] == expected.counts["examples"]


def test_states_as_models_give_them_are_read_by_their_mask():
    random = np.random.default_rng(1)
    large, small = random.normal(size=(3, 2, 5, 8)), random.normal(size=(2, 2, 5, 8))
    mask = np.array([[1, 1, 1, 0, 0], [0, 1, 1, 1, 1]])
    acc, flat = anglekit.GeometryAccumulator(3, 2, 8), anglekit.GeometryAccumulator(3, 2, 8)
    for start in (0, 2):
        acc.update(tuple(torch.from_numpy(large)), small, mask=torch.from_numpy(mask))
        kept = mask.reshape(-1) == 1
        sides = [each.reshape(len(each), 10, 8)[:, kept] for each in (large, small)]
        flat.update(*sides, start + np.repeat([0, 1], [3, 4]))
    assert_frame_equal(acc.compute().angles, flat.compute().angles)
    assert acc.compute().counts["examples"] == 4
    assert anglekit.GeometryAccumulator(3, (1, 4), 8).update(large, small) is None


def test_students_of_another_width_are_brought_to_the_teachers_by_projections():
    random = np.random.default_rng(2)
    large, small, matrix = random.normal(size=(3, 6, 8)), random.normal(size=(2, 6, 4)), random.normal(size=(8, 4))
    example = np.repeat([0, 1, 2], 2)
    narrow = anglekit.GeometryAccumulator(3, 2, 8, student_width=4, projections=[matrix, matrix])
    narrow.update(large, small, example)
    wide = anglekit.GeometryAccumulator(3, 2, 8)
    wide.update(large, small @ matrix.T, example)
    assert_frame_equal(narrow.compute().angles, wide.compute().angles, rtol=1e-9)
    assert [row["vertex"] for row in narrow.compute().projections] == [0, 1]
    with pytest.raises(InputError, match="give projections"):
        anglekit.GeometryAccumulator(3, 2, 8, student_width=4)
    with pytest.raises(InputError, match=r"expected 2 of the shape \(8, 4\)"):
        anglekit.GeometryAccumulator(3, 2, 8, student_width=4, projections=[matrix])


def test_what_does_not_fit_is_refused_and_adds_nothing():
    random = np.random.default_rng(3)
    large, small, example = random.normal(size=(3, 6, 8)), random.normal(size=(2, 6, 8)), np.arange(6)
    acc = anglekit.GeometryAccumulator(3, 2, 8)
    with pytest.raises(RunError, match="no states came; call update first"):
        acc.compute()
    acc.update(large, small, example)
    before = acc.compute()
    cases = [
        ((large.swapaxes(0, 1), small, example), {}, r"\(6, 3, 8\).*expected \(3 layers.*swapaxes"),
        ((large[..., :4], small, example), {}, r"expected \(3 layers, tokens, 8\)"),
        ((large, small[:, :5], example), {}, "6.* tokens, the student's of .5"),
        (([large[0], large[1], large[2, :5]], small, example), {}, "layers of one shape"),
        ((large, small.astype(np.int64), example), {}, "int64; give floating"),
        ((large, small), {}, "which example"),
        ((large, small, example[:5]), {}, r"whole numbers from 0 of shape \(6,\)"),
        ((large, small, example + 6), {"special": example[:5]}, r"special has the shape \(5,\)"),
        ((large, small, example - 1), {}, "from 0"),
        ((large, small, example + 5), {}, "example 5 came in an earlier update"),
        (("states", small, example), {}, "the teacher's states"),
    ]
    for given, options, expected in cases:
        with pytest.raises(InputError, match=expected):
            acc.update(*given, **options)
    assert_frame_equal(acc.compute().angles, before.angles)
    for layers, options, expected in (
        ((1, 2), {}, "2 or more"),
        (((2, 1), 2), {}, "ascending"),
        ((3, 2), {"stream": "middle"}, "encoder"),
        ((3, 2), {"settings": AnalysisSettings(max_length=5)}, "max_length=5 is for models"),
    ):
        with pytest.raises(InputError, match=expected):
            anglekit.GeometryAccumulator(*layers, 8, **options)
