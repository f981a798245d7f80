"""Projections: adapters on disk, least squares and Procrustes against planted maps."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from anglekit.errors import InputError
from anglekit.models.projections import (
    ADAPTER_FILE,
    ProjectionFit,
    load_adapters,
    relative_depth_layer,
    save_adapters,
    solve_projection,
    stored_adapters,
)

STUDENT, TEACHER = 4, 6
SEEDS = st.integers(0, 10**6)
quick = settings(max_examples=25, deadline=None)


def random(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def orthonormal(rows, columns, seed):
    tall = torch.linalg.qr(random(max(rows, columns), min(rows, columns), seed=seed))[0]
    return tall if rows >= columns else tall.T


def fitted(student, teacher):
    fit = ProjectionFit.empty(student.shape[1], teacher.shape[1])
    fit.update(student, teacher)
    return fit


def adapters():
    return {("encoder", 0): random(6, 4).float(), ("encoder", 3): random(6, 4, seed=1).float()}


def test_adapters_come_back_as_they_were(tmp_path):
    saved = {**adapters(), ("decoder", 12): random(6, 4, seed=2).bfloat16().requires_grad_()}
    assert save_adapters(tmp_path, saved, trained=True) == tmp_path / ADAPTER_FILE
    loaded = load_adapters(tmp_path)
    assert loaded is not None
    assert set(loaded) == set(saved)
    for key, weight in saved.items():
        assert loaded[key].dtype == torch.float32
        assert torch.equal(loaded[key], weight.detach().float())
    other = {key: weight + 1 for key, weight in saved.items()}
    save_adapters(tmp_path, other, trained=True)
    assert not torch.equal(load_adapters(tmp_path)[("encoder", 0)], loaded[("encoder", 0)])


def test_transposed_weights_keep_their_numbers(tmp_path):
    weight = random(4, 6).float().T
    save_adapters(tmp_path, {("encoder", 1): weight}, trained=True)
    assert torch.equal(load_adapters(tmp_path)[("encoder", 1)], weight)


def test_a_student_without_adapters_has_none(tmp_path):
    assert load_adapters(tmp_path) is None


def refused(directory, pattern):
    with pytest.raises(InputError, match=pattern) as caught:
        load_adapters(directory)
    assert "\n" not in str(caught.value)
    assert ADAPTER_FILE in str(caught.value)


def test_adapters_that_say_nothing_of_the_student_and_those_with_a_bias_project_nothing(tmp_path):
    save_adapters(tmp_path, adapters(), trained=False)
    assert load_adapters(tmp_path) is None
    biases = {place: random(6, 1, seed=3)[:, 0].float() for place in adapters()}
    save_adapters(tmp_path, adapters(), biases, trained=True)
    assert load_adapters(tmp_path) is None
    stored = stored_adapters(tmp_path)
    assert stored is not None
    assert stored.trained
    for place, weight in adapters().items():
        assert torch.equal(stored.weights[place], weight)
        assert torch.equal(stored.biases[place], biases[place])


@pytest.mark.parametrize("damage", ["empty", "cut", "text"])
def test_a_damaged_file_is_one_line(tmp_path, damage):
    file = save_adapters(tmp_path, adapters(), trained=True)
    file.write_bytes({"empty": b"", "cut": file.read_bytes()[:-9], "text": b"not tensors\n" * 20}[damage])
    refused(tmp_path, "is not a readable safetensors file")


@pytest.mark.parametrize("metadata", [None, {"format": "other", "trained": "true"}])
def test_another_format_is_refused(tmp_path, metadata):
    save_file({"encoder.0.weight": torch.zeros(2, 2)}, tmp_path / ADAPTER_FILE, metadata=metadata)
    refused(tmp_path, "has format '(None|other)'; expected 'anglekit-adapters-1'")


@pytest.mark.parametrize("name", ["encoder.weight", "middle.0.weight", "encoder.-1.weight", "encoder.0.scale", "x"])
def test_a_strange_name_is_refused(tmp_path, name):
    metadata = {"format": "anglekit-adapters-1", "trained": "true"}
    save_file({name: torch.zeros(2, 2)}, tmp_path / ADAPTER_FILE, metadata=metadata)
    refused(tmp_path, f"holds '{name}'; expected names such as 'encoder.3.weight'")


def test_an_adapter_that_is_no_matrix_is_refused(tmp_path):
    save_adapters(tmp_path, {("encoder", 0): torch.zeros(4)}, trained=True)
    refused(tmp_path, "the adapter of .* is not a matrix")


@pytest.mark.parametrize(
    ("student", "teacher", "expected"), [(3, 12, [0, 4, 8, 12]), (2, 2, [0, 1, 2]), (6, 4, [0, 1, 1, 2, 3, 3, 4])]
)
def test_layers_aim_at_their_relative_depth(student, teacher, expected):
    found = [relative_depth_layer(layer, student, teacher) for layer in range(student + 1)]
    assert found == expected


@quick
@given(seed=SEEDS, teacher_width=st.sampled_from([3, 4, 6]))
def test_least_squares_recovers_a_planted_map(seed, teacher_width):
    planted, student = random(teacher_width, STUDENT, seed=seed), random(60, STUDENT, seed=seed + 1)
    found = solve_projection(fitted(student.float(), student.float().double() @ planted.T), "least-squares")
    torch.testing.assert_close(found, planted, rtol=0, atol=1e-8)


@quick
@given(seed=SEEDS)
def test_least_squares_equals_numpy_on_noisy_states(seed):
    student, teacher = random(30, STUDENT, seed=seed), random(30, TEACHER, seed=seed + 1)
    expected = np.linalg.lstsq(student.numpy(), teacher.numpy(), rcond=None)[0].T
    np.testing.assert_allclose(solve_projection(fitted(student, teacher), "least-squares").numpy(), expected, atol=1e-8)


@quick
@given(seed=SEEDS, teacher_width=st.sampled_from([4, 6]), scale=st.floats(0.1, 10))
def test_procrustes_recovers_a_planted_rotation_whatever_its_scale(seed, teacher_width, scale):
    planted, student = orthonormal(teacher_width, STUDENT, seed), random(60, STUDENT, seed=seed + 1)
    found = solve_projection(fitted(student, scale * student @ planted.T), "procrustes")
    torch.testing.assert_close(found, planted, rtol=0, atol=1e-8)


@pytest.mark.parametrize("teacher_width", [3, 4, 6])
def test_procrustes_is_orthonormal_and_no_rotation_fits_better(teacher_width):
    student, teacher = random(40, STUDENT), random(40, teacher_width, seed=1)
    found = solve_projection(fitted(student, teacher), "procrustes")
    gram = found.T @ found if teacher_width >= STUDENT else found @ found.T
    torch.testing.assert_close(gram, torch.eye(len(gram), dtype=torch.float64), rtol=0, atol=1e-10)
    best = (teacher * (student @ found.T)).sum()  # what the orthonormal map maximises
    others = [(teacher * (student @ orthonormal(teacher_width, STUDENT, seed).T)).sum() for seed in range(200)]
    assert best > max(others)


def test_projections_of_unrelated_states_recover_nothing():
    """The negative control: with the tokens shuffled the planted map must not come back."""
    planted, student = orthonormal(TEACHER, STUDENT, 0), random(60, STUDENT)
    teacher = (student @ planted.T).roll(7, dims=0)
    for kind in ("least-squares", "procrustes"):
        assert (solve_projection(fitted(student, teacher), kind) - planted).abs().max() > 0.1


def test_procrustes_does_not_stretch_where_least_squares_does():
    planted, student = random(TEACHER, STUDENT), random(60, STUDENT, seed=1)
    fit = fitted(student, student @ planted.T)
    assert (solve_projection(fit, "procrustes") - planted).abs().max() > 0.1
    torch.testing.assert_close(solve_projection(fit, "least-squares"), planted)


def test_directions_that_no_student_state_uses_get_weight_zero():
    student = random(50, STUDENT)
    student[:, 2] = 0
    planted = random(TEACHER, STUDENT, seed=1)
    found = solve_projection(fitted(student, student @ planted.T), "least-squares")
    assert found[:, 2].abs().max() < 1e-10
    torch.testing.assert_close(found[:, [0, 1, 3]], planted[:, [0, 1, 3]])


@pytest.mark.parametrize("kind", ["least-squares", "procrustes"])
def test_fewer_tokens_than_dimensions_are_refused(kind):
    fit = fitted(random(STUDENT - 1, STUDENT), random(STUDENT - 1, TEACHER, seed=1))
    with pytest.raises(InputError, match=r"is fitted on 3 tokens, at least 4 .* are needed; give more probe examples"):
        solve_projection(fit, kind)
    fit.update(random(1, STUDENT, seed=2), random(1, TEACHER, seed=3))
    assert solve_projection(fit, kind).shape == (TEACHER, STUDENT)


@quick
@given(seed=SEEDS, cut=st.integers(0, 12))
def test_any_split_of_the_tokens_gives_the_whole_fit(seed, cut):
    student, teacher = random(12, STUDENT, seed=seed), random(12, TEACHER, seed=seed + 1)
    whole, split = fitted(student, teacher), ProjectionFit.empty(STUDENT, TEACHER)
    split.update(student[:cut], teacher[:cut])
    merged = split + fitted(student[cut:], teacher[cut:])
    split.update(student[cut:], teacher[cut:])
    for fit in (split, merged):
        assert fit.n_tokens == whole.n_tokens
        torch.testing.assert_close(fit.student, whole.student)
        torch.testing.assert_close(fit.cross, whole.cross)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_tokens_that_are_not_finite_are_left_out_of_the_fit(value):
    student, teacher = random(10, STUDENT), random(10, TEACHER, seed=1)
    clean = fitted(student[2:], teacher[2:])
    student[0, 1], teacher[1, 3] = value, value
    fit = fitted(student, teacher)
    assert fit.n_tokens == 8
    torch.testing.assert_close(fit.student, clean.student)
    torch.testing.assert_close(fit.cross, clean.cross)
