"""Every null in the table of a Geometry takes away what its name says, and leaves the rest.

The probe is two hundred texts of one word, of which that word alone counts. A sample, which holds one token of each
example, then is the whole probe: its states are known from a plain forward pass, and with them what each null must be.
The student is the teacher's first blocks with a little noise, so that there is a relation that can be taken away.
"""

from __future__ import annotations

import copy
import itertools
from dataclasses import replace

import numpy as np
import pytest
import torch
import transformers

from anglekit.analysis.analyze import analyze
from anglekit.analysis.running_measurement import untrained_seed
from anglekit.analysis.settings import AnalysisSettings
from anglekit.models.checkpoints import Checkpoint
from anglekit.probes.data import ProbeData
from anglekit.results.document import ModelRecord
from anglekit.vocabulary import NULLS
from tests.analysis.naive_analysis import naive_states, unit

WORDS = tuple(f"w{number}" for number in range(200))
SEED = 5
SETTINGS = AnalysisSettings(nulls="all", similarity="none", special_tokens=False, seed=SEED)
PAIRS = list(itertools.combinations(range(4), 2))
VERTICES = 3


def gpt2(depth: int, seed: int) -> transformers.PreTrainedModel:
    """A GPT-2 of which each block adds as much as it gets."""
    config = transformers.GPT2Config(vocab_size=4 + len(WORDS), n_embd=32, n_layer=depth, n_head=2, n_positions=16)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = transformers.GPT2Model(config)
        for name, weight in model.named_parameters():
            if weight.ndim == 2:
                torch.nn.init.normal_(weight, std=0.15)
            if name == "wte.weight":
                weight.data += 0.1  # a common direction, which only the covariance's null keeps
    return model.eval()


@pytest.fixture(scope="module")
def teacher(tiny_tokenizer) -> Checkpoint:
    return Checkpoint("teacher", "teacher", gpt2(3, 1), tiny_tokenizer(WORDS), ("decoder",), None)


@pytest.fixture(scope="module")
def student(teacher) -> Checkpoint:
    """The teacher's first two blocks, their weights off by a tenth."""
    model = gpt2(2, 2)
    own, theirs = model.state_dict(), teacher.model.state_dict()
    model.load_state_dict({name: 0.9 * theirs[name] + 0.1 * weight for name, weight in own.items()})
    return replace(teacher, source="student", name="student", model=model)


@pytest.fixture(scope="module")
def probe() -> ProbeData:
    return ProbeData("memory", "0" * 64, WORDS, None, None, tuple(range(len(WORDS))), 0, "text", None, None)


def word_states(checkpoint: Checkpoint, probe: ProbeData) -> np.ndarray:
    """The words' states before the final norm: float64 (layers, words, width)."""
    checkpoint = replace(checkpoint, model=copy.deepcopy(checkpoint.model))
    checkpoint.model.ln_f = torch.nn.Identity()
    rows = [naive_states(checkpoint, probe, row)["decoder"][:, 1] for row in range(len(probe.texts))]
    return np.stack(rows, axis=1)


@pytest.fixture(scope="module")
def states(teacher, student, probe) -> tuple[np.ndarray, np.ndarray]:
    """The teacher's and the student's states."""
    return word_states(teacher, probe), word_states(student, probe)


@pytest.fixture(scope="module")
def geometry(teacher, student, probe):
    return analyze(teacher, [student], probe, SETTINGS)


def table(geometry, null: str, column: str = "mean_cosine") -> np.ndarray:
    """A column of a null, (vertices, pairs)."""
    rows = geometry.nulls[geometry.nulls["null"] == null].set_index(["vertex", "teacher_i", "teacher_k"])
    return np.array([[rows.loc[(vertex, i, k), column] for i, k in PAIRS] for vertex in range(VERTICES)])


def cosines(teacher: np.ndarray, vertices: np.ndarray) -> np.ndarray:
    """Of (4, n, width) and (vertices, n, width): (vertices, pairs, n)."""
    return np.stack([[(unit(teacher[i] - s) * unit(teacher[k] - s)).sum(-1) for i, k in PAIRS] for s in vertices])


def drawn_apart(states: tuple[np.ndarray, np.ndarray], alike: str, n: int = 20_000) -> np.ndarray:
    """Mean cosines over random examples: one for the teacher and another for the student, or one for each layer."""
    rng = np.random.default_rng(11)
    teacher, student = states
    rows = rng.permuted(np.tile(np.arange(len(WORDS)), (n, 1)), axis=1)[:, : len(teacher) + 1].T
    if alike == "teacher":
        rows[: len(teacher)] = rows[0]
    moved = np.stack([layer[row] for layer, row in zip(teacher, rows[:-1], strict=True)])
    return cosines(moved, student[:, rows[-1]]).mean(-1)


def test_the_observed_angles_are_those_of_the_probe(geometry, states):
    want = cosines(*states).mean(-1)
    for null in NULLS:
        np.testing.assert_allclose(table(geometry, null, "observed_cosine"), want, atol=1e-5)
        np.testing.assert_array_equal(table(geometry, null, "n_tokens"), len(WORDS))
    assert set(geometry.nulls["null"]) == set(NULLS)


def test_the_formula_knows_the_lengths_alone(geometry, states):
    t, s = ((side**2).sum(-1) for side in states)
    want = np.stack([[np.mean(v / np.sqrt((v + t[i]) * (v + t[k]))) for i, k in PAIRS] for v in s])
    np.testing.assert_allclose(table(geometry, "formula"), want, atol=1e-6)
    np.testing.assert_array_equal(table(geometry, "formula", "mean_tangential_cosine"), 0.0)


def test_gaussians_of_these_lengths_have_no_direction_in_common(geometry, states):
    """Directions drawn here, a hundred times for each token, at the tokens' lengths."""
    rng = np.random.default_rng(1)
    draws = []
    for _ in range(100):
        teacher, student = (
            np.linalg.norm(side, axis=-1, keepdims=True) * unit(rng.standard_normal(side.shape)) for side in states
        )
        draws.append(cosines(teacher, student).mean(-1))
    error = table(geometry, "gaussian-norm", "se")
    assert (np.abs(table(geometry, "gaussian-norm") - np.mean(draws, 0)) < 5 * error).all()
    assert (np.abs(table(geometry, "gaussian-norm", "mean_tangential_cosine")) < 0.1).all()
    assert (error < 0.02).all()


def test_gaussians_of_these_covariances_are_drawn_for_each_layer_apart(geometry, states):
    """Means and covariances stay; what a token's layers have in common goes, which one draw for all would keep."""
    rng = np.random.default_rng(2)
    apart, together = [], []
    for _ in range(100):
        apart.append(cosines(*(np.stack([gaussian(layer, rng) for layer in side]) for side in states)).mean(-1))
        mixing = rng.standard_normal((len(WORDS), len(WORDS))) / np.sqrt(len(WORDS) - 1)
        means = [side.mean(1, keepdims=True) for side in states]
        together.append(cosines(*(m + mixing @ (side - m) for m, side in zip(means, states, strict=True))).mean(-1))
    found, spread = table(geometry, "gaussian-covariance"), np.std(apart, axis=0)
    assert (np.abs(found - np.mean(apart, 0)) < 5 * spread).all()
    assert np.abs((found - np.mean(together, 0)) / spread).max() > 20
    # The layers' means are left: without them the angles would be those of the lengths alone.
    assert np.abs((found - table(geometry, "formula")) / spread).max() > 10


def gaussian(layer: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Gaussian states with a layer's mean and covariance, through the root of the covariance."""
    values, vectors = np.linalg.eigh(np.cov(layer.T))
    return layer.mean(0) + rng.standard_normal(layer.shape) * np.sqrt(np.clip(values, 0, None)) @ vectors.T


@pytest.mark.parametrize(("null", "alike"), [("permuted-student", "teacher"), ("permuted-all", "nothing")])
def test_permutations_take_another_example(null, alike, geometry, states):
    found, error = table(geometry, null), table(geometry, null, "se")
    assert (np.abs(found - drawn_apart(states, alike)) < 5 * error).all()
    other = drawn_apart(states, {"teacher": "nothing", "nothing": "teacher"}[alike])
    assert np.abs((found - other) / error).max() > 10
    assert np.abs((found - table(geometry, null, "observed_cosine")) / error).max() > 10


def test_the_rotated_student_keeps_its_lengths_and_no_relation_to_the_teacher(geometry, states):
    """Forty rotations drawn here say how much one may differ from another; no rotation at all lies far outside."""
    rng = np.random.default_rng(3)
    teacher, student = states
    draws = []
    for _ in range(40):
        rotation, _ = np.linalg.qr(rng.standard_normal((32, 32)))
        draws.append(cosines(teacher, student @ rotation).mean(-1))
    found, spread = table(geometry, "rotated-student"), np.std(draws, axis=0)
    assert (np.abs(found - np.mean(draws, 0)) < 6 * spread).all()
    assert np.abs((table(geometry, "rotated-student", "observed_cosine") - np.mean(draws, 0)) / spread).max() > 12


def test_one_rotation_turns_all_of_the_student(teacher, student, probe):
    """Layers that are equal are equal after it, and the same seed turns the same way."""
    idle = copy.deepcopy(student.model)
    for name, weight in idle.named_parameters():
        if "c_proj" in name:
            weight.data.zero_()
    found = analyze(teacher, [replace(student, model=idle)], probe, SETTINGS)
    one, two, three = table(found, "rotated-student")
    np.testing.assert_allclose(one, two, atol=1e-9)
    np.testing.assert_allclose(one, three, atol=1e-9)
    other = analyze(teacher, [replace(student, model=idle)], probe, replace(SETTINGS, seed=SEED + 1))
    assert np.abs(table(other, "rotated-student")[0] - one).max() > 1e-4


def test_the_fresh_student_has_the_lengths_of_the_trained_one(geometry, states, teacher, student, probe):
    torch.manual_seed(untrained_seed(ModelRecord(name=student.name, **student.provenance()), SEED))
    fresh = word_states(replace(student, model=type(student.model)(student.model.config).eval()), probe)
    want = cosines(states[0], np.linalg.norm(states[1], axis=-1, keepdims=True) * unit(fresh)).mean(-1)
    np.testing.assert_allclose(table(geometry, "fresh-student"), want, atol=1e-5)
    assert np.abs(want - cosines(*states).mean(-1)).max() > 0.1
    assert np.abs(want - cosines(states[0], fresh).mean(-1)).max() > 0.1


def test_origin_and_centroid_leave_the_student_out(geometry, states):
    teacher, student = states
    for null, vertex in (("origin", np.zeros_like(teacher[0])), ("centroid", teacher.mean(0))):
        want = cosines(teacher, vertex[None]).mean(-1)
        np.testing.assert_allclose(table(geometry, null), np.repeat(want, len(student), axis=0), atol=1e-5)


def test_the_difference_is_of_the_same_tokens(geometry):
    for null in NULLS:
        difference = table(geometry, null, "observed_cosine") - table(geometry, null)
        np.testing.assert_allclose(table(geometry, null, "observed_minus_null"), difference, atol=1e-9)
        assert (table(geometry, null, "low") < difference).all()
        assert (difference < table(geometry, null, "high")).all()
